//! The doors: how many get in, from where, and what the others are told (rows 9, 10, 13, 20, 21, 22).

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use rookery_base::CloseCause;
use rookery_engine::network::BUSY;
use rookery_engine::registry::SessionLimits;
use rookery_engine::{HandshakeLimits, Limits};
use rookery_overlay::Handle;
use rookery_overlay::services::messages::Sent;

use crate::common::{
    WAYS, connected, conserved, dialler, diallers, own_address, server, soon, talk, topic, until,
};
use crate::raw::{Raw, told};

fn handshakes(handshakes: HandshakeLimits) -> Limits {
    Limits { handshakes, ..Limits::LOCAL }
}

/// Whether a dialler is in: then a message is acknowledged. Else it has been told why not, with the code for a full node.
async fn is_in(dialler: &Handle, server: &Handle) -> bool {
    match soon("an answer", dialler.connect(server.listening())).await {
        Err(error) => {
            let [(_, cause)] = &error.tried[..] else { panic!("{error}") };
            assert!(matches!(cause, CloseCause::ByPeer { code: 3, .. }), "{cause}");
            return false;
        }
        Ok(dialled) => assert_eq!(dialled.peer, server.id()),
    }
    if let Sent::Accepted(_) = soon("a verdict", dialler.send(server.id(), topic(), "in?")).await {
        return true;
    }
    // Events may leave out a session that came and went unseen; what is known of ended ones does not.
    let ended = async {
        loop {
            match dialler.engine().closed().await.pop() {
                Some(closed) => return closed.cause,
                None => tokio::task::yield_now().await,
            }
        }
    };
    let cause = soon("the end", ended).await;
    assert!(matches!(cause, CloseCause::ByPeer { code: 3, .. }), "{cause}");
    false
}

#[tokio::test]
async fn of_forty_diallers_ten_slots_take_ten_and_thirty_are_told() {
    for from in WAYS {
        ten_of_forty(from).await;
    }
}

async fn ten_of_forty(from: fn(usize) -> Option<SocketAddr>) {
    let sessions = SessionLimits { inbound: 10, ..SessionLimits::LOCAL };
    let (_s, server) = server(Limits { sessions, ..Limits::LOCAL }).await;
    let diallers = diallers(40, from).await;
    let asking = join_all(diallers.iter().map(|(_, dialler)| is_in(dialler, &server)));
    let inside = conserved(&server, asking).await.into_iter().filter(|inside| *inside).count();
    assert_eq!(inside, 10);
    let accounts = until(&server, "settled", |now| now.shaking == 0).await;
    assert_eq!(accounts.live, 10, "{accounts:?}");
    assert!(accounts.refused["full"] >= 30, "{accounts:?}");
}

/// Row 9: one address holds as many places as it may and no more, and nobody else notices.
#[tokio::test]
async fn a_crowd_from_one_address_is_refused_before_its_handshake_and_others_get_in() {
    let limits = HandshakeLimits { per_ip: 4, per_prefix: 8, ..HandshakeLimits::LOCAL };
    let (_s, server) = server(handshakes(limits)).await;
    let at = server.listening()[0];
    let crowd: Vec<Raw> = (0..60).map(Raw::new).collect();
    let knocking = join_all(crowd.iter().map(|raw| raw.dial(at)));
    let held: Vec<_> = conserved(&server, knocking).await;
    let (in_handshake, refused): (Vec<_>, Vec<_>) = held.into_iter().partition(Result::is_ok);
    assert!(refused.len() >= 60 - 8, "{}", refused.len());
    // Each from a prefix of its own.
    let others = diallers(20, |n| Some(own_address(n << 8))).await;
    let connects = join_all(others.iter().map(|(_, other)| other.connect([at])));
    for dialled in conserved(&server, connects).await {
        dialled.unwrap();
    }
    join_all(others.iter().map(|(_, other)| talk(other, &server))).await;
    let accounts = server.engine().accounts();
    assert_eq!(accounts.live, 20, "{accounts:?}");
    assert!(accounts.shaking <= 4 && accounts.retried > 0, "{accounts:?}");
    assert!(accounts.refused["handshakes_per_ip"] >= 40, "{accounts:?}");
    drop(in_handshake);
}

/// The same of a prefix: its addresses share a limit.
#[tokio::test]
async fn a_prefix_of_many_addresses_meets_one_limit_and_others_get_in() {
    let limits = HandshakeLimits { per_ip: 4, per_prefix: 8, ..HandshakeLimits::LOCAL };
    let (_s, server) = server(handshakes(limits)).await;
    let at = server.listening()[0];
    let mut crowd = Vec::new();
    for n in 1..=40 {
        crowd.push(Raw::at(n, own_address(0x4000 + n as usize)).await);
    }
    let held = conserved(&server, join_all(crowd.iter().map(|raw| raw.dial(at)))).await;
    assert!(held.iter().filter(|dialled| dialled.is_err()).count() >= 40 - 16);
    let (_d, other) = dialler(Some(own_address(1))).await;
    soon("a session", other.connect([at])).await.unwrap();
    talk(&other, &server).await;
    let accounts = server.engine().accounts();
    assert!(accounts.shaking <= 8 && accounts.refused["handshakes_per_prefix"] >= 24, "{accounts:?}");
}

/// Row 21: handshakes that go no further lose their places, those that have not proven their addresses first, and honest
/// ones get in at once.
#[tokio::test]
async fn the_oldest_unproven_handshake_makes_room() {
    let limits = HandshakeLimits { total: 8, grace: Duration::ZERO, ..HandshakeLimits::LOCAL };
    let (_s, server) = server(handshakes(limits)).await;
    let at = server.listening()[0];
    let silent: Vec<Raw> = (0..8).map(Raw::new).collect();
    let (mut held, mut refilled) = (Vec::new(), Vec::new());
    for raw in &silent {
        held.push(raw.dial(at).await.unwrap());
    }
    let before = until(&server, "full", |now| now.shaking == 8).await;
    assert_eq!(before.retried, 6, "two below the low-water mark were let in as they came: {before:?}");
    for (n, victim) in held.iter().enumerate().take(3) {
        let (_d, honest) = dialler(None).await;
        soon("a session", honest.connect([at])).await.unwrap();
        let (code, reason) = soon("the end", told(&victim.mux)).await;
        assert_eq!(code, BUSY, "victim {n}: {reason}");
        // The place that the honest one does not need any more is taken again.
        let another = Raw::new(100 + n as u64);
        let conn = another.dial(at).await.unwrap();
        until(&server, "full again", |now| now.shaking == 8).await;
        refilled.push((another, conn));
    }
    let accounts = server.engine().accounts();
    assert_eq!(accounts.refused["handshake_evicted"], 3, "{accounts:?}");
}

/// Rows 2, 13, 21: at a door with one place, where whoever comes next ends the handshake before, all get in: who has lost its
/// place, at whatever point of its handshake, comes again within its deadline.
#[tokio::test]
async fn who_lost_its_place_in_the_middle_of_its_handshake_comes_again() {
    for from in WAYS {
        one_place_for_twenty(from).await;
    }
}

async fn one_place_for_twenty(from: fn(usize) -> Option<SocketAddr>) {
    let limits = HandshakeLimits { total: 1, grace: Duration::ZERO, ..HandshakeLimits::LOCAL };
    let (_s, server) = server(handshakes(limits)).await;
    let at = server.listening()[0];
    let crowd = diallers(20, from).await;
    let connects = join_all(crowd.iter().map(|(_, dialler)| dialler.connect([at])));
    for dialled in conserved(&server, connects).await {
        assert_eq!(dialled.unwrap().peer, server.id());
    }
    let accounts = until(&server, "settled", |now| now.shaking == 0 && now.live == 20).await;
    let lost = accounts.refused.get("handshake_evicted").copied().unwrap_or(0);
    assert!(lost > 0, "nobody lost a place: {accounts:?}");
}

/// Row 22: while strangers have to prove their addresses, who was here before does it with what it was given then.
#[tokio::test]
async fn a_known_peer_skips_the_proof_that_strangers_give() {
    let (_s, server) =
        server(handshakes(HandshakeLimits { always_retry: true, ..HandshakeLimits::LOCAL })).await;
    let at = server.listening()[0];
    let (_k, known) = dialler(None).await;
    for turn in 0..3 {
        soon("a session", known.connect([at])).await.unwrap();
        talk(&known, &server).await;
        assert_eq!(server.engine().accounts().retried, 1, "only the first time, not in turn {turn}");
        assert_eq!(known.engine().disconnect(at).await, 1);
        soon("the end", async {
            while !known.engine().peers().await.is_empty() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        until(&server, "without it", |now| now.live == 0).await;
    }
    let (_d, stranger) = dialler(None).await;
    soon("a session", stranger.connect([at])).await.unwrap();
    assert_eq!(server.engine().accounts().retried, 2);
    let (mut watch, mut there) = (server.states(), BTreeSet::new());
    connected(&mut watch, &mut there);
    assert_eq!(there.len(), 1);
}
