//! Handshake payloads: the first byte is the kind, the rest the payload.
//!
//! No bytes may panic the decoder, and what decodes must encode to bytes that decode to the same packet.

#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use rookery_handshake::wire::Packet;

fuzz_target!(|input: &[u8]| {
    let Some((&kind, payload)) = input.split_first() else { return };
    let Ok(packet) = Packet::decode(kind, &Bytes::copy_from_slice(payload)) else { return };
    assert_eq!(packet.kind(), kind);
    let mut encoded = BytesMut::new();
    packet.encode(&mut encoded);
    let encoded = encoded.freeze();
    assert!(encoded.len() <= payload.len(), "an encoding is never longer than what it was read from");
    assert_eq!(Packet::decode(kind, &encoded), Ok(packet));
});
