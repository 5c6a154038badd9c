//! What it costs, in CPU time of this thread. Prints, asserts nothing about time:
//! `cargo test --release -p rookery-sync measure -- --ignored --nocapture`.

use std::sync::Arc;
use std::time::Duration;

use rookery_base::{Hash32, Height, Work};
use rustix::time::{ClockId, clock_gettime};

use crate::chain::{Ancestry, Chain, HeaderFacts, HeaderFault};
use crate::tree::{Archive, Batch, HeaderTree, Restore, Settings, Unreadable};

const HEADERS: u32 = 330_000;
const RECORD: usize = 236;
const BATCH: usize = 2_000;

/// No rules: what is measured is the tree's own cost.
struct Free {
    raw: Vec<u8>,
}

fn facts(height: u32) -> HeaderFacts {
    let hash = |height: u32| {
        let mut hash = [0; 32];
        let mut state = u64::from(height);
        for lane in hash.chunks_exact_mut(8) {
            state = (state ^ (state >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
            lane.copy_from_slice(&state.to_le_bytes());
        }
        Hash32(hash)
    };
    HeaderFacts { hash: hash(height), prev: hash(height.wrapping_sub(1)), time: u64::from(height), bits: 1 }
}

impl Chain for Free {
    fn name(&self) -> &'static str {
        "free"
    }
    fn header_len(&self) -> usize {
        RECORD
    }
    fn genesis(&self) -> (&[u8], HeaderFacts) {
        (&self.raw, facts(0))
    }
    fn check(&self, raw: &[u8]) -> Result<Vec<HeaderFacts>, (usize, HeaderFault)> {
        Ok(self.facts(raw))
    }
    fn facts(&self, raw: &[u8]) -> Vec<HeaderFacts> {
        raw.chunks_exact(RECORD).map(|raw| facts(u32::from_le_bytes(raw[..4].try_into().unwrap()))).collect()
    }
    fn place(&self, _: &HeaderFacts, _: &dyn Ancestry, _: u64) -> Result<(), HeaderFault> {
        Ok(())
    }
    fn proof(&self, _: u32) -> Work {
        Work::ONE
    }
    fn lookback(&self) -> usize {
        147
    }
    fn checkpoints(&self) -> &[(Height, Hash32)] {
        &[]
    }
    fn synced(&self, _: Height, _: Work, _: u64, _: u64) -> bool {
        true
    }
}

fn raw(range: std::ops::Range<u32>) -> Vec<u8> {
    range
        .flat_map(|height| {
            let mut raw = [0; RECORD];
            raw[..4].copy_from_slice(&height.to_le_bytes());
            raw
        })
        .collect()
}

struct Hashes;

impl Archive for Hashes {
    fn hashes(&self, from: Height, count: usize) -> Result<Vec<Hash32>, Unreadable> {
        Ok((from..).take(count).map(|height| facts(height).hash).collect())
    }
    fn headers(&self, from: Height, count: usize) -> Result<Vec<u8>, Unreadable> {
        Ok(raw(from..from + count as u32))
    }
    fn work_anchor(&self, height: Height) -> Result<(Height, Work), Unreadable> {
        Ok((height, Work::from(height)))
    }
}

fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn timed<T>(total: &mut Duration, work: impl FnOnce() -> T) -> T {
    let start = cpu();
    let result = work();
    *total += cpu() - start;
    result
}

fn report(what: &str, total: Duration, count: usize) {
    println!(
        "{what}: {:.1} ms, {:.0} ns each",
        total.as_secs_f64() * 1e3,
        total.as_nanos() as f64 / count as f64
    );
}

#[test]
#[ignore = "a measurement"]
fn measure() {
    let chain: Arc<dyn Chain> = Arc::new(Free { raw: raw(0..1) });
    let mut tree = HeaderTree::from_genesis(chain.clone(), Settings::new(1)).unwrap();
    let (mut insert, mut again, mut commit) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    let mut most = 0;
    for from in (1..HEADERS).step_by(BATCH) {
        let range = from..HEADERS.min(from + BATCH as u32);
        let (facts, raw): (Vec<_>, _) = (range.clone().map(facts).collect(), raw(range));
        let batch = Batch { facts: &facts, raw: &raw, source: 1 };
        let inserted = timed(&mut insert, || tree.insert(&Hashes, &batch, 0));
        assert_eq!((inserted.new, inserted.refused), (facts.len(), None));
        let inserted = timed(&mut again, || tree.insert(&Hashes, &batch, 0));
        assert_eq!(inserted.known, facts.len());
        most = most.max(tree.memory());
        if tree.pending_bytes() >= 2 << 20 {
            timed(&mut commit, || {
                assert!(tree.pending(2 << 20).unwrap().len() > 8_000);
                tree.committed();
            });
        }
    }
    report("insert onto the tip, batches of 2,000", insert, HEADERS as usize);
    report("the same batch again", again, HEADERS as usize);
    report("take and commit", commit, HEADERS as usize);
    println!("index and window: {} bytes, most {most}", tree.memory());

    let hashes: Vec<_> = (0..HEADERS).map(|height| facts(height).hash).collect();
    let recent = raw(HEADERS - 4_096..HEADERS);
    let mut restore_time = Duration::ZERO;
    let tree = timed(&mut restore_time, || {
        let mut restore = Restore::new(chain, 0, Work::ZERO, hashes.len(), Settings::new(1));
        restore.hashes(&hashes).unwrap();
        restore.finish(&recent, Work::from(HEADERS)).unwrap()
    });
    report("rebuild", restore_time, HEADERS as usize);
    assert_eq!(tree.tip().height, HEADERS - 1);

    let mut lookups = Duration::ZERO;
    let unknown: Vec<_> = (0..1_000_000).map(|height| facts(height + HEADERS).hash).collect();
    let found =
        timed(&mut lookups, || unknown.iter().filter(|hash| tree.contains(&Hashes, hash).unwrap()).count());
    report("look up an unknown hash", lookups, unknown.len());
    assert_eq!(found, 0);
}
