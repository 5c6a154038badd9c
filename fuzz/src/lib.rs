//! What targets and their seeds share.

use bytes::Bytes;
use rookery_base::{Hash32, PeerId};
use rookery_overlay::wire::SignedRecord;
use rookery_overlay::wire::snapshot::Owner;
use rookery_transport::tls::{Identity, Keys};

/// The overlay network of records and snapshots.
pub const NETWORK: [u8; 32] = [7; 32];
/// The secret of the snapshots' owner.
pub const SECRET: [u8; 32] = [9; 32];

/// Who has written the snapshots.
pub fn owner() -> Owner {
    let peer = PeerId::from_bytes(&[5; 32]).expect("32 bytes are an identity");
    Owner { network: Hash32(NETWORK), peer, secret: SECRET }
}

/// Records that are signed, the same in each process: Ed25519 is deterministic.
pub fn records() -> Vec<Bytes> {
    let key = Identity::from_seed(&[3; 32], Keys::Classic).expect("a seed makes a key");
    let addrs = ["203.0.113.5:4000".parse().expect("an address"), "[2001:db8::1]:4000".parse().expect("one")];
    (0..=addrs.len())
        .map(|count| {
            let record = SignedRecord::sign(&Hash32(NETWORK), &key, 1, 1 << 40, &addrs[..count]);
            record.expect("the library signs").raw().clone()
        })
        .collect()
}
