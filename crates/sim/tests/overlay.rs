//! The overlay's worlds as large as this machine likes: what `rookery sim` runs small.
//!
//! With `ROOKERY_HEAVY=1` they are as large as their claims.

use std::time::{Duration, Instant};

use rookery_sim::scenarios::overlay::{
    Attack, Bootstrap, Long, Siege, Storm, bootstrap, crossing, cut, long, siege, storm,
};
use rookery_sim::{Failure, Report};

fn heavy() -> bool {
    std::env::var_os("ROOKERY_HEAVY").is_some_and(|value| value == "1")
}

/// Runs a world, and says how long that took the machine.
#[expect(clippy::disallowed_methods, reason = "what a run costs the machine is the machine's time")]
fn timed(world: impl FnOnce() -> Result<Report, Box<Failure>>) {
    let began = Instant::now();
    let report = world().unwrap_or_else(|failure| panic!("{failure}"));
    println!("{:.1} s of the machine's time\n{report}", began.elapsed().as_secs_f64());
}

#[test]
fn a_thousand_dial_one_at_once_with_and_without_loss() {
    timed(|| storm(1, Storm { diallers: 1000, losses: [0, 5] }));
}

#[test]
fn pairs_that_dial_each_other_keep_one_session_each() {
    timed(|| crossing(1, if heavy() { 1000 } else { 200 }));
}

#[test]
fn a_connect_cut_off_at_any_await_leaves_nothing_behind() {
    timed(|| cut(0, 1));
}

#[test]
fn everybody_is_found_from_three_and_reached_within_ten_seconds() {
    let few = Bootstrap { nodes: 200, ..Bootstrap::SMALL };
    timed(|| bootstrap(1, if heavy() { Bootstrap::THOUSAND } else { few }));
}

#[test]
fn a_few_that_start_together_find_each_other_as_soon_as_they_are_named() {
    // Each asks the three at once, when they know nobody yet, and again after two seconds.
    let few = Bootstrap {
        nodes: 3,
        starts_within: Duration::from_millis(100),
        peers: 5,
        found_within: Duration::from_millis(2900),
    };
    for seed in 1..=10 {
        bootstrap(seed, few).unwrap_or_else(|failure| panic!("{failure}"));
    }
}

#[test]
fn hours_of_restarts_slow_nothing_and_leave_nothing_behind() {
    timed(|| long(1, if heavy() { Long::THOUSAND } else { Long::SMALL }));
}

#[test]
fn every_attack_at_once_keeps_no_honest_node_out() {
    timed(|| siege(1, if heavy() { Siege::LARGE } else { Siege::SMALL }));
}

#[test]
fn every_attack_at_once_keeps_no_honest_node_out_from_two_hundred_seeds() {
    let seeds = if heavy() { 2..202 } else { 2..4 };
    for seed in seeds {
        siege(seed, Siege::SMALL).unwrap_or_else(|failure| panic!("{failure}"));
    }
}

#[test]
fn each_attack_alone_keeps_no_honest_node_out_from_two_hundred_seeds() {
    const ALONE: [&[Attack]; 6] = [
        &[Attack::HalfOpen],
        &[Attack::Slow],
        &[Attack::Flood],
        &[Attack::Twins],
        &[Attack::Replay],
        &[Attack::Relay],
    ];
    for seed in if heavy() { 2..202 } else { 2..3 } {
        for attacks in ALONE {
            siege(seed, Siege { attacks, ..Siege::SMALL }).unwrap_or_else(|failure| panic!("{failure}"));
        }
    }
}
