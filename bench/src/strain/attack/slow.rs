//! Handshakes that take as long as they can: real ones, whose sockets let out one datagram a second.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rookery_runtime::{Clock, Env};
use rookery_transport::quic::Quic;
use rookery_transport::{Listener, Transport};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::super::peers::identity;
use super::super::sockets::Slow;
use super::super::{LOOPBACK, Outcome, said};
use super::transport;

/// What each lets out a datagram in.
const PERIOD: Duration = Duration::from_secs(1);
/// Handshakes begin within this part of the attack.
const BEGIN: f64 = 0.25;

/// One that is to shake hands slowly.
pub struct Attempt {
    _env: Env,
    quic: Quic,
    _door: Box<dyn Listener>,
}

/// Makes them, each with its socket; all with one identity, which no server has seen the proof of by then.
pub async fn make(count: usize) -> Outcome<Vec<Attempt>> {
    let identity = identity()?;
    let mut attempts = Vec::with_capacity(count);
    for _ in 0..count {
        let (env, quic) = transport(&identity, Arc::new(Slow(PERIOD)))?;
        let door = quic.listen(LOOPBACK).await.map_err(said)?;
        attempts.push(Attempt { _env: env, quic, _door: door });
    }
    Ok(attempts)
}

/// Shakes all hands, and says how many connections came of it. Those say nothing and are held until the end.
pub async fn attack(attempts: Vec<Attempt>, to: SocketAddr, over: Duration) -> Value {
    let clock = Clock::system();
    let acts = attempts.len();
    let mut under_way = JoinSet::new();
    for (number, attempt) in attempts.into_iter().enumerate() {
        let begins = over.mul_f64(BEGIN * number as f64 / acts as f64);
        under_way.spawn(async move {
            clock.sleep(begins).await;
            let left = over.saturating_sub(clock.elapsed());
            let dialled = clock.timeout(left, attempt.quic.dial(to)).await;
            clock.sleep(over.saturating_sub(clock.elapsed())).await;
            let connected = dialled.as_ref().is_some_and(Result::is_ok);
            (connected, attempt, dialled)
        });
    }
    // All end at one time, and are held until the last has.
    let mut ended = Vec::with_capacity(acts);
    while let Some(one) = under_way.join_next().await {
        ended.extend(one.ok());
    }
    json!({ "acts": acts, "connected": ended.iter().filter(|(connected, ..)| *connected).count() })
}
