//! What the header reactor hears from pipes, and what it tells them.

use rookery_base::{Charge, Generation, Hash32, Height, PeerFault};
use rookery_engine::PeerHandle;
use rookery_runtime::{Lane, LaneOpener};

use bytes::Bytes;

use crate::HeaderFacts;

/// From a network's headers pipe to the reactor, through that peer's lane.
#[derive(Debug)]
pub enum HeadersMail {
    /// A session is established. First in its lane.
    Up {
        /// The session.
        peer: PeerHandle,
        /// The height that the peer claims.
        height: Height,
        /// Its clock minus ours in seconds, as its handshake told.
        time_offset: i64,
    },
    /// Headers came whose proof of work holds ([`Chain::check`](crate::Chain::check)).
    Batch {
        /// From this session.
        from: Generation,
        /// Their facts, in the order in which they came.
        facts: Vec<HeaderFacts>,
        /// The raw headers, one after the other.
        raw: Bytes,
        /// What they hold of the byte budgets, until they are stored.
        charge: Charge,
        /// Whether they answer an [`HeadersOrder::Ask`].
        asked: bool,
    },
    /// An [`HeadersOrder::Ask`] ended without headers.
    Unanswered {
        /// By this session.
        from: Generation,
        /// How it ended: `timed_out`, `refused`.
        why: &'static str,
    },
    /// The peer announced blocks by hash alone.
    Announced {
        /// By this session.
        from: Generation,
        /// The last of the hashes.
        hash: Hash32,
    },
    /// The peer asks for headers.
    Locate {
        /// By this session.
        from: Generation,
        /// Hashes that it knows, best first.
        locator: Vec<Hash32>,
        /// Where to stop.
        stop: Hash32,
    },
    /// The session is gone. The farewell of its lane.
    Gone(Generation),
}

/// What a [`HeadersMail::Locate`] counts as in its lane: its answer may be half a megabyte, and a peer that asks often
/// must not be served before those that deliver.
pub const LOCATE_COST: usize = 32 * 1024;

/// From the reactor to a session's headers pipe.
#[derive(Debug)]
pub enum HeadersOrder {
    /// Ask for headers after the first hash of the locator that the peer knows. Ends in exactly one
    /// [`HeadersMail::Batch`] with `asked`, or [`HeadersMail::Unanswered`], or [`HeadersMail::Gone`].
    Ask {
        /// Hashes that we know, best first.
        locator: Vec<Hash32>,
    },
    /// Answer a [`HeadersMail::Locate`] with these raw headers.
    Serve {
        /// The raw headers, one after the other.
        raw: Bytes,
    },
    /// Tell the peer of new headers: as headers if it wants them so, else by hash.
    Announce {
        /// The raw headers, one after the other, oldest first.
        raw: Bytes,
        /// The hash of each.
        hashes: Vec<Hash32>,
    },
    /// The peer's data broke a rule that only the reactor can judge.
    Fault(PeerFault),
    /// A fact for the peer's ledger.
    Note(String),
}

/// Opens lanes to a header reactor; held by a network's headers service.
#[derive(Clone)]
pub struct HeadersService(pub(crate) LaneOpener<HeadersMail>);

impl HeadersService {
    /// Opens lanes to another mailbox than the reactor's, to test a network with.
    pub const fn to(mailbox: LaneOpener<HeadersMail>) -> Self {
        Self(mailbox)
    }

    /// A lane for one session; its farewell tells that the session is gone. `None` when all lanes are taken.
    pub fn open(&self, session: Generation) -> Option<Lane<HeadersMail>> {
        self.0.open(HeadersMail::Gone(session))
    }
}
