//! One supervised routine per peer. It owns everything that is that peer's: reading, the pipes and their state, the
//! requests, the ledger. Nobody else touches them.
//!
//! ```text
//!        +--------------------------- routine ---------------------------+
//!  bytes | reader -> guard -> budget -> pipe.on_frame / pipe.on_answer   |--> fair mailbox lane -> reactor
//!        |              commands, deadlines, timers -> pipe.on_...       |<-- commands
//!        +---------------------- outbox -> writer task ------------------+--> bytes
//! ```
//!
//! It never awaits a reactor: a pipe without room parks *reading*, while commands, deadlines and writing go on. It
//! ends for exactly one cause, the first one; where its stream has ended, what is said of that within a second, as the connection's own
//! goodbye. Whatever way it ends, by return, cancellation or panic, dropping it
//! gives back its session slot with cause and ledger, its lanes' farewells and its frames' bytes. Each open request
//! ends with the cause; after a panic it is only counted, because no pipe can be told.

use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;

use rookery_base::{ByteBudget, CloseCause, Fault, Frame, PeerFaultKind};
use rookery_observe::metrics::{KindLabel, Message};
use rookery_runtime::{Clock, Env, Instant, OnPanic, Ticket};
use rookery_transport::ReadHalf;
use tokio::sync::{mpsc, oneshot};

use crate::kinds::Guard;
use crate::park::Parks;
use crate::reader::{FrameReader, Gate, Incoming};
use crate::registry::SessionEnd;
use crate::requests::Match;
use crate::session::{Closer, MAIL, Mail, PeerHandle};
use crate::streams::{Hangup, Line, hear_out};
use crate::{
    Answer, Command, End, Established, Flow, KindTable, Network, Outbox, Pipe, Role, Service, StreamPeer,
    Until, streams, writer,
};

/// What a routine is started with.
pub(crate) struct Start {
    pub env: Env,
    pub network: Arc<dyn Network>,
    pub table: KindTable,
    pub established: Established,
    pub admitted: Vec<bool>,
    pub budget: ByteBudget,
    pub handle: PeerHandle,
    pub mail: mpsc::Receiver<Mail>,
    pub slot: Ticket<SessionEnd>,
}

struct Routine {
    env: Env,
    network: Arc<dyn Network>,
    table: KindTable,
    reader: FrameReader,
    guard: Guard,
    budget: ByteBudget,
    pipes: Vec<Option<Box<dyn Pipe>>>,
    outbox: Outbox,
    mail: mpsc::Receiver<Mail>,
    closer: Closer,
    parks: Parks,
    /// Commands taken since something was read.
    commands: usize,
    /// Takes what is not read any more, where the connection has an end of its own.
    leave: Option<oneshot::Sender<ReadHalf>>,
    slot: Ticket<SessionEnd>,
}

/// What woke the routine.
enum Event {
    Closed,
    Stopping,
    Mail(Option<Mail>),
    Read(Result<Incoming, CloseCause>),
    Room(usize),
    Due,
}

/// Runs a session to its end and says why it ended. The slot comes back with the cause and the ledger.
pub(crate) fn run(start: Start) -> impl Future<Output = CloseCause> {
    // Made before there is a future, which would keep room for all that it was made of as long as the session lasts.
    let mut routine = begin(start);
    async move {
        let cause = routine.serve().await;
        routine.hear_out(&cause).await;
        routine.end(cause)
    }
}

/// Makes a routine, and starts what runs beside it.
fn begin(start: Start) -> Routine {
    let Start { env, network, table, established, admitted, budget, handle, mail, mut slot } = start;
    // What is told of a routine that ends without saying anything: it can only have panicked.
    slot.cause = CloseCause::Panic;
    let Established { facts, link, read, write, read_ahead, mux } = established;
    let queue = Arc::default();
    let closer = handle.closer.clone();
    // Before the writer and the pipes: if making a pipe panics, its drop ends the writer.
    let outbox = Outbox::new(
        env.clone(),
        table.clone(),
        Arc::clone(&queue),
        Arc::clone(&handle.stats),
        handle.generation,
    );
    let hangup = mux.as_ref().map(|mux| Hangup::new(Arc::clone(mux), Arc::clone(&network), closer.clone()));
    let (hangup, leave) = hangup.unzip();
    let writing = writer::run(
        env.clone(),
        queue,
        link.writer,
        Line { hangup, write },
        table.clone(),
        Arc::clone(&handle.stats),
        closer.clone(),
    );
    env.scope.spawn_to_end("writer", OnPanic::EndScope, writing);
    if let Some(mux) = mux {
        let peer = StreamPeer { facts: facts.clone(), handle: handle.clone(), env: env.clone() };
        env.scope.spawn("streams", OnPanic::EndScope, streams::run(mux, network.streams(), peer));
    }
    let services: &[Arc<dyn Service>] = network.services();
    let pipes = services
        .iter()
        .enumerate()
        .map(|(index, service)| admitted[index].then(|| service.pipe(&facts, handle.for_service(index))));
    let pipes = pipes.collect();
    Routine {
        reader: FrameReader::new(read, link.reader, read_ahead),
        guard: Guard::new(table.clone(), facts.caps, admitted),
        env,
        network,
        table,
        budget,
        pipes,
        outbox,
        mail,
        closer,
        parks: Parks::default(),
        commands: 0,
        leave,
        slot,
    }
    // The handle ends here: kept, it would keep the mailbox open past the session.
}

impl Routine {
    async fn serve(&mut self) -> CloseCause {
        if let Some(cause) = self.start_pipes() {
            return cause;
        }
        loop {
            let now = self.env.clock.now();
            let due = self.due();
            if due.is_some_and(|due| due <= now)
                && let Some(cause) = self.run_due(now)
            {
                return cause;
            }
            let event = self.wait(self.due()).await;
            if let Some(cause) = self.handle(event) {
                return cause;
            }
            if let Some(cause) = self.outbox.closing.take() {
                return cause;
            }
        }
    }

    /// Waits for the next event; the more urgent first. Reading comes after commands, so that a flood cannot hold
    /// off the node's own work, and before timers, whose lateness is checked on every turn. After a mailbox full of
    /// commands reading goes first, so that commands without end cannot hold off the peer either. While a lane fills
    /// the writer has a turn before each message: many small requests in one packet must not fill it on their own.
    async fn wait(&mut self, due: Option<Instant>) -> Event {
        let mut gate = Gate {
            guard: &mut self.guard,
            requests: &self.outbox.requests,
            network: &*self.network,
            budget: &self.budget,
            clock: self.env.clock,
            metrics: &self.env.metrics,
        };
        let parked = self.parks.any();
        let (parks, pipes) = (&self.parks, &mut self.pipes);
        let (reader, crowded) = (&mut self.reader, self.outbox.queue.crowded());
        let read = async {
            if crowded {
                step_back().await;
            }
            reader.next(&mut gate).await
        };
        let (mail, after_reading) = (&mut self.mail, self.commands >= MAIL);
        let mail = async {
            if after_reading {
                step_back().await;
            }
            mail.recv().await
        };
        tokio::select! {
            biased;
            () = self.closer.closed() => Event::Closed,
            () = self.env.scope.cancelled() => Event::Stopping,
            mail = mail => Event::Mail(mail),
            service = parks.room(pipes), if parked => Event::Room(service),
            read = read, if !parked => Event::Read(read),
            () = until(self.env.clock, due) => Event::Due,
        }
    }

    fn handle(&mut self, event: Event) -> Option<CloseCause> {
        match event {
            Event::Closed | Event::Stopping => {
                Some(self.closer.cause().cloned().unwrap_or_else(|| self.unsaid()))
            }
            Event::Mail(Some(Mail::Command(service, command))) => {
                self.commands += 1;
                self.command(service, command)
            }
            Event::Mail(Some(Mail::Inspect(tell))) => {
                // Whoever asked may have gone.
                let _ = tell.send(self.outbox.ledger.clone());
                None
            }
            Event::Mail(None) => Some(CloseCause::Dropped("the registry let go of the session".into())),
            Event::Read(Ok(Incoming::Frame(row, frame))) => {
                self.commands = 0;
                self.frame(row, frame)
            }
            Event::Read(Ok(Incoming::Throttled(until, name))) => {
                self.env.metrics.throttled.get_or_create(&KindLabel { kind: name }).inc();
                let now = self.env.clock.now();
                self.park(|| format!("the rate of {name}"), |parks| parks.rate(until, now));
                None
            }
            Event::Read(Err(cause)) => Some(cause),
            Event::Room(service) => {
                self.parks.has_room(service);
                self.unpark_if_free();
                None
            }
            Event::Due => None,
        }
    }

    /// Why the scope has ended, where nobody said: a panic in another task of this peer, its writer or a stream's handler, ends
    /// it as the node's stop does, and is our own fault.
    fn unsaid(&self) -> CloseCause {
        if self.env.scope.ended_by_panic() { CloseCause::Panic } else { CloseCause::Shutdown }
    }

    fn start_pipes(&mut self) -> Option<CloseCause> {
        let now = self.env.clock.now();
        for service in 0..self.pipes.len() {
            self.outbox.service = service;
            let Some(pipe) = &mut self.pipes[service] else { continue };
            let flow = pipe.on_start(now, &mut self.outbox);
            if let Some(cause) = self.follow(service, flow) {
                return Some(cause);
            }
        }
        self.outbox.closing.take()
    }

    fn frame(&mut self, row: usize, frame: Frame) -> Option<CloseCause> {
        let now = self.env.clock.now();
        let (spec, service) = (*self.table.spec(row), self.table.service(row));
        let len = frame.body.len() as u64;
        let label = Message { kind: spec.name, direction: "in" };
        self.env.metrics.frames.get_or_create(&label).inc();
        self.env.metrics.frame_bytes.get_or_create(&label).inc_by(len);
        self.outbox.stats.frames_in.fetch_add(1, Relaxed);
        self.outbox.stats.bytes_in.store(self.reader.total, Relaxed);
        self.env.trace("frame_in", self.outbox.generation.0, spec.kind.0, len, spec.name);
        self.outbox.service = service;
        let pipe = self.pipes[service].as_mut()?;
        let key = match spec.role {
            Role::Answer { .. } => pipe.key(&frame),
            _ => None,
        };
        let flow = match key {
            None => pipe.on_frame(now, frame, &mut self.outbox),
            Some(key) => match self.outbox.requests.answer(&key, now) {
                Match::Open(_, asked) => {
                    let took = now.saturating_duration_since(asked);
                    self.outbox.ended(&key, "answered");
                    let kind = KindLabel { kind: spec.name };
                    self.env.metrics.request_seconds.get_or_create(&kind).observe(took.as_secs_f64());
                    pipe.on_answer(now, Answer { key, end: End::Answered(frame, took) }, &mut self.outbox)
                }
                Match::Late => {
                    self.env.metrics.late_answers.inc();
                    self.env.trace("late_answer", self.outbox.generation.0, spec.kind.0, len, "swallowed");
                    Flow::Continue
                }
                Match::Unknown => {
                    let detail = format!("{} of {len} bytes answers nothing that was asked", spec.name);
                    self.outbox.fault(rookery_base::PeerFault::close(PeerFaultKind::Unsolicited, detail))
                }
            },
        };
        let step = self.env.clock.now().saturating_duration_since(now);
        self.env.metrics.pipe_step_seconds.observe(step.as_secs_f64());
        self.follow(service, flow)
    }

    fn command(&mut self, service: usize, command: Command) -> Option<CloseCause> {
        self.outbox.service = service;
        let now = self.env.clock.now();
        let flow = self.pipes.get_mut(service)?.as_mut()?.on_command(now, command, &mut self.outbox);
        self.follow(service, flow)
    }

    /// The next thing that is due: a pipe's timer, a request's deadline, the end of a timed park. A message's deadline
    /// is the reader's.
    fn due(&self) -> Option<Instant> {
        let timers = self.pipes.iter().flatten().filter_map(|pipe| pipe.timer());
        timers.chain(self.outbox.requests.next_deadline()).chain(self.parks.next()).min()
    }

    fn run_due(&mut self, now: Instant) -> Option<CloseCause> {
        self.parks.expire(now);
        self.unpark_if_free();
        // No more than are open now: a pipe that asks again with no time at all does not keep us here.
        for _ in 0..self.outbox.requests.len() {
            let Some((key, service)) = self.outbox.requests.expire(now) else { break };
            self.outbox.ended(&key, "timed_out");
            if let Some(cause) = self.answer(service, Answer { key, end: End::TimedOut }) {
                return Some(cause);
            }
        }
        for service in 0..self.pipes.len() {
            let Some(pipe) = &mut self.pipes[service] else { continue };
            if pipe.timer().is_some_and(|at| at <= now) {
                self.outbox.service = service;
                let flow = pipe.on_timer(now, &mut self.outbox);
                if let Some(cause) = self.follow(service, flow) {
                    return Some(cause);
                }
            }
        }
        self.outbox.closing.take()
    }

    fn answer(&mut self, service: usize, answer: Answer) -> Option<CloseCause> {
        self.outbox.service = service;
        let now = self.env.clock.now();
        let flow = self.pipes.get_mut(service)?.as_mut()?.on_answer(now, answer, &mut self.outbox);
        self.follow(service, flow)
    }

    fn follow(&mut self, service: usize, flow: Flow) -> Option<CloseCause> {
        match flow {
            Flow::Continue => None,
            Flow::Park(until) => {
                let now = self.env.clock.now();
                let name = self.network.services()[service].name();
                let why = || match until {
                    Until::Room => format!("{name} has no room"),
                    Until::Time(_) => format!("{name} waits"),
                };
                self.park(why, |parks| parks.pipe(service, until, now));
                None
            }
            Flow::Close(cause) => Some(cause),
        }
    }

    fn park(&mut self, why: impl FnOnce() -> String, change: impl FnOnce(&mut Parks)) {
        let before = self.parks.any();
        change(&mut self.parks);
        if !before {
            self.outbox.ledger.note_last(self.env.clock.unix(), format!("parked: {}", why()));
            self.env.metrics.parked_peers.inc();
            self.outbox.stats.parked.store(true, Relaxed);
            self.env.trace("park", self.outbox.generation.0, 0, 0, "parked");
        }
    }

    fn unpark_if_free(&mut self) {
        if self.parks.any() {
            return;
        }
        if let Some(since) = self.parks.take_since() {
            // The wait was ours to impose: a message that is half here has not become late by it.
            self.reader.excuse(self.env.clock.now().saturating_duration_since(since));
            self.env.metrics.parked_peers.dec();
            self.outbox.stats.parked.store(false, Relaxed);
            self.env.trace("park", self.outbox.generation.0, 0, 0, "unparked");
        }
    }

    /// Gives a connection that has an end of its own time to say why, when its ordered stream has ended. Whoever asks something of
    /// the session meanwhile is told that it is over.
    async fn hear_out(&mut self, met: &CloseCause) {
        if self.leave.is_some() {
            self.mail.close();
            while self.mail.try_recv().is_ok() {}
            hear_out(&self.env, &self.closer, met).await;
        }
    }

    /// The orderly end: the first cause wins, every open request gets it, the oldest first, then every pipe. What is
    /// common to all ends is in the drop.
    fn end(mut self, cause: CloseCause) -> CloseCause {
        self.closer.close(cause.clone());
        let cause = self.closer.cause().cloned().unwrap_or(cause);
        if let CloseCause::Fault(Fault::Peer(fault)) = &cause
            && self.outbox.ledger.entries().last().is_none_or(|entry| entry.what != fault.to_string())
        {
            // Faults that the engine found (framing, sizes, rates) have not been written down by a pipe.
            let _ = self.outbox.ledger.fault(self.env.clock.unix(), fault);
        }
        while let Some((key, service)) = self.outbox.requests.drain() {
            self.outbox.ended(&key, "gone");
            // What the pipe wants next no longer matters.
            let _ = self.answer(service, Answer { key, end: End::Gone(cause.clone()) });
        }
        for pipe in self.pipes.iter_mut().flatten() {
            pipe.on_close(&cause);
        }
        cause
    }

    /// Drops the pipes one by one. A destructor that panics while another panic unwinds would abort the process; here
    /// it costs what any panic of a pipe costs.
    fn drop_pipes(&mut self) {
        for pipe in self.pipes.drain(..) {
            if let Err(panic) = std::panic::catch_unwind(AssertUnwindSafe(|| drop(pipe))) {
                self.env.scope.record_panic("pipe's drop", &*panic);
            }
        }
    }
}

impl Drop for Routine {
    fn drop(&mut self) {
        self.parks = Parks::default();
        if self.outbox.stats.parked.swap(false, Relaxed) {
            self.env.metrics.parked_peers.dec();
        }
        // In a panic nobody has set a cause yet.
        self.closer.close(CloseCause::Panic);
        let cause = self.closer.cause().cloned().unwrap_or(CloseCause::Panic);
        while let Some((key, _)) = self.outbox.requests.drain() {
            self.outbox.ended(&key, "gone");
        }
        self.drop_pipes();
        self.outbox.note(format!("closed: {cause}"));
        if let Some(leave) = self.leave.take() {
            // The writer has hung up already where it does not take it.
            let _ = leave.send(self.reader.take());
        }
        self.slot.cause = cause;
        self.slot.ledger = std::mem::take(&mut self.outbox.ledger);
    }
}

/// Lets the others of a select be asked first, once.
async fn step_back() {
    let mut stepped = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut stepped, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

async fn until(clock: Clock, due: Option<Instant>) {
    match due {
        Some(due) => clock.sleep_until(due).await,
        None => std::future::pending().await,
    }
}
