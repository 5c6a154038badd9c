//! What a peer has, asks for, or lacks (`inv`, `getdata`, `notfound`), and where its chain stands (`getblocks`,
//! `getheaders`).

use super::body::{Body, Wire, put_list};
use bytes::{BufMut, BytesMut};
use rookery_base::{DecodeError, Hash32};

/// Most items in one `inv`, `getdata` or `notfound`; hsd does not decode more.
pub const MAX_INV: usize = 50_000;

/// Most hashes in one locator; hsd does not decode more. An honest one holds about thirty.
pub const MAX_LOCATOR: usize = 50_000;

/// What an inventory item names. Unknown kinds decode: hsd answers them with `notfound`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InvKind(pub u32);

impl InvKind {
    /// A transaction.
    pub const TX: Self = Self(1);
    /// A block.
    pub const BLOCK: Self = Self(2);
    /// A block, to be answered by `merkleblock`.
    pub const FILTERED_BLOCK: Self = Self(3);
    /// A block, to be answered by `cmpctblock`.
    pub const COMPACT_BLOCK: Self = Self(4);
    /// A claim of a reserved name.
    pub const CLAIM: Self = Self(5);
    /// An airdrop proof.
    pub const AIRDROP: Self = Self(6);
}

/// One item of an inventory: 36 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inv {
    /// What it is.
    pub kind: InvKind,
    /// Its hash.
    pub hash: Hash32,
}

impl Wire for Inv {
    const MIN: usize = 36;

    fn read(body: &mut Body<'_>) -> Result<Self, DecodeError> {
        Ok(Self { kind: InvKind(body.u32_le("inventory type")?), hash: body.hash("inventory hash")? })
    }

    fn write(&self, out: &mut BytesMut) {
        out.put_u32_le(self.kind.0);
        self.hash.write(out);
    }
}

/// Where the sender's chain stands, and where the answer is to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Locator {
    /// Hashes of the sender's chain, newest first. Empty: only the block `stop` is asked for.
    pub hashes: Vec<Hash32>,
    /// The last hash wanted; zero for as many as one answer holds.
    pub stop: Hash32,
}

impl Wire for Locator {
    const MIN: usize = 33;

    fn read(body: &mut Body<'_>) -> Result<Self, DecodeError> {
        Ok(Self { hashes: body.list(MAX_LOCATOR, "locator")?, stop: body.hash("stop hash")? })
    }

    fn write(&self, out: &mut BytesMut) {
        put_list(out, &self.hashes);
        self.stop.write(out);
    }
}
