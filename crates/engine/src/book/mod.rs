//! The address book: which addresses are known, how well, and which to try next.
//!
//! ```text
//!  addr message --intake--> fresh table --succeeded--> used table
//!                             ^   |  stale or oldest     |
//!                             |   +--> forgotten         | oldest of a full bucket
//!                             +--------------------------+
//!  pick: used or fresh by a coin, any bucket that holds something, any of its entries, accepted by its chance
//! ```
//!
//! The book is a plain value: no clock, no I/O, no randomness of its own. Callers give `now` (seconds since 1970)
//! and a generator; the same calls with the same generator give the same book, byte for byte when encoded.
//!
//! # What it promises
//!
//! * **Nobody can fill it.** Addresses nobody here has reached live in the *fresh* table: 1,024 buckets of 64. Which
//!   bucket is a keyed hash of the address's group and of its source's group, and one source group reaches 64 of
//!   the buckets: it can hold 4,096 of the 65,536 places and no more, whatever it sends. All addresses of one group
//!   told by one source group share a single bucket. Addresses that have answered live in the *used* table, 256
//!   buckets of 64, where one address group reaches 8 buckets: 512 of the 16,384 places.
//! * **A crowd cannot outshout the rest.** A pick chooses a bucket before it chooses an entry, so 64 places in one
//!   bucket weigh as much as a single address in another.
//! * **A restart keeps both.** The hash key is part of the encoding: without it, restarting would shuffle the buckets
//!   and give the same source another 64. Who knows the key can aim at buckets: keep the file private.
//! * **Memory follows content.** An empty book allocates nothing. An entry costs 90 bytes of its own and 24 for each bucket
//!   that holds it; with what the tree, the buckets and the slots keep spare, 240 bytes were measured, so a full book of
//!   81,920 entries is some 20 MB.
//! * **Work is bounded.** The most expensive address a peer can send is one for a full bucket: its 64 entries are judged,
//!   in about two microseconds. A picked address costs as much.
//!
//! # What it does not do
//!
//! It knows nothing of sessions and bans: [`Book::pick`] asks the caller about every candidate. It does not decide
//! to whom an address is relayed. Addresses with an identity key are not kept: they are never gossiped, and those
//! that an operator configures are the dialler's.
//!
//! | file | what it holds |
//! |---|---|
//! | `entry.rs` | one address: its record, when it is stale, its chance |
//! | `nodes.rs` | the entries, by address and by slot |
//! | `buckets.rs` | a table of buckets, and the keyed placement |
//! | `intake.rs` | what is taken in from messages and from the operator |
//! | `fate.rs` | attempts, successes, moves between the tables, removal |
//! | `choose.rs` | the next address to try, and samples for peers that ask |
//! | `codec.rs` | the file format |
//!
//! The rules are those of hsd's host list, which are Bitcoin's with smaller numbers. Differences, on purpose: a full
//! fresh bucket that holds stale entries loses those and nothing else; an entry that is being tried is the last
//! to be evicted; a used entry that is pushed out makes room in its own fresh bucket instead of landing in one that
//! its hash does not name; what a peer says of its own services replaces hearsay instead of being added to it.

mod buckets;
mod choose;
mod codec;
mod entry;
mod fate;
mod intake;
mod nodes;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::NonZeroU16;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rookery_base::id::canonical_addr;

use buckets::{Placement, Table};
use entry::{Home, Key};
use nodes::Nodes;

pub use choose::MAX_SAMPLE;
pub use codec::{BookError, MAX_ENCODED, checksum};
pub use entry::Entry;
pub use intake::{Intake, Record, Refusal, is_dialable, is_routable};

/// Buckets for addresses nobody here has reached (hsd, Bitcoin).
pub const FRESH_BUCKETS: NonZeroU16 = NonZeroU16::new(1024).expect("1024 is not zero");
/// Buckets for addresses that have answered (hsd, Bitcoin).
pub const USED_BUCKETS: NonZeroU16 = NonZeroU16::new(256).expect("256 is not zero");
/// Places in a bucket (hsd, Bitcoin).
pub const BUCKET_SIZE: NonZeroU16 = NonZeroU16::new(64).expect("64 is not zero");
/// Own addresses remembered. A node has a few; a peer that relays our connections back to us can make up any number,
/// so the first ones stay (the operator's come first) and later ones are only removed from the book.
pub const MAX_OWN: usize = 64;

/// How many buckets there are, and how large. Other than the default, and then smaller, only in tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Buckets for addresses nobody here has reached.
    pub fresh: NonZeroU16,
    /// Buckets for addresses that have answered.
    pub used: NonZeroU16,
    /// Places in a bucket of either table.
    pub bucket: NonZeroU16,
}

impl Default for Shape {
    fn default() -> Self {
        Self { fresh: FRESH_BUCKETS, used: USED_BUCKETS, bucket: BUCKET_SIZE }
    }
}

/// What a network's book takes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BookConfig {
    /// Names the network in the file, so that one network's book is refused by another. The wire's magic will do.
    pub network: u32,
    /// The network's usual port: other ports are passed over in the first tries of a pick.
    pub default_port: u16,
    /// Service bits that an address must announce to be kept and picked.
    pub required_services: u64,
    /// Keeps loopback and private addresses too: for networks on one machine, and for simulation.
    pub allow_private: bool,
    /// The tables' dimensions.
    pub shape: Shape,
}

impl BookConfig {
    /// A public network's book.
    pub fn new(network: u32, default_port: u16, required_services: u64) -> Self {
        Self { network, default_port, required_services, allow_private: false, shape: Shape::default() }
    }

    /// The same, for a network of private addresses.
    #[must_use]
    pub const fn with_private(mut self) -> Self {
        self.allow_private = true;
        self
    }
}

/// The addresses known to one node on one network. See the module's page.
#[derive(Debug, Clone)]
pub struct Book {
    config: BookConfig,
    placement: Placement,
    nodes: Nodes,
    fresh: Table,
    used: Table,
    /// Entries in the used table; the others are in the fresh one.
    used_count: usize,
    own: BTreeSet<Key>,
    /// Something that the encoding holds has changed since [`Book::take_changed`].
    changed: bool,
}

impl Book {
    /// An empty book with a new key.
    pub fn new(config: BookConfig, rng: &mut ChaCha8Rng) -> Self {
        let mut key = [0; 32];
        rng.fill_bytes(&mut key);
        Self::with_key(config, key)
    }

    fn with_key(config: BookConfig, key: [u8; 32]) -> Self {
        let Shape { fresh, used, bucket } = config.shape;
        Self {
            config,
            placement: Placement::new(key, fresh, used),
            nodes: Nodes::default(),
            fresh: Table::new(bucket),
            used: Table::new(bucket),
            used_count: 0,
            own: BTreeSet::new(),
            changed: false,
        }
    }

    /// What the book takes in.
    pub const fn config(&self) -> &BookConfig {
        &self.config
    }

    /// Addresses known.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// True when no address is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Addresses that have answered at some time.
    pub const fn used(&self) -> usize {
        self.used_count
    }

    /// Addresses nobody here has reached.
    pub fn fresh(&self) -> usize {
        self.nodes.len() - self.used_count
    }

    /// What is known of an address.
    pub fn get(&self, addr: SocketAddr) -> Option<Entry> {
        let key = Key::of(addr);
        self.nodes.find(&key).map(|slot| self.nodes[slot].view(key))
    }

    /// Every entry, in address order.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        self.nodes.iter().map(|(key, node)| node.view(key))
    }

    /// Writes down that an address is this node's: it is removed, and refused from now on. Not kept across restarts.
    pub fn mark_self(&mut self, addr: SocketAddr) {
        let key = Key::of(addr);
        if self.own.len() < MAX_OWN {
            self.own.insert(key);
        }
        self.remove(canonical_addr(addr));
    }

    /// True when the address was marked as this node's.
    pub fn is_self(&self, addr: SocketAddr) -> bool {
        self.own.contains(&Key::of(addr))
    }

    /// True once after each change worth writing to disk.
    pub const fn take_changed(&mut self) -> bool {
        std::mem::replace(&mut self.changed, false)
    }

    /// Scans both tables and compares them with what the entries say of themselves: each entry is in exactly the buckets
    /// that it names, in one table only, at most eight times; caps hold; counters equal the scans. Slow: for tests and
    /// for the simulation's invariants.
    ///
    /// # Errors
    /// The first difference, in words.
    pub fn audit(&self) -> Result<(), String> {
        self.fresh.audit(self.config.shape.fresh).map_err(|why| format!("fresh table: {why}"))?;
        self.used.audit(self.config.shape.used).map_err(|why| format!("used table: {why}"))?;
        let (mut places, mut used) = (0, 0);
        for (key, node) in self.nodes.iter() {
            let addr = key.addr();
            let (table, homes) = match &node.home {
                Home::Fresh(refs) => (&self.fresh, refs.as_slice()),
                Home::Used(index) => (&self.used, std::slice::from_ref(index)),
            };
            if homes.is_empty() || !homes.is_sorted_by(|a, b| a < b) {
                return Err(format!("{addr} names the buckets {homes:?}"));
            }
            let held = self.nodes.find(&key).map(|slot| (key, slot));
            let holds = |index: u16| table.bucket(index).iter().any(|place| Some(*place) == held);
            if let Some(index) = homes.iter().find(|index| !holds(**index)) {
                return Err(format!("{addr} names bucket {index}, which does not hold it"));
            }
            if self.own.contains(&key) {
                return Err(format!("{addr} is this node's own"));
            }
            places += homes.len();
            used += usize::from(matches!(node.home, Home::Used(_)));
        }
        if places != self.fresh.places() + self.used.places() {
            return Err(format!("the buckets hold more than the {places} places that entries name"));
        }
        if used != self.used_count {
            return Err(format!("{used} entries are used, the counter says {}", self.used_count));
        }
        Ok(())
    }
}
