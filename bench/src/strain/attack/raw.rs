//! The first flight of a real handshake, recorded once and sent as that of as many connections as an attack has acts.
//!
//! A server tells handshakes apart by the connection id that the first flight names, so each act has an id of its own:
//! the recorded packets are opened once, and sealed anew for each. One dial is recorded, since nobody answers it.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand;
use rookery_runtime::Clock;
use rookery_transport::Transport;
use rookery_transport::quic::Udp;
use serde_json::{Value, json};
use tokio::net::UdpSocket;

use super::super::options::Attacker;
use super::super::peers::identity;
use super::super::{LOOPBACK, Outcome, said, source};
use super::initial::Initial;
use super::{Kind, transport};

/// Datagrams of a first flight: a hello with a post-quantum key share fills two.
const FLIGHT: usize = 2;
/// What a dial has to be heard in.
const HEARD_WITHIN: Duration = Duration::from_secs(5);
/// Sockets that an attacker has open at a time: answers to these are not answered by its kernel.
pub const OPEN: usize = 512;
/// The last octet of the addresses that attackers come from.
const ATTACKERS: u8 = 4;
/// Addresses that differ in their last octet by this much are none of others' ([`source`]).
const APART: u8 = 10;
/// Networks in which there is an address of each last octet.
const NETWORKS: usize = 250 * 250;
/// Of what is due between two bursts, as many times that are sent in one at most.
const CATCH_UP: f64 = 3.0;
/// Between two bursts of acts.
const TICK: Duration = Duration::from_millis(5);
/// Bytes of a datagram at most.
pub const DATAGRAM: usize = 2048;
/// Bytes of the connection ids that acts go to, as long as quinn's are.
const ID: usize = 20;

/// The packets of a first flight, in order.
pub type Flight = [Initial; FLIGHT];

/// A connection id that nobody has used.
pub fn new_id() -> Outcome<[u8; ID]> {
    let mut id = [0; ID];
    rand::fill(&mut id).map_err(|_| "the machine has no randomness")?;
    Ok(id)
}

/// The address of the act of this number: each has its own.
fn address(number: usize) -> SocketAddr {
    let lap = u8::try_from(number / NETWORKS % 25).expect("below 25");
    source(number, ATTACKERS + lap * APART)
}

/// Records what a dial says before it is answered.
pub async fn record() -> Outcome<Flight> {
    let sink = UdpSocket::bind(LOOPBACK).await.map_err(said)?;
    let to = sink.local_addr().map_err(said)?;
    let identity = identity()?;
    let (_env, quic) = transport(&identity, Arc::new(Udp::AS_THEY_ARE))?;
    let _door = quic.listen(LOOPBACK).await.map_err(said)?;
    let hear = async {
        // By packet, so that a repetition of the first is not taken for the second.
        let mut packets = BTreeMap::new();
        while packets.len() < FLIGHT {
            let mut datagram = vec![0; DATAGRAM];
            let (len, _) = sink.recv_from(&mut datagram).await.map_err(said)?;
            if let Some((_, packet)) = Initial::open(&datagram[..len]) {
                packets.insert(packet.number(), packet);
            }
        }
        let flight: Vec<_> = packets.into_values().collect();
        flight.try_into().map_err(|_| "as many packets as were waited for".to_owned())
    };
    let clock = Clock::system();
    tokio::select! {
        biased;
        heard = clock.timeout(HEARD_WITHIN, hear) => heard.unwrap_or_else(|| Err("no dial was heard".into())),
        dialled = quic.dial(to) => Err(format!("a dial that nobody answers has ended: {}", dialled.is_ok())),
    }
}

/// Sends as many flights as asked for, evenly over the time, each from a socket of its own and for a connection of its own.
pub async fn replay(asked: &Attacker, to: SocketAddr, flight: &Flight) -> Outcome<Value> {
    let clock = Clock::system();
    let over = Duration::from_secs(asked.seconds).as_secs_f64();
    // What the machine's other work has kept it from is made up for slowly: at once, it would fill the server's buffer.
    let burst = (CATCH_UP * TICK.as_secs_f64() / over * asked.count as f64).ceil() as usize;
    let mut open = VecDeque::new();
    let mut sent = 0;
    while sent < asked.count {
        let due = (clock.elapsed().as_secs_f64() / over * asked.count as f64).ceil() as usize;
        let due = due.min(asked.count).min(sent + burst);
        while sent < due {
            let from = if asked.kind == Kind::Prefix { address(sent) } else { LOOPBACK };
            let socket = UdpSocket::bind(from).await.map_err(said)?;
            let id = new_id()?;
            for packet in flight {
                socket.send_to(&packet.seal(&id, &[]), to).await.map_err(said)?;
            }
            open.push_back(socket);
            if open.len() > OPEN {
                open.pop_front();
            }
            sent += 1;
        }
        clock.sleep(TICK).await;
    }
    clock.sleep(Duration::from_secs_f64(over).saturating_sub(clock.elapsed())).await;
    Ok(json!({ "acts": sent }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_thousand_acts_have_as_many_addresses() {
        let all: std::collections::BTreeSet<_> = (0..100_000).map(address).collect();
        assert_eq!(all.len(), 100_000);
    }

    #[test]
    fn a_recorded_flight_is_whole_and_fills_its_datagrams() {
        let runtime = crate::child::runtime().unwrap();
        let flight = runtime.block_on(record()).unwrap();
        let ids = [new_id().unwrap(), new_id().unwrap()];
        assert_ne!(ids[0], ids[1]);
        for packet in &flight {
            let sealed = packet.seal(&ids[0], &[]);
            // RFC 9000, 14.1: a first datagram is filled up, so that nobody is made to answer with more than he was sent.
            assert!(sealed.len() >= 1200, "{}", sealed.len());
            assert_eq!(Initial::open(&sealed).unwrap().1, *packet);
        }
    }
}
