//! Where things are: hash to height, height to hash, locators.

use rookery_base::{Hash32, Height, Work};

use super::window::Recent;
use super::{Archive, HeaderTree, MAX_LOCATOR_HASHES, Spot, Unreadable};

/// Hashes of a locator that are one step apart; from then on the step doubles.
const LOCATOR_DENSE: usize = 10;

impl HeaderTree {
    /// Whether the header is known, on the main chain or beside it.
    pub fn contains(&self, archive: &dyn Archive, hash: &Hash32) -> Result<bool, Unreadable> {
        Ok(self.find(archive, hash)?.is_some())
    }

    /// The height of a main-chain header; `None` if it is not on the main chain.
    pub fn height_of(&self, archive: &dyn Archive, hash: &Hash32) -> Result<Option<Height>, Unreadable> {
        for height in self.index.candidates(hash) {
            if self.main_hash(archive, height)? == *hash {
                return Ok(Some(height));
            }
        }
        Ok(None)
    }

    /// The main chain's hash at a height; `None` outside it.
    pub fn hash_at(&self, archive: &dyn Archive, height: Height) -> Result<Option<Hash32>, Unreadable> {
        if !(self.base..=self.tip_height()).contains(&height) {
            return Ok(None);
        }
        self.main_hash(archive, height).map(Some)
    }

    /// The bytes of a main-chain header that is still in memory: every one that may not be committed, and the last
    /// [`Settings::window`](super::Settings::window) of those that came by. For older ones ask the store.
    pub fn raw_at(&self, height: Height) -> Option<&[u8]> {
        self.window.raw(height)
    }

    /// The bytes of a header of another branch than the main one.
    pub fn branch_raw(&self, hash: &Hash32) -> Option<&[u8]> {
        self.side.find(hash).map(|id| self.side.raw(id))
    }

    /// Height from which on [`raw_at`](Self::raw_at) gives every header.
    pub const fn raw_from(&self) -> Height {
        self.window.floor()
    }

    /// A locator of the main chain: the tip and the ten before it, then ever larger steps, and the first header at the
    /// end (with a checkpoint start: the first kept, then genesis).
    pub fn locator(&self, archive: &dyn Archive) -> Result<Vec<Hash32>, Unreadable> {
        self.locator_from(archive, Spot::Main(self.tip_height()))
    }

    /// A locator of the branch that ends in this header, to continue it where it was heard of. `None` if the header is
    /// not known.
    pub fn branch_locator(
        &self,
        archive: &dyn Archive,
        hash: &Hash32,
    ) -> Result<Option<Vec<Hash32>>, Unreadable> {
        match self.find(archive, hash)? {
            Some(spot) => self.locator_from(archive, spot).map(Some),
            None => Ok(None),
        }
    }

    /// The height of the first of these hashes that is on the main chain; of at most [`MAX_LOCATOR_HASHES`]. If none
    /// is, height 0, as the reference node answers; `None` if the main chain is not kept from there on, when there is
    /// nothing that the asker could link.
    pub fn find_locator(
        &self,
        archive: &dyn Archive,
        locator: &[Hash32],
    ) -> Result<Option<Height>, Unreadable> {
        for hash in locator.iter().take(MAX_LOCATOR_HASHES) {
            if let Some(height) = self.height_of(archive, hash)? {
                return Ok(Some(height));
            }
        }
        Ok((self.base == 0).then_some(0))
    }

    fn locator_from(&self, archive: &dyn Archive, start: Spot) -> Result<Vec<Hash32>, Unreadable> {
        let (mut spot, top) = match start {
            Spot::Main(height) => (start, height),
            Spot::Side(id) => (start, self.side.node(id).height),
        };
        let mut hashes = Vec::with_capacity(MAX_LOCATOR_HASHES);
        for height in heights(self.base, top) {
            while let Spot::Side(id) = spot
                && self.side.node(id).height > height
            {
                let node = self.side.node(id);
                spot = node.parent.map_or(Spot::Main(node.height - 1), Spot::Side);
            }
            hashes.push(match spot {
                Spot::Side(id) => self.side.node(id).recent.hash,
                Spot::Main(_) => self.main_hash(archive, height)?,
            });
        }
        if self.base > 0 {
            hashes.push(self.chain.genesis().1.hash);
        }
        Ok(hashes)
    }

    pub(super) fn find(&self, archive: &dyn Archive, hash: &Hash32) -> Result<Option<Spot>, Unreadable> {
        if let Some(id) = self.side.find(hash) {
            return Ok(Some(Spot::Side(id)));
        }
        Ok(self.height_of(archive, hash)?.map(Spot::Main))
    }

    /// Work of the main chain below a height in the window.
    pub(super) fn work_below(&self, height: Height) -> Work {
        if height == self.base {
            return self.base_work;
        }
        let Recent { work, .. } = self.window.get(height - 1).expect("asked for heights in the window");
        *work
    }

    fn main_hash(&self, archive: &dyn Archive, height: Height) -> Result<Hash32, Unreadable> {
        if let Some(recent) = self.window.get(height) {
            return Ok(recent.hash);
        }
        let hashes = archive.hashes(height, 1)?;
        hashes.first().copied().ok_or_else(|| Unreadable(format!("no hash at height {height}")))
    }
}

/// The heights that a locator names, from `top` down to `base`, both included.
fn heights(base: Height, top: Height) -> impl Iterator<Item = Height> {
    let (mut count, mut step) = (0, 1);
    std::iter::successors(Some(top), move |&height| {
        count += 1;
        let next = (height > base).then(|| height.saturating_sub(step).max(base));
        if count > LOCATOR_DENSE {
            step = step.saturating_mul(2);
        }
        next
    })
}
