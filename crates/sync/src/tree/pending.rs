//! What the store has yet to learn.
//!
//! ```text
//!   base ........ agreed ............ next          main chain in the tree
//!   base ........ agreed ... stored                 main chain in the store: above `agreed` another branch, or nothing
//!                 |---- pending ----|
//! ```
//!
//! At most one commit is under way. It is not undone by what happens meanwhile: if a reorganisation leaves headers that
//! are just being written, they are replaced by the next commit.

use std::collections::VecDeque;

use rookery_base::{Hash32, Height, Work};

use super::HeaderTree;
use super::window::Recent;

/// One reorganisation, as it is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reorganisation {
    /// Height of the last header that both branches share.
    pub fork: Height,
    /// Height and hash of the tip that was left.
    pub old_tip: (Height, Hash32),
    /// Height and hash of the tip that won.
    pub new_tip: (Height, Hash32),
    /// When, in seconds since 1970: the `now` of the call in which it happened.
    pub time: u64,
}

/// How far the store is.
#[derive(Debug)]
pub(super) struct Ledger {
    /// The store has our main chain below this height, and (once committed) nothing else.
    agreed: Height,
    /// The store's main chain ends below this height.
    stored: Height,
    /// A run that replaces stored headers goes up to this height whatever its size: a part of the winning branch may
    /// have less work than what it replaces.
    whole_below: Height,
    /// Side headers to write, by hash. Those evicted since, or on the main chain now, are passed over.
    side: VecDeque<Hash32>,
    reorganisations: VecDeque<Reorganisation>,
    flight: Option<Flight>,
}

/// The commit that is under way.
#[derive(Debug, Clone, Copy)]
struct Flight {
    /// Once committed, the store's main chain ends below this height...
    stored: Height,
    /// ... and agrees with ours below this one.
    agreed: Height,
    side: usize,
    reorganisations: usize,
}

impl Ledger {
    /// A store whose main chain is ours below `next`.
    pub(super) const fn new(next: Height) -> Self {
        Self {
            agreed: next,
            stored: next,
            whole_below: next,
            side: VecDeque::new(),
            reorganisations: VecDeque::new(),
            flight: None,
        }
    }

    pub(super) const fn agreed(&self) -> Height {
        self.agreed
    }

    pub(super) fn add_side(&mut self, hash: Hash32) {
        self.side.push_back(hash);
    }

    pub(super) fn reorganised(&mut self, record: Reorganisation) {
        self.agreed = self.agreed.min(record.fork + 1);
        if let Some(flight) = &mut self.flight {
            flight.agreed = flight.agreed.min(record.fork + 1);
        }
        self.whole_below = record.new_tip.0 + 1;
        self.reorganisations.push_back(record);
    }
}

/// What one commit of the store should write: all of it, or nothing. Borrowed from the tree, which keeps it.
#[derive(Clone, Copy)]
pub struct Pending<'a> {
    tree: &'a HeaderTree,
    end: Height,
    side: usize,
    reorganisation: Option<Reorganisation>,
}

impl<'a> Pending<'a> {
    /// Height of the first main-chain header to write.
    pub const fn start(&self) -> Height {
        self.tree.ledger.agreed
    }

    /// Stored main-chain headers from [`start`](Self::start) on are of another branch and are to be removed first.
    pub const fn replaces(&self) -> bool {
        self.tree.ledger.stored > self.tree.ledger.agreed
    }

    /// Work of the chain below [`start`](Self::start).
    pub fn work_before(&self) -> Work {
        self.tree.work_below(self.start())
    }

    /// Number of main-chain headers.
    pub const fn len(&self) -> usize {
        (self.end - self.start()) as usize
    }

    /// No main-chain headers: side headers or a reorganisation only.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The main-chain headers in order: bytes, hash, and work of the chain up to and including it.
    pub fn headers(&self) -> impl Iterator<Item = (&'a [u8], Hash32, Work)> + use<'a> {
        let window = &self.tree.window;
        (self.start()..self.end).map(|height| {
            let Recent { hash, work, .. } =
                *window.get(height).expect("the window holds what is not committed");
            (window.raw(height).expect("the window holds the bytes of every header in it"), hash, work)
        })
    }

    /// Side headers: height, hash, bytes. In no order: a header that has left the main chain comes after those that
    /// hang on it.
    pub fn side(&self) -> impl Iterator<Item = (Height, Hash32, &'a [u8])> + use<'a> {
        let tree = self.tree;
        tree.ledger.side.iter().take(self.side).filter_map(|hash| {
            let id = tree.side.find(hash)?;
            Some((tree.side.node(id).height, *hash, tree.side.raw(id)))
        })
    }

    /// A reorganisation to remember.
    pub const fn reorganisation(&self) -> Option<Reorganisation> {
        self.reorganisation
    }
}

impl HeaderTree {
    /// Bytes of headers that wait for the store, those under way included.
    pub fn pending_bytes(&self) -> usize {
        let main = (self.window.next() - self.ledger.agreed) as usize;
        (main + self.ledger.side.len()) * self.header_len
    }

    /// What to commit next: at most about `max_bytes` of main-chain headers (one at least, and a reorganisation whole),
    /// as many side headers, and one reorganisation. `None` if there is nothing, or a commit is under way already.
    ///
    /// The caller writes it, and then calls [`committed`](Self::committed) or [`aborted`](Self::aborted), whatever was
    /// inserted meanwhile.
    pub fn pending(&mut self, max_bytes: usize) -> Option<Pending<'_>> {
        let ledger = &mut self.ledger;
        if ledger.flight.is_some() {
            return None;
        }
        let most = (max_bytes / self.header_len).clamp(1, MAX_TAKEN);
        let mut end = self.window.next().min(ledger.agreed + most as Height);
        if ledger.stored > ledger.agreed {
            end = end.max(ledger.whole_below.min(self.window.next()));
        }
        let side = ledger.side.len().min(most);
        let reorganisation = ledger.reorganisations.front().copied();
        if end == ledger.agreed && side == 0 && reorganisation.is_none() && ledger.stored == ledger.agreed {
            return None;
        }
        ledger.flight = Some(Flight {
            stored: end,
            agreed: end,
            side,
            reorganisations: usize::from(reorganisation.is_some()),
        });
        Some(Pending { tree: self, end, side, reorganisation })
    }

    /// What [`pending`](Self::pending) gave is durable.
    pub fn committed(&mut self) {
        let Some(flight) = self.ledger.flight.take() else { return };
        self.ledger.agreed = flight.agreed;
        self.ledger.stored = flight.stored;
        self.ledger.side.drain(..flight.side);
        self.ledger.reorganisations.drain(..flight.reorganisations);
        self.trim();
    }

    /// What [`pending`](Self::pending) gave was not written, and none of it can be seen in the store. It will be given
    /// again. (If the store cannot tell, the tree must be rebuilt from it.)
    pub const fn aborted(&mut self) {
        self.ledger.flight = None;
    }
}

/// Headers that one [`Pending`] lists at most, however large `max_bytes` is: what keeps the arithmetic above in range.
const MAX_TAKEN: usize = 1 << 20;
