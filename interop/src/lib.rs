//! Rookery against the reference implementations, each a real process on loopback.
//!
//! ```text
//!  tests ---- Hsd (node process, JSON-RPC) ---- p2p ----+
//!    |                                                  |
//!    +------- Rookery (run, sync, status) <-------------+
//!    |            | --listen
//!    +------- Client (plain TCP, one packet at a time) -> both, answers compared byte by byte
//! ```
//!
//! **What it promises.** Nothing is needed by hand but `npm` on the path: the peer is installed below
//! `interop/target` on first use, the binary under test is built, and every process that was started is killed when
//! its handle goes, also by a failing test. Every wait has a deadline, and what was waited for is in the message.
//! Ports are free ones of this machine, so several runs do not meet.
//!
//! **What it refuses.** It never dials anything but loopback, and no process that it starts does.

pub mod chain;
pub mod client;
pub mod hsd;
pub mod ports;
pub mod process;
pub mod relay;
pub mod rookery;
pub mod wait;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where this package keeps what it installs and makes: ignored by git, safe to delete.
pub fn cache() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target")
}

/// Waits for this test's turn. Tests measure times on a small machine, so they take turns within one binary.
pub fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    // A test that failed holds nothing that the next one could miss.
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
