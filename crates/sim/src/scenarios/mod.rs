//! The named scenarios. Each is a function of its seed, and says what it shows.

use crate::world::{Failure, Report};

mod pipes;

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

/// Every scenario, in the order in which they are listed.
pub const fn scenarios() -> &'static [Scenario] {
    &[pipes::SCENARIO]
}

/// The scenario of this name.
pub fn find(name: &str) -> Option<&'static Scenario> {
    scenarios().iter().find(|scenario| scenario.name == name)
}
