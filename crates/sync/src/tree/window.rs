//! The recent part of the main chain, in full: facts and raw bytes by height.
//!
//! Kept in pieces of a sixteenth of the window, so that it moves without copying, grows without doubling, and gives
//! memory back a piece at a time, but for a few that are kept for use again.

use std::collections::VecDeque;

use rookery_base::{Hash32, Height, Work};

use crate::chain::{Ancestor, Ancestry, HeaderFacts};

/// Pieces in a window of the length that was asked for: it is at most a sixteenth longer than it must be.
const PIECES: u32 = 16;

/// Pieces kept for use again: about what one commit of the store frees, and the next 8,000 headers need. Without them
/// inserting costs half as much again, all of it in page faults.
const SPARE: usize = 2 * PIECES as usize;

/// What is kept of a main-chain header beside its bytes. 80 bytes: the parent's hash is the entry before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Recent {
    pub(super) hash: Hash32,
    pub(super) time: u64,
    pub(super) bits: u32,
    /// Work of the chain up to and including this header.
    pub(super) work: Work,
}

impl Recent {
    pub(super) const fn new(facts: &HeaderFacts, work: Work) -> Self {
        Self { hash: facts.hash, time: facts.time, bits: facts.bits, work }
    }

    pub(super) const fn ancestor(&self) -> Ancestor {
        Ancestor { time: self.time, bits: self.bits, work: self.work }
    }
}

/// A run of headers with their bytes, taken out of the window or read from the archive.
#[derive(Debug, Default)]
pub(super) struct Run {
    pub(super) recent: Vec<Recent>,
    pub(super) raw: Vec<u8>,
}

impl Run {
    pub(super) fn iter(&self, header_len: usize) -> impl Iterator<Item = (&Recent, &[u8])> {
        self.recent.iter().zip(self.raw.chunks_exact(header_len))
    }
}

#[derive(Debug)]
struct Piece {
    facts: Vec<Recent>,
    raw: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Window {
    header_len: usize,
    /// Headers a piece, as a power of two: every ancestor that the rules read is found by it.
    shift: u32,
    floor: Height,
    len: usize,
    /// All but the last are full.
    pieces: VecDeque<Piece>,
    /// Empty ones, at most [`SPARE`].
    spare: Vec<Piece>,
}

impl Window {
    /// An empty window whose first header will be at `floor`, and which will be trimmed to about `depth`.
    pub(super) fn new(header_len: usize, depth: u32, floor: Height) -> Self {
        let shift = (depth / PIECES).max(1).ilog2();
        Self { header_len, shift, floor, len: 0, pieces: VecDeque::new(), spare: Vec::new() }
    }

    /// Height of the first header that is kept.
    pub(super) const fn floor(&self) -> Height {
        self.floor
    }

    const fn piece(&self) -> usize {
        1 << self.shift
    }

    /// The height after the last header.
    pub(super) const fn next(&self) -> Height {
        self.floor + self.len as Height
    }

    /// Bytes of memory that it holds.
    pub(super) fn bytes(&self) -> usize {
        (self.pieces.len() + self.spare.len()) * self.piece() * (self.header_len + size_of::<Recent>())
    }

    pub(super) fn get(&self, height: Height) -> Option<&Recent> {
        let at = height.checked_sub(self.floor)? as usize;
        self.pieces.get(at >> self.shift)?.facts.get(at & (self.piece() - 1))
    }

    pub(super) fn raw(&self, height: Height) -> Option<&[u8]> {
        let at = height.checked_sub(self.floor)? as usize;
        let start = (at & (self.piece() - 1)) * self.header_len;
        self.pieces.get(at >> self.shift)?.raw.get(start..start + self.header_len)
    }

    /// The last header.
    ///
    /// # Panics
    ///
    /// If there is none: the tree's window never is empty.
    pub(super) fn last(&self) -> &Recent {
        self.pieces.back().and_then(|piece| piece.facts.last()).expect("the window holds the tip at least")
    }

    pub(super) fn push(&mut self, recent: Recent, raw: &[u8]) {
        if self.len.is_multiple_of(self.piece()) {
            let piece = self.spare.pop().unwrap_or_else(|| Piece {
                facts: Vec::with_capacity(self.piece()),
                raw: Vec::with_capacity(self.piece() * self.header_len),
            });
            self.pieces.push_back(piece);
        }
        let piece = self.pieces.back_mut().expect("a piece was pushed when the last was full");
        piece.facts.push(recent);
        piece.raw.extend_from_slice(raw);
        self.len += 1;
    }

    /// Drops the headers from height `next` on.
    pub(super) fn truncate(&mut self, next: Height) {
        self.len = self.len.min(next.saturating_sub(self.floor) as usize);
        self.pieces.truncate(self.len.div_ceil(self.piece()));
        let rest = self.len % self.piece();
        if rest > 0
            && let Some(last) = self.pieces.back_mut()
        {
            last.facts.truncate(rest);
            last.raw.truncate(rest * self.header_len);
        }
    }

    /// Drops whole pieces below `floor`, never the last header.
    pub(super) fn trim(&mut self, floor: Height) {
        while self.len > self.piece() && self.floor + self.piece() as Height <= floor {
            if let Some(mut piece) = self.pieces.pop_front()
                && self.spare.len() < SPARE
            {
                piece.facts.clear();
                piece.raw.clear();
                self.spare.push(piece);
            }
            self.floor += self.piece() as Height;
            self.len -= self.piece();
        }
    }
}

/// The branch that ends in the tip.
impl Ancestry for Window {
    fn height(&self) -> Height {
        self.next() - 1
    }

    fn at(&self, height: Height) -> Option<Ancestor> {
        self.get(height).map(Recent::ancestor)
    }
}
