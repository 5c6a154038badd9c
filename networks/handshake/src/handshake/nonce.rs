//! Nonces by which this node knows itself.
//!
//! A node that dials itself meets its own nonce in the `version` it gets. Rather than keep every nonce that is out,
//! under a lock, each one carries a mark that only this process can make:
//!
//! ```text
//! nonce (8) = random (4) | first 4 bytes of SipHash-2-4(secret, random)
//! ```
//!
//! A stranger's nonce bears the mark by chance once in 2^32: then that one connection is refused, and the address, if
//! we dialled it, is not dialled again until the book forgets it. Who has seen our nonces can send one back to us and
//! so be taken for us, which costs nobody but him.

use std::hash::Hasher;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rand::Rng;
use rookery_runtime::RngSource;
use siphasher::sip::SipHasher24;

use crate::wire::Nonce;

/// Makes this process's nonces and knows them again.
#[derive(Debug)]
pub struct OwnNonces {
    source: RngSource,
    secret: [u8; 16],
    /// How many were made: each has a stream of randomness of its own.
    made: AtomicU64,
}

impl OwnNonces {
    /// With a secret from this source.
    pub fn new(source: &RngSource) -> Self {
        let mut secret = [0; 16];
        source.fork("handshake-nonce-secret", 0).fill_bytes(&mut secret);
        Self { source: source.clone(), secret, made: AtomicU64::new(0) }
    }

    /// A nonce for one connection.
    pub fn fresh(&self) -> Nonce {
        let number = self.made.fetch_add(1, Relaxed);
        let random = self.source.fork("handshake-nonce", number).next_u32().to_le_bytes();
        let [m0, m1, m2, m3] = self.mark(random);
        let [r0, r1, r2, r3] = random;
        [r0, r1, r2, r3, m0, m1, m2, m3]
    }

    /// Whether this process made the nonce.
    pub fn is_own(&self, nonce: &Nonce) -> bool {
        let [r0, r1, r2, r3, mark @ ..] = *nonce;
        self.mark([r0, r1, r2, r3]) == mark
    }

    fn mark(&self, random: [u8; 4]) -> [u8; 4] {
        let mut hasher = SipHasher24::new_with_key(&self.secret);
        hasher.write(&random);
        // The lower half is as good as any.
        (hasher.finish() as u32).to_le_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_knows_its_own_nonces_and_no_others() {
        let (ours, theirs) =
            (OwnNonces::new(&RngSource::seeded(1, 0)), OwnNonces::new(&RngSource::seeded(1, 1)));
        for _ in 0..1000 {
            let nonce = ours.fresh();
            assert!(ours.is_own(&nonce));
            assert!(!theirs.is_own(&nonce));
        }
        assert_ne!(ours.fresh(), ours.fresh());
    }

    #[test]
    fn one_changed_bit_makes_it_a_strangers() {
        let ours = OwnNonces::new(&RngSource::seeded(7, 0));
        let nonce = ours.fresh();
        for bit in 0..64 {
            let mut changed = nonce;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(!ours.is_own(&changed), "bit {bit}");
        }
    }
}
