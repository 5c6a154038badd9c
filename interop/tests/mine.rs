//! hsd accepts the blocks that Rookery mines.

use rookery_interop::chain::submit_after;
use rookery_interop::hsd::Hsd;
use rookery_interop::turn;

/// Past regtest's first commitments of the name tree, at each fifth block.
const BLOCKS: u32 = 12;

#[test]
fn hsd_builds_on_our_blocks() {
    let _turn = turn();
    let hsd = Hsd::start();
    let ours = submit_after(&hsd, 0, BLOCKS);
    assert_eq!((hsd.height(), Some(&hsd.tip())), (BLOCKS, ours.last()));
    hsd.mine(1);
    assert_eq!(hsd.hash_at(BLOCKS), ours[11], "hsd mines on our tip");
    assert_eq!(hsd.height(), BLOCKS + 1);

    // A branch of ours that is longer than theirs wins, one that is not does not.
    let shorter = submit_after(&hsd, BLOCKS, 1);
    assert_ne!(hsd.tip(), shorter[0]);
    let longer = submit_after(&hsd, BLOCKS - 1, 3);
    assert_eq!(hsd.tip(), longer[2]);
}
