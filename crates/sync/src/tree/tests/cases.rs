//! The promises one by one.

use std::sync::Arc;

use rookery_base::{Hash32, Height, Work};

use super::toy::{self, AHEAD, Disk, HEADER_LEN, REACH, Toy, decode, encode, residue};
use crate::chain::{Ancestor, Ancestry, Chain, HeaderFacts, HeaderFault};
use crate::tree::{
    Batch, HeaderTree, Inserted, MAX_HEIGHT, MAX_LOCATOR_HASHES, Refused, Restore, Settings, StartError,
};

const NOW: u64 = 5_000;

/// A run of valid headers with its ancestors, to make batches from.
#[derive(Clone)]
pub struct Maker {
    first: Height,
    ancestors: Vec<Ancestor>,
    pub facts: Vec<HeaderFacts>,
    pub raw: Vec<Vec<u8>>,
    salt: u64,
}

impl Ancestry for Maker {
    fn height(&self) -> Height {
        self.first + self.ancestors.len() as Height - 1
    }

    fn at(&self, height: Height) -> Option<Ancestor> {
        self.ancestors.get(height.checked_sub(self.first)? as usize).copied()
    }
}

impl Maker {
    pub fn genesis(chain: &Toy) -> Self {
        let (raw, facts) = chain.genesis();
        let first = Ancestor { time: facts.time, bits: facts.bits, work: Work::from(facts.bits) };
        Self { first: 0, ancestors: vec![first], facts: vec![facts], raw: vec![raw.to_vec()], salt: 0 }
    }

    /// The same chain up to a height, to go on differently.
    pub fn fork(&self, height: Height, salt: u64) -> Self {
        let mut fork = self.clone();
        let kept = (height - self.first + 1) as usize;
        fork.ancestors.truncate(kept);
        fork.facts.truncate(kept);
        fork.raw.truncate(kept);
        fork.salt = salt << 32;
        fork
    }

    /// Adds headers of a weight: 0 is the least work there is.
    pub fn grow(&mut self, count: usize, weight: u32) {
        for _ in 0..count {
            self.salt += 1;
            let residue = residue(self).unwrap();
            let bits = residue + 4 * weight + if residue == 0 { 4 } else { 0 };
            let raw = encode(self.facts.last().unwrap().hash, 100, bits, self.salt);
            let facts = decode(&raw);
            let work = self.ancestors.last().unwrap().work + Work::from(bits);
            self.ancestors.push(Ancestor { time: facts.time, bits, work });
            self.facts.push(facts);
            self.raw.push(raw);
        }
    }

    pub fn work(&self) -> Work {
        self.ancestors.last().unwrap().work
    }

    pub fn insert(&self, tree: &mut HeaderTree, disk: &Disk, from: usize, source: u64) -> Inserted {
        self.insert_part(tree, disk, from, self.facts.len(), source)
    }

    pub fn insert_part(
        &self,
        tree: &mut HeaderTree,
        disk: &Disk,
        from: usize,
        to: usize,
        source: u64,
    ) -> Inserted {
        let raw = self.raw[from..to].concat();
        tree.insert(disk, &Batch { facts: &self.facts[from..to], raw: &raw, source }, NOW)
    }
}

pub fn settle(tree: &mut HeaderTree, disk: &mut Disk) {
    while let Some(write) = toy::take(tree, usize::MAX) {
        disk.apply(write);
        tree.committed();
    }
}

fn world(settings: Settings, len: usize) -> (HeaderTree, Disk, Maker) {
    let chain = Toy::new();
    let mut tree = HeaderTree::from_genesis(chain.clone(), settings).unwrap();
    let (mut disk, mut main) = (Disk::default(), Maker::genesis(&chain));
    main.grow(len, 1);
    let inserted = main.insert(&mut tree, &disk, 1, 1);
    assert_eq!((inserted.new, inserted.refused), (len, None));
    settle(&mut tree, &mut disk);
    (tree, disk, main)
}

#[test]
fn locators_have_these_heights() {
    let expected = |top: usize| -> Vec<usize> {
        // Eleven one apart, one more step of one, then doubling, and the first.
        let mut heights: Vec<usize> = (0..=11).map_while(|back| top.checked_sub(back)).collect();
        let mut step = 2;
        while heights[heights.len() - 1] > 0 {
            heights.push(heights[heights.len() - 1].saturating_sub(step));
            step *= 2;
        }
        heights
    };
    assert_eq!(expected(100), [100, 99, 98, 97, 96, 95, 94, 93, 92, 91, 90, 89, 87, 83, 75, 59, 27, 0]);
    assert_eq!(expected(11), [11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0]);

    let chain = Toy::new();
    let mut tree =
        HeaderTree::from_genesis(chain.clone(), Settings { pending_bytes: 1 << 30, ..toy::small() }).unwrap();
    let (mut disk, mut main) = (Disk::default(), Maker::genesis(&chain));
    main.grow(100_000, 1);
    let heights = |tree: &HeaderTree, disk: &Disk| -> Vec<usize> {
        let locator = tree.locator(disk).unwrap();
        assert!(locator.len() <= MAX_LOCATOR_HASHES);
        locator.iter().map(|hash| tree.height_of(disk, hash).unwrap().unwrap() as usize).collect()
    };
    for top in 0..=100 {
        if top > 0 {
            let _ = main.insert_part(&mut tree, &disk, top, top + 1, 1);
        }
        settle(&mut tree, &mut disk);
        assert_eq!(heights(&tree, &disk), expected(top));
    }
    let _ = main.insert(&mut tree, &disk, 101, 1);
    settle(&mut tree, &mut disk);
    assert_eq!(tree.tip().height, 100_000);
    assert!(tree.raw_from() > 99_900);
    let golden = [
        100_000, 99_999, 99_998, 99_997, 99_996, 99_995, 99_994, 99_993, 99_992, 99_991, 99_990, 99_989,
        99_987, 99_983, 99_975, 99_959, 99_927, 99_863, 99_735, 99_479, 98_967, 97_943, 95_895, 91_799,
        83_607, 67_223, 34_455, 0,
    ];
    assert_eq!(heights(&tree, &disk), golden);
}

#[test]
fn a_branch_has_its_own_locator() {
    let (mut tree, disk, main) = world(toy::small(), 40);
    let mut side = main.fork(30, 1);
    side.grow(5, 0);
    let inserted = side.insert(&mut tree, &disk, 31, 2);
    assert_eq!((inserted.new, inserted.tip_changed), (5, false));
    let locator = tree.branch_locator(&disk, &side.facts[35].hash).unwrap().unwrap();
    let heights = [35, 34, 33, 32, 31, 30, 29, 28, 27, 26, 25, 24, 22, 18, 10, 0];
    let expected: Vec<_> = heights.iter().map(|height| side.facts[*height].hash).collect();
    assert_eq!(locator, expected);
    assert_eq!(tree.branch_locator(&disk, &Hash32([9; 32])), Ok(None));
}

#[test]
fn the_first_known_hash_of_a_locator_counts() {
    let (tree, disk, main) = world(toy::small(), 40);
    let unknown = Hash32([9; 32]);
    assert_eq!(tree.find_locator(&disk, &[unknown, main.facts[12].hash, main.facts[30].hash]), Ok(Some(12)));
    assert_eq!(tree.find_locator(&disk, &[unknown]), Ok(Some(0)));
    assert_eq!(tree.find_locator(&disk, &[]), Ok(Some(0)));
    let mut long = vec![unknown; MAX_LOCATOR_HASHES - 1];
    long.push(main.facts[12].hash);
    assert_eq!(tree.find_locator(&disk, &long), Ok(Some(12)));
    long.insert(0, unknown);
    assert_eq!(tree.find_locator(&disk, &long), Ok(Some(0)), "beyond the cap nothing is read");
}

#[test]
fn a_checkpoint_start_keeps_nothing_below() {
    let chain = Toy::new();
    let mut main = Maker::genesis(&chain);
    main.grow(60, 1);
    let before = main.fork(19, 0).work();
    let raw = main.raw[20..30].concat();
    let mut tree = HeaderTree::from_checkpoint(chain.clone(), 20, before, &raw, toy::small()).unwrap();
    let mut disk = Disk { base: 20, work_before: before, ..Disk::default() };
    assert_eq!((tree.base(), tree.tip().height), (20, 29));
    let inserted = main.insert(&mut tree, &disk, 25, 1);
    assert_eq!((inserted.known, inserted.new, inserted.refused), (5, 31, None));
    assert_eq!(tree.tip().work, main.work());
    settle(&mut tree, &mut disk);
    assert_eq!(disk.hashes[..], main.facts[20..].iter().map(|facts| facts.hash).collect::<Vec<_>>()[..]);

    let locator = tree.locator(&disk).unwrap();
    assert_eq!(locator[locator.len() - 2..], [main.facts[20].hash, chain.genesis().1.hash]);
    assert_eq!(tree.find_locator(&disk, &[main.facts[33].hash]), Ok(Some(33)));
    assert_eq!(tree.find_locator(&disk, &[main.facts[10].hash, chain.genesis().1.hash]), Ok(None));
    assert_eq!(tree.hash_at(&disk, 19), Ok(None));

    // A branch so near the beginning that the rules cannot see far enough.
    let mut side = main.fork(21, 1);
    side.grow(1, 0);
    let inserted = side.insert(&mut tree, &disk, 22, 1);
    let height = 21 - REACH;
    let (index, refused) = inserted.refused.unwrap();
    assert_eq!((index, &refused), (0, &Refused::Fault(HeaderFault::NoAncestor { height })));
    assert!(refused.is_local(), "what we do not keep is not the sender's fault");
}

#[test]
fn too_new_is_not_remembered() {
    let (mut tree, disk, main) = world(toy::small(), 10);
    let mut ahead = main.clone();
    let raw = encode(main.facts[10].hash, NOW + AHEAD + 1, residue(&main).unwrap() + 4, 1);
    ahead.facts.push(decode(&raw));
    ahead.raw.push(raw.clone());
    let inserted = ahead.insert(&mut tree, &disk, 9, 1);
    assert_eq!((inserted.known, inserted.new), (2, 0));
    let fault = HeaderFault::TooNew { time: NOW + AHEAD + 1, ahead: AHEAD, now: NOW };
    assert_eq!(inserted.refused, Some((2, Refused::Fault(fault))));
    let batch = Batch { facts: &[decode(&raw)], raw: &raw, source: 1 };
    let inserted = tree.insert(&disk, &batch, NOW + 1);
    assert_eq!((inserted.new, inserted.tip_changed, inserted.refused), (1, true, None));
}

#[test]
fn equal_work_does_not_change_the_branch() {
    let (mut tree, disk, main) = world(toy::small(), 10);
    let mut side = main.fork(9, 1);
    // Same parent, same rules, same weight: the same work.
    side.grow(1, 1);
    assert_eq!(side.work(), main.work());
    let inserted = side.insert(&mut tree, &disk, 10, 1);
    assert_eq!((inserted.new, inserted.tip_changed, inserted.tip.hash), (1, false, main.facts[10].hash));
    side.grow(1, 0);
    let inserted = side.insert(&mut tree, &disk, 11, 1);
    let done = inserted.reorganised.unwrap();
    assert_eq!((done.fork, done.disconnected, done.connected), (9, 1, 2));
    assert!(inserted.tip_changed);
}

#[test]
fn a_fork_below_a_passed_checkpoint_is_refused_at_once() {
    let mut main = Maker::genesis(&Toy::new());
    main.grow(40, 1);
    let chain =
        Toy::with_checkpoints(vec![(10, main.facts[10].hash), (20, main.facts[20].hash), (50, Hash32::ZERO)]);
    let mut tree = HeaderTree::from_genesis(chain, toy::small()).unwrap();
    let disk = Disk::default();
    let _ = main.insert(&mut tree, &disk, 1, 1);
    for (fork, refused) in [(15, true), (19, true), (20, false), (39, false)] {
        let mut side = main.fork(fork, 1);
        side.grow(1, 0);
        let inserted = side.insert(&mut tree, &disk, fork as usize + 1, 1);
        let expected = refused.then_some((0, Refused::BelowCheckpoint { fork, checkpoint: 20 }));
        assert_eq!(inserted.refused, expected);
    }
}

#[test]
fn a_full_ledger_stops_admission_until_a_commit() {
    let settings = Settings { pending_bytes: 10 * HEADER_LEN, ..toy::small() };
    let chain = Toy::new();
    let mut tree = HeaderTree::from_genesis(chain.clone(), settings).unwrap();
    let (mut disk, mut main) = (Disk::default(), Maker::genesis(&chain));
    main.grow(20, 1);
    assert_eq!(main.insert_part(&mut tree, &disk, 1, 10, 1).refused, None);
    let pending = 10 * HEADER_LEN;
    let full = Refused::Full { pending, most: pending };
    assert_eq!(main.insert_part(&mut tree, &disk, 10, 20, 1).refused, Some((0, full.clone())));
    assert!(full.is_local());
    settle(&mut tree, &mut disk);
    assert_eq!(main.insert(&mut tree, &disk, 10, 1).refused, None);
}

#[test]
fn an_archive_that_fails_changes_nothing_and_can_be_retried() {
    let (mut tree, mut disk, main) = world(toy::small(), 60);
    let mut side = main.fork(20, 1);
    side.grow(50, 1);
    assert!(side.insert_part(&mut tree, &disk, 21, 40, 1).refused.is_none());
    disk.broken = true;
    let inserted = side.insert(&mut tree, &disk, 40, 1);
    // The branch itself needs no archive, to change to it does.
    assert!(matches!(inserted.refused, Some((_, Refused::Unreadable(_)))), "{:?}", inserted.refused);
    assert_eq!((inserted.new, inserted.tip.hash), (31, main.facts[60].hash));
    disk.broken = false;
    let inserted = side.insert(&mut tree, &disk, 70, 1);
    let done = inserted.reorganised.unwrap();
    assert_eq!((done.fork, done.disconnected, done.connected), (20, 40, 50));
    assert_eq!(inserted.tip.hash, side.facts[70].hash);
    assert_eq!(tree.side_headers(), 0, "what lay below the window is forgotten");
    settle(&mut tree, &mut disk);
    assert_eq!(disk.hashes, side.facts.iter().map(|facts| facts.hash).collect::<Vec<_>>());
    side.grow(5, 1);
    assert_eq!(side.insert(&mut tree, &disk, 71, 1).new, 5);
}

#[test]
fn a_known_batch_is_not_judged_again() {
    struct Deaf(Arc<Toy>);
    impl Chain for Deaf {
        fn place(&self, _: &HeaderFacts, _: &dyn Ancestry, _: u64) -> Result<(), HeaderFault> {
            panic!("judged again")
        }
        fn name(&self) -> &'static str {
            self.0.name()
        }
        fn header_len(&self) -> usize {
            self.0.header_len()
        }
        fn genesis(&self) -> (&[u8], HeaderFacts) {
            self.0.genesis()
        }
        fn check(&self, raw: &[u8]) -> Result<Vec<HeaderFacts>, (usize, HeaderFault)> {
            self.0.check(raw)
        }
        fn facts(&self, raw: &[u8]) -> Vec<HeaderFacts> {
            self.0.facts(raw)
        }
        fn proof(&self, bits: u32) -> Work {
            self.0.proof(bits)
        }
        fn lookback(&self) -> usize {
            self.0.lookback()
        }
        fn checkpoints(&self) -> &[(Height, Hash32)] {
            self.0.checkpoints()
        }
        fn synced(&self, height: Height, work: Work, tip_time: u64, now: u64) -> bool {
            self.0.synced(height, work, tip_time, now)
        }
    }
    let (_, disk, main) = world(toy::small(), 100);
    let mut restore = Restore::new(Arc::new(Deaf(Toy::new())), 0, Work::ZERO, 101, toy::small());
    restore.hashes(&disk.hashes).unwrap();
    let mut tree = restore.finish(&disk.raw[90..].concat(), disk.work()).unwrap();
    let inserted = main.insert(&mut tree, &disk, 0, 1);
    assert_eq!((inserted.known, inserted.new, inserted.refused), (101, 0, None));
    assert!(tree.synced(100) && !tree.synced(100_000));
}

#[test]
fn a_bad_start_says_what_is_wrong() {
    let (_, disk, main) = world(toy::small(), 30);
    let chain = || Toy::new() as Arc<dyn Chain>;
    let start = |base, raw: &[u8]| {
        HeaderTree::from_checkpoint(chain(), base, Work::ZERO, raw, toy::small()).unwrap_err()
    };
    assert_eq!(start(5, &[]), StartError::Empty);
    assert_eq!(start(5, &[0; 53]), StartError::Length { bytes: 53, header_len: HEADER_LEN });
    assert_eq!(start(5, &[&main.raw[5][..], &main.raw[7]].concat()), StartError::Unlinked { height: 6 });
    assert_eq!(start(MAX_HEIGHT, &main.raw[5]), StartError::TooHigh);

    let restore = || {
        let mut restore = Restore::new(chain(), 0, Work::ZERO, 31, toy::small());
        restore.hashes(&disk.hashes).unwrap();
        restore
    };
    let finish = |raw: &[Vec<u8>]| restore().finish(&raw.concat(), disk.work()).unwrap_err();
    assert_eq!(finish(&disk.raw[30..]), StartError::TooFew { count: 1, needed: REACH as usize + 1 });
    assert_eq!(finish(&disk.raw[20..30]), StartError::Mismatch { height: 21 });
    assert_eq!(finish(&[&disk.raw[..], &disk.raw[..]].concat()), StartError::TooHigh);
}
