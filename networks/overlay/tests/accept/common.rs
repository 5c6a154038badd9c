//! Nodes on loopback, and what must hold of each at every instant.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::join_all;
use rookery_base::PeerId;
use rookery_engine::{Accounts, Change, Limits, StateWatch};
use rookery_overlay::services::messages::Sent;
use rookery_overlay::wire::Topic;
use rookery_overlay::{Builder, Handle, Node};

/// For anything here: far more than it takes, so that only a stall reaches it.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const NETWORK: &str = "accept test";

/// `heavy` instead of `light` where somebody has asked for it with `ROOKERY_HEAVY=1`.
pub fn heavy(light: usize, heavy: usize) -> usize {
    if std::env::var_os("ROOKERY_HEAVY").is_some_and(|set| set == "1") { heavy } else { light }
}

pub fn topic() -> Topic {
    Topic::new("accept").unwrap()
}

pub fn builder() -> Builder {
    Builder::new(NETWORK).local().outbound(0)
}

/// An address of 127.0.0.0/8 that no other number has. None is 127.0.0.1.
pub fn own_address(n: usize) -> SocketAddr {
    SocketAddr::from(([127, 1 + (n >> 16) as u8, (n >> 8) as u8, n as u8], 0))
}

/// Where those of a crowd come from: all from one address, and each from its own.
pub const WAYS: [fn(usize) -> Option<SocketAddr>; 2] = [|_| None, |n| Some(own_address(n))];

pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what} did not come"))
}

/// A node that listens on loopback and takes messages.
pub async fn server(limits: Limits) -> (Node, Handle) {
    let server = builder().limits(limits).listen("127.0.0.1:0".parse().unwrap()).start().await.unwrap();
    server.1.listen_to(topic());
    server
}

/// A node that dials, from this address or from any.
pub async fn dialler(from: Option<SocketAddr>) -> (Node, Handle) {
    let builder = from.into_iter().fold(builder(), Builder::listen);
    let dialler = builder.start().await.unwrap();
    dialler.1.listen_to(topic());
    dialler
}

pub async fn diallers(count: usize, from: impl Fn(usize) -> Option<SocketAddr>) -> Vec<(Node, Handle)> {
    join_all((0..count).map(|n| dialler(from(n)))).await
}

/// Does something, and looks at the accounts whenever it takes a step.
pub async fn conserved<T>(of: &Handle, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    soon(
        "the end",
        poll_fn(|cx| {
            let accounts = of.engine().accounts();
            assert!(accounts.balanced(), "{accounts:?}");
            work.as_mut().poll(cx)
        }),
    )
    .await
}

/// Waits until the accounts say so.
pub async fn until(of: &Handle, what: &str, holds: impl Fn(&Accounts) -> bool) -> Accounts {
    let looking = async {
        loop {
            let accounts = of.engine().accounts();
            assert!(accounts.balanced(), "{accounts:?}");
            if holds(&accounts) {
                return accounts;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, looking)
        .await
        .unwrap_or_else(|_| panic!("not {what}: {:?}", of.engine().accounts()))
}

/// Whom a follower knows as connected, once it has heard everything that waits for it.
pub fn connected(watch: &mut StateWatch, known: &mut BTreeSet<(PeerId, u64)>) {
    while let Some(told) = watch.try_next() {
        let session = (told.facts.peer, told.generation.0);
        match told.change {
            Change::Connected => assert!(known.insert(session), "connected once"),
            Change::Lost(_) => assert!(known.remove(&session), "lost after it was connected"),
        }
    }
}

/// A message that is acknowledged, each way.
pub async fn talk(a: &Handle, b: &Handle) {
    for (from, to) in [(a, b), (b, a)] {
        let sent = soon("an acknowledgement", from.send(to.id(), topic(), "hello")).await;
        assert!(matches!(sent, Sent::Accepted(_)), "{sent:?}");
    }
}
