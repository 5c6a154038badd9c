//! `topics`, `inventory`, `want`, `item`: what anybody publishes reaches every subscriber, once.
//!
//! ```text
//!  session begins  -> topics: ours                    each change -> topics, whole again
//!  topics          -> inventory: the recent items under them that this peer may not have
//!  inventory       -> of what is new: want, one peer at a time ... item -> valid? -> application
//!                     nothing for 2 s: the next announcer too                    -> inventory to all other subscribers
//!  want            -> item, once for each session; or that it is not there any more
//! ```
//!
//! **Delivery.** Peers tell of an item only after they accepted it, and only to subscribers of its topic. Where the
//! subscribers of a topic are connected among themselves, each of them gets each item, whoever leaves on the way:
//! a want that fails goes to the next announcer, and a new session begins with the recent items. Each subscriber's
//! application gets an item once. Order is not kept. Who published is not told: what has to be known, the payload
//! signs. An item can be sent round again by somebody who kept it, after [`SEEN_FOR`]: payloads that must not be
//! repeated say when they were made, and the validator ignores old ones.
//!
//! **The validator** is the application's, a function of topic and payload. It runs in the reactor, so it must be short
//! (a signature is; a database is not). `Accept` delivers and relays. `Ignore` drops. `Reject` says that no honest peer
//! would have relayed it: the peer gets [`REJECT_SCORE`] points, and five of those are a ban.
//!
//! | abuse | what stops it |
//! |---|---|
//! | announcing what does not exist | [`PENDING`] ids wait through one peer; a peer whose wants fail is asked after all others |
//! | announcing first and never sending | after [`HEDGE`] the next announcer is asked; the oldest of more than two is given up |
//! | sending something else | an item is its hash; what does not hash to its id ends the session |
//! | wanting the same item again and again | an item is served once to each session, then it is "not there" |
//! | junk under a topic | the validator; and rates per peer |
//! | large items | refused before they are read, unless one was asked for |
//! | many topics | 64, in one message that replaces the last |
//! | publishing faster than the application takes | the newest are lost to *it*, and the next delivery says how many; relaying goes on |
//!
//! | file | what it holds |
//! |---|---|
//! | `state.rs` | the rules, pure: items, announcers, subscriptions; orders for peers come out |
//! | `peer.rs`, `slots.rs` | one neighbour; who was told of an item, as bits |
//! | `actor.rs` | the loop, and the handle of the application |
//! | `pipe.rs` | one peer's half |

mod actor;
mod peer;
mod pipe;
mod slots;
mod state;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rookery_base::{Generation, PeerFault};
use rookery_engine::{KindSpec, LaneName, Over, PeerFacts, PeerHandle, Pipe, Role, Service};
use rookery_runtime::LaneOpener;

use super::{rate, spec};
use crate::wire::Topic;
use crate::wire::gossip::{self as wire, Inventory, Item, ItemId};
use crate::wire::kind::{INVENTORY, ITEM, TOPICS, WANT};

pub use actor::{Gossip, GossipHandle, PublishError, SubscribeError};

/// How long an item is kept to be served: many times what it takes to cross the network.
pub const HELD_FOR: Duration = Duration::from_secs(120);
/// Items kept to be served, and their bytes: a busy network's two minutes, and what that may cost.
pub const HELD: usize = 4096;
/// See [`HELD`].
pub const HELD_BYTES: usize = 16 * 1024 * 1024;
/// How long an id is known as seen: five times as long as anybody serves it.
pub const SEEN_FOR: Duration = Duration::from_secs(600);
/// Ids known as seen: 100 a second for [`SEEN_FOR`]; 6 MB.
pub const SEEN: usize = 65_536;
/// Ids that may wait to be fetched through one peer: two full inventories. What is announced above it is not looked at,
/// and comes again from somebody else.
pub const PENDING: usize = 256;
/// Wants open towards one peer: a megabyte of the largest items on their way, a quarter of its outbox's answer lane.
pub const OPEN_WANTS: u16 = 16;
/// How long one announcer is waited for alone. A full item on a line of 1 Mbit/s takes half a second.
pub const HEDGE: Duration = Duration::from_secs(2);
/// Announcers asked for the same item at the same time.
pub const ASKED_AT_ONCE: usize = 2;
/// The end of a want: sixteen full items on a line of 1 Mbit/s.
pub const WANT_WITHIN: Duration = Duration::from_secs(10);
/// Points for relaying what the validator rejects.
pub const REJECT_SCORE: u32 = 20;
/// Ids told to a new subscriber: four inventories of the newest.
pub const CATCH_UP: usize = 512;
/// Orders and ids that wait for a peer whose routine does not keep up. Above it the oldest are dropped: another neighbour
/// will tell it.
pub const BACKLOG: usize = 1024;

/// What this service declares.
///
/// `topics`: an application changes them by hand. `inventory`: fifty a second of up to 128 ids are more than the network
/// can carry; above it the peer waits. `want` and `item`: sixteen are open at a time, so several hundred a second are a
/// fast line.
pub const SPECS: [KindSpec; 4] = [
    spec(
        TOPICS,
        "topics",
        (1, wire::MAX_TOPICS_LEN),
        Role::Notice,
        rate(1.0, 16, Over::Wait),
        LaneName::Control,
    ),
    spec(
        INVENTORY,
        "inventory",
        (wire::MIN_INVENTORY_LEN, wire::MAX_INVENTORY_LEN),
        Role::Notice,
        rate(50.0, 200, Over::Wait),
        LaneName::Gossip,
    ),
    spec(
        WANT,
        "want",
        (wire::WANT_LEN, wire::WANT_LEN),
        Role::Request(OPEN_WANTS),
        rate(500.0, 1000, Over::Wait),
        LaneName::Control,
    ),
    spec(
        ITEM,
        "item",
        (wire::MIN_ITEM_LEN, wire::MAX_ITEM_LEN),
        Role::Answer { to: WANT, unasked: 0 },
        rate(1000.0, 2000, Over::Wait),
        LaneName::Answer,
    ),
];

/// What the application's validator says of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// Deliver and relay.
    Accept,
    /// Drop: old, or of no use, and nobody's fault.
    Ignore,
    /// Drop: no honest peer would have relayed it.
    Reject,
}

/// Judges items of a topic. Short: it runs in the reactor.
pub type Validator = Arc<dyn Fn(&Topic, &[u8]) -> Judgement + Send + Sync>;

/// An item, as a subscriber gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Its id.
    pub id: ItemId,
    /// Its topic.
    pub topic: Topic,
    /// What it says.
    pub payload: Bytes,
    /// Items before this one that were lost because the subscriber did not keep up.
    pub missed: u64,
}

/// From pipes to the reactor.
#[derive(Debug)]
pub(crate) enum Mail {
    /// A session is established. First in its lane.
    Up(PeerHandle),
    /// The peer's topics.
    Topics(Generation, Vec<Topic>),
    /// The peer has these items.
    Announced(Generation, Inventory),
    /// The peer wants an item.
    Wanted(Generation, ItemId),
    /// The peer's answer to a want: the item, with its body as it came, or nothing.
    Answered(Generation, ItemId, Option<(Item, Bytes)>),
    /// A want ended without an answer.
    Unanswered(Generation, ItemId),
    /// The session has ended. The farewell of its lane.
    Gone(Generation),
}

/// From the reactor to one peer's pipe, several at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Order {
    /// Tell our topics.
    Topics(Bytes),
    /// Tell of items, one inventory.
    Announce(Topic, Vec<ItemId>),
    /// Ask for an item. Ends in one [`Mail::Answered`] or [`Mail::Unanswered`], unless cancelled or the session ends.
    Want(ItemId),
    /// An item is no longer wanted of this peer.
    Cancel(ItemId),
    /// Answer a want with this body.
    Serve(Bytes),
    /// The peer broke a rule that only the reactor can judge.
    Fault(PeerFault),
}

/// The service: one pipe for each peer, and the way to the reactor.
pub struct GossipService {
    mail: LaneOpener<Mail>,
}

impl Service for GossipService {
    fn name(&self) -> &'static str {
        "gossip"
    }

    fn kinds(&self) -> &[KindSpec] {
        &SPECS
    }

    fn pipe(&self, _facts: &PeerFacts, handle: PeerHandle) -> Box<dyn Pipe> {
        let lane = self.mail.open(Mail::Gone(handle.generation));
        Box::new(pipe::GossipPipe::new(lane, handle))
    }
}
