//! Every interleaving of a few threads on one budget, by loom: `RUSTFLAGS="--cfg loom" cargo test -p rookery-base --lib
//! interleavings`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use loom::thread;

use super::*;

/// Counts wake-ups. Not loom's: it is only read when all threads have ended, and while it is polled on one.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A waiter whose charge is given back while it looks is either served or woken, never left waiting.
#[test]
fn a_release_during_a_poll_is_never_missed() {
    loom::model(|| {
        let root = ByteBudget::root("process", 100);
        let peer = root.child("peer", 100);
        let held = root.try_charge(100).unwrap();
        let release = thread::spawn(move || drop(held));
        let count = std::sync::Arc::new(Count::default());
        let waker = Waker::from(std::sync::Arc::clone(&count));
        let mut cx = Context::from_waker(&waker);
        let first = peer.poll_charge(&mut cx, 10);
        release.join().unwrap();
        if first.is_pending() {
            assert_eq!(count.0.load(Ordering::SeqCst), 1, "it was woken");
            assert!(peer.poll_charge(&mut cx, 10).is_ready());
        }
    });
}

/// Two that charge two levels at once never exceed either, and in the end every byte is back on both.
#[test]
fn charges_at_two_levels_never_exceed_either() {
    loom::model(|| {
        let root = ByteBudget::root("process", 100);
        let charge = |root: ByteBudget, bytes| {
            move || {
                let peer = root.child("peer", 80);
                let held = peer.try_charge(bytes).ok();
                assert!(root.used() <= 100);
                drop(held);
                assert_eq!(peer.used(), 0);
            }
        };
        let other = thread::spawn(charge(root.clone(), 60));
        charge(root.clone(), 70)();
        other.join().unwrap();
        assert_eq!(root.used(), 0);
        assert!(root.peak() <= 100);
    });
}
