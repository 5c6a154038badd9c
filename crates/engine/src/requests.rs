//! The request table of one peer: typed keys, deadlines, one end per request.
//!
//! A request that ended without its answer leaves a mark for a while: an answer that comes late is counted and
//! swallowed once. An answer that fits neither an open request nor a mark is the peer's fault.

use std::collections::VecDeque;
use std::time::Duration;

use rookery_base::{Hash32, Kind};
use rookery_runtime::Instant;

/// What a request is known by: its kind, and a tag that the answer can be matched by (a hash, a nonce, or nothing).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestKey {
    /// The request's kind.
    pub kind: Kind,
    /// What the answer repeats of it.
    pub tag: Hash32,
}

impl RequestKey {
    /// For requests whose answers repeat nothing: one at a time.
    pub const fn only(kind: Kind) -> Self {
        Self { kind, tag: Hash32::ZERO }
    }

    /// For requests whose answers repeat a number.
    pub fn number(kind: Kind, number: u64) -> Self {
        let mut tag = [0; 32];
        tag[..8].copy_from_slice(&number.to_le_bytes());
        Self { kind, tag: Hash32(tag) }
    }
}

/// Why a request was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestRefused {
    /// One with this key is open.
    AlreadyOpen,
    /// As many of this kind are open as may be.
    TooMany,
    /// The outbox has no room, or takes no more: the session is being closed.
    OutboxFull,
}

/// What an answer meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    /// An open request of this service, asked at this time. It is closed now.
    Open(usize, Instant),
    /// A request that had ended. Its mark is gone now.
    Late,
    /// Nothing.
    Unknown,
}

/// An open request.
#[derive(Debug, Clone, Copy)]
struct Open {
    key: RequestKey,
    service: usize,
    asked: Instant,
    deadline: Instant,
}

/// How long the mark of an ended request stays: a peer that answers later than this has stopped being merely slow.
const MARK: Duration = Duration::from_secs(300);
/// Marks kept; more requests than this cannot have ended unanswered with the peer still worth keeping.
const MARKS: usize = 64;

/// One peer's requests.
#[derive(Debug, Default)]
pub struct RequestTable {
    open: Vec<Open>,
    marks: VecDeque<(RequestKey, Instant)>,
    closed: bool,
}

impl RequestTable {
    /// Opens a request.
    pub fn open(
        &mut self,
        key: RequestKey,
        service: usize,
        most: u16,
        now: Instant,
        within: Duration,
    ) -> Result<(), RequestRefused> {
        if self.closed {
            return Err(RequestRefused::OutboxFull);
        }
        if self.open.iter().any(|open| open.key == key) {
            return Err(RequestRefused::AlreadyOpen);
        }
        if self.open.iter().filter(|open| open.key.kind == key.kind).count() >= usize::from(most) {
            return Err(RequestRefused::TooMany);
        }
        self.open.push(Open { key, service, asked: now, deadline: now + within });
        Ok(())
    }

    /// Matches an answer, closing what it meets.
    pub fn answer(&mut self, key: &RequestKey, now: Instant) -> Match {
        if let Some(at) = self.open.iter().position(|open| open.key == *key) {
            let open = self.open.remove(at);
            return Match::Open(open.service, open.asked);
        }
        self.forget_old_marks(now);
        match self.marks.iter().position(|(marked, _)| marked == key) {
            Some(at) => {
                self.marks.remove(at);
                Match::Late
            }
            None => Match::Unknown,
        }
    }

    /// Ends a request that its service no longer wants. `None` when it is not open.
    pub fn cancel(&mut self, key: &RequestKey, now: Instant) -> Option<usize> {
        let at = self.open.iter().position(|open| open.key == *key)?;
        let open = self.open.remove(at);
        self.mark(open.key, now);
        Some(open.service)
    }

    /// The earliest deadline.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.open.iter().map(|open| open.deadline).min()
    }

    /// Ends one request whose deadline has passed.
    pub fn expire(&mut self, now: Instant) -> Option<(RequestKey, usize)> {
        let at = self.open.iter().position(|open| open.deadline <= now)?;
        let open = self.open.remove(at);
        self.mark(open.key, now);
        Some((open.key, open.service))
    }

    /// Ends the oldest open request because the session has ended. From the first call on none can be opened: a
    /// pipe that repeats what failed would otherwise keep the session from ending.
    pub fn drain(&mut self) -> Option<(RequestKey, usize)> {
        self.closed = true;
        let oldest = (!self.open.is_empty()).then(|| self.open.remove(0))?;
        Some((oldest.key, oldest.service))
    }

    /// Whether a request of this kind is open, or ended so recently that its answer may still come.
    pub fn expects(&self, kind: Kind, now: Instant) -> bool {
        self.open.iter().any(|open| open.key.kind == kind)
            || self.marks.iter().any(|(key, at)| key.kind == kind && !is_old(*at, now))
    }

    /// Open requests.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    fn mark(&mut self, key: RequestKey, now: Instant) {
        self.forget_old_marks(now);
        if self.marks.len() == MARKS {
            self.marks.pop_front();
        }
        self.marks.push_back((key, now));
    }

    fn forget_old_marks(&mut self, now: Instant) {
        while self.marks.front().is_some_and(|(_, at)| is_old(*at, now)) {
            self.marks.pop_front();
        }
    }
}

fn is_old(mark: Instant, now: Instant) -> bool {
    now.saturating_duration_since(mark) > MARK
}

#[cfg(test)]
mod tests {
    use super::*;
    use rookery_runtime::Clock;

    const ASK: Kind = Kind(10);
    const WITHIN: Duration = Duration::from_secs(30);

    #[test]
    fn a_request_ends_once_and_its_late_answer_is_swallowed_once() {
        let now = Clock::system().now();
        let mut table = RequestTable::default();
        let key = RequestKey::number(ASK, 7);
        table.open(key, 2, 4, now, WITHIN).unwrap();
        assert_eq!(table.open(key, 2, 4, now, WITHIN), Err(RequestRefused::AlreadyOpen));
        assert_eq!(table.expire(now), None);
        assert_eq!(table.expire(now + WITHIN), Some((key, 2)));
        assert_eq!(table.expire(now + WITHIN), None, "one end");
        assert!(table.expects(ASK, now + WITHIN));
        assert!(!table.expects(ASK, now + WITHIN + MARK * 2), "an old mark expects nothing");
        assert_eq!(table.answer(&key, now + WITHIN), Match::Late);
        assert_eq!(table.answer(&key, now + WITHIN), Match::Unknown, "swallowed once");
    }

    #[test]
    fn the_end_drains_the_oldest_first_and_admits_no_more() {
        let now = Clock::system().now();
        let mut table = RequestTable::default();
        let keys: Vec<_> = (0..4).map(|n| RequestKey::number(ASK, n)).collect();
        for key in &keys {
            table.open(*key, 0, 4, now, WITHIN).unwrap();
        }
        let mut drained = Vec::new();
        while let Some((key, _)) = table.drain() {
            assert_eq!(table.open(key, 0, 4, now, WITHIN), Err(RequestRefused::OutboxFull));
            drained.push(key);
        }
        assert_eq!(drained, keys);
    }

    #[test]
    fn duplicates_of_an_answer_are_unknown() {
        let now = Clock::system().now();
        let mut table = RequestTable::default();
        let key = RequestKey::only(ASK);
        table.open(key, 0, 1, now, WITHIN).unwrap();
        assert_eq!(table.answer(&key, now), Match::Open(0, now));
        assert_eq!(table.answer(&key, now), Match::Unknown);
    }

    #[test]
    fn requests_of_a_kind_and_marks_are_bounded() {
        let now = Clock::system().now();
        let mut table = RequestTable::default();
        for n in 0..3 {
            table.open(RequestKey::number(ASK, n), 0, 3, now, WITHIN).unwrap();
        }
        assert_eq!(table.open(RequestKey::number(ASK, 3), 0, 3, now, WITHIN), Err(RequestRefused::TooMany));
        for n in 0..1000 {
            let key = RequestKey::number(Kind(11), n);
            table.open(key, 0, 1, now, WITHIN).unwrap();
            assert_eq!(table.cancel(&key, now), Some(0));
        }
        assert!(table.marks.len() <= MARKS);
        assert_eq!(
            table.answer(&RequestKey::number(Kind(11), 999), now + MARK * 2),
            Match::Unknown,
            "forgotten"
        );
    }
}
