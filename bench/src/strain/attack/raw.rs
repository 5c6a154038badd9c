//! First flights of real handshakes, recorded and sent again from other sockets.
//!
//! A server tells handshakes apart by the connection id that the first flight names, so each act needs a flight of its own:
//! resending one from many ports would be one handshake. Recording is cheap, since nobody answers.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rookery_runtime::Clock;
use rookery_transport::Transport;
use rookery_transport::quic::Udp;
use serde_json::{Value, json};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use super::super::options::Attacker;
use super::super::peers::identity;
use super::super::{LOOPBACK, Outcome, said, source};
use super::{Kind, transport};

/// Datagrams of a first flight: a hello with a post-quantum key share fills two.
const FLIGHT: usize = 2;
/// Dials at a time while recording: what they send before they are heard fits a receive buffer.
const BATCH: usize = 32;
/// What a batch has to be heard in. Those that are not are dialled again.
const HEARD_WITHIN: Duration = Duration::from_millis(250);
/// Flights that are recorded at most; acts beyond repeat them, long after a server that keeps no state has forgotten.
const POOL: usize = 5_000;
/// Sockets that an attacker has open at a time: answers to these are not answered by its kernel.
pub const OPEN: usize = 512;
/// The last octet of the addresses that attackers come from.
const ATTACKERS: u8 = 4;
/// Between two bursts of acts.
const TICK: Duration = Duration::from_millis(5);
/// Bytes of a datagram at most.
const DATAGRAM: usize = 2048;

/// The datagrams of a flight, in order.
type Flight = Vec<Vec<u8>>;

/// Records flights of as many dials, or as many as there is room for.
pub async fn record(count: usize) -> Outcome<Vec<Flight>> {
    let sink = UdpSocket::bind(LOOPBACK).await.map_err(said)?;
    let to = sink.local_addr().map_err(said)?;
    let identity = identity()?;
    let (_env, quic) = transport(&identity, Arc::new(Udp::AS_THEY_ARE))?;
    let _door = quic.listen(LOOPBACK).await.map_err(said)?;
    let wanted = count.min(POOL);
    let mut flights: BTreeMap<Vec<u8>, Flight> = BTreeMap::new();
    let mut whole = Vec::new();
    while whole.len() < wanted {
        let mut dials = JoinSet::new();
        for _ in 0..BATCH.min(wanted - whole.len()) {
            let quic = quic.clone();
            dials.spawn(async move { drop(quic.dial(to).await) });
        }
        let goal = whole.len() + dials.len();
        let hear = async {
            while whole.len() < goal {
                let mut datagram = vec![0; DATAGRAM];
                let (len, _) = sink.recv_from(&mut datagram).await.map_err(said)?;
                datagram.truncate(len);
                let Some(id) = destination(&datagram) else { continue };
                let flight = flights.entry(id).or_default();
                flight.push(datagram);
                // What comes later for this id are repetitions.
                if flight.len() == FLIGHT {
                    whole.push(flight.clone());
                }
            }
            Ok::<_, String>(())
        };
        Clock::system().timeout(HEARD_WITHIN, hear).await.unwrap_or(Ok(()))?;
    }
    Ok(whole)
}

/// The connection id to which the first packet of a datagram goes, of a packet with a long header (RFC 9000, 17.2).
fn destination(datagram: &[u8]) -> Option<Vec<u8>> {
    let (&first, rest) = datagram.split_first()?;
    let (&len, rest) = rest.get(4..)?.split_first()?;
    (first & 0x80 != 0).then(|| rest.get(..usize::from(len)).map(<[u8]>::to_vec))?
}

/// Sends as many flights as asked for, evenly over the time, each from a socket of its own.
pub async fn replay(asked: &Attacker, to: SocketAddr, flights: &[Flight]) -> Outcome<Value> {
    let clock = Clock::system();
    let over = Duration::from_secs(asked.seconds).as_secs_f64();
    let mut open = VecDeque::new();
    let mut sent = 0;
    while sent < asked.count {
        let due = (clock.elapsed().as_secs_f64() / over * asked.count as f64).ceil() as usize;
        while sent < due.min(asked.count) {
            let from = if asked.kind == Kind::Prefix { source(sent, ATTACKERS) } else { LOOPBACK };
            let socket = UdpSocket::bind(from).await.map_err(said)?;
            for datagram in &flights[sent % flights.len()] {
                socket.send_to(datagram, to).await.map_err(said)?;
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
    Ok(json!({ "acts": sent, "flights": flights.len() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_destination_is_read_from_long_headers_only() {
        let initial = [&[0xc0, 0, 0, 0, 1, 3, 7, 8, 9, 0][..], &[0; 20]].concat();
        assert_eq!(destination(&initial), Some(vec![7, 8, 9]));
        assert_eq!(destination(&[0x40, 0, 0, 0, 1, 3, 7, 8, 9]), None);
        assert_eq!(destination(&[0xc0, 0, 0, 0, 1, 3, 7]), None);
    }

    #[test]
    fn recorded_flights_are_whole_and_of_different_handshakes() {
        let runtime = crate::child::runtime().unwrap();
        let flights = runtime.block_on(record(40)).unwrap();
        let ids: std::collections::BTreeSet<_> =
            flights.iter().map(|flight| destination(&flight[0]).unwrap()).collect();
        assert_eq!((flights.len(), ids.len()), (40, 40));
        // RFC 9000, 14.1: a first datagram is filled up, so that nobody is made to answer with more than he was sent.
        assert!(flights.iter().all(|flight| flight.len() == FLIGHT && flight[0].len() >= 1200));
    }
}
