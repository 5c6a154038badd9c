//! Sockets.
//!
//! A storm of arrivals comes faster than it is read; what the kernel's receive buffer cannot hold is lost, and each lost first
//! datagram costs its sender a wait. So a larger buffer is asked for than the kernel gives by default, what it granted is read
//! back, and a grant that falls short is said together with what an administrator can do. Meanwhile a thread helps
//! to read such a socket, and holds in our memory what the kernel does not: see [`Receiver`].
//!
//! Several sockets on one port (`SO_REUSEPORT`) would have as many buffers, but not one that is read in time: while all cores are
//! busy none of them is, the kernel spreads by address and not by fullness, and a connection that changes its address would need
//! a program in the kernel to find its socket again.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use quinn::{AsyncUdpSocket, Runtime, TokioRuntime};
use socket2::{Domain, Protocol, Socket, Type};

use super::receiver::{Receiver, helped};
use super::ring::RingLimits;

/// Asked for: the first datagrams of a thousand arrivals with post-quantum hellos (two full ones each, which the kernel counts
/// with their own overhead) fit.
const RECEIVE_BUFFER: usize = 4 << 20;

/// A bound socket.
pub struct Bound {
    /// The socket.
    pub socket: Arc<dyn AsyncUdpSocket>,
    /// Bytes that it holds before they are read, where that is known.
    pub receive_buffer: Option<usize>,
    /// What has to run for the socket to receive, if anything has to.
    pub receiver: Option<Receiver>,
}

/// Binds sockets for datagrams.
pub trait Datagrams: Send + Sync + 'static {
    /// Binds a socket. Port 0 takes any free one.
    ///
    /// # Errors
    /// When the address cannot be bound.
    fn bind(&self, at: SocketAddr) -> io::Result<Bound>;
}

/// Who reads a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reader {
    /// The node's runtime, when it comes to it.
    Runtime,
    /// The same, with a thread's help where the kernel grants less than was asked for.
    HelpedIfSmall,
    /// The same, with a thread's help.
    Helped,
}

/// The system's UDP sockets. A socket on all of IPv6 takes IPv4 as well.
#[derive(Debug, Clone, Copy)]
pub struct Udp {
    receive_buffer: Option<usize>,
    reader: Reader,
}

impl Udp {
    /// Sockets that hold a storm: in the kernel's receive buffer as far as it is granted, or else in our own memory.
    pub const LARGE: Self = Self::asking(RECEIVE_BUFFER);
    /// Sockets with the receive buffer that the kernel gives by default, which a thread helps to read: what [`Udp::LARGE`] makes of
    /// them where no more is granted.
    pub const HELPED: Self = Self::AS_THEY_ARE.helped();
    /// Sockets as the kernel makes them.
    pub const AS_THEY_ARE: Self = Self { receive_buffer: None, reader: Reader::Runtime };

    /// Sockets with this many bytes of receive buffer, which a thread helps to read where the kernel grants less.
    pub const fn asking(bytes: usize) -> Self {
        Self { receive_buffer: Some(bytes), reader: Reader::HelpedIfSmall }
    }

    /// The same sockets, each with a thread that helps to read it whatever the kernel grants: for a node that shares its machine
    /// with much else.
    #[must_use]
    pub const fn helped(self) -> Self {
        Self { reader: Reader::Helped, ..self }
    }
}

impl Datagrams for Udp {
    fn bind(&self, at: SocketAddr) -> io::Result<Bound> {
        let socket = Socket::new(Domain::for_address(at), Type::DGRAM, Some(Protocol::UDP))?;
        if at.ip().is_unspecified() && at.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        let asked = self.receive_buffer.unwrap_or(0);
        if asked > 0 {
            // A refusal leaves what there was, and that is read next.
            let _ = socket.set_recv_buffer_size(asked);
        }
        let receive_buffer = socket.recv_buffer_size().ok();
        // Linux shows twice what it grants, for its own overhead.
        let small = asked > 0 && receive_buffer.is_none_or(|granted| granted < asked);
        if small {
            fell_short(asked, receive_buffer);
        }
        socket.bind(&at.into())?;
        let with_help = self.reader == Reader::Helped || (self.reader == Reader::HelpedIfSmall && small);
        if with_help {
            let (socket, receiver) = helped(socket.into(), receive_buffer.unwrap_or(0), RingLimits::DEFAULT)?;
            Ok(Bound { socket, receive_buffer, receiver: Some(receiver) })
        } else {
            let socket = TokioRuntime.wrap_udp_socket(socket.into())?;
            Ok(Bound { socket, receive_buffer, receiver: None })
        }
    }
}

fn fell_short(asked: usize, granted: Option<usize>) {
    tracing::warn!(
        asked,
        granted,
        "the system gives UDP sockets a small receive buffer: a thread will help to read this one, and the largest bursts of arrivals \
         may still lose packets and take longer. On Linux, raise it with: sysctl -w net.core.rmem_max={asked}"
    );
}
