//! A token bucket on the engine's clock.

use std::time::Duration;

use tokio::time::Instant;

/// Up to `burst` at once, refilled at `per_second`.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    per_second: f64,
    burst: f64,
    tokens: f64,
    refilled: Instant,
}

impl TokenBucket {
    /// A full bucket. A rate of 0 or less never refills.
    pub fn new(per_second: f64, burst: u32, now: Instant) -> Self {
        let burst = f64::from(burst.max(1));
        Self { per_second, burst, tokens: burst, refilled: now }
    }

    /// Takes one token, or says when one will be there.
    pub fn take(&mut self, now: Instant) -> Result<(), Instant> {
        let passed = now.saturating_duration_since(self.refilled).as_secs_f64();
        self.tokens = (self.tokens + passed * self.per_second).min(self.burst);
        self.refilled = self.refilled.max(now);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        // A day stands for "not in this session": a rate of 0 would otherwise overflow.
        let wait = if self.per_second > 0.0 { (1.0 - self.tokens) / self.per_second } else { 86_400.0 };
        Err(now + Duration::from_secs_f64(wait.min(86_400.0)) + Duration::from_millis(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Clock;

    #[test]
    fn a_burst_passes_then_the_rate_and_the_promise_holds() {
        let mut now = Clock::system().now();
        let mut bucket = TokenBucket::new(2.0, 3, now);
        for _ in 0..3 {
            assert!(bucket.take(now).is_ok());
        }
        let ready = bucket.take(now).unwrap_err();
        assert!(ready <= now + Duration::from_millis(502));
        now = ready;
        assert!(bucket.take(now).is_ok());
        assert!(bucket.take(now).is_err());
        let mut never = TokenBucket::new(0.0, 1, now);
        assert!(never.take(now).is_ok());
        assert!(never.take(now).unwrap_err() > now + Duration::from_secs(1000));
    }
}
