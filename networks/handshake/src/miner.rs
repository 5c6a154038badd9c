//! Mines empty blocks on a node's own tip, for regtest and simnet.

use bytes::Bytes;
use rookery_base::Work;
use rookery_sync::headers::HeadersHandle;
use rookery_sync::{Ancestry, Chain, HeaderFacts};

use crate::chain::recent::Recent;
use crate::chain::rules::LOOKBACK;
use crate::chain::{HandshakeChain, header::RawHeader};
use crate::mine::{Mined, Payee, Template, mine};
use crate::params::Params;
use crate::wire::HEADER_LEN;

/// Nonces tried for one block. At these networks' limit every second one is right; a chain whose difficulty has
/// risen beyond this is not one for a demonstration.
const TRIES: u32 = 1 << 24;
/// Headers handed over at a time.
const AT_A_TIME: u32 = 2000;

/// Why no block was mined.
#[derive(Debug, thiserror::Error)]
pub enum MineError {
    /// The network needs real mining.
    #[error("only regtest and simnet blocks are mined here")]
    Network,
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
    /// No nonce met the target.
    #[error("none of {TRIES} nonces met the target")]
    TooHard,
    /// The rules allow no block, or the node refused ours.
    #[error("the block was refused: {0}")]
    Refused(String),
}

/// Mines on a node's tip.
pub struct Miner {
    params: &'static Params,
    headers: HeadersHandle,
    payee: Payee,
}

/// The end of the chain that is mined on.
struct End {
    header: RawHeader,
    branch: Recent,
}

impl Miner {
    /// A miner that pays an address nobody has the key of: the blocks are empty and so are their coins' prospects.
    ///
    /// # Errors
    /// When the network needs real mining.
    pub fn new(params: &'static Params, headers: HeadersHandle) -> Result<Self, MineError> {
        if !params.dns_seeds.is_empty() {
            return Err(MineError::Network);
        }
        let payee = Payee::new(0, &[0; 20]).expect("twenty bytes are an address of version 0");
        Ok(Self { params, headers, payee })
    }

    /// Mines `count` blocks, the first at `time` (or just after the median of the last ones, if that is later), each
    /// `spacing` seconds after the one before. The last of them.
    ///
    /// # Errors
    /// When the rules allow none, or the node stops.
    pub async fn mine(&self, count: u32, time: u64, spacing: u64) -> Result<Option<Mined>, MineError> {
        let mut left = count;
        let mut time = time;
        let mut last = None;
        while left > 0 {
            let mut end = self.end().await?;
            let run = left.min(AT_A_TIME);
            let mut facts = Vec::new();
            let mut raw = Vec::with_capacity(run as usize * HEADER_LEN);
            for _ in 0..run {
                time = time.max(median_after(&end.branch));
                let mined = self.block(&end, time)?;
                facts.push(mined.facts);
                raw.extend_from_slice(&mined.header);
                end.branch.push(&mined.facts);
                end.header = mined.header;
                time += spacing;
                last = Some(mined);
            }
            self.submit(facts, raw.into()).await?;
            left -= run;
        }
        Ok(last)
    }

    fn block(&self, end: &End, time: u64) -> Result<Mined, MineError> {
        let template = Template::after(self.params, &end.header, &end.branch, time, self.payee.clone());
        let template = template.map_err(|fault| MineError::Refused(fault.to_string()))?;
        mine(&template, TRIES).ok_or(MineError::TooHard)
    }

    async fn submit(&self, facts: Vec<HeaderFacts>, raw: Bytes) -> Result<(), MineError> {
        let submitted = self.headers.submit(facts, raw).await.ok_or(MineError::Stopping)?;
        submitted.refused.map_or(Ok(()), |why| Err(MineError::Refused(why)))
    }

    async fn end(&self) -> Result<End, MineError> {
        let (first, raw) = self.headers.recent(LOOKBACK + 1).await.ok_or(MineError::Stopping)?;
        let facts = HandshakeChain::new(self.params).facts(&raw);
        let (oldest, rest) = facts.split_first().ok_or(MineError::Stopping)?;
        // Only differences of work matter for what comes next.
        let mut branch = Recent::new(first, oldest, Work::ZERO);
        rest.iter().for_each(|facts| branch.push(facts));
        let header = raw[raw.len() - HEADER_LEN..].try_into().map_err(|_| MineError::Stopping)?;
        Ok(End { header, branch })
    }
}

/// The earliest time that a block on this branch may have.
fn median_after(branch: &Recent) -> u64 {
    let heights = branch.height().saturating_sub(10)..=branch.height();
    let mut times: Vec<u64> = heights.filter_map(|height| branch.at(height)).map(|a| a.time).collect();
    times.sort_unstable();
    times[times.len() / 2] + 1
}
