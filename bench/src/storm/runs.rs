//! The parent: starts both processes of each storm, stack by stack and run by run, and prints what they came to.

use super::child::{GO, MARK, REPORT};
use super::options::{CONNECT, Runs, SERVE, arguments};
use super::report::{Storm, Summary, heading};
use super::{Outcome, Plan, Stack};
use crate::child::Process;
use crate::measure::dropped_datagrams;

/// Runs and prints them.
pub fn run(asked: &Runs) -> Outcome<()> {
    asked.stacks.iter().try_for_each(|stack| stack.available().and_then(|()| stack.fits(&asked.plan)))?;
    let mut storms: Vec<Vec<Storm>> = vec![Vec::new(); asked.stacks.len()];
    for run in 0..asked.runs {
        for turn in 0..asked.stacks.len() {
            // Another one begins each time, so that none is always the one after the same other.
            let index = (turn + run) % asked.stacks.len();
            let stack = asked.stacks[index];
            let storm = storm(stack, &asked.plan).map_err(|what| format!("{}: {what}", stack.name()))?;
            tell(stack, run, &asked.plan, &storm);
            storms[index].push(storm);
        }
    }
    print(asked, &storms)
}

fn print(asked: &Runs, storms: &[Vec<Storm>]) -> Outcome<()> {
    let floor =
        asked.stacks.iter().position(|stack| *stack == Stack::FLOOR).map(|index| storms[index].as_slice());
    let each = asked.stacks.iter().zip(storms);
    let summaries: Vec<_> = each.map(|(stack, storms)| Summary::of(*stack, asked, storms, floor)).collect();
    match summaries.as_slice() {
        [first, others @ ..] if asked.json && asked.judged => {
            let mut line = first.json();
            line["beside"] = others.iter().map(Summary::json).collect();
            println!("{line}");
        }
        all if asked.json => all.iter().for_each(|summary| println!("{}", summary.json())),
        all => {
            println!("{}", heading());
            all.iter().for_each(|summary| println!("{}", summary.row()));
        }
    }
    let lost = summaries.first().map_or(0, Summary::lost);
    if asked.judged && lost > 0 {
        return Err(format!("{lost} peers were lost"));
    }
    match summaries.iter().find(|summary| !summary.balanced()) {
        Some(off) => Err(format!("the accounts of {} do not add up", off.stack_name())),
        None => Ok(()),
    }
}

/// A word on one storm for who waits.
fn tell(stack: Stack, run: usize, plan: &Plan, storm: &Storm) {
    eprintln!(
        "run {}: {}: {} of {} verified (server {}, peers {}), {:.2} s, p99 {} ms, {:.3} CPU ms and {:.1} kB a peer, \
         {} datagrams dropped",
        run + 1,
        stack.name(),
        storm.verified,
        plan.peers,
        storm.server_verified,
        storm.client_verified,
        storm.wall_s,
        storm.p99_ms.map_or_else(|| "-".to_owned(), |p99| format!("{p99:.0}")),
        storm.cpu_each(),
        storm.rss_each(),
        storm.dropped,
    );
    if let Some(accounts) = &storm.accounts {
        eprintln!("  arrivals: {accounts}");
    }
    storm.reasons.iter().for_each(|reason| eprintln!("  lost: {reason}"));
}

/// One storm of one stack.
fn storm(stack: Stack, plan: &Plan) -> Outcome<Storm> {
    let mut server = Process::start(SERVE, command(stack, plan, None))?;
    let invitation = server.heard()?;
    let invitation = invitation["invitation"].as_str().ok_or("the server said no invitation")?;
    let mut peers = Process::start(CONNECT, command(stack, plan, Some(invitation)))?;
    let ready = peers.heard()?;
    if ready["ready"] != plan.peers {
        return Err(format!("{} peers were to be made: {ready}", plan.peers));
    }
    let dropped = dropped_datagrams()?;
    server.order(MARK)?;
    server.heard()?;
    peers.order(GO)?;
    let client = peers.heard()?;
    server.order(REPORT)?;
    let server = server.heard()?;
    Storm::read(&server, &client, dropped_datagrams()?.saturating_sub(dropped))
}

/// What a process of a storm is told.
fn command(stack: Stack, plan: &Plan, invitation: Option<&str>) -> Vec<String> {
    let mut told = vec![stack.name().to_owned()];
    told.extend(invitation.map(str::to_owned));
    told.extend(arguments(plan));
    told
}
