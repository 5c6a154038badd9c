//! What the tests of services share. A pipe is a pure thing: frames and commands go in, an outbox and a lane show what
//! came of them.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use rookery_base::{Charge, CloseCause, Direction, Fault, Frame, Generation, Kind, PeerFault, PeerId};
use rookery_engine::kinds::{Guard, Verdict};
use rookery_engine::{
    Caps, Flow, Head, KindSpec, KindTable, Outbox, Over, PeerFacts, PeerHandle, Pipe, Role, Service,
    UnknownKind,
};
use rookery_observe::Trace;
use rookery_runtime::{Env, FairMailbox, Instant, LaneLimits};

use super::{discovery, gossip, messages, ping};
use crate::wire::frame::HEAD_LEN;

pub const UNIX: u64 = 1_800_000_000;

pub fn env() -> Env {
    Env::simulated(1, 0, UNIX, 0, Trace::off())
}

pub fn mailbox<T>(env: &Env) -> FairMailbox<T> {
    FairMailbox::new("test", LaneLimits::PEER, 64, env.clock, Arc::clone(&env.metrics))
}

struct Kinds(&'static str, &'static [KindSpec]);

impl Service for Kinds {
    fn name(&self) -> &'static str {
        self.0
    }

    fn kinds(&self) -> &[KindSpec] {
        self.1
    }

    fn pipe(&self, _facts: &PeerFacts, _handle: PeerHandle) -> Box<dyn Pipe> {
        unreachable!("only the kinds are looked at")
    }
}

/// The kinds of all services, as the network declares them.
pub fn kinds() -> Vec<Arc<dyn Service>> {
    vec![
        Arc::new(Kinds("ping", &ping::SPECS)),
        Arc::new(Kinds("messages", &messages::SPECS)),
        Arc::new(Kinds("gossip", &gossip::SPECS)),
        Arc::new(Kinds("discovery", &discovery::SPECS)),
    ]
}

pub fn outbox(env: &Env) -> Outbox {
    Outbox::detached(env.clone(), &kinds())
}

/// A guard that has seen nothing yet. Its time stands still.
pub struct Gate(Guard, Instant);

impl Gate {
    pub fn new(env: &Env) -> Self {
        let table = KindTable::build(&kinds()).unwrap();
        Self(Guard::new(table, Caps::NONE, vec![true; 4]), env.clock.now())
    }

    /// What it says of a head, when its request is `open` or not.
    pub fn check(&mut self, kind: Kind, body_len: usize, open: bool) -> Verdict {
        let head = Head { kind, head_len: HEAD_LEN, body_len };
        self.0.check(&head, self.1, |_| open, |_| UnknownKind::Refuse)
    }
}

pub fn addr() -> SocketAddr {
    "1.2.3.4:7000".parse().unwrap()
}

pub fn peer(n: u8) -> PeerId {
    PeerId::from_bytes(&[n; 32]).unwrap()
}

pub fn facts(direction: Direction) -> PeerFacts {
    PeerFacts::of(peer(1), addr(), direction)
}

pub fn handle() -> PeerHandle {
    PeerHandle::detached(Generation(9), addr(), Direction::Inbound)
}

pub fn frame(kind: Kind, body: impl Into<Bytes>) -> Frame {
    Frame::new(kind, body.into(), Charge::none())
}

/// The fault that a flow ends with.
#[track_caller]
pub fn fault(flow: Flow) -> PeerFault {
    match flow {
        Flow::Close(CloseCause::Fault(Fault::Peer(fault))) => fault,
        other => panic!("no peer fault but {other:?}"),
    }
}

/// The row of a kind in the specification, as far as its bounds.
fn row(spec: &KindSpec) -> String {
    let grouped = |n: u32| match (n / 1000, n % 1000) {
        (0, n) => n.to_string(),
        (thousands, n) => format!("{thousands},{n:03}"),
    };
    let bounds = match spec.min == spec.max {
        true => grouped(spec.min),
        false => format!("{} to {}", grouped(spec.min), grouped(spec.max)),
    };
    let place = match spec.role {
        Role::Notice => "notice".to_owned(),
        Role::Request(most) => format!("request, {most} open"),
        Role::Answer { to, .. } => {
            let asked =
                kinds().iter().flat_map(|service| service.kinds().to_vec()).find(|spec| spec.kind == to);
            format!("answers `{}`", asked.unwrap().name)
        }
    };
    format!("| {} | `{}` | {bounds} | {place}", spec.kind.0, spec.name)
}

#[test]
fn the_specification_has_a_row_for_every_kind_with_its_bounds_its_rate_and_its_lane() {
    let document = include_str!("../../../../docs/networks/overlay.md");
    let grouped = |n: u32| if n < 1000 { n.to_string() } else { format!("{},{:03}", n / 1000, n % 1000) };
    let table = KindTable::build(&kinds()).unwrap();
    assert_eq!(table.specs().count(), 10);
    for spec in table.specs() {
        assert!(spec.max as usize <= crate::wire::frame::MAX_BODY, "{} fits no frame", spec.name);
        let over = match spec.rate.over {
            Over::Wait => "waits",
            Over::Drop => "dropped",
            Over::Close => "closed",
        };
        let per_second = match spec.rate.per_second {
            rate if rate < 1.0 => rate.to_string(),
            rate => grouped(rate as u32),
        };
        let rate = format!("{per_second} ({}), {over} | {} |", grouped(spec.rate.burst), spec.lane.label());
        let found = document.lines().any(|line| line.starts_with(&row(spec)) && line.ends_with(&rate));
        assert!(found, "no row {} ... {rate}", row(spec));
    }
}
