//! Worlds of overlay nodes: whole nodes, as applications start them, on the real QUIC over simulated datagrams.
//!
//! ```text
//! OverlayWorld -- seat n: a host and an identity, which outlive the nodes that are started there
//!      |              `- Seated: the node that runs there now: its handle, its application, what it sees of its sessions
//!      `-- at every step: accounts balance, no session is one-sided for longer than [`ghost_within`], no task has panicked
//! ```
//!
//! A session is the same on both ends when both name the same dialler and the same attempt of it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use rand::Rng;
use rookery_base::{Direction, Generation, PeerId};
use rookery_engine::registry::watch::{Change, StateChange, StateWatch};
use rookery_overlay::services::messages::Sent;
use rookery_overlay::wire::Topic;
use rookery_overlay::{Builder, Event, Handle};
use rookery_runtime::{Instant, OnPanic};
use rookery_transport::quic::QuicLimits;
use rookery_transport::tls::{Identity, Keys};

use crate::chainworld::host;
use crate::fabric::Down;
use crate::world::{Failure, Node, Report, World, WorldConfig};

/// Where every node listens.
pub(super) const PORT: u16 = 7000;
/// The network that all of them are of.
pub(super) const NETWORK: &str = "simulated overlay";
/// How long a session may have one end only between nodes with the usual limits.
pub(super) const GHOST_WITHIN: Duration = ghost_within(QuicLimits::DEFAULT);

/// How long a session may have one end only. QUIC's idle time begins anew with the first thing that is sent after the last
/// that was heard, which a keep-alive is at the latest; and a closing session has a moment to flush.
pub(super) const fn ghost_within(limits: QuicLimits) -> Duration {
    limits.idle.saturating_add(limits.keep_alive).saturating_add(Duration::from_secs(1))
}

/// The topic under which everybody listens.
pub(super) fn topic() -> Topic {
    Topic::new("talk").expect("four letters are a topic")
}

/// The least value that this part of them does not exceed; they are in order, and not none. Of less than a hundred, 99 % are all.
pub(super) fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1]
}

/// What a session is called at both ends: who dialled, and which of its dials it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark {
    dialler: PeerId,
    attempt: u64,
}

/// A session, as one end sees it.
#[derive(Debug, Clone, Copy)]
struct Session {
    with: PeerId,
    mark: Mark,
    since: Instant,
}

/// A node that runs.
#[derive(Clone)]
pub(super) struct Seated {
    /// Its surroundings.
    pub node: Node,
    /// What its application holds.
    pub handle: Handle,
    /// Messages that its application got.
    pub heard: Arc<AtomicU64>,
}

impl Seated {
    /// Where it listens.
    pub const fn addr(&self) -> SocketAddr {
        self.node.at(PORT)
    }

    /// Its identity.
    pub const fn id(&self) -> PeerId {
        self.handle.id()
    }

    /// Connects to whoever is at an address.
    pub async fn connect(&self, to: SocketAddr) -> Result<PeerId, String> {
        let dialled = self.handle.connect(vec![to]).await;
        dialled.map(|dialled| dialled.peer).map_err(|error| format!("node {}: {error}", self.node.number))
    }

    /// Sends one message to a peer, which has to acknowledge it; says how long that took.
    pub async fn talk(&self, to: PeerId) -> Result<Duration, String> {
        match self.handle.send(to, topic(), "a message").await {
            Sent::Accepted(took) => Ok(took),
            other => Err(format!("a message of node {} to {to} ended as {other:?}", self.node.number)),
        }
    }
}

/// What the world keeps of a node that runs.
struct Watched {
    seated: Seated,
    began: Instant,
    states: StateWatch,
    sessions: BTreeMap<Generation, Session>,
    /// The same sessions, as the other ends look for them.
    marks: BTreeSet<(PeerId, Mark)>,
}

impl Watched {
    /// Takes in what has changed; says whether anything has.
    fn look(&mut self, now: Instant) -> bool {
        let mut changed = false;
        while let Some(StateChange { generation, facts, change, .. }) = self.states.try_next() {
            changed = true;
            if change != Change::Connected {
                self.ended(generation);
                continue;
            }
            let dialler = match facts.direction {
                Direction::Outbound => self.seated.id(),
                Direction::Inbound => facts.peer,
            };
            let mark = Mark { dialler, attempt: facts.precedence.attempt };
            self.marks.insert((facts.peer, mark));
            self.sessions.insert(generation, Session { with: facts.peer, mark, since: now });
        }
        changed
    }

    fn ended(&mut self, generation: Generation) {
        let Some(Session { with, mark, .. }) = self.sessions.remove(&generation) else { return };
        // A peer that has restarted counts its dials from one again.
        if !self.sessions.values().any(|other| other.with == with && other.mark == mark) {
            self.marks.remove(&(with, mark));
        }
    }
}

struct Seats {
    /// How long a session may have one end only.
    ghost_within: Duration,
    up: BTreeMap<u32, Watched>,
    /// Every identity that a seat has ever had; others are strangers, whose ends nobody sees.
    seat_of: BTreeMap<PeerId, u32>,
    /// Sessions with one end, and since when.
    alone: BTreeMap<(u32, Generation), Instant>,
    /// The longest that any session had one end.
    longest_alone: Duration,
    /// A node has started or ended since the last check.
    moved: bool,
}

impl Seats {
    fn check(&mut self, now: Instant) -> Result<(), String> {
        let mut changed = std::mem::take(&mut self.moved);
        for (seat, watched) in &mut self.up {
            changed |= watched.look(now);
            let accounts = watched.seated.handle.engine().accounts();
            if !accounts.balanced() {
                return Err(format!("the accounts of seat {seat} do not balance: {accounts:?}"));
            }
        }
        if changed {
            self.alone = self.with_one_end(now);
        }
        for ((seat, generation), since) in &self.alone {
            let lasts = now.saturating_duration_since(*since);
            self.longest_alone = self.longest_alone.max(lasts);
            if lasts > self.ghost_within {
                let session = self.up.get(seat).and_then(|watched| watched.sessions.get(generation));
                return Err(format!("seat {seat} has a ghost for {lasts:?} already: {session:?}"));
            }
        }
        Ok(())
    }

    fn with_one_end(&self, now: Instant) -> BTreeMap<(u32, Generation), Instant> {
        let mut alone = BTreeMap::new();
        for (seat, watched) in &self.up {
            for (generation, session) in &watched.sessions {
                let Some(other) = self.seat_of.get(&session.with) else { continue };
                let mirrored = (watched.seated.id(), session.mark);
                // What began with the process before the one that runs there now is nobody's any more.
                let shared = self.up.get(other);
                if !shared
                    .is_some_and(|other| other.began <= session.since && other.marks.contains(&mirrored))
                {
                    let key = (*seat, *generation);
                    alone.insert(key, self.alone.get(&key).copied().unwrap_or(now));
                }
            }
        }
        alone
    }
}

/// See the module's page.
pub(super) struct OverlayWorld {
    /// What is below.
    pub world: World,
    seats: Rc<RefCell<Seats>>,
}

impl OverlayWorld {
    /// A world of this scenario.
    pub fn new(name: &'static str, seed: u64, config: WorldConfig) -> Self {
        Self::patient(name, seed, config, QuicLimits::DEFAULT)
    }

    /// A world whose nodes are no more patient with silent connections than these limits say.
    pub fn patient(name: &'static str, seed: u64, config: WorldConfig, limits: QuicLimits) -> Self {
        let world = World::with(name, seed, config);
        let seats = Rc::new(RefCell::new(Seats {
            ghost_within: ghost_within(limits),
            up: BTreeMap::new(),
            seat_of: BTreeMap::new(),
            alone: BTreeMap::new(),
            longest_alone: Duration::ZERO,
            moved: false,
        }));
        let (checked, clock) = (Rc::clone(&seats), world.clock());
        world.add_invariant("sessions have two ends and accounts balance", move || {
            checked.borrow_mut().check(clock.now())
        });
        Self { world, seats }
    }

    /// Runs the scenario, then stops every node.
    pub fn run(&self, scenario: impl Future<Output = Result<(), String>>) -> Result<Report, Box<Failure>> {
        self.world.run(async {
            let outcome = scenario.await;
            // What the world holds of its nodes must not keep anything of them alive.
            self.seats.borrow_mut().up.clear();
            outcome
        })
    }

    /// The identity of a seat: the same for every node that is started there.
    pub fn identity(&self, seat: u32) -> Result<Identity, String> {
        let mut secret = [0; 32];
        self.world.rng("identity", u64::from(seat)).fill_bytes(&mut secret);
        Identity::from_seed(&secret, Keys::Classic).map_err(|error| error.to_string())
    }

    /// Starts a node that listens, listens to [`topic`], and otherwise is as `shape` makes it. Its host comes up.
    pub async fn start(&self, seat: u32, shape: impl FnOnce(Builder) -> Builder) -> Result<Seated, String> {
        let ip = host(seat);
        self.world.fabric().up(ip);
        let node = self.world.node(ip);
        let builder = Builder::new(NETWORK).identity(self.identity(seat)?).listen(node.at(PORT)).outbound(0);
        let started = shape(builder).start_in(&node.env, node.datagrams()).await;
        let (mut overlay, handle) = started.map_err(|error| format!("seat {seat}: {error}"))?;
        handle.listen_to(topic());
        let heard = Arc::new(AtomicU64::new(0));
        let (env, counted) = (node.env.clone(), Arc::clone(&heard));
        node.env.scope.spawn("application", OnPanic::StopNode, async move {
            while let Some(event) = overlay.next().await {
                if let Event::Message(message) = event {
                    env.trace("overlay_heard", 0, 0, message.payload.len() as u64, "");
                    counted.fetch_add(1, Relaxed);
                }
            }
        });
        let seated = Seated { node, handle, heard };
        let watched = Watched {
            began: self.world.clock().now(),
            states: seated.handle.states(),
            sessions: BTreeMap::new(),
            marks: BTreeSet::new(),
            seated: seated.clone(),
        };
        let mut seats = self.seats.borrow_mut();
        seats.seat_of.insert(seated.id(), seat);
        seats.up.insert(seat, watched);
        seats.moved = true;
        Ok(seated)
    }

    /// The node that runs at a seat.
    pub fn up(&self, seat: u32) -> Option<Seated> {
        self.seats.borrow().up.get(&seat).map(|watched| watched.seated.clone())
    }

    /// Takes a seat's node away from all that is kept here.
    fn leave(&self, seat: u32) -> Result<Node, String> {
        let mut seats = self.seats.borrow_mut();
        seats.moved = true;
        let left = seats.up.remove(&seat).map(|watched| watched.seated.node);
        left.ok_or_else(|| format!("no node runs at seat {seat}"))
    }

    /// Stops a node in order: its peers are told.
    pub async fn stop(&self, seat: u32) -> Result<(), String> {
        let node = self.leave(seat)?;
        self.world.stop(&node).await
    }

    /// Ends a node without a word to anybody.
    pub async fn kill(&self, seat: u32) -> Result<(), String> {
        let node = self.leave(seat)?;
        self.world.crash(&node, Down::Silent).await
    }

    /// Sessions of a seat's node, as it sees them now: with whom, and which.
    pub fn sessions(&self, seat: u32) -> Vec<(PeerId, Mark)> {
        let now = self.world.clock().now();
        let mut seats = self.seats.borrow_mut();
        let Some(watched) = seats.up.get_mut(&seat) else { return Vec::new() };
        if watched.look(now) {
            seats.moved = true;
        }
        let watched = &seats.up[&seat];
        watched.sessions.values().map(|session| (session.with, session.mark)).collect()
    }

    /// The longest so far that any session had one end only.
    pub fn longest_alone(&self) -> Duration {
        self.seats.borrow().longest_alone
    }

    /// Whether two seats have exactly one session, and the same.
    pub fn one_session(&self, a: u32, b: u32) -> Result<(), String> {
        let (Some(at_a), Some(at_b)) = (self.up(a), self.up(b)) else {
            return Err(format!("seats {a} and {b} are not both taken"));
        };
        let of = |seat, with: PeerId| -> Vec<Mark> {
            let sessions = self.sessions(seat).into_iter();
            sessions.filter(|(peer, _)| *peer == with).map(|(_, mark)| mark).collect()
        };
        let (ours, theirs) = (of(a, at_b.id()), of(b, at_a.id()));
        if ours.len() == 1 && ours == theirs {
            return Ok(());
        }
        Err(format!("seat {a} has {ours:?} with seat {b}, which has {theirs:?}"))
    }
}
