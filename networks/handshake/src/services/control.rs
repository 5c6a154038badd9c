//! Signs of life, and the kinds that a headers node answers briefly or not at all.
//!
//! We ping at the start of a session, so that the round-trip time is known before peers are chosen among, and every
//! [`PING_EVERY`] after. A ping without its pong for [`SILENCE`] ends the session. That is stricter than hsd's three
//! clocks (a minute for the first message, twenty for the last pong, twenty idle), so none of them is kept here: a
//! peer that would break one of them has broken ours long before.
//!
//! | kind | what we do, and why |
//! |---|---|
//! | `ping` | `pong` with its nonce; over its rate the peer's reading waits, since a dropped ping would look like death |
//! | `pong` | ends the ping with its nonce and gives the round-trip time; one that answers no ping ends the session |
//! | `version` | ends the session: hsd does the same on a second one |
//! | `verack` | ignored: a second one says nothing new |
//! | `getdata` | `notfound` for every item: this node keeps headers only. hsd closes on an unknown block instead, which tells the peer less |
//! | `block`, `merkleblock`, `cmpctblock`, `notfound` | refused before they are read: they answer a `getdata` that we never send |
//! | `blocktxn`, `proof` | refused before they are read: they answer what we never ask |
//! | `getproof` | silence, as of hsd without a name tree; a hundred at once end the session, where hsd bans |
//! | `sendcmpct`, `feefilter` | ignored: every hsd sends them, and they are about what we never send |
//! | `reject` | noted |
//! | `tx`, `claim`, `airdrop` | the first is noted, the rest read past: our `version` asked for none, but a peer that overlooked it harms only its line |
//! | `mempool`, `filterload`, `filteradd`, `filterclear`, `getblocks`, `getblocktxn` | the first is noted, the rest read past: there is nothing here to answer with, and hsd leaves the last two unanswered too until it is synced |
//!
//! The attack is cheap questions with dear answers: an answer is never longer than its question here.

use std::time::Duration;

use rand::Rng;
use rookery_base::{DecodeError, Frame, PeerFault, PeerFaultKind};
use rookery_engine::{
    Admit, Answer, End, Flow, KindSpec, LaneName, Outbox, Over, PeerFacts, PeerHandle, Pipe, Rate,
    RequestKey, Role, Service,
};
use rookery_runtime::Instant;

use super::{kind, malformed, rate, spec};
use crate::wire::body::{Body, Wire};
use crate::wire::inventory::MAX_INV;
use crate::wire::kind as k;
use crate::wire::reject::Reject;
use crate::wire::{Inv, KINDS};

/// How often we ping: hsd's and hnsd's interval.
pub const PING_EVERY: Duration = Duration::from_secs(30);
/// How long a ping may stay unanswered: four intervals. hsd waits twenty minutes, in which a dead peer would hold its
/// slot; two minutes outlast any route change and any batch that a pong can be queued behind.
pub const SILENCE: Duration = Duration::from_secs(120);
/// Pings that can be open at once: one for each interval until the first of them ends the session.
const OPEN_PINGS: u16 = (SILENCE.as_secs() / PING_EVERY.as_secs()) as u16;

/// Honest peers ping every half minute; a tool that measures does so a few times a second.
const PINGS: Rate = rate(20.0, 200, Over::Wait);
/// One for each of our pings, and a margin: others end the session anyway.
const PONGS: Rate = rate(1.0, 16, Over::Wait);
/// Once in a session, if at all; a peer that repeats itself is read past.
const SELDOM: Rate = rate(0.1, 8, Over::Drop);
/// The first is noted; a rate of zero reads past all others, whole transactions among them.
const ONCE: Rate = rate(0.0, 1, Over::Drop);
/// A peer that heard of blocks from us asks for a few at a time; above it waits.
const GETDATA: Rate = rate(5.0, 50, Over::Wait);
/// hsd bans from a hundred in a sliding second on.
const PROOFS: Rate = rate(99.0, 99, Over::Close);
/// Refused by their size already.
const NEVER: Rate = rate(1.0, 1, Over::Close);

const NOT_ASKED: Role = Role::Answer { to: kind(k::GETDATA), unasked: 0 };

const fn ignored(number: u8, rate: Rate) -> KindSpec {
    spec(number, Role::Notice, rate, LaneName::Control)
}

/// What this service declares.
pub const SPECS: [KindSpec; 24] = [
    ignored(k::VERSION, SELDOM),
    ignored(k::VERACK, SELDOM),
    spec(k::PING, Role::Request(OPEN_PINGS), PINGS, LaneName::Control),
    spec(k::PONG, Role::Answer { to: kind(k::PING), unasked: u32::MAX }, PONGS, LaneName::Control),
    spec(k::GETDATA, Role::Request(0), GETDATA, LaneName::Answer),
    // A courtesy: when the peer does not read, the oldest goes rather than the peer.
    spec(k::NOTFOUND, NOT_ASKED, NEVER, LaneName::Gossip),
    ignored(k::GETBLOCKS, ONCE),
    spec(k::BLOCK, NOT_ASKED, NEVER, LaneName::Answer),
    ignored(k::TX, ONCE),
    ignored(k::REJECT, SELDOM),
    ignored(k::MEMPOOL, ONCE),
    ignored(k::FILTERLOAD, ONCE),
    ignored(k::FILTERADD, ONCE),
    ignored(k::FILTERCLEAR, ONCE),
    spec(k::MERKLEBLOCK, NOT_ASKED, NEVER, LaneName::Answer),
    ignored(k::FEEFILTER, SELDOM),
    ignored(k::SENDCMPCT, SELDOM),
    spec(k::CMPCTBLOCK, NOT_ASKED, NEVER, LaneName::Answer),
    spec(k::GETBLOCKTXN, Role::Request(0), ONCE, LaneName::Answer),
    spec(k::BLOCKTXN, Role::Answer { to: kind(k::GETBLOCKTXN), unasked: 0 }, NEVER, LaneName::Answer),
    spec(k::GETPROOF, Role::Request(0), PROOFS, LaneName::Answer),
    spec(k::PROOF, Role::Answer { to: kind(k::GETPROOF), unasked: 0 }, NEVER, LaneName::Answer),
    ignored(k::CLAIM, ONCE),
    ignored(k::AIRDROP, ONCE),
];

/// The service. It shares nothing between peers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Control;

impl Service for Control {
    fn name(&self) -> &'static str {
        "control"
    }

    fn kinds(&self) -> &[KindSpec] {
        &SPECS
    }

    fn admit(&self, _facts: &PeerFacts) -> Admit {
        Admit::Yes
    }

    fn pipe(&self, _facts: &PeerFacts, _handle: PeerHandle) -> Box<dyn Pipe> {
        Box::new(ControlPipe::default())
    }
}

/// One peer's signs of life.
#[derive(Debug, Default)]
struct ControlPipe {
    next_ping: Option<Instant>,
    /// Pings sent, which also numbers the randomness of their nonces.
    pings: u32,
}

impl ControlPipe {
    fn ping(&mut self, now: Instant, out: &mut Outbox) {
        let number = out.generation().0.rotate_left(32) ^ u64::from(self.pings);
        let nonce = out.env().rng.fork("handshake-ping", number).next_u64();
        self.pings = self.pings.wrapping_add(1);
        self.next_ping = Some(now + PING_EVERY);
        let key = RequestKey::number(kind(k::PING), nonce);
        // Refused only when the session is ending: the outbox is full, or four pings are overdue.
        let _ = out.request(key, nonce.to_le_bytes().to_vec(), SILENCE);
    }
}

impl Pipe for ControlPipe {
    fn on_start(&mut self, now: Instant, out: &mut Outbox) -> Flow {
        self.ping(now, out);
        Flow::Continue
    }

    fn key(&self, frame: &Frame) -> Option<RequestKey> {
        let nonce = frame.body.first_chunk().copied().map(u64::from_le_bytes)?;
        (frame.kind == kind(k::PONG)).then(|| RequestKey::number(kind(k::PING), nonce))
    }

    fn on_frame(&mut self, _now: Instant, frame: Frame, out: &mut Outbox) -> Flow {
        // Every kind of this service is one byte: its declarations say so.
        let number = frame.kind.0 as u8;
        match number {
            k::PING => out.send(kind(k::PONG), frame.body.slice(..frame.body.len().min(PONG_LEN))),
            k::VERSION => {
                let detail = "a second version, after the handshake";
                return out.fault(PeerFault::close(PeerFaultKind::BadHandshake, detail));
            }
            k::VERACK | k::SENDCMPCT | k::FEEFILTER | k::GETPROOF => {}
            k::GETDATA => return not_found(&frame, out),
            k::REJECT => return rejected(&frame, out),
            _ => {
                let name = KINDS.get(usize::from(number)).map_or("unknown", |info| info.name);
                out.note(format!("sent {name}, which a headers node ignores"));
            }
        }
        Flow::Continue
    }

    fn on_answer(&mut self, _now: Instant, answer: Answer, out: &mut Outbox) -> Flow {
        match answer.end {
            End::Answered(_, took) => {
                out.rtt(took);
                Flow::Continue
            }
            End::TimedOut => {
                let detail = format!("no pong for {} s", SILENCE.as_secs());
                out.fault(PeerFault::close(PeerFaultKind::Silent, detail))
            }
            End::Gone(_) => Flow::Continue,
        }
    }

    fn timer(&self) -> Option<Instant> {
        self.next_ping
    }

    fn on_timer(&mut self, now: Instant, out: &mut Outbox) -> Flow {
        self.ping(now, out);
        Flow::Continue
    }
}

/// Bytes of a nonce: what a ping may carry behind it is not sent back.
const PONG_LEN: usize = 8;

/// Answers a `getdata` with its own list: nothing is decoded, copied or allocated.
fn not_found(frame: &Frame, out: &mut Outbox) -> Flow {
    match list_len(frame) {
        Ok(0) => {}
        Ok(len) => out.send(kind(k::NOTFOUND), frame.body.slice(..len)),
        Err(error) => return malformed("getdata", &error, out),
    }
    Flow::Continue
}

/// Bytes of an inventory up to its last item; 0 when it has none.
fn list_len(frame: &Frame) -> Result<usize, DecodeError> {
    let mut body = Body::new(&frame.body);
    let items = body.count(MAX_INV, Inv::MIN, "inventory")?;
    Ok(if items == 0 { 0 } else { body.at() + items * Inv::MIN })
}

fn rejected(frame: &Frame, out: &mut Outbox) -> Flow {
    match Reject::read(&mut Body::new(&frame.body)) {
        Ok(reject) => {
            let of = KINDS.get(usize::from(reject.message)).map_or("a message", |info| info.name);
            out.note(format!("rejected our {of} (code {:02x}): {}", reject.code.0, reject.reason));
            Flow::Continue
        }
        Err(error) => malformed("reject", &error, out),
    }
}

#[cfg(test)]
mod tests;
