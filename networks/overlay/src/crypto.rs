//! Hashes, keys and signatures, in the few shapes that the overlay uses.
//!
//! A public key travels as its `SubjectPublicKeyInfo` in DER. Of each scheme there is exactly one such encoding, a fixed
//! prefix and the raw key, so that no parser ever meets what a stranger sent: other bytes are no key.
//!
//! | scheme | key | signature |
//! |---|---|---|
//! | ML-DSA-65 (FIPS 204) | 22 + 1,952 bytes | 3,309 bytes |
//! | Ed25519 (RFC 8032) | 12 + 32 bytes | 64 bytes |

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{
    ED25519, Ed25519KeyPair, KeyPair as _, ML_DSA_65, ML_DSA_65_SIGNING, PqdsaKeyPair, UnparsedPublicKey,
};
use rookery_base::{Hash32, PeerId};
use rookery_transport::tls::Identity;

/// Longest public key of any scheme: ML-DSA-65's.
pub const MAX_SPKI: usize = 22 + 1952;
/// Longest signature of any scheme: ML-DSA-65's.
pub const MAX_SIGNATURE: usize = 3309;

/// In front of the raw ML-DSA-65 key: a sequence of the algorithm (2.16.840.1.101.3.4.3.18) and a bit string (RFC 9881).
const ML_DSA_65_PREFIX: [u8; 22] = [
    0x30, 0x82, 0x07, 0xb2, 0x30, 0x0b, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x03, 0x12,
    0x03, 0x82, 0x07, 0xa1, 0x00,
];
const ML_DSA_65_KEY: usize = 1952;
/// In front of the raw Ed25519 key: the same with algorithm 1.3.101.112 (RFC 8410).
const ED25519_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const ED25519_KEY: usize = 32;

/// What an identity is hashed under, so that no other hash of this network is one.
const ID_DOMAIN: &[u8] = b"rookery overlay id v1";

/// SHA-256 of the parts, one after the other. Who hashes parts of unequal length puts their lengths between them.
pub fn sha256(parts: &[&[u8]]) -> Hash32 {
    let mut context = aws_lc_rs::digest::Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    to_hash(context.finish().as_ref())
}

/// SHA-256 of a public key.
pub fn key_hash(spki: &[u8]) -> Hash32 {
    to_hash(digest(&SHA256, spki).as_ref())
}

fn to_hash(bytes: &[u8]) -> Hash32 {
    Hash32(bytes.try_into().expect("SHA-256 gives 32 bytes"))
}

/// A signature scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scheme {
    /// ML-DSA-65.
    MlDsa65,
    /// Ed25519.
    Ed25519,
}

impl Scheme {
    /// The scheme of a public key; `None` when the bytes are no key.
    pub fn of(spki: &[u8]) -> Option<Self> {
        split(spki).map(|(scheme, _)| scheme)
    }

    /// Bytes of a signature.
    pub const fn signature_len(self) -> usize {
        match self {
            Self::MlDsa65 => MAX_SIGNATURE,
            Self::Ed25519 => 64,
        }
    }
}

fn split(spki: &[u8]) -> Option<(Scheme, &[u8])> {
    if let Some(key) = spki.strip_prefix(&ML_DSA_65_PREFIX) {
        return (key.len() == ML_DSA_65_KEY).then_some((Scheme::MlDsa65, key));
    }
    let key = spki.strip_prefix(&ED25519_PREFIX)?;
    (key.len() == ED25519_KEY).then_some((Scheme::Ed25519, key))
}

/// Whether `signature` over `message` is by the holder of this public key.
pub fn verify(spki: &[u8], message: &[u8], signature: &[u8]) -> bool {
    match split(spki) {
        Some((Scheme::MlDsa65, key)) => {
            UnparsedPublicKey::new(&ML_DSA_65, key).verify(message, signature).is_ok()
        }
        Some((Scheme::Ed25519, key)) => {
            UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok()
        }
        None => false,
    }
}

/// The key set that an identity commits to: the hash of each key, zero for one that is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeySet {
    /// Of the ML-DSA-65 key.
    pub ml_dsa_65: Hash32,
    /// Of the Ed25519 key.
    pub ed25519: Hash32,
}

impl KeySet {
    /// The set of the key that was proven and the hash of the other one. `None` when `spki` is no key.
    pub fn of(spki: &[u8], other: Hash32) -> Option<Self> {
        let proven = key_hash(spki);
        Some(match Scheme::of(spki)? {
            Scheme::MlDsa65 => Self { ml_dsa_65: proven, ed25519: other },
            Scheme::Ed25519 => Self { ml_dsa_65: other, ed25519: proven },
        })
    }

    /// Whether this key is in the set, in the place of its scheme.
    pub fn holds(&self, spki: &[u8]) -> bool {
        match Scheme::of(spki) {
            Some(Scheme::MlDsa65) => self.ml_dsa_65 == key_hash(spki),
            Some(Scheme::Ed25519) => self.ed25519 == key_hash(spki),
            None => false,
        }
    }

    /// The identity. It stays when the scheme that is used changes.
    pub fn id(&self) -> PeerId {
        let hash = sha256(&[ID_DOMAIN, self.ml_dsa_65.as_bytes(), self.ed25519.as_bytes()]);
        PeerId::from_bytes(hash.as_bytes()).expect("32 bytes are an identity")
    }
}

/// Signs with a key of our identity.
pub trait Signer: Send + Sync {
    /// The keys that the identity commits to.
    fn keys(&self) -> KeySet;

    /// The public key that signed, and the signature. `None` when the library fails.
    fn sign(&self, message: &[u8]) -> Option<(Vec<u8>, Vec<u8>)>;
}

impl Signer for Identity {
    fn keys(&self) -> KeySet {
        let hashes = self.hashes();
        KeySet { ml_dsa_65: Hash32(hashes.post_quantum), ed25519: Hash32(hashes.classic) }
    }

    fn sign(&self, message: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
        Some((self.public_key().to_vec(), Self::sign(self, message).ok()?))
    }
}

/// One key pair in memory.
#[derive(Debug)]
pub enum OneKey {
    /// An ML-DSA-65 pair.
    MlDsa65(PqdsaKeyPair),
    /// An Ed25519 pair.
    Ed25519(Ed25519KeyPair),
}

impl OneKey {
    /// The pair that grows from 32 secret bytes. `None` when the library refuses them.
    pub fn from_seed(scheme: Scheme, seed: &[u8; 32]) -> Option<Self> {
        match scheme {
            Scheme::MlDsa65 => PqdsaKeyPair::from_seed(&ML_DSA_65_SIGNING, seed).ok().map(Self::MlDsa65),
            Scheme::Ed25519 => Ed25519KeyPair::from_seed_unchecked(seed).ok().map(Self::Ed25519),
        }
    }

    /// The public key.
    pub fn spki(&self) -> Vec<u8> {
        match self {
            Self::MlDsa65(pair) => [&ML_DSA_65_PREFIX[..], pair.public_key().as_ref()].concat(),
            Self::Ed25519(pair) => [&ED25519_PREFIX[..], pair.public_key().as_ref()].concat(),
        }
    }
}

impl Signer for OneKey {
    fn keys(&self) -> KeySet {
        KeySet::of(&self.spki(), Hash32::ZERO).expect("our own key has its scheme's shape")
    }

    fn sign(&self, message: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
        let signature = match self {
            Self::MlDsa65(pair) => {
                let mut signature = vec![0; MAX_SIGNATURE];
                let len = pair.sign(message, &mut signature).ok()?;
                signature.truncate(len);
                signature
            }
            Self::Ed25519(pair) => pair.try_sign(message).ok()?.as_ref().to_vec(),
        };
        Some((self.spki(), signature))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_schemes_sign_and_verify_and_a_changed_bit_fails() {
        for scheme in [Scheme::MlDsa65, Scheme::Ed25519] {
            let pair = OneKey::from_seed(scheme, &[7; 32]).unwrap();
            let (spki, signature) = pair.sign(b"message").unwrap();
            assert_eq!(Scheme::of(&spki), Some(scheme));
            assert_eq!(signature.len(), scheme.signature_len());
            assert!(verify(&spki, b"message", &signature));
            assert!(!verify(&spki, b"massage", &signature));
            for at in [0, spki.len() / 2, spki.len() - 1] {
                let mut other = spki.clone();
                other[at] ^= 1;
                assert!(!verify(&other, b"message", &signature), "byte {at}");
            }
            assert!(!verify(&spki[..spki.len() - 1], b"message", &signature));
            assert!(!verify(&spki, b"message", &signature[1..]));
        }
    }

    #[test]
    fn a_public_key_is_what_the_library_writes() {
        use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
        let OneKey::MlDsa65(pair) = OneKey::from_seed(Scheme::MlDsa65, &[1; 32]).unwrap() else {
            unreachable!("asked for ML-DSA-65")
        };
        let der: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        let der = der.as_ref().to_vec();
        assert_eq!(OneKey::MlDsa65(pair).spki(), der);
        let OneKey::Ed25519(pair) = OneKey::from_seed(Scheme::Ed25519, &[1; 32]).unwrap() else {
            unreachable!("asked for Ed25519")
        };
        let der: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        let der = der.as_ref().to_vec();
        assert_eq!(OneKey::Ed25519(pair).spki(), der);
    }

    #[test]
    fn an_identity_is_the_same_whichever_of_its_keys_was_proven() {
        let pq = OneKey::from_seed(Scheme::MlDsa65, &[1; 32]).unwrap().spki();
        let ed = OneKey::from_seed(Scheme::Ed25519, &[2; 32]).unwrap().spki();
        let by_pq = KeySet::of(&pq, key_hash(&ed)).unwrap();
        let by_ed = KeySet::of(&ed, key_hash(&pq)).unwrap();
        assert_eq!(by_pq.id(), by_ed.id());
        assert!(by_pq.holds(&pq) && by_pq.holds(&ed));
        assert_ne!(by_pq.id(), KeySet::of(&pq, Hash32::ZERO).unwrap().id(), "a missing key is another set");
        assert!(!KeySet::of(&pq, Hash32::ZERO).unwrap().holds(&ed));
    }
}
