//! A host's sockets: the asynchronous face of the fabric's state.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rookery_runtime::BoxFuture;
use rookery_transport::{Arrival, Conn, Listener, StreamConn, Transport};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Shared;
use super::agenda::{ConnId, DialId};
use super::conn::Side;
use super::net::Half;

/// One host's transport.
#[derive(Debug)]
pub(super) struct HostTransport {
    pub shared: Arc<Shared>,
    pub ip: IpAddr,
}

impl Transport for HostTransport {
    fn listen(&self, at: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let at = self.shared.with(|net, _| net.listen(self.ip, at))?;
            Ok(Box::new(HostListener { shared: Arc::clone(&self.shared), at }) as Box<dyn Listener>)
        })
    }

    fn dial(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<Conn>> {
        Box::pin(async move {
            let id = self.shared.with(|net, now| net.dial(now, self.ip, to))?;
            let dialling = Dialling { shared: &self.shared, id };
            let (conn, local, remote) =
                std::future::poll_fn(|cx| dialling.shared.with(|net, _| net.poll_dial(id, cx))).await?;
            Ok(stream(&self.shared, conn, Side::Dialler, local, remote))
        })
    }
}

/// A dial whose future may be dropped at any moment.
struct Dialling<'a> {
    shared: &'a Arc<Shared>,
    id: DialId,
}

impl Drop for Dialling<'_> {
    fn drop(&mut self) {
        self.shared.with(|net, now| net.end_dial(now, self.id));
    }
}

struct HostListener {
    shared: Arc<Shared>,
    at: SocketAddr,
}

impl Listener for HostListener {
    fn local_addr(&self) -> SocketAddr {
        self.at
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<Arrival>> {
        Box::pin(async move {
            let (conn, local, remote) =
                std::future::poll_fn(|cx| self.shared.with(|net, _| net.poll_accept(self.at, cx))).await;
            Ok(Arrival::Ready(stream(&self.shared, conn, Side::Acceptor, local, remote)))
        })
    }
}

impl Drop for HostListener {
    fn drop(&mut self) {
        self.shared.with(|net, now| net.unlisten(now, self.at));
    }
}

fn stream(shared: &Arc<Shared>, id: ConnId, side: Side, local: SocketAddr, remote: SocketAddr) -> Conn {
    let read = Box::new(Reading { shared: Arc::clone(shared), end: (id, side) });
    let write = Box::new(Writing { shared: Arc::clone(shared), end: (id, side) });
    Conn::Stream(StreamConn { remote, local, read, write })
}

struct Reading {
    shared: Arc<Shared>,
    end: (ConnId, Side),
}

impl AsyncRead for Reading {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.shared.with(|net, now| net.poll_read(now, self.end, cx, buf))
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.shared.with(|net, now| net.drop_half(now, self.end.0, self.end.1, Half::Read));
    }
}

struct Writing {
    shared: Arc<Shared>,
    end: (ConnId, Side),
}

impl AsyncWrite for Writing {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.shared.with(|net, now| net.poll_write(now, self.end, cx, data))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.with(|net, now| net.finish(now, self.end));
        Poll::Ready(Ok(()))
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.shared.with(|net, now| net.drop_half(now, self.end.0, self.end.1, Half::Write));
    }
}
