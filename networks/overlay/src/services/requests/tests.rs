use super::*;
use crate::services::testing::{env, facts, handle};
use crate::wire::request::{RequestHead, ServiceName};
use rookery_base::Direction;
use rookery_engine::StreamPeer;
use rookery_runtime::{BoxFuture, Env};
use rookery_transport::MuxStream;
use std::sync::Arc;
use tokio::io::AsyncWriteExt;

const SOON: Duration = Duration::from_secs(20);

/// Two ends of one stream, with this much room in each direction.
fn streams(room: usize) -> (MuxStream, MuxStream) {
    let (ours, theirs) = tokio::io::duplex(room);
    let end = |both: tokio::io::DuplexStream| {
        let (read, write) = tokio::io::split(both);
        MuxStream { read: Box::new(read), write: Box::new(write) }
    };
    (end(ours), end(theirs))
}

/// Does what the header says.
struct Actor;

impl Handler for Actor {
    fn handle<'a>(
        &'a self,
        mut request: Incoming,
        answer: &'a mut AnswerWriter,
    ) -> BoxFuture<'a, Result<(), RequestError>> {
        Box::pin(async move {
            match &request.header[..] {
                b"echo" => {
                    answer.begin(Status::Ok, Bytes::from_static(b"as you said")).await?;
                    while let Some(piece) = request.body.chunk().await? {
                        answer.write(&piece).await?;
                    }
                    Ok(())
                }
                b"refuse" => answer.begin(Status::Refused, Bytes::from_static(b"not for you")).await,
                b"read" => answer.write(&request.body.all().await?.len().to_be_bytes()).await,
                b"silent" => Ok(()),
                b"break" => {
                    answer.write(b"half").await?;
                    Err(RequestError::HeaderTooLong)
                }
                _ => std::future::pending().await,
            }
        })
    }
}

fn server() -> RequestServer {
    let limits = ServiceLimits { at_once: 4, most_body: 1 << 20, within: Duration::from_secs(60) };
    RequestServer::new([(ServiceName::new("act").unwrap(), limits, Arc::new(Actor) as Arc<dyn Handler>)])
}

fn peer(env: &Env) -> StreamPeer {
    StreamPeer { facts: facts(Direction::Inbound), handle: handle(), env: env.clone() }
}

fn head(service: &str, header: &'static [u8]) -> RequestHead {
    RequestHead { service: ServiceName::new(service).unwrap(), header: Bytes::from_static(header) }
}

struct Pair {
    env: Env,
    server: RequestServer,
}

impl Pair {
    fn new() -> Self {
        Self { env: env(), server: server() }
    }

    async fn ask(&self, head: RequestHead, body: &[u8]) -> Result<(Bytes, Bytes), RequestError> {
        let (ours, theirs) = streams(4096);
        let asking = ask(ours, self.env.clock, &head, body, SOON, 1 << 20);
        let (answer, _served) = tokio::join!(asking, self.server.serve(peer(&self.env), theirs));
        answer
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_larger_than_all_windows_comes_back_as_it_went() {
    let pair = Pair::new();
    let body: Vec<u8> = (0..300_000_u32).map(|n| (n * 7) as u8).collect();
    let (header, echoed) = pair.ask(head("act", b"echo"), &body).await.unwrap();
    assert_eq!((&header[..], &echoed[..]), (&b"as you said"[..], &body[..]));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_served_is_told() {
    let pair = Pair::new();
    let cases: [(RequestHead, usize, Status); 4] = [
        (head("none", b"echo"), 0, Status::NoService),
        (head("act", b"refuse"), 0, Status::Refused),
        (head("act", b"silent"), 0, Status::Failed),
        (head("act", b"read"), (1 << 20) + 1, Status::TooLarge),
    ];
    for (head, body, status) in cases {
        match pair.ask(head, &vec![0; body]).await {
            Err(RequestError::Answered(told, _)) => assert_eq!(told, status),
            other => panic!("not told {status:?} but {other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_takes_too_long_and_one_that_is_busy_are_told() {
    let pair = Pair::new();
    let (mut held, mut callers) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let (ours, theirs) = streams(4096);
        callers.push(begin(ours, pair.env.clock, &head("act", b"hang")).await.unwrap());
        let (server, peer) = (pair.server.clone(), peer(&pair.env));
        held.push(Box::pin(async move { server.serve(peer, theirs).await }));
    }
    let [first, second] = &mut held[..] else { panic!("two") };
    tokio::select! {
        biased;
        _ = first => panic!("served"),
        _ = second => panic!("served"),
        answer = pair.ask(head("act", b"echo"), b"") => {
            assert!(matches!(answer, Err(RequestError::Answered(Status::Busy, _))), "{answer:?}");
        }
    }
    for serving in held {
        assert!(matches!(serving.await, Err(RequestError::Late("the service", 60))));
    }
    for (_, pending) in callers {
        assert_eq!(pending.answer(SOON, 0).await.unwrap().status, Status::Late);
    }
    assert!(pair.ask(head("act", b"echo"), b"x").await.is_ok(), "the places are free again");
}

/// Row 25: a peer that asks without end gets half of what is left, so that there is a place for whoever has none.
#[tokio::test(start_paused = true)]
async fn however_much_some_ask_there_is_a_place_for_another_peer() {
    let env = env();
    let limits = ServiceLimits { at_once: 64, most_body: 0, within: Duration::from_secs(60) };
    let act = ServiceName::new("act").unwrap();
    let server = RequestServer::new([(act, limits, Arc::new(Actor) as Arc<dyn Handler>)]);
    let mut held = Vec::new();
    let mut hang = async |n: u8| {
        let mut asker = peer(&env);
        asker.facts.peer = crate::services::testing::peer(n);
        let (ours, theirs) = streams(4096);
        let (_, pending) = begin(ours, env.clock, &head("act", b"hang")).await.unwrap();
        let server = server.clone();
        let mut serving = Box::pin(async move { server.serve(asker, theirs).await });
        // Whoever is told no has been after one poll, with a whole turn to itself.
        tokio::task::yield_now().await;
        let served = futures_util::poll!(&mut serving).is_pending();
        held.push((serving, pending));
        served
    };
    let mut places = Vec::new();
    for n in 0..6 {
        let mut served = 0;
        while hang(n).await {
            served += 1;
        }
        places.push(served);
    }
    assert_eq!(places, [32, 16, 8, 4, 2, 1]);
    assert!(hang(6).await, "who has none");
    held.truncate(32);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_says_nothing_or_stops_in_a_body_is_given_up() {
    let pair = Pair::new();
    let (ours, theirs) = streams(4096);
    let silent = pair.server.serve(peer(&pair.env), theirs).await;
    assert!(matches!(silent, Err(RequestError::Late("a head", 10))), "{silent:?}");
    drop(ours);
    let (ours, theirs) = streams(4096);
    let (mut body, _pending) = begin(ours, pair.env.clock, &head("act", b"read")).await.unwrap();
    body.write(b"something").await.unwrap();
    let stopped = pair.server.serve(peer(&pair.env), theirs).await;
    assert!(matches!(stopped, Err(RequestError::Late("the next piece of a body", 30))), "{stopped:?}");
}

#[tokio::test(start_paused = true)]
async fn who_does_not_read_the_answer_is_given_up() {
    let pair = Pair::new();
    let (ours, theirs) = streams(4096);
    let caller = async {
        let (mut body, pending) = begin(ours, pair.env.clock, &head("act", b"echo")).await.unwrap();
        let wrote = body.write(&[0; 100_000]).await;
        (wrote, pending)
    };
    let (served, _) = tokio::join!(pair.server.serve(peer(&pair.env), theirs), caller);
    assert!(matches!(served, Err(RequestError::Late("writing a piece of a body", 30))), "{served:?}");
}

#[tokio::test(start_paused = true)]
async fn a_head_that_is_none_gets_no_answer() {
    let pair = Pair::new();
    for bad in [&[0xff, 0xff][..], &[0, 1, 0], &[0, 4, 1, b'a', 0xff, 0xff]] {
        let (mut ours, theirs) = streams(4096);
        ours.write.write_all(bad).await.unwrap();
        let served = pair.server.serve(peer(&pair.env), theirs).await;
        assert!(matches!(served, Err(RequestError::Malformed(_))), "{bad:?}: {served:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_over_the_callers_bound_is_not_taken() {
    let pair = Pair::new();
    let (ours, theirs) = streams(4096);
    let request = head("act", b"echo");
    let asking = ask(ours, pair.env.clock, &request, &[0; 5000], SOON, 4999);
    let (answer, _) = tokio::join!(asking, pair.server.serve(peer(&pair.env), theirs));
    assert!(matches!(answer, Err(RequestError::TooLarge(4999))), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn a_caller_waits_no_longer_than_it_said() {
    let env = env();
    let (ours, _theirs) = streams(4096);
    let answer = ask(ours, env.clock, &head("act", b"echo"), b"", SOON, 10).await;
    assert!(matches!(answer, Err(RequestError::Late(..))), "{answer:?}");
}
