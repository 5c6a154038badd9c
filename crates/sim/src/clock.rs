//! The world's time, readable from anywhere.
//!
//! A paused clock belongs to its runtime: read outside of it, tokio's clock is the machine's. Scenarios command the
//! fabric before the run begins, and connections are dropped after it has ended, so the fabric and the auditor read
//! the time through this.

use std::time::Duration;

use rookery_runtime::{Clock, Instant};
use tokio::runtime::Handle;

/// A clock together with the runtime whose time it tells.
#[derive(Debug, Clone)]
pub(crate) struct WorldClock {
    clock: Clock,
    runtime: Handle,
}

impl WorldClock {
    /// `clock` in the runtime in which this is called.
    pub(crate) fn here(clock: Clock) -> Self {
        Self { clock, runtime: Handle::current() }
    }

    pub(crate) fn now(&self) -> Instant {
        let _entered = self.runtime.enter();
        self.clock.now()
    }

    pub(crate) fn elapsed(&self) -> Duration {
        let _entered = self.runtime.enter();
        self.clock.elapsed()
    }

    pub(crate) async fn sleep_until(&self, deadline: Instant) {
        self.clock.sleep_until(deadline).await;
    }
}
