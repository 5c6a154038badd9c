//! One hostile peer of each kind against one node: what becomes of it, and what the ledger says.
//!
//! The rogue dials the node and is the only one that is there; an honest server joins later. Whatever the rogue did,
//! the node then has the honest chain within [`SYNC_WITHIN`].

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rookery_observe::metrics::Outcome;

use super::Scenario;
use crate::chainworld::{ChainWorld, Line, Plan, host};
use crate::hostile::{self, Rogue};
use crate::world::{Failure, Report};

/// What must become of a rogue.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// Its handshakes end so.
    NoSession(&'static str),
    /// A session of its ends so, and its ledger says it.
    Closed(&'static str),
    /// The same, and its address is refused.
    Banned(&'static str),
    /// Its session stays, and its ledger holds this.
    Noted(&'static str),
    /// Its session stays: it is throttled, read past, or merely of no use.
    Kept,
}

struct Case {
    name: &'static str,
    about: &'static str,
    rogue: Rogue,
    fate: Fate,
}

const fn case(name: &'static str, rogue: Rogue, fate: Fate, about: &'static str) -> Case {
    Case { name, about, rogue, fate }
}

const CASES: [Case; 35] = [
    case(
        "rogue-mute-dialler",
        Rogue::Stage(0),
        Fate::NoSession("handshake_timeout"),
        "connects and says nothing",
    ),
    case("rogue-half-version", Rogue::Stage(1), Fate::NoSession("handshake_timeout"), "sends half a version"),
    case(
        "rogue-no-verack",
        Rogue::Stage(2),
        Fate::NoSession("handshake_timeout"),
        "sends a version and no verack",
    ),
    case(
        "rogue-no-version",
        Rogue::Stage(3),
        Fate::NoSession("handshake_timeout"),
        "sends a verack and no version",
    ),
    case(
        "rogue-wrong-magic",
        Rogue::WrongMagic,
        Fate::NoSession("wrong_network"),
        "speaks for another network",
    ),
    case("rogue-drop-0", Rogue::DropAt(0), Fate::NoSession("peer_closed"), "closes at once"),
    case("rogue-drop-1", Rogue::DropAt(1), Fate::NoSession("broken"), "closes inside the handshake"),
    case("rogue-drop-2", Rogue::DropAt(2), Fate::Closed("broken"), "closes after the handshake"),
    case("rogue-drop-3", Rogue::DropAt(3), Fate::Closed("peer_closed"), "closes when it is asked"),
    case("rogue-drop-4", Rogue::DropAt(4), Fate::Closed("broken"), "closes inside its answer"),
    case(
        "rogue-hasty",
        Rogue::Hasty,
        Fate::Closed("broken"),
        "comes back under the same address, over and over",
    ),
    case("rogue-silent", Rogue::Silent, Fate::Closed("silent"), "says nothing after the handshake"),
    case("rogue-mute", Rogue::Mute, Fate::Closed("dropped"), "claims height 1,000,000 and never answers"),
    case("rogue-late", Rogue::Late, Fate::Closed("dropped"), "answers after the deadline, each time"),
    case("rogue-trickle", Rogue::Trickle, Fate::Closed("silent"), "sends an answer at 1,000 bytes a second"),
    case("rogue-one-by-one", Rogue::OneByOne, Fate::Kept, "answers with one header at a time"),
    case("rogue-lying-tip", Rogue::LyingTip, Fate::Kept, "claims height 1,000,000 and serves what there is"),
    case(
        "rogue-unlinked",
        Rogue::Unlinked,
        Fate::Closed("invalid_data"),
        "leaves a header out of its answer",
    ),
    case("rogue-orphans", Rogue::Orphans, Fate::Kept, "answers with headers that begin nowhere"),
    case("rogue-bad-work", Rogue::BadWork, Fate::Closed("invalid_data"), "sends a header without its work"),
    case("rogue-bad-bits", Rogue::BadBits, Fate::Banned("bad_chain"), "sends a header with other bits"),
    case("rogue-future", Rogue::Future, Fate::Noted("bad_chain"), "sends a header three hours ahead"),
    case("rogue-twice", Rogue::Twice, Fate::Closed("unsolicited"), "sends each answer twice"),
    case("rogue-pings", Rogue::Pings, Fate::Kept, "floods with pings"),
    case("rogue-questions", Rogue::Questions, Fate::Kept, "floods with questions for headers"),
    case(
        "rogue-proofs",
        Rogue::Proofs,
        Fate::Closed("flood"),
        "asks for more proofs a second than hsd stands",
    ),
    case("rogue-invs", Rogue::Invs, Fate::Kept, "announces blocks that there are not"),
    case("rogue-addrs", Rogue::Addrs, Fate::Kept, "floods with addresses"),
    case(
        "rogue-many-addrs",
        Rogue::ManyAddrs,
        Fate::Banned("oversize"),
        "sends a thousand addresses and one",
    ),
    case("rogue-unknown", Rogue::Unknown, Fate::Kept, "floods with kinds that nobody knows"),
    case(
        "rogue-oversize",
        Rogue::Oversize,
        Fate::Closed("oversize"),
        "announces a length that no packet has",
    ),
    case(
        "rogue-wrong-clock",
        Rogue::WrongClock,
        Fate::Kept,
        "serves well and has a clock that is an hour ahead",
    ),
    case(
        "rogue-forks",
        Rogue::Forks,
        Fate::Noted("rests"),
        "sends full messages of forks without much work, without end",
    ),
    case("rogue-short-forks", Rogue::ShortForks, Fate::Kept, "the same, in messages that are not full"),
    case("rogue-garbage", Rogue::Garbage, Fate::Closed("wrong_network"), "sends noise"),
];

/// Longest until a rogue's fate is sealed: three deadlines of 30 s with a rest of 60 s after each.
const FATE_WITHIN: Duration = Duration::from_secs(300);
/// A rogue that is kept is looked at after this: past the first deadline.
const LOOK_AFTER: Duration = Duration::from_secs(45);
/// The server is redialled within half a minute; then one hedge at the most, and two messages.
const SYNC_WITHIN: Duration = Duration::from_secs(60);
/// Questions that a node may have asked a peer which brought it no further: as many as fill the side of its tree.
const MOST_ASKS: u64 = 12;
/// One full message and a part.
const HEIGHT: u32 = 2_500;

const NODE: u32 = 1;
const SERVER: u32 = 2;
const ROGUE: u32 = 3;

/// Runs case `N`: a scenario is a function of its seed alone.
fn run<const N: usize>(seed: u64) -> Result<Report, Box<Failure>> {
    let case = &CASES[N];
    let cw = ChainWorld::new(case.name, seed);
    cw.run(async {
        let line = Arc::new(Line::trunk(HEIGHT));
        let node = cw.add(host(NODE), Plan::to(&[host(SERVER)])).await?;
        hostile::start(&cw, host(ROGUE), case.rogue, &line, &[host(NODE)]);
        let began = cw.world.clock().now();
        loop {
            cw.world.pass(Duration::from_secs(1)).await;
            let waited = cw.world.clock().now() - began;
            let handshakes =
                |outcome| node.node.env.metrics.handshakes.get_or_create(&Outcome { outcome }).get();
            let seen = match case.fate {
                Fate::NoSession(outcome) => handshakes(outcome) > 0 && handshakes("established") == 0,
                fate => waited >= LOOK_AFTER.min(least(fate)) && met(&cw, fate, host(ROGUE)).await?,
            };
            if seen {
                break;
            }
            if waited > FATE_WITHIN {
                let (ledger, banned) = cw.ledger(host(ROGUE), host(NODE)).await?;
                return Err(format!("expected {:?}; banned: {banned}, its ledger: {ledger:#?}", case.fate));
            }
        }
        let asks = cw.world.auditor().count("ask");
        if asks > MOST_ASKS && case.rogue != Rogue::OneByOne {
            return Err(format!("asked {asks} times, {MOST_ASKS} are enough to know this peer"));
        }
        let took = (cw.world.clock().now() - began).as_secs();
        cw.world.say(format!("{:?} after {took} s", case.fate));
        cw.add(host(SERVER), Plan::default().with(&line.image())).await?;
        cw.agree(&[host(NODE), host(SERVER)], HEIGHT, SYNC_WITHIN).await
    })
}

/// How long must pass before a fate can be told.
const fn least(fate: Fate) -> Duration {
    match fate {
        Fate::Kept => LOOK_AFTER,
        _ => Duration::ZERO,
    }
}

async fn met(cw: &ChainWorld, fate: Fate, rogue: IpAddr) -> Result<bool, String> {
    let engine = cw.up(host(NODE))?.chain.engine;
    let (ledger, banned) = cw.ledger(rogue, host(NODE)).await?;
    let noted = |what: &str| ledger.iter().any(|line| line.contains(what));
    let closed = engine.closed().await;
    let ended = |label| closed.iter().any(|end| end.addr.ip() == rogue && end.cause.label() == label);
    let sits = engine.peers().await.iter().any(|peer| peer.addr.ip() == rogue);
    Ok(match fate {
        Fate::NoSession(_) => false,
        Fate::Closed(label) => ended(label) && noted("closed: ") && !banned,
        Fate::Banned(label) => ended(label) && noted(label) && banned && !sits,
        Fate::Noted(label) => noted(label) && sits && !banned,
        Fate::Kept => sits && closed.is_empty() && !banned,
    })
}

macro_rules! scenarios {
    ($($n:literal)*) => {
        /// One scenario for each case.
        pub(super) const ALL: [Scenario; CASES.len()] =
            [$(Scenario { name: CASES[$n].name, about: CASES[$n].about, run: run::<$n> }),*];
    };
}

scenarios!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34);
