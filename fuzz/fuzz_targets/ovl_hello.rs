//! An overlay hello, head and fields, as a stranger sends it.
//!
//! No bytes may panic the decoder; a head never announces more than a hello may have; what decodes encodes to bytes that
//! begin the input, since only what follows the last field may be skipped, and agreeing about it has one of three ends.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use rookery_overlay::wire::hello::{HEAD_LEN, Hello, MAX_FIELDS, fields_len, network_id};

fuzz_target!(|input: &[u8]| {
    let Some((head, fields)) = input.split_first_chunk::<HEAD_LEN>() else { return };
    let Ok(len) = fields_len(head) else { return };
    assert!(len <= MAX_FIELDS);
    let Some(fields) = fields.get(..len) else { return };
    let Ok(hello) = Hello::decode(&Bytes::copy_from_slice(fields)) else { return };
    let encoded = hello.encode();
    assert_eq!(&encoded[HEAD_LEN..], &fields[..encoded.len() - HEAD_LEN], "one encoding of each value");
    let again = Hello::decode(&encoded.slice(HEAD_LEN..)).expect("what is encoded decodes");
    assert_eq!(again, hello);
    if let Ok(version) = hello.agree(&network_id("fuzz")) {
        assert!((hello.min_version..=hello.version).contains(&version), "a version that both speak");
    }
});
