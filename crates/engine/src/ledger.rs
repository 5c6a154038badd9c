//! The last facts that shaped a peer's fate, and its score.

use std::collections::VecDeque;

use rookery_base::{PeerFault, Weight};

/// Facts kept per peer: enough to tell the story of its end, little enough to keep for every recent peer.
const KEPT: usize = 24;
/// Points at which a peer is banned (hsd's threshold).
pub const BAN_SCORE: u32 = 100;

/// One fact.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct LedgerEntry {
    /// When, in seconds since 1970.
    pub unix: u64,
    /// What happened.
    pub what: String,
    /// The score after it.
    pub score: u32,
}

/// One peer's ledger, owned by its routine and handed to the registry at its end.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    entries: VecDeque<LedgerEntry>,
    score: u32,
    dropped: u64,
}

impl Ledger {
    /// Writes a fact down.
    pub fn note(&mut self, unix: u64, what: impl Into<String>) {
        if self.entries.len() == KEPT {
            self.entries.pop_front();
            self.dropped += 1;
        }
        self.entries.push_back(LedgerEntry { unix, what: what.into(), score: self.score });
    }

    /// Writes a fact down that comes again and again: only its last time is kept, so that it cannot crowd out the others.
    pub fn note_last(&mut self, unix: u64, what: String) {
        self.entries.retain(|entry| entry.what != what);
        self.note(unix, what);
    }

    /// Writes a fault down. True when it ends the session: by its own weight, or because the score is full.
    #[must_use]
    pub fn fault(&mut self, unix: u64, fault: &PeerFault) -> bool {
        match fault.weight {
            Weight::Note | Weight::Close => {}
            Weight::Score(points) => self.score = self.score.saturating_add(points),
            Weight::Ban => self.score = self.score.max(BAN_SCORE),
        }
        self.note(unix, fault.to_string());
        matches!(fault.weight, Weight::Close | Weight::Ban) || self.score >= BAN_SCORE
    }

    /// Points towards the ban threshold.
    pub const fn score(&self) -> u32 {
        self.score
    }

    /// The facts, oldest first.
    pub fn entries(&self) -> impl Iterator<Item = &LedgerEntry> {
        self.entries.iter()
    }

    /// Older facts that no longer fit.
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rookery_base::PeerFaultKind;

    #[test]
    fn notes_never_end_a_session_and_points_do_at_the_threshold() {
        let mut ledger = Ledger::default();
        for _ in 0..1000 {
            assert!(!ledger.fault(1, &PeerFault::note(PeerFaultKind::Flood, "often")));
        }
        assert_eq!(ledger.entries().count(), KEPT);
        assert_eq!(ledger.dropped(), 1000 - KEPT as u64);
        for _ in 0..9 {
            assert!(!ledger.fault(1, &PeerFault::score(10, PeerFaultKind::Flood, "ten")));
        }
        assert!(ledger.fault(1, &PeerFault::score(10, PeerFaultKind::Flood, "ten")));
        let kept = ledger.entries().count();
        (0..100).for_each(|unix| ledger.note_last(unix, format!("parked: {}", unix % 2)));
        assert_eq!((ledger.entries().count(), ledger.entries().last().unwrap().unix), (kept, 99));
        assert!(Ledger::default().fault(1, &PeerFault::close(PeerFaultKind::Malformed, "bytes")));
    }
}
