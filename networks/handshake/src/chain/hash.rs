//! The hash of a header, which is its block's id and its proof of work.
//!
//! ```text
//! pad(n)   byte i = prevBlock[i mod 32] ^ treeRoot[i mod 32], i < n
//! sub      = BLAKE2b-256(bytes 76..204)              128 bytes
//! maskHash = BLAKE2b-256(prevBlock || mask)           64
//! commit   = BLAKE2b-256(sub || maskHash)             64
//! pre      = nonce || time || pad(20) || prevBlock || treeRoot || commit      128 bytes
//! left     = BLAKE2b-512(pre)                        128
//! right    = SHA3-256(pre || pad(8))                 136
//! share    = BLAKE2b-256(left || pad(32) || right)   128
//! hash     = share ^ mask
//! ```
//!
//! Five BLAKE2b compressions and two Keccak permutations. Headers do not depend on each other, so [`Hasher`] takes
//! eight at a time through each step: BLAKE2b in the lanes of `blake2b_simd`, SHA3 in those of
//! [`keccak`](super::keccak). Nothing is allocated.

use blake2b_simd::{
    Params,
    many::{HashManyJob, hash_many},
};
use rookery_base::Hash32;
use sha3::{Digest, Sha3_256};

use super::header::{HEADER_LEN, RawHeader, at, bytes};
use super::keccak::{Engine, LANES, MESSAGE_LEN};

/// An array with one value for each lane, written out in place: `array::map` moves its values through the stack,
/// which here costs an eighth of all the time.
macro_rules! each_lane {
    (|$lane:ident| $value:expr) => {
        each_lane!(@ $lane, $value, 0 1 2 3 4 5 6 7)
    };
    (@ $lane:ident, $value:expr, $($index:literal)*) => {
        [$({
            let $lane = $index;
            $value
        }),*]
    };
}

/// What `sub` covers: everything from the extra nonce to the bits.
const SUB: std::ops::Range<usize> = at::EXTRA_NONCE..at::MASK;

/// The hash of one header on its own: the measure that the lanes are tested against.
pub fn hash(raw: &RawHeader) -> Hash32 {
    let sub = blake(&raw[SUB]);
    let mask_hash = blake(&masked_parent(raw));
    let message = message(raw, &blake(&pair(&sub, &mask_hash)));
    let left = Params::new().hash_length(64).hash(&message[..PRE_LEN]);
    let right: [u8; 32] = Sha3_256::digest(message).into();
    finish(raw, &blake(&share_input(raw, left.as_array(), &right)))
}

/// Hashes runs of headers, several at once.
#[derive(Debug, Clone, Copy)]
pub struct Hasher {
    engine: Engine,
}

impl Default for Hasher {
    fn default() -> Self {
        Self { engine: Engine::detect() }
    }
}

impl Hasher {
    /// A hasher on a stated engine, for tests and measurements.
    pub const fn with_engine(engine: Engine) -> Self {
        Self { engine }
    }

    /// The engine that permutes.
    pub const fn engine(&self) -> Engine {
        self.engine
    }

    /// Calls `each` with the index, bytes and hash of every header, in order; stops when it gives an error.
    pub fn run<E>(
        &self,
        headers: &[RawHeader],
        mut each: impl FnMut(usize, &RawHeader, Hash32) -> Result<(), E>,
    ) -> Result<(), E> {
        let (groups, rest) = headers.as_chunks::<LANES>();
        let blake = Blake::new();
        let mut index = 0;
        for group in groups {
            for (raw, hash) in group.iter().zip(self.eight(&blake, group)) {
                each(index, raw, hash)?;
                index += 1;
            }
        }
        for raw in rest {
            each(index, raw, hash(raw))?;
            index += 1;
        }
        Ok(())
    }

    /// The hashes of eight headers.
    fn eight(&self, blake: &Blake, headers: &[RawHeader; LANES]) -> [Hash32; LANES] {
        let subs = blake.short(each_lane!(|lane| &headers[lane][SUB]));
        let parents = each_lane!(|lane| masked_parent(&headers[lane]));
        let mask_hashes = blake.short(each_lane!(|lane| &parents[lane]));
        let pairs = each_lane!(|lane| pair(&subs[lane], &mask_hashes[lane]));
        let commits = blake.short(each_lane!(|lane| &pairs[lane]));
        let messages = each_lane!(|lane| message(&headers[lane], &commits[lane]));
        let lefts = blake.long(each_lane!(|lane| &messages[lane][..PRE_LEN]));
        let rights = self.engine.sha3_256(&messages);
        let inputs = each_lane!(|lane| share_input(&headers[lane], &lefts[lane], &rights[lane]));
        let shares = blake.short(each_lane!(|lane| &inputs[lane]));
        each_lane!(|lane| finish(&headers[lane], &shares[lane]))
    }
}

/// BLAKE2b of eight inputs at once, at the two digest lengths that a header needs.
struct Blake {
    short: Params,
    long: Params,
}

impl Blake {
    fn new() -> Self {
        let mut short = Params::new();
        short.hash_length(32);
        Self { short, long: Params::new() }
    }

    /// Unkeyed BLAKE2b-256.
    fn short(&self, inputs: [&[u8]; LANES]) -> [[u8; 32]; LANES] {
        let mut jobs = each_lane!(|lane| HashManyJob::new(&self.short, inputs[lane]));
        hash_many(&mut jobs);
        each_lane!(|lane| *jobs[lane].to_hash().as_bytes().first_chunk().expect("asked for 32 bytes"))
    }

    /// Unkeyed BLAKE2b-512.
    fn long(&self, inputs: [&[u8]; LANES]) -> [[u8; 64]; LANES] {
        let mut jobs = each_lane!(|lane| HashManyJob::new(&self.long, inputs[lane]));
        hash_many(&mut jobs);
        each_lane!(|lane| *jobs[lane].to_hash().as_array())
    }
}

/// Bytes of `pre`, and of what the share is hashed from: one BLAKE2b block.
const PRE_LEN: usize = 128;

/// Unkeyed BLAKE2b-256.
pub(crate) fn blake(input: &[u8]) -> [u8; 32] {
    *Params::new().hash_length(32).hash(input).as_bytes().first_chunk().expect("asked for 32 bytes")
}

/// prevBlock || mask.
fn masked_parent(raw: &RawHeader) -> [u8; 64] {
    pair(bytes(raw, at::PREV), bytes(raw, at::MASK))
}

/// Two hashes in a row.
fn pair(a: &[u8; 32], b: &[u8; 32]) -> [u8; 64] {
    let mut out = [0; 64];
    out[..32].copy_from_slice(a);
    out[32..].copy_from_slice(b);
    out
}

/// pad(32); the shorter paddings are its beginnings.
fn pad(raw: &RawHeader) -> [u8; 32] {
    let (prev, tree): (&[u8; 32], &[u8; 32]) = (bytes(raw, at::PREV), bytes(raw, at::TREE_ROOT));
    std::array::from_fn(|i| prev[i] ^ tree[i])
}

/// pre || pad(8), what SHA3 takes; BLAKE2b takes its first 128 bytes.
fn message(raw: &RawHeader, commit: &[u8; 32]) -> [u8; MESSAGE_LEN] {
    let pad = pad(raw);
    let mut out = [0; MESSAGE_LEN];
    out[..12].copy_from_slice(&raw[at::NONCE..at::PREV]);
    out[12..32].copy_from_slice(&pad[..20]);
    out[32..96].copy_from_slice(&raw[at::PREV..at::EXTRA_NONCE]);
    out[96..PRE_LEN].copy_from_slice(commit);
    out[PRE_LEN..].copy_from_slice(&pad[..8]);
    out
}

/// left || pad(32) || right.
fn share_input(raw: &RawHeader, left: &[u8; 64], right: &[u8; 32]) -> [u8; PRE_LEN] {
    let mut out = [0; PRE_LEN];
    out[..64].copy_from_slice(left);
    out[64..96].copy_from_slice(&pad(raw));
    out[96..].copy_from_slice(right);
    out
}

/// share ^ mask.
fn finish(raw: &RawHeader, share: &[u8; 32]) -> Hash32 {
    let mask: &[u8; 32] = bytes(raw, at::MASK);
    Hash32(std::array::from_fn(|i| share[i] ^ mask[i]))
}

/// Splits raw bytes into headers. The rest, if any, is what is left after the last whole one.
pub(crate) fn split(raw: &[u8]) -> (&[RawHeader], &[u8]) {
    raw.as_chunks::<HEADER_LEN>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::convert::Infallible;

    proptest! {
        #[test]
        fn every_engine_equals_the_single_hash(
            bytes in proptest::collection::vec(any::<u8>(), 0..HEADER_LEN * 20),
        ) {
            let (headers, _) = split(&bytes);
            let expected: Vec<_> = headers.iter().map(hash).collect();
            for engine in Engine::available() {
                let mut got = Vec::new();
                let done = Hasher::with_engine(engine).run(headers, |index, raw, hash| {
                    assert_eq!((index, raw), (got.len(), &headers[index]));
                    got.push(hash);
                    Ok::<_, Infallible>(())
                });
                prop_assert_eq!(done, Ok(()));
                prop_assert_eq!(&got, &expected, "{:?}", engine);
            }
        }
    }
}
