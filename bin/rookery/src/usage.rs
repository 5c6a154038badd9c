//! What this process has used: CPU time and peak memory.

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// A process's use of the machine so far.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// CPU seconds of all threads, in user and system mode.
    pub cpu_seconds: f64,
    /// Most memory that was resident at one time.
    pub peak_rss_bytes: u64,
    /// Memory that is resident now.
    pub rss_bytes: u64,
}

impl Usage {
    /// This process's.
    pub fn now() -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        // Absent outside Linux; zero then says "not known", as it cannot be true.
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self {
            cpu_seconds: cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
            peak_rss_bytes: kilobytes(&status, "VmHWM:"),
            rss_bytes: kilobytes(&status, "VmRSS:"),
        }
    }
}

/// A `Name:   123 kB` line of `/proc/self/status`, in bytes.
fn kilobytes(status: &str, name: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok())
        .map_or(0, |kilobytes| kilobytes.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_lines_are_read_in_bytes() {
        let status = "Name:\trookery\nVmHWM:\t  2048 kB\nVmRSS:\t    12 kB\n";
        assert_eq!(kilobytes(status, "VmHWM:"), 2_097_152);
        assert_eq!(kilobytes(status, "VmSwap:"), 0);
    }

    #[test]
    fn this_process_uses_something() {
        let usage = Usage::now();
        assert!(usage.cpu_seconds > 0.0 && usage.peak_rss_bytes >= usage.rss_bytes, "{usage:?}");
    }
}
