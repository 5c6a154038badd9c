//! Measures the store at the scale it is made for: 330,000 headers of 236 bytes.
//!
//! `cargo run --release -p rookery-store --example measure [headers]`. Each row is measured in fresh processes of its
//! own, so that peak memory is its own; a writer is also killed with SIGKILL right after its last commit, to measure
//! a restart that has to recover. Linux only (peak memory is read from /proc).

use rookery_base::{Hash32, Work};
use rookery_store::{Batch, Config, Run, Store};
use rustix::time::{ClockId, clock_gettime};
use std::error::Error;
use std::path::Path;
use std::process::{Command, exit};

const HEADERS: u32 = 330_000;
const RECORD: usize = 236;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn seconds(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

struct Span {
    wall: f64,
    cpu: f64,
}

impl Span {
    fn start() -> Self {
        Self { wall: seconds(ClockId::Monotonic), cpu: seconds(ClockId::ProcessCPUTime) }
    }

    /// Wall seconds, CPU seconds (user and system, all threads).
    fn end(&self) -> (f64, f64) {
        (seconds(ClockId::Monotonic) - self.wall, seconds(ClockId::ProcessCPUTime) - self.cpu)
    }
}

fn peak_mib() -> Outcome<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).ok_or("no VmHWM")?;
    let kib: f64 = line.split_whitespace().nth(1).ok_or("no number")?.parse()?;
    Ok(kib / 1024.0)
}

fn config(cache: &str) -> Outcome<Config> {
    Ok(Config { cache_bytes: cache.parse()?, ..Config::new("measure", RECORD) })
}

/// Writes `headers` in commits of `per_commit`, then prints: wall, CPU, peak MiB.
fn write(path: &Path, per_commit: u32, headers: u32, cache: &str, kill: bool) -> Outcome<()> {
    let mut store = Store::open(path, &config(cache)?)?;
    let mut raw = [0; RECORD];
    let mut at = 0;
    // Making up the headers is not the store's work: it is measured on its own and taken off.
    let mut making = 0.0;
    let span = Span::start();
    while at < headers {
        let made = Span::start();
        let mut run = Run::extend(at, Work::from(at));
        for height in at..headers.min(at + per_commit) {
            raw[..4].copy_from_slice(&height.to_le_bytes());
            raw[100..104].copy_from_slice(&height.wrapping_mul(0x9e37_79b9).to_le_bytes());
            let mut hash = [0; 32];
            hash[..4].copy_from_slice(&height.to_be_bytes());
            run.push(&raw, Hash32(hash), Work::from(height + 1));
        }
        at += run.len() as u32;
        let batch = Batch { run: Some(run), ..Batch::default() };
        making += made.end().1;
        store.commit(&batch)?;
    }
    let (wall, cpu) = span.end();
    println!("{wall} {} {}", cpu - making, peak_mib()?);
    if kill {
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)?;
    }
    Ok(())
}

/// Opens and reads every hash, then prints: wall, CPU, peak MiB.
fn restart(path: &Path, cache: &str) -> Outcome<()> {
    let span = Span::start();
    let store = Store::open(path, &config(cache)?)?;
    let mut seen = 0;
    let mut last = Hash32::ZERO;
    store.reader().visit_hashes(&mut |chunk| {
        seen += chunk.hashes.len();
        last = chunk.hashes[chunk.hashes.len() - 1];
    })?;
    let (wall, cpu) = span.end();
    assert_eq!((seen, Some(last)), (store.state().len(), store.state().tip.map(|tip| tip.hash)));
    println!("{wall} {cpu} {}", peak_mib()?);
    Ok(())
}

fn child(arguments: &[&str]) -> Outcome<Vec<f64>> {
    let output = Command::new(std::env::current_exe()?).args(arguments).output()?;
    let text = String::from_utf8(output.stdout)?;
    let numbers: Result<Vec<f64>, _> = text.split_whitespace().map(str::parse).collect();
    let numbers = numbers?;
    if numbers.len() != 3 {
        return Err(format!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(numbers)
}

fn table(headers: &str) -> Outcome<()> {
    println!(
        "| headers per commit | cache MiB | write CPU s | write wall s | peak MiB | file MiB | restart s | peak MiB | after kill -9 s | peak MiB |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for (per_commit, cache_mib) in [(2_000, 4), (8_000, 1), (8_000, 4), (8_000, 32), (20_000, 4)] {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("headers.redb");
        let name = path.to_str().ok_or("path is not text")?;
        let (cache, per) = ((cache_mib << 20).to_string(), per_commit.to_string());
        let written = child(&["write", name, &per, headers, &cache])?;
        let mib = std::fs::metadata(&path)?.len() as f64 / f64::from(1 << 20);
        let clean = child(&["restart", name, &cache])?;
        std::fs::remove_file(&path)?;
        child(&["write-and-die", name, &per, headers, &cache])?;
        let killed = child(&["restart", name, &cache])?;
        println!(
            "| {per_commit} | {cache_mib} | {:.3} | {:.3} | {:.1} | {mib:.1} | {:.3} | {:.1} | {:.3} | {:.1} |",
            written[1], written[0], written[2], clean[0], clean[2], killed[0], killed[2]
        );
    }
    Ok(())
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments.as_slice() {
        [] => table(&HEADERS.to_string()),
        [headers] => table(headers),
        ["restart", path, cache] => restart(Path::new(path), cache),
        [verb @ ("write" | "write-and-die"), path, per, headers, cache] => {
            match (per.parse(), headers.parse()) {
                (Ok(per), Ok(headers)) => {
                    write(Path::new(path), per, headers, cache, *verb == "write-and-die")
                }
                _ => Err("expected numbers".into()),
            }
        }
        _ => Err("usage: measure [headers]".into()),
    };
    if let Err(error) = outcome {
        eprintln!("measure: {error}");
        exit(1);
    }
}
