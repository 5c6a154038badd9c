//! Sets of sessions as bits: each session has a small number while it lasts.
//!
//! Who was told of an item is remembered for each item and each session. As bits, four thousand items and a thousand
//! sessions take a megabyte; as sets of generations they would take sixty.

/// Gives sessions the smallest numbers that are free.
#[derive(Debug, Default)]
pub(super) struct Slots {
    free: Vec<usize>,
    next: usize,
}

impl Slots {
    pub fn take(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        })
    }

    /// The number is nobody's any more; its bit must be removed from every set first.
    pub fn give_back(&mut self, slot: usize) {
        self.free.push(slot);
    }
}

/// A set of numbers.
#[derive(Debug, Default)]
pub(super) struct Bits(Vec<u64>);

impl Bits {
    /// True when it was not there.
    pub fn insert(&mut self, slot: usize) -> bool {
        let (word, bit) = (slot / 64, 1 << (slot % 64));
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        let before = self.0[word];
        self.0[word] |= bit;
        before & bit == 0
    }

    pub fn remove(&mut self, slot: usize) {
        if let Some(word) = self.0.get_mut(slot / 64) {
            *word &= !(1 << (slot % 64));
        }
    }

    pub fn contains(&self, slot: usize) -> bool {
        self.0.get(slot / 64).is_some_and(|word| word & (1 << (slot % 64)) != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn bits_are_a_set(steps in proptest::collection::vec((any::<bool>(), 0_usize..300), 0..200)) {
            let (mut bits, mut model) = (Bits::default(), BTreeSet::new());
            for (insert, slot) in steps {
                if insert {
                    prop_assert_eq!(bits.insert(slot), model.insert(slot));
                } else {
                    bits.remove(slot);
                    model.remove(&slot);
                }
                prop_assert!((0..400).all(|slot| bits.contains(slot) == model.contains(&slot)));
            }
        }
    }

    #[test]
    fn numbers_stay_as_small_as_the_most_sessions_at_a_time() {
        let mut slots = Slots::default();
        for _ in 0..1000 {
            let (a, b) = (slots.take(), slots.take());
            assert!(a != b && a < 2 && b < 2);
            slots.give_back(a);
            slots.give_back(b);
        }
    }
}
