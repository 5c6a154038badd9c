//! Our time, adjusted by what peers say theirs is.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// Peers whose clocks are counted, the first ones: enough for a median, few enough to be no target later.
const SAMPLES: usize = 200;
/// Fewer say nothing about whose clock is wrong.
const LEAST: usize = 5;
/// A median beyond this means that the network is hostile or our clock is hopeless; neither is cured by following.
const MOST_SECONDS: i64 = 70 * 60;

/// The offsets of peers' clocks, one for each address.
#[derive(Debug, Default)]
pub(super) struct PeerTime {
    offsets: BTreeMap<IpAddr, i64>,
    adjustment: i64,
}

impl PeerTime {
    /// Counts a peer's clock, seconds ahead of ours. As in hsd, the median moves at odd counts from 5 on.
    pub fn add(&mut self, from: IpAddr, offset: i64) {
        if self.offsets.len() >= SAMPLES || self.offsets.contains_key(&from) {
            return;
        }
        self.offsets.insert(from, offset);
        let count = self.offsets.len();
        if count < LEAST || count.is_multiple_of(2) {
            return;
        }
        let mut sorted: Vec<i64> = self.offsets.values().copied().collect();
        sorted.sort_unstable();
        let median = sorted[count / 2];
        self.adjustment = if median.abs() >= MOST_SECONDS { 0 } else { median };
    }

    /// Adjusted seconds since 1970.
    pub fn now(&self, unix: u64) -> u64 {
        unix.saturating_add_signed(self.adjustment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn with(offsets: &[i64]) -> PeerTime {
        let mut time = PeerTime::default();
        for (n, offset) in (0_u32..).zip(offsets) {
            time.add(Ipv4Addr::from(0x0a00_0000 + n).into(), *offset);
        }
        time
    }

    #[test]
    fn five_peers_move_our_time_and_four_do_not() {
        assert_eq!(with(&[100; 4]).now(1000), 1000);
        assert_eq!(with(&[100; 5]).now(1000), 1100);
        assert_eq!(with(&[100, 100, 100, 100, 100, 0]).now(1000), 1100, "even counts leave it as it is");
    }

    #[test]
    fn liars_below_half_do_not_move_it_far_and_an_absurd_median_not_at_all() {
        assert_eq!(with(&[4000, 4000, 1, 2, 3]).now(1000), 1003);
        assert_eq!(with(&[4200; 5]).now(1000), 1000);
        assert_eq!(with(&[-4200; 5]).now(10_000), 10_000);
    }

    #[test]
    fn an_address_counts_once() {
        let mut time = PeerTime::default();
        for _ in 0..10 {
            time.add(Ipv4Addr::LOCALHOST.into(), 50);
        }
        assert_eq!(time.now(0), 0);
    }
}
