//! CPU time of a piece of work.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Rounds of each measurement. The fastest counts: it is the one that other load disturbed least.
const ROUNDS: u32 = 15;

/// CPU time of this thread so far.
fn thread_cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.cast_unsigned(), u32::try_from(now.tv_nsec).expect("below a second"))
}

/// CPU seconds of the fastest round of each piece of work, in the order given. The pieces take turns, round by round,
/// so that what disturbs the machine for a while disturbs all of them, and their ratios stand.
pub fn fastest(pieces: &mut [Box<dyn FnMut() + '_>]) -> Vec<f64> {
    let mut best = vec![f64::INFINITY; pieces.len()];
    for _ in 0..ROUNDS {
        for (piece, best) in pieces.iter_mut().zip(&mut best) {
            let start = thread_cpu();
            piece();
            *best = best.min((thread_cpu() - start).as_secs_f64());
        }
    }
    best
}
