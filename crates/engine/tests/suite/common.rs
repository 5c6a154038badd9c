//! Echo nodes on a switchboard, with a meddler in every pipe.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rookery_base::{ByteBudget, CloseCause, Direction, Frame, Kind, PeerFault};
use rookery_echo::{Echo, Heard};
use rookery_engine::book::{Book, BookConfig};
use rookery_engine::dial::{DialConfig, addresses};
use rookery_engine::{
    Admit, Answer, Approach, Caps, Command, Deframe, DialPace, Enframe, Engine, EngineConfig, EngineHandle,
    Established, Flow, Head, KindSpec, LaneName, Limits, Link, Network, Outbox, Over, PeerFacts, PeerHandle,
    Pipe, Precedence, Rate, RequestKey, Role, Service, StreamPeer, StreamService, UnknownKind,
};
use rookery_runtime::{BoxFuture, Env, FairMailbox, Instant, LaneLimits, OnPanic};
use rookery_testkit::{Scripted, Switchboard};
use rookery_transport::{Conn, Mux, MuxConn, MuxStream, StreamConn, cause_of};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Places where a test can step in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    Handshake,
    Admit,
    Pipe,
    Start,
    Head,
    Frame,
    Answer,
    Command,
    Timer,
    Room,
    Close,
    Drop,
    Enframe,
    /// A task of the peer's that serves a stream.
    Stream,
    /// What takes the streams that the peer opens.
    Streams,
}

/// What a test does there. By default nothing.
pub trait Meddle: Send + Sync + 'static {
    /// Called at every hook; may panic.
    fn at(&self, _hook: Hook) {}
    /// Replaces what the pipe would have done.
    fn instead(&self, _hook: Hook, _now: Instant, _out: &mut Outbox) -> Option<Flow> {
        None
    }
    fn timer(&self) -> Option<Instant> {
        None
    }
    /// `None`: what the echo pipe says.
    fn room(&self, _cx: &mut Context<'_>) -> Option<Poll<()>> {
        None
    }
}

impl Meddle for () {}

/// Panics once, at one hook.
pub struct Trap(Mutex<Option<Hook>>);

impl Trap {
    pub fn new(hook: Hook) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Some(hook))))
    }

    fn is(&self, hook: Hook) -> bool {
        *self.0.lock().unwrap() == Some(hook)
    }
}

impl Meddle for Trap {
    fn at(&self, hook: Hook) {
        if self.is(hook) {
            *self.0.lock().unwrap() = None;
            panic!("the trap at {hook:?}");
        }
    }

    fn instead(&self, hook: Hook, _now: Instant, _out: &mut Outbox) -> Option<Flow> {
        // Only a parked pipe is asked for room.
        (hook == Hook::Frame && self.is(Hook::Room)).then_some(Flow::Park(rookery_engine::Until::Room))
    }

    fn timer(&self) -> Option<Instant> {
        self.is(Hook::Timer).then(|| rookery_runtime::Clock::system().now())
    }
}

/// Kinds of the second service, for the guard.
pub const DROPPED: u8 = 10;
pub const CLOSING: u8 = 11;
pub const WAITING: u8 = 12;
pub const NEEDY: u8 = 13;

const fn spec(kind: u8, name: &'static str, per_second: f64, over: Over, needs: Caps) -> KindSpec {
    KindSpec {
        kind: Kind(kind as u16),
        name,
        min: 0,
        max: 60_000,
        role: Role::Notice,
        rate: Rate { per_second, burst: 2, over },
        lane: LaneName::Gossip,
        needs,
    }
}

const KINDS: [KindSpec; 4] = [
    spec(DROPPED, "dropped", 1.0, Over::Drop, Caps::NONE),
    spec(CLOSING, "closing", 1.0, Over::Close, Caps::NONE),
    spec(WAITING, "waiting", 0.005, Over::Wait, Caps::NONE),
    spec(NEEDY, "needy", 1.0, Over::Close, Caps(1)),
];

/// Kinds that reached the second service, with their body's length.
pub type Got = Arc<Mutex<Vec<(u16, usize)>>>;

struct Second(Got);
struct SecondPipe(Got);

impl Service for Second {
    fn name(&self) -> &'static str {
        "second"
    }
    fn kinds(&self) -> &[KindSpec] {
        &KINDS
    }
    fn admit(&self, _facts: &PeerFacts) -> Admit {
        Admit::Yes
    }
    fn pipe(&self, _facts: &PeerFacts, _handle: PeerHandle) -> Box<dyn Pipe> {
        Box::new(SecondPipe(Arc::clone(&self.0)))
    }
}

impl Pipe for SecondPipe {
    fn on_frame(&mut self, _now: Instant, frame: Frame, _out: &mut Outbox) -> Flow {
        self.0.lock().unwrap().push((frame.kind.0, frame.body.len()));
        Flow::Continue
    }
}

struct Meddled {
    echo: Echo,
    /// On wires that prove identities: this process, and how often it has dialled.
    process: Option<(u64, AtomicU64)>,
    meddle: Arc<dyn Meddle>,
    services: Vec<Arc<dyn Service>>,
}

struct MeddledService(Arc<dyn Service>, Arc<dyn Meddle>);
struct MeddledPipe(Box<dyn Pipe>, Arc<dyn Meddle>);
struct MeddledStreams(Arc<dyn Meddle>);
struct MeddledLink<T>(T, Arc<dyn Meddle>);

impl Network for Meddled {
    fn name(&self) -> &'static str {
        "meddled"
    }
    fn local_id(&self) -> Option<rookery_base::PeerId> {
        self.echo.local_id()
    }
    fn handshake_deadline(&self) -> Duration {
        self.echo.handshake_deadline()
    }
    fn handshake(&self, approach: Approach) -> BoxFuture<'_, Result<Established, CloseCause>> {
        Box::pin(async move {
            let Approach { conn, direction, env } = approach;
            let (mut conn, mux) = ordered(conn, direction).await?;
            let precedence = match &self.process {
                Some((incarnation, dials)) => introduce(&mut conn, direction, *incarnation, dials).await?,
                None => Precedence::NONE,
            };
            let approach = Approach { conn: Conn::Stream(conn), direction, env };
            let mut done = self.echo.handshake(approach).await?;
            done.facts.precedence = precedence;
            done.mux = mux;
            self.meddle.at(Hook::Handshake);
            done.link = Link {
                reader: Box::new(MeddledLink(done.link.reader, Arc::clone(&self.meddle))),
                writer: Box::new(MeddledLink(done.link.writer, Arc::clone(&self.meddle))),
            };
            Ok(done)
        })
    }
    fn services(&self) -> &[Arc<dyn Service>] {
        &self.services
    }
    fn streams(&self) -> Option<Arc<dyn StreamService>> {
        Some(Arc::new(MeddledStreams(Arc::clone(&self.meddle))))
    }
    fn unknown_kind(&self, kind: Kind) -> UnknownKind {
        if kind.0 >= 200 { UnknownKind::Skip(1 << 20) } else { UnknownKind::Refuse }
    }
}

/// A connection as one ordered pipe: its first stream, where it has streams.
pub async fn ordered(
    conn: Conn,
    direction: Direction,
) -> Result<(StreamConn, Option<Arc<dyn Mux>>), CloseCause> {
    let MuxConn { remote, local, mux, .. } = match conn {
        Conn::Stream(conn) => return Ok((conn, None)),
        Conn::Mux(conn) => conn,
    };
    let stream = match direction {
        Direction::Outbound => mux.open().await,
        Direction::Inbound => mux.accept().await,
    };
    let MuxStream { read, write } = stream.map_err(|error| cause_of(&error))?;
    Ok((StreamConn { remote, local, read, write }, Some(mux)))
}

/// Before the echo network's hello: the process and, from who dialled, the number of the dial.
async fn introduce(
    conn: &mut StreamConn,
    direction: Direction,
    incarnation: u64,
    dials: &AtomicU64,
) -> Result<Precedence, CloseCause> {
    let own = if direction == Direction::Outbound { dials.fetch_add(1, Relaxed) + 1 } else { 0 };
    let hello = [incarnation.to_be_bytes(), own.to_be_bytes()].concat();
    conn.write.write_all(&hello).await.map_err(|error| cause_of(&error))?;
    let incarnation = conn.read.read_u64().await.map_err(|error| cause_of(&error))?;
    let theirs = conn.read.read_u64().await.map_err(|error| cause_of(&error))?;
    Ok(Precedence { incarnation, attempt: own.max(theirs) })
}

impl StreamService for MeddledStreams {
    fn accept(&self, peer: &StreamPeer, stream: MuxStream) {
        self.0.at(Hook::Streams);
        let meddle = Arc::clone(&self.0);
        peer.env.scope.spawn("stream", OnPanic::EndScope, async move {
            let _stream = stream;
            meddle.at(Hook::Stream);
            std::future::pending::<()>().await;
        });
    }
}

impl Deframe for MeddledLink<Box<dyn Deframe>> {
    fn head(&mut self, bytes: &[u8]) -> Result<Option<Head>, PeerFault> {
        let head = self.0.head(bytes)?;
        if head.is_some() {
            self.1.at(Hook::Head);
        }
        Ok(head)
    }
}

impl Enframe for MeddledLink<Box<dyn Enframe>> {
    fn frame(&mut self, kind: Kind, body: &[u8], out: &mut BytesMut) {
        self.1.at(Hook::Enframe);
        self.0.frame(kind, body, out);
    }
}

impl Service for MeddledService {
    fn name(&self) -> &'static str {
        self.0.name()
    }
    fn kinds(&self) -> &[KindSpec] {
        self.0.kinds()
    }
    fn admit(&self, facts: &PeerFacts) -> Admit {
        self.1.at(Hook::Admit);
        self.0.admit(facts)
    }
    fn pipe(&self, facts: &PeerFacts, handle: PeerHandle) -> Box<dyn Pipe> {
        self.1.at(Hook::Pipe);
        Box::new(MeddledPipe(self.0.pipe(facts, handle), Arc::clone(&self.1)))
    }
}

impl MeddledPipe {
    fn instead(&self, hook: Hook, now: Instant, out: &mut Outbox) -> Option<Flow> {
        self.1.at(hook);
        self.1.instead(hook, now, out)
    }
}

impl Pipe for MeddledPipe {
    fn on_start(&mut self, now: Instant, out: &mut Outbox) -> Flow {
        let flow = self.0.on_start(now, out);
        self.instead(Hook::Start, now, out).unwrap_or(flow)
    }
    fn key(&self, frame: &Frame) -> Option<RequestKey> {
        self.0.key(frame)
    }
    fn on_frame(&mut self, now: Instant, frame: Frame, out: &mut Outbox) -> Flow {
        match self.instead(Hook::Frame, now, out) {
            Some(flow) => flow,
            None => self.0.on_frame(now, frame, out),
        }
    }
    fn on_answer(&mut self, now: Instant, answer: Answer, out: &mut Outbox) -> Flow {
        match self.instead(Hook::Answer, now, out) {
            Some(flow) => flow,
            None => self.0.on_answer(now, answer, out),
        }
    }
    fn on_command(&mut self, now: Instant, command: Command, out: &mut Outbox) -> Flow {
        match self.instead(Hook::Command, now, out) {
            Some(flow) => flow,
            None => self.0.on_command(now, command, out),
        }
    }
    fn timer(&self) -> Option<Instant> {
        self.1.timer()
    }
    fn on_timer(&mut self, now: Instant, out: &mut Outbox) -> Flow {
        self.instead(Hook::Timer, now, out).unwrap_or(Flow::Continue)
    }
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.1.at(Hook::Room);
        match self.1.room(cx) {
            Some(poll) => poll,
            None => self.0.poll_room(cx),
        }
    }
    fn on_close(&mut self, cause: &CloseCause) {
        self.1.at(Hook::Close);
        self.0.on_close(cause);
    }
}

impl Drop for MeddledPipe {
    fn drop(&mut self) {
        self.1.at(Hook::Drop);
    }
}

/// A node and what its owner hears.
pub struct Node {
    pub env: Env,
    pub engine: EngineHandle,
    pub heard: FairMailbox<Heard>,
    pub process: ByteBudget,
    pub board: Switchboard,
    pub got: Got,
    pub at: SocketAddr,
}

/// How a node is made.
pub struct Build {
    pub seed: u64,
    pub identity: u8,
    pub at: SocketAddr,
    pub connect: Vec<SocketAddr>,
    /// Addresses in its book, from which it dials by itself.
    pub seeds: Vec<SocketAddr>,
    pub limits: Limits,
    pub meddle: Arc<dyn Meddle>,
    pub lanes: LaneLimits,
    pub pace: DialPace,
    /// The process's number, on wires that prove identities.
    pub incarnation: Option<u64>,
    /// Whether its dials become connections with streams.
    pub mux: bool,
}

pub fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

impl Build {
    pub fn new(identity: u8) -> Self {
        Self {
            seed: u64::from(identity),
            identity,
            at: SocketAddr::from(([50, identity, 0, 1], 4000)),
            connect: Vec::new(),
            seeds: Vec::new(),
            limits: Limits::LOCAL,
            meddle: Arc::new(()),
            lanes: LaneLimits::PEER,
            pace: DialPace::TCP,
            incarnation: None,
            mux: false,
        }
    }

    pub async fn start(self, board: &Switchboard) -> Node {
        let env = Env::simulated(self.seed, u32::from(self.identity), 1_700_000_000, 0, Default::default());
        let heard = FairMailbox::new("echo", self.lanes, 4096, env.clock, Arc::clone(&env.metrics));
        let got = Got::default();
        let echo = Echo::new([self.identity; 32], heard.opener());
        let first = MeddledService(Arc::clone(&echo.services()[0]), Arc::clone(&self.meddle));
        let services: Vec<Arc<dyn Service>> = vec![Arc::new(first), Arc::new(Second(Arc::clone(&got)))];
        let process = self.incarnation.map(|incarnation| (incarnation, AtomicU64::new(0)));
        let network = Arc::new(Meddled { echo, process, meddle: self.meddle, services });
        let (_, inbox) = addresses(&env, 100);
        let mut rng = env.rng.fork("book", 0);
        let book = Book::new(BookConfig::new(0, 1, 0).with_private(), &mut rng);
        let (only_named, seeds) = (self.seeds.is_empty(), self.seeds);
        let only = DialConfig::only(self.connect, book);
        let dial = DialConfig { pace: self.pace, only_named, seeds, outbound: 8, ..only };
        let config = EngineConfig { listen: vec![self.at], dial, limits: self.limits };
        let process = ByteBudget::root("process", 64 << 20);
        let ip = self.at.ip();
        let transport = if self.mux { board.mux_transport(ip) } else { board.transport(ip) };
        let engine = Engine::start(&env, transport, network, &process, inbox, config).await.unwrap();
        Node { env, engine, heard, process, board: board.clone(), got, at: self.at }
    }
}

impl Node {
    /// Virtual time passes.
    pub async fn pass(&self, time: Duration) {
        self.env.clock.sleep(time).await;
    }

    /// Lets every task that can run do so, without time passing.
    pub async fn settle(&self) {
        for _ in 0..64 {
            tokio::task::yield_now().await;
        }
    }

    /// A raw connection from this IP.
    pub fn wire(&self, ip: [u8; 4], port: u16) -> Scripted {
        Scripted::new(self.board.connect(SocketAddr::new(IpAddr::from(ip), port), self.at).unwrap())
    }

    /// A scripted peer that has a session.
    pub async fn peer(&mut self, identity: u8) -> (Scripted, PeerHandle) {
        let mut peer = self.wire([90, identity, 0, 1], 7000);
        peer.shake([identity; 32]).await.unwrap();
        (peer, self.up().await)
    }

    pub async fn up(&mut self) -> PeerHandle {
        loop {
            if let Heard::Up(peer) = self.hear().await {
                return peer;
            }
        }
    }

    /// The next thing the owner hears. An hour without any is a failure: virtual time would otherwise run for ever.
    pub async fn hear(&mut self) -> Heard {
        let clock = self.env.clock;
        clock
            .timeout(Duration::from_secs(3600), self.heard.recv())
            .await
            .expect("nothing was heard in an hour")
    }

    /// Why the only session so far has ended.
    pub async fn cause(&self) -> CloseCause {
        for _ in 0..100_000 {
            if let Some(end) = self.engine.closed().await.last() {
                return end.cause.clone();
            }
            self.pass(Duration::from_millis(10)).await;
        }
        panic!("no session has ended in a thousand seconds")
    }

    /// Sum of a metric's lines, all labels or those that contain `label`.
    pub fn metric(&self, name: &str, label: &str) -> u64 {
        let text = self.env.metrics.text();
        let lines = text.lines().filter(|line| {
            let rest = line.strip_prefix("rookery_").and_then(|line| line.strip_prefix(name));
            rest.is_some_and(|rest| rest.starts_with([' ', '{'])) && line.contains(label)
        });
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64).sum()
    }

    /// Nothing is held any more: no session, no byte, no task of a peer.
    pub async fn assert_clean(&self) {
        self.settle().await;
        let audit = self.engine.audit().await.unwrap();
        assert_eq!((audit.slots, audit.inbound, audit.outbound), (0, 0, 0));
        assert_eq!(self.process.used(), 0, "bytes came back");
        assert_eq!(self.metric("parked_peers", ""), 0);
        let running = self.env.scope.running();
        assert!(!running.iter().any(|task| ["peer", "writer"].contains(task)), "{running:?}");
    }

    pub async fn stop(self) {
        self.env.scope.close(Duration::from_secs(5)).await.unwrap();
    }
}

/// An echo body.
pub fn text(number: u64, text: &str) -> Bytes {
    rookery_testkit::scripted::numbered(number, text.as_bytes()).into()
}
