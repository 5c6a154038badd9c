//! A chain with small headers and simple rules that read as far back as they say, and a store in memory.

use std::sync::Arc;

use rookery_base::{Hash32, Height, Work};

use crate::chain::{Ancestry, Chain, HeaderFacts, HeaderFault};
use crate::tree::{Archive, HeaderTree, Settings, Unreadable};

pub const HEADER_LEN: usize = 52;
/// The rules read the parent and this many before it.
pub const REACH: Height = 4;
pub const AHEAD: u64 = 1_000;

/// `prev 32 | time 8 | bits 4 | salt 8`.
#[derive(Debug)]
pub struct Toy {
    genesis: Vec<u8>,
    pub checkpoints: Vec<(Height, Hash32)>,
}

impl Toy {
    pub fn new() -> Arc<Self> {
        Self::with_checkpoints(Vec::new())
    }

    pub fn with_checkpoints(checkpoints: Vec<(Height, Hash32)>) -> Arc<Self> {
        Arc::new(Self { genesis: encode(Hash32::ZERO, 1, 1, 0), checkpoints })
    }
}

pub fn encode(prev: Hash32, time: u64, bits: u32, salt: u64) -> Vec<u8> {
    let mut raw = prev.0.to_vec();
    raw.extend(time.to_le_bytes());
    raw.extend(bits.to_le_bytes());
    raw.extend(salt.to_le_bytes());
    raw
}

pub fn decode(raw: &[u8]) -> HeaderFacts {
    let mut hash = [0; 32];
    let mut state = 0xcbf2_9ce4_8422_2325_u64;
    for (lane, out) in hash.chunks_exact_mut(8).enumerate() {
        for word in raw.chunks(8) {
            let mut bytes = [0; 8];
            bytes[..word.len()].copy_from_slice(word);
            state = (state ^ u64::from_le_bytes(bytes) ^ lane as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            state ^= state >> 29;
        }
        out.copy_from_slice(&state.to_le_bytes());
    }
    HeaderFacts {
        hash: Hash32(hash),
        prev: Hash32(raw[..32].try_into().unwrap()),
        time: u64::from_le_bytes(raw[32..40].try_into().unwrap()),
        bits: u32::from_le_bytes(raw[40..44].try_into().unwrap()),
    }
}

/// What the bits must leave modulo four: depends on the work of the parent and on the farthest ancestor in reach.
pub fn residue(branch: &dyn Ancestry) -> Option<u32> {
    let height = branch.height();
    let far = branch.at(height.saturating_sub(REACH))?;
    let parent = branch.at(height)?;
    Some(((parent.work.as_limbs()[0] + far.time + u64::from(far.bits)) % 4) as u32)
}

impl Chain for Toy {
    fn name(&self) -> &'static str {
        "toy"
    }

    fn header_len(&self) -> usize {
        HEADER_LEN
    }

    fn genesis(&self) -> (&[u8], HeaderFacts) {
        (&self.genesis, decode(&self.genesis))
    }

    fn check(&self, raw: &[u8]) -> Result<Vec<HeaderFacts>, (usize, HeaderFault)> {
        Ok(self.facts(raw))
    }

    fn facts(&self, raw: &[u8]) -> Vec<HeaderFacts> {
        raw.chunks_exact(HEADER_LEN).map(decode).collect()
    }

    fn place(&self, header: &HeaderFacts, branch: &dyn Ancestry, now: u64) -> Result<(), HeaderFault> {
        let height = branch.height() + 1;
        if self.checkpoints.iter().any(|known| known.0 == height && known.1 != header.hash) {
            return Err(HeaderFault::Checkpoint { height });
        }
        let expected = residue(branch)
            .ok_or(HeaderFault::NoAncestor { height: branch.height().saturating_sub(REACH) })?;
        if header.bits == 0 || header.bits % 4 != expected {
            return Err(HeaderFault::Bits { got: header.bits, expected });
        }
        if header.time > now + AHEAD {
            return Err(HeaderFault::TooNew { time: header.time, ahead: AHEAD, now });
        }
        Ok(())
    }

    fn proof(&self, bits: u32) -> Work {
        Work::from(bits)
    }

    fn lookback(&self) -> usize {
        REACH as usize + 1
    }

    fn checkpoints(&self) -> &[(Height, Hash32)] {
        &self.checkpoints
    }

    fn synced(&self, height: Height, _work: Work, tip_time: u64, now: u64) -> bool {
        height > 0 && tip_time + AHEAD >= now
    }
}

/// A main chain in a vector, written only by what the tree gives out.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    pub base: Height,
    pub work_before: Work,
    pub raw: Vec<Vec<u8>>,
    pub hashes: Vec<Hash32>,
    pub works: Vec<Work>,
    pub side: Vec<(Height, Hash32, Vec<u8>)>,
    pub reorganisations: usize,
    /// Reads fail.
    pub broken: bool,
}

/// One commit, copied out.
pub struct Write {
    start: Height,
    replaces: bool,
    work_before: Work,
    headers: Vec<(Vec<u8>, Hash32, Work)>,
    side: Vec<(Height, Hash32, Vec<u8>)>,
    reorganised: bool,
}

pub fn take(tree: &mut HeaderTree, max_bytes: usize) -> Option<Write> {
    let pending = tree.pending(max_bytes)?;
    assert_eq!(pending.len(), pending.headers().count());
    assert_eq!(pending.is_empty(), pending.headers().next().is_none());
    Some(Write {
        start: pending.start(),
        replaces: pending.replaces(),
        work_before: pending.work_before(),
        headers: pending.headers().map(|(raw, hash, work)| (raw.to_vec(), hash, work)).collect(),
        side: pending.side().map(|(height, hash, raw)| (height, hash, raw.to_vec())).collect(),
        reorganised: pending.reorganisation().is_some(),
    })
}

impl Disk {
    pub fn work(&self) -> Work {
        self.works.last().copied().unwrap_or(self.work_before)
    }

    /// Does what a store does, and refuses what it refuses.
    pub fn apply(&mut self, write: Write) {
        let (before, at) = (self.work(), (write.start - self.base) as usize);
        assert!(at <= self.raw.len(), "a gap");
        assert_eq!(write.replaces, at < self.raw.len(), "replaces exactly when something is in the way");
        self.raw.truncate(at);
        self.hashes.truncate(at);
        self.works.truncate(at);
        assert_eq!(write.work_before, self.work());
        for (raw, hash, work) in write.headers {
            let facts = decode(&raw);
            assert_eq!((facts.hash, self.work() + Work::from(facts.bits)), (hash, work));
            if let Some(prev) = self.hashes.last() {
                assert_eq!(facts.prev, *prev);
            }
            self.raw.push(raw);
            self.hashes.push(hash);
            self.works.push(work);
        }
        assert!(self.work() >= before, "no commit makes the chain worse");
        self.side.extend(write.side);
        self.reorganisations += usize::from(write.reorganised);
    }
}

impl Archive for Disk {
    fn hashes(&self, from: Height, count: usize) -> Result<Vec<Hash32>, Unreadable> {
        self.readable()?;
        let at = (from - self.base) as usize;
        self.hashes
            .get(at..at + count)
            .map(<[_]>::to_vec)
            .ok_or(Unreadable(format!("{count} hashes at {from}")))
    }

    fn headers(&self, from: Height, count: usize) -> Result<Vec<u8>, Unreadable> {
        self.readable()?;
        let at = (from - self.base) as usize;
        self.raw
            .get(at..at + count)
            .map(<[_]>::concat)
            .ok_or(Unreadable(format!("{count} headers at {from}")))
    }

    fn work_anchor(&self, height: Height) -> Result<(Height, Work), Unreadable> {
        self.readable()?;
        // As a store that keeps one sum for three headers.
        let at = (height - self.base) as usize / 3 * 3;
        let work = at.checked_sub(1).map_or(self.work_before, |before| self.works[before]);
        Ok((self.base + at as Height, work))
    }
}

impl Disk {
    fn readable(&self) -> Result<(), Unreadable> {
        if self.broken { Err(Unreadable("broken".into())) } else { Ok(()) }
    }
}

/// Limits so small that every one of them is met in a test.
pub fn small() -> Settings {
    Settings { index_key: 7, window: 8, side_headers: 1_000, pending_bytes: 1 << 20 }
}
