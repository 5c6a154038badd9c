//! Sockets.
//!
//! A storm of arrivals comes faster than it is read; what the kernel's receive buffer cannot hold is lost, and each lost first
//! datagram costs its sender a wait. So a larger buffer is asked for than the kernel gives by default, what it granted is read
//! back, and a grant that falls short is said together with what an administrator can do.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use quinn::{AsyncUdpSocket, Runtime, TokioRuntime};
use socket2::{Domain, Protocol, Socket, Type};

/// Asked for: the first datagrams of a thousand arrivals with post-quantum hellos (two full ones each, which the kernel counts
/// with their own overhead) fit.
const RECEIVE_BUFFER: usize = 4 << 20;

/// A bound socket.
pub struct Bound {
    /// The socket.
    pub socket: Arc<dyn AsyncUdpSocket>,
    /// Bytes that it holds before they are read, where that is known.
    pub receive_buffer: Option<usize>,
}

/// Binds sockets for datagrams.
pub trait Datagrams: Send + Sync + 'static {
    /// Binds a socket. Port 0 takes any free one.
    ///
    /// # Errors
    /// When the address cannot be bound.
    fn bind(&self, at: SocketAddr) -> io::Result<Bound>;
}

/// The system's UDP sockets. A socket on all of IPv6 takes IPv4 as well.
#[derive(Debug, Clone, Copy)]
pub struct Udp {
    receive_buffer: Option<usize>,
}

impl Udp {
    /// Sockets with a receive buffer that holds a storm, as far as the kernel grants it.
    pub const LARGE: Self = Self { receive_buffer: Some(RECEIVE_BUFFER) };
    /// Sockets as the kernel makes them.
    pub const AS_THEY_ARE: Self = Self { receive_buffer: None };
}

impl Datagrams for Udp {
    fn bind(&self, at: SocketAddr) -> io::Result<Bound> {
        let socket = Socket::new(Domain::for_address(at), Type::DGRAM, Some(Protocol::UDP))?;
        if at.ip().is_unspecified() && at.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        let granted = self.receive_buffer.map(|asked| ask(&socket, asked));
        socket.bind(&at.into())?;
        let receive_buffer = granted.or_else(|| socket.recv_buffer_size().ok());
        Ok(Bound { socket: TokioRuntime.wrap_udp_socket(socket.into())?, receive_buffer })
    }
}

/// Asks for a receive buffer and reads back what there is. Linux shows twice what it grants, for its own overhead.
fn ask(socket: &Socket, asked: usize) -> usize {
    // A refusal leaves what there was, and that is read next.
    let _ = socket.set_recv_buffer_size(asked);
    let granted = socket.recv_buffer_size().unwrap_or(0);
    if granted < asked {
        tracing::warn!(
            asked,
            granted,
            "the system gives UDP sockets a small receive buffer: bursts of arrivals will lose packets and take longer. On \
             Linux, raise it with: sysctl -w net.core.rmem_max={asked}"
        );
    }
    granted
}
