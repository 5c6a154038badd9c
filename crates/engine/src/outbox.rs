//! What a peer is to be sent.
//!
//! The routine and its pipes put messages in; the writer takes them out, the most urgent lane first. Each lane has a
//! cap in messages and in bytes and a verdict when it is full: a full control or answer lane means that the peer
//! does not read and closes it, a full gossip lane drops its oldest message.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rookery_base::{CloseCause, Generation, Kind, PeerFault, PeerFaultKind, Weight};
use rookery_observe::metrics::{LaneLabel, RequestEnd};
use rookery_runtime::{Env, Instant};
use tokio::sync::Notify;

use crate::requests::RequestTable;
use crate::session::PeerStats;
use crate::{Flow, KindTable, LaneName, Ledger, RequestKey, RequestRefused, Role};

/// Caps of a lane: messages, bytes.
///
/// control: pings and short replies, 256 unread ones are minutes of them. answer: 8 full `headers` answers; a peer
/// asks for the next only after it has the last. gossip: announcements are short and soon stale.
const fn caps(lane: LaneName) -> (usize, usize) {
    match lane {
        LaneName::Control => (256, 64 * 1024),
        LaneName::Answer => (64, 8 * 512 * 1024),
        LaneName::Gossip => (512, 1024 * 1024),
    }
}

const LANES: [LaneName; 3] = [LaneName::Control, LaneName::Answer, LaneName::Gossip];

#[derive(Debug, Default)]
struct Lanes {
    queues: [VecDeque<(Kind, Bytes)>; 3],
    bytes: [usize; 3],
    closed: bool,
}

/// The queue between a routine and its writer.
#[derive(Debug, Default)]
pub(crate) struct OutQueue {
    lanes: Mutex<Lanes>,
    filled: Notify,
}

/// What became of a message.
#[derive(Debug, PartialEq, Eq)]
enum Put {
    Queued,
    /// Queued, and this many older ones were dropped.
    Dropped(u64),
    Full,
}

impl OutQueue {
    fn lock(&self) -> MutexGuard<'_, Lanes> {
        // Nothing that runs under this lock can leave it half changed.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, lane: LaneName, kind: Kind, body: Bytes) -> Put {
        let (most, most_bytes) = caps(lane);
        let mut guard = self.lock();
        let lanes = &mut *guard;
        if lanes.closed {
            // The session is ending; what it would still have said does not matter.
            return Put::Queued;
        }
        let (queue, bytes) = (&mut lanes.queues[lane as usize], &mut lanes.bytes[lane as usize]);
        let full = |queue: &VecDeque<_>, bytes: usize| {
            !queue.is_empty() && (queue.len() >= most || bytes + body.len() > most_bytes)
        };
        let mut dropped = 0;
        while full(queue, *bytes) {
            if lane != LaneName::Gossip {
                return Put::Full;
            }
            if let Some((_, oldest)) = queue.pop_front() {
                *bytes -= oldest.len();
                dropped += 1;
            }
        }
        *bytes += body.len();
        queue.push_back((kind, body));
        drop(guard);
        self.filled.notify_one();
        if dropped > 0 { Put::Dropped(dropped) } else { Put::Queued }
    }

    /// Whether a lane that may not overflow is more than half full.
    pub(crate) fn crowded(&self) -> bool {
        let lanes = self.lock();
        [LaneName::Control, LaneName::Answer].into_iter().any(|lane| {
            let (most, most_bytes) = caps(lane);
            lanes.queues[lane as usize].len() > most / 2 || lanes.bytes[lane as usize] > most_bytes / 2
        })
    }

    /// The next message, most urgent lane first; `None` once the queue is closed and empty.
    pub(crate) async fn next(&self) -> Option<(Kind, Bytes)> {
        loop {
            {
                let mut lanes = self.lock();
                if let Some(next) = lanes.pop() {
                    return Some(next);
                }
                if lanes.closed {
                    return None;
                }
            }
            self.filled.notified().await;
        }
    }

    /// The next message that is there already.
    pub(crate) fn try_next(&self) -> Option<(Kind, Bytes)> {
        self.lock().pop()
    }

    /// Takes no more messages; the writer ends once it has written what is there.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_one();
    }
}

impl Lanes {
    fn pop(&mut self) -> Option<(Kind, Bytes)> {
        for lane in LANES {
            if let Some((kind, body)) = self.queues[lane as usize].pop_front() {
                self.bytes[lane as usize] -= body.len();
                return Some((kind, body));
            }
        }
        None
    }
}

/// A pipe's way out: messages, requests, faults, notes. Owned by the peer's routine.
pub struct Outbox {
    pub(crate) queue: Arc<OutQueue>,
    pub(crate) requests: RequestTable,
    pub(crate) ledger: Ledger,
    pub(crate) stats: Arc<PeerStats>,
    pub(crate) generation: Generation,
    /// The service whose pipe has the word.
    pub(crate) service: usize,
    pub(crate) closing: Option<CloseCause>,
    table: KindTable,
    env: Env,
}

impl Outbox {
    pub(crate) fn new(
        env: Env,
        table: KindTable,
        queue: Arc<OutQueue>,
        stats: Arc<PeerStats>,
        generation: Generation,
    ) -> Self {
        Self {
            queue,
            requests: RequestTable::default(),
            ledger: Ledger::default(),
            stats,
            generation,
            service: 0,
            closing: None,
            table,
            env,
        }
    }

    /// An outbox that leads nowhere, to test a pipe with; [`Outbox::sent`] shows what it was given.
    ///
    /// # Panics
    /// When the services do not fit together.
    pub fn detached(env: Env, services: &[Arc<dyn crate::Service>]) -> Self {
        let table = KindTable::build(services).expect("the services fit together");
        Self::new(env, table, Arc::default(), Arc::default(), Generation(1))
    }

    /// Takes the messages that wait, most urgent lane first.
    pub fn sent(&mut self) -> Vec<(Kind, Bytes)> {
        std::iter::from_fn(|| self.queue.try_next()).collect()
    }

    /// Surroundings.
    pub const fn env(&self) -> &Env {
        &self.env
    }

    /// The session's generation.
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// Sends a message on its kind's lane.
    pub fn send(&mut self, kind: Kind, body: impl Into<Bytes>) {
        let _ = self.try_send(kind, body.into());
    }

    fn try_send(&mut self, kind: Kind, body: Bytes) -> Result<(), RequestRefused> {
        let lane = self.table.find(kind).map_or(LaneName::Control, |(_, spec, _)| spec.lane);
        let len = body.len() as u64;
        let put = self.queue.put(lane, kind, body);
        let verdict = match put {
            Put::Queued => "queued",
            Put::Dropped(_) => "dropped_oldest",
            Put::Full => "full",
        };
        self.env.trace("send", self.generation.0, kind.0, len, verdict);
        match put {
            Put::Queued => Ok(()),
            Put::Dropped(count) => {
                let label = LaneLabel { lane: lane.label() };
                self.env.metrics.outbox_dropped.get_or_create(&label).inc_by(count);
                Ok(())
            }
            Put::Full => {
                let detail = format!("does not read: its {} lane is full", lane.label());
                let fault = PeerFault::close(PeerFaultKind::WriteStalled, detail);
                self.close(CloseCause::Fault(fault.into()));
                Err(RequestRefused::OutboxFull)
            }
        }
    }

    /// Sends a request whose answer is awaited `within`. It ends exactly once, in `on_answer`, unless cancelled.
    ///
    /// # Errors
    /// When it may not be opened; then nothing was sent.
    pub fn request(
        &mut self,
        key: RequestKey,
        body: impl Into<Bytes>,
        within: Duration,
    ) -> Result<(), RequestRefused> {
        let most = match self.table.find(key.kind) {
            Some((_, spec, _)) => match spec.role {
                Role::Request(most) => most,
                _ => 0,
            },
            None => 0,
        };
        let now = self.env.clock.now();
        self.requests.open(key, self.service, most, now, within)?;
        self.env.trace("request", self.generation.0, key.kind.0, 0, "open");
        self.count_requests();
        let sent = self.try_send(key.kind, body.into());
        if sent.is_err() {
            self.cancel(&key);
        }
        sent
    }

    /// Ends a request that is no longer wanted. Its answer, should it come, is swallowed once.
    pub fn cancel(&mut self, key: &RequestKey) {
        if self.requests.cancel(key, self.env.clock.now()).is_some() {
            self.ended(key, "cancelled");
        }
    }

    pub(crate) fn ended(&self, key: &RequestKey, end: &'static str) {
        let kind = self.table.find(key.kind).map_or("unknown", |(_, spec, _)| spec.name);
        self.env.metrics.requests.get_or_create(&RequestEnd { kind, end }).inc();
        self.env.trace("request_end", self.generation.0, key.kind.0, 0, end);
        self.count_requests();
    }

    fn count_requests(&self) {
        self.stats.requests.store(self.requests.len() as u32, Relaxed);
    }

    /// Records a peer fault and says what follows from it.
    pub fn fault(&mut self, fault: PeerFault) -> Flow {
        let ends = self.ledger.fault(self.env.clock.unix(), &fault);
        self.stats.score.store(self.ledger.score(), Relaxed);
        self.env.trace("fault", self.generation.0, 0, 0, fault.kind.label());
        if !ends {
            return Flow::Continue;
        }
        let banned = self.ledger.score() >= crate::ledger::BAN_SCORE;
        let weight = if banned { Weight::Ban } else { Weight::Close };
        Flow::Close(CloseCause::Fault(PeerFault { weight, ..fault }.into()))
    }

    /// Writes a fact into the peer's ledger.
    pub fn note(&mut self, what: impl Into<String>) {
        self.ledger.note(self.env.clock.unix(), what);
    }

    /// Keeps a round-trip time for views.
    pub fn rtt(&mut self, rtt: Duration) {
        self.stats.rtt_us.store((rtt.as_micros() as u64).max(1), Relaxed);
    }

    /// Ends the session after the current step.
    pub fn close(&mut self, cause: CloseCause) {
        self.closing.get_or_insert(cause);
    }

    /// Now.
    pub fn now(&self) -> Instant {
        self.env.clock.now()
    }
}

impl Drop for Outbox {
    /// However the routine ends, and even if it never began, its writer learns that nothing more comes.
    fn drop(&mut self) {
        self.queue.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gossip_drops_its_oldest_and_the_other_lanes_say_full() {
        let queue = OutQueue::default();
        let body = Bytes::from(vec![0; 1024]);
        for n in 0..1024 {
            assert_eq!(queue.put(LaneName::Gossip, Kind(n), body.clone()) == Put::Queued, n < 512);
        }
        assert_eq!(queue.try_next().unwrap().0, Kind(512));
        for _ in 0..64 {
            assert_eq!(queue.put(LaneName::Control, Kind(1), body.clone()), Put::Queued);
        }
        assert_eq!(queue.put(LaneName::Control, Kind(1), body), Put::Full);
    }

    #[test]
    fn urgent_lanes_go_first_and_one_large_message_always_fits() {
        let queue = OutQueue::default();
        let large = Bytes::from(vec![0; 9 << 20]);
        assert_eq!(queue.put(LaneName::Answer, Kind(2), large), Put::Queued);
        assert_eq!(queue.put(LaneName::Answer, Kind(2), Bytes::from_static(b"x")), Put::Full);
        assert_eq!(queue.put(LaneName::Control, Kind(1), Bytes::new()), Put::Queued);
        assert_eq!(queue.try_next().unwrap().0, Kind(1));
        assert_eq!(queue.try_next().unwrap().0, Kind(2));
        assert_eq!(queue.try_next(), None);
    }
}
