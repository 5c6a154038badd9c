//! Flights that have been at the door.
//!
//! A hello with a post-quantum key share fills two datagrams, and quinn forgets all of an arrival that was asked to prove its
//! address or was turned away. So the second datagram of its flight looks like another arrival; but what was to be said to it has been
//! said, and a client heeds no second demand (RFC 9000, 17.2.5.2). It is passed over: in a flood of hellos every other answer,
//! which is what each costs most, is saved.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use quinn::{ConnectionId, Incoming};
use rookery_runtime::Instant;

/// How long after a flight another datagram is still taken for a part of it: less than a client waits before it says a hello again to
/// whom it has not heard. That is a second by RFC 9002, 300 ms with our limits, 200 in the hastiest known. Whoever is hastier,
/// because it remembers the path, and has lost the answer, hears the next one after this time.
const TOGETHER: Duration = Duration::from_millis(100);
/// Flights that are remembered; of more, the oldest are forgotten, which costs an answer each. Five times as many as are asked
/// for proofs in that time in a lasting flood; with both lists 1.3 MB.
const MOST: usize = 8192;

/// Whose datagram it is. Who comes back with a proof begins another flight, for quinn under the name of the first.
type Flight = (ConnectionId, SocketAddr, bool);

/// The flights of the last moment.
#[derive(Default)]
pub(super) struct Flights {
    seen: BTreeSet<Flight>,
    order: VecDeque<(Instant, Flight)>,
}

impl Flights {
    /// Whether this is the first datagram of its flight.
    pub fn begins(&mut self, incoming: &Incoming, now: Instant) -> bool {
        self.is_new(
            (incoming.orig_dst_cid(), incoming.remote_address(), incoming.remote_address_validated()),
            now,
        )
    }

    fn is_new(&mut self, flight: Flight, now: Instant) -> bool {
        while self.order.front().is_some_and(|(since, _)| {
            self.order.len() >= MOST || now.saturating_duration_since(*since) >= TOGETHER
        }) && let Some((_, gone)) = self.order.pop_front()
        {
            self.seen.remove(&gone);
        }
        let new = self.seen.insert(flight);
        if new {
            self.order.push_back((now, flight));
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use rookery_runtime::Clock;

    use super::*;

    fn flight(number: u64, proven: bool) -> Flight {
        (ConnectionId::new(&number.to_be_bytes()), SocketAddr::from(([192, 0, 2, 1], 9)), proven)
    }

    #[test]
    fn a_flight_begins_once_with_a_proof_once_more_and_anew_after_a_while() {
        let start = Clock::system().now();
        let mut flights = Flights::default();
        assert!(flights.is_new(flight(1, false), start));
        assert!(!flights.is_new(flight(1, false), start));
        assert!(flights.is_new(flight(2, false), start), "another connection's");
        assert!(flights.is_new(flight(1, true), start), "it has proven its address");
        assert!(!flights.is_new(flight(1, true), start + TOGETHER / 2));
        assert!(
            flights.is_new(flight(1, false), start + TOGETHER),
            "nothing was heard, and it says it again"
        );
        assert!(!flights.is_new(flight(1, false), start + TOGETHER + TOGETHER / 2));
    }

    #[test]
    fn of_too_many_the_oldest_are_forgotten() {
        let start = Clock::system().now();
        let mut flights = Flights::default();
        for number in 0..3 * MOST as u64 {
            assert!(flights.is_new(flight(number, false), start));
            assert!(flights.seen.len() <= MOST && flights.order.len() == flights.seen.len());
        }
        assert!(!flights.is_new(flight(3 * MOST as u64 - 1, false), start));
        assert!(flights.is_new(flight(0, false), start));
    }
}
