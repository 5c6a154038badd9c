//! The registry's loop, and the handle that asks it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rookery_base::id::canonical_addr;
use rookery_base::{CloseCause, Direction, Generation};
use rookery_observe::metrics::{Way, Why};
use rookery_runtime::ticket::tickets;
use rookery_runtime::{Clock, Env, OnPanic, Returns, Ticket, TicketOffice};
use tokio::sync::{mpsc, oneshot, watch};

use super::SessionLimits;
use super::state::{Candidate, ClosedSession, Decision, RegistryState, SessionEnd};
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

/// What the accept loop may know without asking.
#[derive(Debug, Clone, Default)]
pub(crate) struct Doors {
    pub banned: Arc<BTreeSet<IpAddr>>,
}

/// A question.
enum Ask {
    Promote(Candidate, Box<PeerFacts>, oneshot::Sender<Result<Admitted, CloseCause>>),
    Peers(oneshot::Sender<Vec<PeerView>>),
    Find(SocketAddr, oneshot::Sender<Found>),
    Closed(oneshot::Sender<Vec<ClosedSession>>),
    Close(SocketAddr, CloseCause, oneshot::Sender<usize>),
    Ban(IpAddr, Option<Duration>, oneshot::Sender<usize>),
    Unban(IpAddr, oneshot::Sender<bool>),
    Bans(oneshot::Sender<Vec<(IpAddr, Duration)>>),
    Audit(oneshot::Sender<RegistryAudit>),
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
}

/// The owner of the table.
pub(crate) struct Registry {
    env: Env,
    state: RegistryState,
    office: TicketOffice<SessionEnd>,
    returns: Returns<SessionEnd>,
    /// The generation's handle and facts; the same keys as the state's live sessions.
    held: BTreeMap<Generation, (PeerHandle, PeerView)>,
    asks: mpsc::Receiver<Ask>,
    doors: watch::Sender<Doors>,
}

impl Registry {
    /// Starts the registry. A panic in it stops the node.
    pub fn start(env: &Env, limits: SessionLimits, local: Option<rookery_base::PeerId>) -> RegistryHandle {
        let (asks, inbox) = mpsc::channel(ASKS);
        let (doors, watch) = watch::channel(Doors::default());
        // Twice the limits: a session that was closed to make room holds its slot until its routine has ended.
        let (office, returns) = tickets(2 * (limits.inbound + limits.outbound));
        let registry = Self {
            env: env.clone(),
            state: RegistryState::new(limits, local),
            office,
            returns,
            held: BTreeMap::new(),
            asks: inbox,
            doors,
        };
        env.scope.spawn("registry", OnPanic::StopNode, registry.run());
        RegistryHandle { asks, doors: watch }
    }

    async fn run(mut self) {
        loop {
            // Ends first: a slot that is free must be seen as free by whoever asks next.
            tokio::select! {
                biased;
                end = self.returns.next() => self.ended(end),
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
            Ask::Promote(candidate, facts, tell) => {
                let _ = tell.send(self.promote(candidate, &facts));
            }
            Ask::Peers(tell) => {
                let _ = tell.send(self.views());
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
            Ask::Ban(ip, lasts, tell) => {
                self.state.ban(ip, now, lasts.unwrap_or(SessionLimits::PUBLIC.ban));
                let cause = CloseCause::Dropped("banned by the operator".into());
                let closed = self.close(|handle| matches(SocketAddr::new(ip, 0), handle.addr), &cause);
                self.publish();
                let _ = tell.send(closed);
            }
            Ask::Unban(ip, tell) => {
                let was = self.state.unban(ip);
                self.publish();
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
        }
    }

    fn promote(&mut self, candidate: Candidate, facts: &PeerFacts) -> Result<Admitted, CloseCause> {
        let now = self.env.clock.now();
        let leave = match self.state.decide(&candidate, now) {
            Decision::Admit(leave) => leave,
            Decision::Refuse(cause) => {
                self.env.trace("promote", 0, 0, 0, cause.label());
                return Err(cause);
            }
        };
        let end = SessionEnd {
            generation: Generation(0),
            // What is told of a routine that ends without saying anything: it can only have panicked.
            cause: CloseCause::Panic,
            ledger: Ledger::default(),
        };
        let Some(mut slot) = self.office.issue(end) else {
            return Err(CloseCause::Dropped("too many sessions are closing".into()));
        };
        let Some(generation) = self.state.admit(candidate, &leave, now) else {
            return Err(CloseCause::Dropped("all generations are used up".into()));
        };
        for old in leave {
            let cause = match self.held.get(&old) {
                Some((handle, _)) if handle.addr == candidate.addr || self.same_peer(old, &candidate) => {
                    CloseCause::Duplicate(generation)
                }
                _ => CloseCause::Evicted,
            };
            if let Some((handle, _)) = self.held.get(&old) {
                handle.closer.close(cause);
            }
        }
        slot.generation = generation;
        let (mail, inbox) = mpsc::channel(MAIL);
        let handle = PeerHandle {
            generation,
            addr: candidate.addr,
            direction: candidate.direction,
            service: 0,
            mail,
            closer: Closer::default(),
            stats: Arc::default(),
        };
        self.held.insert(generation, (handle.clone(), view(&self.env.clock, generation, facts)));
        self.env.trace("session_open", generation.0, 0, 0, candidate.direction.label());
        self.publish();
        Ok(Admitted { handle, mail: inbox, slot })
    }

    fn same_peer(&self, generation: Generation, candidate: &Candidate) -> bool {
        self.state.peer_of(generation) == Some(candidate.peer)
    }

    fn ended(&mut self, end: SessionEnd) {
        let generation = end.generation;
        self.held.remove(&generation);
        let now = self.env.clock.now();
        if let Some(closed) = self.state.ended(end, now) {
            let why = closed.cause.label();
            self.env.metrics.disconnects.get_or_create(&Why { why }).inc();
            self.env.trace("session_end", generation.0, 0, 0, why);
            tracing::debug!(peer = %closed.addr, cause = %closed.cause, "session ended");
        }
        self.publish();
    }

    fn close(&mut self, which: impl Fn(&PeerHandle) -> bool, cause: &CloseCause) -> usize {
        let closing: Vec<_> = self.held.values().filter(|(handle, _)| which(handle)).collect();
        for (handle, _) in &closing {
            handle.closer.close(cause.clone());
        }
        closing.len()
    }

    fn views(&self) -> Vec<PeerView> {
        self.held.values().map(|held| self.view(held)).collect()
    }

    fn view(&self, (handle, facts): &(PeerHandle, PeerView)) -> PeerView {
        let mut view = facts.clone();
        view.seconds = self.env.clock.elapsed().as_secs().saturating_sub(view.seconds);
        view.fill(&handle.stats);
        view
    }

    fn find(&self, addr: SocketAddr) -> Found {
        let now = self.env.clock.now();
        Found {
            live: self
                .held
                .values()
                .filter(|(handle, _)| matches(addr, handle.addr))
                .map(|held| (self.view(held), held.0.clone()))
                .collect(),
            closed: self.state.closed().rev().filter(|c| matches(addr, c.addr)).take(8).cloned().collect(),
            banned: self.state.bans(now).find(|(ip, _)| *ip == addr.ip()).map(|(_, left)| left),
        }
    }

    fn publish(&self) {
        let now = self.env.clock.now();
        for direction in [Direction::Inbound, Direction::Outbound] {
            let label = Way { direction: direction.label() };
            self.env.metrics.sessions.get_or_create(&label).set(self.state.count(direction) as i64);
        }
        let banned: BTreeSet<IpAddr> = self.state.bans(now).map(|(ip, _)| ip).collect();
        self.env.metrics.banned_addresses.set(banned.len() as i64);
        self.doors.send_replace(Doors { banned: Arc::new(banned) });
    }
}

fn view(clock: &Clock, generation: Generation, facts: &PeerFacts) -> PeerView {
    PeerView {
        generation: generation.0,
        addr: facts.addr,
        direction: facts.direction.label(),
        agent: facts.agent.clone(),
        version: facts.version,
        height: facts.height,
        // The start for now; turned into an age when it is shown.
        seconds: clock.elapsed().as_secs(),
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
    async fn ask<T>(&self, make: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Option<T> {
        let (tell, told) = oneshot::channel();
        self.asks.send(make(tell)).await.ok()?;
        told.await.ok()
    }

    /// Makes a session of a finished handshake.
    pub async fn promote(&self, candidate: Candidate, facts: PeerFacts) -> Result<Admitted, CloseCause> {
        let facts = Box::new(facts);
        self.ask(|tell| Ask::Promote(candidate, facts, tell)).await.unwrap_or(Err(CloseCause::Shutdown))
    }

    /// Every session.
    pub async fn peers(&self) -> Vec<PeerView> {
        self.ask(Ask::Peers).await.unwrap_or_default()
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

    /// Bans an address, for the usual time if none is given; says how many sessions that ended.
    pub async fn ban(&self, ip: IpAddr, lasts: Option<Duration>) -> usize {
        self.ask(|tell| Ask::Ban(ip, lasts, tell)).await.unwrap_or(0)
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
