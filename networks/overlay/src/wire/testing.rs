//! What the codecs' tests share.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use proptest::prelude::*;

use super::topic::{MAX_TOPIC, Topic};

/// No prefix decodes, and no byte more; a changed byte is refused or means another value with exactly those bytes.
/// `reencode` gives the encoding of what it decoded.
pub fn check_canonical(bytes: &[u8], reencode: impl Fn(&[u8]) -> Option<Vec<u8>>) {
    assert_eq!(reencode(bytes).as_deref(), Some(bytes), "the whole");
    for cut in 0..bytes.len() {
        assert_eq!(reencode(&bytes[..cut]), None, "cut at {cut} of {}", bytes.len());
    }
    assert_eq!(reencode(&[bytes, &[0]].concat()), None, "a byte more");
    check_flips(bytes, reencode);
}

/// A changed byte is refused, or means another value with exactly those bytes.
pub fn check_flips(bytes: &[u8], reencode: impl Fn(&[u8]) -> Option<Vec<u8>>) {
    for at in 0..bytes.len() {
        for bit in [0x01, 0x80, 0xff] {
            let mut flipped = bytes.to_vec();
            flipped[at] ^= bit;
            if let Some(again) = reencode(&flipped) {
                assert_eq!(again, flipped, "byte {at} changed");
            }
        }
    }
}

pub fn arb_topic() -> impl Strategy<Value = Topic> {
    proptest::collection::vec(0x20_u8..0x7f, 1..=MAX_TOPIC).prop_map(|bytes| {
        Topic::new(std::str::from_utf8(&bytes).expect("printable ASCII")).expect("within the bounds")
    })
}

pub fn arb_addr() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![
        (any::<[u8; 4]>(), 1_u16..).prop_map(|(ip, port)| SocketAddr::from((Ipv4Addr::from(ip), port))),
        (any::<[u8; 16]>(), 1_u16..).prop_map(|(ip, port)| rookery_base::id::canonical_addr(
            SocketAddr::from((Ipv6Addr::from(ip), port))
        )),
    ]
}
