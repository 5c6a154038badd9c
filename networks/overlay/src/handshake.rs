//! Hellos, once each way on stream 0: the dialler opens it and speaks first.
//!
//! ```text
//! dialler                               listener
//!   TLS: both prove a key
//!   open stream 0, hello   ------------>  identity = hash of the proven key and the other key's hash
//!                          <------------  hello
//!   identity, as opposite                registry decides; a refusal closes the connection and says why
//! ```
//!
//! Nothing is announced and nothing is signed here: whoever speaks has proven its key to this very connection, so a hello
//! cannot be replayed on another one or relayed from it. Until both hellos are in, a peer costs one buffer of the size
//! that its hello claims, at most [`hello::MAX_FIELDS`].

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use rookery_base::id::canonical_addr;
use rookery_base::{CloseCause, Direction, Hash32, PeerFault, PeerFaultKind};
use rookery_engine::{Approach, Caps, Established, Link, PeerFacts, Precedence};
use rookery_transport::tls::{Identity, KeyHashes};
use rookery_transport::{MuxConn, MuxStream, cause_of};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::wire::frame::Framing;
use crate::wire::hello::{self, HEAD_LEN, Hello};

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
}

impl Introduction {
    fn hello(&self, attempt: u64, observed: SocketAddr) -> Hello {
        Hello {
            version: hello::VERSION,
            min_version: hello::MIN_VERSION,
            network: self.network,
            capabilities: self.capabilities,
            incarnation: self.incarnation,
            attempt,
            other_key: Hash32(self.identity.hashes().other_than(self.identity.public_key())),
            listen_port: self.listen_port,
            addrs: self.addrs.clone(),
            observed: Some(observed),
            agent: self.agent.clone(),
            extra: None,
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
                stream.write.write_all(&self.hello(attempt, remote).encode()).await.map_err(broken)?;
                let theirs = read_hello(&mut stream).await?;
                (stream, theirs, attempt)
            }
            Direction::Inbound => {
                let mut stream = mux.accept().await.map_err(broken)?;
                let theirs = read_hello(&mut stream).await?;
                // Said before it is judged, so that a peer of another network learns what this one is.
                stream.write.write_all(&self.hello(0, remote).encode()).await.map_err(broken)?;
                let attempt = theirs.attempt;
                (stream, theirs, attempt)
            }
        };
        let version = theirs.agree(&self.network).map_err(fault)?;
        let identity = KeyHashes::of(&proof, theirs.other_key.0).ok_or_else(unknown_key)?.peer_id();
        let facts = PeerFacts {
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

async fn read_hello(stream: &mut MuxStream) -> Result<Hello, CloseCause> {
    let mut head = [0; HEAD_LEN];
    stream.read.read_exact(&mut head).await.map_err(|error| cause_of(&error))?;
    let len = hello::fields_len(&head).map_err(fault)?;
    let mut fields = vec![0; len];
    stream.read.read_exact(&mut fields).await.map_err(|error| cause_of(&error))?;
    Hello::decode(&Bytes::from(fields)).map_err(|error| fault(error.into()))
}

fn fault(error: hello::HelloError) -> CloseCause {
    CloseCause::Fault(PeerFault::from(error).into())
}

fn unknown_key() -> CloseCause {
    let detail = "the key that it has proven is neither ML-DSA-65 nor Ed25519";
    CloseCause::Fault(PeerFault::close(PeerFaultKind::BadHandshake, detail).into())
}
