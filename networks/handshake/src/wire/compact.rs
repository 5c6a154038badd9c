//! Blocks for peers that know most of their transactions already (BIP 152).

use super::block::MAX_BLOCK_TXS;
use super::body::{Body, Wire, put_list};
use super::headers::{HEADER_LEN, RawHeader};
use super::tx::Tx;
use super::version::Nonce;
use bytes::{BufMut, BytesMut};
use rookery_base::codec::put_compact_size;
use rookery_base::{DecodeError, Hash32};

/// Highest place of a transaction in its block that can be named.
pub const MAX_TX_INDEX: u64 = 0xffff;

/// How the peer wants new blocks announced. hsd sends mode 0 after each handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendCmpct {
    /// 1: by `cmpctblock` at once; 0: as otherwise agreed.
    pub mode: u8,
    /// Version of compact blocks; 1 is the only one.
    pub version: u64,
}

impl Wire for SendCmpct {
    const MIN: usize = 9;

    fn read(body: &mut Body<'_>) -> Result<Self, DecodeError> {
        Ok(Self { mode: body.u8("compact mode")?, version: body.integer("compact version")? })
    }

    fn write(&self, out: &mut BytesMut) {
        out.put_u8(self.mode);
        out.put_u64_le(self.version);
    }
}

/// The low 48 bits of a keyed hash of a transaction's hash, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShortId(pub [u8; 6]);

impl Wire for ShortId {
    const MIN: usize = 6;

    fn read(body: &mut Body<'_>) -> Result<Self, DecodeError> {
        body.array("short id").map(Self)
    }

    fn write(&self, out: &mut BytesMut) {
        out.extend_from_slice(&self.0);
    }
}

/// A transaction sent along with a compact block, and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefilled {
    /// Its place, at most [`MAX_TX_INDEX`] and below the block's count of transactions.
    pub index: u16,
    /// The transaction.
    pub tx: Tx,
}

impl Wire for Prefilled {
    const MIN: usize = 1 + Tx::MIN;

    fn read(body: &mut Body<'_>) -> Result<Self, DecodeError> {
        Ok(Self { index: read_index(body)?, tx: Tx::read(body)? })
    }

    fn write(&self, out: &mut BytesMut) {
        put_compact_size(out, u64::from(self.index));
        self.tx.write(out);
    }
}

/// A block by the short ids of its transactions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompactBlock {
    /// Its header.
    pub header: RawHeader,
    /// Key of the short ids, together with the header.
    pub nonce: Nonce,
    /// Transactions the receiver should know.
    pub ids: Vec<ShortId>,
    /// Transactions it cannot know, such as the coinbase.
    pub prefilled: Vec<Prefilled>,
}

impl Wire for CompactBlock {
    const MIN: usize = HEADER_LEN + 8 + 1 + 1;

    fn read(body: &mut Body<'_>) -> Result<Self, DecodeError> {
        let header = RawHeader::read(body)?;
        let nonce = body.array("nonce of a compact block")?;
        let ids: Vec<ShortId> = body.list(MAX_BLOCK_TXS, "short ids")?;
        let at = body.at();
        let prefilled: Vec<Prefilled> = body.list(MAX_BLOCK_TXS, "prefilled transactions")?;
        let total = ids.len() + prefilled.len();
        if prefilled.iter().any(|one| usize::from(one.index) >= total) {
            return Err(DecodeError::Invalid { what: "place of a prefilled transaction", at });
        }
        Ok(Self { header, nonce, ids, prefilled })
    }

    fn write(&self, out: &mut BytesMut) {
        self.header.write(out);
        out.extend_from_slice(&self.nonce);
        put_list(out, &self.ids);
        put_list(out, &self.prefilled);
    }
}

/// Asks for some transactions of a recent block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetBlockTxn {
    /// The block's hash.
    pub hash: Hash32,
    /// Their places, strictly rising; on the wire each is the gap to the one before.
    indexes: Vec<u16>,
}

impl GetBlockTxn {
    /// A request; `None` unless the places rise strictly and are at most as many as a block's transactions.
    pub fn new(hash: Hash32, indexes: Vec<u16>) -> Option<Self> {
        let fits = indexes.len() <= MAX_BLOCK_TXS && indexes.is_sorted_by(|a, b| a < b);
        fits.then_some(Self { hash, indexes })
    }

    /// The places asked for, strictly rising.
    pub fn indexes(&self) -> &[u16] {
        &self.indexes
    }
}

impl Wire for GetBlockTxn {
    const MIN: usize = 33;

    fn read(body: &mut Body<'_>) -> Result<Self, DecodeError> {
        let hash = body.hash("block hash")?;
        let count = body.count(MAX_BLOCK_TXS, 1, "transaction indexes")?;
        let mut indexes = Vec::with_capacity(count);
        let mut next = 0;
        for _ in 0..count {
            let at = body.at();
            let index = next + u32::from(read_index(body)?);
            let Ok(index) = u16::try_from(index) else {
                return Err(DecodeError::Invalid { what: "transaction index", at });
            };
            indexes.push(index);
            next = u32::from(index) + 1;
        }
        Ok(Self { hash, indexes })
    }

    fn write(&self, out: &mut BytesMut) {
        self.hash.write(out);
        put_compact_size(out, self.indexes.len() as u64);
        let mut next = 0;
        for &index in &self.indexes {
            put_compact_size(out, u64::from(index) - next);
            next = u64::from(index) + 1;
        }
    }
}

/// The transactions asked for, in the order asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockTxn {
    /// The block's hash.
    pub hash: Hash32,
    /// The transactions.
    pub txs: Vec<Tx>,
}

impl Wire for BlockTxn {
    const MIN: usize = 33;

    fn read(body: &mut Body<'_>) -> Result<Self, DecodeError> {
        Ok(Self { hash: body.hash("block hash")?, txs: body.list(MAX_BLOCK_TXS, "transactions")? })
    }

    fn write(&self, out: &mut BytesMut) {
        self.hash.write(out);
        put_list(out, &self.txs);
    }
}

fn read_index(body: &mut Body<'_>) -> Result<u16, DecodeError> {
    let index = body.compact(MAX_TX_INDEX, "transaction index")?;
    Ok(u16::try_from(index).expect("a transaction index is at most 0xffff"))
}
