//! Where this node can be reached: what its owner says, where it listens, and where peers of different networks see it.

use std::net::SocketAddr;
use std::time::Duration;

use rookery_engine::EngineHandle;
use rookery_engine::registry::watch::Change;
use rookery_runtime::{Env, OnPanic};

use crate::services::discovery::DiscoveryHandle;
use crate::services::votes::Votes;

/// How often what peers say is counted: it changes with routes and addresses, not with each session of a storm.
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// Starts to follow what peers say, and tells discovery what is believed.
pub(super) fn start(
    env: &Env,
    engine: &EngineHandle,
    discovery: &DiscoveryHandle,
    advertise: Vec<SocketAddr>,
) {
    let mut fixed = advertise;
    fixed.extend(engine.listening().iter().filter(|addr| !addr.ip().is_unspecified()));
    let listens = !engine.listening().is_empty();
    let (mut states, discovery, clock) = (engine.watch(), discovery.clone(), env.clock);
    env.scope.spawn("reach", OnPanic::StopNode, async move {
        let mut votes = Votes::default();
        let mut told = None;
        let mut count_at = Some(clock.now());
        loop {
            let change = tokio::select! {
                biased;
                () = clock.sleep_until(count_at.unwrap_or_else(|| clock.now())), if count_at.is_some() => {
                    count_at = None;
                    let mut addrs = fixed.clone();
                    if listens {
                        addrs.extend(votes.believed().into_iter().filter(|addr| !fixed.contains(addr)));
                    }
                    if told.as_ref() != Some(&addrs) {
                        discovery.set_addrs(addrs.clone()).await;
                        told = Some(addrs);
                    }
                    continue;
                }
                change = states.next() => change,
            };
            let Some(change) = change else { return };
            count_at.get_or_insert_with(|| clock.now() + COUNT_EVERY);
            match (change.change, change.facts.observed) {
                (Change::Connected, Some(seen)) => votes.vote(change.generation, change.facts.addr, seen),
                (Change::Connected, None) => {}
                (Change::Lost(_), _) => votes.gone(change.generation),
            }
        }
    });
}
