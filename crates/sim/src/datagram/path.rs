//! From one host to another: when a datagram arrives, how often, or why it does not.

use std::hash::Hasher;
use std::net::IpAddr;
use std::time::Duration;

use rookery_runtime::Instant;
use siphasher::sip::SipHasher13;

use super::Verdict;
use crate::fabric::Link;
use crate::fabric::link::draw;

/// IPv4 and UDP in front of the payload.
const IPV4_HEADERS: usize = 20 + 8;
/// IPv6 and UDP in front of the payload.
const IPV6_HEADERS: usize = 40 + 8;

/// A datagram that is held back arrives at least this much later: tokio's timer tick, so that others can pass it.
const HELD_BACK_AT_LEAST: Duration = Duration::from_millis(1);

/// What is drawn for each datagram; one of them more or less does not change the others.
#[derive(Clone, Copy)]
enum Question {
    Loss,
    Jitter,
    HeldBack,
    HowLong,
    Copy,
    CopysJitter,
}

/// Keeps the draws of paths apart from those of connections, which come from the same seed.
const PATHS: u64 = u64::from_le_bytes(*b"datagram");

/// What becomes of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Lost(Verdict),
    Arrives { at: Instant, copy: Option<Instant> },
}

/// One direction between two hosts, shared by all sockets of both.
#[derive(Debug)]
pub(super) struct Path {
    seed: u64,
    sent: u64,
    /// When the transmission of what was sent so far ends.
    wire_free: Instant,
    /// When the last datagram that keeps its place arrives: no later one arrives before.
    last_arrival: Instant,
}

/// Bytes on the wire for a payload to this host.
pub(super) const fn on_the_wire(payload: usize, to: IpAddr) -> usize {
    payload + if to.is_ipv4() { IPV4_HEADERS } else { IPV6_HEADERS }
}

impl Path {
    pub(super) fn new(seed: u64, from: IpAddr, to: IpAddr, now: Instant) -> Self {
        let mut hasher = SipHasher13::new_with_keys(seed, PATHS);
        for ip in [from, to] {
            // One width for both families, so that no two pairs give the same bytes.
            let bits = match ip {
                IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
                IpAddr::V6(v6) => v6.to_bits(),
            };
            hasher.write(&bits.to_le_bytes());
        }
        Self { seed: hasher.finish(), sent: 0, wire_free: now, last_arrival: now }
    }

    /// Sends `bytes`, headers included.
    pub(super) fn send(&mut self, now: Instant, link: &Link, bytes: usize) -> Fate {
        let number = self.sent;
        self.sent += 1;
        let seed = self.seed;
        let ask = |question: Question| draw(seed, question as u64, number);
        if bytes > link.mtu {
            return Fate::Lost(Verdict::TooBig);
        }
        let starts = self.wire_free.max(now);
        let queued = link.transmitted_in(starts - now);
        if queued > 0 && queued + bytes > link.window {
            return Fate::Lost(Verdict::QueueFull);
        }
        self.wire_free = starts + link.transmission(bytes);
        if link.loss.hits(ask(Question::Loss)) {
            return Fate::Lost(Verdict::Lost);
        }
        let lands = self.wire_free + link.flight(ask(Question::Jitter));
        let at = if link.reordering.hits(ask(Question::HeldBack)) {
            // Up to as late again as it would have been: those behind it do not wait.
            lands.max(self.last_arrival) + link.flight(ask(Question::HowLong)).max(HELD_BACK_AT_LEAST)
        } else {
            self.last_arrival = self.last_arrival.max(lands);
            self.last_arrival
        };
        let copy = link.duplication.hits(ask(Question::Copy)).then(|| {
            self.last_arrival =
                self.last_arrival.max(self.wire_free + link.flight(ask(Question::CopysJitter)));
            self.last_arrival
        });
        Fate::Arrives { at, copy }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fabric::Chance;
    use rookery_runtime::Clock;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));
    const LATENCY: Duration = Duration::from_millis(20);

    /// When each of `count` datagrams of 1,000 bytes arrives, all sent at once; `None` for those that do not.
    fn arrivals(link: Link, count: usize, seed: u64) -> Vec<Option<Duration>> {
        let now = Clock::simulated(0, 0).now();
        let mut path = Path::new(seed, A, B, now);
        let arrival = |fate| match fate {
            Fate::Arrives { at, .. } => Some(at - now),
            Fate::Lost(_) => None,
        };
        (0..count).map(|_| arrival(path.send(now, &link, 1000))).collect()
    }

    #[test]
    fn jitter_keeps_the_order_and_reordering_breaks_it() {
        let link = Link::new(LATENCY).with_jitter(LATENCY);
        assert!(arrivals(link, 1000, 1).is_sorted());
        let passed = arrivals(link.with_reordering(Chance::percent(10)), 1000, 1);
        let overtakes = passed.windows(2).filter(|pair| pair[0] > pair[1]).count();
        assert!((60..=140).contains(&overtakes), "{overtakes}");
        assert!(passed.iter().flatten().all(|took| (LATENCY..=4 * LATENCY).contains(took)));
    }

    #[test]
    fn loss_and_duplication_come_as_often_as_they_should_and_repeat_with_the_seed() {
        let link = Link::new(LATENCY).with_loss(Chance::percent(20));
        let first = arrivals(link, 10_000, 1);
        let lost = first.iter().filter(|arrival| arrival.is_none()).count();
        assert!((1900..=2100).contains(&lost), "{lost}");
        assert_eq!(first, arrivals(link, 10_000, 1));
        assert_ne!(first, arrivals(link, 10_000, 2));

        let now = Clock::simulated(0, 0).now();
        let mut path = Path::new(1, A, B, now);
        let link = Link::new(LATENCY).with_duplication(Chance::percent(5));
        let copied = |fate: &Fate| matches!(fate, Fate::Arrives { copy: Some(_), .. });
        let copies = (0..10_000).map(|_| path.send(now, &link, 100)).filter(copied).count();
        assert!((430..=570).contains(&copies), "{copies}");
    }

    #[test]
    fn a_narrow_link_queues_up_to_its_window_and_drops_the_rest() {
        let link = Link::new(LATENCY).with_bandwidth(1_000_000).with_window(10_000);
        let took = arrivals(link, 20, 1);
        let expected = |n: u64| (n < 10).then(|| LATENCY + Duration::from_millis(n + 1));
        assert_eq!(took, (0..20).map(expected).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_larger_than_the_links_unit_does_not_pass() {
        let now = Clock::simulated(0, 0).now();
        let mut path = Path::new(1, A, B, now);
        let link = Link::new(LATENCY).with_mtu(1280);
        assert!(matches!(path.send(now, &link, 1280), Fate::Arrives { .. }));
        assert_eq!(path.send(now, &link, 1281), Fate::Lost(Verdict::TooBig));
        assert_eq!(
            (on_the_wire(1200, A), on_the_wire(1200, std::net::Ipv6Addr::LOCALHOST.into())),
            (1228, 1248)
        );
    }
}
