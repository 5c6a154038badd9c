//! Long header chains from nothing: valid under every rule for headers, with no blocks behind them. For scale tests
//! and simulated worlds; the memory used does not grow with the length.
//!
//! The chain depends on network, spacing and salt alone: the same three give the same headers everywhere.

use rookery_base::Height;
use rookery_sync::{Ancestry, HeaderFacts};

use super::grind;
use crate::chain::header::{Header, RawHeader};
use crate::chain::recent::Recent;
use crate::chain::{facts_of, rules, target};
use crate::params::Params;

/// Nonces tried for one header before the chain ends: at the easiest target two are enough on average, so this is
/// reached only where blocks that come too fast, or a network with real difficulty, raise the price of one header
/// to tens of milliseconds.
const TRIES: u32 = 1 << 16;

/// A growing chain: yields one header after the other, endlessly on networks with an easy target. It ends where no
/// valid header can follow within the stated tries.
#[derive(Debug, Clone)]
pub struct Synthetic {
    params: &'static Params,
    branch: Recent,
    tip: HeaderFacts,
    spacing: u64,
    salt: u64,
}

/// A chain from genesis with the spacing that the rules wish, ten minutes, at which the target stays where it is.
///
/// 330,000 headers reach six years and a quarter past genesis (February 2020): who judges them must have a clock
/// that is not before the last of them.
pub fn extend(params: &'static Params, salt: u64) -> Synthetic {
    let tip = facts_of(&params.genesis, params.genesis_hash);
    let branch = Recent::new(0, &tip, target::proof(tip.bits));
    Synthetic { params, branch, tip, spacing: rules::SPACING, salt }
}

impl Synthetic {
    /// The same chain, going on with other seconds between headers. Fewer than 600 raise the difficulty day by day.
    #[must_use]
    pub const fn with_spacing(mut self, spacing: u64) -> Self {
        self.spacing = spacing;
        self
    }

    /// The same chain so far, going on with another salt: a fork from here.
    #[must_use]
    pub const fn with_salt(mut self, salt: u64) -> Self {
        self.salt = salt;
        self
    }

    /// Height of the last header that was yielded; 0, which is genesis, before the first.
    pub fn height(&self) -> Height {
        self.branch.height()
    }

    /// The last header that was yielded, or genesis.
    pub const fn tip(&self) -> &HeaderFacts {
        &self.tip
    }

    /// The branch that ends in it.
    pub const fn branch(&self) -> &Recent {
        &self.branch
    }
}

impl Iterator for Synthetic {
    type Item = (RawHeader, HeaderFacts);

    fn next(&mut self) -> Option<Self::Item> {
        let time = self.tip.time.checked_add(self.spacing)?;
        let bits = rules::expected_bits(self.params, time, &self.branch).ok()?;
        let mut extra_nonce = [0; 24];
        extra_nonce[..8].copy_from_slice(&self.salt.to_le_bytes());
        let header = Header { time, prev: self.tip.hash, extra_nonce, bits, ..Header::default() };
        let mut raw = header.encode();
        let facts = grind(&mut raw, TRIES)?;
        rules::after_median(&facts, &self.branch).ok()?;
        self.branch.push(&facts);
        self.tip = facts;
        Some((raw, facts))
    }
}
