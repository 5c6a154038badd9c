//! `get_records` and `records`: who else is there, in their own signed words.
//!
//! ```text
//!  we dialled, and want peers: at once, then ever more rarely -> get_records 8
//!  else: in turn, twenty a second in all, then each ten minutes -> get_records 1: its own
//!  records -> signatures hold? -> reactor: table
//!                              -> address book: to be dialled
//!  get_records -> reactor: our own record, and a sample of those that we confirmed -> records
//! ```
//!
//! **Confirmed before disclosed.** A record is passed on only when we have had a session with its owner's proven identity at
//! one of its addresses, dialled by either side: QUIC has then shown that the owner receives there. What we merely heard is
//! dialled, and neither told nor kept. So a lie travels one hop, and a thousand records of nobody end with who told them.
//!
//! **A crowd costs little.** A signature is dearer than a session's own handshake can bear in a storm, so the records of those
//! that come to us are asked for in turn, [`ASKS_PER_SECOND`]; and of what is told to a crowd of newcomers the sum is bounded
//! ([`TOLD_PER_SECOND`]), above it each gets our own record only.
//!
//! **The sample** that a peer gets is at most sixteen records, chosen by a keyed hash of the record, the asker's address group
//! and the hour: random to the asker, and the same for all that ask from its group within the hour. Asking again, or under
//! other identities, does not read the whole table.
//!
//! | abuse | what stops it |
//! |---|---|
//! | forged records | the signature; one that fails ends the session |
//! | records of invented peers | none is kept: only a peer with which there is a session has its record taken |
//! | strangers that come, have their record taken and go | of those that have gone [`ABSENT`] are kept, of all together [`RECORDS`]; who is present displaces who has gone |
//! | old records shown again | a lower sequence never replaces a higher; records end by their expiry, at most [`LIFETIME_MAX`] from now |
//! | asking without end | after the first four one question in twenty seconds is answered; the answer is the same within the hour |
//! | answers that nobody asked for | refused before they are read |
//! | making us check signatures | sixteen for each question of ours: 0.7 ms, nine times in the first hour, on the routine of the peer that sent them |
//!
//! | file | what it holds |
//! |---|---|
//! | `table.rs` | the records, pure: bounds, confirmation, samples |
//! | `actor.rs` | the loop; our own record; the application's handle |

mod actor;
mod table;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use rand::Rng;
use rookery_base::{Direction, Frame, Generation, Hash32, PeerFault, PeerFaultKind, PeerId};
use rookery_engine::book::Record as BookRecord;
use rookery_engine::dial::connected;
use rookery_engine::{
    AddressMail, AddressService, Answer, Command, End, Flow, KindSpec, LaneName, Outbox, Over, PeerFacts,
    PeerHandle, Pipe, RequestKey, Role, Service,
};
use rookery_runtime::{Instant, Lane, LaneOpener, Push};

use super::{Mailer, malformed, rate, spec};
use crate::wire::SignedRecord;
use crate::wire::discovery as wire;
use crate::wire::kind::{GET_RECORDS, RECORDS as RECORDS_KIND};

pub use actor::{Discovery, DiscoveryConfig, DiscoveryHandle};
pub use table::{ABSENT, LIFETIME_MAX, RECORDS};

/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How soon a peer is asked again, at first: nodes that start together find nobody at their common bootstrap node, and
/// the whole network a moment later. Each time is twice the one before, up to [`ASK_EVERY`].
pub const ASK_AGAIN: Duration = Duration::from_secs(2);
/// Records of peers that came to us, asked for in a second, and at once: 46 microseconds of signature each, a thousandth of a
/// core; a network of a hundred nodes that starts at its first node is known there within five seconds.
pub const ASKS_PER_SECOND: f64 = 20.0;
/// See [`ASKS_PER_SECOND`].
pub const ASKS_AT_ONCE: u32 = 16;
/// Records of others told in a second to all that ask, and at once: 2.8 MB/s of ML-DSA-65 records.
pub const TOLD_PER_SECOND: f64 = 500.0;
/// See [`TOLD_PER_SECOND`].
pub const TOLD_AT_ONCE: u32 = 500;
/// Records that a node asks for that wants peers: as many as it dials by itself.
pub const WANTED: usize = 8;
/// How often a peer is asked in the long run: a few times within a record's lifetime.
pub const ASK_EVERY: Duration = Duration::from_secs(600);

/// What this service declares. A session's first questions come within seconds, doubling; what is more than that is not
/// answered.
pub const SPECS: [KindSpec; 2] = [
    spec(
        GET_RECORDS,
        "get_records",
        (wire::GET_LEN, wire::GET_LEN),
        Role::Request(1),
        rate(0.05, 4, Over::Drop),
        LaneName::Control,
    ),
    spec(
        RECORDS_KIND,
        "records",
        (1, wire::MAX_LEN),
        Role::Answer { to: GET_RECORDS, unasked: 0 },
        rate(1.0, 4, Over::Wait),
        LaneName::Answer,
    ),
];

/// From pipes to the reactor.
#[derive(Debug)]
pub(crate) enum Mail {
    /// A session is established. First in its lane. Whether it waits to be told when to ask the peer.
    Up(PeerHandle, PeerId, bool),
    /// Records whose signatures hold.
    Records(Generation, Vec<SignedRecord>),
    /// The peer asks for this many records.
    Asked(Generation, usize),
    /// The session has ended. The farewell of its lane.
    Gone(Generation),
}

/// From the reactor to a pipe.
enum Order {
    /// Answer with these records.
    Tell(Vec<Bytes>),
    /// It is the peer's turn to be asked for its record.
    Ask,
}

/// The service: one pipe for each peer, and the ways to the reactor and to the address book.
pub struct DiscoveryService {
    network: Hash32,
    mail: LaneOpener<Mail>,
    addresses: AddressService,
    wants_peers: bool,
}

impl Service for DiscoveryService {
    fn name(&self) -> &'static str {
        "discovery"
    }

    fn kinds(&self) -> &[KindSpec] {
        &SPECS
    }

    fn pipe(&self, facts: &PeerFacts, handle: PeerHandle) -> Box<dyn Pipe> {
        Box::new(DiscoveryPipe {
            network: self.network,
            mailer: Mailer::new(self.mail.open(Mail::Gone(handle.generation))),
            book: self.addresses.open(),
            session: handle.generation,
            source: facts.addr.ip(),
            up: Some((handle, facts.peer)),
            connected: (facts.direction == Direction::Outbound).then(|| connected(facts)),
            seeks: self.wants_peers && facts.direction == Direction::Outbound,
            next: None,
            asked: 0,
        })
    }
}

struct DiscoveryPipe {
    network: Hash32,
    mailer: Mailer<Mail>,
    /// None when all lanes are taken: the book goes without.
    book: Option<Lane<AddressMail>>,
    session: Generation,
    source: IpAddr,
    /// The first mail, until the start.
    up: Option<(PeerHandle, PeerId)>,
    /// What to tell the book at the start; only of peers that we dialled.
    connected: Option<AddressMail>,
    /// Whether the peer is to tell of others; else it is asked for its own record, when the reactor says.
    seeks: bool,
    next: Option<Instant>,
    /// Questions so far, which also number the randomness of their times.
    asked: u32,
}

impl DiscoveryPipe {
    fn ask(&mut self, now: Instant, out: &mut Outbox) {
        let number = self.session.0.rotate_left(32) ^ u64::from(self.asked);
        let doubled = ASK_EVERY.min(ASK_AGAIN * 2_u32.saturating_pow(self.asked));
        let (wait, most) = if self.seeks { (doubled, WANTED) } else { (ASK_EVERY, 1) };
        // Up to a tenth later, so that peers which began together do not go on together.
        let jitter =
            out.env().rng.fork("overlay-discovery", number).next_u64() % (wait.as_millis() as u64 / 10);
        self.asked = self.asked.saturating_add(1);
        self.next = Some(now + wait + Duration::from_millis(jitter));
        // Refused only while the last question is open, or when the session is ending.
        let _ = out.request(RequestKey::only(GET_RECORDS), wire::encode_get(most).to_vec(), ANSWER_WITHIN);
    }

    /// Hearsay is not worth waiting for: what finds no room in the book's lane is dropped, and the mailbox counts it.
    fn tell_book(&self, mail: AddressMail, bytes: usize) {
        if let Some(book) = &self.book {
            let _: Push<AddressMail> = book.push(mail, bytes);
        }
    }

    fn heard(&mut self, body: &Bytes, out: &mut Outbox) -> Flow {
        let records = match wire::decode_records(body) {
            Ok(records) => records,
            Err(error) => return malformed("records", error, out),
        };
        let unix = out.env().clock.unix();
        // Expired ones are not worth a check: the peer's clock or ours is off.
        let current: Vec<SignedRecord> =
            records.into_iter().filter(|record| record.expiry > unix).map(SignedRecord::detached).collect();
        if let Some(forged) = current.iter().find(|record| !record.verify(&self.network)) {
            let detail = format!("a record of {} whose signature does not hold", forged.id());
            return out.fault(PeerFault::close(PeerFaultKind::InvalidData, detail));
        }
        let to_dial = |record: &SignedRecord| {
            let addrs = record.addrs.clone().into_iter();
            addrs.map(|addr| BookRecord { addr, services: 0, time: unix, keyed: false })
        };
        let addrs: Vec<BookRecord> = current.iter().flat_map(to_dial).collect();
        if !addrs.is_empty() {
            let bytes = size_of::<BookRecord>() * addrs.len();
            self.tell_book(AddressMail::Heard(addrs, self.source), bytes);
            let owned = |record: &SignedRecord| {
                let (addrs, owner) = (record.addrs.clone(), record.id());
                addrs.into_iter().map(move |addr| (addr, owner))
            };
            let owners: Vec<(SocketAddr, PeerId)> = current.iter().flat_map(owned).collect();
            let bytes = size_of::<(SocketAddr, PeerId)>() * owners.len();
            self.tell_book(AddressMail::Claimed(owners), bytes);
        }
        let bytes = current.iter().map(|record| record.raw().len()).sum();
        self.mailer.tell(Mail::Records(self.session, current), bytes)
    }
}

impl Pipe for DiscoveryPipe {
    fn on_start(&mut self, now: Instant, out: &mut Outbox) -> Flow {
        if let Some(connected) = self.connected.take() {
            self.tell_book(connected, 0);
        }
        if self.seeks {
            self.ask(now, out);
        }
        match self.up.take() {
            Some((handle, peer)) => self.mailer.tell(Mail::Up(handle, peer, !self.seeks), 0),
            None => Flow::Continue,
        }
    }

    fn key(&self, _frame: &Frame) -> Option<RequestKey> {
        Some(RequestKey::only(GET_RECORDS))
    }

    fn on_frame(&mut self, _now: Instant, frame: Frame, out: &mut Outbox) -> Flow {
        match wire::decode_get(&frame.body) {
            Ok(most) => self.mailer.tell(Mail::Asked(self.session, most), 0),
            Err(error) => malformed("get_records", error, out),
        }
    }

    fn on_answer(&mut self, _now: Instant, answer: Answer, out: &mut Outbox) -> Flow {
        match answer.end {
            End::Answered(frame, _) => self.heard(&frame.body, out),
            // It may have heard us too often, or have nothing to say. The next question has its time.
            End::TimedOut | End::Gone(_) => Flow::Continue,
        }
    }

    fn on_command(&mut self, now: Instant, command: Command, out: &mut Outbox) -> Flow {
        match command.take() {
            Some(Order::Tell(records)) => out.send(RECORDS_KIND, wire::encode_records(&records)),
            Some(Order::Ask) => self.ask(now, out),
            None => {}
        }
        Flow::Continue
    }

    fn timer(&self) -> Option<Instant> {
        self.next
    }

    fn on_timer(&mut self, now: Instant, out: &mut Outbox) -> Flow {
        self.ask(now, out);
        Flow::Continue
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.mailer.poll_room(cx)
    }
}
