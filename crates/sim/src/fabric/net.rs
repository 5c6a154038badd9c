//! The fabric's state: hosts, listeners, dials and connections, and what commands do to them. Pure: time comes in.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rookery_base::id::{canonical_addr, canonical_ip};
use rookery_runtime::{Env, Instant};

use super::agenda::{Agenda, ConnId, DialId, Event};
use super::conn::{Connection, Side};
use super::hosts::{Bound, Host, Hosts};
use super::lane::Ending;
use super::link::{self, Link};
use super::{ConnInfo, Dials, Down};
use crate::datagram::{Ground, Udp};

/// Arrivals that wait for `accept`, those whose confirmation is under way included. The real transport's backlog.
pub const BACKLOG: usize = 1024;
/// A dial that got no answer asks again after this long, as TCP repeats its first packet.
pub const DIAL_RETRY: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Dial {
    from: IpAddr,
    to: SocketAddr,
    /// The listener that holds a place for this dial.
    awaited_by: Option<u64>,
    outcome: Option<Result<ConnId, io::ErrorKind>>,
    waker: Option<Waker>,
}

/// Everything behind the fabric's one lock.
#[derive(Debug)]
pub(super) struct Net {
    pub agenda: Agenda,
    env: Env,
    seed: u64,
    hosts: Hosts,
    conns: BTreeMap<ConnId, Connection>,
    dials: BTreeMap<DialId, Dial>,
    udp: Udp,
    numbers: u64,
}

impl Net {
    pub(super) fn new(env: Env, seed: u64) -> Self {
        Self {
            agenda: Agenda::default(),
            env,
            seed,
            hosts: Hosts::default(),
            conns: BTreeMap::new(),
            dials: BTreeMap::new(),
            udp: Udp::new(seed),
            numbers: 0,
        }
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn note(&self, event: &'static str, conn: ConnId, kind: u16, len: usize, verdict: &'static str) {
        self.env.trace(event, conn.0, kind, len as u64, verdict);
    }

    fn note_fault(&mut self, ip: IpAddr, value: u64, what: &'static str) {
        let number = self.hosts.entry(ip).number;
        self.env.trace("net_fault", number, 0, value, what);
    }

    // Hosts and links.

    pub(super) fn add_host(&mut self, ip: IpAddr) {
        self.hosts.entry(ip);
    }

    /// Applies a change of links to the connections that are open.
    fn relink(&mut self) {
        let mut conns = std::mem::take(&mut self.conns);
        for conn in conns.values_mut() {
            for side in Side::BOTH {
                let link = self.hosts.link(conn.addr(side).ip(), conn.addr(side.other()).ip());
                conn.lane_mut(side).link = link;
            }
        }
        self.conns = conns;
    }

    pub(super) fn set_default_link(&mut self, link: Link) {
        self.hosts.set_default_link(link);
        self.relink();
    }

    pub(super) fn set_link(&mut self, from: IpAddr, to: IpAddr, link: Link) {
        self.hosts.set_link(from, to, link);
        self.relink();
    }

    pub(super) fn set_uplink(&mut self, from: IpAddr, link: Link) {
        self.hosts.entry(from).uplink = Some(link);
        self.relink();
    }

    // Listening.

    pub(super) fn listen(&mut self, ip: IpAddr, at: SocketAddr) -> io::Result<SocketAddr> {
        let at = canonical_addr(at);
        if at.ip() != ip && !at.ip().is_unspecified() {
            return Err(io::Error::new(
                io::ErrorKind::AddrNotAvailable,
                format!("host {ip} cannot listen at {at}"),
            ));
        }
        let port = self.hosts.entry(ip).tcp.take(ip, at.port())?;
        let number = self.number();
        self.hosts.entry(ip).listeners.insert(port, Bound { number, ..Bound::default() });
        Ok(SocketAddr::new(ip, port))
    }

    fn bound(&mut self, at: SocketAddr) -> Option<&mut Bound> {
        self.hosts.get_mut(at.ip())?.listeners.get_mut(&at.port())
    }

    pub(super) fn poll_accept(
        &mut self,
        at: SocketAddr,
        cx: &Context<'_>,
    ) -> Poll<(ConnId, SocketAddr, SocketAddr)> {
        let bound = self.bound(at).expect("a listener is bound until it is dropped");
        let Some(id) = bound.queue.pop_front() else {
            bound.waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        let conn = &self.conns[&id];
        Poll::Ready((id, conn.addr(Side::Acceptor), conn.addr(Side::Dialler)))
    }

    pub(super) fn unlisten(&mut self, now: Instant, at: SocketAddr) {
        let host = self.hosts.entry(at.ip());
        host.tcp.give_back(at.port());
        let queue = host.listeners.remove(&at.port()).map(|bound| bound.queue).unwrap_or_default();
        for id in queue {
            self.turn_away(now, id);
        }
    }

    /// Resets a connection that nobody accepted.
    fn turn_away(&mut self, now: Instant, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(&id)
            && !conn.cut
        {
            conn.reset(&mut self.agenda);
            self.note("net_reset", id, 0, 0, "not_accepted");
        }
        self.drop_half(now, id, Side::Acceptor, Half::Read);
        self.drop_half(now, id, Side::Acceptor, Half::Write);
    }

    // Dialling.

    pub(super) fn dial(&mut self, now: Instant, from: IpAddr, to: SocketAddr) -> io::Result<DialId> {
        let to = canonical_addr(to);
        if self.hosts.entry(from).down.is_some() {
            return Err(io::Error::new(io::ErrorKind::NetworkUnreachable, format!("host {from} is down")));
        }
        let id = DialId(self.number());
        self.dials.insert(id, Dial { from, to, awaited_by: None, outcome: None, waker: None });
        let there = now + self.flight(from, to.ip(), id.0);
        self.agenda.put(there, Event::DialArrives(id));
        Ok(id)
    }

    fn flight(&self, from: IpAddr, to: IpAddr, number: u64) -> Duration {
        // Directions of connections take the low numbers; dials share none of them.
        self.hosts.link(from, to).flight(link::draw(self.seed, u64::MAX, number))
    }

    pub(super) fn poll_dial(
        &mut self,
        id: DialId,
        cx: &Context<'_>,
    ) -> Poll<io::Result<(ConnId, SocketAddr, SocketAddr)>> {
        let dial = self.dials.get_mut(&id).expect("a dial is known until its future is dropped");
        match dial.outcome.take() {
            None => {
                dial.waker = Some(cx.waker().clone());
                Poll::Pending
            }
            Some(Ok(conn)) => {
                let known = &self.conns[&conn];
                Poll::Ready(Ok((conn, known.addr(Side::Dialler), known.addr(Side::Acceptor))))
            }
            Some(Err(kind)) => Poll::Ready(Err(io::Error::new(kind, format!("dial to {}: {kind}", dial.to)))),
        }
    }

    /// Forgets a dial, and closes what it came to if nobody took that.
    pub(super) fn end_dial(&mut self, now: Instant, id: DialId) {
        let Some(dial) = self.dials.remove(&id) else { return };
        self.release_place(dial.to, dial.awaited_by);
        if let Some(Ok(conn)) = dial.outcome {
            self.drop_half(now, conn, Side::Dialler, Half::Read);
            self.drop_half(now, conn, Side::Dialler, Half::Write);
        }
    }

    fn release_place(&mut self, at: SocketAddr, listener: Option<u64>) {
        if let Some(bound) = self.bound(at)
            && Some(bound.number) == listener
        {
            bound.awaited -= 1;
        }
    }

    fn dial_arrives(&mut self, at: Instant, id: DialId) {
        let Some(dial) = self.dials.get(&id) else { return };
        let (from, to) = (dial.from, dial.to);
        let back = at + self.flight(to.ip(), from, id.0);
        let fate = self.hosts.get(to.ip()).map_or(Dials::BlackHole, Host::fate_of_dials);
        if fate == Dials::BlackHole || !self.hosts.reachable(from, to.ip()) {
            self.agenda.put(at + DIAL_RETRY, Event::DialArrives(id));
            return;
        }
        let bound = self.bound(to).filter(|_| fate == Dials::Answer);
        match bound {
            None => self.agenda.put(back, Event::DialRefused(id)),
            Some(bound) if bound.queue.len() + bound.awaited >= BACKLOG => {
                self.agenda.put(at + DIAL_RETRY, Event::DialArrives(id));
            }
            Some(bound) => {
                bound.awaited += 1;
                let number = bound.number;
                self.dials.get_mut(&id).expect("looked up above").awaited_by = Some(number);
                self.agenda.put(back, Event::DialAnswered(id));
            }
        }
    }

    fn dial_refused(&mut self, at: Instant, id: DialId) {
        let Some(dial) = self.dials.get(&id) else { return };
        if !self.hosts.reachable(dial.from, dial.to.ip()) {
            self.agenda.put(at + DIAL_RETRY, Event::DialArrives(id));
            return;
        }
        self.env.trace("net_dial", id.0, 0, 0, "refused");
        self.finish_dial(id, Err(io::ErrorKind::ConnectionRefused));
    }

    fn finish_dial(&mut self, id: DialId, outcome: Result<ConnId, io::ErrorKind>) {
        if let Some(dial) = self.dials.get_mut(&id) {
            dial.outcome = Some(outcome);
            self.agenda.wake(&mut dial.waker);
        }
    }

    fn dial_answered(&mut self, at: Instant, id: DialId) {
        let Some(dial) = self.dials.get_mut(&id) else { return };
        let (from, to) = (dial.from, dial.to);
        if !self.hosts.reachable(from, to.ip()) {
            let listener = self.dials.get_mut(&id).and_then(|dial| dial.awaited_by.take());
            self.release_place(to, listener);
            self.agenda.put(at + DIAL_RETRY, Event::DialArrives(id));
            return;
        }
        let Ok(port) = self.hosts.entry(from).tcp.take(from, 0) else {
            self.finish_dial(id, Err(io::ErrorKind::AddrNotAvailable));
            return;
        };
        // From here the place in the backlog belongs to the connection.
        let listener = self.dials.get_mut(&id).and_then(|dial| dial.awaited_by.take()).unwrap_or_default();
        let conn = ConnId(self.number());
        let links = [self.hosts.link(from, to.ip()), self.hosts.link(to.ip(), from)];
        let addrs = [SocketAddr::new(from, port), to];
        self.conns.insert(conn, Connection::new(conn, addrs, links, self.seed, at));
        let (dialler, acceptor) = (self.hosts.entry(from).number, self.hosts.entry(to.ip()).number);
        self.env.trace("net_open", conn.0, dialler as u16, acceptor, "");
        self.agenda.put(at + self.flight(from, to.ip(), conn.0), Event::Accept(conn, listener));
        self.finish_dial(id, Ok(conn));
    }

    fn accept(&mut self, at: Instant, now: Instant, id: ConnId, listener: u64) {
        let conn = self.conns.get(&id).expect("the acceptor's end stays open until it was offered");
        let (from, to, cut) = (conn.addr(Side::Dialler).ip(), conn.addr(Side::Acceptor), conn.cut);
        if !cut && !self.hosts.reachable(from, to.ip()) {
            self.agenda.put(at + DIAL_RETRY, Event::Accept(id, listener));
            return;
        }
        self.release_place(to, Some(listener));
        let bound = self.bound(to).filter(|bound| bound.number == listener && !cut);
        let Some(bound) = bound else {
            self.turn_away(now, id);
            return;
        };
        bound.queue.push_back(id);
        let mut waker = bound.waker.take();
        self.agenda.wake(&mut waker);
    }

    // Datagrams.

    /// The sockets, and what they stand on.
    pub(super) fn datagrams(&mut self) -> (&mut Udp, Ground<'_>) {
        let Self { udp, hosts, agenda, env, .. } = self;
        (udp, Ground { hosts, agenda, env })
    }

    pub(super) fn set_receive_buffer(&mut self, ip: IpAddr, bytes: usize) {
        self.hosts.entry(ip).receive_buffer = Some(bytes);
        self.note_fault(ip, bytes as u64, "receive_buffer");
    }

    // Reading and writing.

    pub(super) fn poll_read(
        &mut self,
        now: Instant,
        (id, side): (ConnId, Side),
        cx: &Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let conn = self.conns.get_mut(&id).expect("a connection lasts until its halves are dropped");
        let rate = self.hosts.get(conn.addr(side).ip()).and_then(|host| host.read_rate);
        conn.poll_read(now, side, rate, cx, buf, &mut self.agenda)
    }

    pub(super) fn poll_write(
        &mut self,
        now: Instant,
        (id, side): (ConnId, Side),
        cx: &Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let conn = self.conns.get_mut(&id).expect("a connection lasts until its halves are dropped");
        conn.poll_write(now, side, cx, data, &mut self.agenda)
    }

    pub(super) fn finish(&mut self, now: Instant, (id, side): (ConnId, Side)) {
        let conn = self.conns.get_mut(&id).expect("a connection lasts until its halves are dropped");
        conn.finish(now, side, &mut self.agenda);
    }

    pub(super) fn drop_half(&mut self, now: Instant, id: ConnId, side: Side, half: Half) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        match half {
            Half::Read => conn.drop_read(now, side, &mut self.agenda),
            Half::Write => conn.drop_write(now, side, &mut self.agenda),
        }
        if conn.is_over() {
            let dialler = conn.addr(Side::Dialler);
            self.conns.remove(&id);
            self.hosts.entry(dialler.ip()).tcp.give_back(dialler.port());
            self.note("net_close", id, 0, 0, "");
        }
    }

    // Time.

    /// Does everything that is due by `now`.
    pub(super) fn advance(&mut self, now: Instant) {
        while let Some((at, event)) = self.agenda.pop_due(now) {
            match event {
                Event::Lane(id, from) => self.lane_due(at, id, from),
                Event::Pace(id, side) => {
                    if let Some(conn) = self.conns.get_mut(&id) {
                        conn.wake_reader(side, &mut self.agenda);
                    }
                }
                Event::DialArrives(id) => self.dial_arrives(at, id),
                Event::DialAnswered(id) => self.dial_answered(at, id),
                Event::DialRefused(id) => self.dial_refused(at, id),
                Event::Accept(id, listener) => self.accept(at, now, id, listener),
                Event::Datagram(flight) => {
                    let (udp, mut ground) = self.datagrams();
                    udp.arrive(&mut ground, flight);
                }
            }
        }
    }

    fn lane_due(&mut self, at: Instant, id: ConnId, from: Side) {
        let Some(conn) = self.conns.get(&id) else { return };
        if conn.cut || conn.lane(from).due != Some(at) {
            return;
        }
        let reachable = self.hosts.reachable(conn.addr(Side::Dialler).ip(), conn.addr(Side::Acceptor).ip());
        let conn = self.conns.get_mut(&id).expect("looked up above");
        conn.lane_mut(from).due = None;
        if !reachable {
            return; // Stalled; what heals the route sends it again.
        }
        let delivered = conn.deliver(at, from, &mut self.agenda);
        if delivered.bytes > 0 {
            self.note("net_bytes", id, from as u16, delivered.bytes, "");
        }
        match delivered.ending {
            Some(Ending::Fin) => self.note("net_fin", id, from as u16, 0, ""),
            Some(Ending::Reset) => self.note("net_reset", id, from as u16, 0, "closed"),
            None => {}
        }
    }

    // Commands.

    pub(super) fn connections(&self) -> Vec<ConnInfo> {
        let info = |(id, conn): (&ConnId, &Connection)| ConnInfo {
            id: *id,
            dialler: conn.addr(Side::Dialler),
            acceptor: conn.addr(Side::Acceptor),
            held: Side::BOTH.map(|side| conn.lane(side).held()),
            cut: conn.cut,
        };
        self.conns.iter().map(info).collect()
    }

    pub(super) fn reset(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(&id)
            && !conn.cut
        {
            conn.reset(&mut self.agenda);
            self.note("net_reset", id, 0, 0, "command");
        }
    }

    pub(super) fn cut(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(&id)
            && !conn.cut
        {
            conn.cut = true;
            self.note("net_cut", id, 0, 0, "command");
        }
    }

    fn ids_of(&self, ip: IpAddr) -> Vec<ConnId> {
        let ip = canonical_ip(ip);
        let touches = |conn: &Connection| Side::BOTH.iter().any(|side| conn.addr(*side).ip() == ip);
        self.conns.iter().filter(|(_, conn)| touches(conn)).map(|(id, _)| *id).collect()
    }

    pub(super) fn set_read_rate(&mut self, ip: IpAddr, rate: Option<u64>) {
        self.hosts.entry(ip).read_rate = rate;
        self.note_fault(ip, rate.unwrap_or(u64::MAX), "read_rate");
        for id in self.ids_of(ip) {
            let conn = self.conns.get_mut(&id).expect("just listed");
            for side in Side::BOTH {
                conn.wake_reader(side, &mut self.agenda);
            }
        }
    }

    pub(super) fn set_dials(&mut self, ip: IpAddr, fate: Dials) {
        self.hosts.entry(ip).dials = fate;
        self.note_fault(ip, 0, fate.label());
    }

    pub(super) fn partition(&mut self, now: Instant, groups: &[Vec<IpAddr>]) {
        self.env.trace("net_fault", 0, 0, groups.len() as u64, "partition");
        for ip in groups.iter().flatten() {
            self.add_host(*ip);
        }
        self.reroute(now, |hosts| {
            for host in hosts.iter_mut() {
                host.group = 0;
            }
            for (number, group) in groups.iter().enumerate() {
                for ip in group {
                    if let Some(host) = hosts.get_mut(canonical_ip(*ip)) {
                        host.group = number + 1;
                    }
                }
            }
        });
    }

    pub(super) fn down(&mut self, ip: IpAddr, how: Down) {
        self.hosts.entry(ip).down = Some(how);
        self.note_fault(ip, 0, how.label());
        for id in self.ids_of(ip) {
            match how {
                Down::Reset => self.reset(id),
                Down::Silent => self.cut(id),
            }
        }
    }

    pub(super) fn up(&mut self, now: Instant, ip: IpAddr) {
        self.note_fault(ip, 0, "up");
        self.reroute(now, |hosts| {
            if let Some(host) = hosts.get_mut(canonical_ip(ip)) {
                host.down = None;
            }
        });
    }

    pub(super) fn calm(&mut self, now: Instant) {
        self.env.trace("net_fault", 0, 0, 0, "calm");
        let paced = |(ip, host): (IpAddr, &Host)| host.read_rate.map(|_| ip);
        for ip in self.hosts.iter().filter_map(paced).collect::<Vec<_>>() {
            self.set_read_rate(ip, None);
        }
        self.reroute(now, |hosts| {
            for host in hosts.iter_mut() {
                (host.dials, host.down, host.group) = (Dials::Answer, None, 0);
            }
        });
    }

    pub(super) fn hosts(&self) -> Vec<IpAddr> {
        self.hosts.addresses()
    }

    /// Changes who reaches whom, and sends again what stalled between those who reach each other again.
    fn reroute(&mut self, now: Instant, change: impl FnOnce(&mut Hosts)) {
        let ends = |conn: &Connection| (conn.addr(Side::Dialler).ip(), conn.addr(Side::Acceptor).ip());
        let stalled: Vec<ConnId> = self
            .conns
            .iter()
            .filter(|(_, conn)| !conn.cut && !self.hosts.reachable(ends(conn).0, ends(conn).1))
            .map(|(id, _)| *id)
            .collect();
        change(&mut self.hosts);
        for id in stalled {
            let (a, b) = ends(&self.conns[&id]);
            if self.hosts.reachable(a, b) {
                self.conns.get_mut(&id).expect("just listed").retransmit(now, &mut self.agenda);
            }
        }
    }
}

/// One half of an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Half {
    Read,
    Write,
}
