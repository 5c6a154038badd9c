//! From what the engine and the header sync tell to what is shown.

use std::net::SocketAddr;

use rookery_base::Work;
use rookery_engine::{LedgerEntry, PeerView};
use rookery_handshake::chain::HandshakeChain;
use rookery_handshake::node::Node;
use rookery_handshake::wire::HEADER_LEN;
use rookery_sync::Chain;
use rookery_sync::headers::{ChainStatus, Hop as SyncHop, HopState as SyncState};

use crate::node::view::{
    ChainView, HeaderRow, Hop, HopState, LedgerFact, NodeStatus, NodeWhy, PeerRow, PeerWhy, Progress,
};

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
    let peers = node.engine.peers().await;
    let dial = node.engine.dial().report().await;
    let outbound = peers.iter().filter(|peer| peer.direction == "out").count();
    let sum = |of: fn(&PeerView) -> u64| peers.iter().map(of).sum::<u64>();
    NodeStatus {
        network: chain.network.to_owned(),
        progress: progress(&chain),
        stored_height: chain.stored.unwrap_or(0),
        tip_age_seconds: node.env.clock.unix().saturating_sub(chain.tip_time),
        inbound: (peers.len() - outbound) as u32,
        outbound: outbound as u32,
        dialing: dial.out.len().saturating_sub(outbound) as u32,
        known_addresses: dial.known as u32,
        banned: node.engine.bans().await.len() as u32,
        budget_bytes: node.engine.held_bytes().0 as u64,
        received_bytes: sum(|peer| peer.bytes_in),
        sent_bytes: sum(|peer| peer.bytes_out),
        listening: node.engine.listening().iter().map(ToString::to_string).collect(),
        store_fault: node.env.scope.stop_cause().map(str::to_owned),
    }
}

pub(super) fn peer_row(peer: &PeerView) -> PeerRow {
    PeerRow {
        address: peer.addr.to_string(),
        direction: peer.direction.to_owned(),
        agent: peer.agent.clone(),
        height: peer.height,
        ping_ms: peer.rtt_ms,
        connected_seconds: peer.seconds,
        received_bytes: peer.bytes_in,
        sent_bytes: peer.bytes_out,
        in_flight: peer.requests,
        score: peer.score,
        parked: peer.parked.then(|| "reading waits for its rate or for room further in".to_owned()),
    }
}

pub(super) async fn peer_why(node: &Node, peer: SocketAddr) -> Option<PeerWhy> {
    let (mut sessions, banned) = node.engine.why(peer).await;
    let report = node.engine.dial().report().await;
    let retry = report.waiting.iter().find(|(addr, ..)| *addr == peer);
    if sessions.is_empty() && banned.is_none() && retry.is_none() {
        return None;
    }
    let live = sessions.first().and_then(|session| session.live.as_ref());
    let (state, score) = match (live, banned) {
        (Some(live), _) => (format!("connected ({}bound)", live.direction), live.score),
        (None, Some(left)) => (format!("banned for another {} s", left.as_secs()), 0),
        (None, None) => match sessions.first().and_then(|session| session.closed.as_ref()) {
            Some(cause) => (format!("not connected; {cause}"), 0),
            None => ("never connected".to_owned(), 0),
        },
    };
    // Oldest first, across sessions.
    sessions.reverse();
    let unix = node.env.clock.unix();
    let mut facts = Vec::new();
    for session in &sessions {
        let mut before = 0;
        for entry in &session.facts {
            facts.push(fact(entry, before, unix));
            before = entry.score;
        }
    }
    if let Some((_, wait, failures)) = retry {
        let evidence = format!("{failures} attempts since it was last healthy, the next in {wait:.1} s");
        facts.push(LedgerFact { seconds_ago: 0, what: "redial".to_owned(), evidence, score_change: 0 });
    }
    let retry_seconds = retry.map(|(_, wait, _)| *wait as u64);
    Some(PeerWhy { address: peer.to_string(), state, score, retry_seconds, facts })
}

fn fact(entry: &LedgerEntry, before: u32, unix: u64) -> LedgerFact {
    let (what, evidence) = entry.what.split_once(": ").unwrap_or((entry.what.as_str(), ""));
    LedgerFact {
        seconds_ago: unix.saturating_sub(entry.unix),
        what: what.to_owned(),
        evidence: evidence.to_owned(),
        score_change: i64::from(entry.score) - i64::from(before),
    }
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

pub(super) async fn why(node: &Node) -> NodeWhy {
    let status = node.headers.status();
    let dial = node.engine.dial().report().await;
    let sessions = node.engine.audit().await;
    let mut hops = Vec::new();
    let waiting = dial.waiting.iter().map(|(addr, wait, failures)| {
        format!("{addr} is dialled again in {wait:.1} s after {failures} attempts")
    });
    let waiting: Vec<String> = waiting.collect();
    hops.push(Hop {
        hop: "dial".to_owned(),
        state: if waiting.is_empty() { HopState::Ok } else { HopState::Waiting },
        detail: if waiting.is_empty() {
            format!("{} attempts or sessions are out, {} addresses known", dial.out.len(), dial.known)
        } else {
            waiting.join("; ")
        },
    });
    if let Some(audit) = sessions {
        hops.push(Hop {
            hop: "sessions".to_owned(),
            state: if audit.inbound + audit.outbound > 0 { HopState::Ok } else { HopState::Waiting },
            detail: format!("{} inbound, {} outbound", audit.inbound, audit.outbound),
        });
    }
    let (held, cap) = (node.engine.held_bytes().0, node.engine.held_cap());
    hops.push(Hop {
        hop: "memory".to_owned(),
        state: if held < cap { HopState::Ok } else { HopState::Waiting },
        detail: format!("{held} bytes of messages are held, of at most {cap}"),
    });
    hops.extend(node.headers.why().await.into_iter().map(hop));
    NodeWhy { verdict: verdict(&status, &hops), hops }
}

fn hop(hop: SyncHop) -> Hop {
    let state = match hop.state {
        SyncState::Ok => HopState::Ok,
        SyncState::Waiting => HopState::Waiting,
        SyncState::Stuck => HopState::Stuck,
    };
    Hop { hop: hop.hop.to_owned(), state, detail: hop.detail }
}

/// The answer in a sentence: the first hop that is stuck, else the first that waits.
fn verdict(status: &ChainStatus, hops: &[Hop]) -> String {
    if status.caught_up() {
        return format!("nothing is missing: at height {}, the tip of all peers", status.height);
    }
    let find = |state| hops.iter().find(|hop| hop.state == state);
    match find(HopState::Stuck).or_else(|| find(HopState::Waiting)) {
        Some(hop) => format!("progress waits at {}: {}", hop.hop, hop.detail),
        None => format!("nothing waits; at height {}", status.height),
    }
}
