//! A floor under the congestion window while a handshake is under way, without which some stand still for ever.
//!
//! ```text
//! dialler: key, signature, Finished (five packets with ML-DSA-65) ---> one is lost
//!          first stream bytes, in 1-RTT packets                   ---> cannot be read, so not acknowledged
//!          both count as in flight; losses have shrunk the window to two packets
//!          what was lost is to be sent again, but the window is full of what nobody can acknowledge
//!          a probe timeout probes the space with packets in flight, the 1-RTT one: that fills it further
//! ```
//!
//! Only packets of the space that is stuck would help, and it has none in flight. At a fifth of packets lost every hundredth
//! dial ended so, by its idle deadline. Under the floor there is always room for the handshake's own packets beside what waits
//! for them. It ends with the handshake: as soon as more has been acknowledged than a handshake has.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig};
use quinn_proto::RttEstimator;

/// Bytes in flight that a handshake may always have: a dialler's first flight (2.4 kB), its last (6.3 kB) and, of six probe
/// timeouts, which is the patience of any dial, twelve hellos. No more than a connection may have at its beginning anyhow
/// (RFC 9002, 7.2), for a handshake's length.
const FLOOR: u64 = 14_720;
/// Acknowledged bytes by which a handshake is over: each side's part of one has less.
const HANDSHAKE: u64 = 12_000;

/// Makes quinn's usual controller, with the floor under it.
#[derive(Debug, Default)]
pub(super) struct Floored(Arc<CubicConfig>);

impl ControllerFactory for Floored {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let inner = Arc::clone(&self.0).build(now, current_mtu);
        Box::new(Floor { inner, acknowledged: 0 })
    }
}

/// The window that counts, after so many bytes were acknowledged.
const fn floored(window: u64, acknowledged: u64) -> u64 {
    if acknowledged < HANDSHAKE && window < FLOOR { FLOOR } else { window }
}

struct Floor {
    inner: Box<dyn Controller>,
    acknowledged: u64,
}

impl Controller for Floor {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.acknowledged = self.acknowledged.saturating_add(bytes);
        self.inner.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest: Option<u64>) {
        self.inner.on_end_acks(now, in_flight, app_limited, largest);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, persistent: bool, lost_bytes: u64) {
        self.inner.on_congestion_event(now, sent, persistent, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.inner.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        floored(self.inner.window(), self.acknowledged)
    }

    fn metrics(&self) -> ControllerMetrics {
        self.inner.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self { inner: self.inner.clone_box(), acknowledged: self.acknowledged })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rookery_runtime::Clock;

    #[test]
    fn losses_in_a_handshake_leave_room_for_it_and_later_ones_do_not() {
        let now = Clock::system().now().into_std();
        let mut controller = Arc::new(Floored::default()).build(now, 1200);
        controller.on_congestion_event(now, now, true, 1200);
        assert_eq!((controller.window(), controller.clone_box().window()), (FLOOR, FLOOR));
        let shrunk = controller.metrics().congestion_window;
        assert!(shrunk < 6_300, "less than a dialler's last flight: {shrunk}");
        assert_eq!(floored(shrunk, HANDSHAKE - 1), FLOOR);
        assert_eq!(floored(shrunk, HANDSHAKE), shrunk);
        assert_eq!(floored(2 * FLOOR, 0), 2 * FLOOR);
    }
}
