//! The process of honest peers: each a node of its own with its own socket and identity.
//!
//! | order | what it does, and says |
//! |---|---|
//! | `fill N` | connects N peers that stay, 64 at a time; how many did |
//! | `churn R` | from now on ends R peers a second, every other one without a goodbye, and connects R in their place; every eighth says a goodbye of which the first datagrams are lost |
//! | `view` | who is connected, for how long, who connects, and who has ended lately |
//! | `calm` | ends the churn once its connects under way are over; how many there were, and how long they took |
//! | `visit N R` | N peers one after the other, R a second whether or not earlier ones are through: connect, ask, leave |
//! | `leave` | ends all peers with a goodbye |
//!
//! Of the peers that take another's place every other one has the identity of the one that has ended, as one that restarts.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::rand;
use rookery_base::PeerId;
use rookery_overlay::{Builder, Handle, Node};
use rookery_runtime::{Clock, Env};
use rookery_transport::tls::{Identity, Keys};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::server::short;
use super::sockets::Mutable;
use super::{DEADLINE, LOOPBACK, NETWORK, Outcome, said, service, source};
use crate::child::{heard, make_room, percentile, runtime, say};

/// Peers that are connected at a time while there are to be many: enough to keep a core busy, few enough that none waits.
const AT_ONCE: usize = 64;
/// How long those that have ended are told of: well over the longest silence after which a server gives up.
const REMEMBERED: Duration = Duration::from_secs(120);
/// The last octet of the addresses that visitors come from.
const VISITORS: u8 = 3;
/// Datagrams that are lost of some goodbyes: the one that says it, and one that may go before it.
const LOST: usize = 2;
/// Reasons of failures that a report tells.
const REASONS: usize = 3;
/// What visitors ask.
const QUESTION: &[u8] = &[7; 64];

/// Where a server is, and who.
#[derive(Debug, Clone)]
pub struct Server {
    pub address: SocketAddr,
    identity: String,
}

impl Server {
    /// Reads what a server has said of itself.
    pub fn read(invitation: &str) -> Outcome<Self> {
        let (address, identity) = invitation.split_once('/').ok_or("an invitation is ADDRESS/IDENTITY")?;
        Ok(Self { address: address.parse().map_err(said)?, identity: identity.to_owned() })
    }

    /// The same, reached at this address.
    pub fn at(&self, address: SocketAddr) -> Self {
        Self { address, identity: self.identity.clone() }
    }
}

/// A connected peer.
pub struct Peer {
    identity: Identity,
    sockets: Mutable,
    handle: Handle,
    server: PeerId,
    node: Node,
}

/// How a peer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It says goodbye.
    Closed,
    /// It says goodbye, and the first datagrams of that are lost.
    Lost,
    /// Nothing is heard of it any more.
    Silent,
}

impl Ending {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Lost, Self::Silent];

    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Lost => "lost",
            Self::Silent => "silent",
        }
    }

    /// Of the churn's turns every other one ends silently, and every eighth loses its goodbye.
    const fn of(turn: usize) -> Self {
        match turn % 8 {
            0 | 2 | 4 | 6 => Self::Silent,
            7 => Self::Lost,
            _ => Self::Closed,
        }
    }
}

/// A new identity.
pub fn identity() -> Outcome<Identity> {
    let mut seed = [0; 32];
    rand::fill(&mut seed).map_err(|_| "the machine has no randomness")?;
    Identity::from_seed(&seed, Keys::PostQuantum).map_err(said)
}

impl Peer {
    /// Connects one with this identity, bound here, and sees that it is the server that answers.
    pub async fn connect(identity: Identity, from: SocketAddr, to: &Server) -> Outcome<Self> {
        let sockets = Mutable::default();
        let builder = Builder::new(NETWORK).identity(identity.clone()).local().outbound(0).listen(from);
        let (node, handle) =
            builder.start_in(&Env::system(), Arc::new(sockets.clone())).await.map_err(said)?;
        let connected = Clock::system().timeout(DEADLINE, handle.connect(vec![to.address])).await;
        let server = connected.ok_or("no connection in time")?.map_err(said)?.peer;
        if server.to_string() != to.identity {
            return Err(format!("{server} answers in place of {}", to.identity));
        }
        Ok(Self { identity, sockets, handle, server, node })
    }

    /// Who it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Asks, and sees that the answer is right.
    pub async fn ask(&self) -> Outcome<()> {
        let most = QUESTION.len() as u64;
        let answer = self.handle.request(self.server, service(), Vec::new(), QUESTION, DEADLINE, most).await;
        let (_, got) = answer.map_err(said)?;
        if got == QUESTION { Ok(()) } else { Err(format!("{} bytes of another answer", got.len())) }
    }

    /// Is gone, with a goodbye or without one.
    pub fn end(self, how: Ending) {
        match how {
            Ending::Closed => {}
            Ending::Lost => self.sockets.lose(LOST),
            Ending::Silent => self.sockets.mute(),
        }
        drop(self.node);
    }
}

/// One that has ended.
struct Ended {
    at: Duration,
    peer: String,
    how: Ending,
}

/// What the peers know of themselves.
#[derive(Default)]
struct State {
    /// In the order in which they came, with the time.
    live: VecDeque<(Duration, Peer)>,
    /// By identity: how many connects are under way.
    connecting: BTreeMap<String, usize>,
    ended: VecDeque<Ended>,
    connects: usize,
    failed: usize,
    reasons: Vec<String>,
    took_ms: Vec<f64>,
}

impl State {
    fn failed(&mut self, why: String) {
        self.failed += 1;
        if self.reasons.len() < REASONS && !self.reasons.contains(&why) {
            self.reasons.push(why);
        }
    }

    /// What became of connects since the last look.
    fn tally(&mut self) -> Value {
        let mut took = std::mem::take(&mut self.took_ms);
        took.sort_by(f64::total_cmp);
        let report = json!({
            "connects": self.connects, "failed": self.failed, "reasons": self.reasons,
            "p50_ms": percentile(&took, 50), "p99_ms": percentile(&took, 99), "max_ms": took.last(),
        });
        (self.connects, self.failed) = (0, 0);
        self.reasons.clear();
        report
    }

    fn view(&self, now: Duration) -> Value {
        let age = |at: &Duration| now.saturating_sub(*at).as_secs_f64();
        json!({
            "live": self.live.iter().map(|(at, peer)| json!([short(peer.handle.id()), age(at)])).collect::<Vec<_>>(),
            "connecting": self.connecting.keys().collect::<Vec<_>>(),
            "ended": self.ended.iter().map(|end| json!([end.peer, age(&end.at), end.how.name()])).collect::<Vec<_>>(),
        })
    }
}

/// All peers of the process. Cloning gives another handle.
#[derive(Clone)]
struct Peers {
    server: Server,
    clock: Clock,
    state: Arc<Mutex<State>>,
}

impl Peers {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that runs under this lock can panic half way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects one that stays.
    async fn arrive(&self, identity: Identity) {
        let name = short(identity.peer_id());
        *self.lock().connecting.entry(name.clone()).or_default() += 1;
        let began = self.clock.elapsed();
        let connected = Peer::connect(identity, LOOPBACK, &self.server).await;
        let now = self.clock.elapsed();
        let mut state = self.lock();
        if let Some(count) = state.connecting.get_mut(&name) {
            *count -= 1;
        }
        state.connecting.retain(|_, count| *count > 0);
        state.connects += 1;
        match connected {
            Ok(peer) => {
                state.took_ms.push((now - began).as_secs_f64() * 1e3);
                state.live.push_back((now, peer));
            }
            Err(why) => {
                // The server may have a session of it, and has been told goodbye just now.
                state.ended.push_back(Ended { at: now, peer: name, how: Ending::Closed });
                state.failed(why);
            }
        }
    }

    async fn fill(&self, count: usize) -> Outcome<Value> {
        let mut under_way = JoinSet::new();
        for _ in 0..count {
            if under_way.len() >= AT_ONCE {
                under_way.join_next().await;
            }
            let (peers, identity) = (self.clone(), identity()?);
            under_way.spawn(async move { peers.arrive(identity).await });
        }
        while under_way.join_next().await.is_some() {}
        Ok(self.lock().tally())
    }

    /// Ends the one that is longest there, and gives its identity.
    fn end_one(&self, how: Ending) -> Option<Identity> {
        let now = self.clock.elapsed();
        let mut state = self.lock();
        let (_, peer) = state.live.pop_front()?;
        state.ended.push_back(Ended { at: now, peer: short(peer.handle.id()), how });
        while state.ended.front().is_some_and(|end| now.saturating_sub(end.at) > REMEMBERED) {
            state.ended.pop_front();
        }
        drop(state);
        let identity = peer.identity.clone();
        peer.end(how);
        Some(identity)
    }

    /// Until `calm` is told.
    async fn churn(self, per_second: usize, calm: tokio::sync::oneshot::Receiver<()>) {
        let mut under_way = JoinSet::new();
        let mut calm = std::pin::pin!(calm);
        let period = Duration::from_secs(1) / u32::try_from(per_second).unwrap_or(u32::MAX);
        let mut next = self.clock.now();
        for turn in 0_usize.. {
            tokio::select! {
                biased;
                _ = &mut calm => break,
                () = self.clock.sleep_until(next) => {}
            }
            next += period;
            while under_way.try_join_next().is_some() {}
            // When all are on their way, there are none to be replaced.
            let Some(ended) = self.end_one(Ending::of(turn)) else { continue };
            // Of each kind of end, every other one comes back as who it was.
            let Ok(identity) = (if turn % 4 < 2 { Ok(ended) } else { identity() }) else { continue };
            let peers = self.clone();
            under_way.spawn(async move { peers.arrive(identity).await });
        }
        while under_way.join_next().await.is_some() {}
    }

    async fn visit(&self, count: usize, per_second: usize) -> Outcome<Value> {
        let mut under_way = JoinSet::new();
        let start = self.clock.now();
        for number in 0..count {
            self.clock.sleep_until(start + Duration::from_secs_f64(number as f64 / per_second as f64)).await;
            let (peers, identity) = (self.clone(), identity()?);
            under_way.spawn(async move { peers.visitor(number, identity).await });
        }
        while under_way.join_next().await.is_some() {}
        Ok(self.lock().tally())
    }

    async fn visitor(&self, number: usize, identity: Identity) {
        let began = self.clock.elapsed();
        let visited = async {
            let peer = Peer::connect(identity, source(number, VISITORS), &self.server).await?;
            peer.ask().await?;
            Ok(peer)
        };
        let visited = visited.await;
        let took = (self.clock.elapsed() - began).as_secs_f64() * 1e3;
        let mut state = self.lock();
        state.connects += 1;
        match visited {
            Ok(peer) => {
                state.took_ms.push(took);
                drop(state);
                peer.end(Ending::Closed);
            }
            Err(why) => state.failed(why),
        }
    }
}

/// A churn under way.
struct Churning {
    calm: tokio::sync::oneshot::Sender<()>,
    tasks: JoinSet<()>,
}

/// The process.
pub fn process(most: usize, invitation: &str) -> Outcome<()> {
    make_room(most)?;
    let runtime = runtime()?;
    let state = Arc::default();
    let peers = Peers { server: Server::read(invitation)?, clock: Clock::system(), state };
    let mut churning = None;
    say(&json!({ "ready": true }));
    while let Some(order) = heard()? {
        let answer = obey(&runtime, &peers, &mut churning, &order)?;
        say(&answer);
    }
    Ok(())
}

fn obey(runtime: &Runtime, peers: &Peers, churning: &mut Option<Churning>, order: &str) -> Outcome<Value> {
    let words: Vec<&str> = order.split(' ').collect();
    let number = |text: &str| text.parse::<usize>().map_err(|_| format!("{text} is not a number"));
    match words.as_slice() {
        ["fill", count] => runtime.block_on(peers.fill(number(count)?)),
        ["visit", count, per_second] => runtime.block_on(peers.visit(number(count)?, number(per_second)?)),
        ["churn", per_second] => {
            let (calm, told) = tokio::sync::oneshot::channel();
            let mut tasks = JoinSet::new();
            tasks.spawn_on(peers.clone().churn(number(per_second)?, told), runtime.handle());
            *churning = Some(Churning { calm, tasks });
            Ok(json!({ "churning": true }))
        }
        ["view"] => Ok(peers.lock().view(peers.clock.elapsed())),
        ["calm"] => {
            if let Some(Churning { calm, mut tasks }) = churning.take() {
                // The other end is gone only when the churn has ended already.
                let _ = calm.send(());
                runtime.block_on(async { while tasks.join_next().await.is_some() {} });
            }
            Ok(peers.lock().tally())
        }
        ["leave"] => {
            let mut left = 0;
            while runtime.block_on(async { peers.end_one(Ending::Closed) }).is_some() {
                left += 1;
            }
            Ok(json!({ "left": left }))
        }
        _ => Err(format!("peers have no order {order:?}")),
    }
}
