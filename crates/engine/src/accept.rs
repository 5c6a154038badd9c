//! The accept path. The loop awaits nothing but the next arrival and the tickets of its own handshakes: no lock, no
//! peer, no registry. An arrival becomes a handshake task or is refused and counted, at once.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rookery_base::id::canonical_ip;
use rookery_base::{AddrGroup, CloseCause, Direction, Fault, Refusal, Weight};
use rookery_observe::metrics::{Outcome, Why};
use rookery_runtime::ticket::tickets;
use rookery_runtime::{Env, Instant, OnPanic, Returns, Ticket, TicketOffice};
use rookery_transport::{Arrival, Listener, cause_of};

use crate::engine::Shared;
use crate::registry::state::Candidate;
use crate::routine::{self, Start};
use crate::{Admit, Approach, Established};

/// Handshakes that peers may have under way.
#[derive(Debug, Clone, Copy)]
pub struct HandshakeLimits {
    /// In all. Each holds one connection and some kilobytes for at most the handshake deadline.
    pub total: usize,
    /// From one IP.
    pub per_ip: usize,
    /// From one address group.
    pub per_group: usize,
}

impl HandshakeLimits {
    /// For a public node: twice as many as there are slots, and no address or group can hold them all.
    pub const PUBLIC: Self = Self { total: 128, per_ip: 4, per_group: 32 };
    /// For loopback, where all peers share an address.
    pub const LOCAL: Self = Self { total: 1024, per_ip: 1024, per_group: 1024 };
}

/// After the process ran out of descriptors, accepting again at once would only spin.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// One bound listener's loop.
pub(crate) struct Acceptor {
    shared: Arc<Shared>,
    limits: HandshakeLimits,
    office: TicketOffice<IpAddr>,
    returns: Returns<IpAddr>,
    by_ip: BTreeMap<IpAddr, usize>,
    by_group: BTreeMap<AddrGroup, usize>,
    pause: Option<Instant>,
}

impl Acceptor {
    pub fn new(shared: Arc<Shared>, limits: HandshakeLimits) -> Self {
        let (office, returns) = tickets(limits.total);
        Self {
            shared,
            limits,
            office,
            returns,
            by_ip: BTreeMap::new(),
            by_group: BTreeMap::new(),
            pause: None,
        }
    }

    pub async fn run(mut self, mut listener: Box<dyn Listener>) {
        let clock = self.shared.env.clock;
        loop {
            let pause = self.pause;
            tokio::select! {
                biased;
                ip = self.returns.next() => self.release(ip),
                () = clock.sleep_until(pause.unwrap_or_else(|| clock.now())), if pause.is_some() => self.pause = None,
                arrival = listener.accept(), if pause.is_none() => match arrival {
                    Ok(arrival) => self.arrival(arrival),
                    Err(error) => {
                        self.shared.env.metrics.accept_total.inc();
                        self.refuse("accept_error");
                        if !concerns_one_arrival(error.kind()) {
                            tracing::warn!(%error, "cannot accept connections");
                            self.pause = Some(clock.now() + EXHAUSTED_PAUSE);
                        }
                    }
                },
            }
        }
    }

    fn arrival(&mut self, arrival: Arrival) {
        self.shared.env.metrics.accept_total.inc();
        match self.judge(arrival.remote()) {
            Ok(ticket) => {
                self.shared.env.trace("accept", 0, 0, 0, "handshake");
                spawn_attempt(&self.shared, arrival, Direction::Inbound, false, ticket);
            }
            Err(why) => self.refuse(why),
        }
    }

    fn judge(&mut self, remote: SocketAddr) -> Result<Ticket<IpAddr>, &'static str> {
        let (ip, group) = (canonical_ip(remote.ip()), AddrGroup::of(remote.ip()));
        if self.shared.registry.doors.borrow().refuses(ip, self.shared.env.clock.now()) {
            return Err("banned");
        }
        let from_ip = self.by_ip.get(&ip).copied().unwrap_or(0);
        if from_ip >= self.limits.per_ip {
            return Err("handshakes_per_ip");
        }
        if self.by_group.get(&group).copied().unwrap_or(0) >= self.limits.per_group {
            return Err("handshakes_per_group");
        }
        let ticket = self.office.issue(ip).ok_or("handshakes")?;
        *self.by_ip.entry(ip).or_default() += 1;
        *self.by_group.entry(group).or_default() += 1;
        Ok(ticket)
    }

    fn release(&mut self, ip: IpAddr) {
        take_one(&mut self.by_ip, ip);
        take_one(&mut self.by_group, AddrGroup::of(ip));
    }

    fn refuse(&self, why: &'static str) {
        self.shared.env.metrics.accept_refused.get_or_create(&Why { why }).inc();
        self.shared.env.trace("accept", 0, 0, 0, why);
    }
}

/// Whether accepting failed because that one connection was gone already. Then the next is tried at once: a pause for
/// each would let anybody who resets connections slow the accepting of all others.
const fn concerns_one_arrival(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::NotConnected
            | ErrorKind::BrokenPipe
            | ErrorKind::InvalidInput
            | ErrorKind::Interrupted
    )
}

fn take_one<K: Ord>(counts: &mut BTreeMap<K, usize>, key: K) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

/// Starts one attempt, from connection to the end of its session, in a scope of its own: a panic anywhere in it
/// costs this peer. `while_shaking` is dropped when the handshake has ended, well or not.
pub(crate) fn spawn_attempt<T: Send + 'static>(
    shared: &Arc<Shared>,
    arrival: Arrival,
    direction: Direction,
    reserved: bool,
    while_shaking: Ticket<T>,
) {
    let env = shared.env.within(shared.env.scope.child("peer"));
    let shared = Arc::clone(shared);
    env.scope.clone().spawn_to_end("peer", OnPanic::EndScope, async move {
        let attempted = attempt(&shared, env.clone(), arrival, direction, reserved, while_shaking).await;
        if let Err(cause) = attempted {
            tracing::debug!(%cause, direction = direction.label(), "attempt failed");
        }
    });
}

/// Shakes hands, registers, and runs the session to its end. An error is why there was no session, the other cause is why
/// it ended.
pub(crate) async fn attempt<T>(
    shared: &Arc<Shared>,
    env: Env,
    arrival: Arrival,
    direction: Direction,
    reserved: bool,
    while_shaking: T,
) -> Result<CloseCause, CloseCause> {
    let remote = arrival.remote();
    let mut tally = Tally { began: env.clock.now(), env: env.clone(), outcome: None };
    let start = shake(shared, env, arrival, direction, reserved).await;
    tally.outcome = Some(start.as_ref().map_or_else(CloseCause::label, |_| "established"));
    drop(tally);
    drop(while_shaking);
    if let Err(CloseCause::Fault(Fault::Peer(fault))) = &start
        && fault.weight == Weight::Ban
        && !reserved
    {
        let cause = CloseCause::Fault(fault.clone().into());
        shared.registry.ban(remote.ip(), None, cause).await;
    }
    Ok(routine::run(start?).await)
}

/// Counts an attempt that came as far as a connection exactly once, by how it ended: with a session, or why not,
/// whether it returned, was dropped or panicked.
struct Tally {
    env: Env,
    began: Instant,
    outcome: Option<&'static str>,
}

impl Drop for Tally {
    fn drop(&mut self) {
        let unsaid = if std::thread::panicking() { CloseCause::Panic } else { CloseCause::Shutdown };
        let outcome = self.outcome.unwrap_or(unsaid.label());
        let took = self.env.clock.now().saturating_duration_since(self.began);
        self.env.metrics.handshakes.get_or_create(&Outcome { outcome }).inc();
        self.env.metrics.handshake_seconds.get_or_create(&Outcome { outcome }).observe(took.as_secs_f64());
        self.env.trace("handshake", 0, 0, 0, outcome);
    }
}

/// Lets an arrival in, shakes hands and registers. Whoever is not let in is told why, where its transport can say it.
async fn shake(
    shared: &Arc<Shared>,
    env: Env,
    arrival: Arrival,
    direction: Direction,
    reserved: bool,
) -> Result<Start, CloseCause> {
    let mut mux = None;
    let deadline = shared.network.handshake_deadline();
    let shaking = async {
        let conn = arrival.connect().await.map_err(|error| cause_of(&error))?;
        mux = conn.mux();
        shared.network.handshake(Approach { conn, direction, env: env.clone() }).await
    };
    let shaken = tokio::select! {
        biased;
        () = env.scope.cancelled() => Err(CloseCause::Shutdown),
        shaken = env.clock.timeout(deadline, shaking) => shaken.unwrap_or_else(|| Err(too_slow(deadline))),
    };
    let start = match shaken {
        Ok(established) => register(shared, env, established, direction, reserved).await,
        Err(cause) => Err(cause),
    };
    if let (Err(cause), Some(mux)) = (&start, mux) {
        let (code, reason) = shared.network.goodbye(cause);
        mux.close(code, &reason);
    }
    start
}

async fn register(
    shared: &Arc<Shared>,
    env: Env,
    established: Established,
    direction: Direction,
    reserved: bool,
) -> Result<Start, CloseCause> {
    let facts = &established.facts;
    let mut admitted = Vec::new();
    for service in shared.network.services() {
        match service.admit(facts) {
            Admit::Yes => admitted.push(true),
            Admit::Without => admitted.push(false),
            Admit::No(why) => return Err(CloseCause::Refused(Refusal::Unwanted(why))),
        }
    }
    let candidate = Candidate { peer: facts.peer, addr: facts.addr, direction, reserved };
    let mut session = shared.registry.promote(candidate, facts.clone()).await?;
    session.handle.mux.clone_from(&established.mux);
    Ok(Start {
        budget: shared.budget(direction),
        network: Arc::clone(&shared.network),
        table: shared.table.clone(),
        established,
        admitted,
        handle: session.handle,
        mail: session.mail,
        slot: session.slot,
        env,
    })
}

fn too_slow(deadline: Duration) -> CloseCause {
    let detail = format!("the handshake did not end within {} s", deadline.as_secs());
    let kind = rookery_base::PeerFaultKind::HandshakeTimeout;
    CloseCause::Fault(rookery_base::PeerFault::close(kind, detail).into())
}
