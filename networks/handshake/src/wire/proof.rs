//! Proofs: of a name's state in the tree, of the right to a reserved name, of an airdrop.

use super::body::{Body, MAX_INTEGER, Wire, put_list, put_var_bytes};
use super::tx::Address;
use bytes::{BufMut, Bytes, BytesMut};
use rookery_base::codec::put_compact_size;
use rookery_base::{DecodeError, Hash32};

/// Fewest bytes of a tree proof: two bytes of type and depth, two of count, for the empty tree.
pub const MIN_TREE_PROOF: usize = 4;

/// Most bytes of a tree proof that can verify. A path has 256 bits and each node takes one or more; a node that
/// takes more spends fewer bytes than the nodes it stands for. So the longest has 256 nodes: 4 bytes in front, 32 of
/// bitmap, a hash each, and the largest tail, a name's state of 668 bytes after its length.
pub const MAX_TREE_PROOF: usize = 4 + 32 + 256 * 32 + 2 + 668;

/// Most bytes of a claim.
pub const MAX_CLAIM: usize = 10_000;

/// Most bytes of an airdrop proof.
pub const MAX_AIRDROP: usize = 3400;

/// Keys in the airdrop's tree.
const AIRDROP_LEAVES: u32 = 216_199;
/// Depth of the airdrop's tree.
const AIRDROP_DEPTH: u8 = 18;
/// Most sub-keys of one key of the airdrop.
const AIRDROP_SUBLEAVES: u8 = 8;
/// Depth of the tree of sub-keys.
const AIRDROP_SUBDEPTH: u8 = 3;

/// Asks for what the tree of names with this root holds under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GetProof {
    /// Root of the tree, as some header carries it.
    pub root: Hash32,
    /// Hash of the name.
    pub key: Hash32,
}

impl Wire for GetProof {
    const MIN: usize = 64;

    fn read(body: &mut Body<'_>) -> Result<Self, DecodeError> {
        Ok(Self { root: body.hash("root of a tree")?, key: body.hash("key of a proof")? })
    }

    fn write(&self, out: &mut BytesMut) {
        self.root.write(out);
        self.key.write(out);
    }
}

/// The answer to [`GetProof`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// Root and key as asked for, if the peer is honest.
    pub of: GetProof,
    /// The proof itself, from [`MIN_TREE_PROOF`] to [`MAX_TREE_PROOF`] bytes: bounded here, read by whoever verifies it.
    pub raw: Bytes,
}

impl Wire for Proof {
    const MIN: usize = GetProof::MIN + MIN_TREE_PROOF;

    fn read(body: &mut Body<'_>) -> Result<Self, DecodeError> {
        let of = GetProof::read(body)?;
        let (at, have) = (body.at(), body.left());
        if have < MIN_TREE_PROOF {
            return Err(DecodeError::Short { what: "tree proof", at, need: MIN_TREE_PROOF, have });
        }
        if have > MAX_TREE_PROOF {
            let (value, cap) = (have as u64, MAX_TREE_PROOF as u64);
            return Err(DecodeError::OverCap { what: "tree proof", at, value, cap });
        }
        Ok(Self { of, raw: body.rest() })
    }

    fn write(&self, out: &mut BytesMut) {
        self.of.write(out);
        out.extend_from_slice(&self.raw);
    }
}

/// A DNSSEC proof that a reserved name belongs to the claimant, opaque here: at most [`MAX_CLAIM`] bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim(pub Bytes);

impl Wire for Claim {
    const MIN: usize = 2;

    fn read(body: &mut Body<'_>) -> Result<Self, DecodeError> {
        let at = body.at();
        let length = usize::from(body.u16_le("length of a claim")?);
        if length > MAX_CLAIM {
            let (value, cap) = (length as u64, MAX_CLAIM as u64);
            return Err(DecodeError::OverCap { what: "length of a claim", at, value, cap });
        }
        body.share(length, "claim").map(Self)
    }

    fn write(&self, out: &mut BytesMut) {
        out.put_u16_le(self.0.len() as u16);
        out.extend_from_slice(&self.0);
    }
}

/// A proof that a key is in the airdrop's tree, signed over the address that is to be paid.
///
/// ```text
/// index u32 | n u8, hashes | subindex u8 | n u8, hashes | key | address | fee | signature
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Airdrop {
    /// Place of the key in the tree.
    pub index: u32,
    /// Path to the root.
    pub proof: Vec<Hash32>,
    /// Place among the key's sub-keys.
    pub subindex: u8,
    /// Path to the key's root.
    pub subproof: Vec<Hash32>,
    /// The key, not empty, unread.
    pub key: Bytes,
    /// Version of the address to pay. Unlike an output's, a version-0 hash may have any length here: hsd looks at it
    /// when the proof is mined.
    pub version: u8,
    /// Hash of the address to pay, 2 to 40 bytes.
    pub address: Bytes,
    /// Part of the airdrop that is left to the miner.
    pub fee: u64,
    /// The signature, unread.
    pub signature: Bytes,
}

impl Wire for Airdrop {
    const MIN: usize = 4 + 1 + 1 + 1 + 2 + 1 + 1 + Address::MIN_HASH + 1 + 1;

    fn read(body: &mut Body<'_>) -> Result<Self, DecodeError> {
        let at = body.at();
        let index = body.u32_le("airdrop index")?;
        if index >= AIRDROP_LEAVES {
            return Err(DecodeError::Invalid { what: "airdrop index", at });
        }
        let proof = read_path(body, AIRDROP_DEPTH, "airdrop path")?;
        let subindex = read_below(body, AIRDROP_SUBLEAVES - 1, "airdrop subindex")?;
        let subproof = read_path(body, AIRDROP_SUBDEPTH, "airdrop subpath")?;
        let at = body.at();
        let key = body.var_share(MAX_AIRDROP, "airdrop key")?;
        if key.is_empty() {
            return Err(DecodeError::Invalid { what: "airdrop key", at });
        }
        let version = read_below(body, Address::MAX_VERSION, "address version")?;
        let at = body.at();
        let length = usize::from(read_below(body, Address::MAX_HASH as u8, "address length")?);
        if length < Address::MIN_HASH {
            return Err(DecodeError::Invalid { what: "address length", at });
        }
        let address = body.share(length, "address hash")?;
        let fee = body.compact(MAX_INTEGER, "airdrop fee")?;
        let signature = body.var_share(MAX_AIRDROP, "airdrop signature")?;
        Ok(Self { index, proof, subindex, subproof, key, version, address, fee, signature })
    }

    fn write(&self, out: &mut BytesMut) {
        out.put_u32_le(self.index);
        // Paths are short: below 0xfd a compact-size count is the one byte that is meant here.
        put_list(out, &self.proof);
        out.put_u8(self.subindex);
        put_list(out, &self.subproof);
        put_var_bytes(out, &self.key);
        out.put_u8(self.version);
        out.put_u8(self.address.len() as u8);
        out.extend_from_slice(&self.address);
        put_compact_size(out, self.fee);
        put_var_bytes(out, &self.signature);
    }
}

fn read_below(body: &mut Body<'_>, most: u8, what: &'static str) -> Result<u8, DecodeError> {
    let at = body.at();
    match body.u8(what)? {
        value if value <= most => Ok(value),
        _ => Err(DecodeError::Invalid { what, at }),
    }
}

fn read_path(body: &mut Body<'_>, depth: u8, what: &'static str) -> Result<Vec<Hash32>, DecodeError> {
    let count = read_below(body, depth, what)?;
    (0..count).map(|_| body.hash(what)).collect()
}
