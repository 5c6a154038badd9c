//! The server: an engine with one service, whose one reactor all peers share.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use rookery_base::{ByteBudget, CloseCause, Frame, Kind, PeerId};
use rookery_echo::Echo;
use rookery_engine::book::{Book, BookConfig};
use rookery_engine::dial::{DialConfig, addresses};
use rookery_engine::{
    Approach, Caps, Command, Engine, EngineConfig, Established, Flow, KindSpec, LaneName, Limits, Network,
    Outbox, Over, PeerFacts, PeerHandle, Pipe, Rate, Role, Service, Until,
};
use rookery_runtime::{BoxFuture, Env, FairMailbox, Instant, Lane, LaneLimits, LaneOpener, OnPanic, Push};
use rookery_transport::tcp::Tcp;
use serde_json::json;
use tokio::sync::mpsc::{self, OwnedPermit, error::SendError};

use super::super::{LOOPBACK, Outcome, said};
use super::Share;
use crate::child::{heard, runtime, say};

/// A question.
pub const ASK: Kind = Kind(1);
/// Its answer: the same bytes.
pub const ANSWER: Kind = Kind(2);
/// Bytes of both.
pub const BODY: u32 = 64;
/// What the service waits for each ask: a write to a quick disk.
const WORK: Duration = Duration::from_millis(2);
/// Bytes of which one fills a lane's turn, with what the mailbox adds for every event.
const TURN: usize = LaneLimits::PEER.bytes / LaneLimits::PEER.events - 64;
/// Peers that there is room for.
const PEERS: usize = 64;
/// Places in the plain queue: as many as all lanes have together.
const ROOM: usize = PEERS * LaneLimits::PEER.events;

/// No limit of the engine's is to hold a flooder back in this measurement.
const fn kind(kind: Kind, name: &'static str) -> KindSpec {
    let rate = Rate { per_second: 1e9, burst: u32::MAX, over: Over::Wait };
    KindSpec {
        kind,
        name,
        min: BODY,
        max: BODY,
        role: Role::Notice,
        rate,
        lane: LaneName::Answer,
        needs: Caps::NONE,
    }
}

const KINDS: [KindSpec; 2] = [kind(ASK, "ask"), kind(ANSWER, "answer")];

/// An ask on its way to the reactor; none: a peer has gone.
type Mail = Option<(PeerHandle, Bytes)>;

/// Opens a way into the box for each peer.
enum Opener {
    /// And what an ask is charged there, in bytes.
    Fair(LaneOpener<Mail>, usize),
    Plain(mpsc::Sender<Mail>),
}

/// What the reactor takes from.
enum Inbox {
    Fair(FairMailbox<Mail>),
    Plain(mpsc::Receiver<Mail>),
}

impl Inbox {
    async fn next(&mut self) -> Mail {
        match self {
            Self::Fair(mailbox) => mailbox.recv().await,
            Self::Plain(queue) => queue.recv().await.flatten(),
        }
    }
}

/// The process.
pub fn serve(share: Share) -> Outcome<()> {
    let runtime = runtime()?;
    let env = Env::system();
    let (opener, inbox) = match share {
        Share::Fair | Share::Weighed => {
            let charged = if share == Share::Fair { BODY as usize } else { TURN };
            let mailbox =
                FairMailbox::new("share", LaneLimits::PEER, PEERS, env.clock, Arc::clone(&env.metrics));
            (Opener::Fair(mailbox.opener(), charged), Inbox::Fair(mailbox))
        }
        Share::Plain => {
            let (sender, queue) = mpsc::channel(ROOM);
            (Opener::Plain(sender), Inbox::Plain(queue))
        }
    };
    let engine = runtime.block_on(async {
        env.scope.spawn("reactor", OnPanic::StopNode, work(env.clone(), inbox));
        let (_, addresses) = addresses(&env, PEERS);
        let network = Shared::new(&env, opener);
        let process = ByteBudget::root("process", Limits::LOCAL.network_bytes);
        let book = Book::new(BookConfig::new(1, 0, 0), &mut env.rng.fork("book", 0));
        let config = EngineConfig {
            listen: vec![LOOPBACK],
            dial: DialConfig::only(Vec::new(), book),
            limits: Limits::LOCAL,
        };
        Engine::start(&env, Arc::new(Tcp), Arc::new(network), &process, addresses, config).await.map_err(said)
    })?;
    let at = engine.listening().first().ok_or("an engine that listens nowhere")?;
    say(&json!({ "listening": at.to_string() }));
    while heard()?.is_some() {}
    Ok(())
}

/// The reactor: one thing after the other.
async fn work(env: Env, mut inbox: Inbox) {
    loop {
        let Some((peer, asked)) = inbox.next().await else { continue };
        env.clock.sleep(WORK).await;
        // A peer that has gone, or takes no answers, goes without.
        let _ = peer.push(Command::new(asked));
    }
}

/// echo's hello and framing, with the shared service above.
struct Shared {
    wire: Echo,
    services: [Arc<dyn Service>; 1],
}

impl Shared {
    fn new(env: &Env, opener: Opener) -> Self {
        // echo's own service is not spoken to.
        let unused = FairMailbox::new("unused", LaneLimits::PEER, 0, env.clock, Arc::clone(&env.metrics));
        Self { wire: Echo::new([1; 32], unused.opener()), services: [Arc::new(Asked(opener))] }
    }
}

impl Network for Shared {
    fn name(&self) -> &'static str {
        "shared"
    }

    fn local_id(&self) -> Option<PeerId> {
        self.wire.local_id()
    }

    fn handshake_deadline(&self) -> Duration {
        self.wire.handshake_deadline()
    }

    fn handshake(&self, approach: Approach) -> BoxFuture<'_, Result<Established, CloseCause>> {
        self.wire.handshake(approach)
    }

    fn services(&self) -> &[Arc<dyn Service>] {
        &self.services
    }
}

struct Asked(Opener);

impl Service for Asked {
    fn name(&self) -> &'static str {
        "ask"
    }

    fn kinds(&self) -> &[KindSpec] {
        &KINDS
    }

    fn pipe(&self, _facts: &PeerFacts, handle: PeerHandle) -> Box<dyn Pipe> {
        match &self.0 {
            Opener::Fair(opener, charged) => {
                Box::new(FairPipe { lane: opener.open(None), charged: *charged, handle })
            }
            Opener::Plain(sender) => Box::new(PlainPipe { sender: sender.clone(), handle, waiting: None }),
        }
    }
}

/// Sends what the reactor has answered.
fn answer(command: Command, out: &mut Outbox) -> Flow {
    if let Some(body) = command.take::<Bytes>() {
        out.send(ANSWER, body);
    }
    Flow::Continue
}

struct FairPipe {
    lane: Option<Lane<Mail>>,
    charged: usize,
    handle: PeerHandle,
}

impl Pipe for FairPipe {
    fn on_frame(&mut self, _now: Instant, frame: Frame, _out: &mut Outbox) -> Flow {
        let Some(lane) = &self.lane else {
            return Flow::Close(CloseCause::Dropped("there is no lane left".into()));
        };
        match lane.push(Some((self.handle.clone(), frame.body)), self.charged) {
            Push::Accepted if lane.has_room() => Flow::Continue,
            Push::Accepted => Flow::Park(Until::Room),
            Push::Full(_) | Push::Closed(_) => Flow::Close(CloseCause::Dropped("read while parked".into())),
        }
    }

    fn on_command(&mut self, _now: Instant, command: Command, out: &mut Outbox) -> Flow {
        answer(command, out)
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.lane.as_ref().map_or(Poll::Ready(()), |lane| lane.poll_room(cx))
    }
}

/// A place in the queue, when there is one.
type Place = Pin<Box<dyn Future<Output = Result<OwnedPermit<Mail>, SendError<()>>> + Send>>;

struct PlainPipe {
    sender: mpsc::Sender<Mail>,
    handle: PeerHandle,
    /// What has found the queue full, and waits for its place.
    waiting: Option<(Place, Bytes)>,
}

impl Pipe for PlainPipe {
    fn on_frame(&mut self, _now: Instant, frame: Frame, _out: &mut Outbox) -> Flow {
        match self.sender.clone().try_reserve_owned() {
            Ok(place) => {
                place.send(Some((self.handle.clone(), frame.body)));
                Flow::Continue
            }
            Err(_) => {
                self.waiting = Some((Box::pin(self.sender.clone().reserve_owned()), frame.body));
                Flow::Park(Until::Room)
            }
        }
    }

    fn on_command(&mut self, _now: Instant, command: Command, out: &mut Outbox) -> Flow {
        answer(command, out)
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some((place, _)) = &mut self.waiting {
            let place = ready!(place.as_mut().poll(cx));
            // The queue is closed only when the reactor has ended, and the node with it.
            if let (Ok(place), Some((_, body))) = (place, self.waiting.take()) {
                place.send(Some((self.handle.clone(), body)));
            }
        }
        Poll::Ready(())
    }
}
