//! Real headers, from the vectors folder: `ROOKERY_VECTORS`, or `../shared/vectors` beside the workspace. Whatever files are
//! there are run through; without the folder each test says that it skipped.
//!
//! Proves: real retargets, links, proof of work, genesis of every network, a full chain under the regtest rules, the
//! checkpoint start and its refusals, and that a header with one flipped bit is rejected (engine row H5).

use std::path::{Path, PathBuf};

use rookery_base::Work;
use rookery_handshake::chain::header::{HEADER_LEN, RawHeader};
use rookery_handshake::chain::recent::Recent;
use rookery_handshake::chain::{HandshakeChain, hash, rules};
use rookery_handshake::checkpoint::{Checkpoint, CheckpointError, HEADERS};
use rookery_handshake::params::{MAIN, Params, REGTEST, TESTNET};
use rookery_sync::{Ancestry, Chain, HeaderFault};

fn folder() -> Option<PathBuf> {
    let root = std::env::var_os("ROOKERY_VECTORS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors"), PathBuf::from);
    let folder = root.join("handshake");
    if !folder.is_dir() {
        println!("skipped: no vectors folder at {}", folder.display());
        return None;
    }
    Some(folder)
}

/// The files whose names have this beginning and end: what is between them, and the bytes.
fn files(prefix: &str, suffix: &str) -> Vec<(String, Vec<u8>)> {
    let Some(folder) = folder() else { return Vec::new() };
    let mut found: Vec<_> = std::fs::read_dir(&folder)
        .expect("the vectors folder can be listed")
        .filter_map(|entry| {
            let path = entry.expect("the vectors folder can be listed").path();
            let name = path.file_name()?.to_str()?;
            let middle = name.strip_prefix(prefix)?.strip_suffix(suffix)?.to_owned();
            Some((middle, std::fs::read(&path).expect("vectors can be read")))
        })
        .collect();
    found.sort();
    if found.is_empty() {
        println!("skipped: no {prefix}*{suffix} in {}", folder.display());
    }
    found
}

fn headers(raw: &[u8]) -> &[RawHeader] {
    let (headers, rest) = raw.as_chunks::<HEADER_LEN>();
    assert!(rest.is_empty());
    headers
}

#[test]
fn checkpoint_headers_verify_with_every_retarget_that_can_be_computed() {
    for (name, bytes) in files("mainnet_checkpoint_", ".bin") {
        let chain = HandshakeChain::new(&MAIN);
        let checkpoint = Checkpoint::read(&chain, &bytes).unwrap();
        assert_eq!(checkpoint.height().to_string(), name);

        let mut retargets = 0;
        let (first, later) = checkpoint.facts().split_first().unwrap();
        let mut branch =
            Recent::new(checkpoint.height(), first, checkpoint.work_before() + chain.proof(first.bits));
        for header in later {
            match rules::expected_bits(&MAIN, header.time, &branch) {
                Ok(bits) => {
                    assert_eq!(
                        format!("{bits:08x}"),
                        format!("{:08x}", header.bits),
                        "after {}",
                        branch.height()
                    );
                    chain.place(header, &branch, header.time).unwrap();
                    retargets += 1;
                }
                Err(fault) => assert!(matches!(fault, HeaderFault::NoAncestor { .. }), "{fault}"),
            }
            branch.push(header);
        }
        assert_eq!(retargets, HEADERS - chain.lookback());
        assert_eq!(branch.work(), checkpoint.branch().work());
        assert_eq!(branch.height(), checkpoint.branch().height());
    }
}

#[test]
fn both_forms_of_a_checkpoint_read_and_what_is_broken_is_named() {
    for (_, bare) in files("mainnet_checkpoint_", ".bin") {
        let chain = HandshakeChain::new(&MAIN);
        let checkpoint = Checkpoint::read(&chain, &bare).unwrap();
        let full = checkpoint.write(&MAIN);
        assert_eq!(full.len(), 35_441);
        assert_eq!(full[5..], bare);
        let again = Checkpoint::read(&chain, &full).unwrap();
        assert_eq!(again.facts(), checkpoint.facts());
        assert_eq!(again.work_before(), checkpoint.work_before());

        let refuse = |bytes: &[u8]| Checkpoint::read(&chain, bytes).unwrap_err();
        let edit = |at: usize, value: u8| {
            let mut bytes = full.clone();
            bytes[at] ^= value;
            bytes
        };
        assert!(matches!(refuse(&edit(0, 1)), CheckpointError::Network { .. }));
        assert_eq!(refuse(&edit(4, 3)), CheckpointError::Version { got: 3 });
        assert_eq!(refuse(&full[1..]), CheckpointError::Size { got: full.len() - 1 });
        assert_eq!(refuse(&[]), CheckpointError::Size { got: 0 });
        assert!(matches!(
            Checkpoint::read(&HandshakeChain::new(&TESTNET), &full),
            Err(CheckpointError::Network { .. })
        ));

        let start = full.len() - HEADERS * HEADER_LEN;
        let third = checkpoint.height() + 2;
        let broken = edit(start + 2 * HEADER_LEN, 1);
        assert_eq!(
            refuse(&broken),
            CheckpointError::Header { height: third, fault: HeaderFault::ProofOfWork }
        );
        let mut swapped = full.clone();
        swapped.copy_within(start + 3 * HEADER_LEN..start + 4 * HEADER_LEN, start + 2 * HEADER_LEN);
        assert_eq!(refuse(&swapped), CheckpointError::Link { height: third });
        let mut at_zero = full.clone();
        at_zero[5..9].fill(0);
        assert_eq!(refuse(&at_zero), CheckpointError::Place { got: 0 });
        let mut at_end = full.clone();
        at_end[5..9].fill(0xff);
        assert_eq!(refuse(&at_end), CheckpointError::Place { got: u32::MAX });
    }
}

/// The work before the file is taken on trust; were it wrong, the targets after it would still be the right ones.
#[test]
fn only_differences_of_work_matter_to_a_retarget() {
    for (_, bytes) in files("mainnet_checkpoint_", ".bin") {
        let chain = HandshakeChain::new(&MAIN);
        let checkpoint = Checkpoint::read(&chain, &bytes).unwrap();
        let other =
            Checkpoint::new(&chain, checkpoint.height(), Work::ZERO, checkpoint.raw().to_vec()).unwrap();
        let time = checkpoint.facts()[HEADERS - 1].time + 600;
        assert_eq!(
            rules::expected_bits(&MAIN, time, checkpoint.branch()),
            rules::expected_bits(&MAIN, time, other.branch()),
        );
    }
}

#[test]
fn regtest_headers_from_a_real_node_follow_every_rule_from_genesis() {
    for (range, bytes) in files("regtest_headers_", ".bin") {
        let (from, to) = range.split_once('_').unwrap();
        let (from, to): (u32, u32) = (from.parse().unwrap(), to.parse().unwrap());
        assert_eq!(headers(&bytes).len(), (to - from + 1) as usize);
        let chain = HandshakeChain::new(&REGTEST);
        let facts = chain.check(&bytes).unwrap();
        assert_eq!(facts, chain.facts(&bytes));
        for pair in facts.windows(2) {
            assert_eq!(pair[1].prev, pair[0].hash);
        }
        if from != 1 {
            println!("skipped: the rules in place, {range} does not start after genesis");
            continue;
        }
        let (_, genesis) = chain.genesis();
        let mut branch = Recent::new(0, &genesis, chain.proof(genesis.bits));
        assert_eq!(facts[0].prev, genesis.hash);
        for header in &facts {
            chain.place(header, &branch, header.time).unwrap();
            branch.push(header);
        }
        assert_eq!(branch.height(), to);
        assert_eq!(branch.work(), Work::from(2) * Work::from(to + 1));
    }
}

#[test]
fn genesis_blocks_are_those_of_the_parameters() {
    let Some(folder) = folder() else { return };
    let Ok(text) = std::fs::read_to_string(folder.join("genesis.json")) else {
        println!("skipped: no genesis.json");
        return;
    };
    let all: serde_json::Value = serde_json::from_str(&text).unwrap();
    for (name, value) in all.as_object().unwrap() {
        let params = Params::by_name(&format!("handshake-{name}")).unwrap();
        let block = const_hex::decode(value["block_hex"].as_str().unwrap()).unwrap();
        assert_eq!(block[..HEADER_LEN], params.genesis, "{name}");
        assert_eq!(value["hash"].as_str().unwrap(), params.genesis_hash.to_string());
        let chain = HandshakeChain::new(params);
        let (raw, facts) = chain.genesis();
        assert_eq!((chain.facts(raw)[0], facts.hash), (facts, params.genesis_hash));
    }
}

#[test]
fn headers_of_real_blocks_meet_their_targets() {
    let blocks = files("mainnet_block_", ".raw").into_iter().chain(files("mainnet_merkleblock_", ".raw"));
    for (height, block) in blocks {
        let raw: RawHeader = *block.first_chunk().unwrap();
        let facts = HandshakeChain::new(&MAIN).check(&raw).unwrap();
        assert_eq!(facts[0].hash, hash::hash(&raw));
        rules::checkpoint(&MAIN, height.parse().unwrap(), facts[0].hash).unwrap();
    }
}

/// Every header of `raw` with one bit flipped, for every bit.
fn flipped(raw: &RawHeader) -> Vec<RawHeader> {
    (0..HEADER_LEN * 8)
        .map(|bit| {
            let mut copy = *raw;
            copy[bit / 8] ^= 1 << (bit % 8);
            copy
        })
        .collect()
}

#[test]
fn a_flipped_bit_anywhere_in_a_mainnet_header_fails_its_proof_of_work() {
    for (name, bytes) in files("mainnet_checkpoint_", ".bin") {
        let chain = HandshakeChain::new(&MAIN);
        let checkpoint = Checkpoint::read(&chain, &bytes).unwrap();
        for (index, raw) in headers(checkpoint.raw()).iter().enumerate() {
            for (bit, copy) in flipped(raw).iter().enumerate() {
                let refused = chain.check(copy);
                assert!(
                    matches!(refused, Err((0, HeaderFault::ProofOfWork | HeaderFault::Malformed))),
                    "checkpoint {name}, header {index}, bit {bit}: {refused:?}"
                );
            }
        }
    }
}

/// Where any second hash meets the target, a flip may pass the proof of work; then a link, a rule in place, or the link of
/// the next header fails.
#[test]
fn a_flipped_bit_anywhere_in_a_regtest_header_breaks_a_link_or_a_rule() {
    for (_, bytes) in files("regtest_headers_1_", ".bin") {
        let chain = HandshakeChain::new(&REGTEST);
        let facts = chain.check(&bytes).unwrap();
        let (_, genesis) = chain.genesis();
        let mut branch = Recent::new(0, &genesis, chain.proof(genesis.bits));
        let mut caught_by_work = 0;
        for (index, raw) in headers(&bytes).iter().enumerate().take(50) {
            let parent = if index == 0 { genesis.hash } else { facts[index - 1].hash };
            for (bit, copy) in flipped(raw).iter().enumerate() {
                let Ok(got) = chain.check(copy) else {
                    caught_by_work += 1;
                    continue;
                };
                let in_place = got[0].prev == parent && chain.place(&got[0], &branch, got[0].time).is_ok();
                let linked = facts.get(index + 1).is_some_and(|next| next.prev == got[0].hash);
                assert!(!(in_place && linked), "header {index}, bit {bit}");
                assert_ne!(got[0].hash, facts[index].hash, "header {index}, bit {bit}");
            }
            branch.push(&facts[index]);
        }
        assert!(caught_by_work > 0);
    }
}
