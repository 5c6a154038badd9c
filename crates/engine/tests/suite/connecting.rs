//! Connects that an application asks for: addresses race, errors say why for each, the session that stays is the answer;
//! and the pace of dials.

use std::net::SocketAddr;
use std::time::Duration;

use rookery_base::CloseCause;
use rookery_engine::registry::SessionLimits;
use rookery_engine::{DialPace, HandshakeLimits, Limits};
use rookery_testkit::Switchboard;

use crate::common::{Build, Node, addr};

const SECOND: Duration = Duration::from_secs(1);

async fn node(board: &Switchboard, identity: u8) -> Node {
    let build =
        Build { mux: true, pace: DialPace::QUIC, incarnation: Some(identity.into()), ..Build::new(identity) };
    build.start(board).await
}

/// Row 16: an IPv6 address that hangs costs a quarter of a second, one that fails costs nothing; the answer is a session that
/// both ends have.
#[tokio::test(start_paused = true)]
async fn addresses_race_and_the_first_session_is_the_answer() {
    let board = Switchboard::default();
    let (server, client) = (node(&board, 1).await, node(&board, 2).await);
    let (hangs, nobody) = (addr("[2001:db8::1]:4000"), addr("[2001:db8::2]:4000"));
    board.blackhole(hangs);
    let began = client.env.clock.now();
    let dialled = client.engine.dial_now(vec![server.at, hangs]).await.unwrap();
    assert_eq!(client.env.clock.now().duration_since(began), Duration::from_millis(250));
    assert_eq!((dialled.addr, dialled.peer.as_bytes()), (server.at, &[1; 32][..]));
    client.settle().await;
    let (ours, theirs) = (client.engine.peers().await, server.engine.peers().await);
    assert_eq!((ours.len(), theirs.len()), (1, 1));
    assert_eq!(ours[0].generation, dialled.generation.0);
    client.engine.disconnect(server.at).await;
    client.settle().await;
    // Nobody listens there: with retries that address hangs as well, but another one has its turn meanwhile.
    let began = client.env.clock.now();
    client.engine.dial_now(vec![nobody, server.at]).await.unwrap();
    assert!(client.env.clock.now().duration_since(began) <= Duration::from_millis(250));
    for node in [server, client] {
        node.stop().await;
    }
}

/// Row 15: who cannot be reached is said per address, at the deadline; a connect that is dropped gives up.
#[tokio::test(start_paused = true)]
async fn a_connect_says_why_for_each_address_and_can_be_dropped() {
    let board = Switchboard::default();
    let client = node(&board, 2).await;
    let (hangs, nobody) = (addr("60.1.0.1:1"), addr("60.2.0.1:1"));
    board.blackhole(hangs);
    let began = client.env.clock.now();
    let error = client.engine.dial_now(vec![hangs, nobody, hangs]).await.unwrap_err();
    assert!(client.env.clock.now().duration_since(began) <= 31 * SECOND);
    let mut causes: Vec<_> = error.tried.iter().map(|(at, cause)| (*at, cause.label())).collect();
    causes.sort();
    assert_eq!(causes, [(hangs, "connect_timeout"), (nobody, "broken")]);
    assert!(error.to_string().contains("60.1.0.1:1: peer: connect_timeout"), "{error}");
    assert!(client.engine.why(hangs).await.0[0].closed.as_ref().unwrap().contains("connect_timeout"));
    assert!(client.engine.dial_now(Vec::new()).await.unwrap_err().tried.is_empty());
    let dropped = client.env.clock.timeout(SECOND, client.engine.dial_now(vec![hangs])).await;
    assert!(dropped.is_none());
    client.settle().await;
    client.assert_clean().await;
    client.stop().await;
}

/// A refusal after the handshake is told with its words, and a full door is tried again within the deadline.
#[tokio::test(start_paused = true)]
async fn a_refusal_is_told_and_a_full_door_is_tried_again() {
    let board = Switchboard::default();
    let sessions = SessionLimits { inbound: 1, ..SessionLimits::LOCAL };
    let handshakes = HandshakeLimits { per_ip: 1, connect: 3 * SECOND, ..HandshakeLimits::LOCAL };
    let limits = Limits { sessions, handshakes, ..Limits::LOCAL };
    let server = Build { limits, incarnation: Some(9), ..Build::new(1) }.start(&board).await;
    let (first, second) = (node(&board, 2).await, node(&board, 3).await);
    // The address's only place is taken for three seconds by a handshake that hangs.
    let _hangs = board.half_open(SocketAddr::new(first.at.ip(), 1), server.at, true).unwrap();
    server.settle().await;
    let began = first.env.clock.now();
    first.engine.dial_now(vec![server.at]).await.unwrap();
    let took = first.env.clock.now().duration_since(began);
    assert!((3 * SECOND..8 * SECOND).contains(&took), "{took:?}");
    let error = second.engine.dial_now(vec![server.at]).await;
    let cause = match error {
        Err(error) => error.tried[0].1.clone(),
        // Both said hello at once: then the session was there, and ended for the same reason.
        Ok(_) => {
            second.settle().await;
            second.engine.closed().await[0].cause.clone()
        }
    };
    let full = CloseCause::ByPeer { code: 3, reason: "refused: all slots are taken".into() };
    assert_eq!(cause, full);
    for node in [server, first, second] {
        node.stop().await;
    }
}

/// Of two connects to one peer one connection stays, the later, and both connects have an answer.
#[tokio::test(start_paused = true)]
async fn connects_to_one_peer_end_with_one_session() {
    let board = Switchboard::default();
    let (server, client) = (node(&board, 1).await, node(&board, 2).await);
    let (a, b) =
        tokio::join!(client.engine.dial_now(vec![server.at]), client.engine.dial_now(vec![server.at]));
    let later = a.unwrap().generation.max(b.unwrap().generation);
    client.settle().await;
    let (ours, theirs) = (client.engine.peers().await, server.engine.peers().await);
    assert_eq!((ours.len(), ours[0].generation, theirs.len()), (1, later.0, 1));
    for node in [server, client] {
        node.stop().await;
    }
}

/// Row 8: two applications that connect to each other at once have both an answer, and both nodes the same one session, also
/// where the loser was told so in the middle of its handshake.
#[tokio::test(start_paused = true)]
async fn two_that_connect_to_each_other_both_have_an_answer() {
    for (lag_a, lag_b) in [(0, 0), (0, 1), (1, 0), (0, 50), (50, 0)] {
        let board = Switchboard::default();
        let (a, b) = (node(&board, 1).await, node(&board, 2).await);
        let connect = async |own: &Node, other: &Node, lag| {
            own.pass(Duration::from_millis(lag)).await;
            own.engine.dial_now(vec![other.at]).await
        };
        let (from_a, from_b) = tokio::join!(connect(&a, &b, lag_a), connect(&b, &a, lag_b));
        let (from_a, from_b) = (from_a.unwrap(), from_b.unwrap());
        assert_eq!((from_a.peer.as_bytes(), from_b.peer.as_bytes()), (&[2; 32][..], &[1; 32][..]));
        a.pass(SECOND).await;
        let (at_a, at_b) = (a.engine.peers().await, b.engine.peers().await);
        assert_eq!((at_a.len(), at_b.len()), (1, 1), "{lag_a} {lag_b}");
        assert_eq!((at_a[0].direction, at_b[0].direction), ("out", "in"), "{lag_a} {lag_b}");
        for node in [a, b] {
            node.stop().await;
        }
    }
}

/// Row 24: dials in flight are bounded, and named peers are first dialled at random times within the jitter.
#[tokio::test(start_paused = true)]
async fn dials_in_flight_are_bounded_and_begin_spread_out() {
    let board = Switchboard::default();
    let named: Vec<SocketAddr> = (0..100).map(|n| SocketAddr::from(([61, n, 0, 1], 1))).collect();
    named.iter().for_each(|at| board.blackhole(*at));
    let pace = DialPace { in_flight: 8, jitter: SECOND, patience: DialPace::QUIC.connect, ..DialPace::QUIC };
    let build = Build { mux: true, pace, connect: named.clone(), ..Build::new(1) };
    let node = build.start(&board).await;
    let dialled = || named.iter().map(|at| board.dials(*at)).sum::<u64>();
    node.settle().await;
    assert!(dialled() <= 2, "not all at once: {}", dialled());
    node.pass(29 * SECOND).await;
    assert_eq!(dialled(), 8);
    node.pass(5 * SECOND).await;
    assert_eq!(dialled(), 16, "the next have their turn at the deadline of the first");
    node.stop().await;
}

/// Rows 2, 13: two hundred nodes connect to one at once: every connect that succeeded is a session there, and the other way
/// round.
#[tokio::test(start_paused = true)]
async fn after_a_storm_both_sides_hold_the_same_sessions() {
    let board = Switchboard::default();
    let server = Build { limits: Limits::LOCAL, incarnation: Some(1), ..Build::new(1) }.start(&board).await;
    let mut clients = Vec::new();
    for n in 2..202 {
        clients.push(node(&board, n).await);
    }
    let at = server.at;
    let dials = clients.iter().map(|client| (client.engine.clone(), client.env.scope.clone()));
    let (tell, mut told) = tokio::sync::mpsc::channel(200);
    for (engine, scope) in dials {
        let tell = tell.clone();
        scope.spawn("storm", rookery_runtime::OnPanic::StopNode, async move {
            let _ = tell.send(engine.dial_now(vec![at]).await.is_ok()).await;
        });
    }
    for _ in 0..200 {
        assert!(told.recv().await.unwrap());
    }
    server.settle().await;
    assert_eq!(server.engine.peers().await.len(), 200);
    let accounts = server.engine.accounts();
    assert!(accounts.balanced() && accounts.live == 200, "{accounts:?}");
    for client in clients {
        assert_eq!(client.engine.peers().await.len(), 1);
        client.stop().await;
    }
    server.stop().await;
}

/// What a door does to whoever comes.
#[derive(Debug, Clone, Copy)]
enum Turn {
    /// Ends the connection with this code.
    Away(u32),
    /// Lets go of it without a word.
    Drop,
    /// Takes it, and says nothing.
    Silence,
}

/// A dial is tried again, within its deadline, when it was turned away for something that passes, was lost or met silence; and
/// when it was told something final it is not, and says what.
#[tokio::test(start_paused = true)]
async fn what_may_pass_is_tried_again_and_what_is_final_is_not() {
    use Turn::{Away, Drop, Silence};
    let passing = [(Away(6), 2), (Drop, 2), (Silence, 25)];
    for (turn, within) in passing {
        for dial_once in [false, true] {
            let board = Switchboard::default();
            let (server, client) = (Build { incarnation: Some(1), ..Build::new(1) }, node(&board, 2));
            let at = server.at;
            let mut door = board.transport(at.ip()).listen(at).await.unwrap();
            let client = match dial_once {
                true => {
                    let pace = DialPace { jitter: Duration::ZERO, ..DialPace::QUIC };
                    let build = Build { mux: true, pace, incarnation: Some(2), ..Build::new(2) };
                    Build { connect: vec![at], ..build }.start(&board).await
                }
                false => client.await,
            };
            let began = client.env.clock.now();
            let meeting = async {
                let conn = door.accept().await.unwrap().connect().await.unwrap().into_mux().unwrap();
                match turn {
                    Away(code) => conn.mux.close(code, "try again"),
                    Drop => conn.mux.close(0, ""),
                    Silence => {}
                }
                drop(door);
                (server.start(&board).await, conn)
            };
            let asked = async {
                match dial_once {
                    false => drop(client.engine.dial_now(vec![at]).await.unwrap()),
                    true => {
                        while client.engine.peers().await.is_empty() {
                            client.pass(Duration::from_millis(10)).await;
                        }
                    }
                }
                client.env.clock.now().duration_since(began)
            };
            let ((server, _held), took) = tokio::join!(meeting, asked);
            assert!(took <= within * SECOND, "{turn:?} {dial_once}: {took:?}");
            assert!(board.dials(at) >= 2, "{turn:?}");
            client.stop().await;
            server.stop().await;
        }
    }
    for code in [0, 1, 2, 3, 4, 5] {
        let board = Switchboard::default();
        let client = node(&board, 2).await;
        let at = addr("60.1.0.1:1");
        let mut door = board.transport(at.ip()).listen(at).await.unwrap();
        let meeting = async {
            let conn = door.accept().await.unwrap().connect().await.unwrap().into_mux().unwrap();
            conn.mux.close(code, "these words");
            conn
        };
        let (_held, error) = tokio::join!(meeting, client.engine.dial_now(vec![at]));
        let error = error.unwrap_err();
        assert!(error.to_string().contains("these words"), "{error}");
        assert_eq!((error.tried.len(), board.dials(at)), (1, 1), "code {code}");
        client.stop().await;
    }
}

/// Addresses that all come about and are all turned away: each has its deadline, however often it loses a race, and what it was
/// told is what is said of it.
#[tokio::test(start_paused = true)]
async fn addresses_that_are_turned_away_again_and_again_end_by_their_deadline() {
    let board = Switchboard::default();
    let client = node(&board, 2).await;
    let busy = [addr("60.1.0.1:1"), addr("60.2.0.1:1"), addr("[2001:db8::1]:1")];
    for at in busy {
        let mut door = board.transport(at.ip()).listen(at).await.unwrap();
        client.env.scope.spawn("busy door", rookery_runtime::OnPanic::StopNode, async move {
            loop {
                // Who has lost its race is gone by then.
                let Ok(conn) = door.accept().await.unwrap().connect().await else { continue };
                conn.into_mux().unwrap().mux.close(6, "busy");
            }
        });
    }
    let began = client.env.clock.now();
    let asked = client.env.clock.timeout(120 * SECOND, client.engine.dial_now(busy.to_vec())).await;
    let error = asked.expect("an end by the deadline").unwrap_err();
    let took = client.env.clock.now().duration_since(began);
    assert!(took <= 32 * SECOND, "{took:?}");
    assert_eq!(error.tried.len(), busy.len());
    assert!(error.tried.iter().all(|(_, cause)| cause.to_string().contains("busy")), "{error}");
    assert!(busy.iter().all(|at| (2..60).contains(&board.dials(*at))));
    client.stop().await;
}
