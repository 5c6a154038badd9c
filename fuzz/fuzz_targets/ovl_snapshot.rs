//! The file of known peers without its code, which is put right here: a fuzzer would not find it by chance.
//!
//! No bytes may panic the decoder; without the code nothing is read; what decodes encodes to the same file.

#![no_main]

use aws_lc_rs::hmac;
use libfuzzer_sys::fuzz_target;
use rookery_fuzz::{SECRET, owner};
use rookery_overlay::wire::snapshot::{MAX_CANDIDATES, MAX_FILE, Snapshot};

fuzz_target!(|input: &[u8]| {
    assert!(Snapshot::decode(input, &owner()).is_err(), "the owner has not written it");
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &SECRET), input);
    let file = [input, tag.as_ref()].concat();
    let Ok(snapshot) = Snapshot::decode(&file, &owner()) else { return };
    assert!(file.len() <= MAX_FILE && snapshot.candidates.len() <= MAX_CANDIDATES);
    assert_eq!(snapshot.encode(&owner()), file);
});
