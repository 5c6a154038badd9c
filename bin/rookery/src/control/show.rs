//! The views as text for people.

use crate::node::view::{
    BanRow, ChainGlance, ChainView, HopState, NodeStatus, NodeWhy, OverlayGlance, PeerRow, PeerWhy,
    ProbeAnswer, Status,
};
use crate::output::{Align, Paint, bytes, fields, printable, seconds, table};

/// A node's state at a glance.
pub fn status(status: &Status, paint: &Paint) -> String {
    let node = &status.node;
    let mut rows = vec![("network", node.network.clone())];
    if let Some(fault) = &node.store_fault {
        rows.push(("store", paint.bad(fault)));
    }
    if let Some(chain) = &node.chain {
        rows.extend(chain_rows(node, chain, *paint));
    }
    if let Some(overlay) = &node.overlay {
        rows.extend(overlay_rows(node, overlay, *paint));
    }
    rows.extend([
        ("peers", format!("{} out, {} in, {} dialling", node.outbound, node.inbound, node.dialing)),
        ("addresses", format!("{} known, {} banned", node.known_addresses, node.banned)),
        ("traffic", format!("{} in, {} out", bytes(node.received_bytes), bytes(node.sent_bytes))),
        ("listening", if node.listening.is_empty() { "no".to_owned() } else { node.listening.join(", ") }),
        (
            "memory",
            format!("{} ({} at most)", bytes(status.usage.rss_bytes), bytes(status.usage.peak_rss_bytes)),
        ),
        ("cpu", format!("{:.1} s", status.usage.cpu_seconds)),
        ("up", seconds(status.uptime_seconds)),
        ("process", format!("{} (rookery {})", status.pid, status.version)),
        ("data", status.data_dir.clone()),
    ]);
    fields(*paint, &rows)
}

type Rows = Vec<(&'static str, String)>;

fn chain_rows(node: &NodeStatus, chain: &ChainGlance, paint: Paint) -> Rows {
    let state = if node.peers == 0 {
        paint.bad("no peers")
    } else if chain.at_tip {
        paint.good("at the tip")
    } else if chain.target <= chain.height {
        paint.warn("asking peers whether there is more")
    } else {
        paint.warn(&format!("syncing to {}", chain.target))
    };
    vec![
        ("state", state),
        ("height", format!("{} ({} stored)", chain.height, chain.stored_height)),
        ("tip", chain.tip.clone()),
        ("tip age", seconds(chain.tip_age_seconds)),
    ]
}

fn overlay_rows(node: &NodeStatus, overlay: &OverlayGlance, paint: Paint) -> Rows {
    let state = if node.peers == 0 { paint.bad("no peers") } else { paint.good("connected") };
    let topic = if overlay.topic.is_empty() { "none".to_owned() } else { overlay.topic.clone() };
    vec![
        ("state", state),
        ("overlay", overlay.overlay.clone()),
        ("peer id", overlay.peer_id.clone()),
        ("keys", overlay.keys.clone()),
        ("topic", topic),
        ("records", format!("{} known, {} confirmed", overlay.known_records, overlay.confirmed_records)),
    ]
}

/// The sessions.
pub fn peers(peers: &[PeerRow], paint: &Paint) -> String {
    if peers.is_empty() {
        return "no peers; `rookery why` says what the node waits for\n".to_owned();
    }
    // What no peer has, its network does not: such a column is left out.
    let (heights, ids) =
        (peers.iter().any(|p| p.height.is_some()), peers.iter().any(|p| p.peer_id.is_some()));
    let mut columns = vec![("address", Align::Left), ("dir", Align::Left)];
    columns.extend(heights.then_some(("height", Align::Right)));
    columns.extend([
        ("ping", Align::Right),
        ("up", Align::Right),
        ("in", Align::Right),
        ("out", Align::Right),
        ("open", Align::Right),
        ("score", Align::Right),
        ("agent", Align::Left),
    ]);
    columns.extend(ids.then_some(("peer id", Align::Left)));
    columns.push(("", Align::Left));
    let row = |peer: &PeerRow| {
        let mut cells = vec![peer.address.clone(), peer.direction.clone()];
        cells
            .extend(heights.then(|| peer.height.map_or_else(|| "-".to_owned(), |height| height.to_string())));
        cells.extend([
            peer.ping_ms.map_or_else(|| "-".to_owned(), ping),
            seconds(peer.connected_seconds),
            bytes(peer.received_bytes),
            bytes(peer.sent_bytes),
            peer.in_flight.to_string(),
            peer.score.to_string(),
            printable(&peer.agent),
        ]);
        cells.extend(ids.then(|| peer.peer_id.as_deref().map_or("-", short).to_owned()));
        cells.push(peer.parked.as_ref().map_or_else(String::new, |why| format!("parked: {why}")));
        cells
    };
    table(*paint, &columns, &peers.iter().map(row).collect::<Vec<_>>())
}

/// Digits of a peer id that tell the peers of a node apart at a glance; `--json` has all.
const SHORT: usize = 16;

/// The beginning of a peer id.
pub fn short(id: &str) -> &str {
    id.get(..SHORT).unwrap_or(id)
}

fn ping(ms: f64) -> String {
    if ms < 10.0 { format!("{ms:.1} ms") } else { format!("{ms:.0} ms") }
}

/// The addresses that are refused.
pub fn bans(bans: &[BanRow], paint: &Paint) -> String {
    if bans.is_empty() {
        return "no address is banned\n".to_owned();
    }
    let columns = [("address", Align::Left), ("left", Align::Right), ("why", Align::Left)];
    let row = |ban: &BanRow| {
        let reason = ban.reason.as_deref().map_or_else(|| "not remembered any more".to_owned(), printable);
        vec![ban.address.clone(), seconds(ban.seconds_left), reason]
    };
    table(*paint, &columns, &bans.iter().map(row).collect::<Vec<_>>())
}

/// Why a peer is treated as it is.
pub fn peer_why(why: &PeerWhy, paint: &Paint) -> String {
    let mut out = format!("{}  {}, score {}", paint.strong(&why.address), why.state, why.score);
    if let Some(wait) = why.retry_seconds {
        out += &format!(", dialled again in {}", seconds(wait));
    }
    out.push('\n');
    let columns =
        [("ago", Align::Right), ("what", Align::Left), ("score", Align::Right), ("evidence", Align::Left)];
    let rows: Vec<_> = why
        .facts
        .iter()
        .map(|fact| {
            let change =
                if fact.score_change == 0 { String::new() } else { format!("{:+}", fact.score_change) };
            vec![seconds(fact.seconds_ago), fact.what.clone(), change, printable(&fact.evidence)]
        })
        .collect();
    out + &table(*paint, &columns, &rows)
}

/// The chain.
pub fn chain(chain: &ChainView, paint: &Paint) -> String {
    let checkpoint = chain.checkpoint.map_or_else(|| "none".to_owned(), |height| height.to_string());
    let reorgs = match chain.reorgs {
        0 => "none".to_owned(),
        count => format!("{count}, the last {} deep", chain.last_reorg_depth),
    };
    let work = if chain.enough_work { String::new() } else { paint.warn("  (less than the network has)") };
    let mut out = fields(
        *paint,
        &[
            ("network", chain.network.clone()),
            ("height", chain.height.to_string()),
            ("tip", chain.tip.clone()),
            ("chainwork", format!("{}{work}", chain.chainwork)),
            ("median time", chain.median_time.to_string()),
            ("checkpoint", checkpoint),
            ("reorganisations", reorgs),
        ],
    );
    let columns =
        [("height", Align::Right), ("hash", Align::Left), ("time", Align::Right), ("bits", Align::Left)];
    let row = |header: &crate::node::view::HeaderRow| {
        vec![header.height.to_string(), header.hash.clone(), header.time.to_string(), header.bits.clone()]
    };
    out.push('\n');
    out + &table(*paint, &columns, &chain.recent.iter().map(row).collect::<Vec<_>>())
}

/// What progress waits for.
pub fn why(why: &NodeWhy, paint: &Paint) -> String {
    let mut out = paint.strong(&why.verdict) + "\n";
    let width = why.hops.iter().map(|hop| hop.hop.chars().count()).max().unwrap_or(0);
    for hop in &why.hops {
        let state = match hop.state {
            HopState::Ok => paint.good("ok     "),
            HopState::Waiting => paint.warn("waiting"),
            HopState::Stuck => paint.bad("stuck  "),
        };
        out += &format!("  {:<width$}  {state}  {}\n", hop.hop, hop.detail);
    }
    out
}

/// What a probed peer answered.
pub fn probe(answer: &ProbeAnswer, paint: &Paint) -> String {
    let mut rows = vec![("address", answer.address.clone()), ("took", format!("{:.1} ms", answer.took_ms))];
    for (name, value) in &answer.fields {
        match value {
            serde_json::Value::Array(items) => {
                rows.push((name, items.len().to_string()));
                rows.extend(items.iter().map(|item| ("", plain(item))));
            }
            value => rows.push((name, plain(value))),
        }
    }
    fields(*paint, &rows)
}

/// JSON as a person writes it: strings without quotes. Hashes are longer than what [`printable`] shows of an agent.
fn plain(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => printable(text),
        other => printable(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::view::{Hop, LedgerFact};

    const PLAIN: Paint = Paint { on: false };

    #[test]
    fn the_glance_names_the_state_and_a_fault_of_the_store() {
        let chain = ChainGlance { height: 5, target: 9, ..ChainGlance::default() };
        let mut given = Status {
            node: NodeStatus { peers: 1, chain: Some(chain.clone()), ..NodeStatus::default() },
            ..Status::default()
        };
        assert!(status(&given, &PLAIN).contains("syncing to 9"));
        given.node.chain = Some(ChainGlance { at_tip: true, ..chain });
        given.node.store_fault = Some("disk full".into());
        let text = status(&given, &PLAIN);
        assert!(text.contains("at the tip") && text.contains("disk full"), "{text}");
    }

    #[test]
    fn an_overlay_s_glance_shows_who_it_is_and_no_chain() {
        let overlay = OverlayGlance { peer_id: "ab".repeat(32), ..OverlayGlance::default() };
        let node = NodeStatus { peers: 1, overlay: Some(overlay), ..NodeStatus::default() };
        let text = status(&Status { node, ..Status::default() }, &PLAIN);
        assert!(text.contains(&"ab".repeat(32)) && text.contains("connected"), "{text}");
        assert!(!text.contains("height") && !text.contains("tip"), "{text}");
        let row = PeerRow { peer_id: Some("cd".repeat(32)), ..PeerRow::default() };
        let text = peers(&[row], &PLAIN);
        assert!(text.contains(&"cd".repeat(8)) && !text.contains("height"), "{text}");
    }

    #[test]
    fn a_ledger_reads_line_by_line() {
        let fact = |what: &str, change| LedgerFact {
            seconds_ago: 61,
            what: what.into(),
            evidence: "sent \x1b[2J".into(),
            score_change: change,
        };
        let given = PeerWhy {
            address: "192.0.2.7:1".into(),
            state: "connected".into(),
            score: 10,
            retry_seconds: None,
            facts: vec![fact("fault", 10), fact("parked", 0)],
        };
        let expected = "192.0.2.7:1  connected, score 10\n  ago  what    score  evidence\n1m 1s  fault     +10  sent ?[2J\n\
                        1m 1s  parked         sent ?[2J\n";
        assert_eq!(peer_why(&given, &PLAIN), expected);
    }

    #[test]
    fn hops_are_listed_in_order() {
        let hop = |hop: &str, state| Hop { hop: hop.into(), state, detail: "d".into() };
        let given = NodeWhy {
            verdict: "waiting for a peer".into(),
            hops: vec![hop("dial", HopState::Ok), hop("request", HopState::Stuck)],
        };
        assert_eq!(why(&given, &PLAIN), "waiting for a peer\n  dial     ok       d\n  request  stuck    d\n");
    }
}
