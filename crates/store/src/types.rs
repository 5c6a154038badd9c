//! What goes in and what comes out: configuration, batches, records.

use rookery_base::{Hash32, Height, Work};
use std::fmt;

/// Page cache of the database, in bytes. Half of it buffers writes. Headers are written once and read in ranges,
/// and the system caches the file anyway: in `examples/measure.rs` 32 MiB made nothing faster and cost its size in
/// resident memory, 1 MiB was as fast. 4 MiB leaves readers that serve peers some
/// pages beside the writer's half.
pub const DEFAULT_CACHE_BYTES: usize = 4 << 20;

/// Headers of branches that are not the main chain, kept at most. Seven times the deepest reorganisation that a
/// proof-of-work chain of this kind plans for (hsd keeps 288 blocks), so several branches fit; a flood of side
/// headers costs at most 2,048 records.
pub const DEFAULT_MAX_SIDE: usize = 2_048;

/// Reorganisations remembered at most: years of a healthy chain, 100 KiB.
pub const DEFAULT_MAX_REORGS: usize = 1_000;

/// The longest blob, in bytes: an address book of 65,536 entries of 64 bytes. A blob is read and written whole.
pub const MAX_BLOB_BYTES: usize = 4 << 20;

/// The longest name of a blob, in bytes.
pub const MAX_BLOB_NAME: usize = 64;

/// Blobs kept at most. Their names come from code, never from a peer; the cap finds a bug, not an attack.
pub const MAX_BLOBS: usize = 64;

/// The longest name of a network, in bytes.
pub const MAX_NETWORK_NAME: usize = 64;

/// The shape of a store. All but the last three fields are fixed at creation.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name of the network, 1 to [`MAX_NETWORK_NAME`] bytes. A file of another network is refused.
    pub network: String,
    /// Length of every raw header, in bytes: 1 to [`MAX_RECORD_LEN`](crate::MAX_RECORD_LEN).
    pub record_len: usize,
    /// Where a *new* file begins. An existing file keeps its own, see [`State::base`].
    pub base: Base,
    /// Page cache, in bytes, see [`DEFAULT_CACHE_BYTES`].
    pub cache_bytes: usize,
    /// Side headers kept, see [`DEFAULT_MAX_SIDE`]. The lowest go first.
    pub max_side: usize,
    /// Reorganisations kept, see [`DEFAULT_MAX_REORGS`]. The oldest go first. At least 1.
    pub max_reorgs: usize,
}

impl Config {
    /// A store that starts at genesis, with the default limits.
    pub fn new(network: impl Into<String>, record_len: usize) -> Self {
        Self {
            network: network.into(),
            record_len,
            base: Base::default(),
            cache_bytes: DEFAULT_CACHE_BYTES,
            max_side: DEFAULT_MAX_SIDE,
            max_reorgs: DEFAULT_MAX_REORGS,
        }
    }
}

/// Where the kept chain begins: at genesis, or at a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Base {
    /// Height of the first header that is kept.
    pub height: Height,
    /// Work of everything below it.
    pub work_before: Work,
}

/// The end of the main chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tip {
    /// Its height.
    pub height: Height,
    /// Its hash.
    pub hash: Hash32,
    /// Work of the chain up to and including it.
    pub work: Work,
}

/// What the store holds of the main chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// Where it begins.
    pub base: Base,
    /// Where it ends; `None` as long as no header was written.
    pub tip: Option<Tip>,
}

impl State {
    /// Height of the next header.
    pub fn next_height(&self) -> Height {
        self.tip.map_or(self.base.height, |tip| tip.height.saturating_add(1))
    }

    /// Work of everything that is kept and below.
    pub fn work(&self) -> Work {
        self.tip.map_or(self.base.work_before, |tip| tip.work)
    }

    /// Number of headers on the main chain.
    pub fn len(&self) -> usize {
        (self.next_height() - self.base.height) as usize
    }

    /// No header was written yet.
    pub fn is_empty(&self) -> bool {
        self.tip.is_none()
    }
}

/// A run of main-chain headers to write.
///
/// `start` is stated by the caller and checked by the store, so that a caller that has lost count is told so
/// instead of moving the chain.
#[derive(Clone)]
pub struct Run {
    pub(crate) start: Height,
    pub(crate) work_before: Work,
    pub(crate) replaces: bool,
    pub(crate) raw: Vec<u8>,
    pub(crate) hashes: Vec<Hash32>,
    pub(crate) works: Vec<Work>,
}

impl Run {
    /// Headers that follow the tip. `work_before` is the work of the chain up to and including `start - 1`.
    pub const fn extend(start: Height, work_before: Work) -> Self {
        Self { start, work_before, replaces: false, raw: Vec::new(), hashes: Vec::new(), works: Vec::new() }
    }

    /// Removes the main chain's headers from `start` on, then writes these (none, to cut only). The removed ones
    /// become side headers only if the batch lists them.
    pub fn replace(start: Height, work_before: Work) -> Self {
        Self { replaces: true, ..Self::extend(start, work_before) }
    }

    /// Adds the next header: its bytes, its hash, and the work of the chain up to and including it.
    pub fn push(&mut self, raw: &[u8], hash: Hash32, work: Work) {
        self.raw.extend_from_slice(raw);
        self.hashes.push(hash);
        self.works.push(work);
    }

    /// Number of headers.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// No headers.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// Bytes of raw headers, for cutting batches at [`BATCH_BYTES`](crate::BATCH_BYTES).
    pub fn bytes(&self) -> usize {
        self.raw.len()
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.replaces { "replace" } else { "extend" };
        write!(f, "{verb} from {} with {} headers", self.start, self.len())
    }
}

/// Everything that one commit writes: all of it, or nothing.
#[derive(Clone, Default)]
pub struct Batch {
    /// Main-chain headers.
    pub run: Option<Run>,
    /// Headers of other branches.
    pub side: Vec<SideHeader>,
    /// A reorganisation to remember.
    pub reorg: Option<Reorg>,
    /// Blobs by name, each replacing the one before.
    pub blobs: Vec<(String, Vec<u8>)>,
}

impl Batch {
    /// Nothing to write.
    pub fn is_empty(&self) -> bool {
        self.run.is_none() && self.side.is_empty() && self.reorg.is_none() && self.blobs.is_empty()
    }
}

impl fmt::Debug for Batch {
    /// Names and sizes only: a blob may be the node's secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let blobs: Vec<_> = self.blobs.iter().map(|(name, bytes)| (name, bytes.len())).collect();
        f.debug_struct("Batch")
            .field("run", &self.run)
            .field("side", &self.side.len())
            .field("reorg", &self.reorg)
            .field("blobs", &blobs)
            .finish()
    }
}

/// What a commit did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// The main chain from now on. On disk, whatever happens next.
    pub state: State,
    /// Main-chain headers written.
    pub written: usize,
    /// Main-chain headers removed.
    pub removed: usize,
}

/// A header that is not on the main chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SideHeader {
    /// Its height on its own branch.
    pub height: Height,
    /// Its hash.
    pub hash: Hash32,
    /// Its bytes, as long as every header of this store.
    pub raw: Vec<u8>,
}

/// One reorganisation of the main chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reorg {
    /// Height of the last header that both branches share.
    pub fork: Height,
    /// Height and hash of the tip that was left.
    pub old_tip: (Height, Hash32),
    /// Height and hash of the tip that won.
    pub new_tip: (Height, Hash32),
    /// When, in seconds since 1970.
    pub unix_time: u64,
}

impl Reorg {
    /// Headers of the old branch that were left.
    pub const fn depth(&self) -> u32 {
        self.old_tip.0.saturating_sub(self.fork)
    }
}

/// A remembered reorganisation with its number, counted from 0 since the file was created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReorgRecord {
    /// Its number.
    pub sequence: u64,
    /// What happened.
    pub reorg: Reorg,
}

/// Hashes of consecutive main-chain headers, as they lie on disk.
#[derive(Debug)]
pub struct HashChunk<'a> {
    /// Height of the first.
    pub first: Height,
    /// Work of the chain up to and including `first - 1`.
    pub work_before: Work,
    /// The hashes.
    pub hashes: &'a [Hash32],
}

/// A height whose accumulated work is on disk. The work at heights above it is this plus the headers' own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkAnchor {
    /// The height.
    pub height: Height,
    /// Work of the chain up to and including `height - 1`.
    pub work_before: Work,
}
