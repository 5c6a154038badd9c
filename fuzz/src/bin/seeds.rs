//! Writes the first inputs of each target to `corpus/TARGET/`, beside this package's `Cargo.toml`.
//!
//! They are made, not kept: a fuzzer finds its way faster from one valid packet of each kind, and a corpus that has
//! grown is worth no review.

use bytes::{Bytes, BytesMut};
use rookery_base::Hash32;
use rookery_engine::book::{Book, BookConfig, Record};
use rookery_fuzz::{NETWORK, owner, records};
use rookery_handshake::wire::block::{Block, MerkleBlock};
use rookery_handshake::wire::compact::{BlockTxn, CompactBlock, GetBlockTxn, Prefilled, SendCmpct, ShortId};
use rookery_handshake::wire::filter::{FeeFilter, FilterAdd, FilterLoad, FilterUpdate};
use rookery_handshake::wire::proof::{Airdrop, Claim, GetProof, Proof};
use rookery_handshake::wire::reject::{Reject, RejectCode};
use rookery_handshake::wire::tx::{Address, Covenant, CovenantKind, Input, Items, Outpoint, Output, Tx};
use rookery_handshake::wire::{
    HEADER_LEN, Headers, Inv, InvKind, Locator, NetAddress, Packet, Services, Text, Version, encode_frame,
};
use rookery_overlay::wire::gossip::{Inventory, Item, encode_missing, encode_topics};
use rookery_overlay::wire::hello::{self, ExtraIdentity, Hello, network_id};
use rookery_overlay::wire::message::{Ack, Message, Verdict};
use rookery_overlay::wire::request::{AnswerHead, LEN_LEN, RequestHead, ServiceName, Status};
use rookery_overlay::wire::snapshot::{Candidate, Snapshot};
use rookery_overlay::wire::{Topic, discovery, ping};
use rookery_runtime::rng::RngSource;
use rookery_transport::tls::KeyHashes;
use std::path::Path;
use std::{fs, io};

/// Handshake's main network.
const MAGIC: u32 = 0x5b6e_f2d3;

fn main() -> io::Result<()> {
    let packets = handshake_packets();
    let mut stream = BytesMut::new();
    for packet in &packets {
        let mut seed = BytesMut::from(&[packet.kind()][..]);
        packet.encode(&mut seed);
        write("hns_packet", packet.name(), &seed)?;
        let frame = encode_frame(MAGIC, packet);
        write("hns_frame", packet.name(), &frame)?;
        stream.extend_from_slice(&frame);
    }
    let (version, verack) = (&packets[0], &packets[1]);
    for (name, order) in [("version_first", [version, verack]), ("verack_first", [verack, version])] {
        for (who, first) in [("inbound", 0), ("outbound", 1)] {
            let mut talk = BytesMut::from(&[first][..]);
            for packet in order {
                talk.extend_from_slice(&encode_frame(MAGIC, packet));
            }
            write("hns_handshake", &format!("{name}_{who}"), &talk)?;
        }
    }
    write("hns_frame", "stream", &stream)?;
    write("address_book", "book", &address_book())?;
    overlay()
}

/// One hello with everything in it, one message of each kind, records, a snapshot without its code, and a busy door.
fn overlay() -> io::Result<()> {
    let (addrs, bytes) = (vec![([203, 0, 113, 5], 4000).into()], Bytes::from_static(&[6; 64]));
    let extra = ExtraIdentity { scheme: 1, key: bytes.clone(), signature: bytes.clone() };
    let hello = Hello {
        version: hello::VERSION,
        min_version: hello::MIN_VERSION,
        network: network_id("fuzz"),
        capabilities: 3,
        incarnation: 4,
        attempt: 5,
        keys: KeyHashes { post_quantum: NETWORK, classic: [7; 32] },
        listen_port: 4000,
        addrs: addrs.clone(),
        observed: Some(([2001, 0xdb8, 0, 0, 0, 0, 0, 1], 9).into()),
        agent: "seed/1".into(),
        extra: Some(extra),
    };
    write("ovl_hello", "whole", &hello.encode())?;
    write("ovl_hello", "least", &Hello { addrs: vec![], observed: None, extra: None, ..hello }.encode())?;
    for (number, raw) in records().iter().enumerate() {
        write("ovl_record", &format!("record_{number}"), raw)?;
    }
    for (name, kind, body) in overlay_messages() {
        write("ovl_message", name, &[&[kind][..], &body].concat())?;
    }
    let candidates = addrs.into_iter().map(|addr| Candidate { addr, reached: 8 }).collect();
    let mut file = Snapshot { made: 9, candidates }.encode(&owner());
    file.truncate(file.len() - 32);
    write("ovl_snapshot", "snapshot", &file)?;
    let busy: Vec<u8> = (0..=255).flat_map(|n: u8| [n, n.wrapping_mul(37), n.wrapping_mul(11)]).collect();
    write("admission", "busy", &busy)
}

/// Name, kind and body of each; 200 and 201 are the heads of a request and of its answer, without their lengths.
fn overlay_messages() -> Vec<(&'static str, u8, Bytes)> {
    let topic = Topic::new("topic").expect("five letters are a topic");
    let payload = Bytes::from_static(b"payload");
    let item = Item { nonce: 1, topic: topic.clone(), payload: payload.clone() };
    let service = ServiceName::new("service").expect("seven letters are a name");
    let request = RequestHead { service, header: payload.clone() }.encode().expect("a short header");
    let answer = AnswerHead { status: Status::Ok, header: payload.clone() }.encode().expect("a short header");
    let message = Message { number: 1, topic: topic.clone(), payload }.encode();
    vec![
        ("ping", 1, ping::encode(7).to_vec().into()),
        ("pong", 2, ping::encode(8).to_vec().into()),
        ("message", 10, message),
        ("ack", 11, Ack { number: 1, verdict: Verdict::Busy }.encode()),
        ("inventory", 20, Inventory::encode(&topic, &[item.id(), Hash32::ZERO])),
        ("item", 22, item.encode()),
        ("missing", 22, encode_missing(&item.id())),
        ("topics", 23, encode_topics([topic].iter())),
        ("get_records", 30, discovery::encode_get(16).to_vec().into()),
        ("records", 31, discovery::encode_records(&records())),
        ("request", 200, request.slice(LEN_LEN..)),
        ("answer", 201, answer.slice(LEN_LEN..)),
    ]
}

fn write(target: &str, name: &str, seed: &[u8]) -> io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(name), seed)
}

/// A book with a fresh entry, one with several references and one that has answered, without its checksum.
fn address_book() -> Vec<u8> {
    let now = 1_700_000_000;
    let mut rng = RngSource::seeded(1, 0).fork("book", 0);
    let mut book = Book::new(BookConfig::new(MAGIC, 12038, 1), &mut rng);
    for n in 1..4 {
        let addr = ([8, 8, 8, n], 12038).into();
        book.intake(
            &[Record { addr, services: 1, time: now - 60, keyed: false }],
            [9, n, 9, 9].into(),
            now,
            &mut rng,
        );
    }
    let twice = ([8, 8, 8, 1], 12038).into();
    for n in 1..=60 {
        let record = Record { addr: twice, services: 1, time: now - 60 + u64::from(n), keyed: false };
        book.intake(&[record], [10, n, 9, 9].into(), now, &mut rng);
    }
    book.succeeded(([8, 8, 8, 2], 12038).into(), 1, now);
    let mut file = book.encode();
    file.truncate(file.len() - 8);
    file
}

/// One packet of each kind, with something in every field and list.
fn handshake_packets() -> Vec<Packet> {
    let (hash, nonce) = ([7; 32].into(), [8; 8]);
    let address = NetAddress::new(([1, 2, 3, 4], 12038).into());
    let inv = || vec![Inv { kind: InvKind::BLOCK, hash }];
    let locator = || Locator { hashes: vec![hash; 2], stop: hash };
    let header = [9; HEADER_LEN];
    let of = GetProof { root: hash, key: hash };
    let version = Version {
        version: 3,
        services: Services::NETWORK,
        time: 1_600_000_000,
        remote: address,
        nonce,
        agent: Text::new("/seed/").expect("six bytes are a text"),
        height: 1,
        no_relay: false,
    };
    let headers = Headers::from_raw([9; 2 * HEADER_LEN].to_vec().into()).expect("two whole headers");
    let reason = Text::new("because").expect("seven bytes are a text");
    let filter = FilterLoad { bits: vec![1; 8].into(), hashes: 5, tweak: 6, update: FilterUpdate::All };
    let merkle = MerkleBlock { header, total: 2, hashes: vec![hash; 2], flags: vec![3].into() };
    let compact = CompactBlock {
        header,
        nonce,
        ids: vec![ShortId([1; 6])],
        prefilled: vec![Prefilled { index: 0, tx: tx() }],
    };
    let places = GetBlockTxn::new(hash, vec![0, 1, 300]).expect("places rise");
    let airdrop = Airdrop {
        index: 1,
        proof: vec![hash],
        subindex: 2,
        subproof: vec![hash],
        key: vec![1; 33].into(),
        version: 0,
        address: vec![2; 20].into(),
        fee: 1000,
        signature: vec![3; 65].into(),
    };
    vec![
        Packet::Version(version.into()),
        Packet::Verack,
        Packet::Ping(nonce),
        Packet::Pong(nonce),
        Packet::GetAddr,
        Packet::Addr(vec![address; 2]),
        Packet::Inv(inv()),
        Packet::GetData(inv()),
        Packet::NotFound(inv()),
        Packet::GetBlocks(locator()),
        Packet::GetHeaders(locator()),
        Packet::Headers(headers),
        Packet::SendHeaders,
        Packet::Block(Block { header, txs: vec![tx(); 2] }.into()),
        Packet::Tx(tx()),
        Packet::Reject(Reject { message: 14, code: RejectCode::INVALID, reason, hash: Some(hash) }),
        Packet::Mempool,
        Packet::FilterLoad(filter),
        Packet::FilterAdd(FilterAdd(vec![1; 20].into())),
        Packet::FilterClear,
        Packet::MerkleBlock(merkle.into()),
        Packet::FeeFilter(FeeFilter(1000)),
        Packet::SendCmpct(SendCmpct { mode: 1, version: 1 }),
        Packet::CmpctBlock(compact.into()),
        Packet::GetBlockTxn(places),
        Packet::BlockTxn(BlockTxn { hash, txs: vec![tx()] }),
        Packet::GetProof(of),
        Packet::Proof(Proof { of, raw: vec![0; 4].into() }),
        Packet::Claim(Claim(vec![1; 30].into())),
        Packet::Airdrop(airdrop.into()),
        Packet::Unknown { kind: 30, body: vec![1].into() },
    ]
}

fn tx() -> Tx {
    let items = |parts: &[&[u8]]| Items::new(parts).expect("few items");
    let input = Input { prevout: Outpoint::NULL, sequence: 1, witness: items(&[&[1; 65], &[2; 33]]) };
    let covenant = Covenant { kind: CovenantKind::OPEN, items: items(&[&[3; 32], &[0; 4], b"name"]) };
    let address = Address::new(0, &[4; 20]).expect("a key hash has twenty bytes");
    Tx { version: 0, inputs: vec![input], outputs: vec![Output { value: 5, address, covenant }], locktime: 6 }
}
