//! Hostile branches.

use super::cases::{Maker, settle};
use super::toy::{self, Disk, Toy};
use crate::tree::{HeaderTree, Refused, Settings};

const SIDE: usize = 50;

fn world(len: usize) -> (HeaderTree, Disk, Maker) {
    let chain = Toy::new();
    let settings = Settings { side_headers: SIDE, ..toy::small() };
    let mut tree = HeaderTree::from_genesis(chain.clone(), settings).unwrap();
    let (mut disk, mut main) = (Disk::default(), Maker::genesis(&chain));
    main.grow(len, 2);
    let _ = main.insert(&mut tree, &disk, 1, 0);
    settle(&mut tree, &mut disk);
    (tree, disk, main)
}

/// One source sends branches of all lengths from everywhere; the count stays, and it pays with its own headers.
#[test]
fn a_flood_of_branches_is_bounded_and_displaces_itself() {
    let (mut tree, mut disk, main) = world(100);
    let mut honest = main.fork(80, 1);
    honest.grow(10, 2);
    assert_eq!(honest.insert(&mut tree, &disk, 81, 7).new, 10);
    for round in 0..500_u64 {
        let fork = (round * 37 % 99) as u32;
        let mut side = main.fork(fork, round + 2);
        side.grow(1 + (round % 9) as usize, 0);
        let inserted = side.insert(&mut tree, &disk, fork as usize + 1, 666);
        assert!(!inserted.tip_changed);
        assert!(tree.side_headers() <= SIDE);
        tree.side.audit();
        if round % 50 == 0 {
            settle(&mut tree, &mut disk);
        }
    }
    assert_eq!(tree.side_headers(), SIDE);
    for facts in &honest.facts {
        assert!(tree.contains(&disk, &facts.hash).unwrap(), "the other source's branch is still there");
    }
    honest.grow(30, 2);
    let inserted = honest.insert(&mut tree, &disk, 91, 7);
    assert_eq!((inserted.new, inserted.refused), (30, None));
    assert_eq!(inserted.tip.hash, honest.facts.last().unwrap().hash, "and wins in the middle of the flood");
    tree.side.audit();
    settle(&mut tree, &mut disk);
    assert_eq!(disk.hashes, honest.facts.iter().map(|facts| facts.hash).collect::<Vec<_>>());
}

/// A branch as long as there is room stops there, and what was taken of it stays.
#[test]
fn an_endless_branch_without_work_ends_at_the_cap() {
    let (mut tree, disk, main) = world(200);
    let mut side = main.fork(10, 1);
    side.grow(80, 0);
    let inserted = side.insert(&mut tree, &disk, 11, 666);
    let full = Refused::SideFull { most: SIDE };
    assert!(full.is_local());
    assert_eq!((inserted.new, inserted.refused), (SIDE, Some((SIDE, full))));
    tree.side.audit();
    assert!(tree.contains(&disk, &side.facts[10 + SIDE].hash).unwrap());
}

/// A branch with more work per header wins from far below the window; what it leaves is forgotten with its branches.
#[test]
fn a_heavy_branch_wins_from_below_the_window() {
    let (mut tree, mut disk, main) = world(100);
    for fork in [20, 50, 95] {
        let mut side = main.fork(fork, u64::from(fork));
        side.grow(3, 0);
        assert_eq!(side.insert(&mut tree, &disk, fork as usize + 1, 1).new, 3);
    }
    let mut heavy = main.fork(30, 1);
    heavy.grow(10, 1_000);
    let inserted = heavy.insert(&mut tree, &disk, 31, 2);
    let done = inserted.reorganised.unwrap();
    assert_eq!((done.fork, done.disconnected), (30, 70));
    assert_eq!(tree.side_headers(), 3, "only the branch from below the fork is left");
    tree.side.audit();
    settle(&mut tree, &mut disk);
    assert_eq!(disk.hashes, heavy.facts.iter().map(|facts| facts.hash).collect::<Vec<_>>());
    assert_eq!(tree.index.len(), heavy.facts.len());
}
