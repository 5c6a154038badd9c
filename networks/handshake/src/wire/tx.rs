//! Transactions.
//!
//! ```text
//! tx       version u32 | n, inputs | n, outputs | locktime u32 | one witness per input
//! input    previous hash 32 | index u32 | sequence u32
//! output   value u64 | address | covenant
//! address  version u8 | length u8 | hash
//! covenant type u8 | items
//! witness  items
//! items    n, each of them a length and bytes
//! ```
//!
//! Counts and lengths are compact-size integers. There is no marker for witnesses, they always follow the locktime;
//! and outputs have no script. What is checked here is what hsd checks while it decodes: shapes and counts. Sums,
//! weights, signatures and the meaning of covenants are consensus and judged elsewhere.
//!
//! Witnesses and covenants stay the bytes they came as, walked once to be sure of them: decoding them into lists
//! would let a peer turn each byte it sends into a hundred of ours.

use super::body::{Body, Wire, put_list, put_var_bytes};
use bytes::{BufMut, Bytes, BytesMut};
use rookery_base::codec::put_compact_size;
use rookery_base::{DecodeError, Hash32, Reader};

/// Most bytes of a block, and so of anything inside one, with witnesses.
pub const MAX_RAW_BLOCK: usize = 4_000_000;

/// Most bytes of a block without its witnesses.
pub const MAX_BASE_BLOCK: usize = 1_000_000;

/// Most items in a witness or a covenant: the deepest stack a script may have.
pub const MAX_ITEMS: usize = 1000;

/// Most inputs of a transaction: as many as a block without witnesses has room for.
pub const MAX_INPUTS: usize = MAX_BASE_BLOCK / Input::BASE_LEN;

/// Most outputs of a transaction: as many as a block without witnesses has room for.
pub const MAX_OUTPUTS: usize = MAX_BASE_BLOCK / Output::MIN;

/// A list of byte strings in its encoded form, known to be well formed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Items {
    /// The count, then each length and its bytes.
    raw: Bytes,
}

impl Items {
    /// Items from their parts; `None` for more than [`MAX_ITEMS`].
    pub fn new<T: AsRef<[u8]>>(parts: &[T]) -> Option<Self> {
        if parts.len() > MAX_ITEMS {
            return None;
        }
        let mut raw = BytesMut::new();
        put_compact_size(&mut raw, parts.len() as u64);
        for part in parts {
            put_var_bytes(&mut raw, part.as_ref());
        }
        Some(Self { raw: raw.freeze() })
    }

    /// Each item, in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut reader = Reader::new(&self.raw);
        let count = reader.compact_size("item count").unwrap_or(0);
        (0..count).map_while(move |_| reader.var_bytes(MAX_RAW_BLOCK, "item").ok())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        Reader::new(&self.raw).compact_size("item count").unwrap_or(0) as usize
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for Items {
    fn default() -> Self {
        Self { raw: Bytes::from_static(&[0]) }
    }
}

impl Wire for Items {
    const MIN: usize = 1;

    fn read(body: &mut Body<'_>) -> Result<Self, DecodeError> {
        let start = body.at();
        let count = body.count(MAX_ITEMS, 1, "item count")?;
        if count == 0 {
            return Ok(Self::default());
        }
        for _ in 0..count {
            body.var_bytes(MAX_RAW_BLOCK, "item")?;
        }
        Ok(Self { raw: body.since(start) })
    }

    fn write(&self, out: &mut BytesMut) {
        out.extend_from_slice(&self.raw);
    }
}

/// An output of an earlier transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Outpoint {
    /// The transaction's hash.
    pub hash: Hash32,
    /// Which of its outputs.
    pub index: u32,
}

impl Outpoint {
    /// What a coinbase spends: nothing.
    pub const NULL: Self = Self { hash: Hash32::ZERO, index: u32::MAX };
}

/// What a transaction spends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// The output spent.
    pub prevout: Outpoint,
    /// Relative locktime; a coinbase writes what it likes.
    pub sequence: u32,
    /// Proof of the right to spend it.
    pub witness: Items,
}

impl Input {
    /// Bytes without the witness.
    const BASE_LEN: usize = 40;

    /// Reads all but the witness, which comes after the locktime.
    fn read_base(body: &mut Body<'_>) -> Result<Self, DecodeError> {
        let hash = body.hash("hash of a spent output")?;
        let index = body.u32_le("index of a spent output")?;
        let sequence = body.u32_le("sequence of an input")?;
        Ok(Self { prevout: Outpoint { hash, index }, sequence, witness: Items::default() })
    }

    fn write_base(&self, out: &mut BytesMut) {
        self.prevout.hash.write(out);
        out.put_u32_le(self.prevout.index);
        out.put_u32_le(self.sequence);
    }
}

/// Who an output belongs to: a witness program.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    version: u8,
    length: u8,
    hash: [u8; Self::MAX_HASH],
}

impl Address {
    /// Highest version of a witness program.
    pub const MAX_VERSION: u8 = 31;
    /// Shortest hash.
    pub const MIN_HASH: usize = 2;
    /// Longest hash.
    pub const MAX_HASH: usize = 40;

    /// An address; `None` unless version and length are allowed. Version 0 is a key hash (20) or a script hash (32).
    pub fn new(version: u8, hash: &[u8]) -> Option<Self> {
        let length_fits = match version {
            0 => hash.len() == 20 || hash.len() == 32,
            1..=Self::MAX_VERSION => (Self::MIN_HASH..=Self::MAX_HASH).contains(&hash.len()),
            _ => false,
        };
        length_fits.then(|| {
            let mut bytes = [0; Self::MAX_HASH];
            bytes[..hash.len()].copy_from_slice(hash);
            Self { version, length: hash.len() as u8, hash: bytes }
        })
    }

    /// Version of the witness program.
    pub const fn version(&self) -> u8 {
        self.version
    }

    /// The key's or script's hash.
    pub fn hash(&self) -> &[u8] {
        &self.hash[..usize::from(self.length)]
    }
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Address").field("version", &self.version).field("hash", &self.hash()).finish()
    }
}

impl Wire for Address {
    const MIN: usize = 2 + Self::MIN_HASH;

    fn read(body: &mut Body<'_>) -> Result<Self, DecodeError> {
        let at = body.at();
        let version = body.u8("version of an address")?;
        let length = usize::from(body.u8("length of an address")?);
        let hash = body.take(length.min(Self::MAX_HASH + 1), "hash of an address")?;
        Self::new(version, hash).ok_or(DecodeError::Invalid { what: "version or length of an address", at })
    }

    fn write(&self, out: &mut BytesMut) {
        out.put_u8(self.version);
        out.put_u8(self.length);
        out.extend_from_slice(self.hash());
    }
}

/// What a covenant does to a name. Unknown kinds decode: consensus leaves them to later rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CovenantKind(pub u8);

impl CovenantKind {
    /// Nothing: a plain payment.
    pub const NONE: Self = Self(0);
    /// Claims a reserved name by DNSSEC.
    pub const CLAIM: Self = Self(1);
    /// Opens an auction.
    pub const OPEN: Self = Self(2);
    /// Bids, blinded.
    pub const BID: Self = Self(3);
    /// Reveals a bid.
    pub const REVEAL: Self = Self(4);
    /// Takes a losing bid back.
    pub const REDEEM: Self = Self(5);
    /// Registers a name that was won.
    pub const REGISTER: Self = Self(6);
    /// Changes a name's records.
    pub const UPDATE: Self = Self(7);
    /// Renews a name.
    pub const RENEW: Self = Self(8);
    /// Begins a transfer.
    pub const TRANSFER: Self = Self(9);
    /// Ends a transfer.
    pub const FINALIZE: Self = Self(10);
    /// Gives a name up for ever.
    pub const REVOKE: Self = Self(11);
}

/// What binds an output to a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Covenant {
    /// What it does.
    pub kind: CovenantKind,
    /// Its arguments.
    pub items: Items,
}

/// A value, its owner, and the name it is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// In millionths of a coin.
    pub value: u64,
    /// The owner.
    pub address: Address,
    /// The name, and what is done to it.
    pub covenant: Covenant,
}

impl Wire for Output {
    const MIN: usize = 8 + Address::MIN + 1 + Items::MIN;

    fn read(body: &mut Body<'_>) -> Result<Self, DecodeError> {
        let value = body.integer("value of an output")?;
        let address = Address::read(body)?;
        let kind = CovenantKind(body.u8("type of a covenant")?);
        let items = Items::read(body)?;
        Ok(Self { value, address, covenant: Covenant { kind, items } })
    }

    fn write(&self, out: &mut BytesMut) {
        out.put_u64_le(self.value);
        self.address.write(out);
        out.put_u8(self.covenant.kind.0);
        self.covenant.items.write(out);
    }
}

/// A transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tx {
    /// Its version; any is allowed.
    pub version: u32,
    /// What it spends.
    pub inputs: Vec<Input>,
    /// What it pays.
    pub outputs: Vec<Output>,
    /// Not before this height or time. A coinbase has its block's height here.
    pub locktime: u32,
}

impl Tx {
    /// Appends everything but the witnesses: what the transaction's hash is taken of.
    pub fn write_base(&self, out: &mut BytesMut) {
        out.put_u32_le(self.version);
        put_compact_size(out, self.inputs.len() as u64);
        for input in &self.inputs {
            input.write_base(out);
        }
        put_list(out, &self.outputs);
        out.put_u32_le(self.locktime);
    }

    /// Appends the witnesses: what the witness hash is taken of, beside the transaction's.
    pub fn write_witnesses(&self, out: &mut BytesMut) {
        for input in &self.inputs {
            input.witness.write(out);
        }
    }
}

impl Wire for Tx {
    const MIN: usize = 10;

    fn read(body: &mut Body<'_>) -> Result<Self, DecodeError> {
        let version = body.u32_le("version of a transaction")?;
        let count = body.count(MAX_INPUTS, Input::BASE_LEN + Items::MIN, "inputs")?;
        let mut inputs = Vec::with_capacity(count);
        for _ in 0..count {
            inputs.push(Input::read_base(body)?);
        }
        let outputs = body.list(MAX_OUTPUTS, "outputs")?;
        let locktime = body.u32_le("locktime")?;
        for input in &mut inputs {
            input.witness = Items::read(body)?;
        }
        Ok(Self { version, inputs, outputs, locktime })
    }

    fn write(&self, out: &mut BytesMut) {
        self.write_base(out);
        self.write_witnesses(out);
    }
}
