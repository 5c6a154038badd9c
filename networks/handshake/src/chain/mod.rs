//! Handshake's consensus rules for headers: proof of work, targets, times, checkpoints.
//!
//! | module | what it is for |
//! |---|---|
//! | [`header`] | where the fields of a header are |
//! | [`hash`] | a header's hash, eight at once |
//! | [`keccak`] | SHA3-256 in vector lanes |
//! | [`target`] | compact targets and work |
//! | [`rules`] | a header in its place |
//! | [`recent`] | the end of a branch, for those who only extend it |
//!
//! [`HandshakeChain`] is what sync sees of them. All of it is pure: no I/O, no clock.
//!
//! Not here: whether headers link (sync knows which parent it has), and anything about the contents of blocks.

pub mod hash;
pub mod header;
pub mod keccak;
pub mod recent;
pub mod rules;
pub mod target;

use std::convert::Infallible;

use rookery_base::{Hash32, Height, Work};
use rookery_sync::{Ancestry, Chain, HeaderFacts, HeaderFault};

use crate::params::Params;
use hash::Hasher;
use header::{HEADER_LEN, RawHeader};

/// The rules of one Handshake network.
#[derive(Debug, Clone, Copy)]
pub struct HandshakeChain {
    params: &'static Params,
    hasher: Hasher,
}

impl HandshakeChain {
    /// The rules of the network, on the fastest hashing that this processor has.
    pub fn new(params: &'static Params) -> Self {
        Self::with_hasher(params, Hasher::default())
    }

    /// The rules of the network on a stated hasher, for tests and measurements.
    pub const fn with_hasher(params: &'static Params, hasher: Hasher) -> Self {
        Self { params, hasher }
    }

    /// The network.
    pub const fn params(&self) -> &'static Params {
        self.params
    }
}

impl Chain for HandshakeChain {
    fn name(&self) -> &'static str {
        self.params.name
    }

    fn header_len(&self) -> usize {
        HEADER_LEN
    }

    fn genesis(&self) -> (&[u8], HeaderFacts) {
        (&self.params.genesis, facts_of(&self.params.genesis, self.params.genesis_hash))
    }

    fn check(&self, raw: &[u8]) -> Result<Vec<HeaderFacts>, (usize, HeaderFault)> {
        let (headers, rest) = hash::split(raw);
        let mut facts = Vec::with_capacity(headers.len());
        let mut bar = Bar::default();
        self.hasher.run(headers, |index, raw, hash| {
            if header::time(raw) > header::MAX_TIME {
                return Err((index, HeaderFault::Malformed));
            }
            if !bar.met(header::bits(raw), &hash) {
                return Err((index, HeaderFault::ProofOfWork));
            }
            facts.push(facts_of(raw, hash));
            Ok(())
        })?;
        if rest.is_empty() { Ok(facts) } else { Err((headers.len(), HeaderFault::Malformed)) }
    }

    fn facts(&self, raw: &[u8]) -> Vec<HeaderFacts> {
        let (headers, _) = hash::split(raw);
        let mut facts = Vec::with_capacity(headers.len());
        let Ok(()) = self.hasher.run(headers, |_, raw, hash| {
            facts.push(facts_of(raw, hash));
            Ok::<(), Infallible>(())
        });
        facts
    }

    fn place(&self, header: &HeaderFacts, branch: &dyn Ancestry, now: u64) -> Result<(), HeaderFault> {
        rules::place(self.params, header, branch, now)
    }

    fn proof(&self, bits: u32) -> Work {
        target::proof(bits)
    }

    fn lookback(&self) -> usize {
        rules::LOOKBACK
    }

    fn checkpoints(&self) -> &[(Height, Hash32)] {
        self.params.checkpoints
    }

    fn synced(&self, height: Height, work: Work, tip_time: u64, now: u64) -> bool {
        let last_checkpoint = self.params.checkpoints.last().map_or(0, |known| known.0);
        height >= last_checkpoint
            && work >= self.params.min_chainwork
            && tip_time >= now.saturating_sub(self.params.max_tip_age)
    }
}

/// The facts of a header whose hash is known.
pub(crate) fn facts_of(raw: &RawHeader, hash: Hash32) -> HeaderFacts {
    HeaderFacts { hash, prev: header::prev(raw), time: header::time(raw), bits: header::bits(raw) }
}

/// The target of the bits last seen, as a hash to compare with: bits repeat, or change little, along a chain.
#[derive(Debug, Default)]
pub(crate) struct Bar {
    bits: u32,
    target: Option<Hash32>,
}

impl Bar {
    /// Whether a hash is at or below the target of these bits. Never, if they are no target.
    pub(crate) fn met(&mut self, bits: u32, hash: &Hash32) -> bool {
        if bits != self.bits {
            *self = Self { bits, target: target::expand(bits).map(|target| Hash32(target.to_be_bytes())) };
        }
        self.target.is_some_and(|target| *hash <= target)
    }
}
