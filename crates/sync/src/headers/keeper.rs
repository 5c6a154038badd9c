//! The store, as its worker keeps it: one writer that survives one failure.
//!
//! After a failed commit the store must be opened again to tell whether the batch reached the disk. That is done
//! once; a second failure in a row stops the node, because a node that cannot write is of no use and must not
//! acknowledge anything.

use rookery_runtime::{Env, Worker};
use rookery_store::{Batch, Reader, State, Store, StoreError};

/// Opens the store: at the start, and once more after a failure.
pub type Opener = Box<dyn FnMut() -> Result<Store, StoreError> + Send>;

/// The state of the store's worker.
pub struct Keeper {
    store: Option<Store>,
    opener: Opener,
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
    /// Starts the worker that keeps an open store. It ends when the last handle is dropped.
    pub fn start(env: &Env, store: Store, opener: Opener) -> Worker<Self> {
        Worker::start(env, "store", QUEUE, Self { store: Some(store), opener })
    }

    pub(super) fn commit(&mut self, batch: &Batch) -> Kept {
        let Some(store) = &mut self.store else { return self.reopen(None) };
        match store.commit(batch) {
            Ok(committed) => Kept::Durable(committed.state),
            Err(error) => self.reopen(Some(error)),
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

    fn reopen(&mut self, first: Option<StoreError>) -> Kept {
        // The lock goes with the store that failed.
        self.store = None;
        match (self.opener)() {
            Ok(store) => {
                let (state, reader) = (store.state(), store.reader());
                self.store = Some(store);
                let error = first.unwrap_or(StoreError::Closed { path: "the store".into() });
                Kept::Reopened(state, reader, error)
            }
            Err(error) => Kept::Lost(first.unwrap_or(error)),
        }
    }
}
