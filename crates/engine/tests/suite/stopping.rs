//! Stopping: within five seconds of virtual time, in whatever state the engine is.

use std::time::Duration;

use rookery_base::CloseCause;
use rookery_engine::Limits;
use rookery_testkit::Switchboard;
use rookery_testkit::scripted::{SAY, head};

use crate::common::{Build, addr, text};

const SECOND: Duration = Duration::from_secs(1);

/// R9: with handshakes that hang, a dial that hangs, a peer that does not read, one that reads a byte at a time, one
/// in the middle of a message, one waiting for the budget, and an idle one, the node stops within five seconds; every
/// session is told why.
#[tokio::test(start_paused = true)]
async fn the_node_stops_within_five_seconds_in_every_state() {
    let board = Switchboard::default();
    let hanging = addr("60.3.0.1:1");
    board.blackhole(hanging);
    let limits = Limits { network_bytes: 2 * 65_536, ..Limits::LOCAL };
    let mut node = Build { connect: vec![hanging], limits, ..Build::new(1) }.start(&board).await;
    let silent = node.wire([90, 1, 0, 1], 1);
    let (_idle, _h1) = node.peer(7).await;
    let (mut deaf, _h2) = node.peer(8).await;
    let (mut drip, _h3) = node.peer(9).await;
    for _ in 0..20 {
        deaf.send(SAY, &vec![1; 60_000]).await.unwrap();
        drip.send(SAY, &vec![1; 60_000]).await.unwrap();
        node.settle().await;
    }
    let (mut half, _h4) = node.peer(10).await;
    half.bytes(&head(SAY, 65_536)).await.unwrap();
    let (mut poor, _h5) = node.peer(11).await;
    poor.bytes(&head(SAY, 65_536)).await.unwrap();
    node.settle().await;
    assert_eq!(node.engine.peers().await.len(), 5);
    let clock = node.env.clock;
    let dripping = async move {
        use tokio::io::AsyncReadExt;
        let mut buf = [0; 512];
        while let Ok(1..) = drip.wire.read(&mut buf).await {
            clock.sleep(Duration::from_millis(900)).await;
        }
    };
    let scope = node.env.scope.clone();
    let began = clock.now();
    tokio::select! {
        closed = scope.close(5 * SECOND) => closed.unwrap(),
        () = async { dripping.await; std::future::pending().await } => {}
    }
    assert!(clock.now().duration_since(began) <= 5 * SECOND);
    assert_eq!(node.metric("disconnect_total", "shutdown"), 5, "every end is counted");
    assert_eq!(node.metric("sessions", ""), 0);
    assert_eq!(node.process.used(), 0);
    drop((silent, deaf, half, poor));
}

/// What was queued before the stop reaches a peer that reads, and the end is orderly.
#[tokio::test(start_paused = true)]
async fn answers_that_were_queued_are_written_before_the_end() {
    let board = Switchboard::default();
    let mut node = Build::new(1).start(&board).await;
    let (mut peer, _handle) = node.peer(7).await;
    for n in 0..40 {
        peer.send(SAY, &text(n, "queued")).await.unwrap();
    }
    node.settle().await;
    let scope = node.env.scope.clone();
    let (closed, ()) = tokio::join!(scope.close(5 * SECOND), async {
        for n in 0..40 {
            assert_eq!(peer.recv().await.unwrap().1, text(n, "queued"));
        }
        assert_eq!(peer.until_closed().await, 0);
    });
    closed.unwrap();
}

/// The registry's last word: ended sessions can be read until the last one has ended.
#[tokio::test(start_paused = true)]
async fn a_stop_ends_every_session_with_its_cause() {
    let board = Switchboard::default();
    let mut node = Build::new(1).start(&board).await;
    let (peer, handle) = node.peer(7).await;
    node.env.scope.close(5 * SECOND).await.unwrap();
    assert_eq!(handle.push(rookery_engine::Command::new(())), rookery_engine::session::Pushed::Gone);
    assert_eq!(node.metric("disconnect_total", CloseCause::Shutdown.label()), 1);
    drop(peer);
}
