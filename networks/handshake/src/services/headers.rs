//! Headers: asking, checking what comes, serving, announcing.
//!
//! ```text
//!  start          -> Up, sendheaders
//!  Ask(locator)   -> getheaders ...... headers -> check -> Batch(asked)
//!                              ...... nothing for 30 s -> Unanswered      (hsd is silent at its tip)
//!  headers pushed -> check -> Batch              inv of blocks -> Announced
//!  getheaders     -> Locate ... Serve -> headers
//!  Announce       -> headers (up to 8, if the peer sent sendheaders), else inv of the last
//! ```
//!
//! **What goes further in is sound by itself.** Proof of work of every header and the links inside a batch are checked
//! here, on the peer's own routine; where a batch belongs is the reactor's to find. A header that fails ends the
//! session. Raw headers go on as the slice of the payload that came, with its charge: they are never copied.
//!
//! **Which headers answer which question** the wire does not say. While a `getheaders` is open, headers answer it if
//! they begin right after a hash of its locator, or after genesis, where a peer starts that knows none of them. Others
//! are an announcement, if they are few. So a block that is found while two thousand older headers are under way
//! ends no request. Many headers that answer no open question may answer one that timed out: those are dropped, once
//! for each, and more of them end the session.
//!
//! | attack | what stops it |
//! |---|---|
//! | headers without end | over [`PUSHED`] unasked ones are refused before they are read |
//! | cheap questions | `getheaders` have a rate, above it the peer waits; their answers are served fairly among peers |
//! | huge locators | the first [`LOCATOR`] hashes are looked at |
//! | not reading the answers | the engine closes the peer when its lane is full |
//!
//! **Nothing is lost on the way in.** Mail that finds no room waits here, reading from this peer stops, and goes on
//! when the mail is through. What waits is one frame's worth and the ends of the requests that the reactor itself opened.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rookery_base::codec::put_compact_size;
use rookery_base::{Charge, Frame, Generation, Hash32, Height, PeerFault, PeerFaultKind};
use rookery_engine::{
    Admit, Answer, Command, End, Flow, KindSpec, LaneName, Outbox, Over, PeerFacts, PeerHandle, Pipe,
    RequestKey, RequestRefused, Role, Service, Until,
};
use rookery_runtime::{Instant, Lane, Push};
use rookery_sync::headers::{HeadersMail, HeadersOrder, HeadersService, LOCATE_COST};
use rookery_sync::{Chain, HeaderFacts, HeaderFault};

use super::{kind, local, malformed, rate, spec};
use crate::chain::header;
use crate::wire::body::{Body, Wire};
use crate::wire::inventory::{MAX_INV, MAX_LOCATOR};
use crate::wire::kind as k;
use crate::wire::{HEADER_LEN, Headers, Inv, InvKind, Locator, MAX_HEADERS, Packet};

/// Deadline of a `getheaders`. hsd's is a minute, after which it drops the peer; here the work goes to somebody else,
/// and half a minute is already thirty times what a loaded hsd takes for two thousand headers.
pub const ASK_WITHIN: Duration = Duration::from_secs(30);
/// Most headers that are taken unasked. hsd pushes one for each block; a reorganisation of sixteen blocks is rarer
/// than anything that this bound could cost.
pub const PUSHED: usize = 16;
/// Hashes of a peer's locator that are looked at. An honest one has about thirty at any height that a chain can reach.
pub const LOCATOR: usize = 64;
/// Most headers in an announcement of ours; of more, the peer is told the last and asks for the rest.
pub const ANNOUNCED: usize = 8;

/// What this service declares.
///
/// `getheaders`: 512 at once are a million headers, more than a whole chain, for a peer that starts; then twenty a
/// second, 9 MB/s. `headers`: a push for each block, and regtest nodes mine some hundred a second; above it waits.
/// `inv`: as `headers`.
pub const SPECS: [KindSpec; 4] = [
    spec(k::INV, Role::Notice, rate(500.0, 1000, Over::Wait), LaneName::Gossip),
    spec(k::GETHEADERS, Role::Request(1), rate(20.0, 512, Over::Wait), LaneName::Answer),
    spec(
        k::HEADERS,
        Role::Answer { to: kind(k::GETHEADERS), unasked: (1 + PUSHED * HEADER_LEN) as u32 },
        rate(500.0, 2000, Over::Wait),
        LaneName::Answer,
    ),
    spec(k::SENDHEADERS, Role::Notice, rate(0.1, 4, Over::Drop), LaneName::Control),
];

/// The one request that can be open: its answer repeats nothing of it.
const ASKED: RequestKey = RequestKey::only(kind(k::GETHEADERS));

/// The service.
pub struct HeaderExchange {
    chain: Arc<dyn Chain>,
    headers: HeadersService,
}

impl HeaderExchange {
    /// Speaks for this reactor.
    pub const fn new(chain: Arc<dyn Chain>, headers: HeadersService) -> Self {
        Self { chain, headers }
    }
}

impl Service for HeaderExchange {
    fn name(&self) -> &'static str {
        "headers"
    }

    fn kinds(&self) -> &[KindSpec] {
        &SPECS
    }

    fn admit(&self, _facts: &PeerFacts) -> Admit {
        Admit::Yes
    }

    fn pipe(&self, facts: &PeerFacts, handle: PeerHandle) -> Box<dyn Pipe> {
        let lane = self.headers.open(handle.generation);
        Box::new(HeadersPipe::new(Arc::clone(&self.chain), lane, facts, handle))
    }
}

struct HeadersPipe {
    chain: Arc<dyn Chain>,
    /// After which a peer begins that knows nothing of a locator.
    genesis: Hash32,
    session: Generation,
    lane: Option<Lane<HeadersMail>>,
    /// The first mail, until the start.
    up: Option<HeadersMail>,
    /// Mail that found no room, with its bytes; its peer is parked.
    waiting: VecDeque<(HeadersMail, usize)>,
    /// The locator of the request that is open.
    asked: Option<Vec<Hash32>>,
    /// Requests that timed out, whose answers may come while the next one is open.
    overdue: u32,
    /// The peer wants new blocks as headers.
    by_header: bool,
}

impl HeadersPipe {
    fn new(
        chain: Arc<dyn Chain>,
        lane: Option<Lane<HeadersMail>>,
        facts: &PeerFacts,
        handle: PeerHandle,
    ) -> Self {
        let session = handle.generation;
        let (height, time_offset): (Height, i64) = (facts.height, facts.time_offset);
        Self {
            genesis: chain.genesis().1.hash,
            chain,
            session,
            lane,
            up: Some(HeadersMail::Up { peer: handle, height, time_offset }),
            waiting: VecDeque::new(),
            asked: None,
            overdue: 0,
            by_header: false,
        }
    }

    /// Hands mail to the reactor, behind what waits already.
    fn tell(&mut self, mail: HeadersMail, bytes: usize) -> Flow {
        self.waiting.push_back((mail, bytes));
        if self.hand_over() { Flow::Continue } else { Flow::Park(Until::Room) }
    }

    /// Hands over what waits, in order, as far as there is room. True when nothing waits any more.
    fn hand_over(&mut self) -> bool {
        let Some(lane) = &self.lane else {
            self.waiting.clear();
            return true;
        };
        while let Some((mail, bytes)) = self.waiting.pop_front() {
            match lane.push(mail, bytes) {
                Push::Accepted => {}
                Push::Full(mail) => {
                    self.waiting.push_front((mail, bytes));
                    return false;
                }
                // The reactor has ended, which stops the node.
                Push::Closed(_) => self.waiting.clear(),
            }
        }
        true
    }

    /// Whether headers that begin after `prev` can answer the open request.
    fn links(&self, prev: &Hash32) -> bool {
        let locator = self.asked.as_deref().unwrap_or_default();
        locator.contains(prev) || *prev == self.genesis
    }

    fn ask(&mut self, locator: Vec<Hash32>, out: &mut Outbox) -> Flow {
        let question = Locator { hashes: locator, stop: Hash32::ZERO };
        let mut body = BytesMut::new();
        question.write(&mut body);
        match out.request(ASKED, body.freeze(), ASK_WITHIN) {
            Ok(()) => {
                self.asked = Some(question.hashes);
                Flow::Continue
            }
            Err(RequestRefused::AlreadyOpen | RequestRefused::TooMany) => self.unanswered("refused"),
            // The session is ending, and its farewell ends the question.
            Err(RequestRefused::OutboxFull) => Flow::Continue,
        }
    }

    fn unanswered(&mut self, why: &'static str) -> Flow {
        self.tell(HeadersMail::Unanswered { from: self.session, why }, 0)
    }

    /// Headers, asked or not: checks what can be checked here and passes them on.
    fn headers(&mut self, frame: Frame, asked: bool, out: &mut Outbox) -> Flow {
        let (_, body, charge) = frame.into_parts();
        let headers = match Headers::decode(&body) {
            Ok(headers) => headers,
            Err(error) => return malformed("headers", &error, out),
        };
        if !asked && headers.is_empty() {
            return Flow::Continue;
        }
        if !asked && headers.len() > PUSHED {
            return self.unasked(headers.len(), out);
        }
        match self.check(&headers) {
            Ok(facts) => self.batch(facts, headers.raw().clone(), charge, asked),
            Err(fault) => out.fault(fault),
        }
    }

    /// Many headers that do not answer the request that is open.
    fn unasked(&mut self, count: usize, out: &mut Outbox) -> Flow {
        if let Some(left) = self.overdue.checked_sub(1) {
            self.overdue = left;
            out.env().metrics.late_answers.inc();
            return Flow::Continue;
        }
        let detail =
            format!("{count} headers that link to nothing we asked for, unasked {PUSHED} are the most");
        out.fault(PeerFault::close(PeerFaultKind::Unsolicited, detail))
    }

    fn check(&self, headers: &Headers) -> Result<Vec<HeaderFacts>, PeerFault> {
        let count = headers.len();
        let facts = self.chain.check(headers.raw()).map_err(|(index, fault)| {
            let kind = match fault {
                HeaderFault::Malformed => PeerFaultKind::Malformed,
                _ => PeerFaultKind::InvalidData,
            };
            PeerFault::close(kind, format!("header {} of {count}: {fault}", index + 1))
        })?;
        match facts.windows(2).position(|pair| pair[1].prev != pair[0].hash) {
            None => Ok(facts),
            Some(at) => {
                let detail = format!("header {} of {count} does not follow the one before it", at + 2);
                Err(PeerFault::close(PeerFaultKind::InvalidData, detail))
            }
        }
    }

    fn batch(&mut self, facts: Vec<HeaderFacts>, raw: Bytes, charge: Charge, asked: bool) -> Flow {
        let bytes = raw.len();
        self.tell(HeadersMail::Batch { from: self.session, facts, raw, charge, asked }, bytes)
    }

    fn locate(&mut self, frame: &Frame, out: &mut Outbox) -> Flow {
        match read_locator(&frame.body) {
            Ok((locator, stop)) => {
                self.tell(HeadersMail::Locate { from: self.session, locator, stop }, LOCATE_COST)
            }
            Err(error) => malformed("getheaders", &error, out),
        }
    }

    fn announced(&mut self, frame: &Frame, out: &mut Outbox) -> Flow {
        match last_block(&frame.body) {
            Ok(Some(hash)) => self.tell(HeadersMail::Announced { from: self.session, hash }, 0),
            Ok(None) => Flow::Continue,
            Err(error) => malformed("inv", &error, out),
        }
    }

    fn announce(&self, raw: &Bytes, hashes: &[Hash32], out: &mut Outbox) {
        let Some(hash) = hashes.last() else { return };
        if self.by_header && hashes.len() <= ANNOUNCED {
            serve(raw, out);
            return;
        }
        let mut body = BytesMut::new();
        Packet::Inv(vec![Inv { kind: InvKind::BLOCK, hash: *hash }]).encode(&mut body);
        out.send(kind(k::INV), body.freeze());
    }
}

impl Pipe for HeadersPipe {
    fn on_start(&mut self, _now: Instant, out: &mut Outbox) -> Flow {
        if self.lane.is_none() {
            return local("the header reactor has no lane for one more session");
        }
        out.send(kind(k::SENDHEADERS), Bytes::new());
        self.up.take().map_or(Flow::Continue, |up| self.tell(up, 0))
    }

    fn key(&self, frame: &Frame) -> Option<RequestKey> {
        if frame.kind != kind(k::HEADERS) {
            return None;
        }
        let answers = match &self.asked {
            Some(_) => first_prev(&frame.body).is_none_or(|prev| self.links(&prev)),
            // The request table knows whether so many are late, or nobody's.
            None => frame.body.len() / HEADER_LEN > PUSHED,
        };
        answers.then_some(ASKED)
    }

    fn on_frame(&mut self, _now: Instant, frame: Frame, out: &mut Outbox) -> Flow {
        match frame.kind {
            kind if kind == super::kind(k::HEADERS) => self.headers(frame, false, out),
            kind if kind == super::kind(k::GETHEADERS) => self.locate(&frame, out),
            kind if kind == super::kind(k::INV) => self.announced(&frame, out),
            _ => {
                self.by_header = true;
                Flow::Continue
            }
        }
    }

    fn on_answer(&mut self, _now: Instant, answer: Answer, out: &mut Outbox) -> Flow {
        match answer.end {
            End::Answered(frame, _) => {
                self.asked = None;
                self.headers(frame, true, out)
            }
            End::TimedOut => {
                self.asked = None;
                self.overdue += 1;
                self.unanswered("timed_out")
            }
            // The lane's farewell tells the reactor.
            End::Gone(_) => Flow::Continue,
        }
    }

    fn on_command(&mut self, _now: Instant, command: Command, out: &mut Outbox) -> Flow {
        match command.take() {
            Some(HeadersOrder::Ask { locator }) => return self.ask(locator, out),
            Some(HeadersOrder::Serve { raw }) => serve(&raw, out),
            Some(HeadersOrder::Announce { raw, hashes }) => self.announce(&raw, &hashes, out),
            Some(HeadersOrder::Fault(fault)) => return out.fault(fault),
            Some(HeadersOrder::Note(what)) => out.note(what),
            None => {}
        }
        Flow::Continue
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.hand_over() {
            if let Some(lane) = &self.lane
                && lane.poll_room(cx).is_pending()
            {
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }
}

/// Sends raw headers, as many as one packet holds. None is silence, as at hsd.
fn serve(raw: &Bytes, out: &mut Outbox) {
    let count = (raw.len() / HEADER_LEN).min(MAX_HEADERS);
    if count == 0 {
        return;
    }
    let raw = &raw[..count * HEADER_LEN];
    let mut body = BytesMut::with_capacity(3 + raw.len());
    put_compact_size(&mut body, count as u64);
    body.extend_from_slice(raw);
    out.send(kind(k::HEADERS), body.freeze());
}

/// What the first header of a payload follows; `None` when there is none.
fn first_prev(body: &Bytes) -> Option<Hash32> {
    Headers::decode(body).ok()?.iter().next().map(header::prev)
}

/// The first hashes of a locator, and where to stop.
fn read_locator(payload: &Bytes) -> Result<(Vec<Hash32>, Hash32), rookery_base::DecodeError> {
    let mut body = Body::new(payload);
    let count = body.count(MAX_LOCATOR, Hash32::MIN, "locator")?;
    let mut hashes = Vec::with_capacity(count.min(LOCATOR));
    for _ in 0..count.min(LOCATOR) {
        hashes.push(body.hash("locator")?);
    }
    body.take((count - hashes.len()) * Hash32::MIN, "locator")?;
    Ok((hashes, body.hash("stop hash")?))
}

/// The last block of an inventory; everything else in it is about transactions, which we asked not to hear of.
fn last_block(payload: &Bytes) -> Result<Option<Hash32>, rookery_base::DecodeError> {
    let mut body = Body::new(payload);
    let mut last = None;
    for _ in 0..body.count(MAX_INV, Inv::MIN, "inventory")? {
        let item = Inv::read(&mut body)?;
        if item.kind == InvKind::BLOCK {
            last = Some(item.hash);
        }
    }
    Ok(last)
}

#[cfg(test)]
mod tests;
