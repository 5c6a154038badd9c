//! Many at once: all of them get in, both sides know the same, and nothing is lost on the way (rows 1, 2, 3, 6, 13).

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use rookery_base::PeerId;
use rookery_engine::Limits;

use crate::common::{connected, conserved, dialler, diallers, heavy, own_address, server, soon, talk, until};
use crate::raw::{Raw, Stage};

/// `count` diallers, so far apart. Afterwards both sides' lists are the same and every session works both ways.
async fn storm(count: usize, apart: Duration, from: impl Fn(usize) -> Option<SocketAddr>) {
    let (_node, server) = server(Limits::LOCAL).await;
    let mut watch = server.states();
    let diallers = diallers(count, from).await;
    let connects = join_all(diallers.iter().enumerate().map(|(n, (_, dialler))| {
        let at = server.listening()[0];
        async move {
            dialler.env().clock.sleep(apart * n as u32).await;
            dialler.connect([at]).await
        }
    }));
    for dialled in conserved(&server, connects).await {
        assert_eq!(dialled.unwrap().peer, server.id());
    }
    until(&server, "all live", |accounts| accounts.live == count as u64).await;
    let mut theirs = BTreeSet::new();
    connected(&mut watch, &mut theirs);
    let theirs: BTreeSet<PeerId> = theirs.into_iter().map(|(peer, _)| peer).collect();
    let ours: BTreeSet<PeerId> = diallers.iter().map(|(_, dialler)| dialler.id()).collect();
    assert_eq!(theirs, ours, "the listener knows exactly those who know it");
    conserved(&server, join_all(diallers.iter().map(|(_, dialler)| talk(dialler, &server)))).await;
    let accounts = server.engine().accounts();
    assert_eq!((accounts.live, accounts.ended.len(), accounts.shaking), (count as u64, 0, 0), "{accounts:?}");
}

#[tokio::test]
async fn forty_at_once_and_one_by_one_all_get_in_and_both_sides_agree() {
    storm(40, Duration::ZERO, |_| None).await;
    storm(40, Duration::from_millis(50), |_| None).await;
}

#[tokio::test]
async fn a_storm_from_one_address_gets_in_whole_and_is_usable() {
    storm(heavy(300, 1000), Duration::ZERO, |_| None).await;
}

#[tokio::test]
async fn a_storm_from_as_many_addresses_gets_in_whole_and_is_usable() {
    storm(heavy(300, 1000), Duration::ZERO, |n| Some(own_address(n))).await;
}

/// Row 6: they come and are gone, at every stage, while others talk. Nothing of them stays.
#[tokio::test]
async fn who_connects_and_closes_under_load_leaves_no_ghost() {
    const HONEST: usize = 4;
    let (_node, server) = server(Limits::LOCAL).await;
    let honest = diallers(HONEST, |_| None).await;
    for (_, dialler) in &honest {
        soon("a session", dialler.connect(server.listening())).await.unwrap();
    }
    let at = server.listening()[0];
    let fleeting = join_all((0..16).map(|seed| async move {
        let raw = Raw::new(100 + seed);
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
