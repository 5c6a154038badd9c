//! Handshakes compute in turn.
//!
//! A step of a handshake computes for a third of a millisecond, a hundred times as long as a message does. Were each of them a
//! task like any other, hundreds of strangers who speak at once would fill the runtime's queue, and all that the node does
//! besides would stand behind them: reading the socket, the requests of peers that have long been in, each of the half a dozen
//! tasks that a new peer passes through. So whoever shakes hands takes a turn for each step after the first, which comes with
//! the arrival: no more hold one than can compute at the same time, and each goes once to the end of the queue before it
//! computes. The others wait here, in order.
//!
//! Those who have let us wait for long in all ([`LATE`]) have one turn between them, and it comes when nothing else waits to run.
//! Handshakes that are drawn out come due together again and again; so they do not stand before those who shake hands without
//! delay.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use rookery_runtime::{BoxFuture, Clock};
use tokio::sync::Semaphore;
use tokio::task::yield_now;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::Waits;

/// Who has had us wait for this long is late: as long as a public node's handshake keeps its place when others want it, and more
/// than a round trip half round the world.
const LATE: Duration = Duration::from_millis(200);

tokio::task_local! {
    /// The handshake whose connection is being made: quinn spawns the task of a connection where it makes it.
    static MAKING: Shaking;
}

/// A handshake that is under way.
#[derive(Clone)]
pub(super) struct Shaking {
    over: CancellationToken,
    waits: Waits,
}

impl Shaking {
    /// One that begins. `waits` will tell how long it has had us wait.
    pub fn new(waits: Waits) -> Self {
        Self { over: CancellationToken::new(), waits }
    }

    /// What is spawned while `make` runs is this handshake's.
    pub fn making<T>(&self, make: impl FnOnce() -> T) -> T {
        MAKING.sync_scope(self.clone(), make)
    }

    /// The one whose connection is being made.
    pub fn made() -> Option<Self> {
        MAKING.try_with(Self::clone).ok()
    }

    /// It is over, well or not, when this is dropped.
    pub fn until_dropped(&self) -> DropGuard {
        self.over.clone().drop_guard()
    }
}

/// The turns of a node's handshakes.
pub(super) struct Turns {
    all: Semaphore,
    late: Semaphore,
    clock: Clock,
}

impl Turns {
    /// As many at a time as can compute at once.
    pub fn new(at_once: usize, clock: Clock) -> Self {
        Self { all: Semaphore::new(at_once), late: Semaphore::new(1), clock }
    }

    /// Nobody has one until what this gives is dropped.
    #[cfg(test)]
    pub async fn hold(&self) -> impl Drop + '_ {
        self.all.acquire_many(self.all.available_permits() as u32).await.expect("it is never closed")
    }

    /// Drives a connection, each step in its turn until its handshake is over.
    pub async fn drive(self: Arc<Self>, shaking: Shaking, mut connection: BoxFuture<'static, ()>) {
        // Boxed, because the connection lasts for weeks and needs none of it.
        let in_turn = Box::pin(async {
            tokio::select! {
                biased;
                () = shaking.over.cancelled() => false,
                () = self.steps(&shaking.waits, &mut connection) => true,
            }
        });
        let ended = in_turn.await;
        // What follows is the network's own handshake, which the other side begins.
        shaking.waits.begin(self.clock.now());
        drop((self, shaking));
        if !ended {
            connection.await;
        }
    }

    /// Step after step, until the connection ends.
    async fn steps(&self, waits: &Waits, connection: &mut BoxFuture<'static, ()>) {
        loop {
            // Neither is ever closed, so there is always a permit.
            let late =
                if waits.total(self.clock.now()) > LATE { self.late.acquire().await.ok() } else { None };
            if late.is_some() {
                // All that waits to run goes first, also what has just arrived.
                yield_now().await;
            }
            let turn = self.all.acquire().await.ok();
            behind().await;
            let step = poll_fn(|cx| Poll::Ready(connection.as_mut().poll(cx))).await;
            if step.is_ready() {
                return;
            }
            drop((turn, late));
            waits.begin(self.clock.now());
            woken().await;
            waits.end(self.clock.now());
        }
    }
}

/// Until what stands in the queue of the thread that runs it has run. Unlike tokio's `yield_now` it does not look for I/O first,
/// which in a storm costs a fifth of all computing.
async fn behind() {
    poll_fn(|cx| {
        cx.waker().wake_by_ref();
        Poll::Ready(())
    })
    .await;
    woken().await;
}

/// Until the task is woken, by whatever it was left waiting for.
fn woken() -> impl Future<Output = ()> {
    let mut waits = true;
    poll_fn(move |_| match std::mem::replace(&mut waits, false) {
        true => Poll::Pending,
        false => Poll::Ready(()),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use rookery_runtime::{Env, OnPanic};
    use tokio::sync::Notify;

    use super::super::lock;
    use super::*;

    /// Handshakes of two steps each, and what was done, in order.
    struct World {
        env: Env,
        turns: Arc<Turns>,
        steps: Arc<Mutex<Vec<&'static str>>>,
    }

    fn shaking() -> Shaking {
        Shaking::new(Waits::new(Clock::system().now()))
    }

    impl World {
        fn new(at_once: usize) -> Self {
            let env = Env::system();
            let turns = Arc::new(Turns::new(at_once, env.clock));
            Self { env, turns, steps: Arc::default() }
        }

        /// The second step comes when it is told to.
        fn handshake(&self, name: &'static str, shaking: Shaking, second: &Arc<Notify>) {
            let (steps, second) = (Arc::clone(&self.steps), Arc::clone(second));
            let connection = Box::pin(async move {
                lock(&steps).push(name);
                second.notified().await;
                lock(&steps).push(name);
            });
            let turns = Arc::clone(&self.turns);
            self.env.scope.spawn_to_end(name, OnPanic::StopNode, turns.drive(shaking, connection));
        }

        /// The last place of a step in the order.
        fn last(&self, name: &str) -> usize {
            lock(&self.steps).iter().rposition(|step| *step == name).expect("it was done")
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_else_a_node_does_does_not_wait_until_all_handshakes_have_computed() {
        for over in [false, true] {
            let world = World::new(2);
            for _ in 0..100 {
                let shaking = shaking();
                if over {
                    drop(shaking.until_dropped());
                }
                world.handshake("handshake", shaking, &Arc::default());
            }
            let steps = Arc::clone(&world.steps);
            world.env.scope.spawn_to_end("other", OnPanic::StopNode, async move {
                for _ in 0..5 {
                    behind().await;
                }
                lock(&steps).push("other");
            });
            world.env.clock.sleep(LATE).await;
            // A few in each of its hops; all of them where nobody takes a turn.
            let before = world.last("other");
            assert_eq!((before < 20, before == 100), (!over, over), "{before}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_let_us_wait_have_one_turn_between_them() {
        let (world, late, prompt) = (World::new(1), Arc::<Notify>::default(), Arc::<Notify>::default());
        for _ in 0..50 {
            world.handshake("late", shaking(), &late);
        }
        world.env.clock.sleep(2 * LATE).await;
        for _ in 0..10 {
            world.handshake("prompt", shaking(), &prompt);
        }
        world.env.clock.sleep(LATE / 2).await;
        lock(&world.steps).clear();
        late.notify_waiters();
        prompt.notify_waiters();
        world.env.clock.sleep(LATE).await;
        assert_eq!(lock(&world.steps).len(), 60, "all have had their turns");
        assert!(world.last("prompt") < 15, "{}", world.last("prompt"));
        let Turns { all, late, .. } = &*world.turns;
        assert_eq!((all.available_permits(), late.available_permits()), (1, 1));
    }

    #[tokio::test]
    async fn a_turn_comes_back_from_whoever_is_dropped() {
        let turns = Arc::new(Turns::new(1, Clock::system()));
        let held = turns.all.acquire().await;
        let mut waiting = Box::pin(Arc::clone(&turns).drive(shaking(), Box::pin(std::future::pending())));
        assert!(poll_fn(|cx| Poll::Ready(waiting.as_mut().poll(cx))).await.is_pending());
        drop(held);
        // It has been given the turn, and has not run since.
        assert_eq!(turns.all.available_permits(), 0);
        drop(waiting);
        assert_eq!(turns.all.available_permits(), 1);
    }

    #[tokio::test]
    async fn whoever_has_shaken_hands_or_been_told_to_go_waits_for_no_turn() {
        let world = World::new(1);
        let _held = world.turns.all.acquire().await;
        let shaking = shaking();
        let over = shaking.until_dropped();
        world.handshake("handshake", shaking, &Arc::default());
        behind().await;
        assert!(lock(&world.steps).is_empty());
        drop(over);
        while lock(&world.steps).is_empty() {
            behind().await;
        }
    }
}
