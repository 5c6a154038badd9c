//! `message` and `ack`: direct messages under a topic, each of which ends exactly once.
//!
//! ```text
//!  post(peer, topic, payload) -> queued, or why not
//!  send(peer, topic, payload) -> message ........ ack -> Sent::Accepted | NoSubscriber | Busy
//!                                        ........ nothing for 20 s -> Sent::TimedOut
//!                                        ........ the session ends -> Sent::Gone
//!  message -> is anybody subscribed? -> the peer's lane of the application's mailbox -> ack
//! ```
//!
//! `Accepted` says that the message is in the other application's mailbox, not that it was looked at: an answer is
//! another message. Messages of one peer arrive in the order in which they were sent; one that is not acknowledged may
//! or may not have arrived.
//!
//! **When the application does not keep up** with a peer, its lane fills, and that peer is read no further: QUIC pushes
//! back to the sender. After [`PATIENCE`] the peer is read again, so that pings, gossip and answers do not wait for
//! one slow application, and its messages are answered with `busy` until the lane has room.
//!
//! | abuse | what stops it |
//! |---|---|
//! | messages without end | the peer's lane: 8 of them or 256 KiB, and above it the peer waits; no other peer does |
//! | messages under topics that nobody listens to | the rate; each costs an `ack` of 9 bytes, and nothing is kept |
//! | large messages | the bound is checked before the body is read; its bytes are charged to the budgets |
//! | acks of messages that were never sent | unknown ones end the session |
//! | never acknowledging | at most [`OPEN`] messages wait for a peer, and each ends by its deadline |

use std::collections::BTreeSet;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use rookery_base::{Charge, Frame, PeerId};
use rookery_engine::session::Pushed;
use rookery_engine::{
    Answer, Command, End, Flow, KindSpec, LaneName, Outbox, Over, PeerFacts, PeerHandle, Pipe, RequestKey,
    RequestRefused, Role, Service, Until,
};
use rookery_runtime::{Instant, Lane, LaneOpener, Push};
use tokio::sync::{oneshot, watch};

use super::{malformed, rate, spec};
use crate::wire::Topic;
use crate::wire::kind::{ACK, MESSAGE};
use crate::wire::message::{self as wire, Ack, Message, Verdict};

/// How long a message may stay without its `ack`: a full one on a slow line (2 s) behind a lane of others, and the
/// [`PATIENCE`] of the other side.
pub const ACK_WITHIN: Duration = Duration::from_secs(20);
/// Messages that may wait for one peer's `ack`. Half of what a peer's outbox holds in bytes, when all are as large
/// as they may be.
pub const OPEN: u16 = 8;
/// How long a peer whose messages find no room is not read. Well below the silence after which a peer counts as dead,
/// since its pongs wait with its messages.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// What this service declares. A hundred messages a second is a busy conversation, above it the peer waits; what is more
/// than that is a stream's work.
pub const SPECS: [KindSpec; 2] = [
    spec(
        MESSAGE,
        "message",
        (wire::MIN_LEN, wire::MAX_LEN),
        Role::Request(OPEN),
        rate(100.0, 200, Over::Wait),
        LaneName::Answer,
    ),
    spec(
        ACK,
        "ack",
        (wire::ACK_LEN, wire::ACK_LEN),
        Role::Answer { to: MESSAGE, unasked: wire::ACK_LEN as u32 },
        rate(500.0, 1000, Over::Wait),
        LaneName::Control,
    ),
];

/// What the application's mailbox gets.
#[derive(Debug)]
pub enum Mail {
    /// A peer is there.
    Up(PeerId, PeerHandle),
    /// A message of a topic that is subscribed to.
    Message(Received),
    /// A session has ended. The farewell of its lane.
    Down(PeerId, rookery_base::Generation),
}

/// A message that came.
#[derive(Debug)]
pub struct Received {
    /// From whom, as the handshake has proven.
    pub from: PeerId,
    /// On which session; answer there.
    pub peer: PeerHandle,
    /// Under which name.
    pub topic: Topic,
    /// What it says.
    pub payload: Bytes,
    /// What it holds of the byte budgets, until it is dropped.
    pub charge: Charge,
}

/// How a message that was sent has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    /// It is in the peer's application's mailbox, after this time.
    Accepted(Duration),
    /// Nobody there listens to the topic.
    NoSubscriber,
    /// The application there does not keep up; it was not taken.
    Busy,
    /// No answer in time.
    TimedOut,
    /// Not sent, for this reason.
    NotSent(PostError),
    /// The session has ended first.
    Gone,
}

/// Why a message was not queued. Nothing of it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PostError {
    /// There is no session with the peer, or it is ending.
    #[error("not connected to the peer")]
    NotConnected,
    /// As many messages wait for the peer as may.
    #[error("the peer's queue is full: {OPEN} messages wait for it already")]
    QueueFull,
    /// The payload is over its bound.
    #[error("a payload of {0} bytes, the most is {most}", most = wire::MAX_PAYLOAD)]
    TooLong(usize),
}

/// A message on its way. Dropping it does not stop the message.
#[derive(Debug)]
pub struct Receipt(oneshot::Receiver<Sent>);

impl Receipt {
    /// How the message has ended, once it has: [`ACK_WITHIN`] at most.
    pub async fn outcome(self) -> Sent {
        self.0.await.unwrap_or(Sent::Gone)
    }
}

/// A message to be sent, as the pipe's command.
struct Send {
    topic: Topic,
    payload: Bytes,
    queued: oneshot::Sender<Result<Receipt, PostError>>,
}

/// Queues a message and says so: it waits for the peer's routine alone, not for the peer. `peer` is a handle of this service's,
/// as [`Mail::Up`] brings it.
///
/// # Errors
/// When it is not queued.
pub async fn post(peer: &PeerHandle, topic: Topic, payload: Bytes) -> Result<Receipt, PostError> {
    if payload.len() > wire::MAX_PAYLOAD {
        return Err(PostError::TooLong(payload.len()));
    }
    let (queued, verdict) = oneshot::channel();
    match peer.push(Command::new(Send { topic, payload, queued })) {
        Pushed::Accepted => verdict.await.unwrap_or(Err(PostError::NotConnected)),
        Pushed::Full => Err(PostError::QueueFull),
        Pushed::Gone => Err(PostError::NotConnected),
    }
}

/// Sends a message and waits for its end. Dropping the future does not stop the message.
pub async fn send(peer: &PeerHandle, topic: Topic, payload: Bytes) -> Sent {
    match post(peer, topic, payload).await {
        Ok(receipt) => receipt.outcome().await,
        Err(PostError::NotConnected) => Sent::Gone,
        Err(why @ (PostError::QueueFull | PostError::TooLong(_))) => Sent::NotSent(why),
    }
}

/// The topics that the application listens to; changed by whoever holds the other end.
pub type Subscriptions = watch::Receiver<Arc<BTreeSet<Topic>>>;

/// The service.
pub struct Messages {
    topics: Subscriptions,
    mail: LaneOpener<Mail>,
}

impl Messages {
    /// Brings the application what comes under these topics.
    pub const fn new(topics: Subscriptions, mail: LaneOpener<Mail>) -> Self {
        Self { topics, mail }
    }
}

impl Service for Messages {
    fn name(&self) -> &'static str {
        "messages"
    }

    fn kinds(&self) -> &[KindSpec] {
        &SPECS
    }

    fn pipe(&self, facts: &PeerFacts, handle: PeerHandle) -> Box<dyn Pipe> {
        Box::new(MessagesPipe {
            lane: self.mail.open(Mail::Down(facts.peer, handle.generation)),
            topics: self.topics.clone(),
            peer: facts.peer,
            handle,
            waiting: Vec::new(),
            number: 0,
            patience: None,
            impatient: false,
        })
    }
}

struct MessagesPipe {
    /// None when all lanes are taken: every message is answered with `busy`.
    lane: Option<Lane<Mail>>,
    topics: Subscriptions,
    peer: PeerId,
    handle: PeerHandle,
    /// Who waits for which `ack`; at most [`OPEN`].
    waiting: Vec<(RequestKey, oneshot::Sender<Sent>)>,
    /// Messages sent.
    number: u64,
    /// Until when the peer is not read for want of room.
    patience: Option<Instant>,
    /// The patience is used up; the lane has not had room since.
    impatient: bool,
}

impl MessagesPipe {
    fn judge(&mut self, message: Message, charge: Charge) -> Verdict {
        if !self.topics.borrow().contains(&message.topic) {
            return Verdict::NoSubscriber;
        }
        let Some(lane) = &self.lane else { return Verdict::Busy };
        let bytes = message.payload.len();
        let received = Received {
            from: self.peer,
            peer: self.handle.clone(),
            topic: message.topic,
            payload: message.payload,
            charge,
        };
        match lane.push(Mail::Message(received), bytes) {
            Push::Accepted => {
                self.impatient = false;
                Verdict::Accepted
            }
            Push::Full(_) | Push::Closed(_) => Verdict::Busy,
        }
    }

    fn park_if_full(&mut self, now: Instant) -> Flow {
        let full = self.lane.as_ref().is_some_and(|lane| !lane.has_room());
        if !full || self.impatient {
            return Flow::Continue;
        }
        self.patience = Some(now + PATIENCE);
        Flow::Park(Until::Room)
    }
}

impl Pipe for MessagesPipe {
    fn on_start(&mut self, now: Instant, _out: &mut Outbox) -> Flow {
        if let Some(lane) = &self.lane {
            // The first mail of an empty lane has room.
            let _: Push<Mail> = lane.push(Mail::Up(self.peer, self.handle.clone()), 0);
        }
        self.park_if_full(now)
    }

    fn key(&self, frame: &Frame) -> Option<RequestKey> {
        Ack::decode(&frame.body).ok().map(|ack| RequestKey::number(MESSAGE, ack.number))
    }

    fn on_frame(&mut self, now: Instant, frame: Frame, out: &mut Outbox) -> Flow {
        let (kind, body, charge) = frame.into_parts();
        if kind == ACK {
            // An `ack` with its key goes to `on_answer`; what comes here is none.
            return Ack::decode(&body).map_or_else(|error| malformed("ack", error, out), |_| Flow::Continue);
        }
        let message = match Message::decode(&body) {
            Ok(message) => message,
            Err(error) => return malformed("message", error, out),
        };
        let number = message.number;
        let verdict = self.judge(message, charge);
        out.send(ACK, Ack { number, verdict }.encode());
        self.park_if_full(now)
    }

    fn on_answer(&mut self, _now: Instant, answer: Answer, _out: &mut Outbox) -> Flow {
        let Some(at) = self.waiting.iter().position(|(key, _)| *key == answer.key) else {
            return Flow::Continue;
        };
        let (_, tell) = self.waiting.swap_remove(at);
        let sent = match answer.end {
            End::Answered(frame, took) => match Ack::decode(&frame.body).map(|ack| ack.verdict) {
                Ok(Verdict::Accepted) => Sent::Accepted(took),
                Ok(Verdict::NoSubscriber) => Sent::NoSubscriber,
                // It had a key, so it decodes.
                Ok(Verdict::Busy) | Err(_) => Sent::Busy,
            },
            End::TimedOut => Sent::TimedOut,
            End::Gone(_) => Sent::Gone,
        };
        // Who asked may have lost interest.
        let _ = tell.send(sent);
        Flow::Continue
    }

    fn on_command(&mut self, _now: Instant, command: Command, out: &mut Outbox) -> Flow {
        let Some(Send { topic, payload, queued }) = command.take() else { return Flow::Continue };
        self.number += 1;
        let key = RequestKey::number(MESSAGE, self.number);
        let message = Message { number: self.number, topic, payload };
        let verdict = match out.request(key, message.encode(), ACK_WITHIN) {
            Ok(()) => {
                let (tell, told) = oneshot::channel();
                self.waiting.push((key, tell));
                Ok(Receipt(told))
            }
            Err(RequestRefused::TooMany) => Err(PostError::QueueFull),
            // The session ends of it.
            Err(RequestRefused::AlreadyOpen | RequestRefused::OutboxFull) => Err(PostError::NotConnected),
        };
        // Who asked may have lost interest; the message goes its way.
        let _ = queued.send(verdict);
        Flow::Continue
    }

    fn timer(&self) -> Option<Instant> {
        self.patience
    }

    fn on_timer(&mut self, now: Instant, out: &mut Outbox) -> Flow {
        self.patience = None;
        if self.lane.as_ref().is_none_or(Lane::has_room) {
            return Flow::Continue;
        }
        self.impatient = true;
        out.note("the application does not keep up: messages are answered with busy");
        // Takes the place of the wait for room, and is over at once.
        Flow::Park(Until::Time(now))
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let room = self.lane.as_ref().map_or(Poll::Ready(()), |lane| lane.poll_room(cx));
        if room.is_ready() {
            self.patience = None;
        }
        room
    }
}

#[cfg(test)]
mod tests;
