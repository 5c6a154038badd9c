//! From the tree to the store: when to commit, and what follows.

use std::time::Duration;

use rookery_base::{Hash32, Height};
use rookery_runtime::{BoxFuture, Env, Instant, Worker, WorkerGone};
use rookery_store::{BATCH_BYTES, Batch, Reorg, Run, SideHeader, State};

use super::keeper::{Keeper, Kept};
use super::start::StoreArchive;
use crate::tree::{HeaderTree, MAX_PENDING_BYTES, Pending};

/// While headers come in bulk, a batch is committed when it is worth it; what came alone is not kept waiting longer.
const DELAY: Duration = Duration::from_millis(100);

/// A commit that is under way.
struct Flight {
    done: BoxFuture<'static, Result<Kept, WorkerGone>>,
    began: Instant,
    /// The tip that the store has once it is done.
    tip: Option<(Height, Hash32)>,
}

/// Hands what is pending to the store's worker, one commit at a time.
pub(super) struct Committer {
    env: Env,
    worker: Worker<Keeper>,
    flight: Option<Flight>,
    waiting_since: Option<Instant>,
    failures: u32,
    /// Height of the last header that is durable.
    pub durable: Option<Height>,
}

impl Committer {
    pub fn new(env: Env, worker: Worker<Keeper>, durable: Option<Height>) -> Self {
        Self { env, worker, flight: None, waiting_since: None, failures: 0, durable }
    }

    /// Starts a commit if one is due.
    pub fn work(&mut self, tree: &mut HeaderTree, now: Instant, hurry: bool) {
        if self.flight.is_some() {
            return;
        }
        let bytes = tree.pending_bytes();
        let since = *self.waiting_since.get_or_insert(now);
        if !hurry && bytes < BATCH_BYTES && now < since + DELAY {
            return;
        }
        self.waiting_since = None;
        let Some(pending) = tree.pending(MAX_PENDING_BYTES) else { return };
        let (batch, tip) = batch(&pending);
        let worker = self.worker.clone();
        let done = Box::pin(async move { worker.call(move |keeper| keeper.commit(&batch)).await });
        self.flight = Some(Flight { done, began: now, tip });
    }

    /// Completes when the commit under way is done; pending while none is. Cancel-safe.
    pub async fn done(&mut self) -> Result<Kept, WorkerGone> {
        match &mut self.flight {
            Some(flight) => (&mut flight.done).await,
            None => std::future::pending().await,
        }
    }

    /// Takes the end of a commit over. An error stops the node.
    pub fn finish(
        &mut self,
        kept: Result<Kept, WorkerGone>,
        tree: &mut HeaderTree,
        archive: &mut StoreArchive,
    ) -> Result<(), String> {
        let Some(flight) = self.flight.take() else { return Ok(()) };
        let took = self.env.clock.now().saturating_duration_since(flight.began);
        self.env.metrics.store_commit_seconds.observe(took.as_secs_f64());
        let state = match kept {
            Ok(Kept::Durable(state)) => {
                self.failures = 0;
                tree.committed();
                self.env.trace("commit", 0, 0, u64::from(state.next_height()), "durable");
                state
            }
            Ok(Kept::Reopened(state, reader, error)) => {
                self.failures += 1;
                self.env.trace("commit", 0, 0, u64::from(state.next_height()), "reopened");
                tracing::error!(%error, "a commit failed; the store was opened again");
                if self.failures > 1 {
                    return Err(format!("the store failed twice: {error}"));
                }
                archive.reader = reader;
                if tip_of(&state) == flight.tip {
                    tree.committed()
                } else {
                    tree.aborted()
                }
                state
            }
            Ok(Kept::Lost(error)) => {
                return Err(format!("the store failed and cannot be opened again: {error}"));
            }
            Err(WorkerGone) => return Err("the store's worker has ended".into()),
        };
        self.durable = state.tip.map(|tip| tip.height);
        self.env.metrics.stored_height.set(self.durable.map_or(-1, i64::from));
        Ok(())
    }

    /// Whether a commit is under way, and since when.
    pub fn since(&self) -> Option<Instant> {
        self.flight.as_ref().map(|flight| flight.began)
    }

    /// When [`work`](Self::work) has something to do that it has not now.
    pub fn due(&self) -> Option<Instant> {
        self.waiting_since.filter(|_| self.flight.is_none()).map(|since| since + DELAY)
    }
}

fn tip_of(state: &State) -> Option<(Height, Hash32)> {
    state.tip.map(|tip| (tip.height, tip.hash))
}

fn batch(pending: &Pending<'_>) -> (Batch, Option<(Height, Hash32)>) {
    let start = pending.start();
    let make = if pending.replaces() { Run::replace } else { Run::extend };
    let mut run = make(start, pending.work_before());
    let mut tip = None;
    for ((raw, hash, work), height) in pending.headers().zip(start..) {
        run.push(raw, hash, work);
        tip = Some((height, hash));
    }
    let side = pending.side().map(|(height, hash, raw)| SideHeader { height, hash, raw: raw.to_vec() });
    let reorg = pending.reorganisation().map(|record| Reorg {
        fork: record.fork,
        old_tip: record.old_tip,
        new_tip: record.new_tip,
        unix_time: record.time,
    });
    let wanted = !run.is_empty() || pending.replaces();
    (Batch { run: wanted.then_some(run), side: side.collect(), reorg, blobs: Vec::new() }, tip)
}
