//! What the node shows: plain data, the same for the tables, `--json`, the control socket and the health checks.
//!
//! Hashes are hexadecimal in natural byte order. Fields are only ever added: scripts read this.

use serde::{Deserialize, Serialize};

use crate::config::Ready;
use crate::config::value::show_duration;

/// How far a node is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Height of the best header.
    pub height: u32,
    /// Its hash.
    pub tip: String,
    /// The best height that a connected peer claims, or the own one when that is higher.
    pub target: u32,
    /// Headers accepted since the start.
    pub headers: u64,
    /// Established sessions.
    pub peers: u32,
    /// Whether nothing that a connected peer has is missing: at least one is connected, and each has been asked
    /// and had nothing more.
    pub at_tip: bool,
}

/// A chain at a glance.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ChainGlance {
    /// Height of the best header.
    pub height: u32,
    /// Its hash.
    pub tip: String,
    /// The best height that a connected peer claims, or the own one when that is higher.
    pub target: u32,
    /// Headers accepted since the start.
    pub headers: u64,
    /// Whether nothing that a connected peer has is missing.
    pub at_tip: bool,
    /// Height of the last header that is durably stored.
    pub stored_height: u32,
    /// Seconds since the time stated in the best header.
    pub tip_age_seconds: u64,
}

impl ChainGlance {
    /// The part that progress shows.
    pub fn of(progress: &Progress) -> Self {
        let Progress { height, tip, target, headers, at_tip, .. } = progress.clone();
        Self { height, tip, target, headers, at_tip, stored_height: 0, tip_age_seconds: 0 }
    }
}

/// A node's place in an overlay.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OverlayGlance {
    /// The overlay's name.
    pub overlay: String,
    /// Who this node is to its peers.
    pub peer_id: String,
    /// The kinds of its keys.
    pub keys: String,
    /// The topic that it is subscribed to; empty: none.
    pub topic: String,
    /// Records of other nodes.
    pub known_records: u64,
    /// Those of them whose owners have been met.
    pub confirmed_records: u64,
}

/// Who a node is to its peers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The network.
    pub network: String,
    /// The overlay's name.
    pub overlay: String,
    /// The peer id.
    pub peer_id: String,
    /// The kinds of its keys.
    pub keys: String,
}

/// The node's own part of [`Status`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The network's name.
    pub network: String,
    /// Established sessions.
    pub peers: u32,
    /// Its chain, where the network has one.
    #[serde(flatten)]
    pub chain: Option<ChainGlance>,
    /// Its place in the overlay, where the network is one.
    #[serde(flatten)]
    pub overlay: Option<OverlayGlance>,
    /// Sessions that others opened.
    pub inbound: u32,
    /// Sessions that this node opened.
    pub outbound: u32,
    /// Dials under way.
    pub dialing: u32,
    /// Addresses in the book.
    pub known_addresses: u32,
    /// Addresses that are refused.
    pub banned: u32,
    /// Bytes of messages held in memory.
    pub budget_bytes: u64,
    /// Bytes received from peers.
    pub received_bytes: u64,
    /// Bytes sent to peers.
    pub sent_bytes: u64,
    /// Addresses that peers can dial.
    pub listening: Vec<String>,
    /// Why the store cannot be written, when it cannot.
    pub store_fault: Option<String>,
}

/// A node's state at a glance.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// The process.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// Where it keeps its data.
    pub data_dir: String,
    /// What the process has used.
    #[serde(flatten)]
    pub usage: crate::usage::Usage,
    /// The node's own part.
    #[serde(flatten)]
    pub node: NodeStatus,
}

/// One session.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PeerRow {
    /// Its address.
    pub address: String,
    /// Its proven identity, in networks where peers prove one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_id: Option<String>,
    /// `in` or `out`.
    pub direction: String,
    /// What it says it runs.
    pub agent: String,
    /// The best height it has claimed or shown, in networks with a chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<u32>,
    /// Last round-trip time in milliseconds.
    pub ping_ms: Option<f64>,
    /// Seconds since the session was established.
    pub connected_seconds: u64,
    /// Bytes received from it.
    pub received_bytes: u64,
    /// Bytes sent to it.
    pub sent_bytes: u64,
    /// Requests that it has not answered yet.
    pub in_flight: u32,
    /// Its score: 0 is spotless, and the ban threshold is where it ends.
    pub score: u32,
    /// Why its reading is parked, when it is.
    pub parked: Option<String>,
}

/// One fact of a peer's ledger.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LedgerFact {
    /// Seconds ago.
    pub seconds_ago: u64,
    /// What happened, from a closed set: `connected`, `fault`, `parked`, `resumed`, `closed`, `banned`, ...
    pub what: String,
    /// The evidence: what was expected and what came.
    pub evidence: String,
    /// How the score changed.
    pub score_change: i64,
}

/// An address that is refused.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BanRow {
    /// The address, whatever the port.
    pub address: String,
    /// Seconds until it is let in again.
    pub seconds_left: u64,
    /// What it did, while that is remembered.
    pub reason: Option<String>,
}

/// Why a peer is treated as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PeerWhy {
    /// Its address.
    pub address: String,
    /// `connected`, `known`, `banned`, ...: what it is to this node now.
    pub state: String,
    /// Its score now.
    pub score: u32,
    /// Seconds until it may be dialled again, when that is not now.
    pub retry_seconds: Option<u64>,
    /// The last facts, oldest first.
    pub facts: Vec<LedgerFact>,
}

/// One header of the best chain.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HeaderRow {
    /// Its height.
    pub height: u32,
    /// Its hash.
    pub hash: String,
    /// Its time in seconds since 1970.
    pub time: u64,
    /// Its compact target in hexadecimal.
    pub bits: String,
}

/// The chain.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ChainView {
    /// The network's name.
    pub network: String,
    /// Height of the best header.
    pub height: u32,
    /// Its hash.
    pub tip: String,
    /// Accumulated work in hexadecimal.
    pub chainwork: String,
    /// Median time of the last eleven headers.
    pub median_time: u64,
    /// Height of the last checkpoint that the chain has passed.
    pub checkpoint: Option<u32>,
    /// Whether the chain has the least work that the network is known to have.
    pub enough_work: bool,
    /// Reorganisations since the start.
    pub reorgs: u64,
    /// Depth of the last one.
    pub last_reorg_depth: u32,
    /// The last headers, newest first.
    pub recent: Vec<HeaderRow>,
}

/// How a hop is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HopState {
    /// It has nothing to wait for.
    Ok,
    /// It waits, within its deadline.
    Waiting,
    /// It is past its deadline.
    Stuck,
}

/// One hop on the way from a socket to the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hop {
    /// Its name: `dial`, `handshake`, `request`, `mailbox`, `verify`, `store`, ...
    pub hop: String,
    /// How it is doing.
    pub state: HopState,
    /// What it waits for, and since when.
    pub detail: String,
}

/// What the node's progress waits for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeWhy {
    /// The answer in a sentence.
    pub verdict: String,
    /// The hops it was read from.
    pub hops: Vec<Hop>,
}

/// What a probed peer answered.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ProbeAnswer {
    /// The peer's resolved address.
    pub address: String,
    /// Milliseconds from the question to the answer.
    pub took_ms: f64,
    /// The answer's fields, in order of interest.
    pub fields: Vec<(String, serde_json::Value)>,
}

/// One scenario of the simulation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// What it shows.
    pub about: String,
}

/// One run of a scenario.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Simulated {
    /// The scenario.
    pub scenario: String,
    /// The seed that repeats the run.
    pub seed: u64,
    /// The auditor's hash over every event.
    pub hash: String,
    /// Events it hashed.
    pub events: u64,
    /// Virtual seconds that passed in the world.
    pub virtual_seconds: f64,
    /// Promises that were broken. Empty is what everybody wants.
    pub broken: Vec<String>,
}

/// What `sync` ends with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SyncSummary {
    /// The network's name.
    pub network: String,
    /// Height reached.
    pub height: u32,
    /// Its hash.
    pub tip: String,
    /// Headers accepted in this run.
    pub headers: u64,
    /// Seconds from the start of the node.
    pub seconds: f64,
    /// CPU seconds of the process.
    pub cpu_seconds: f64,
    /// Most memory that was resident at one time.
    pub peak_rss_bytes: u64,
    /// Peers connected at the end.
    pub peers: u32,
    /// Whether the tip of the connected peers was reached.
    pub at_tip: bool,
}

/// What `demo` ends with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DemoSummary {
    /// The network whose rules the demo plays by.
    pub network: String,
    /// Nodes, the late one included.
    pub nodes: usize,
    /// Height at the end.
    pub height: u32,
    /// Its hash.
    pub tip: String,
    /// Headers that the late node had to catch up with.
    pub headers: u64,
    /// Seconds it took to.
    pub sync_seconds: f64,
    /// New blocks that it followed afterwards.
    pub followed: u32,
    /// CPU seconds of the whole process, mining included.
    pub cpu_seconds: f64,
    /// Most memory that was resident at one time, all nodes together.
    pub peak_rss_bytes: u64,
}

/// What the overlay's `demo` ends with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MeetingSummary {
    /// The network.
    pub network: String,
    /// Nodes, the bootstrap node included.
    pub nodes: usize,
    /// Seconds until each was connected to every other.
    pub connected_seconds: f64,
    /// Nodes that got what one of them published.
    pub delivered: usize,
    /// Milliseconds until the last of them had it.
    pub delivered_ms: f64,
    /// CPU seconds of the whole process.
    pub cpu_seconds: f64,
    /// Most memory that was resident at one time, all nodes together.
    pub peak_rss_bytes: u64,
}

/// One check of readiness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What is checked.
    pub name: &'static str,
    /// Whether it holds.
    pub ok: bool,
    /// What was found and what is asked for.
    pub detail: String,
}

impl NodeStatus {
    /// Whether the node is of use to others, check by check.
    pub fn readiness(&self, ready: &Ready) -> Vec<Check> {
        let mut checks = vec![Check {
            name: "peers",
            ok: self.peers >= ready.min_peers,
            detail: format!("{} connected, {} asked for", self.peers, ready.min_peers),
        }];
        if let Some(chain) = &self.chain {
            let lag = chain.target.saturating_sub(chain.height);
            checks.push(Check {
                name: "lag",
                ok: lag <= ready.max_lag,
                detail: format!("{lag} blocks behind {}, {} allowed", chain.target, ready.max_lag),
            });
            if let Some(most) = ready.max_tip_age {
                let age = std::time::Duration::from_secs(chain.tip_age_seconds);
                checks.push(Check {
                    name: "tip-age",
                    ok: age <= most,
                    detail: format!("{} old, {} allowed", show_duration(age), show_duration(most)),
                });
            }
        }
        // Without a chain there is no store; a fault is told all the same.
        if self.chain.is_some() || self.store_fault.is_some() {
            checks.push(Check {
                name: "store",
                ok: self.store_fault.is_none(),
                detail: self.store_fault.clone().unwrap_or_else(|| "writable".to_owned()),
            });
        }
        checks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn each_check_fails_by_its_own_fact() {
        let ready = Ready { min_peers: 2, max_lag: 1, max_tip_age: Some(Duration::from_secs(60)) };
        let chain = ChainGlance { height: 9, target: 10, tip_age_seconds: 60, ..ChainGlance::default() };
        let good = NodeStatus { peers: 2, chain: Some(chain), ..NodeStatus::default() };
        let failing = |status: &NodeStatus| -> Vec<&str> {
            status.readiness(&ready).iter().filter(|check| !check.ok).map(|check| check.name).collect()
        };
        assert!(failing(&good).is_empty());
        let with = |change: fn(&mut NodeStatus, &mut ChainGlance)| {
            let (mut status, mut chain) = (good.clone(), good.chain.clone().unwrap());
            change(&mut status, &mut chain);
            NodeStatus { chain: Some(chain), ..status }
        };
        assert_eq!(failing(&with(|s, _| s.peers = 1)), ["peers"]);
        assert_eq!(failing(&with(|_, c| c.height = 8)), ["lag"]);
        assert_eq!(failing(&with(|_, c| c.tip_age_seconds = 61)), ["tip-age"]);
        assert_eq!(failing(&with(|s, _| s.store_fault = Some("disk full".into()))), ["store"]);
        let overlay = NodeStatus { peers: 2, ..NodeStatus::default() };
        assert!(failing(&overlay).is_empty(), "what has no chain is not behind");
    }

    #[test]
    fn what_a_network_does_not_have_is_left_out_and_comes_back_as_missing() {
        let chain = NodeStatus { chain: Some(ChainGlance::default()), ..NodeStatus::default() };
        let overlay = NodeStatus { overlay: Some(OverlayGlance::default()), ..NodeStatus::default() };
        for (status, has, has_not) in [(&chain, "height", "peer_id"), (&overlay, "peer_id", "height")] {
            let value = serde_json::to_value(status).unwrap();
            assert!(value.get(has).is_some() && value.get(has_not).is_none(), "{value}");
            assert_eq!(&serde_json::from_value::<NodeStatus>(value).unwrap(), status);
        }
    }
}
