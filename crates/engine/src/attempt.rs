//! One attempt, from an arrival or a dialled connection to the end of its session.
//!
//! ```text
//!            deadline: connect        deadline: hello
//! arrival ---- connection's own ----- the network's -----> registry --> routine
//!              handshake              handshake
//! ```
//!
//! Each attempt runs in a scope of its own: a panic anywhere in it costs this peer. Each stage has its deadline, and the
//! cause says which one passed. Whoever is not let in is told why, where its transport can say it, and remembered for
//! those who ask.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::FutureExt as _;
use rookery_base::{
    CloseCause, Direction, Fault, Generation, PeerFault, PeerFaultKind, PeerId, Refusal, Weight,
};
use rookery_observe::metrics::Outcome;
use rookery_runtime::{Env, Instant, Scope};
use rookery_transport::{Arrival, Entering, Farewell, Mux, cause_of};
use tokio::sync::oneshot;

use crate::accounts::Passage;
use crate::engine::Shared;
use crate::registry::actor::Admitted;
use crate::registry::state::Candidate;
use crate::routine::{self, Start};
use crate::streams::last_words;
use crate::{Admit, Approach, PeerFacts, Precedence};

/// A session that a dial led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dialled {
    /// Its generation.
    pub generation: Generation,
    /// Who the peer is.
    pub peer: PeerId,
    /// The address on which it was reached.
    pub addr: SocketAddr,
}

/// Ends an attempt that has not registered yet.
#[derive(Debug, Clone)]
pub(crate) struct Stopper {
    scope: Scope,
    /// Why it was stopped; none: it is past the point where it can be.
    verdict: Arc<OnceLock<Option<CloseCause>>>,
}

impl Stopper {
    /// For the attempt that runs in this scope.
    pub fn new(scope: Scope) -> Self {
        Self { scope, verdict: Arc::default() }
    }

    /// Ends the attempt for this cause, unless it asks for its session already.
    pub fn stop(&self, cause: CloseCause) {
        if self.verdict.set(Some(cause)).is_ok() {
            self.scope.cancel();
        }
    }

    fn cause(&self) -> CloseCause {
        self.verdict.get().and_then(Clone::clone).unwrap_or(CloseCause::Shutdown)
    }

    /// From here on it cannot be stopped any more. An error is why it was.
    fn pass(&self) -> Result<(), CloseCause> {
        self.verdict.set(None).map_err(|_| self.cause())
    }
}

/// What an attempt begins with.
pub(crate) struct Attempt<T> {
    pub arrival: Arrival,
    pub direction: Direction,
    /// Named by the operator.
    pub reserved: bool,
    /// Deadline for the connection's own handshake.
    pub connect: Duration,
    /// Deadline for the network's handshake, where it is shorter than the network's own.
    pub hello: Duration,
    /// Where an arrival is counted; none for those that we dialled.
    pub passage: Option<Passage>,
    /// Who wants to know when there is a session.
    pub registered: Option<oneshot::Sender<Dialled>>,
    /// Who has answered, once that is proven; also where no session comes of it.
    pub who: Arc<OnceLock<PeerId>>,
    pub stopper: Stopper,
    /// Dropped when the handshake has ended, well or not.
    pub while_shaking: T,
}

impl<T> Attempt<T> {
    /// An attempt of this scope, with nobody who waits for its session.
    pub fn new(arrival: Arrival, direction: Direction, scope: &Scope, while_shaking: T) -> Self {
        Self {
            arrival,
            direction,
            reserved: false,
            connect: Duration::MAX,
            hello: Duration::MAX,
            passage: None,
            registered: None,
            who: Arc::default(),
            stopper: Stopper::new(scope.clone()),
            while_shaking,
        }
    }
}

/// Shakes hands, registers, and runs the session to its end. An error is why there was no session, the other cause is why
/// it ended.
pub(crate) fn run<T>(
    shared: &Arc<Shared>,
    env: Env,
    attempt: Attempt<T>,
) -> impl Future<Output = Result<CloseCause, CloseCause>> + use<T> {
    // Boxed, and before there is a future: so what a handshake needs is given back before the session, which may last for
    // weeks.
    let shaking = Box::pin(shake(Arc::clone(shared), env, attempt));
    async move {
        let session = routine::run(shaking.await?);
        Ok(session.await)
    }
}

/// Shakes hands and registers.
async fn shake<T>(shared: Arc<Shared>, env: Env, attempt: Attempt<T>) -> Result<Start, CloseCause> {
    let shared = &shared;
    let Attempt { arrival, direction, reserved, registered, while_shaking, .. } = attempt;
    let Attempt { connect, hello, passage, who, stopper, .. } = attempt;
    let (remote, unix) = (arrival.remote(), env.clock.unix());
    let mut tally = Tally { began: env.clock.now(), env: env.clone(), outcome: None };
    let farewell = None;
    let mut shaking =
        Shaking { shared, env, direction, reserved, connect, hello, passage, who, stopper, farewell };
    // A panic is an end like another, until all who have to know of it do.
    let ran = AssertUnwindSafe(shaking.run(arrival)).catch_unwind().await;
    let (start, panicked) = match ran {
        Ok(start) => (start, None),
        Err(panicked) => (Err(CloseCause::Panic), Some(panicked)),
    };
    if let Err(cause) = &start {
        shaking.hang_up(cause);
    }
    if let (Err(cause), Some(passage)) = (&start, shaking.passage.take()) {
        passage.end(cause);
    }
    tally.outcome = Some(start.as_ref().map_or_else(CloseCause::label, |_| "established"));
    drop(tally);
    drop(while_shaking);
    if let Err(cause) = &start {
        shared.refusals.note(remote, unix, cause);
    }
    if let Some(panicked) = panicked {
        resume_unwind(panicked);
    }
    if let Err(CloseCause::Fault(Fault::Peer(fault))) = &start
        && fault.weight == Weight::Ban
        && !reserved
    {
        let cause = CloseCause::Fault(fault.clone().into());
        shared.registry.ban(remote.ip(), None, cause).await;
    }
    let start = start?;
    if let Some(registered) = registered {
        let (generation, peer) = (start.handle.generation, start.established.facts.peer);
        // Whoever asked may have gone; the session stays, as any session does.
        let _ = registered.send(Dialled { generation, peer, addr: remote });
    }
    Ok(start)
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

struct Shaking<'a> {
    shared: &'a Arc<Shared>,
    env: Env,
    direction: Direction,
    reserved: bool,
    connect: Duration,
    hello: Duration,
    passage: Option<Passage>,
    who: Arc<OnceLock<PeerId>>,
    stopper: Stopper,
    /// How to tell whoever is not let in why, where its transport can say it.
    farewell: Option<Farewell>,
}

impl Shaking<'_> {
    /// Lets an arrival in, shakes hands and registers.
    async fn run(&mut self, arrival: Arrival) -> Result<Start, CloseCause> {
        let (clock, network) = (self.env.clock, &self.shared.network);
        let (connect, hello) = (self.connect, network.handshake_deadline().min(self.hello));
        let Entering { conn, farewell } = arrival.enter();
        self.farewell = farewell;
        let approach = |conn| Approach { conn, direction: self.direction, env: self.env.clone() };
        let shaking = async {
            let conn = clock.timeout(connect, conn).await;
            let conn = conn.ok_or_else(|| too_slow(PeerFaultKind::ConnectTimeout, "connection", connect))?;
            let conn = conn.map_err(|error| cause_of(&error))?;
            let mux = conn.mux();
            let shaken = clock.timeout(hello, network.handshake(approach(conn))).await;
            let late = || Err(too_slow(PeerFaultKind::HandshakeTimeout, "network", hello));
            match (shaken.unwrap_or_else(late), mux) {
                (Err(met), Some(mux)) => Err(last_words(clock, &*mux, met).await),
                (shaken, _) => shaken,
            }
        };
        let shaken = tokio::select! {
            biased;
            () = self.env.scope.cancelled() => Err(self.stopper.cause()),
            shaken = shaking => shaken,
        };
        let established = shaken.and_then(|established| self.stopper.pass().map(|()| established))?;
        let mux = established.mux.clone();
        match self.register(&established.facts, mux).await {
            Ok((admitted, session)) => Ok(Start {
                budget: self.shared.budget(self.direction),
                network: Arc::clone(&self.shared.network),
                table: self.shared.table.clone(),
                established,
                admitted,
                handle: session.handle,
                mail: session.mail,
                slot: session.slot,
                env: self.env.clone(),
            }),
            Err(cause) => {
                // While its streams are still there: a goodbye comes before their end.
                self.hang_up(&cause);
                Err(cause)
            }
        }
    }

    /// Tells whoever is not let in why, once.
    fn hang_up(&mut self, cause: &CloseCause) {
        if let Some(farewell) = self.farewell.take() {
            let (code, reason) = self.shared.network.goodbye(cause);
            farewell(code, &reason);
        }
    }

    async fn register(
        &mut self,
        facts: &PeerFacts,
        mux: Option<Arc<dyn Mux>>,
    ) -> Result<(Vec<bool>, Admitted), CloseCause> {
        let shared = self.shared;
        if facts.precedence != Precedence::NONE {
            let _ = self.who.set(facts.peer);
        }
        let mut admitted = Vec::new();
        for service in shared.network.services() {
            match service.admit(facts) {
                Admit::Yes => admitted.push(true),
                Admit::Without => admitted.push(false),
                Admit::No(why) => return Err(CloseCause::Refused(Refusal::Unwanted(why))),
            }
        }
        let candidate = Candidate {
            peer: facts.peer,
            addr: facts.addr,
            direction: self.direction,
            reserved: self.reserved,
            precedence: facts.precedence,
        };
        let passage = self.passage.take();
        let session = shared.registry.promote(candidate, facts.clone(), mux, passage).await?;
        Ok((admitted, session))
    }
}

/// A stage that did not end in time.
pub(crate) fn too_slow(kind: PeerFaultKind, whose: &str, deadline: Duration) -> CloseCause {
    let detail = format!("the {whose}'s handshake did not end within {} s", deadline.as_secs());
    CloseCause::Fault(PeerFault::close(kind, detail).into())
}
