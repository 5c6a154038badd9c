//! Two that have more than one way to each other keep one session, the same at both ends (rows 7, 8, 16).

use std::net::SocketAddr;
use std::time::Duration;

use rookery_engine::{Limits, PeerView};
use rookery_overlay::Handle;

use crate::common::{builder, dialler, diallers, heavy, server, soon, talk};

async fn only(of: &Handle) -> Option<PeerView> {
    let mut peers = of.engine().peers().await;
    if peers.len() == 1 { peers.pop() } else { None }
}

/// Waits until each has one session and it is the other's other end: then, and only then, one calls it in and the
/// other out, since each has dialled once at most.
async fn one_session(a: &Handle, b: &Handle) {
    soon("one session", async {
        loop {
            if let (Some(at_a), Some(at_b)) = (only(a).await, only(b).await)
                && at_a.direction != at_b.direction
            {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn two_that_dial_each_other_keep_one_session_whatever_lies_between() {
    for n in 0..heavy(24, 1000) {
        let lag = Duration::from_millis([0, 0, 1, 3, 10, 40][n % 6]);
        let at = || Some("127.0.0.1:0".parse().unwrap());
        let ((_a, a), (_b, b)) = tokio::join!(dialler(at()), dialler(at()));
        let later = async {
            b.env().clock.sleep(lag).await;
            b.connect(a.listening()).await
        };
        let (ours, theirs) = soon("sessions", async { tokio::join!(a.connect(b.listening()), later) }).await;
        assert_eq!(
            (ours.unwrap().peer, theirs.unwrap().peer),
            (b.id(), a.id()),
            "both are told of the other"
        );
        one_session(&a, &b).await;
        talk(&a, &b).await;
        one_session(&a, &b).await;
        assert!(a.engine().accounts().balanced() && b.engine().accounts().balanced());
    }
}

#[tokio::test]
async fn who_connects_again_has_one_session_at_both_ends() {
    let (_s, server) = server(Limits::LOCAL).await;
    let (_d, dialler) = dialler(None).await;
    for _ in 0..10 {
        let dialled = soon("a session", dialler.connect(server.listening())).await.unwrap();
        assert_eq!(dialled.peer, server.id());
        one_session(&dialler, &server).await;
        talk(&dialler, &server).await;
    }
    let at_once = || dialler.connect(server.listening());
    let (x, y, z) = soon("sessions", async { tokio::join!(at_once(), at_once(), at_once()) }).await;
    for dialled in [x, y, z] {
        assert_eq!(dialled.unwrap().peer, server.id());
    }
    one_session(&dialler, &server).await;
    talk(&dialler, &server).await;
}

/// Row 16: one socket takes both families, and an IPv4 peer is an IPv4 peer however its address is written.
#[tokio::test]
async fn both_families_meet_at_one_socket_and_a_mapped_address_is_its_ipv4_address() {
    let (_s, server) = builder().listen("[::]:0".parse().unwrap()).start().await.unwrap();
    server.listen_to(crate::common::topic());
    let port = server.listening()[0].port();
    let four: SocketAddr = ([127, 0, 0, 1], port).into();
    let six: SocketAddr = (std::net::Ipv6Addr::LOCALHOST, port).into();
    let mapped: SocketAddr = (std::net::Ipv4Addr::LOCALHOST.to_ipv6_mapped(), port).into();
    let diallers = diallers(20, |_| None).await;
    for (n, (_, dialler)) in diallers.iter().enumerate() {
        soon("a session", dialler.connect([if n % 2 == 0 { four } else { six }])).await.unwrap();
        talk(dialler, &server).await;
    }
    let views = server.engine().peers().await;
    let of_four = views.iter().filter(|view| view.addr.is_ipv4()).count();
    assert_eq!((of_four, views.len()), (10, 20), "no address is shown as a mapped one: {views:?}");
    let dialler = &diallers[0].1;
    for addrs in [vec![mapped], vec![mapped, four], vec![four]] {
        let again = soon("a session", dialler.connect(addrs)).await.unwrap();
        assert_eq!((again.peer, again.addr), (server.id(), four));
        one_session_with(dialler, &server).await;
    }
    talk(dialler, &server).await;
}

async fn one_session_with(dialler: &Handle, server: &Handle) {
    soon("as many sessions as peers", async {
        while dialler.engine().peers().await.len() != 1 || server.engine().peers().await.len() != 20 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
