//! The registry's loop, and the handle that asks it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rookery_base::id::{canonical_addr, canonical_ip};
use rookery_base::{CloseCause, Direction, Generation, PeerId, Refusal};
use rookery_observe::metrics::{Way, Why};
use rookery_runtime::ticket::tickets;
use rookery_runtime::{Env, Instant, OnPanic, Returns, Ticket, TicketOffice};
use rookery_transport::Mux;
use tokio::sync::{mpsc, oneshot, watch};

use super::SessionLimits;
use super::state::{Candidate, ClosedSession, Decision, RegistryState, SessionEnd};
use super::watch::{StateBoard, StateWatch};
use crate::accounts::Passage;
use crate::session::{Closer, MAIL, Mail, PeerHandle, PeerView};
use crate::{Ledger, PeerFacts};

/// Questions that wait. Each asker waits for its answer before it asks again; more askers than this wait in line.
const ASKS: usize = 256;

/// What a candidate gets when it is admitted.
pub(crate) struct Admitted {
    pub handle: PeerHandle,
    pub mail: mpsc::Receiver<Mail>,
    pub slot: Ticket<SessionEnd>,
}

/// What the accept loop and the dialer may know without asking. Published when a ban is made or lifted, not when one
/// runs out and not for every session: each ban carries its own end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Doors {
    banned: Arc<BTreeMap<IpAddr, Instant>>,
}

impl Doors {
    /// Whether an address is refused now.
    pub fn refuses(&self, ip: IpAddr, now: Instant) -> bool {
        self.banned.get(&canonical_ip(ip)).is_some_and(|until| *until > now)
    }
}

/// A finished handshake that wants to be a session.
struct Request {
    candidate: Candidate,
    facts: Arc<PeerFacts>,
    mux: Option<Arc<dyn Mux>>,
    passage: Option<Passage>,
}

/// A question.
enum Ask {
    Promote(Box<Request>, oneshot::Sender<Result<Admitted, CloseCause>>),
    Peers(oneshot::Sender<Vec<PeerView>>),
    Session(PeerId, oneshot::Sender<Option<PeerHandle>>),
    Find(SocketAddr, oneshot::Sender<Found>),
    Closed(oneshot::Sender<Vec<ClosedSession>>),
    Close(SocketAddr, CloseCause, oneshot::Sender<usize>),
    Ban(IpAddr, Option<Duration>, CloseCause, oneshot::Sender<usize>),
    Unban(IpAddr, oneshot::Sender<bool>),
    Bans(oneshot::Sender<Vec<(IpAddr, Duration)>>),
    Audit(oneshot::Sender<RegistryAudit>),
    /// Answered by letting go of the sender, when the session has ended.
    Ended(Generation, oneshot::Sender<()>),
}

/// What is known of an address.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub live: Vec<(PeerView, PeerHandle)>,
    pub closed: Vec<ClosedSession>,
    pub banned: Option<Duration>,
}

/// Counts for invariants: what the registry believes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegistryAudit {
    /// Sessions, leaving ones included.
    pub slots: usize,
    /// Inbound sessions that stay.
    pub inbound: usize,
    /// Outbound sessions that stay.
    pub outbound: usize,
}

/// Asks the registry.
#[derive(Clone)]
pub(crate) struct RegistryHandle {
    asks: mpsc::Sender<Ask>,
    pub doors: watch::Receiver<Doors>,
    board: StateBoard,
}

/// A live session, as far as views go.
struct Held {
    handle: PeerHandle,
    facts: PeerView,
    since: Instant,
}

/// The owner of the table.
pub(crate) struct Registry {
    env: Env,
    state: RegistryState,
    office: TicketOffice<SessionEnd>,
    returns: Returns<SessionEnd>,
    /// The generation's handle and facts; the same keys as the state's live sessions.
    held: BTreeMap<Generation, Held>,
    /// Who waits for the end of a session: dialers of named peers, so at most one per named peer.
    waiting: BTreeMap<Generation, Vec<oneshot::Sender<()>>>,
    /// The node stops: nobody is admitted any more.
    stopping: bool,
    asks: mpsc::Receiver<Ask>,
    doors: watch::Sender<Doors>,
    board: StateBoard,
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.board.over();
    }
}

impl Registry {
    /// Starts the registry. A panic in it stops the node. When the node stops it admits nobody any more, and ends once
    /// the last session has given its slot back, so that every end is counted.
    pub fn start(env: &Env, limits: SessionLimits, local: Option<rookery_base::PeerId>) -> RegistryHandle {
        let (asks, inbox) = mpsc::channel(ASKS);
        let (doors, watch) = watch::channel(Doors::default());
        // Twice the limits: a session that was closed to make room holds its slot until its routine has ended.
        let (office, returns) = tickets(2 * (limits.inbound + limits.outbound));
        let board = StateBoard::default();
        let registry = Self {
            env: env.clone(),
            state: RegistryState::new(limits, local),
            office,
            returns,
            held: BTreeMap::new(),
            waiting: BTreeMap::new(),
            stopping: false,
            asks: inbox,
            doors,
            board: board.clone(),
        };
        env.scope.spawn_to_end("registry", OnPanic::StopNode, registry.run());
        RegistryHandle { asks, doors: watch, board }
    }

    async fn run(mut self) {
        while !self.stopping || self.state.slots() > 0 {
            // Ends first: a slot that is free must be seen as free by whoever asks next.
            tokio::select! {
                biased;
                end = self.returns.next() => self.ended(end),
                () = self.env.scope.cancelled(), if !self.stopping => self.stopping = true,
                ask = self.asks.recv() => match ask {
                    Some(ask) => self.answer(ask),
                    None => return,
                },
            }
        }
    }

    fn answer(&mut self, ask: Ask) {
        let now = self.env.clock.now();
        // Whoever asked may have gone: then the answer is dropped, and with it a slot that was just issued.
        match ask {
            Ask::Promote(request, tell) => {
                let _ = tell.send(self.promote(*request));
            }
            Ask::Peers(tell) => {
                let _ = tell.send(self.views());
            }
            Ask::Session(peer, tell) => {
                let held = self.state.session_of(&peer).and_then(|generation| self.held.get(&generation));
                let _ = tell.send(held.map(|held| held.handle.clone()));
            }
            Ask::Find(addr, tell) => {
                let _ = tell.send(self.find(addr));
            }
            Ask::Closed(tell) => {
                let _ = tell.send(self.state.closed().cloned().collect());
            }
            Ask::Close(addr, cause, tell) => {
                let _ = tell.send(self.close(|handle| matches(addr, handle.addr), &cause));
            }
            Ask::Ban(ip, lasts, cause, tell) => {
                self.state.ban(ip, now, lasts.unwrap_or(self.state.usual_ban()));
                let closed = self.close(|handle| matches(SocketAddr::new(ip, 0), handle.addr), &cause);
                self.publish_bans();
                tracing::info!(address = %ip, %cause, "banned");
                let _ = tell.send(closed);
            }
            Ask::Unban(ip, tell) => {
                let was = self.state.unban(ip);
                self.publish_bans();
                let _ = tell.send(was);
            }
            Ask::Bans(tell) => {
                let _ = tell.send(self.state.bans(now).collect());
            }
            Ask::Audit(tell) => {
                let _ = tell.send(RegistryAudit {
                    slots: self.state.slots(),
                    inbound: self.state.count(Direction::Inbound),
                    outbound: self.state.count(Direction::Outbound),
                });
            }
            Ask::Ended(generation, tell) => {
                if self.state.is_live(generation) {
                    self.waiting.entry(generation).or_default().push(tell);
                }
            }
        }
    }

    fn promote(&mut self, request: Request) -> Result<Admitted, CloseCause> {
        let Request { candidate, facts, mux, mut passage } = request;
        let now = self.env.clock.now();
        let end = SessionEnd {
            generation: Generation(0),
            // What is told of a session whose asker has gone before it could begin.
            cause: CloseCause::Dropped("given up before it began".into()),
            ledger: Ledger::default(),
            passage: None,
        };
        let (mut slot, generation, leave) = match self.enter(&candidate, end) {
            Ok(entered) => entered,
            Err(cause) => {
                self.env.trace("promote", 0, 0, 0, cause.label());
                if let Some(passage) = passage {
                    passage.end(&cause);
                }
                return Err(cause);
            }
        };
        if let Some(passage) = &mut passage {
            passage.live();
        }
        slot.generation = generation;
        slot.passage = passage;
        for old in leave {
            let cause = match self.held.get(&old) {
                Some(Held { handle, .. })
                    if handle.addr == candidate.addr || self.same_peer(old, &candidate) =>
                {
                    CloseCause::Duplicate(generation)
                }
                _ => CloseCause::Evicted,
            };
            if let Some(held) = self.held.get(&old) {
                held.handle.closer.close(cause);
            }
        }
        let (mail, inbox) = mpsc::channel(MAIL);
        let handle = PeerHandle {
            generation,
            addr: candidate.addr,
            direction: candidate.direction,
            service: 0,
            mail,
            closer: Closer::default(),
            stats: Arc::default(),
            mux,
        };
        let held = Held { handle: handle.clone(), facts: view(generation, &facts), since: now };
        self.held.insert(generation, held);
        self.board.connected(generation, facts);
        self.env.trace("session_open", generation.0, 0, 0, candidate.direction.label());
        self.publish_sessions();
        Ok(Admitted { handle, mail: inbox, slot })
    }

    /// Gives a candidate a slot and a generation; says whom it replaces.
    fn enter(
        &mut self,
        candidate: &Candidate,
        end: SessionEnd,
    ) -> Result<(Ticket<SessionEnd>, Generation, Vec<Generation>), CloseCause> {
        if self.stopping {
            return Err(CloseCause::Shutdown);
        }
        let now = self.env.clock.now();
        let leave = match self.state.decide(candidate, now) {
            Decision::Admit(leave) => leave,
            Decision::Refuse(cause) => return Err(cause),
        };
        let slot = self.office.issue(end).ok_or(CloseCause::Refused(Refusal::Closing))?;
        let generation = self.state.admit(*candidate, &leave, now);
        Ok((slot, generation.ok_or(CloseCause::Refused(Refusal::Generations))?, leave))
    }

    fn same_peer(&self, generation: Generation, candidate: &Candidate) -> bool {
        self.state.peer_of(generation) == Some(candidate.peer)
    }

    fn ended(&mut self, mut end: SessionEnd) {
        let generation = end.generation;
        if let Some(passage) = end.passage.take() {
            passage.end(&end.cause);
        }
        self.board.lost(generation, &end.cause);
        self.held.remove(&generation);
        self.waiting.remove(&generation);
        let now = self.env.clock.now();
        let mut banned = false;
        if let Some(closed) = self.state.ended(end, now) {
            let why = closed.cause.label();
            self.env.metrics.disconnects.get_or_create(&Why { why }).inc();
            self.env.trace("session_end", generation.0, 0, 0, why);
            tracing::debug!(peer = %closed.addr, cause = %closed.cause, "session ended");
            banned = closed.banned;
            if banned {
                tracing::info!(address = %closed.addr.ip(), cause = %closed.cause, "banned");
            }
        }
        self.publish_sessions();
        if banned {
            self.publish_bans();
        }
    }

    fn close(&mut self, which: impl Fn(&PeerHandle) -> bool, cause: &CloseCause) -> usize {
        let closing: Vec<_> =
            self.held.values().map(|held| &held.handle).filter(|handle| which(handle)).collect();
        closing.into_iter().filter(|handle| handle.closer.close(cause.clone())).count()
    }

    fn views(&self) -> Vec<PeerView> {
        self.held.values().map(|held| self.view(held)).collect()
    }

    fn view(&self, held: &Held) -> PeerView {
        let mut view = held.facts.clone();
        view.seconds = self.env.clock.now().saturating_duration_since(held.since).as_secs();
        view.fill(&held.handle.stats);
        // Where no ping has measured one, the transport may have.
        view.rtt_ms =
            view.rtt_ms.or_else(|| held.handle.mux().map(|mux| mux.stats().rtt.as_secs_f64() * 1e3));
        view
    }

    fn find(&self, addr: SocketAddr) -> Found {
        let now = self.env.clock.now();
        Found {
            live: self
                .held
                .values()
                .filter(|held| matches(addr, held.handle.addr))
                .map(|held| (self.view(held), held.handle.clone()))
                .collect(),
            closed: self.state.closed().rev().filter(|c| matches(addr, c.addr)).take(8).cloned().collect(),
            banned: self.state.bans(now).find(|(ip, _)| *ip == canonical_ip(addr.ip())).map(|(_, left)| left),
        }
    }

    fn publish_sessions(&self) {
        for direction in [Direction::Inbound, Direction::Outbound] {
            let label = Way { direction: direction.label() };
            self.env.metrics.sessions.get_or_create(&label).set(self.state.count(direction) as i64);
        }
    }

    fn publish_bans(&self) {
        self.env.metrics.banned_addresses.set(self.state.bans_until().len() as i64);
        self.doors.send_replace(Doors { banned: Arc::new(self.state.bans_until().clone()) });
    }
}

fn view(generation: Generation, facts: &PeerFacts) -> PeerView {
    PeerView {
        generation: generation.0,
        addr: facts.addr,
        direction: facts.direction.label(),
        agent: facts.agent.clone(),
        version: facts.version,
        height: facts.height,
        seconds: 0,
        rtt_ms: None,
        bytes_in: 0,
        bytes_out: 0,
        frames_in: 0,
        frames_out: 0,
        score: 0,
        requests: 0,
        parked: false,
    }
}

/// Whether `addr` is what was asked for; port 0 asks for every port.
fn matches(asked: SocketAddr, addr: SocketAddr) -> bool {
    let (asked, addr) = (canonical_addr(asked), canonical_addr(addr));
    asked.ip() == addr.ip() && (asked.port() == 0 || asked.port() == addr.port())
}

impl RegistryHandle {
    /// Leads to a registry that does nothing while the other part is held.
    #[cfg(test)]
    pub fn stalled() -> (Self, impl Send) {
        let ((asks, inbox), (publish, doors)) = (mpsc::channel(ASKS), watch::channel(Doors::default()));
        (Self { asks, doors, board: StateBoard::default() }, (inbox, publish))
    }

    async fn ask<T>(&self, make: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Option<T> {
        let (tell, told) = oneshot::channel();
        self.asks.send(make(tell)).await.ok()?;
        told.await.ok()
    }

    /// Makes a session of a finished handshake.
    pub async fn promote(
        &self,
        candidate: Candidate,
        facts: PeerFacts,
        mux: Option<Arc<dyn Mux>>,
        passage: Option<Passage>,
    ) -> Result<Admitted, CloseCause> {
        let request = Box::new(Request { candidate, facts: Arc::new(facts), mux, passage });
        self.ask(|tell| Ask::Promote(request, tell)).await.unwrap_or(Err(CloseCause::Shutdown))
    }

    /// Follows who is connected.
    pub fn watch(&self) -> StateWatch {
        self.board.watch()
    }

    /// Every session.
    pub async fn peers(&self) -> Vec<PeerView> {
        self.ask(Ask::Peers).await.unwrap_or_default()
    }

    /// The session that stays of a peer, if it is connected.
    pub async fn session(&self, peer: PeerId) -> Option<PeerHandle> {
        self.ask(|tell| Ask::Session(peer, tell)).await.flatten()
    }

    /// What is known of an address; port 0 asks for every port.
    pub async fn find(&self, addr: SocketAddr) -> Found {
        self.ask(|tell| Ask::Find(addr, tell)).await.unwrap_or_default()
    }

    /// Ended sessions, oldest first.
    pub async fn closed(&self) -> Vec<ClosedSession> {
        self.ask(Ask::Closed).await.unwrap_or_default()
    }

    /// Ends sessions with an address; says how many.
    pub async fn close(&self, addr: SocketAddr, cause: CloseCause) -> usize {
        self.ask(|tell| Ask::Close(addr, cause, tell)).await.unwrap_or(0)
    }

    /// Bans an address, for the usual time if none is given; its sessions end for this cause. Says how many did.
    pub async fn ban(&self, ip: IpAddr, lasts: Option<Duration>, cause: CloseCause) -> usize {
        self.ask(|tell| Ask::Ban(ip, lasts, cause, tell)).await.unwrap_or(0)
    }

    /// Completes when a session's slot is back, at once if it is back already.
    pub async fn ended(&self, generation: Generation) {
        // The registry answers by dropping its end.
        let _ = self.ask(|tell| Ask::Ended(generation, tell)).await;
    }

    /// Lifts a ban; says whether there was one.
    pub async fn unban(&self, ip: IpAddr) -> bool {
        self.ask(|tell| Ask::Unban(ip, tell)).await.unwrap_or(false)
    }

    /// Bans and how long they still last.
    pub async fn bans(&self) -> Vec<(IpAddr, Duration)> {
        self.ask(Ask::Bans).await.unwrap_or_default()
    }

    /// What the registry believes, for invariants.
    pub async fn audit(&self) -> Option<RegistryAudit> {
        self.ask(Ask::Audit).await
    }
}
