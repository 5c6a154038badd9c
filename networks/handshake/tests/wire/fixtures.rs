//! Payloads to test with: made ones of every kind, the same in each run, and real ones from the vectors folder.

use crate::random::packet_of;
use crate::sized::smallest;
use bytes::{Bytes, BytesMut};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use rookery_handshake::wire::{HEADER_LEN, Headers, KINDS, Packet, kind};
use std::path::PathBuf;

pub fn encode(packet: &Packet) -> Bytes {
    let mut out = BytesMut::new();
    packet.encode(&mut out);
    out.freeze()
}

/// A payload that decodes, and where it is from.
pub struct Fixture {
    pub name: String,
    pub kind: u8,
    pub body: Bytes,
}

/// The smallest packet of every kind, some random ones of every kind (the same in each run), and all vectors.
pub fn fixtures() -> Vec<Fixture> {
    let mut out = vectors();
    let mut runner = TestRunner::deterministic();
    for info in &KINDS {
        let smallest = encode(&smallest(info.kind));
        out.push(Fixture { name: format!("smallest {}", info.name), kind: info.kind, body: smallest });
        for number in 0..8 {
            let packet = packet_of(info.kind).new_tree(&mut runner).unwrap().current();
            let name = format!("{} {number}", info.name);
            out.push(Fixture { name, kind: info.kind, body: encode(&packet) });
        }
    }
    out
}

/// Every real payload in the vectors folder; none when there is no folder.
pub fn vectors() -> Vec<Fixture> {
    let root = std::env::var_os("ROOKERY_VECTORS").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors"),
        PathBuf::from,
    );
    let Ok(entries) = std::fs::read_dir(root.join("handshake")) else {
        println!("skipped: no vectors folder at {}", root.display());
        return Vec::new();
    };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut out = Vec::new();
    for path in paths {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let bytes = std::fs::read(&path).unwrap();
        out.extend(payloads(&name, bytes).into_iter().map(|(kind, body)| Fixture {
            name: name.clone(),
            kind,
            body: body.into(),
        }));
    }
    out
}

fn payloads(name: &str, bytes: Vec<u8>) -> Vec<(u8, Vec<u8>)> {
    if name.contains("_block_") && name.ends_with(".raw") {
        vec![(kind::BLOCK, bytes)]
    } else if name.contains("_merkleblock_") && name.ends_with(".raw") {
        vec![(kind::MERKLEBLOCK, bytes)]
    } else if name == "genesis.json" {
        let networks: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        let blocks = networks.as_object().unwrap().values();
        blocks.map(|network| (kind::BLOCK, unhex(&network["block_hex"]))).collect()
    } else if name.ends_with("_blocks.jsonl") {
        lines(&bytes).map(|line| (kind::BLOCK, unhex(&line["block"]))).collect()
    } else if name.ends_with("_proofs.jsonl") {
        lines(&bytes).map(|line| (kind::PROOF, unhex(&line["packet"]))).collect()
    } else if name.contains("_headers_") && name.ends_with(".bin") {
        bytes
            .chunks(2000 * HEADER_LEN)
            .map(|raw| {
                let headers = Headers::from_raw(Bytes::copy_from_slice(raw)).unwrap();
                (kind::HEADERS, encode(&Packet::Headers(headers)).to_vec())
            })
            .collect()
    } else {
        Vec::new()
    }
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = serde_json::Value> {
    bytes
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
}

fn unhex(value: &serde_json::Value) -> Vec<u8> {
    const_hex::decode(value.as_str().unwrap()).unwrap()
}
