//! The auditor: one hash over everything that happened, so that two runs of a seed can be compared, and the last
//! events, so that a failure can be read.
//!
//! Every node's trace and the fabric's go to one [`Auditor`], in the order in which things happened. It stamps each
//! record with the world's time (a node's own begins when it starts) and hashes all of its fields. To find where
//! two runs part, dump both as JSON lines and ask [`first_difference`].

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::hash::Hasher;
use std::io::{self, BufRead, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rookery_observe::trace::JsonLines;
use rookery_observe::{TraceEvent, TraceSink};
use rookery_runtime::Clock;
use siphasher::sip128::{Hasher128, SipHasher13};

use crate::clock::WorldClock;

/// Events kept for a failure's report: what happened just before, and short enough to be read.
pub const LAST_EVENTS: usize = 64;

/// Left out of the last events: every arrival of bytes is hashed, but would push everything else out.
const TOO_FREQUENT_TO_KEEP: [&str; 3] = ["net_bytes", "net_datagram", "net_datagram_lost"];

/// The hash over everything up to some moment. Not cryptographic: nobody attacks it, and it costs 40 ns an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AuditHash(pub u128);

impl fmt::Display for AuditHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

struct Book {
    /// Keyed with zeros: the same events must hash the same in every process.
    hasher: SipHasher13,
    counts: BTreeMap<&'static str, u64>,
    last: VecDeque<TraceEvent>,
    dump: Option<Box<dyn TraceSink>>,
}

/// Takes the trace of a whole world.
pub struct Auditor {
    clock: WorldClock,
    book: Mutex<Book>,
}

impl fmt::Debug for Auditor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auditor").field("hash", &self.hash()).finish_non_exhaustive()
    }
}

impl Auditor {
    /// An auditor that stamps events with this clock's time.
    ///
    /// # Panics
    /// Outside a runtime.
    pub fn new(clock: Clock) -> Self {
        let book = Book {
            hasher: SipHasher13::new(),
            counts: BTreeMap::new(),
            last: VecDeque::with_capacity(LAST_EVENTS),
            dump: None,
        };
        Self { clock: WorldClock::here(clock), book: Mutex::new(book) }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Also writes every event from now on as a JSON line.
    pub fn dump_to(&self, out: impl Write + Send + 'static) {
        self.book().dump = Some(Box::new(JsonLines::new(out)));
    }

    /// The hash over everything so far.
    pub fn hash(&self) -> AuditHash {
        AuditHash(self.book().hasher.finish128().as_u128())
    }

    /// How often each event happened.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.book().counts.clone()
    }

    /// How often this event happened.
    pub fn count(&self, event: &str) -> u64 {
        self.book().counts.get(event).copied().unwrap_or(0)
    }

    /// The last events, oldest first; arrivals of bytes are left out.
    pub fn last(&self) -> Vec<TraceEvent> {
        self.book().last.iter().copied().collect()
    }
}

impl TraceSink for Auditor {
    fn record(&self, event: &TraceEvent) {
        let event = TraceEvent { at: self.clock.elapsed(), ..*event };
        let mut book = self.book();
        hash_event(&mut book.hasher, &event);
        *book.counts.entry(event.event).or_default() += 1;
        if !TOO_FREQUENT_TO_KEEP.contains(&event.event) {
            if book.last.len() == LAST_EVENTS {
                book.last.pop_front();
            }
            book.last.push_back(event);
        }
        if let Some(dump) = &book.dump {
            dump.record(&event);
        }
    }
}

/// Fields at fixed widths, little-endian, strings behind their length: no two events give the same bytes.
fn hash_event(hasher: &mut SipHasher13, event: &TraceEvent) {
    hasher.write(&event.at.as_nanos().to_le_bytes());
    hasher.write(&event.node.to_le_bytes());
    hasher.write(&event.peer.to_le_bytes());
    hasher.write(&event.kind.to_le_bytes());
    hasher.write(&event.len.to_le_bytes());
    for text in [event.event, event.verdict] {
        hasher.write(&(text.len() as u64).to_le_bytes());
        hasher.write(text.as_bytes());
    }
}

/// One event on one line, for a report.
pub fn describe(event: &TraceEvent) -> String {
    let TraceEvent { at, node, event, peer, kind, len, verdict } = event;
    let whose = if *node == 0 { "net".to_owned() } else { format!("node {node}") };
    format!("{:>12.3} {whose:<9} {event} peer={peer} kind={kind} len={len} {verdict}", at.as_secs_f64())
}

/// Where two dumped traces part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The line, from 1.
    pub line: usize,
    /// The first trace's line, or `None` if it has ended.
    pub left: Option<String>,
    /// The second trace's line, or `None` if it has ended.
    pub right: Option<String>,
}

/// The first line in which two dumped traces differ, or `None` when they are the same.
pub fn first_difference(left: impl BufRead, right: impl BufRead) -> io::Result<Option<Difference>> {
    let (mut left, mut right) = (left.lines(), right.lines());
    for line in 1.. {
        let (left, right) = (left.next().transpose()?, right.next().transpose()?);
        if left != right {
            return Ok(Some(Difference { line, left, right }));
        }
        if left.is_none() {
            break;
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: TraceEvent = TraceEvent {
        at: std::time::Duration::ZERO,
        node: 1,
        event: "frame_in",
        peer: 2,
        kind: 3,
        len: 4,
        verdict: "ok",
    };

    fn hash_of(events: &[TraceEvent]) -> AuditHash {
        let auditor = Auditor::new(Clock::simulated(0, 0));
        events.iter().for_each(|event| auditor.record(event));
        auditor.hash()
    }

    #[tokio::test(start_paused = true)]
    async fn every_field_and_the_order_count() {
        let changed = [
            TraceEvent { node: 9, ..EVENT },
            TraceEvent { event: "frame_out", ..EVENT },
            TraceEvent { peer: 9, ..EVENT },
            TraceEvent { kind: 9, ..EVENT },
            TraceEvent { len: 9, ..EVENT },
            TraceEvent { verdict: "no", ..EVENT },
        ];
        assert_eq!(hash_of(&[EVENT]), hash_of(&[EVENT]));
        for other in changed {
            assert_ne!(hash_of(&[EVENT]), hash_of(&[other]), "{other:?}");
            assert_ne!(hash_of(&[EVENT, other]), hash_of(&[other, EVENT]), "{other:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_worlds_time_counts_and_the_last_events_are_kept() {
        let clock = Clock::simulated(0, 0);
        let auditor = Auditor::new(clock);
        auditor.record(&EVENT);
        let before = auditor.hash();
        clock.sleep(std::time::Duration::from_secs(1)).await;
        for len in 0..100 {
            auditor.record(&TraceEvent { len, ..EVENT });
            auditor.record(&TraceEvent { event: TOO_FREQUENT_TO_KEEP[0], ..EVENT });
        }
        assert_ne!(auditor.hash(), before);
        assert_eq!((auditor.count("frame_in"), auditor.count(TOO_FREQUENT_TO_KEEP[0])), (101, 100));
        let last = auditor.last();
        assert_eq!((last.len(), last[LAST_EVENTS - 1].len), (LAST_EVENTS, 99));
        assert_eq!(last[0].at, std::time::Duration::from_secs(1));
        assert!(describe(&last[0]).contains("1.000 node 1"), "{}", describe(&last[0]));
    }

    #[test]
    fn the_hash_is_the_same_in_every_process_and_on_every_machine() {
        let mut hasher = SipHasher13::new();
        hash_event(&mut hasher, &EVENT);
        assert_eq!(AuditHash(hasher.finish128().as_u128()).to_string(), "0a290b08816bbbc6f8285833cdb7ba8d");
    }

    #[test]
    fn the_first_difference_is_found_at_its_line() {
        let find = |a: &str, b: &str| first_difference(a.as_bytes(), b.as_bytes()).unwrap();
        assert_eq!(find("a\nb\n", "a\nb\n"), None);
        let found = find("a\nb\nc", "a\nx\nc").unwrap();
        assert_eq!((found.line, found.left.as_deref(), found.right.as_deref()), (2, Some("b"), Some("x")));
        assert_eq!(find("a\nb", "a").unwrap(), Difference { line: 2, left: Some("b".into()), right: None });
    }
}
