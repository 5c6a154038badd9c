//! A mailbox with a lane per sender, of which the one that has had the least lately is served next.
//!
//! ```text
//!  peer 1 --push--> [lane: events, bytes] --+
//!  peer 2 --push--> [lane]                  +--> one at a time, least served first --> reactor
//!  peer 3 --push--> [lane]  full: parks     +
//!                           that peer only
//! ```
//!
//! The order is that of start-time fair queueing, with credit. An event costs its lane a `TURN`, or its bytes where
//! they are more. Every lane has a mark of what it has been served, and the mailbox has the furthest mark at which it has
//! served anything. An event starts at its lane's mark, or `CREDIT` behind the mailbox's where that is later; the
//! earliest start is served. So lanes that always have something waiting share alike, by turns and by bytes, and a
//! lane that asks for less than that share is before all of them: its event waits for the one under way and for those of
//! others that ask as rarely, and for no flood, however many flood.
//!
//! | somebody | gets |
//! |---|---|
//! | is silent, and then asks for much | its credit, and no more: a lane's room, once |
//! | leaves and comes back, to be new again | no credit; its place is free only when its farewell has had a turn |
//! | took much while nobody else wanted any | no blame: when all is served, all are equal again |
//!
//! No lane waits for ever: at one mark, each of the others is served at most its credit and one event more.
//!
//! A peer that floods fills its own lane and parks itself; the others' waits stay what they were. Senders never
//! wait inside [`Lane::push`]: they get a verdict. An event is taken while the lane is below both of its limits, so a
//! lane can go over its bytes by one event and a large event always passes once the lane is empty.
//!
//! Every lane has a *farewell*: an event that is delivered exactly once, after everything else in the lane, when
//! the [`Lane`] is dropped, whether its holder returned, was cancelled or panicked. It needs no room and cannot
//! be lost, so a reactor always learns that a peer is gone, and after its last event.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::{Arc, PoisonError};
#[cfg(not(loom))]
use std::sync::{Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

#[cfg(loom)]
use loom::sync::{Mutex, MutexGuard};
use rookery_observe::Metrics;
use rookery_observe::metrics::BoxLabel;
#[cfg(not(all(test, loom)))]
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::Clock;
#[cfg(all(test, loom))]
use interleavings::Notify;

/// What one lane holds before it is full.
#[derive(Debug, Clone, Copy)]
pub struct LaneLimits {
    /// Events.
    pub events: usize,
    /// Bytes.
    pub bytes: usize,
}

impl LaneLimits {
    /// 8 events keep a reactor busy across one scheduling delay; 256 KiB of them from each of 200 peers is 50 MiB,
    /// which is what the process is prepared to hold.
    pub const PEER: Self = Self { events: 8, bytes: 256 * 1024 };
}

/// What an event costs its lane at least, in bytes. What it costs its reactor does not shrink with its bytes, and a flood
/// of tiny ones is to be no cheaper than one of questions; 32 KiB is a big message, so that a very big one costs few.
const TURN: usize = 32 * 1024;
/// How far a lane's start may be behind the mailbox's mark: the 8 events that a peer's lane holds. With none, a peer that
/// asks twice in quick succession waits with its second question in line with the flood, and on a service that is busy
/// half of the time the flood costs 1.56 times the 99th percentile instead of 1.23 times; with twice as much, no less.
const CREDIT: u64 = 8 * TURN as u64;
/// What an event takes of its lane's room besides its bytes.
const EVENT_COST: usize = 64;

/// What became of an event.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "an event that found no room is still yours"]
pub enum Push<T> {
    /// It will be delivered.
    Accepted,
    /// The lane is full; the sender keeps it, and waits for [`Lane::poll_room`].
    Full(T),
    /// The mailbox is gone.
    Closed(T),
}

struct Waiting<T> {
    event: T,
    /// What it takes of the lane's room.
    room: usize,
    since: Instant,
}

struct LaneState<T> {
    queue: VecDeque<Waiting<T>>,
    bytes: usize,
    /// The mark up to which it has been served.
    served: u64,
    active: bool,
    farewell: Option<T>,
    dropped: bool,
    room: Option<Waker>,
}

/// A lane's place among those with something to deliver; the smallest is served next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// The mark at which its next event starts.
    start: u64,
    /// It had something waiting already. At one mark, those that ask rarely go before those that always ask: both have
    /// had as much, and there may be many of the latter.
    more: bool,
    /// First come, first served among the rest.
    order: u64,
    lane: u64,
}

struct State<T> {
    lanes: BTreeMap<u64, LaneState<T>>,
    next: u64,
    /// Lanes with something to deliver.
    active: BinaryHeap<Reverse<Place>>,
    /// Places given so far.
    places: u64,
    /// The furthest start of an event that was taken. Marks are bytes, and 64 bits of them are never spent.
    mark: u64,
    /// The furthest that any lane has been served.
    furthest: u64,
    closed: bool,
}

struct Shared<T> {
    name: &'static str,
    limits: LaneLimits,
    most_lanes: usize,
    state: Mutex<State<T>>,
    arrived: Notify,
    clock: Clock,
    metrics: Arc<Metrics>,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // No code that runs under this lock calls out or can panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The receiving end, owned by one reactor.
pub struct FairMailbox<T> {
    shared: Arc<Shared<T>>,
}

/// Opens lanes into a mailbox.
pub struct LaneOpener<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Clone for LaneOpener<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

/// One sender's lane.
pub struct Lane<T> {
    shared: Arc<Shared<T>>,
    number: u64,
}

impl<T> FairMailbox<T> {
    /// An empty mailbox for at most `most_lanes` senders at a time.
    pub fn new(
        name: &'static str,
        limits: LaneLimits,
        most_lanes: usize,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Self {
        let state = State {
            lanes: BTreeMap::new(),
            next: 0,
            active: BinaryHeap::new(),
            places: 0,
            mark: 0,
            furthest: 0,
            closed: false,
        };
        let shared = Shared {
            name,
            limits,
            most_lanes,
            state: Mutex::new(state),
            arrived: Notify::new(),
            clock,
            metrics,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Opens lanes here.
    pub fn opener(&self) -> LaneOpener<T> {
        LaneOpener { shared: Arc::clone(&self.shared) }
    }

    /// The next event. Cancel-safe. Never ends by itself: whoever owns the mailbox also owns its end.
    pub async fn recv(&mut self) -> T {
        loop {
            if let Some(event) = self.try_recv() {
                return event;
            }
            // `notify_one` leaves a permit when nobody waits, so an arrival between the look and this is seen.
            self.shared.arrived.notified().await;
        }
    }

    /// The next event that is there already.
    pub fn try_recv(&mut self) -> Option<T> {
        let mut woken = None;
        let taken = {
            let mut guard = self.shared.lock();
            guard.pop(self.shared.limits, &mut woken)
        };
        if let Some(waker) = woken {
            waker.wake();
        }
        let (event, since) = taken?;
        let label = BoxLabel { mailbox: self.shared.name };
        self.shared.metrics.mailbox_depth.get_or_create(&label).dec();
        if let Some(since) = since {
            let wait = self.shared.clock.now().saturating_duration_since(since);
            self.shared.metrics.mailbox_wait_seconds.get_or_create(&label).observe(wait.as_secs_f64());
        }
        Some(event)
    }

    /// Events that wait, farewells not counted.
    pub fn depth(&self) -> usize {
        self.shared.lock().lanes.values().map(|lane| lane.queue.len()).sum()
    }
}

impl<T> State<T> {
    /// Takes the next event of the lane whose start is earliest.
    fn pop(&mut self, limits: LaneLimits, woken: &mut Option<Waker>) -> Option<(T, Option<Instant>)> {
        loop {
            let Some(Reverse(place)) = self.active.pop() else {
                // All is served, so nobody is behind or ahead: every lane's next start is the same.
                self.mark = self.furthest + CREDIT;
                return None;
            };
            let Some(lane) = self.lanes.get_mut(&place.lane) else { continue };
            self.mark = self.mark.max(place.start);
            let Some(taken) = lane.queue.pop_front() else {
                // Only a lane without a holder has a place and no event: this is its farewell's.
                let lane = self.lanes.remove(&place.lane)?;
                match lane.farewell {
                    Some(farewell) => return Some((farewell, None)),
                    None => continue,
                }
            };
            if lane.queue.is_empty() {
                // Nearly all lanes are idle nearly always, and a queue keeps room for four events from its first one on: with
                // a mailbox for each service that is more than everything else that a session has there.
                lane.queue = VecDeque::new();
            }
            lane.bytes -= taken.room;
            lane.served = place.start + taken.room.max(TURN) as u64;
            self.furthest = self.furthest.max(lane.served);
            lane.active = !lane.queue.is_empty() || lane.dropped;
            if lane.queue.len() < limits.events && lane.bytes < limits.bytes {
                *woken = lane.room.take();
            }
            if lane.active {
                self.place(place.lane, true);
            }
            return Some((taken.event, Some(taken.since)));
        }
    }

    /// Gives a lane that has something to deliver its place.
    fn place(&mut self, number: u64, more: bool) {
        let Some(lane) = self.lanes.get_mut(&number) else { return };
        lane.active = true;
        let place = Place {
            start: self.mark.saturating_sub(CREDIT).max(lane.served),
            more,
            order: self.places,
            lane: number,
        };
        self.places += 1;
        self.active.push(Reverse(place));
    }
}

impl<T> Drop for FairMailbox<T> {
    fn drop(&mut self) {
        let lanes = {
            let mut state = self.shared.lock();
            state.closed = true;
            state.active.clear();
            std::mem::take(&mut state.lanes)
        };
        // Outside the lock: an event may hold a lane of this very mailbox, or wake somebody when it is dropped.
        let label = BoxLabel { mailbox: self.shared.name };
        for lane in lanes.into_values() {
            let counted = lane.queue.len() + usize::from(lane.dropped);
            self.shared.metrics.mailbox_depth.get_or_create(&label).dec_by(counted as i64);
            lane.room.into_iter().for_each(Waker::wake);
        }
    }
}

impl<T> LaneOpener<T> {
    /// A lane, with the event that will be its last. `None` when all lanes are taken or the mailbox is gone.
    pub fn open(&self, farewell: T) -> Option<Lane<T>> {
        let mut state = self.shared.lock();
        if state.closed || state.lanes.len() >= self.shared.most_lanes {
            return None;
        }
        let number = state.next;
        state.next += 1;
        let lane = LaneState {
            queue: VecDeque::new(),
            bytes: 0,
            // Without credit, or there would be no end to those who come back for more of it.
            served: state.mark,
            active: false,
            farewell: Some(farewell),
            dropped: false,
            room: None,
        };
        state.lanes.insert(number, lane);
        drop(state);
        Some(Lane { shared: Arc::clone(&self.shared), number })
    }
}

impl<T> Lane<T> {
    /// Hands an event over, if there is room. `bytes` is what it holds.
    pub fn push(&self, event: T, bytes: usize) -> Push<T> {
        let since = self.shared.clock.now();
        let label = BoxLabel { mailbox: self.shared.name };
        let mut guard = self.shared.lock();
        let state = &mut *guard;
        let Some(lane) = state.lanes.get_mut(&self.number) else { return Push::Closed(event) };
        if !has_room(lane, self.shared.limits) {
            drop(guard);
            self.shared.metrics.mailbox_full.get_or_create(&label).inc();
            return Push::Full(event);
        }
        let room = bytes + EVENT_COST;
        lane.bytes += room;
        lane.queue.push_back(Waiting { event, room, since });
        if !lane.active {
            state.place(self.number, false);
        }
        drop(guard);
        self.shared.metrics.mailbox_depth.get_or_create(&label).inc();
        self.shared.arrived.notify_one();
        Push::Accepted
    }

    /// Ready when the lane has room (or the mailbox is gone); otherwise the task is woken when it has.
    pub fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.shared.lock();
        match state.lanes.get_mut(&self.number) {
            Some(lane) if !has_room(lane, self.shared.limits) => {
                lane.room = Some(cx.waker().clone());
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    /// Whether the lane has room now (or the mailbox is gone).
    pub fn has_room(&self) -> bool {
        let state = self.shared.lock();
        state.lanes.get(&self.number).is_none_or(|lane| has_room(lane, self.shared.limits))
    }

    /// Replaces the lane's last event.
    pub fn set_farewell(&self, farewell: T) {
        let old = match self.shared.lock().lanes.get_mut(&self.number) {
            Some(lane) => lane.farewell.replace(farewell),
            None => Some(farewell),
        };
        // Outside the lock: see the mailbox's own end.
        drop(old);
    }
}

fn has_room<T>(lane: &LaneState<T>, limits: LaneLimits) -> bool {
    lane.queue.len() < limits.events && lane.bytes < limits.bytes
}

impl<T> Drop for Lane<T> {
    fn drop(&mut self) {
        {
            let mut guard = self.shared.lock();
            let state = &mut *guard;
            let Some(lane) = state.lanes.get_mut(&self.number) else { return };
            lane.dropped = true;
            if !lane.active {
                state.place(self.number, true);
            }
        }
        let label = BoxLabel { mailbox: self.shared.name };
        self.shared.metrics.mailbox_depth.get_or_create(&label).inc();
        self.shared.arrived.notify_one();
    }
}

#[cfg(all(test, loom))]
mod interleavings;

#[cfg(all(test, not(loom)))]
mod tests;
