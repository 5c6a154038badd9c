//! An address book file without its checksum, which is put right here: a fuzzer would not find it by chance.
//!
//! No bytes may panic the decoder; a book that decodes is whole, and decodes again from its own encoding. Bytes of the
//! shape that the decoder expects encode to themselves.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rookery_engine::book::{Book, BookConfig, checksum};

/// Handshake's main network.
const NETWORK: u32 = 0x5b6e_f2d3;
/// Where the tables' dimensions are in the file.
const SHAPE: std::ops::Range<usize> = 14..20;

fuzz_target!(|input: &[u8]| {
    let config = BookConfig::new(NETWORK, 12038, 1);
    let _ = Book::decode(input, config);
    let mut file = input.to_vec();
    file.extend_from_slice(&checksum(input).to_le_bytes());
    let Ok(book) = Book::decode(&file, config) else { return };
    book.audit().expect("what decodes is whole");
    let encoded = book.encode();
    if encoded[SHAPE] == file[SHAPE] {
        assert_eq!(encoded, file);
    }
    let again = Book::decode(&encoded, config).expect("what is encoded decodes");
    assert_eq!(again.encode(), encoded);
});
