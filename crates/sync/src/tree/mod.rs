//! The header tree: which headers are known, which chain is the main one, and what the store has yet to learn.
//!
//! A plain data structure. It does no I/O, reads no clock, knows no peers; one owner calls it. What is to be written
//! comes out as values ([`Pending`]), what is old is read through [`Archive`], which the caller lends to each call.
//!
//! ```text
//!  checked facts + raw bytes                        tip, locator, heights
//!            |                                               ^
//!            v        known?          place()                |
//!         insert --> index, side --> Chain rules --> window (main) or side (branches) --> reorganise?
//!                                                            |
//!                     store  <-- pending / committed <-------+
//! ```
//!
//! # Promises
//!
//! - **The tip** has the most accumulated work of all headers accepted so far; of equals, the one that was first.
//! - **Good prefix.** A batch is taken in order up to the first header that cannot be taken; those before it stay, and
//!   the refusal names its index and the reason. Nothing is remembered against a refused header: one that was
//!   [too new](crate::HeaderFault::TooNew) is judged afresh when it comes again.
//! - **Duplicates are cheap.** Known headers are recognised by hash and never judged twice.
//! - **Nothing is lost on the way to the store.** What [`HeaderTree::pending`] gives stays in memory until
//!   [`HeaderTree::committed`]; after [`HeaderTree::aborted`] it is given again. Headers and reorganisations that come
//!   meanwhile are no exception. Applied in order, the values always give the main chain; a reorganisation is never
//!   cut in two, so that every committed state is one of a chain that was once the best.
//! - **The archive is read only where it agrees:** below the window, which reaches down to the first header that is not
//!   known to be committed. It may be read while a commit is under way.
//!
//! # Memory
//!
//! | what | bytes a header | headers | at 236-byte headers |
//! |---|---|---|---|
//! | index | 8 a slot: 10.7 to 21.4 | the whole main chain | 4 MiB at 330,000 |
//! | window | 80 and the raw header | [`WINDOW`], the uncommitted, and 8,192 for use again | 4 MB, 10 MB while [`MAX_PENDING_BYTES`] wait |
//! | side | 200 to 330 and the raw header | up to [`MAX_SIDE_HEADERS`] | none on a quiet chain, 12 MB under attack |
//!
//! # Attacks
//!
//! - *Branches without work from old heights:* at most [`MAX_SIDE_HEADERS`]; see there who is evicted. Below the last
//!   checkpoint that the main chain has passed they are refused at once ([`Refused::BelowCheckpoint`]).
//! - *Headers aimed at one place of the index:* it is keyed.
//! - *More than the store can write:* [`Refused::Full`], before anything is looked at. The owner stops admitting.
//! - *A long locator:* only the first [`MAX_LOCATOR_HASHES`] are read.
//!
//! Not provided: a fork that needs more than [`MAX_SIDE_HEADERS`] headers of its own before it outweighs the main chain
//! is refused ([`Refused::SideFull`]) and cannot be followed. Headers that a reorganisation deeper than the window
//! leaves behind are forgotten, not kept as a branch.

mod index;
mod insert;
mod locate;
mod pending;
mod reorganise;
mod side;
mod start;
#[cfg(test)]
mod tests;
mod window;

use std::sync::Arc;

use rookery_base::{Hash32, Height, Work};

use crate::chain::{Chain, HeaderFacts, HeaderFault};
use index::Index;
use pending::Ledger;
use side::Side;
use window::Window;

pub use pending::{Pending, Reorganisation};
pub use start::{Restore, StartError};

/// Main-chain headers kept in full below the tip. A healthy chain never looks further back: it is two of the largest
/// header messages, and fourteen times the deepest reorganisation that a full node of this kind can undo (hsd keeps
/// 288 blocks). A deeper fork is followed as well, by reading its ancestors from the archive. Chains whose rules look
/// back further keep that much.
pub const WINDOW: u32 = 4_096;

/// Raw bytes that may wait for the store: two of its batches of 2 MiB, so that one gathers while the other is
/// written. Beyond it [`HeaderTree::insert`] refuses; a batch that begins below may pass it.
pub const MAX_PENDING_BYTES: usize = 4 << 20;

/// Side headers kept. Four windows: a fork of that length can be followed whatever its depth, at 12 MB of memory
/// that is held only while there is such a fork, or an attack. One leaf is evicted for each header beyond: the lowest in
/// work of the source that sends it, or of all if that source has no other, never the end of the branch that grows.
/// So a flood from one source pays with its own headers.
pub const MAX_SIDE_HEADERS: usize = 16_384;

/// Hashes of a locator that are looked at. An honest one has 11, then one for each doubling: 43 at the last height
/// there can be. The reference node reads up to 50,000, each a lookup, for whoever sends them.
pub const MAX_LOCATOR_HASHES: usize = 64;

/// The last height: half of what fits, so that heights can be added to without care. At one header a second it is
/// sixty years away.
pub const MAX_HEIGHT: Height = Height::MAX / 2;

/// The limits of a tree.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Keys the index: random, from the node's source of randomness, and told to nobody.
    pub index_key: u64,
    /// Main-chain headers kept in full below the tip, see [`WINDOW`].
    pub window: u32,
    /// Side headers kept, see [`MAX_SIDE_HEADERS`].
    pub side_headers: usize,
    /// Raw bytes that may wait for the store, see [`MAX_PENDING_BYTES`].
    pub pending_bytes: usize,
}

impl Settings {
    /// The limits of a node.
    pub const fn new(index_key: u64) -> Self {
        Self { index_key, window: WINDOW, side_headers: MAX_SIDE_HEADERS, pending_bytes: MAX_PENDING_BYTES }
    }
}

/// What the store has of the main chain, read when a call needs more than is in memory.
///
/// Only ever asked for heights that were committed, and that the tree has not left since. Reads may be slow; they
/// happen for hashes and forks below the window only.
pub trait Archive {
    /// Main-chain hashes from height `from`, `count` of them.
    fn hashes(&self, from: Height, count: usize) -> Result<Vec<Hash32>, Unreadable>;
    /// Raw main-chain headers from height `from`, `count` of them, one after the other.
    fn headers(&self, from: Height, count: usize) -> Result<Vec<u8>, Unreadable>;
    /// A height at or below `height`, near it, and the work of the chain below that height.
    fn work_anchor(&self, height: Height) -> Result<(Height, Work), Unreadable>;
}

/// The archive did not give what it must have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("stored headers cannot be read: {0}")]
pub struct Unreadable(pub String);

/// An end of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tip {
    /// Its height.
    pub height: Height,
    /// Its hash.
    pub hash: Hash32,
    /// Work of the chain up to and including it.
    pub work: Work,
    /// The time it claims, in seconds since 1970.
    pub time: u64,
}

/// A run of headers to insert, checked on their own already ([`Chain::check`]).
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// Their facts, in order.
    pub facts: &'a [HeaderFacts],
    /// Their bytes, one after the other.
    pub raw: &'a [u8],
    /// Who sent them: whatever number tells the sessions apart. Side headers are accounted to it.
    pub source: u64,
}

/// What became of a batch.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inserted {
    /// Headers that were not known before.
    pub new: usize,
    /// Headers that were.
    pub known: usize,
    /// The first header that was not taken, by its index, and why. Those after it were not looked at.
    pub refused: Option<(usize, Refused)>,
    /// Another tip than before.
    pub tip_changed: bool,
    /// The main chain changed its branch.
    pub reorganised: Option<Reorganised>,
    /// The tip now.
    pub tip: Tip,
}

/// A change of branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reorganised {
    /// Height of the last header that both branches share.
    pub fork: Height,
    /// Headers that left the main chain.
    pub disconnected: u32,
    /// Headers that came onto it.
    pub connected: u32,
}

/// Why a header was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Too much waits for the store. Ours: stop admitting until a commit is through.
    #[error("{pending} bytes wait for the store, the most is {most}")]
    Full {
        /// Bytes that wait.
        pending: usize,
        /// Bytes that may wait.
        most: usize,
    },
    /// The first header's parent is not known. Ask from a locator.
    #[error("the parent {prev} is not known")]
    Orphan {
        /// The parent.
        prev: Hash32,
    },
    /// A header's parent is not the header before it. The sender's.
    #[error("its parent is {got}, the header before it is {expected}")]
    Unlinked {
        /// The parent it names.
        got: Hash32,
        /// The header before it.
        expected: Hash32,
    },
    /// The rules refuse it. The sender's, but for [`HeaderFault::NoAncestor`].
    #[error(transparent)]
    Fault(#[from] HeaderFault),
    /// It leaves the main chain below a checkpoint that the main chain has passed: its branch cannot be right.
    #[error("leaves the main chain at {fork}, below the checkpoint at {checkpoint}")]
    BelowCheckpoint {
        /// Height of the last header shared with the main chain.
        fork: Height,
        /// Height of the checkpoint.
        checkpoint: Height,
    },
    /// Its branch is as long as all branches together may be, and still has less work than the main chain. Ours.
    #[error("{most} side headers are kept, all of this branch")]
    SideFull {
        /// Side headers that may be kept.
        most: usize,
    },
    /// The chain is as high as it can be. Nobody's.
    #[error("no header can be above height {MAX_HEIGHT}")]
    TooHigh,
    /// The archive failed. Ours.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
}

impl Refused {
    /// The fault is ours, or nobody's: it must not cost the sender anything.
    pub const fn is_local(&self) -> bool {
        match self {
            Self::Full { .. } | Self::SideFull { .. } | Self::TooHigh | Self::Unreadable(_) => true,
            Self::Fault(HeaderFault::NoAncestor { .. }) => true,
            Self::Orphan { .. } | Self::Unlinked { .. } | Self::Fault(_) | Self::BelowCheckpoint { .. } => {
                false
            }
        }
    }
}

/// A place in the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spot {
    Main(Height),
    Side(side::Id),
}

/// The header tree. See the [module](self).
pub struct HeaderTree {
    chain: Arc<dyn Chain>,
    header_len: usize,
    settings: Settings,
    /// Height of the first header that is kept anywhere.
    base: Height,
    /// Work of the chain below it.
    base_work: Work,
    /// The last main-chain headers, tip included: never empty.
    window: Window,
    index: Index,
    side: Side,
    ledger: Ledger,
    /// The last bits seen and what they stand for: bits repeat, and the division behind it is slow.
    proof: (u32, Work),
}

impl HeaderTree {
    /// The main chain's tip.
    pub fn tip(&self) -> Tip {
        let last = self.window.last();
        Tip { height: self.tip_height(), hash: last.hash, work: last.work, time: last.time }
    }

    /// Height of the first header that is kept: 0, or where the checkpoint start begins.
    pub const fn base(&self) -> Height {
        self.base
    }

    /// Whether the chain may call itself synced at `now`, by its own rule.
    pub fn synced(&self, now: u64) -> bool {
        let tip = self.tip();
        self.chain.synced(tip.height, tip.work, tip.time, now)
    }

    /// Side headers kept.
    pub fn side_headers(&self) -> usize {
        self.side.len()
    }

    /// Bytes held by the index and the window, side headers not counted.
    pub fn memory(&self) -> usize {
        self.index.bytes() + self.window.bytes()
    }

    const fn tip_height(&self) -> Height {
        self.window.next() - 1
    }

    fn proof(&mut self, bits: u32) -> Work {
        if self.proof.0 != bits {
            self.proof = (bits, self.chain.proof(bits));
        }
        self.proof.1
    }

    /// Ancestors that the rules may read, the parent at least.
    fn lookback(&self) -> u32 {
        lookback(self.chain.as_ref())
    }

    /// Headers that the window keeps at least.
    fn depth(&self) -> u32 {
        depth(self.chain.as_ref(), &self.settings)
    }

    /// Drops from the window what is committed and deeper than it needs to be. The last committed header stays: its
    /// work goes with the next commit.
    fn trim(&mut self) {
        let deepest = self.window.next().saturating_sub(self.depth());
        self.window.trim(deepest.min(self.ledger.agreed().saturating_sub(1)));
    }
}

fn lookback(chain: &dyn Chain) -> u32 {
    chain.lookback().clamp(1, MAX_HEIGHT as usize) as u32
}

fn depth(chain: &dyn Chain, settings: &Settings) -> u32 {
    settings.window.max(lookback(chain))
}

impl std::fmt::Debug for HeaderTree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HeaderTree")
            .field("chain", &self.chain.name())
            .field("tip", &self.tip())
            .field("base", &self.base)
            .field("headers", &self.index.len())
            .field("window_from", &self.window.floor())
            .field("side", &self.side.len())
            .field("pending_bytes", &self.pending_bytes())
            .finish()
    }
}
