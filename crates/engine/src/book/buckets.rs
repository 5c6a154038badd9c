//! A table of buckets, kept only where they hold something, and the keyed placement of addresses in them.

use std::hash::Hasher;
use std::num::NonZeroU16;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rookery_base::AddrGroup;
use siphasher::sip::SipHasher24;

use super::entry::Key;
use super::nodes::Slot;

/// Fresh buckets that one source group reaches (hsd, Bitcoin).
pub(super) const FRESH_SLOTS: u64 = 64;
/// Used buckets that one address group reaches (hsd, Bitcoin).
pub(super) const USED_SLOTS: u64 = 8;
/// Keep the two tables' hashes apart.
const FRESH_DOMAIN: u8 = b'f';
const USED_DOMAIN: u8 = b'u';

/// Which bucket an address belongs to. Both steps are keyed, so that nobody outside can aim at a bucket: the first
/// half of the key chooses one of a group's slots, the second turns group and slot into a bucket.
#[derive(Debug, Clone)]
pub(super) struct Placement {
    key: [u8; 32],
    slots: SipHasher24,
    buckets: SipHasher24,
    fresh: u64,
    used: u64,
}

impl Placement {
    pub(super) fn new(key: [u8; 32], fresh: NonZeroU16, used: NonZeroU16) -> Self {
        let (mut first, mut second) = ([0; 16], [0; 16]);
        first.copy_from_slice(&key[..16]);
        second.copy_from_slice(&key[16..]);
        Self {
            key,
            slots: SipHasher24::new_with_key(&first),
            buckets: SipHasher24::new_with_key(&second),
            fresh: fresh.get().into(),
            used: used.get().into(),
        }
    }

    pub(super) const fn key(&self) -> &[u8; 32] {
        &self.key
    }

    /// The fresh bucket of an address of this group, told by a source of that one.
    pub(super) fn fresh(&self, group: AddrGroup, source: AddrGroup) -> u16 {
        let slot = hash(&self.slots, FRESH_DOMAIN, group.as_bytes(), source.as_bytes()) % FRESH_SLOTS;
        let bucket = hash(&self.buckets, FRESH_DOMAIN, source.as_bytes(), &slot.to_le_bytes());
        (bucket % self.fresh) as u16
    }

    /// The used bucket of an address.
    pub(super) fn used(&self, key: &Key) -> u16 {
        let slot = hash(&self.slots, USED_DOMAIN, key.as_bytes(), &[]) % USED_SLOTS;
        let bucket = hash(&self.buckets, USED_DOMAIN, key.group().as_bytes(), &slot.to_le_bytes());
        (bucket % self.used) as u16
    }
}

/// The parts have fixed lengths within a domain, so that they cannot be shifted into each other.
fn hash(keyed: &SipHasher24, domain: u8, first: &[u8], second: &[u8]) -> u64 {
    let mut hasher = *keyed;
    hasher.write(&[domain]);
    hasher.write(first);
    hasher.write(second);
    hasher.finish()
}

/// Where an address is in a bucket, or would be.
fn place_of(bucket: &[(Key, Slot)], key: &Key) -> Result<usize, usize> {
    bucket.binary_search_by_key(key, |(held, _)| *held)
}

/// Buckets of addresses. Both the buckets and what they hold are in rising order, so that a table does not remember
/// in which order it was filled, and a decoded one behaves as the one that was encoded.
#[derive(Debug, Clone)]
pub(super) struct Table {
    depth: usize,
    buckets: Vec<(u16, Vec<(Key, Slot)>)>,
}

impl Table {
    pub(super) const fn new(depth: NonZeroU16) -> Self {
        Self { depth: depth.get() as usize, buckets: Vec::new() }
    }

    fn find(&self, index: u16) -> Result<usize, usize> {
        self.buckets.binary_search_by_key(&index, |(bucket, _)| *bucket)
    }

    /// What a bucket holds.
    pub(super) fn bucket(&self, index: u16) -> &[(Key, Slot)] {
        self.find(index).map_or(&[], |at| &self.buckets[at].1)
    }

    pub(super) fn contains(&self, index: u16, key: &Key) -> bool {
        place_of(self.bucket(index), key).is_ok()
    }

    pub(super) fn is_full(&self, index: u16) -> bool {
        self.bucket(index).len() >= self.depth
    }

    /// Puts an address into a bucket; false, and nothing happens, when the bucket is full or holds it already.
    #[must_use]
    pub(super) fn insert(&mut self, index: u16, key: Key, slot: Slot) -> bool {
        let at = self.find(index).unwrap_or_else(|at| {
            self.buckets.insert(at, (index, Vec::new()));
            at
        });
        let bucket = &mut self.buckets[at].1;
        match place_of(bucket, &key) {
            Err(place) if bucket.len() < self.depth => {
                bucket.insert(place, (key, slot));
                true
            }
            _ => false,
        }
    }

    /// Takes an address out of a bucket, and the bucket out of the table when it was the last.
    pub(super) fn remove(&mut self, index: u16, key: &Key) {
        let Ok(at) = self.find(index) else { return };
        let bucket = &mut self.buckets[at].1;
        if let Ok(place) = place_of(bucket, key) {
            bucket.remove(place);
        }
        if bucket.is_empty() {
            self.buckets.remove(at);
        }
    }

    /// Any entry of any bucket that holds something: each bucket is as likely as another, however full.
    pub(super) fn draw(&self, rng: &mut ChaCha8Rng) -> Option<(Key, Slot)> {
        if self.buckets.is_empty() {
            return None;
        }
        let (_, bucket) = &self.buckets[rng.random_range(0..self.buckets.len())];
        Some(bucket[rng.random_range(0..bucket.len())])
    }

    /// Places taken, counted.
    pub(super) fn places(&self) -> usize {
        self.buckets.iter().map(|(_, bucket)| bucket.len()).sum()
    }

    /// Buckets that hold something.
    #[cfg(test)]
    pub(super) const fn occupied(&self) -> usize {
        self.buckets.len()
    }

    /// Checks order and caps.
    pub(super) fn audit(&self, count: NonZeroU16) -> Result<(), String> {
        if !self.buckets.is_sorted_by(|a, b| a.0 < b.0) {
            return Err("buckets are out of order".into());
        }
        for (index, bucket) in &self.buckets {
            if *index >= count.get() {
                return Err(format!("bucket {index} is one of {count}"));
            }
            if bucket.is_empty() || bucket.len() > self.depth {
                return Err(format!("bucket {index} holds {} of 1 to {}", bucket.len(), self.depth));
            }
            if !bucket.is_sorted_by(|a, b| a.0 < b.0) {
                return Err(format!("bucket {index} is out of order"));
            }
        }
        Ok(())
    }
}
