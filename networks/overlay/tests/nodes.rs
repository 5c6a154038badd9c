//! Whole nodes on loopback: everything real, from the socket to the application.

#![expect(clippy::unwrap_used, reason = "in a test, a failure is a result")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rookery_base::CloseCause;
use rookery_engine::registry::watch::Change;
use rookery_overlay::node::{PostError, Reply, RequestFailed, StopError, answering};
use rookery_overlay::services::gossip::{Judgement, Validator};
use rookery_overlay::services::messages::Sent;
use rookery_overlay::services::requests::{AnswerWriter, Handler, Incoming, RequestError, ServiceLimits};
use rookery_overlay::wire::Topic;
use rookery_overlay::wire::request::ServiceName;
use rookery_overlay::{Builder, Event, ExtraKey, Handle, Node};
use rookery_runtime::BoxFuture;
use rookery_transport::tls::{self, Keys};

/// For anything here: far more than it takes, so that only a stall reaches it.
const PATIENCE: Duration = Duration::from_secs(60);

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn builder() -> Builder {
    Builder::new("nodes test").local().listen(loopback()).outbound(0)
}

fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what} did not come"))
}

async fn connected(node: &mut Node) -> rookery_overlay::node::Peer {
    match soon("a peer", node.next()).await {
        Some(Event::Connected(peer)) => peer,
        other => panic!("{other:?}"),
    }
}

async fn two() -> ((Node, Handle), (Node, Handle)) {
    let mut a = builder().start().await.unwrap();
    let mut b = builder().start().await.unwrap();
    let dialled = soon("a session", a.1.connect(b.1.listening())).await.unwrap();
    assert_eq!(dialled.peer, b.1.id());
    assert_eq!(connected(&mut a.0).await.facts.peer, b.1.id());
    assert_eq!(connected(&mut b.0).await.facts.peer, a.1.id());
    (a, b)
}

#[tokio::test]
async fn two_nodes_meet_and_each_learns_of_the_others_end_with_its_reason() {
    let ((a, _), (mut b, b_handle)) = two().await;
    a.stop().await.unwrap();
    let Some(Event::Lost(_, cause)) = soon("the end", b.next()).await else { panic!("no end") };
    assert!(matches!(&cause, CloseCause::ByPeer { code: 0, .. }), "{cause}");
    let accounts = b_handle.engine().accounts();
    assert!(accounts.balanced(), "{accounts:?}");
    b.stop().await.unwrap();
}

#[tokio::test]
async fn a_message_arrives_once_and_its_sender_learns_what_became_of_it() {
    let ((_a, a), (mut b, b_handle)) = two().await;
    assert_eq!(a.send(b_handle.id(), topic("chat"), "nobody listens").await, Sent::NoSubscriber);
    b_handle.listen_to(topic("chat"));
    let sent = soon("an ack", a.send(b_handle.id(), topic("chat"), "hello")).await;
    assert!(matches!(sent, Sent::Accepted(_)), "{sent:?}");
    let Some(Event::Message(message)) = soon("the message", b.next()).await else { panic!("no message") };
    assert_eq!((message.from, &message.payload[..]), (a.id(), &b"hello"[..]));
    assert_eq!(a.send(a.id(), topic("chat"), "to nobody").await, Sent::Gone);
}

/// A message is posted without waiting for the peer; the queue's end is told at once, and how each message ends can be asked for.
#[tokio::test]
async fn a_message_is_posted_without_waiting_and_a_full_queue_is_told() {
    let ((_a, a), (_b, b)) = two().await;
    let id = b.id();
    b.listen_to(topic("chat"));
    // Nobody takes what arrives there: its lane fills, its desk too, and then nothing is acknowledged for a while.
    let mut receipts = Vec::new();
    let full = loop {
        match a.post(id, topic("chat"), vec![0; 200 << 10]).await {
            Ok(receipt) => receipts.push(receipt),
            Err(error) => break error,
        }
        assert!(receipts.len() < 1000, "no end of the queue");
    };
    assert_eq!(full, PostError::QueueFull);
    assert!(full.to_string().contains("8 messages wait"), "{full}");
    assert!(matches!(receipts.remove(0).outcome().await, Sent::Accepted(_)));
    let long = a.post(id, topic("chat"), vec![0; (256 << 10) + 1]).await;
    assert_eq!(long.unwrap_err(), PostError::TooLong((256 << 10) + 1));
    assert_eq!(a.post(a.id(), topic("chat"), "").await.unwrap_err(), PostError::NotConnected);
}

/// What a service says of its refusal is in the error's words, and so are the tasks that kept a node from stopping.
#[tokio::test]
async fn errors_say_what_was_said() {
    let closed = ServiceName::new("closed").unwrap();
    let handler = answering(|_| std::future::ready(Reply::refused("closed\n on Sundays")));
    let (_b, b) = builder().serve(closed.clone(), ServiceLimits::SMALL, handler).start().await.unwrap();
    let (_a, a) = builder().start().await.unwrap();
    soon("a session", a.connect(b.listening())).await.unwrap();
    let refused = soon("an answer", a.request(b.id(), closed, "", b"", PATIENCE, 10)).await.unwrap_err();
    let expected = "the service answered that it does not do that for this peer: closed on Sundays";
    assert_eq!(refused.to_string(), expected);
    let stuck = StopError { tasks: vec!["desk", "quic"] };
    assert_eq!(stuck.to_string(), "not stopped within 5 s: desk, quic did not end");
}

#[tokio::test]
async fn what_one_publishes_reaches_a_subscriber_two_hops_away() {
    let ((_a, a), (_b, b)) = two().await;
    let (_c, c) = builder().start().await.unwrap();
    soon("a session", c.connect(b.listening())).await.unwrap();
    let all: Validator = Arc::new(|_, _| Judgement::Accept);
    let mut b_news = b.subscribe(topic("news"), Arc::clone(&all)).await.unwrap();
    let mut c_news = c.subscribe(topic("news"), all).await.unwrap();
    a.publish(topic("news"), "first").await.unwrap();
    for news in [&mut b_news, &mut c_news] {
        let delivery = soon("the item", news.recv()).await.unwrap();
        assert_eq!((&delivery.payload[..], delivery.missed), (&b"first"[..], 0));
    }
}

/// Gives back what it gets, piece by piece, twice.
struct Twice;

impl Handler for Twice {
    fn handle<'a>(
        &'a self,
        mut request: Incoming,
        answer: &'a mut AnswerWriter,
    ) -> BoxFuture<'a, Result<(), RequestError>> {
        Box::pin(async move {
            while let Some(piece) = request.body.chunk().await? {
                answer.write(&piece).await?;
                answer.write(&piece).await?;
            }
            Ok(())
        })
    }
}

#[tokio::test]
async fn requests_stream_both_ways_at_once_and_unknown_services_are_refused() {
    let limits = ServiceLimits { most_body: 8 << 20, ..ServiceLimits::SMALL };
    let twice = ServiceName::new("twice").unwrap();
    let (_b, b) = builder().serve(twice.clone(), limits, Arc::new(Twice)).start().await.unwrap();
    let (_a, a) = builder().start().await.unwrap();
    soon("a session", a.connect(b.listening())).await.unwrap();
    let body = vec![7; 3 << 20];
    let asked = a.request(b.id(), twice.clone(), "", &body, PATIENCE, 8 << 20);
    let (header, answer) = soon("an answer", asked).await.unwrap();
    assert_eq!((header, answer.len()), (Bytes::new(), 2 * body.len()));
    let none = ServiceName::new("none").unwrap();
    let refused = soon("an answer", a.request(b.id(), none.clone(), "", b"", PATIENCE, 10)).await;
    assert!(matches!(refused, Err(RequestFailed::Request(RequestError::Answered(..)))), "{refused:?}");
    assert_eq!(refused.unwrap_err().to_string(), "the service answered that there is no such service");
    let nobody = a.request(a.id(), none, "", b"", PATIENCE, 10).await;
    assert!(matches!(nobody, Err(RequestFailed::NotConnected(_))), "{nobody:?}");
}

#[tokio::test]
async fn a_newcomer_finds_the_others_through_one_of_them() {
    let (_hub, hub) = builder().start().await.unwrap();
    let at = hub.listening()[0];
    let mut nodes = Vec::new();
    for _ in 0..4 {
        nodes.push(builder().bootstrap(at).outbound(4).start().await.unwrap());
    }
    let all = nodes.len();
    for (node, handle) in &mut nodes {
        let mut met = std::collections::BTreeSet::new();
        while met.len() < all {
            if let Some(Event::Connected(peer)) = soon("another peer", node.next()).await {
                met.insert(peer.facts.peer);
            }
        }
        assert!(!met.contains(&handle.id()));
    }
}

#[tokio::test]
async fn a_folder_keeps_the_identity_and_whom_to_dial() {
    let dir = tempfile::tempdir().unwrap();
    let (_hub, hub) = builder().start().await.unwrap();
    let first = builder().folder(dir.path()).bootstrap(hub.listening()[0]).outbound(1).start().await.unwrap();
    let (mut node, id) = (first.0, first.1.id());
    connected(&mut node).await;
    soon("the other side's record", async {
        while first.1.discovery().candidates().await.is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    node.stop().await.unwrap();
    let (mut again, handle) = builder().folder(dir.path()).outbound(1).start().await.unwrap();
    assert_eq!(handle.id(), id);
    assert_eq!(connected(&mut again).await.facts.peer, hub.id(), "nobody told it of the hub this time");
    again.stop().await.unwrap();
}

#[tokio::test]
async fn nodes_of_other_networks_and_without_post_quantum_keys_are_refused_and_told() {
    let (_a, a) = Builder::new("another").local().start().await.unwrap();
    let (_b, b) = builder().require_post_quantum().start().await.unwrap();
    let refused = soon("a refusal", a.connect(b.listening())).await.unwrap_err();
    assert!(refused.to_string().contains("network"), "{refused}");
    assert!(b.engine().accounts().balanced());
}

/// Where keys do not fit together both ends say whose fault it is and what is missing, and the dialler does not try again.
#[tokio::test]
async fn keys_that_do_not_fit_are_named_on_both_sides() {
    let (_s, strict) = builder().require_post_quantum().start().await.unwrap();
    let (_c, classic) = builder().keys(Keys::Classic).start().await.unwrap();
    let lacks = "has no key that this node accepts; a node that requires post-quantum identities";
    let unwanted =
        "local: the peer accepts no key of this node: it requires another kind, as a post-quantum one";
    for (dialler, dialled, ours, theirs) in
        [(&classic, &strict, unwanted, lacks), (&strict, &classic, lacks, unwanted)]
    {
        let before = dialled.engine().accounts().arrived;
        let refused = soon("a refusal", dialler.connect(dialled.listening())).await.unwrap_err();
        assert!(refused.to_string().contains(ours), "{refused}");
        // The other side may come to write it down a moment later.
        soon("an entry in the other side's ledger", async {
            loop {
                let (why, _) = dialled.engine().why(SocketAddr::new(loopback().ip(), 0)).await;
                if why.iter().any(|why| why.closed.as_ref().is_some_and(|closed| closed.contains(theirs))) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert_eq!(dialled.engine().accounts().arrived, before + 1, "one try");
    }
}

/// A further key whose signatures anybody can make who knows its word: enough to see what is signed.
struct Word(&'static str);

impl ExtraKey for Word {
    fn scheme(&self) -> u8 {
        7
    }

    fn public_key(&self) -> Bytes {
        Bytes::from_static(self.0.as_bytes())
    }

    fn sign(&self, statement: &[u8]) -> Option<Bytes> {
        Some(tls::hash(&[self.0.as_bytes(), statement].concat()).to_vec().into())
    }

    fn verify(&self, scheme: u8, key: &[u8], statement: &[u8], signature: &[u8]) -> bool {
        assert_ne!(key, b"panic", "asked to");
        scheme == 7 && key != b"unwanted" && signature == tls::hash(&[key, statement].concat())
    }

    fn required(&self) -> bool {
        self.0 == "strict"
    }
}

#[tokio::test]
async fn a_further_key_is_proven_to_this_connection_and_shown_to_the_application() {
    let (mut b, b_handle) = builder().extra_key(Arc::new(Word("strict"))).start().await.unwrap();
    let (mut a, a_handle) = builder().extra_key(Arc::new(Word("alice"))).start().await.unwrap();
    soon("a session", a_handle.connect(b_handle.listening())).await.unwrap();
    for (node, word) in [(&mut a, "strict"), (&mut b, "alice")] {
        let extra = connected(node).await.facts.extra.clone().unwrap();
        assert_eq!((extra.scheme, &extra.key[..]), (7, word.as_bytes()));
    }
    let (_c, without) = builder().start().await.unwrap();
    let (_d, unwanted) = builder().extra_key(Arc::new(Word("unwanted"))).start().await.unwrap();
    for refused in [&without, &unwanted] {
        let error = refused.connect(b_handle.listening()).await;
        // The dialler's own handshake may have ended well by then: it is told next.
        assert!(error.is_err() || soon("the end", ended(refused)).await, "{error:?}");
    }
}

async fn ended(handle: &Handle) -> bool {
    let mut states = handle.states();
    while let Some(change) = states.next().await {
        if let Change::Lost(cause) = change.change {
            return cause.to_string().contains("further key");
        }
    }
    false
}

/// Row 11: a panic in the hello, over the real QUIC, costs the one who said it: counted, explained, told, and nothing of it stays.
#[tokio::test]
async fn a_panic_in_the_hello_costs_that_dialler_and_is_told() {
    let (_b, server) = builder().extra_key(Arc::new(Word("bob"))).start().await.unwrap();
    let (_c, bad) = builder().extra_key(Arc::new(Word("panic"))).start().await.unwrap();
    let (_d, good) = builder().extra_key(Arc::new(Word("dave"))).start().await.unwrap();
    let told = soon("an end", bad.connect(server.listening())).await;
    // It may have had the server's hello by then, and a session that ended.
    if let Err(error) = told {
        assert!(error.to_string().contains("an error here"), "{error}");
    }
    soon("the end", async {
        while !bad.engine().peers().await.is_empty() || server.engine().accounts().shaking > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(server.env().metrics.panics.get() > 0);
    let accounts = server.engine().accounts();
    assert!(accounts.balanced() && accounts.refused.contains_key("panic"), "{accounts:?}");
    assert_eq!(server.engine().audit().await.unwrap().slots, 0);
    let (why, _) = server.engine().why("127.0.0.1:0".parse().unwrap()).await;
    assert!(
        why.iter().any(|why| why.closed.as_deref().is_some_and(|said| said.contains("panic"))),
        "{why:?}"
    );
    soon("a session", good.connect(server.listening())).await.unwrap();
    assert_eq!(server.engine().accounts().live, 1);
}
