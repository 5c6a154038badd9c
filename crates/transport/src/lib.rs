//! Connections, and nothing about what is said on them.
//!
//! A [`Transport`] listens and dials. What comes out is a [`Conn`], today one ordered pipe ([`StreamConn`]); the
//! multiplexed shape joins it with QUIC. The simulation's fabric is another `Transport`, so everything above runs
//! the same code on it.

use std::io;
use std::net::SocketAddr;

use rookery_runtime::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

pub mod tcp;

pub use tcp::Tcp;

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
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Conn>>;
}

/// A connection.
pub enum Conn {
    /// One ordered pipe of bytes each way.
    Stream(StreamConn),
}

impl Conn {
    /// The other side's address.
    pub const fn remote(&self) -> SocketAddr {
        match self {
            Self::Stream(conn) => conn.remote,
        }
    }

    /// The connection as one ordered pipe.
    pub fn into_stream(self) -> StreamConn {
        match self {
            Self::Stream(conn) => conn,
        }
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
