//! What the engine tells, the same for every network: sessions, dials, arrivals, bans.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use rookery_base::id::canonical_ip;
use rookery_engine::engine::PeerWhy as EngineWhy;
use rookery_engine::{Accounts, EngineHandle, LedgerEntry, Limits, PeerView};
use rookery_runtime::Env;

use crate::node::view::{BanRow, Hop, HopState, LedgerFact, NodeStatus, NodeWhy, PeerRow, PeerWhy};

/// Ports of one address that are told about, the highest first: a host that had more says no more by them, and the
/// answer has to fit.
const PORTS: usize = 64;

/// Bans that are told about: more than anybody reads, and as many as an answer has room for.
const BANS: usize = 1000;
/// Named peers that wait for their next dial and are told about one by one.
const WAITING: usize = 8;

/// The engine's part of a node's status.
pub(super) async fn status(env: &Env, engine: &EngineHandle, network: &str) -> NodeStatus {
    let peers = engine.peers().await;
    let dial = engine.dial().report().await;
    let outbound = peers.iter().filter(|peer| peer.direction == "out").count();
    let sum = |of: fn(&PeerView) -> u64| peers.iter().map(of).sum::<u64>();
    NodeStatus {
        network: network.to_owned(),
        peers: peers.len() as u32,
        inbound: (peers.len() - outbound) as u32,
        outbound: outbound as u32,
        dialing: dial.out.len().saturating_sub(outbound) as u32,
        known_addresses: dial.known as u32,
        banned: engine.bans().await.len() as u32,
        budget_bytes: engine.held_bytes().0 as u64,
        received_bytes: sum(|peer| peer.bytes_in),
        sent_bytes: sum(|peer| peer.bytes_out),
        listening: engine.listening().iter().map(ToString::to_string).collect(),
        store_fault: env.scope.stop_cause().map(str::to_owned),
        chain: None,
        overlay: None,
    }
}

/// A session; what only some networks have is left out.
pub(super) fn peer_row(peer: &PeerView) -> PeerRow {
    PeerRow {
        address: peer.addr.to_string(),
        peer_id: None,
        direction: peer.direction.to_owned(),
        agent: peer.agent.clone(),
        height: None,
        ping_ms: peer.rtt_ms,
        connected_seconds: peer.seconds,
        received_bytes: peer.bytes_in,
        sent_bytes: peer.bytes_out,
        in_flight: peer.requests,
        score: peer.score,
        parked: peer.parked.then(|| "reading waits for its rate or for room further in".to_owned()),
    }
}

/// What shaped the fate of an address; of every port where none is given, then of the address itself.
pub(super) async fn peer_why(env: &Env, engine: &EngineHandle, peer: SocketAddr) -> Vec<PeerWhy> {
    let waiting = engine.dial().report().await.waiting;
    if peer.port() != 0 {
        return why_of(env, engine, peer, &waiting, |_| true).await.into_iter().collect();
    }
    let ip = canonical_ip(peer.ip());
    let live = engine.peers().await.into_iter().map(|peer| peer.addr);
    let closed = engine.closed().await.into_iter().map(|closed| closed.addr);
    let met = live.chain(closed).chain(waiting.iter().map(|(addr, ..)| *addr));
    let met: BTreeSet<SocketAddr> = met.filter(|addr| canonical_ip(addr.ip()) == ip).collect();
    let mut all = Vec::new();
    for addr in met.into_iter().rev().take(PORTS) {
        all.extend(why_of(env, engine, addr, &waiting, is_session).await);
    }
    // Connections that came to nothing are remembered per address.
    all.extend(why_of(env, engine, peer, &[], |why| !is_session(why)).await);
    all
}

/// Whether it is of a session, and not of a connection that came to nothing.
const fn is_session(why: &EngineWhy) -> bool {
    why.live.is_some() || why.lasted.is_some()
}

/// Whom a dialler will dial again: address, seconds until then, attempts so far.
type Waiting = (SocketAddr, f64, u32);

async fn why_of(
    env: &Env,
    engine: &EngineHandle,
    peer: SocketAddr,
    waiting: &[Waiting],
    wanted: impl Fn(&EngineWhy) -> bool,
) -> Option<PeerWhy> {
    let (mut sessions, banned) = engine.why(peer).await;
    sessions.retain(wanted);
    let retry = waiting.iter().find(|(addr, ..)| *addr == peer);
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
    let unix = env.clock.unix();
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
    let address = if peer.port() == 0 { peer.ip().to_string() } else { peer.to_string() };
    Some(PeerWhy { address, state, score, retry_seconds, facts })
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

/// The addresses that are refused, those for longest first. The reason is that of the last session which ended in a ban,
/// else of the last connection which came to nothing, while that is remembered.
pub(super) async fn bans(engine: &EngineHandle) -> Vec<BanRow> {
    let closed = engine.closed().await;
    let mut held = engine.bans().await;
    held.sort_by_key(|(_, left)| std::cmp::Reverse(*left));
    let mut rows = Vec::new();
    for (ip, left) in held.into_iter().take(BANS) {
        let last = closed.iter().rev().find(|closed| closed.banned && canonical_ip(closed.addr.ip()) == ip);
        let reason = match last {
            Some(closed) => Some(closed.cause.to_string()),
            None => {
                let (met, _) = engine.why(SocketAddr::new(ip, 0)).await;
                met.into_iter().rev().find(|met| !is_session(met)).and_then(|met| met.closed)
            }
        };
        rows.push(BanRow { address: ip.to_string(), seconds_left: left.as_secs(), reason });
    }
    rows
}

/// The hops from the socket to a session.
pub(super) async fn hops(engine: &EngineHandle, limits: &Limits) -> Vec<Hop> {
    let mut hops = vec![dials(engine).await];
    let accounts = engine.accounts();
    if engine.listening().is_empty() {
        let detail = "this node accepts nobody: it listens nowhere".to_owned();
        hops.push(Hop { hop: "arrivals".to_owned(), state: HopState::Ok, detail });
    } else {
        hops.push(admission(&accounts, limits));
        hops.push(arrivals(&accounts));
    }
    if let Some(audit) = engine.audit().await {
        hops.push(Hop {
            hop: "sessions".to_owned(),
            state: if audit.inbound + audit.outbound > 0 { HopState::Ok } else { HopState::Waiting },
            detail: format!(
                "{} inbound of at most {}, {} outbound of at most {}",
                audit.inbound, limits.sessions.inbound, audit.outbound, limits.sessions.outbound
            ),
        });
    }
    let (held, cap) = (engine.held_bytes().0, engine.held_cap());
    hops.push(Hop {
        hop: "memory".to_owned(),
        state: if held < cap { HopState::Ok } else { HopState::Waiting },
        detail: format!("{held} bytes of messages are held, of at most {cap}"),
    });
    hops
}

async fn dials(engine: &EngineHandle) -> Hop {
    let dial = engine.dial().report().await;
    let mut waiting = Vec::new();
    for (addr, wait, failures) in dial.waiting.iter().take(WAITING) {
        let (met, _) = engine.why(*addr).await;
        let last = met.iter().find(|met| met.live.is_none()).and_then(|met| met.closed.clone());
        let last = last.map_or_else(String::new, |cause| format!(", the last: {cause}"));
        waiting.push(format!("{addr} is dialled again in {wait:.1} s after {failures} attempts{last}"));
    }
    if dial.waiting.len() > WAITING {
        waiting.push(format!("{} others wait too", dial.waiting.len() - WAITING));
    }
    let detail = if waiting.is_empty() {
        format!("{} attempts or sessions are out, {} addresses known", dial.out.len(), dial.known)
    } else {
        waiting.join("; ")
    };
    let state = if waiting.is_empty() { HopState::Ok } else { HopState::Waiting };
    Hop { hop: "dial".to_owned(), state, detail }
}

/// Who may begin a handshake now.
fn admission(accounts: &Accounts, limits: &Limits) -> Hop {
    let (shaking, most) = (accounts.shaking, limits.handshakes.total as u64);
    let low = (most as f64 * limits.handshakes.low_water) as u64;
    let (state, rule) = match shaking {
        _ if shaking >= most => (HopState::Waiting, "the oldest make room for whoever comes next"),
        _ if shaking >= low => (HopState::Ok, "whoever comes next proves its address first"),
        _ => (HopState::Ok, "whoever comes next is let in"),
    };
    let detail = format!("{shaking} handshakes under way of at most {most}; {rule}");
    Hop { hop: "admission".to_owned(), state, detail }
}

/// What became of everybody who came: nobody may be missing in it.
fn arrivals(accounts: &Accounts) -> Hop {
    let Accounts { arrived, shaking, live, ended, refused, retried, ignored } = accounts;
    let detail = format!(
        "{arrived} arrived = {shaking} in a handshake + {live} live + {} + {} + {retried} asked to prove their address + \
         {ignored} ignored",
        told("ended", ended),
        told("refused", refused),
    );
    match accounts.balanced() {
        true => Hop { hop: "arrivals".to_owned(), state: HopState::Ok, detail },
        false => Hop {
            hop: "arrivals".to_owned(),
            state: HopState::Stuck,
            detail: format!("{detail}: the sum is off, which is a bug in rookery"),
        },
    }
}

/// A count with its reasons, the most frequent first.
fn told(what: &str, reasons: &BTreeMap<&'static str, u64>) -> String {
    let sum: u64 = reasons.values().sum();
    let mut by_count: Vec<_> = reasons.iter().filter(|(_, count)| **count > 0).collect();
    by_count.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let each: Vec<String> =
        by_count.iter().map(|(why, count)| format!("{} {count}", why.replace('_', " "))).collect();
    if each.is_empty() { format!("{sum} {what}") } else { format!("{sum} {what} ({})", each.join(", ")) }
}

/// The verdict and the hops, where something waits: the first hop that is stuck, else the first that waits.
pub(super) fn waits(hops: Vec<Hop>, otherwise: impl FnOnce() -> String) -> NodeWhy {
    let find = |state| hops.iter().find(|hop| hop.state == state);
    let verdict = match find(HopState::Stuck).or_else(|| find(HopState::Waiting)) {
        Some(hop) => format!("progress waits at {}: {}", hop.hop, hop.detail),
        None => otherwise(),
    };
    NodeWhy { verdict, hops }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accounts_are_one_line_with_the_reasons_of_each_end() {
        let mut accounts = Accounts {
            arrived: 9,
            shaking: 1,
            live: 2,
            ended: BTreeMap::from([("peer_closed", 1)]),
            refused: BTreeMap::from([("banned", 1), ("full", 2), ("panic", 0)]),
            retried: 1,
            ignored: 1,
        };
        let hop = arrivals(&accounts);
        let expected = "9 arrived = 1 in a handshake + 2 live + 1 ended (peer closed 1) + 3 refused (full 2, banned 1) \
                        + 1 asked to prove their address + 1 ignored";
        assert_eq!((hop.detail.as_str(), hop.state), (expected, HopState::Ok));
        accounts.arrived = 10;
        assert_eq!(arrivals(&accounts).state, HopState::Stuck);
    }

    #[test]
    fn admission_says_what_the_next_arrival_meets() {
        let at = |shaking| admission(&Accounts { shaking, ..Accounts::default() }, &Limits::PUBLIC);
        assert!(at(0).detail.ends_with("is let in"));
        let most = Limits::PUBLIC.handshakes.total as u64;
        assert!(at(most / 2).detail.ends_with("proves its address first"));
        assert_eq!(at(most).state, HopState::Waiting);
    }
}
