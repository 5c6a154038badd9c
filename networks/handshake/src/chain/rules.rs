//! A header in its place: target, time, checkpoints.
//!
//! The order is the reference node's, which decides what a header with several faults is refused for: checkpoint,
//! target, median time, two-hour rule. That the parent is known and that the hash meets its own target were checked
//! before.
//!
//! Target of the block after `prev` (all rules take 10-minute blocks, 144 a day):
//!
//! ```text
//! network without retarget                              pow bits
//! network with reset, and time > prev.time + 1200 s     pow bits
//! prev.height < 146                                     pow bits
//! last  = suitable(prev),  first = suitable(ancestor at prev.height - 144)
//! W     = (work(last) - work(first)) * 600
//! T     = last.time - first.time, but at least 36 * 600 and at most 576 * 600
//! target = 2^256 div (W div T) - 1                      pow bits if above the limit, or if W div T is 0
//! suitable(b) = of b, its parent and its grandparent the one with the middle time (ties: see `suitable`)
//! ```
//!
//! An ancestor that the rules need and that is not kept makes a header unjudgeable ([`HeaderFault::NoAncestor`]),
//! never acceptable: otherwise a branch from the first headers after a checkpoint start could choose its own
//! difficulty.

use rookery_base::{Hash32, Height, Work};
use rookery_sync::{Ancestor, Ancestry, HeaderFacts, HeaderFault};
use ruint::Uint;

use super::target;
use crate::params::Params;

/// Seconds between two blocks, as the rules wish it.
pub const SPACING: u64 = 600;
/// Blocks in the window that the target is set by: one day.
const WINDOW: Height = 144;
/// A window counts as at least a quarter of a day ...
const MIN_SPAN: u64 = 36 * SPACING;
/// ... and at most four, so that the target moves by no more than a factor of four in a day.
const MAX_SPAN: u64 = 576 * SPACING;
/// Parent and grandparent, which `suitable` looks at.
const SUITABLE_REACH: Height = 2;
/// How many ancestors the median time is taken of.
const MEDIAN_SPAN: u32 = 11;
/// How far ahead of us a header may be, in seconds.
pub const MAX_AHEAD: u64 = 2 * 60 * 60;

/// How many ancestors the rules may read: the parent, the window before it, and two more for `suitable`.
pub const LOOKBACK: usize = (WINDOW + SUITABLE_REACH + 1) as usize;

/// Checks a header in its place on `branch`.
pub fn place(
    params: &Params,
    header: &HeaderFacts,
    branch: &dyn Ancestry,
    now: u64,
) -> Result<(), HeaderFault> {
    checkpoint(params, branch.height().saturating_add(1), header.hash)?;
    bits(params, header, branch)?;
    after_median(header, branch)?;
    if header.time > now.saturating_add(MAX_AHEAD) {
        return Err(HeaderFault::TooNew { time: header.time, ahead: MAX_AHEAD, now });
    }
    Ok(())
}

/// The hash must be the known one, where one is known.
pub fn checkpoint(params: &Params, height: Height, hash: Hash32) -> Result<(), HeaderFault> {
    match params.checkpoints.binary_search_by_key(&height, |known| known.0) {
        Ok(index) if params.checkpoints[index].1 != hash => Err(HeaderFault::Checkpoint { height }),
        _ => Ok(()),
    }
}

/// The bits must be the expected ones.
pub fn bits(params: &Params, header: &HeaderFacts, branch: &dyn Ancestry) -> Result<(), HeaderFault> {
    let expected = expected_bits(params, header.time, branch)?;
    if header.bits == expected { Ok(()) } else { Err(HeaderFault::Bits { got: header.bits, expected }) }
}

/// The time must be after the median of the ancestors.
pub fn after_median(header: &HeaderFacts, branch: &dyn Ancestry) -> Result<(), HeaderFault> {
    let median = median_time(branch)?;
    if header.time > median { Ok(()) } else { Err(HeaderFault::TooOld { time: header.time, median }) }
}

/// The bits of a block at `time` after the end of `branch`.
pub fn expected_bits(params: &Params, time: u64, branch: &dyn Ancestry) -> Result<u32, HeaderFault> {
    if params.no_retarget {
        return Ok(params.pow_bits);
    }
    let height = branch.height();
    if params.target_reset && time > ancestor(branch, height)?.time.saturating_add(2 * SPACING) {
        return Ok(params.pow_bits);
    }
    if height < WINDOW + SUITABLE_REACH {
        return Ok(params.pow_bits);
    }
    let last = suitable(branch, height)?;
    let first = suitable(branch, height - WINDOW)?;
    Ok(retarget(params, &first, &last))
}

/// Of the block at `height`, its parent and its grandparent the one with the middle time. Equal times are told apart
/// by this very sequence of exchanges.
fn suitable(branch: &dyn Ancestry, height: Height) -> Result<Ancestor, HeaderFault> {
    let mut z = ancestor(branch, height)?;
    let mut y = ancestor(branch, height - 1)?;
    let mut x = ancestor(branch, height - 2)?;
    if x.time > z.time {
        std::mem::swap(&mut x, &mut z);
    }
    if x.time > y.time {
        std::mem::swap(&mut x, &mut y);
    }
    if y.time > z.time {
        std::mem::swap(&mut y, &mut z);
    }
    Ok(y)
}

/// The bits that follow from the work and the time between two blocks.
fn retarget(params: &Params, first: &Ancestor, last: &Ancestor) -> u32 {
    // Times may run backwards between the two: the span is signed, and then at its least.
    let span = last.time.saturating_sub(first.time).clamp(MIN_SPAN, MAX_SPAN);
    match target::of_work(work_per_block(last.work.saturating_sub(first.work), span)) {
        Some(target) if target <= params.pow_limit => target::compact(&target),
        _ => params.pow_bits,
    }
}

/// floor(work * 600 / span), or the largest number there is: that much is out of reach of any real chain, and its
/// target is one that no hash meets.
fn work_per_block(work: Work, span: u64) -> Work {
    // The work of any real day fits 118 bits by far; then plain machine arithmetic does.
    if let Ok(small) = u128::try_from(work)
        && let Some(product) = small.checked_mul(u128::from(SPACING))
    {
        return Work::from(product / u128::from(span));
    }
    let wide: Uint<320, 5> = Uint::from(work) * Uint::from(SPACING) / Uint::from(span);
    wide.saturating_to()
}

/// The median time of the last eleven, or of all where there are fewer.
pub fn median_time(branch: &dyn Ancestry) -> Result<u64, HeaderFault> {
    let height = branch.height();
    let count = MEDIAN_SPAN.min(height.saturating_add(1));
    let mut sorted = [0; MEDIAN_SPAN as usize];
    for i in 0..count {
        let time = ancestor(branch, height - i)?.time;
        // Newest first, and times mostly fall on the way back, so that little moves in this descending sort.
        let mut slot = i as usize;
        while slot > 0 && sorted[slot - 1] < time {
            sorted[slot] = sorted[slot - 1];
            slot -= 1;
        }
        sorted[slot] = time;
    }
    // Sorted downwards, so the reference's index n >> 1 counts from the other end.
    Ok(sorted[(count - 1 - (count >> 1)) as usize])
}

/// The ancestor at `height`, or why the header cannot be judged.
fn ancestor(branch: &dyn Ancestry, height: Height) -> Result<Ancestor, HeaderFault> {
    branch.at(height).ok_or(HeaderFault::NoAncestor { height })
}
