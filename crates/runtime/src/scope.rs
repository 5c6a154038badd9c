//! The supervision tree. Nothing is spawned outside a [`Scope`].
//!
//! A scope has a name, a cancellation that reaches its children, and the list of what runs in it. A task's panic is
//! caught and acted on as declared where it was spawned ([`OnPanic`]): it costs one peer, or it stops the node
//! cleanly with its cause on record. [`Scope::close`] cancels and waits for everything below, and names what did not
//! end in time. Dropping a handle is never how a failure disappears: there are no task handles to drop.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use rookery_observe::Metrics;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use tokio_util::task::TaskTracker;

/// What a panic in a task means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnPanic {
    /// It ends the scope the task runs in: a peer's routine costs that peer.
    EndScope,
    /// It stops the node: what the task owned cannot be trusted any more.
    StopNode,
}

/// Restarts allowed for a helper: 3 in 60 s tells a passing fault from a lasting one.
const RESTARTS: usize = 3;
/// The window in which [`RESTARTS`] count.
const RESTART_WINDOW: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
struct Running {
    next: u64,
    tasks: BTreeMap<u64, &'static str>,
}

/// What the whole tree shares.
#[derive(Debug, Default)]
struct Tree {
    root: CancellationToken,
    stop_cause: OnceLock<String>,
    panics: Mutex<Vec<String>>,
    metrics: Arc<Metrics>,
}

/// A node of the tree. Cloning gives another handle to the same node.
#[derive(Debug, Clone)]
pub struct Scope {
    name: &'static str,
    token: CancellationToken,
    /// This scope's own tracker and those of all above it: a parent waits for its children's tasks too.
    trackers: Arc<Vec<TaskTracker>>,
    running: Arc<Mutex<Running>>,
    /// A panic of one of its own tasks has ended it.
    panicked: Arc<AtomicBool>,
    tree: Arc<Tree>,
}

/// Takes a task off the list of what runs, when it ends and however it ends.
struct Listed {
    running: Arc<Mutex<Running>>,
    number: u64,
}

impl Drop for Listed {
    fn drop(&mut self) {
        lock(&self.running).tasks.remove(&self.number);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that runs under these locks can leave them half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Scope {
    /// A tree's root. Panics are counted in `metrics`.
    pub fn root(name: &'static str, metrics: Arc<Metrics>) -> Self {
        let tree = Arc::new(Tree { metrics, ..Tree::default() });
        Self {
            name,
            token: tree.root.clone(),
            trackers: Arc::new(vec![TaskTracker::new()]),
            running: Arc::default(),
            panicked: Arc::default(),
            tree,
        }
    }

    /// A scope below this one: cancelled with it, waited for by it.
    #[must_use]
    pub fn child(&self, name: &'static str) -> Self {
        let mut trackers = self.trackers.to_vec();
        trackers.push(TaskTracker::new());
        Self {
            name,
            token: self.token.child_token(),
            trackers: Arc::new(trackers),
            running: Arc::clone(&self.running),
            panicked: Arc::default(),
            tree: Arc::clone(&self.tree),
        }
    }

    /// Runs a task in this scope. It is dropped at its next await when the scope is cancelled.
    ///
    /// A task has to be `Send`, and the guards of the locks in use are not: a guard that is held across an await does
    /// not compile.
    ///
    /// ```compile_fail,E0277
    /// # use rookery_runtime::{OnPanic, Scope};
    /// let (scope, shared) = (Scope::root("node", Default::default()), std::sync::Arc::new(std::sync::Mutex::new(0)));
    /// scope.spawn("task", OnPanic::EndScope, async move {
    ///     let guard = shared.lock();
    ///     std::future::ready(()).await;
    ///     drop(guard);
    /// });
    /// ```
    pub fn spawn(
        &self,
        name: &'static str,
        on_panic: OnPanic,
        future: impl Future<Output = ()> + Send + 'static,
    ) {
        let token = self.token.clone();
        // Boxed here already: the select would have room for it twice, as what it was given and as what it polls.
        let mut future = Box::pin(future);
        self.spawn_to_end(name, on_panic, async move {
            tokio::select! {
                biased;
                () = token.cancelled() => {}
                () = &mut future => {}
            }
        });
    }

    /// Runs a task that ends by itself after cancellation (it flushes, says goodbye, or drains its queue).
    #[expect(clippy::disallowed_methods, reason = "the one place that spawns tasks")]
    pub fn spawn_to_end(
        &self,
        name: &'static str,
        on_panic: OnPanic,
        future: impl Future<Output = ()> + Send + 'static,
    ) {
        let listed = self.list(name);
        let tokens: Vec<_> = self.trackers.iter().map(TaskTracker::token).collect();
        let scope = self.clone();
        // Boxed, so that tokio's task machinery is compiled once and the routine's state moves once.
        let future: crate::BoxFuture<'static, ()> = Box::pin(future);
        tokio::spawn(async move {
            let ended = AssertUnwindSafe(future).catch_unwind().await;
            if let Err(panic) = ended {
                scope.panicked(name, on_panic, &*panic);
            }
            drop(listed);
            drop(tokens);
        });
    }

    /// Runs a helper that a panic restarts, up to 3 times in 60 s; then the node stops.
    pub fn spawn_restarting<F>(&self, name: &'static str, mut make: impl FnMut() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let scope = self.clone();
        self.spawn(name, OnPanic::StopNode, async move {
            let mut restarts: Vec<tokio::time::Instant> = Vec::new();
            let clock = crate::Clock::system();
            while let Err(panic) = AssertUnwindSafe(make()).catch_unwind().await {
                scope.record_panic(name, &*panic);
                let now = clock.now();
                restarts.retain(|at| now.duration_since(*at) < RESTART_WINDOW);
                if restarts.len() == RESTARTS {
                    scope.stop_node(format!("{name} panicked more than {RESTARTS} times in a minute"));
                    return;
                }
                restarts.push(now);
            }
        });
    }

    /// Runs blocking work on a thread of its own; a panic there stops the node. The work must end by itself once
    /// its handles are gone.
    pub fn thread(&self, name: &'static str, work: impl FnOnce() + Send + 'static) {
        let listed = self.list(name);
        let tokens: Vec<_> = self.trackers.iter().map(TaskTracker::token).collect();
        let scope = self.clone();
        let body = move || {
            if let Err(panic) = std::panic::catch_unwind(AssertUnwindSafe(work)) {
                scope.panicked(name, OnPanic::StopNode, &*panic);
            }
            drop(listed);
            drop(tokens);
        };
        if let Err(error) = std::thread::Builder::new().name(name.to_owned()).spawn(body) {
            self.stop_node(format!("cannot start thread {name}: {error}"));
        }
    }

    /// Completes when the scope is cancelled.
    pub fn cancelled(&self) -> WaitForCancellationFuture<'_> {
        self.token.cancelled()
    }

    /// Whether the scope was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Whether a panic of one of its own tasks has ended this scope: then it was not asked to stop.
    pub fn ended_by_panic(&self) -> bool {
        self.panicked.load(SeqCst)
    }

    /// Cancels the scope and everything below it.
    pub fn cancel(&self) {
        self.token.cancel();
    }

    /// Stops the whole node for a reason; the first reason is kept.
    pub fn stop_node(&self, cause: String) {
        let _ = self.tree.stop_cause.set(cause);
        self.tree.root.cancel();
    }

    /// Why the node was stopped, when it did not stop because it was asked to.
    pub fn stop_cause(&self) -> Option<&str> {
        self.tree.stop_cause.get().map(String::as_str)
    }

    /// Panics that were caught, oldest first; at most 64 are kept.
    pub fn panics(&self) -> Vec<String> {
        lock(&self.tree.panics).clone()
    }

    /// Cancels, then waits for everything below. On timeout: the names of what still runs.
    pub async fn close(&self, within: Duration) -> Result<(), Vec<&'static str>> {
        self.cancel();
        let tracker = self.trackers.last().expect("a scope has its own tracker");
        tracker.close();
        match tokio::time::timeout(within, tracker.wait()).await {
            Ok(()) => Ok(()),
            Err(_) => Err(lock(&self.running).tasks.values().copied().collect()),
        }
    }

    /// Names of everything that runs in the tree, in the order in which it was started.
    pub fn running(&self) -> Vec<&'static str> {
        lock(&self.running).tasks.values().copied().collect()
    }

    fn list(&self, name: &'static str) -> Listed {
        let mut running = lock(&self.running);
        let number = running.next;
        running.next += 1;
        running.tasks.insert(number, name);
        Listed { running: Arc::clone(&self.running), number }
    }

    fn panicked(&self, name: &'static str, on_panic: OnPanic, panic: &(dyn std::any::Any + Send)) {
        let text = self.record_panic(name, panic);
        match on_panic {
            OnPanic::EndScope => {
                self.panicked.store(true, SeqCst);
                self.cancel();
            }
            OnPanic::StopNode => self.stop_node(text),
        }
    }

    /// Writes down and counts a panic, also for whoever caught one below the task's own level; gives its text.
    pub fn record_panic(&self, name: &'static str, panic: &(dyn std::any::Any + Send)) -> String {
        let message = panic
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        let text = format!("{name} in {} panicked: {message}", self.name);
        tracing::error!("{text}");
        self.tree.metrics.panics.inc();
        let mut panics = lock(&self.tree.panics);
        if panics.len() < 64 {
            panics.push(text.clone());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const SOON: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn a_panic_ends_its_own_scope_only() {
        let root = Scope::root("node", Arc::default());
        let (a, b) = (root.child("a"), root.child("b"));
        a.spawn("routine", OnPanic::EndScope, async { panic!("boom") });
        a.cancelled().await;
        assert!(!b.is_cancelled() && !root.is_cancelled());
        assert!(a.ended_by_panic() && !b.ended_by_panic() && !root.ended_by_panic());
        assert_eq!(root.panics(), ["routine in a panicked: boom"]);
        assert_eq!(root.stop_cause(), None);
        root.close(SOON).await.unwrap();
        assert!(b.is_cancelled());
    }

    #[tokio::test]
    async fn a_declared_panic_stops_the_node_with_its_cause() {
        let root = Scope::root("node", Arc::default());
        root.child("deep").child("deeper").spawn("registry", OnPanic::StopNode, async { panic!("lost") });
        root.cancelled().await;
        assert_eq!(root.stop_cause(), Some("registry in deeper panicked: lost"));
    }

    #[tokio::test(start_paused = true)]
    async fn close_waits_for_children_and_names_what_does_not_end() {
        let root = Scope::root("node", Arc::default());
        root.child("c").spawn_to_end("stubborn", OnPanic::EndScope, std::future::pending());
        root.spawn("fine", OnPanic::EndScope, std::future::pending());
        assert_eq!(root.close(SOON).await, Err(vec!["stubborn"]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_helper_restarts_three_times_then_stops_the_node() {
        let root = Scope::root("node", Arc::default());
        let runs = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&runs);
        root.spawn_restarting("dialer", move || {
            count.fetch_add(1, Ordering::SeqCst);
            async { panic!("again") }
        });
        root.cancelled().await;
        assert_eq!(runs.load(Ordering::SeqCst), 4);
        assert!(root.stop_cause().unwrap().contains("dialer"));
    }
}
