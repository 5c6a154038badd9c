//! The keys of tokens and of stateless resets, with aws-lc-rs.
//!
//! quinn brings such keys, but of which library depends on the features that the whole program's dependencies ask of it: beside
//! a crate that asks for ring, those of aws-lc-rs are not there. Ours do not depend on that.

use std::sync::Arc;

use aws_lc_rs::{aead, hkdf, hmac};
use quinn::crypto::{AeadKey, CryptoError, HandshakeTokenKey, HmacKey};

/// Bytes of an HMAC with SHA-256.
const MAC: usize = 32;

/// Signs connections' reset tokens.
pub(super) struct Signing(hmac::Key);

impl Signing {
    pub fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }
}

impl HmacKey for Signing {
    fn sign(&self, data: &[u8], signature: &mut [u8]) {
        signature.copy_from_slice(hmac::sign(&self.0, data).as_ref());
    }

    fn signature_len(&self) -> usize {
        MAC
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        hmac::verify(&self.0, data, signature).map_err(|_| CryptoError)
    }
}

/// Seals the tokens by which addresses are proven.
///
/// quinn gives each token 16 random bytes to derive a key from. Deriving one is a fifth of what a demand for a proof costs, so
/// there is one key, and the random bytes are the nonce, in a mode that bears a nonce that is drawn twice (RFC 8452): it would
/// tell that two tokens say the same.
pub(super) struct Sealing(Arc<aead::LessSafeKey>);

impl Sealing {
    pub fn new(secret: &[u8]) -> Self {
        let root = hkdf::Salt::new(hkdf::HKDF_SHA256, b"rookery quic tokens v2").extract(secret);
        let key = root.expand(&[], &aead::AES_256_GCM_SIV).expect("HKDF gives far more than one key's bytes");
        Self(Arc::new(aead::LessSafeKey::new(key.into())))
    }
}

impl HandshakeTokenKey for Sealing {
    fn aead_from_hkdf(&self, random: &[u8]) -> Box<dyn AeadKey> {
        Box::new(OneToken { key: Arc::clone(&self.0), random: random.into() })
    }
}

/// Seals or opens one token.
struct OneToken {
    key: Arc<aead::LessSafeKey>,
    random: Box<[u8]>,
}

impl OneToken {
    /// The first of the random bytes.
    fn nonce(&self) -> aead::Nonce {
        let mut nonce = [0; aead::NONCE_LEN];
        for (byte, random) in nonce.iter_mut().zip(&self.random) {
            *byte = *random;
        }
        aead::Nonce::assume_unique_for_key(nonce)
    }

    /// All of the random bytes: quinn knows a token that is shown twice by them, so none of them may be changed.
    fn bound_to(&self, more: &[u8]) -> aead::Aad<Vec<u8>> {
        aead::Aad::from([&self.random, more].concat())
    }
}

impl AeadKey for OneToken {
    fn seal(&self, data: &mut Vec<u8>, bound_to: &[u8]) -> Result<(), CryptoError> {
        let sealed = self.key.seal_in_place_append_tag(self.nonce(), self.bound_to(bound_to), data);
        sealed.map_err(|_| CryptoError)
    }

    fn open<'a>(&self, data: &'a mut [u8], bound_to: &[u8]) -> Result<&'a mut [u8], CryptoError> {
        let opened = self.key.open_in_place(self.nonce(), self.bound_to(bound_to), data);
        opened.map_err(|_| CryptoError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A token's bytes, sealed with these random ones.
    fn sealed(sealing: &Sealing, random: &[u8; 16]) -> Vec<u8> {
        let mut token = b"an address".to_vec();
        sealing.aead_from_hkdf(random).seal(&mut token, &[]).unwrap();
        token
    }

    #[test]
    fn a_token_is_opened_by_the_secret_and_the_random_bytes_that_sealed_it() {
        let (sealing, random) = (Sealing::new(&[1; 32]), [7; 16]);
        let token = sealed(&sealing, &random);
        assert!(!token.windows(7).any(|window| window == b"address"), "it says nothing");
        let opened = |secret: &[u8], random: &[u8; 16], mut token: Vec<u8>| {
            let key = Sealing::new(secret).aead_from_hkdf(random);
            key.open(&mut token, &[]).map(|plain| plain.to_vec())
        };
        // A secret that outlives the process opens it in the next one.
        assert_eq!(opened(&[1; 32], &random, token.clone()).unwrap(), b"an address");
        assert!(opened(&[2; 32], &random, token.clone()).is_err(), "another node's");
        for byte in 0..random.len() {
            let mut other = random;
            other[byte] ^= 1;
            assert!(opened(&[1; 32], &other, token.clone()).is_err(), "another token's");
        }
        for byte in 0..token.len() {
            let mut forged = token.clone();
            forged[byte] ^= 1;
            assert!(opened(&[1; 32], &random, forged).is_err());
        }
        assert!(opened(&[1; 32], &random, Vec::new()).is_err());
    }

    #[test]
    fn two_tokens_that_say_the_same_do_not_look_the_same() {
        let sealing = Sealing::new(&[1; 32]);
        assert_ne!(sealed(&sealing, &[7; 16]), sealed(&sealing, &[8; 16]));
    }
}
