//! Hellos, once each way on stream 0: the dialler opens it and speaks first.
//!
//! ```text
//! dialler                               listener
//!   TLS: both prove a key
//!   open stream 0, hello   ------------>  the proven key is one of the two named; identity = hash of both
//!                          <------------  hello
//!   identity, as opposite                registry decides; a refusal closes the connection and says why
//! ```
//!
//! Nothing is announced and nothing is signed here: whoever speaks has proven its key to this very connection, so a hello
//! cannot be replayed on another one or relayed from it. Until both hellos are in, a peer costs one buffer of the size
//! that its hello claims, at most [`hello::MAX_FIELDS`].

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use rookery_base::id::canonical_addr;
use rookery_base::{CloseCause, Direction, Hash32, PeerFault, PeerFaultKind, PeerId};
use rookery_engine::{Approach, Caps, Established, ExtraFact, Link, PeerFacts, Precedence};
use rookery_transport::tls::{self, Identity};
use rookery_transport::{Mux, MuxConn, MuxStream, cause_of};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::wire::frame::Framing;
use crate::wire::hello::{self, EXTRA_KEYING, EXTRA_LABEL, ExtraIdentity, HEAD_LEN, Hello, extra_statement};

/// What a node says of itself in each hello.
pub(crate) struct Introduction {
    pub identity: Identity,
    pub network: Hash32,
    pub capabilities: u64,
    /// Drawn at start, never 0.
    pub incarnation: u64,
    pub agent: String,
    /// Where this node believes to be reachable.
    pub addrs: Vec<SocketAddr>,
    pub listen_port: u16,
    /// Dials so far.
    pub attempts: AtomicU64,
    /// A further key of the application's.
    pub extra: Option<Arc<dyn ExtraKey>>,
}

/// A further key that an application binds to each connection, such as a validator's: signed over what only the two ends of
/// that connection know, so it can be neither replayed on another one nor relayed from it.
pub trait ExtraKey: Send + Sync {
    /// Which kind of key; the application's to number.
    fn scheme(&self) -> u8;

    /// The public key, at most 1,974 bytes.
    fn public_key(&self) -> Bytes;

    /// The signature over a statement, at most 3,309 bytes; none when it cannot be made: then the hello goes without.
    fn sign(&self, statement: &[u8]) -> Option<Bytes>;

    /// Whether a peer's key is wanted and its signature holds. False ends the connection.
    fn verify(&self, scheme: u8, key: &[u8], statement: &[u8], signature: &[u8]) -> bool;

    /// Whether peers without a further key are refused.
    fn required(&self) -> bool {
        false
    }
}

impl Introduction {
    fn hello(&self, attempt: u64, observed: SocketAddr, extra: Option<ExtraIdentity>) -> Hello {
        Hello {
            version: hello::VERSION,
            min_version: hello::MIN_VERSION,
            network: self.network,
            capabilities: self.capabilities,
            incarnation: self.incarnation,
            attempt,
            keys: self.identity.hashes(),
            listen_port: self.listen_port,
            addrs: self.addrs.clone(),
            observed: Some(observed),
            agent: self.agent.clone(),
            extra,
        }
    }

    /// Exchanges hellos.
    pub async fn shake(&self, approach: Approach) -> Result<Established, CloseCause> {
        let MuxConn { remote, proof, mux, .. } = approach.conn.into_mux()?;
        let broken = |error: io::Error| cause_of(&error);
        let (stream, theirs, attempt) = match approach.direction {
            Direction::Outbound => {
                // Counts from 1: 0 is what a listener says.
                let attempt = self.attempts.fetch_add(1, Ordering::Relaxed) + 1;
                let mut stream = mux.open().await.map_err(broken)?;
                let ours = self.hello(attempt, remote, self.bind(&*mux, true, &proof)?);
                stream.write.write_all(&ours.encode()).await.map_err(broken)?;
                let theirs = read_hello(&mut stream).await?;
                (stream, theirs, attempt)
            }
            Direction::Inbound => {
                let mut stream = mux.accept().await.map_err(broken)?;
                let theirs = read_hello(&mut stream).await?;
                // What goes with our hello needs no datagram of its own; from here on it is a moment until there is a session or none.
                mux.admit();
                // Said before it is judged, so that a peer of another network learns what this one is.
                let ours = self.hello(0, remote, self.bind(&*mux, false, &proof)?);
                stream.write.write_all(&ours.encode()).await.map_err(broken)?;
                let attempt = theirs.attempt;
                (stream, theirs, attempt)
            }
        };
        let version = theirs.agree(&self.network).map_err(fault)?;
        if !crate::crypto::holds(&theirs.keys, &proof) {
            return Err(not_its_key());
        }
        let identity = theirs.keys.peer_id();
        let by_dialler = approach.direction == Direction::Inbound;
        let extra = self.check(&*mux, by_dialler, &identity, theirs.extra)?;
        let facts = PeerFacts {
            extra,
            caps: Caps(theirs.capabilities),
            version: u32::from(version),
            agent: theirs.agent,
            precedence: Precedence { incarnation: theirs.incarnation, attempt },
            observed: theirs.observed,
            ..PeerFacts::of(identity, canonical_addr(remote), approach.direction)
        };
        let link = Link { reader: Box::new(Framing), writer: Box::new(Framing) };
        let MuxStream { read, write } = stream;
        Ok(Established { facts, link, read, write, read_ahead: BytesMut::new(), mux: Some(mux) })
    }
}

impl Introduction {
    /// Our further key, bound to this connection.
    fn bind(
        &self,
        mux: &dyn Mux,
        by_dialler: bool,
        proof: &[u8],
    ) -> Result<Option<ExtraIdentity>, CloseCause> {
        let Some(extra) = &self.extra else { return Ok(None) };
        let statement =
            extra_statement(&keying(mux)?, by_dialler, &self.identity.peer_id(), &tls::hash(proof));
        let bound = |signature| ExtraIdentity { scheme: extra.scheme(), key: extra.public_key(), signature };
        Ok(extra.sign(&statement).map(bound))
    }

    /// The peer's further key, if it is wanted and bound to this connection.
    fn check(
        &self,
        mux: &dyn Mux,
        by_dialler: bool,
        signer: &PeerId,
        theirs: Option<ExtraIdentity>,
    ) -> Result<Option<ExtraFact>, CloseCause> {
        let Some(extra) = &self.extra else { return Ok(None) };
        let refused = |detail: &'static str| {
            CloseCause::Fault(PeerFault::close(PeerFaultKind::BadHandshake, detail).into())
        };
        let Some(theirs) = theirs else {
            return if extra.required() {
                Err(refused("shows no further key, which is required"))
            } else {
                Ok(None)
            };
        };
        let keying = keying(mux)?;
        let hashes = self.identity.hashes();
        // The peer knows which of our keys TLS has chosen; both are ours.
        let holds = [hashes.post_quantum, hashes.classic].iter().any(|ours| {
            let statement = extra_statement(&keying, by_dialler, signer, ours);
            extra.verify(theirs.scheme, &theirs.key, &statement, &theirs.signature)
        });
        if holds {
            Ok(Some(ExtraFact { scheme: theirs.scheme, key: theirs.key }))
        } else {
            Err(refused("its further key is not wanted, or not bound to this connection"))
        }
    }
}

fn keying(mux: &dyn Mux) -> Result<[u8; EXTRA_KEYING], CloseCause> {
    let mut keying = [0; EXTRA_KEYING];
    mux.export_keying_material(&mut keying, EXTRA_LABEL, b"").map_err(|error| cause_of(&error))?;
    Ok(keying)
}

async fn read_hello(stream: &mut MuxStream) -> Result<Hello, CloseCause> {
    let mut head = [0; HEAD_LEN];
    stream.read.read_exact(&mut head).await.map_err(|error| cause_of(&error))?;
    let len = hello::fields_len(&head).map_err(fault)?;
    let mut fields = vec![0; len];
    stream.read.read_exact(&mut fields).await.map_err(|error| cause_of(&error))?;
    Hello::decode(&Bytes::from(fields)).map_err(fault)
}

fn fault(error: hello::HelloError) -> CloseCause {
    CloseCause::Fault(PeerFault::from(error).into())
}

fn not_its_key() -> CloseCause {
    let detail = "the key that it has proven is none of those that its hello names";
    CloseCause::Fault(PeerFault::close(PeerFaultKind::BadHandshake, detail).into())
}
