//! The overlay in simulated worlds: storms, races, churn, and many nodes that find each other.
//!
//! `rookery sim` runs each scenario small. Those whose size matters take it as a plan, so that tests run the same
//! scenario larger.

mod bootstrap;
mod churn;
mod crossing;
mod long;
mod overlay_world;
mod storm;

use super::Scenario;

pub use bootstrap::{Bootstrap, bootstrap};
pub use crossing::crossing;
pub use long::{Long, long};
pub use storm::{Storm, storm};

/// All of them.
pub(super) const ALL: [Scenario; 5] =
    [storm::SCENARIO, crossing::SCENARIO, churn::SCENARIO, bootstrap::SCENARIO, long::SCENARIO];
