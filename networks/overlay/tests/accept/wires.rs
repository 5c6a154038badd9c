//! Attackers below the connection: they see datagrams, forward them, keep them and send them again (rows 12, 20).

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use rookery_engine::{HandshakeLimits, Limits};
use rookery_runtime::{Env, OnPanic};
use tokio::net::UdpSocket;

use crate::common::{conserved, dialler, diallers, own_address, server, soon, talk, until};
use crate::raw::Raw;

/// The longest datagram that anybody sends here.
const DATAGRAM: usize = 2048;

/// A wire with somebody in the middle, who forwards and keeps what goes to the server.
struct Wire {
    env: Env,
    at: SocketAddr,
    kept: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.env.scope.cancel();
    }
}

impl Wire {
    async fn to(server: SocketAddr) -> Self {
        let (front, back) = (socket("127.0.0.1:0").await, socket("127.0.0.1:0").await);
        let (env, at) = (Env::system(), front.local_addr().unwrap());
        let kept: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let keep = Arc::clone(&kept);
        env.scope.spawn("wire", OnPanic::EndScope, async move {
            let (mut there, mut back_again, mut client) = ([0; DATAGRAM], [0; DATAGRAM], at);
            loop {
                tokio::select! {
                    Ok((len, from)) = front.recv_from(&mut there) => {
                        client = from;
                        keep.lock().unwrap().push(there[..len].to_vec());
                        let _ = back.send_to(&there[..len], server).await;
                    }
                    Ok(len) = back.recv(&mut back_again) => {
                        let _ = front.send_to(&back_again[..len], client).await;
                    }
                }
            }
        });
        Self { env, at, kept }
    }

    fn kept(&self) -> Vec<Vec<u8>> {
        self.kept.lock().unwrap().clone()
    }
}

async fn socket(at: &str) -> UdpSocket {
    UdpSocket::bind(at).await.unwrap()
}

/// First flights of clients, each of a connection of its own, recorded at a server that never answers.
async fn first_flights(count: usize) -> Vec<Vec<u8>> {
    let deaf = socket("127.0.0.1:0").await;
    let (at, client) = (deaf.local_addr().unwrap(), Raw::new(4_000));
    let (mut flights, mut seen) = (Vec::new(), BTreeSet::new());
    let mut bytes = [0; DATAGRAM];
    for _ in 0..count {
        let recorded = async {
            loop {
                let len = deaf.recv(&mut bytes).await.unwrap();
                // What a connection before sends last may come late.
                if seen.insert(connection(&bytes)) {
                    return bytes[..len].to_vec();
                }
            }
        };
        tokio::select! {
            flight = recorded => flights.push(flight),
            dialled = client.dial(at) => panic!("nobody answers there: {}", dialled.is_ok()),
        }
    }
    flights
}

/// The connection's number in a first packet.
fn connection(datagram: &[u8]) -> Vec<u8> {
    datagram[6..6 + usize::from(datagram[5])].to_vec()
}

/// Type bits of a QUIC long header: 0 first packets, 3 a demand for proof.
fn packet_type(datagram: &[u8]) -> Option<u8> {
    let first = *datagram.first()?;
    (first & 0xc0 == 0xc0).then_some(first >> 4 & 3)
}

/// Row 20: half-open handshakes from many addresses hold a quarter of the places at most; the rest are asked for a proof
/// that costs nothing, and honest diallers, who give it, all get in.
#[tokio::test]
async fn half_open_handshakes_from_many_addresses_keep_nobody_out() {
    const FORGED: usize = 200;
    let handshakes = HandshakeLimits { total: 64, ..HandshakeLimits::LOCAL };
    let (_s, server) = server(Limits { handshakes, ..Limits::LOCAL }).await;
    let at = server.listening()[0];
    let mut senders = Vec::new();
    for (n, flight) in first_flights(FORGED).await.into_iter().enumerate() {
        assert_eq!(packet_type(&flight), Some(0));
        let sender = UdpSocket::bind(own_address(0x2000 + n)).await.unwrap();
        sender.send_to(&flight, at).await.unwrap();
        senders.push((sender, flight));
    }
    let flooded = until(&server, "all of them seen", |now| now.arrived >= FORGED as u64).await;
    assert_eq!((flooded.shaking, flooded.live), (64 / 4, 0), "up to the low-water mark: {flooded:?}");
    assert_eq!(flooded.retried, FORGED as u64 - 64 / 4, "{flooded:?}");
    let mut asked = 0;
    let mut bytes = [0; DATAGRAM];
    for (sender, _) in &senders {
        let len = soon("an answer", sender.recv(&mut bytes)).await.unwrap();
        asked += usize::from(packet_type(&bytes[..len]) == Some(3));
    }
    assert_eq!(asked, FORGED - 64 / 4, "asked to prove their addresses");
    let honest = diallers(20, |_| None).await;
    let connects = join_all(honest.iter().map(|(_, honest)| honest.connect([at])));
    let flooding = async {
        for (sender, flight) in senders.iter().cycle().take(3 * FORGED) {
            sender.send_to(flight, at).await.unwrap();
            assert!(server.engine().accounts().shaking <= 64, "{:?}", server.engine().accounts());
        }
    };
    let (dialled, ()) = conserved(&server, async { tokio::join!(connects, flooding) }).await;
    dialled.into_iter().for_each(|dialled| assert_eq!(dialled.unwrap().peer, server.id()));
    conserved(&server, join_all(honest.iter().map(|(_, honest)| talk(honest, &server)))).await;
    assert_eq!(server.engine().accounts().live, 20);
}

/// Row 12: somebody in the middle is a wire. What it kept of a session, sent again from elsewhere, is nobody's.
#[tokio::test]
async fn what_was_relayed_and_kept_makes_no_session_when_it_is_sent_again() {
    let mut limits = Limits::LOCAL;
    limits.handshakes.connect = Duration::from_secs(1);
    let (_s, server) = server(limits).await;
    let at = server.listening()[0];
    let wire = Wire::to(at).await;
    let (_d, honest) = dialler(None).await;
    let dialled = soon("a session", honest.connect([wire.at])).await.unwrap();
    assert_eq!(dialled.peer, server.id(), "the server's own proof, through the wire");
    assert!(server.engine().session(honest.id()).await.is_some(), "and the dialler's");
    talk(&honest, &server).await;
    assert_ne!(honest.engine().disconnect(wire.at).await, 0);
    until(&server, "empty", |now| now.live == 0 && now.shaking == 0).await;

    let kept = wire.kept();
    assert!(kept.len() >= 5, "a whole flight, not {} datagrams", kept.len());
    let before = server.engine().accounts();
    let mut watch = server.states();
    // At first what is left of the old connection swallows them; once that is gone they look like arrivals.
    for n in 0.. {
        let replayer = UdpSocket::bind(own_address(n)).await.unwrap();
        for datagram in &kept {
            replayer.send_to(datagram, at).await.unwrap();
        }
        if server.engine().accounts().arrived > before.arrived {
            break;
        }
        assert!(n < 1000, "replays did not arrive");
        server.env().clock.sleep(Duration::from_millis(20)).await;
    }
    let (_l, late) = dialler(None).await;
    soon("a session", late.connect([at])).await.unwrap();
    talk(&late, &server).await;
    let after = until(&server, "free of replays", |now| now.shaking == 0).await;
    assert_eq!((after.live, &after.ended), (1, &before.ended), "{after:?}");
    let told = watch.try_next().unwrap();
    assert_eq!(told.facts.peer, late.id());
    assert!(watch.try_next().is_none(), "nobody else ever was connected");
}
