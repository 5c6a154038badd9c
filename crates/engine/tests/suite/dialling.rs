//! Dials: backoff, duplicates, simultaneous opens, and an engine whose handle is gone.

use std::net::SocketAddr;
use std::time::Duration;

use rookery_base::CloseCause;
use rookery_runtime::{OnPanic, Scope};
use rookery_testkit::Switchboard;
use rookery_transport::{Listener, StreamConn};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::{Build, Hook, Node, Trap, addr};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

async fn listen(board: &Switchboard, at: SocketAddr) -> Box<dyn Listener> {
    board.transport(at.ip()).listen(at).await.unwrap()
}

/// The redial row: a peer that accepts and closes at once is dialled some twenty times in ten minutes, not more; one
/// that nobody reaches, likewise; a dial that hangs ends at its deadline.
#[tokio::test(start_paused = true)]
async fn a_peer_that_closes_at_once_is_never_redialled_in_a_hot_loop() {
    let board = Switchboard::default();
    let (closing, nobody, hanging) = (addr("60.1.0.1:1"), addr("60.2.0.1:1"), addr("60.3.0.1:1"));
    let mut listener = listen(&board, closing).await;
    board.blackhole(hanging);
    let node = Build { connect: vec![closing, nobody, hanging], ..Build::new(1) }.start(&board).await;
    let accept = async {
        loop {
            drop(listener.accept().await.unwrap());
        }
    };
    tokio::select! {
        () = accept => {}
        () = node.pass(10 * MINUTE) => {}
    }
    for at in [closing, nobody, hanging] {
        let dials = board.dials(at);
        assert!((15..=40).contains(&dials), "{at}: {dials}");
    }
    node.stop().await;
}

/// Serves echo handshakes at an address; each session is held for what `hold` says; gives the time of each arrival.
async fn serve(mut listener: Box<dyn Listener>, node: &Node, hold: &[Duration]) -> Vec<Duration> {
    let mut arrivals = Vec::new();
    for time in hold {
        let StreamConn { mut read, mut write, .. } =
            listener.accept().await.unwrap().connect().await.unwrap().into_stream().unwrap();
        arrivals.push(node.env.clock.elapsed());
        write.write_all(&[&b"ROOKECHO"[..], &[9; 32]].concat()).await.unwrap();
        read.read_exact(&mut [0; 40]).await.unwrap();
        node.pass(*time).await;
    }
    arrivals
}

/// The redial row: 50 healthy seconds reset nothing, 70 do.
#[tokio::test(start_paused = true)]
async fn backoff_resets_only_after_a_healthy_minute() {
    let board = Switchboard::default();
    let at = addr("60.1.0.1:1");
    let listener = listen(&board, at).await;
    let node = Build { connect: vec![at], ..Build::new(1) }.start(&board).await;
    let hold = [SECOND, SECOND, SECOND, SECOND, SECOND, 50 * SECOND, 70 * SECOND, SECOND];
    let arrivals = serve(listener, &node, &hold).await;
    let waits: Vec<f64> =
        arrivals.windows(2).zip(hold).map(|(pair, held)| (pair[1] - pair[0] - held).as_secs_f64()).collect();
    assert!(waits[5] > 20.0, "after 50 s: {waits:?}");
    assert!(waits[6] < 2.0, "after 70 s: {waits:?}");
    node.stop().await;
}

/// R7, R4: a panic in the handshake of a dialled peer, or in its pipe, is told apart, and the peer is dialled again.
#[tokio::test(start_paused = true)]
async fn a_panic_in_a_dialled_session_is_followed_by_a_redial() {
    for hook in [Hook::Handshake, Hook::Admit, Hook::Pipe, Hook::Start] {
        let board = Switchboard::default();
        let mut server = Build::new(2).start(&board).await;
        let meddle = Trap::new(hook);
        let mut node = Build { connect: vec![server.at], meddle, ..Build::new(1) }.start(&board).await;
        node.pass(5 * SECOND).await;
        assert_eq!(node.metric("panics_total", ""), 1, "{hook:?}");
        assert_eq!(node.metric("dial_total", "panic"), 1, "{hook:?}");
        let _ = (node.up().await, server.up().await);
        assert_eq!(node.engine.peers().await.len(), 1, "{hook:?}");
        node.stop().await;
        server.stop().await;
    }
}

/// R9: an engine whose handle was dropped goes on dialling, and stops when it is told to.
#[tokio::test(start_paused = true)]
async fn dropping_the_handle_stops_neither_redials_nor_the_end() {
    let board = Switchboard::default();
    let at = addr("60.1.0.1:1");
    let Node { env, engine, .. } = Build { connect: vec![at], ..Build::new(1) }.start(&board).await;
    drop(engine);
    env.clock.sleep(5 * MINUTE).await;
    assert!(board.dials(at) >= 10, "{}", board.dials(at));
    env.scope.close(5 * SECOND).await.unwrap();
}

/// Two lines between nodes, each way through a relay that holds every piece back.
pub async fn relay(
    board: &Switchboard,
    scope: &Scope,
    node: &Node,
    from: SocketAddr,
    to: SocketAddr,
    lag: Duration,
) -> SocketAddr {
    let at = SocketAddr::new(to.ip(), to.port() + 1);
    let mut listener = listen(board, at).await;
    let (board, inner, clock) = (board.clone(), scope.clone(), node.env.clock);
    scope.spawn("relay", OnPanic::EndScope, async move {
        let mut port = 1;
        loop {
            let near = listener.accept().await.unwrap().connect().await.unwrap().into_stream().unwrap();
            clock.sleep(lag).await;
            port += 1;
            let Ok(far) = board.connect(SocketAddr::new(from.ip(), port), to) else { continue };
            let far = far.into_conn().into_stream().unwrap();
            for (mut read, mut write) in [(near.read, far.write), (far.read, near.write)] {
                inner.spawn("line", OnPanic::EndScope, async move {
                    let mut buf = [0; 1024];
                    while let Ok(n @ 1..) = read.read(&mut buf).await {
                        clock.sleep(lag).await;
                        if write.write_all(&buf[..n]).await.is_err() {
                            return;
                        }
                    }
                    clock.sleep(lag).await;
                    let _ = write.shutdown().await;
                });
            }
        }
    });
    at
}

/// C6, C7, C8: two nodes that dial each other, over lines of 160 different lags: a second later exactly one connection is left, it
/// is the same one on both ends, and it stays: they do not replace each other's connections for ever.
#[tokio::test(start_paused = true)]
async fn two_nodes_that_name_each_other_keep_one_session() {
    for seed in 0..160_u64 {
        let board = Switchboard::default();
        let (ours, theirs) = (Build::new(1), Build::new(2));
        let scope = Scope::root("relays", std::sync::Arc::default());
        let probe = Build::new(3).start(&board).await;
        let lag = |n: u64| Duration::from_millis(seed.wrapping_mul(n) % 400);
        let to_b = relay(&board, &scope, &probe, ours.at, theirs.at, lag(37)).await;
        let to_a = relay(&board, &scope, &probe, theirs.at, ours.at, lag(113)).await;
        let a = Build { seed, connect: vec![to_b], ..ours }.start(&board).await;
        let b = Build { seed: seed + 1000, connect: vec![to_a], ..theirs }.start(&board).await;
        a.pass(30 * SECOND).await;
        let (ends_a, ends_b) = (a.engine.closed().await.len(), b.engine.closed().await.len());
        for _ in 0..10 {
            a.pass(MINUTE).await;
            let (pa, pb) = (a.engine.peers().await, b.engine.peers().await);
            assert_eq!((pa.len(), pb.len()), (1, 1), "seed {seed}");
            assert_ne!(pa[0].direction, pb[0].direction, "seed {seed}: one connection, seen from both ends");
        }
        let later = (a.engine.closed().await.len(), b.engine.closed().await.len());
        assert_eq!(later, (ends_a, ends_b), "seed {seed}: the session is not replaced again and again");
        assert!(ends_a + ends_b <= 4, "seed {seed}: {ends_a} + {ends_b} sessions ended");
        for node in [a, b, probe] {
            node.stop().await;
        }
        scope.close(SECOND).await.unwrap();
    }
}

/// C8, R6: a second connection of an identity is refused while the first is fresh and replaces it once it is stale: 5 s from
/// the same IP, 300 s from another; the loser's end does not touch the winner.
#[tokio::test(start_paused = true)]
async fn a_duplicate_replaces_only_a_stale_session() {
    for (same_ip, age, replaces) in
        [(true, 4, false), (true, 5, true), (false, 299, false), (false, 300, true)]
    {
        let board = Switchboard::default();
        let mut node = Build::new(1).start(&board).await;
        let (mut old, _handle) = node.peer(7).await;
        node.pass(age * SECOND).await;
        let mut new = node.wire([90, 7, 0, if same_ip { 1 } else { 2 }], 8000);
        new.shake([7; 32]).await.unwrap();
        node.settle().await;
        let (live, closed) = (node.engine.peers().await, node.engine.closed().await);
        assert_eq!((live.len(), live[0].addr.port()), (1, if replaces { 8000 } else { 7000 }));
        if replaces {
            assert!(matches!(closed[0].cause, CloseCause::Duplicate(by) if by.0 == live[0].generation));
            old.until_closed().await;
        } else {
            assert!(closed.is_empty());
            assert_eq!(new.until_closed().await, 0);
            assert_eq!(node.metric("handshake_total", "duplicate"), 1);
        }
        node.stop().await;
    }
}

/// A node that dials itself notices, and does not stay connected to itself.
#[tokio::test(start_paused = true)]
async fn a_node_that_dials_itself_notices() {
    let board = Switchboard::default();
    let build = Build::new(1);
    let node = Build { connect: vec![build.at], ..build }.start(&board).await;
    node.pass(3 * MINUTE).await;
    assert!(node.engine.peers().await.is_empty());
    assert!(board.dials(node.at) < 20);
    assert!(node.metric("handshake_total", "self_connection") >= 2);
    node.assert_clean().await;
    node.stop().await;
}

/// A scripted peer is a full peer: it can be the first connection of a pair, too.
#[tokio::test(start_paused = true)]
async fn a_dialled_scripted_peer_gets_a_session() {
    let board = Switchboard::default();
    let at = addr("60.1.0.1:1");
    let mut listener = listen(&board, at).await;
    let mut node = Build { connect: vec![at], ..Build::new(1) }.start(&board).await;
    let StreamConn { mut read, mut write, .. } =
        listener.accept().await.unwrap().connect().await.unwrap().into_stream().unwrap();
    write.write_all(&[&b"ROOKECHO"[..], &[9; 32]].concat()).await.unwrap();
    read.read_exact(&mut [0; 40]).await.unwrap();
    assert_eq!(node.up().await.addr, at);
    node.stop().await;
}
