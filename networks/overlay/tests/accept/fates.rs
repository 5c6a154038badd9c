//! Whatever becomes of a peer, `why` names the cause that a test has put there (issue of explainability: 297 of 300).

use std::net::SocketAddr;

use rookery_engine::registry::SessionLimits;
use rookery_engine::{HandshakeLimits, Limits};
use rookery_overlay::Handle;
use rookery_overlay::wire::hello::network_id;
use rookery_overlay::wire::{Hello, ping};
use rookery_transport::{MuxConn, MuxStream};
use tokio::io::AsyncWriteExt;

use crate::common::{own_address, server, soon, until};
use crate::raw::{Raw, frame, told};

/// What is kept so that it lives while its fate is asked for.
type Held = (Raw, Option<(MuxConn, MuxStream)>);

/// What is done to a peer or by it, and the words that have to say so.
const FATES: [(&str, &str); 12] = [
    ("hello of another network", "of network"),
    ("hello of something else", "not with a hello"),
    ("hello too long", "the most is 8192"),
    ("hello without incarnation", "incarnation"),
    ("hello of a later version", "versions 8 to 9"),
    ("goodbye in the handshake", "changed my mind"),
    ("frame too long", "16777215"),
    ("unasked answer", "pong"),
    ("bad record question", "most"),
    ("goodbye", "had enough"),
    ("operator", "by the operator"),
    ("parked", "parked"),
];

async fn suffer(fate: &str, number: usize, at: SocketAddr, server: &Handle) -> Held {
    let from = own_address(number);
    let raw = Raw::at(number as u64, from).await;
    let good = || raw.hello();
    let bytes = match fate {
        "hello of another network" => {
            Some(Hello { network: network_id("another"), ..good() }.encode().to_vec())
        }
        "hello of something else" => Some(vec![7; 64]),
        "hello too long" => Some([b"ROOKOVL1", &[0xff, 0xff][..]].concat()),
        "hello without incarnation" => Some(Hello { incarnation: 0, ..good() }.encode().to_vec()),
        "hello of a later version" => Some(Hello { version: 9, min_version: 8, ..good() }.encode().to_vec()),
        "goodbye in the handshake" => {
            let (conn, stream) = raw.say(at, &good().encode()[..5]).await;
            conn.mux.close(9, "changed my mind");
            return (raw, Some((conn, stream)));
        }
        _ => None,
    };
    if let Some(bytes) = bytes {
        let (conn, stream) = raw.say(at, &bytes).await;
        soon("the end", told(&conn.mux)).await;
        return (raw, Some((conn, stream)));
    }
    let (conn, mut stream) = raw.join(at).await;
    let bytes = match fate {
        "frame too long" => vec![10, 0xff, 0xff, 0xff],
        "unasked answer" => frame(2, &ping::encode(1)),
        "bad record question" => frame(30, &[17]),
        "parked" => frame(1, &ping::encode(7)).repeat(200),
        "goodbye" => {
            conn.mux.close(9, "had enough");
            return (raw, Some((conn, stream)));
        }
        _ => {
            // The routine has to be there before it can be told to end.
            while server.engine().disconnect(from_any_port(from)).await == 0 {
                tokio::task::yield_now().await;
            }
            Vec::new()
        }
    };
    let _ = stream.write.write_all(&bytes).await;
    if fate != "parked" {
        soon("the end", told(&conn.mux)).await;
    }
    (raw, Some((conn, stream)))
}

fn from_any_port(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip(), 0)
}

/// Whether what is known about an address says so, within what a loaded machine may take to get there.
async fn explained(server: &Handle, number: usize, words: &str) -> Result<(), String> {
    let mut last = String::new();
    for _ in 0..2000 {
        let (found, _) = server.engine().why(from_any_port(own_address(number))).await;
        let closed = found.iter().filter_map(|why| why.closed.as_deref());
        let facts = found.iter().flat_map(|why| why.facts.iter().map(|fact| fact.what.as_str()));
        last = closed.chain(facts).collect::<Vec<_>>().join(" | ");
        if last.contains(words) {
            return Ok(());
        }
        tokio::task::yield_now().await;
    }
    Err(format!("{number}: not {words}, but: {last}"))
}

#[tokio::test]
async fn why_names_the_cause_of_three_hundred_and_more_fates_over_the_wire() {
    const TIMES: usize = 21;
    const EVICTED: usize = 30;
    const FULL: usize = 40;
    let (_s, one) = server(Limits::LOCAL).await;
    let at = one.listening()[0];
    let (mut held, mut wrong) = (Vec::new(), Vec::new());
    for n in 0..TIMES * FATES.len() {
        held.push(suffer(FATES[n % FATES.len()].0, n, at, &one).await);
    }
    for n in 0..TIMES * FATES.len() {
        wrong.extend(explained(&one, n, FATES[n % FATES.len()].1).await.err());
    }
    // Handshakes that made room: with one place, each ends the one before.
    let handshakes = HandshakeLimits { total: 1, grace: std::time::Duration::ZERO, ..HandshakeLimits::LOCAL };
    let (_s, narrow) = server(Limits { handshakes, ..Limits::LOCAL }).await;
    for n in 0..=EVICTED {
        let raw = Raw::at(n as u64, own_address(n)).await;
        let conn = raw.dial(narrow.listening()[0]).await.unwrap();
        let stream = conn.mux.open().await.unwrap();
        held.push((raw, Some((conn, stream))));
    }
    until(&narrow, "one left", |now| now.shaking == 1).await;
    for n in 0..EVICTED {
        wrong.extend(explained(&narrow, n, "room").await.err());
    }
    // Sessions that found no slot.
    let sessions = SessionLimits { inbound: 0, ..SessionLimits::LOCAL };
    let (_s, full) = server(Limits { sessions, ..Limits::LOCAL }).await;
    for n in 0..FULL {
        let raw = Raw::at(n as u64, own_address(n)).await;
        let (conn, stream) = raw.say(full.listening()[0], &raw.hello().encode()).await;
        assert!(soon("the end", told(&conn.mux)).await.1.contains("slots"));
        held.push((raw, Some((conn, stream))));
        wrong.extend(explained(&full, n, "all slots are taken").await.err());
    }
    let all = TIMES * FATES.len() + EVICTED + FULL;
    assert!(all >= 300);
    assert!(100 * wrong.len() <= all, "{} of {all} were not explained: {wrong:#?}", wrong.len());
    for node in [&one, &narrow, &full] {
        assert!(node.engine().accounts().balanced());
    }
}
