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

/// As many draws as there are questions belong to each datagram.
const QUESTIONS: u64 = 6;

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
        let ask = |question: Question| draw(self.seed, question as u64, number * QUESTIONS);
        if bytes > link.mtu {
            return Fate::Lost(Verdict::TooBig);
        }
        let starts = self.wire_free.max(now);
        if link.transmitted_in(starts - now) + bytes > link.window {
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
            self.last_arrival = self.last_arrival.max(self.wire_free + link.flight(ask(Question::CopysJitter)));
            self.last_arrival
        });
        Fate::Arrives { at, copy }
    }
}
