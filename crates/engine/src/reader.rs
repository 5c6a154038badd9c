//! Reads messages off a connection: head, guard, budget, body.
//!
//! Reading can be cut short at every await (the routine does so whenever something more urgent comes) and goes on
//! where it was. A body's bytes are charged to the budgets before it is read, and its memory grows with the bytes
//! that have arrived: a peer that announces much and sends little costs little.

use std::future::poll_fn;
use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};
use rookery_base::{ByteBudget, Charge, CloseCause, Frame, PeerFault, PeerFaultKind};
use rookery_runtime::{Clock, Instant};
use rookery_transport::ReadHalf;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::kinds::{Guard, Verdict};
use crate::requests::RequestTable;
use crate::{Deframe, Head, Network};

/// Read at a time when no large body is under way: several small messages, little memory per idle peer.
const CHUNK: usize = 2048;
/// First piece of memory for a large body, doubled as its bytes arrive.
const BODY_CHUNK: usize = 64 * 1024;
/// Time for one message once its head has come: 8 MB at the slowest line worth keeping (1 Mbit/s) take 64 s.
pub(crate) const FRAME_DEADLINE: Duration = Duration::from_secs(90);

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
}

pub(crate) struct FrameReader {
    read: ReadHalf,
    link: Box<dyn Deframe>,
    buffer: BytesMut,
    stage: Stage,
    /// Since when the current message is under way, for its deadline; not while we wait for our own budgets.
    since: Option<Instant>,
    /// Bytes that were read, ever.
    pub total: u64,
}

impl FrameReader {
    pub fn new(read: ReadHalf, link: Box<dyn Deframe>, read_ahead: BytesMut) -> Self {
        Self { read, link, buffer: read_ahead, stage: Stage::Head, since: None, total: 0 }
    }

    /// When the message under way is overdue.
    pub fn deadline(&self) -> Option<Instant> {
        self.since.map(|since| since + FRAME_DEADLINE)
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
                        self.total +=
                            fill(&mut self.read, &mut self.buffer, CHUNK, self.since.is_some()).await?;
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
                    self.stage = Stage::Body(row, head, charge, body);
                }
                Stage::Body(_, head, _, body) if body.len() < head.body_len => {
                    let left = head.body_len - body.len();
                    let chunk = left.min(body.len().max(BODY_CHUNK));
                    body.reserve(chunk);
                    self.total += fill_limited(&mut self.read, body, left).await?;
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
                    if *left > 0 {
                        self.total += fill(&mut self.read, &mut self.buffer, CHUNK, true).await?;
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
        let verdict =
            gate.guard.check(&head, now, |kind| requests.expects(kind), |kind| network.unknown_kind(kind));
        self.stage = match verdict {
            Verdict::Wait(until, name) => return Ok(Some((until, name))),
            Verdict::Refuse(refusal) => return Err(fault(refusal)),
            Verdict::Pass(row) => Stage::Charge(row, head),
            Verdict::Skip => Stage::Skip(head.body_len),
        };
        self.since = Some(now);
        self.buffer.advance(head.head_len);
        Ok(None)
    }
}

fn fault(fault: PeerFault) -> CloseCause {
    CloseCause::Fault(fault.into())
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
        Err(error) => Err(CloseCause::Broken(error.to_string().into())),
    }
}

/// The fault of a message that did not come to its end.
pub(crate) fn overdue() -> PeerFault {
    PeerFault::close(
        PeerFaultKind::Silent,
        format!("a message was not complete {} s after its head", FRAME_DEADLINE.as_secs()),
    )
}
