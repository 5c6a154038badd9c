//! A quinn connection as a [`Mux`].

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use quinn::{
    Connection, ConnectionClose, ConnectionError, ReadError, RecvStream, SendStream, TransportErrorCode,
    VarInt, WriteError,
};
use rookery_base::id::canonical_addr;
use rookery_observe::Metrics;
use rookery_runtime::BoxFuture;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::farewell::Farewells;
use crate::tls;
use crate::{Closed, Conn, Mux, MuxConn, MuxStats, MuxStream};

/// What of the other side's parting words is kept.
const REASON: usize = 256;
/// The code of a stream that was given up.
const GIVEN_UP: VarInt = VarInt::from_u32(0);

/// What all connections of an endpoint share.
#[derive(Clone)]
pub(super) struct Site {
    /// Where it is bound.
    pub local: SocketAddr,
    /// What the other side of a connection that is let in may have sent before we have read it.
    pub window: VarInt,
    pub metrics: Arc<Metrics>,
    pub farewells: Arc<Farewells>,
}

/// A connection whose handshake has ended well, with what it has proven.
pub(super) fn established(connection: Connection, site: Site) -> io::Result<Conn> {
    let identity =
        connection.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
    let proof = identity.and_then(|keys| keys.first().map(|key| Bytes::copy_from_slice(key)));
    let Some(proof) = proof else {
        site.farewells.close(&connection, GIVEN_UP, b"no key was shown");
        return Err(io::Error::other("the other side has shown no key"));
    };
    let local =
        canonical_addr(SocketAddr::new(connection.local_ip().unwrap_or(site.local.ip()), site.local.port()));
    let remote = canonical_addr(connection.remote_address());
    Ok(Conn::Mux(MuxConn { remote, local, proof, mux: Arc::new(QuicMux { connection, site }) }))
}

/// A connection's end as an I/O error that carries how it was.
pub(super) fn error(error: ConnectionError) -> io::Error {
    let kind = match &error {
        ConnectionError::TimedOut => io::ErrorKind::TimedOut,
        ConnectionError::ApplicationClosed(_) | ConnectionError::ConnectionClosed(_) => {
            io::ErrorKind::ConnectionAborted
        }
        _ => io::ErrorKind::ConnectionReset,
    };
    io::Error::new(kind, closed(error))
}

fn closed(error: ConnectionError) -> Closed {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            let code = u32::try_from(close.error_code.into_inner()).unwrap_or(u32::MAX);
            let words = String::from_utf8_lossy(&close.reason[..close.reason.len().min(REASON)]);
            Closed::ByPeer { code, reason: words.chars().filter(|c| !c.is_control()).collect() }
        }
        ConnectionError::LocallyClosed => Closed::ByUs,
        ConnectionError::TimedOut => Closed::TimedOut,
        ConnectionError::ConnectionClosed(close) => by_transport(&close),
        ConnectionError::TransportError(error) => {
            match alert(error.code).and_then(|alert| tls::unfit(alert, true)) {
                Some(fault) => Closed::Unfit(fault),
                None => Closed::Broken(error.to_string()),
            }
        }
        other => Closed::Broken(other.to_string()),
    }
}

/// The other side's transport has ended the connection. Until a handshake is over on both sides an application's words
/// cannot be sent in it, only that it has some.
fn by_transport(close: &ConnectionClose) -> Closed {
    match close.error_code {
        TransportErrorCode::CONNECTION_REFUSED => {
            Closed::Broken("refused at the door: the peer takes no more handshakes now".to_owned())
        }
        TransportErrorCode::APPLICATION_ERROR => Closed::Broken(
            "the peer gave the connection up in the middle of its handshake: it had no place for it any more, or is stopping"
                .to_owned(),
        ),
        code => match alert(code).and_then(|alert| tls::unfit(alert, false)) {
            Some(fault) => Closed::Unfit(fault),
            None => Closed::Broken(ConnectionError::ConnectionClosed(close.clone()).to_string()),
        },
    }
}

/// The TLS alert in a transport's error code (RFC 9001, 4.8).
fn alert(code: TransportErrorCode) -> Option<u8> {
    u64::from(code).checked_sub(0x100).and_then(|alert| u8::try_from(alert).ok())
}

struct QuicMux {
    connection: Connection,
    site: Site,
}

impl Drop for QuicMux {
    fn drop(&mut self) {
        let path = self.connection.stats().path;
        self.site.metrics.quic_rtt_seconds.observe(path.rtt.as_secs_f64());
        self.site.metrics.quic_sent_packets.inc_by(path.sent_packets);
        self.site.metrics.quic_lost_packets.inc_by(path.lost_packets);
    }
}

impl Mux for QuicMux {
    fn open(&self) -> BoxFuture<'_, io::Result<MuxStream>> {
        Box::pin(async move { self.connection.open_bi().await.map(stream).map_err(error) })
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<MuxStream>> {
        Box::pin(async move { self.connection.accept_bi().await.map(stream).map_err(error) })
    }

    fn admit(&self) {
        if self.connection.side().is_server() {
            self.connection.set_receive_window(self.site.window);
        }
    }

    fn close(&self, code: u32, reason: &str) {
        self.site.farewells.close(&self.connection, VarInt::from_u32(code), reason.as_bytes());
    }

    fn closed(&self) -> BoxFuture<'_, Closed> {
        Box::pin(async move { closed(self.connection.closed().await) })
    }

    fn export_keying_material(&self, out: &mut [u8], label: &[u8], context: &[u8]) -> io::Result<()> {
        self.connection
            .export_keying_material(out, label, context)
            .map_err(|_| io::Error::other("no such keying material"))
    }

    fn stats(&self) -> MuxStats {
        let stats = self.connection.stats();
        MuxStats {
            remote: canonical_addr(self.connection.remote_address()),
            rtt: stats.path.rtt,
            sent: stats.udp_tx.datagrams,
            received: stats.udp_rx.datagrams,
            lost: stats.path.lost_packets,
            mtu: stats.path.current_mtu,
        }
    }
}

fn stream((send, recv): (SendStream, RecvStream)) -> MuxStream {
    MuxStream { read: Box::new(Incoming(recv)), write: Box::new(Outgoing { send, finished: false }) }
}

/// Bytes that come in. Dropped before their end, the other side is told to stop.
struct Incoming(RecvStream);

impl AsyncRead for Incoming {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = out.filled().len();
        let read = self.0.poll_read_buf(cx, out).map_err(|failed| match failed {
            ReadError::ConnectionLost(lost) => error(lost),
            ReadError::Reset(code) => io::Error::new(
                io::ErrorKind::ConnectionReset,
                format!("the peer gave the stream up (code {code})"),
            ),
            other => io::Error::other(other),
        });
        debug_assert!(out.filled().len() >= before, "reading adds");
        read
    }
}

/// Bytes that go out. Dropped before it was shut down, the stream is reset: half a message never looks whole.
struct Outgoing {
    send: SendStream,
    finished: bool,
}

impl AsyncWrite for Outgoing {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.send).poll_write(cx, bytes).map_err(|failed| match failed {
            WriteError::ConnectionLost(lost) => error(lost),
            WriteError::Stopped(code) => io::Error::new(
                io::ErrorKind::BrokenPipe,
                format!("the peer no longer wants the stream (code {code})"),
            ),
            other => io::Error::other(other),
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if std::mem::replace(&mut self.finished, true) {
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(self.send.finish().map_err(io::Error::other))
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        if !self.finished {
            // An error says that the stream or its connection has ended already.
            let _ = self.send.reset(GIVEN_UP);
        }
    }
}
