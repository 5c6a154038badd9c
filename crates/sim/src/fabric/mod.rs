//! One simulated internet, shared by all nodes of a world. Streams are described here, datagrams on the page of
//! [`datagram`](crate::datagram); both share hosts, links and faults.
//!
//! [`Fabric::host`] gives a host's [`Transport`]: listen and dial, and ordered pipes of bytes between hosts. Below
//! it is one piece of plain state behind one lock and one driver task that sleeps until the next arrival: there is
//! no task or timer per connection. The order of everything is the order of (time, when it was put down).
//!
//! ```text
//! poll_write -> lane (window, bandwidth, latency, jitter) -> agenda -> driver: deliver, wake -> poll_read
//! dial       -> agenda: arrives -> answered or refused (one round trip) -> accept queue (half a trip more)
//! ```
//!
//! # What it models
//!
//! Per direction of a connection: transmission time, flight time with seeded jitter, order kept, a bounded window of
//! bytes in flight and unread together ([`Link`]). What was read gives its room back to the writer at once.
//! An address without a host, and a route that is cut, swallow dials, which ask again every [`DIAL_RETRY`].
//!
//! # Faults
//!
//! | command | what the two ends see |
//! |---|---|
//! | [`reset`](Fabric::reset) | `ConnectionReset` at both, at once; bytes that were not read are lost |
//! | [`half_open`](Fabric::half_open) | nothing, ever: bytes vanish until the window is full, then writes wait; a close is not heard |
//! | [`set_read_rate`](Fabric::set_read_rate) | the host reads each connection at this rate; its peers get back-pressure |
//! | [`set_dials`](Fabric::set_dials) | dials to the host are refused, or never answered |
//! | [`partition`](Fabric::partition) | bytes, endings and dials between groups stall; [`heal`](Fabric::heal) sends them again |
//! | [`down`](Fabric::down) | all connections of the host reset or half-open, dials to it refused or unanswered until [`up`](Fabric::up) |
//!
//! An end that closes in order sends FIN behind its bytes. One that closes with unread input, or gets bytes after
//! it has closed, answers with a reset, as sockets do: the peer reads what had arrived, then `ConnectionReset`.
//!
//! # What it traces
//!
//! As node 0, with the connection's number as the peer. Hosts are numbered from 1 as they become known.
//!
//! | event | kind | len | verdict |
//! |---|---|---|---|
//! | `net_open` | the dialler's host | the acceptor's host | |
//! | `net_bytes`, `net_fin` | 0 from the dialler, 1 from the acceptor | bytes that became readable | |
//! | `net_reset` | the side it came from | 0 | `command`, `closed` or `not_accepted` |
//! | `net_cut`, `net_close` | 0 | 0 | |
//! | `net_dial` (peer: the dial's number) | 0 | 0 | `refused` |
//! | `net_fault` (peer: the host, or 0) | 0 | the rate or the number of groups | which fault |
//!
//! # What it does not model
//!
//! Connections do not compete for a host's bandwidth; acknowledgements take no time; a half-open connection is not
//! reset when its vanished host comes back; idle connections never time out. Instants fall on whole milliseconds,
//! tokio's timer tick: what arrives within one is seen at its end, and the arithmetic underneath does not round.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rookery_base::id::canonical_ip;
use rookery_runtime::{Env, Instant, OnPanic};
use rookery_transport::Transport;
use tokio::sync::Notify;

pub(crate) mod agenda;
mod conn;
pub(crate) mod hosts;
mod lane;
pub(crate) mod link;
mod net;
mod schedule;
mod transport;

pub use agenda::ConnId;
pub use link::{Chance, Link, MTU, SEGMENT, WINDOW};
pub use net::{BACKLOG, DIAL_RETRY};
pub use schedule::{Fault, Mix, Schedule};

use crate::clock::WorldClock;
use crate::datagram::{DatagramCounts, Ground, HostDatagrams, SocketInfo, Udp};
use net::Net;
use transport::HostTransport;

/// What becomes of dials to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dials {
    /// Accepted where somebody listens, refused elsewhere.
    #[default]
    Answer,
    /// Refused after a round trip.
    Refuse,
    /// Never answered.
    BlackHole,
}

impl Dials {
    const fn label(self) -> &'static str {
        match self {
            Self::Answer => "dials_answer",
            Self::Refuse => "dials_refuse",
            Self::BlackHole => "dials_black_hole",
        }
    }
}

/// How a host goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Down {
    /// Its connections are reset and dials to it refused: the process was killed.
    Reset,
    /// Its connections are half-open for good and dials to it unanswered: the power went.
    Silent,
}

impl Down {
    const fn label(self) -> &'static str {
        match self {
            Self::Reset => "down_reset",
            Self::Silent => "down_silent",
        }
    }
}

/// An open connection, as a scenario sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnInfo {
    /// Its number.
    pub id: ConnId,
    /// The end that dialled.
    pub dialler: SocketAddr,
    /// The end that accepted.
    pub acceptor: SocketAddr,
    /// Bytes in flight and unread, sent by the dialler and by the acceptor.
    pub held: [usize; 2],
    /// Whether it is half-open.
    pub cut: bool,
}

#[derive(Debug)]
pub(crate) struct Shared {
    net: Mutex<Net>,
    clock: WorldClock,
    /// Wakes the driver for an event earlier than the one it sleeps for.
    sooner: Notify,
}

impl Shared {
    /// The one way to the state. What is due by now has happened before anybody looks, whichever task runs first at
    /// an instant; tasks are woken after the lock is released.
    fn with<R>(&self, act: impl FnOnce(&mut Net, Instant) -> R) -> R {
        let now = self.clock.now();
        let mut net = self.net.lock().unwrap_or_else(PoisonError::into_inner);
        net.advance(now);
        let result = act(&mut net, now);
        let wakes = net.agenda.take_wakes();
        let sooner = net.agenda.driver_is_late();
        drop(net);
        for waker in wakes {
            waker.wake();
        }
        if sooner {
            self.sooner.notify_one();
        }
        result
    }

    /// The same way, to the datagrams.
    pub(crate) fn with_datagrams<R>(&self, act: impl FnOnce(&mut Udp, &mut Ground<'_>, Instant) -> R) -> R {
        self.with(|net, now| {
            let (udp, mut ground) = net.datagrams();
            act(udp, &mut ground, now)
        })
    }

    async fn drive(&self) {
        loop {
            let until = self.with(|net, _| {
                net.agenda.driver_until = net.agenda.next();
                net.agenda.driver_until
            });
            tokio::select! {
                biased;
                () = self.sooner.notified() => {}
                () = self.clock.sleep_until(until.unwrap_or_else(|| self.clock.now())), if until.is_some() => {}
            }
        }
    }
}

/// A handle to the internet. Cloning gives another handle to the same one.
#[derive(Debug, Clone)]
pub struct Fabric {
    shared: Arc<Shared>,
}

impl Fabric {
    /// A fabric without hosts, driven by a task in `env`'s scope; what happens is traced to `env`'s trace with the
    /// connection's number as the peer. `seed` decides jitter.
    ///
    /// # Panics
    /// Outside a runtime.
    pub fn new(env: &Env, seed: u64) -> Self {
        let shared = Arc::new(Shared {
            net: Mutex::new(Net::new(env.clone(), seed)),
            clock: WorldClock::here(env.clock),
            sooner: Notify::new(),
        });
        let driver = Arc::clone(&shared);
        env.scope.spawn("fabric", OnPanic::StopNode, async move { driver.drive().await });
        Self { shared }
    }

    /// The transport of the host with this address; the host exists from now on.
    pub fn host(&self, ip: IpAddr) -> Arc<dyn Transport> {
        let ip = canonical_ip(ip);
        self.shared.with(|net, _| net.add_host(ip));
        Arc::new(HostTransport { shared: Arc::clone(&self.shared), ip })
    }

    /// The datagram sockets of the host with this address; the host exists from now on.
    pub fn datagrams(&self, ip: IpAddr) -> HostDatagrams {
        let ip = canonical_ip(ip);
        self.shared.with(|net, _| net.add_host(ip));
        HostDatagrams { shared: Arc::clone(&self.shared), ip }
    }

    /// The hosts, in order of address.
    pub fn hosts(&self) -> Vec<IpAddr> {
        self.shared.with(|net, _| net.hosts())
    }

    /// Sets the link between hosts for which nothing else was set. Like the other two, it holds for bytes written
    /// from now on, on open connections too. Loopback takes no time unless a pair says otherwise.
    pub fn set_default_link(&self, link: Link) {
        self.shared.with(|net, _| net.set_default_link(link));
    }

    /// Sets what leaves a host, where no link of a pair was set.
    pub fn set_uplink(&self, from: IpAddr, link: Link) {
        self.shared.with(|net, _| net.set_uplink(from, link));
    }

    /// Sets the link from one host to another, in that direction.
    pub fn set_link(&self, from: IpAddr, to: IpAddr, link: Link) {
        self.shared.with(|net, _| net.set_link(from, to, link));
    }

    /// Sets the receive buffer of the datagram sockets that the host binds from now on: what its kernel grants,
    /// whatever they ask for.
    pub fn set_receive_buffer(&self, ip: IpAddr, bytes: usize) {
        self.shared.with(|net, _| net.set_receive_buffer(ip, bytes));
    }

    /// Sends a datagram whose source is claimed: a host may have that address or not, and nobody needs to be bound.
    pub fn forge(&self, from: SocketAddr, to: SocketAddr, payload: impl Into<Bytes>) {
        let payload = payload.into();
        self.shared.with_datagrams(|udp, ground, now| udp.send(ground, now, from, to, payload));
    }

    /// What became of all datagrams so far.
    pub fn datagram_counts(&self) -> DatagramCounts {
        self.shared.with_datagrams(|udp, _, _| udp.counts())
    }

    /// The datagram sockets that are bound, in order of address.
    pub fn sockets(&self) -> Vec<SocketInfo> {
        self.shared.with_datagrams(|udp, _, _| udp.sockets())
    }

    /// The open connections, oldest first. One is open until both ends have dropped it.
    pub fn connections(&self) -> Vec<ConnInfo> {
        self.shared.with(|net, _| net.connections())
    }

    /// The open connections between two hosts, whichever dialled.
    pub fn between(&self, a: IpAddr, b: IpAddr) -> Vec<ConnId> {
        let (a, b) = (canonical_ip(a), canonical_ip(b));
        let joins = |conn: &ConnInfo| {
            let ends = (conn.dialler.ip(), conn.acceptor.ip());
            ends == (a, b) || ends == (b, a)
        };
        self.connections().into_iter().filter(joins).map(|conn| conn.id).collect()
    }

    /// Resets a connection at both ends. Nothing happens to one that is over or half-open.
    pub fn reset(&self, conn: ConnId) {
        self.shared.with(|net, _| net.reset(conn));
    }

    /// Makes a connection half-open for good.
    pub fn half_open(&self, conn: ConnId) {
        self.shared.with(|net, _| net.cut(conn));
    }

    /// Paces a host's reading to bytes per second on each of its connections; 0 stops it, `None` lifts the limit.
    pub fn set_read_rate(&self, ip: IpAddr, rate: Option<u64>) {
        self.shared.with(|net, _| net.set_read_rate(ip, rate));
    }

    /// Decides what becomes of dials to a host; those under way are concerned when they reach it.
    pub fn set_dials(&self, ip: IpAddr, fate: Dials) {
        self.shared.with(|net, _| net.set_dials(ip, fate));
    }

    /// Parts the hosts into groups that do not reach each other; the hosts that are not named form one more. It
    /// replaces an earlier partition.
    pub fn partition(&self, groups: &[Vec<IpAddr>]) {
        self.shared.with(|net, now| net.partition(now, groups));
    }

    /// Ends the partition.
    pub fn heal(&self) {
        self.partition(&[]);
    }

    /// Takes a host off the net; it cannot dial either. Its listeners stay bound and get nothing until it is [`up`](Self::up) again; a
    /// scenario that means a crash stops the node too, see [`World::crash`](crate::World::crash).
    pub fn down(&self, ip: IpAddr, how: Down) {
        self.shared.with(|net, _| net.down(ip, how));
    }

    /// Brings a host back.
    pub fn up(&self, ip: IpAddr) {
        self.shared.with(|net, now| net.up(now, ip));
    }

    /// Ends every lasting fault: everybody is up, reads and answers, no partition. Half-open connections stay so.
    pub fn calm(&self) {
        self.shared.with(Net::calm);
    }
}
