//! The 236-byte header: where its fields are. Nothing is copied; a field is read when it is asked for.
//!
//! ```text
//! nonce u32 @0 | time u64 @4 | prevBlock 32 @12 | treeRoot 32 @44 | extraNonce 24 @76 | reservedRoot 32 @100
//! witnessRoot 32 @132 | merkleRoot 32 @164 | version u32 @196 | bits u32 @200 | mask 32 @204
//! ```
//!
//! Integers are little-endian, hashes are in their natural order.

use rookery_base::Hash32;

/// Bytes of every header.
pub const HEADER_LEN: usize = 236;

/// A raw header.
pub type RawHeader = [u8; HEADER_LEN];

/// The largest time a header may carry. The reference node reads integers as 53-bit ones and takes no larger
/// value off the wire, so a larger one can be in no chain.
pub const MAX_TIME: u64 = (1 << 53) - 1;

/// Where each field starts.
pub(crate) mod at {
    pub const NONCE: usize = 0;
    pub const TIME: usize = 4;
    pub const PREV: usize = 12;
    pub const TREE_ROOT: usize = 44;
    pub const EXTRA_NONCE: usize = 76;
    pub const RESERVED_ROOT: usize = 100;
    pub const WITNESS_ROOT: usize = 132;
    pub const MERKLE_ROOT: usize = 164;
    pub const VERSION: usize = 196;
    pub const BITS: usize = 200;
    pub const MASK: usize = 204;
}

/// `N` bytes of the header from `start`, which is one of the offsets above.
pub(crate) fn bytes<const N: usize>(raw: &RawHeader, start: usize) -> &[u8; N] {
    raw[start..].first_chunk().expect("every field lies within the header")
}

/// Every field of a header, for those who build or show one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Header {
    /// Ground by the miner.
    pub nonce: u32,
    /// Seconds since 1970.
    pub time: u64,
    /// The parent's hash.
    pub prev: Hash32,
    /// Root of the name tree that is committed at this height.
    pub tree_root: Hash32,
    /// More for the miner to grind.
    pub extra_nonce: [u8; 24],
    /// For later use; zero today.
    pub reserved_root: Hash32,
    /// Merkle root of the witness hashes.
    pub witness_root: Hash32,
    /// Merkle root of the transaction ids.
    pub merkle_root: Hash32,
    /// Version bits.
    pub version: u32,
    /// The compact target.
    pub bits: u32,
    /// XORed onto the share to give the hash; lets a pool hide which shares are blocks.
    pub mask: Hash32,
}

impl Header {
    /// The header's bytes.
    pub const fn encode(&self) -> RawHeader {
        let mut raw = [0; HEADER_LEN];
        put(&mut raw, at::NONCE, &self.nonce.to_le_bytes());
        put(&mut raw, at::TIME, &self.time.to_le_bytes());
        put(&mut raw, at::PREV, &self.prev.0);
        put(&mut raw, at::TREE_ROOT, &self.tree_root.0);
        put(&mut raw, at::EXTRA_NONCE, &self.extra_nonce);
        put(&mut raw, at::RESERVED_ROOT, &self.reserved_root.0);
        put(&mut raw, at::WITNESS_ROOT, &self.witness_root.0);
        put(&mut raw, at::MERKLE_ROOT, &self.merkle_root.0);
        put(&mut raw, at::VERSION, &self.version.to_le_bytes());
        put(&mut raw, at::BITS, &self.bits.to_le_bytes());
        put(&mut raw, at::MASK, &self.mask.0);
        raw
    }

    /// Reads the fields. Every 236 bytes are some header.
    pub fn decode(raw: &RawHeader) -> Self {
        Self {
            nonce: u32::from_le_bytes(*bytes(raw, at::NONCE)),
            time: time(raw),
            prev: prev(raw),
            tree_root: Hash32(*bytes(raw, at::TREE_ROOT)),
            extra_nonce: *bytes(raw, at::EXTRA_NONCE),
            reserved_root: Hash32(*bytes(raw, at::RESERVED_ROOT)),
            witness_root: Hash32(*bytes(raw, at::WITNESS_ROOT)),
            merkle_root: Hash32(*bytes(raw, at::MERKLE_ROOT)),
            version: u32::from_le_bytes(*bytes(raw, at::VERSION)),
            bits: bits(raw),
            mask: Hash32(*bytes(raw, at::MASK)),
        }
    }
}

/// Copies a field to its place; a loop, because slices cannot be copied in constants.
const fn put(raw: &mut RawHeader, start: usize, field: &[u8]) {
    let mut i = 0;
    while i < field.len() {
        raw[start + i] = field[i];
        i += 1;
    }
}

/// The time it claims, in seconds since 1970.
pub fn time(raw: &RawHeader) -> u64 {
    u64::from_le_bytes(*bytes(raw, at::TIME))
}

/// The parent's hash.
pub fn prev(raw: &RawHeader) -> Hash32 {
    Hash32(*bytes(raw, at::PREV))
}

/// The compact target it claims.
pub fn bits(raw: &RawHeader) -> u32 {
    u32::from_le_bytes(*bytes(raw, at::BITS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn decode_and_encode_are_inverse(raw in proptest::collection::vec(any::<u8>(), HEADER_LEN)) {
            let raw = RawHeader::try_from(raw.as_slice()).unwrap();
            prop_assert_eq!(Header::decode(&raw).encode(), raw);
        }
    }

    #[test]
    fn the_fields_fill_the_header_without_gap_or_overlap() {
        let ends = [
            (at::NONCE, 4),
            (at::TIME, 8),
            (at::PREV, 32),
            (at::TREE_ROOT, 32),
            (at::EXTRA_NONCE, 24),
            (at::RESERVED_ROOT, 32),
            (at::WITNESS_ROOT, 32),
            (at::MERKLE_ROOT, 32),
            (at::VERSION, 4),
            (at::BITS, 4),
            (at::MASK, 32),
        ];
        let mut next = 0;
        for (start, len) in ends {
            assert_eq!(start, next);
            next += len;
        }
        assert_eq!(next, HEADER_LEN);
    }
}
