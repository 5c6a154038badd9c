//! What a peer costs that does nothing: one node, 1,000 inbound sessions over the in-memory transport.
//!
//! Each kind is measured in a process of its own, so that no other kind's freed memory hides what it takes:
//!
//! | kind | at the node's end | at the peer's end |
//! |---|---|---|
//! | `plain` | one bare task that reads, with a buffer of one small message | held, no task |
//! | `echo` | the engine with the echo network | held, no task |
//! | `pinging` | one bare task that sends a ping every thirty seconds and reads the pong | a task that answers pings |
//! | `handshake` | a whole Handshake node with its store in memory | the same task |
//!
//! So `echo` less `plain`, and `handshake` less `pinging`, is what the engine asks for beyond the pipe itself. Memory
//! is resident memory of the process, pipe and peer's end included. CPU is all of the process's one thread: it
//! contains the peers' ends too. Idle time is virtual: the clock jumps from timer to timer, so what is counted
//! is the work and not the waiting; a kernel's sockets and wake-ups are not in it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rookery_base::ByteBudget;
use rookery_echo::{Echo, Heard};
use rookery_engine::book::{Book, BookConfig};
use rookery_engine::dial::{DialConfig, addresses};
use rookery_engine::{Engine, EngineConfig, Limits};
use rookery_handshake::node::{Node, NodeConfig};
use rookery_handshake::params::SIMNET;
use rookery_handshake::services::control::PING_EVERY;
use rookery_handshake::wire::{
    HEAD_LEN, Head, MAX_BODY, NetAddress, Packet, Services, Text, Version, encode_frame, kind,
};
use rookery_runtime::{Env, FairMailbox, LaneLimits};
use rookery_store::{MemoryDisk, Store};
use rookery_testkit::switchboard::{Switchboard, Wire};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::figure::Figure;
use crate::measure::{CpuWatch, resident_bytes};

/// Sessions at a time: what a large public node has.
const SESSIONS: usize = 1_000;
/// Sessions opened before anything is counted, so that what is made once is not counted to a thousandth each.
const WARM_UP: usize = 10;
/// Virtual idle time. Twenty pings for each session that has them.
const IDLE: Duration = Duration::from_secs(600);
/// Time for what follows a handshake to end: first pings, questions for addresses and headers.
const SETTLE: Duration = Duration::from_secs(60);
/// Where the node listens.
const NODE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 12_038);
/// Bytes that the node may hold of all messages.
const PROCESS_BYTES: usize = 64 << 20;
/// A bare task reads into this much: any message of an idle peer fits.
const BARE_BUFFER: usize = 256;

/// Error of a measurement, in words.
type Outcome<T> = Result<T, String>;

/// What sits at the node's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A bare task that reads.
    Plain,
    /// The engine with the echo network.
    Echo,
    /// A bare task that pings.
    Pinging,
    /// A Handshake node.
    Handshake,
}

impl Kind {
    /// Every kind, each floor before what is held against it.
    const ALL: [Self; 4] = [Self::Plain, Self::Echo, Self::Pinging, Self::Handshake];

    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Echo => "echo",
            Self::Pinging => "pinging",
            Self::Handshake => "handshake",
        }
    }

    /// The kind of this name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// Measures every kind in a process of its own.
pub fn run() -> Outcome<Vec<Figure>> {
    let mut figures = Vec::new();
    for kind in Kind::ALL {
        let program = std::env::current_exe().map_err(|error| format!("this program's path: {error}"))?;
        let child = Command::new(program).args(["idle", kind.name()]).stderr(Stdio::inherit()).output();
        let child = child.map_err(|error| format!("cannot start myself: {error}"))?;
        if !child.status.success() {
            return Err(format!("{} ended with {}", kind.name(), child.status));
        }
        let said: Value = serde_json::from_slice(&child.stdout).map_err(|error| error.to_string())?;
        for (name, unit) in FIELDS {
            let value =
                said[name].as_f64().ok_or_else(|| format!("{} said nothing of {name}", kind.name()))?;
            figures.push(Figure::new(format!("{}_{name}", kind.name()), value, unit));
        }
    }
    Ok(figures)
}

/// What a measuring process says, with units, all of it per session.
const FIELDS: [(&str, &str); 4] = [
    ("resident", "bytes/session"),
    ("tasks", "tasks/session"),
    ("open_cpu", "us/session"),
    ("idle_cpu", "us/minute"),
];

/// Measures one kind in this process and prints one line.
pub fn measure(kind: Kind) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.map_err(|error| format!("no runtime: {error}"))?;
    let line = runtime.block_on(sessions(kind))?;
    println!("{line}");
    Ok(())
}

/// Opens the sessions, idles, and says what that took.
async fn sessions(kind: Kind) -> Outcome<Value> {
    let env = Env { inline_workers: true, ..Env::system() };
    let board = Switchboard::default();
    let mut node = Local::start(kind, &env, &board).await?;
    let mut open = Vec::new();
    for number in 0..WARM_UP {
        open.push(node.connect(&board, number).await?);
    }
    env.clock.sleep(SETTLE).await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let (resident, alive) = (resident_bytes()?, tasks());
    let watch = CpuWatch::start();
    for number in WARM_UP..WARM_UP + SESSIONS {
        open.push(node.connect(&board, number).await?);
    }
    let open_cpu = watch.seconds();
    env.clock.sleep(SETTLE).await;
    let (resident, alive) = (resident_bytes()?.saturating_sub(resident), tasks() - alive);
    let watch = CpuWatch::start();
    env.clock.sleep(IDLE).await;
    let idle_cpu = watch.seconds() / (IDLE.as_secs_f64() / 60.0);
    node.still(open.len()).await?;
    let each = |value: f64| value / SESSIONS as f64;
    Ok(serde_json::json!({
        "resident": each(resident as f64),
        "tasks": each(alive as f64),
        "open_cpu": each(open_cpu * 1e6),
        // The sessions of the warm-up idle as well.
        "idle_cpu": idle_cpu * 1e6 / open.len() as f64,
    }))
}

/// The node's end.
enum Local {
    Bare { env: Env, pings: bool },
    Echo { engine: Box<rookery_engine::EngineHandle>, heard: FairMailbox<Heard> },
    Handshake(Box<Node>),
}

impl Local {
    async fn start(kind: Kind, env: &Env, board: &Switchboard) -> Outcome<Self> {
        match kind {
            Kind::Plain => Ok(Self::Bare { env: env.clone(), pings: false }),
            Kind::Pinging => Ok(Self::Bare { env: env.clone(), pings: true }),
            Kind::Echo => echo(env, board).await,
            Kind::Handshake => handshake(env, board).await,
        }
    }

    /// Opens one session, and returns the peer's end when it is to be held.
    async fn connect(&mut self, board: &Switchboard, number: usize) -> Outcome<Option<Wire>> {
        let [.., high, low] = number.to_be_bytes();
        let from = SocketAddr::new(Ipv4Addr::new(10, 1, high, low).into(), 12_038);
        let broken = |error: std::io::Error| format!("session {number}: {error}");
        match self {
            Self::Bare { env, pings } => {
                let (near, far) = Wire::pair(from, NODE);
                let task = bare(far, *pings, env.clone());
                env.scope.spawn("bare", rookery_runtime::OnPanic::StopNode, task);
                if *pings {
                    answer_pings(env, near);
                    return Ok(None);
                }
                Ok(Some(near))
            }
            Self::Echo { heard, .. } => {
                let mut near = board.connect(from, NODE).map_err(broken)?;
                let mut identity = [0; 32];
                identity[..8].copy_from_slice(&(number as u64 + 2).to_be_bytes());
                near.write_all(&[b"ROOKECHO", &identity[..]].concat()).await.map_err(broken)?;
                near.read_exact(&mut [0; 40]).await.map_err(broken)?;
                let Heard::Up(_) = heard.recv().await else {
                    return Err(format!("session {number} is not up"));
                };
                Ok(Some(near))
            }
            Self::Handshake(node) => {
                let near = board.connect(from, NODE).map_err(broken)?;
                greet(near, node, number).await.map_err(broken)?;
                Ok(None)
            }
        }
    }

    /// Whether every session is still there.
    async fn still(&self, expected: usize) -> Outcome<()> {
        let have = match self {
            Self::Bare { .. } => return Ok(()),
            Self::Echo { engine, .. } => engine.peers().await.len(),
            Self::Handshake(node) => node.engine.peers().await.len(),
        };
        if have == expected { Ok(()) } else { Err(format!("{have} sessions are left of {expected}")) }
    }
}

async fn echo(env: &Env, board: &Switchboard) -> Outcome<Local> {
    let most = Limits::LOCAL.sessions.inbound;
    let heard = FairMailbox::new("echo", LaneLimits::PEER, most, env.clock, Arc::clone(&env.metrics));
    let network = Arc::new(Echo::new([1; 32], heard.opener()));
    let (_, inbox) = addresses(env, most);
    let book = Book::new(BookConfig::new(0, 1, 0).with_private(), &mut env.rng.fork("book", 0));
    let dial = DialConfig::only(Vec::new(), book);
    let config = EngineConfig { listen: vec![NODE], dial, limits: Limits::LOCAL };
    let process = ByteBudget::root("process", PROCESS_BYTES);
    let engine = Engine::start(env, board.transport(NODE.ip()), network, &process, inbox, config).await;
    Ok(Local::Echo { engine: Box::new(engine.map_err(|error| error.to_string())?), heard })
}

async fn handshake(env: &Env, board: &Switchboard) -> Outcome<Local> {
    let config = NodeConfig { listen: vec![NODE], only_named: true, ..NodeConfig::new(&SIMNET) };
    let (disk, shape) = (MemoryDisk::new(), config.store());
    let opener = Box::new(move || Store::in_memory(&disk, &shape));
    let store = opener().map_err(|error| error.to_string())?;
    let process = ByteBudget::root("process", PROCESS_BYTES);
    let node = Node::start(env, board.transport(NODE.ip()), &process, store, opener, config).await;
    node.map(|node| Local::Handshake(Box::new(node))).map_err(|error| error.to_string())
}

/// The least that can stand at the node's end: reads until the end, and pings if asked to.
async fn bare(mut wire: Wire, pings: bool, env: Env) {
    let ping = encode_frame(SIMNET.magic, &Packet::Ping([0; 8]));
    let mut next = env.clock.now() + PING_EVERY;
    let mut buffer = [0; BARE_BUFFER];
    loop {
        tokio::select! {
            biased;
            read = wire.read(&mut buffer) => if !read.is_ok_and(|read| read > 0) {
                return;
            },
            () = env.clock.sleep_until(next), if pings => {
                next += PING_EVERY;
                if wire.write_all(&ping).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// The peer's half of a Handshake session: version and verack, then a task that answers pings.
async fn greet(mut wire: Wire, node: &Node, number: usize) -> std::io::Result<()> {
    let version = Packet::Version(Box::new(Version {
        version: 3,
        services: Services::NONE,
        time: node.env.clock.unix(),
        remote: NetAddress::NULL,
        nonce: (number as u64 + 1).to_be_bytes(),
        agent: Text::default(),
        height: 0,
        no_relay: true,
    }));
    wire.write_all(&encode_frame(SIMNET.magic, &version)).await?;
    wire.write_all(&encode_frame(SIMNET.magic, &Packet::Verack)).await?;
    let (mut version, mut verack) = (false, false);
    while !(version && verack) {
        let (number, _) = read_packet(&mut wire).await?;
        version |= number == kind::VERSION;
        verack |= number == kind::VERACK;
    }
    answer_pings(&node.env, wire);
    Ok(())
}

/// Keeps the peer's end in a task that answers pings and nothing else.
fn answer_pings(env: &Env, mut wire: Wire) {
    env.scope.spawn("peer", rookery_runtime::OnPanic::StopNode, async move {
        while let Ok((number, body)) = read_packet(&mut wire).await {
            let Ok(nonce) = <[u8; 8]>::try_from(&body[..]) else { continue };
            let pong = encode_frame(SIMNET.magic, &Packet::Pong(nonce));
            if number == kind::PING && wire.write_all(&pong).await.is_err() {
                return;
            }
        }
    });
}

async fn read_packet(wire: &mut Wire) -> std::io::Result<(u8, Bytes)> {
    let mut head = [0; HEAD_LEN];
    wire.read_exact(&mut head).await?;
    let head = Head::parse(&head).expect("a whole head was read");
    let mut body = vec![0; (head.length as usize).min(MAX_BODY)];
    wire.read_exact(&mut body).await?;
    Ok((head.kind, body.into()))
}
