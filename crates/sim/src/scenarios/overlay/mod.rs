//! The overlay in simulated worlds: storms, races, churn, attacks, and many nodes that find each other.
//!
//! `rookery sim` runs each scenario small. Those whose size matters take it as a plan, so that tests run the same
//! scenario larger.

mod bootstrap;
mod churn;
mod crossing;
mod flood;
mod long;
mod overlay_world;
mod rogue;
mod siege;
mod storm;
mod thief;

use super::Scenario;

pub use bootstrap::{Bootstrap, bootstrap};
pub use crossing::crossing;
pub use long::{Long, long};
pub use siege::{Siege, siege};
pub use storm::{Storm, storm};

/// All of them.
pub(super) const ALL: [Scenario; 8] = [
    storm::SCENARIO,
    crossing::SCENARIO,
    churn::SCENARIO,
    flood::SCENARIO,
    thief::SCENARIO,
    siege::SCENARIO,
    bootstrap::SCENARIO,
    long::SCENARIO,
];
