//! The link model: when a byte that is written becomes readable on the other side.
//!
//! ```text
//! write --> transmission (bytes / bandwidth, one segment after the other) --> flight (latency + jitter) --> readable
//! ```
//!
//! Transmission and flight are separate: a second segment leaves while the first one flies. Jitter never reorders:
//! a segment that would overtake the one before it arrives together with it, as TCP delivers it. Datagrams keep
//! their order too, unless the link is told to reorder, lose or copy them.

use std::num::NonZeroU64;
use std::time::Duration;

use siphasher::sip::SipHasher13;
use std::hash::Hasher;

/// Bytes that a direction holds, in flight and unread together, before its writer has to wait. A socket with
/// default buffers holds about as much; what a node must bound by itself shows up beyond it.
pub const WINDOW: usize = 256 * 1024;
/// The largest piece that travels as one. Bigger ones cost less simulation, smaller ones show more partial reads.
pub const SEGMENT: usize = 16 * 1024;
/// The largest packet, headers included: Ethernet's.
pub const MTU: usize = 1500;

/// How often something happens to a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Chance {
    per_million: u32,
}

impl Chance {
    /// Not at all.
    pub const NEVER: Self = Self::per_million(0);

    /// In so many of a hundred cases; more than all are all.
    pub const fn percent(percent: u32) -> Self {
        Self::per_million(percent.saturating_mul(10_000))
    }

    /// In so many of a million cases; more than all are all.
    pub const fn per_million(per_million: u32) -> Self {
        Self { per_million }
    }

    /// Whether it happens with this draw.
    pub(crate) const fn hits(self, draw: u64) -> bool {
        // The high half of draw x 1,000,000: uniform in 0..1,000,000.
        ((draw as u128 * 1_000_000) >> 64) < self.per_million as u128
    }
}

/// One direction between two hosts. Applies to each connection by itself: connections do not compete. The datagrams
/// between two hosts do: they share one wire and one queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Flight time of every byte.
    pub latency: Duration,
    /// At most this much is added to the flight time, uniformly by seed.
    pub jitter: Duration,
    /// Bytes per second; `None` transmits in no time.
    pub bandwidth: Option<NonZeroU64>,
    /// Bytes in flight and unread before a connection's writer waits. Of datagrams, the bytes that queue for
    /// transmission before more are dropped.
    pub window: usize,
    /// The largest piece that arrives as one; at least 1.
    pub segment: usize,
    /// The largest packet, headers included. A larger datagram is dropped without a word.
    pub mtu: usize,
    /// How often a datagram is lost. Streams lose nothing: TCP sends it again.
    pub loss: Chance,
    /// How often a datagram arrives twice.
    pub duplication: Chance,
    /// How often a datagram is held back so that later ones overtake it. Otherwise their order is kept.
    pub reordering: Chance,
}

impl Link {
    /// Within one host: no time at all.
    pub const LOOPBACK: Self = Self::new(Duration::ZERO);

    /// A link of this latency, without jitter or a bandwidth limit.
    pub const fn new(latency: Duration) -> Self {
        Self {
            latency,
            jitter: Duration::ZERO,
            bandwidth: None,
            window: WINDOW,
            segment: SEGMENT,
            mtu: MTU,
            loss: Chance::NEVER,
            duplication: Chance::NEVER,
            reordering: Chance::NEVER,
        }
    }

    /// The same link with jitter.
    #[must_use]
    pub const fn with_jitter(self, jitter: Duration) -> Self {
        Self { jitter, ..self }
    }

    /// The same link with a bandwidth in bytes per second; 0 is no limit.
    #[must_use]
    pub const fn with_bandwidth(self, bytes_per_second: u64) -> Self {
        Self { bandwidth: NonZeroU64::new(bytes_per_second), ..self }
    }

    /// The same link with another window.
    #[must_use]
    pub const fn with_window(self, window: usize) -> Self {
        Self { window, ..self }
    }

    /// The same link cut into pieces of at most this many bytes.
    #[must_use]
    pub const fn with_segment(self, segment: usize) -> Self {
        Self { segment, ..self }
    }

    /// The same link with another largest packet.
    #[must_use]
    pub const fn with_mtu(self, mtu: usize) -> Self {
        Self { mtu, ..self }
    }

    /// The same link that loses datagrams.
    #[must_use]
    pub const fn with_loss(self, loss: Chance) -> Self {
        Self { loss, ..self }
    }

    /// The same link that delivers datagrams twice.
    #[must_use]
    pub const fn with_duplication(self, duplication: Chance) -> Self {
        Self { duplication, ..self }
    }

    /// The same link that lets datagrams overtake others.
    #[must_use]
    pub const fn with_reordering(self, reordering: Chance) -> Self {
        Self { reordering, ..self }
    }

    /// How many bytes leave within this time; none where transmission takes no time.
    pub(crate) fn transmitted_in(&self, time: Duration) -> usize {
        let rate = self.bandwidth.map_or(0, NonZeroU64::get);
        let bytes = u128::from(rate) * time.as_nanos() / 1_000_000_000;
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// How long `bytes` take to leave.
    pub fn transmission(&self, bytes: usize) -> Duration {
        self.bandwidth.map_or(Duration::ZERO, |rate| time_for(bytes as u64, rate))
    }

    /// Flight time with this draw's share of the jitter.
    pub(crate) fn flight(&self, draw: u64) -> Duration {
        let jitter = u64::try_from(self.jitter.as_nanos()).unwrap_or(u64::MAX);
        // The high half of draw x (jitter + 1): uniform in 0..=jitter.
        let share = (u128::from(draw) * (u128::from(jitter) + 1)) >> 64;
        self.latency + Duration::from_nanos(share as u64)
    }
}

impl Default for Link {
    /// A connection within a continent: 25 ms, up to 5 ms of jitter, 4 MiB/s.
    fn default() -> Self {
        Self::new(Duration::from_millis(25)).with_jitter(Duration::from_millis(5)).with_bandwidth(4 << 20)
    }
}

/// The time that `bytes` take at `rate` bytes per second, to the nanosecond.
pub(super) fn time_for(bytes: u64, rate: NonZeroU64) -> Duration {
    let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate.get());
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// Draw `number` of a direction's own sequence. A function of its inputs and no generator: a direction keeps one
/// counter, and traffic elsewhere does not change what it draws.
pub(crate) fn draw(seed: u64, direction: u64, number: u64) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(seed, direction);
    hasher.write(&number.to_le_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transmission_is_bytes_over_bandwidth() {
        let link = Link::new(Duration::ZERO).with_bandwidth(1_000_000);
        assert_eq!(link.transmission(250_000), Duration::from_millis(250));
        assert_eq!(link.transmission(1), Duration::from_micros(1));
        assert_eq!(Link::LOOPBACK.transmission(usize::MAX), Duration::ZERO);
    }

    #[test]
    fn a_chance_covers_its_share_of_all_draws() {
        assert!(
            !Chance::NEVER.hits(0)
                && Chance::percent(100).hits(u64::MAX)
                && Chance::percent(101).hits(u64::MAX)
        );
        assert!(
            Chance::percent(5).hits(u64::MAX / 100 * 5 - 1)
                && !Chance::percent(5).hits(u64::MAX / 100 * 5 + 100)
        );
        assert!(Chance::per_million(1).hits(0) && !Chance::per_million(1).hits(u64::MAX / 1_000_000 + 1));
    }

    #[test]
    fn flight_stays_within_latency_and_jitter_and_reaches_both_ends() {
        let (latency, jitter) = (Duration::from_millis(10), Duration::from_millis(5));
        let link = Link::new(latency).with_jitter(jitter);
        assert_eq!(link.flight(0), latency);
        assert_eq!(link.flight(u64::MAX), latency + jitter);
        let mut seen: Vec<Duration> = (0..200).map(|n| link.flight(draw(1, 2, n))).collect();
        assert!(seen.iter().all(|flight| (latency..=latency + jitter).contains(flight)));
        seen.sort();
        assert!(seen[0] < latency + jitter / 10 && seen[199] > latency + jitter * 9 / 10);
    }
}
