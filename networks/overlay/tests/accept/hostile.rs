//! Peers that have a connection and use it badly: each meets its end with its own cause, and honest ones notice nothing
//! (rows 11, 12, 15, 25).

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{join_all, select};
use rookery_base::{CloseCause, Hash32};
use rookery_engine::Limits;
use rookery_overlay::services::gossip::{Judgement, Validator};
use rookery_overlay::services::requests::{AnswerWriter, Handler, Incoming, RequestError, ServiceLimits};
use rookery_overlay::wire::hello::{HEAD_LEN, network_id};
use rookery_overlay::wire::request::{RequestHead, ServiceName};
use rookery_overlay::wire::{Hello, ping};
use rookery_overlay::{Event, Handle, Node};
use rookery_runtime::BoxFuture;
use rookery_transport::tls::{Identity, KeyHashes, Keys};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::{PATIENCE, builder, conserved, dialler, own_address, server, soon, talk, topic, until};
use crate::raw::{Raw, frame, told};

/// Bytes instead of a hello, and what a peer that sends them is told.
fn bad_hellos(raw: &Raw) -> Vec<(Vec<u8>, &'static str)> {
    let good = || raw.hello();
    let whole = good().encode().to_vec();
    let with = |at: usize, bytes: &[u8]| {
        let mut bent = whole.clone();
        bent[at..at + bytes.len()].copy_from_slice(bytes);
        bent
    };
    let of = |hello: Hello| hello.encode().to_vec();
    vec![
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "not with a hello"),
        (vec![0; 64], "not with a hello"),
        (with(8, &[0xff, 0xff]), "the most is 8192"),
        (with(8, &[0, 20]), "hello:"),
        (with(HEAD_LEN + 44, &[0; 8]), "incarnation"),
        (of(Hello { network: network_id("another"), ..good() }), "of network"),
        (of(Hello { network: Hash32::ZERO, ..good() }), "of network"),
        (of(Hello { version: 9, min_version: 8, ..good() }), "versions 8 to 9"),
    ]
}

#[tokio::test]
async fn whoever_says_no_proper_hello_is_told_what_is_wrong_with_it() {
    let (_s, server) = server(Limits::LOCAL).await;
    let at = server.listening()[0];
    let raw = Raw::new(1);
    let bad = bad_hellos(&raw);
    for (bytes, words) in &bad {
        let (conn, _stream) = raw.say(at, bytes).await;
        let (code, reason) = soon("the end", told(&conn.mux)).await;
        assert!(code == 1 && reason.contains(words), "{reason} ({code}), not {words}");
    }
    // Half of one, then the end of the stream.
    let (conn, mut stream) = raw.say(at, &raw.hello().encode()[..30]).await;
    stream.write.shutdown().await.unwrap();
    assert_ne!(soon("the end", told(&conn.mux)).await.0, 0);
    let accounts = until(&server, "empty", |now| now.shaking == 0).await;
    let refused: u64 = accounts.refused.values().sum();
    assert_eq!((accounts.live, refused), (0, bad.len() as u64 + 1), "{accounts:?}");
}

/// Row 12: whoever names a victim's key as its other one is somebody else, who names both of the victim's is nobody, and the
/// victim's session stays.
#[tokio::test]
async fn a_thief_of_an_identity_is_somebody_else() {
    let (_s, server) = server(Limits::LOCAL).await;
    let at = server.listening()[0];
    let victim = Identity::from_seed(&[9; 32], Keys::Both).unwrap();
    let (_v, honest) = builder().identity(victim.clone()).start().await.unwrap();
    honest.listen_to(topic());
    soon("a session", honest.connect([at])).await.unwrap();
    let (thief, mut held) = (Raw::new(66), Vec::new());
    for stolen in [victim.hashes().post_quantum, victim.hashes().classic] {
        let keys = KeyHashes { post_quantum: stolen, ..thief.identity.hashes() };
        let hello = Hello { keys, incarnation: u64::MAX, ..thief.hello() };
        held.push(thief.say(at, &hello.encode()).await);
        let id = keys.peer_id();
        assert_ne!(id, victim.peer_id());
        soon("a session as somebody else", async {
            while server.engine().session(id).await.is_none() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        talk(&honest, &server).await;
    }
    let swapped = KeyHashes { post_quantum: thief.identity.hashes().classic, ..victim.hashes() };
    for keys in [victim.hashes(), swapped] {
        let hello = Hello { keys, incarnation: u64::MAX, ..thief.hello() };
        let (conn, _stream) = thief.say(at, &hello.encode()).await;
        let (code, reason) = soon("the end", told(&conn.mux)).await;
        assert!(code == 1 && reason.contains("none of those that its hello names"), "{code} {reason}");
        talk(&honest, &server).await;
    }
    assert!(server.engine().accounts().ended.is_empty());
}

/// What ends a session, and the words of it.
fn bad_frames() -> Vec<(Vec<u8>, &'static str)> {
    vec![
        (frame(1, &[0; 9]), "9 bytes"),
        (frame(2, &[0; 8]), ""),
        (vec![10, 0xff, 0xff, 0xff], "16777215"),
        (frame(10, &[0; 9]), ""),
        (frame(20, &[0; 33]), ""),
        (frame(20, &[200; 40]), ""),
        (frame(22, &[0; 33]), ""),
        (frame(23, &[255]), ""),
        (frame(30, &[17]), ""),
        // The first answers a question, if it was asked already.
        (frame(31, &[0]).repeat(2), ""),
        (vec![99, 0, 0x20, 0], ""),
    ]
}

#[tokio::test]
async fn frames_over_their_caps_malformed_or_unasked_end_their_session_and_no_other() {
    let (_s, server) = server(Limits::LOCAL).await;
    let at = server.listening()[0];
    let (_d, honest) = dialler(None).await;
    soon("a session", honest.connect([at])).await.unwrap();
    for (number, (bytes, words)) in bad_frames().into_iter().enumerate() {
        let raw = Raw::new(number as u64);
        let (conn, mut stream) = raw.join(at).await;
        stream.write.write_all(&bytes).await.unwrap();
        let (code, reason) = soon(&format!("the end after frame {number}"), told(&conn.mux)).await;
        assert!(code == 1 && reason.contains(words), "frame {number}: {reason} ({code})");
        talk(&honest, &server).await;
    }
    until(&server, "alone with the honest", |now| now.live == 1 && now.shaking == 0).await;
}

/// Answers with what it was asked, or panics when it was asked to.
struct Echo;

impl Handler for Echo {
    fn handle<'a>(
        &'a self,
        mut request: Incoming,
        answer: &'a mut AnswerWriter,
    ) -> BoxFuture<'a, Result<(), RequestError>> {
        Box::pin(async move {
            let body = request.body.all().await?;
            assert_ne!(&body[..], b"panic", "asked to");
            answer.write(&body).await
        })
    }
}

fn echo() -> ServiceName {
    ServiceName::new("echo").unwrap()
}

async fn serving() -> (Node, Handle) {
    let builder = builder().listen("127.0.0.1:0".parse().unwrap());
    let server = builder.serve(echo(), ServiceLimits::SMALL, Arc::new(Echo)).start().await.unwrap();
    server.1.listen_to(topic());
    server
}

async fn asks(honest: &Handle, server: &Handle, times: usize) {
    for _ in 0..times {
        let asked = honest.request(server.id(), echo(), "", b"hello", PATIENCE, 100);
        assert_eq!(&soon("an answer", asked).await.unwrap().1[..], b"hello");
    }
}

/// Row 25: a peer a hundred times above its rate is read no faster than its rate, and others are served.
#[tokio::test]
async fn a_flooding_peer_waits_and_others_are_answered() {
    let (_s, server) = serving().await;
    let at: SocketAddr = server.listening()[0];
    let (_d, honest) = dialler(None).await;
    soon("a session", honest.connect([at])).await.unwrap();
    let raw = Raw::at(1, own_address(1)).await;
    let (_conn, mut stream) = raw.join(at).await;
    let flood = async {
        // Ten a second are allowed, fifty at once.
        let bytes = frame(1, &ping::encode(7)).repeat(1000);
        while stream.write.write_all(&bytes).await.is_ok() {}
        panic!("the flooder was cut off, not slowed down");
    };
    let served = Box::pin(asks(&honest, &server, 200));
    conserved(&server, select(served, Box::pin(flood))).await;
    let (found, _) = server.engine().why(own_address(1)).await;
    let view = found[0].live.as_ref().unwrap();
    assert!(view.parked || view.frames_in < 1000, "{view:?}");
    assert_eq!(server.engine().accounts().live, 2);
}

/// Streams without end: as many as QUIC's limit, each open, none finished; the next has to wait.
#[tokio::test]
async fn streams_without_end_stop_at_the_limit_and_others_are_answered() {
    let (_s, server) = serving().await;
    let at = server.listening()[0];
    let (_d, honest) = dialler(None).await;
    soon("a session", honest.connect([at])).await.unwrap();
    let raw = Raw::new(1);
    let (conn, _stream) = raw.join(at).await;
    let mut open = Vec::new();
    // Stream 0 is one of them.
    for _ in 1..rookery_transport::QuicLimits::DEFAULT.streams {
        let mut stream = soon("a stream", conn.mux.open()).await.unwrap();
        stream.write.write_all(&[0]).await.unwrap();
        open.push(stream);
    }
    let one_more = async {
        let _stream = conn.mux.open().await.unwrap();
        panic!("a stream above the limit");
    };
    select(Box::pin(asks(&honest, &server, 100)), Box::pin(one_more)).await;
    assert_eq!(server.engine().accounts().live, 2);
}

/// Row 25: two that ask without end, each as much as QUIC lets it, and never finish: others are answered all the same.
#[tokio::test]
async fn questions_without_end_leave_places_for_those_of_others() {
    let (_s, server) = serving().await;
    let at = server.listening()[0];
    let (_d, honest) = dialler(None).await;
    soon("a session", honest.connect([at])).await.unwrap();
    let question = RequestHead { service: echo(), header: Bytes::new() }.encode().unwrap();
    let (mut open, mut held) = (Vec::new(), Vec::new());
    for n in 1..=2 {
        let raw = Raw::new(n);
        let (conn, stream) = raw.join(at).await;
        for _ in 1..rookery_transport::QuicLimits::DEFAULT.streams {
            let mut stream = soon("a stream", conn.mux.open()).await.unwrap();
            stream.write.write_all(&question).await.unwrap();
            open.push(stream);
        }
        // All have been judged when the last of them is answered busy.
        let last = open.last_mut().unwrap();
        soon("busy", last.read.read_exact(&mut [0])).await.unwrap();
        held.push((raw, conn, stream));
    }
    asks(&honest, &server, 100).await;
    assert_eq!(server.engine().accounts().live, 3);
}

/// Rows 20, 21: what a stranger says before its hello is held in a stranger's part, however many streams it says it on.
#[tokio::test]
async fn a_stranger_can_have_little_held_before_it_is_let_in() {
    let (_s, server) = serving().await;
    let at = server.listening()[0];
    let (_d, honest) = dialler(None).await;
    soon("a session", honest.connect([at])).await.unwrap();
    let raw = Raw::new(1);
    let conn = raw.dial(at).await.unwrap();
    let _hello = conn.mux.open().await.unwrap();
    let mut streams = Vec::new();
    for _ in 0..16 {
        streams.push(conn.mux.open().await.unwrap());
    }
    let filling = join_all(streams.iter_mut().map(|stream| stream.write.write_all(&[7; 100_000])));
    select(Box::pin(filling), Box::pin(asks(&honest, &server, 300))).await;
    let sent = conn.mux.stats().sent * 1200;
    // 16 KiB and what its handshake takes; a session's window would be a megabyte.
    assert!(sent < 64 << 10, "{sent} bytes");
    assert_eq!(server.engine().accounts().shaking, 1);
}

/// Row 11: a handler that panics costs the peer that asked, a validator that panics costs the item; both are counted.
#[tokio::test]
async fn panics_of_the_application_cost_one_peer_or_one_item_and_are_counted() {
    let (mut node, server) = serving().await;
    let at = server.listening()[0];
    let ((_a, a), (_b, b)) = (dialler(None).await, dialler(None).await);
    for honest in [&a, &b] {
        soon("a session", honest.connect([at])).await.unwrap();
    }
    for honest in [&a, &b] {
        let Event::Connected(peer) = soon("a peer", node.next()).await.unwrap() else { panic!("lost") };
        assert_eq!(peer.facts.peer, honest.id());
    }
    assert!(soon("an end", a.request(server.id(), echo(), "", b"panic", PATIENCE, 9)).await.is_err());
    let Event::Lost(peer, cause) = soon("the end", node.next()).await.unwrap() else { panic!("not lost") };
    assert_eq!((peer.facts.peer, cause), (a.id(), CloseCause::Panic));
    assert_eq!(server.env().metrics.panics.get(), 1);
    asks(&b, &server, 1).await;
    soon("another session", a.connect([at])).await.unwrap();
    asks(&a, &server, 1).await;

    let nervous: Validator = Arc::new(|_, payload| {
        assert_ne!(payload, b"panic", "asked to");
        Judgement::Accept
    });
    let mut news = server.subscribe(topic(), nervous).await.unwrap();
    a.publish(topic(), "panic").await.unwrap();
    soon("the panic", async {
        while server.env().metrics.panics.get() < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    a.publish(topic(), "calm").await.unwrap();
    assert_eq!(&soon("the item", news.recv()).await.unwrap().payload[..], b"calm");
    talk(&b, &server).await;
    assert_eq!(server.engine().accounts().live, 2);
    assert!(node.stop_cause().is_none());
}

/// Rows 15 and 21: who stands still is cut at the deadline of the stage in which it does, one byte a second or none.
#[tokio::test]
async fn handshakes_that_stand_still_end_at_the_deadline_of_their_stage() {
    let mut limits = Limits::LOCAL;
    limits.handshakes.connect = std::time::Duration::from_secs(1);
    let (_s, server) = server(limits).await;
    let at = server.listening()[0];
    let raws: Vec<Raw> = (0..12).map(Raw::new).collect();
    let standing = join_all(raws.iter().enumerate().map(|(n, raw)| async move {
        let conn = raw.dial(at).await.unwrap();
        let dripping = async {
            if n % 2 == 0 {
                return std::future::pending().await;
            }
            let mut stream = conn.mux.open().await.unwrap();
            for byte in raw.hello().encode() {
                if stream.write.write_all(&[byte]).await.is_err() {
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            }
            std::future::pending::<()>().await
        };
        tokio::select! {
            told = told(&conn.mux) => told,
            () = dripping => unreachable!(),
        }
    }));
    for (code, reason) in conserved(&server, standing).await {
        assert!(code == 1 && reason.contains("the network's handshake"), "{reason} ({code})");
    }
    assert_eq!(until(&server, "empty", |now| now.shaking == 0).await.refused["handshake_timeout"], 12);
}
