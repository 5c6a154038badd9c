//! Reads messages off a connection: head, guard, budget, body.
//!
//! Reading can be cut short at every await (the routine does so whenever something more urgent comes) and goes on
//! where it was. A body's bytes are charged to the budgets before it is read, and its memory grows with the bytes
//! that have arrived: a peer that announces much and sends little costs little.

use std::future::poll_fn;
use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};
use rookery_base::{ByteBudget, Charge, CloseCause, Frame, PeerFault, PeerFaultKind};
use rookery_observe::Metrics;
use rookery_observe::metrics::KindLabel;
use rookery_runtime::{Clock, Instant};
use rookery_transport::{ReadHalf, cause_of};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::kinds::{Guard, Verdict};
use crate::requests::RequestTable;
use crate::{Deframe, Head, Network};

/// Read at a time when no large body is under way: several small messages.
const CHUNK: usize = 2048;
/// Read at a time while there is no more: what an idle peer costs. One message of nearly all kinds.
const SIP: usize = 512;
/// First piece of memory for a large body, doubled as its bytes arrive.
const BODY_CHUNK: usize = 64 * 1024;
/// Time for one message once its head has come: 8 MB at the slowest line worth keeping (1 Mbit/s) take 64 s.
const FRAME_DEADLINE: Duration = Duration::from_secs(90);
/// A message that stands still for this long is given up sooner: a peer that announces a large body and sends none
/// of it holds bytes of a budget that others wait for. Long enough for a line that loses packets to recover.
const FRAME_GRACE: Duration = Duration::from_secs(15);
/// Bytes a second that earn a message more time than the grace. Far below a slow line, so that only standing still
/// is cut; at least this much an attacker has to send for each body it keeps announced.
const FRAME_PACE: u32 = 16 * 1024;

enum Stage {
    /// Between messages or inside a head.
    Head,
    /// The head has passed; waiting for the budgets.
    Charge(usize, Head),
    /// Inside a body.
    Body(usize, Head, Charge, BytesMut),
    /// Reading past a body.
    Skip(usize),
}

/// What reading brought.
pub(crate) enum Incoming {
    /// A message, with its row in the kind table.
    Frame(usize, Frame),
    /// The peer is over its rate until then.
    Throttled(Instant, &'static str),
}

/// What the reader asks on each head.
pub(crate) struct Gate<'a> {
    pub guard: &'a mut Guard,
    pub requests: &'a RequestTable,
    pub network: &'a dyn Network,
    pub budget: &'a ByteBudget,
    pub clock: Clock,
    pub metrics: &'a Metrics,
}

pub(crate) struct FrameReader {
    read: ReadHalf,
    link: Box<dyn Deframe>,
    buffer: BytesMut,
    stage: Stage,
    /// Since when the current message is under way, for its deadline; not while we wait for our own budgets or the
    /// peer waits for its rate.
    since: Option<Instant>,
    /// Bytes of the current body that have come.
    arrived: usize,
    /// Bytes to read next: a sip, and a chunk after a sip that was full.
    room: usize,
    /// Bytes that were read, ever.
    pub total: u64,
}

impl FrameReader {
    pub fn new(read: ReadHalf, link: Box<dyn Deframe>, read_ahead: BytesMut) -> Self {
        Self {
            read,
            link,
            buffer: read_ahead,
            stage: Stage::Head,
            since: None,
            arrived: 0,
            room: SIP,
            total: 0,
        }
    }

    /// Takes the connection's half out. From then on there is nothing to read.
    pub fn take(&mut self) -> ReadHalf {
        std::mem::replace(&mut self.read, Box::new(tokio::io::empty()))
    }

    /// Leaves time in which we did not read out of the deadline of the message under way.
    pub fn excuse(&mut self, time: Duration) {
        self.since = self.since.map(|since| since + time);
    }

    /// The next message, or the time until which the peer is over its rate. Cancel-safe.
    pub async fn next(&mut self, gate: &mut Gate<'_>) -> Result<Incoming, CloseCause> {
        loop {
            match &mut self.stage {
                Stage::Head => {
                    let Some(head) = self.link.head(&self.buffer).map_err(fault)? else {
                        if !self.buffer.is_empty() && self.since.is_none() {
                            self.since = Some(gate.clock.now());
                        }
                        let (deadline, inside) = (deadline(self.since, self.arrived), self.since.is_some());
                        let filling = fill(&mut self.read, &mut self.buffer, self.room, inside);
                        let came = in_time(gate.clock, deadline, filling).await?;
                        self.room = if came < SIP as u64 { SIP } else { CHUNK };
                        self.total += came;
                        continue;
                    };
                    if let Some((until, name)) = self.judge(head, gate)? {
                        return Ok(Incoming::Throttled(until, name));
                    }
                }
                Stage::Charge(row, head) => {
                    let (row, head) = (*row, *head);
                    self.since = None;
                    let charge = poll_fn(|cx| gate.budget.poll_charge(cx, head.body_len)).await;
                    self.since = Some(gate.clock.now());
                    let here = head.body_len.min(self.buffer.len());
                    let mut body = BytesMut::with_capacity(head.body_len.min(here + BODY_CHUNK));
                    body.put_slice(&self.buffer[..here]);
                    self.buffer.advance(here);
                    self.arrived = here;
                    self.stage = Stage::Body(row, head, charge, body);
                }
                Stage::Body(_, head, _, body) if body.len() < head.body_len => {
                    let left = head.body_len - body.len();
                    let chunk = left.min(body.len().max(BODY_CHUNK));
                    body.reserve(chunk);
                    let filling = fill_limited(&mut self.read, body, left);
                    let came = in_time(gate.clock, deadline(self.since, self.arrived), filling).await?;
                    self.total += came;
                    self.arrived += came as usize;
                }
                Stage::Body(..) => {
                    let Stage::Body(row, head, charge, body) =
                        std::mem::replace(&mut self.stage, Stage::Head)
                    else {
                        continue;
                    };
                    self.since = None;
                    let body = self.link.body(&head, body.freeze()).map_err(fault)?;
                    return Ok(Incoming::Frame(row, Frame::new(head.kind, body, charge)));
                }
                Stage::Skip(0) => {
                    self.since = None;
                    self.stage = Stage::Head;
                }
                Stage::Skip(left) => {
                    let here = (*left).min(self.buffer.len());
                    self.buffer.advance(here);
                    *left -= here;
                    self.arrived += here;
                    if *left > 0 {
                        let filling = fill(&mut self.read, &mut self.buffer, CHUNK, true);
                        let deadline = deadline(self.since, self.arrived);
                        self.total += in_time(gate.clock, deadline, filling).await?;
                    }
                }
            }
        }
    }

    /// Asks the guard and moves on, or says until when to wait.
    fn judge(
        &mut self,
        head: Head,
        gate: &mut Gate<'_>,
    ) -> Result<Option<(Instant, &'static str)>, CloseCause> {
        let now = gate.clock.now();
        let requests = gate.requests;
        let network = gate.network;
        let verdict = gate.guard.check(
            &head,
            now,
            |kind| requests.expects(kind, now),
            |kind| network.unknown_kind(kind),
        );
        self.stage = match verdict {
            Verdict::Wait(until, name) => {
                self.since = None;
                return Ok(Some((until, name)));
            }
            Verdict::Refuse(refusal) => return Err(fault(refusal)),
            Verdict::Pass(row) => Stage::Charge(row, head),
            Verdict::Skip => Stage::Skip(head.body_len),
            Verdict::Drop(kind) => {
                gate.metrics.dropped.get_or_create(&KindLabel { kind }).inc();
                Stage::Skip(head.body_len)
            }
        };
        self.since = Some(now);
        self.arrived = 0;
        self.buffer.advance(head.head_len);
        Ok(None)
    }
}

fn fault(fault: PeerFault) -> CloseCause {
    CloseCause::Fault(fault.into())
}

/// When the message under way is overdue: none between messages.
fn deadline(since: Option<Instant>, arrived: usize) -> Option<Instant> {
    let earned = Duration::from_secs_f64(arrived as f64 / f64::from(FRAME_PACE));
    since.map(|since| since + FRAME_DEADLINE.min(FRAME_GRACE + earned))
}

/// Waits for bytes until the message they belong to is overdue. The clock is watched here and not by the routine,
/// because a message begins and gains time while the routine waits for the reader.
async fn in_time(
    clock: Clock,
    deadline: Option<Instant>,
    filling: impl Future<Output = Result<u64, CloseCause>>,
) -> Result<u64, CloseCause> {
    let Some(deadline) = deadline else { return filling.await };
    tokio::select! {
        biased;
        filled = filling => filled,
        () = clock.sleep_until(deadline) => Err(fault(overdue())),
    }
}

/// Reads some bytes; the end of the connection is orderly only between messages.
async fn fill(
    read: &mut ReadHalf,
    buffer: &mut BytesMut,
    chunk: usize,
    inside: bool,
) -> Result<u64, CloseCause> {
    buffer.reserve(chunk);
    ended(read.read_buf(buffer).await, inside)
}

async fn fill_limited(
    read: &mut (dyn AsyncRead + Send + Unpin),
    body: &mut BytesMut,
    left: usize,
) -> Result<u64, CloseCause> {
    ended(read.read_buf(&mut body.limit(left)).await, true)
}

fn ended(result: std::io::Result<usize>, inside: bool) -> Result<u64, CloseCause> {
    match result {
        Ok(0) if inside => Err(CloseCause::Broken("closed inside a message".into())),
        Ok(0) => Err(CloseCause::PeerClosed),
        Ok(n) => Ok(n as u64),
        Err(error) => Err(cause_of(&error)),
    }
}

/// The fault of a message that did not come to its end.
fn overdue() -> PeerFault {
    let detail = format!(
        "a message stood still for {} s, or was not complete {} s after its head",
        FRAME_GRACE.as_secs(),
        FRAME_DEADLINE.as_secs()
    );
    PeerFault::close(PeerFaultKind::Silent, detail)
}
