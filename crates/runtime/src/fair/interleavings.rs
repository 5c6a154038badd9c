//! Every interleaving of a few threads on one mailbox, by loom: `RUSTFLAGS="--cfg loom" cargo test -p rookery-runtime --lib
//! interleavings`.
//!
//! tokio's `Notify` is not looked into: a permit of loom's takes its place, with the one promise that the mailbox needs,
//! that a notification before the wait is not lost.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use loom::thread;

use super::*;

/// At most one permit, and whoever waits for it.
#[derive(Debug)]
pub(super) struct Notify(Mutex<(bool, Option<Waker>)>);

impl Notify {
    pub(super) fn new() -> Self {
        Self(Mutex::new((false, None)))
    }

    pub(super) fn notify_one(&self) {
        let waiting = {
            let mut state = self.0.lock().expect("nothing panics under it");
            state.0 = true;
            state.1.take()
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    pub(super) fn notified(&self) -> impl Future<Output = ()> {
        std::future::poll_fn(|cx| {
            let mut state = self.0.lock().expect("nothing panics under it");
            if std::mem::take(&mut state.0) {
                return Poll::Ready(());
            }
            state.1 = Some(cx.waker().clone());
            Poll::Pending
        })
    }
}

/// Counts wake-ups. Not loom's: it is read only when the other threads have ended.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Count {
    fn waker() -> (Arc<Self>, Waker) {
        let count = Arc::new(Self::default());
        (Arc::clone(&count), Waker::from(count))
    }

    fn any(&self) -> bool {
        self.0.load(Ordering::SeqCst) > 0
    }
}

fn mailbox(events: usize) -> FairMailbox<u8> {
    let limits = LaneLimits { events, bytes: 1 << 20 };
    FairMailbox::new("test", limits, 4, Clock::system(), Arc::default())
}

/// A reactor that looks while an event comes takes it, or is woken for it.
#[test]
fn an_event_that_comes_during_a_look_is_never_missed() {
    loom::model(|| {
        let mut mailbox = mailbox(2);
        let lane = mailbox.opener().open(9).unwrap();
        let sender = thread::spawn(move || {
            assert_eq!(lane.push(1, 1), Push::Accepted);
            lane
        });
        let (count, waker) = Count::waker();
        let mut cx = Context::from_waker(&waker);
        let looked = {
            let mut next = pin!(mailbox.recv());
            let looked = next.as_mut().poll(&mut cx);
            let lane = sender.join().unwrap();
            if looked.is_pending() {
                assert!(count.any(), "it was woken");
                assert_eq!(next.as_mut().poll(&mut cx), Poll::Ready(1));
            }
            drop(lane);
            looked
        };
        assert!(matches!(looked, Poll::Pending | Poll::Ready(1)));
        assert_eq!(mailbox.try_recv(), Some(9));
    });
}

/// A sender that waits for room while some is made finds it, or is woken for it.
#[test]
fn room_that_comes_during_a_look_is_never_missed() {
    loom::model(|| {
        let mut mailbox = mailbox(1);
        let lane = mailbox.opener().open(9).unwrap();
        assert_eq!(lane.push(1, 1), Push::Accepted);
        let reactor = thread::spawn(move || {
            assert_eq!(mailbox.try_recv(), Some(1));
            mailbox
        });
        let (count, waker) = Count::waker();
        let first = lane.poll_room(&mut Context::from_waker(&waker));
        let mailbox = reactor.join().unwrap();
        assert!(first.is_ready() || count.any(), "it was woken");
        assert_eq!(lane.push(2, 1), Push::Accepted);
        drop(mailbox);
    });
}

/// Who waits for room in a mailbox that goes is woken, and then told that it has gone.
#[test]
fn an_end_during_a_wait_for_room_is_never_missed() {
    loom::model(|| {
        let mailbox = mailbox(1);
        let lane = mailbox.opener().open(9).unwrap();
        assert_eq!(lane.push(1, 1), Push::Accepted);
        let end = thread::spawn(move || drop(mailbox));
        let (count, waker) = Count::waker();
        let first = lane.poll_room(&mut Context::from_waker(&waker));
        end.join().unwrap();
        assert!(first.is_ready() || count.any(), "it was woken");
        assert_eq!(lane.push(2, 1), Push::Closed(2));
    });
}

/// Two lanes that push and go while the reactor takes: every event once and in order, each farewell once and last.
#[test]
fn two_that_push_and_go_lose_nothing() {
    loom::model(|| {
        let mut mailbox = mailbox(2);
        let opener = mailbox.opener();
        let (one, other) = (opener.open(19).unwrap(), opener.open(29).unwrap());
        let sender = thread::spawn(move || assert_eq!(one.push(11, 1), Push::Accepted));
        let mut taken: Vec<u8> = mailbox.try_recv().into_iter().collect();
        assert_eq!(other.push(21, 1), Push::Accepted);
        drop(other);
        taken.extend(mailbox.try_recv());
        sender.join().unwrap();
        taken.extend(std::iter::from_fn(|| mailbox.try_recv()));
        let of = |lane: u8| taken.iter().copied().filter(|event| event / 10 == lane).collect::<Vec<_>>();
        assert_eq!((of(1), of(2)), (vec![11, 19], vec![21, 29]));
        assert!(opener.open(0).is_some() && mailbox.try_recv() == Some(0), "their places came back");
    });
}
