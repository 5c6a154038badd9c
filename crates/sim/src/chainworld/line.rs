//! Header chains that worlds begin with, made once in a process.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use rookery_base::{Hash32, Height, Work};
use rookery_handshake::chain::HandshakeChain;
use rookery_handshake::chain::header::{Header, RawHeader};
use rookery_handshake::mine::synthetic::{Synthetic, extend};
use rookery_handshake::node::NodeConfig;
use rookery_handshake::params::{Params, REGTEST};
use rookery_handshake::wire::{HEADER_LEN, MAX_HEADERS};
use rookery_store::{Batch, MemoryDisk, Run, Store};
use rookery_sync::{Chain, HeaderFacts};

/// The network of every world: its blocks cost two hashes.
pub const PARAMS: &Params = &REGTEST;
/// Headers of the trunk: three full messages and a part of one, so that a sync from nothing takes four answers.
pub const TRUNK: Height = 6_400;
/// Between two places from which a fork can be grown without growing everything below it again.
const SNAPSHOT: Height = 200;

/// A chain of headers from genesis, as a peer that serves it holds it.
#[derive(Debug, Clone)]
pub struct Line {
    /// From height 0 on.
    headers: Vec<(RawHeader, HeaderFacts)>,
}

struct Trunk {
    line: Line,
    /// The state that grows the trunk, at every multiple of [`SNAPSHOT`].
    snapshots: Vec<Synthetic>,
}

static GROWN: LazyLock<Trunk> = LazyLock::new(|| {
    let mut growing = extend(PARAMS, 0);
    let mut snapshots = vec![growing.clone()];
    let genesis = HandshakeChain::new(PARAMS).genesis().1;
    let mut headers = vec![(PARAMS.genesis, genesis)];
    for height in 1..=TRUNK {
        headers.push(growing.next().expect("this network's blocks are easy"));
        if height.is_multiple_of(SNAPSHOT) {
            snapshots.push(growing.clone());
        }
    }
    Trunk { line: Line { headers }, snapshots }
});

impl Line {
    /// The first `height` headers of the chain that all worlds share, after genesis.
    ///
    /// # Panics
    /// Above [`TRUNK`].
    pub fn trunk(height: Height) -> Self {
        Self { headers: GROWN.line.headers[..=height as usize].to_vec() }
    }

    /// The trunk up to `at`, then `count` headers of its own that nobody with another salt has.
    ///
    /// # Panics
    /// Above [`TRUNK`].
    pub fn fork(at: Height, salt: u64, count: Height) -> Self {
        let mut growing = GROWN.snapshots[(at / SNAPSHOT) as usize].clone();
        // Up to the fork the headers are the trunk's own: the same state with the same salt grows the same.
        let here = growing.height();
        growing.by_ref().take((at - here) as usize).for_each(drop);
        let mut line = Self::trunk(at);
        line.headers.extend(growing.with_salt(salt).take(count as usize));
        line
    }

    /// Height of the last header.
    pub fn height(&self) -> Height {
        (self.headers.len() - 1) as Height
    }

    /// Facts of the last header.
    pub fn tip(&self) -> &HeaderFacts {
        &self.headers[self.headers.len() - 1].1
    }

    /// The header at a height.
    pub fn at(&self, height: Height) -> &RawHeader {
        &self.headers[height as usize].0
    }

    /// Raw headers from `first` to `last`, as far as there are any.
    pub fn raw(&self, first: Height, last: Height) -> Bytes {
        let last = last.min(self.height());
        let mut raw = Vec::new();
        for height in first..=last {
            raw.extend_from_slice(self.at(height));
        }
        raw.into()
    }

    /// What hsd answers to this locator: what follows its first known hash, or genesis; at most `most` headers.
    pub fn after(&self, locator: &[Hash32], most: usize) -> Bytes {
        let known = |hash: &Hash32| self.headers.iter().position(|(_, facts)| facts.hash == *hash);
        let first = locator.iter().find_map(known).unwrap_or(0) as Height + 1;
        self.raw(first, first + most.min(MAX_HEADERS) as Height - 1)
    }

    /// A disk with a store that holds this chain.
    ///
    /// # Panics
    /// When the store refuses it, which is a bug in either.
    pub fn image(&self) -> Arc<Vec<u8>> {
        let disk = MemoryDisk::new();
        let mut store =
            Store::in_memory(&disk, &NodeConfig::new(PARAMS).store()).expect("an empty disk takes a store");
        let chain = HandshakeChain::new(PARAMS);
        let mut run = Run::extend(0, Work::ZERO);
        let mut work = Work::ZERO;
        for (raw, facts) in &self.headers {
            work = work.saturating_add(chain.proof(facts.bits));
            run.push(raw, facts.hash, work);
        }
        store.commit(&Batch { run: Some(run), ..Batch::default() }).expect("a memory disk takes a chain");
        drop(store);
        Arc::new(disk.image())
    }
}

/// Grinds the nonce of a header until its proof of work holds.
///
/// # Panics
/// When none of 2^32 nonces does.
pub fn ground(mut header: Header) -> RawHeader {
    let chain = HandshakeChain::new(PARAMS);
    for nonce in 0..=u32::MAX {
        header.nonce = nonce;
        let raw = header.encode();
        if chain.check(&raw).is_ok() {
            return raw;
        }
    }
    panic!("no nonce meets these bits: {:08x}", header.bits);
}

/// The last header of raw ones.
///
/// # Panics
/// When there is none.
pub fn last_of(raw: &[u8]) -> RawHeader {
    raw[raw.len() - HEADER_LEN..].try_into().expect("at least one header")
}
