//! Connects that an application asks for, and how any dial reaches an address.
//!
//! An application names every address that it knows of one peer. They are tried as RFC 8305 says: the families take turns,
//! IPv6 first; the next one begins when the one before has failed or after a quarter of a second; the first connection that comes
//! about wins, and the others are dropped. An address is tried again while what went wrong may pass (`tries`). IPv4-mapped
//! addresses are their IPv4 addresses, so they are not tried twice. What the application gets is a registered session, or
//! for each address why there is none. When another connection of the same two peers stays instead, it gets that one's
//! session.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use rookery_base::id::canonical_addr;
use rookery_base::{CloseCause, Direction, PeerFaultKind};
use rookery_runtime::{BackoffConfig, BoxFuture, Env, Instant, OnPanic};
use rookery_transport::{Arrival, Conn, cause_of};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::attempt::{self, Attempt, Dialled, too_slow};
use crate::engine::Shared;
use crate::network::ANOTHER_STAYS;
use crate::tries::{Tries, is_silence};
use crate::{Change, StateChange};

/// Head start of one address before the next; RFC 8305's.
const HEAD_START: Duration = Duration::from_millis(250);
/// Addresses that are tried for one peer: both families of four interfaces, twice.
const ADDRESSES: usize = 16;
/// Connects that an application may wait for at a time; more are refused at once.
const CONNECTS: usize = 1024;
/// Time for the session that stays instead of ours to be known here: it is a few round trips behind at most.
const SURVIVOR: Duration = Duration::from_secs(5);

/// How dials are paced.
#[derive(Debug, Clone, Copy)]
pub struct DialPace {
    /// Deadline for a connection to come about, every retry included.
    pub connect: Duration,
    /// How an address is tried again within the deadline, when what went wrong may pass; none: the next dial is the retry.
    pub retry: Option<BackoffConfig>,
    /// How long the first try may be silent, in its connection's handshake and again in the network's, before it is given up for
    /// another one; each has twice the time of the one before.
    pub patience: Duration,
    /// Named peers are first dialled within so much time, at random, so that nodes that start together do not dial together.
    pub jitter: Duration,
    /// Dials and handshakes that may be under way at a time; more wait for their turn, with their deadline not running.
    pub in_flight: usize,
}

impl DialPace {
    /// Over TCP. connect: hsd's. retry: none, because the kernel retries by itself, and a refusal is the other
    /// side's. patience: all there is, since there is one try. jitter: none, because few peers are named. in_flight:
    /// addresses that hang are a few per minute, and 64 of them leave room.
    pub const TCP: Self = Self {
        connect: Duration::from_secs(5),
        retry: None,
        patience: Duration::MAX,
        jitter: Duration::ZERO,
        in_flight: 64,
    };

    /// Over QUIC, where all cryptography runs before there is a connection. connect: longer than a storm
    /// of some thousands of handshakes takes the server, because a dial that gives up before wastes what the server has
    /// done for it. retry: a refusal is a full door, which is free again soon; the steps leave a dozen tries in the
    /// deadline. patience: longer than a handshake takes that a storm of a thousand or a lossy line delays; the second try then has
    /// all the time that is left. jitter: as long as a first round trip may take. in_flight: at three retransmitted flights of 1.2 kB each,
    /// what a default receive buffer holds.
    pub const QUIC: Self = Self {
        connect: Duration::from_secs(30),
        retry: Some(BackoffConfig {
            first: Duration::from_millis(250),
            most: Duration::from_secs(4),
            reset_after: Duration::MAX,
        }),
        patience: Duration::from_secs(10),
        jitter: Duration::from_millis(333),
        in_flight: 64,
    };
}

/// Why a connect led to no session: for each address that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DialError {
    /// The addresses, and what came of each. Empty: none was given.
    pub tried: Vec<(SocketAddr, CloseCause)>,
}

impl DialError {
    /// The same of every address.
    pub(crate) fn all(addrs: &[SocketAddr], cause: &CloseCause) -> Self {
        Self { tried: addrs.iter().map(|addr| (*addr, cause.clone())).collect() }
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no session")?;
        for (n, (addr, cause)) in self.tried.iter().enumerate() {
            write!(f, "{} {addr}: {cause}", if n == 0 { ":" } else { ";" })?;
        }
        Ok(())
    }
}

impl std::error::Error for DialError {}

/// What all dials of an engine share.
#[derive(Debug, Clone)]
pub(crate) struct Dials {
    pub pace: DialPace,
    in_flight: Arc<Semaphore>,
    connects: Arc<Semaphore>,
}

/// What became of an address that could not be reached.
pub(crate) struct Unreached {
    /// `timeout` or `unreachable`.
    pub outcome: &'static str,
    pub cause: CloseCause,
}

impl Dials {
    pub fn new(pace: DialPace) -> Self {
        let semaphore = |most| Arc::new(Semaphore::new(most));
        Self { pace, in_flight: semaphore(pace.in_flight.max(1)), connects: semaphore(CONNECTS) }
    }

    /// Waits for its turn, then connects, in as many tries as are left. The permit is to be held until the handshake has ended.
    pub async fn reach(
        &self,
        shared: &Shared,
        env: &Env,
        addr: SocketAddr,
        tries: &Tries,
    ) -> Result<(Conn, OwnedSemaphorePermit), Unreached> {
        let closed = |_| Unreached { outcome: "stopped", cause: CloseCause::Shutdown };
        let permit = Arc::clone(&self.in_flight).acquire_owned().await.map_err(closed)?;
        loop {
            let within = tries.next(env.clock.now());
            let cause = match env.clock.timeout(within, shared.transport.dial(addr)).await {
                Some(Ok(conn)) => return Ok((conn, permit)),
                Some(Err(error)) => cause_of(&error),
                None => too_slow(PeerFaultKind::ConnectTimeout, "connection", within),
            };
            match tries.again(cause, env.clock.now()) {
                Ok(wait) => env.clock.sleep(wait).await,
                Err(cause) => {
                    let outcome = if is_silence(&cause) { "timeout" } else { "unreachable" };
                    return Err(Unreached { outcome, cause });
                }
            }
        }
    }

    fn target(&self, env: &Env, addr: SocketAddr) -> Target {
        Target { addr, tries: self.tries(env, addr), at: env.clock.now() }
    }

    /// The tries of a dial of this address.
    pub fn tries(&self, env: &Env, addr: SocketAddr) -> Tries {
        Tries::new(&self.pace, env, u64::from(addr.port()) ^ env.clock.elapsed().as_nanos() as u64)
    }

    /// Connects to a peer at one of these addresses. Dropping the future gives up, unless there is a session already.
    pub async fn connect(&self, shared: &Arc<Shared>, addrs: Vec<SocketAddr>) -> Result<Dialled, DialError> {
        let addrs = in_order(addrs);
        let Ok(place) = Arc::clone(&self.connects).try_acquire_owned() else {
            return Err(DialError::all(
                &addrs,
                &CloseCause::Dropped("too many connects wait already".into()),
            ));
        };
        let (tell, told) = oneshot::channel();
        let connect = Connect {
            shared: Arc::clone(shared),
            env: shared.env.within(shared.env.scope.child("peer")),
            dials: self.clone(),
            left: addrs.iter().map(|addr| self.target(&shared.env, *addr)).collect(),
            tried: Vec::new(),
        };
        let scope = connect.env.scope.clone();
        scope.spawn_to_end("peer", OnPanic::EndScope, connect.run(tell, place));
        let unsaid =
            || if shared.env.scope.is_cancelled() { CloseCause::Shutdown } else { CloseCause::Panic };
        told.await.unwrap_or_else(|_| Err(DialError::all(&addrs, &unsaid())))
    }
}

/// The order in which a peer's addresses are tried: no address twice, IPv6 and IPv4 in turns.
fn in_order(addrs: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let mut unique: Vec<SocketAddr> = Vec::new();
    for addr in addrs.into_iter().map(canonical_addr) {
        if !unique.contains(&addr) {
            unique.push(addr);
        }
    }
    let (mut v6, mut v4): (VecDeque<_>, VecDeque<_>) = unique.into_iter().partition(SocketAddr::is_ipv6);
    let mut ordered = Vec::new();
    while ordered.len() < ADDRESSES && !(v6.is_empty() && v4.is_empty()) {
        ordered.extend(v6.pop_front());
        ordered.extend(v4.pop_front());
    }
    ordered.truncate(ADDRESSES);
    ordered
}

/// The session that stays instead of one that lost against it.
pub(crate) async fn survivor(shared: &Shared, which: impl Fn(&StateChange) -> bool) -> Option<Dialled> {
    let mut watch = shared.registry.watch();
    let found = async {
        while let Some(told) = watch.next().await {
            if told.change == Change::Connected && which(&told) {
                let (peer, addr) = (told.facts.peer, told.facts.addr);
                return Some(Dialled { generation: told.generation, peer, addr });
            }
        }
        None
    };
    shared.env.clock.timeout(SURVIVOR, found).await.flatten()
}

/// The session that stays instead of one with `addr`, given how that one ended; none: it did not lose, or the winner is not
/// known here. The other side does not say which connection it kept, so its address has to tell.
pub(crate) async fn instead(shared: &Shared, addr: SocketAddr, cause: &CloseCause) -> Option<Dialled> {
    match cause {
        CloseCause::Duplicate(winner) => survivor(shared, |told| told.generation == *winner).await,
        CloseCause::ByPeer { code: ANOTHER_STAYS, .. } => {
            let ip = canonical_addr(addr).ip();
            survivor(shared, |told| canonical_addr(told.facts.addr).ip() == ip).await
        }
        _ => None,
    }
}

type Reached = Result<(Conn, OwnedSemaphorePermit), Unreached>;
type Reaching = BoxFuture<'static, Reached>;

/// One connect that an application waits for.
struct Connect {
    shared: Arc<Shared>,
    env: Env,
    dials: Dials,
    /// Addresses that are still to be tried, and not before when.
    left: VecDeque<Target>,
    tried: Vec<(SocketAddr, CloseCause)>,
}

/// An address, and what is left of its dial.
#[derive(Clone)]
struct Target {
    addr: SocketAddr,
    tries: Tries,
    /// Not before.
    at: Instant,
}

impl Connect {
    async fn run(
        mut self,
        mut tell: oneshot::Sender<Result<Dialled, DialError>>,
        place: OwnedSemaphorePermit,
    ) {
        let scope = self.env.scope.clone();
        loop {
            let reached = tokio::select! {
                biased;
                () = scope.cancelled() => return,
                () = tell.closed() => return,
                reached = self.race() => reached,
            };
            let Some((Target { addr, tries, .. }, conn, permit)) = reached else { break };
            let (registered, mut session) = oneshot::channel();
            let env = self.env.within(scope.child("peer"));
            let begun = Attempt {
                registered: Some(registered),
                hello: tries.hello(),
                ..Attempt::new(Arrival::Ready(conn), Direction::Outbound, &env.scope, permit)
            };
            let mut running = pin!(attempt::run(&self.shared, env, begun));
            let ended = tokio::select! {
                biased;
                Ok(dialled) = &mut session => {
                    drop(place);
                    // Whoever asked may have gone; the session stays, as any session does.
                    let _ = tell.send(Ok(dialled));
                    let cause = running.await;
                    tracing::debug!(%addr, ?cause, "a session that was asked for has ended");
                    return;
                }
                ended = &mut running => ended,
                () = tell.closed() => {
                    // Nobody waits any more. A session that has begun stays, as any session does.
                    if session.try_recv().is_ok() {
                        let _ = running.await;
                    }
                    return;
                }
            };
            let (Ok(cause) | Err(cause)) = ended;
            if let Some(winner) = instead(&self.shared, addr, &cause).await {
                let _ = tell.send(Ok(winner));
                return;
            }
            match tries.again(cause, self.env.clock.now()) {
                Ok(wait) => {
                    let at = self.env.clock.now() + wait;
                    self.left.push_back(Target { addr, tries, at });
                }
                Err(cause) => self.tried.push((addr, cause)),
            }
        }
        let _ = tell.send(Err(DialError { tried: self.tried }));
    }

    /// The first connection that comes about; none when every address has failed.
    async fn race(&mut self) -> Option<(Target, Conn, OwnedSemaphorePermit)> {
        let clock = self.env.clock;
        let mut going: Vec<(Target, Reaching)> = Vec::new();
        let mut next = clock.now();
        loop {
            if next <= clock.now()
                && let Some(target) = self.left.pop_front()
            {
                let reaching = self.reaching(target.clone());
                going.push((target, reaching));
                next = clock.now() + HEAD_START;
            }
            if going.is_empty() {
                return None;
            }
            let waits = !self.left.is_empty();
            let (target, reached) = tokio::select! {
                biased;
                first = first_of(&mut going) => first,
                () = clock.sleep_until(next), if waits => continue,
            };
            match reached {
                Ok((conn, permit)) => {
                    // Should nothing come of this connection, the losers have another turn, with what is left of their time.
                    self.left.extend(going.into_iter().map(|(target, _)| target));
                    return Some((target, conn, permit));
                }
                Err(Unreached { cause, .. }) => {
                    self.shared.refusals.note(target.addr, self.env.clock.unix(), &cause);
                    self.tried.push((target.addr, cause));
                    next = clock.now();
                }
            }
        }
    }

    fn reaching(&self, target: Target) -> Reaching {
        let (shared, env, dials) = (Arc::clone(&self.shared), self.env.clone(), self.dials.clone());
        let Target { addr, tries, at } = target;
        Box::pin(async move {
            env.clock.sleep_until(at).await;
            dials.reach(&shared, &env, addr, &tries).await
        })
    }
}

async fn first_of(going: &mut Vec<(Target, Reaching)>) -> (Target, Reached) {
    poll_fn(|cx| {
        for n in 0..going.len() {
            if let Poll::Ready(reached) = going[n].1.as_mut().poll(cx) {
                return Poll::Ready((going.remove(n).0, reached));
            }
        }
        Poll::Pending
    })
    .await
}

/// When a named peer is dialled first.
pub(crate) fn first_dial(pace: &DialPace, now: Instant, draw: impl FnOnce() -> f64) -> Instant {
    if pace.jitter.is_zero() { now } else { now + pace.jitter.mul_f64(draw()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Row 16: mapped addresses are one peer's one address, and neither family can starve the other.
    #[test]
    fn addresses_take_turns_and_mapped_ones_are_not_tried_twice() {
        let addr = |text: &str| -> SocketAddr { text.parse().unwrap() };
        let given = [
            "1.1.1.1:1",
            "[::ffff:1.1.1.1]:1",
            "2.2.2.2:1",
            "[2001:db8::1]:1",
            "3.3.3.3:1",
            "[2001:db8::2]:1",
        ];
        let ordered = ["[2001:db8::1]:1", "1.1.1.1:1", "[2001:db8::2]:1", "2.2.2.2:1", "3.3.3.3:1"];
        assert_eq!(in_order(given.map(addr).to_vec()), ordered.map(addr));
        let many = (1..100).map(|port| SocketAddr::from(([1, 1, 1, 1], port))).collect();
        assert_eq!(in_order(many).len(), ADDRESSES);
    }
}
