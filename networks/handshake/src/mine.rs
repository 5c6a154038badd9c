//! Mining empty blocks on the networks whose target is within reach of one processor (regtest, simnet): for demos,
//! devnets and tests. On the others [`mine`] gives up after its stated number of tries.
//!
//! An empty block is a header and one coinbase transaction that pays the whole reward:
//!
//! ```text
//! block    = header | 01 | coinbase
//! coinbase = version 0 | 01 | prevout 32 x 00, ffffffff | sequence | 01 | reward u64 | address | covenant 00 00
//!            | locktime = height | witness: 01, note
//! address  = version u8 | length u8 | hash
//! txid         = BLAKE2b-256(coinbase without witness)
//! witness hash = BLAKE2b-256(txid || BLAKE2b-256(witness))
//! root of one leaf = BLAKE2b-256(00 || leaf)      merkleRoot of the txid, witnessRoot of the witness hash
//! ```
//!
//! The tree root is copied from the parent unless the caller gives another: a chain of empty blocks changes no name.
//!
//! [`synthetic`] makes long header chains without blocks.

pub mod synthetic;

use rookery_base::{Hash32, Height};
use rookery_sync::{Ancestry, HeaderFacts, HeaderFault};

use crate::chain::header::{Header, RawHeader, at};
use crate::chain::{Bar, facts_of, hash, rules};
use crate::params::Params;

/// The largest note in a coinbase: its witness may have 1,000 bytes, of which four tell counts and lengths.
pub const MAX_NOTE: usize = 996;

/// The largest version of an address.
const MAX_ADDRESS_VERSION: u8 = 31;

/// Whom a coinbase pays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payee {
    version: u8,
    hash: Vec<u8>,
}

impl Payee {
    /// An address by its version and hash; `None` if no node would accept it.
    pub fn new(version: u8, hash: &[u8]) -> Option<Self> {
        let fits = match version {
            0 => matches!(hash.len(), 20 | 32),
            1..=MAX_ADDRESS_VERSION => (2..=40).contains(&hash.len()),
            _ => false,
        };
        fits.then(|| Self { version, hash: hash.to_vec() })
    }
}

/// What the next block shall be.
#[derive(Debug, Clone)]
pub struct Template {
    params: &'static Params,
    height: Height,
    header: Header,
    payee: Payee,
    note: Vec<u8>,
}

impl Template {
    /// The block at `time` after `parent`, which ends `branch`. Its bits follow from the rules.
    ///
    /// # Errors
    /// The header's fault if the rules allow no block at that time, or cannot tell.
    pub fn after(
        params: &'static Params,
        parent: &RawHeader,
        branch: &dyn Ancestry,
        time: u64,
        payee: Payee,
    ) -> Result<Self, HeaderFault> {
        let fields = Header::decode(parent);
        let header = Header {
            time,
            prev: hash::hash(parent),
            tree_root: fields.tree_root,
            reserved_root: fields.reserved_root,
            bits: rules::expected_bits(params, time, branch)?,
            ..Header::default()
        };
        let height = branch.height().checked_add(1).ok_or(HeaderFault::Malformed)?;
        rules::after_median(&facts_of(&header.encode(), Hash32::ZERO), branch)?;
        Ok(Self { params, height, header, payee, note: b"rookery".to_vec() })
    }

    /// With other roots than the parent's.
    #[must_use]
    pub fn with_roots(mut self, tree_root: Hash32, reserved_root: Hash32) -> Self {
        self.header.tree_root = tree_root;
        self.header.reserved_root = reserved_root;
        self
    }

    /// With a note in the coinbase, cut at [`MAX_NOTE`]. Blocks that differ in nothing else differ by their notes.
    #[must_use]
    pub fn with_note(mut self, note: &[u8]) -> Self {
        self.note = note[..note.len().min(MAX_NOTE)].to_vec();
        self
    }

    /// Height of the block.
    pub const fn height(&self) -> Height {
        self.height
    }

    /// Its compact target.
    pub const fn bits(&self) -> u32 {
        self.header.bits
    }
}

/// A block with its proof of work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mined {
    /// Height of the block.
    pub height: Height,
    /// Its header.
    pub header: RawHeader,
    /// The whole block, header first.
    pub block: Vec<u8>,
    /// What sync needs to know of it.
    pub facts: HeaderFacts,
}

/// Grinds the template's nonce from 0 on, at most `tries` times; `None` if none of them met the target.
pub fn mine(template: &Template, tries: u32) -> Option<Mined> {
    let (base, witness) = coinbase(template);
    let (merkle_root, witness_root) = roots(&base, &witness);
    let mut header = Header { merkle_root, witness_root, ..template.header }.encode();
    let facts = grind(&mut header, tries)?;
    let block = [&header[..], &[1], &base, &witness].concat();
    Some(Mined { height: template.height, header, block, facts })
}

/// Finds a nonce for the header and leaves it there.
fn grind(header: &mut RawHeader, tries: u32) -> Option<HeaderFacts> {
    let mut bar = Bar::default();
    let bits = crate::chain::header::bits(header);
    for nonce in 0..tries {
        header[at::NONCE..at::TIME].copy_from_slice(&nonce.to_le_bytes());
        let hash = hash::hash(header);
        if bar.met(bits, &hash) {
            return Some(facts_of(header, hash));
        }
    }
    None
}

/// The coinbase transaction: what its id covers, and its witness.
fn coinbase(template: &Template) -> (Vec<u8>, Vec<u8>) {
    const NO_TRANSACTION: [u8; 36] = {
        let mut prevout = [0; 36];
        prevout[32] = 0xff;
        prevout[33] = 0xff;
        prevout[34] = 0xff;
        prevout[35] = 0xff;
        prevout
    };
    const VERSION: [u8; 4] = [0; 4];
    const SEQUENCE: [u8; 4] = [0xff; 4];
    const NO_COVENANT: [u8; 2] = [0; 2];
    let payee = &template.payee;
    let length = u8::try_from(payee.hash.len()).expect("a payee's hash has at most 40 bytes");
    let base = [
        &VERSION[..],
        &[1],
        &NO_TRANSACTION,
        &SEQUENCE,
        &[1],
        &template.params.reward(template.height).to_le_bytes(),
        &[payee.version, length],
        &payee.hash,
        &NO_COVENANT,
        &template.height.to_le_bytes(),
    ]
    .concat();
    let witness = [&[1], compact_size(template.note.len()).as_slice(), &template.note].concat();
    (base, witness)
}

/// A compact-size length, as far as a note needs it.
fn compact_size(len: usize) -> Vec<u8> {
    match u8::try_from(len) {
        Ok(short @ ..0xfd) => vec![short],
        _ => {
            let [low, high] = u16::try_from(len).expect("a note has at most 996 bytes").to_le_bytes();
            vec![0xfd, low, high]
        }
    }
}

/// Merkle root and witness root of a block with this one transaction.
fn roots(base: &[u8], witness: &[u8]) -> (Hash32, Hash32) {
    let id = hash::blake(base);
    let witness_hash = hash::blake(&[id, hash::blake(witness)].concat());
    (only_leaf(&id), only_leaf(&witness_hash))
}

/// The root of a tree with one leaf.
fn only_leaf(leaf: &[u8; 32]) -> Hash32 {
    Hash32(hash::blake(&[&[0], leaf.as_slice()].concat()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::recent::Recent;
    use crate::params::{BASE_REWARD, MAIN, REGTEST};
    use rookery_base::Work;

    fn template() -> Template {
        let facts = facts_of(&REGTEST.genesis, REGTEST.genesis_hash);
        let branch = Recent::new(0, &facts, Work::from(2));
        let payee = Payee::new(0, &[7; 20]).unwrap();
        Template::after(&REGTEST, &REGTEST.genesis, &branch, facts.time + 1, payee).unwrap()
    }

    #[test]
    fn roots_of_the_genesis_coinbase_are_those_in_its_header() {
        // Same layout as ours, up to the witness: one input, one output to a 20-byte version 0 address.
        let base = const_hex::decode(concat!(
            "0000000001",
            "0000000000000000000000000000000000000000000000000000000000000000ffffffffffffffff",
            "01d04c5777000000000014f0237ae2e8f860f7d79124fc513f012e5aaa8d23000000000000",
        ))
        .unwrap();
        let witness = const_hex::decode(concat!(
            "042050b8937fc5def08f9f3cbda7e5f08c706edb80aba5880c000000000000000000202d5de58609d4970fb548f85ad0",
            "7a87db40e054e34cc81c951ca995a58f674db72010d748eda1b9c67b94d3244e0211677618a9b4b329e896ad90431f9f",
            "48034bad20e2c0299a1e466773516655f09a64b1e16b2579530de6c4a59ce5654dea45180f",
        ))
        .unwrap();
        let genesis = Header::decode(&MAIN.genesis);
        assert_eq!(roots(&base, &witness), (genesis.merkle_root, genesis.witness_root));
    }

    #[test]
    fn a_block_holds_its_header_and_one_coinbase_for_its_height() {
        let mined = mine(&template(), 1 << 16).unwrap();
        assert_eq!(mined.height, 1);
        assert_eq!(mined.block[..mined.header.len()], mined.header);
        assert_eq!(mined.facts.prev, REGTEST.genesis_hash);
        let coinbase = &mined.block[mined.header.len() + 1..];
        let reward = BASE_REWARD.to_le_bytes();
        assert!(coinbase.windows(8).any(|window| window == reward));
        let locktime = coinbase.len() - "rookery".len() - 2 - 4;
        assert_eq!(coinbase[locktime..locktime + 4], 1u32.to_le_bytes());
    }

    #[test]
    fn notes_of_every_length_keep_the_witness_within_its_limit() {
        for len in [0, 1, 0xfc, 0xfd, 0x100, MAX_NOTE, MAX_NOTE + 1] {
            let template = template().with_note(&vec![1; len]);
            let (_, witness) = coinbase(&template);
            assert!(witness.len() <= 1000);
            let prefix = if len < 0xfd { 2 } else { 4 };
            assert_eq!(witness.len(), prefix + len.min(MAX_NOTE));
        }
    }

    #[test]
    fn roots_and_notes_change_the_block_and_nothing_is_mined_out_of_reach() {
        let plain = mine(&template(), 1 << 16).unwrap();
        let noted = mine(&template().with_note(b"other"), 1 << 16).unwrap();
        assert_ne!(plain.facts.hash, noted.facts.hash);
        let rooted = mine(&template().with_roots(Hash32([1; 32]), Hash32([2; 32])), 1 << 16).unwrap();
        let fields = Header::decode(&rooted.header);
        assert_eq!((fields.tree_root, fields.reserved_root), (Hash32([1; 32]), Hash32([2; 32])));
        assert_eq!(mine(&template(), 0), None);
    }

    #[test]
    fn a_block_before_the_median_is_refused() {
        let facts = facts_of(&REGTEST.genesis, REGTEST.genesis_hash);
        let branch = Recent::new(0, &facts, Work::from(2));
        let payee = Payee::new(0, &[7; 20]).unwrap();
        let refused = Template::after(&REGTEST, &REGTEST.genesis, &branch, facts.time, payee).unwrap_err();
        assert_eq!(refused, HeaderFault::TooOld { time: facts.time, median: facts.time });
    }

    #[test]
    fn addresses_have_the_lengths_of_their_version() {
        for (version, len, fits) in [
            (0, 20, true),
            (0, 32, true),
            (0, 21, false),
            (1, 2, true),
            (1, 1, false),
            (31, 40, true),
            (31, 41, false),
            (32, 20, false),
        ] {
            assert_eq!(Payee::new(version, &vec![0; len]).is_some(), fits, "version {version}, {len} bytes");
        }
    }
}
