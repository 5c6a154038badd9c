//! Who is connected, for those who follow it without asking.
//!
//! A [`StateWatch`] begins with the sessions that there are, and then tells of each generation at most once that it is
//! [`Connected`](Change::Connected) and, if it did, at most once that it is [`Lost`](Change::Lost), in the order in which
//! it happened. It is pulled, so nobody waits for a slow follower, and what waits for it cannot grow without bound: a
//! session that came and went before the follower looked is dropped as a pair. So at most all sessions of now and all those of
//! the last look are waiting. Each change has its sequence number; a gap is where pairs were dropped. Whoever pulls until nothing
//! is left knows exactly who is connected, however slow he was.
//!
//! Two generations of one peer overlap while the older one, which lost against the newer, is on its way out.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Poll, Waker};

use rookery_base::{CloseCause, Generation};

use crate::PeerFacts;

/// What has changed.
#[derive(Debug, Clone)]
pub struct StateChange {
    /// Its place in the order of all changes.
    pub sequence: u64,
    /// The session.
    pub generation: Generation,
    /// What the handshake learned about the peer.
    pub facts: Arc<PeerFacts>,
    /// What has become of it.
    pub change: Change,
}

/// What has become of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It is there.
    Connected,
    /// It has ended, for this cause.
    Lost(CloseCause),
}

/// Follows who is connected.
#[derive(Debug)]
pub struct StateWatch {
    shared: Arc<Mutex<Waiting>>,
}

/// What waits for one follower.
#[derive(Debug, Default)]
struct Waiting {
    changes: BTreeMap<u64, StateChange>,
    /// Of these, the beginnings, by generation.
    beginnings: BTreeMap<Generation, u64>,
    waker: Option<Waker>,
    over: bool,
}

impl Waiting {
    fn connected(&mut self, change: StateChange) {
        self.beginnings.insert(change.generation, change.sequence);
        self.changes.insert(change.sequence, change);
    }

    fn lost(&mut self, change: StateChange) {
        match self.beginnings.remove(&change.generation) {
            Some(unseen) => drop(self.changes.remove(&unseen)),
            None => drop(self.changes.insert(change.sequence, change)),
        }
    }

    fn next(&mut self) -> Option<StateChange> {
        let (_, change) = self.changes.pop_first()?;
        self.beginnings.remove(&change.generation);
        Some(change)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that runs under these locks can panic half way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl StateWatch {
    /// The next change; `None` when the engine has ended and all was told. Cancel-safe.
    pub async fn next(&mut self) -> Option<StateChange> {
        poll_fn(|cx| {
            let mut waiting = lock(&self.shared);
            match waiting.next() {
                None if !waiting.over => {
                    waiting.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
                next => Poll::Ready(next),
            }
        })
        .await
    }

    /// The next change, if there is one already.
    pub fn try_next(&mut self) -> Option<StateChange> {
        lock(&self.shared).next()
    }

    /// Changes that wait.
    pub fn waiting(&self) -> usize {
        lock(&self.shared).changes.len()
    }
}

#[derive(Debug, Default)]
struct Board {
    sequence: u64,
    /// Every session, with the change that told of it.
    live: BTreeMap<Generation, StateChange>,
    followers: Vec<Weak<Mutex<Waiting>>>,
    over: bool,
}

impl Board {
    fn tell(&mut self, what: impl Fn(&mut Waiting)) {
        self.followers.retain(|follower| {
            let Some(follower) = follower.upgrade() else { return false };
            let mut waiting = lock(&follower);
            what(&mut waiting);
            let waker = waiting.waker.take();
            drop(waiting);
            if let Some(waker) = waker {
                waker.wake();
            }
            true
        });
    }
}

/// Where the registry writes what changes. Cloning gives another handle to the same board.
#[derive(Debug, Clone, Default)]
pub(crate) struct StateBoard(Arc<Mutex<Board>>);

impl StateBoard {
    /// A session has begun.
    pub fn connected(&self, generation: Generation, facts: Arc<PeerFacts>) {
        let mut board = lock(&self.0);
        board.sequence += 1;
        let change = StateChange { sequence: board.sequence, generation, facts, change: Change::Connected };
        board.live.insert(generation, change.clone());
        board.tell(|waiting| waiting.connected(change.clone()));
    }

    /// A session has ended.
    pub fn lost(&self, generation: Generation, cause: &CloseCause) {
        let mut board = lock(&self.0);
        let Some(begun) = board.live.remove(&generation) else { return };
        board.sequence += 1;
        let change = StateChange { sequence: board.sequence, change: Change::Lost(cause.clone()), ..begun };
        board.tell(|waiting| waiting.lost(change.clone()));
    }

    /// Nothing will change any more.
    pub fn over(&self) {
        let mut board = lock(&self.0);
        board.over = true;
        board.tell(|waiting| waiting.over = true);
    }

    /// A new follower, that begins with the sessions of now.
    pub fn watch(&self) -> StateWatch {
        let mut board = lock(&self.0);
        let mut waiting = Waiting { over: board.over, ..Waiting::default() };
        board.live.values().cloned().for_each(|change| waiting.connected(change));
        let shared = Arc::new(Mutex::new(waiting));
        board.followers.push(Arc::downgrade(&shared));
        StateWatch { shared }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rookery_base::{Direction, PeerId};
    use std::collections::BTreeSet;

    fn facts() -> Arc<PeerFacts> {
        let addr = "1.1.1.1:1".parse().unwrap();
        Arc::new(PeerFacts::of(PeerId::from_addr(addr), addr, Direction::Inbound))
    }

    /// Follows what is told, and fails on anything that is told twice or out of order.
    #[derive(Default)]
    struct Follower {
        last: u64,
        there: BTreeSet<Generation>,
        gone: BTreeSet<Generation>,
    }

    impl Follower {
        fn hear(&mut self, told: &StateChange) {
            assert!(told.sequence > self.last, "in order");
            self.last = told.sequence;
            match told.change {
                Change::Connected => {
                    assert!(!self.gone.contains(&told.generation));
                    assert!(self.there.insert(told.generation), "connected once");
                }
                Change::Lost(_) => {
                    assert!(self.there.remove(&told.generation), "lost only after it was connected");
                    assert!(self.gone.insert(told.generation), "lost once");
                }
            }
        }
    }

    /// Row 14: ten thousand sessions come and go while a follower does nothing. Its memory is bounded by the sessions of
    /// then and now, and what it learns when it wakes up is exact.
    #[test]
    fn a_stalled_follower_of_ten_thousand_sessions_holds_little_and_loses_nothing() {
        let board = StateBoard::default();
        let mut watch = board.watch();
        let mut follower = Follower::default();
        for n in 1..=20 {
            board.connected(Generation(n), facts());
        }
        (0..10).for_each(|_| follower.hear(&watch.try_next().unwrap()));
        for n in 21..=10_000 {
            board.connected(Generation(n), facts());
            board.lost(Generation(n - 20), &CloseCause::PeerClosed);
            assert!(watch.waiting() <= 20 + 10, "{}", watch.waiting());
        }
        while let Some(told) = watch.try_next() {
            follower.hear(&told);
        }
        assert_eq!(follower.there, (9_981..=10_000).map(Generation).collect());
        assert_eq!(follower.gone, (1..=10).map(Generation).collect(), "only what it had seen is told of");
        assert_eq!(follower.last, 20 + 2 * 9_980 - 1, "the gaps show in the sequence");
    }

    proptest! {
        /// Whatever happens and whenever followers look or join, all learn the same in the end, within bounds.
        #[test]
        fn followers_of_any_speed_end_with_the_truth(steps in proptest::collection::vec((0_u8..5, 0_usize..8), 1..300)) {
            let board = StateBoard::default();
            let mut followers = vec![(board.watch(), Follower::default())];
            let (mut live, mut last) = (BTreeSet::new(), 0);
            for (what, which) in steps {
                match what {
                    0 | 1 if live.len() < 8 => {
                        last += 1;
                        live.insert(Generation(last));
                        board.connected(Generation(last), facts());
                    }
                    2 => if let Some(gone) = live.iter().nth(which).copied() {
                        live.remove(&gone);
                        board.lost(gone, &CloseCause::Evicted);
                        board.lost(gone, &CloseCause::Evicted);
                    },
                    3 => {
                        let at = which % followers.len();
                        let (watch, follower) = &mut followers[at];
                        if let Some(told) = watch.try_next() {
                            follower.hear(&told);
                        }
                    }
                    _ => if followers.len() < 4 {
                        followers.push((board.watch(), Follower::default()));
                    },
                }
                for (watch, _) in &followers {
                    prop_assert!(watch.waiting() <= 3 * 8);
                }
            }
            for (watch, follower) in &mut followers {
                while let Some(told) = watch.try_next() {
                    follower.hear(&told);
                }
                prop_assert_eq!(&follower.there, &live);
            }
        }
    }

    #[tokio::test]
    async fn a_follower_that_waits_is_woken_and_learns_of_the_end() {
        let board = StateBoard::default();
        let mut watch = board.watch();
        let (told, ()) = tokio::join!(watch.next(), async { board.connected(Generation(1), facts()) });
        assert_eq!(told.unwrap().change, Change::Connected);
        let (told, ()) = tokio::join!(watch.next(), async {
            board.lost(Generation(1), &CloseCause::Evicted);
            board.over();
        });
        assert_eq!(told.unwrap().change, Change::Lost(CloseCause::Evicted));
        assert!(watch.next().await.is_none());
        assert!(board.watch().next().await.is_none());
    }
}
