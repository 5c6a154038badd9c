//! The first state of a tree: a fresh chain, or what a store has.

use std::sync::Arc;

use rookery_base::{Hash32, Height, Work};

use super::index::Index;
use super::pending::Ledger;
use super::side::Side;
use super::window::{Recent, Window};
use super::{Archive, HeaderTree, MAX_HEIGHT, Settings, Spot, Unreadable};
use crate::chain::{Chain, HeaderFacts};

/// Why a tree cannot begin. Ours: the checkpoint or the store is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// No header to begin with.
    #[error("no header to begin with")]
    Empty,
    /// The bytes are not whole headers.
    #[error("{bytes} bytes are not headers of {header_len} bytes each")]
    Length {
        /// Bytes that came.
        bytes: usize,
        /// Length of a header of this chain.
        header_len: usize,
    },
    /// A header does not follow the one before it.
    #[error("the header at height {height} does not follow the one before it")]
    Unlinked {
        /// The height.
        height: Height,
    },
    /// Fewer recent headers than the rules look back.
    #[error("{count} recent headers came, {needed} are needed to judge the next")]
    TooFew {
        /// Headers that came.
        count: usize,
        /// Headers that the rules may read.
        needed: usize,
    },
    /// The headers reach beyond [`MAX_HEIGHT`].
    #[error("headers reach above height {MAX_HEIGHT}")]
    TooHigh,
    /// The stored hashes and the stored headers are not of the same chain.
    #[error("the stored header at height {height} has another hash than the one stored beside it")]
    Mismatch {
        /// The height.
        height: Height,
    },
}

impl HeaderTree {
    /// A fresh chain that begins at genesis. The first header waits for the store.
    pub fn from_genesis(chain: Arc<dyn Chain>, settings: Settings) -> Result<Self, StartError> {
        let raw = chain.genesis().0.to_vec();
        Self::from_checkpoint(chain, 0, Work::ZERO, &raw, settings)
    }

    /// A fresh chain that begins with trusted headers from height `base`, below which there is `work_before`. That
    /// they follow each other is checked, their place under the rules is not: the ancestors that this takes are what
    /// is missing. They wait for the store, as inserted ones do.
    pub fn from_checkpoint(
        chain: Arc<dyn Chain>,
        base: Height,
        work_before: Work,
        raw: &[u8],
        settings: Settings,
    ) -> Result<Self, StartError> {
        let facts = linked_facts(chain.as_ref(), base, raw)?;
        let mut tree = Self::bare(
            chain,
            settings,
            (base, work_before),
            base,
            Index::new(settings.index_key, facts.len()),
            base,
        );
        let mut work = work_before;
        for (facts, raw) in facts.iter().zip(raw.chunks_exact(tree.header_len)) {
            work = work.saturating_add(tree.proof(facts.bits));
            tree.index.insert(&facts.hash, tree.window.next());
            tree.window.push(Recent::new(facts, work), raw);
        }
        Ok(tree)
    }

    fn bare(
        chain: Arc<dyn Chain>,
        settings: Settings,
        (base, base_work): (Height, Work),
        floor: Height,
        index: Index,
        next: Height,
    ) -> Self {
        let header_len = chain.header_len();
        let depth = super::depth(chain.as_ref(), &settings);
        Self {
            base,
            base_work,
            header_len,
            settings,
            window: Window::new(header_len, depth, floor),
            index,
            side: Side::new(header_len, settings.side_headers),
            ledger: Ledger::new(next),
            proof: (0, chain.proof(0)),
            chain,
        }
    }

    /// Takes back a side header that a store kept: lowest first, so that parents come before children. It was judged
    /// before it was stored. Whether it has a place: one whose parent is gone is of no use.
    pub fn restore_side(&mut self, archive: &dyn Archive, raw: &[u8]) -> Result<bool, Unreadable> {
        let facts = self.chain.facts(raw);
        let [facts] = facts.as_slice() else { return Ok(false) };
        if self.contains(archive, &facts.hash)? {
            return Ok(false);
        }
        let Some(parent) = self.find(archive, &facts.prev)? else { return Ok(false) };
        let (height, work) = match parent {
            Spot::Side(id) => (self.side.node(id).height, self.side.node(id).recent.work),
            Spot::Main(height) => match self.window.get(height) {
                Some(recent) => (height, recent.work),
                None => {
                    let headers = self.read_main(archive, height, height)?;
                    (height, headers.recent.last().map_or(Work::ZERO, |recent| recent.work))
                }
            },
        };
        let recent = Recent::new(facts, work.saturating_add(self.proof(facts.bits)));
        Ok(self.add_side(recent, raw, height + 1, parent, 0).is_some())
    }
}

/// Rebuilds a tree from a store: all hashes in order of height, then the last headers.
pub struct Restore {
    chain: Arc<dyn Chain>,
    settings: Settings,
    base: (Height, Work),
    index: Index,
    next: Height,
}

impl Restore {
    /// A store of about `count` main-chain headers that begins at height `base`, with `work_before` below it.
    pub fn new(
        chain: Arc<dyn Chain>,
        base: Height,
        work_before: Work,
        count: usize,
        settings: Settings,
    ) -> Self {
        let index = Index::new(settings.index_key, count);
        Self { chain, settings, base: (base, work_before), index, next: base }
    }

    /// The next main-chain hashes.
    pub fn hashes(&mut self, hashes: &[Hash32]) -> Result<(), StartError> {
        if hashes.len() > (MAX_HEIGHT - self.next.min(MAX_HEIGHT)) as usize {
            return Err(StartError::TooHigh);
        }
        for hash in hashes {
            self.index.insert(hash, self.next);
            self.next += 1;
        }
        Ok(())
    }

    /// Height from which on [`finish`](Self::finish) would have the headers, once all hashes are in.
    pub fn recent_from(&self) -> Height {
        self.next.saturating_sub(super::depth(self.chain.as_ref(), &self.settings)).max(self.base.0)
    }

    /// The tree, from the last main-chain headers and the tip's work. [`Settings::window`] of them, or all if there
    /// are fewer; as many as the rules look back are enough to go on. They were judged before they were stored.
    pub fn finish(self, recent: &[u8], tip_work: Work) -> Result<HeaderTree, StartError> {
        let count = recent.len() / self.chain.header_len().max(1);
        let floor = Height::try_from(count)
            .ok()
            .and_then(|count| self.next.checked_sub(count))
            .filter(|floor| *floor >= self.base.0)
            .ok_or(StartError::TooHigh)?;
        let facts = linked_facts(self.chain.as_ref(), floor, recent)?;
        let needed = self.chain.lookback().min((self.next - self.base.0) as usize);
        if count < needed {
            return Err(StartError::TooFew { count, needed });
        }
        let mut tree = HeaderTree::bare(self.chain, self.settings, self.base, floor, self.index, self.next);
        let above: Vec<Work> = facts.iter().map(|facts| tree.proof(facts.bits)).collect();
        let mut work = above.iter().fold(tip_work, |work, proof| work.saturating_sub(*proof));
        for ((facts, raw), proof) in facts.iter().zip(recent.chunks_exact(tree.header_len)).zip(above) {
            let height = tree.window.next();
            if !tree.index.candidates(&facts.hash).any(|candidate| candidate == height) {
                return Err(StartError::Mismatch { height });
            }
            work = work.saturating_add(proof);
            tree.window.push(Recent::new(facts, work), raw);
        }
        Ok(tree)
    }
}

/// The facts of a run of trusted headers.
fn linked_facts(chain: &dyn Chain, from: Height, raw: &[u8]) -> Result<Vec<HeaderFacts>, StartError> {
    let header_len = chain.header_len();
    if !raw.len().is_multiple_of(header_len) {
        return Err(StartError::Length { bytes: raw.len(), header_len });
    }
    let facts = chain.facts(raw);
    if facts.is_empty() {
        return Err(StartError::Empty);
    }
    if from > MAX_HEIGHT || facts.len() > (MAX_HEIGHT - from) as usize {
        return Err(StartError::TooHigh);
    }
    let broken = facts.windows(2).zip(from + 1..).find(|(pair, _)| pair[1].prev != pair[0].hash);
    match broken {
        Some((_, height)) => Err(StartError::Unlinked { height }),
        None => Ok(facts),
    }
}
