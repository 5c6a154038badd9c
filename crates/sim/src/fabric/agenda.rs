//! What is to happen when, in one order for the whole fabric: by time, then by when it was put down.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::task::Waker;

use rookery_runtime::Instant;

use super::conn::Side;

/// A connection's number; never used twice in a fabric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// A dial's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DialId(pub u64);

/// A datagram under way; used again once it has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FlightId(pub u32);

/// Something that happens by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    /// The next segment or ending of what `Side` sent arrives.
    Lane(ConnId, Side),
    /// The paced reader on `Side` may read again.
    Pace(ConnId, Side),
    /// A dial reaches the host it is for.
    DialArrives(DialId),
    /// The host's consent reaches the dialler.
    DialAnswered(DialId),
    /// The host's refusal reaches the dialler.
    DialRefused(DialId),
    /// The dialler's confirmation reaches the host, for the listener of this number.
    Accept(ConnId, u64),
    /// A datagram reaches the host it is for.
    Datagram(FlightId),
}

/// The order of what is to come, and the tasks to wake once the fabric's lock is released.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    heap: BinaryHeap<Reverse<(Instant, u64, Event)>>,
    put_down: u64,
    /// Until when the driver sleeps; an earlier event has to wake it.
    pub driver_until: Option<Instant>,
    wakes: Vec<Waker>,
}

impl Agenda {
    pub(super) fn put(&mut self, at: Instant, event: Event) {
        self.heap.push(Reverse((at, self.put_down, event)));
        self.put_down += 1;
    }

    pub(crate) fn put_datagram(&mut self, arrives: Instant, flight: FlightId) {
        self.put(arrives, Event::Datagram(flight));
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }

    /// The next event that is due by `now`, with the instant for which it was put down.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<(Instant, Event)> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((at, _, event))| (at, event))
    }

    pub(crate) fn wake(&mut self, waker: &mut Option<Waker>) {
        self.wakes.extend(waker.take());
    }

    pub(super) fn take_wakes(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.wakes)
    }

    /// Whether the driver sleeps past the next event.
    pub(super) fn driver_is_late(&self) -> bool {
        match (self.next(), self.driver_until) {
            (Some(next), Some(until)) => next < until,
            (next, None) => next.is_some(),
            (None, _) => false,
        }
    }
}
