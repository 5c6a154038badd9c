//! One connected peer that writes messages as fast as it is told to, and waits for nobody's acknowledgement.

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rookery_engine::Enframe;
use rookery_overlay::wire::Topic;
use rookery_overlay::wire::frame::Framing;
use rookery_overlay::wire::hello::{self, Hello};
use rookery_overlay::wire::kind::MESSAGE;
use rookery_overlay::wire::message::Message;
use rookery_runtime::Clock;
use rookery_transport::quic::Udp;
use rookery_transport::tls::Identity;
use rookery_transport::{Conn, MuxStream, Transport};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::peers::identity;
use super::super::{LOOPBACK, NETWORK, Outcome, said};
use super::transport;

/// Bytes of a message's payload: a line of a chat.
const PAYLOAD: usize = 100;
/// Messages that are written at a time.
const BURST: usize = 50;

/// Floods, and says how many messages the stream has taken.
pub async fn attack(count: usize, to: SocketAddr, over: Duration) -> Outcome<Value> {
    let identity = identity()?;
    let (_env, quic) = transport(&identity, Arc::new(Udp::LARGE))?;
    let _door = quic.listen(LOOPBACK).await.map_err(said)?;
    let clock = Clock::system();
    let connection = match clock.timeout(over, quic.dial(to)).await {
        Some(Ok(Conn::Mux(connection))) => connection,
        Some(Ok(_)) => return Err("QUIC gave a connection without streams".into()),
        Some(Err(error)) => return Err(said(error)),
        None => return Ok(json!({ "acts": count, "taken": 0, "closed": "never connected" })),
    };
    let MuxStream { mut read, mut write } = connection.mux.open().await.map_err(said)?;
    write.write_all(&hello(&identity, to).encode()).await.map_err(said)?;

    let taken = Cell::new(0);
    let mut heard = vec![0; 4096];
    let mut flood = std::pin::pin!(async {
        for number in 0..count.div_ceil(BURST) {
            let first = number * BURST;
            clock.sleep(over.mul_f64(first as f64 / count as f64).saturating_sub(clock.elapsed())).await;
            write.write_all(&burst(first as u64)).await.map_err(said)?;
            taken.set((first + BURST).min(count));
        }
        Ok::<_, String>(())
    });
    let mut end = std::pin::pin!(clock.sleep(over));
    let (mut flooding, mut let_in) = (true, false);
    let closed = loop {
        tokio::select! {
            biased;
            () = &mut end => break None,
            got = read.read(&mut heard) => match got {
                Ok(0) => break Some("the stream has ended".to_owned()),
                // Its hello: whoever is turned away at the door hears none.
                Ok(_) => let_in = true,
                Err(error) => break Some(error.to_string()),
            },
            done = &mut flood, if flooding => {
                flooding = false;
                if let Err(why) = done {
                    break Some(why);
                }
            }
        }
    };
    let rest = over.saturating_sub(clock.elapsed());
    clock.sleep(rest).await;
    Ok(json!({ "acts": count, "taken": taken.get(), "closed": closed, "sessions": usize::from(let_in) }))
}

/// What a peer says that is no node, and names the keys of this identity.
pub fn hello(identity: &Identity, to: SocketAddr) -> Hello {
    Hello {
        version: hello::VERSION,
        min_version: hello::MIN_VERSION,
        network: hello::network_id(NETWORK),
        capabilities: 0,
        incarnation: 1,
        attempt: 1,
        keys: identity.hashes(),
        listen_port: 0,
        addrs: Vec::new(),
        observed: Some(to),
        agent: "attacker".into(),
        extra: None,
    }
}

/// Messages under a topic that nobody listens to, numbered from here.
fn burst(first: u64) -> BytesMut {
    let topic = Topic::new("flood").expect("five printable characters");
    let mut out = BytesMut::new();
    for number in first..first + BURST as u64 {
        let payload = Bytes::from_static(&[b'.'; PAYLOAD]);
        Framing.frame(MESSAGE, &Message { number, topic: topic.clone(), payload }.encode(), &mut out);
    }
    out
}
