//! The named scenarios. Each is a function of its seed, and says what it shows.

use crate::world::{Failure, Report};

mod crowd;
mod echo;
mod forks;
mod hostile;
pub mod overlay;
mod pipes;
mod rogues;
mod sync;
mod trouble;

/// A scenario, as `rookery sim` lists it.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it shows.
    pub about: &'static str,
    /// Runs it.
    pub run: fn(seed: u64) -> Result<Report, Box<Failure>>,
}

/// The worlds of more than one kind of trouble.
const MIXED: [Scenario; 15] = [
    pipes::SCENARIO,
    sync::ONE,
    sync::MANY,
    forks::FOLLOW,
    forks::REORG,
    forks::DEEP,
    hostile::SCENARIO,
    trouble::CHURN,
    trouble::FAULT,
    trouble::FAULTS,
    trouble::CRASH,
    crowd::ECLIPSE,
    crowd::CLOCK,
    crowd::HUNDRED,
    echo::SCENARIO,
];

const GROUPS: [&[Scenario]; 4] = [&MIXED, &overlay::ALL, &overlay::ALONE, &rogues::ALL];

const COUNT: usize = MIXED.len() + overlay::ALL.len() + overlay::ALONE.len() + rogues::ALL.len();

static EVERY: [Scenario; COUNT] = {
    let mut every = [pipes::SCENARIO; COUNT];
    let (mut group, mut within, mut at) = (0, 0, 0);
    while at < COUNT {
        if within == GROUPS[group].len() {
            (group, within) = (group + 1, 0);
        } else {
            every[at] = GROUPS[group][within];
            (within, at) = (within + 1, at + 1);
        }
    }
    every
};

/// Every scenario, in the order in which they are listed.
pub const fn scenarios() -> &'static [Scenario] {
    &EVERY
}

/// The scenario of this name.
pub fn find(name: &str) -> Option<&'static Scenario> {
    scenarios().iter().find(|scenario| scenario.name == name)
}
