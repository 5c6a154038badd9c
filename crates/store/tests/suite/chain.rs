//! A made-up chain, and a model of what the store must hold.

use rookery_base::{Hash32, Height, Work};
use rookery_store::{Base, Batch, Config, ReorgRecord, Run, SideHeader, State, Store, Tip};
use std::collections::BTreeMap;

pub const RECORD: usize = 236;

pub fn config() -> Config {
    Config { max_side: 5, max_reorgs: 3, ..Config::new("test-net", RECORD) }
}

/// The header at a height of a branch: every bit depends on both.
pub fn header(height: Height, branch: u32) -> (Vec<u8>, Hash32) {
    let mut word = u64::from(height) << 32 | u64::from(branch);
    let mut raw = Vec::with_capacity(RECORD + 8);
    while raw.len() < RECORD {
        word = word.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        raw.extend_from_slice(&(word ^ (word >> 29)).to_be_bytes());
    }
    raw.truncate(RECORD);
    let mut hash = [0; 32];
    hash.copy_from_slice(&raw[100..132]);
    (raw, Hash32(hash))
}

/// What a store holds, in the simplest form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    pub base: Base,
    /// Branch of each header.
    pub main: Vec<u32>,
    pub side: BTreeMap<(Height, Hash32), Vec<u8>>,
    pub reorgs: Vec<ReorgRecord>,
    pub next_reorg: u64,
    pub blobs: BTreeMap<String, Vec<u8>>,
}

impl Model {
    pub fn new(base: Base) -> Self {
        Self {
            base,
            main: Vec::new(),
            side: BTreeMap::new(),
            reorgs: Vec::new(),
            next_reorg: 0,
            blobs: BTreeMap::new(),
        }
    }

    /// Work up to and including the first `count` headers: each stands for its branch number and one.
    pub fn work_of(&self, count: usize) -> Work {
        self.main[..count].iter().fold(self.base.work_before, |sum, branch| sum + Work::from(branch + 1))
    }

    pub fn height(&self, position: usize) -> Height {
        self.base.height + position as u32
    }

    /// The run that replaces everything from `position` on with `count` headers of `branch`.
    pub fn run(&self, position: usize, count: usize, branch: u32) -> Run {
        let start = self.height(position);
        let mut work = self.work_of(position);
        let mut run =
            if position == self.main.len() { Run::extend(start, work) } else { Run::replace(start, work) };
        for height in start..start + count as u32 {
            let (raw, hash) = header(height, branch);
            work += Work::from(branch + 1);
            run.push(&raw, hash, work);
        }
        run
    }

    /// A batch of one run, see [`Self::run`], applied here as well.
    pub fn replace(&mut self, position: usize, count: usize, branch: u32) -> Batch {
        let run = self.run(position, count, branch);
        self.main.truncate(position);
        self.main.resize(position + count, branch);
        Batch { run: Some(run), ..Batch::default() }
    }

    /// Notes what a batch does besides its run. The run must have been applied before.
    pub fn note(&mut self, batch: &Batch) {
        for side in &batch.side {
            self.side.insert((side.height, side.hash), side.raw.clone());
        }
        let (base, main) = (self.base.height, &self.main);
        let written = batch.run.as_ref().map_or(0, Run::len);
        self.side.retain(|(height, hash), _| {
            let position = height.wrapping_sub(base) as usize;
            let is_new = (main.len() - written..main.len()).contains(&position);
            !(is_new && header(*height, main[position]).1 == *hash)
        });
        while self.side.len() > config().max_side {
            self.side.pop_first();
        }
        if let Some(reorg) = batch.reorg {
            self.reorgs.push(ReorgRecord { sequence: self.next_reorg, reorg });
            self.next_reorg += 1;
        }
        let surplus = self.reorgs.len().saturating_sub(config().max_reorgs);
        self.reorgs.drain(..surplus);
        self.blobs.extend(batch.blobs.iter().cloned());
    }

    pub fn state(&self) -> State {
        let tip = self.main.last().map(|branch| {
            let height = self.height(self.main.len() - 1);
            Tip { height, hash: header(height, *branch).1, work: self.work_of(self.main.len()) }
        });
        State { base: self.base, tip }
    }

    /// The store holds exactly this.
    pub fn assert_held_by(&self, store: &Store) {
        assert_eq!(store.state(), self.state());
        let reader = store.reader();
        assert_eq!(reader.state().unwrap(), self.state());
        let headers = reader.headers(self.base.height, usize::MAX).unwrap();
        let hashes = reader.hashes(self.base.height, usize::MAX).unwrap();
        assert_eq!((headers.len(), hashes.len()), (self.main.len() * RECORD, self.main.len()));
        for (position, (raw, hash)) in headers.chunks(RECORD).zip(&hashes).enumerate() {
            let expected = header(self.height(position), self.main[position]);
            assert_eq!((raw, hash), (&expected.0[..], &expected.1), "height {}", self.height(position));
        }
        let mut visited = Vec::new();
        reader
            .visit_hashes(&mut |chunk| {
                assert_eq!(chunk.first, self.height(visited.len()));
                assert_eq!(chunk.work_before, self.work_of(visited.len()));
                visited.extend_from_slice(chunk.hashes);
            })
            .unwrap();
        assert_eq!(visited, hashes);
        for position in [0, self.main.len() / 2, self.main.len().saturating_sub(1)] {
            let anchor = reader.work_anchor(self.height(position)).unwrap();
            assert_eq!(anchor.is_some(), position < self.main.len());
            if let Some(anchor) = anchor {
                let below = (anchor.height - self.base.height) as usize;
                assert!(below <= position);
                assert_eq!(anchor.work_before, self.work_of(below));
            }
        }
        let side = |((height, hash), raw): (&(Height, Hash32), &Vec<u8>)| SideHeader {
            height: *height,
            hash: *hash,
            raw: raw.clone(),
        };
        assert_eq!(reader.side_headers().unwrap(), self.side.iter().map(side).collect::<Vec<_>>());
        assert_eq!(reader.reorgs(usize::MAX).unwrap(), self.reorgs);
        for (name, bytes) in &self.blobs {
            assert_eq!(reader.blob(name).unwrap().as_ref(), Some(bytes));
        }
        reader.verify().unwrap();
    }

    /// [`Self::assert_held_by`] as a question.
    pub fn is_held_by(&self, store: &Store) -> bool {
        let blobs_held =
            self.blobs.iter().all(|(name, bytes)| store.reader().blob(name).unwrap().as_ref() == Some(bytes));
        store.state() == self.state()
            && blobs_held
            && store.reader().reorgs(usize::MAX).unwrap() == self.reorgs
            && store.reader().side_headers().unwrap().len() == self.side.len()
    }
}
