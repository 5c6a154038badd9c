//! Seeded exponential backoff that forgets only after lasting health.
//!
//! A peer that accepts and fails at once would otherwise be redialled in a hot loop: success alone resets nothing,
//! [`Backoff::healthy_for`] long enough does.

use std::time::Duration;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// How waits grow.
#[derive(Debug, Clone, Copy)]
pub struct BackoffConfig {
    /// The first wait.
    pub first: Duration,
    /// The longest wait.
    pub most: Duration,
    /// How long a connection must have been healthy for the next wait to be the first again.
    pub reset_after: Duration,
}

impl BackoffConfig {
    /// For redials: 1 s to 30 s, as quick as a restart takes and slow enough that a dead peer costs nothing;
    /// reset after a healthy minute.
    pub const REDIAL: Self = Self {
        first: Duration::from_secs(1),
        most: Duration::from_secs(30),
        reset_after: Duration::from_secs(60),
    };
}

/// The state of one retried thing.
#[derive(Debug)]
pub struct Backoff {
    config: BackoffConfig,
    failures: u32,
    rng: ChaCha8Rng,
}

impl Backoff {
    /// Starts with the first wait.
    pub const fn new(config: BackoffConfig, rng: ChaCha8Rng) -> Self {
        Self { config, failures: 0, rng }
    }

    /// The next wait: doubles up to the most, with a jitter of a quarter either way so that peers that failed
    /// together do not come back together.
    pub fn next_wait(&mut self) -> Duration {
        let doubled = self.config.first.saturating_mul(1_u32 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        doubled.min(self.config.most).mul_f64(self.rng.random_range(0.75..1.25))
    }

    /// Tells how long the last attempt was healthy: resets only from `reset_after` on.
    pub fn healthy_for(&mut self, time: Duration) {
        if time >= self.config.reset_after {
            self.failures = 0;
        }
    }

    /// Attempts since the last reset.
    pub const fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RngSource;

    #[test]
    fn waits_double_to_the_most_and_reset_only_after_lasting_health() {
        let mut backoff = Backoff::new(BackoffConfig::REDIAL, RngSource::seeded(1, 0).fork("t", 0));
        let waits: Vec<f64> = (0..8).map(|_| backoff.next_wait().as_secs_f64()).collect();
        for (i, wait) in waits.iter().enumerate() {
            let middle = f64::from(1 << i).min(30.0);
            assert!((middle * 0.75..middle * 1.25).contains(wait), "{waits:?}");
        }
        backoff.healthy_for(Duration::from_secs(59));
        assert!(backoff.next_wait() > Duration::from_secs(20), "a short success resets nothing");
        backoff.healthy_for(Duration::from_secs(60));
        assert!(backoff.next_wait() < Duration::from_secs(2));
    }
}
