//! What a node tells about itself.
//!
//! | module | what it is for |
//! |---|---|
//! | [`metrics`] | one registry per node (a thousand nodes share a process in simulation), Prometheus text |
//! | [`trace`] | one record per engine event: hashed by the auditor in simulation, JSON lines on request in a node |
//!
//! Labels come from small closed sets (direction, message, reason, outcome). A peer is never a label.

pub mod metrics;
pub mod trace;

pub use metrics::Metrics;
pub use trace::{Trace, TraceEvent, TraceSink};
