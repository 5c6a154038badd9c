//! What a chain has to tell the header sync: how to check a header on its own, how to check it in its place, and
//! how much work it stands for. Sync itself works on facts and raw bytes and never decodes a header.

use rookery_base::{Hash32, Height, Work};

/// The facts of one header that sync and the rules need. 88 bytes, kept for the recent part of a chain only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderFacts {
    /// The block's hash.
    pub hash: Hash32,
    /// Its parent's hash.
    pub prev: Hash32,
    /// The time it claims, in seconds since 1970.
    pub time: u64,
    /// Its compact difficulty target.
    pub bits: u32,
}

/// What the rules read of an ancestor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ancestor {
    /// The time it claims, in seconds since 1970.
    pub time: u64,
    /// Its compact difficulty target.
    pub bits: u32,
    /// Work of the chain up to and including it.
    pub work: Work,
}

/// The branch that ends in a header's parent, as far back as the rules look ([`Chain::lookback`]).
pub trait Ancestry {
    /// Height of the parent.
    fn height(&self) -> Height;
    /// The ancestor at `height` on this branch; `None` above the parent or before the first header that is kept.
    fn at(&self, height: Height) -> Option<Ancestor>;
}

/// Why a header is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderFault {
    /// The bytes are not a header.
    #[error("not a header of this network")]
    Malformed,
    /// The hash is above the target that the header itself claims, or the claim is no valid target.
    #[error("the proof of work does not meet its target")]
    ProofOfWork,
    /// The target is not the one the rules give at this place.
    #[error("bits are {got:08x}, the rules give {expected:08x}")]
    Bits {
        /// What the header claims.
        got: u32,
        /// What the rules give.
        expected: u32,
    },
    /// The time is not after the median of the last eleven.
    #[error("time {time} is not after the median {median} of its ancestors")]
    TooOld {
        /// What the header claims.
        time: u64,
        /// The median of its ancestors.
        median: u64,
    },
    /// The time is too far ahead of ours. Not final: the same header may be right later.
    #[error("time {time} is more than {ahead} s ahead of {now}")]
    TooNew {
        /// What the header claims.
        time: u64,
        /// The most that is allowed, in seconds.
        ahead: u64,
        /// Our adjusted time.
        now: u64,
    },
    /// The rules read an ancestor that is not kept: the branch leaves the chain too close to the first header kept.
    #[error("cannot be judged: the ancestor at height {height} is before the first header kept")]
    NoAncestor {
        /// Height of the ancestor.
        height: Height,
    },
    /// A checkpoint names another hash at this height.
    #[error("the checkpoint at height {height} names another block")]
    Checkpoint {
        /// The height.
        height: Height,
    },
}

/// A chain's rules. Pure: no I/O, no clock, no randomness.
pub trait Chain: Send + Sync {
    /// The network's name, as stored and shown: `handshake-main`.
    fn name(&self) -> &'static str;

    /// The length of every raw header in bytes.
    fn header_len(&self) -> usize;

    /// The raw header at height 0 and its facts.
    fn genesis(&self) -> (&[u8], HeaderFacts);

    /// Checks a run of raw headers as far as that is possible without their ancestors (shape, proof of work)
    /// and gives their facts in order. Links between them are sync's to check. On failure: the index of the
    /// first bad header, and why.
    fn check(&self, raw: &[u8]) -> Result<Vec<HeaderFacts>, (usize, HeaderFault)>;

    /// The facts of raw headers that were checked before they were stored. Skips the proof of work.
    fn facts(&self, raw: &[u8]) -> Vec<HeaderFacts>;

    /// Checks a header in its place: target, median time, the two-hour rule, checkpoints.
    /// `now` is our adjusted time in seconds since 1970.
    fn place(&self, header: &HeaderFacts, branch: &dyn Ancestry, now: u64) -> Result<(), HeaderFault>;

    /// Work that a header with these bits stands for.
    fn proof(&self, bits: u32) -> Work;

    /// How many ancestors [`place`](Self::place) may read.
    fn lookback(&self) -> usize;

    /// Known hashes, in order of height.
    fn checkpoints(&self) -> &[(Height, Hash32)];

    /// Whether a chain with this tip may call itself synced at `now`.
    fn synced(&self, height: Height, work: Work, tip_time: u64, now: u64) -> bool;
}
