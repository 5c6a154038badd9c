//! Byte budgets in a tree: a peer's is a child of its network's, which is a child of the process's.
//!
//! A [`Charge`] counts against every level and gives its bytes back to all of them when it is dropped. A task
//! that finds no room registers its waker *before* it looks again ([`ByteBudget::poll_charge`]), so that no
//! release is missed. One charge may be larger than a whole level when nothing else is held there: otherwise a
//! message larger than a small budget could never pass and its peer would stall for ever.

use std::sync::PoisonError;
#[cfg(not(loom))]
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

#[cfg(loom)]
use loom::sync::{Arc, Mutex, MutexGuard};

#[derive(Debug, Default)]
struct State {
    used: usize,
    peak: usize,
    /// Wakers of tasks that found no room here. One per waiting task; woken all together on release.
    waiting: Vec<Waker>,
}

#[derive(Debug)]
struct Level {
    name: &'static str,
    cap: usize,
    parent: Option<Arc<Level>>,
    state: Mutex<State>,
}

impl Level {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that runs under this lock can leave it half changed, so a poisoned lock is still right.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_add(&self, bytes: usize, waker: Option<&Waker>) -> bool {
        let mut state = self.lock();
        let fits = state.used == 0 || state.used.saturating_add(bytes) <= self.cap;
        if fits {
            state.used += bytes;
            state.peak = state.peak.max(state.used);
        } else if let Some(waker) = waker
            && !state.waiting.iter().any(|w| w.will_wake(waker))
        {
            state.waiting.push(waker.clone());
        }
        fits
    }

    fn sub(&self, bytes: usize) {
        let waiting = {
            let mut state = self.lock();
            debug_assert!(state.used >= bytes, "budget {} gives back more than it holds", self.name);
            state.used = state.used.saturating_sub(bytes);
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// One level of the tree. Cloning gives another handle to the same level.
#[derive(Debug, Clone)]
pub struct ByteBudget {
    level: Arc<Level>,
}

impl ByteBudget {
    /// A root, usually the process's. `cap` is in bytes.
    pub fn root(name: &'static str, cap: usize) -> Self {
        Self { level: Arc::new(Level { name, cap, parent: None, state: Mutex::default() }) }
    }

    /// A level below this one. Charges on the child count here too.
    pub fn child(&self, name: &'static str, cap: usize) -> Self {
        let parent = Some(Arc::clone(&self.level));
        Self { level: Arc::new(Level { name, cap, parent, state: Mutex::default() }) }
    }

    /// Charges `bytes` on this level and all above, or nothing at all and the name of the level that is full.
    pub fn try_charge(&self, bytes: usize) -> Result<Charge, &'static str> {
        self.charge(bytes, None)
    }

    /// As [`try_charge`](Self::try_charge), but pending (with the task registered at the full level) when there
    /// is no room.
    pub fn poll_charge(&self, cx: &mut Context<'_>, bytes: usize) -> Poll<Charge> {
        match self.charge(bytes, Some(cx.waker())) {
            Ok(charge) => Poll::Ready(charge),
            Err(_) => Poll::Pending,
        }
    }

    fn charge(&self, bytes: usize, waker: Option<&Waker>) -> Result<Charge, &'static str> {
        let mut next = Some(&self.level);
        while let Some(level) = next {
            if !level.try_add(bytes, waker) {
                let mut undo = &self.level;
                while !Arc::ptr_eq(undo, level) {
                    undo.sub(bytes);
                    let Some(parent) = &undo.parent else { break };
                    undo = parent;
                }
                return Err(level.name);
            }
            next = level.parent.as_ref();
        }
        Ok(Charge { level: Some(Arc::clone(&self.level)), bytes })
    }

    /// Bytes held now.
    pub fn used(&self) -> usize {
        self.level.lock().used
    }

    /// The most that was ever held.
    pub fn peak(&self) -> usize {
        self.level.lock().peak
    }

    /// The cap in bytes.
    pub fn cap(&self) -> usize {
        self.level.cap
    }
}

/// Bytes held on a budget and on every level above it. Dropping gives them back, exactly once.
#[derive(Debug)]
pub struct Charge {
    level: Option<Arc<Level>>,
    bytes: usize,
}

impl Charge {
    /// A charge of nothing, for frames made here (tests, loop-back).
    pub const fn none() -> Self {
        Self { level: None, bytes: 0 }
    }

    /// Bytes held.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let mut next = self.level.take();
        while let Some(level) = next {
            level.sub(self.bytes);
            next = level.parent.clone();
        }
    }
}

#[cfg(all(test, loom))]
mod interleavings;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    proptest! {
        /// The counter of each level equals a scan of what is held, after every step.
        #[test]
        fn counters_equal_scans(steps in proptest::collection::vec((0usize..3, 0usize..600, any::<bool>()), 1..200)) {
            let root = ByteBudget::root("process", 1500);
            let peers: Vec<_> = (0..3).map(|_| root.child("peer", 700)).collect();
            let mut held: Vec<Vec<Charge>> = vec![Vec::new(), Vec::new(), Vec::new()];
            for (peer, bytes, take) in steps {
                if take {
                    held[peer].extend(peers[peer].try_charge(bytes).ok());
                } else {
                    held[peer].pop();
                }
                for (budget, charges) in peers.iter().zip(&held) {
                    prop_assert_eq!(budget.used(), charges.iter().map(Charge::bytes).sum::<usize>());
                    prop_assert!(budget.used() <= 700);
                }
                prop_assert_eq!(root.used(), held.iter().flatten().map(Charge::bytes).sum::<usize>());
                prop_assert!(root.used() <= 1500);
            }
            drop(held);
            prop_assert_eq!(root.used(), 0);
        }
    }

    #[test]
    fn a_refusal_above_leaves_nothing_below() {
        let root = ByteBudget::root("process", 100);
        let (a, b) = (root.child("peer", 100), root.child("peer", 100));
        let held = a.try_charge(80).unwrap();
        assert_eq!(b.try_charge(30).unwrap_err(), "process");
        assert_eq!((a.used(), b.used(), root.used()), (80, 0, 80));
        drop(held);
        assert!(b.try_charge(30).is_ok());
    }

    #[test]
    fn a_waiter_is_woken_by_the_release_it_waits_for() {
        let root = ByteBudget::root("process", 100);
        let peer = root.child("peer", 100);
        let held = root.try_charge(100).unwrap();
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut cx = Context::from_waker(&waker);
        assert!(peer.poll_charge(&mut cx, 10).is_pending());
        assert!(peer.poll_charge(&mut cx, 10).is_pending(), "registering twice is one registration");
        drop(held);
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert!(peer.poll_charge(&mut cx, 10).is_ready());
    }

    #[test]
    fn one_charge_larger_than_the_level_passes_when_nothing_else_is_held() {
        let peer = ByteBudget::root("peer", 10);
        let big = peer.try_charge(50).unwrap();
        assert!(peer.try_charge(1).is_err());
        drop(big);
        assert!(peer.try_charge(1).is_ok());
    }
}
