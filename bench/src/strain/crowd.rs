//! A crowd: N peers connect and do nothing; what each of them costs the server, by how many there are.
//!
//! Each size has a new server and a new process of peers. Memory is what is resident after the idle minutes less what was before
//! the first peer; CPU is that of the idle minutes alone: keep-alives, pings, timers. What connecting took is shown apart.

use std::time::Duration;

use rookery_runtime::Clock;
use serde_json::{Value, json};

use super::options::CrowdAsked;
use super::server::{Admit, SAMPLE, Serving};
use super::{Outcome, options};
use crate::child::{Process, runtime};

/// Sizes of the curve, up to what is asked for.
const SIZES: [usize; 3] = [10, 100, 1_000];
/// From the last connection to the idle minutes: for what connecting has left to do.
const SETTLE: Duration = Duration::from_secs(5);
/// Room for sessions beside those of peers.
const SPARE: usize = 64;

/// Runs all sizes and prints them.
pub fn run(asked: &CrowdAsked) -> Outcome<()> {
    let mut sizes: Vec<usize> = SIZES.into_iter().filter(|size| *size < asked.peers && !asked.only).collect();
    sizes.push(asked.peers);
    if !asked.json {
        println!(
            "{:>6} {:>9} {:>8} {:>12} {:>13} {:>11} {:>12} {:>12} {:>12}",
            "peers",
            "connected",
            "after",
            "RSS kB/peer",
            "heap kB/peer",
            "tasks/peer",
            "descriptors",
            "CPU ms/conn",
            "CPU ms/min"
        );
    }
    let mut lost = 0;
    for size in sizes {
        let line = crowd(size, asked)?;
        lost += line["lost"].as_u64().unwrap_or(u64::MAX);
        if asked.json { println!("{line}") } else { println!("{}", row(&line)) }
    }
    if lost == 0 { Ok(()) } else { Err(format!("{lost} peers did not connect, or did not stay")) }
}

fn row(line: &Value) -> String {
    let shown = |name: &str, decimals: usize| {
        line[name].as_f64().map_or_else(|| "-".to_owned(), |value| format!("{value:.decimals$}"))
    };
    format!(
        "{:>6} {:>9} {:>8} {:>12} {:>13} {:>11} {:>12} {:>12} {:>12}",
        shown("peers", 0),
        shown("connected", 0),
        shown("connected_after", 0),
        shown("rss_kb_per_peer", 1),
        shown("heap_kb_per_peer", 1),
        shown("tasks_per_peer", 2),
        shown("descriptors", 0),
        shown("cpu_ms_per_connect", 3),
        shown("cpu_ms_per_peer_minute", 4),
    )
}

fn crowd(size: usize, asked: &CrowdAsked) -> Outcome<Value> {
    let serving = Serving { sessions: size + SPARE, admit: Admit::Local, idle: asked.idle };
    let mut server = Process::start(options::SERVE, serving.arguments())?;
    let invitation = server.heard()?;
    let invitation = invitation["invitation"].as_str().ok_or("the server said no invitation")?;
    let mut peers = Process::start(options::PEERS, [size.to_string(), invitation.to_owned()])?;
    peers.heard()?;
    let before = server.ask(SAMPLE)?;
    let filled = peers.ask(&format!("fill {size}"))?;
    let (runtime, clock) = (runtime()?, Clock::system());
    runtime.block_on(clock.sleep(SETTLE));
    let full = server.ask(SAMPLE)?;
    runtime.block_on(clock.sleep(Duration::from_secs_f64(asked.minutes * 60.0)));
    let after = server.ask(SAMPLE)?;

    let between = |from: &Value, to: &Value, name: &str| Some(to[name].as_f64()? - from[name].as_f64()?);
    let each = |total: Option<f64>| total.map(|total| total / size as f64);
    let stayed = after["slots"].as_u64().ok_or("a sample has no slots")?;
    Ok(json!({
        "bench": "crowd",
        "peers": size,
        "minutes": asked.minutes,
        "connected": full["slots"],
        "connected_after": stayed,
        "lost": (size as u64).saturating_sub(stayed),
        "reasons": filled["reasons"],
        "connect_p99_ms": filled["p99_ms"],
        "rss_kb": after["rss_kb"],
        "rss_kb_alone": before["rss_kb"],
        "rss_kb_per_peer": each(between(&before, &after, "rss_kb")),
        "heap_kb_per_peer": each(between(&before, &after, "heap_kb")),
        "tasks_per_peer": each(between(&before, &after, "tasks")),
        "descriptors": after["descriptors"],
        "cpu_ms_per_connect": each(between(&before, &full, "cpu_ms")),
        "cpu_ms_per_peer_minute": each(between(&full, &after, "cpu_ms")).map(|ms| ms / asked.minutes),
        "balanced": after["balanced"],
    }))
}
