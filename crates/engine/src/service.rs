//! The protocol seam: services, and their per-peer halves, the pipes.
//!
//! A pipe is synchronous and does no I/O: it is given frames, answers, commands and timers, one at a time, by its
//! peer's routine, and puts what is to be sent into the [`Outbox`]. What several peers share lives in a reactor
//! behind a fair mailbox, to which the pipe holds its own lane.

use std::any::Any;
use std::task::{Context, Poll};
use std::time::Duration;

use rookery_base::{CloseCause, Frame};
use rookery_runtime::Instant;

use crate::session::PeerHandle;
use crate::{KindSpec, Outbox, PeerFacts, RequestKey};

/// A protocol on a network's sessions.
pub trait Service: Send + Sync {
    /// Its name, for views and traces.
    fn name(&self) -> &'static str;

    /// The message kinds that are its.
    fn kinds(&self) -> &[KindSpec];

    /// Whether it wants this peer.
    fn admit(&self, _facts: &PeerFacts) -> Admit {
        Admit::Yes
    }

    /// Its half for this peer. The handle lets a reactor push commands to the pipe.
    fn pipe(&self, facts: &PeerFacts, handle: PeerHandle) -> Box<dyn Pipe>;
}

/// A service's verdict on a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admit {
    /// The service runs on this session.
    Yes,
    /// The session goes on without the service; its kinds are skipped.
    Without,
    /// The session ends, for this reason.
    No(&'static str),
}

/// One service's half for one peer.
pub trait Pipe: Send {
    /// The session is registered and can be written to.
    fn on_start(&mut self, _now: Instant, _out: &mut Outbox) -> Flow {
        Flow::Continue
    }

    /// The request that this frame, of a kind declared as an answer, answers. `None` makes it an ordinary frame.
    fn key(&self, _frame: &Frame) -> Option<RequestKey> {
        None
    }

    /// A message.
    fn on_frame(&mut self, now: Instant, frame: Frame, out: &mut Outbox) -> Flow;

    /// The end of a request of this pipe. Each request ends exactly once.
    fn on_answer(&mut self, _now: Instant, _answer: Answer, _out: &mut Outbox) -> Flow {
        Flow::Continue
    }

    /// A command of the service's reactor.
    fn on_command(&mut self, _now: Instant, _command: Command, _out: &mut Outbox) -> Flow {
        Flow::Continue
    }

    /// When [`on_timer`](Self::on_timer) is due next.
    fn timer(&self) -> Option<Instant> {
        None
    }

    /// The time that [`timer`](Self::timer) gave has come.
    fn on_timer(&mut self, _now: Instant, _out: &mut Outbox) -> Flow {
        Flow::Continue
    }

    /// Ready when a pipe that parked for [`Until::Room`] can take frames again.
    fn poll_room(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    /// The session has ended; the pipe is dropped next. Not called when the routine panicked.
    fn on_close(&mut self, _cause: &CloseCause) {}
}

/// What a pipe wants next.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub enum Flow {
    /// Go on.
    Continue,
    /// Stop reading from this peer for now. Writing, commands and timers go on.
    Park(Until),
    /// End the session.
    Close(CloseCause),
}

/// When a parked peer is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// At this time.
    Time(Instant),
    /// When [`Pipe::poll_room`] is ready.
    Room,
}

/// A command of a service's reactor to a pipe of the same service; the two agree on its type.
pub struct Command(Box<dyn Any + Send>);

impl Command {
    /// Wraps a command.
    pub fn new<T: Send + 'static>(command: T) -> Self {
        Self(Box::new(command))
    }

    /// The command, if it is a `T`.
    pub fn take<T: 'static>(self) -> Option<T> {
        self.0.downcast().ok().map(|command| *command)
    }
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Command")
    }
}

/// The end of a request.
#[derive(Debug)]
pub struct Answer {
    /// Which request.
    pub key: RequestKey,
    /// How it ended.
    pub end: End,
}

/// How a request ended.
#[derive(Debug)]
pub enum End {
    /// The peer answered, after this time.
    Answered(Frame, Duration),
    /// The deadline passed.
    TimedOut,
    /// The session ended first.
    Gone(CloseCause),
}

impl End {
    /// A stable label for metrics.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Answered(..) => "answered",
            Self::TimedOut => "timed_out",
            Self::Gone(_) => "gone",
        }
    }
}
