//! What a light client wants to hear of: bloom filters (BIP 37) and the fee filter.

use super::body::{Body, Wire, put_var_bytes};
use bytes::{BufMut, Bytes, BytesMut};
use rookery_base::DecodeError;

/// Largest bloom filter in bytes; hsd bans over it.
pub const MAX_FILTER: usize = 36_000;

/// Most hash functions of a bloom filter; hsd bans over it, since each costs a hash per item tested.
pub const MAX_FILTER_HASHES: u32 = 50;

/// Largest item that can be added to a filter: the largest push of a script.
pub const MAX_FILTER_ITEM: usize = 520;

/// All the coins there can be, in millionths: 2.04 thousand million HNS. hsd bans for a fee filter above it.
pub const MAX_MONEY: u64 = 2_040_000_000_000_000;

/// Whether a match adds the outputs it found to the filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FilterUpdate {
    /// Never.
    None = 0,
    /// Always.
    All = 1,
    /// Only for outputs to a public key or a multi-signature.
    PubkeyOnly = 2,
}

/// A bloom filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterLoad {
    /// Its bits, at most [`MAX_FILTER`] bytes.
    pub bits: Bytes,
    /// Hash functions, at most [`MAX_FILTER_HASHES`].
    pub hashes: u32,
    /// Seed of the hash functions.
    pub tweak: u32,
    /// What a match changes.
    pub update: FilterUpdate,
}

impl Wire for FilterLoad {
    const MIN: usize = 10;

    fn read(body: &mut Body<'_>) -> Result<Self, DecodeError> {
        let bits = body.var_share(MAX_FILTER, "bloom filter")?;
        let at = body.at();
        let hashes = body.u32_le("hash functions of a filter")?;
        if hashes > MAX_FILTER_HASHES {
            let (value, cap) = (u64::from(hashes), u64::from(MAX_FILTER_HASHES));
            return Err(DecodeError::OverCap { what: "hash functions of a filter", at, value, cap });
        }
        let tweak = body.u32_le("tweak of a filter")?;
        let at = body.at();
        let update = match body.u8("update flag of a filter")? {
            0 => FilterUpdate::None,
            1 => FilterUpdate::All,
            2 => FilterUpdate::PubkeyOnly,
            _ => return Err(DecodeError::Invalid { what: "update flag of a filter", at }),
        };
        Ok(Self { bits, hashes, tweak, update })
    }

    fn write(&self, out: &mut BytesMut) {
        put_var_bytes(out, &self.bits);
        out.put_u32_le(self.hashes);
        out.put_u32_le(self.tweak);
        out.put_u8(self.update as u8);
    }
}

/// One more item for the filter: at most [`MAX_FILTER_ITEM`] bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterAdd(pub Bytes);

impl Wire for FilterAdd {
    const MIN: usize = 1;

    fn read(body: &mut Body<'_>) -> Result<Self, DecodeError> {
        body.var_share(MAX_FILTER_ITEM, "item for a filter").map(Self)
    }

    fn write(&self, out: &mut BytesMut) {
        put_var_bytes(out, &self.0);
    }
}

/// The lowest fee rate the peer wants transactions announced at, at most [`MAX_MONEY`]. Signed on the wire; a
/// negative one is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeeFilter(pub u64);

impl Wire for FeeFilter {
    const MIN: usize = 8;

    fn read(body: &mut Body<'_>) -> Result<Self, DecodeError> {
        let at = body.at();
        match u64::try_from(body.i64_le("fee rate")?) {
            Ok(rate) if rate <= MAX_MONEY => Ok(Self(rate)),
            _ => Err(DecodeError::Invalid { what: "fee rate", at }),
        }
    }

    fn write(&self, out: &mut BytesMut) {
        out.put_u64_le(self.0);
    }
}
