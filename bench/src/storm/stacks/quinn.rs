//! The floor: quinn and rustls, and nothing around them.
//!
//! The cryptography is ours': TLS 1.3 with aws-lc-rs, X25519MLKEM768 first, mutual raw public keys (RFC 7250), ML-DSA-65
//! or Ed25519. One task accepts, one task serves a connection: it takes one bidirectional stream, answers, and waits
//! for the end. No admission, registry, limits, session tickets, messages or metrics. What is not needed for a verified
//! peer and its answer is left out, so that what ours does beyond shows in the ratio.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use aws_lc_rs::digest;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{Ed25519KeyPair, ML_DSA_65_SIGNING, PqdsaKeyPair};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Connection, Endpoint, EndpointConfig, Incoming, ServerConfig, TokioRuntime};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs as provider, verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::{Attempt, Held, Serving};
use crate::storm::exchange::{Answered, MAX_ANSWER, REQUEST, answer, check, request};
use crate::storm::{Keys, Outcome, Plan, RECEIVE_BUFFER, SERVER};

/// The application of both ends.
const ALPN: &[u8] = b"storm";
/// The name that a client asks for. Nobody looks at it: a raw key has none.
const NAME: &str = "storm";

/// Listens.
pub fn serve(plan: &Plan, answered: Arc<Answered>) -> Outcome<Serving> {
    let key = Key::generate(plan.keys)?;
    let verifier = Arc::new(RawKeys::new(plan.keys, None));
    let mut tls = rustls::ServerConfig::builder_with_provider(cryptography())
        .with_protocol_versions(&[&TLS13])
        .map_err(said)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(key.certified)));
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.send_tls13_tickets = 0;
    let config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).map_err(said)?));
    let socket = bind(SERVER)?;
    if !plan.default_buffers {
        widen(&socket)?;
    }
    let endpoint = endpoint(socket, Some(config))?;
    let address = endpoint.local_addr().map_err(said)?;
    spawn(accept(endpoint.clone(), answered));
    Ok(Serving::new(format!("{address}/{}", key.identity), endpoint))
}

async fn accept(endpoint: Endpoint, answered: Arc<Answered>) {
    while let Some(incoming) = endpoint.accept().await {
        let answered = Arc::clone(&answered);
        spawn(async move {
            // A connection that fails is a peer that is not counted, and its own side says why.
            if let Ok(connection) = attend(incoming, &answered).await {
                connection.closed().await;
            }
        });
    }
}

/// Verifies and answers one peer.
async fn attend(incoming: Incoming, answered: &Answered) -> Outcome<Connection> {
    let connection = incoming.await.map_err(said)?;
    let identity = proved(&connection)?.into_bytes();
    let (mut write, mut read) = connection.accept_bi().await.map_err(said)?;
    let asked = read.read_to_end(REQUEST).await.map_err(said)?;
    write.write_all(&answer(&asked, &identity)).await.map_err(said)?;
    write.finish().map_err(said)?;
    answered.note(identity);
    Ok(connection)
}

/// Makes the peers: a key, a configuration, a socket and an endpoint each.
pub fn peers(plan: &Plan, invitation: &str) -> Outcome<Vec<Attempt>> {
    let (address, server) = invitation.split_once('/').ok_or("an invitation is ADDRESS/IDENTITY")?;
    let address = address.parse::<SocketAddr>().map_err(said)?;
    (0..plan.peers).map(|number| peer(plan, number, address, server)).collect()
}

fn peer(plan: &Plan, number: usize, address: SocketAddr, server: &str) -> Outcome<Attempt> {
    let key = Key::generate(plan.keys)?;
    let verifier = Arc::new(RawKeys::new(plan.keys, Some(server.to_owned())));
    let mut tls = rustls::ClientConfig::builder_with_provider(cryptography())
        .with_protocol_versions(&[&TLS13])
        .map_err(said)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(key.certified)));
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.resumption = Resumption::disabled();
    let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).map_err(said)?));
    let endpoint = endpoint(bind(plan.source(number))?, None)?;
    Ok(Box::pin(async move {
        let connection = endpoint.connect_with(config, address, NAME).map_err(said)?.await.map_err(said)?;
        let (mut write, mut read) = connection.open_bi().await.map_err(said)?;
        write.write_all(&request(number)).await.map_err(said)?;
        write.finish().map_err(said)?;
        let got = read.read_to_end(MAX_ANSWER).await.map_err(said)?;
        check(number, key.identity.as_bytes(), &got)?;
        Ok(Box::new((endpoint, connection)) as Held)
    }))
}

/// A key pair, and the identity that others know it by: the SHA-256 of its public key, in hexadecimal.
struct Key {
    certified: Arc<CertifiedKey>,
    identity: String,
}

impl Key {
    fn generate(keys: Keys) -> Outcome<Self> {
        let document = match keys {
            Keys::MlDsa65 => PqdsaKeyPair::generate(&ML_DSA_65_SIGNING).and_then(|pair| pair.to_pkcs8v1()),
            Keys::Ed25519 => Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()),
        };
        let document = document.map_err(|_| format!("cannot make a key for {}", keys.name()))?;
        let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(document.as_ref()));
        let signer = provider::sign::any_supported_type(&private).map_err(said)?;
        let public = signer.public_key().ok_or("a key without a public half")?.into_owned();
        let identity = identity(&public);
        let certified = CertifiedKey::new(vec![CertificateDer::from(public.as_ref().to_vec())], signer);
        Ok(Self { certified: Arc::new(certified), identity })
    }
}

fn identity(public: &[u8]) -> String {
    digest::digest(&digest::SHA256, public).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The identity that the other end of a connection has proved.
fn proved(connection: &Connection) -> Outcome<String> {
    let shown =
        connection.peer_identity().and_then(|shown| shown.downcast::<Vec<CertificateDer<'static>>>().ok());
    let shown = shown.ok_or("the peer proved no key")?;
    let [public] = shown.as_slice() else { return Err(format!("the peer showed {} keys", shown.len())) };
    Ok(identity(public))
}

fn cryptography() -> Arc<CryptoProvider> {
    let groups = vec![provider::kx_group::X25519MLKEM768, provider::kx_group::X25519];
    Arc::new(CryptoProvider { kx_groups: groups, ..provider::default_provider() })
}

/// Takes any raw key that signs with the one scheme; a client takes its server's only.
#[derive(Debug)]
struct RawKeys {
    scheme: SignatureScheme,
    algorithms: WebPkiSupportedAlgorithms,
    expected: Option<String>,
}

impl RawKeys {
    fn new(keys: Keys, expected: Option<String>) -> Self {
        let scheme = match keys {
            Keys::MlDsa65 => SignatureScheme::ML_DSA_65,
            Keys::Ed25519 => SignatureScheme::ED25519,
        };
        Self { scheme, algorithms: provider::default_provider().signature_verification_algorithms, expected }
    }

    fn wanted(&self, shown: &[u8]) -> Result<(), Error> {
        match &self.expected {
            Some(expected) if *expected != identity(shown) => {
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
            _ => Ok(()),
        }
    }

    fn signed(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let public = SubjectPublicKeyInfoDer::from(shown.as_ref());
        verify_tls13_signature_with_raw_key(message, &public, signature, &self.algorithms)
    }
}

/// What rustls answers for TLS 1.2, which is not offered.
fn no_tls12() -> Result<HandshakeSignatureValid, Error> {
    Err(Error::General("TLS 1.2 was not offered".into()))
}

impl ClientCertVerifier for RawKeys {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.wanted(shown).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed(message, shown, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![self.scheme]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ServerCertVerifier for RawKeys {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.wanted(shown).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed(message, shown, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![self.scheme]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

fn bind(at: SocketAddr) -> Outcome<UdpSocket> {
    UdpSocket::bind(at).map_err(|error| format!("cannot bind {at}: {error}"))
}

/// Asks for a larger receive buffer, and says when the kernel gives less: the floor is then not the one meant.
fn widen(socket: &UdpSocket) -> Outcome<()> {
    use rustix::net::sockopt::{set_socket_recv_buffer_size, socket_recv_buffer_size};
    set_socket_recv_buffer_size(socket, RECEIVE_BUFFER).map_err(said)?;
    let granted = socket_recv_buffer_size(socket).map_err(said)?;
    if granted < RECEIVE_BUFFER {
        eprintln!(
            "note: asked for a receive buffer of {RECEIVE_BUFFER} bytes, got {granted}: \
             sysctl -w net.core.rmem_max={RECEIVE_BUFFER}"
        );
    }
    Ok(())
}

fn endpoint(socket: UdpSocket, server: Option<ServerConfig>) -> Outcome<Endpoint> {
    Endpoint::new(EndpointConfig::default(), server, socket, Arc::new(TokioRuntime)).map_err(said)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the floor is what its users write: bare tokio, no supervision"
)]
fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}
