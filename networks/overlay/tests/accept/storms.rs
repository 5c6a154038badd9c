//! Many at once: all of them get in, both sides know the same, and nothing is lost on the way (rows 1, 2, 3, 6, 13, 16, 22).

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use futures_util::future::join_all;
use rookery_base::PeerId;
use rookery_engine::{Accounts, HandshakeLimits, Limits};
use rookery_overlay::Handle;

use crate::common::{
    WAYS, builder, connected, conserved, dialler, diallers, heavy, own_address, server, soon, talk, topic,
    until,
};
use crate::raw::{Raw, Stage};

/// `count` diallers, so far apart. Afterwards both sides' lists are the same and every session works both ways.
async fn storm(count: usize, apart: Duration, from: impl Fn(usize) -> Option<SocketAddr>) {
    let (_node, server) = server(Limits::LOCAL).await;
    storm_on(&server, count, apart, from).await;
}

/// Whoever is bound to an IPv6 address dials over IPv6.
async fn storm_on(
    server: &Handle,
    count: usize,
    apart: Duration,
    from: impl Fn(usize) -> Option<SocketAddr>,
) {
    let mut watch = server.states();
    let port = server.listening()[0].port();
    let diallers = diallers(count, &from).await;
    let connects = join_all(diallers.iter().enumerate().map(|(n, (_, dialler))| {
        let over_v6 = from(n).is_some_and(|from| from.is_ipv6());
        let ip = if over_v6 { Ipv6Addr::LOCALHOST.into() } else { IpAddr::V4(Ipv4Addr::LOCALHOST) };
        let at = SocketAddr::new(ip, port);
        async move {
            dialler.env().clock.sleep(apart * n as u32).await;
            dialler.connect([at]).await
        }
    }));
    for dialled in conserved(server, connects).await {
        assert_eq!(dialled.unwrap().peer, server.id());
    }
    until(server, "all live", |accounts| accounts.live == count as u64).await;
    let mut theirs = BTreeSet::new();
    connected(&mut watch, &mut theirs);
    let theirs: BTreeSet<PeerId> = theirs.into_iter().map(|(peer, _)| peer).collect();
    let ours: BTreeSet<PeerId> = diallers.iter().map(|(_, dialler)| dialler.id()).collect();
    assert_eq!(theirs, ours, "the listener knows exactly those who know it");
    conserved(server, join_all(diallers.iter().map(|(_, dialler)| talk(dialler, server)))).await;
    let accounts = server.engine().accounts();
    assert_eq!((accounts.live, accounts.ended.len(), accounts.shaking), (count as u64, 0, 0), "{accounts:?}");
    // What is counted is there: as many sessions in the table, and as many tasks that serve them.
    let audit = server.engine().audit().await.unwrap();
    assert_eq!((audit.slots, audit.inbound), (count, count));
    let routines = server.env().scope.running().into_iter().filter(|name| *name == "peer").count();
    assert_eq!(routines, count);
}

#[tokio::test]
async fn forty_at_once_and_one_by_one_all_get_in_and_both_sides_agree() {
    for from in WAYS {
        storm(40, Duration::ZERO, from).await;
        storm(40, Duration::from_millis(50), from).await;
    }
}

#[tokio::test]
async fn a_storm_from_one_address_gets_in_whole_and_is_usable() {
    storm(heavy(300, 1000), Duration::ZERO, |_| None).await;
}

#[tokio::test]
async fn a_storm_from_as_many_addresses_gets_in_whole_and_is_usable() {
    storm(heavy(300, 1000), Duration::ZERO, |n| Some(own_address(n))).await;
}

/// Row 16: one socket for both families, and a storm over both at once.
#[tokio::test]
async fn a_storm_over_both_families_gets_in_whole_and_is_usable() {
    if std::net::UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        println!("skipped: this machine has no IPv6");
        return;
    }
    let (_node, server) = builder().listen("[::]:0".parse().unwrap()).start().await.unwrap();
    server.listen_to(topic());
    let from =
        |n: usize| Some(if n.is_multiple_of(2) { own_address(n) } else { (Ipv6Addr::LOCALHOST, 0).into() });
    storm_on(&server, heavy(200, 1000), Duration::ZERO, from).await;
    let peers = server.engine().peers().await;
    let (v6, v4): (Vec<_>, Vec<_>) = peers.iter().partition(|peer| peer.addr.is_ipv6());
    assert!(v6.len() == v4.len() && !v4.is_empty(), "mapped addresses are told as what they are");
}

/// Row 22: where every stranger has to prove its address, those who were here before come again all at once, and none has to.
#[tokio::test]
async fn a_storm_of_those_who_were_here_before_proves_no_address_again() {
    for from in WAYS {
        again_all_at_once(from).await;
    }
}

async fn again_all_at_once(from: fn(usize) -> Option<SocketAddr>) {
    let handshakes = HandshakeLimits { always_retry: true, ..HandshakeLimits::LOCAL };
    let (_node, server) = server(Limits { handshakes, ..Limits::LOCAL }).await;
    let at = server.listening()[0];
    let count = heavy(100, 1000);
    let known = diallers(count, from).await;
    for turn in 0..2 {
        let connects = join_all(known.iter().map(|(_, dialler)| dialler.connect([at])));
        for dialled in conserved(&server, connects).await {
            assert_eq!(dialled.unwrap().peer, server.id());
        }
        conserved(&server, join_all(known.iter().map(|(_, dialler)| talk(dialler, &server)))).await;
        assert_eq!(server.engine().accounts().retried, count as u64, "only the first time, turn {turn}");
        for (_, dialler) in &known {
            dialler.engine().disconnect(at).await;
        }
        until(&server, "without them", |now| now.live == 0).await;
    }
    let strangers = diallers(count, |_| None).await;
    for dialled in join_all(strangers.iter().map(|(_, dialler)| dialler.connect([at]))).await {
        dialled.unwrap();
    }
    assert_eq!(server.engine().accounts().retried, 2 * count as u64, "strangers have to");
}

/// Row 6: they come and are gone, at every stage, while others talk. Nothing of them stays.
#[tokio::test]
async fn who_connects_and_closes_under_load_leaves_no_ghost() {
    for from in WAYS {
        come_and_go(from).await;
    }
}

async fn come_and_go(from: fn(usize) -> Option<SocketAddr>) {
    const HONEST: usize = 4;
    let (_node, server) = server(Limits::LOCAL).await;
    let honest = diallers(HONEST, |_| None).await;
    for (_, dialler) in &honest {
        soon("a session", dialler.connect(server.listening())).await.unwrap();
    }
    let at = server.listening()[0];
    let fleeting = join_all((0..16).map(|seed| async move {
        let raw = match from(100 + seed as usize) {
            Some(from) => Raw::at(100 + seed, from).await,
            None => Raw::new(100 + seed),
        };
        for turn in 0..heavy(20, 625) {
            let stage = [Stage::Asked, Stage::Proven, Stage::Opened, Stage::Greeted][turn % 4];
            raw.reach(at, stage).await;
        }
    }));
    let talking = join_all(honest.iter().map(|(_, dialler)| async {
        for _ in 0..heavy(20, 625) {
            talk(dialler, &server).await;
        }
    }));
    conserved(&server, async { tokio::join!(fleeting, talking) }).await;
    let left =
        until(&server, "empty but for the honest", |now| now.shaking == 0 && now.live == HONEST as u64);
    let left = left.await;
    assert!(left.arrived > HONEST as u64, "{left:?}");
    let audit = server.engine().audit().await.unwrap();
    assert_eq!((audit.slots, audit.inbound), (HONEST, HONEST));
    let ids: BTreeSet<PeerId> = honest.iter().map(|(_, dialler)| dialler.id()).collect();
    let (mut watch, mut there) = (server.states(), BTreeSet::new());
    connected(&mut watch, &mut there);
    assert_eq!(there.into_iter().map(|(peer, _)| peer).collect::<BTreeSet<_>>(), ids, "no ghost");
    let (_late, late) = dialler(None).await;
    soon("a session", late.connect([at])).await.unwrap();
    talk(&late, &server).await;
}

/// Row 13: a goodbye is one, however its datagrams fall: what a session's streams meet on the way is not told in its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_says_goodbye_is_known_to_have_said_it() {
    let (_node, server) = server(Limits::LOCAL).await;
    let count = heavy(200, 1000);
    for _ in 0..count {
        let leaver = dialler(None).await;
        soon("a session", leaver.1.connect(server.listening())).await.unwrap();
    }
    let ended = |now: &Accounts| now.ended.values().sum::<u64>();
    let left = until(&server, "without them", |now| ended(now) == count as u64).await;
    assert_eq!(left.ended, [("closed_by_peer", count as u64)].into(), "{left:?}");
}
