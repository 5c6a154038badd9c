//! The wire seam: what a network implements once, in one folder.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rookery_base::{CloseCause, Direction, Fault, Height, Kind, PeerFault, PeerId, Refusal};
use rookery_runtime::{BoxFuture, Env};
use rookery_transport::{Conn, Mux, MuxStream, ReadHalf, WriteHalf};

use crate::{PeerHandle, Service};

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
    /// A further key that it has bound to this connection, on wires that have such.
    pub extra: Option<ExtraFact>,
    /// Where it sees us, on wires that tell.
    pub observed: Option<SocketAddr>,
    /// What decides between two connections to it, on wires that prove who it is.
    pub precedence: Precedence,
}

/// A key that a peer has proven beside the one of its connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtraFact {
    /// Which kind of key; the application's to number.
    pub scheme: u8,
    /// The public key.
    pub key: Bytes,
}

/// What decides, alike on both ends, which of two connections to one proven peer stays. Ages never do: the two ends
/// have begun to count at different times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Precedence {
    /// The peer's process, a number that it drew when it started. Another one than before means that it has restarted
    /// and that no older connection can be alive. 0 on wires that prove no identity.
    pub incarnation: u64,
    /// The dialling side's count of its dials. Of two connections that one side dialled the later stays.
    pub attempt: u64,
}

impl Precedence {
    /// On wires that prove no identity.
    pub const NONE: Self = Self { incarnation: 0, attempt: 0 };
}

impl PeerFacts {
    /// Facts of a peer on a wire that tells nothing but an identity.
    pub const fn of(peer: PeerId, addr: SocketAddr, direction: Direction) -> Self {
        let agent = String::new();
        let precedence = Precedence::NONE;
        Self {
            peer,
            addr,
            direction,
            caps: Caps::NONE,
            version: 0,
            agent,
            height: 0,
            time_offset: 0,
            observed: None,
            extra: None,
            precedence,
        }
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
    /// The connection's further streams, where it has any. The session's end closes it with the reason.
    pub mux: Option<Arc<dyn Mux>>,
}

/// A peer, for those who serve the streams that it opens.
#[derive(Clone)]
pub struct StreamPeer {
    /// What the handshake learned.
    pub facts: PeerFacts,
    /// The session.
    pub handle: PeerHandle,
    /// Surroundings. The scope is the peer's own: what is spawned there ends with the session.
    pub env: Env,
}

/// Serves streams that peers open beside their messages.
pub trait StreamService: Send + Sync {
    /// A peer has opened a stream. Called by its routine, so it must return at once and spawn what takes time in the
    /// peer's scope. How many streams a peer may have open is the transport's limit.
    fn accept(&self, peer: &StreamPeer, stream: MuxStream);
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

    /// Who serves the streams that peers open; none: they may open none.
    fn streams(&self) -> Option<Arc<dyn StreamService>> {
        None
    }

    /// The code and the words with which a connection is closed for this cause, on transports that can say one. Both
    /// reach the peer, so they must tell it nothing that it should not know.
    fn goodbye(&self, cause: &CloseCause) -> (u32, Cow<'static, str>) {
        goodbye(cause)
    }

    /// What to do with message kinds that no service declares.
    fn unknown_kind(&self, _kind: Kind) -> UnknownKind {
        UnknownKind::Refuse
    }
}

/// The usual code with which a connection is closed because another one of the same two peers stays.
pub const ANOTHER_STAYS: u32 = 2;

/// The usual code with which a handshake is ended that found no place, or lost it to another one: there will be one soon.
pub const BUSY: u32 = 6;

/// The usual codes: whose fault it was, and what a well-meant peer can do about it.
///
/// | code | meaning | what a peer does |
/// |---|---|---|
/// | 0 | the node stops | comes back later |
/// | 1 | the peer broke a rule | mends itself |
/// | 2 | another connection of the same two peers stays | uses that one |
/// | 3 | no room, or not for this address | tries others, comes back later |
/// | 4 | our own failure | comes back |
/// | 5 | no longer needed | nothing |
/// | 6 | no place for the handshake now | tries again at once, within its deadline |
fn goodbye(cause: &CloseCause) -> (u32, Cow<'static, str>) {
    let code = match cause {
        CloseCause::Shutdown => 0,
        CloseCause::Fault(Fault::Peer(_)) => 1,
        CloseCause::Duplicate(_) => return (ANOTHER_STAYS, "another connection stays".into()),
        CloseCause::Refused(refusal) if is_passing(*refusal) => BUSY,
        CloseCause::Evicted | CloseCause::Refused(_) => 3,
        CloseCause::Fault(Fault::Local(_)) | CloseCause::Panic => return (4, "an error here".into()),
        CloseCause::Dropped(_)
        | CloseCause::PeerClosed
        | CloseCause::ByPeer { .. }
        | CloseCause::Broken(_) => 5,
    };
    (code, cause.to_string().into())
}

/// Whether a refusal is of the moment: handshakes are short, slots are not.
const fn is_passing(refusal: Refusal) -> bool {
    match refusal {
        Refusal::Handshakes
        | Refusal::HandshakeBytes
        | Refusal::HandshakeCpu
        | Refusal::HandshakesPerIp
        | Refusal::HandshakesPerPrefix
        | Refusal::HandshakeEvicted
        | Refusal::AcceptError
        | Refusal::Closing => true,
        Refusal::Banned
        | Refusal::Full
        | Refusal::PerAddress
        | Refusal::PerGroup
        | Refusal::Generations
        | Refusal::Unwanted(_) => false,
    }
}
