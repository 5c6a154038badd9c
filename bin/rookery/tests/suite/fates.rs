//! What became of three hundred peers of a running node, and what `rookery peers ADDRESS why` and `rookery why` say of it.

use std::net::SocketAddr;

use rookery_base::PeerId;
use rookery_overlay::wire::Topic;
use rookery_overlay::{Builder, Handle, Node as OverlayNode};
use rookery_transport::tls::{Identity, Keys};

use crate::overlay::Node;

/// Sessions that the node has room for: those that park, and those that have to make room.
const ROOM: usize = PARKED + EVICTED;
const STRANGERS: usize = 80;
const LEFT: usize = 80;
const PARKED: usize = 60;
const EVICTED: usize = 50;
const FULL: usize = 50;
/// Above a burst of messages, so that the node stops reading.
const MESSAGES: usize = 220;
/// Looks at what is known before it is held for the last word: sessions end a moment after their peers.
const LOOKS: usize = 100;

/// A peer of the running node, for as long as it is held.
struct Visitor {
    _node: OverlayNode,
    handle: Handle,
    /// Who let it in.
    met: Option<PeerId>,
}

struct Fates {
    runtime: tokio::runtime::Runtime,
    at: SocketAddr,
    peers: usize,
    held: Vec<Visitor>,
    /// Where each is, and what has to be said of it.
    expected: Vec<(SocketAddr, &'static str)>,
}

impl Fates {
    /// A node with an identity and an address of its own, in this group of addresses, that has tried to connect.
    fn visit(&mut self, network: &str, group: u8, fate: &'static str) -> Visitor {
        let number = self.peers;
        self.peers += 1;
        let mut seed = [3; 32];
        seed[..8].copy_from_slice(&number.to_be_bytes());
        let from = SocketAddr::from(([127, group, (number >> 8) as u8, number as u8], 0));
        self.expected.push((from, fate));
        self.runtime.block_on(async {
            let identity = Identity::from_seed(&seed, Keys::Classic).unwrap();
            let builder = Builder::new(network).identity(identity).local().outbound(0).listen(from);
            let (node, handle) = builder.start().await.unwrap();
            // Refusals are what some of them are here for.
            let met = handle.connect(vec![self.at]).await.ok().map(|dialled| dialled.peer);
            Visitor { _node: node, handle, met }
        })
    }

    fn stay(&mut self, group: u8, fate: &'static str) {
        let visitor = self.visit("rookery", group, fate);
        self.held.push(visitor);
    }

    /// Those whose fate the running node does not name.
    fn unexplained(&self, node: &Node) -> Vec<String> {
        let explained = |ip: &str, words: &str| {
            let mut said = String::new();
            for _ in 0..LOOKS {
                said = node.ask(&format!("peers {ip} why"));
                if said.contains(words) {
                    return None;
                }
            }
            Some(format!("{ip}: not {words:?}, but {said}"))
        };
        self.expected.iter().filter_map(|(at, words)| explained(&at.ip().to_string(), words)).collect()
    }
}

#[test]
fn the_program_names_the_cause_of_three_hundred_fates() {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(home.path().join(".config/rookery")).unwrap();
    let file = home.path().join(".config/rookery/config.toml");
    std::fs::write(file, format!("max_inbound = {ROOM}\n")).unwrap();
    let (node, at) = Node::listening(home.path(), "--topic chat");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut fates =
        Fates { runtime, at: at.parse().unwrap(), peers: 0, held: Vec::new(), expected: Vec::new() };
    for _ in 0..STRANGERS {
        drop(fates.visit("another", 1, "of network"));
    }
    for _ in 0..LEFT {
        drop(fates.visit("rookery", 1, "the peer closed"));
    }
    for _ in 0..PARKED {
        let visitor = fates.visit("rookery", 1, "the rate of message");
        let (peer, topic) = (visitor.met.unwrap(), Topic::new("flood").unwrap());
        fates.runtime.block_on(async {
            for _ in 0..MESSAGES {
                while visitor.handle.post(peer, topic.clone(), "again").await.is_err() {
                    tokio::task::yield_now().await;
                }
            }
        });
        fates.held.push(visitor);
    }
    for _ in 0..EVICTED {
        fates.stay(1, "evicted");
    }
    // The first of a group each: for each the youngest of the crowded one goes.
    for group in 0..EVICTED {
        fates.stay(2 + group as u8, "connected (inbound)");
    }
    for _ in 0..FULL {
        fates.stay(1, "all slots are taken");
    }
    let wrong = fates.unexplained(&node);
    let all = fates.expected.len();
    assert!(all >= 300 && 100 * wrong.len() <= all, "{} of {all} are not explained: {wrong:#?}", wrong.len());
    let why = node.ask("why");
    for (cause, least) in
        [("wrong network", STRANGERS), ("closed by peer", LEFT), ("evicted", EVICTED), ("full", FULL)]
    {
        let number = why
            .split_once(&format!("{cause} "))
            .and_then(|(_, rest)| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<usize>().ok());
        // Some of them came more than once.
        assert!(number >= Some(least), "{cause}: {why}");
    }
}
