//! Two hundred seeds over the scenarios of mixed trouble and two hundred over the overlay's, under every invariant, each
//! in two halves for two processors.
//!
//! A failure prints the scenario, its seed and the command that shows it again.

use rookery_sim::scenarios;

/// Seeds in all. One more seed is one more world, of the scenario whose turn it is.
const SEEDS: u64 = 200;

/// How the seeds are dealt: what costs little and has many ways to go comes more often.
const TURNS: [&str; 20] = [
    "sync",
    "many",
    "follow",
    "reorg",
    "hostile",
    "churn",
    "storefault",
    "crash",
    "many",
    "deep-fork",
    "hostile",
    "churn",
    "reorg",
    "clock",
    "storefaults",
    "crash",
    "hostile",
    "echo",
    "follow",
    "eclipse",
];

/// The same for the overlay. Its long one shows nothing that a seed changes, and takes as much as ten others.
const OVERLAY_TURNS: [&str; 20] = [
    "overlay-simultaneous",
    "overlay-churn",
    "overlay-siege",
    "overlay-simultaneous",
    "overlay-churn",
    "overlay-flood",
    "overlay-thief",
    "overlay-storm",
    "overlay-siege",
    "overlay-bootstrap",
    "overlay-cut",
    "overlay-siege-half-open",
    "overlay-siege-slow",
    "overlay-siege-flood",
    "overlay-siege-twins",
    "overlay-siege-replay",
    "overlay-siege-relay",
    "overlay-churn",
    "overlay-siege",
    "overlay-simultaneous",
];

fn run(turns: &[&str], half: u64) {
    for seed in (half..SEEDS).step_by(2) {
        // Both halves get every scenario: the turn advances once for every two seeds.
        let name = turns[(seed / 2) as usize % turns.len()];
        let scenario = scenarios::find(name).unwrap_or_else(|| panic!("{name} is a scenario"));
        if let Err(failure) = (scenario.run)(seed) {
            panic!("{failure}");
        }
    }
}

#[test]
fn even_seeds_hold() {
    run(&TURNS, 0);
}

#[test]
fn odd_seeds_hold() {
    run(&TURNS, 1);
}

#[test]
fn even_seeds_of_the_overlay_hold() {
    run(&OVERLAY_TURNS, 0);
}

#[test]
fn odd_seeds_of_the_overlay_hold() {
    run(&OVERLAY_TURNS, 1);
}

#[test]
fn every_rogue_meets_its_fate() {
    let rogues = rookery_sim::scenarios().iter().filter(|scenario| scenario.name.starts_with("rogue-"));
    for (seed, scenario) in (1000..).zip(rogues) {
        if let Err(failure) = (scenario.run)(seed) {
            panic!("{failure}");
        }
    }
}
