//! Identities: raw public keys (RFC 7250) in mutual TLS 1.3, and what is derived from them.
//!
//! A node's identity is a *set* of keys, today up to two: ML-DSA-65 (FIPS 204) and Ed25519. TLS picks one of them by the
//! signature schemes that both sides know, so schemes can come and go without a new protocol. The peer's id commits to the
//! whole set ([`KeyHashes::peer_id`]): whichever key the handshake has proven, together with the hash of the other one it
//! gives the same id, and no other key gives it.
//!
//! There are no certificates, no names and nobody who vouches: a handshake proves that the other side holds the key of the
//! [`proof`](crate::MuxConn::proof) and nothing else. Key exchange is X25519MLKEM768 before anything else, so that what is
//! recorded today is not read tomorrow.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{Ed25519KeyPair, ML_DSA_65_SIGNING, PqdsaKeyPair};
use rookery_base::{Fault, LocalFault, PeerFault, PeerFaultKind, PeerId};
use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs as backend};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};
use webpki::RawPublicKeyEntity;

/// The longest `SubjectPublicKeyInfo` that is looked at: ML-DSA-65's 1,952 bytes of key and its DER frame.
pub const MAX_SPKI: usize = 2048;
/// The longest signature: ML-DSA-65's.
pub const MAX_SIGNATURE: usize = 3309;
/// In front of what is hashed to a peer's id, so that no other hash of ours can be one.
const ID_DOMAIN: &[u8] = b"rookery overlay id v1";
/// In front of every statement that is signed outside TLS, which uses spaces there: neither can stand for the other.
const STATEMENT_DOMAIN: &[u8] = b"rookery statement v1";

/// Which keys an identity has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    /// ML-DSA-65 and, for peers that know only that, Ed25519.
    Both,
    /// ML-DSA-65 only.
    PostQuantum,
    /// Ed25519 only: half the cost of an accepted peer, and no safety from a quantum computer in the peer's identity. The key
    /// exchange is safe from it either way.
    Classic,
}

/// Which signatures of other sides are believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Trust {
    /// ML-DSA-65 and Ed25519, ML-DSA-65 first.
    #[default]
    Both,
    /// ML-DSA-65 only: a peer that can only prove an Ed25519 key is refused.
    PostQuantum,
}

/// Why keys could not be made. Ours or the machine's fault, never a peer's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot make keys: {0}")]
pub struct KeyError(String);

/// The hashes of a key set's public keys: SHA-256 of the `SubjectPublicKeyInfo`, zeros for a key that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyHashes {
    /// Of the ML-DSA-65 key.
    pub post_quantum: [u8; 32],
    /// Of the Ed25519 key.
    pub classic: [u8; 32],
}

impl KeyHashes {
    /// The hashes of the set in which a proven key is one and `other` is the hash of the other; `None` when the proven key is
    /// of neither kind.
    pub fn of(proven: &[u8], other: [u8; 32]) -> Option<Self> {
        match scheme_of(proven)? {
            SignatureScheme::ML_DSA_65 => Some(Self { post_quantum: hash(proven), classic: other }),
            _ => Some(Self { post_quantum: other, classic: hash(proven) }),
        }
    }

    /// The identity of whoever holds these keys.
    pub fn peer_id(&self) -> PeerId {
        let all = [ID_DOMAIN, &self.post_quantum, &self.classic].concat();
        PeerId::from_bytes(&hash(&all)).expect("a hash has 32 bytes")
    }

    /// The hash of the key that is not `proven`, to tell a peer that saw `proven`.
    pub fn other_than(&self, proven: &[u8]) -> [u8; 32] {
        if hash(proven) == self.post_quantum { self.classic } else { self.post_quantum }
    }
}

/// A node's keys.
#[derive(Clone)]
pub struct Identity {
    post_quantum: Option<Arc<CertifiedKey>>,
    classic: Option<Arc<CertifiedKey>>,
    hashes: KeyHashes,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.peer_id()).finish()
    }
}

impl Identity {
    /// The identity of a secret seed. The same seed gives the same identity; each key has a secret of its own.
    ///
    /// # Errors
    /// When the cryptographic library fails.
    pub fn from_seed(seed: &[u8; 32], keys: Keys) -> Result<Self, KeyError> {
        let secret = |label: &[u8]| hash(&[label, seed.as_slice()].concat());
        let post_quantum = (keys != Keys::Classic).then(|| post_quantum(&secret(b"rookery ml-dsa-65 v1")));
        let classic = (keys != Keys::PostQuantum).then(|| classic(&secret(b"rookery ed25519 v1")));
        let (post_quantum, classic) = (post_quantum.transpose()?, classic.transpose()?);
        let hash_of =
            |key: &Option<Arc<CertifiedKey>>| key.as_ref().map_or([0; 32], |key| hash(&key.cert[0]));
        let hashes = KeyHashes { post_quantum: hash_of(&post_quantum), classic: hash_of(&classic) };
        Ok(Self { post_quantum, classic, hashes })
    }

    /// The hashes of its public keys.
    pub const fn hashes(&self) -> KeyHashes {
        self.hashes
    }

    /// Its peer id.
    pub fn peer_id(&self) -> PeerId {
        self.hashes.peer_id()
    }

    /// The public key (`SubjectPublicKeyInfo`, DER) with which [`sign`](Self::sign) signs: ML-DSA-65 where there is one.
    pub fn public_key(&self) -> &[u8] {
        self.strongest().map_or(&[], |key| &key.cert[0])
    }

    /// Signs a statement, for those who were not there to see a handshake. Anything that a handshake can prove should be
    /// proven by it instead.
    ///
    /// # Errors
    /// When the cryptographic library fails.
    pub fn sign(&self, statement: &[u8]) -> Result<Vec<u8>, KeyError> {
        let key = self.strongest().ok_or_else(|| KeyError("an identity without keys".into()))?;
        let signer =
            key.key.choose_scheme(&SCHEMES).ok_or_else(|| KeyError("a key without a scheme".into()))?;
        signer.sign(&stated(statement)).map_err(failed)
    }

    /// What a server and a client of this identity need for connections of this application protocol.
    ///
    /// # Errors
    /// When the cryptographic library fails.
    pub fn tls(&self, alpn: &[u8], trust: Trust) -> Result<crate::quic::QuicTls, KeyError> {
        let provider = Arc::new(provider());
        let checks = Arc::new(RawKeys { algorithms: provider.signature_verification_algorithms, trust });
        let own = Arc::new(self.clone());
        let mut server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(failed)?
            .with_client_cert_verifier(Arc::clone(&checks) as Arc<dyn ClientCertVerifier>)
            .with_cert_resolver(Arc::clone(&own) as Arc<dyn ResolvesServerCert>);
        server.alpn_protocols = vec![alpn.to_vec()];
        // A resumed session would prove possession of a ticket where a key is asked for.
        server.send_tls13_tickets = 0;
        let mut client = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(failed)?
            .dangerous()
            .with_custom_certificate_verifier(checks)
            .with_client_cert_resolver(own);
        client.alpn_protocols = vec![alpn.to_vec()];
        client.enable_sni = false;
        client.resumption = rustls::client::Resumption::disabled();
        Ok(crate::quic::QuicTls { client, server })
    }

    fn strongest(&self) -> Option<&Arc<CertifiedKey>> {
        self.post_quantum.as_ref().or(self.classic.as_ref())
    }

    /// The strongest key whose scheme the other side offers.
    fn choose(&self, offered: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let keys =
            [(SignatureScheme::ML_DSA_65, &self.post_quantum), (SignatureScheme::ED25519, &self.classic)];
        let usable = keys.into_iter().filter(|(scheme, _)| offered.contains(scheme));
        usable.filter_map(|(_, key)| key.clone()).next()
    }
}

/// Whether the holder of a public key (`SubjectPublicKeyInfo`, DER) has signed this statement.
pub fn verify(spki: &[u8], statement: &[u8], signature: &[u8]) -> bool {
    let algorithm = match scheme_of(spki) {
        Some(SignatureScheme::ML_DSA_65) => webpki::aws_lc_rs::ML_DSA_65,
        Some(_) => webpki::aws_lc_rs::ED25519,
        None => return false,
    };
    let spki = SubjectPublicKeyInfoDer::from(spki);
    let Ok(key) = RawPublicKeyEntity::try_from(&spki) else { return false };
    key.verify_signature(algorithm, &stated(statement), signature).is_ok()
}

/// SHA-256.
pub fn hash(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

const SCHEMES: [SignatureScheme; 2] = [SignatureScheme::ML_DSA_65, SignatureScheme::ED25519];

fn stated(statement: &[u8]) -> Vec<u8> {
    [STATEMENT_DOMAIN, statement].concat()
}

fn provider() -> CryptoProvider {
    let mut provider = backend::default_provider();
    // No other exchange than the hybrid one and its classic half, in this order.
    provider.kx_groups = vec![backend::kx_group::X25519MLKEM768, backend::kx_group::X25519];
    provider
}

fn post_quantum(secret: &[u8; 32]) -> Result<Arc<CertifiedKey>, KeyError> {
    let pair = PqdsaKeyPair::from_seed(&ML_DSA_65_SIGNING, secret).map_err(failed)?;
    certified(pair.to_pkcs8v1().map_err(failed)?.as_ref())
}

fn classic(secret: &[u8; 32]) -> Result<Arc<CertifiedKey>, KeyError> {
    let pair = Ed25519KeyPair::from_seed_unchecked(secret).map_err(failed)?;
    certified(pair.to_pkcs8().map_err(failed)?.as_ref())
}

fn failed(error: impl fmt::Display) -> KeyError {
    KeyError(error.to_string())
}

/// The key as TLS wants it, with its public half in place of a certificate.
fn certified(pkcs8: &[u8]) -> Result<Arc<CertifiedKey>, KeyError> {
    let key = backend::sign::any_supported_type(&PrivatePkcs8KeyDer::from(pkcs8).into()).map_err(failed)?;
    let spki = key.public_key().ok_or_else(|| KeyError("a key that does not show its public half".into()))?;
    let spki = CertificateDer::from(spki.as_ref().to_vec());
    Ok(Arc::new(CertifiedKey::new(vec![spki], key)))
}

/// The scheme of a public key, by its algorithm identifier: the fixed first bytes of each kind's DER.
fn scheme_of(spki: &[u8]) -> Option<SignatureScheme> {
    /// SEQUENCE of 1,970 bytes, SEQUENCE { 2.16.840.1.101.3.4.3.18 }, BIT STRING of 1,953 bytes with none unused.
    const ML_DSA_65: [u8; 22] = [
        0x30, 0x82, 0x07, 0xb2, 0x30, 0x0b, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x03, 0x12,
        0x03, 0x82, 0x07, 0xa1, 0x00,
    ];
    /// SEQUENCE of 42 bytes, SEQUENCE { 1.3.101.112 }, BIT STRING of 33 bytes with none unused.
    const ED25519: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    if spki.len() == ML_DSA_65.len() + 1952 && spki.starts_with(&ML_DSA_65) {
        return Some(SignatureScheme::ML_DSA_65);
    }
    (spki.len() == ED25519.len() + 32 && spki.starts_with(&ED25519)).then_some(SignatureScheme::ED25519)
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.signature_schemes())
    }

    fn only_raw_public_keys(&self) -> bool {
        true
    }
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.choose(schemes)
    }

    fn only_raw_public_keys(&self) -> bool {
        true
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Takes any well-formed key of a kind that is trusted; whose it is, the protocol above decides.
#[derive(Debug)]
struct RawKeys {
    algorithms: WebPkiSupportedAlgorithms,
    trust: Trust,
}

impl RawKeys {
    fn schemes(&self) -> Vec<SignatureScheme> {
        match self.trust {
            Trust::Both => SCHEMES.to_vec(),
            Trust::PostQuantum => vec![SignatureScheme::ML_DSA_65],
        }
    }

    fn check(&self, key: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        let known = scheme_of(key).is_some_and(|scheme| self.schemes().contains(&scheme));
        if known && others.is_empty() {
            return Ok(());
        }
        Err(rustls::Error::InvalidCertificate(rustls::CertificateError::BadEncoding))
    }

    fn check_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let spki = SubjectPublicKeyInfoDer::from(key.as_ref());
        rustls::crypto::verify_tls13_signature_with_raw_key(message, &spki, signed, &self.algorithms)
    }
}

/// The alert of who accepts no key that it was shown (RFC 8446, 6.2): `certificate_required`.
const NO_KEY_SHOWN: u8 = 116;
/// The alert of a server of ours that has no key that the client accepts: `access_denied`.
const NO_KEY_TO_SHOW: u8 = 49;

/// What an alert says of the two ends' keys, and whose it is to mend; none: it is about something else. `ours`: we have sent
/// it. A side whose keys the other does not accept shows none, so the alerts come in pairs: each side's cause names the same
/// lack.
pub(crate) fn unfit(alert: u8, ours: bool) -> Option<Fault> {
    let shown = alert == NO_KEY_SHOWN;
    if !shown && alert != NO_KEY_TO_SHOW {
        return None;
    }
    Some(if shown == ours {
        let detail = "it has no key that this node accepts; a node that requires post-quantum identities accepts ML-DSA-65 only";
        PeerFault::close(PeerFaultKind::BadHandshake, detail).into()
    } else {
        let detail = "the peer accepts no key of this node: it requires another kind, as a post-quantum one (ML-DSA-65); \
                      give this node both kinds of keys to reach it";
        LocalFault::new(detail).into()
    })
}

/// TLS 1.2 is not offered, so nobody can be asked to check a signature of it.
fn no_tls12() -> Result<HandshakeSignatureValid, rustls::Error> {
    Err(rustls::Error::PeerIncompatible(rustls::PeerIncompatible::Tls13RequiredForQuic))
}

impl ServerCertVerifier for RawKeys {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(key, others).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check_signature(message, key, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for RawKeys {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        key: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.check(key, others).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check_signature(message, key, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_commits_to_the_whole_set_and_each_key_with_the_others_hash_gives_it() {
        let identity = Identity::from_seed(&[7; 32], Keys::Both).unwrap();
        let again = Identity::from_seed(&[7; 32], Keys::Both).unwrap();
        assert_eq!(identity.peer_id(), again.peer_id());
        let hashes = identity.hashes();
        for key in [&identity.post_quantum, &identity.classic] {
            let proven: &[u8] = &key.as_ref().unwrap().cert[0];
            let seen = KeyHashes::of(proven, hashes.other_than(proven)).unwrap();
            assert_eq!(seen.peer_id(), identity.peer_id());
            assert_ne!(KeyHashes::of(proven, [0; 32]).unwrap().peer_id(), identity.peer_id());
            assert!(proven.len() <= MAX_SPKI);
        }
        let others =
            [Keys::PostQuantum, Keys::Classic].map(|keys| Identity::from_seed(&[7; 32], keys).unwrap());
        assert!(others.iter().all(|other| other.peer_id() != identity.peer_id()));
        assert_eq!(KeyHashes::of(b"no key", [0; 32]), None);
    }

    /// Whoever records a connection today cannot read it with a quantum computer, whatever its keys are.
    #[test]
    fn keys_are_agreed_on_by_x25519_and_ml_kem_together_before_anything_else() {
        use rustls::NamedGroup::X25519MLKEM768;
        for keys in [Keys::Classic, Keys::PostQuantum, Keys::Both] {
            let [ours, theirs] = [1, 2]
                .map(|n| Identity::from_seed(&[n; 32], keys).unwrap().tls(b"test", Trust::Both).unwrap());
            for groups in [ours.client.crypto_provider(), ours.server.crypto_provider()] {
                assert_eq!(groups.kx_groups.first().map(|group| group.name()), Some(X25519MLKEM768));
            }
            let name = "localhost".try_into().unwrap();
            let mut client = rustls::ClientConnection::new(Arc::new(ours.client), name).unwrap();
            let mut server = rustls::ServerConnection::new(Arc::new(theirs.server)).unwrap();
            for _ in 0..4 {
                let (mut up, mut down) = (Vec::new(), Vec::new());
                while client.wants_write() {
                    client.write_tls(&mut up).unwrap();
                }
                let mut up = &up[..];
                while server.read_tls(&mut up).unwrap() > 0 {
                    server.process_new_packets().unwrap();
                }
                while server.wants_write() {
                    server.write_tls(&mut down).unwrap();
                }
                let mut down = &down[..];
                while client.read_tls(&mut down).unwrap() > 0 {
                    client.process_new_packets().unwrap();
                }
            }
            for group in [client.negotiated_key_exchange_group(), server.negotiated_key_exchange_group()] {
                assert_eq!(group.map(|group| group.name()), Some(X25519MLKEM768), "{keys:?}");
            }
        }
    }

    #[test]
    fn a_statement_holds_for_its_signer_and_its_bytes_only() {
        for keys in [Keys::Both, Keys::Classic] {
            let identity = Identity::from_seed(&[1; 32], keys).unwrap();
            let other = Identity::from_seed(&[2; 32], keys).unwrap();
            let signature = identity.sign(b"here I am").unwrap();
            assert!(signature.len() <= MAX_SIGNATURE);
            assert!(verify(identity.public_key(), b"here I am", &signature));
            assert!(!verify(identity.public_key(), b"here I an", &signature));
            assert!(!verify(other.public_key(), b"here I am", &signature));
            assert!(!verify(b"no key", b"here I am", &signature));
            let mut bent = signature;
            bent[5] ^= 1;
            assert!(!verify(identity.public_key(), b"here I am", &bent));
        }
    }
}
