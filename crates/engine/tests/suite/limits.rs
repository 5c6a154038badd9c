//! The accept path: limits, counted reasons, conservation, bans.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use rookery_engine::registry::SessionLimits;
use rookery_engine::{HandshakeLimits, Limits};
use rookery_testkit::{Scripted, Switchboard};

use crate::common::{Build, Hook, Node, Trap};

const SECOND: Duration = Duration::from_secs(1);

fn small() -> Limits {
    Limits {
        sessions: SessionLimits {
            inbound: 20,
            outbound: 8,
            kept_for_known: 0,
            per_ip: 3,
            per_group: 10,
            ban: 60 * SECOND,
        },
        handshakes: HandshakeLimits { total: 30, per_ip: 4, per_prefix: 12, ..HandshakeLimits::LOCAL },
        ..Limits::LOCAL
    }
}

impl Node {
    /// Accepted = refused + handshakes under way + handshakes that failed + sessions + sessions that ended.
    fn under_way(&self) -> u64 {
        let arrived = self.metric("accept_total", "");
        let refused = self.metric("accept_refused_total", "");
        let shaken = self.metric("handshake_total", "");
        (arrived - refused).checked_sub(shaken).expect("no handshake ends twice")
    }

    async fn assert_conserved(&self) {
        self.settle().await;
        let established = self.metric("handshake_total", "established");
        let audit = self.engine.audit().await.unwrap();
        let ended = self.metric("disconnect_total", "");
        assert_eq!(established, audit.slots as u64 + ended);
        let accounts = self.engine.accounts();
        assert!(accounts.balanced(), "{accounts:?}");
        assert_eq!((accounts.shaking, accounts.live), (self.under_way(), audit.slots as u64));
        let routines = self.env.scope.running().iter().filter(|task| **task == "peer").count() as u64;
        assert_eq!(
            self.under_way() + audit.slots as u64,
            routines,
            "every arrival is a routine or was counted"
        );
    }
}

/// C2, C8, C16: a storm of 500 connections that shake, hang, send rubbish, reset or leave, in 20 orders: at every
/// step each arrival is a routine or a counted refusal, no limit is exceeded, and in the end everything is free.
#[tokio::test(start_paused = true)]
async fn a_storm_of_connections_is_conserved_at_every_step() {
    for seed in 0..20_u64 {
        let board = Switchboard::default();
        let handshakes = HandshakeLimits { total: 8, per_ip: 2, per_prefix: 4, ..HandshakeLimits::LOCAL };
        let node = Build { limits: Limits { handshakes, ..small() }, ..Build::new(1) }.start(&board).await;
        let mut held: Vec<Scripted> = Vec::new();
        let mut draw = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        for n in 0..500_u16 {
            draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let roll = (draw >> 33) as u32;
            let from = SocketAddr::from(([20 + (roll % 5) as u8, 1, 0, (roll >> 8) as u8 % 8], 1000 + n));
            let mut peer = Scripted::new(board.connect(from, node.at).unwrap());
            match (roll >> 16) % 6 {
                0 => {}
                1 => peer.bytes(b"GET / HTTP/1.1\r\nHost: a node of another kind\r\n").await.unwrap(),
                2 => {
                    peer.reset();
                    node.assert_conserved().await;
                    continue;
                }
                _ => {
                    let identity = [(n % 251) as u8 + 2; 32];
                    let _ = peer.bytes(&[&b"ROOKECHO"[..], &identity].concat()).await;
                }
            }
            held.push(peer);
            if roll.is_multiple_of(7) {
                let gone = (roll as usize >> 4) % held.len();
                held.swap_remove(gone);
            }
            if roll.is_multiple_of(11) {
                node.pass(SECOND).await;
            }
            node.assert_conserved().await;
            assert!(node.under_way() <= 8);
            let audit = node.engine.audit().await.unwrap();
            assert!(audit.inbound <= 20 && audit.outbound == 0);
        }
        assert_eq!(node.metric("accept_total", ""), 500);
        assert!(node.metric("accept_refused_total", "") > 0, "the storm met the limits");
        held.clear();
        node.pass(10 * SECOND).await;
        node.assert_conserved().await;
        assert_eq!(node.under_way(), 0);
        node.assert_clean().await;
        node.stop().await;
    }
}

/// C11, C8: handshakes are bounded in all, per IP and per prefix, IPv4-mapped addresses counting as IPv4; each refusal
/// has its reason; places come back when a silent peer's deadline has passed.
#[tokio::test(start_paused = true)]
async fn silent_handshakes_are_bounded_and_end_at_their_deadline() {
    let board = Switchboard::default();
    let node = Build { limits: small(), ..Build::new(1) }.start(&board).await;
    let mut held = Vec::new();
    for port in 1..=6 {
        let from =
            if port % 2 == 0 { format!("[::ffff:20.1.0.1]:{port}") } else { format!("20.1.0.1:{port}") };
        held.push(board.connect(from.parse().unwrap(), node.at).unwrap());
    }
    node.assert_conserved().await;
    assert_eq!(node.metric("accept_refused_total", "handshakes_per_ip"), 2);
    for host in 2..=15 {
        held.push(board.connect(SocketAddr::from(([20, 1, 0, host], 1)), node.at).unwrap());
    }
    node.assert_conserved().await;
    assert_eq!(
        node.metric("accept_refused_total", "handshakes_per_prefix"),
        6,
        "4 + 14 from one group of 12"
    );
    for group in 0..30 {
        held.push(board.connect(SocketAddr::from(([30, group, 0, 1], 1)), node.at).unwrap());
    }
    node.assert_conserved().await;
    let evicted = node.metric("handshake_total", "handshake_evicted");
    let refused = node.metric("accept_refused_total", "why=\"handshakes\"");
    assert_eq!((evicted, refused), (11, 1), "12 + 30 of 30: the crowd makes room while it is one");
    assert_eq!(node.under_way(), 30);
    node.pass(4 * SECOND).await;
    assert_eq!(node.under_way(), 30);
    node.pass(2 * SECOND).await;
    assert_eq!(node.under_way(), 0);
    assert_eq!(node.metric("handshake_total", "handshake_timeout"), 30);
    node.assert_clean().await;
    node.stop().await;
}

/// C8: sessions per IP and per group, and the reason of each refusal, counted.
#[tokio::test(start_paused = true)]
async fn sessions_are_bounded_per_ip_and_per_group_and_refusals_are_counted() {
    let board = Switchboard::default();
    let node = Build { limits: small(), ..Build::new(1) }.start(&board).await;
    let mut held = Vec::new();
    for n in 0..5_u8 {
        let mut peer = node.wire([20, 1, 0, 1], 100 + u16::from(n));
        peer.shake([10 + n; 32]).await.unwrap();
        node.settle().await;
        held.push(peer);
    }
    assert_eq!(node.engine.audit().await.unwrap().inbound, 3);
    for n in 0..9_u8 {
        let mut peer = node.wire([20, 1, 0, 2 + n], 100);
        peer.shake([30 + n; 32]).await.unwrap();
        node.settle().await;
        held.push(peer);
    }
    assert_eq!(node.engine.audit().await.unwrap().inbound, 10);
    assert_eq!(node.metric("handshake_total", "established"), 10);
    let refused = ["per_address", "per_group"].map(|why| node.metric("handshake_total", why));
    assert_eq!(refused, [2, 2], "what came too much after a good handshake");
    node.assert_conserved().await;
    drop(held);
    node.pass(SECOND).await;
    node.assert_clean().await;
    node.stop().await;
}

/// Connections that die in the backlog cost nothing: they cannot slow the accepting of others.
#[tokio::test(start_paused = true)]
async fn arrivals_that_are_gone_already_do_not_pause_accepting() {
    let board = Switchboard::default();
    let mut node = Build::new(1).start(&board).await;
    for _ in 0..1_000 {
        board.fail_accept(node.at, ErrorKind::ConnectionAborted);
    }
    let began = node.env.clock.now();
    let (_peer, _handle) = node.peer(7).await;
    let took = node.env.clock.now().duration_since(began);
    assert!(took < SECOND, "{took:?}");
    assert_eq!(node.metric("accept_refused_total", "accept_error"), 1_000);
    node.assert_conserved().await;
    // The process's own limits are another matter: to try again at once would spin.
    for _ in 0..10 {
        board.fail_accept(node.at, ErrorKind::Other);
    }
    let began = node.env.clock.now();
    let (_other, _handle) = node.peer(8).await;
    assert!(node.env.clock.now().duration_since(began) >= SECOND);
    node.stop().await;
}

/// A ban refuses at the door, ends what is connected, and ends itself, although nothing else happens meanwhile.
#[tokio::test(start_paused = true)]
async fn a_ban_ends_at_the_door_when_its_time_has_passed() {
    let board = Switchboard::default();
    let mut node = Build::new(1).start(&board).await;
    let (mut peer, handle) = node.peer(7).await;
    assert_eq!(node.engine.ban(handle.addr.ip(), Some(60 * SECOND)).await, 1);
    peer.until_closed().await;
    let mapped: SocketAddr = format!("[::ffff:{}]:9", handle.addr.ip()).parse().unwrap();
    for from in [handle.addr, mapped] {
        drop(board.connect(from, node.at).unwrap());
    }
    node.settle().await;
    assert_eq!(node.metric("accept_refused_total", "banned"), 2);
    assert!(node.engine.why(mapped).await.1.is_some(), "a mapped address is the same address");
    node.pass(61 * SECOND).await;
    let (_peer, _handle) = node.peer(7).await;
    assert!(node.engine.bans().await.is_empty());
    node.assert_conserved().await;
    node.stop().await;
}

/// An operator's "for ever" is a long ban, not the end of the node.
#[tokio::test(start_paused = true)]
async fn a_ban_longer_than_time_itself_does_not_stop_the_node() {
    let board = Switchboard::default();
    let node = Build::new(1).start(&board).await;
    assert_eq!(node.engine.ban([9, 9, 9, 9].into(), Some(Duration::MAX)).await, 0);
    assert_eq!(node.env.scope.stop_cause(), None);
    assert_eq!(node.engine.bans().await.len(), 1);
    assert!(node.engine.unban([9, 9, 9, 9].into()).await);
    node.stop().await;
}

/// R4, C16: a handshake or admission that panics is counted as a handshake that ended, too, and whoever asks is told.
#[tokio::test(start_paused = true)]
async fn a_panic_before_the_session_is_conserved() {
    for hook in [Hook::Handshake, Hook::Admit, Hook::Pipe] {
        let board = Switchboard::default();
        let node = Build { limits: small(), meddle: Trap::new(hook), ..Build::new(1) }.start(&board).await;
        let mut peer = node.wire([20, 1, 0, 1], 100);
        let _ = peer.shake([7; 32]).await;
        node.assert_conserved().await;
        assert_eq!(node.metric("panics_total", ""), 1, "{hook:?}");
        let (why, _) = node.engine.why("20.1.0.1:0".parse().unwrap()).await;
        let said: Vec<_> = why.iter().filter_map(|why| why.closed.as_deref()).collect();
        assert!(matches!(said[..], [said] if said.contains("panic")), "{hook:?}: {said:?}");
        node.stop().await;
    }
}
