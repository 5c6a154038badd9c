//! Where this node can be reached: what its owner says, where it listens, where peers of different networks see it, and the
//! port that a gateway has mapped.
//!
//! A gateway's word is never taken alone: a mapped address is told only while peers see this node at the same IP, and beside
//! what they see, not instead of it.

use std::net::SocketAddr;
use std::time::Duration;

use rookery_engine::EngineHandle;
use rookery_engine::registry::watch::Change;
use rookery_runtime::{Env, OnPanic};

use super::mapping::Mapped;
use crate::services::discovery::DiscoveryHandle;
use crate::services::votes::Votes;

/// How often what peers say is counted: it changes with routes and addresses, not with each session of a storm.
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// Starts to follow what peers and a gateway say, and tells discovery what is believed.
pub(super) fn start(
    env: &Env,
    engine: &EngineHandle,
    discovery: &DiscoveryHandle,
    advertise: Vec<SocketAddr>,
    mut mapped: Mapped,
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
                    // A mapping whose owner has gone is renewed no more.
                    let mapping = mapped.has_changed().ok().and_then(|_| *mapped.borrow_and_update());
                    let addrs = if listens { reachable(&fixed, &votes, mapping) } else { fixed.clone() };
                    if told.as_ref() != Some(&addrs) {
                        discovery.set_addrs(addrs.clone()).await;
                        told = Some(addrs);
                    }
                    continue;
                }
                () = changed(&mut mapped) => {
                    count_at.get_or_insert_with(|| clock.now() + COUNT_EVERY);
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

/// The gateway has said something new; never, where none is asked.
async fn changed(mapped: &mut Mapped) {
    if mapped.changed().await.is_err() {
        std::future::pending().await
    }
}

/// The addresses to tell, the surest first.
fn reachable(fixed: &[SocketAddr], votes: &Votes, mapped: Option<SocketAddr>) -> Vec<SocketAddr> {
    let mut addrs = fixed.to_vec();
    for addr in votes.believed().into_iter().chain(mapped.filter(|addr| votes.believed_ip(addr.ip()))) {
        if !addrs.contains(&addr) {
            addrs.push(addr);
        }
    }
    addrs
}

#[cfg(test)]
mod tests {
    use rookery_base::Generation;

    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// Peers of this many groups see the node at these addresses, in turn.
    fn seen(groups: u8, at: &[&str]) -> Votes {
        let mut votes = Votes::default();
        for (n, seen) in (0..groups).zip(at.iter().cycle()) {
            votes.vote(Generation(n.into()), SocketAddr::from(([20, n, 0, 1], 7000)), addr(seen));
        }
        votes
    }

    #[test]
    fn what_a_gateway_says_is_told_where_peers_see_the_same_host() {
        let (fixed, mapped) = ([addr("9.9.9.9:1")], addr("8.8.8.8:40001"));
        let told = |votes: &Votes| reachable(&fixed, votes, Some(mapped));
        assert_eq!(told(&seen(0, &["8.8.8.8:7"])), fixed, "nobody has seen us");
        assert_eq!(told(&seen(2, &["8.8.8.8:7"])), fixed, "two groups are not enough");
        let each_another_port = seen(3, &["8.8.8.8:7", "8.8.8.8:8", "8.8.8.8:9"]);
        assert_eq!(told(&each_another_port), [fixed[0], mapped]);
        assert_eq!(
            told(&seen(3, &["8.8.8.8:7"])),
            [fixed[0], addr("8.8.8.8:7"), mapped],
            "beside what peers see"
        );
        assert_eq!(told(&seen(3, &["8.8.8.8:40001"])), [fixed[0], mapped], "once");
    }

    #[test]
    fn a_gateway_that_lies_or_stands_behind_another_one_is_not_repeated() {
        for lie in ["1.1.1.1:40001", "192.168.0.2:40001", "100.64.0.9:40001"] {
            assert_eq!(
                reachable(&[], &seen(3, &["8.8.8.8:7"]), Some(addr(lie))),
                [addr("8.8.8.8:7")],
                "{lie}"
            );
        }
    }
}
