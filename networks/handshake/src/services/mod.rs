//! What a headers node says to its peers, and what it does with everything they may say.
//!
//! | service | kinds |
//! |---|---|
//! | [`control`] | signs of life, and every kind that a headers node answers briefly or ignores |
//! | [`discovery`] | `getaddr`, `addr` |
//! | [`headers`] | `getheaders`, `headers`, `sendheaders`, `inv` |
//!
//! Between them they declare all thirty kinds of the wire, so that what happens to each is written down in one of
//! the three tables. Kinds that the wire does not know yet are read past by the network.

pub mod control;
pub mod discovery;
pub mod headers;
#[cfg(test)]
pub(crate) mod testing;

use rookery_base::{CloseCause, DecodeError, Kind};
use rookery_engine::{Caps, Flow, KindSpec, LaneName, Outbox, Over, Rate, Role};

use crate::wire::KINDS;

/// The engine's number of a kind.
pub(crate) const fn kind(number: u8) -> Kind {
    Kind(number as u16)
}

/// A kind's declaration, with the codec's own bounds.
pub(crate) const fn spec(number: u8, role: Role, rate: Rate, lane: LaneName) -> KindSpec {
    let info = &KINDS[number as usize];
    KindSpec {
        kind: kind(number),
        name: info.name,
        min: info.min as u32,
        max: info.max_payload() as u32,
        role,
        rate,
        lane,
        needs: Caps::NONE,
    }
}

/// A rate.
pub(crate) const fn rate(per_second: f64, burst: u32, over: Over) -> Rate {
    Rate { per_second, burst, over }
}

/// Bytes that do not decode: the peer's fault, and the end.
pub(crate) fn malformed(what: &'static str, error: &DecodeError, out: &mut Outbox) -> Flow {
    let fault = rookery_base::PeerFault::from(error.clone());
    out.fault(rookery_base::PeerFault { detail: format!("{what}: {error}").into(), ..fault })
}

/// The end of a session through no fault of the peer's.
pub(crate) fn local(detail: &'static str) -> Flow {
    Flow::Close(CloseCause::Fault(rookery_base::LocalFault::new(detail).into()))
}
