//! Attacks: what a hostile act costs the server, and what honest peers notice of it.
//!
//! | attack | an act |
//! |---|---|
//! | `half-open` | the first flight of a real handshake from a new port, and nothing after it |
//! | `prefix` | the same, each from its own address, spread over the networks of 127.0.0.0/8 |
//! | `slow` | a handshake by one who proves its address and lets out one datagram a second; it never says hello |
//! | `flood` | a message of one connected peer, which sends 100 times what the rate of its kind allows and minds no limit |
//!
//! Three times the same length, at one server: honest peers alone; the attack alone, which gives its cost; both together. Honest
//! peers come from addresses of their own, connect, ask and leave, at a fixed rate whether or not earlier ones are through.
//! First flights are recorded before the attack, by a socket to which a real stack dials; the attacker then has raw sockets
//! only. The cost of an act is the server's CPU and memory of the attack alone, less what it uses alone in the same time,
//! divided by the acts.

mod flood;
mod raw;
mod slow;

use std::time::Duration;

use rookery_runtime::{Clock, Env};
use rookery_transport::quic::{Datagrams, Quic, QuicLimits};
use rookery_transport::tls::{Identity, Trust};
use serde_json::{Value, json};

use super::options::{AttackAsked, Attacker};
use super::peers::Server;
use super::server::{SAMPLE, Serving};
use super::{Outcome, options, said};
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
/// To the attacker: begin.
const ATTACK: &str = "attack";

/// What the attacker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    HalfOpen,
    Prefix,
    Slow,
    Flood,
}

impl Kind {
    /// All of them, with their names on the command line.
    pub const ALL: [(&str, Self); 4] = [
        ("half-open", Self::HalfOpen),
        ("prefix", Self::Prefix),
        ("slow", Self::Slow),
        ("flood", Self::Flood),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }

    /// Acts when none are asked for, in an attack of so many seconds.
    pub fn acts(self, seconds: u64) -> usize {
        match self {
            Self::HalfOpen => 1_000,
            Self::Prefix => 10_000,
            Self::Slow => 5_000,
            // A hundred times the hundred a second that a peer may send.
            Self::Flood => {
                usize::try_from(seconds).map_or(usize::MAX, |seconds| seconds.saturating_mul(10_000))
            }
        }
    }
}

/// The attacker's process.
pub fn attacker(asked: &Attacker) -> Outcome<()> {
    make_room(asked.count.min(match asked.kind {
        Kind::Slow => asked.count,
        Kind::HalfOpen | Kind::Prefix | Kind::Flood => raw::OPEN,
    }))?;
    let server = Server::read(&asked.at)?;
    let runtime = runtime()?;
    let over = Duration::from_secs(asked.seconds);
    let order = || match heard()? {
        Some(order) if order == ATTACK => Ok(()),
        other => Err(format!("an attacker waits for {ATTACK:?} only, not {other:?}")),
    };
    let ready = || say(&json!({ "ready": true }));
    let done = match asked.kind {
        Kind::HalfOpen | Kind::Prefix => {
            let flights = runtime.block_on(raw::record(asked.count))?;
            ready();
            order()?;
            runtime.block_on(raw::replay(asked, server.address, &flights))?
        }
        Kind::Slow => {
            let attempts = runtime.block_on(slow::make(asked.count))?;
            ready();
            order()?;
            runtime.block_on(slow::attack(attempts, server.address, over))
        }
        Kind::Flood => {
            ready();
            order()?;
            runtime.block_on(flood::attack(asked.count, server.address, over))?
        }
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

/// Runs it and prints what it came to.
pub fn run(asked: &AttackAsked) -> Outcome<()> {
    let serving =
        Serving { sessions: SESSIONS, admit: asked.admit, idle: QuicLimits::DEFAULT.idle.as_secs() };
    let mut server = Process::start(options::SERVE, serving.arguments())?;
    let invitation = server.heard()?;
    let invitation = invitation["invitation"].as_str().ok_or("the server said no invitation")?.to_owned();
    let mut peers = Process::start(options::PEERS, [SESSIONS.to_string(), invitation.clone()])?;
    peers.heard()?;
    peers.ask(&format!("visit {WARM} {HONEST}"))?;
    let visit = format!("visit {} {HONEST}", usize::try_from(asked.seconds).map_err(said)? * HONEST);

    let alone = peers.ask(&visit)?;
    let attack = Attacker { kind: asked.kind, count: asked.count, seconds: asked.seconds, at: invitation };
    let cost = cost(&mut server, &attack)?;
    let mut attacker = Process::start(options::ATTACKER, attack.arguments())?;
    attacker.heard()?;
    attacker.order(ATTACK)?;
    let under = peers.ask(&visit)?;
    attacker.heard()?;
    let last = server.ask(SAMPLE)?;
    print(asked, &alone, &under, &cost, &last);
    let failed = under["failed"].as_u64().unwrap_or(u64::MAX);
    let fine = failed == 0 && last["balanced"] == true && last["panics"] == 0;
    if fine { Ok(()) } else { Err(format!("{failed} honest peers failed, or the accounts are off")) }
}

/// What the attack alone costs.
fn cost(server: &mut Process, attack: &Attacker) -> Outcome<Value> {
    let (runtime, clock) = (runtime()?, Clock::system());
    let idle = |server: &mut Process| {
        let before = server.ask(SAMPLE)?;
        runtime.block_on(clock.sleep(SETTLE));
        let after = server.ask(SAMPLE)?;
        Ok::<_, String>((number(&after, "cpu_ms")? - number(&before, "cpu_ms")?) / SETTLE.as_secs_f64())
    };
    let mut attacker = Process::start(options::ATTACKER, attack.arguments())?;
    attacker.heard()?;
    runtime.block_on(clock.sleep(SETTLE));
    let alone_each_s = idle(server)?;
    let (before, began) = (server.ask(SAMPLE)?, clock.elapsed());
    let done = attacker.ask(ATTACK)?;
    let (after, took) = (server.ask(SAMPLE)?, (clock.elapsed() - began).as_secs_f64());
    let acts = number(&done, "acts")?.max(1.0);
    let cpu = number(&after, "cpu_ms")? - number(&before, "cpu_ms")? - alone_each_s * took;
    let each = |name: &str| Some((after[name].as_f64()? - before[name].as_f64()?) / acts);
    Ok(json!({
        "acts": acts,
        "seconds": took,
        "attacker": done,
        "cpu_ms_per_act": cpu / acts,
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

fn print(asked: &AttackAsked, alone: &Value, under: &Value, cost: &Value, last: &Value) {
    let p99 = |of: &Value| of["p99_ms"].as_f64();
    let ratio = p99(under).zip(p99(alone)).map(|(under, alone)| under / alone);
    let line = json!({
        "bench": "attack",
        "attack": asked.kind.name(),
        "admit": asked.admit.name(),
        "count": asked.count,
        "seconds": asked.seconds,
        "cost": cost,
        "honest_alone": alone,
        "honest_under": under,
        "p99_ratio": ratio,
        "rss_kb_at_end": last["rss_kb"],
        "balanced": last["balanced"],
    });
    if asked.json {
        return println!("{line}");
    }
    println!(
        "{} x {} in {} s, handshakes admitted as `{}`",
        asked.kind.name(),
        asked.count,
        asked.seconds,
        asked.admit.name()
    );
    let shown = |of: &Value, name: &str, decimals: usize| {
        of[name].as_f64().map_or_else(|| "-".to_owned(), |value| format!("{value:.decimals$}"))
    };
    println!(
        "an act costs {} CPU ms, {} kB resident, {} kB of heap",
        shown(cost, "cpu_ms_per_act", 4),
        shown(cost, "rss_kb_per_act", 2),
        shown(cost, "heap_kb_per_act", 2),
    );
    println!("attacker: {}", cost["attacker"]);
    println!(
        "accounts before it: {}\naccounts after it:  {}",
        cost["accounts_before"], cost["accounts_after"]
    );
    println!(
        "{:<22} {:>8} {:>8} {:>10} {:>10} {:>10}",
        "honest peers", "all", "failed", "p50 ms", "p99 ms", "max ms"
    );
    for (name, of) in [("alone", alone), ("under attack", under)] {
        println!(
            "{name:<22} {:>8} {:>8} {:>10} {:>10} {:>10}",
            shown(of, "connects", 0),
            shown(of, "failed", 0),
            shown(of, "p50_ms", 1),
            shown(of, "p99_ms", 1),
            shown(of, "max_ms", 1),
        );
        of["reasons"].as_array().into_iter().flatten().for_each(|why| println!("  failed: {why}"));
    }
    println!("p99 under attack over alone: {}", shown(&line, "p99_ratio", 2));
}
