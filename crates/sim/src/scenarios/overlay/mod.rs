//! The overlay in simulated worlds: storms, races, churn, attacks, and many nodes that find each other.
//!
//! `rookery sim` runs each scenario small. Those whose size matters take it as a plan, so that tests run the same
//! scenario larger.

mod bootstrap;
mod churn;
mod crossing;
mod cut;
mod flood;
mod long;
mod overlay_world;
mod rogue;
mod siege;
mod storm;
mod thief;

use super::Scenario;

pub(super) use siege::ALONE;

pub use bootstrap::{Bootstrap, bootstrap};
pub use crossing::crossing;
pub use cut::cut;
pub use long::{Long, long};
pub use siege::{Attack, Siege, siege};
pub use storm::{Storm, storm};

/// All of them but [`ALONE`].
pub(super) const ALL: [Scenario; 9] = [
    storm::SCENARIO,
    crossing::SCENARIO,
    cut::SCENARIO,
    churn::SCENARIO,
    flood::SCENARIO,
    thief::SCENARIO,
    siege::SCENARIO,
    bootstrap::SCENARIO,
    long::SCENARIO,
];
