//! The surroundings of a node's tasks.

use std::sync::Arc;
use std::time::Duration;

use rookery_observe::{Metrics, Trace, TraceEvent};

use crate::{Clock, RngSource, Scope};

/// One per node; cloned into every task. Time, randomness, spawning and blocking work come from here and from
/// nowhere else, which is what makes a simulation of the same code repeat exactly.
#[derive(Debug, Clone)]
pub struct Env {
    /// Time.
    pub clock: Clock,
    /// Randomness.
    pub rng: RngSource,
    /// Supervision. [`Env::within`] gives a child's.
    pub scope: Scope,
    /// Counters and histograms.
    pub metrics: Arc<Metrics>,
    /// The record of events.
    pub trace: Trace,
    /// Whether workers run inline on the node's runtime (simulation) or on threads of their own.
    pub inline_workers: bool,
}

impl Env {
    /// A real node's: system clock and randomness, workers on threads.
    pub fn system() -> Self {
        let metrics: Arc<Metrics> = Arc::default();
        Self {
            clock: Clock::system(),
            rng: RngSource::system(),
            scope: Scope::root("node", Arc::clone(&metrics)),
            metrics,
            trace: Trace::off(),
            inline_workers: false,
        }
    }

    /// A simulated node's. To be used on a current-thread runtime with paused time.
    pub fn simulated(seed: u64, node: u32, unix: u64, skew: i64, trace: Trace) -> Self {
        let metrics: Arc<Metrics> = Arc::default();
        Self {
            clock: Clock::simulated(unix, skew),
            rng: RngSource::seeded(seed, node),
            scope: Scope::root("node", Arc::clone(&metrics)),
            metrics,
            trace,
            inline_workers: true,
        }
    }

    /// The same surroundings under a child scope.
    #[must_use]
    pub fn within(&self, scope: Scope) -> Self {
        Self { scope, ..self.clone() }
    }

    /// Records an event in the trace. Costs one branch when nobody listens.
    pub fn trace(&self, event: &'static str, peer: u64, kind: u16, len: u64, verdict: &'static str) {
        if self.trace.is_on() {
            let at: Duration = self.clock.elapsed();
            self.trace.record(TraceEvent { at, node: 0, event, peer, kind, len, verdict });
        }
    }
}
