//! The two processes of a storm: the server's, and the one of all peers.

use std::io::BufRead;
use std::sync::Arc;
use std::time::Duration;

use rookery_runtime::Clock;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::exchange::Answered;
use super::stacks::{Attempt, Held, Stack};
use super::{DEADLINE, Outcome, Plan, SETTLE};
use crate::measure::{process_cpu, resident_bytes};

/// Descriptors beside those of peers: standard streams, the runtime's, libraries'.
const OWN_DESCRIPTORS: usize = 64;
/// Reasons of lost peers that a report tells. More would say the same.
const REASONS: usize = 3;
/// To the server: the storm begins now.
pub const MARK: &str = "mark";
/// To the server: the storm is over.
pub const REPORT: &str = "report";
/// To the peers: begin.
pub const GO: &str = "go";

/// The server's process.
pub fn serve(stack: Stack, plan: &Plan) -> Outcome<()> {
    make_room(plan.peers * stack.descriptors())?;
    let runtime = runtime()?;
    let answered = Arc::new(Answered::default());
    let serving = runtime.block_on(stack.serve(plan, Arc::clone(&answered)))?;
    say(&json!({ "invitation": serving.invitation }));
    let mut before = Used::now()?;
    while let Some(order) = heard()? {
        match order.as_str() {
            MARK => {
                before = Used::now()?;
                say(&json!({ "marked": true }));
            }
            REPORT => {
                runtime.block_on(Clock::system().sleep(SETTLE));
                let mut report = before.since()?;
                report["verified"] = answered.count().into();
                say(&report);
            }
            other => return Err(format!("a server has no order {other:?}")),
        }
    }
    Ok(())
}

/// The process of the peers.
pub fn connect(stack: Stack, plan: &Plan, invitation: &str) -> Outcome<()> {
    make_room(plan.peers * stack.descriptors())?;
    let runtime = runtime()?;
    let attempts = runtime.block_on(stack.peers(plan, invitation))?;
    say(&json!({ "ready": attempts.len() }));
    if heard()?.as_deref() != Some(GO) {
        return Err(format!("peers wait for {GO:?} only"));
    }
    let before = Used::now()?;
    let ended = runtime.block_on(storm(attempts));
    let mut report = before.since()?;
    for (name, value) in summary(&ended) {
        report[name] = value;
    }
    say(&report);
    // Every connection stays open until the server has been counted: the parent closes this input after it.
    while heard()?.is_some() {}
    Ok(())
}

/// How an attempt ended, and when, from the storm's start.
type Ended = (Duration, Outcome<Held>);

/// All of them at once; returns when each has an answer or is lost.
async fn storm(attempts: Vec<Attempt>) -> Vec<Ended> {
    let clock = Clock::system();
    let mut under_way = JoinSet::new();
    for attempt in attempts {
        under_way.spawn(async move {
            let ended = tokio::time::timeout(DEADLINE, attempt).await;
            let ended = ended.unwrap_or_else(|_| Err(format!("no answer within {DEADLINE:?}")));
            (clock.elapsed(), ended)
        });
    }
    let mut all = Vec::with_capacity(under_way.len());
    while let Some(ended) = under_way.join_next().await {
        all.push(ended.unwrap_or_else(|error| (clock.elapsed(), Err(format!("its task: {error}")))));
    }
    all
}

fn summary(ended: &[Ended]) -> [(&'static str, Value); 5] {
    let mut times: Vec<f64> = Vec::with_capacity(ended.len());
    let mut reasons: Vec<&str> = Vec::new();
    for (at, how) in ended {
        match how {
            Ok(_) => times.push(at.as_secs_f64() * 1e3),
            Err(why) if reasons.len() < REASONS && !reasons.contains(&why.as_str()) => reasons.push(why),
            Err(_) => {}
        }
    }
    times.sort_by(f64::total_cmp);
    let wall = ended.iter().map(|(at, _)| *at).max().unwrap_or_default();
    [
        ("verified", times.len().into()),
        ("wall_s", wall.as_secs_f64().into()),
        ("p50_ms", percentile(&times, 50).into()),
        ("p99_ms", percentile(&times, 99).into()),
        ("reasons", reasons.into()),
    ]
}

/// The least of sorted values that is not below so many hundredths of them.
fn percentile(sorted: &[f64], hundredths: usize) -> Option<f64> {
    let rank = (sorted.len() * hundredths).div_ceil(100);
    sorted.get(rank.checked_sub(1)?).copied()
}

/// What this process has used so far.
struct Used {
    cpu: Duration,
    resident: u64,
}

impl Used {
    fn now() -> Outcome<Self> {
        Ok(Self { cpu: process_cpu(), resident: resident_bytes()? })
    }

    fn since(&self) -> Outcome<Value> {
        let now = Self::now()?;
        Ok(json!({
            "cpu_ms": (now.cpu - self.cpu).as_secs_f64() * 1e3,
            "resident_kb": (now.resident as f64 - self.resident as f64) / 1024.0,
        }))
    }
}

/// The runtime that users of all these stacks have: tokio's, with a worker for each core.
fn runtime() -> Outcome<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("no runtime: {error}"))
}

/// Raises this process's limit of descriptors to what the machine allows, and says so if that is too few.
fn make_room(for_peers: usize) -> Outcome<()> {
    let need = (for_peers + OWN_DESCRIPTORS) as u64;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= need) {
        return Ok(());
    }
    if let Some(most) = limit.maximum.filter(|most| *most < need) {
        return Err(format!(
            "{need} descriptors are needed and {most} allowed: raise it with `ulimit -Hn {need}`"
        ));
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(need), maximum: limit.maximum })
        .map_err(|error| format!("cannot raise the limit of descriptors to {need}: {error}"))
}

/// One line to the parent.
fn say(line: &Value) {
    println!("{line}");
}

/// One line of the parent; none when it has closed this process's input.
fn heard() -> Outcome<Option<String>> {
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line).map_err(|error| format!("my input: {error}"))?;
    Ok((read > 0).then(|| line.trim_end().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!((percentile(&values, 50), percentile(&values, 99)), (Some(100.0), Some(198.0)));
        assert_eq!((percentile(&[5.0], 50), percentile(&[5.0], 99)), (Some(5.0), Some(5.0)));
        assert_eq!(percentile(&[], 99), None);
    }

    #[test]
    fn a_lost_peer_has_a_reason_and_no_time() {
        let held = || Ok(Box::new(()) as Held);
        let at = Duration::from_millis;
        let ended =
            [(at(10), held()), (at(500), Err("no".into())), (at(20), held()), (at(600), Err("no".into()))];
        let summary = Value::Object(
            summary(&ended).map(|(name, value)| (name.to_owned(), value)).into_iter().collect(),
        );
        let expected = json!({
            "verified": 2, "wall_s": 0.6, "p50_ms": 10.0, "p99_ms": 20.0, "reasons": ["no"],
        });
        assert_eq!(summary, expected);
    }
}
