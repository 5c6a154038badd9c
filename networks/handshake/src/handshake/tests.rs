use super::*;
use crate::params::{MAIN, REGTEST};
use crate::wire::kind as k;
use crate::wire::{Head, Locator};
use proptest::prelude::*;
use rookery_base::Fault;
use rookery_observe::Trace;
use rookery_transport::Conn;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use tokio::io::DuplexStream;

const UNIX: u64 = 1_700_000_000;
const MAGIC: u32 = 0xae38_95cf;

fn remote() -> SocketAddr {
    "1.2.3.4:14038".parse().unwrap()
}

fn env(node: u32) -> Env {
    Env::simulated(1, node, UNIX, 0, Trace::off())
}

fn us(env: &Env) -> Introduction {
    Introduction {
        params: &REGTEST,
        services: Services::NONE,
        height: Arc::new(|| 258_026),
        nonces: OwnNonces::new(&env.rng),
    }
}

fn conn(stream: DuplexStream) -> Conn {
    let (read, write) = tokio::io::split(stream);
    Conn::Stream(StreamConn {
        remote: remote(),
        local: remote(),
        read: Box::new(read),
        write: Box::new(write),
    })
}

/// A handshake of ours, and the peer's end of its connection.
fn begin(
    direction: Direction,
) -> (impl Future<Output = Result<Established, CloseCause>> + Send, DuplexStream) {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let env = env(0);
    let shaking = async move {
        let us = us(&env);
        us.shake(Approach { conn: conn(ours), direction, env }).await
    };
    (shaking, theirs)
}

fn version(change: impl FnOnce(&mut Version)) -> Bytes {
    let mut version = Version {
        version: 3,
        services: Services::NETWORK,
        time: UNIX + 90,
        remote: NetAddress::NULL,
        nonce: [1; 8],
        agent: Text::new("/hsd:8.0.0/").unwrap(),
        height: 5000,
        no_relay: false,
    };
    change(&mut version);
    encode_frame(MAGIC, &Packet::Version(Box::new(version)))
}

fn verack() -> Bytes {
    encode_frame(MAGIC, &Packet::Verack)
}

fn ping() -> Bytes {
    encode_frame(MAGIC, &Packet::Ping([7; 8]))
}

/// What comes of it when the peer sends these bytes at once and then holds the connection open.
async fn meets(direction: Direction, bytes: &[u8]) -> Result<Established, CloseCause> {
    let (shaking, mut theirs) = begin(direction);
    theirs.write_all(bytes).await.unwrap();
    let ended = shaking.await;
    drop(theirs);
    ended
}

#[track_caller]
fn fault_kind(ended: Result<Established, CloseCause>) -> PeerFaultKind {
    match ended {
        Err(CloseCause::Fault(Fault::Peer(fault))) => fault.kind,
        Err(other) => panic!("no peer fault but {other}"),
        Ok(_) => panic!("established"),
    }
}

/// Whole packets from a stream.
async fn packets(from: &mut DuplexStream, count: usize) -> Vec<Packet> {
    let mut out = Vec::new();
    for _ in 0..count {
        let mut head = [0; HEAD_LEN];
        from.read_exact(&mut head).await.unwrap();
        let head = Head::parse(&head).unwrap();
        assert_eq!(head.magic, MAGIC);
        let mut body = vec![0; head.length as usize];
        from.read_exact(&mut body).await.unwrap();
        out.push(Packet::decode(head.kind, &body.into()).unwrap());
    }
    out
}

const BOTH: [Direction; 2] = [Direction::Inbound, Direction::Outbound];

#[tokio::test(start_paused = true)]
async fn version_and_verack_are_taken_in_both_orders_by_both_sides() {
    for direction in BOTH {
        for bytes in [[version(|_| {}), verack()].concat(), [verack(), version(|_| {})].concat()] {
            let established = meets(direction, &bytes).await.map_err(|cause| cause.to_string()).unwrap();
            let facts = established.facts;
            assert_eq!((facts.peer, facts.addr), (PeerId::from_addr(remote()), remote()));
            assert_eq!((facts.direction, facts.caps, facts.version), (direction, Caps(1), 3));
            assert_eq!((&facts.agent[..], facts.height, facts.time_offset), ("/hsd:8.0.0/", 5000, 90));
            assert!(established.read_ahead.is_empty());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_dialler_speaks_first_and_accepts_with_verack() {
    let (shaking, mut theirs) = begin(Direction::Outbound);
    let peer = async {
        let first = packets(&mut theirs, 1).await.remove(0);
        assert_eq!(first.name(), "version");
        theirs.write_all(&[verack(), version(|_| {})].concat()).await.unwrap();
        assert_eq!(packets(&mut theirs, 1).await, [Packet::Verack]);
    };
    let (ended, ()) = tokio::join!(shaking, peer);
    assert!(ended.is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_acceptor_waits_for_a_version_and_answers_verack_then_version() {
    let (shaking, mut theirs) = begin(Direction::Inbound);
    let peer = async {
        theirs.write_all(&version(|_| {})).await.unwrap();
        let answer = packets(&mut theirs, 2).await;
        assert_eq!((answer[0].name(), answer[1].name()), ("verack", "version"));
        theirs.write_all(&verack()).await.unwrap();
    };
    let (ended, ()) = tokio::join!(shaking, peer);
    assert!(ended.is_ok());
}

#[tokio::test(start_paused = true)]
async fn two_of_us_shake_hands() {
    let (near, far) = tokio::io::duplex(256);
    let (env_a, env_b) = (env(0), env(1));
    let (a, b) = (us(&env_a), us(&env_b));
    let dialled = Approach { conn: conn(near), direction: Direction::Outbound, env: env_a };
    let accepted = Approach { conn: conn(far), direction: Direction::Inbound, env: env_b };
    let (dialled, accepted) = tokio::join!(a.shake(dialled), b.shake(accepted));
    for established in [dialled, accepted] {
        let facts = established.map_err(|cause| cause.to_string()).unwrap().facts;
        assert_eq!((&facts.agent[..], facts.height, facts.caps), (AGENT, 258_026, Caps::NONE));
    }
}

#[test]
fn our_version_in_bytes() {
    let us = Introduction { params: &MAIN, ..us(&env(0)) };
    let version = us.version(remote(), [0xab; 8], UNIX);
    let mut body = BytesMut::new();
    Packet::Version(Box::new(version)).encode(&mut body);
    let agent = const_hex::encode(AGENT);
    let expected = [
        "03000000",                                                           // protocol
        "0000000000000000",                                                   // services
        "00f1536500000000",                                                   // time
        "0000000000000000",                                                   // remote: time
        "0000000000000000",                                                   // services
        "00",                                                                 // an IP
        "00000000000000000000ffff01020304",                                   // 1.2.3.4
        "0000000000000000000000000000000000000000",                           // reserved
        "d636",                                                               // port 14038
        "000000000000000000000000000000000000000000000000000000000000000000", // no key
        "abababababababab",                                                   // nonce
        &format!("{:02x}", AGENT.len()),
        &agent,
        "eaef0300", // height 258026
        "01",       // no relay
    ];
    assert_eq!(const_hex::encode(&body), expected.concat());
    assert!(AGENT.starts_with("/rookery:") && AGENT.ends_with('/'));
}

#[tokio::test(start_paused = true)]
async fn each_step_ends_after_five_seconds_and_says_what_is_missing() {
    let cases: [(&[u8], u64, &str); 3] = [
        (&[], 5, "neither version nor verack"),
        (&verack(), 5, "no version"),
        (&version(|_| {}), 5, "no verack"),
    ];
    for direction in BOTH {
        for (bytes, seconds, missing) in cases {
            let clock = env(0).clock;
            let began = clock.now();
            let Err(CloseCause::Fault(Fault::Peer(fault))) = meets(direction, bytes).await else {
                panic!("no fault")
            };
            assert_eq!(fault.kind, PeerFaultKind::HandshakeTimeout);
            assert!(fault.detail.starts_with(missing), "{}", fault.detail);
            assert_eq!((clock.now() - began).as_secs(), seconds);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_sends_a_byte_now_and_then_does_not_stretch_its_step() {
    let clock = env(0).clock;
    let began = clock.now();
    let (shaking, mut theirs) = begin(Direction::Inbound);
    let dribble = async {
        for byte in version(|_| {}) {
            theirs.write_all(&[byte]).await.unwrap();
            clock.sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::select! {
        ended = shaking => assert_eq!(fault_kind(ended), PeerFaultKind::HandshakeTimeout),
        () = dribble => panic!("the peer got all its time"),
    }
    assert_eq!((clock.now() - began).as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_ends_its_step() {
    let (ours, theirs) = tokio::io::duplex(16);
    let env = env(0);
    let us = us(&env);
    let shaking = us.shake(Approach { conn: conn(ours), direction: Direction::Outbound, env });
    assert_eq!(fault_kind(shaking.await), PeerFaultKind::HandshakeTimeout);
    drop(theirs);
}

#[tokio::test(start_paused = true)]
async fn a_closed_connection_is_noticed_at_once_at_every_wait() {
    let clock = env(0).clock;
    for direction in BOTH {
        for bytes in [Bytes::new(), version(|_| {}), verack()] {
            for cut in [0, 1] {
                let began = clock.now();
                let (shaking, mut theirs) = begin(direction);
                let peer = async {
                    theirs.write_all(&bytes[..bytes.len().saturating_sub(cut)]).await.unwrap();
                    theirs.shutdown().await.unwrap();
                    // Keeps reading, so that the handshake can write.
                    theirs.read_to_end(&mut Vec::new()).await.unwrap();
                };
                let (ended, ()) = tokio::join!(shaking, peer);
                match ended {
                    Err(CloseCause::PeerClosed) => assert!(cut == 0 || bytes.is_empty()),
                    Err(CloseCause::Broken(_)) => assert_eq!(cut, 1),
                    Err(other) => panic!("{other}"),
                    Ok(_) => panic!("established"),
                }
                assert_eq!(clock.now(), began, "noticed at once");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn another_networks_magic_is_refused() {
    let bytes = encode_frame(MAIN.magic, &Packet::Verack);
    for direction in BOTH {
        assert_eq!(fault_kind(meets(direction, &bytes).await), PeerFaultKind::WrongNetwork);
    }
}

#[tokio::test(start_paused = true)]
async fn lengths_are_judged_before_their_bytes_come() {
    let head = |kind, length| Head { magic: MAGIC, kind, length }.encode();
    for (kind, length, expected) in [
        (k::VERSION, 121, PeerFaultKind::Malformed),
        (k::VERSION, 5000, PeerFaultKind::Oversize),
        (k::VERACK, 2000, PeerFaultKind::Oversize),
        (k::VERACK, u32::MAX, PeerFaultKind::Oversize),
        (k::GETHEADERS, 100_000, PeerFaultKind::BadHandshake),
        (200, 20_000, PeerFaultKind::BadHandshake),
    ] {
        assert_eq!(fault_kind(meets(Direction::Inbound, &head(kind, length)).await), expected, "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_version_that_does_not_decode_is_refused() {
    let mut bytes = version(|_| {}).to_vec();
    // The agent's length now reaches past the end.
    bytes[HEAD_LEN + 4 + 8 + 8 + 88 + 8] = 255;
    assert_eq!(fault_kind(meets(Direction::Inbound, &bytes).await), PeerFaultKind::Malformed);
}

#[tokio::test(start_paused = true)]
async fn protocol_version_zero_is_refused_and_one_is_not() {
    let bytes = |number| [version(|version| version.version = number), verack()].concat();
    assert_eq!(fault_kind(meets(Direction::Inbound, &bytes(0)).await), PeerFaultKind::BadHandshake);
    assert_eq!(meets(Direction::Inbound, &bytes(1)).await.map_err(drop).unwrap().facts.version, 1);
}

#[tokio::test(start_paused = true)]
async fn a_second_version_is_refused_and_a_second_verack_is_not() {
    let twice = [version(|_| {}), version(|_| {}), verack()].concat();
    assert_eq!(fault_kind(meets(Direction::Inbound, &twice).await), PeerFaultKind::BadHandshake);
    let twice = [verack(), verack(), version(|_| {})].concat();
    assert!(meets(Direction::Outbound, &twice).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_connection_to_this_node_is_known_at_both_ends() {
    let (near, far) = tokio::io::duplex(1024);
    let env = env(0);
    let us = us(&env);
    let dialled = Approach { conn: conn(near), direction: Direction::Outbound, env: env.clone() };
    let accepted = Approach { conn: conn(far), direction: Direction::Inbound, env };
    let (dialled, accepted) = tokio::join!(us.shake(dialled), us.shake(accepted));
    assert_eq!(fault_kind(dialled), PeerFaultKind::SelfConnection);
    assert_eq!(fault_kind(accepted), PeerFaultKind::SelfConnection);
}

#[tokio::test(start_paused = true)]
async fn what_comes_early_and_what_is_read_past_the_end_is_the_sessions() {
    let question = Packet::GetHeaders(Locator { hashes: vec![[1; 32].into()], stop: [0; 32].into() });
    let question = encode_frame(MAGIC, &question);
    for direction in BOTH {
        let bytes = [&ping()[..], &version(|_| {}), &question, &verack(), &ping(), &question[..20]].concat();
        let mut read_ahead = meets(direction, &bytes).await.map_err(drop).unwrap().read_ahead;
        assert_eq!(read_ahead.split_off(0), [&ping()[..], &question, &ping(), &question[..20]].concat());
    }
}

#[tokio::test(start_paused = true)]
async fn a_few_packets_before_the_end_are_kept_and_more_are_refused() {
    let after = |count: usize, packet: Bytes| {
        [packet.repeat(count), version(|_| {}).to_vec(), verack().to_vec()].concat()
    };
    assert!(meets(Direction::Inbound, &after(EARLY_PACKETS, ping())).await.is_ok());
    let many = after(EARLY_PACKETS + 1, ping());
    assert_eq!(fault_kind(meets(Direction::Inbound, &many).await), PeerFaultKind::BadHandshake);
    let veracks = after(EARLY_PACKETS + 2, verack());
    assert_eq!(fault_kind(meets(Direction::Inbound, &veracks).await), PeerFaultKind::BadHandshake);
    let large = encode_frame(MAGIC, &Packet::Unknown { kind: 77, body: vec![0; EARLY_BYTES / 2].into() });
    let two = after(2, large);
    assert_eq!(fault_kind(meets(Direction::Inbound, &two).await), PeerFaultKind::BadHandshake);
}

#[tokio::test(start_paused = true)]
async fn agents_are_shown_without_control_bytes() {
    let agent = |version: &mut Version| version.agent = Text::new(b"/a\x1b[2J\n\xff/").unwrap();
    let bytes = [version(agent), verack()].concat();
    assert_eq!(meets(Direction::Inbound, &bytes).await.map_err(drop).unwrap().facts.agent, "/a?[2J??/");
}

/// Counts the polls of a handshake and drops it at one of them.
struct DroppedAt<F>(Pin<Box<F>>, usize);

impl<F: Future> Future for DroppedAt<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.1 == 0 {
            return Poll::Ready(None);
        }
        self.1 -= 1;
        self.0.as_mut().poll(cx).map(Some)
    }
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_is_dropped_at_any_await_closes_the_connection() {
    for direction in BOTH {
        let mut established = false;
        for polls in 0..64 {
            let (shaking, mut theirs) = begin(direction);
            let ours = async {
                let ended = DroppedAt(Box::pin(shaking), polls).await;
                ended.is_some_and(|ended| ended.is_ok())
            };
            let peer = async {
                let mut seen = Vec::new();
                for byte in [version(|_| {}), verack()].concat() {
                    // Refused once the other end is gone.
                    let _ = theirs.write_all(&[byte]).await;
                    tokio::task::yield_now().await;
                }
                theirs.read_to_end(&mut seen).await.unwrap();
            };
            // The peer's reading ends: nothing keeps the connection.
            established |= tokio::join!(ours, peer).0;
        }
        let (shaking, mut theirs) = begin(direction);
        theirs.write_all(&[version(|_| {}), verack()].concat()).await.unwrap();
        established |= shaking.await.is_ok();
        assert!(established, "with polls enough it succeeds");
    }
}

/// Runs a handshake against bytes that the peer sends, while it holds the connection open or closes it.
fn against(direction: Direction, bytes: &[u8], holds: bool) -> (Result<Established, CloseCause>, Duration) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(async {
        let clock = env(0).clock;
        let began = clock.now();
        let (shaking, mut theirs) = begin(direction);
        theirs.write_all(bytes).await.unwrap();
        if !holds {
            theirs.shutdown().await.unwrap();
        }
        let ended = shaking.await;
        drop(theirs);
        (ended, clock.now() - began)
    })
}

/// Bytes that get far: frames of this network, true and broken, in any order, and noise.
fn talk() -> impl Strategy<Value = Vec<u8>> {
    let frame = prop_oneof![
        3 => Just(version(|_| {}).to_vec()),
        3 => Just(verack().to_vec()),
        1 => Just(ping().to_vec()),
        1 => (any::<u8>(), prop::collection::vec(any::<u8>(), 0..300))
            .prop_map(|(kind, body)| {
                let head = Head { magic: MAGIC, kind, length: body.len() as u32 }.encode();
                [&head[..], &body].concat()
            }),
        1 => (any::<u8>(), any::<u32>()).prop_map(|(kind, length)| Head { magic: MAGIC, kind, length }.encode().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..40),
        1 => (any::<u8>(), 0..120_usize).prop_map(|(byte, at)| {
            let mut bytes = version(|_| {}).to_vec();
            bytes[at] = byte;
            bytes
        }),
    ];
    prop::collection::vec(frame, 0..8).prop_map(|frames| frames.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_bytes_end_by_the_deadline_and_establish_only_what_is_sound(
        bytes in talk(),
        inbound in any::<bool>(),
        holds in any::<bool>(),
    ) {
        let direction = if inbound { Direction::Inbound } else { Direction::Outbound };
        let (ended, took) = against(direction, &bytes, holds);
        prop_assert!(took < DEADLINE);
        if let Ok(established) = ended {
            prop_assert!(established.facts.version > 0);
            prop_assert!(established.facts.agent.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            prop_assert!(established.read_ahead.len() <= bytes.len());
        }
    }
}

#[test]
fn nothing_runs_before_the_first_poll() {
    let (shaking, theirs) = begin(Direction::Outbound);
    drop(shaking);
    let mut theirs = Box::pin(theirs);
    let mut cx = Context::from_waker(Waker::noop());
    let mut buffer = [0; 8];
    let mut buffer = tokio::io::ReadBuf::new(&mut buffer);
    let read = tokio::io::AsyncRead::poll_read(theirs.as_mut(), &mut cx, &mut buffer);
    assert!(
        matches!(read, Poll::Ready(Ok(()))) && buffer.filled().is_empty(),
        "closed, and nothing was said"
    );
}
