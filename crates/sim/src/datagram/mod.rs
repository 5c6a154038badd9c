//! Datagrams between the hosts of a [`Fabric`]: a lossy UDP on which the real quinn runs.
//!
//! [`Fabric::datagrams`] gives a host's sockets. They share hosts, links, partitions, the one lock, the one agenda
//! and the one driver task with the streams: there is no task or timer per socket or datagram, and nothing polls.
//!
//! ```text
//! try_send -> path (MTU, queue, loss, latency, jitter, copy, reordering) -> agenda
//!          -> arrival (host down? parted? somebody there?) -> receive buffer (bytes; what overflows is dropped) -> poll_recv
//! ```
//!
//! # What it models
//!
//! Per direction between two hosts one wire: transmission time with a queue of [`Link::window`] bytes that drops its
//! tail, flight time with seeded jitter, loss, duplication and reordering as the [`Link`] says, packets of at most
//! [`Link::mtu`] bytes with their headers. Order is kept unless the link reorders. What a path does depends on the
//! seed, its two addresses and how much was sent on it, and on no other traffic.
//!
//! Per socket a receive buffer of [`RECEIVE_BUFFER`] bytes, or what [`Fabric::set_receive_buffer`] grants, charged
//! as Linux charges it ([`charge`]). IPv4 and IPv6: a socket bound to an address of IPv6 hears both and is told IPv4
//! addresses mapped; one bound to an address of IPv4 hears IPv4 only. A socket bound to any address says that, and
//! what it receives says to which address it came.
//!
//! Faults are the fabric's: [`partition`](crate::Fabric::partition) and [`down`](crate::Fabric::down), of either
//! kind, swallow what arrives meanwhile. Nothing tells a sender: no ICMP, so what goes to nobody vanishes like what is lost.
//!
//! # What it traces
//!
//! As node 0, when a datagram's way ends. The sender's host is the peer, the receiver's the kind (its low 16 bits),
//! 0 for an address that no host has. Every datagram and every copy of one ends once ([`DatagramCounts`]).
//!
//! | event | len | verdict |
//! |---|---|---|
//! | `net_datagram` | payload | |
//! | `net_datagram_lost` | payload | [`Verdict::label`] |
//!
//! # What it does not model
//!
//! Explicit congestion notification, segmentation offload, fragments, a send buffer, hosts with an address of each
//! family, and that IPv4 and IPv6 do not reach each other.
//!
//! [`Fabric`]: crate::Fabric
//! [`Fabric::datagrams`]: crate::Fabric::datagrams
//! [`Fabric::set_receive_buffer`]: crate::Fabric::set_receive_buffer
//! [`Link`]: crate::Link
//! [`Link::window`]: crate::Link::window
//! [`Link::mtu`]: crate::Link::mtu

use std::collections::BTreeMap;
use std::net::SocketAddr;

mod buffer;
mod path;
mod socket;
mod state;

pub use buffer::{RECEIVE_BUFFER, charge};
pub use socket::{HostDatagrams, SimUdp};
pub(crate) use state::{Ground, Udp};

/// How a datagram's way ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// It was put into a socket's receive buffer.
    Delivered,
    /// The link lost it.
    Lost,
    /// Too many bytes waited for transmission.
    QueueFull,
    /// It was larger than the link's largest packet.
    TooBig,
    /// No host has the address.
    Nowhere,
    /// The sending or the receiving host was down.
    Down,
    /// A partition stood between them.
    Parted,
    /// No socket is bound there, or one that does not hear this family.
    Nobody,
    /// The socket's receive buffer was full.
    Overflow,
}

impl Verdict {
    /// As the trace has it; nothing for a delivery.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Delivered => "",
            Self::Lost => "lost",
            Self::QueueFull => "queue_full",
            Self::TooBig => "too_big",
            Self::Nowhere => "nowhere",
            Self::Down => "down",
            Self::Parted => "parted",
            Self::Nobody => "nobody",
            Self::Overflow => "overflow",
        }
    }

    const fn event(self) -> &'static str {
        match self {
            Self::Delivered => "net_datagram",
            _ => "net_datagram_lost",
        }
    }
}

/// What became of all datagrams. At every moment `sent + copied` is `flying` and all of `ended`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DatagramCounts {
    /// Sent by sockets or forged.
    pub sent: u64,
    /// Copies that links made.
    pub copied: u64,
    /// Under way.
    pub flying: u64,
    /// How the others' ways ended.
    pub ended: BTreeMap<Verdict, u64>,
}

impl DatagramCounts {
    /// How many ended so.
    pub fn of(&self, verdict: Verdict) -> u64 {
        self.ended.get(&verdict).copied().unwrap_or(0)
    }
}

/// A bound socket, as a scenario sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketInfo {
    /// Its address, canonical.
    pub at: SocketAddr,
    /// Bytes of its receive buffer that are in use, as charged.
    pub held: usize,
    /// Datagrams that its receive buffer had no room for.
    pub dropped: u64,
}
