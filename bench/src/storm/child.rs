//! The two processes of a storm: the server's, and the one of all peers.

use std::sync::Arc;
use std::time::Duration;

use rookery_engine::Accounts;
use rookery_runtime::Clock;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::exchange::Answered;
use super::stacks::{Attempt, Held, Stack};
use super::{DEADLINE, Outcome, Plan, SETTLE};
use crate::child::{heard, make_room, percentile, runtime, say};
use crate::measure::{process_cpu, resident_bytes};

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
                report["accounts"] = serving.accounts.as_ref().map_or(Value::Null, |read| accounts(&read()));
                say(&report);
            }
            other => return Err(format!("a server has no order {other:?}")),
        }
    }
    Ok(())
}

/// All arrivals by where they are, and whether each is somewhere, once.
fn accounts(accounts: &Accounts) -> Value {
    let mut shown = json!(accounts);
    shown["balanced"] = accounts.balanced().into();
    shown
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

#[cfg(test)]
mod tests {
    use super::*;

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
