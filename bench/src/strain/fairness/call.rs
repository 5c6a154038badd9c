//! The callers: honest peers that ask now and then, and the one that floods. Plain sockets that speak echo's hello and frames.

use std::net::SocketAddr;
use std::time::Duration;

use rand::RngExt;
use rookery_runtime::{Clock, RngSource};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::JoinSet;

use super::super::{Outcome, said};
use super::share::{ASK, BODY};
use super::{CALL, NOBODY};
use crate::child::{heard, percentile, runtime, say};

/// Between two asks of an honest peer, on average: with 25 of them and 2 ms of work each, the service is busy a third of
/// the time, or half of it as timers round up.
const EVERY: Duration = Duration::from_millis(150);
/// Bytes in front of a body: kind u8, length u32.
const HEAD: usize = 5;
/// Bytes of a frame.
const FRAME: usize = HEAD + BODY as usize;
/// Frames that the flooder writes at a time.
const BURST: usize = 64;

/// The process.
pub fn call(honest: usize, at: SocketAddr) -> Outcome<()> {
    let runtime = runtime()?;
    let mut peers = Vec::new();
    for number in 0..honest {
        peers.push(runtime.block_on(hello(number, at))?);
    }
    say(&json!({ "ready": peers.len() }));
    let order = heard()?.ok_or("callers wait for an order")?;
    let words: Vec<_> = order.split(' ').collect();
    let [CALL, seconds, flooded] = words.as_slice() else {
        return Err(format!("callers have no order {order:?}"));
    };
    let over = Duration::from_secs(seconds.parse().map_err(said)?);
    let flooder = match *flooded {
        NOBODY => None,
        at => Some(runtime.block_on(hello(honest, at.parse().map_err(said)?))?),
    };
    let report = runtime.block_on(calls(peers, over, flooder))?;
    say(&report);
    Ok(())
}

/// Connects, and exchanges hellos.
async fn hello(number: usize, at: SocketAddr) -> Outcome<TcpStream> {
    let mut stream = TcpStream::connect(at).await.map_err(said)?;
    stream.set_nodelay(true).map_err(said)?;
    let mut identity = [2; 32];
    identity[..8].copy_from_slice(&(number as u64).to_be_bytes());
    stream.write_all(&[&b"ROOKECHO"[..], &identity].concat()).await.map_err(said)?;
    let mut theirs = [0; 40];
    stream.read_exact(&mut theirs).await.map_err(said)?;
    Ok(stream)
}

fn frame(number: u64) -> [u8; FRAME] {
    let mut frame = [0; FRAME];
    frame[0] = u8::try_from(ASK.0).expect("a small number");
    frame[1..HEAD].copy_from_slice(&BODY.to_be_bytes());
    frame[HEAD..HEAD + 8].copy_from_slice(&number.to_be_bytes());
    frame
}

/// The number of the next answer.
async fn answered(read: &mut OwnedReadHalf) -> Outcome<u64> {
    let mut frame = [0; FRAME];
    read.read_exact(&mut frame).await.map_err(said)?;
    let number = frame[HEAD..].first_chunk().copied().unwrap_or_default();
    Ok(u64::from_be_bytes(number))
}

/// When a peer asks: at random times that depend on nobody's, the same in every measurement.
fn times(number: usize, over: Duration) -> Vec<Duration> {
    let mut rng = RngSource::seeded(0, 0).fork("times", number as u64);
    let mut at = Duration::ZERO;
    let next = || {
        at += EVERY.mul_f64(-(1.0 - rng.random::<f64>()).ln());
        (at < over).then_some(at)
    };
    std::iter::from_fn(next).collect()
}

async fn calls(peers: Vec<TcpStream>, over: Duration, flooder: Option<TcpStream>) -> Outcome<Value> {
    let clock = Clock::system();
    let mut flooding = JoinSet::new();
    if let Some(flooder) = flooder {
        let (read, write) = flooder.into_split();
        flooding.spawn(async move { clock.timeout(over, pour(write)).await.map_or(0, |()| 0) });
        flooding.spawn(drain(read, over));
    }
    let mut calling = JoinSet::new();
    for (number, stream) in peers.into_iter().enumerate() {
        calling.spawn(honest(stream, times(number, over)));
    }
    let mut took = Vec::new();
    while let Some(one) = calling.join_next().await {
        took.extend(one.map_err(said)??);
    }
    took.sort_by(f64::total_cmp);
    let mut flooded = 0;
    while let Some(one) = flooding.join_next().await {
        flooded += one.map_err(said)?;
    }
    Ok(json!({
        "answered": took.len(), "flood_answered": flooded,
        "p50_ms": percentile(&took, 50), "p99_ms": percentile(&took, 99), "max_ms": took.last(),
    }))
}

/// Asks at its times, late answers or not; the milliseconds of each answer from when it was due to be asked.
async fn honest(stream: TcpStream, due: Vec<Duration>) -> Outcome<Vec<f64>> {
    let (mut read, mut write) = stream.into_split();
    let clock = Clock::system();
    let mut asking = JoinSet::new();
    asking.spawn({
        let due = due.clone();
        async move {
            for (number, at) in due.into_iter().enumerate() {
                clock.sleep(at.saturating_sub(clock.elapsed())).await;
                write.write_all(&frame(number as u64)).await.map_err(said)?;
            }
            Ok::<_, String>(write)
        }
    });
    let mut took = Vec::new();
    while took.len() < due.len() {
        let number = answered(&mut read).await?;
        let at = due
            .get(number as usize)
            .ok_or_else(|| format!("an answer to ask {number}, which was not asked"))?;
        took.push(clock.elapsed().saturating_sub(*at).as_secs_f64() * 1e3);
    }
    while let Some(asked) = asking.join_next().await {
        drop(asked.map_err(said)??);
    }
    Ok(took)
}

/// Asks as fast as the connection takes it, until it ends.
async fn pour(mut write: OwnedWriteHalf) {
    let burst: Vec<u8> = (0..BURST as u64).flat_map(frame).collect();
    while write.write_all(&burst).await.is_ok() {}
}

/// Takes what is answered to the flooder, and counts it.
async fn drain(mut read: OwnedReadHalf, over: Duration) -> usize {
    let clock = Clock::system();
    let mut count = 0;
    while let Some(Ok(_)) = clock.timeout(over.saturating_sub(clock.elapsed()), answered(&mut read)).await {
        count += 1;
    }
    count
}
