//! A signed record of the overlay.
//!
//! No bytes may panic the decoder or the verification; what decodes is held as it came, and nothing but the seeds, which
//! one identity has signed, verifies as that identity's.

#![no_main]

use std::sync::LazyLock;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use rookery_base::Hash32;
use rookery_fuzz::{NETWORK, records};
use rookery_overlay::wire::SignedRecord;
use rookery_overlay::wire::record::{MAX_RECORD, MIN_RECORD};

/// What has been signed. A finding beside it is a forgery.
static SIGNED: LazyLock<Vec<Bytes>> = LazyLock::new(records);

fuzz_target!(|input: &[u8]| {
    let raw = Bytes::copy_from_slice(input);
    let Ok(record) = SignedRecord::decode(&raw) else { return };
    assert_eq!(record.raw(), &raw);
    assert_eq!(record.clone().detached().raw(), &raw);
    assert!(input.len() <= MAX_RECORD, "{} bytes", input.len());
    if record.verify(&Hash32(NETWORK)) {
        assert!(input.len() >= MIN_RECORD, "{} bytes", input.len());
        assert!(SIGNED.contains(&raw), "a record of {} that it has not signed", record.id());
    }
});
