//! The keys of tokens and of stateless resets, with aws-lc-rs.
//!
//! quinn brings such keys, but of which library depends on the features that the whole program's dependencies ask of it: beside
//! a crate that asks for ring, those of aws-lc-rs are not there. Ours do not depend on that.

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

/// Seals the tokens by which addresses are proven, each with a key of its own.
pub(super) struct Sealing(hkdf::Prk);

impl Sealing {
    pub fn new(secret: &[u8]) -> Self {
        Self(hkdf::Salt::new(hkdf::HKDF_SHA256, b"rookery quic tokens v1").extract(secret))
    }
}

impl HandshakeTokenKey for Sealing {
    fn aead_from_hkdf(&self, random: &[u8]) -> Box<dyn AeadKey> {
        let info = [random];
        let key = self.0.expand(&info, &aead::AES_256_GCM).expect("HKDF gives far more than one key's bytes");
        Box::new(OneToken(aead::LessSafeKey::new(key.into())))
    }
}

/// A key that seals one token, so that its nonce may be constant.
struct OneToken(aead::LessSafeKey);

impl OneToken {
    fn nonce() -> aead::Nonce {
        aead::Nonce::assume_unique_for_key([0; aead::NONCE_LEN])
    }
}

impl AeadKey for OneToken {
    fn seal(&self, data: &mut Vec<u8>, bound_to: &[u8]) -> Result<(), CryptoError> {
        let sealed = self.0.seal_in_place_append_tag(Self::nonce(), aead::Aad::from(bound_to), data);
        sealed.map_err(|_| CryptoError)
    }

    fn open<'a>(&self, data: &'a mut [u8], bound_to: &[u8]) -> Result<&'a mut [u8], CryptoError> {
        let opened = self.0.open_in_place(Self::nonce(), aead::Aad::from(bound_to), data);
        opened.map_err(|_| CryptoError)
    }
}
