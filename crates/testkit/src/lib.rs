//! What tests share. Nothing shipped depends on this crate.
//!
//! | module | what it is for |
//! |---|---|
//! | [`switchboard`] | an in-memory [`Transport`](rookery_transport::Transport): any source address, resets, refusals, accept errors |
//! | [`knock`] | arrivals that wait at a listener's door, as QUIC's do, and the connection with streams behind it |
//! | [`scripted`] | a raw peer that says and expects exactly the bytes a test states |
//! | [`strategies`] | proptest strategies that several crates need |
//! | [`vectors`] | where the test vectors are |
//!
//! A test on the switchboard runs on a current-thread runtime with paused time (`start_paused = true`): virtual time
//! passes only when nothing can run, so a deadline of minutes costs nothing and a test states times exactly. The
//! switchboard has no latency and no bandwidth; whoever needs them uses the simulation's fabric.

pub mod knock;
pub mod scripted;
pub mod strategies;
pub mod switchboard;

use std::path::PathBuf;

pub use knock::{Knock, Told};
pub use scripted::Scripted;
pub use switchboard::{Switchboard, Wire};

/// The folder of test vectors: `ROOKERY_VECTORS`, else `shared/vectors` beside the workspace. `None`, after a line
/// that says so, when there is none: the test then has nothing to check and says that instead of passing silently.
pub fn vectors() -> Option<PathBuf> {
    let beside = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/vectors"));
    let folder = std::env::var_os("ROOKERY_VECTORS").map_or_else(beside, PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: no vectors folder at {}", folder.display());
    None
}
