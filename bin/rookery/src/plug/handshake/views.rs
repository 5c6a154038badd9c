//! From what the header sync tells to what is shown.

use rookery_base::Work;
use rookery_engine::{Limits, PeerView};
use rookery_handshake::chain::HandshakeChain;
use rookery_handshake::node::Node;
use rookery_handshake::wire::HEADER_LEN;
use rookery_sync::Chain;
use rookery_sync::headers::{ChainStatus, Hop as SyncHop, HopState as SyncState};

use crate::node::view::{
    ChainGlance, ChainView, HeaderRow, Hop, HopState, NodeStatus, NodeWhy, PeerRow, Progress,
};
use crate::plug::engine;

/// Headers shown of a chain's end; eleven are needed for the median of their times.
const RECENT: usize = 11;

pub(super) fn progress(status: &ChainStatus) -> Progress {
    Progress {
        height: status.height,
        tip: status.tip.clone(),
        target: status.target.unwrap_or(0).max(status.height),
        headers: status.accepted,
        peers: status.peers as u32,
        at_tip: status.caught_up(),
    }
}

pub(super) async fn status(node: &Node) -> NodeStatus {
    let chain = node.headers.status();
    let glance = ChainGlance {
        stored_height: chain.stored.unwrap_or(0),
        tip_age_seconds: node.env.clock.unix().saturating_sub(chain.tip_time),
        ..ChainGlance::of(&progress(&chain))
    };
    NodeStatus { chain: Some(glance), ..engine::status(&node.env, &node.engine, chain.network).await }
}

pub(super) async fn peers(node: &Node) -> Vec<PeerRow> {
    let row = |peer: &PeerView| PeerRow { height: Some(peer.height), ..engine::peer_row(peer) };
    node.engine.peers().await.iter().map(row).collect()
}

pub(super) async fn chain(node: &Node) -> ChainView {
    let status = node.headers.status();
    let (first, raw) = node.headers.recent(RECENT).await.unwrap_or_default();
    let facts = HandshakeChain::new(node.params).facts(&raw[..raw.len() - raw.len() % HEADER_LEN]);
    let mut times: Vec<u64> = facts.iter().map(|facts| facts.time).collect();
    times.sort_unstable();
    let rows = facts.iter().enumerate().rev().map(|(at, facts)| HeaderRow {
        height: first + at as u32,
        hash: facts.hash.to_string(),
        time: facts.time,
        bits: format!("{:08x}", facts.bits),
    });
    let passed = node.params.checkpoints.iter().rev().find(|(height, _)| *height <= status.height);
    ChainView {
        network: status.network.to_owned(),
        height: status.height,
        tip: status.tip,
        median_time: times.get(times.len() / 2).copied().unwrap_or(0),
        checkpoint: passed.map(|(height, _)| *height),
        enough_work: Work::from_str_radix(&status.work, 16)
            .is_ok_and(|work| work >= node.params.min_chainwork),
        chainwork: status.work,
        reorgs: status.reorganisations,
        last_reorg_depth: status.last_reorganisation_depth,
        recent: rows.collect(),
    }
}

pub(super) async fn why(node: &Node, limits: &Limits) -> NodeWhy {
    let status = node.headers.status();
    let mut hops = engine::hops(&node.engine, limits).await;
    hops.extend(node.headers.why().await.into_iter().map(hop));
    if status.caught_up() {
        let verdict = format!("nothing is missing: at height {}, the tip of all peers", status.height);
        return NodeWhy { verdict, hops };
    }
    engine::waits(hops, || format!("nothing waits; at height {}", status.height))
}

fn hop(hop: SyncHop) -> Hop {
    let state = match hop.state {
        SyncState::Ok => HopState::Ok,
        SyncState::Waiting => HopState::Waiting,
        SyncState::Stuck => HopState::Stuck,
    };
    Hop { hop: hop.hop.to_owned(), state, detail: hop.detail }
}
