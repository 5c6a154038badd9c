//! Panic isolation, and the end of a session however it comes.

use std::sync::Arc;
use std::time::Duration;

use rookery_base::{CloseCause, Fault, LocalFault, PeerFault, PeerFaultKind};
use rookery_echo::{Heard, say};
use rookery_engine::{Flow, Outbox};
use rookery_runtime::Instant;
use rookery_testkit::Switchboard;
use rookery_testkit::scripted::{SAID, SAY};

use crate::common::{Build, Hook, Meddle, Node, Trap, text};

/// Drives a scripted peer past a hook: it asks, is asked, answers, and leaves.
async fn visit(node: &mut Node, identity: u8) {
    let mut peer = node.wire([90, identity, 0, 1], 7000);
    if peer.shake([identity; 32]).await.is_err() {
        return;
    }
    node.settle().await;
    let up = std::iter::from_fn(|| node.heard.try_recv()).find_map(|heard| match heard {
        Heard::Up(handle) => Some(handle),
        _ => None,
    });
    let asked = peer.send(SAY, &text(1, "hello")).await;
    node.settle().await;
    if let (Some(handle), Ok(())) = (up, asked) {
        let _ = say(&handle, "how are you");
        node.settle().await;
        let _ = peer.send(SAID, &text(3, "fine")).await;
    }
    node.settle().await;
    drop(peer);
    node.settle().await;
}

fn downs(node: &mut Node) -> usize {
    std::iter::from_fn(|| node.heard.try_recv()).filter(|heard| matches!(heard, Heard::Down)).count()
}

/// R1, R4, R5, R7, W4: a panic at any hook cuts that peer only, is counted, and gives everything back; another peer's
/// session lives on, the same identity is admitted again at once, and the node stops in order.
#[tokio::test(start_paused = true)]
async fn a_panic_at_any_hook_costs_that_peer_and_nothing_else() {
    let hooks = [
        Hook::Handshake,
        Hook::Admit,
        Hook::Pipe,
        Hook::Start,
        Hook::Head,
        Hook::Frame,
        Hook::Answer,
        Hook::Command,
        Hook::Timer,
        Hook::Room,
        Hook::Close,
        Hook::Drop,
        Hook::Enframe,
    ];
    for hook in hooks {
        let board = Switchboard::default();
        let mut node = Build { meddle: Trap::new(hook), ..Build::new(1) }.start(&board).await;
        visit(&mut node, 7).await;
        assert_eq!(node.metric("panics_total", ""), 1, "{hook:?}");
        let _ = downs(&mut node);
        node.assert_clean().await;
        let opened = !matches!(hook, Hook::Handshake | Hook::Admit);
        if opened {
            let closed = node.engine.closed().await;
            let expected = match hook {
                // The orderly end had its cause before the panic.
                Hook::Close | Hook::Drop => CloseCause::PeerClosed,
                _ => CloseCause::Panic,
            };
            assert_eq!(closed.last().unwrap().cause, expected, "{hook:?}");
        }
        // The trap has sprung: the same peer is served at once, by a node that is whole.
        let (mut again, handle) = node.peer(7).await;
        again.send(SAY, &text(9, "again")).await.unwrap();
        assert_eq!(again.recv().await.unwrap(), (SAID, text(9, "again").to_vec()), "{hook:?}");
        assert!(say(&handle, "x"), "{hook:?}");
        assert_eq!(again.recv().await.unwrap().0, SAY);
        drop((again, handle));
        node.settle().await;
        assert_eq!(downs(&mut node), 1, "{hook:?}: the farewell comes once");
        node.assert_clean().await;
        node.stop().await;
    }
}

/// R4, R5: with one peer's pipe panicking at each hook, a second session on the same services keeps talking.
#[tokio::test(start_paused = true)]
async fn a_panic_leaves_the_sibling_session_running() {
    for hook in [Hook::Frame, Hook::Command, Hook::Enframe, Hook::Head] {
        let board = Switchboard::default();
        let mut node = Build { meddle: Arc::new(Only { hook }), ..Build::new(1) }.start(&board).await;
        let (mut good, _good) = node.peer(8).await;
        let (mut bad, bad_handle) = node.peer(7).await;
        BAD.with(|bad| bad.set(true));
        if hook == Hook::Frame || hook == Hook::Head {
            bad.send(SAY, &text(1, "bad")).await.unwrap();
        } else {
            assert!(say(&bad_handle, "bad"));
        }
        node.settle().await;
        assert_eq!(node.metric("panics_total", ""), 1, "{hook:?}");
        assert!(!BAD.with(std::cell::Cell::get), "the trap has sprung");
        good.send(SAY, &text(2, "good")).await.unwrap();
        assert_eq!(good.recv().await.unwrap(), (SAID, text(2, "good").to_vec()), "{hook:?}");
        assert_eq!(node.engine.peers().await.len(), 1, "{hook:?}");
        drop((good, bad));
        node.settle().await;
        node.assert_clean().await;
        node.stop().await;
    }
}

thread_local! {
    /// Armed by the test's own thread, which runs the whole node.
    static BAD: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

struct Only {
    hook: Hook,
}

impl Meddle for Only {
    fn at(&self, hook: Hook) {
        if hook == self.hook && BAD.with(|bad| bad.replace(false)) {
            panic!("only this one");
        }
    }
}

/// A pipe that panics, and whose destructor panics while the first panic unwinds.
struct Twice;

impl Meddle for Twice {
    fn at(&self, hook: Hook) {
        if matches!(hook, Hook::Frame | Hook::Drop) {
            panic!("twice: {hook:?}");
        }
    }
}

/// R5: even a destructor that panics during the unwinding of a panic costs one peer, not the process.
#[tokio::test(start_paused = true)]
async fn a_panic_in_a_destructor_during_a_panic_does_not_abort_the_process() {
    let board = Switchboard::default();
    let mut node = Build { meddle: Arc::new(Twice), ..Build::new(1) }.start(&board).await;
    visit(&mut node, 7).await;
    assert_eq!(node.cause().await, CloseCause::Panic);
    assert_eq!(node.metric("panics_total", ""), 2);
    node.assert_clean().await;
    node.stop().await;
}

struct Fixed(fn() -> Flow);

impl Meddle for Fixed {
    fn instead(&self, hook: Hook, _now: Instant, _out: &mut Outbox) -> Option<Flow> {
        (hook == Hook::Frame).then(|| (self.0)())
    }
}

/// R1, R2, R3: end by the peer, by a peer fault, by a local fault, by the operator, by a reset: admitted state is
/// removed once each time, and the registry, the trace of metrics and the ledger carry the first cause.
#[tokio::test(start_paused = true)]
async fn every_way_to_end_removes_the_session_once_with_its_first_cause() {
    type Case = (&'static str, fn() -> Flow);
    let peer = || Flow::Close(CloseCause::Fault(PeerFault::close(PeerFaultKind::InvalidData, "bad").into()));
    let local = || Flow::Close(CloseCause::Fault(Fault::Local(LocalFault::new("ours"))));
    let cases: [Case; 5] = [
        ("invalid_data", peer),
        ("local_fault", local),
        ("peer_closed", || Flow::Continue),
        ("broken", || Flow::Continue),
        ("dropped", || Flow::Continue),
    ];
    for (label, flow) in cases {
        let board = Switchboard::default();
        let mut node = Build { meddle: Arc::new(Fixed(flow)), ..Build::new(1) }.start(&board).await;
        let (mut peer, handle) = node.peer(7).await;
        match label {
            "peer_closed" => drop(peer),
            "broken" => peer.reset(),
            "dropped" => {
                assert_eq!(node.engine.disconnect(handle.addr).await, 1);
                // Later causes do not replace the first.
                handle.close(CloseCause::Evicted);
            }
            _ => peer.send(SAY, &text(1, "x")).await.unwrap(),
        }
        node.settle().await;
        let closed = node.engine.closed().await;
        assert_eq!(closed.len(), 1);
        assert_eq!(closed[0].cause.label(), label);
        let told = closed[0].ledger.entries().last().unwrap().what.clone();
        assert_eq!(told, format!("closed: {}", closed[0].cause));
        assert_eq!(node.metric("disconnect_total", label), 1);
        assert_eq!(downs(&mut node), 1);
        assert_eq!(handle.push(rookery_engine::Command::new(())), rookery_engine::session::Pushed::Gone);
        node.assert_clean().await;
        // R6: the old handle cannot reach the session that replaces it.
        let (again, _new) = node.peer(7).await;
        handle.close(CloseCause::Evicted);
        node.settle().await;
        assert_eq!(node.engine.peers().await.len(), 1);
        drop(again);
        node.stop().await;
    }
}

/// A pipe that asks again whenever a request ends.
struct Stubborn;

impl Meddle for Stubborn {
    fn instead(&self, hook: Hook, now: Instant, out: &mut Outbox) -> Option<Flow> {
        use rookery_engine::RequestKey;
        if matches!(hook, Hook::Start | Hook::Answer) {
            let key = RequestKey::number(rookery_base::Kind(1), 1);
            let _ = out.request(key, text(1, "again"), Duration::from_secs(5));
            let _ = now;
        }
        (hook == Hook::Answer).then_some(Flow::Continue)
    }
}

/// R1: a pipe that repeats its request when told that the session has ended cannot keep the session from ending.
#[tokio::test(start_paused = true)]
async fn requests_cannot_be_opened_on_a_session_that_ends() {
    let board = Switchboard::default();
    let mut node = Build { meddle: Arc::new(Stubborn), ..Build::new(1) }.start(&board).await;
    let (peer, _handle) = node.peer(7).await;
    drop(peer);
    assert_eq!(node.cause().await, CloseCause::PeerClosed);
    assert_eq!(node.metric("request_end_total", "gone"), 1);
    node.assert_clean().await;
    node.stop().await;
}

/// Every request has one end also when the routine panics.
#[tokio::test(start_paused = true)]
async fn a_panic_ends_its_open_requests_in_the_metrics_too() {
    let board = Switchboard::default();
    let mut node = Build { meddle: Trap::new(Hook::Frame), ..Build::new(1) }.start(&board).await;
    let (mut peer, handle) = node.peer(7).await;
    assert!(say(&handle, "a") && say(&handle, "b"));
    node.settle().await;
    peer.send(SAY, &text(1, "trap")).await.unwrap();
    assert_eq!(node.cause().await, CloseCause::Panic);
    assert_eq!(node.metric("request_end_total", "gone"), 2);
    let why = node.engine.closed().await;
    let told = why[0].ledger.entries().last().map(|entry| entry.what.clone());
    assert_eq!(told, Some(format!("closed: {}", CloseCause::Panic)), "the ledger survives");
    node.stop().await;
}

/// A panic in a task beside the routine, in what serves the peer's streams or in one stream's handler, is our own fault
/// wherever the session's end is told of: in the ledger, in the metrics and to the peer. The node goes on.
#[tokio::test(start_paused = true)]
async fn a_panic_beside_the_routine_is_told_as_one() {
    for hook in [Hook::Stream, Hook::Streams] {
        let board = Switchboard::default();
        let server = Build { meddle: Trap::new(hook), incarnation: Some(1), ..Build::new(1) };
        let server = server.start(&board).await;
        let client = Build { mux: true, incarnation: Some(2), ..Build::new(2) }.start(&board).await;
        for turn in 0..2 {
            let dialled = client.engine.dial_now(vec![server.at]).await.unwrap();
            let session = client.engine.session(dialled.peer).await.unwrap();
            let stream = session.mux().unwrap().open().await.unwrap();
            client.settle().await;
            if turn == 1 {
                assert_eq!(
                    server.engine.peers().await.len(),
                    1,
                    "{hook:?}: the trap has sprung, the node goes on"
                );
                drop(stream);
                continue;
            }
            let closed = server.engine.closed().await;
            assert_eq!(closed[0].cause, CloseCause::Panic, "{hook:?}");
            let told = closed[0].ledger.entries().last().unwrap().what.clone();
            assert_eq!(told, format!("closed: {}", CloseCause::Panic), "{hook:?}");
            assert_eq!(server.metric("disconnect_total", "panic"), 1, "{hook:?}");
            assert_eq!(server.metric("panics_total", ""), 1, "{hook:?}");
            let theirs = client.engine.closed().await;
            assert!(
                matches!(theirs[0].cause, CloseCause::ByPeer { code: 4, .. }),
                "{hook:?}: {}",
                theirs[0].cause
            );
        }
        client.stop().await;
        server.stop().await;
    }
}
