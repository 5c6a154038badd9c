//! Where this node can be reached: what its owner says, where it listens, and where peers of different networks see it.

use std::net::SocketAddr;

use rookery_engine::EngineHandle;
use rookery_engine::registry::watch::Change;
use rookery_runtime::{Env, OnPanic};

use crate::services::discovery::DiscoveryHandle;
use crate::services::votes::Votes;

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
    let (mut states, discovery) = (engine.watch(), discovery.clone());
    env.scope.spawn("reach", OnPanic::StopNode, async move {
        let mut votes = Votes::default();
        let mut told = None;
        loop {
            let mut addrs = fixed.clone();
            if listens {
                addrs.extend(votes.believed().into_iter().filter(|addr| !fixed.contains(addr)));
            }
            if told.as_ref() != Some(&addrs) {
                discovery.set_addrs(addrs.clone()).await;
                told = Some(addrs);
            }
            let Some(change) = states.next().await else { return };
            match (change.change, change.facts.observed) {
                (Change::Connected, Some(seen)) => votes.vote(change.generation, change.facts.addr, seen),
                (Change::Connected, None) => {}
                (Change::Lost(_), _) => votes.gone(change.generation),
            }
        }
    });
}
