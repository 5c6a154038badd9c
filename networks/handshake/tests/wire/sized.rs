//! The smallest and the largest packet of each kind.

use crate::fixtures::encode;
use bytes::Bytes;
use rookery_base::Hash32;
use rookery_handshake::wire::block::{Block, MAX_BLOCK_TXS, MAX_MERKLE_FLAGS, MerkleBlock};
use rookery_handshake::wire::compact::{BlockTxn, CompactBlock, GetBlockTxn, Prefilled, SendCmpct};
use rookery_handshake::wire::filter::{FeeFilter, FilterAdd, FilterLoad, FilterUpdate};
use rookery_handshake::wire::proof::{Airdrop, Claim, GetProof, MAX_TREE_PROOF, MIN_TREE_PROOF, Proof};
use rookery_handshake::wire::reject::{Reject, RejectCode};
use rookery_handshake::wire::tx::{Input, Items, Outpoint, Tx};
use rookery_handshake::wire::{
    HEADER_LEN, Headers, Inv, InvKind, KINDS, Locator, NetAddress, Packet, Services, Text, Version, kind,
};

fn empty(number: u8) -> Packet {
    match number {
        kind::VERACK => Packet::Verack,
        kind::GETADDR => Packet::GetAddr,
        kind::SENDHEADERS => Packet::SendHeaders,
        kind::MEMPOOL => Packet::Mempool,
        kind::FILTERCLEAR => Packet::FilterClear,
        _ => panic!("kind {number} is not empty"),
    }
}

/// The smallest packet of a kind.
pub fn smallest(number: u8) -> Packet {
    sized(number, false)
}

/// The largest packet of a kind.
pub fn largest(number: u8) -> Packet {
    sized(number, true)
}

fn sized(number: u8, large: bool) -> Packet {
    let many = |count: usize| if large { count } else { 0 };
    let blob = |count: usize| Bytes::from(vec![0xff; many(count)]);
    let text = Text::new(vec![b'a'; many(Text::MAX)]).unwrap();
    let max = KINDS[usize::from(number)].max;
    let (header, hash) = ([0xff; HEADER_LEN], Hash32([0xff; 32]));
    let inv = || vec![Inv { kind: InvKind(u32::MAX), hash }; many(50_000)];
    let locator = || Locator { hashes: vec![hash; many(50_000)], stop: hash };
    let of = GetProof { root: hash, key: hash };
    let small_tx = Tx { version: 1, inputs: vec![], outputs: vec![], locktime: 0 };
    match number {
        kind::VERSION => {
            let (services, nonce) = (Services(u32::MAX), [0xff; 8]);
            let (remote, no_relay) = (NetAddress::NULL, true);
            let version =
                Version { version: 3, services, time: 0, remote, nonce, agent: text, height: 0, no_relay };
            Packet::Version(version.into())
        }
        kind::PING => Packet::Ping([0xff; 8]),
        kind::PONG => Packet::Pong([0xff; 8]),
        kind::ADDR => Packet::Addr(vec![NetAddress::NULL; many(1000)]),
        kind::INV => Packet::Inv(inv()),
        kind::GETDATA => Packet::GetData(inv()),
        kind::NOTFOUND => Packet::NotFound(inv()),
        kind::GETBLOCKS => Packet::GetBlocks(locator()),
        kind::GETHEADERS => Packet::GetHeaders(locator()),
        kind::HEADERS => Packet::Headers(Headers::from_raw(blob(2000 * HEADER_LEN)).unwrap()),
        kind::BLOCK => {
            let txs = if large { vec![tx_of(max - HEADER_LEN - 1)] } else { vec![] };
            Packet::Block(Block { header, txs }.into())
        }
        kind::TX => Packet::Tx(if large { tx_of(max) } else { small_tx }),
        kind::REJECT => {
            let message = if large { kind::TX } else { 0 };
            Packet::Reject(Reject {
                message,
                code: RejectCode(0xff),
                reason: text,
                hash: large.then_some(hash),
            })
        }
        kind::FILTERLOAD => {
            let (hashes, tweak, update) = (50, u32::MAX, FilterUpdate::PubkeyOnly);
            Packet::FilterLoad(FilterLoad { bits: blob(36_000), hashes, tweak, update })
        }
        kind::FILTERADD => Packet::FilterAdd(FilterAdd(blob(520))),
        kind::MERKLEBLOCK => {
            let (hashes, flags) = (vec![hash; many(MAX_BLOCK_TXS)], blob(MAX_MERKLE_FLAGS));
            Packet::MerkleBlock(MerkleBlock { header, total: 1, hashes, flags }.into())
        }
        kind::FEEFILTER => Packet::FeeFilter(FeeFilter(many(2_040_000_000_000_000) as u64)),
        kind::SENDCMPCT => Packet::SendCmpct(SendCmpct { mode: 1, version: 1 }),
        kind::CMPCTBLOCK => {
            let tx = || tx_of(max - HEADER_LEN - 8 - 1 - 1 - 1);
            let prefilled = if large { vec![Prefilled { index: 0, tx: tx() }] } else { vec![] };
            Packet::CmpctBlock(CompactBlock { header, nonce: [0xff; 8], ids: vec![], prefilled }.into())
        }
        kind::GETBLOCKTXN => {
            // As many gaps of three bytes as leave room for the most places; the rest are neighbours.
            let wide = (0x1_0000 - MAX_BLOCK_TXS) / 0xfd;
            let index = |n: usize| n + 0xfd * wide.min(n + 1);
            let indexes = (0..many(MAX_BLOCK_TXS)).map(|n| index(n) as u16).collect();
            Packet::GetBlockTxn(GetBlockTxn::new(hash, indexes).unwrap())
        }
        kind::BLOCKTXN => {
            let txs = if large { vec![tx_of(max - 32 - 1)] } else { vec![] };
            Packet::BlockTxn(BlockTxn { hash, txs })
        }
        kind::GETPROOF => Packet::GetProof(of),
        kind::PROOF => Packet::Proof(Proof {
            of,
            raw: vec![0; if large { MAX_TREE_PROOF } else { MIN_TREE_PROOF }].into(),
        }),
        kind::CLAIM => Packet::Claim(Claim(blob(10_000))),
        kind::AIRDROP => {
            let (proof, subproof) = (vec![hash; many(18)], vec![hash; many(3)]);
            let (key, address) = (Bytes::from_static(&[1]), Bytes::from_static(&[1, 2]));
            // What is in front of the signature, and its length in three bytes, when it is the largest.
            let front = 4 + 1 + 18 * 32 + 1 + 1 + 3 * 32 + 2 + 1 + 1 + 2 + 1 + 3;
            let signature = blob(max - front);
            let (index, subindex, version, fee) = (216_198, 7, 31, 0);
            let all = Airdrop { index, proof, subindex, subproof, key, version, address, fee, signature };
            Packet::Airdrop(all.into())
        }
        _ => empty(number),
    }
}

/// A transaction of exactly so many bytes, most of them in its witness.
fn tx_of(size: usize) -> Tx {
    let tx = |filler: usize| {
        let witness = Items::new(&[vec![0; filler / 2], vec![0; filler - filler / 2]]).unwrap();
        let input = Input { prevout: Outpoint::NULL, sequence: 0, witness };
        Tx { version: 0, inputs: vec![input], outputs: vec![], locktime: 0 }
    };
    let around = encode(&Packet::Tx(tx(1_000_000))).len() - 1_000_000;
    tx(size - around)
}
