//! Time: monotonic instants for deadlines, calendar seconds for protocols.
//!
//! This is the only place that reads the system's clocks. In simulation tokio's clock is paused and advances by
//! itself when nothing can run, and calendar time is a stated start plus the virtual time that has passed, plus the
//! node's own error, so that a node with a wrong clock can be simulated.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

#[derive(Debug, Clone, Copy)]
enum Calendar {
    System,
    Virtual { at_start: u64, skew: i64 },
}

/// A node's clock.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
    calendar: Calendar,
}

impl Clock {
    /// The machine's clocks.
    pub fn system() -> Self {
        Self { start: Self::instant(), calendar: Calendar::System }
    }

    /// Calendar time that begins at `unix` seconds and runs with tokio's clock; `skew` is the node's error in
    /// seconds.
    pub fn simulated(unix: u64, skew: i64) -> Self {
        Self { start: Self::instant(), calendar: Calendar::Virtual { at_start: unix, skew } }
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that reads the monotonic clock")]
    fn instant() -> Instant {
        Instant::now()
    }

    /// Now, for deadlines.
    pub fn now(&self) -> Instant {
        Self::instant()
    }

    /// Time since the node started.
    pub fn elapsed(&self) -> Duration {
        self.now().saturating_duration_since(self.start)
    }

    /// Seconds since 1970, as protocols count them.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the calendar clock")]
    pub fn unix(&self) -> u64 {
        match self.calendar {
            Calendar::System => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
            Calendar::Virtual { at_start, skew } => {
                (at_start + self.elapsed().as_secs()).saturating_add_signed(skew)
            }
        }
    }

    /// Completes `after` from now. For deadlines and periods; never to let something else happen first.
    pub async fn sleep(&self, after: Duration) {
        tokio::time::sleep(after).await;
    }

    /// Completes at `deadline`.
    pub async fn sleep_until(&self, deadline: Instant) {
        tokio::time::sleep_until(deadline).await;
    }

    /// The future's output, or `None` when `within` passes first.
    pub async fn timeout<F: Future>(&self, within: Duration, future: F) -> Option<F::Output> {
        tokio::time::timeout(within, future).await.ok()
    }
}
