//! What work costs: CPU time of a thread, memory of a process, and how repeated measurements are summed up.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Rounds of each measurement. The fastest counts: it is the one that other load disturbed least.
const ROUNDS: u32 = 15;

/// CPU time of this thread so far.
fn thread_cpu() -> Duration {
    cpu(ClockId::ThreadCPUTime)
}

/// CPU time of this process so far, all threads, user and system: what `getrusage` says, in nanoseconds.
pub fn process_cpu() -> Duration {
    cpu(ClockId::ProcessCPUTime)
}

fn cpu(clock: ClockId) -> Duration {
    let now = clock_gettime(clock);
    Duration::new(now.tv_sec.cast_unsigned(), u32::try_from(now.tv_nsec).expect("below a second"))
}

/// CPU seconds of this thread, user and system, since the stopwatch was made.
pub struct CpuWatch(Duration);

impl CpuWatch {
    /// Starts to count.
    pub fn start() -> Self {
        Self(thread_cpu())
    }

    /// Seconds so far.
    pub fn seconds(&self) -> f64 {
        (thread_cpu() - self.0).as_secs_f64()
    }
}

/// CPU seconds of the fastest round of each piece of work, in the order given. The pieces take turns, round by round,
/// so that what disturbs the machine for a while disturbs all of them, and their ratios stand.
pub fn fastest(pieces: &mut [Box<dyn FnMut() + '_>]) -> Vec<f64> {
    let mut best = vec![f64::INFINITY; pieces.len()];
    for _ in 0..ROUNDS {
        for (piece, best) in pieces.iter_mut().zip(&mut best) {
            let watch = CpuWatch::start();
            piece();
            *best = best.min(watch.seconds());
        }
    }
    best
}

/// Bytes of this process that are resident now.
pub fn resident_bytes() -> Result<u64, String> {
    const STATUS: &str = "/proc/self/status";
    let text = std::fs::read_to_string(STATUS).map_err(|error| format!("{STATUS}: {error}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.map(|kilobytes| kilobytes * 1024).ok_or_else(|| format!("{STATUS} has no VmRSS in kB"))
}

/// Descriptors that this process has open, the one that counts them left out.
pub fn descriptors() -> Result<usize, String> {
    const OPEN: &str = "/proc/self/fd";
    let open = std::fs::read_dir(OPEN).map_err(|error| format!("{OPEN}: {error}"))?;
    Ok(open.count().saturating_sub(1))
}

/// Counts what is allocated, for [`heap_bytes`].
#[cfg(feature = "heap")]
#[global_allocator]
static HEAP: &stats_alloc::StatsAlloc<std::alloc::System> = &stats_alloc::INSTRUMENTED_SYSTEM;

/// Bytes that this process has allocated and not freed. Counting costs a little time, so it is a feature of its own.
pub fn heap_bytes() -> Option<usize> {
    #[cfg(feature = "heap")]
    let bytes = {
        let stats = HEAP.stats();
        Some(stats.bytes_allocated.saturating_sub(stats.bytes_deallocated))
    };
    #[cfg(not(feature = "heap"))]
    let bytes = None;
    bytes
}

/// UDP datagrams that the kernel has dropped so far because a socket's receive buffer was full, of all processes.
pub fn dropped_datagrams() -> Result<u64, String> {
    const SNMP: &str = "/proc/net/snmp";
    let text = std::fs::read_to_string(SNMP).map_err(|error| format!("{SNMP}: {error}"))?;
    dropped_of(&text).ok_or_else(|| format!("{SNMP} has no RcvbufErrors of UDP"))
}

/// A line of names, and below it one of numbers.
fn dropped_of(text: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp:"));
    let column = lines.next()?.split_whitespace().position(|name| name == "RcvbufErrors")?;
    lines.next()?.split_whitespace().nth(column)?.parse().ok()
}

/// Several measurements of one thing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The one in the middle; of an even number, the lower of the two.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
}

impl Spread {
    /// Sums up at least one measurement.
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let (Some(&min), Some(&max)) = (values.first(), values.last()) else {
            unreachable!("every bench repeats at least once")
        };
        Self { median: values[(values.len() - 1) / 2], min, max }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropped_datagrams_are_found_by_their_name() {
        let text =
            "Tcp: RtoAlgorithm InErrs\nTcp: 1 9\nUdp: InDatagrams RcvbufErrors MemErrors\nUdp: 801 22 0\n";
        assert_eq!(dropped_of(text), Some(22));
        assert_eq!(dropped_of("Udp: InDatagrams\nUdp: 801\n"), None);
        assert_eq!(dropped_of(""), None);
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(Spread::of(vec![3.0, 1.0, 2.0]), Spread { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(Spread::of(vec![4.0, 1.0]), Spread { median: 1.0, min: 1.0, max: 4.0 });
    }
}
