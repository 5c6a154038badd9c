//! Waiting for other processes: the one place that sleeps.

use std::time::{Duration, Instant};

/// How often a condition is looked at. Short against what is measured (two seconds), long against what a look costs.
pub const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Looks until `look` gives something.
///
/// # Panics
/// When nothing came within `deadline`, with `what` was waited for.
pub fn until<T>(what: &str, deadline: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < deadline, "waited {} s in vain for {what}", deadline.as_secs());
        pause(LOOK_EVERY);
    }
}

/// Lets real time pass, for another process to do something or, as expected, nothing.
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}
