//! Chains of given lengths, mined by hsd once and copied for each test that needs one.
//!
//! They are kept in `interop/target/chains`: 3,000 blocks take hsd ten seconds, a copy a tenth of one.

use std::path::Path;

use tempfile::TempDir;

use crate::cache;
use crate::hsd::{Hsd, VERSION};

/// Blocks in a test's chain: 3,000, or 5,000 with `ROOKERY_INTEROP_FULL` set.
pub fn length() -> u32 {
    if std::env::var_os("ROOKERY_INTEROP_FULL").is_some() { 5_000 } else { 3_000 }
}

/// An hsd with a chain of that many blocks.
pub fn hsd_with(blocks: u32) -> Hsd {
    let dir = TempDir::new().expect("a temporary directory can be made");
    copy(&kept(blocks), dir.path()).expect("a chain can be copied");
    Hsd::start_in(dir)
}

/// The data of an hsd that has stopped at that height.
fn kept(blocks: u32) -> std::path::PathBuf {
    let chains = cache().join("chains");
    let chain = chains.join(format!("hsd-{VERSION}-{blocks}"));
    if !chain.exists() {
        let hsd = Hsd::start();
        hsd.mine(blocks);
        let data = hsd.stop();
        std::fs::create_dir_all(&chains).expect("the cache directory can be made");
        // Under its name only when it is whole.
        let part = TempDir::new_in(&chains).expect("the cache directory can be written");
        copy(data.path(), part.path()).expect("a chain can be copied");
        match std::fs::rename(part.path(), &chain) {
            Ok(()) => drop(part.keep()),
            // Another process was first: its chain is as good.
            Err(_) if chain.exists() => {}
            Err(error) => panic!("a chain cannot be kept in {}: {error}", chain.display()),
        }
    }
    chain
}

/// Copies a directory with all below it.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
