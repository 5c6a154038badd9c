//! Addresses: what peers tell of others, and what we tell.
//!
//! ```text
//!  outbound session:  Connected -> book      getaddr ->            (once)
//!  addr (<= 1000)  -> Heard, with the teller's IP -> book: intake rules, buckets
//!  inbound getaddr -> Asked -> book -> AddressSample -> addr       (once; nothing when there is nothing)
//! ```
//!
//! We ask whom we dialled and answer who dialled us, once, as hsd does: so nobody can read the whole book by asking
//! again, and an inbound peer cannot choose what we hear of. Silence is a normal answer to `getaddr`, so it is no
//! request and nothing waits for it.
//!
//! The attack is to fill the book with one's own addresses. Here stand the bounds that need no book: a thousand
//! addresses in a message (more is a ban, as at hsd), a message a second, none from peers below version 3 (which
//! wrote the port in the other byte order). The rest is the book's: routable, serving, without a key, and in
//! the buckets of the one who told.
//!
//! Not provided: addresses reached over Brontide, and telling others of news within the book.

use std::net::IpAddr;

use bytes::{Bytes, BytesMut};
use rookery_base::{Direction, Frame, PeerFault, PeerFaultKind};
use rookery_engine::book::Record;
use rookery_engine::dial::{AddressSample, connected};
use rookery_engine::{
    AddressMail, AddressService, Admit, Command, Flow, KindSpec, LaneName, Outbox, Over, PeerFacts,
    PeerHandle, Pipe, Role, Service,
};
use rookery_runtime::{Instant, Lane, Push};

use super::{kind, malformed, rate, spec};
use crate::wire::address::MAX_ADDRS;
use crate::wire::kind as k;
use crate::wire::{NetAddress, Packet, Services};

/// hsd does not take addresses from peers that speak less.
const MIN_VERSION: u32 = 3;

/// What this service declares. `getaddr` is worth one answer. Honest peers pass on news a few times a minute, and
/// nobody misses what is dropped above that.
pub const SPECS: [KindSpec; 2] = [
    spec(k::GETADDR, Role::Notice, rate(0.1, 4, Over::Drop), LaneName::Control),
    spec(k::ADDR, Role::Notice, rate(1.0, 10, Over::Drop), LaneName::Gossip),
];

/// The service.
pub struct Discovery {
    addresses: AddressService,
}

impl Discovery {
    /// Tells the book's owner what is heard.
    pub const fn new(addresses: AddressService) -> Self {
        Self { addresses }
    }
}

impl Service for Discovery {
    fn name(&self) -> &'static str {
        "discovery"
    }

    fn kinds(&self) -> &[KindSpec] {
        &SPECS
    }

    fn admit(&self, _facts: &PeerFacts) -> Admit {
        Admit::Yes
    }

    fn pipe(&self, facts: &PeerFacts, handle: PeerHandle) -> Box<dyn Pipe> {
        Box::new(DiscoveryPipe::new(self.addresses.open(), facts, handle))
    }
}

struct DiscoveryPipe {
    /// None when all lanes are taken: the session goes on without discovery.
    lane: Option<Lane<AddressMail>>,
    handle: PeerHandle,
    source: IpAddr,
    /// What to tell the book at the start; only of peers that we dialled.
    connected: Option<AddressMail>,
    believed: bool,
    /// Whether a `getaddr` would be answered.
    answers: bool,
}

impl DiscoveryPipe {
    fn new(lane: Option<Lane<AddressMail>>, facts: &PeerFacts, handle: PeerHandle) -> Self {
        let outbound = facts.direction == Direction::Outbound;
        Self {
            lane,
            handle,
            source: facts.addr.ip(),
            connected: outbound.then(|| connected(facts)),
            believed: facts.version >= MIN_VERSION,
            answers: !outbound,
        }
    }

    /// Hearsay is not worth waiting for: what finds no room is dropped, and the mailbox counts it.
    fn tell(&self, mail: AddressMail, bytes: usize) {
        if let Some(lane) = &self.lane {
            let _: Push<AddressMail> = lane.push(mail, bytes);
        }
    }

    fn heard(&self, frame: &Frame, out: &mut Outbox) -> Flow {
        let addrs = match Packet::decode(k::ADDR, &frame.body) {
            Ok(Packet::Addr(addrs)) => addrs,
            Ok(_) => return Flow::Continue,
            Err(error @ rookery_base::DecodeError::OverCap { .. }) => {
                return out.fault(PeerFault::ban(PeerFaultKind::Oversize, error.to_string()));
            }
            Err(error) => return malformed("addr", &error, out),
        };
        if !self.believed {
            out.note(format!("sent addresses under a version below {MIN_VERSION}: not believed"));
            return Flow::Continue;
        }
        let records: Vec<Record> = addrs.iter().filter_map(record).collect();
        if !records.is_empty() {
            let bytes = size_of::<Record>() * records.len();
            self.tell(AddressMail::Heard(records, self.source), bytes);
        }
        Flow::Continue
    }
}

impl Pipe for DiscoveryPipe {
    fn on_start(&mut self, _now: Instant, out: &mut Outbox) -> Flow {
        if let Some(connected) = self.connected.take() {
            self.tell(connected, 0);
            out.send(kind(k::GETADDR), Bytes::new());
        }
        Flow::Continue
    }

    fn on_frame(&mut self, _now: Instant, frame: Frame, out: &mut Outbox) -> Flow {
        if frame.kind == kind(k::ADDR) {
            return self.heard(&frame, out);
        }
        if std::mem::take(&mut self.answers) {
            self.tell(AddressMail::Asked(self.handle.clone()), 0);
        }
        Flow::Continue
    }

    fn on_command(&mut self, _now: Instant, command: Command, out: &mut Outbox) -> Flow {
        if let Some(AddressSample(records)) = command.take() {
            let keyless = records.iter().filter(|record| !record.keyed);
            let addrs: Vec<NetAddress> = keyless.take(MAX_ADDRS).map(address).collect();
            if !addrs.is_empty() {
                let mut body = BytesMut::new();
                Packet::Addr(addrs).encode(&mut body);
                out.send(kind(k::ADDR), body.freeze());
            }
        }
        Flow::Continue
    }
}

fn record(address: &NetAddress) -> Option<Record> {
    let addr = address.socket_addr()?;
    let services = u64::from(address.services.0);
    Some(Record { addr, services, time: address.time, keyed: address.key.is_some() })
}

fn address(record: &Record) -> NetAddress {
    // The wire's services have 32 bits in use; the book's come from there.
    let services = Services(record.services as u32);
    NetAddress { time: record.time, services, ..NetAddress::new(record.addr) }
}

#[cfg(test)]
mod tests;
