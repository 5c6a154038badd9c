//! Why a peer refused something: `message u8 | code u8 | reason u8 + bytes | [hash 32]`.

use super::body::{Body, Wire};
use super::kind;
use super::text::Text;
use bytes::{BufMut, BytesMut};
use rookery_base::{DecodeError, Hash32};

/// The kind of refusal. Unknown codes decode; nothing is decided by them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RejectCode(pub u8);

impl RejectCode {
    /// The packet did not decode.
    pub const MALFORMED: Self = Self(0x01);
    /// Against the rules.
    pub const INVALID: Self = Self(0x10);
    /// An old version.
    pub const OBSOLETE: Self = Self(0x11);
    /// Already known.
    pub const DUPLICATE: Self = Self(0x12);
    /// Valid, but not relayed.
    pub const NONSTANDARD: Self = Self(0x40);
    /// An output too small to be worth spending.
    pub const DUST: Self = Self(0x41);
    /// Pays too little.
    pub const INSUFFICIENT_FEE: Self = Self(0x42);
    /// Against a checkpoint.
    pub const CHECKPOINT: Self = Self(0x43);
}

/// A refusal. It is a courtesy: what it says is shown and never acted on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// Kind of the packet that was refused.
    pub message: u8,
    /// Why, for machines.
    pub code: RejectCode,
    /// Why, for people.
    pub reason: Text,
    /// Which item; on the wire exactly when [`Reject::names_item`] says so (then a missing one is sent as zero).
    pub hash: Option<Hash32>,
}

impl Reject {
    /// Whether the refusal of such a packet carries a hash: of blocks, transactions, claims and airdrops.
    pub const fn names_item(message: u8) -> bool {
        matches!(message, kind::BLOCK | kind::TX | kind::CLAIM | kind::AIRDROP)
    }
}

impl Wire for Reject {
    const MIN: usize = 3;

    fn read(body: &mut Body<'_>) -> Result<Self, DecodeError> {
        let message = body.u8("kind of the rejected packet")?;
        Ok(Self {
            message,
            code: RejectCode(body.u8("reject code")?),
            reason: Text::read(body)?,
            hash: if Self::names_item(message) { Some(body.hash("rejected hash")?) } else { None },
        })
    }

    fn write(&self, out: &mut BytesMut) {
        out.put_u8(self.message);
        out.put_u8(self.code.0);
        self.reason.write(out);
        if Self::names_item(self.message) {
            self.hash.unwrap_or_default().write(out);
        }
    }
}
