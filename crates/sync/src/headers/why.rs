//! What progress waits for, hop by hop.

use std::time::Duration;

use rookery_runtime::Instant;

use super::actor::Reactor;
use super::roster::Purpose;
use crate::tree::MAX_PENDING_BYTES;

/// How a hop is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HopState {
    /// It waits for nothing.
    Ok,
    /// It waits, and something is under way.
    Waiting,
    /// It waits, and nothing that we do ends it.
    Stuck,
}

/// One hop on the way from a peer to the store, and what it waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// Its name.
    pub hop: &'static str,
    /// How it is doing.
    pub state: HopState,
    /// What it waits for, and since when.
    pub detail: String,
}

impl Hop {
    /// A hop that waits for nothing.
    pub const fn ok(hop: &'static str, detail: String) -> Self {
        Self { hop, state: HopState::Ok, detail }
    }

    /// A hop that waits.
    pub const fn waits(hop: &'static str, detail: String) -> Self {
        Self { hop, state: HopState::Waiting, detail }
    }

    /// A hop that is stuck.
    pub const fn stuck(hop: &'static str, detail: String) -> Self {
        Self { hop, state: HopState::Stuck, detail }
    }
}

impl Reactor {
    /// The hops from peers to the store, in order.
    pub(super) fn why(&self) -> Vec<Hop> {
        let now = self.env.clock.now();
        let height = self.tree.tip().height;
        let ago = |at: Instant| seconds(now.saturating_duration_since(at));
        let mut hops = Vec::new();
        let (peers, target) = (self.roster.len(), self.roster.target());
        hops.push(match target {
            _ if peers == 0 => Hop::waits("peers", "none is connected".into()),
            None => Hop::stuck("peers", format!("{peers} connected, and all have failed to deliver")),
            Some(target) if target > height => Hop::waits(
                "peers",
                format!("{peers} connected, the best claims height {target}; we are at {height}"),
            ),
            Some(_) => Hop::ok("peers", format!("{peers} connected, none has more than height {height}")),
        });
        for peer in self.roster.iter() {
            let who = peer.handle.addr;
            if let Some(asked) = peer.asked {
                let since = ago(asked.at);
                hops.push(match asked.purpose {
                    Purpose::Primary => Hop::waits(
                        "request",
                        format!("{who} was asked {since} ago for the headers after {}", asked.height),
                    ),
                    Purpose::Hedge => Hop::waits(
                        "request",
                        format!("{who} was asked the same {since} ago, because the first is slow"),
                    ),
                    Purpose::More | Purpose::Probe => {
                        Hop::ok("request", format!("{who} was asked {since} ago whether it has more"))
                    }
                });
            } else if let Some(until) = peer.rests_until.filter(|until| *until > now) {
                let left = seconds(until.saturating_duration_since(now));
                let (claimed, strikes) = (peer.claimed, peer.strikes);
                hops.push(Hop::waits(
                    "rest",
                    format!("{who} claims {claimed}, failed {strikes} times, is asked again in {left}"),
                ));
            }
        }
        let pending = self.tree.pending_bytes();
        let waiting = format!("{pending} bytes of headers wait, of at most {MAX_PENDING_BYTES}");
        hops.push(match self.committer.since() {
            Some(since) => Hop::waits("store", format!("writing for {}; {waiting}", ago(since))),
            None if pending > 0 => Hop::waits("store", waiting),
            None => Hop::ok("store", format!("all of {height} headers are durable")),
        });
        if self.full() {
            hops.push(Hop::stuck(
                "admission",
                "nothing more is admitted until the store has caught up".into(),
            ));
        }
        hops
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
