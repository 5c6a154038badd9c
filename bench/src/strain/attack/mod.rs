//! Attacks: what a hostile act costs the server, and what honest peers notice of it.
//!
//! | attack | an act |
//! |---|---|
//! | `half-open` | the first flight of a real handshake from a new port, and nothing after it |
//! | `prefix` | the same, each from its own address, spread over the networks of 127.0.0.0/8 |
//! | `slow` | a handshake from an address of its own, which it proves; it says one thing a second and never ends |
//! | `flood` | a message of one connected peer, which sends 100 times what the rate of its kind allows and minds no limit |
//! | `thief` | a hello with the keys of an honest peer, on a connection that has proven another |
//! | `twins` | a connection under an identity that another host has a session with |
//! | `relay` | an honest peer dials somebody in the middle, who carries what it and the server say to each other |
//! | `replay` | all datagrams of an honest peer's connection again, from elsewhere, after it has gone |
//! | `all` | all of these at once |
//!
//! Four times the same length, in turn: honest peers alone; the attack alone, which gives its cost; honest peers while the
//! attackers do the same to a socket that never answers; honest peers while the attack is on their server. Attackers share a
//! machine with those whom they attack, so it is the last two that are compared: in both the attackers compute. They do that
//! at the lowest priority, and cheaply: `half-open`, `prefix` and `slow` say packets of one recorded flight, sealed for
//! each connection, and have no stack ([`initial`]).
//!
//! Honest peers come from addresses of their own, connect, ask and leave, at a fixed rate whether or not earlier ones are
//! through. The cost of an act is the server's CPU and memory of the attack alone, less what it uses alone in the same
//! time, divided by the acts. What the server holds at the end of an attack is held against what it held before and the
//! bytes that handshakes may hold by its limits. Whoever poses as somebody else may gain nothing: the server must have had
//! as many sessions as honest peers, and whoever has proven its own key, account for ([`impostor`]).

mod flood;
mod impostor;
mod initial;
mod raw;
mod report;
mod slow;

use std::net::UdpSocket;
use std::time::Duration;

use report::Report;
use rookery_runtime::{Clock, Env};
use rookery_transport::quic::{Datagrams, Quic, QuicLimits};
use rookery_transport::tls::{Identity, Trust};
use rustix::process::nice;
use serde_json::{Value, json};

use super::options::{AttackAsked, Attacker};
use super::peers::Server;
use super::server::{SAMPLE, Serving};
use super::{LOOPBACK, Outcome, options, said};
use crate::child::{Process, heard, make_room, runtime, say};

/// Honest peers in a second: enough for a 99th of a hundred in ten seconds, little enough that they are no storm.
const HONEST: usize = 50;
/// Honest peers that nobody measures, for tables and caches to be there.
const WARM: usize = 20;
/// Room for sessions of the honest.
const SESSIONS: usize = 2_048;
/// From an attack's end to the count, and for what the one before has left.
const SETTLE: Duration = Duration::from_secs(2);
/// What TLS agrees on in the overlay.
const ALPN: &[u8] = b"rookery-overlay/1";
/// An attacker's priority: the least, so that it takes little from whom it attacks but by what it says.
const LAST_IN_LINE: i32 = 19;
/// To the attacker: begin.
const ATTACK: &str = "attack";

/// What the attacker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    HalfOpen,
    Prefix,
    Slow,
    Flood,
    Thief,
    Twins,
    Relay,
    Replay,
}

impl Kind {
    /// All of them, with their names on the command line.
    pub const ALL: [(&str, Self); 8] = [
        ("half-open", Self::HalfOpen),
        ("prefix", Self::Prefix),
        ("slow", Self::Slow),
        ("flood", Self::Flood),
        ("thief", Self::Thief),
        ("twins", Self::Twins),
        ("relay", Self::Relay),
        ("replay", Self::Replay),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }

    /// Seconds that it needs at least.
    pub fn least_seconds(self) -> u64 {
        match self {
            Self::Thief | Self::Twins | Self::Relay | Self::Replay => impostor::LEAST,
            _ => 1,
        }
    }

    /// Acts when none are asked for, in an attack of so many seconds.
    pub fn acts(self, seconds: u64) -> usize {
        let each_second =
            |acts| usize::try_from(seconds).map_or(usize::MAX, |seconds| seconds.saturating_mul(acts));
        match self {
            Self::HalfOpen => 1_000,
            Self::Prefix => 100_000,
            Self::Slow => 5_000,
            // A hundred times the hundred a second that a peer may send.
            Self::Flood => each_second(10_000),
            // Each computes as much as an honest peer, on the same machine.
            Self::Thief => each_second(10),
            Self::Twins | Self::Relay => each_second(2),
            Self::Replay => each_second(20),
        }
    }
}

/// The attacker's process.
pub fn attacker(asked: &Attacker) -> Outcome<()> {
    nice(LAST_IN_LINE).map_err(said)?;
    make_room(asked.count.min(match asked.kind {
        Kind::Slow => asked.count,
        _ => raw::OPEN,
    }))?;
    let server = Server::read(&asked.at)?;
    let to = server.address;
    let runtime = runtime()?;
    let over = Duration::from_secs(asked.seconds);
    let flight = runtime.block_on(raw::record())?;
    let slow = if asked.kind == Kind::Slow { slow::make(asked.count, asked.round)? } else { Vec::new() };
    say(&json!({ "ready": true }));
    match heard()? {
        Some(order) if order == ATTACK => {}
        other => return Err(format!("an attacker waits for {ATTACK:?} only, not {other:?}")),
    }
    let done = match asked.kind {
        Kind::HalfOpen | Kind::Prefix => runtime.block_on(raw::replay(asked, to, &flight))?,
        Kind::Slow => runtime.block_on(slow::attack(slow, &flight, to, over))?,
        Kind::Flood => runtime.block_on(flood::attack(asked.count, to, over))?,
        Kind::Thief => runtime.block_on(impostor::thief(asked.count, &server, over, asked.round))?,
        Kind::Twins => runtime.block_on(impostor::twins(asked.count, &server, over, asked.round))?,
        Kind::Relay => runtime.block_on(impostor::relay(asked.count, &server, over))?,
        Kind::Replay => runtime.block_on(impostor::replay(asked.count, &server, over, asked.round))?,
    };
    say(&done);
    Ok(())
}

/// A transport without a node above it.
fn transport(identity: &Identity, sockets: std::sync::Arc<dyn Datagrams>) -> Outcome<(Env, Quic)> {
    let env = Env::system();
    let secured = identity.tls(ALPN, Trust::Both).map_err(said)?;
    let quic = Quic::start(&env, secured, &[0; 32], QuicLimits::DEFAULT, sockets).map_err(said)?;
    Ok((env, quic))
}

/// The attackers of one attack, each in a process of its own.
struct Attackers(Vec<Process>);

impl Attackers {
    /// Starts them, ready to attack whoever is at this invitation.
    fn start(asked: &AttackAsked, at: &str, round: u8) -> Outcome<Self> {
        let start = |&(kind, count): &(Kind, usize)| {
            let attacker = Attacker { kind, count, seconds: asked.seconds, at: at.to_owned(), round };
            let mut process = Process::start(options::ATTACKER, attacker.arguments())?;
            process.heard()?;
            Ok(process)
        };
        asked.acts.iter().map(start).collect::<Outcome<_>>().map(Self)
    }

    fn begin(&mut self) -> Outcome<()> {
        self.0.iter_mut().try_for_each(|process| process.order(ATTACK))
    }

    /// Waits until all are through; what each has done.
    fn end(mut self) -> Outcome<Vec<Value>> {
        self.0.iter_mut().map(Process::heard).collect()
    }
}

/// Runs it and prints what it came to.
pub fn run(asked: &AttackAsked) -> Outcome<()> {
    let serving = Serving { sessions: SESSIONS, admit: asked.admit, idle: QuicLimits::DEFAULT.idle };
    let mut server = Process::start(options::SERVE, serving.arguments())?;
    let invitation = server.heard()?;
    let invitation = invitation["invitation"].as_str().ok_or("the server said no invitation")?.to_owned();
    let mut peers = Process::start(options::PEERS, [SESSIONS.to_string(), invitation.clone()])?;
    peers.heard()?;
    peers.ask(&format!("visit {WARM} {HONEST}"))?;
    let visit = format!("visit {} {HONEST}", usize::try_from(asked.seconds).map_err(said)? * HONEST);
    let mut under = |at: &str, round| {
        let mut attackers = Attackers::start(asked, at, round)?;
        attackers.begin()?;
        let visited = peers.ask(&visit)?;
        attackers.end()?;
        Ok::<_, String>(visited)
    };

    // Bound and never read: what comes is dropped once its buffer is full.
    let silence = UdpSocket::bind(LOOPBACK).map_err(said)?;
    let elsewhere = under(&format!("{}/nobody", silence.local_addr().map_err(said)?), 0)?;
    let before = server.ask(SAMPLE)?;
    let cost = cost(&mut server, asked, &invitation)?;
    let attacked = under(&invitation, 2)?;
    let last = server.ask(SAMPLE)?;
    let alone = peers.ask(&visit)?;
    Report { asked, alone, elsewhere, attacked, cost, before, last }.print()
}

/// What the attack alone costs.
fn cost(server: &mut Process, asked: &AttackAsked, invitation: &str) -> Outcome<Value> {
    let (runtime, clock) = (runtime()?, Clock::system());
    let idle = |server: &mut Process| {
        let before = server.ask(SAMPLE)?;
        runtime.block_on(clock.sleep(SETTLE));
        let after = server.ask(SAMPLE)?;
        Ok::<_, String>((number(&after, "cpu_ms")? - number(&before, "cpu_ms")?) / SETTLE.as_secs_f64())
    };
    let mut attackers = Attackers::start(asked, invitation, 1)?;
    runtime.block_on(clock.sleep(SETTLE));
    let alone_each_s = idle(server)?;
    let (before, began) = (server.ask(SAMPLE)?, clock.elapsed());
    attackers.begin()?;
    let done = attackers.end()?;
    let (after, took) = (server.ask(SAMPLE)?, (clock.elapsed() - began).as_secs_f64());
    let acts = done.iter().map(|done| number(done, "acts")).sum::<Outcome<f64>>()?.max(1.0);
    let cpu = number(&after, "cpu_ms")? - number(&before, "cpu_ms")? - alone_each_s * took;
    let each = |name: &str| Some((after[name].as_f64()? - before[name].as_f64()?) / acts);
    Ok(json!({
        "acts": acts,
        "seconds": took,
        "attackers": done,
        "cpu_ms_per_act": cpu / acts,
        "cores": cpu / 1e3 / took,
        "rss_kb_per_act": each("rss_kb"),
        "heap_kb_per_act": each("heap_kb"),
        "rss_kb": after["rss_kb"],
        "accounts_before": before["accounts"],
        "accounts_after": after["accounts"],
    }))
}

fn number(of: &Value, name: &str) -> Outcome<f64> {
    of[name].as_f64().ok_or_else(|| format!("{of} has no {name}"))
}
