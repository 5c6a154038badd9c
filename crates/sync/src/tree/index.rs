//! Hash to height over the whole main chain, in eight bytes a slot.
//!
//! A slot holds four bytes of a keyed mix of the hash (its *print*) and the height; the hash itself is where the
//! headers are. A lookup therefore gives *candidates*, and the caller compares the true hash at each: false ones come
//! once in some 2^32 slots looked at.
//!
//! Open addressing, linear probing. A slot's home is the top bits of its print, so the table grows, shrinks and closes
//! gaps without ever reading a hash. The mix is keyed: whoever makes headers cheaply (regtest) cannot aim them at one
//! neighbourhood of the table.

use rookery_base::{Hash32, Height};

/// A slot without a header. No header has this height: see [`MAX_HEIGHT`](super::MAX_HEIGHT).
const EMPTY: Slot = Slot { print: 0, height: Height::MAX };

/// The table doubles when it is fuller than three quarters. Below that a lookup of an unknown hash looks at some eight
/// neighbouring slots, which is one or two cache lines.
const FULL: (usize, usize) = (3, 4);

/// The smallest table: a page.
const MIN_SLOTS: usize = 512;

/// An odd constant without pattern (the golden ratio in 64 bits) that spreads every bit below over the top.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slot {
    print: u32,
    height: Height,
}

/// The index. Between 10.7 and 21.4 bytes a header, and half as much again for the moment in which it doubles;
/// 330,000 headers lie in 4 MiB.
#[derive(Debug, Clone)]
pub(super) struct Index {
    key: u64,
    slots: Vec<Slot>,
    len: usize,
}

impl Index {
    /// An empty index with room for `count` headers.
    pub(super) fn new(key: u64, count: usize) -> Self {
        let slots = (count * FULL.1 / FULL.0 + 1).next_power_of_two().max(MIN_SLOTS);
        Self { key, slots: vec![EMPTY; slots], len: 0 }
    }

    /// Number of headers.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Bytes of memory that it holds.
    pub(super) const fn bytes(&self) -> usize {
        self.slots.len() * size_of::<Slot>()
    }

    pub(super) fn insert(&mut self, hash: &Hash32, height: Height) {
        if (self.len + 1) * FULL.1 > self.slots.len() * FULL.0 {
            let doubled = vec![EMPTY; self.slots.len() * 2];
            self.rebuild(doubled, |_| true);
        }
        let print = self.print(hash);
        self.put(Slot { print, height });
    }

    /// Removes the header at `height`, if it is there, and closes the gap.
    pub(super) fn remove(&mut self, hash: &Hash32, height: Height) {
        let wanted = Slot { print: self.print(hash), height };
        let mask = self.slots.len() - 1;
        let mut gap = self.home(wanted.print);
        while self.slots[gap] != wanted {
            if self.slots[gap] == EMPTY {
                return;
            }
            gap = (gap + 1) & mask;
        }
        // Whatever was pushed past the gap from a home at or before it moves back into it.
        let mut at = (gap + 1) & mask;
        while self.slots[at] != EMPTY {
            let pushed = at.wrapping_sub(self.home(self.slots[at].print)) & mask;
            if pushed >= at.wrapping_sub(gap) & mask {
                self.slots[gap] = self.slots[at];
                gap = at;
            }
            at = (at + 1) & mask;
        }
        self.slots[gap] = EMPTY;
        self.len -= 1;
    }

    /// Removes every header above `height`. Reads the whole table, no hashes: for reorganisations so deep that the
    /// hashes left behind are no longer in memory.
    pub(super) fn truncate(&mut self, height: Height) {
        let same = vec![EMPTY; self.slots.len()];
        self.rebuild(same, |slot| slot.height <= height);
    }

    /// Heights at which this hash may be. The caller compares the true hash.
    pub(super) fn candidates(&self, hash: &Hash32) -> impl Iterator<Item = Height> + '_ {
        let print = self.print(hash);
        let (mask, mut at) = (self.slots.len() - 1, self.home(print));
        std::iter::from_fn(move || {
            loop {
                let slot = self.slots[at];
                if slot == EMPTY {
                    return None;
                }
                at = (at + 1) & mask;
                if slot.print == print {
                    return Some(slot.height);
                }
            }
        })
    }

    fn rebuild(&mut self, slots: Vec<Slot>, keep: impl Fn(&Slot) -> bool) {
        let old = std::mem::replace(&mut self.slots, slots);
        self.len = 0;
        for slot in old.into_iter().filter(|slot| *slot != EMPTY && keep(slot)) {
            self.put(slot);
        }
    }

    fn put(&mut self, slot: Slot) {
        let mask = self.slots.len() - 1;
        let mut at = self.home(slot.print);
        while self.slots[at] != EMPTY {
            at = (at + 1) & mask;
        }
        self.slots[at] = slot;
        self.len += 1;
    }

    /// The last bytes of a hash: the first are zeros where work is high.
    fn print(&self, hash: &Hash32) -> u32 {
        let mut last = [0; 8];
        last.copy_from_slice(&hash.0[24..]);
        let mixed = (u64::from_le_bytes(last) ^ self.key).wrapping_mul(SPREAD);
        ((mixed ^ (mixed >> 32)).wrapping_mul(SPREAD) >> 32) as u32
    }

    fn home(&self, print: u32) -> usize {
        ((u64::from(print) * self.slots.len() as u64) >> 32) as usize
    }
}
