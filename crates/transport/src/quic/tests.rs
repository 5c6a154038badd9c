use std::collections::BTreeSet;
use std::io::IoSliceMut;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use rookery_base::Fault;
use rookery_runtime::Env;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::tls::{Identity, KeyHashes, Keys, Trust};
use crate::{Closed, MuxConn, cause_of};

const ALPN: &[u8] = b"rookery-test";

fn node(seed: u8, keys: Keys, trust: Trust) -> (Env, Identity, Quic) {
    // One of two has a thread that helps to read its socket: either kind is on both sides of the tests.
    let udp = if seed.is_multiple_of(2) { Udp::HELPED } else { Udp::LARGE };
    let (env, identity) = (Env::system(), Identity::from_seed(&[seed; 32], keys).unwrap());
    let tls = identity.tls(ALPN, trust).unwrap();
    let quic = Quic::start(&env, tls, &[seed; 32], QuicLimits::DEFAULT, Arc::new(udp)).unwrap();
    (env, identity, quic)
}

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

async fn pair(a: &Quic, b: &Quic) -> (io::Result<MuxConn>, io::Result<MuxConn>) {
    let mut door = b.listen(loopback()).await.unwrap();
    let at = door.local_addr();
    let accept = async { door.accept().await.unwrap().connect().await };
    let (dialled, accepted) = tokio::join!(a.dial(at), accept);
    (dialled.map(|conn| conn.into_mux().unwrap()), accepted.map(|conn| conn.into_mux().unwrap()))
}

fn shown(identity: &Identity, proof: &Bytes) -> bool {
    let hashes = KeyHashes::of(proof, identity.hashes().other_than(proof));
    hashes.is_some_and(|hashes| hashes.peer_id() == identity.peer_id())
}

#[tokio::test]
async fn both_sides_prove_their_keys_and_streams_pass_whatever_keys_they_have() {
    for (ours, theirs) in
        [(Keys::Both, Keys::Both), (Keys::Classic, Keys::Both), (Keys::Both, Keys::PostQuantum)]
    {
        let (_a_env, a_id, a) = node(1, ours, Trust::Both);
        let (_b_env, b_id, b) = node(2, theirs, Trust::Both);
        let (dialled, accepted) = pair(&a, &b).await;
        let (dialled, accepted) = (dialled.unwrap(), accepted.unwrap());
        assert!(shown(&b_id, &dialled.proof) && shown(&a_id, &accepted.proof));
        assert!(!shown(&a_id, &dialled.proof));
        let mut ask = dialled.mux.open().await.unwrap();
        ask.write.write_all(b"question").await.unwrap();
        ask.write.shutdown().await.unwrap();
        let mut asked = accepted.mux.accept().await.unwrap();
        let mut got = Vec::new();
        asked.read.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"question");
        // Half an answer, then nothing: it must not look whole.
        asked.write.write_all(b"half an ans").await.unwrap();
        drop(asked);
        assert!(ask.read.read_to_end(&mut got).await.is_err());
        let (mut x, mut y) = ([0; 32], [0; 32]);
        dialled.mux.export_keying_material(&mut x, b"EXPERIMENTAL-test", b"").unwrap();
        accepted.mux.export_keying_material(&mut y, b"EXPERIMENTAL-test", b"").unwrap();
        assert_eq!(x, y);
        accepted.mux.close(7, "enough");
        let told = dialled.mux.closed().await;
        assert_eq!(told, Closed::ByPeer { code: 7, reason: "enough".into() });
        let Err(failed) = dialled.mux.open().await else { panic!("a stream on a closed connection") };
        assert_eq!(cause_of(&failed).label(), "closed_by_peer");
    }
}

#[tokio::test]
async fn who_asks_for_post_quantum_keys_takes_no_other() {
    let (_a_env, _, a) = node(1, Keys::Classic, Trust::Both);
    let (_b_env, _, b) = node(2, Keys::Both, Trust::PostQuantum);
    let (dialled, accepted) = pair(&a, &b).await;
    assert!(accepted.is_err());
    // The dialler is done before its key is looked at, and is told then.
    if let Ok(conn) = dialled {
        let closed = conn.mux.closed().await;
        assert!(matches!(closed, Closed::Unfit(Fault::Local(_))), "{closed}");
    }
}

#[tokio::test]
async fn an_address_is_proven_by_retry_and_by_the_token_of_an_earlier_connection() {
    let (_a_env, _, a) = node(1, Keys::Classic, Trust::Both);
    let (_b_env, _, b) = node(2, Keys::Classic, Trust::Both);
    let mut door = b.listen(loopback()).await.unwrap();
    let at = door.local_addr();
    let first = async {
        let Arrival::Pending(stranger) = door.accept().await.unwrap() else { panic!("QUIC has a door") };
        assert!(!stranger.validated());
        stranger.retry();
        let back = door.accept().await.unwrap();
        assert!(back.validated());
        let conn = back.connect().await.unwrap().into_mux().unwrap();
        let mut stream = conn.mux.open().await.unwrap();
        stream.write.write_all(b"token came before this").await.unwrap();
        (conn, stream)
    };
    let (dialled, (held, stream)) = tokio::join!(a.dial(at), first);
    let dialled = dialled.unwrap().into_mux().unwrap();
    let mut word = [0; 5];
    dialled.mux.accept().await.unwrap().read.read_exact(&mut word).await.unwrap();
    drop(stream);
    held.mux.close(0, "");
    dialled.mux.closed().await;
    let again = async {
        let known = door.accept().await.unwrap();
        assert!(known.validated(), "a token proves the address in the first datagram");
        known.connect().await
    };
    let (dialled, accepted) = tokio::join!(a.dial(at), again);
    assert!(dialled.is_ok() && accepted.is_ok());
}

#[tokio::test]
async fn a_refused_arrival_is_told_and_an_ipv4_dialler_of_a_dual_socket_is_one_peer() {
    let (_a_env, _, a) = node(1, Keys::Classic, Trust::Both);
    let (_b_env, _, b) = node(2, Keys::Classic, Trust::Both);
    let mut door = b.listen("[::]:0".parse().unwrap()).await.unwrap();
    let at = SocketAddr::new("127.0.0.1".parse().unwrap(), door.local_addr().port());
    let refuse = async {
        let Arrival::Pending(arrival) = door.accept().await.unwrap() else { panic!("QUIC has a door") };
        assert_eq!(arrival.remote().ip(), at.ip());
        arrival.refuse();
    };
    let (dialled, ()) = tokio::join!(a.dial(at), refuse);
    assert!(dialled.is_err());
}

#[test]
fn many_connections_share_what_they_may_hold() {
    let limits = QuicLimits::DEFAULT;
    let held = |connections: usize| {
        let shared = limits.sharing(1 << 30, connections);
        assert!(shared.stream_window <= shared.window);
        2 * u64::from(shared.window) * connections as u64
    };
    assert_eq!(limits.sharing(1 << 30, 0).window, limits.window, "none is larger than it was");
    assert_eq!(held(100), 100 * 2 * u64::from(limits.window));
    assert!((1 << 29..=1 << 30).contains(&held(5_000)), "{}", held(5_000));
    assert_eq!(limits.sharing(1 << 30, 1_000_000).window, QuicLimits::LEAST_WINDOW);
}

/// What a node says before it is answered: a hello in two datagrams.
async fn hello(of: &Quic) -> [Vec<u8>; 2] {
    let sink = tokio::net::UdpSocket::bind(loopback()).await.unwrap();
    let at = sink.local_addr().unwrap();
    let hear = async {
        let mut hello = [vec![0; 2048], vec![0; 2048]];
        for datagram in &mut hello {
            let len = sink.recv(datagram).await.unwrap();
            datagram.truncate(len);
        }
        hello
    };
    tokio::select! {
        hello = hear => hello,
        _ = of.dial(at) => panic!("nobody answers"),
    }
}

#[tokio::test]
async fn the_second_datagram_of_a_hello_is_not_another_arrival() {
    let (_a_env, _, a) = node(1, Keys::Classic, Trust::Both);
    let (b_env, _, b) = node(2, Keys::Classic, Trust::Both);
    let mut door = b.listen(loopback()).await.unwrap();
    // On a machine that stands still between the two, the second one has come too late to be taken for one.
    for _ in 0..5 {
        let (one, other) = (hello(&a).await, hello(&a).await);
        let peer = tokio::net::UdpSocket::bind(loopback()).await.unwrap();
        peer.connect(door.local_addr()).await.unwrap();
        peer.send(&one[0]).await.unwrap();
        let Arrival::Pending(stranger) = door.accept().await.unwrap() else { panic!("QUIC has a door") };
        stranger.retry();
        peer.send(&one[1]).await.unwrap();
        peer.send(&other[0]).await.unwrap();
        let next = door.accept().await.unwrap();
        assert_eq!(next.remote(), peer.local_addr().unwrap());
        if b_env.metrics.quic_passed_over.get() == 1 {
            let mut answer = [0; 2048];
            peer.recv(&mut answer).await.unwrap();
            assert!(peer.try_recv(&mut answer).is_err(), "one answer to one hello");
            return;
        }
    }
    panic!("each of them was another arrival");
}

#[tokio::test]
async fn an_arrival_shakes_hands_in_its_turn_and_has_nobody_wait_meanwhile() {
    let (_a_env, _, a) = node(1, Keys::PostQuantum, Trust::Both);
    let (b_env, _, b) = node(2, Keys::PostQuantum, Trust::Both);
    let mut door = b.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let at = door.local_addr();
    let held = b.0.driver.turns().hold().await;
    let shake = async {
        let arrival = door.accept().await.unwrap();
        let waits = arrival.waits().expect("QUIC tells").clone();
        let mut conn = arrival.connect();
        let without = tokio::time::timeout(Duration::from_millis(300), &mut conn).await;
        assert!(without.is_err(), "a handshake ended that had no turn");
        assert_eq!(waits.total(b_env.clock.now()), Duration::ZERO, "it waits for us");
        drop(held);
        conn.await.unwrap();
        // Its network's handshake is its own to begin.
        while waits.total(b_env.clock.now() + Duration::from_secs(9)) < Duration::from_secs(8) {
            tokio::task::yield_now().await;
        }
    };
    let both = async { tokio::join!(a.dial(at), shake) };
    let (dialled, ()) = tokio::time::timeout(Duration::from_secs(20), both).await.expect("in time");
    assert!(dialled.is_ok());
}

#[tokio::test]
async fn a_node_that_stops_says_so_and_leaves_no_task() {
    let (a_env, _, a) = node(1, Keys::Classic, Trust::Both);
    let (b_env, _, b) = node(2, Keys::Classic, Trust::Both);
    let (dialled, accepted) = pair(&a, &b).await;
    let (dialled, accepted) = (dialled.unwrap(), accepted.unwrap());
    let (closed, told) =
        tokio::join!(b_env.scope.close(std::time::Duration::from_secs(5)), dialled.mux.closed());
    assert_eq!(closed, Ok(()));
    assert_eq!(told, Closed::ByPeer { code: 0, reason: "this node is stopping".into() });
    drop(accepted);
    assert_eq!(a_env.scope.close(std::time::Duration::from_secs(5)).await, Ok(()));
}

/// Sockets that, once told to, lose everything that they have not sent before.
#[derive(Debug, Clone, Default)]
struct Losing {
    losing: Arc<AtomicBool>,
    lost: Arc<Mutex<BTreeSet<Vec<u8>>>>,
}

impl Datagrams for Losing {
    fn bind(&self, at: SocketAddr) -> io::Result<Bound> {
        let bound = Udp::AS_THEY_ARE.bind(at)?;
        Ok(Bound { socket: Arc::new(LosingSocket(self.clone(), bound.socket)), ..bound })
    }
}

#[derive(Debug)]
struct LosingSocket(Losing, Arc<dyn AsyncUdpSocket>);

impl AsyncUdpSocket for LosingSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.1).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let lost =
            self.0.losing.load(Ordering::Relaxed) && lock(&self.0.lost).insert(transmit.contents.to_vec());
        if lost { Ok(()) } else { self.1.try_send(transmit) }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.1.poll_recv(cx, bufs, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.1.local_addr()
    }
}

#[tokio::test]
async fn a_goodbye_is_heard_though_all_but_its_copies_are_lost() {
    let losing = Losing::default();
    let identity = Identity::from_seed(&[1; 32], Keys::Classic).unwrap();
    let (a_env, tls) = (Env::system(), identity.tls(ALPN, Trust::Both).unwrap());
    let a = Quic::start(&a_env, tls, &[1; 32], QuicLimits::DEFAULT, Arc::new(losing.clone())).unwrap();
    let (_b_env, _, b) = node(2, Keys::Classic, Trust::Both);
    // While the other side still waits for an acknowledgement, which is lost as well, it asks again and is told by a reset.
    let mut told = Closed::ByUs;
    for _ in 0..5 {
        losing.losing.store(false, Ordering::Relaxed);
        let (dialled, accepted) = pair(&a, &b).await;
        let (dialled, accepted) = (dialled.unwrap(), accepted.unwrap());
        // The last word carries the acknowledgement of all that the other side has said.
        let mut here = dialled.mux.open().await.unwrap();
        here.write.write_all(b"?").await.unwrap();
        let mut there = accepted.mux.accept().await.unwrap();
        there.read.read_u8().await.unwrap();
        there.write.write_all(b"!").await.unwrap();
        here.read.read_u8().await.unwrap();
        here.write.write_all(b".").await.unwrap();
        there.read.read_u8().await.unwrap();
        losing.losing.store(true, Ordering::Relaxed);
        dialled.mux.close(7, "enough");
        told = accepted.mux.closed().await;
        if !matches!(told, Closed::Broken(_)) {
            break;
        }
    }
    // Only copies have arrived since.
    assert_eq!(told, Closed::ByPeer { code: 7, reason: "enough".into() });
    assert_eq!(a_env.scope.close(std::time::Duration::from_secs(5)).await, Ok(()));
}
