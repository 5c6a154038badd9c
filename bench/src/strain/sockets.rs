//! Sockets that do what no honest stack does: fall silent without a goodbye, or lose it.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use rookery_transport::quic::{Bound, Datagrams, Udp};

/// More than are ever sent.
const ALL: usize = usize::MAX;

/// Sockets that can be silenced: what was open on them is then gone for the other side as with a pulled cable. Or they lose
/// some datagrams and send the rest.
#[derive(Debug, Clone, Default)]
pub struct Mutable(Arc<AtomicUsize>);

impl Mutable {
    /// Says nothing from now on.
    pub fn mute(&self) {
        self.0.store(ALL, Ordering::Relaxed);
    }

    /// Loses the next so many datagrams.
    pub fn lose(&self, datagrams: usize) {
        self.0.store(datagrams, Ordering::Relaxed);
    }

    /// Whether the next datagram goes out.
    fn lets_out(&self) -> bool {
        let one = |left| match left {
            0 => None,
            ALL => Some(ALL),
            some => Some(some - 1),
        };
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one).is_err()
    }
}

impl Datagrams for Mutable {
    fn bind(&self, at: SocketAddr) -> io::Result<Bound> {
        let bound = Udp::AS_THEY_ARE.bind(at)?;
        Ok(Bound { socket: Arc::new(Gated { socket: bound.socket, muted: self.clone() }), ..bound })
    }
}

#[derive(Debug)]
struct Gated {
    socket: Arc<dyn AsyncUdpSocket>,
    muted: Mutable,
}

impl AsyncUdpSocket for Gated {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.socket).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if self.muted.lets_out() { self.socket.try_send(transmit) } else { Ok(()) }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.socket.poll_recv(cx, bufs, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// One: what goes out in one call is one datagram.
    fn max_transmit_segments(&self) -> usize {
        1
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_datagrams_are_lost_or_all() {
        let sockets = Mutable::default();
        assert!(sockets.lets_out());
        sockets.lose(2);
        assert_eq!([sockets.lets_out(), sockets.lets_out(), sockets.lets_out()], [false, false, true]);
        sockets.mute();
        assert_eq!([sockets.lets_out(), sockets.lets_out()], [false, false]);
    }
}
