//! The end of one branch, as far back as the rules look.

use rookery_base::{Height, Work};
use rookery_sync::{Ancestor, Ancestry, HeaderFacts};

use super::{rules::LOOKBACK, target};

/// Ancestors held: the next power of two above [`LOOKBACK`], so that a height finds its slot by a mask.
const SLOTS: usize = LOOKBACK.next_power_of_two();

/// The last ancestors of a single growing branch, in a ring. For those who extend a chain and never fork it.
#[derive(Debug, Clone)]
pub struct Recent {
    ring: Box<[Ancestor; SLOTS]>,
    height: Height,
    held: u32,
}

impl Recent {
    /// A branch that holds one header, with `work` up to and including it.
    pub fn new(height: Height, header: &HeaderFacts, work: Work) -> Self {
        let first = Ancestor { time: header.time, bits: header.bits, work };
        let empty = Ancestor { time: 0, bits: 0, work: Work::ZERO };
        let mut recent = Self { ring: Box::new([empty; SLOTS]), height, held: 1 };
        recent.ring[slot(height)] = first;
        recent
    }

    /// Adds the next header. Its place was checked before.
    pub fn push(&mut self, header: &HeaderFacts) {
        let work = self.work().saturating_add(target::proof(header.bits));
        self.height += 1;
        self.held = self.held.saturating_add(1);
        self.ring[slot(self.height)] = Ancestor { time: header.time, bits: header.bits, work };
    }

    /// Work of the branch up to and including its end.
    pub fn work(&self) -> Work {
        self.ring[slot(self.height)].work
    }
}

impl Ancestry for Recent {
    fn height(&self) -> Height {
        self.height
    }

    fn at(&self, height: Height) -> Option<Ancestor> {
        let back = self.height.checked_sub(height)?;
        (back < self.held && back < SLOTS as u32).then(|| self.ring[slot(height)])
    }
}

/// Where the ring keeps a height.
const fn slot(height: Height) -> usize {
    height as usize % SLOTS
}
