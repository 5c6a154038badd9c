//! Random packets of every kind.

use crate::sized::smallest;
use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use rookery_base::Hash32;
use rookery_handshake::wire::block::{Block, MerkleBlock};
use rookery_handshake::wire::body::MAX_INTEGER;
use rookery_handshake::wire::compact::{BlockTxn, CompactBlock, GetBlockTxn, Prefilled, SendCmpct, ShortId};
use rookery_handshake::wire::filter::{FeeFilter, FilterAdd, FilterLoad, FilterUpdate};
use rookery_handshake::wire::proof::{Airdrop, Claim, GetProof, MIN_TREE_PROOF, Proof};
use rookery_handshake::wire::reject::{Reject, RejectCode};
use rookery_handshake::wire::tx::{Address, Covenant, CovenantKind, Input, Items, Outpoint, Output, Tx};
use rookery_handshake::wire::{
    HEADER_LEN, Headers, Inv, InvKind, Locator, NetAddress, Packet, RawHeader, Services, Text, Version, kind,
};

fn hash() -> impl Strategy<Value = Hash32> {
    any::<[u8; 32]>().prop_map(Hash32)
}

fn raw(range: std::ops::Range<usize>) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), range).prop_map(Bytes::from)
}

fn text() -> impl Strategy<Value = Text> {
    vec(any::<u8>(), 0..=Text::MAX).prop_map(|bytes| Text::new(bytes).unwrap())
}

fn header() -> impl Strategy<Value = RawHeader> {
    vec(any::<u8>(), HEADER_LEN).prop_map(|bytes| bytes.try_into().unwrap())
}

fn address() -> impl Strategy<Value = NetAddress> {
    (0..=MAX_INTEGER, any::<u32>(), any::<u128>(), any::<u16>(), any::<Option<[u8; 32]>>()).prop_map(
        |(time, services, ip, port, key)| {
            let key = key.map(|x| {
                let mut key = [2; 33];
                key[1..].copy_from_slice(&x);
                key
            });
            NetAddress { time, services: Services(services), ip: ip.into(), port, key }
        },
    )
}

fn version() -> impl Strategy<Value = Version> {
    (any::<(u32, u32, [u8; 8], u32, bool)>(), 0..=MAX_INTEGER, address(), text()).prop_map(
        |((version, services, nonce, height, no_relay), time, remote, agent)| Version {
            version,
            services: Services(services),
            time,
            remote,
            nonce,
            agent,
            height,
            no_relay,
        },
    )
}

fn inventory() -> impl Strategy<Value = Vec<Inv>> {
    let item = (any::<u32>(), hash()).prop_map(|(kind, hash)| Inv { kind: InvKind(kind), hash });
    vec(item, 0..300)
}

fn locator() -> impl Strategy<Value = Locator> {
    (vec(hash(), 0..40), hash()).prop_map(|(hashes, stop)| Locator { hashes, stop })
}

fn items() -> impl Strategy<Value = Items> {
    let item = prop_oneof![9 => vec(any::<u8>(), 0..40), 1 => vec(any::<u8>(), 250..300)];
    vec(item, 0..5).prop_map(|parts| Items::new(&parts).unwrap())
}

fn program() -> impl Strategy<Value = Address> {
    prop_oneof![
        vec(any::<u8>(), 20).prop_map(|hash| Address::new(0, &hash).unwrap()),
        vec(any::<u8>(), 32).prop_map(|hash| Address::new(0, &hash).unwrap()),
        (1..=31u8, vec(any::<u8>(), 2..=40))
            .prop_map(|(version, hash)| Address::new(version, &hash).unwrap()),
    ]
}

fn tx() -> impl Strategy<Value = Tx> {
    let input = (hash(), any::<u32>(), any::<u32>(), items()).prop_map(|(hash, index, sequence, witness)| {
        Input { prevout: Outpoint { hash, index }, sequence, witness }
    });
    let output =
        (0..=MAX_INTEGER, program(), any::<u8>(), items()).prop_map(|(value, address, kind, items)| Output {
            value,
            address,
            covenant: Covenant { kind: CovenantKind(kind), items },
        });
    (any::<(u32, u32)>(), vec(input, 0..4), vec(output, 0..4))
        .prop_map(|((version, locktime), inputs, outputs)| Tx { version, inputs, outputs, locktime })
}

fn reject() -> impl Strategy<Value = Reject> {
    (0..32u8, any::<u8>(), text(), hash()).prop_map(|(message, code, reason, hash)| Reject {
        message,
        code: RejectCode(code),
        reason,
        hash: Reject::names_item(message).then_some(hash),
    })
}

fn filter() -> impl Strategy<Value = FilterLoad> {
    let update =
        prop_oneof![Just(FilterUpdate::None), Just(FilterUpdate::All), Just(FilterUpdate::PubkeyOnly)];
    (raw(0..400), 0..=50u32, any::<u32>(), update).prop_map(|(bits, hashes, tweak, update)| FilterLoad {
        bits,
        hashes,
        tweak,
        update,
    })
}

fn compact() -> impl Strategy<Value = CompactBlock> {
    (header(), any::<[u8; 8]>(), vec(any::<[u8; 6]>(), 0..300), vec(tx(), 0..3), any::<u16>()).prop_map(
        |(header, nonce, ids, txs, index)| {
            let total = ids.len() + txs.len();
            let prefilled =
                txs.into_iter().map(|tx| Prefilled { index: (usize::from(index) % total) as u16, tx });
            let prefilled = prefilled.collect();
            CompactBlock { header, nonce, ids: ids.into_iter().map(ShortId).collect(), prefilled }
        },
    )
}

fn airdrop() -> impl Strategy<Value = Airdrop> {
    let paths = (vec(hash(), 0..=18), vec(hash(), 0..=3));
    let blobs = (raw(1..600), raw(2..41), raw(0..600));
    (0..216_199u32, 0..8u8, 0..32u8, 0..=MAX_INTEGER, paths, blobs).prop_map(
        |(index, subindex, version, fee, (proof, subproof), (key, address, signature))| Airdrop {
            index,
            proof,
            subindex,
            subproof,
            key,
            version,
            address,
            fee,
            signature,
        },
    )
}

fn get_proof() -> impl Strategy<Value = GetProof> {
    (hash(), hash()).prop_map(|(root, key)| GetProof { root, key })
}

/// Any packet of any kind, unknown ones too.
pub fn packet() -> impl Strategy<Value = Packet> {
    (0..40u8).prop_flat_map(packet_of)
}

/// Any packet of one kind.
pub fn packet_of(number: u8) -> BoxedStrategy<Packet> {
    match number {
        kind::VERSION => version().prop_map(|v| Packet::Version(v.into())).boxed(),
        kind::PING => any::<[u8; 8]>().prop_map(Packet::Ping).boxed(),
        kind::PONG => any::<[u8; 8]>().prop_map(Packet::Pong).boxed(),
        kind::ADDR => vec(address(), 0..40).prop_map(Packet::Addr).boxed(),
        kind::INV => inventory().prop_map(Packet::Inv).boxed(),
        kind::GETDATA => inventory().prop_map(Packet::GetData).boxed(),
        kind::NOTFOUND => inventory().prop_map(Packet::NotFound).boxed(),
        kind::GETBLOCKS => locator().prop_map(Packet::GetBlocks).boxed(),
        kind::GETHEADERS => locator().prop_map(Packet::GetHeaders).boxed(),
        kind::HEADERS => vec(header(), 0..20)
            .prop_map(|all| {
                let raw: Vec<u8> = all.iter().flat_map(|header| *header).collect();
                Packet::Headers(Headers::from_raw(raw.into()).unwrap())
            })
            .boxed(),
        kind::BLOCK => (header(), vec(tx(), 0..4))
            .prop_map(|(header, txs)| Packet::Block(Block { header, txs }.into()))
            .boxed(),
        kind::TX => tx().prop_map(Packet::Tx).boxed(),
        kind::REJECT => reject().prop_map(Packet::Reject).boxed(),
        kind::FILTERLOAD => filter().prop_map(Packet::FilterLoad).boxed(),
        kind::FILTERADD => raw(0..521).prop_map(|item| Packet::FilterAdd(FilterAdd(item))).boxed(),
        kind::MERKLEBLOCK => (header(), any::<u32>(), vec(hash(), 0..300), raw(0..300))
            .prop_map(|(header, total, hashes, flags)| {
                Packet::MerkleBlock(MerkleBlock { header, total, hashes, flags }.into())
            })
            .boxed(),
        kind::FEEFILTER => {
            (0..=2_040_000_000_000_000u64).prop_map(|r| Packet::FeeFilter(FeeFilter(r))).boxed()
        }
        kind::SENDCMPCT => (any::<u8>(), 0..=MAX_INTEGER)
            .prop_map(|(mode, version)| Packet::SendCmpct(SendCmpct { mode, version }))
            .boxed(),
        kind::CMPCTBLOCK => compact().prop_map(|block| Packet::CmpctBlock(block.into())).boxed(),
        kind::GETBLOCKTXN => (hash(), proptest::collection::btree_set(any::<u16>(), 0..100))
            .prop_map(|(hash, set)| {
                Packet::GetBlockTxn(GetBlockTxn::new(hash, set.into_iter().collect()).unwrap())
            })
            .boxed(),
        kind::BLOCKTXN => {
            (hash(), vec(tx(), 0..4)).prop_map(|(hash, txs)| Packet::BlockTxn(BlockTxn { hash, txs })).boxed()
        }
        kind::GETPROOF => get_proof().prop_map(Packet::GetProof).boxed(),
        kind::PROOF => (get_proof(), raw(MIN_TREE_PROOF..2000))
            .prop_map(|(of, raw)| Packet::Proof(Proof { of, raw }))
            .boxed(),
        kind::CLAIM => raw(0..3000).prop_map(|blob| Packet::Claim(Claim(blob))).boxed(),
        kind::AIRDROP => airdrop().prop_map(|proof| Packet::Airdrop(proof.into())).boxed(),
        30.. => raw(0..200).prop_map(move |body| Packet::Unknown { kind: number, body }).boxed(),
        _ => Just(smallest(number)).boxed(),
    }
}
