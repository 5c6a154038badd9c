//! A connection: two ends and a lane each way, as pure state. Time comes in, wake-ups and arrivals go to the agenda.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::task::{Context, Poll};

use rookery_runtime::Instant;
use tokio::io::ReadBuf;

use super::agenda::{Agenda, ConnId, Event};
use super::lane::{Delivered, Ending, Lane};
use super::link::Link;

/// The end that dialled, or the one that accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    Dialler = 0,
    Acceptor = 1,
}

impl Side {
    pub(super) const BOTH: [Self; 2] = [Self::Dialler, Self::Acceptor];

    pub(super) const fn other(self) -> Self {
        match self {
            Self::Dialler => Self::Acceptor,
            Self::Acceptor => Self::Dialler,
        }
    }
}

/// A paced reader takes at most what its rate gives in a tenth of a second at once.
const PACE_SHARE: u64 = 10;

#[derive(Debug)]
struct End {
    addr: SocketAddr,
    read_open: bool,
    write_open: bool,
    reset: bool,
}

impl End {
    const fn is_closed(&self) -> bool {
        !self.read_open && !self.write_open
    }
}

#[derive(Debug)]
pub(super) struct Connection {
    id: ConnId,
    ends: [End; 2],
    /// What each side sends.
    lanes: [Lane; 2],
    /// Half-open: nothing passes and nobody is told, for ever.
    pub cut: bool,
}

fn reset_error() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "connection reset by the simulated network")
}

impl Connection {
    pub(super) fn new(id: ConnId, addrs: [SocketAddr; 2], links: [Link; 2], seed: u64, now: Instant) -> Self {
        let end = |addr| End { addr, read_open: true, write_open: true, reset: false };
        let lane = |side: Side| Lane::new(links[side as usize], seed, id.0 * 2 + side as u64, now);
        Self { id, ends: addrs.map(end), lanes: Side::BOTH.map(lane), cut: false }
    }

    pub(super) const fn addr(&self, side: Side) -> SocketAddr {
        self.ends[side as usize].addr
    }

    pub(super) const fn lane(&self, from: Side) -> &Lane {
        &self.lanes[from as usize]
    }

    pub(super) const fn lane_mut(&mut self, from: Side) -> &mut Lane {
        &mut self.lanes[from as usize]
    }

    /// Whether every half at both ends was dropped.
    pub(super) fn is_over(&self) -> bool {
        self.ends.iter().all(End::is_closed)
    }

    /// Brings the agenda in line with the lane's next arrival.
    pub(super) fn schedule(&mut self, from: Side, agenda: &mut Agenda) {
        let lane = &mut self.lanes[from as usize];
        let next = lane.next_arrival();
        if lane.due != next {
            lane.due = next;
            if let Some(at) = next {
                agenda.put(at, Event::Lane(self.id, from));
            }
        }
    }

    /// `rate` paces the reader: bytes per second, 0 for one that does not read at all.
    pub(super) fn poll_read(
        &mut self,
        now: Instant,
        side: Side,
        rate: Option<u64>,
        cx: &Context<'_>,
        buf: &mut ReadBuf<'_>,
        agenda: &mut Agenda,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let reset = self.ends[side as usize].reset;
        let from = side.other();
        let lane = &mut self.lanes[from as usize];
        let mut limit = usize::MAX;
        if let Some(rate) = rate {
            let Some(rate) = NonZeroU64::new(rate) else {
                lane.reader = Some(cx.waker().clone());
                return Poll::Pending;
            };
            if let Some(until) = lane.paced_until(now) {
                lane.reader = Some(cx.waker().clone());
                if lane.pace_due != Some(until) {
                    lane.pace_due = Some(until);
                    agenda.put(until, Event::Pace(self.id, side));
                }
                return Poll::Pending;
            }
            limit = usize::try_from(rate.get() / PACE_SHARE).unwrap_or(usize::MAX).max(1);
            let bytes = buf.remaining().min(limit).min(lane.unread());
            lane.pace(now, bytes, rate);
        }
        if lane.read(buf, limit) > 0 {
            if lane.worth_writing() {
                agenda.wake(&mut lane.writer);
            }
            return Poll::Ready(Ok(()));
        }
        if reset {
            return Poll::Ready(Err(reset_error()));
        }
        if lane.received() == Some(Ending::Fin) {
            return Poll::Ready(Ok(()));
        }
        lane.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    pub(super) fn poll_write(
        &mut self,
        now: Instant,
        side: Side,
        cx: &Context<'_>,
        data: &[u8],
        agenda: &mut Agenda,
    ) -> Poll<io::Result<usize>> {
        if self.ends[side as usize].reset {
            return Poll::Ready(Err(reset_error()));
        }
        let lane = &mut self.lanes[side as usize];
        if lane.sent().is_some() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::BrokenPipe, "written after shutdown")));
        }
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let taken = lane.send(now, data);
        if taken == 0 {
            lane.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        self.schedule(side, agenda);
        Poll::Ready(Ok(taken))
    }

    /// Says that nothing more comes from `side`.
    pub(super) fn finish(&mut self, now: Instant, side: Side, agenda: &mut Agenda) {
        self.end(now, side, Ending::Fin, agenda);
    }

    fn end(&mut self, now: Instant, side: Side, ending: Ending, agenda: &mut Agenda) {
        if !self.ends[side as usize].reset {
            self.lanes[side as usize].end(now, ending);
            self.schedule(side, agenda);
        }
    }

    pub(super) fn drop_read(&mut self, now: Instant, side: Side, agenda: &mut Agenda) {
        self.ends[side as usize].read_open = false;
        self.lanes[side.other() as usize].reader = None;
        self.settle(now, side, agenda);
    }

    pub(super) fn drop_write(&mut self, now: Instant, side: Side, agenda: &mut Agenda) {
        self.ends[side as usize].write_open = false;
        self.lanes[side as usize].writer = None;
        self.finish(now, side, agenda);
        self.settle(now, side, agenda);
    }

    /// An end that closes with unread input answers with a reset, as sockets do.
    fn settle(&mut self, now: Instant, side: Side, agenda: &mut Agenda) {
        if self.ends[side as usize].is_closed() {
            let unread = self.lanes[side.other() as usize].unread();
            if unread > 0 {
                self.lanes[side.other() as usize].discard();
                self.end(now, side, Ending::Reset, agenda);
            }
        }
    }

    /// What `from` sent and has arrived by `at` reaches the other end.
    pub(super) fn deliver(&mut self, at: Instant, from: Side, agenda: &mut Agenda) -> Delivered {
        let to = from.other();
        let delivered = self.lanes[from as usize].deliver(at);
        if self.ends[to as usize].is_closed() {
            self.lanes[from as usize].discard();
            if delivered.bytes > 0 {
                self.end(at, to, Ending::Reset, agenda);
            }
        } else {
            if delivered.ending == Some(Ending::Reset) {
                self.ends[to as usize].reset = true;
                self.lanes[to as usize].kill();
                agenda.wake(&mut self.lanes[to as usize].writer);
            }
            agenda.wake(&mut self.lanes[from as usize].reader);
        }
        self.schedule(from, agenda);
        delivered
    }

    /// Ends the connection at both sides at once; what was not read is lost.
    pub(super) fn reset(&mut self, agenda: &mut Agenda) {
        for side in Side::BOTH {
            self.ends[side as usize].reset = true;
            let lane = &mut self.lanes[side as usize];
            lane.kill();
            lane.due = None;
            agenda.wake(&mut lane.reader);
            agenda.wake(&mut lane.writer);
        }
    }

    /// Sends again what a stalled route kept.
    pub(super) fn retransmit(&mut self, now: Instant, agenda: &mut Agenda) {
        for side in Side::BOTH {
            self.lanes[side as usize].retransmit(now);
            self.schedule(side, agenda);
        }
    }

    /// Lets a reader look again: its host's pace has changed.
    pub(super) fn wake_reader(&mut self, side: Side, agenda: &mut Agenda) {
        agenda.wake(&mut self.lanes[side.other() as usize].reader);
    }
}
