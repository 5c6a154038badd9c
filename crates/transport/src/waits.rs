//! Who keeps whom waiting in a handshake.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::time::Duration;

use rookery_runtime::Instant;

/// How long the other side has had us wait in its handshake, as far as its transport knows: from the end of one of our steps to the
/// beginning of our work on the next. What waits for a turn to compute does not count; what is still under way in the network,
/// unread, or in the runtime's queue does. One writes, others may look. Cloning gives another handle.
#[derive(Debug, Clone)]
pub struct Waits(Arc<Kept>);

#[derive(Debug)]
struct Kept {
    began: Instant,
    /// Of waits that are over, in microseconds.
    over: AtomicU64,
    /// When the one that is not over began, in microseconds after `began`.
    since: AtomicU64,
}

/// None is under way.
const NONE: u64 = u64::MAX;

impl Waits {
    /// Has not waited yet.
    pub fn new(began: Instant) -> Self {
        Self(Arc::new(Kept { began, over: AtomicU64::new(0), since: AtomicU64::new(NONE) }))
    }

    /// It is the other side's turn, from now on.
    pub fn begin(&self, now: Instant) {
        // Whoever is waited for already has been since then.
        let _ = self.0.since.compare_exchange(NONE, self.at(now), Relaxed, Relaxed);
    }

    /// It is ours again.
    pub fn end(&self, now: Instant) {
        let since = self.0.since.swap(NONE, Relaxed);
        if since != NONE {
            self.0.over.fetch_add(self.at(now).saturating_sub(since), Release);
        }
    }

    /// All waits together. One that ends meanwhile may be missing from it.
    pub fn total(&self, now: Instant) -> Duration {
        let (over, since) = (self.0.over.load(Acquire), self.0.since.load(Relaxed));
        let under_way = if since == NONE { 0 } else { self.at(now).saturating_sub(since) };
        Duration::from_micros(over + under_way)
    }

    /// Never [`NONE`]: that is half a million years.
    fn at(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.0.began).as_micros() as u64
    }
}

#[cfg(test)]
mod tests {
    use rookery_runtime::Clock;

    use super::*;

    #[test]
    fn only_the_other_sides_turns_count() {
        let start = Clock::system().now();
        let waits = Waits::new(start);
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(waits.total(at(10)), Duration::ZERO, "our turn");
        waits.end(at(10));
        waits.begin(at(20));
        waits.begin(at(30));
        assert_eq!(waits.total(at(50)).as_millis(), 30);
        waits.end(at(50));
        assert_eq!(waits.total(at(500)).as_millis(), 30);
        waits.begin(at(500));
        assert_eq!(waits.total(at(510)).as_millis(), 40);
        assert_eq!(waits.total(at(400)).as_millis(), 30, "a look from before");
    }
}
