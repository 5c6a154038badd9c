//! The wire seam: what a network implements once, in one folder.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rookery_base::{CloseCause, Direction, Height, Kind, PeerFault, PeerId};
use rookery_runtime::{BoxFuture, Env};
use rookery_transport::{Conn, ReadHalf, WriteHalf};

use crate::Service;

/// What a peer can do, as bits that its network defines. Immutable for the life of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Caps(pub u64);

impl Caps {
    /// No capability.
    pub const NONE: Self = Self(0);

    /// Whether every bit of `needed` is there.
    pub const fn has(self, needed: Self) -> bool {
        self.0 & needed.0 == needed.0
    }
}

/// What the handshake learned about a peer.
#[derive(Debug, Clone)]
pub struct PeerFacts {
    /// Its identity.
    pub peer: PeerId,
    /// Its address on this connection.
    pub addr: SocketAddr,
    /// Who dialled.
    pub direction: Direction,
    /// What it can do.
    pub caps: Caps,
    /// Its protocol version.
    pub version: u32,
    /// Its user agent, printable ASCII, as far as the wire's cap.
    pub agent: String,
    /// The height that it claims.
    pub height: Height,
    /// Its clock minus ours, in seconds.
    pub time_offset: i64,
}

impl PeerFacts {
    /// Facts of a peer on a wire that tells nothing but an identity.
    pub const fn of(peer: PeerId, addr: SocketAddr, direction: Direction) -> Self {
        let agent = String::new();
        Self { peer, addr, direction, caps: Caps::NONE, version: 0, agent, height: 0, time_offset: 0 }
    }
}

/// A connection on which the handshake begins.
pub struct Approach {
    /// The connection.
    pub conn: Conn,
    /// Who dialled.
    pub direction: Direction,
    /// Surroundings. The scope is the peer's own.
    pub env: Env,
}

/// A connection on which the handshake has ended well.
pub struct Established {
    /// What was learned.
    pub facts: PeerFacts,
    /// How messages are framed from here on.
    pub link: Link,
    /// Bytes that come in.
    pub read: ReadHalf,
    /// Bytes that go out.
    pub write: WriteHalf,
    /// Bytes that were read past the handshake's end.
    pub read_ahead: BytesMut,
}

/// Message framing: pure, one half per direction, because the halves live in different tasks.
pub struct Link {
    /// Takes messages apart.
    pub reader: Box<dyn Deframe>,
    /// Puts messages together.
    pub writer: Box<dyn Enframe>,
}

/// The head of a message: what is known before its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// What it is.
    pub kind: Kind,
    /// Bytes of the head itself.
    pub head_len: usize,
    /// Bytes of payload that follow.
    pub body_len: usize,
}

/// Takes messages apart.
pub trait Deframe: Send {
    /// The head at the start of `bytes`; `None` when more bytes are needed. Must not fail on a prefix of a valid
    /// head, and must refuse lengths over the wire's own cap.
    fn head(&mut self, bytes: &[u8]) -> Result<Option<Head>, PeerFault>;

    /// The payload as its pipe wants it. Framings that encrypt decrypt here.
    fn body(&mut self, _head: &Head, body: Bytes) -> Result<Bytes, PeerFault> {
        Ok(body)
    }
}

/// Puts messages together.
pub trait Enframe: Send {
    /// Appends the framed message to `out`.
    fn frame(&mut self, kind: Kind, body: &[u8], out: &mut BytesMut);
}

/// What to do with a message kind that no service declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownKind {
    /// Read past it; at most this many bytes.
    Skip(usize),
    /// A peer fault.
    Refuse,
}

/// A wire.
pub trait Network: Send + Sync + 'static {
    /// Its name, as stored and shown.
    fn name(&self) -> &'static str;

    /// Our identity, on wires that have one. It decides which of two connections to one peer stays.
    fn local_id(&self) -> Option<PeerId> {
        None
    }

    /// Deadline for the whole handshake. Stages have their own inside it.
    fn handshake_deadline(&self) -> Duration;

    /// Shakes hands. Dropping the future closes the connection.
    fn handshake(&self, approach: Approach) -> BoxFuture<'_, Result<Established, CloseCause>>;

    /// The services on an established session, in a fixed order.
    fn services(&self) -> &[Arc<dyn Service>];

    /// What to do with message kinds that no service declares.
    fn unknown_kind(&self, _kind: Kind) -> UnknownKind {
        UnknownKind::Refuse
    }
}
