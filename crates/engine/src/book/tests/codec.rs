//! The file: round trips, damage, other files, other shapes.

use super::*;
use crate::book::{BookError, MAX_ENCODED, checksum};

/// A book with entries of every kind.
fn lived_in(seed: u64) -> Book {
    let mut rng = rng(seed);
    let mut book = Book::new(small(), &mut rng);
    churn(&mut book, &mut rng, 400);
    assert!(book.used() > 0 && book.fresh() > 0);
    book
}

/// The bytes with their last eight made the right checksum: what a forger, or a fuzzer, would write.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.len() - 8;
    let sum = checksum(&bytes[..end]);
    bytes[end..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

#[test]
fn a_book_reads_back_as_it_was() {
    for seed in 0..20 {
        let book = lived_in(seed);
        let bytes = book.encode();
        let back = Book::decode(&bytes, small()).unwrap();
        back.audit().unwrap();
        assert_eq!(back.encode(), bytes);
        assert!(book.entries().eq(back.entries()));
        // And goes on as it would have.
        let (mut one, mut other) = (rng(seed), rng(seed));
        for _ in 0..50 {
            assert_eq!(
                book.pick(NOW, &mut one, &mut no_objection),
                back.pick(NOW, &mut other, &mut no_objection)
            );
        }
    }
    let empty = book(1);
    assert_eq!(Book::decode(&empty.encode(), config()).unwrap().encode(), empty.encode());
}

#[test]
fn every_truncation_and_every_flipped_bit_is_refused() {
    let bytes = lived_in(1).encode();
    for cut in 0..bytes.len() {
        assert!(Book::decode(&bytes[..cut], small()).is_err(), "cut at {cut}");
    }
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(Book::decode(&flipped, small()).is_err(), "bit {bit}");
    }
    let mut longer = bytes;
    longer.push(0);
    assert!(Book::decode(&longer, small()).is_err());
}

#[test]
fn no_bytes_under_a_right_checksum_panic_or_make_a_wrong_book() {
    let bytes = lived_in(2).encode();
    let check = |bytes: Vec<u8>| {
        let bytes = sealed(bytes);
        if let Ok(book) = Book::decode(&bytes, small()) {
            book.audit().unwrap();
            if bytes[14..20] == book.encode()[14..20] {
                assert_eq!(book.encode(), bytes, "bytes that decode encode to themselves");
            }
        }
    };
    for cut in 8..bytes.len() {
        check(bytes[..cut].to_vec());
    }
    let mut rng = rng(1);
    for at in 0..bytes.len() - 8 {
        for _ in 0..4 {
            let mut changed = bytes.clone();
            changed[at] = rng.random();
            check(changed);
        }
    }
}

#[test]
fn each_wrong_file_is_told_what_it_is() {
    let bytes = lived_in(3).encode();
    let decode = |bytes: &[u8]| Book::decode(bytes, small()).map(|_| ()).unwrap_err();
    let with = |at: usize, new: &[u8]| {
        let mut changed = bytes.clone();
        changed[at..at + new.len()].copy_from_slice(new);
        changed
    };
    assert_eq!(decode(&[]), BookError::Foreign);
    assert_eq!(decode(b"{\"version\": 4}"), BookError::Foreign);
    assert_eq!(decode(&with(8, &[2, 0])), BookError::Newer { found: 2, known: 1 });
    assert!(matches!(decode(&with(8, &[0, 0])), BookError::Corrupt(_)));
    let other = Book::decode(&bytes, BookConfig { network: 7, ..small() }).map(|_| ()).unwrap_err();
    assert_eq!(other, BookError::OtherNetwork { found: NETWORK, expected: 7 });
    assert!(matches!(decode(&with(60, &[bytes[60] ^ 1])), BookError::Checksum { .. }));
    assert!(matches!(decode(&vec![0; MAX_ENCODED + 1]), BookError::Oversize { .. }));
    // A count is believed only as far as the bytes reach.
    let many = sealed([&bytes[..52], &[0xfe, 0xff, 0x3f, 1, 0], &[0; 8]].concat());
    assert!(matches!(decode(&many), BookError::Corrupt(rookery_base::DecodeError::Short { .. })));
    let endless = sealed([&bytes[..52], &[0xff; 9], &[0; 8]].concat());
    assert!(matches!(decode(&endless), BookError::Corrupt(rookery_base::DecodeError::OverCap { .. })));
    // The first entry's port: behind the head, the count and the address.
    let no_port = sealed(with(53 + 16, &[0, 0]));
    assert!(matches!(
        decode(&no_port),
        BookError::Corrupt(rookery_base::DecodeError::Invalid { what: "port", at: 53 })
    ));
    let no_buckets = sealed(with(14, &[0, 0]));
    assert!(matches!(decode(&no_buckets), BookError::Corrupt(_)));
    for error in [
        decode(&[]),
        decode(&with(8, &[2, 0])),
        decode(&with(60, &[bytes[60] ^ 1])),
        decode(&no_buckets),
        other,
    ] {
        let text = error.to_string();
        assert!(text.contains("move") || text.contains("give each"), "what to do: {text}");
    }
}

#[test]
fn a_file_of_another_shape_is_placed_anew() {
    let book = lived_in(4);
    let wide = Book::decode(&book.encode(), config()).unwrap();
    wide.audit().unwrap();
    assert_eq!((wide.len(), wide.used()), (book.len(), book.used()), "larger tables hold all of it");
    assert_eq!(wide.placement.key(), book.placement.key());
    let (mut large, mut rng) = (self::book(1), rng(1));
    for n in 0..1000 {
        large.intake(&[record(in_group(n, 1))], source(n), NOW, &mut rng);
        large.succeeded(in_group(n, 1), 1, NOW);
    }
    let narrow = Book::decode(&large.encode(), small()).unwrap();
    narrow.audit().unwrap();
    assert_eq!(narrow.used(), 8, "smaller tables hold what fits");
    assert!(narrow.fresh() > 32);
}
