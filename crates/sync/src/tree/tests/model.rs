//! Random histories, step by step against a tree that remembers everything, and a store that only does what the tree
//! says.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use rookery_base::{Hash32, Height, Work};

use super::toy::{self, Disk, HEADER_LEN, Toy, Write, decode, encode, residue};
use crate::chain::{Ancestor, Ancestry, Chain, HeaderFacts};
use crate::tree::{Batch, HeaderTree, Refused, Restore, Settings, Spot};

const NOW: u64 = 5_000;

#[derive(Debug, Clone)]
struct Known {
    facts: HeaderFacts,
    raw: Vec<u8>,
    height: Height,
    work: Work,
}

/// Every header in full, in a map.
struct Model {
    known: BTreeMap<Hash32, Known>,
    tip: Hash32,
}

struct Walk<'a> {
    model: &'a Model,
    end: Hash32,
}

impl Ancestry for Walk<'_> {
    fn height(&self) -> Height {
        self.model.known[&self.end].height
    }

    fn at(&self, height: Height) -> Option<Ancestor> {
        let known = self.model.branch(self.end).find(|known| known.height == height)?;
        Some(Ancestor { time: known.facts.time, bits: known.facts.bits, work: known.work })
    }
}

impl Model {
    fn new(chain: &Toy) -> Self {
        let (raw, facts) = chain.genesis();
        let known = Known { facts, raw: raw.to_vec(), height: 0, work: chain.proof(facts.bits) };
        Self { known: BTreeMap::from([(facts.hash, known)]), tip: facts.hash }
    }

    /// From a header down to genesis.
    fn branch(&self, end: Hash32) -> impl Iterator<Item = &Known> {
        std::iter::successors(self.known.get(&end), |known| self.known.get(&known.facts.prev))
    }

    /// By height.
    fn main(&self) -> Vec<Hash32> {
        let mut main: Vec<_> = self.branch(self.tip).map(|known| known.facts.hash).collect();
        main.reverse();
        main
    }

    fn fork_with_main(&self, end: Hash32) -> Height {
        let main = self.main();
        self.branch(end)
            .find(|known| main.get(known.height as usize) == Some(&known.facts.hash))
            .unwrap()
            .height
    }

    /// New, known, and the index and a word for what was refused.
    fn insert(&mut self, chain: &Toy, batch: &[Vec<u8>]) -> (usize, usize, Option<(usize, &'static str)>) {
        let (mut new, mut known) = (0, 0);
        let mut before = None;
        for (index, raw) in batch.iter().enumerate() {
            let facts = decode(raw);
            if before.is_some_and(|before| before != facts.prev) {
                return (new, known, Some((index, "unlinked")));
            }
            before = Some(facts.hash);
            if self.known.contains_key(&facts.hash) {
                known += 1;
                continue;
            }
            let Some(parent) = self.known.get(&facts.prev) else {
                return (new, known, Some((index, "orphan")));
            };
            let (height, work) = (parent.height + 1, parent.work + chain.proof(facts.bits));
            if chain.place(&facts, &Walk { model: self, end: facts.prev }, NOW).is_err() {
                return (new, known, Some((index, "fault")));
            }
            self.known.insert(facts.hash, Known { facts, raw: raw.clone(), height, work });
            if work > self.known[&self.tip].work {
                self.tip = facts.hash;
            }
            new += 1;
        }
        (new, known, None)
    }

    /// Forgets what hung above `fork` on the main chain that was.
    fn forget_left(&mut self, old_main: &[Hash32], fork: Height) {
        let main = self.main();
        let left: Vec<_> = self
            .known
            .keys()
            .copied()
            .filter(|hash| {
                let shares = |chain: &[Hash32]| {
                    self.branch(*hash)
                        .any(|at| at.height > fork && chain.get(at.height as usize) == Some(&at.facts.hash))
                };
                shares(old_main) && !shares(&main)
            })
            .collect();
        for hash in left {
            self.known.remove(&hash);
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// Headers on top of a known one, with some known ones before, and one of them spoilt.
    Grow {
        from: From,
        known_before: usize,
        weights: Vec<u8>,
        spoil: Option<(usize, Spoil)>,
    },
    /// Known headers again.
    Again {
        from: From,
        count: usize,
    },
    Orphan,
    Take {
        max_headers: usize,
    },
    /// The store has written, but nobody has told the tree yet.
    Written,
    Committed,
    Aborted,
    Restart,
}

#[derive(Debug, Clone)]
enum From {
    /// So many below the tip.
    Tip(usize),
    /// Any known header, or any that is not on the main chain.
    Any(prop::sample::Index),
    Side(prop::sample::Index),
}

#[derive(Debug, Clone, Copy)]
enum Spoil {
    Link,
    Bits,
    Time,
}

fn from() -> impl Strategy<Value = From> {
    prop_oneof![
        4 => (0..4_usize).prop_map(From::Tip),
        2 => (0..40_usize).prop_map(From::Tip),
        2 => any::<prop::sample::Index>().prop_map(From::Any),
        3 => any::<prop::sample::Index>().prop_map(From::Side),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let spoil = prop_oneof![Just(Spoil::Link), Just(Spoil::Bits), Just(Spoil::Time)];
    let grow = (
        from(),
        0..5_usize,
        prop::collection::vec(0..4_u8, 1..12),
        prop::option::weighted(0.2, (0..12_usize, spoil)),
    )
        .prop_map(|(from, known_before, weights, spoil)| Step::Grow {
            from,
            known_before,
            weights,
            spoil,
        });
    prop_oneof![
        10 => grow,
        2 => (from(), 1..30_usize).prop_map(|(from, count)| Step::Again { from, count }),
        1 => Just(Step::Orphan),
        4 => (0..20_usize).prop_map(|max_headers| Step::Take { max_headers }),
        2 => Just(Step::Written),
        4 => Just(Step::Committed),
        1 => Just(Step::Aborted),
        1 => Just(Step::Restart),
    ]
}

struct World {
    chain: Arc<Toy>,
    settings: Settings,
    model: Model,
    tree: HeaderTree,
    disk: Disk,
    /// Taken, not written yet.
    write: Option<Write>,
    /// Written, not told yet.
    written: bool,
    salt: u64,
    reorganised: usize,
}

impl World {
    fn new(settings: Settings) -> Self {
        let chain = Toy::new();
        Self {
            model: Model::new(&chain),
            tree: HeaderTree::from_genesis(chain.clone(), settings).unwrap(),
            chain,
            settings,
            disk: Disk::default(),
            write: None,
            written: false,
            salt: 0,
            reorganised: 0,
        }
    }

    fn pick(&self, from: &From) -> Hash32 {
        let main = self.model.main();
        match from {
            From::Tip(back) => main[main.len() - 1 - back.min(&(main.len() - 1))],
            From::Any(index) => *index.get(&self.model.known.keys().copied().collect::<Vec<_>>()),
            From::Side(index) => {
                let side: Vec<_> = self.model.known.keys().filter(|hash| !main.contains(hash)).collect();
                if side.is_empty() { self.model.tip } else { **index.get(&side) }
            }
        }
    }

    /// `count` known headers that end in `end`, genesis left out only if there are others.
    fn known_run(&self, end: Hash32, count: usize) -> Vec<Vec<u8>> {
        let mut run: Vec<_> = self.model.branch(end).take(count).map(|known| known.raw.clone()).collect();
        run.reverse();
        run
    }

    fn grow(&mut self, from: &From, known_before: usize, weights: &[u8], spoil: Option<(usize, Spoil)>) {
        let start = self.pick(from);
        let mut batch = self.known_run(start, known_before);
        // A scratch copy judges where the run leads.
        let mut scratch = Model { known: self.model.known.clone(), tip: self.model.tip };
        let mut end = start;
        for (index, weight) in weights.iter().enumerate() {
            self.salt += 1;
            let residue = residue(&Walk { model: &scratch, end }).unwrap();
            let bits = residue + 4 * u32::from(*weight) + if residue == 0 { 4 } else { 0 };
            let good = encode(end, 100 + self.salt % 7, bits, self.salt);
            let raw = match spoil.filter(|(at, _)| *at == index).map(|(_, spoil)| spoil) {
                Some(Spoil::Bits) => encode(end, 100, bits + 1, self.salt),
                Some(Spoil::Time) => encode(end, NOW + toy::AHEAD + 1, bits, self.salt),
                Some(Spoil::Link) => encode(Hash32([0xee; 32]), 100, bits, self.salt),
                None => good.clone(),
            };
            batch.push(raw);
            let _ = scratch.insert(&self.chain, std::slice::from_ref(&good));
            end = decode(&good).hash;
        }
        self.insert(&batch);
    }

    fn insert(&mut self, batch: &[Vec<u8>]) {
        let old_main = self.model.main();
        let (floor, old_tip) = (self.tree.raw_from(), self.tree.tip());
        let expected = self.model.insert(&self.chain, batch);

        let facts: Vec<_> = batch.iter().map(|raw| decode(raw)).collect();
        let batch = Batch { facts: &facts, raw: &batch.concat(), source: 1 };
        let got = self.tree.insert(&self.disk, &batch, NOW);
        let refused = got.refused.as_ref().map(|(index, refused)| {
            let word = match refused {
                Refused::Orphan { .. } => "orphan",
                Refused::Unlinked { .. } => "unlinked",
                Refused::Fault(_) => "fault",
                other => panic!("{other}"),
            };
            (*index, word)
        });
        assert_eq!((got.new, got.known, refused), expected);
        assert_eq!(got.tip_changed, got.tip != old_tip);

        let main = self.model.main();
        let shared = old_main.iter().zip(&main).take_while(|(old, new)| old == new).count();
        if shared == old_main.len() {
            assert_eq!(got.reorganised, None);
        } else {
            let done = got.reorganised.expect("the main chain has changed its branch");
            let expected = (shared - 1, old_main.len() - shared, main.len() - shared);
            assert_eq!((done.fork as usize, done.disconnected as usize, done.connected as usize), expected);
            self.reorganised += 1;
            if done.fork + 1 < floor {
                self.model.forget_left(&old_main, done.fork);
            }
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Grow { from, known_before, weights, spoil } => {
                self.grow(from, *known_before, weights, *spoil)
            }
            Step::Again { from, count } => {
                let batch = self.known_run(self.pick(from), *count);
                self.insert(&batch);
            }
            Step::Orphan => {
                self.salt += 1;
                self.insert(&[encode(Hash32([0xaa; 32]), 100, 4, self.salt)]);
            }
            Step::Take { max_headers } => {
                if let Some(write) = toy::take(&mut self.tree, max_headers * HEADER_LEN) {
                    assert!(self.write.is_none() && !self.written, "one commit at a time");
                    self.write = Some(write);
                }
            }
            Step::Written => self.write_now(),
            Step::Committed => {
                self.write_now();
                self.tree.committed();
                self.written = false;
            }
            Step::Aborted => {
                if !self.written {
                    self.write = None;
                    self.tree.aborted();
                }
            }
            Step::Restart => self.restart(),
        }
    }

    fn write_now(&mut self) {
        if let Some(write) = self.write.take() {
            self.disk.apply(write);
            self.written = true;
        }
    }

    /// Commits everything; then the disk must be the main chain.
    fn settle(&mut self) {
        self.step(&Step::Committed);
        while let Some(write) = toy::take(&mut self.tree, 5 * HEADER_LEN) {
            self.disk.apply(write);
            self.tree.committed();
        }
        assert_eq!(self.tree.pending_bytes(), 0);
        assert_eq!(self.disk.hashes, self.model.main());
        assert_eq!(self.disk.reorganisations, self.reorganised);
    }

    fn restart(&mut self) {
        self.settle();
        let mut restore = Restore::new(self.chain.clone(), 0, Work::ZERO, 1, self.settings);
        for hashes in self.disk.hashes.chunks(7) {
            restore.hashes(hashes).unwrap();
        }
        let recent = self.disk.raw[restore.recent_from() as usize..].concat();
        self.tree = restore.finish(&recent, self.disk.work()).unwrap();
        let mut side = self.disk.side.clone();
        side.sort();
        side.dedup();
        for (_, _, raw) in side.iter().filter(|(_, hash, _)| self.model.known.contains_key(hash)) {
            self.tree.restore_side(&self.disk, raw).unwrap();
        }
    }

    fn check(&self) {
        let (tree, disk, main) = (&self.tree, &self.disk, self.model.main());
        let tip = &self.model.known[&self.model.tip];
        assert_eq!(
            (tree.tip().hash, tree.tip().height, tree.tip().work),
            (tip.facts.hash, tip.height, tip.work)
        );
        for (hash, height) in main.iter().zip(0..) {
            assert_eq!(tree.hash_at(disk, height), Ok(Some(*hash)));
            assert_eq!(tree.height_of(disk, hash), Ok(Some(height)));
        }
        assert_eq!(tree.index.len(), main.len());
        assert_eq!(tree.hash_at(disk, tip.height + 1), Ok(None));
        assert_eq!(tree.side_headers(), self.model.known.len() - main.len());
        for (hash, known) in &self.model.known {
            let spot = tree.find(disk, hash).unwrap().expect("known");
            if let Spot::Side(id) = spot {
                let node = tree.side.node(id);
                assert_eq!((node.height, node.recent.work), (known.height, known.work));
                assert_eq!(tree.side.raw(id), known.raw);
                assert_eq!(tree.side.fork(id), self.model.fork_with_main(*hash));
            }
        }
        tree.side.audit();
        for height in tree.raw_from()..=tip.height {
            assert_eq!(tree.raw_at(height).unwrap(), self.model.known[&main[height as usize]].raw);
        }
    }
}

proptest! {
    #[test]
    fn a_tree_is_the_naive_tree(
        window in prop_oneof![Just(1_u32), Just(8), Just(64)],
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut world = World::new(Settings { window, ..toy::small() });
        for step in &steps {
            world.step(step);
            world.check();
        }
        world.settle();
        world.check();
    }
}
