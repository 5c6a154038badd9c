//! The reactor of discovery: one task that owns the table and our own record.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use rookery_base::{Generation, Hash32};
use rookery_engine::{AddressService, Command, PeerHandle};
use rookery_runtime::{Env, FairMailbox, Instant, LaneLimits, OnPanic, TokenBucket};
use rookery_transport::tls::Identity;
use tokio::sync::{mpsc, oneshot};

use super::table::{Table, Taken};
use super::{ASKS_AT_ONCE, ASKS_PER_SECOND, DiscoveryService, Mail, Order, TOLD_AT_ONCE, TOLD_PER_SECOND};
use crate::wire::SignedRecord;
use crate::wire::discovery::MAX_RECORDS;
use crate::wire::snapshot::Candidate;

/// How long our own record is good for: a node that is gone is forgotten within two hours, and one that is cut off for one is not.
pub const LIFETIME: Duration = Duration::from_secs(2 * 3600);
/// When our record is signed anew: a peer that asks every ten minutes always has one with more than an hour left.
pub const REFRESH: Duration = Duration::from_secs(1800);
/// How often what has expired is forgotten; until then it is only held.
const SWEEP: Duration = Duration::from_secs(60);
/// Calls of the application that wait.
const ASKS: usize = 16;

/// What discovery needs to know of its node.
pub struct DiscoveryConfig {
    /// The network's id.
    pub network: Hash32,
    /// Signs our record; its keys are our identity.
    pub signer: Arc<Identity>,
    /// Where we can be reached, as far as is known; none: we have no record.
    pub addrs: Vec<SocketAddr>,
    /// Sessions at a time.
    pub most_peers: usize,
    /// Whether the node dials by itself, and so wants to hear of others.
    pub wants_peers: bool,
}

enum Ask {
    Addrs(Vec<SocketAddr>),
    Candidates(oneshot::Sender<Vec<Candidate>>),
    Known(oneshot::Sender<(usize, usize)>),
}

/// The application's side.
#[derive(Clone)]
pub struct DiscoveryHandle {
    asks: mpsc::Sender<Ask>,
}

impl DiscoveryHandle {
    /// Where we can be reached, from now on. Our record is signed anew when it differs.
    pub async fn set_addrs(&self, addrs: Vec<SocketAddr>) {
        // A reactor that has ended tells nobody anything.
        let _ = self.asks.send(Ask::Addrs(addrs)).await;
    }

    /// Where peers were reached, the latest first, for a snapshot. Empty once the node is stopping.
    pub async fn candidates(&self) -> Vec<Candidate> {
        let (tell, told) = oneshot::channel();
        match self.asks.send(Ask::Candidates(tell)).await {
            Ok(()) => told.await.unwrap_or_default(),
            Err(_) => Vec::new(),
        }
    }

    /// Records known, and how many of them are confirmed.
    pub async fn known(&self) -> (usize, usize) {
        let (tell, told) = oneshot::channel();
        match self.asks.send(Ask::Known(tell)).await {
            Ok(()) => told.await.unwrap_or_default(),
            Err(_) => (0, 0),
        }
    }
}

/// The reactor.
pub struct Discovery {
    env: Env,
    table: Table,
    peers: BTreeMap<Generation, PeerHandle>,
    mail: FairMailbox<Mail>,
    asks: mpsc::Receiver<Ask>,
    own: Own,
    next_sweep: Instant,
    /// Sessions whose peers wait for their turn to be asked.
    to_ask: VecDeque<Generation>,
    asks_left: TokenBucket,
    /// When the next of them may be asked; none: none waits.
    next_ask: Option<Instant>,
    told_left: TokenBucket,
}

/// Our own record.
pub(super) struct Own {
    network: Hash32,
    signer: Arc<Identity>,
    addrs: Vec<SocketAddr>,
    pub record: Option<SignedRecord>,
    /// When it is signed anew.
    pub next: Instant,
}

impl Discovery {
    /// Starts the reactor. A panic in it stops the node: the table is its own. When the node stops the last value says whom to
    /// dial after a restart.
    pub fn start(
        env: &Env,
        config: DiscoveryConfig,
        addresses: AddressService,
    ) -> (DiscoveryService, DiscoveryHandle, oneshot::Receiver<Vec<Candidate>>) {
        let most = config.most_peers;
        let mail = FairMailbox::new("discovery", LaneLimits::PEER, most, env.clock, Arc::clone(&env.metrics));
        let (asks, asked) = mpsc::channel(ASKS);
        let (network, wants_peers) = (config.network, config.wants_peers);
        let service = DiscoveryService { network, mail: mail.opener(), addresses, wants_peers };
        let mut rng = env.rng.fork("overlay-sample", 0);
        let now = env.clock.now();
        let reactor = Self {
            env: env.clone(),
            table: Table::new(config.signer.peer_id(), (rng.next_u64(), rng.next_u64())),
            peers: BTreeMap::new(),
            mail,
            asks: asked,
            own: Own::new(config.network, config.signer, config.addrs, now),
            next_sweep: now + SWEEP,
            to_ask: VecDeque::new(),
            asks_left: TokenBucket::new(ASKS_PER_SECOND, ASKS_AT_ONCE, now),
            next_ask: None,
            told_left: TokenBucket::new(TOLD_PER_SECOND, TOLD_AT_ONCE, now),
        };
        let (tell, last) = oneshot::channel();
        env.scope.spawn_to_end("discovery", OnPanic::StopNode, async move {
            // Nobody may want to know.
            let _ = tell.send(reactor.run().await);
        });
        (service, DiscoveryHandle { asks }, last)
    }

    async fn run(mut self) -> Vec<Candidate> {
        let clock = self.env.clock;
        loop {
            self.own.refresh(clock.now(), clock.unix());
            let due = self.next_sweep.min(self.own.next).min(self.next_ask.unwrap_or(self.next_sweep));
            tokio::select! {
                biased;
                () = self.env.scope.cancelled() => return self.table.candidates(),
                // None once every handle is gone: then nobody asks, and the rest goes on.
                Some(ask) = self.asks.recv() => self.answer(ask),
                mail = self.mail.recv() => {
                    let began = clock.now();
                    self.take(mail);
                    let step = clock.now().saturating_duration_since(began);
                    self.env.metrics.reactor_step_seconds.observe(step.as_secs_f64());
                }
                () = clock.sleep_until(due) => {}
            }
            self.ask_in_turn(clock.now());
            if self.next_sweep <= clock.now() {
                self.table.expire(clock.unix());
                self.next_sweep = clock.now() + SWEEP;
            }
        }
    }

    fn take(&mut self, mail: Mail) {
        let unix = self.env.clock.unix();
        match mail {
            Mail::Up(peer, id, waits) => {
                self.table.up(peer.generation, id, peer.addr, unix);
                if waits {
                    self.to_ask.push_back(peer.generation);
                }
                self.peers.insert(peer.generation, peer);
            }
            Mail::Records(from, records) => {
                for record in records {
                    let taken = self.table.take(record, unix);
                    if taken == Taken::NoRoom {
                        self.env.trace("record", from.0, 0, 0, "no_room");
                    }
                }
            }
            Mail::Asked(from, most) => self.tell(from, most, unix),
            Mail::Gone(session) => {
                self.peers.remove(&session);
                self.table.gone(session, unix);
            }
        }
    }

    /// Asks those whose turn it is. A session that has ended costs no turn, so the queue is as long as there are sessions,
    /// and those that ended since the last turn.
    fn ask_in_turn(&mut self, now: Instant) {
        self.next_ask = None;
        while let Some(session) = self.to_ask.front() {
            if let Some(peer) = self.peers.get(session) {
                if let Err(later) = self.asks_left.take(now) {
                    self.next_ask = Some(later);
                    return;
                }
                // A peer that does not keep up is asked in its next session.
                let _ = peer.push(Command::new(Order::Ask));
            }
            self.to_ask.pop_front();
        }
    }

    fn tell(&mut self, session: Generation, most: usize, unix: u64) {
        let (Some(peer), Some((asker, addr))) = (self.peers.get(&session), self.table.session(session))
        else {
            return;
        };
        let now = self.env.clock.now();
        let mut records: Vec<_> = self.own.record.iter().map(|record| record.raw().clone()).collect();
        let others = most.min(MAX_RECORDS) - 1;
        if others > 0 {
            let sample = self.table.sample(asker, addr.ip(), others, unix);
            records.extend(sample.into_iter().take_while(|_| self.told_left.take(now).is_ok()));
        }
        // A peer that does not keep up goes without.
        let _ = peer.push(Command::new(Order::Tell(records)));
    }

    fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::Addrs(addrs) => {
                if addrs != self.own.addrs {
                    self.own.addrs = addrs;
                    self.own.next = self.env.clock.now();
                }
            }
            // Whoever asked may have gone.
            Ask::Candidates(tell) => drop(tell.send(self.table.candidates())),
            Ask::Known(tell) => drop(tell.send(self.table.len())),
        }
    }
}

impl Own {
    pub const fn new(network: Hash32, signer: Arc<Identity>, addrs: Vec<SocketAddr>, now: Instant) -> Self {
        Self { network, signer, addrs, record: None, next: now }
    }

    /// Signs our record anew when it is due. The sequence is the calendar's, so that it grows over restarts without being
    /// kept, and at least one more than the last.
    pub fn refresh(&mut self, now: Instant, unix: u64) {
        if now < self.next {
            return;
        }
        self.next = now + REFRESH;
        if self.addrs.is_empty() {
            self.record = None;
            return;
        }
        let last = self.record.as_ref().map_or(0, |record| record.sequence);
        let (sequence, expiry) = (unix.max(last + 1), unix + LIFETIME.as_secs());
        let signed = SignedRecord::sign(&self.network, &self.signer, sequence, expiry, &self.addrs);
        // A signer that fails leaves the last record in force, which ends by itself.
        self.record = signed.or_else(|| self.record.take());
    }
}
