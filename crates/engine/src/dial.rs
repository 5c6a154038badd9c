//! Whom we dial. One task owns the address book and every outbound attempt.
//!
//! Peers that the operator named are redialled with a backoff that resets only after a healthy minute. The other
//! outbound slots are filled from the book, one address group at a time. An attempt holds a ticket from the dial to
//! the end of its session, so that the dialer always knows what is out and learns each end exactly once. Addresses of
//! peers that are connected already, by whichever side's dial, are left alone (`whose`).
//!
//! | file | what it holds |
//! |---|---|
//! | `outing.rs` | one attempt: its tries, its session, and what the dialer learns of its end |

mod outing;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rookery_base::id::canonical_addr;
use rookery_base::{AddrGroup, PeerId};
use rookery_observe::metrics::Outcome;
use rookery_runtime::ticket::tickets;
use rookery_runtime::{
    Backoff, BackoffConfig, BoxFuture, Env, FairMailbox, Instant, Lane, LaneLimits, LaneOpener, OnPanic,
    Push, Returns, TicketOffice, TokenBucket,
};
use tokio::sync::{mpsc, oneshot};

use crate::book::{Book, Entry, Record};
use crate::connect::{DialPace, Dials, first_dial};
use crate::engine::Shared;
use crate::registry::watch::StateWatch;
use crate::session::PeerHandle;
use crate::whose::Whose;
use crate::{Command, PeerFacts};
use outing::{DialEnd, Outing};

/// How often empty outbound slots are looked at; hsd's refill.
const REFILL: Duration = Duration::from_secs(3);
/// Times that new addresses have empty slots filled before their time, and once more for each [`REFILL`]: who starts finds its peers
/// as fast as they are named, and who is told of new ones without end dials, after these, at most twice as often as by itself.
const EARLY: u32 = 8;
/// How long the first answer waits for others, so that it does not fill all slots alone: a round trip around the world.
const GATHER: Duration = Duration::from_millis(200);
/// How often name seeds are asked while there is nobody to dial; hsd's.
const SEED_PAUSE: Duration = Duration::from_secs(120);
/// How often a changed book is saved; hsd's.
const SAVE: Duration = Duration::from_secs(120);
/// Time for the book to be saved; a shelf that takes longer is tried again at the next save. Inside the five seconds
/// in which a node stops.
const SAVE_DEADLINE: Duration = Duration::from_secs(2);
/// Time for a name seed to answer, longer than resolvers take that try two servers twice.
const RESOLVE: Duration = Duration::from_secs(20);
/// Peers that may be told about in one answer: the wire's cap on an `addr` message.
pub const SAMPLE: usize = 1000;
/// Peers that an operator may name.
const NAMED: usize = 256;
/// The blob under which the book is saved.
pub const BOOK_BLOB: &str = "address-book";

/// Where blobs are kept across restarts.
pub trait Shelf: Send + Sync {
    /// Saves a blob durably.
    fn save(&self, name: &'static str, bytes: Vec<u8>) -> BoxFuture<'_, Result<(), String>>;
}

/// Asks names for addresses.
pub trait Resolve: Send + Sync {
    /// The addresses of a name; none when it cannot be resolved.
    fn resolve(&self, name: &str, port: u16) -> BoxFuture<'_, Vec<SocketAddr>>;
}

/// Whom to dial.
pub struct DialConfig {
    /// Peers that the operator named: kept connected.
    pub named: Vec<SocketAddr>,
    /// Whether to dial nobody else.
    pub only_named: bool,
    /// Outbound sessions to keep besides the named ones.
    pub outbound: usize,
    /// Whether each outbound session must be in an address group of its own.
    pub one_per_group: bool,
    /// The book: as saved, or new.
    pub book: Book,
    /// Addresses to start from when the book is empty.
    pub seeds: Vec<SocketAddr>,
    /// Names to ask when there is nobody to dial.
    pub seed_names: Vec<String>,
    /// Asks names; none: names are not asked.
    pub resolver: Option<Arc<dyn Resolve>>,
    /// Keeps the book; none: it is forgotten.
    pub shelf: Option<Arc<dyn Shelf>>,
    /// How dials are paced: by the transport.
    pub pace: DialPace,
}

impl DialConfig {
    /// Dials these peers and nobody else, over TCP, and keeps nothing.
    pub const fn only(named: Vec<SocketAddr>, book: Book) -> Self {
        Self {
            named,
            only_named: true,
            outbound: 0,
            one_per_group: false,
            book,
            seeds: Vec::new(),
            seed_names: Vec::new(),
            resolver: None,
            shelf: None,
            pace: DialPace::TCP,
        }
    }
}

/// What discovery tells the book's owner.
pub enum AddressMail {
    /// A peer told of these addresses.
    Heard(Vec<Record>, IpAddr),
    /// A peer asks for addresses: its pipe gets an [`AddressSample`] command.
    Asked(PeerHandle),
    /// A session with a peer that we dialled is established.
    Connected(SocketAddr, u64),
    /// These addresses are those of these peers, as they say themselves.
    Claimed(Vec<(SocketAddr, PeerId)>),
    /// The address is our own.
    Own(SocketAddr),
    /// A lane has ended.
    Gone,
}

/// The command that answers [`AddressMail::Asked`].
pub struct AddressSample(pub Vec<Record>);

/// Opens lanes to the book's owner. Made before the engine, because the network's services need it.
#[derive(Clone)]
pub struct AddressService(LaneOpener<AddressMail>);

impl AddressService {
    /// A lane for one peer.
    pub fn open(&self) -> Option<Lane<AddressMail>> {
        self.0.open(AddressMail::Gone)
    }
}

/// The other end of an [`AddressService`], for the engine.
pub struct AddressInbox(FairMailbox<AddressMail>);

/// Makes the mailbox of the book's owner.
pub fn addresses(env: &Env, most_peers: usize) -> (AddressService, AddressInbox) {
    // One lane more, for what name seeds bring.
    let mailbox =
        FairMailbox::new("addresses", LaneLimits::PEER, most_peers + 1, env.clock, Arc::clone(&env.metrics));
    (AddressService(mailbox.opener()), AddressInbox(mailbox))
}

/// The services bits and address of a peer, for [`AddressMail::Connected`].
pub fn connected(facts: &PeerFacts) -> AddressMail {
    AddressMail::Connected(facts.addr, facts.caps.0)
}

/// A peer that the operator named.
struct Named {
    backoff: Backoff,
    /// When to dial next; none while an attempt is out.
    next: Option<Instant>,
}

enum Ask {
    Name(SocketAddr, oneshot::Sender<bool>),
    Report(oneshot::Sender<DialReport>),
}

/// What the dialer is doing.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct DialReport {
    /// Addresses in the book.
    pub known: usize,
    /// Attempts and sessions that are out.
    pub out: Vec<SocketAddr>,
    /// Named peers that wait for their next attempt, with seconds until it and failures so far.
    pub waiting: Vec<(SocketAddr, f64, u32)>,
}

/// Asks the dialer.
#[derive(Clone)]
pub struct DialHandle {
    asks: mpsc::Sender<Ask>,
    pub(crate) dials: Dials,
}

impl DialHandle {
    /// Keeps a further peer connected. False when it is named already or too many are.
    pub async fn name(&self, addr: SocketAddr) -> bool {
        let (tell, told) = oneshot::channel();
        self.asks.send(Ask::Name(addr, tell)).await.is_ok() && told.await.unwrap_or(false)
    }

    /// What the dialer is doing.
    pub async fn report(&self) -> DialReport {
        let (tell, told) = oneshot::channel();
        match self.asks.send(Ask::Report(tell)).await {
            Ok(()) => told.await.unwrap_or_default(),
            Err(_) => DialReport::default(),
        }
    }
}

pub(crate) struct Dialer {
    shared: Arc<Shared>,
    dials: Dials,
    named: BTreeMap<SocketAddr, Named>,
    only_named: bool,
    outbound: usize,
    one_per_group: bool,
    book: Book,
    seeds: Vec<SocketAddr>,
    seed_names: Vec<String>,
    resolver: Option<Arc<dyn Resolve>>,
    shelf: Option<Arc<dyn Shelf>>,
    rng: ChaCha8Rng,
    office: TicketOffice<DialEnd>,
    returns: Returns<DialEnd>,
    /// Attempts and sessions that are out.
    out: BTreeSet<SocketAddr>,
    whose: Whose,
    states: StateWatch,
    inbox: AddressInbox,
    asks: mpsc::Receiver<Ask>,
    asked_names: Option<Instant>,
    next_save: Instant,
    next_refill: Instant,
    /// Refills before their time.
    early: TokenBucket,
    /// The book has changed and its last save failed.
    unsaved: bool,
}

impl Dialer {
    /// Starts the dialer; a panic in it stops the node, because the book is its own.
    pub fn start(
        shared: &Arc<Shared>,
        config: DialConfig,
        inbox: AddressInbox,
        own: Vec<SocketAddr>,
    ) -> DialHandle {
        let env = &shared.env;
        let now = env.clock.now();
        let (asks, asked) = mpsc::channel(16);
        let (office, returns) = tickets(NAMED + config.outbound + 1);
        let dials = Dials::new(config.pace);
        let mut dialer = Self {
            shared: Arc::clone(shared),
            dials: dials.clone(),
            named: BTreeMap::new(),
            only_named: config.only_named,
            outbound: config.outbound,
            one_per_group: config.one_per_group,
            book: config.book,
            seeds: config.seeds,
            seed_names: config.seed_names,
            resolver: config.resolver,
            shelf: config.shelf,
            rng: env.rng.fork("dialer", 0),
            office,
            returns,
            out: BTreeSet::new(),
            whose: Whose::default(),
            states: shared.registry.watch(),
            inbox,
            asks: asked,
            asked_names: None,
            next_save: now + SAVE,
            next_refill: now,
            early: TokenBucket::new(1.0 / REFILL.as_secs_f64(), EARLY, now),
            unsaved: false,
        };
        for addr in own.into_iter().filter(|addr| !addr.ip().is_unspecified()) {
            dialer.book.mark_self(addr);
        }
        for addr in config.named {
            let first = first_dial(&config.pace, now, || dialer.rng.random_range(0.0..1.0));
            dialer.name(addr, first);
        }
        env.scope.spawn_to_end("dialer", OnPanic::StopNode, dialer.run());
        DialHandle { asks, dials }
    }

    async fn run(mut self) {
        let clock = self.shared.env.clock;
        loop {
            let due = self.work(clock.now());
            tokio::select! {
                biased;
                () = self.shared.env.scope.cancelled() => break,
                // None once the registry has ended: then nobody is connected.
                Some(told) = self.states.next() => self.whose.changed(&told, clock.now()),
                end = self.returns.next() => self.ended(end),
                // None once every handle is gone: then nobody asks, and the rest goes on.
                Some(ask) = self.asks.recv() => self.answer(ask),
                mail = self.inbox.0.recv() => self.mail(mail),
                () = clock.sleep_until(due) => {}
            }
            if self.next_save <= clock.now() {
                self.save().await;
                self.next_save = clock.now() + SAVE;
            }
        }
        self.save().await;
    }

    /// Starts every attempt that is due; says when to look again.
    fn work(&mut self, now: Instant) -> Instant {
        let due: Vec<SocketAddr> = self
            .named
            .iter()
            .filter(|(_, named)| named.next.is_some_and(|at| at <= now))
            .map(|(addr, _)| *addr)
            .collect();
        for addr in due {
            // An attempt from before the peer was named is still out: its end sets the next time. Without a ticket
            // the peer waits for one like everybody else, and one that is connected without our dial is looked at again.
            let begun =
                self.out.contains(&addr) || (!self.whose.is_connected(addr, now) && self.dial(addr, true));
            if let Some(named) = self.named.get_mut(&addr) {
                named.next = (!begun).then(|| now + REFILL);
            }
        }
        if self.next_refill <= now {
            self.refill(now);
            self.next_refill = now + REFILL;
        }
        let next = self.named.values().filter_map(|named| named.next).min();
        next.into_iter().chain([self.next_refill, self.next_save]).min().unwrap_or(self.next_refill)
    }

    fn refill(&mut self, now: Instant) {
        if self.only_named {
            return;
        }
        if self.book.is_empty() {
            let unix = self.shared.env.clock.unix();
            for addr in &self.seeds {
                // A seed that the book refuses (private, own) is simply not dialled.
                let _ = self.book.add_known(*addr, unix, &mut self.rng);
            }
        }
        while self.strangers() < self.outbound {
            let Some(addr) = self.pick() else {
                self.ask_names(now);
                break;
            };
            if !self.dial(addr, false) {
                break;
            }
        }
        self.shared.env.metrics.known_addresses.set(self.book.len() as i64);
    }

    fn strangers(&self) -> usize {
        self.out.iter().filter(|addr| !self.named.contains_key(addr)).count()
    }

    fn pick(&mut self) -> Option<SocketAddr> {
        let (doors, now) = (self.shared.registry.doors.borrow().clone(), self.shared.env.clock.now());
        let groups: Vec<AddrGroup> = self.out.iter().map(|addr| AddrGroup::of(addr.ip())).collect();
        let (out, whose, one_per_group) = (&self.out, &self.whose, self.one_per_group);
        let mut exclude = |entry: &Entry| {
            out.contains(&entry.addr)
                || whose.is_connected(entry.addr, now)
                || doors.refuses(entry.addr.ip(), now)
                || (one_per_group && groups.contains(&entry.group()))
        };
        self.book.pick(self.shared.env.clock.unix(), &mut self.rng, &mut exclude).map(|entry| entry.addr)
    }

    /// Starts an attempt; false when no ticket is left.
    fn dial(&mut self, addr: SocketAddr, reserved: bool) -> bool {
        let Some(ticket) = self.office.issue(DialEnd::unsaid(addr)) else { return false };
        self.out.insert(addr);
        self.book.attempted(addr, self.shared.env.clock.unix());
        let env = self.shared.env.within(self.shared.env.scope.child("peer"));
        let scope = env.scope.clone();
        let outing =
            Outing { shared: Arc::clone(&self.shared), dials: self.dials.clone(), env, addr, reserved };
        scope.spawn_to_end("peer", OnPanic::EndScope, outing.run(ticket));
        true
    }

    fn ended(&mut self, end: DialEnd) {
        self.out.remove(&end.addr);
        let env = &self.shared.env;
        if let Some(peer) = end.answered {
            self.whose.answered(end.addr, peer, env.clock.now());
        }
        let outcome = end.outcome;
        env.metrics.dials.get_or_create(&Outcome { outcome }).inc();
        env.trace("dial_end", 0, 0, 0, outcome);
        if let Some(named) = self.named.get_mut(&end.addr) {
            named.backoff.healthy_for(end.healthy);
            named.next = Some(env.clock.now() + named.backoff.next_wait());
        }
    }

    fn mail(&mut self, mail: AddressMail) {
        let unix = self.shared.env.clock.unix();
        match mail {
            AddressMail::Heard(records, source) => {
                let now = self.shared.env.clock.now();
                let news = self.book.intake(&records, source, unix, &mut self.rng).added > 0;
                if news && self.strangers() < self.outbound && self.early.take(now).is_ok() {
                    self.next_refill = self.next_refill.min(now + GATHER);
                }
            }
            AddressMail::Asked(peer) => {
                let sample = self.book.sample(SAMPLE, unix, &mut self.rng);
                // A peer that does not keep up goes without.
                let _ = peer.push(Command::new(AddressSample(sample)));
            }
            AddressMail::Connected(addr, services) => {
                self.book.succeeded(addr, services, unix);
            }
            AddressMail::Claimed(addrs) => {
                addrs.iter().for_each(|(addr, peer)| self.whose.claimed(*addr, peer));
            }
            AddressMail::Own(addr) => self.book.mark_self(addr),
            AddressMail::Gone => {}
        }
    }

    fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::Name(addr, tell) => {
                let _ = tell.send(self.name(addr, self.shared.env.clock.now()));
            }
            Ask::Report(tell) => {
                let now = self.shared.env.clock.now();
                let waiting = self.named.iter().filter_map(|(addr, named)| {
                    let wait = named.next?.saturating_duration_since(now).as_secs_f64();
                    Some((*addr, wait, named.backoff.failures()))
                });
                let _ = tell.send(DialReport {
                    known: self.book.len(),
                    out: self.out.iter().copied().collect(),
                    waiting: waiting.collect(),
                });
            }
        }
    }

    fn name(&mut self, addr: SocketAddr, first: Instant) -> bool {
        let addr = canonical_addr(addr);
        if self.named.contains_key(&addr) || self.named.len() == NAMED {
            return false;
        }
        let env = &self.shared.env;
        let rng = env.rng.fork("redial", self.named.len() as u64);
        let backoff = Backoff::new(BackoffConfig::REDIAL, rng);
        self.named.insert(addr, Named { backoff, next: Some(first) });
        true
    }

    /// Asks the name seeds, when there is nobody to dial, and not too often. The answers come in as mail.
    fn ask_names(&mut self, now: Instant) {
        let asked_lately = self.asked_names.is_some_and(|at| now < at + SEED_PAUSE);
        let Some(resolver) = self.resolver.clone().filter(|_| !asked_lately) else { return };
        let Some(lane) = self.inbox.0.opener().open(AddressMail::Gone) else { return };
        self.asked_names = Some(now);
        let (names, port) = (self.seed_names.clone(), self.book.config().default_port);
        let (required, clock) = (self.book.config().required_services, self.shared.env.clock);
        self.shared.env.scope.spawn("name-seeds", OnPanic::EndScope, async move {
            for name in names {
                let addrs = clock.timeout(RESOLVE, resolver.resolve(&name, port)).await.unwrap_or_default();
                tracing::debug!(%name, found = addrs.len(), "asked a name seed");
                let time = clock.unix();
                let record = |addr| Record { addr, services: required, time, keyed: false };
                let records: Vec<Record> = addrs.into_iter().map(record).collect();
                let bytes = size_of::<Record>() * records.len();
                // Every name counts as one source of its own, so that one of them cannot fill the book.
                if let Push::Full(_) = lane.push(AddressMail::Heard(records, source_of(&name)), bytes) {
                    return;
                }
            }
        });
    }

    async fn save(&mut self) {
        let Some(shelf) = self.shelf.clone() else { return };
        if !self.book.take_changed() && !self.unsaved {
            return;
        }
        let saving = shelf.save(BOOK_BLOB, self.book.encode());
        let saved = self.shared.env.clock.timeout(SAVE_DEADLINE, saving).await;
        let saved = saved.unwrap_or_else(|| Err(format!("not done within {} s", SAVE_DEADLINE.as_secs())));
        self.unsaved = saved.is_err();
        if let Err(error) = saved {
            tracing::warn!(%error, "cannot save the address book");
        }
    }
}

/// A stand-in source address for a name, outside every routable range.
fn source_of(name: &str) -> IpAddr {
    let [a, b] =
        name.bytes().fold(5381_u16, |hash, byte| hash.wrapping_mul(33) ^ u16::from(byte)).to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(0, a, b, 1))
}
