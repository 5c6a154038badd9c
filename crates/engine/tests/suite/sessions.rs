//! Inside a session: the guard, frames in pieces, parking, requests, mailboxes and budgets.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::task::{Context, Poll};
use std::time::Duration;

use rookery_echo::{Heard, say};
use rookery_engine::session::{MAIL, Pushed};
use rookery_engine::{Flow, Outbox, Until};
use rookery_runtime::{Instant, LaneLimits};
use rookery_testkit::Switchboard;
use rookery_testkit::scripted::{SAID, SAY, framed, head};

use crate::common::{Build, CLOSING, DROPPED, Hook, Meddle, NEEDY, WAITING, text};

const SECOND: Duration = Duration::from_secs(1);

/// F1, C13: a length over the kind's cap ends the session on its head alone, before any of it is charged or read; one
/// under its least, too; a large answer that nobody asked for likewise.
#[tokio::test(start_paused = true)]
async fn bounds_are_checked_before_the_payload_is_read() {
    let cases =
        [(SAY, u32::MAX, "oversize"), (SAY, 65_537, "oversize"), (SAY, 7, "malformed"), (99, 1, "malformed")];
    for (kind, len, why) in cases {
        let board = Switchboard::default();
        let mut node = Build::new(1).start(&board).await;
        let (mut peer, _handle) = node.peer(7).await;
        peer.bytes(&head(kind, len)).await.unwrap();
        assert_eq!(node.cause().await.label(), why, "{kind} {len}");
        assert_eq!(node.process.peak(), 0, "nothing was charged");
        node.assert_clean().await;
        node.stop().await;
    }
}

/// F4: an end inside a message is no orderly end; a message that stalls is cut at its deadline although the peer is
/// otherwise there; both give their bytes back.
#[tokio::test(start_paused = true)]
async fn a_message_cut_short_or_stalled_ends_only_its_session() {
    let board = Switchboard::default();
    let mut node = Build::new(1).start(&board).await;
    let (mut other, _other) = node.peer(8).await;
    let (mut cut, _handle) = node.peer(7).await;
    cut.bytes(&framed(SAY, &text(1, "never whole"))[..12]).await.unwrap();
    node.settle().await;
    assert!(node.process.used() > 0, "the announced body is charged");
    drop(cut);
    assert_eq!(node.cause().await.label(), "broken");
    assert_eq!(node.process.used(), 0);
    for (identity, bytes) in [(9, 3), (10, 5), (11, 12)] {
        let (mut slow, _handle) = node.peer(identity).await;
        slow.bytes(&framed(SAY, &text(1, "never whole"))[..bytes]).await.unwrap();
        let began = node.env.clock.now();
        slow.until_closed().await;
        let took = node.env.clock.now().duration_since(began);
        assert!(took <= 90 * SECOND, "{took:?}");
        node.settle().await;
        assert_eq!(node.engine.closed().await.last().unwrap().cause.label(), "silent");
    }
    other.send(SAY, &text(2, "still here")).await.unwrap();
    assert_eq!(other.recv().await.unwrap().1, text(2, "still here"));
    node.stop().await;
}

/// F4, W4: bodies that come too slowly to matter cannot hold the byte budget: peers that announce the largest message
/// and send nothing are cut soon, and an honest peer waits no longer than that.
#[tokio::test(start_paused = true)]
async fn announced_bodies_that_do_not_come_cannot_hold_the_budget() {
    let board = Switchboard::default();
    let mut limits = rookery_engine::Limits::LOCAL;
    limits.network_bytes = 4 * 65_536;
    let mut node = Build { limits, ..Build::new(1) }.start(&board).await;
    let mut hogs = Vec::new();
    for n in 0..2_u8 {
        let (mut hog, handle) = node.peer(10 + n).await;
        hog.bytes(&head(SAY, 65_536)).await.unwrap();
        hogs.push((hog, handle));
    }
    node.settle().await;
    let (mut honest, _handle) = node.peer(7).await;
    honest.send(SAY, &vec![7; 60_000]).await.unwrap();
    let began = node.env.clock.now();
    assert_eq!(honest.recv().await.unwrap().1.len(), 60_000);
    let waited = node.env.clock.now().duration_since(began);
    assert!(waited <= 20 * SECOND, "an honest peer waited {waited:?}");
    drop((honest, hogs));
    node.stop().await;
}

/// C3, C4, C12: a kind that was not negotiated and a kind that nobody knows are read past, whatever their size; the
/// session stays usable, and kinds have rates of their own.
#[tokio::test(start_paused = true)]
async fn unnegotiated_and_unknown_kinds_are_skipped_and_rates_are_per_kind() {
    let board = Switchboard::default();
    let mut node = Build::new(1).start(&board).await;
    let (mut peer, _handle) = node.peer(7).await;
    for _ in 0..5 {
        peer.send(NEEDY, &vec![1; 60_000]).await.unwrap();
        peer.send(250, &vec![2; 1 << 20]).await.unwrap();
        peer.send(DROPPED, b"d").await.unwrap();
    }
    peer.send(CLOSING, b"c").await.unwrap();
    peer.send(CLOSING, b"c").await.unwrap();
    peer.send(SAY, &text(1, "usable")).await.unwrap();
    assert_eq!(peer.recv().await.unwrap().1, text(1, "usable"));
    let got: Vec<u16> = node.got.lock().unwrap().iter().map(|(kind, _)| *kind).collect();
    let count = |kind: u8| got.iter().filter(|k| **k == u16::from(kind)).count();
    assert_eq!((count(NEEDY), count(DROPPED), count(CLOSING)), (0, 2, 2), "{got:?}");
    assert_eq!(node.metric("dropped_total", "dropped"), 3, "what is dropped for its rate is counted");
    peer.send(CLOSING, b"c").await.unwrap();
    assert_eq!(node.cause().await.label(), "flood");
    node.stop().await;
}

/// A kind over its rate waits longer than a message's deadline: the wait is ours to impose and not the peer's fault.
/// The head came in pieces, so the message's clock was running.
#[tokio::test(start_paused = true)]
async fn a_throttled_peer_is_not_blamed_for_the_wait() {
    let board = Switchboard::default();
    let mut node = Build::new(1).start(&board).await;
    let (mut peer, _handle) = node.peer(7).await;
    let message = framed(WAITING, b"now");
    peer.bytes(&message).await.unwrap();
    peer.bytes(&message).await.unwrap();
    peer.bytes(&message[..2]).await.unwrap();
    node.settle().await;
    peer.bytes(&message[2..]).await.unwrap();
    peer.send(SAY, &text(1, "after")).await.unwrap();
    let began = node.env.clock.now();
    assert_eq!(peer.recv().await.expect("the session lives").1, text(1, "after"));
    let waited = node.env.clock.now().duration_since(began);
    assert!((190 * SECOND..210 * SECOND).contains(&waited), "{waited:?}");
    assert_eq!(node.got.lock().unwrap().len(), 3);
    node.stop().await;
}

/// A pipe that parks for room from its timer, at 1 s, until the test opens the door.
#[derive(Default)]
struct Door {
    parks: AtomicU64,
    open: AtomicBool,
    seen: AtomicBool,
    start: std::sync::OnceLock<Instant>,
    waker: std::sync::Mutex<Option<std::task::Waker>>,
}

impl Door {
    fn open(&self) {
        self.open.store(true, SeqCst);
        self.waker.lock().unwrap().take().into_iter().for_each(std::task::Waker::wake);
    }
}

impl Meddle for Arc<Door> {
    fn instead(&self, hook: Hook, now: Instant, _out: &mut Outbox) -> Option<Flow> {
        match hook {
            Hook::Start => {
                let _ = self.start.set(now);
                None
            }
            Hook::Timer => {
                self.parks.fetch_add(1, SeqCst);
                Some(Flow::Park(Until::Room))
            }
            Hook::Frame => {
                self.seen.store(true, SeqCst);
                None
            }
            _ => None,
        }
    }
    fn timer(&self) -> Option<Instant> {
        (self.parks.load(SeqCst) == 0).then(|| self.start.get().map(|at| *at + SECOND)).flatten()
    }
    fn room(&self, cx: &mut Context<'_>) -> Option<Poll<()>> {
        *self.waker.lock().unwrap() = Some(cx.waker().clone());
        Some(if self.open.load(SeqCst) { Poll::Ready(()) } else { Poll::Pending })
    }
}

/// A message that is half here when its peer is parked is not overdue when the peer is unparked.
#[tokio::test(start_paused = true)]
async fn time_spent_parked_is_not_charged_to_the_message_under_way() {
    let board = Switchboard::default();
    let door = Arc::new(Door::default());
    let mut node = Build { meddle: Arc::new(Arc::clone(&door)), ..Build::new(1) }.start(&board).await;
    let (mut peer, _handle) = node.peer(7).await;
    let message = framed(SAY, &text(1, "in two halves"));
    peer.bytes(&message[..10]).await.unwrap();
    node.pass(2 * SECOND).await;
    assert_eq!(node.metric("parked_peers", ""), 1);
    peer.bytes(&message[10..]).await.unwrap();
    node.pass(500 * SECOND).await;
    assert!(!door.seen.load(SeqCst));
    door.open();
    assert_eq!(peer.recv().await.expect("the session lives").1, text(1, "in two halves"));
    assert_eq!(node.metric("parked_peers", ""), 0);
    node.stop().await;
}

/// W5, W7: a second reason to wait does not cancel the first one.
#[tokio::test(start_paused = true)]
async fn a_pipe_that_waits_for_room_is_given_no_frame_because_of_a_shorter_wait() {
    let board = Switchboard::default();
    let door = Arc::new(Door::default());
    let mut node = Build { meddle: Arc::new(Arc::clone(&door)), ..Build::new(1) }.start(&board).await;
    let (mut peer, _handle) = node.peer(7).await;
    // Over the rate of one kind: the throttle ends while the pipe of another still has no room.
    for _ in 0..3 {
        peer.send(WAITING, b"w").await.unwrap();
    }
    peer.send(SAY, &text(1, "wait")).await.unwrap();
    node.pass(400 * SECOND).await;
    assert!(!door.seen.load(SeqCst), "a frame came to a pipe without room");
    door.open();
    assert_eq!(peer.recv().await.unwrap().1, text(1, "wait"));
    node.stop().await;
}

/// W5: room that appears between the verdict and the wait is seen: whatever the order, no wake-up is lost.
#[tokio::test(start_paused = true)]
async fn a_peer_whose_mailbox_fills_parks_alone_and_loses_nothing() {
    let board = Switchboard::default();
    let lanes = LaneLimits { events: 2, bytes: 1 << 20 };
    let mut node = Build { lanes, ..Build::new(1) }.start(&board).await;
    let (mut chatty, chatty_handle) = node.peer(7).await;
    let (mut quiet, _quiet) = node.peer(8).await;
    for _ in 0..8 {
        assert!(say(&chatty_handle, "q"));
    }
    for _ in 0..8 {
        let (kind, body) = chatty.recv().await.unwrap();
        assert_eq!(kind, SAY);
        chatty.send(SAID, &body).await.unwrap();
    }
    node.pass(SECOND).await;
    assert_eq!(node.metric("parked_peers", ""), 1, "nobody empties the mailbox");
    quiet.send(SAY, &text(1, "unaffected")).await.unwrap();
    assert_eq!(quiet.recv().await.unwrap().1, text(1, "unaffected"));
    let mut answers = 0;
    while answers < 8 {
        match node.hear().await {
            Heard::Said(..) => answers += 1,
            Heard::Unanswered(why) => panic!("{why}"),
            _ => {}
        }
        node.settle().await;
    }
    node.settle().await;
    assert_eq!(node.metric("parked_peers", ""), 0);
    node.stop().await;
}

/// C17, H9, H11: an answer that does not come ends its request at the deadline and frees the peer for the next; the
/// late answer is swallowed once; a second copy, or one that nobody asked for, costs the peer.
#[tokio::test(start_paused = true)]
async fn a_late_answer_is_swallowed_once_and_the_next_request_is_answered() {
    let board = Switchboard::default();
    let lanes = LaneLimits { events: 64, bytes: 1 << 20 };
    let mut node = Build { lanes, ..Build::new(1) }.start(&board).await;
    let (mut peer, handle) = node.peer(7).await;
    for _ in 0..16 {
        assert!(say(&handle, "late"));
    }
    let mut asked = Vec::new();
    for _ in 0..16 {
        asked.push(peer.recv().await.unwrap().1);
    }
    assert!(say(&handle, "too many"));
    assert!(matches!(node.hear().await, Heard::Unanswered("refused")), "16 at a time");
    for _ in 0..16 {
        assert!(matches!(node.hear().await, Heard::Unanswered("timed_out")));
    }
    assert!(say(&handle, "next"), "the peer is free");
    let next = peer.recv().await.unwrap().1;
    peer.send(SAID, &asked[3]).await.unwrap();
    peer.send(SAID, &next).await.unwrap();
    assert!(matches!(node.hear().await, Heard::Said(_, said) if said == "next"));
    assert_eq!(node.metric("late_answers_total", ""), 1);
    peer.send(SAID, &asked[3]).await.unwrap();
    assert_eq!(node.cause().await.label(), "unsolicited");
    assert_eq!(node.metric("request_end_total", "timed_out"), 16);
    node.stop().await;
}

/// C17, W8: commands to a peer that takes none fill its own mailbox only; the sender is told at once.
#[tokio::test(start_paused = true)]
async fn a_full_command_queue_is_a_verdict_and_blocks_nobody() {
    let board = Switchboard::default();
    let mut node = Build::new(1).start(&board).await;
    let (_a, a) = node.peer(7).await;
    let (mut b, b_handle) = node.peer(8).await;
    let pushed: Vec<Pushed> = (0..MAIL + 5).map(|_| a.push(rookery_engine::Command::new(()))).collect();
    assert_eq!(pushed.iter().filter(|p| **p == Pushed::Accepted).count(), MAIL);
    assert_eq!(pushed[MAIL], Pushed::Full);
    assert!(say(&b_handle, "b"));
    assert_eq!(b.recv().await.unwrap().0, SAY);
    node.stop().await;
}

/// A pipe that keeps its own mailbox full: every command it gets sends the next.
#[derive(Default)]
struct Storm(std::sync::OnceLock<rookery_engine::PeerHandle>, AtomicU64, AtomicBool);

impl Meddle for Arc<Storm> {
    fn instead(&self, hook: Hook, _now: Instant, _out: &mut Outbox) -> Option<Flow> {
        if hook == Hook::Frame {
            self.2.store(true, SeqCst);
        }
        if hook == Hook::Command {
            // A bound, so that a failure ends: far more commands than a fair routine handles before it reads.
            if self.1.fetch_add(1, SeqCst) < 200_000 && !self.2.load(SeqCst) {
                let _ = self.0.get().unwrap().push(rookery_engine::Command::new(()));
            }
            return Some(Flow::Continue);
        }
        None
    }
}

/// W8: a mailbox that is never empty does not keep the routine from reading.
#[tokio::test(start_paused = true)]
async fn commands_without_end_do_not_starve_reading() {
    let board = Switchboard::default();
    let storm = Arc::new(Storm::default());
    let mut node = Build { meddle: Arc::new(Arc::clone(&storm)), ..Build::new(1) }.start(&board).await;
    let (mut peer, handle) = node.peer(7).await;
    storm.0.set(handle.clone()).unwrap();
    peer.send(SAY, &text(1, "through")).await.unwrap();
    assert_eq!(handle.push(rookery_engine::Command::new(())), Pushed::Accepted);
    assert_eq!(peer.recv().await.unwrap().1, text(1, "through"));
    let commands = storm.1.load(SeqCst);
    assert!(commands < 2_000, "{commands} commands went first");
    node.stop().await;
}

/// W8: a flood over its rate waits; another peer's answers come in the same virtual instant.
#[tokio::test(start_paused = true)]
async fn a_flood_waits_and_another_peers_latency_stays() {
    let board = Switchboard::default();
    let mut node = Build::new(1).start(&board).await;
    let (flood, _flood) = node.peer(7).await;
    let (mut quiet, _quiet) = node.peer(8).await;
    let (mut read, mut write) = tokio::io::split(flood.wire);
    let out = async move {
        use tokio::io::AsyncWriteExt;
        for n in 0..1_000 {
            write.write_all(&framed(SAY, &text(n, "flood"))).await.unwrap();
        }
    };
    let back = async move {
        use tokio::io::AsyncReadExt;
        let mut all = vec![0; 1_000 * framed(SAY, &text(0, "flood")).len()];
        read.read_exact(&mut all).await.unwrap();
    };
    let clock = node.env.clock;
    let began = clock.now();
    let talk = async {
        for n in 0..50 {
            let asked = clock.now();
            quiet.send(SAY, &text(n, "quick")).await.unwrap();
            quiet.recv().await.unwrap();
            let took = clock.now().duration_since(asked);
            assert!(took < Duration::from_millis(5), "{took:?}");
            clock.sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::join!(out, back, talk);
    let took = clock.now().duration_since(began);
    assert!(took >= 7 * SECOND, "1,000 at 100 a second after 200 at once: {took:?}");
    assert!(node.metric("throttled_total", "say") > 0);
    node.stop().await;
}

/// W7: a peer that asks and never reads is closed with the reason and a bounded number of bytes held; another peer is
/// unaffected.
#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_is_closed_and_costs_nobody_else() {
    let board = Switchboard::default();
    let mut node = Build::new(1).start(&board).await;
    let (mut deaf, _deaf) = node.peer(7).await;
    let (mut quiet, _quiet) = node.peer(8).await;
    let body = vec![3; 60_000];
    for _ in 0..200 {
        if deaf.send(SAY, &body).await.is_err() {
            break;
        }
        quiet.send(SAY, &text(1, "fine")).await.unwrap();
        quiet.recv().await.unwrap();
    }
    assert_eq!(node.cause().await.label(), "write_stalled");
    quiet.send(SAY, &text(2, "fine")).await.unwrap();
    quiet.recv().await.unwrap();
    drop((deaf, quiet));
    node.pass(3 * SECOND).await;
    node.assert_clean().await;
    node.stop().await;
}

/// W7, W10: one unread answer is enough: nothing taken for the stall deadline closes the peer.
#[tokio::test(start_paused = true)]
async fn a_write_that_stalls_closes_the_peer_at_its_deadline() {
    let board = Switchboard::default();
    let mut node = Build::new(1).start(&board).await;
    let (mut deaf, _deaf) = node.peer(7).await;
    for _ in 0..3 {
        deaf.send(SAY, &vec![3; 60_000]).await.unwrap();
    }
    let began = node.env.clock.now();
    assert_eq!(node.cause().await.label(), "write_stalled");
    let took = node.env.clock.now().duration_since(began);
    assert!((29 * SECOND..32 * SECOND).contains(&took), "{took:?}");
    assert_eq!(node.metric("write_stall_total", ""), 1);
    node.pass(3 * SECOND).await;
    node.assert_clean().await;
    node.stop().await;
}

/// One byte at a time is one message all the same, and holds nobody up.
#[tokio::test(start_paused = true)]
async fn a_message_byte_by_byte_arrives_whole() {
    let board = Switchboard::default();
    let mut node = Build::new(1).start(&board).await;
    let (mut peer, _handle) = node.peer(7).await;
    for byte in framed(SAY, &text(1, "letter by letter")) {
        peer.bytes(&[byte]).await.unwrap();
        node.settle().await;
    }
    assert_eq!(peer.recv().await.unwrap().1, text(1, "letter by letter"));
    node.stop().await;
}

/// A session's age is in whole seconds since it began, not since the node's last full second.
#[tokio::test(start_paused = true)]
async fn a_view_counts_seconds_from_the_sessions_own_start() {
    let board = Switchboard::default();
    let mut node = Build::new(1).start(&board).await;
    node.pass(Duration::from_millis(900)).await;
    let (_peer, _handle) = node.peer(7).await;
    node.pass(Duration::from_millis(200)).await;
    assert_eq!(node.engine.peers().await[0].seconds, 0);
    node.pass(Duration::from_millis(900)).await;
    assert_eq!(node.engine.peers().await[0].seconds, 1);
    assert_eq!(node.engine.closed().await.len(), 0);
    node.stop().await;
}

/// Row 25: one peer floods at a hundred times what it may, with its answers unread; each of 999 quiet peers gets its answer
/// before any time has passed, and so does the node's own request to each hundredth of them.
#[tokio::test(start_paused = true)]
async fn one_flooding_peer_does_not_delay_999_quiet_ones() {
    let board = Switchboard::default();
    let mut node = Build::new(1).start(&board).await;
    let mut quiet = Vec::new();
    for n in 0..999_u16 {
        let mut peer = node.wire([91, (n >> 8) as u8, n as u8, 1], 7000);
        let mut identity = [9; 32];
        identity[..2].copy_from_slice(&n.to_be_bytes());
        peer.shake(identity).await.unwrap();
        quiet.push((peer, node.up().await));
    }
    let (flooder, _handle) = node.peer(7).await;
    let (mut taken, mut flood) = tokio::io::split(flooder.wire);
    let flooding = async {
        let burst: Vec<u8> = (0..100).flat_map(|n| framed(SAY, &text(n, "flood"))).collect();
        loop {
            tokio::io::AsyncWriteExt::write_all(&mut flood, &burst).await.unwrap();
        }
    };
    let clock = node.env.clock;
    let talking = async {
        let began = clock.now();
        for (n, (peer, handle)) in quiet.iter_mut().enumerate() {
            peer.send(SAY, &text(5, "quiet")).await.unwrap();
            assert_eq!(peer.recv().await.unwrap(), (SAID, text(5, "quiet").to_vec()));
            if n % 100 == 0 {
                assert!(say(handle, "and you"));
                assert_eq!(peer.recv().await.unwrap().0, SAY);
            }
        }
        assert_eq!(clock.now(), began, "nobody waited for the flood");
    };
    tokio::select! {
        biased;
        () = talking => {}
        () = flooding => {}
    }
    node.settle().await;
    assert!(node.metric("throttled_total", "say") > 0, "the flood met its rate");
    let mut answered = [0; 1024];
    assert!(tokio::io::AsyncReadExt::read(&mut taken, &mut answered).await.unwrap() > 0, "it is served, too");
    node.stop().await;
}
