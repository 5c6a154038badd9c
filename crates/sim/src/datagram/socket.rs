//! A host's datagram sockets as quinn sees them.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use rookery_base::id::mapped;
use rookery_transport::quic::{Bound, Datagrams};

use crate::fabric::Shared;

/// The datagram side of a host.
#[derive(Clone)]
pub struct HostDatagrams {
    pub(crate) shared: Arc<Shared>,
    pub(crate) ip: IpAddr,
}

impl fmt::Debug for HostDatagrams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostDatagrams").field("ip", &self.ip).finish_non_exhaustive()
    }
}

impl HostDatagrams {
    /// Binds a socket: at the host's address or at any (`0.0.0.0`; `[::]` for both families), at a port or at any
    /// free one (0).
    ///
    /// # Errors
    /// When the address is not the host's, or the port is taken.
    pub fn socket(&self, at: SocketAddr) -> io::Result<SimUdp> {
        let (bound, receive_buffer) =
            self.shared.with_datagrams(|udp, ground, _| udp.bind(ground, self.ip, at))?;
        let told = SocketAddr::new(at.ip(), bound.port());
        Ok(SimUdp { shared: Arc::clone(&self.shared), at: bound, told, receive_buffer })
    }
}

impl Datagrams for HostDatagrams {
    fn bind(&self, at: SocketAddr) -> io::Result<Bound> {
        let socket = self.socket(at)?;
        let receive_buffer = Some(socket.receive_buffer());
        Ok(Bound { socket: Arc::new(socket), receive_buffer, receiver: None })
    }
}

/// A datagram socket on a simulated host. Dropping it unbinds it.
///
/// It never says that it cannot send: what a kernel would not take is lost on the way, and counted.
pub struct SimUdp {
    shared: Arc<Shared>,
    /// Canonical: the socket's name in the fabric.
    at: SocketAddr,
    /// What it says that its address is: as it was asked for, with its port.
    told: SocketAddr,
    receive_buffer: usize,
}

impl fmt::Debug for SimUdp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimUdp").field("at", &self.at).finish_non_exhaustive()
    }
}

impl SimUdp {
    /// Bytes that its receive buffer takes, as a kernel charges them.
    pub const fn receive_buffer(&self) -> usize {
        self.receive_buffer
    }

    /// A host's address in the form of this socket's family.
    fn told(&self, ip: IpAddr) -> IpAddr {
        if self.told.is_ipv6() { mapped(ip).into() } else { ip }
    }
}

impl AsyncUdpSocket for SimUdp {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        // One allocation and one lock for all the datagrams of a transmission.
        let mut rest = Bytes::copy_from_slice(transmit.contents);
        let each = transmit.segment_size.unwrap_or(rest.len()).max(1);
        self.shared.with_datagrams(|udp, ground, now| {
            loop {
                let bytes = rest.split_to(each.min(rest.len()));
                udp.send(ground, now, self.at, transmit.destination, bytes);
                if rest.is_empty() {
                    break;
                }
            }
        });
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.shared.with_datagrams(|udp, _, _| {
            let Poll::Ready(first) = udp.poll_recv(self.at, cx) else { return Poll::Pending };
            let mut next = Some(first);
            let mut count = 0;
            for (buf, meta) in bufs.iter_mut().zip(meta) {
                let Some(received) = next.take().or_else(|| udp.try_recv(self.at)) else { break };
                // What the reader has no room for is cut off, as recvmsg does it.
                let len = received.bytes.len().min(buf.len());
                buf[..len].copy_from_slice(&received.bytes[..len]);
                *meta = RecvMeta::default();
                meta.addr = SocketAddr::new(self.told(received.from.ip()), received.from.port());
                (meta.len, meta.stride) = (len, len);
                meta.dst_ip = Some(self.told(self.at.ip()));
                count += 1;
            }
            Poll::Ready(Ok(count))
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.told)
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

impl Drop for SimUdp {
    fn drop(&mut self) {
        let held = self.shared.with_datagrams(|udp, ground, _| udp.unbind(ground, self.at));
        drop(held);
    }
}

/// A socket that takes everything at once.
#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
