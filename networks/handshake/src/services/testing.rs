//! What the tests of pipes share. A pipe is a pure thing: frames and commands go in, an outbox and a lane show what
//! came of them.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use rookery_base::{Charge, CloseCause, Direction, Fault, Frame, Generation, PeerFault, PeerId};
use rookery_engine::kinds::{Guard, Verdict};
use rookery_engine::{
    Caps, Flow, Head, KindSpec, KindTable, Outbox, PeerFacts, PeerHandle, Pipe, Service, UnknownKind,
};
use rookery_observe::Trace;
use rookery_runtime::{Env, FairMailbox, Instant, LaneLimits};

use super::{control, discovery, headers, kind};
use crate::wire::{HEAD_LEN, Packet};

pub const UNIX: u64 = 1_700_000_000;

pub fn env() -> Env {
    Env::simulated(1, 0, UNIX, 0, Trace::off())
}

pub fn mailbox<T>(env: &Env) -> FairMailbox<T> {
    FairMailbox::new("test", LaneLimits::PEER, 4, env.clock, Arc::clone(&env.metrics))
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
        Arc::new(Kinds("control", &control::SPECS)),
        Arc::new(Kinds("discovery", &discovery::SPECS)),
        Arc::new(Kinds("headers", &headers::SPECS)),
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
        Self(Guard::new(table, Caps::NONE, vec![true; 3]), env.clock.now())
    }

    /// What it says of a head, when its request is `open` or not.
    pub fn check(&mut self, number: u8, body_len: usize, open: bool) -> Verdict {
        let head = Head { kind: kind(number), head_len: HEAD_LEN, body_len };
        self.0.check(&head, self.1, |_| open, |_| UnknownKind::Refuse)
    }
}

pub fn addr() -> SocketAddr {
    "1.2.3.4:12038".parse().unwrap()
}

pub fn facts(direction: Direction) -> PeerFacts {
    PeerFacts {
        version: 3,
        height: 77,
        time_offset: -5,
        caps: Caps(1),
        ..PeerFacts::of(PeerId::from_addr(addr()), addr(), direction)
    }
}

pub fn handle(direction: Direction) -> PeerHandle {
    PeerHandle::detached(Generation(9), addr(), direction)
}

pub fn frame(packet: &Packet) -> Frame {
    let mut body = BytesMut::new();
    packet.encode(&mut body);
    Frame::new(kind(packet.kind()), body.freeze(), Charge::none())
}

/// What was sent, decoded.
pub fn sent(out: &mut Outbox) -> Vec<Packet> {
    let decode =
        |(kind, body): (rookery_base::Kind, bytes::Bytes)| Packet::decode(kind.0 as u8, &body).unwrap();
    out.sent().into_iter().map(decode).collect()
}

/// The fault that a flow ends with.
#[track_caller]
pub fn fault(flow: Flow) -> PeerFault {
    match flow {
        Flow::Close(CloseCause::Fault(Fault::Peer(fault))) => fault,
        other => panic!("no peer fault but {other:?}"),
    }
}

/// Every kind of the wire is declared once, with the codec's bounds.
#[test]
fn all_thirty_kinds_are_declared_with_the_codecs_bounds() {
    let table = KindTable::build(&kinds()).unwrap();
    assert_eq!(table.specs().count(), crate::wire::KINDS.len());
    for info in &crate::wire::KINDS {
        let (_, spec, _) = table.find(kind(info.kind)).expect(info.name);
        assert_eq!((spec.name, spec.min as usize), (info.name, info.min));
        assert_eq!(spec.max as usize, info.max_payload());
    }
}
