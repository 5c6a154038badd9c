//! Chains of given lengths, mined by hsd once and copied for each test that needs one.
//!
//! They are kept in `interop/target/chains`: 3,000 blocks take hsd ten seconds, a copy a tenth of one. Branches that
//! overtake another are mined here, since hsd forgets what it is told to invalidate.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use rookery_base::{Hash32, Work};
use rookery_handshake::chain::HandshakeChain;
use rookery_handshake::chain::recent::Recent;
use rookery_handshake::mine::{Payee, Template, mine};
use rookery_handshake::params::REGTEST;
use rookery_handshake::wire::RawHeader;
use rookery_sync::Chain;
use serde_json::{Value, json};
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

/// Nonces tried for a block: each meets regtest's target with a chance of one half.
const TRIES: u32 = 256;
/// Headers below a template that its rules look at on regtest: eleven for the median time.
const MEDIAN: u32 = 11;

/// Tells apart blocks that are otherwise the same.
static NOTE: AtomicU32 = AtomicU32::new(0);

/// Has hsd accept that many blocks of ours after its block at `height`; their hashes, oldest first.
///
/// # Panics
/// When hsd does not accept one.
pub fn submit_after(hsd: &Hsd, height: u32, blocks: u32) -> Vec<Hash32> {
    let chain = HandshakeChain::new(&REGTEST);
    let lowest = height.saturating_sub(MEDIAN);
    let mut parent = header_at(hsd, lowest);
    // The work is not looked at where nothing retargets.
    let mut branch = Recent::new(lowest, &chain.facts(&parent)[0], Work::ZERO);
    for height in lowest + 1..=height {
        parent = header_at(hsd, height);
        branch.push(&chain.facts(&parent)[0]);
    }
    let mut made = Vec::new();
    for _ in 0..blocks {
        let time = chain.facts(&parent)[0].time + 1;
        let payee = Payee::new(0, &[7; 20]).expect("a version 0 address has 20 bytes");
        let template = Template::after(&REGTEST, &parent, &branch, time, payee)
            .expect("a time after the parent's")
            .with_note(&NOTE.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        let mined = mine(&template, TRIES).expect("half of all nonces do");
        let verdict = hsd.rpc("submitblock", json!([const_hex::encode(&mined.block)]));
        // `inconclusive` is what hsd says of a block on a branch that has not won.
        assert!(verdict.is_null() || verdict == "inconclusive", "block {}: {verdict}", mined.height);
        branch.push(&mined.facts);
        made.push(mined.facts.hash);
        parent = mined.header;
    }
    made
}

fn header_at(hsd: &Hsd, height: u32) -> RawHeader {
    if height == 0 {
        return REGTEST.genesis;
    }
    let raw: Value = hsd.rpc("getblockheader", json!([hsd.hash_at(height).to_string(), false]));
    let raw = const_hex::decode(raw.as_str().expect("a header in hexadecimal")).expect("hexadecimal digits");
    *raw.first_chunk().expect("a header has 236 bytes")
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
