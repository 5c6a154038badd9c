//! What the reactor believes about itself, for invariants.

use std::time::Duration;

use rookery_base::{Generation, Height};
use rookery_runtime::Instant;

use super::roster::Roster;
use crate::tree::HeaderTree;

/// A peer as the reactor sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerAudit {
    /// Its session.
    pub session: Generation,
    /// The height that it is believed to have.
    pub claimed: Height,
    /// For how long it has been asked, if it is.
    pub asked: Option<Duration>,
    /// Whether that is to see whether it has anything, and not for the headers after the tip.
    pub probe: bool,
    /// How often in a row it has failed.
    pub strikes: u32,
}

/// The reactor's books.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadersAudit {
    /// Its peers.
    pub peers: Vec<PeerAudit>,
    /// Requests that it counts as out for the headers after the tip.
    pub working: usize,
    /// Bytes that wait for the store.
    pub pending_bytes: usize,
    /// Headers that are on no main chain.
    pub side_headers: usize,
}

pub(super) fn audit(roster: &Roster, tree: &HeaderTree, now: Instant) -> HeadersAudit {
    let peers = roster.iter().map(|peer| PeerAudit {
        session: peer.handle.generation,
        claimed: peer.claimed,
        asked: peer.asked.map(|asked| now.saturating_duration_since(asked.at)),
        probe: peer.asked.is_some_and(|asked| !asked.purpose.is_work()),
        strikes: peer.strikes,
    });
    HeadersAudit {
        peers: peers.collect(),
        working: roster.working(),
        pending_bytes: tree.pending_bytes(),
        side_headers: tree.side_headers(),
    }
}
