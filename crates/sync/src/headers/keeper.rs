//! The store, as its worker keeps it: one writer that survives one failure.
//!
//! After a failed commit the store must be opened again to tell whether the batch reached the disk. That is done
//! once; a second failure in a row stops the node, because a node that cannot write is of no use and must not
//! acknowledge anything.
//!
//! A store that was closed takes its readers with it. So the newest reader has a place of its own, which is locked while
//! something is written: whoever finds that a reader has ended waits there for the store to be open again. Not only
//! commits open it: a failed save of a blob does, and nobody tells the readers of that.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rookery_runtime::{Env, Worker};
use rookery_store::{Batch, Reader, State, Store, StoreError};

use super::start::Opened;

/// Opens the store: at the start, and once more after a failure.
pub type Opener = Box<dyn FnMut() -> Result<Store, StoreError> + Send>;

/// The reader of the store as it was opened last.
#[derive(Clone)]
pub(super) struct Latest(Arc<Mutex<Reader>>);

impl Latest {
    pub fn new(reader: Reader) -> Self {
        Self(Arc::new(Mutex::new(reader)))
    }

    /// The reader; waits for the end of a write that is under way.
    pub fn get(&self) -> Reader {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Reader> {
        // A reader is replaced whole or not at all.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The state of the store's worker.
pub struct Keeper {
    store: Option<Store>,
    opener: Opener,
    latest: Latest,
}

/// What became of a commit.
#[derive(Debug)]
pub(super) enum Kept {
    /// It is durable.
    Durable(State),
    /// It failed, the store was opened again, and what is there is told: either all of the batch or none.
    Reopened(State, Reader, StoreError),
    /// It failed, and so did opening again.
    Lost(StoreError),
}

/// Jobs that wait for the store: one commit, and a blob now and then.
const QUEUE: usize = 8;

impl Keeper {
    /// Starts the worker that keeps the open store on which `opened` was built. It ends when the last handle is
    /// dropped.
    pub fn start(env: &Env, store: Store, opener: Opener, opened: &Opened) -> Worker<Self> {
        let latest = opened.archive.latest.clone();
        Worker::start(env, "store", QUEUE, Self { store: Some(store), opener, latest })
    }

    pub(super) fn commit(&mut self, batch: &Batch) -> Kept {
        let latest = self.latest.clone();
        let mut latest = latest.lock();
        let Some(store) = &mut self.store else { return self.reopen(None, &mut latest) };
        match store.commit(batch) {
            Ok(committed) => Kept::Durable(committed.state),
            Err(error) => self.reopen(Some(error), &mut latest),
        }
    }

    /// Saves a blob durably beside the headers.
    ///
    /// # Errors
    /// When the store failed; a later one may succeed.
    pub fn save(&mut self, name: &str, bytes: Vec<u8>) -> Result<(), StoreError> {
        let batch = Batch { blobs: vec![(name.to_owned(), bytes)], ..Batch::default() };
        match self.commit(&batch) {
            Kept::Durable(_) => Ok(()),
            Kept::Reopened(_, _, error) | Kept::Lost(error) => Err(error),
        }
    }

    fn reopen(&mut self, first: Option<StoreError>, latest: &mut Reader) -> Kept {
        // The lock goes with the store that failed.
        self.store = None;
        match (self.opener)() {
            Ok(store) => {
                let (state, reader) = (store.state(), store.reader());
                self.store = Some(store);
                *latest = reader.clone();
                let error = first.unwrap_or(StoreError::Closed { path: "the store".into() });
                Kept::Reopened(state, reader, error)
            }
            Err(error) => Kept::Lost(first.unwrap_or(error)),
        }
    }
}
