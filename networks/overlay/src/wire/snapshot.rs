//! The file that remembers whom to dial after a restart.
//!
//! ```text
//! "ROOKOVSN" | version u16 | network id 32 | owner: identity 32 | made u64, seconds since 1970
//! | count u16 (to 256) | each: reached u64, address | HMAC-SHA-256 of all before, 32
//! ```
//!
//! It holds addresses to dial and when each last answered, and nothing that anybody would have to believe: an address
//! from it earns its place again by answering. The key of the code at its end is the owner's secret, so a file of another
//! node, a damaged file, and one that was written by somebody else are all refused, each with its reason. A refused
//! file costs a start from the bootstrap nodes, nothing more.

use std::net::SocketAddr;

use aws_lc_rs::hmac;
use bytes::BufMut;
use rookery_base::{DecodeError, Hash32, PeerId, Reader};

use super::address::{MAX_ADDR_LEN, is_sendable, put_addr, read_addr};

/// Addresses in a file: many times what is dialled, few enough that a file is small.
pub const MAX_CANDIDATES: usize = 256;
/// Bytes of the largest file. Check a file's size against it before reading it.
pub const MAX_FILE: usize = HEAD + MAX_CANDIDATES * (8 + MAX_ADDR_LEN) + MAC;

const MAGIC: [u8; 8] = *b"ROOKOVSN";
const VERSION: u16 = 1;
const HEAD: usize = 8 + 2 + 32 + 32 + 8 + 2;
const MAC: usize = 32;

/// An address to dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// The address.
    pub addr: SocketAddr,
    /// When it last answered, in seconds since 1970.
    pub reached: u64,
}

/// Whose file it is, on which network, and the secret that proves it.
#[derive(Clone, Copy)]
pub struct Owner {
    /// The network's id.
    pub network: Hash32,
    /// The owner's identity.
    pub peer: PeerId,
    /// 32 bytes that nobody else has, such as a hash of the identity's seed under a label of its own.
    pub secret: [u8; 32],
}

/// Why a file is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Larger than any that is written.
    #[error("the file has {0} bytes, the most is {MAX_FILE}")]
    Huge(usize),
    /// Something else.
    #[error("the file is no snapshot of an overlay node")]
    NotASnapshot,
    /// Written by a version that is not known here.
    #[error("the file has version {0}, this program reads {VERSION}")]
    Version(u16),
    /// Of another network.
    #[error("the file is of network {0}")]
    Network(Hash32),
    /// Of another node.
    #[error("the file belongs to node {0}")]
    Foreign(String),
    /// Cut off or damaged, or written by somebody without the owner's secret.
    #[error("the file is damaged, or was not written by this node")]
    Damaged,
    /// Written by the owner and yet not in order: a bug.
    #[error("the file does not decode: {0}")]
    Content(#[from] DecodeError),
}

/// What a snapshot says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// When it was made, in seconds since 1970.
    pub made: u64,
    /// Whom to dial, best first.
    pub candidates: Vec<Candidate>,
}

impl Snapshot {
    /// The file. Candidates beyond the bound, and such as cannot be dialled, are left out.
    pub fn encode(&self, owner: &Owner) -> Vec<u8> {
        let candidates: Vec<&Candidate> = self
            .candidates
            .iter()
            .filter(|candidate| is_sendable(&candidate.addr))
            .take(MAX_CANDIDATES)
            .collect();
        let mut out = Vec::with_capacity(MAX_FILE);
        out.put_slice(&MAGIC);
        out.put_u16(VERSION);
        out.put_slice(owner.network.as_bytes());
        out.put_slice(owner.peer.as_bytes());
        out.put_u64(self.made);
        out.put_u16(candidates.len() as u16);
        for candidate in candidates {
            out.put_u64(candidate.reached);
            put_addr(&mut out, candidate.addr);
        }
        let tag = hmac::sign(&owner.key(), &out);
        out.put_slice(tag.as_ref());
        out
    }

    /// Reads a file.
    ///
    /// # Errors
    /// With the first reason that speaks against it; its content is not looked at before its code holds.
    pub fn decode(file: &[u8], owner: &Owner) -> Result<Self, SnapshotError> {
        if file.len() > MAX_FILE {
            return Err(SnapshotError::Huge(file.len()));
        }
        let not_one = |_| SnapshotError::NotASnapshot;
        let mut reader = Reader::new(file);
        if reader.array("magic").map_err(not_one)? != MAGIC {
            return Err(SnapshotError::NotASnapshot);
        }
        let version = reader.u16_be("version").map_err(not_one)?;
        if version != VERSION {
            return Err(SnapshotError::Version(version));
        }
        let damaged = |_| SnapshotError::Damaged;
        let network = reader.hash("network id").map_err(damaged)?;
        if network != owner.network {
            return Err(SnapshotError::Network(network));
        }
        let peer = reader.hash("owner").map_err(damaged)?;
        if peer.as_bytes() != owner.peer.as_bytes() {
            return Err(SnapshotError::Foreign(peer.to_string()));
        }
        let (content, tag) = file.split_last_chunk::<MAC>().ok_or(SnapshotError::Damaged)?;
        hmac::verify(&owner.key(), content, tag).map_err(|_| SnapshotError::Damaged)?;
        Ok(Self::content(&content[reader.at()..])?)
    }

    fn content(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let made = super::u64_be(&mut reader, "made")?;
        let at = reader.at();
        let count = usize::from(reader.u16_be("count of candidates")?);
        super::within(count, MAX_CANDIDATES, "count of candidates", at)?;
        let mut candidates = Vec::new();
        for _ in 0..count {
            let reached = super::u64_be(&mut reader, "reached")?;
            candidates.push(Candidate { addr: read_addr(&mut reader, "candidate")?, reached });
        }
        reader.finish().map(|()| Self { made, candidates })
    }
}

impl Owner {
    fn key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &self.secret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::testing::arb_addr;
    use proptest::prelude::*;

    fn owner(n: u8) -> Owner {
        Owner { network: Hash32([1; 32]), peer: PeerId::from_bytes(&[n; 32]).unwrap(), secret: [n; 32] }
    }

    fn snapshot(count: u8) -> Snapshot {
        let candidate = |n| Candidate { addr: SocketAddr::from(([9, 9, 9, n], 7000)), reached: 5 };
        Snapshot { made: 1_700_000_000, candidates: (0..count).map(candidate).collect() }
    }

    proptest! {
        #[test]
        fn files_round_trip(made: u64, candidates in proptest::collection::vec((any::<u64>(), arb_addr()), 0..20)) {
            let candidates = candidates.into_iter().map(|(reached, addr)| Candidate { addr, reached }).collect();
            let snapshot = Snapshot { made, candidates };
            prop_assert_eq!(Snapshot::decode(&snapshot.encode(&owner(1)), &owner(1)), Ok(snapshot));
        }
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_refused() {
        let file = snapshot(3).encode(&owner(1));
        for cut in 0..file.len() {
            assert!(Snapshot::decode(&file[..cut], &owner(1)).is_err(), "cut at {cut}");
        }
        for at in 0..file.len() {
            for bit in [1, 0x80] {
                let mut damaged = file.clone();
                damaged[at] ^= bit;
                assert!(Snapshot::decode(&damaged, &owner(1)).is_err(), "byte {at}");
            }
        }
        assert!(Snapshot::decode(&[&file[..], &[0]].concat(), &owner(1)).is_err());
    }

    #[test]
    fn a_refusal_names_its_reason() {
        let file = snapshot(3).encode(&owner(1));
        let why = |file: &[u8], owner: &Owner| Snapshot::decode(file, owner).unwrap_err();
        assert!(matches!(why(&file, &owner(2)), SnapshotError::Foreign(node) if node.starts_with("0101")));
        let elsewhere = Owner { network: Hash32([2; 32]), ..owner(1) };
        assert_eq!(why(&file, &elsewhere), SnapshotError::Network(Hash32([1; 32])));
        assert_eq!(why(&file, &Owner { secret: [9; 32], ..owner(1) }), SnapshotError::Damaged, "a forgery");
        assert_eq!(why(b"{}", &owner(1)), SnapshotError::NotASnapshot);
        assert_eq!(why(&vec![0; MAX_FILE + 1], &owner(1)), SnapshotError::Huge(MAX_FILE + 1));
        let mut newer = file;
        newer[9] = 2;
        assert_eq!(why(&newer, &owner(1)), SnapshotError::Version(2));
    }

    #[test]
    fn the_largest_file_fits_its_bound() {
        let v6: SocketAddr = "[2001:db8::1]:7".parse().unwrap();
        let many = Snapshot { made: 0, candidates: vec![Candidate { addr: v6, reached: 0 }; 300] };
        let file = many.encode(&owner(1));
        assert_eq!(file.len(), MAX_FILE);
        assert_eq!(Snapshot::decode(&file, &owner(1)).unwrap().candidates.len(), MAX_CANDIDATES);
    }
}
