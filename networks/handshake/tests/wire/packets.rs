//! The codec over packets of every kind.

use crate::fixtures::{Fixture, encode, fixtures, vectors};
use crate::random::packet;
use crate::sized::{largest, smallest};
use bytes::Bytes;
use proptest::prelude::*;
use rookery_base::DecodeError;
use rookery_handshake::wire::kind::MAX_TRAILING;
use rookery_handshake::wire::{
    HEADER_LEN, Head, KINDS, NetAddress, Packet, Services, Trailing, encode_frame, kind,
};

proptest! {
    // A failing packet is printed whole, and becomes a test of its own.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_packet_decodes_to_itself(packet in packet()) {
        let body = encode(&packet);
        prop_assert_eq!(Packet::decode(packet.kind(), &body), Ok(packet));
    }

    #[test]
    fn every_encoding_is_within_its_declared_bounds(packet in packet()) {
        if let Some(info) = KINDS.get(usize::from(packet.kind())) {
            prop_assert!((info.min..=info.max).contains(&encode(&packet).len()));
        }
    }

    #[test]
    fn a_frame_carries_its_packet(packet in packet(), magic: u32) {
        let frame = encode_frame(magic, &packet);
        let body = frame.slice(9..);
        let head = Head { magic, kind: packet.kind(), length: body.len() as u32 };
        prop_assert_eq!(Head::parse(&frame), Some(head));
        prop_assert_eq!(Packet::decode(packet.kind(), &body), Ok(packet));
    }

    /// What decodes from arbitrary bytes has an encoding that decodes to the same.
    #[test]
    fn arbitrary_bytes_never_panic(kind in 0..40u8, bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let body = Bytes::from(bytes);
        if let Ok(packet) = Packet::decode(kind, &body) {
            prop_assert_eq!(Packet::decode(kind, &encode(&packet)), Ok(packet));
        }
    }

    /// Like the one above, but near enough to real packets to get past their first fields.
    #[test]
    fn damaged_packets_never_panic(
        packet in packet(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = encode(&packet).to_vec();
        for (at, byte) in damage {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        if let Ok(damaged) = Packet::decode(packet.kind(), &bytes.into()) {
            prop_assert_eq!(Packet::decode(packet.kind(), &encode(&damaged)), Ok(damaged));
        }
    }
}

#[test]
fn the_table_is_in_the_order_of_the_numbers() {
    for (number, info) in KINDS.iter().enumerate() {
        assert_eq!(usize::from(info.kind), number);
        assert_eq!(smallest(info.kind).kind(), info.kind);
        assert_eq!(smallest(info.kind).name(), info.name);
    }
    assert_eq!(rookery_handshake::wire::kind_info(30), None);
}

#[test]
fn declared_bounds_are_the_smallest_and_largest_encodings() {
    for info in &KINDS {
        for (packet, length) in [(smallest(info.kind), info.min), (largest(info.kind), info.max)] {
            let body = encode(&packet);
            assert_eq!(body.len(), length, "{}", info.name);
            assert_eq!(Packet::decode(info.kind, &body), Ok(packet), "{}", info.name);
        }
    }
}

#[test]
fn payloads_out_of_bounds_are_refused_by_their_length() {
    for info in &KINDS {
        let over = Bytes::from(vec![0; info.max_payload() + 1]);
        let refused = Packet::decode(info.kind, &over);
        assert!(matches!(refused, Err(DecodeError::OverCap { at: 0, .. })), "{}: {refused:?}", info.name);
        if info.min > 0 {
            let refused = Packet::decode(info.kind, &over.slice(..info.min - 1));
            assert!(matches!(refused, Err(DecodeError::Short { at: 0, .. })), "{}: {refused:?}", info.name);
        }
    }
}

/// Every cut of payloads up to this size is tried. Of a larger one, whose every cut would take minutes: every cut near
/// each end, and some between.
const EVERY_CUT: usize = 12_000;
const NEAR: usize = 500;

#[test]
fn every_truncation_of_every_fixture_errs() {
    for Fixture { name, kind, body } in fixtures() {
        // The rest of a proof is the proof, down to its smallest: the codec cannot see that it was cut.
        let whole = if kind == kind::PROOF { KINDS[usize::from(kind)].min } else { body.len() };
        let tried =
            |cut: &usize| whole < EVERY_CUT || *cut < NEAR || whole - cut <= NEAR || cut.is_multiple_of(1997);
        for cut in (0..whole).filter(tried) {
            assert!(Packet::decode(kind, &body.slice(..cut)).is_err(), "{name} cut at {cut}");
        }
    }
}

#[test]
fn trailing_bytes_are_dropped_or_refused_as_declared() {
    for Fixture { name, kind, body } in fixtures().into_iter().filter(|fixture| fixture.kind != kind::PROOF) {
        let whole = Packet::decode(kind, &body).unwrap();
        for extra in [1, MAX_TRAILING] {
            let longer = Bytes::from([&body[..], &vec![0xff; extra]].concat());
            let decoded = Packet::decode(kind, &longer);
            match KINDS[usize::from(kind)].trailing {
                Trailing::Ignored => assert_eq!(decoded.as_ref(), Ok(&whole), "{name}"),
                Trailing::Refused => assert!(decoded.is_err(), "{name}"),
            }
        }
    }
}

#[test]
fn real_payloads_encode_to_the_same_bytes() {
    for Fixture { name, kind, body } in vectors() {
        let packet = Packet::decode(kind, &body).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(encode(&packet) == body, "{name} does not encode to itself");
    }
}

#[test]
fn unknown_kinds_are_kept_unread() {
    for kind in [30, 31, 200, 255] {
        let body = Bytes::from_static(b"anything");
        assert_eq!(Packet::decode(kind, &body), Ok(Packet::Unknown { kind, body }));
    }
}

/// A payload that differs from a valid one of this kind in some bytes.
fn patched(kind: u8, at: usize, bytes: &[u8]) -> Result<Packet, DecodeError> {
    let mut body = encode(&smallest(kind)).to_vec();
    body[at..at + bytes.len()].copy_from_slice(bytes);
    Packet::decode(kind, &body.into())
}

#[test]
fn a_version_is_read_as_hsd_reads_it() {
    let end = KINDS[usize::from(kind::VERSION)].min - 1;
    for (byte, no_relay) in [(0, false), (1, true), (2, false), (0xff, false)] {
        let Ok(Packet::Version(version)) = patched(kind::VERSION, end, &[byte]) else {
            panic!("not a version")
        };
        assert_eq!(version.no_relay, no_relay);
    }
    let services = 0xffff_ffff_0000_0003u64.to_le_bytes();
    let Ok(Packet::Version(version)) = patched(kind::VERSION, 4, &services) else { panic!("not a version") };
    assert_eq!(version.services, Services::NETWORK.with(Services::BLOOM));
}

#[test]
fn numbers_above_those_of_hsd_are_refused() {
    let (fits, over) = ((1u64 << 53) - 1, 1u64 << 53);
    for (kind, at) in [(kind::VERSION, 12), (kind::VERSION, 20), (kind::SENDCMPCT, 1)] {
        assert!(patched(kind, at, &fits.to_le_bytes()).is_ok());
        assert_eq!(
            patched(kind, at, &over.to_le_bytes())
                .map_err(|error| error.to_string().contains("invalid value")),
            Err(true)
        );
    }
}

#[test]
fn a_fee_filter_is_between_nothing_and_all_money() {
    for (rate, fits) in
        [(0, true), (2_040_000_000_000_000, true), (2_040_000_000_000_001, false), (-1, false)]
    {
        assert_eq!(patched(kind::FEEFILTER, 0, &i64::to_le_bytes(rate)).is_ok(), fits, "{rate}");
    }
}

#[test]
fn a_filter_has_known_flags_and_few_hashes() {
    for (at, byte, fits) in [(9, 2, true), (9, 3, false), (1, 50, true), (1, 51, false)] {
        assert_eq!(patched(kind::FILTERLOAD, at, &[byte]).is_ok(), fits, "{byte} at {at}");
    }
}

#[test]
fn an_airdrop_names_places_that_exist() {
    let leaf = |index: u32| patched(kind::AIRDROP, 0, &index.to_le_bytes()).is_ok();
    assert!(leaf(216_198) && !leaf(216_199));
    // Depth, subindex, subdepth, key length, address version and length.
    for (at, byte) in [(4, 19), (5, 8), (6, 4), (7, 0), (9, 32), (10, 1), (10, 41)] {
        assert!(patched(kind::AIRDROP, at, &[byte]).is_err(), "{byte} at {at}");
    }
}

#[test]
fn an_output_pays_a_witness_program() {
    let tx = |version: u8, length: u8| {
        let mut body = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, version, length];
        body.extend(vec![7; usize::from(length)]);
        body.extend([0, 0, 0, 0, 0, 0]);
        Packet::decode(kind::TX, &body.into())
    };
    for (version, length) in [(0, 20), (0, 32), (1, 2), (31, 40)] {
        assert!(tx(version, length).is_ok(), "version {version}, {length} bytes");
    }
    for (version, length) in [(0, 2), (0, 21), (0, 40), (1, 1), (1, 41), (1, 255), (32, 20), (255, 20)] {
        assert!(
            matches!(tx(version, length), Err(DecodeError::Invalid { at: 14, .. })),
            "version {version}, {length} bytes"
        );
    }
}

#[test]
fn witnesses_and_covenants_have_at_most_a_thousand_items() {
    // One input with empty items, or one output with them.
    let body = |witness: bool, count: &[u8], present: usize| {
        let mut body = vec![0; 4];
        body.push(u8::from(witness));
        body.extend(vec![0; if witness { 40 } else { 0 }]);
        body.push(u8::from(!witness));
        if !witness {
            body.extend([0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 9, 9, 2]);
            body.extend(count);
            body.extend(vec![0; present]);
        }
        body.extend([0; 4]);
        if witness {
            body.extend(count);
            body.extend(vec![0; present]);
        }
        Packet::decode(kind::TX, &body.into())
    };
    for witness in [true, false] {
        assert!(body(witness, &[0xfd, 0xe8, 3], 1000).is_ok());
        let over = body(witness, &[0xfd, 0xe9, 3], 1001);
        assert!(matches!(over, Err(DecodeError::OverCap { value: 1001, cap: 1000, .. })), "{over:?}");
        assert!(matches!(body(witness, &[0xfd, 2, 0], 2), Err(DecodeError::NonCanonical { .. })));
    }
}

#[test]
fn lists_over_their_limits_are_refused() {
    let limits = [
        (kind::ADDR, 1000, 88),
        (kind::INV, 50_000, 36),
        (kind::GETDATA, 50_000, 36),
        (kind::NOTFOUND, 50_000, 36),
        (kind::GETBLOCKS, 50_000, 32),
        (kind::GETHEADERS, 50_000, 32),
        (kind::HEADERS, 2000, 236),
    ];
    for (kind, cap, item) in limits {
        let over = (cap + 1) as u16;
        let mut body = vec![0xfd];
        body.extend(over.to_le_bytes());
        // Whole items where the tolerance for trailing bytes lets so many pass the length check.
        body.resize((3 + usize::from(over) * item + 32).min(KINDS[usize::from(kind)].max_payload()), 0);
        let refused = Packet::decode(kind, &body.into());
        assert!(
            matches!(refused, Err(DecodeError::OverCap { at: 0, value, .. }) if value == u64::from(over)),
            "{}: {refused:?}",
            KINDS[usize::from(kind)].name
        );
    }
}

#[test]
fn headers_match_their_count_exactly() {
    let two = [&[2u8][..], &[7; 2 * HEADER_LEN]].concat();
    let Ok(Packet::Headers(headers)) = Packet::decode(kind::HEADERS, &two.clone().into()) else {
        panic!("not headers")
    };
    assert_eq!((headers.len(), headers.iter().len()), (2, 2));
    assert_eq!(headers.raw().len(), 2 * HEADER_LEN);
    for count in [0, 1, 3] {
        let mut wrong = two.clone();
        wrong[0] = count;
        assert!(Packet::decode(kind::HEADERS, &wrong.into()).is_err(), "{count} announced, 2 present");
    }
}

#[test]
fn headers_stay_in_their_payload() {
    let body = Bytes::from([&[3u8][..], &[7; 3 * HEADER_LEN]].concat());
    let Ok(Packet::Headers(headers)) = Packet::decode(kind::HEADERS, &body) else { panic!("not headers") };
    assert_eq!(headers.raw().as_ptr(), body[1..].as_ptr());
}

#[test]
fn compact_blocks_name_places_inside_the_block() {
    let block = |index: &[u8]| {
        let mut body = vec![0; HEADER_LEN + 8];
        body.push(1);
        body.extend([1, 2, 3, 4, 5, 6]);
        body.push(1);
        body.extend(index);
        body.extend([0; 10]);
        Packet::decode(kind::CMPCTBLOCK, &body.into())
    };
    assert!(block(&[0]).is_ok() && block(&[1]).is_ok());
    assert!(block(&[2]).is_err());
    assert!(block(&[0xfe, 0, 0, 1, 0]).is_err());
}

#[test]
fn places_asked_for_are_gaps_and_end_at_the_last() {
    let request = |gaps: &[u8]| {
        let body = [&[0; 32][..], gaps].concat();
        Packet::decode(kind::GETBLOCKTXN, &body.into())
    };
    let Ok(Packet::GetBlockTxn(rising)) = request(&[3, 0, 0, 5]) else { panic!("not a request") };
    assert_eq!(rising.indexes(), [0, 1, 7]);
    assert!(request(&[1, 0xfd, 0xff, 0xff]).is_ok());
    assert!(request(&[2, 0xfd, 0xff, 0xff, 0]).is_err());
    assert!(request(&[1, 0xfe, 0, 0, 1, 0]).is_err());
}

#[test]
fn a_port_is_little_endian() {
    let addr: std::net::SocketAddr = "1.2.3.4:12038".parse().unwrap();
    let body = encode(&Packet::Addr(vec![NetAddress::new(addr)]));
    assert_eq!(body[1 + 17..1 + 33], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 1, 2, 3, 4]);
    assert_eq!(body[1 + 53..1 + 55], [0x06, 0x2f]);
    let Ok(Packet::Addr(read)) = Packet::decode(kind::ADDR, &body) else { panic!("not addresses") };
    assert_eq!(read[0].socket_addr(), Some(addr));
}

#[test]
fn addresses_of_other_types_are_null_and_reserved_bytes_are_dropped() {
    let addr: std::net::SocketAddr = "[2001:db8::1]:9".parse().unwrap();
    let mut body = encode(&Packet::Addr(vec![NetAddress::new(addr)])).to_vec();
    body[1 + 33..1 + 53].fill(0xee);
    let Ok(Packet::Addr(read)) = Packet::decode(kind::ADDR, &body.clone().into()) else {
        panic!("not addresses")
    };
    assert_eq!(read[0].socket_addr(), Some(addr));
    body[1 + 16] = 1;
    let Ok(Packet::Addr(read)) = Packet::decode(kind::ADDR, &body.into()) else { panic!("not addresses") };
    assert_eq!((read[0].ip.is_unspecified(), read[0].port), (true, 9));
    assert_eq!(read[0].socket_addr(), None);
}

#[test]
fn a_key_of_zeros_is_no_key() {
    let keyed = NetAddress { key: Some([3; 33]), ..NetAddress::NULL };
    let body = encode(&Packet::Addr(vec![keyed, NetAddress::NULL]));
    let Ok(Packet::Addr(read)) = Packet::decode(kind::ADDR, &body) else { panic!("not addresses") };
    assert_eq!((read[0].key, read[1].key), (Some([3; 33]), None));
}
