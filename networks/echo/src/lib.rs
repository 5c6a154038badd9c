//! The smallest network: copy it to begin one of your own.
//!
//! Hello, once each way: `ROOKECHO`, then the sender's identity (32 bytes). Then messages:
//! `kind u8 | length u32 BE | body`.
//!
//! | kind | name | body | bound |
//! |---|---|---|---|
//! | 1 | `say` | number (8 bytes), text | a request; 16 at a time |
//! | 2 | `said` | the same | its answer |
//!
//! The attack is a flood: a peer over 100 `say` a second waits. No proof that an identity is its sender's is provided.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use rookery_base::{CloseCause, Direction, Frame, Kind, PeerFault, PeerFaultKind, PeerId};
use rookery_engine::{
    Answer, Approach, Caps, Command, Deframe, End, Enframe, Established, Flow, Head, KindSpec, LaneName,
    Link, Network, Outbox, Over, PeerFacts, PeerHandle, Pipe, Rate, RequestKey, Role, Service, Until,
};
use rookery_runtime::{BoxFuture, Instant, Lane, LaneOpener, Push};
use rookery_transport::StreamConn;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const MAGIC: &[u8; 8] = b"ROOKECHO";
const SAY: Kind = Kind(1);
const SAID: Kind = Kind(2);
/// The longest text and its number: a page, to show the bound.
const MAX_BODY: u32 = 64 * 1024;
/// For a hello, and for an answer: one round trip on the slowest line.
const DEADLINE: Duration = Duration::from_secs(5);

const fn kind(kind: Kind, name: &'static str, role: Role) -> KindSpec {
    let rate = Rate { per_second: 100.0, burst: 200, over: Over::Wait };
    KindSpec { kind, name, min: 8, max: MAX_BODY, role, rate, lane: LaneName::Answer, needs: Caps::NONE }
}

const KINDS: [KindSpec; 2] =
    [kind(SAY, "say", Role::Request(16)), kind(SAID, "said", Role::Answer { to: SAY, unasked: MAX_BODY })];

/// What the owner of an [`Echo`] gets in its mailbox.
#[derive(Debug)]
pub enum Heard {
    /// A peer is there; say something to it with [`say`].
    Up(PeerHandle),
    /// A peer answered.
    Said(PeerHandle, Bytes),
    /// A request ended without an answer.
    Unanswered(&'static str),
    /// A peer is gone.
    Down,
}

/// Says `text` to a peer; the answer comes as [`Heard::Said`]. False when the peer does not keep up or is gone.
pub fn say(peer: &PeerHandle, text: impl Into<Bytes>) -> bool {
    peer.push(Command::new(text.into())) == rookery_engine::session::Pushed::Accepted
}

/// The network.
pub struct Echo([u8; 32], [Arc<dyn Service>; 1]);

impl Echo {
    /// A node with this identity, whose owner listens at `heard`.
    pub fn new(identity: [u8; 32], heard: LaneOpener<Heard>) -> Self {
        Self(identity, [Arc::new(EchoService(heard))])
    }
}

impl Network for Echo {
    fn name(&self) -> &'static str {
        "echo"
    }

    fn local_id(&self) -> Option<PeerId> {
        PeerId::from_bytes(&self.0)
    }

    fn handshake_deadline(&self) -> Duration {
        DEADLINE
    }

    fn handshake(&self, approach: Approach) -> BoxFuture<'_, Result<Established, CloseCause>> {
        Box::pin(async move {
            let StreamConn { remote, mut read, mut write, .. } = approach.conn.into_stream()?;
            let broken = |error: std::io::Error| CloseCause::Broken(error.to_string().into());
            write.write_all(&[MAGIC, &self.0[..]].concat()).await.map_err(broken)?;
            let mut hello = [0; 40];
            read.read_exact(&mut hello).await.map_err(broken)?;
            let wrong = PeerFault::close(PeerFaultKind::WrongNetwork, "the hello is not an echo node's");
            let peer = PeerId::from_bytes(&hello[8..]).filter(|_| hello.starts_with(MAGIC));
            let peer = peer.ok_or_else(|| CloseCause::Fault(wrong.into()))?;
            let facts = PeerFacts::of(peer, remote, approach.direction);
            let link = Link { reader: Box::new(Framing), writer: Box::new(Framing) };
            Ok(Established { facts, link, read, write, read_ahead: BytesMut::new(), mux: None })
        })
    }

    fn services(&self) -> &[Arc<dyn Service>] {
        &self.1
    }
}

struct Framing;

impl Deframe for Framing {
    fn head(&mut self, bytes: &[u8]) -> Result<Option<Head>, PeerFault> {
        let Some(head) = bytes.first_chunk::<5>() else { return Ok(None) };
        let body_len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        Ok(Some(Head { kind: Kind(u16::from(head[0])), head_len: 5, body_len }))
    }
}

impl Enframe for Framing {
    fn frame(&mut self, kind: Kind, body: &[u8], out: &mut BytesMut) {
        out.put_u8(kind.0 as u8);
        out.put_u32(body.len() as u32);
        out.put_slice(body);
    }
}

struct EchoService(LaneOpener<Heard>);

impl Service for EchoService {
    fn name(&self) -> &'static str {
        "echo"
    }

    fn kinds(&self) -> &[KindSpec] {
        &KINDS
    }

    fn pipe(&self, facts: &PeerFacts, handle: PeerHandle) -> Box<dyn Pipe> {
        let number = u64::from(facts.direction == Direction::Inbound);
        Box::new(EchoPipe { lane: self.0.open(Heard::Down), handle, number })
    }
}

struct EchoPipe {
    lane: Option<Lane<Heard>>,
    handle: PeerHandle,
    number: u64,
}

impl EchoPipe {
    fn tell(&self, heard: Heard, bytes: usize) -> Flow {
        match self.lane.as_ref().map(|lane| (lane.push(heard, bytes), lane.has_room())) {
            // Frames come only while there is room, but many requests can end at once.
            Some((Push::Full(_), _)) => Flow::Close(CloseCause::Dropped("its owner does not keep up".into())),
            Some((_, false)) => Flow::Park(Until::Room),
            _ => Flow::Continue,
        }
    }
}

fn key_of(body: &[u8]) -> RequestKey {
    RequestKey::number(SAY, u64::from_be_bytes(body.first_chunk().copied().unwrap_or_default()))
}

impl Pipe for EchoPipe {
    fn on_start(&mut self, _now: Instant, _out: &mut Outbox) -> Flow {
        self.tell(Heard::Up(self.handle.clone()), 0)
    }

    fn key(&self, frame: &Frame) -> Option<RequestKey> {
        Some(key_of(&frame.body))
    }

    fn on_frame(&mut self, _now: Instant, frame: Frame, out: &mut Outbox) -> Flow {
        out.send(SAID, frame.body);
        Flow::Continue
    }

    fn on_answer(&mut self, _now: Instant, answer: Answer, out: &mut Outbox) -> Flow {
        match answer.end {
            End::Answered(frame, took) => {
                out.rtt(took);
                let text = frame.body.slice(8..);
                let bytes = text.len();
                self.tell(Heard::Said(self.handle.clone(), text), bytes)
            }
            end => self.tell(Heard::Unanswered(end.label()), 0),
        }
    }

    fn on_command(&mut self, _now: Instant, command: Command, out: &mut Outbox) -> Flow {
        let Some(text) = command.take::<Bytes>() else { return Flow::Continue };
        self.number += 2;
        let body = [&self.number.to_be_bytes()[..], &text].concat();
        match out.request(key_of(&body), body, DEADLINE) {
            Ok(()) => Flow::Continue,
            Err(_) => self.tell(Heard::Unanswered("refused"), 0),
        }
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.lane.as_ref().map_or(Poll::Ready(()), |lane| lane.poll_room(cx))
    }
}
