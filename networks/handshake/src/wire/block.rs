//! Blocks, whole and filtered.

use super::body::{Body, Wire, put_list, put_var_bytes};
use super::headers::{HEADER_LEN, RawHeader};
use super::tx::{MAX_BASE_BLOCK, Tx};
use bytes::{BufMut, Bytes, BytesMut};
use rookery_base::{DecodeError, Hash32};

/// Most transactions of a block. The smallest that consensus allows, one input and one output without witness, has
/// 64 bytes; hsd divides by 60.
pub const MAX_BLOCK_TXS: usize = MAX_BASE_BLOCK / 60;

/// Most bytes of flags of a filtered block: one bit per node visited, a full tree over the most transactions having
/// twice as many, and at most one more on each of its 16 levels where a width is odd.
pub const MAX_MERKLE_FLAGS: usize = (2 * MAX_BLOCK_TXS + 16).div_ceil(8);

/// A block: its header, then its transactions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Its header.
    pub header: RawHeader,
    /// Its transactions, the coinbase first.
    pub txs: Vec<Tx>,
}

impl Wire for Block {
    const MIN: usize = HEADER_LEN + 1;

    fn read(body: &mut Body<'_>) -> Result<Self, DecodeError> {
        Ok(Self { header: RawHeader::read(body)?, txs: body.list(MAX_BLOCK_TXS, "transactions")? })
    }

    fn write(&self, out: &mut BytesMut) {
        self.header.write(out);
        put_list(out, &self.txs);
    }
}

/// A block as a bloom filter sees it: the part of its transaction tree that leads to the matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MerkleBlock {
    /// Its header.
    pub header: RawHeader,
    /// How many transactions the block has.
    pub total: u32,
    /// Hashes of the tree, in the order of the walk.
    pub hashes: Vec<Hash32>,
    /// One bit per step of the walk, lowest first.
    pub flags: Bytes,
}

impl Wire for MerkleBlock {
    const MIN: usize = HEADER_LEN + 4 + 1 + 1;

    fn read(body: &mut Body<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            header: RawHeader::read(body)?,
            total: body.u32_le("transaction count")?,
            hashes: body.list(MAX_BLOCK_TXS, "hashes of a merkle tree")?,
            flags: body.var_share(MAX_MERKLE_FLAGS, "flags of a merkle tree")?,
        })
    }

    fn write(&self, out: &mut BytesMut) {
        self.header.write(out);
        out.put_u32_le(self.total);
        put_list(out, &self.hashes);
        put_var_bytes(out, &self.flags);
    }
}
