//! Peers of other makes, whose TLS knows less than ours: identities do not depend on which key a connection has proven.

use std::sync::Arc;

use rookery_engine::Limits;
use rookery_overlay::wire::Hello;
use rookery_transport::tls::KeyHashes;
use rookery_transport::{MuxConn, QuicTls};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{aws_lc_rs, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use tokio::io::AsyncWriteExt;

use crate::common::{dialler, server, soon, talk};
use crate::raw::{Raw, read_hello};

/// Bytes of an Ed25519 key with its frame.
const ED25519_SPKI: usize = 44;

/// Believes Ed25519 signatures and knows no others.
#[derive(Debug)]
struct Ed25519Only;

fn check(
    message: &[u8],
    key: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let known = aws_lc_rs::default_provider().signature_verification_algorithms;
    verify_tls13_signature_with_raw_key(message, &SubjectPublicKeyInfoDer::from(key.as_ref()), signed, &known)
}

impl ServerCertVerifier for Ed25519Only {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        unreachable!("QUIC has no TLS 1.2")
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        check(message, key, signed)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Ed25519Only {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }
    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        unreachable!("QUIC has no TLS 1.2")
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        check(message, key, signed)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// TLS that asks for Ed25519 on both ends.
fn classic_only(mut tls: QuicTls) -> QuicTls {
    tls.client.dangerous().set_certificate_verifier(Arc::new(Ed25519Only));
    let resolver = Arc::clone(&tls.server.cert_resolver);
    let provider = Arc::clone(tls.server.crypto_provider());
    let mut server = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(Arc::new(Ed25519Only))
        .with_cert_resolver(resolver);
    server.alpn_protocols.clone_from(&tls.server.alpn_protocols);
    server.send_tls13_tickets = 0;
    QuicTls { server, ..tls }
}

/// The keys that a hello names, if the one that the connection has proven is an Ed25519 key and among them.
fn named(conn: &MuxConn, hello: &Hello) -> KeyHashes {
    assert_eq!(conn.proof.len(), ED25519_SPKI, "TLS has picked the key that both know");
    assert_eq!(KeyHashes::of(&conn.proof, hello.keys.post_quantum), Some(hello.keys));
    hello.keys
}

/// A node with both keys is one and the same to a peer that knows Ed25519 only, whichever side dials, and to one that knows
/// both.
#[tokio::test]
async fn a_node_with_two_keys_has_one_identity_for_all() {
    let (_s, server) = server(Limits::LOCAL).await;
    let at = server.listening()[0];
    let (_u, usual) = dialler(None).await;
    assert_eq!(soon("a session", usual.connect([at])).await.unwrap().peer, server.id());

    let foreign = Raw::speaking(50, classic_only);
    let (conn, mut stream) = foreign.say(at, &foreign.hello().encode()).await;
    let hello = soon("a hello", read_hello(&mut stream)).await.unwrap();
    assert_eq!(named(&conn, &hello).peer_id(), server.id());
    soon("a session under its own identity", async {
        while server.engine().session(foreign.identity.peer_id()).await.is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await;

    let listening = Raw::speaking(51, classic_only);
    let mut door = listening.listen().await;
    let to = door.local_addr();
    let answer = async {
        let conn = door.accept().await.unwrap().connect().await.unwrap().into_mux().unwrap();
        let mut stream = conn.mux.accept().await.unwrap();
        let hello = read_hello(&mut stream).await.unwrap();
        stream.write.write_all(&listening.hello().encode()).await.unwrap();
        (conn, stream, hello)
    };
    let (dialled, (conn, _stream, hello)) =
        soon("a session", async { tokio::join!(server.connect([to]), answer) }).await;
    assert_eq!(dialled.unwrap().peer, listening.identity.peer_id());
    assert_eq!(named(&conn, &hello).peer_id(), server.id());
    talk(&usual, &server).await;
}
