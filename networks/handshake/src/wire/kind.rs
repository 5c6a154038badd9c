//! Every kind of packet with its bounds, known before its payload is read.

use super::address::{MAX_ADDRS, NetAddress};
use super::block::{Block, MAX_BLOCK_TXS, MAX_MERKLE_FLAGS, MerkleBlock};
use super::body::Wire;
use super::compact::{BlockTxn, CompactBlock, GetBlockTxn, MAX_TX_INDEX, SendCmpct};
use super::filter::{FeeFilter, FilterAdd, FilterLoad, MAX_FILTER, MAX_FILTER_ITEM};
use super::headers::{HEADER_LEN, Headers, MAX_HEADERS};
use super::inventory::{Inv, Locator, MAX_INV, MAX_LOCATOR};
use super::proof::{Airdrop, Claim, GetProof, MAX_AIRDROP, MAX_CLAIM, MAX_TREE_PROOF, Proof};
use super::reject::Reject;
use super::text::Text;
use super::tx::{MAX_RAW_BLOCK, Tx};
use super::version::Version;

macro_rules! kinds {
    ($($name:ident = $value:literal, $doc:literal;)*) => {$(
        #[doc = $doc]
        pub const $name: u8 = $value;
    )*};
}

kinds! {
    VERSION = 0, "What the sender is.";
    VERACK = 1, "The other side's version is accepted.";
    PING = 2, "Asks for a sign of life.";
    PONG = 3, "Answers a ping with its nonce.";
    GETADDR = 4, "Asks for addresses.";
    ADDR = 5, "Addresses of peers.";
    INV = 6, "What the sender has.";
    GETDATA = 7, "Asks for items by hash.";
    NOTFOUND = 8, "Items asked for that the sender lacks.";
    GETBLOCKS = 9, "Asks for an inventory of the blocks after a locator.";
    GETHEADERS = 10, "Asks for the headers after a locator.";
    HEADERS = 11, "Headers.";
    SENDHEADERS = 12, "Announce new blocks by header.";
    BLOCK = 13, "A block.";
    TX = 14, "A transaction.";
    REJECT = 15, "Why the sender refused something.";
    MEMPOOL = 16, "Asks for an inventory of unconfirmed transactions.";
    FILTERLOAD = 17, "Sets a bloom filter.";
    FILTERADD = 18, "Adds to the bloom filter.";
    FILTERCLEAR = 19, "Drops the bloom filter.";
    MERKLEBLOCK = 20, "A block as the bloom filter sees it.";
    FEEFILTER = 21, "Announce only transactions of at least this fee rate.";
    SENDCMPCT = 22, "How to announce new blocks.";
    CMPCTBLOCK = 23, "A block by short ids.";
    GETBLOCKTXN = 24, "Asks for transactions of a compact block.";
    BLOCKTXN = 25, "Transactions of a compact block.";
    GETPROOF = 26, "Asks what a name tree holds under a key.";
    PROOF = 27, "What a name tree holds under a key.";
    CLAIM = 28, "A claim of a reserved name.";
    AIRDROP = 29, "An airdrop proof.";
}

/// Most bytes behind a packet that are read over where hsd reads over any number: more than any field that could be
/// added to a packet needs, and little enough to be no way of filling memory with a ping.
pub const MAX_TRAILING: usize = 1024;

/// What happens to bytes behind the last field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trailing {
    /// Up to [`MAX_TRAILING`] are dropped, so that a newer peer may add fields.
    Ignored,
    /// They are an error. hsd would drop them, but these payloads are proven by hashes, kept or passed on as they
    /// are, and no honest encoder makes them longer.
    Refused,
}

/// A kind's name and bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KindInfo {
    /// Its number on the wire.
    pub kind: u8,
    /// Its name, a label for metrics and logs.
    pub name: &'static str,
    /// Bytes of its smallest encoding.
    pub min: usize,
    /// Bytes of its largest encoding.
    pub max: usize,
    /// What happens to bytes behind it.
    pub trailing: Trailing,
}

impl KindInfo {
    const fn tolerant(kind: u8, name: &'static str, min: usize, max: usize) -> Self {
        Self { kind, name, min, max, trailing: Trailing::Ignored }
    }

    const fn strict(kind: u8, name: &'static str, min: usize, max: usize) -> Self {
        Self { kind, name, min, max, trailing: Trailing::Refused }
    }

    /// The longest payload that is read: the largest encoding and what may follow it.
    pub const fn max_payload(&self) -> usize {
        match self.trailing {
            Trailing::Ignored => self.max + MAX_TRAILING,
            Trailing::Refused => self.max,
        }
    }
}

/// Bytes of a compact-size count or length of up to 65,535, as all of them are here.
const COUNT: usize = 3;

const MAX_LIST_INV: usize = COUNT + MAX_INV * Inv::MIN;
const MAX_LIST_LOCATOR: usize = COUNT + MAX_LOCATOR * 32 + 32;
const MAX_MERKLE_BLOCK: usize = HEADER_LEN + 4 + COUNT + MAX_BLOCK_TXS * 32 + COUNT + MAX_MERKLE_FLAGS;

/// A whole raw block, its nonce, an empty list of ids, and a place before each transaction.
const MAX_COMPACT_BLOCK: usize = MAX_RAW_BLOCK + 8 + 1 + MAX_BLOCK_TXS * 3;

/// One byte for each place asked for, and two more for every gap of at least 0xfd; the places that are not asked for
/// make only so many of those.
const MAX_GET_BLOCK_TXN: usize =
    32 + COUNT + MAX_BLOCK_TXS + 2 * ((MAX_TX_INDEX as usize + 1 - MAX_BLOCK_TXS) / 0xfd);

/// All kinds, at the index of their number.
pub static KINDS: [KindInfo; 30] = [
    KindInfo::tolerant(VERSION, "version", Version::MIN, Version::MIN + Text::MAX),
    KindInfo::tolerant(VERACK, "verack", 0, 0),
    KindInfo::tolerant(PING, "ping", 8, 8),
    KindInfo::tolerant(PONG, "pong", 8, 8),
    KindInfo::tolerant(GETADDR, "getaddr", 0, 0),
    KindInfo::tolerant(ADDR, "addr", 1, COUNT + MAX_ADDRS * NetAddress::MIN),
    KindInfo::tolerant(INV, "inv", 1, MAX_LIST_INV),
    KindInfo::tolerant(GETDATA, "getdata", 1, MAX_LIST_INV),
    KindInfo::tolerant(NOTFOUND, "notfound", 1, MAX_LIST_INV),
    KindInfo::tolerant(GETBLOCKS, "getblocks", Locator::MIN, MAX_LIST_LOCATOR),
    KindInfo::tolerant(GETHEADERS, "getheaders", Locator::MIN, MAX_LIST_LOCATOR),
    KindInfo::strict(HEADERS, "headers", Headers::MIN, COUNT + MAX_HEADERS * HEADER_LEN),
    KindInfo::tolerant(SENDHEADERS, "sendheaders", 0, 0),
    KindInfo::strict(BLOCK, "block", Block::MIN, MAX_RAW_BLOCK),
    KindInfo::strict(TX, "tx", Tx::MIN, MAX_RAW_BLOCK),
    KindInfo::tolerant(REJECT, "reject", Reject::MIN, Reject::MIN + Text::MAX + 32),
    KindInfo::tolerant(MEMPOOL, "mempool", 0, 0),
    KindInfo::tolerant(FILTERLOAD, "filterload", FilterLoad::MIN, COUNT + MAX_FILTER + 9),
    KindInfo::tolerant(FILTERADD, "filteradd", FilterAdd::MIN, COUNT + MAX_FILTER_ITEM),
    KindInfo::tolerant(FILTERCLEAR, "filterclear", 0, 0),
    KindInfo::strict(MERKLEBLOCK, "merkleblock", MerkleBlock::MIN, MAX_MERKLE_BLOCK),
    KindInfo::tolerant(FEEFILTER, "feefilter", FeeFilter::MIN, FeeFilter::MIN),
    KindInfo::tolerant(SENDCMPCT, "sendcmpct", SendCmpct::MIN, SendCmpct::MIN),
    KindInfo::strict(CMPCTBLOCK, "cmpctblock", CompactBlock::MIN, MAX_COMPACT_BLOCK),
    KindInfo::tolerant(GETBLOCKTXN, "getblocktxn", GetBlockTxn::MIN, MAX_GET_BLOCK_TXN),
    KindInfo::strict(BLOCKTXN, "blocktxn", BlockTxn::MIN, MAX_RAW_BLOCK),
    KindInfo::tolerant(GETPROOF, "getproof", GetProof::MIN, GetProof::MIN),
    KindInfo::strict(PROOF, "proof", Proof::MIN, GetProof::MIN + MAX_TREE_PROOF),
    KindInfo::strict(CLAIM, "claim", Claim::MIN, 2 + MAX_CLAIM),
    KindInfo::strict(AIRDROP, "airdrop", Airdrop::MIN, MAX_AIRDROP),
];

/// Name and bounds of a kind; `None` for kinds this version does not know, which are skipped.
pub fn kind_info(kind: u8) -> Option<&'static KindInfo> {
    KINDS.get(usize::from(kind))
}
