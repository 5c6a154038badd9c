//! Connections, and nothing about what is said on them.
//!
//! A [`Transport`] listens and dials. What comes out is a [`Conn`] in one of two shapes: one ordered pipe
//! ([`StreamConn`]: TCP), or many streams ([`MuxConn`]: QUIC). The simulation's fabrics stand below or beside, so
//! everything above runs the same code on them.
//!
//! ```text
//! Listener::accept -> Arrival::Ready(Conn)                       TCP: the kernel has shaken hands already
//!                  -> Arrival::Pending -> retry | refuse | ignore | accept -> Conn
//!                                         QUIC: one datagram has come, and nothing has been paid for it
//! ```

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rookery_base::{CloseCause, Fault, LocalFault};
use rookery_runtime::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

pub mod quic;
pub mod tcp;
pub mod tls;
mod waits;

pub use quic::{Quic, QuicLimits, QuicTls};
pub use tcp::Tcp;
pub use waits::Waits;

/// Listens and dials.
pub trait Transport: Send + Sync + 'static {
    /// Binds and listens. Port 0 takes any free one; see [`Listener::local_addr`].
    fn listen(&self, at: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>>;

    /// Connects. The caller sets the deadline by dropping the future.
    fn dial(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<Conn>>;
}

/// A bound listener, owned by one accept loop.
pub trait Listener: Send {
    /// Where it listens.
    fn local_addr(&self) -> SocketAddr;

    /// The next arrival. Cancel-safe: an arrival is either returned or still queued. An error concerns one arrival
    /// or the process's limits, and the listener stays usable.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Arrival>>;
}

/// Somebody who wants to be let in.
pub enum Arrival {
    /// Connected already: there was nothing to decide before.
    Ready(Conn),
    /// At the door: what becomes of it is still to be decided, and costs nothing yet.
    Pending(Box<dyn Pending>),
}

impl Arrival {
    /// The other side's address; not proven while the arrival is not [`validated`](Self::validated).
    pub fn remote(&self) -> SocketAddr {
        match self {
            Self::Ready(conn) => conn.remote(),
            Self::Pending(pending) => pending.remote(),
        }
    }

    /// Whether the other side has proven that it receives at its address.
    pub fn validated(&self) -> bool {
        match self {
            Self::Ready(_) => true,
            Self::Pending(pending) => pending.validated(),
        }
    }

    /// How long its handshake will have had us wait, where the transport tells.
    pub fn waits(&self) -> Option<&Waits> {
        match self {
            Self::Ready(_) => None,
            Self::Pending(pending) => pending.waits(),
        }
    }

    /// Lets it in, whatever that still takes.
    pub fn connect(self) -> BoxFuture<'static, io::Result<Conn>> {
        self.enter().conn
    }

    /// Lets it in, and keeps a way to tell it why not after all.
    pub fn enter(self) -> Entering {
        match self {
            Self::Ready(conn) => {
                let farewell =
                    conn.mux().map(|mux| Box::new(move |code, why: &str| mux.close(code, why)) as Farewell);
                Entering { conn: Box::pin(std::future::ready(Ok(conn))), farewell }
            }
            Self::Pending(pending) => pending.accept(),
        }
    }
}

/// Ends a connection with a code and words, also before its handshake has ended: as far as the other side can read them by
/// then, it is told.
pub type Farewell = Box<dyn Fn(u32, &str) + Send + Sync>;

/// Somebody who is being let in.
pub struct Entering {
    /// The connection, when its own handshake has ended.
    pub conn: BoxFuture<'static, io::Result<Conn>>,
    /// The way to end it, on transports that have words. The connection lives while this is held.
    pub farewell: Option<Farewell>,
}

/// A connection of which one datagram has come. Each verb consumes it; one that is dropped is not let in.
pub trait Pending: Send {
    /// Where the datagram says that it is from.
    fn remote(&self) -> SocketAddr;

    /// Whether the sender has proven its address: it has answered a Retry, or shows a token of an earlier connection.
    fn validated(&self) -> bool;

    /// How long its handshake, once it is let in, will have had us wait, where that is known.
    fn waits(&self) -> Option<&Waits> {
        None
    }

    /// Asks it to prove its address and come again. On one that is validated already this refuses.
    fn retry(self: Box<Self>);

    /// Tells it that it is not let in. Costs one datagram.
    fn refuse(self: Box<Self>);

    /// Says nothing.
    fn ignore(self: Box<Self>);

    /// Runs the cryptographic handshake. Dropping what it gives ends the connection.
    fn accept(self: Box<Self>) -> Entering;
}

/// A connection.
pub enum Conn {
    /// One ordered pipe of bytes each way.
    Stream(StreamConn),
    /// Many streams, on a connection that has proven the other side's key.
    Mux(MuxConn),
}

impl Conn {
    /// The other side's address.
    pub const fn remote(&self) -> SocketAddr {
        match self {
            Self::Stream(conn) => conn.remote,
            Self::Mux(conn) => conn.remote,
        }
    }

    /// The connection as one ordered pipe.
    ///
    /// # Errors
    /// When it is not: the network was wired to a transport that it cannot speak over.
    pub fn into_stream(self) -> Result<StreamConn, WrongShape> {
        match self {
            Self::Stream(conn) => Ok(conn),
            Self::Mux(_) => Err(WrongShape { wanted: "one ordered pipe" }),
        }
    }

    /// The connection as many streams.
    ///
    /// # Errors
    /// When it is not: the network was wired to a transport that it cannot speak over.
    pub fn into_mux(self) -> Result<MuxConn, WrongShape> {
        match self {
            Self::Mux(conn) => Ok(conn),
            Self::Stream(_) => Err(WrongShape { wanted: "many streams" }),
        }
    }

    /// The streams, for whoever closes the connection with a reason; a pipe has no way to say one.
    pub fn mux(&self) -> Option<Arc<dyn Mux>> {
        match self {
            Self::Stream(_) => None,
            Self::Mux(conn) => Some(Arc::clone(&conn.mux)),
        }
    }
}

/// A network and a transport that do not fit together: a mistake of whoever wired them, never a peer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrongShape {
    wanted: &'static str,
}

impl fmt::Display for WrongShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "this network speaks over {}, which its transport does not bring", self.wanted)
    }
}

impl std::error::Error for WrongShape {}

impl From<WrongShape> for CloseCause {
    fn from(wrong: WrongShape) -> Self {
        Self::Fault(LocalFault::new(wrong.to_string()).into())
    }
}

/// The reading half of an ordered pipe.
pub type ReadHalf = Box<dyn AsyncRead + Send + Unpin>;
/// The writing half of an ordered pipe.
pub type WriteHalf = Box<dyn AsyncWrite + Send + Unpin>;

/// One ordered pipe of bytes each way. Dropping both halves closes it.
pub struct StreamConn {
    /// The other side's address.
    pub remote: SocketAddr,
    /// Our address on this connection.
    pub local: SocketAddr,
    /// Bytes that come in.
    pub read: ReadHalf,
    /// Bytes that go out.
    pub write: WriteHalf,
}

/// Many streams on one connection, whose other side is proven.
pub struct MuxConn {
    /// The other side's address. It may move; see [`Mux`].
    pub remote: SocketAddr,
    /// Our address on this connection; unspecified when the system does not say.
    pub local: SocketAddr,
    /// What the handshake has proven that the other side holds the key of: a `SubjectPublicKeyInfo` or a certificate, DER.
    pub proof: Bytes,
    /// The streams.
    pub mux: Arc<dyn Mux>,
}

/// A stream of a [`Mux`].
pub struct MuxStream {
    /// Bytes that come in.
    pub read: ReadHalf,
    /// Bytes that go out. Shutting it down says that all has been said; dropped before that, the stream is reset, so
    /// that half a message never looks whole.
    pub write: WriteHalf,
}

/// A connection's streams. The connection ends when it is closed from either side, or when every holder is gone.
pub trait Mux: Send + Sync {
    /// Opens a stream; waits while the other side allows no more. The other side learns of it with its first byte.
    fn open(&self) -> BoxFuture<'_, io::Result<MuxStream>>;

    /// The next stream that the other side opens. Cancel-safe.
    fn accept(&self) -> BoxFuture<'_, io::Result<MuxStream>>;

    /// Lets the other side of a connection that it has opened have as much under way as a session may; before, it can have us hold a
    /// stranger's part. A network's handshake says so once the other side has introduced itself. Nothing to do where the two
    /// are the same.
    fn admit(&self) {}

    /// Ends the connection and tells the other side why. The first call wins.
    fn close(&self, code: u32, reason: &str);

    /// Completes when the connection has ended, with how.
    fn closed(&self) -> BoxFuture<'_, Closed>;

    /// Fills `out` with bytes that only the two ends of this connection can know (RFC 5705), to bind a statement to it.
    ///
    /// # Errors
    /// When the handshake's library refuses the length.
    fn export_keying_material(&self, out: &mut [u8], label: &[u8], context: &[u8]) -> io::Result<()>;

    /// Where the other side is now, and how the path does.
    fn stats(&self) -> MuxStats;
}

/// How a connection with streams has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Closed {
    /// The other side closed it and said why.
    ByPeer {
        /// Its code.
        code: u32,
        /// Its words, as far as the first 256 bytes, printable.
        reason: String,
    },
    /// We closed it.
    ByUs,
    /// Nothing was heard within the idle deadline.
    TimedOut,
    /// The two ends' keys do not fit together, and whose that is to mend: another try ends alike.
    Unfit(Fault),
    /// It broke, or the other side broke the transport's rules.
    Broken(String),
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ByPeer { code, reason } if reason.is_empty() => {
                write!(f, "closed by the peer, code {code}")
            }
            Self::ByPeer { code, reason } => write!(f, "closed by the peer: {reason} (code {code})"),
            Self::ByUs => f.write_str("closed by us"),
            Self::TimedOut => f.write_str("nothing heard within the idle deadline"),
            Self::Unfit(fault) => fault.fmt(f),
            Self::Broken(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for Closed {}

impl From<Closed> for CloseCause {
    fn from(closed: Closed) -> Self {
        match closed {
            Closed::ByPeer { code, reason } => Self::ByPeer { code, reason: reason.into() },
            Closed::Unfit(fault) => Self::Fault(fault),
            closed => Self::Broken(closed.to_string().into()),
        }
    }
}

/// Why a connection on which reading or writing failed has ended. The other side's own words, where it said some.
pub fn cause_of(error: &io::Error) -> CloseCause {
    let told = error.get_ref().and_then(|inner| inner.downcast_ref::<Closed>());
    told.map_or_else(|| CloseCause::Broken(error.to_string().into()), |closed| closed.clone().into())
}

/// Figures of a connection with streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MuxStats {
    /// Where the other side is now.
    pub remote: SocketAddr,
    /// The smoothed round-trip time.
    pub rtt: Duration,
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams received.
    pub received: u64,
    /// Packets declared lost.
    pub lost: u64,
    /// Largest datagram that the path takes, in bytes.
    pub mtu: u16,
}
