//! Hosts that exchange bytes over the bare fabric under every fault.
//!
//! Each connection carries, each way, a length and that many bytes of a sequence which both ends know. A reader
//! checks every byte at its place. It may end in three ways: with exactly the announced bytes and the close, with a
//! reset, or by giving up on silence. Anything else is a bug of the fabric. When the faults have ended, every host
//! reaches every other one and all bytes pass.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::RngExt;
use rookery_runtime::rng::ChaCha8Rng;
use rookery_runtime::{Env, OnPanic};
use rookery_transport::{Arrival, StreamConn};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Scenario;
use crate::fabric::{Link, Mix, Schedule};
use crate::world::{Failure, Node, Report, World};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "pipes",
    about: "hosts exchange bytes over the bare fabric under every fault: bytes in order, or an end",
    run,
};

const PORT: u16 = 1000;
/// How long faults go on.
const SPAN: Duration = Duration::from_secs(60);
/// A dial that takes longer is given up.
const DIAL_WITHIN: Duration = Duration::from_secs(10);
/// A reader that hears nothing for this long gives up: longer than any fault that passes.
const SILENCE: Duration = Duration::from_secs(30);
/// The longest sequence over the slowest link and smallest window takes about a minute.
const SENT_WITHIN: Duration = Duration::from_secs(120);
/// Room for the longest exchange each way.
const LAST_WITHIN: Duration = Duration::from_secs(300);

/// How one exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Clean,
    Reset,
    Silent,
}

/// What readers saw and must not have seen.
#[derive(Debug, Clone, Default)]
struct Violations(Arc<Mutex<Vec<String>>>);

impl Violations {
    fn add(&self, what: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    fn check(&self) -> Result<(), String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).first().cloned().map_or(Ok(()), Err)
    }
}

fn run(seed: u64) -> Result<Report, Box<Failure>> {
    let world = World::new(SCENARIO.name, seed);
    let mut rng = world.rng("pipes", 0);
    let hosts: Vec<IpAddr> =
        (1..=rng.random_range(3..=6)).map(|n| IpAddr::V4(Ipv4Addr::new(10, 0, 0, n))).collect();
    let fabric = world.fabric();
    let mut windows = 0;
    for from in &hosts {
        for to in &hosts {
            let link = draw_link(&mut rng);
            windows = windows.max(link.window);
            fabric.set_link(*from, *to, link);
        }
    }
    let violations = Violations::default();
    let (watched, seen) = (fabric.clone(), violations.clone());
    world.add_invariant("bytes arrive in order", move || seen.check());
    world.add_invariant("a window is never exceeded", move || {
        match watched.connections().iter().find(|conn| conn.held.iter().any(|held| *held > windows)) {
            None => Ok(()),
            Some(conn) => Err(format!("at most {windows} bytes may be held: {conn:?}")),
        }
    });
    world.run(async {
        let nodes: Vec<Node> = hosts.iter().map(|ip| world.node(*ip)).collect();
        for node in &nodes {
            serve(node, &violations);
            keep_dialling(node, &hosts, &violations);
        }
        let every = Duration::from_millis(rng.random_range(500..4000));
        let schedule = Schedule::seeded(&mut rng, &hosts, Mix::ALL, every, SPAN);
        schedule.play(fabric, &world.clock()).await;
        everybody_reaches_everybody(&world, &nodes, &violations).await?;
        let outcome = |event| world.auditor().count(event);
        world.say(format!(
            "{} hosts, {} faults; exchanges: {} clean, {} reset, {} silent; {} dials failed, {} hung",
            nodes.len(),
            schedule.steps.len(),
            outcome("talk_clean"),
            outcome("talk_reset"),
            outcome("talk_silent"),
            outcome("dial_failed"),
            outcome("dial_hung"),
        ));
        Ok(())
    })
}

fn draw_link(rng: &mut ChaCha8Rng) -> Link {
    Link::new(Duration::from_micros(rng.random_range(0..200_000)))
        .with_jitter(Duration::from_micros(rng.random_range(0..50_000)))
        .with_bandwidth(rng.random_range(20_000..5_000_000))
        .with_window(rng.random_range(1..=64) * 4096)
        .with_segment(rng.random_range(64..16_384))
}

fn serve(node: &Node, violations: &Violations) {
    let (node, violations) = (node.clone(), violations.clone());
    node.env.scope.clone().spawn("serve", OnPanic::StopNode, async move {
        let mut listener = node.transport.listen(node.at(PORT)).await.expect("the port is free");
        let mut number = 0;
        while let Ok(Arrival::Ready(conn)) = listener.accept().await {
            let (env, violations) = (node.env.clone(), violations.clone());
            let rng = env.rng.fork("answer", number);
            number += 1;
            node.env.scope.spawn("answer", OnPanic::StopNode, async move {
                talk(&env, conn.into_stream().expect("the fabric brings pipes"), rng, &violations).await;
            });
        }
    });
}

fn keep_dialling(node: &Node, hosts: &[IpAddr], violations: &Violations) {
    let others: Vec<IpAddr> = hosts.iter().copied().filter(|ip| *ip != node.ip).collect();
    let (node, violations) = (node.clone(), violations.clone());
    node.env.scope.clone().spawn("dial", OnPanic::StopNode, async move {
        let mut rng = node.env.rng.fork("dial", 0);
        let started = node.env.clock.now();
        let mut number = 0;
        while node.env.clock.now() - started < SPAN {
            let to = SocketAddr::new(others[rng.random_range(0..others.len())], PORT);
            exchange(&node, to, number, &violations).await;
            number += 1;
            node.env.clock.sleep(Duration::from_millis(rng.random_range(0..3000))).await;
        }
    });
}

/// Dials and talks; `None` when there was no connection.
async fn exchange(node: &Node, to: SocketAddr, number: u64, violations: &Violations) -> Option<Ended> {
    let env = &node.env;
    match env.clock.timeout(DIAL_WITHIN, node.transport.dial(to)).await {
        Some(Ok(conn)) => Some(
            talk(
                env,
                conn.into_stream().expect("the fabric brings pipes"),
                env.rng.fork("talk", number),
                violations,
            )
            .await,
        ),
        Some(Err(_)) => {
            env.trace("dial_failed", number, 0, 0, "");
            None
        }
        None => {
            env.trace("dial_hung", number, 0, 0, "");
            None
        }
    }
}

async fn everybody_reaches_everybody(
    world: &World,
    nodes: &[Node],
    violations: &Violations,
) -> Result<(), String> {
    for (round, from) in nodes.iter().enumerate() {
        let others = nodes.iter().filter(|to| to.number != from.number);
        let talks = others.map(|to| async move {
            let number = u64::MAX - u64::from(to.number);
            match exchange(from, to.at(PORT), number, violations).await {
                Some(Ended::Clean) => Ok(()),
                other => Err(format!("after the faults, {} to {}: {other:?}", from.ip, to.ip)),
            }
        });
        let all = world.clock().timeout(LAST_WITHIN, futures_util::future::join_all(talks)).await;
        let all = all.ok_or_else(|| format!("round {round} did not end within {LAST_WITHIN:?}"))?;
        all.into_iter().collect::<Result<(), _>>()?;
    }
    Ok(())
}

/// Sends our sequence and checks the peer's, until both have ended or one cannot.
async fn talk(env: &Env, conn: StreamConn, mut rng: ChaCha8Rng, violations: &Violations) -> Ended {
    let (local, remote) = (conn.local, conn.remote);
    let StreamConn { mut read, mut write, .. } = conn;
    let sending = async {
        let length = if rng.random_range(0..8) == 0 { 300_000 } else { 20_000 };
        let length = rng.random_range(0..length);
        // A reset is the reader's to report.
        if send(env, &mut write, Sequence::between(local, remote), length, &mut rng).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let reading = receive(env, &mut read, Sequence::between(remote, local));
    tokio::pin!(sending, reading);
    let (ended, bytes) = tokio::select! {
        biased;
        got = &mut reading => {
            if matches!(got, Ok((Ended::Clean, _))) {
                let sent = env.clock.timeout(SENT_WITHIN, &mut sending).await;
                if sent.is_some() { got } else { Ok((Ended::Silent, 0)) }
            } else {
                got
            }
        }
        () = &mut sending => reading.await,
    }
    .unwrap_or_else(|wrong| {
        violations.add(format!("{local} from {remote}: {wrong}"));
        (Ended::Reset, 0)
    });
    let event = match ended {
        Ended::Clean => "talk_clean",
        Ended::Reset => "talk_reset",
        Ended::Silent => "talk_silent",
    };
    env.trace(event, 0, 0, bytes, "");
    ended
}

async fn send(
    env: &Env,
    write: &mut rookery_transport::WriteHalf,
    mut sequence: Sequence,
    length: usize,
    rng: &mut ChaCha8Rng,
) -> io::Result<()> {
    write.write_all(&(length as u64).to_le_bytes()).await?;
    let mut left = length;
    while left > 0 {
        let mut part = vec![0; left.min(rng.random_range(1..20_000))];
        sequence.fill(&mut part);
        write.write_all(&part).await?;
        left -= part.len();
        if rng.random_range(0..4) == 0 {
            env.clock.sleep(Duration::from_millis(rng.random_range(0..5000))).await;
        }
    }
    write.shutdown().await
}

/// How the peer's side ended and after how many bytes, or what must not have come.
async fn receive(
    env: &Env,
    read: &mut rookery_transport::ReadHalf,
    mut sequence: Sequence,
) -> Result<(Ended, u64), String> {
    let mut head = [0; 8];
    match env.clock.timeout(SILENCE, read.read_exact(&mut head)).await {
        None => return Ok((Ended::Silent, 0)),
        Some(Ok(_)) => {}
        Some(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => return Ok((Ended::Reset, 0)),
        Some(Err(error)) => return Err(format!("instead of a length: {error}")),
    }
    let length = u64::from_le_bytes(head);
    let mut got = 0;
    let (mut buf, mut expected) = ([0; 4096], [0; 4096]);
    loop {
        let Some(read) = env.clock.timeout(SILENCE, read.read(&mut buf)).await else {
            return Ok((Ended::Silent, got));
        };
        let bytes = match read {
            Ok(0) if length == got => return Ok((Ended::Clean, got)),
            Ok(0) => return Err(format!("closed after {got} bytes of {length}")),
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok((Ended::Reset, got)),
            Err(error) => return Err(format!("after {got} bytes of {length}: {error}")),
        };
        sequence.fill(&mut expected[..bytes]);
        if buf[..bytes] != expected[..bytes] {
            return Err(format!("wrong bytes among the {bytes} after {got} of {length}"));
        }
        got += bytes as u64;
        if got > length {
            return Err(format!("{got} bytes of {length}"));
        }
    }
}

/// The bytes that one address sends to another: eight from each step of a Weyl sequence, mixed (splitmix64).
struct Sequence {
    state: u64,
    block: [u8; 8],
    used: usize,
}

impl Sequence {
    fn between(from: SocketAddr, to: SocketAddr) -> Self {
        let number = |addr: SocketAddr| match addr.ip() {
            IpAddr::V4(ip) => (u64::from(ip.to_bits()) << 16) | u64::from(addr.port()),
            IpAddr::V6(ip) => ip.to_bits() as u64 ^ u64::from(addr.port()),
        };
        let state = number(from).wrapping_mul(0x2545_f491_4f6c_dd1d) ^ number(to);
        Self { state, block: [0; 8], used: 8 }
    }

    /// The next bytes.
    fn fill(&mut self, mut out: &mut [u8]) {
        while !out.is_empty() {
            if self.used == 8 {
                self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut mixed = self.state;
                mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                self.block = (mixed ^ (mixed >> 31)).to_le_bytes();
                self.used = 0;
            }
            let part = out.len().min(8 - self.used);
            out[..part].copy_from_slice(&self.block[self.used..self.used + part]);
            self.used += part;
            out = &mut out[part..];
        }
    }
}
