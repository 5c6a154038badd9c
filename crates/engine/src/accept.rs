//! The accept path. One loop takes the arrivals of all listeners. It awaits nothing but the next arrival and the tickets
//! of its own handshakes: no peer, no registry, no lock that anybody holds while it waits. What becomes of an arrival is
//! [`admission`](crate::admission)'s to say, at once: it is asked to prove its address, refused, ignored, or becomes an
//! attempt in a scope of its own, perhaps in the place of another one.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;
use rookery_base::{CloseCause, Direction, Refusal};
use rookery_observe::metrics::Why;
use rookery_runtime::ticket::tickets;
use rookery_runtime::{BoxFuture, Instant, OnPanic, Returns, TicketOffice, TokenBucket};
use rookery_transport::{Arrival, Listener};

use crate::admission::{Admission, AttemptId, HandshakeLimits, Verdict};
use crate::attempt::{self, Attempt, Stopper};
use crate::engine::Shared;

/// After the process ran out of descriptors, accepting again at once would only spin.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);
/// Arrivals that are taken in a row before handshakes that have ended are looked at again, and other listeners.
const BATCH: usize = 64;

/// Refusals that are said in a second; who is refused above that is told nothing, and finds out by its deadline. At the 0.05 ms
/// that one costs us, a fifth of a core.
const TOLD: u32 = 4_096;

/// The loop.
pub(crate) struct Acceptor {
    shared: Arc<Shared>,
    limits: HandshakeLimits,
    admission: Admission,
    office: TicketOffice<AttemptId>,
    returns: Returns<AttemptId>,
    /// How to end the handshakes that are under way.
    stoppers: BTreeMap<AttemptId, Stopper>,
    pause: Option<Instant>,
    /// What may still be said to those who are turned away.
    told: TokenBucket,
}

impl Acceptor {
    pub fn new(shared: Arc<Shared>, limits: HandshakeLimits) -> Self {
        // Twice the limit: a handshake that was ended to make room holds its ticket until its task has run, and one that
        // asks for its session already cannot be ended any more.
        let (office, returns) = tickets(2 * limits.total);
        let now = shared.env.clock.now();
        let (admission, told) = (Admission::new(limits, now), TokenBucket::new(f64::from(TOLD), TOLD, now));
        Self { shared, limits, admission, office, returns, stoppers: BTreeMap::new(), pause: None, told }
    }

    pub async fn run(mut self, listeners: Vec<Box<dyn Listener>>) {
        let clock = self.shared.env.clock;
        let mut doors = Doors(listeners.into_iter().map(next_of).collect());
        loop {
            let pause = self.pause;
            tokio::select! {
                biased;
                id = self.returns.next() => self.over(id),
                () = clock.sleep_until(pause.unwrap_or_else(|| clock.now())), if pause.is_some() => self.pause = None,
                (mut listener, first) = poll_fn(|cx| doors.poll(cx)), if pause.is_none() => {
                    self.take(first);
                    for _ in 1..BATCH {
                        if self.pause.is_some() {
                            break;
                        }
                        let Some(next) = poll_once(listener.accept()).await else { break };
                        self.take(next);
                    }
                    doors.0.push(next_of(listener));
                },
            }
        }
    }

    fn take(&mut self, arrival: io::Result<Arrival>) {
        self.shared.env.metrics.accept_total.inc();
        let passage = self.shared.accounts.arrival();
        let arrival = match arrival {
            Ok(arrival) => arrival,
            Err(error) => {
                passage.end(&self.refusal(Refusal::AcceptError));
                if !concerns_one_arrival(error.kind()) {
                    tracing::warn!(%error, "cannot accept connections");
                    self.pause = Some(self.shared.env.clock.now() + EXHAUSTED_PAUSE);
                }
                return;
            }
        };
        let (remote, now) = (arrival.remote(), self.shared.env.clock.now());
        let banned = self.shared.registry.doors.borrow().refuses(remote.ip(), now);
        match self.admission.judge(remote.ip(), arrival.validated(), banned, now) {
            Verdict::Admit(id, instead) => {
                if let Some(victim) = instead.and_then(|victim| self.stoppers.remove(&victim)) {
                    victim.stop(CloseCause::Refused(Refusal::HandshakeEvicted));
                }
                let Some(ticket) = self.office.issue(id) else {
                    self.admission.ended(id);
                    passage.end(&self.turn_away(arrival, remote, Refusal::Handshakes, now));
                    return;
                };
                if let Some(waits) = arrival.waits() {
                    self.admission.told_by(id, waits.clone());
                }
                self.shared.env.trace("accept", 0, 0, 0, "handshake");
                let env = self.shared.env.within(self.shared.env.scope.child("peer"));
                let attempt = Attempt {
                    connect: self.limits.connect,
                    passage: Some(passage),
                    ..Attempt::new(arrival, Direction::Inbound, &env.scope, ticket)
                };
                self.stoppers.insert(id, attempt.stopper.clone());
                let scope = env.scope.clone();
                let session = attempt::run(&self.shared, env, attempt).map(move |ended| {
                    if let Err(cause) = ended {
                        tracing::debug!(%remote, %cause, "no session");
                    }
                });
                scope.spawn_to_end("peer", OnPanic::EndScope, session);
            }
            Verdict::Refuse(why) => passage.end(&self.turn_away(arrival, remote, why, now)),
            Verdict::Retry => {
                if let Arrival::Pending(pending) = arrival {
                    pending.retry();
                }
                passage.retried();
            }
            Verdict::Ignore => {
                if let Arrival::Pending(pending) = arrival {
                    pending.ignore();
                }
                passage.ignored();
            }
        }
    }

    /// A handshake is over: its place is free, unless it was lost to another one before.
    fn over(&mut self, id: AttemptId) {
        self.admission.ended(id);
        self.stoppers.remove(&id);
    }

    fn turn_away(&mut self, arrival: Arrival, remote: SocketAddr, why: Refusal, now: Instant) -> CloseCause {
        let cause = self.refusal(why);
        self.shared.refusals.note(remote, self.shared.env.clock.unix(), &cause);
        if let Arrival::Pending(pending) = arrival {
            match self.told.take(now) {
                Ok(()) => pending.refuse(),
                Err(_) => pending.ignore(),
            }
        }
        cause
    }

    fn refusal(&self, refusal: Refusal) -> CloseCause {
        let why = refusal.label();
        self.shared.env.metrics.accept_refused.get_or_create(&Why { why }).inc();
        self.shared.env.trace("accept", 0, 0, 0, why);
        CloseCause::Refused(refusal)
    }
}

type NextOf = BoxFuture<'static, (Box<dyn Listener>, io::Result<Arrival>)>;

/// A listener that is waited on; it comes back with its arrival.
fn next_of(mut listener: Box<dyn Listener>) -> NextOf {
    Box::pin(async move {
        let arrival = listener.accept().await;
        (listener, arrival)
    })
}

/// The listeners, each waited on. One that had something goes to the end of the line.
struct Doors(Vec<NextOf>);

impl Doors {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<(Box<dyn Listener>, io::Result<Arrival>)> {
        for n in 0..self.0.len() {
            if let Poll::Ready(ready) = self.0[n].as_mut().poll(cx) {
                drop(self.0.remove(n));
                return Poll::Ready(ready);
            }
        }
        Poll::Pending
    }
}

/// The future's output if it is there already.
async fn poll_once<T>(mut future: BoxFuture<'_, T>) -> Option<T> {
    poll_fn(|cx| {
        Poll::Ready(match future.as_mut().poll(cx) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        })
    })
    .await
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
