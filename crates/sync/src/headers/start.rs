//! From a store to a tree: what the node knows when it starts.

use std::sync::Arc;

use rand::Rng;
use rookery_base::{Height, Work};
use rookery_runtime::Env;
use rookery_store::{Reader, Store, StoreError};

use super::keeper::Latest;
use crate::Chain;
use crate::tree::{Archive, HeaderTree, Restore, Settings, StartError, Unreadable};

/// Why the stored chain cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What the store holds is no chain.
    #[error("the stored chain cannot be used: {0}; move the file away and let the node sync again")]
    Start(#[from] StartError),
    /// The store could not be read while the tree was built.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
}

/// A tree that is ready, and where it came from.
pub struct Opened {
    /// The tree.
    pub(super) tree: HeaderTree,
    /// What it reads old headers from.
    pub(super) archive: StoreArchive,
}

impl Opened {
    /// Builds the tree from what a store holds; a new store begins at genesis or with the trusted headers of a
    /// checkpoint: height of the first, work below it, raw headers.
    ///
    /// # Errors
    /// When the store cannot be read or what it holds is no chain.
    pub fn new(
        env: &Env,
        chain: &Arc<dyn Chain>,
        store: &Store,
        checkpoint: Option<(Height, Work, &[u8])>,
    ) -> Result<Self, OpenError> {
        let settings = Settings::new(env.rng.fork("header-index", 0).next_u64());
        let archive = StoreArchive::new(store.reader());
        let state = store.state();
        let Some(tip) = state.tip else {
            let chain = Arc::clone(chain);
            let tree = match checkpoint {
                Some((base, work, raw)) => HeaderTree::from_checkpoint(chain, base, work, raw, settings)?,
                None => HeaderTree::from_genesis(chain, settings)?,
            };
            return Ok(Self { tree, archive });
        };
        let base = state.base;
        let mut restore =
            Restore::new(Arc::clone(chain), base.height, base.work_before, state.len(), settings);
        let mut broken = Ok(());
        archive.reader.visit_hashes(&mut |chunk| {
            if broken.is_ok() {
                broken = restore.hashes(chunk.hashes);
            }
        })?;
        broken?;
        let recent = (settings.window as usize).min(state.len());
        let raw = archive.reader.headers(tip.height + 1 - recent as Height, recent)?;
        let mut tree = restore.finish(&raw, tip.work)?;
        for side in archive.reader.side_headers()? {
            // One without a place is of no use, and of no harm.
            tree.restore_side(&archive, &side.raw)?;
        }
        Ok(Self { tree, archive })
    }
}

/// Old headers, read from the store.
#[derive(Clone)]
pub(super) struct StoreArchive {
    pub(super) reader: Reader,
    pub(super) latest: Latest,
}

impl StoreArchive {
    fn new(reader: Reader) -> Self {
        let latest = Latest::new(reader.clone());
        Self { reader, latest }
    }

    /// Reads, and once more from the newest reader when ours has ended with its store.
    fn read<T>(&self, read: impl Fn(&Reader) -> Result<T, StoreError>) -> Result<T, Unreadable> {
        read(&self.reader).or_else(|_| read(&self.latest.get())).map_err(unreadable)
    }
}

impl Archive for StoreArchive {
    fn hashes(&self, from: Height, count: usize) -> Result<Vec<rookery_base::Hash32>, Unreadable> {
        self.read(|reader| reader.hashes(from, count))
    }

    fn headers(&self, from: Height, count: usize) -> Result<Vec<u8>, Unreadable> {
        self.read(|reader| reader.headers(from, count))
    }

    fn work_anchor(&self, height: Height) -> Result<(Height, Work), Unreadable> {
        let anchor = self.read(|reader| reader.work_anchor(height))?;
        let anchor = anchor.ok_or_else(|| Unreadable(format!("no work is stored near height {height}")))?;
        Ok((anchor.height, anchor.work_before))
    }
}

fn unreadable(error: StoreError) -> Unreadable {
    Unreadable(error.to_string())
}
