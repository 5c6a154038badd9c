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
//! ends for exactly one cause, the first one. Whatever way it ends, by return, cancellation or panic, dropping it
//! gives back its session slot, its lanes' farewells, its frames' bytes and, in all but a panic, ends each open
//! request with the cause.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use rookery_base::{ByteBudget, CloseCause, Fault, Frame, PeerFaultKind};
use rookery_observe::metrics::{KindLabel, Message};
use rookery_runtime::{Clock, Env, Instant, OnPanic, Ticket};
use tokio::sync::mpsc;

use crate::kinds::Guard;
use crate::reader::{FrameReader, Gate, Incoming, overdue};
use crate::registry::SessionEnd;
use crate::requests::Match;
use crate::session::{Closer, Mail, PeerHandle};
use crate::{
    Answer, Command, End, Established, Flow, KindTable, Network, Outbox, Pipe, Role, Service, Until, writer,
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

/// Why reading waits.
#[derive(Debug, Clone, Copy)]
struct Parked {
    /// The pipe that has no room, or none: the peer is over a rate.
    pipe: Option<usize>,
    until: Until,
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
    parked: Option<Parked>,
    slot: Ticket<SessionEnd>,
}

/// What woke the routine.
enum Event {
    Closed,
    Stopping,
    Mail(Option<Mail>),
    Read(Result<Incoming, CloseCause>),
    Room,
    Due,
}

/// Runs a session to its end. The slot comes back with the cause and the ledger.
pub(crate) async fn run(start: Start) {
    let Start { env, network, table, established, admitted, budget, handle, mail, slot } = start;
    let Established { facts, link, read, write, read_ahead } = established;
    let queue = Arc::default();
    let closer = handle.closer.clone();
    env.scope.spawn_to_end(
        "writer",
        OnPanic::EndScope,
        writer::run(
            env.clone(),
            Arc::clone(&queue),
            link.writer,
            write,
            table.clone(),
            Arc::clone(&handle.stats),
            closer.clone(),
        ),
    );
    let services: &[Arc<dyn Service>] = network.services();
    let pipes = services
        .iter()
        .enumerate()
        .map(|(index, service)| admitted[index].then(|| service.pipe(&facts, handle.for_service(index))));
    let pipes = pipes.collect();
    let outbox = Outbox::new(env.clone(), table.clone(), queue, Arc::clone(&handle.stats), handle.generation);
    let mut routine = Routine {
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
        parked: None,
        slot,
    };
    // A reactor that keeps the handle must not keep the mailbox open past the session.
    drop(handle);
    let cause = routine.serve().await;
    routine.end(cause);
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
    /// off the node's own work, and before timers, whose lateness is checked on every turn.
    async fn wait(&mut self, due: Option<Instant>) -> Event {
        let mut gate = Gate {
            guard: &mut self.guard,
            requests: &self.outbox.requests,
            network: &*self.network,
            budget: &self.budget,
            clock: self.env.clock,
        };
        let parked = self.parked;
        let pipes = &mut self.pipes;
        tokio::select! {
            biased;
            () = self.closer.closed() => Event::Closed,
            () = self.env.scope.cancelled() => Event::Stopping,
            mail = self.mail.recv() => Event::Mail(mail),
            () = room(pipes, parked), if parked.is_some() => Event::Room,
            read = self.reader.next(&mut gate), if parked.is_none() => Event::Read(read),
            () = until(self.env.clock, due) => Event::Due,
        }
    }

    fn handle(&mut self, event: Event) -> Option<CloseCause> {
        match event {
            Event::Closed => Some(self.closer.cause().cloned().unwrap_or(CloseCause::Shutdown)),
            // A panic in this peer's writer cancels the scope too; the first cause still wins.
            Event::Stopping => Some(self.closer.cause().cloned().unwrap_or(CloseCause::Shutdown)),
            Event::Mail(Some(Mail::Command(service, command))) => self.command(service, command),
            Event::Mail(Some(Mail::Inspect(tell))) => {
                // Whoever asked may have gone.
                let _ = tell.send(self.outbox.ledger.clone());
                None
            }
            Event::Mail(None) => Some(CloseCause::Dropped("the registry let go of the session".into())),
            Event::Read(Ok(Incoming::Frame(row, frame))) => self.frame(row, frame),
            Event::Read(Ok(Incoming::Throttled(until, name))) => {
                self.env.metrics.throttled.get_or_create(&KindLabel { kind: name }).inc();
                self.park(Parked { pipe: None, until: Until::Time(until) });
                None
            }
            Event::Read(Err(cause)) => Some(cause),
            Event::Room => {
                self.unpark();
                None
            }
            Event::Due => None,
        }
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

    /// The next thing that is due: a pipe's timer, a request's or a message's deadline, the end of a timed park.
    fn due(&self) -> Option<Instant> {
        let timers = self.pipes.iter().flatten().filter_map(|pipe| pipe.timer());
        let parked = match self.parked {
            Some(Parked { until: Until::Time(at), .. }) => Some(at),
            _ => None,
        };
        // While reading is parked the rest of a message cannot come.
        let message = self.reader.deadline().filter(|_| self.parked.is_none());
        timers.chain(self.outbox.requests.next_deadline()).chain(parked).chain(message).min()
    }

    fn run_due(&mut self, now: Instant) -> Option<CloseCause> {
        if matches!(self.parked, Some(Parked { until: Until::Time(at), .. }) if at <= now) {
            self.unpark();
        }
        if self.parked.is_none() && self.reader.deadline().is_some_and(|at| at <= now) {
            return Some(CloseCause::Fault(overdue().into()));
        }
        while let Some((key, service)) = self.outbox.requests.expire(now) {
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
                self.park(Parked { pipe: Some(service), until });
                None
            }
            Flow::Close(cause) => Some(cause),
        }
    }

    fn park(&mut self, parked: Parked) {
        if self.parked.replace(parked).is_none() {
            self.env.metrics.parked_peers.inc();
            self.outbox.stats.parked.store(true, Relaxed);
            self.env.trace("park", self.outbox.generation.0, 0, 0, "parked");
        }
    }

    fn unpark(&mut self) {
        if self.parked.take().is_some() {
            self.env.metrics.parked_peers.dec();
            self.outbox.stats.parked.store(false, Relaxed);
            self.env.trace("park", self.outbox.generation.0, 0, 0, "unparked");
        }
    }

    /// The orderly end: the first cause wins, every open request gets it, then every pipe, then the slot.
    fn end(mut self, cause: CloseCause) {
        self.closer.close(cause.clone());
        let cause = self.closer.cause().cloned().unwrap_or(cause);
        if let CloseCause::Fault(Fault::Peer(fault)) = &cause
            && self.outbox.ledger.entries().last().is_none_or(|entry| entry.what != fault.to_string())
        {
            // Faults that the engine found (framing, sizes, rates) have not been written down by a pipe.
            let _ = self.outbox.ledger.fault(self.env.clock.unix(), fault);
        }
        self.outbox.note(format!("closed: {cause}"));
        while let Some((key, service)) = self.outbox.requests.drain() {
            self.outbox.ended(&key, "gone");
            // What the pipe wants next no longer matters.
            let _ = self.answer(service, Answer { key, end: End::Gone(cause.clone()) });
        }
        for pipe in self.pipes.iter_mut().flatten() {
            pipe.on_close(&cause);
        }
        self.slot.cause = cause;
        self.slot.ledger = std::mem::take(&mut self.outbox.ledger);
    }
}

impl Drop for Routine {
    fn drop(&mut self) {
        self.unpark();
        self.outbox.queue.close();
        // In a panic nobody has set a cause yet.
        self.closer.close(CloseCause::Panic);
    }
}

/// Ready when the parked pipe has room; pending for a timed park, which is due by the clock.
async fn room(pipes: &mut [Option<Box<dyn Pipe>>], parked: Option<Parked>) {
    let pipe = match parked {
        Some(Parked { pipe: Some(service), until: Until::Room }) => pipes[service].as_mut(),
        _ => None,
    };
    match pipe {
        Some(pipe) => poll_fn(|cx| pipe.poll_room(cx)).await,
        None => std::future::pending().await,
    }
}

async fn until(clock: Clock, due: Option<Instant>) {
    match due {
        Some(due) => clock.sleep_until(due).await,
        None => std::future::pending().await,
    }
}
