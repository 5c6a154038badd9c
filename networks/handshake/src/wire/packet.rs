//! Every packet, to and from its payload.

use super::address::{MAX_ADDRS, NetAddress};
use super::block::{Block, MerkleBlock};
use super::body::{Body, Wire, put_list};
use super::compact::{BlockTxn, CompactBlock, GetBlockTxn, SendCmpct};
use super::filter::{FeeFilter, FilterAdd, FilterLoad};
use super::frame::MAX_BODY;
use super::headers::Headers;
use super::inventory::{Inv, Locator, MAX_INV};
use super::kind::{self, Trailing, kind_info};
use super::proof::{Airdrop, Claim, GetProof, Proof};
use super::reject::Reject;
use super::tx::Tx;
use super::version::{Nonce, Version};
use bytes::{Bytes, BytesMut};
use rookery_base::DecodeError;

/// A packet. The kinds' numbers and bounds are in [`super::KINDS`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// What the sender is.
    Version(Box<Version>),
    /// The other side's version is accepted.
    Verack,
    /// Asks for a sign of life.
    Ping(Nonce),
    /// Answers a ping with its nonce.
    Pong(Nonce),
    /// Asks for addresses.
    GetAddr,
    /// Addresses of peers, at most [`MAX_ADDRS`].
    Addr(Vec<NetAddress>),
    /// What the sender has, at most [`MAX_INV`] items.
    Inv(Vec<Inv>),
    /// Asks for items, at most [`MAX_INV`].
    GetData(Vec<Inv>),
    /// Items asked for that the sender lacks, at most [`MAX_INV`].
    NotFound(Vec<Inv>),
    /// Asks for an inventory of the blocks after a locator.
    GetBlocks(Locator),
    /// Asks for the headers after a locator.
    GetHeaders(Locator),
    /// Headers.
    Headers(Headers),
    /// Announce new blocks by header.
    SendHeaders,
    /// A block.
    Block(Box<Block>),
    /// A transaction.
    Tx(Tx),
    /// Why the sender refused something.
    Reject(Reject),
    /// Asks for an inventory of unconfirmed transactions.
    Mempool,
    /// Sets a bloom filter.
    FilterLoad(FilterLoad),
    /// Adds to the bloom filter.
    FilterAdd(FilterAdd),
    /// Drops the bloom filter.
    FilterClear,
    /// A block as the bloom filter sees it.
    MerkleBlock(Box<MerkleBlock>),
    /// Announce only transactions of at least this fee rate.
    FeeFilter(FeeFilter),
    /// How to announce new blocks.
    SendCmpct(SendCmpct),
    /// A block by short ids.
    CmpctBlock(Box<CompactBlock>),
    /// Asks for transactions of a compact block.
    GetBlockTxn(GetBlockTxn),
    /// Transactions of a compact block.
    BlockTxn(BlockTxn),
    /// Asks what a name tree holds under a key.
    GetProof(GetProof),
    /// What a name tree holds under a key.
    Proof(Proof),
    /// A claim of a reserved name.
    Claim(Claim),
    /// An airdrop proof.
    Airdrop(Box<Airdrop>),
    /// A kind this version does not know. It is skipped, never a fault.
    Unknown {
        /// Its number: 30 or above when decoded. Under a known number these are bytes of one's own making, for a
        /// scripted peer that misbehaves.
        kind: u8,
        /// Its payload, unread.
        body: Bytes,
    },
}

impl Packet {
    /// Reads a payload. Its length is judged first, so that a payload the guard should have stopped costs nothing here
    /// either. What is kept of a payload without copying shares `body`'s memory.
    pub fn decode(kind: u8, body: &Bytes) -> Result<Self, DecodeError> {
        let have = body.len();
        let (name, min, max) =
            kind_info(kind).map_or((UNKNOWN, 0, MAX_BODY), |info| (info.name, info.min, info.max_payload()));
        if have < min {
            return Err(DecodeError::Short { what: name, at: 0, need: min, have });
        }
        if have > max {
            return Err(DecodeError::OverCap { what: name, at: 0, value: have as u64, cap: max as u64 });
        }
        let mut reader = Body::new(body);
        let packet = Self::read(kind, &mut reader)?;
        if kind_info(kind).is_some_and(|info| info.trailing == Trailing::Refused) {
            reader.finish()?;
        }
        Ok(packet)
    }

    fn read(kind: u8, body: &mut Body<'_>) -> Result<Self, DecodeError> {
        Ok(match kind {
            kind::VERSION => Self::Version(Box::new(Version::read(body)?)),
            kind::VERACK => Self::Verack,
            kind::PING => Self::Ping(body.array("nonce of a ping")?),
            kind::PONG => Self::Pong(body.array("nonce of a pong")?),
            kind::GETADDR => Self::GetAddr,
            kind::ADDR => Self::Addr(body.list(MAX_ADDRS, "addresses")?),
            kind::INV => Self::Inv(body.list(MAX_INV, "inventory")?),
            kind::GETDATA => Self::GetData(body.list(MAX_INV, "inventory")?),
            kind::NOTFOUND => Self::NotFound(body.list(MAX_INV, "inventory")?),
            kind::GETBLOCKS => Self::GetBlocks(Locator::read(body)?),
            kind::GETHEADERS => Self::GetHeaders(Locator::read(body)?),
            kind::HEADERS => Self::Headers(Headers::read(body)?),
            kind::SENDHEADERS => Self::SendHeaders,
            kind::BLOCK => Self::Block(Box::new(Block::read(body)?)),
            kind::TX => Self::Tx(Tx::read(body)?),
            kind::REJECT => Self::Reject(Reject::read(body)?),
            kind::MEMPOOL => Self::Mempool,
            kind::FILTERLOAD => Self::FilterLoad(FilterLoad::read(body)?),
            kind::FILTERADD => Self::FilterAdd(FilterAdd::read(body)?),
            kind::FILTERCLEAR => Self::FilterClear,
            kind::MERKLEBLOCK => Self::MerkleBlock(Box::new(MerkleBlock::read(body)?)),
            kind::FEEFILTER => Self::FeeFilter(FeeFilter::read(body)?),
            kind::SENDCMPCT => Self::SendCmpct(SendCmpct::read(body)?),
            kind::CMPCTBLOCK => Self::CmpctBlock(Box::new(CompactBlock::read(body)?)),
            kind::GETBLOCKTXN => Self::GetBlockTxn(GetBlockTxn::read(body)?),
            kind::BLOCKTXN => Self::BlockTxn(BlockTxn::read(body)?),
            kind::GETPROOF => Self::GetProof(GetProof::read(body)?),
            kind::PROOF => Self::Proof(Proof::read(body)?),
            kind::CLAIM => Self::Claim(Claim::read(body)?),
            kind::AIRDROP => Self::Airdrop(Box::new(Airdrop::read(body)?)),
            kind => Self::Unknown { kind, body: body.rest() },
        })
    }

    /// Appends the payload. Lists within the limits of their kind are the caller's promise.
    pub fn encode(&self, out: &mut BytesMut) {
        let start = out.len();
        match self {
            Self::Verack | Self::GetAddr | Self::SendHeaders | Self::Mempool | Self::FilterClear => {}
            Self::Version(version) => version.write(out),
            Self::Ping(nonce) | Self::Pong(nonce) => out.extend_from_slice(nonce),
            Self::Addr(addrs) => put_list(out, addrs),
            Self::Inv(items) | Self::GetData(items) | Self::NotFound(items) => put_list(out, items),
            Self::GetBlocks(locator) | Self::GetHeaders(locator) => locator.write(out),
            Self::Headers(headers) => headers.write(out),
            Self::Block(block) => block.write(out),
            Self::Tx(tx) => tx.write(out),
            Self::Reject(reject) => reject.write(out),
            Self::FilterLoad(filter) => filter.write(out),
            Self::FilterAdd(item) => item.write(out),
            Self::MerkleBlock(block) => block.write(out),
            Self::FeeFilter(rate) => rate.write(out),
            Self::SendCmpct(mode) => mode.write(out),
            Self::CmpctBlock(block) => block.write(out),
            Self::GetBlockTxn(request) => request.write(out),
            Self::BlockTxn(answer) => answer.write(out),
            Self::GetProof(request) => request.write(out),
            Self::Proof(proof) => proof.write(out),
            Self::Claim(claim) => claim.write(out),
            Self::Airdrop(airdrop) => airdrop.write(out),
            Self::Unknown { body, .. } => out.extend_from_slice(body),
        }
        debug_assert!(
            self.fits(out.len() - start),
            "a {} over its limits, which no peer accepts",
            self.name()
        );
    }

    /// Whether so many bytes are within the bounds of this kind.
    fn fits(&self, length: usize) -> bool {
        match (self, kind_info(self.kind())) {
            (Self::Unknown { .. }, _) | (_, None) => length <= MAX_BODY,
            (_, Some(info)) => (info.min..=info.max).contains(&length),
        }
    }

    /// Its number on the wire.
    pub const fn kind(&self) -> u8 {
        match self {
            Self::Version(_) => kind::VERSION,
            Self::Verack => kind::VERACK,
            Self::Ping(_) => kind::PING,
            Self::Pong(_) => kind::PONG,
            Self::GetAddr => kind::GETADDR,
            Self::Addr(_) => kind::ADDR,
            Self::Inv(_) => kind::INV,
            Self::GetData(_) => kind::GETDATA,
            Self::NotFound(_) => kind::NOTFOUND,
            Self::GetBlocks(_) => kind::GETBLOCKS,
            Self::GetHeaders(_) => kind::GETHEADERS,
            Self::Headers(_) => kind::HEADERS,
            Self::SendHeaders => kind::SENDHEADERS,
            Self::Block(_) => kind::BLOCK,
            Self::Tx(_) => kind::TX,
            Self::Reject(_) => kind::REJECT,
            Self::Mempool => kind::MEMPOOL,
            Self::FilterLoad(_) => kind::FILTERLOAD,
            Self::FilterAdd(_) => kind::FILTERADD,
            Self::FilterClear => kind::FILTERCLEAR,
            Self::MerkleBlock(_) => kind::MERKLEBLOCK,
            Self::FeeFilter(_) => kind::FEEFILTER,
            Self::SendCmpct(_) => kind::SENDCMPCT,
            Self::CmpctBlock(_) => kind::CMPCTBLOCK,
            Self::GetBlockTxn(_) => kind::GETBLOCKTXN,
            Self::BlockTxn(_) => kind::BLOCKTXN,
            Self::GetProof(_) => kind::GETPROOF,
            Self::Proof(_) => kind::PROOF,
            Self::Claim(_) => kind::CLAIM,
            Self::Airdrop(_) => kind::AIRDROP,
            Self::Unknown { kind, .. } => *kind,
        }
    }

    /// Its name, a label for metrics and logs.
    pub fn name(&self) -> &'static str {
        kind_info(self.kind()).map_or(UNKNOWN, |info| info.name)
    }
}

/// Name of every kind that has none.
const UNKNOWN: &str = "unknown";
