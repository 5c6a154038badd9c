//! Two nodes that dial each other at once, on a wire that proves who they are.

use std::sync::Arc;
use std::time::Duration;

use rookery_echo::{Heard, say};
use rookery_engine::PeerHandle;
use rookery_runtime::Scope;
use rookery_testkit::Switchboard;

use crate::common::{Build, Node};
use crate::dialling::relay;

const SECOND: Duration = Duration::from_secs(1);

/// The handle of the only session, of all that the owner has heard of.
async fn live(node: &mut Node) -> PeerHandle {
    let generation = node.engine.peers().await[0].generation;
    let ups = std::iter::from_fn(|| node.heard.try_recv()).filter_map(|heard| match heard {
        Heard::Up(handle) => Some(handle),
        _ => None,
    });
    ups.filter(|handle| handle.generation.0 == generation).last().expect("it was heard of")
}

async fn answered(node: &mut Node) -> bool {
    let handle = live(node).await;
    assert!(say(&handle, "are you there"));
    loop {
        match node.hear().await {
            Heard::Said(..) => return true,
            Heard::Unanswered(_) => return false,
            _ => {}
        }
    }
}

/// Row 8: a thousand pairs dial each other at once, over lines that hold every piece back for 0 to 200 ms. Each pair has
/// exactly one connection in the end, the one that the smaller identity dialled, seen from both ends; it stays; and
/// messages pass both ways.
#[tokio::test(start_paused = true)]
async fn a_thousand_pairs_that_dial_each_other_have_one_connection_each() {
    for pair in 0..1_000_u64 {
        let board = Switchboard::default();
        let (ours, theirs) = (Build::new(1), Build::new(2));
        let scope = Scope::root("relays", Arc::default());
        let probe = Build::new(3).start(&board).await;
        let lag = |n: u64| Duration::from_millis(pair.wrapping_mul(n) % 201);
        let to_b = relay(&board, &scope, &probe, ours.at, theirs.at, lag(37)).await;
        let to_a = relay(&board, &scope, &probe, theirs.at, ours.at, lag(113)).await;
        let incarnation = Some(pair + 1);
        let mut a = Build { seed: pair, connect: vec![to_b], incarnation, ..ours }.start(&board).await;
        let mut b =
            Build { seed: pair + 5_000, connect: vec![to_a], incarnation, ..theirs }.start(&board).await;
        a.pass(5 * SECOND).await;
        let ended = (a.engine.closed().await.len(), b.engine.closed().await.len());
        let (at_a, at_b) = (a.engine.peers().await, b.engine.peers().await);
        assert_eq!((at_a.len(), at_b.len()), (1, 1), "pair {pair}");
        assert_eq!((at_a[0].direction, at_b[0].direction), ("out", "in"), "pair {pair}");
        assert!(answered(&mut a).await && answered(&mut b).await, "pair {pair}");
        a.pass(60 * SECOND).await;
        let later = (a.engine.closed().await.len(), b.engine.closed().await.len());
        assert_eq!(ended, later, "pair {pair}: it stays");
        for node in [a, b, probe] {
            node.stop().await;
        }
        scope.close(SECOND).await.unwrap();
    }
}

/// Row 7: a proven peer that comes from another address, having restarted, replaces its session at once; its old address is
/// another peer's the next moment, and neither touches the other.
#[tokio::test(start_paused = true)]
async fn identities_move_between_addresses_without_touching_each_other() {
    let board = Switchboard::default();
    let mut node = Build { incarnation: Some(1), ..Build::new(1) }.start(&board).await;
    let first = [90, 7, 0, 1];
    let come = async |from: [u8; 4], port, identity: u8, incarnation: u64| {
        let mut peer = node.wire(from, port);
        let introduction = [incarnation.to_be_bytes(), 1_u64.to_be_bytes()].concat();
        peer.bytes(&introduction).await.unwrap();
        tokio::io::AsyncReadExt::read_exact(&mut peer.wire, &mut [0; 16]).await.unwrap();
        peer.shake([identity; 32]).await.unwrap();
        node.settle().await;
        peer
    };
    let mut old = come(first, 7000, 7, 100).await;
    let moved = come([90, 7, 9, 9], 7000, 7, 101).await;
    old.until_closed().await;
    let other = come(first, 7000, 8, 200).await;
    let mut late = come(first, 7001, 7, 100).await;
    late.until_closed().await;
    let mut live: Vec<_> =
        node.engine.peers().await.iter().map(|peer| (peer.generation, peer.addr.to_string())).collect();
    live.sort();
    assert_eq!(live, [(2, "90.7.9.9:7000".to_owned()), (3, "90.7.0.1:7000".to_owned())]);
    let closed = node.engine.closed().await;
    assert_eq!((closed.len(), closed[0].cause.label()), (1, "duplicate"));
    assert_eq!(
        node.metric("handshake_total", "duplicate"),
        1,
        "a process that was replaced does not come back"
    );
    drop((moved, other));
    node.settle().await;
    let _ = node.heard.try_recv();
    node.assert_clean().await;
    node.stop().await;
}
