//! Hashes, and whose key a key is. Keys, identities and signatures are the transport's
//! ([`tls`](rookery_transport::tls)): what proves a connection signs records too.

use aws_lc_rs::digest::{Context, SHA256};
use rookery_base::Hash32;
use rookery_transport::tls::KeyHashes;

/// Bytes of the longest public key (`SubjectPublicKeyInfo`, DER) of any scheme: ML-DSA-65's frame and key.
pub const MAX_SPKI: usize = 22 + 1952;
/// Bytes of the longest signature of any scheme: ML-DSA-65's.
pub const MAX_SIGNATURE: usize = 3309;

/// SHA-256 of the parts, one after the other. Who hashes parts of unequal length puts their lengths between them.
pub fn sha256(parts: &[&[u8]]) -> Hash32 {
    let mut context = Context::new(&SHA256);
    parts.iter().for_each(|part| context.update(part));
    Hash32(context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes"))
}

/// Whether this public key is one of the set, in the place of its scheme. False also for bytes that are no key.
pub fn holds(keys: &KeyHashes, spki: &[u8]) -> bool {
    KeyHashes::of(spki, keys.other_than(spki)) == Some(*keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rookery_transport::tls::{Identity, Keys};

    #[test]
    fn a_set_holds_its_keys_in_their_places_and_no_others() {
        let keys = |seed| {
            [Keys::PostQuantum, Keys::Classic].map(|kind| Identity::from_seed(&[seed; 32], kind).unwrap())
        };
        let [pq, ed] = keys(1);
        let both = Identity::from_seed(&[1; 32], Keys::Both).unwrap().hashes();
        assert!(holds(&both, pq.public_key()) && holds(&both, ed.public_key()));
        let swapped = KeyHashes { post_quantum: both.classic, classic: both.post_quantum };
        assert!(!holds(&swapped, pq.public_key()) && !holds(&swapped, ed.public_key()));
        assert!(keys(2).iter().all(|other| !holds(&both, other.public_key())));
        assert!(!holds(&pq.hashes(), ed.public_key()));
        assert!(!holds(&both, &pq.public_key()[1..]) && !holds(&both, b""));
        assert_eq!(pq.public_key().len(), MAX_SPKI);
        assert_eq!(pq.sign(b"x").unwrap().len(), MAX_SIGNATURE);
    }

    #[test]
    fn parts_are_hashed_as_one() {
        assert_eq!(sha256(&[b"a", b"", b"bc"]), Hash32(rookery_transport::tls::hash(b"abc")));
    }
}
