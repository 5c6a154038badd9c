//! Peers that are known as good: proven identities with which a session has lasted.
//!
//! Kept in memory alone, so after a restart everybody is a stranger until he has lasted again.

use std::collections::{BTreeMap, BTreeSet};

use rookery_base::{CloseCause, Fault, PeerId};

/// Peers that are remembered; the one whose session ended longest ago goes. Four times the largest number of
/// slots that is usual, so that a whole generation of peers that leave can come back.
const KNOWN: usize = 1024;

/// The peers.
#[derive(Debug, Default)]
pub(crate) struct KnownGood {
    turn: u64,
    turns: BTreeMap<PeerId, u64>,
    /// The same, by when they were last here.
    order: BTreeSet<(u64, PeerId)>,
}

impl KnownGood {
    /// A session has ended. A fault of the peer's makes it a stranger again; one that did not last changes nothing.
    pub fn ended(&mut self, peer: PeerId, lasted: bool, cause: &CloseCause) {
        let faulty = matches!(cause, CloseCause::Fault(Fault::Peer(_)));
        if !faulty && !lasted {
            return;
        }
        if let Some(turn) = self.turns.remove(&peer) {
            self.order.remove(&(turn, peer));
        }
        if faulty {
            return;
        }
        self.turn += 1;
        self.turns.insert(peer, self.turn);
        self.order.insert((self.turn, peer));
        if self.turns.len() > KNOWN
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.turns.remove(&oldest);
        }
    }

    /// Whether a peer is known as good.
    pub fn has(&self, peer: &PeerId) -> bool {
        self.turns.contains_key(peer)
    }
}
