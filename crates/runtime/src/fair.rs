//! A mailbox with a lane per sender, served by deficit round robin: a turn is one event, and as many turns as its bytes take.
//!
//! ```text
//!  peer 1 --push--> [lane: events, bytes] --+
//!  peer 2 --push--> [lane]                  +--> one at a time, by bytes --> reactor
//!  peer 3 --push--> [lane]  full: parks     +
//!                           that peer only
//! ```
//!
//! A peer that floods fills its own lane and parks itself; the others' waits stay what they were. Senders never
//! wait inside [`Lane::push`]: they get a verdict. An event is taken while the lane is below both of its limits, so a
//! lane can go over its bytes by one event and a large event always passes once the lane is empty.
//!
//! Every lane has a *farewell*: an event that is delivered exactly once, after everything else in the lane, when
//! the [`Lane`] is dropped, whether its holder returned, was cancelled or panicked. It needs no room and cannot
//! be lost, so a reactor always learns that a peer is gone, and after its last event.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use rookery_observe::Metrics;
use rookery_observe::metrics::BoxLabel;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::Clock;

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

/// Bytes a lane may spend per round. As large as a big message, so that one takes few rounds.
const QUANTUM: usize = 32 * 1024;
/// What an event costs besides its bytes, so that a flood of tiny events is not free.
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
    cost: usize,
    since: Instant,
}

struct LaneState<T> {
    queue: VecDeque<Waiting<T>>,
    bytes: usize,
    deficit: usize,
    active: bool,
    farewell: Option<T>,
    dropped: bool,
    room: Option<Waker>,
}

struct State<T> {
    lanes: BTreeMap<u64, LaneState<T>>,
    next: u64,
    /// Lanes with something to deliver, in round-robin order.
    active: VecDeque<u64>,
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
        let state = State { lanes: BTreeMap::new(), next: 0, active: VecDeque::new(), closed: false };
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
    /// Takes the next event by deficit round robin. A lane's turn ends with one event, or when its deficit does not cover
    /// its next one; the deficit is kept for its next turn, and forgotten when the lane is empty. One event and no more,
    /// because what an event costs its reactor does not shrink with its bytes: hundreds of small questions in one turn
    /// would hold up everybody else's.
    fn pop(&mut self, limits: LaneLimits, woken: &mut Option<Waker>) -> Option<(T, Option<Instant>)> {
        loop {
            let number = *self.active.front()?;
            let Some(lane) = self.lanes.get_mut(&number) else {
                self.active.pop_front();
                continue;
            };
            let Some(next) = lane.queue.front() else {
                self.active.pop_front();
                lane.active = false;
                lane.deficit = 0;
                if !lane.dropped {
                    continue;
                }
                let lane = self.lanes.remove(&number)?;
                match lane.farewell {
                    Some(farewell) => return Some((farewell, None)),
                    None => continue,
                }
            };
            if lane.deficit < next.cost {
                lane.deficit += QUANTUM;
            }
            let covered = lane.deficit >= next.cost;
            self.active.rotate_left(1);
            if !covered {
                continue;
            }
            let taken = lane.queue.pop_front()?;
            lane.deficit -= taken.cost;
            lane.bytes -= taken.cost;
            if lane.queue.len() < limits.events && lane.bytes < limits.bytes {
                *woken = lane.room.take();
            }
            return Some((taken.event, Some(taken.since)));
        }
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
            deficit: 0,
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
        let cost = bytes + EVENT_COST;
        lane.bytes += cost;
        lane.queue.push_back(Waiting { event, cost, since });
        if !lane.active {
            lane.active = true;
            state.active.push_back(self.number);
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
                lane.active = true;
                state.active.push_back(self.number);
            }
        }
        let label = BoxLabel { mailbox: self.shared.name };
        self.shared.metrics.mailbox_depth.get_or_create(&label).inc();
        self.shared.arrived.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mailbox<T>(events: usize, bytes: usize) -> FairMailbox<T> {
        FairMailbox::new("test", LaneLimits { events, bytes }, 100, Clock::system(), Arc::default())
    }

    fn drain<T>(mailbox: &mut FairMailbox<T>) -> Vec<T> {
        std::iter::from_fn(|| mailbox.try_recv()).collect()
    }

    #[test]
    fn a_flood_in_one_lane_does_not_delay_the_others() {
        let mut mailbox = mailbox(1000, usize::MAX / 2);
        let opener = mailbox.opener();
        let lanes: Vec<_> = (0..3).map(|n| opener.open((n, usize::MAX)).unwrap()).collect();
        for i in 0..1000 {
            assert_eq!(lanes[0].push((0, i), 1000), Push::Accepted);
        }
        for (number, lane) in lanes.iter().enumerate().skip(1) {
            assert_eq!(lane.push((number, 0), 1000), Push::Accepted);
        }
        let order: Vec<_> = drain(&mut mailbox);
        for lane in 1..3 {
            let place = order.iter().position(|(from, _)| *from == lane).unwrap();
            assert!(place <= 2 * (QUANTUM / 1000 + 1), "lane {lane} waited behind {place} events");
        }
    }

    #[test]
    fn a_turn_is_one_event_and_a_large_one_waits_as_many_turns_as_its_bytes_take() {
        let mut mailbox = mailbox(10_000, usize::MAX / 2);
        let opener = mailbox.opener();
        let (large, small) = (opener.open(0).unwrap(), opener.open(0).unwrap());
        for _ in 0..100 {
            let _ = large.push(100_000, 100_000);
        }
        for _ in 0..10_000 {
            let _ = small.push(1_000, 1_000);
        }
        let taken: Vec<usize> = std::iter::from_fn(|| mailbox.try_recv()).take(2_000).collect();
        let before_the_last_large = taken.iter().rposition(|size| *size == 100_000).unwrap();
        let small = taken[..before_the_last_large].iter().filter(|size| **size == 1_000).count();
        // A large one takes 100,064 bytes of 32 KiB turns: a little over three of the other lane's.
        let ratio = small as f64 / 100.0;
        assert!((2.9..3.2).contains(&ratio), "{ratio}");
    }

    #[test]
    fn a_lane_that_is_refilled_while_it_is_served_holds_up_no_other_for_more_than_one_event() {
        let mut mailbox = mailbox(8, 256 * 1024);
        let opener = mailbox.opener();
        let (flooder, honest) = (opener.open(0).unwrap(), opener.open(0).unwrap());
        let refill = || while matches!(flooder.push(1, 10), Push::Accepted) {};
        refill();
        assert_eq!(mailbox.try_recv(), Some(1));
        for _ in 0..100 {
            refill();
            assert!(matches!(honest.push(2, 10), Push::Accepted));
            let next_two = [mailbox.try_recv(), mailbox.try_recv()];
            assert!(next_two.contains(&Some(2)), "{next_two:?}");
        }
    }

    #[test]
    fn a_full_lane_refuses_then_wakes_its_own_sender() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        #[derive(Default)]
        struct Count(AtomicUsize);
        impl std::task::Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let mut mailbox = mailbox(1, 1000);
        let lane = mailbox.opener().open(99).unwrap();
        assert_eq!(
            lane.push(1, 5000),
            Push::Accepted,
            "one event larger than the lane passes when it is empty"
        );
        assert_eq!(lane.push(2, 1), Push::Full(2));
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        assert!(lane.poll_room(&mut Context::from_waker(&waker)).is_pending());
        assert_eq!(mailbox.try_recv(), Some(1));
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert!(lane.has_room());
        drop(mailbox);
        assert_eq!(lane.push(3, 1), Push::Closed(3));
    }

    #[test]
    fn a_mailbox_that_goes_may_hold_its_own_lanes_and_leaves_no_depth_behind() {
        let metrics: Arc<Metrics> = Arc::default();
        struct Held {
            _lane: Option<Lane<Held>>,
        }
        let own: FairMailbox<Held> =
            FairMailbox::new("own", LaneLimits::PEER, 9, Clock::system(), Arc::clone(&metrics));
        let lane = own.opener().open(Held { _lane: None }).unwrap();
        let inner = own.opener().open(Held { _lane: None }).unwrap();
        inner.set_farewell(Held { _lane: own.opener().open(Held { _lane: None }) });
        assert!(matches!(lane.push(Held { _lane: Some(inner) }, 1), Push::Accepted));
        drop(lane);
        drop(own);
        let depth = metrics.mailbox_depth.get_or_create(&BoxLabel { mailbox: "own" }).get();
        assert_eq!(depth, 0);
    }

    #[test]
    fn lanes_are_bounded_and_their_places_come_back() {
        let mut mailbox: FairMailbox<u8> =
            FairMailbox::new("test", LaneLimits::PEER, 1, Clock::system(), Arc::default());
        let opener = mailbox.opener();
        let lane = opener.open(1).unwrap();
        assert!(opener.open(2).is_none());
        drop(lane);
        assert_eq!(mailbox.try_recv(), Some(1));
        assert!(opener.open(2).is_some());
    }

    proptest! {
        /// Whatever the order of pushes, drops and receives: each lane's events arrive in order, exactly once, and
        /// its farewell once, last.
        #[test]
        fn nothing_is_lost_or_reordered(steps in proptest::collection::vec((0usize..4, 0usize..5, 1usize..90_000), 1..300)) {
            let mut mailbox = mailbox(4, 100_000);
            let opener = mailbox.opener();
            let mut lanes: Vec<_> = (0..4).map(|n| Some(opener.open((n, u32::MAX)).unwrap())).collect();
            let (mut sent, mut got) = (vec![0u32; 4], vec![Vec::new(); 4]);
            for (n, what, bytes) in steps {
                match (what, &lanes[n]) {
                    (0, _) => mailbox.try_recv().into_iter().for_each(|(from, i)| got[from].push(i)),
                    (1, Some(_)) if bytes < 2_000 => lanes[n] = None,
                    (_, Some(lane)) if lane.push((n, sent[n]), bytes) == Push::Accepted => sent[n] += 1,
                    _ => {}
                }
            }
            lanes.clear();
            drain(&mut mailbox).into_iter().for_each(|(from, i)| got[from].push(i));
            for n in 0..4 {
                prop_assert_eq!(&got[n], &(0..sent[n]).chain([u32::MAX]).collect::<Vec<_>>());
            }
        }
    }
}
