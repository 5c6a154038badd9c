//! Damaged files: an error or the truth, never a panic, never wrong headers, never a changed length behind our back.

use crate::chain::{Model, config};
use rookery_store::{Base, MemoryDisk, Store, StoreError};

fn filled() -> (Model, Vec<u8>, Vec<u8>) {
    let disk = MemoryDisk::new();
    let mut store = Store::in_memory(&disk, &config()).unwrap();
    let mut model = Model::new(Base::default());
    for count in [700, 20, 3] {
        store.commit(&model.replace(model.main.len(), count, 0)).unwrap();
    }
    let unclean = disk.image();
    drop(store);
    (model, disk.image(), unclean)
}

/// Opens a damaged image and uses all of it. Wrong contents panic; errors must be of damage.
fn probe(model: &Model, image: &[u8], context: &str) -> bool {
    let disk = MemoryDisk::from_image(image);
    let opened = Store::in_memory(&disk, &config());
    let mut store = match opened {
        Ok(store) => store,
        Err(error) => {
            assert!(is_damage(&error), "{context}: {error}");
            return true;
        }
    };
    let reader = store.reader();
    let mut found = false;
    let mut note = |error: StoreError| {
        assert!(is_damage(&error), "{context}: {error}");
        found = true;
    };
    // An image that was not closed may lose its last commit to the damage: any prefix is the truth.
    let len = store.state().len();
    assert!([0, 700, 720, 723].contains(&len), "{context}: {len} headers");
    match reader.hashes(0, usize::MAX) {
        Ok(hashes) => {
            assert!(hashes.iter().enumerate().all(|(at, hash)| *hash == crate::chain::header(at as u32, 0).1))
        }
        Err(error) => note(error),
    }
    match reader.headers(0, usize::MAX) {
        Ok(raw) => {
            let right = |(at, raw): (usize, &[u8])| raw == crate::chain::header(at as u32, 0).0;
            assert!(raw.chunks(crate::chain::RECORD).enumerate().all(right), "{context}: wrong headers");
        }
        Err(error) => note(error),
    }
    reader.verify().err().into_iter().for_each(&mut note);
    let mut model = model.clone();
    model.main.truncate(len);
    store.commit(&model.replace(len, 5, 1)).err().into_iter().for_each(&mut note);
    found
}

fn is_damage(error: &StoreError) -> bool {
    matches!(error, StoreError::Corrupt { .. } | StoreError::Foreign { .. })
}

/// The bits of a byte that are flipped, from the lowest: in the last byte of a page number the eighth is worth 4 GiB
/// of memory, see the crate's docs.
const LOW_BITS: usize = 7;

/// Positions to damage: the whole head, then everywhere with a stride that no structure shares.
fn places(len: usize) -> impl Iterator<Item = usize> {
    (0..320).chain((320..len).step_by(1_021))
}

#[test]
fn flipped_bits_are_errors_or_harmless() {
    let (model, clean, unclean) = filled();
    let mut found = 0;
    for (name, image) in [("clean", &clean), ("unclean", &unclean)] {
        for place in places(image.len()) {
            let mut bad = image.clone();
            bad[place] ^= 1 << (place % LOW_BITS);
            found += usize::from(probe(
                &model,
                &bad,
                &format!("{name}, bit {} of byte {place}", place % LOW_BITS),
            ));
        }
    }
    assert!(found > 200, "damage was found only {found} times");
}

#[test]
fn every_header_bit_that_flips_in_a_closed_file_is_found_when_it_is_read() {
    let (model, clean, _) = filled();
    let wanted = crate::chain::header(333, 0).0;
    let at = clean.windows(wanted.len()).position(|window| window == wanted).unwrap();
    for bit in (0..wanted.len() * 8).step_by(7) {
        let mut bad = clean.clone();
        bad[at + bit / 8] ^= 1 << (bit % 8);
        assert!(probe(&model, &bad, "a header"), "bit {bit}");
    }
}

#[test]
fn truncated_files_are_errors() {
    let (model, clean, unclean) = filled();
    for image in [&clean, &unclean] {
        for len in (1..image.len()).step_by(4_093).chain(1..10) {
            assert!(probe(&model, &image[..len], &format!("cut to {len} bytes")), "cut to {len} bytes");
        }
    }
}

#[test]
fn zeroed_pages_are_errors_or_harmless() {
    let (model, clean, unclean) = filled();
    for image in [&clean, &unclean] {
        for page in 0..image.len() / 4096 {
            let mut bad = image.clone();
            bad[page * 4096..][..4096].fill(0);
            probe(&model, &bad, &format!("page {page} zeroed"));
        }
    }
}

#[test]
fn flipped_bits_in_the_heads_of_tree_pages_are_errors_or_harmless() {
    let (model, clean, unclean) = filled();
    let mut found = 0;
    for image in [&clean, &unclean] {
        // The database's pages begin with 1 (leaf) or 2 (inner page), then hold counts, page numbers, offsets, keys.
        let is_tree = |page: &usize| [1, 2].contains(&image[page * 4096]);
        for page in (0..image.len() / 4096).filter(is_tree) {
            for place in (page * 4096..page * 4096 + 400).step_by(7) {
                let bit = place / 7 % LOW_BITS;
                let mut bad = image.clone();
                bad[place] ^= 1 << bit;
                found += usize::from(probe(&model, &bad, &format!("bit {bit} of byte {place}")));
            }
        }
    }
    assert!(found > 200, "damage was found only {found} times");
}
