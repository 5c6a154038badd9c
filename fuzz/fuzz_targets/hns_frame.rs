//! A Handshake stream: heads, and the payloads they announce, one after the other until the bytes run out.
//!
//! A head is its nine bytes and nothing else: it encodes to what it was read from, whatever it announces.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use rookery_handshake::wire::{HEAD_LEN, Head, Packet, encode_frame, kind_info};

fuzz_target!(|input: &[u8]| {
    let mut stream = Bytes::copy_from_slice(input);
    while let Some(head) = Head::parse(&stream) {
        assert_eq!(head.encode()[..], stream[..HEAD_LEN]);
        let rest = stream.slice(HEAD_LEN..);
        let length = head.length as usize;
        if kind_info(head.kind).is_some_and(|info| length > info.max_payload()) || length > rest.len() {
            return;
        }
        if let Ok(packet) = Packet::decode(head.kind, &rest.slice(..length)) {
            let frame = encode_frame(head.magic, &packet);
            let again = Head::parse(&frame).expect("a frame has a head");
            assert_eq!((again.magic, again.kind), (head.magic, head.kind));
            assert_eq!(again.length as usize, frame.len() - HEAD_LEN);
        }
        stream = rest.slice(length..);
    }
    assert!(stream.len() < HEAD_LEN);
});
