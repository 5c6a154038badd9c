//! `rookery` syncs from hsd, follows it, and gets over whatever happens to either of them on the way.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use rookery_interop::chain::{hsd_with, length};
use rookery_interop::hsd::Hsd;
use rookery_interop::relay::Relay;
use rookery_interop::rookery::{Node, Sync, command};
use rookery_interop::{ports, turn, wait};
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long a sync of a test's chain may take: hsd serves some thousand headers a second, and the machine is shared.
const SYNC_WITHIN: Duration = Duration::from_secs(120);
/// How soon a new block has to arrive.
const ARRIVES_WITHIN: Duration = Duration::from_secs(2);
/// Headers in one answer.
const BATCH: u32 = 2000;
/// Bytes from hsd in the middle of its second answer: the first has 472,012.
const MIDDLE: usize = 600_000;

fn tip(hsd: &Hsd) -> String {
    hsd.tip().to_string()
}

/// Syncs from this peer to the end.
fn sync(data: &Path, peer: SocketAddr) -> Value {
    let summary = Sync::start(data, peer).summary(SYNC_WITHIN);
    println!("synced: {summary}");
    summary
}

#[test]
fn sync_ends_at_hsd_s_own_tip() {
    let _turn = turn();
    let hsd = hsd_with(length());
    let data = TempDir::new().unwrap();
    let first = sync(data.path(), hsd.addr());
    assert_eq!(first["tip"], tip(&hsd));
    assert_eq!((&first["height"], &first["headers"]), (&json!(length()), &json!(length())));
    for field in ["network", "seconds", "cpu_seconds", "peak_rss_bytes", "peers"] {
        assert!(!first[field].is_null(), "the summary has {field}: {first}");
    }

    hsd.mine(1);
    let second = sync(data.path(), hsd.addr());
    assert_eq!(second["tip"], tip(&hsd));
    assert_eq!(second["headers"], 1, "what was stored is not fetched again");
}

#[test]
fn sync_without_a_peer_says_so_by_its_exit_code() {
    let _turn = turn();
    let data = TempDir::new().unwrap();
    let nobody = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let mut command = command("sync", data.path());
    command.args(["--patience", "2s", "--connect", &nobody.to_string()]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(6), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn each_of_fifty_new_blocks_arrives_within_two_seconds() {
    const BLOCKS: usize = 50;
    let _turn = turn();
    let hsd = hsd_with(length());
    let node = Node::start(&[hsd.addr()]);
    node.await_tip(&tip(&hsd), SYNC_WITHIN);
    let mut took: Vec<Duration> = Vec::new();
    for _ in 0..BLOCKS {
        let start = Instant::now();
        let mined = hsd.mine(1);
        node.await_tip(&mined[0].to_string(), ARRIVES_WITHIN);
        took.push(start.elapsed());
    }
    took.sort_unstable();
    let (median, longest) = (took[BLOCKS / 2], took[BLOCKS - 1]);
    println!(
        "{BLOCKS} new blocks, from the call that mines to the node's own answer: median {median:?}, longest {longest:?}"
    );
}

#[test]
fn a_reorganisation_of_six_by_eight_is_followed() {
    const BACK: u32 = 6;
    const FORTH: u32 = 8;
    let _turn = turn();
    let hsd = hsd_with(length());
    let node = Node::start(&[hsd.addr()]);
    let old = tip(&hsd);
    node.await_tip(&old, SYNC_WITHIN);
    let first = hsd.hash_at(hsd.height() - BACK + 1);
    hsd.rpc("invalidateblock", json!([first.to_string()]));
    let start = Instant::now();
    hsd.mine(FORTH);
    let new = tip(&hsd);
    node.await_tip(&new, ARRIVES_WITHIN);
    println!("reorganisation of {BACK} by {FORTH} mined and followed in {:?}", start.elapsed());
    assert_ne!(new, old);
    let chain = node.ask("chain").unwrap();
    assert_eq!(chain["height"], length() - BACK + FORTH, "{chain}");
    assert_eq!((&chain["reorgs"], &chain["last_reorg_depth"]), (&json!(1), &json!(BACK)), "{chain}");

    let mined = hsd.mine(1);
    node.await_tip(&mined[0].to_string(), ARRIVES_WITHIN);
}

#[test]
fn a_killed_hsd_delays_a_sync_and_no_more() {
    let _turn = turn();
    let mut hsd = hsd_with(length());
    let relay = Relay::start(hsd.addr(), MIDDLE);
    let data = TempDir::new().unwrap();
    let sync = Sync::start(data.path(), relay.addr());
    relay.await_hold(SYNC_WITHIN);
    hsd.process().kill();
    relay.cut();
    hsd.restart();
    let summary = sync.summary(SYNC_WITHIN);
    println!("synced over a kill of hsd: {summary}");
    assert_eq!(summary["tip"], tip(&hsd));
    assert_eq!(summary["headers"], length(), "no header is counted twice");
}

#[test]
fn a_killed_node_goes_on_from_what_it_had() {
    let _turn = turn();
    let hsd = hsd_with(length());
    let relay = Relay::start(hsd.addr(), MIDDLE);
    let data = TempDir::new().unwrap();
    let mut node = Node::start_in(data.path(), &[relay.addr()]);
    relay.await_hold(SYNC_WITHIN);
    wait::until("the first batch in the store", SYNC_WITHIN, || {
        (node.status()?["stored_height"] == BATCH).then_some(())
    });
    node.process().kill();

    let node = Node::start_in(data.path(), &[hsd.addr()]);
    node.await_tip(&tip(&hsd), SYNC_WITHIN);
    let status = node.status().unwrap();
    assert_eq!(status["headers"], length() - BATCH, "only what was missing is fetched: {status}");
}
