//! The accept path over arrivals that wait at the door: admission, eviction, deadlines per stage, and whoever is not let in
//! is told why.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::FutureExt as _;
use rookery_base::{CloseCause, Direction, Refusal};
use rookery_engine::registry::SessionLimits;
use rookery_engine::{Change, HandshakeLimits, Limits};
use rookery_testkit::{Knock, Scripted, Switchboard, Told};
use rookery_transport::{Closed, Conn, MuxConn, StreamConn};
use tokio::io::AsyncWriteExt;

use crate::common::{Build, Node, ordered};

const SECOND: Duration = Duration::from_secs(1);

fn from(n: u32, port: u16) -> SocketAddr {
    let [_, b, c, d] = n.to_be_bytes();
    SocketAddr::from(([60 + b, c, d, 1], port))
}

fn limits(handshakes: HandshakeLimits) -> Limits {
    Limits { handshakes, ..Limits::LOCAL }
}

/// An honest dialler by hand: knocks, answers a Retry, says hello. Its connection, or what was done to it at the door.
async fn dial(node: &Node, from: SocketAddr, identity: [u8; 32]) -> Result<(MuxConn, StreamConn), Told> {
    let mut told = node.board.knock(from, node.at, false).unwrap().told().await;
    if matches!(told, Told::Retried) {
        told = node.board.knock(from, node.at, true).unwrap().told().await;
    }
    let Told::In(conn) = told else { return Err(told) };
    let kept = MuxConn { mux: std::sync::Arc::clone(&conn.mux), proof: conn.proof.clone(), ..conn };
    let (mut stream, _) = ordered(Conn::Mux(conn), Direction::Outbound).await.unwrap();
    let _ = stream.write.write_all(&[&b"ROOKECHO"[..], &identity].concat()).await;
    node.settle().await;
    Ok((kept, stream))
}

fn identity(n: u32) -> [u8; 32] {
    let mut id = [7; 32];
    id[..4].copy_from_slice(&n.to_be_bytes());
    id
}

/// Row 10: of forty dialers exactly ten get the ten slots, and thirty are told that there is no room.
#[tokio::test(start_paused = true)]
async fn ten_slots_and_forty_dialers_make_ten_sessions_and_thirty_who_are_told_why() {
    let board = Switchboard::default();
    let sessions = SessionLimits { inbound: 10, ..SessionLimits::LOCAL };
    let node = Build { limits: Limits { sessions, ..Limits::LOCAL }, ..Build::new(1) }.start(&board).await;
    let mut held = Vec::new();
    for n in 0..40 {
        // All from one address group, so that nobody is worth more than another.
        let at = SocketAddr::from(([60, 1, 0, n as u8], 1));
        held.push(dial(&node, at, identity(n)).await.ok().unwrap());
    }
    let (mut live, mut told) = (0, 0);
    for (conn, _) in &held {
        match node.env.clock.timeout(Duration::from_millis(1), conn.mux.closed()).await {
            None => live += 1,
            Some(closed) => {
                let reason = "refused: all slots are taken".to_owned();
                assert_eq!(closed, Closed::ByPeer { code: 3, reason });
                told += 1;
            }
        }
    }
    assert_eq!((live, told), (10, 30));
    let accounts = node.engine.accounts();
    assert!(accounts.balanced());
    assert_eq!((accounts.live, accounts.refused.get("full")), (10, Some(&30)));
    node.stop().await;
}

/// Row 9: a thousand from one address and a hundred from others: the one address meets its limit before any handshake, and
/// nobody else notices.
#[tokio::test(start_paused = true)]
async fn a_thousand_from_one_address_are_refused_before_the_handshake_and_others_get_in() {
    let board = Switchboard::default();
    let handshakes = HandshakeLimits { per_ip: 4, total: 256, ..HandshakeLimits::LOCAL };
    let node = Build { limits: limits(handshakes), ..Build::new(1) }.start(&board).await;
    let mut crowd: Vec<Knock> = (0..1_000)
        .map(|n| board.half_open(SocketAddr::from(([66, 6, 6, 6], 1_000 + n)), node.at, true).unwrap())
        .collect();
    let mut others = Vec::new();
    for n in 0..100 {
        others.push(dial(&node, from(n, 1), identity(n)).await.ok().unwrap());
    }
    let refused = crowd.iter_mut().filter_map(Knock::try_told).filter(|told| matches!(told, Told::Refused));
    assert_eq!(refused.count(), 996);
    assert_eq!(node.metric("accept_refused_total", "handshakes_per_ip"), 996);
    assert_eq!(node.engine.audit().await.unwrap().inbound, 100);
    assert!(node.engine.accounts().balanced());
    let why = node.engine.why("66.6.6.6:0".parse().unwrap()).await.0;
    assert!(why[0].closed.as_ref().unwrap().contains("too many handshakes from this address"), "{why:?}");
    node.stop().await;
}

/// Rows 10, 20: whoever is turned away is told so, as long as that is cheap: above 4,096 in a second it is left to its
/// deadline. It is counted as refused all the same, and a second later refusals are said again.
#[tokio::test(start_paused = true)]
async fn refusals_above_what_a_second_has_are_silent_and_counted() {
    const TOLD: usize = 4_096;
    let board = Switchboard::default();
    let node = Build { limits: limits(HandshakeLimits::LOCAL), ..Build::new(1) }.start(&board).await;
    let banned: SocketAddr = "66.6.6.6:1".parse().unwrap();
    node.engine.ban(banned.ip(), None).await;
    let (mut refused, mut ignored) = (0, 0);
    let mut knock = async |times: usize| {
        for _ in 0..times {
            let mut knock = board.half_open(banned, node.at, true).unwrap();
            node.settle().await;
            match knock.try_told() {
                Some(Told::Refused) => refused += 1,
                Some(Told::Ignored) => ignored += 1,
                _ => panic!("neither refused nor ignored"),
            }
        }
        (refused, ignored)
    };
    assert_eq!(knock(TOLD + 500).await, (TOLD, 500));
    let accounts = node.engine.accounts();
    assert!(accounts.balanced(), "{accounts:?}");
    assert_eq!(accounts.refused.get("banned"), Some(&(TOLD as u64 + 500)), "{accounts:?}");
    node.pass(SECOND).await;
    assert_eq!(knock(TOLD + 1).await, (2 * TOLD, 501));
    node.stop().await;
}

/// Row 21: five thousand handshakes that never finish, proven and unproven, from a hundred prefixes: they hold no more than
/// there are places, an honest dialler gets in at once at any time, and those who lost their places ended for that.
#[tokio::test(start_paused = true)]
async fn handshakes_that_never_finish_cannot_keep_an_honest_dialler_out() {
    let board = Switchboard::default();
    let handshakes = HandshakeLimits { per_ip: 4, per_prefix: 32, total: 256, ..HandshakeLimits::LOCAL };
    let node = Build { limits: limits(handshakes), ..Build::new(1) }.start(&board).await;
    let (mut slow, mut honest) = (Vec::new(), Vec::new());
    for n in 0..5_000_u32 {
        let at = SocketAddr::from(([70, 1, (n % 100) as u8, (n / 100) as u8], 9));
        slow.push(board.half_open(at, node.at, n % 2 == 0).unwrap());
        if n % 50 == 0 {
            node.settle().await;
            let began = node.env.clock.now();
            honest.push(dial(&node, from(n, 1), identity(n)).await.ok().unwrap());
            assert_eq!(node.env.clock.now(), began, "at once");
            let accounts = node.engine.accounts();
            assert!(accounts.balanced() && accounts.shaking <= 256, "{accounts:?}");
        }
        if n % 500 == 0 {
            node.pass(SECOND).await;
        }
    }
    assert_eq!(node.engine.audit().await.unwrap().inbound, honest.len());
    let accounts = node.engine.accounts();
    assert!(accounts.refused["handshake_evicted"] > 1_000, "{accounts:?}");
    node.pass(HandshakeLimits::LOCAL.connect + SECOND).await;
    let accounts = node.engine.accounts();
    assert_eq!((accounts.shaking, accounts.live), (0, honest.len() as u64));
    assert!(accounts.refused["connect_timeout"] > 0, "{accounts:?}");
    node.stop().await;
}

/// Row 20: half-open handshakes from a hundred thousand forged addresses hold the low-water mark's part of the places and not
/// one more; honest diallers prove their addresses and get in meanwhile.
#[tokio::test(start_paused = true)]
async fn a_flood_from_a_hundred_thousand_addresses_holds_a_quarter_of_the_places() {
    let board = Switchboard::default();
    let node = Build { limits: limits(HandshakeLimits::PUBLIC), ..Build::new(1) }.start(&board).await;
    let mut held = Vec::new();
    let mut most = 0;
    for n in 0..100_000_u32 {
        let [_, b, c, d] = n.to_be_bytes();
        drop(board.half_open(SocketAddr::from(([80 + b, d, c, 1], 9)), node.at, false).unwrap());
        if n % 1_000 == 0 {
            node.settle().await;
            held.push(dial(&node, from(n, 1), identity(n)).await.ok().unwrap());
            node.pass(Duration::from_millis(100)).await;
            most = most.max(node.engine.accounts().shaking);
        }
    }
    assert_eq!((node.engine.audit().await.unwrap().inbound, held.len()), (100, 100));
    assert!(most <= HandshakeLimits::PUBLIC.total as u64 / 4, "{most}");
    let accounts = node.engine.accounts();
    assert!(accounts.balanced() && accounts.retried > 90_000, "{accounts:?}");
    node.stop().await;
}

/// Row 15: each stage has its deadline and its own cause.
#[tokio::test(start_paused = true)]
async fn each_stage_of_a_handshake_has_its_own_deadline_and_cause() {
    let board = Switchboard::default();
    let handshakes = HandshakeLimits { connect: 3 * SECOND, ..HandshakeLimits::LOCAL };
    let node = Build { limits: limits(handshakes), ..Build::new(1) }.start(&board).await;
    let _half_open = board.half_open(from(1, 1), node.at, true).unwrap();
    let silent = board.knock(from(2, 1), node.at, true).unwrap().told().await.conn().unwrap();
    node.pass(2 * SECOND).await;
    assert_eq!(node.engine.accounts().shaking, 2);
    node.pass(2 * SECOND).await;
    let accounts = node.engine.accounts();
    assert_eq!((accounts.shaking, accounts.refused.get("connect_timeout")), (1, Some(&1)));
    let Closed::ByPeer { code: 1, reason } = silent.mux.closed().await else { panic!("not told") };
    assert!(reason.contains("the network's handshake did not end within 5 s"), "{reason}");
    assert_eq!(node.engine.accounts().refused.get("handshake_timeout"), Some(&1));
    let why = node.engine.why(from(1, 0)).await.0;
    assert!(why[0].closed.as_ref().unwrap().contains("the connection's handshake"), "{why:?}");
    node.stop().await;
}

/// Rows 3, 6, 14: ten thousand connections that come and go at once, with a follower that does nothing: at every step the
/// accounts are balanced, within a second nothing is left, and the follower learns exactly that.
#[tokio::test(start_paused = true)]
async fn ten_thousand_that_connect_and_close_leave_nothing_behind() {
    let board = Switchboard::default();
    let mut node = Build::new(1).start(&board).await;
    let mut stalled = node.engine.watch();
    let (stays, _handle) = node.peer(200).await;
    for n in 0..10_000_u32 {
        let at = from(n, 1);
        match n % 4 {
            0 => drop(board.connect(at, node.at).unwrap()),
            1 => drop(board.knock(at, node.at, true).unwrap().told().await),
            2 => drop(dial(&node, at, identity(n)).await),
            _ => {
                let mut peer = Scripted::new(board.connect(at, node.at).unwrap());
                let _ = peer.bytes(&[&b"ROOKECHO"[..], &identity(n)].concat()).await;
                if n % 8 == 3 {
                    peer.reset();
                }
            }
        }
        let accounts = node.engine.accounts();
        assert!(accounts.balanced(), "{accounts:?}");
        assert!(stalled.waiting() < 200, "{}", stalled.waiting());
    }
    node.pass(SECOND).await;
    let accounts = node.engine.accounts();
    let came = accounts.arrived - accounts.retried;
    assert_eq!((came, accounts.shaking, accounts.live), (10_001, 0, 1), "{accounts:?}");
    assert!(accounts.balanced() && accounts.ended.values().sum::<u64>() > 2_000, "{accounts:?}");
    assert_eq!(node.engine.audit().await.unwrap().slots, 1);
    let told = stalled.try_next().unwrap();
    assert!(told.change == Change::Connected && stalled.try_next().is_none(), "who stays, and nobody else");
    drop(stays);
    assert!(matches!(stalled.next().await.unwrap().change, Change::Lost(_)));
    node.assert_clean().await;
    node.stop().await;
    assert!(stalled.next().await.is_none());
}

/// R3: a goodbye that comes behind the end of the stream is the cause all the same; without one the stream's end is, a second
/// later.
#[tokio::test(start_paused = true)]
async fn what_a_connection_says_at_its_end_counts_before_what_its_stream_has_met() {
    let board = Switchboard::default();
    let node = Build::new(1).start(&board).await;
    let (polite, stream) = dial(&node, from(1, 1), identity(1)).await.ok().unwrap();
    drop(stream);
    node.pass(SECOND / 2).await;
    assert_eq!(node.engine.accounts().live, 1);
    polite.mux.close(9, "had enough");
    node.settle().await;
    let (_mute, stream) = dial(&node, from(2, 1), identity(2)).await.ok().unwrap();
    drop(stream);
    node.pass(SECOND + SECOND / 10).await;
    let causes: Vec<_> = node.engine.closed().await.into_iter().map(|closed| closed.cause).collect();
    assert_eq!(causes, [CloseCause::ByPeer { code: 9, reason: "had enough".into() }, CloseCause::PeerClosed]);
    assert_eq!(node.engine.audit().await.unwrap().slots, 0);
    node.stop().await;
}

/// The same before there is a session: whoever gives its hello up half way and then says why has said why.
#[tokio::test(start_paused = true)]
async fn what_a_connection_says_at_its_end_counts_in_a_handshake_too() {
    let board = Switchboard::default();
    let node = Build::new(1).start(&board).await;
    for (n, says) in [(1, true), (2, false)] {
        let conn = board.knock(from(n, 1), node.at, true).unwrap().told().await.conn().unwrap();
        let mux = std::sync::Arc::clone(&conn.mux);
        let (mut stream, _) = ordered(Conn::Mux(conn), Direction::Outbound).await.unwrap();
        stream.write.write_all(b"ROOK").await.unwrap();
        node.settle().await;
        drop(stream);
        node.pass(SECOND / 2).await;
        assert_eq!(node.engine.accounts().shaking, 1);
        if says {
            mux.close(9, "changed my mind");
        } else {
            node.pass(SECOND).await;
        }
        node.settle().await;
        assert_eq!(node.engine.accounts().shaking, 0);
        let why = node.engine.why(from(n, 0)).await.0;
        assert_eq!(why[0].closed.as_ref().unwrap().contains("changed my mind"), says, "{why:?}");
    }
    node.stop().await;
}

/// R9: who waits for a connection's last words does not hold up a stop, and whoever asks the session something is told at once
/// that it is over.
#[tokio::test(start_paused = true)]
async fn a_session_whose_stream_has_ended_takes_no_more_and_stops_at_once() {
    let board = Switchboard::default();
    let mut node = Build::new(1).start(&board).await;
    let (_conn, stream) = dial(&node, from(1, 1), identity(1)).await.ok().unwrap();
    let handle = node.up().await;
    drop(stream);
    node.settle().await;
    assert_eq!(node.engine.accounts().live, 1, "a goodbye may come");
    assert!(!rookery_echo::say(&handle, "are you there?"), "it is over all the same");
    let began = node.env.clock.now();
    node.env.scope.cancel();
    node.settle().await;
    assert_eq!((node.engine.accounts().live, node.env.clock.now()), (0, began));
    node.stop().await;
}

/// Row 13: of a session that ends the other side sees no stream end before the connection does, and so learns why.
#[tokio::test(start_paused = true)]
async fn no_stream_of_a_session_ends_before_its_connection() {
    let board = Switchboard::default();
    let node = Build::new(1).start(&board).await;
    let (conn, mut stream) = dial(&node, from(1, 1), identity(1)).await.ok().unwrap();
    assert_eq!(node.engine.disconnect(from(1, 1)).await, 1);
    let mut turns = 0;
    while stream.write.write_all(b"x").now_or_never().is_none_or(|written| written.is_ok()) {
        turns += 1;
        assert!(turns < 1_000, "the session does not end");
        tokio::task::yield_now().await;
    }
    assert!(conn.mux.closed().now_or_never().is_some(), "the stream has ended first");
    node.stop().await;
}

/// Why is known of what was refused, evicted, parked and closed: three hundred times, each under its own address.
#[tokio::test(start_paused = true)]
async fn why_names_the_cause_of_three_hundred_fates() {
    let board = Switchboard::default();
    let handshakes = HandshakeLimits { per_ip: 1, ..HandshakeLimits::LOCAL };
    let mut node = Build { limits: limits(handshakes), ..Build::new(1) }.start(&board).await;
    let mut expected = Vec::new();
    let mut held = Vec::new();
    for n in 0..100_u32 {
        let at = from(n, 1);
        held.push(board.half_open(at, node.at, true).unwrap());
        held.push(board.half_open(at, node.at, true).unwrap());
        expected.push((at, Refusal::HandshakesPerIp.to_string()));
    }
    let mut peers = Vec::new();
    for n in 0..200_u8 {
        let (mut peer, handle) = node.peer(n + 2).await;
        let what = if n % 2 == 0 {
            for _ in 0..3 {
                peer.send(crate::common::WAITING, b"often").await.unwrap();
            }
            "parked: the rate of waiting"
        } else {
            handle.close(CloseCause::Evicted);
            "evicted"
        };
        node.settle().await;
        expected.push((handle.addr, what.to_owned()));
        peers.push(peer);
    }
    let mut named = 0;
    for (addr, what) in &expected {
        let why = node.engine.why(*addr).await.0;
        named += usize::from(why.iter().any(|one| {
            let closed = one.closed.as_ref().is_some_and(|cause| cause.contains(what.as_str()));
            closed || one.facts.iter().any(|fact| fact.what.contains(what.as_str()))
        }));
    }
    assert_eq!(named, 300);
    node.stop().await;
}
