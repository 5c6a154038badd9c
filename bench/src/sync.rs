//! The main job: `rookery sync` of a long chain from another process over loopback, as users run it, durable store
//! included; then how long a node with that chain takes from its start until it answers.
//!
//! ```text
//! bench serve  --loopback-->  rookery sync  --> store on disk     CPU, memory: the node's own words at its end
//! bench serve  --loopback-->  plain loop    --> plain file        the floor, in the same run
//! ```
//!
//! hsd's light client, hnsd, is quoted, not measured: it does not run here, and it did not store.

use rookery_handshake::params::SIMNET;
use serde_json::Value;

use crate::figure::Figure;
use crate::process::{Rookery, Server};
use crate::{Setup, floor, measure::Spread};

/// Whole syncs, each into a new directory.
const SYNCS: usize = 5;
/// Restarts of each kind.
const RESTARTS: usize = 9;
/// Floors, taken in turns with the syncs.
const FLOORS: usize = SYNCS;

/// CPU seconds that the client may use for the chain of [`Setup::headers`], when that is the usual 330,000.
const CPU_TARGET: f64 = 1.3;
/// Memory that it may have resident at one time.
const PEAK_TARGET_MIB: f64 = 48.0;
/// Seconds from start to ready.
const READY_TARGET: f64 = 0.3;
/// Whose word hnsd's figures are.
const HNSD: &str = "hnsd 2.99.0 on the same work, without storing; measured elsewhere";

const MIB: f64 = 1024.0 * 1024.0;

/// Measures.
pub fn run(setup: &Setup) -> Result<Vec<Figure>, String> {
    let rookery = Rookery::find(setup.rookery.as_deref(), SIMNET.name)?;
    eprintln!("  with {}, {} headers", rookery.program().display(), setup.headers);
    let server = Server::start(SIMNET.name, setup.headers)?;
    let mut summaries = Vec::new();
    let mut floors = Vec::new();
    let mut last = None;
    for _ in 0..SYNCS.max(FLOORS) {
        let directory = tempfile::tempdir().map_err(|error| format!("no temporary directory: {error}"))?;
        summaries.push(rookery.sync(directory.path(), server.address)?);
        let floor = floor::measure(&SIMNET, server.address, setup.headers, directory.path());
        floors.push(floor.map_err(|error| format!("the floor: {error}"))?);
        last = Some(directory);
    }
    let synced = last.ok_or("no sync was run")?;
    let mut figures = sync_figures(&summaries, setup.headers)?;
    figures.extend(floor_figures(&floors, figures[CPU].value()));
    figures.extend(restart_figures(&rookery, &server, synced.path(), setup.headers)?);
    figures.push(Figure::quoted("hnsd_cpu", 8.7, "s", HNSD));
    figures.push(Figure::quoted("hnsd_peak_memory", 134.0, "MiB", HNSD));
    Ok(figures)
}

/// Place of the CPU time among the figures of the syncs.
const CPU: usize = 0;

fn sync_figures(summaries: &[Value], headers: usize) -> Result<Vec<Figure>, String> {
    let got = summaries.iter().all(|summary| summary["headers"].as_u64() == Some(headers as u64));
    if !got {
        return Err(format!("a sync did not get its {headers} headers: {summaries:?}"));
    }
    let all = |field: &str, unit: f64| -> Result<Vec<f64>, String> {
        let values = summaries.iter().map(|summary| summary[field].as_f64().map(|value| value / unit));
        values.collect::<Option<_>>().ok_or_else(|| format!("a summary lacks {field}"))
    };
    let cpu = all("cpu_seconds", 1.0)?;
    let rates = cpu.iter().map(|seconds| headers as f64 / seconds).collect();
    Ok(vec![
        Figure::spread("cpu", cpu, "s").at_most(CPU_TARGET),
        Figure::spread("peak_memory", all("peak_rss_bytes", MIB)?, "MiB").at_most(PEAK_TARGET_MIB),
        Figure::spread("wall", all("seconds", 1.0)?, "s"),
        Figure::spread("rate", rates, "headers/cpu_s"),
    ])
}

fn floor_figures(floors: &[floor::Floor], cpu: f64) -> Vec<Figure> {
    let part = |part: fn(&floor::Floor) -> f64| floors.iter().map(part).collect::<Vec<_>>();
    let bytes = Spread::of(part(|floor| floor.receive + floor.write)).median;
    let all = Spread::of(part(|floor| floor.receive + floor.write + floor.check)).median;
    vec![
        Figure::spread("floor_receive", part(|floor| floor.receive), "s"),
        Figure::spread("floor_write_and_fsync", part(|floor| floor.write), "s"),
        Figure::spread("floor_check", part(|floor| floor.check), "s"),
        Figure::new("cpu_over_receive_and_write", cpu / bytes, "ratio"),
        Figure::new("cpu_over_whole_floor", cpu / all, "ratio"),
    ]
}

/// The file of a finished sync is opened again and again: after a clean stop, and after the kill of a running node.
fn restart_figures(
    rookery: &Rookery,
    server: &Server,
    data: &std::path::Path,
    headers: usize,
) -> Result<Vec<Figure>, String> {
    let (mut clean, mut killed, mut again) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RESTARTS {
        let (running, seconds) = rookery.ready(data, server.address, headers)?;
        clean.push(seconds);
        drop(running);
        let (running, seconds) = rookery.ready(data, server.address, headers)?;
        killed.push(seconds);
        running.stop()?;
        let summary = rookery.sync(data, server.address)?;
        again.push(summary["seconds"].as_f64().ok_or("a summary lacks seconds")?);
    }
    Ok(vec![
        Figure::spread("ready_after_stop", clean, "s").at_most(READY_TARGET),
        Figure::spread("ready_after_kill", killed, "s").at_most(READY_TARGET),
        Figure::spread("sync_with_nothing_new", again, "s"),
    ])
}
