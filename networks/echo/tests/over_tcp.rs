//! Two echo nodes over real sockets: a session on both sides, answers that match their requests, an orderly end.

#![expect(clippy::unwrap_used, reason = "a failed set-up fails the test")]

use std::sync::Arc;
use std::time::Duration;

use rookery_base::ByteBudget;
use rookery_echo::{Echo, Heard, say};
use rookery_engine::book::{Book, BookConfig};
use rookery_engine::dial::{DialConfig, addresses};
use rookery_engine::{Engine, EngineConfig, EngineHandle, Limits};
use rookery_runtime::{Env, FairMailbox, LaneLimits};
use rookery_transport::Tcp;

async fn node(identity: u8, connect: &[std::net::SocketAddr]) -> (Env, EngineHandle, FairMailbox<Heard>) {
    let env = Env::system();
    let heard = FairMailbox::new("echo", LaneLimits::PEER, 100, env.clock, Arc::clone(&env.metrics));
    let network = Arc::new(Echo::new([identity; 32], heard.opener()));
    let (_, inbox) = addresses(&env, 100);
    let mut rng = env.rng.fork("book", 0);
    let book = Book::new(BookConfig::new(0, 1, 0).with_private(), &mut rng);
    let dial = DialConfig::only(connect.to_vec(), book);
    let config = EngineConfig { listen: vec!["127.0.0.1:0".parse().unwrap()], dial, limits: Limits::LOCAL };
    let process = ByteBudget::root("process", 64 << 20);
    let engine = Engine::start(&env, Arc::new(Tcp), network, &process, inbox, config).await.unwrap();
    (env, engine, heard)
}

#[tokio::test]
async fn two_nodes_talk_and_part() {
    let (env_a, a, mut heard_a) = node(1, &[]).await;
    let (env_b, b, mut heard_b) = node(2, a.listening()).await;
    let Heard::Up(peer) = heard_b.recv().await else { panic!("not up") };
    let Heard::Up(_) = heard_a.recv().await else { panic!("not up") };
    for n in 0..100_u32 {
        assert!(say(&peer, n.to_be_bytes().to_vec()));
        let Heard::Said(_, text) = heard_b.recv().await else { panic!("no answer to {n}") };
        assert_eq!(*text, n.to_be_bytes());
    }
    assert_eq!((a.peers().await.len(), b.peers().await.len()), (1, 1));
    assert!(b.peers().await[0].rtt_ms.is_some());
    env_b.scope.close(Duration::from_secs(5)).await.unwrap();
    assert!(matches!(heard_a.recv().await, Heard::Down));
    let end = loop {
        let closed = a.closed().await;
        if let Some(end) = closed.first() {
            break end.clone();
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(end.cause, rookery_base::CloseCause::PeerClosed);
    assert!(a.peers().await.is_empty());
    env_a.scope.close(Duration::from_secs(5)).await.unwrap();
}
