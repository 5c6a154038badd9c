//! The sockets of all hosts and what flies between them: pure state, behind the fabric's one lock.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use rookery_base::id::canonical_addr;
use rookery_runtime::{Env, Instant};

use super::buffer::{Buffer, RECEIVE_BUFFER, Received};
use super::path::{Fate, Path, on_the_wire};
use super::{DatagramCounts, SocketInfo, Verdict};
use crate::fabric::agenda::{Agenda, FlightId};
use crate::fabric::hosts::{Barrier, Hosts};

/// What the sockets stand on: the rest of the fabric.
pub(crate) struct Ground<'a> {
    pub(crate) hosts: &'a mut Hosts,
    pub(crate) agenda: &'a mut Agenda,
    pub(crate) env: &'a Env,
}

#[derive(Debug)]
struct Socket {
    /// Whether it is one of IPv6, which hears IPv4 too; one of IPv4 hears nothing else.
    v6: bool,
    buffer: Buffer,
    reader: Option<Waker>,
}

#[derive(Debug, Clone)]
struct Flight {
    from: SocketAddr,
    to: SocketAddr,
    bytes: Bytes,
}

/// What flies. Places are used again, so that a long run holds no more memory than its fullest moment.
#[derive(Debug, Default)]
struct Flights {
    places: Vec<Option<Flight>>,
    free: Vec<FlightId>,
}

impl Flights {
    fn put(&mut self, flight: Flight) -> FlightId {
        if let Some(id) = self.free.pop() {
            self.places[id.0 as usize] = Some(flight);
            return id;
        }
        let id = u32::try_from(self.places.len()).expect("fewer than 2^32 datagrams fly at once");
        self.places.push(Some(flight));
        FlightId(id)
    }

    fn take(&mut self, id: FlightId) -> Flight {
        self.free.push(id);
        self.places[id.0 as usize].take().expect("a flight is on the agenda once")
    }

    const fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }
}

/// The datagrams of a fabric.
#[derive(Debug)]
pub(crate) struct Udp {
    seed: u64,
    sockets: BTreeMap<SocketAddr, Socket>,
    paths: BTreeMap<(IpAddr, IpAddr), Path>,
    flights: Flights,
    sent: u64,
    copied: u64,
    ended: BTreeMap<Verdict, u64>,
}

impl Udp {
    pub(crate) const fn new(seed: u64) -> Self {
        Self {
            seed,
            sockets: BTreeMap::new(),
            paths: BTreeMap::new(),
            flights: Flights { places: Vec::new(), free: Vec::new() },
            sent: 0,
            copied: 0,
            ended: BTreeMap::new(),
        }
    }

    // Sockets.

    /// Binds a socket at this host's address and port, and says which and with how large a receive buffer.
    pub(super) fn bind(
        &mut self,
        ground: &mut Ground<'_>,
        ip: IpAddr,
        at: SocketAddr,
    ) -> io::Result<(SocketAddr, usize)> {
        let v6 = at.is_ipv6();
        let asked = canonical_addr(at);
        // Any address of IPv6 stands for all of both kinds, as a dual-stack socket has it.
        let any = asked.ip().is_unspecified() && (v6 || ip.is_ipv4());
        if asked.ip() != ip && !any {
            return Err(io::Error::new(
                io::ErrorKind::AddrNotAvailable,
                format!("host {ip} cannot bind a datagram socket at {at}"),
            ));
        }
        let host = ground.hosts.entry(ip);
        let port = host.udp.take(ip, asked.port())?;
        let limit = host.receive_buffer.unwrap_or(RECEIVE_BUFFER);
        let at = SocketAddr::new(ip, port);
        self.sockets.insert(at, Socket { v6, buffer: Buffer::new(limit), reader: None });
        Ok((at, limit))
    }

    /// Unbinds a socket. What it held goes back to the caller, who drops it outside of the lock.
    pub(super) fn unbind(&mut self, ground: &mut Ground<'_>, at: SocketAddr) -> impl Sized + use<> {
        ground.hosts.entry(at.ip()).udp.give_back(at.port());
        self.sockets.remove(&at)
    }

    pub(super) fn poll_recv(&mut self, at: SocketAddr, cx: &Context<'_>) -> Poll<Received> {
        let socket = self.sockets.get_mut(&at).expect("a socket is bound until it is dropped");
        if let Some(received) = socket.buffer.pop() {
            return Poll::Ready(received);
        }
        if !socket.reader.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            socket.reader = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// The next datagram, for who has polled already.
    pub(super) fn try_recv(&mut self, at: SocketAddr) -> Option<Received> {
        self.sockets.get_mut(&at)?.buffer.pop()
    }

    // Flights.

    pub(crate) fn send(
        &mut self,
        ground: &mut Ground<'_>,
        now: Instant,
        from: SocketAddr,
        to: SocketAddr,
        bytes: Bytes,
    ) {
        let (from, to) = (canonical_addr(from), canonical_addr(to));
        self.sent += 1;
        let link = ground.hosts.link(from.ip(), to.ip());
        let (seed, key) = (self.seed, (from.ip(), to.ip()));
        let path = self.paths.entry(key).or_insert_with(|| Path::new(seed, from.ip(), to.ip(), now));
        let flight = Flight { from, to, bytes };
        match path.send(now, &link, on_the_wire(flight.bytes.len(), to.ip())) {
            Fate::Lost(why) => self.end(ground, &flight, why),
            Fate::Arrives { at, copy } => {
                let copy = copy.map(|at| (at, flight.clone()));
                self.copied += u64::from(copy.is_some());
                for (at, flight) in [Some((at, flight)), copy].into_iter().flatten() {
                    ground.agenda.put_datagram(at, self.flights.put(flight));
                }
            }
        }
    }

    pub(crate) fn arrive(&mut self, ground: &mut Ground<'_>, id: FlightId) {
        let flight = self.flights.take(id);
        let verdict = match ground.hosts.barrier(flight.from.ip(), flight.to.ip()) {
            Some(Barrier::Nowhere) => Verdict::Nowhere,
            Some(Barrier::Down) => Verdict::Down,
            Some(Barrier::Parted) => Verdict::Parted,
            None => self.deliver(ground, &flight),
        };
        self.end(ground, &flight, verdict);
    }

    fn deliver(&mut self, ground: &mut Ground<'_>, flight: &Flight) -> Verdict {
        let Some(socket) = self.sockets.get_mut(&flight.to) else { return Verdict::Nobody };
        if flight.from.is_ipv6() && !socket.v6 {
            return Verdict::Nobody;
        }
        if !socket.buffer.push(Received { from: flight.from, bytes: flight.bytes.clone() }) {
            return Verdict::Overflow;
        }
        ground.agenda.wake(&mut socket.reader);
        Verdict::Delivered
    }

    fn end(&mut self, ground: &Ground<'_>, flight: &Flight, verdict: Verdict) {
        *self.ended.entry(verdict).or_default() += 1;
        let number = |ip| ground.hosts.get(ip).map_or(0, |host| host.number);
        let (from, to) = (number(flight.from.ip()), number(flight.to.ip()));
        ground.env.trace(verdict.event(), from, to as u16, flight.bytes.len() as u64, verdict.label());
    }

    // What scenarios look at.

    pub(crate) fn counts(&self) -> DatagramCounts {
        DatagramCounts {
            sent: self.sent,
            copied: self.copied,
            flying: self.flights.len() as u64,
            ended: self.ended.clone(),
        }
    }

    pub(crate) fn sockets(&self) -> Vec<SocketInfo> {
        let info = |(at, socket): (&SocketAddr, &Socket)| SocketInfo {
            at: *at,
            held: socket.buffer.charged(),
            dropped: socket.buffer.dropped(),
        };
        self.sockets.iter().map(info).collect()
    }
}
