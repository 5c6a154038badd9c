//! The 150-header checkpoint from which a node may start instead of from genesis, in the file format of hnsd.
//!
//! ```text
//! full: magic u32 BE | version u8 = 0 | bare          35,441 bytes, what hnsd keeps as checkpoint_<net>.dat
//! bare: height u32 BE | work before it 32 BE | 150 raw headers      35,436 bytes, what hnsd has built in
//! ```
//!
//! What is trusted: that the first header stands at that height on that work. What is verified: proof of work and
//! links of all headers, hashes known from the network's checkpoint list, the median time where eleven ancestors
//! are in the file, and the target where its whole window is, which are the last three. Later headers need nothing
//! older than the file, so all of their rules apply: 150 is 147 for the window, and three to show it right.
//!
//! The two-hour rule is not applied: what is in the file is older than the node that wrote it.

use rookery_base::{DecodeError, Height, Reader, Work};
use rookery_sync::{Chain, HeaderFacts, HeaderFault};

use crate::chain::{HandshakeChain, header::HEADER_LEN, recent::Recent, rules, target};
use crate::params::Params;

/// Headers in a checkpoint.
pub const HEADERS: usize = 150;

/// Height and work before the headers.
const BARE_LEN: usize = 4 + 32 + HEADERS * HEADER_LEN;
/// Magic and version before that.
const FULL_LEN: usize = 4 + 1 + BARE_LEN;
/// The only version of the file there is.
const VERSION: u8 = 0;

/// Why a checkpoint is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The bytes are neither form.
    #[error("a checkpoint has {FULL_LEN} bytes, or {BARE_LEN} without magic and version; this has {got}")]
    Size {
        /// How many there are.
        got: usize,
    },
    /// The file is another network's.
    #[error("checkpoint of another network: magic {got:08x}, {network} has {expected:08x}")]
    Network {
        /// What the file says.
        got: u32,
        /// This network's.
        expected: u32,
        /// This network.
        network: &'static str,
    },
    /// The file is of a later form.
    #[error("checkpoint file version {got}, only {VERSION} is known")]
    Version {
        /// What the file says.
        got: u8,
    },
    /// No place on a chain.
    #[error("a checkpoint cannot start at height {got}")]
    Place {
        /// What it says.
        got: Height,
    },
    /// A header does not follow from the one before it.
    #[error("the header at height {height} does not link to the one before it")]
    Link {
        /// Its height.
        height: Height,
    },
    /// A header breaks a rule.
    #[error("the header at height {height}: {fault}")]
    Header {
        /// Its height.
        height: Height,
        /// Which rule.
        fault: HeaderFault,
    },
    /// The bytes ended early; the size was checked, so this is a bug here.
    #[error("checkpoint: {0}")]
    Decode(#[from] DecodeError),
}

/// A verified checkpoint.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    height: Height,
    work_before: Work,
    raw: Vec<u8>,
    facts: Vec<HeaderFacts>,
    branch: Recent,
}

impl Checkpoint {
    /// Reads either form, told apart by their lengths, and verifies it.
    pub fn read(chain: &HandshakeChain, bytes: &[u8]) -> Result<Self, CheckpointError> {
        let mut reader = Reader::new(bytes);
        match bytes.len() {
            FULL_LEN => read_preamble(chain.params(), &mut reader)?,
            BARE_LEN => {}
            got => return Err(CheckpointError::Size { got }),
        }
        let height = reader.u32_be("first height")?;
        let work_before = Work::from_be_bytes(reader.array::<32>("work before")?);
        Self::new(chain, height, work_before, reader.rest().to_vec())
    }

    /// Verifies 150 raw headers, the first of them at `height` and after `work_before`.
    pub fn new(
        chain: &HandshakeChain,
        height: Height,
        work_before: Work,
        raw: Vec<u8>,
    ) -> Result<Self, CheckpointError> {
        if raw.len() != HEADERS * HEADER_LEN {
            return Err(CheckpointError::Size { got: raw.len() + BARE_LEN - HEADERS * HEADER_LEN });
        }
        // Genesis needs no file, and the last header must have a height.
        if height == 0 || height.checked_add(HEADERS as u32).is_none() {
            return Err(CheckpointError::Place { got: height });
        }
        let facts = chain
            .check(&raw)
            .map_err(|(index, fault)| CheckpointError::Header { height: height + index as u32, fault })?;
        let branch = verify(chain.params(), height, work_before, &facts)?;
        Ok(Self { height, work_before, raw, facts, branch })
    }

    /// The full form.
    pub fn write(&self, params: &Params) -> Vec<u8> {
        let mut out = Vec::with_capacity(FULL_LEN);
        out.extend_from_slice(&params.magic.to_be_bytes());
        out.push(VERSION);
        out.extend_from_slice(&self.height.to_be_bytes());
        out.extend_from_slice(&self.work_before.to_be_bytes::<32>());
        out.extend_from_slice(&self.raw);
        out
    }

    /// Height of the first header.
    pub const fn height(&self) -> Height {
        self.height
    }

    /// Work of the chain before the first header.
    pub const fn work_before(&self) -> Work {
        self.work_before
    }

    /// The raw headers, one after the other.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// Their facts, in order.
    pub fn facts(&self) -> &[HeaderFacts] {
        &self.facts
    }

    /// The branch that ends in the last header.
    pub const fn branch(&self) -> &Recent {
        &self.branch
    }
}

/// Magic and version of the full form.
fn read_preamble(params: &Params, reader: &mut Reader<'_>) -> Result<(), CheckpointError> {
    let magic = reader.u32_be("magic")?;
    if magic != params.magic {
        return Err(CheckpointError::Network { got: magic, expected: params.magic, network: params.name });
    }
    match reader.u8("version")? {
        VERSION => Ok(()),
        got => Err(CheckpointError::Version { got }),
    }
}

/// Links, and every rule whose ancestors are there.
fn verify(
    params: &Params,
    height: Height,
    work_before: Work,
    facts: &[HeaderFacts],
) -> Result<Recent, CheckpointError> {
    let (first, later) = facts.split_first().expect("a checkpoint has 150 headers");
    let mut branch = Recent::new(height, first, work_before.saturating_add(target::proof(first.bits)));
    rules::checkpoint(params, height, first.hash)
        .map_err(|fault| CheckpointError::Header { height, fault })?;
    for ((parent, header), height) in facts.iter().zip(later).zip(height + 1..) {
        if header.prev != parent.hash {
            return Err(CheckpointError::Link { height });
        }
        rules::checkpoint(params, height, header.hash)
            .and_then(|()| where_judgeable(rules::bits(params, header, &branch)))
            .and_then(|()| where_judgeable(rules::after_median(header, &branch)))
            .map_err(|fault| CheckpointError::Header { height, fault })?;
        branch.push(header);
    }
    Ok(branch)
}

/// A rule that needs ancestors from before the file is taken on trust. Only here: see [`rules`].
fn where_judgeable(verdict: Result<(), HeaderFault>) -> Result<(), HeaderFault> {
    match verdict {
        Err(HeaderFault::NoAncestor { .. }) => Ok(()),
        other => other,
    }
}
