//! Sockets that do what no honest stack does: fall silent without a goodbye, or say one thing a second.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use rookery_runtime::Clock;
use rookery_transport::quic::{Bound, Datagrams, Udp};

/// More than are ever sent.
const ALL: usize = usize::MAX;

/// What becomes of datagrams on their way out.
#[derive(Debug)]
enum Gate {
    /// So many more of them are lost, [`ALL`] meaning all that ever come.
    Lost(Arc<AtomicUsize>),
    /// One goes in each of these periods, and the others are lost. The number is of the last period in which one went.
    OneEach(Duration, Clock, AtomicU64),
}

impl Gate {
    fn lets_out(&self) -> bool {
        match self {
            Self::Lost(lost) => {
                let one = |left| match left {
                    0 => None,
                    ALL => Some(ALL),
                    some => Some(some - 1),
                };
                lost.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one).is_err()
            }
            Self::OneEach(period, clock, last) => {
                let now = 1 + (clock.elapsed().as_nanos() / period.as_nanos()) as u64;
                last.swap(now, Ordering::Relaxed) != now
            }
        }
    }
}

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
}

impl Datagrams for Mutable {
    fn bind(&self, at: SocketAddr) -> io::Result<Bound> {
        gated(at, Gate::Lost(Arc::clone(&self.0)))
    }
}

/// Sockets that send one datagram each period and lose the others.
#[derive(Debug, Clone, Copy)]
pub struct Slow(pub Duration);

impl Datagrams for Slow {
    fn bind(&self, at: SocketAddr) -> io::Result<Bound> {
        gated(at, Gate::OneEach(self.0, Clock::system(), AtomicU64::new(0)))
    }
}

fn gated(at: SocketAddr, gate: Gate) -> io::Result<Bound> {
    let bound = Udp::AS_THEY_ARE.bind(at)?;
    Ok(Bound { socket: Arc::new(Gated { socket: bound.socket, gate }), ..bound })
}

#[derive(Debug)]
struct Gated {
    socket: Arc<dyn AsyncUdpSocket>,
    gate: Gate,
}

impl AsyncUdpSocket for Gated {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.socket).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if self.gate.lets_out() { self.socket.try_send(transmit) } else { Ok(()) }
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
    fn a_slow_gate_lets_out_one_in_a_period_a_losing_one_what_comes_later_and_a_muted_one_none() {
        let gate = Gate::OneEach(Duration::from_secs(3600), Clock::system(), AtomicU64::new(0));
        assert_eq!([gate.lets_out(), gate.lets_out(), gate.lets_out()], [true, false, false]);
        let sockets = Mutable::default();
        let gate = Gate::Lost(Arc::clone(&sockets.0));
        assert!(gate.lets_out());
        sockets.lose(2);
        assert_eq!([gate.lets_out(), gate.lets_out(), gate.lets_out()], [false, false, true]);
        sockets.mute();
        assert_eq!([gate.lets_out(), gate.lets_out()], [false, false]);
    }
}
