//! The rules in place on made-up branches: each rule at its edges, their order, and targets against a plain
//! reading of the rule in wide integers.
//!
//! Proves: median time, the two-hour rule, checkpoints, target reset, retarget extremes and ties, and that what cannot be
//! judged is refused (engine row H5).

use proptest::prelude::*;
use rookery_base::{Hash32, Height, Work};
use rookery_handshake::chain::{HandshakeChain, rules, target};
use rookery_handshake::params::{MAIN, Params, REGTEST, SIMNET, TESTNET};
use rookery_sync::{Ancestor, Ancestry, Chain, HeaderFacts, HeaderFault};
use ruint::Uint;

/// A branch whose first header kept is at `start`.
#[derive(Debug, Clone)]
struct Branch {
    start: Height,
    kept: Vec<Ancestor>,
}

impl Branch {
    /// From times and bits; the work before it is zero.
    fn new(start: Height, headers: impl IntoIterator<Item = (u64, u32)>) -> Self {
        let mut work = Work::ZERO;
        let kept = headers
            .into_iter()
            .map(|(time, bits)| {
                work += target::proof(bits);
                Ancestor { time, bits, work }
            })
            .collect();
        Self { start, kept }
    }

    /// `count` headers of even spacing from genesis on, all with the network's first bits.
    fn even(params: &Params, count: u64, spacing: u64) -> Self {
        Self::new(0, (0..count).map(|i| (GENESIS + i * spacing, params.pow_bits)))
    }

    fn tip_time(&self) -> u64 {
        self.kept.last().expect("a branch has a tip").time
    }
}

impl Ancestry for Branch {
    fn height(&self) -> Height {
        self.start + self.kept.len() as Height - 1
    }

    fn at(&self, height: Height) -> Option<Ancestor> {
        self.kept.get(height.checked_sub(self.start)? as usize).copied()
    }
}

const GENESIS: u64 = 1_580_745_081;

fn header(time: u64, bits: u32) -> HeaderFacts {
    HeaderFacts { hash: Hash32([9; 32]), prev: Hash32::ZERO, time, bits }
}

/// The rule, read off the page with integers that cannot overflow.
fn plain_expected_bits(params: &Params, time: u64, branch: &Branch) -> u32 {
    type Wide = Uint<1024, 16>;
    let prev = branch.height() as usize;
    if params.no_retarget {
        return params.pow_bits;
    }
    if params.target_reset && time > branch.kept[prev].time + 1200 {
        return params.pow_bits;
    }
    if prev < 146 {
        return params.pow_bits;
    }
    let middle = |at: usize| {
        let (mut x, mut y, mut z) = (branch.kept[at - 2], branch.kept[at - 1], branch.kept[at]);
        if x.time > z.time {
            (x, z) = (z, x);
        }
        if x.time > y.time {
            y = x;
        }
        // Where the last exchange, y with z, would be made, z is what comes to the middle.
        if y.time > z.time { z } else { y }
    };
    let (last, first) = (middle(prev), middle(prev - 144));
    let span = (i128::from(last.time) - i128::from(first.time)).clamp(36 * 600, 576 * 600);
    let work = (Wide::from(last.work) - Wide::from(first.work)) * Wide::from(600) / Wide::from(span as u64);
    if work.is_zero() {
        return params.pow_bits;
    }
    let goal = (Wide::ONE << 256) / work - Wide::ONE;
    if goal > Wide::from(params.pow_limit) { params.pow_bits } else { target::compact(&Work::from(goal)) }
}

#[test]
fn a_header_must_be_later_than_the_median_of_eleven() {
    let branch = Branch::even(&REGTEST, 30, 600);
    let median = branch.kept[30 - 6].time;
    assert_eq!(rules::median_time(&branch), Ok(median));
    let chain = HandshakeChain::new(&REGTEST);
    let now = branch.tip_time();
    let at = |time| chain.place(&header(time, REGTEST.pow_bits), &branch, now);
    assert_eq!(at(median), Err(HeaderFault::TooOld { time: median, median }));
    assert_eq!(at(median + 1), Ok(()));
}

#[test]
fn near_genesis_the_median_is_of_what_there_is() {
    // Sorted, index n >> 1: of one the one, of two the later, of three the middle, of four the third.
    for (times, median) in
        [(vec![5], 5), (vec![5, 3], 5), (vec![5, 3, 4], 4), (vec![5, 3, 4, 9], 5), (vec![7; 11], 7)]
    {
        let branch = Branch::new(0, times.iter().map(|time| (*time, REGTEST.pow_bits)));
        assert_eq!(rules::median_time(&branch), Ok(median), "{times:?}");
    }
}

#[test]
fn a_header_may_be_two_hours_ahead_and_no_more() {
    let branch = Branch::even(&REGTEST, 30, 600);
    let chain = HandshakeChain::new(&REGTEST);
    let now = branch.tip_time();
    let at = |time| chain.place(&header(time, REGTEST.pow_bits), &branch, now);
    assert_eq!(at(now + 7200), Ok(()));
    assert_eq!(at(now + 7201), Err(HeaderFault::TooNew { time: now + 7201, ahead: 7200, now }));
    assert_eq!(chain.place(&header(u64::MAX, REGTEST.pow_bits), &branch, u64::MAX), Ok(()), "no overflow");
}

#[test]
fn a_checkpoint_names_the_only_hash_at_its_height() {
    for (height, hash) in MAIN.checkpoints {
        assert_eq!(rules::checkpoint(&MAIN, *height, *hash), Ok(()));
        let refused = Err(HeaderFault::Checkpoint { height: *height });
        assert_eq!(rules::checkpoint(&MAIN, *height, Hash32([1; 32])), refused);
        assert_eq!(rules::checkpoint(&MAIN, height + 1, Hash32([1; 32])), Ok(()));
        assert_eq!(rules::checkpoint(&REGTEST, *height, Hash32([1; 32])), Ok(()));
    }
}

#[test]
fn faults_are_found_in_the_order_checkpoint_bits_median_future() {
    let chain = HandshakeChain::new(&MAIN);
    let height = MAIN.checkpoints[0].0;
    let branch = Branch::new(0, (0..u64::from(height)).map(|i| (GENESIS + i * 600, MAIN.pow_bits)));
    let now = 0;
    let old = header(0, 1);
    assert_eq!(chain.place(&old, &branch, now), Err(HeaderFault::Checkpoint { height }));
    let known = HeaderFacts { hash: MAIN.checkpoints[0].1, ..old };
    assert!(matches!(chain.place(&known, &branch, now), Err(HeaderFault::Bits { got: 1, .. })));
    let expected = rules::expected_bits(&MAIN, 0, &branch).unwrap();
    let right_bits = HeaderFacts { bits: expected, ..known };
    assert!(matches!(chain.place(&right_bits, &branch, now), Err(HeaderFault::TooOld { .. })));
    let later = HeaderFacts { time: branch.tip_time() + 600, ..right_bits };
    assert!(matches!(chain.place(&later, &branch, now), Err(HeaderFault::TooNew { .. })));
    assert_eq!(chain.place(&later, &branch, branch.tip_time()), Ok(()));
}

#[test]
fn what_cannot_be_judged_is_refused() {
    let chain = HandshakeChain::new(&SIMNET);
    let lookback = chain.lookback() as u32;
    for kept in [1, 10, lookback - 1] {
        let start = 1000;
        let branch = Branch::new(start, (0..u64::from(kept)).map(|i| (GENESIS + i * 600, SIMNET.pow_bits)));
        let next = header(branch.tip_time() + 600, SIMNET.pow_bits);
        let refused = chain.place(&next, &branch, next.time).unwrap_err();
        let HeaderFault::NoAncestor { height } = refused else { panic!("{refused}") };
        assert!(height < start);
    }
    let branch = Branch::new(1000, (0..u64::from(lookback)).map(|i| (GENESIS + i * 600, SIMNET.pow_bits)));
    let next = header(branch.tip_time() + 600, SIMNET.pow_bits);
    assert_eq!(chain.place(&next, &branch, next.time), Ok(()), "the lookback is enough");
}

#[test]
fn the_first_147_blocks_have_the_first_target() {
    for count in [1, 100, 146] {
        let branch = Branch::even(&MAIN, count, 1);
        assert_eq!(rules::expected_bits(&MAIN, 0, &branch), Ok(MAIN.pow_bits));
    }
    let fast = Branch::even(&MAIN, 147, 1);
    assert_ne!(rules::expected_bits(&MAIN, 0, &fast), Ok(MAIN.pow_bits));
}

#[test]
fn a_day_moves_the_target_by_a_factor_of_four_at_most() {
    let harder = |spacing| rules::expected_bits(&MAIN, 0, &Branch::even(&MAIN, 147, spacing)).unwrap();
    let work = |bits| target::proof(bits).as_limbs()[0];
    let before = work(MAIN.pow_bits);
    // 36 of 144 blocks' time is the least that counts; less changes nothing more.
    assert_eq!(harder(150), harder(1));
    assert_eq!(harder(150), harder(0));
    assert!(work(harder(1)).abs_diff(4 * before) < before / 1000);
    assert!(work(harder(300)).abs_diff(2 * before) < before / 1000);
    // Slower than wished: back to the limit, never above it.
    assert_eq!(harder(601), MAIN.pow_bits);
    assert_eq!(harder(1_000_000), MAIN.pow_bits);
    // From a hard start the slow end is a quarter.
    let hard = 0x1900_ffff;
    let slow = Branch::new(0, (0..147).map(|i| (GENESIS + i * 1_000_000, hard)));
    let slower = Branch::new(0, (0..147).map(|i| (GENESIS + i * 2400, hard)));
    let easier = rules::expected_bits(&MAIN, 0, &slow).unwrap();
    assert_eq!(rules::expected_bits(&MAIN, 0, &slower), Ok(easier));
    let ratio = target::proof(hard) / target::proof(easier);
    assert!((3..=4).contains(&ratio.as_limbs()[0]), "{ratio}");
}

#[test]
fn testnet_resets_after_twenty_minutes_and_regtest_never_retargets() {
    let hard = 0x1900_ffff;
    let branch = Branch::new(0, (0..200).map(|i| (GENESIS + i * 600, hard)));
    let tip = branch.tip_time();
    assert_ne!(rules::expected_bits(&TESTNET, tip + 1200, &branch), Ok(TESTNET.pow_bits));
    assert_eq!(rules::expected_bits(&TESTNET, tip + 1201, &branch), Ok(TESTNET.pow_bits));
    assert_ne!(rules::expected_bits(&MAIN, tip + 1201, &branch), Ok(MAIN.pow_bits));
    assert_eq!(rules::expected_bits(&REGTEST, tip, &branch), Ok(REGTEST.pow_bits));
}

#[test]
fn a_chain_is_synced_past_its_checkpoints_with_enough_work_and_a_fresh_tip() {
    let chain = HandshakeChain::new(&MAIN);
    let last = MAIN.checkpoints.last().unwrap().0;
    let (work, time) = (MAIN.min_chainwork, 2_000_000_000);
    assert!(chain.synced(last, work, time, time + MAIN.max_tip_age));
    assert!(!chain.synced(last - 1, work, time, time));
    assert!(!chain.synced(last, work - Work::ONE, time, time));
    assert!(!chain.synced(last, work, time, time + MAIN.max_tip_age + 1));
    assert!(HandshakeChain::new(&REGTEST).synced(0, Work::ZERO, GENESIS, 2_000_000_000));
}

#[test]
fn check_names_the_first_bad_header_and_an_incomplete_one() {
    let chain = HandshakeChain::new(&SIMNET);
    let good: Vec<u8> =
        rookery_handshake::mine::synthetic::extend(&SIMNET, 0).take(20).flat_map(|(raw, _)| raw).collect();
    let len = chain.header_len();
    assert_eq!(chain.check(&good).unwrap().len(), 20);
    assert_eq!(chain.check(&[]), Ok(Vec::new()));
    assert_eq!(chain.check(&good[..good.len() - 1]), Err((19, HeaderFault::Malformed)));
    assert_eq!(chain.check(&good[..1]), Err((0, HeaderFault::Malformed)));
    for index in [0, 7, 8, 15, 16, 19] {
        // The sign bit makes any bits no target; a time above 53 bits is one that no node reads.
        for (offset, fault) in [(202, HeaderFault::ProofOfWork), (11, HeaderFault::Malformed)] {
            let mut bad = good.clone();
            bad[index * len + offset] |= 0x80;
            assert_eq!(chain.check(&bad), Err((index, fault)));
        }
    }
}

proptest! {
    #[test]
    fn expected_bits_equal_the_plain_reading(
        steps in proptest::collection::vec((-2000i64..4000, 0x1a00_8000u32..0x1b7f_ffff), 140..180),
        ties in any::<bool>(),
        ahead in 0u64..3000,
    ) {
        // Times jump about by whole steps when ties are wanted, so that equal ones are frequent.
        let grain = if ties { 1000 } else { 1 };
        let mut time = GENESIS.cast_signed();
        let branch = Branch::new(0, steps.into_iter().map(|(step, bits)| {
            time += step / grain * grain;
            (time.cast_unsigned(), bits & 0x7fff_ffff & !0x0080_0000)
        }));
        let at = branch.tip_time() + ahead;
        for params in Params::ALL {
            prop_assert_eq!(
                rules::expected_bits(params, at, &branch),
                Ok(plain_expected_bits(params, at, &branch)),
                "{}", params.name
            );
        }
    }

    /// Work so large that plain machine arithmetic does not hold it.
    #[test]
    fn expected_bits_hold_for_targets_of_any_size(
        bits in (0x0400_8000u32..0x207f_ffff).prop_map(|bits| bits & !0x0080_0000),
        spacing in 0u64..5000,
    ) {
        prop_assume!(target::proof(bits).bit_len() < 240);
        let branch = Branch::new(0, (0..150).map(|i| (GENESIS + i * spacing, bits)));
        prop_assert_eq!(
            rules::expected_bits(&MAIN, 0, &branch),
            Ok(plain_expected_bits(&MAIN, 0, &branch))
        );
    }

    #[test]
    fn the_median_equals_that_of_a_sorted_list(times in proptest::collection::vec(0u64..50, 1..40)) {
        let branch = Branch::new(0, times.iter().map(|time| (*time, REGTEST.pow_bits)));
        let mut last: Vec<_> = times.iter().rev().take(11).copied().collect();
        last.sort();
        prop_assert_eq!(rules::median_time(&branch), Ok(last[last.len() >> 1]));
    }
}
