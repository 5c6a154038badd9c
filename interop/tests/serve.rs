//! What `rookery run` answers is what hsd answers: the same questions to both, on the same chain.
//!
//! Each question goes to both on new connections. Where the table says [`Same`] the answers are equal byte by byte;
//! where it says [`Differs`] both are as stated, and the reason stands there and in `docs/interop.md`.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use rookery_base::Hash32;
use rookery_handshake::params::REGTEST;
use rookery_handshake::wire::proof::GetProof;
use rookery_handshake::wire::{Inv, InvKind, Locator, Packet, kind, kind_info};
use rookery_interop::chain::{hsd_with, length, submit_after};
use rookery_interop::client::{Client, Heard};
use rookery_interop::hsd::Hsd;
use rookery_interop::rookery::{Node, Sync};
use rookery_interop::turn;
use serde_json::json;
use tempfile::TempDir;

/// How long a sync of a test's chain may take.
const SYNC_WITHIN: Duration = Duration::from_secs(120);
/// How long an answer may take. hsd reads headers from disk the first time: up to a second for 2,000 of them, and
/// more on a busy machine.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// After what is expected has come, nothing more may come for this long. So silence is believed after this long too.
const QUIET: Duration = Duration::from_millis(1000);
/// For what a peer says without being asked, to new connections.
const GREETING: Duration = Duration::from_millis(300);

/// What is expected of the two.
enum Expect {
    /// The same bytes, of this shape.
    Same(String),
    /// Two shapes, and why ours is another.
    Differs { hsd: &'static str, ours: &'static str, why: &'static str },
}
use Expect::{Differs, Same};

/// Packets to send, and what both make of them.
struct Question {
    name: &'static str,
    packets: Vec<(u8, Bytes)>,
    expect: Expect,
}

fn ask(name: &'static str, packets: &[Packet], expect: Expect) -> Question {
    Question { name, packets: packets.iter().map(raw).collect(), expect }
}

fn raw(packet: &Packet) -> (u8, Bytes) {
    let mut body = BytesMut::new();
    packet.encode(&mut body);
    (packet.kind(), body.freeze())
}

fn same(shape: &str) -> Expect {
    Same(shape.to_owned())
}

/// What was heard, in words: `headers(2000)`, `pong, closed`, `silence`.
fn shape(heard: &Heard) -> String {
    let mut words: Vec<String> = heard.packets.iter().map(|(number, body)| word(*number, body)).collect();
    if heard.closed {
        words.push("closed".to_owned());
    }
    if words.is_empty() { "silence".to_owned() } else { words.join(", ") }
}

fn word(number: u8, body: &Bytes) -> String {
    match Packet::decode(number, body) {
        Ok(Packet::Headers(headers)) => format!("headers({})", headers.len()),
        Ok(Packet::Inv(items)) => format!("inv({})", items.len()),
        Ok(Packet::Addr(addrs)) => format!("addr({})", addrs.len()),
        Ok(Packet::NotFound(items)) => format!("notfound({})", items.len()),
        Ok(_) => kind_info(number).map_or_else(|| format!("kind {number}"), |info| info.name.to_owned()),
        Err(error) => panic!("kind {number} that we cannot read: {error}"),
    }
}

/// One peer's answer to a question on a connection of its own.
fn answer(peer: SocketAddr, question: &Question, expected: &str) -> Heard {
    let mut client = Client::connect(peer);
    // What it says without being asked differs by what it wants to know of us.
    client.hear(GREETING);
    for (number, body) in &question.packets {
        client.send_raw(*number, body);
    }
    hear(&mut client, expected)
}

/// What comes until it is as expected and then nothing comes any more, or until patience ends.
fn hear(client: &mut Client, expected: &str) -> Heard {
    let start = Instant::now();
    let mut all = Heard { packets: Vec::new(), closed: false };
    loop {
        let more = client.hear(QUIET);
        // A peer pings when its timer says so.
        all.packets.extend(more.packets.into_iter().filter(|(number, _)| *number != kind::PING));
        all.closed = more.closed;
        if all.closed || shape(&all) == expected || start.elapsed() > ANSWER_WITHIN {
            return all;
        }
    }
}

/// Both at the same tip, after a branch of 2 lost to one of 3, so that both know what lost.
struct Stage {
    hsd: Hsd,
    node: Node,
    stale: Hash32,
}

fn stage() -> Stage {
    let hsd = hsd_with(length());
    let node = Node::start(&[hsd.addr()]);
    let lost = hsd.mine(2);
    node.await_tip(&lost[1].to_string(), SYNC_WITHIN);
    let won = submit_after(&hsd, length(), 3);
    node.await_tip(&won[2].to_string(), SYNC_WITHIN);
    Stage { hsd, node, stale: lost[1] }
}

fn getheaders(hashes: &[Hash32], stop: Hash32) -> Packet {
    Packet::GetHeaders(Locator { hashes: hashes.to_vec(), stop })
}

/// A hash that nobody knows.
fn unknown(salt: u8) -> Hash32 {
    Hash32([salt; 32])
}

fn locators(stage: &Stage) -> Vec<Question> {
    let hsd = &stage.hsd;
    let top = hsd.height();
    let middle = top - top / 3;
    let (mid, tip, near) = (hsd.hash_at(middle), hsd.tip(), hsd.hash_at(top - 3));
    let after = |height: u32| Same(format!("headers({})", (top - height).min(2000)));
    let none = Hash32::ZERO;
    let many: Vec<Hash32> = (0..99).map(|_| unknown(7)).chain([near]).collect();
    let one = |name, hashes: &[Hash32], stop, expect| ask(name, &[getheaders(hashes, stop)], expect);
    vec![
        one("locator: middle", &[mid], none, after(middle)),
        one("locator: near the tip", &[near], none, after(top - 3)),
        one("locator: tip", &[tip], none, same("silence")),
        one("locator: genesis", &[REGTEST.genesis_hash], none, same("headers(2000)")),
        one("locator: newest of several wins", &[near, mid, REGTEST.genesis_hash], none, after(top - 3)),
        one("locator: unknown", &[unknown(1)], none, same("headers(2000)")),
        one("locator: unknown, then known", &[unknown(1), near], none, after(top - 3)),
        one("locator: of a branch that lost", &[stage.stale], none, same("headers(2000)")),
        one("locator: of a branch that lost, then known", &[stage.stale, near], none, after(top - 3)),
        one("stop: inside", &[mid], hsd.hash_at(middle + 10), same("headers(10)")),
        one("stop: the next", &[mid], hsd.hash_at(middle + 1), same("headers(1)")),
        one("stop: before the locator", &[near], mid, after(top - 3)),
        one("stop: the locator's own", &[near], near, after(top - 3)),
        one("stop: unknown", &[near], unknown(2), after(top - 3)),
        one("no locator, stop: genesis", &[], REGTEST.genesis_hash, same("headers(1)")),
        one("no locator, stop: middle", &[], mid, same("headers(1)")),
        one("no locator, stop: tip", &[], tip, same("headers(1)")),
        one("no locator, stop: of a branch that lost", &[], stage.stale, same("headers(1)")),
        one("no locator, stop: unknown", &[], unknown(2), same("silence")),
        one("no locator, no stop", &[], none, same("silence")),
        ask(
            "two questions at once",
            &[getheaders(&[near], none), getheaders(&[hsd.hash_at(top - 1)], none)],
            same("headers(3), headers(1)"),
        ),
        one(
            "locator: 99 unknown, then known",
            &many,
            none,
            Differs {
                hsd: "headers(3)",
                ours: "headers(2000)",
                why: "64 hashes are looked at, an honest locator has about thirty; without a known one the answer \
                      starts after genesis",
            },
        ),
    ]
}

fn signs_of_life() -> Vec<Question> {
    let ping = Packet::Ping(*b"question");
    let long = Question {
        name: "ping with bytes behind the nonce",
        packets: vec![(kind::PING, Bytes::from_static(b"questionmore"))],
        expect: same("pong"),
    };
    let unknown_kind = |name, number| Question {
        name,
        packets: vec![(number, Bytes::from_static(b"abc")), raw(&ping)],
        expect: same("pong"),
    };
    vec![
        long,
        ask(
            "getaddr, twice",
            &[Packet::GetAddr, Packet::GetAddr],
            Differs { hsd: "addr(1)", ours: "addr(1)", why: "each tells of its own book, and once" },
        ),
        unknown_kind("unknown kind 30", 30),
        unknown_kind("unknown kind 200", 200),
        unknown_kind("unknown kind 255", 255),
        ask("verack again", &[Packet::Verack, ping.clone()], same("pong")),
        ask("sendheaders", &[Packet::SendHeaders, ping.clone()], same("pong")),
        ask("ping", &[ping], same("pong")),
    ]
}

fn inventory(stage: &Stage) -> Vec<Question> {
    let item = |kind, hash| Packet::GetData(vec![Inv { kind, hash }]);
    let tip = stage.hsd.tip();
    let no_blocks = "this node keeps headers only, and says so instead of closing or serving";
    vec![
        ask("getdata of an unknown transaction", &[item(InvKind::TX, unknown(1))], same("notfound(1)")),
        ask(
            "getdata of an unknown block",
            &[item(InvKind::BLOCK, unknown(1))],
            Differs { hsd: "closed", ours: "notfound(1)", why: no_blocks },
        ),
        ask(
            "getdata of a block",
            &[item(InvKind::BLOCK, tip)],
            Differs { hsd: "block", ours: "notfound(1)", why: no_blocks },
        ),
    ]
}

/// What an honest light client does not send, or not to a node that says it keeps no blocks.
fn unwelcome(stage: &Stage) -> Vec<Question> {
    let ping = Packet::Ping(*b"question");
    let version = Packet::Version(Box::new(Client::connect(stage.hsd.addr()).version));
    let proof = Packet::GetProof(GetProof { root: unknown(3), key: unknown(4) });
    let near = stage.hsd.hash_at(stage.hsd.height() - 3);
    let blocks = Packet::GetBlocks(Locator { hashes: vec![near], stop: Hash32::ZERO });
    let cut = Question {
        name: "getheaders, cut off",
        packets: vec![(kind::GETHEADERS, Bytes::from_static(&[1; 20])), raw(&ping)],
        expect: Differs {
            hsd: "reject, pong",
            ours: "closed",
            why: "bytes that cannot be read end the connection; hsd tells, counts, and bans at the tenth",
        },
    };
    vec![
        ask("version again", &[version], same("closed")),
        ask(
            "getproof of an unknown root",
            &[proof],
            Differs {
                hsd: "closed",
                ours: "silence",
                why: "silence, as of a light hsd: this node keeps no name tree, so an unknown root says nothing",
            },
        ),
        ask(
            "getblocks",
            &[blocks, ping.clone()],
            Differs { hsd: "inv(3), pong", ours: "pong", why: "this node has no blocks to offer" },
        ),
        ask(
            "mempool",
            &[Packet::Mempool, ping.clone()],
            Differs { hsd: "closed", ours: "pong", why: "it costs nothing to read past it" },
        ),
        ask(
            "pong that answers no ping",
            &[Packet::Pong(*b"unasked!"), ping],
            Differs {
                hsd: "pong",
                ours: "closed",
                why: "an answer that nobody asked for ends the connection",
            },
        ),
        cut,
    ]
}

/// Asks every question, and says which answers were not as expected.
fn compare(stage: &Stage, questions: &[Question]) {
    let mut wrong = Vec::new();
    for question in questions {
        let name = question.name;
        let (of_hsd, of_us, why) = match &question.expect {
            Same(both) => (both.as_str(), both.as_str(), "byte by byte the same"),
            Differs { hsd, ours, why } => (*hsd, *ours, *why),
        };
        let (hsd, ours) = std::thread::scope(|scope| {
            let hsd = scope.spawn(|| answer(stage.hsd.addr(), question, of_hsd));
            let ours = answer(stage.node.addr(), question, of_us);
            (hsd.join().expect("hsd was asked"), ours)
        });
        let (theirs, mine) = (shape(&hsd), shape(&ours));
        println!("{name}: hsd {theirs}; rookery {mine}");
        let equal = hsd == ours || matches!(question.expect, Differs { .. });
        if !(equal && theirs == of_hsd && mine == of_us) {
            wrong.push(format!("{name}: expected {of_hsd} | {of_us} ({why}), got {theirs} | {mine}"));
        }
        // It bans by address, and every connection here has the same one.
        stage.hsd.forgive();
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn getheaders_is_answered_as_hsd_answers_it() {
    let _turn = turn();
    let stage = stage();
    let questions = locators(&stage);
    compare(&stage, &questions);
}

#[test]
fn everything_else_is_answered_as_hsd_answers_it_or_as_stated() {
    let _turn = turn();
    let stage = stage();
    let mut questions = signs_of_life();
    questions.extend(inventory(&stage));
    questions.extend(unwelcome(&stage));
    compare(&stage, &questions);
}

#[test]
fn both_introduce_themselves_alike() {
    let _turn = turn();
    let stage = stage();
    let (hsd, ours) = (Client::connect(stage.hsd.addr()), Client::connect(stage.node.addr()));
    println!("hsd: {:?}\nrookery: {:?}", hsd.version, ours.version);
    assert_eq!(ours.greeting[..2], hsd.greeting[..2], "verack, then version");
    assert_eq!(ours.version.version, hsd.version.version);
    assert_eq!(ours.version.height, hsd.version.height);
    assert_eq!(ours.version.remote.ip, hsd.version.remote.ip);
    let apart = ours.version.time.abs_diff(hsd.version.time);
    assert!(apart <= 5, "clocks of one machine are {apart} s apart");
}

#[test]
fn new_blocks_are_announced_as_hsd_announces_them() {
    let _turn = turn();
    let stage = stage();
    let mut clients: Vec<(&str, Client, Client)> = ["plain", "sendheaders"]
        .into_iter()
        .map(|name| (name, Client::connect(stage.hsd.addr()), Client::connect(stage.node.addr())))
        .collect();
    for (name, hsd, ours) in &mut clients {
        for client in [hsd, ours] {
            if *name == "sendheaders" {
                client.send(&Packet::SendHeaders);
            }
            client.hear(GREETING);
        }
    }
    stage.hsd.mine(1);
    for (name, hsd, ours) in &mut clients {
        let expected = if *name == "plain" { "inv(1)" } else { "headers(1)" };
        let [hsd, ours] = [hsd, ours].map(|client| hear(client, expected));
        println!("new block, {name}: hsd {}; rookery {}", shape(&hsd), shape(&ours));
        assert_eq!((hsd == ours, shape(&hsd).as_str()), (true, expected), "{name}: {hsd:?} {ours:?}");
    }
}

#[test]
fn a_second_node_syncs_from_the_first_alone() {
    let _turn = turn();
    let hsd = hsd_with(length());
    let first = Node::start(&[hsd.addr()]);
    let tip = hsd.tip().to_string();
    first.await_tip(&tip, SYNC_WITHIN);
    drop(hsd);
    let data = TempDir::new().expect("a temporary directory can be made");
    let summary = Sync::start(data.path(), first.addr()).summary(SYNC_WITHIN);
    println!("synced from rookery: {summary}");
    assert_eq!((&summary["tip"], &summary["headers"]), (&json!(tip), &json!(length())));

    // And it follows a block that neither of them mined.
    let second = Node::start_in(data.path(), &[first.addr()]);
    second.await_tip(&tip, SYNC_WITHIN);
}
