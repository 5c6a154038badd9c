//! Signed records: where a peer says that it can be reached.
//!
//! ```text
//! key hashes: ML-DSA-65 32, Ed25519 32 | key: length u16, SPKI | sequence u64 | expiry u64, seconds since 1970
//! | count u8 (to 8), addresses | signature: length u16, signature
//! ```
//!
//! The peer's identity is computed from the two key hashes; the key that signs must be one of the two. Signed is a
//! domain, the network's id, and everything before the signature as it stands: a record means nothing in another
//! network and as no other kind of statement. A higher sequence replaces a lower one. Whoever passes a record on cannot
//! change it; what he can do is to hold it back, or to show an old one until it expires.

use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use rookery_base::{DecodeError, Hash32, PeerId, Reader};
use rookery_transport::tls::{Identity, KeyHashes, verify};

use super::address::{MAX_ADDR_LEN, MAX_ADDRS, put_addrs, read_addrs};
use crate::crypto::{MAX_SIGNATURE, MAX_SPKI, holds};

/// Bytes of the longest record: with an ML-DSA-65 key and eight IPv6 addresses.
pub const MAX_RECORD: usize = 64 + 2 + MAX_SPKI + 16 + 1 + MAX_ADDRS * MAX_ADDR_LEN + 2 + MAX_SIGNATURE;
/// Bytes of the shortest record: with an Ed25519 key and no address.
pub const MIN_RECORD: usize = 64 + 2 + 44 + 16 + 1 + 2 + 64;

const DOMAIN: &[u8] = b"rookery overlay record v1";

/// A record as it was signed. Whether the signature holds is asked of it once, with [`SignedRecord::verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedRecord {
    /// The identity's keys.
    pub keys: KeyHashes,
    /// Counts the owner's records; the highest is in force.
    pub sequence: u64,
    /// When it ends, in seconds since 1970.
    pub expiry: u64,
    /// Where the owner can be reached.
    pub addrs: Vec<SocketAddr>,
    /// All of it as it travels.
    raw: Bytes,
    /// Where in `raw` the key is.
    key: (usize, usize),
    /// Where in `raw` what was signed ends.
    signed: usize,
}

impl SignedRecord {
    /// Signs a record of our own. `None` when the cryptographic library fails.
    pub fn sign(
        network: &Hash32,
        owner: &Identity,
        sequence: u64,
        expiry: u64,
        addrs: &[SocketAddr],
    ) -> Option<Self> {
        let keys = owner.hashes();
        let mut out = BytesMut::with_capacity(MAX_RECORD);
        out.put_slice(&keys.post_quantum);
        out.put_slice(&keys.classic);
        super::put_bytes16(&mut out, owner.public_key());
        out.put_u64(sequence);
        out.put_u64(expiry);
        put_addrs(&mut out, addrs);
        let signature = owner.sign(&statement(network, &out)).ok()?;
        super::put_bytes16(&mut out, &signature);
        Self::decode(&out.freeze()).ok()
    }

    /// Takes a record apart. Keys and signature stay where they are.
    ///
    /// # Errors
    /// When the bytes are no record, or its key is none of its identity's.
    pub fn decode(raw: &Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(raw);
        let keys = KeyHashes { post_quantum: reader.array("key hash")?, classic: reader.array("key hash")? };
        let at = reader.at();
        let spki = super::bytes16(&mut reader, MAX_SPKI, "key")?;
        if !holds(&keys, spki) {
            return Err(DecodeError::Invalid { what: "key, which is none of the identity's,", at });
        }
        let key = (reader.at() - spki.len(), reader.at());
        let sequence = super::u64_be(&mut reader, "sequence")?;
        let expiry = super::u64_be(&mut reader, "expiry")?;
        let addrs = read_addrs(&mut reader, "addresses")?;
        let signed = reader.at();
        super::bytes16(&mut reader, MAX_SIGNATURE, "signature")?;
        reader.finish()?;
        Ok(Self { keys, sequence, expiry, addrs, raw: raw.clone(), key, signed })
    }

    /// Whether its owner signed it, for this network. 46 microseconds for ML-DSA-65.
    pub fn verify(&self, network: &Hash32) -> bool {
        let (from, to) = self.key;
        let signature = &self.raw[self.signed + 2..];
        verify(&self.raw[from..to], &statement(network, &self.raw[..self.signed]), signature)
    }

    /// Whose it is.
    pub fn id(&self) -> PeerId {
        self.keys.peer_id()
    }

    /// All of it as it travels.
    pub const fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// The same in memory of its own: a record that is kept must not keep the message in which it came.
    #[must_use]
    pub fn detached(self) -> Self {
        Self { raw: Bytes::copy_from_slice(&self.raw), ..self }
    }
}

fn statement(network: &Hash32, content: &[u8]) -> Vec<u8> {
    [DOMAIN, network.as_bytes(), content].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::testing::{arb_addr, check_canonical};
    use proptest::prelude::*;
    use rookery_transport::tls::Keys;

    const NETWORK: Hash32 = Hash32([3; 32]);

    fn signed(keys: Keys, addrs: &[SocketAddr]) -> SignedRecord {
        let key = Identity::from_seed(&[5; 32], keys).unwrap();
        SignedRecord::sign(&NETWORK, &key, 7, 1_800_000_000, addrs).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn records_round_trip_and_hold(addrs in proptest::collection::vec(arb_addr(), 0..=8)) {
            for keys in [Keys::Classic, Keys::PostQuantum, Keys::Both] {
                let record = signed(keys, &addrs);
                prop_assert_eq!(SignedRecord::decode(record.raw()), Ok(record.clone()));
                prop_assert_eq!(&record.addrs, &addrs);
                prop_assert!(record.verify(&NETWORK));
                prop_assert!(!record.verify(&Hash32([4; 32])), "another network");
                prop_assert!((MIN_RECORD..=MAX_RECORD).contains(&record.raw().len()));
            }
        }
    }

    #[test]
    fn no_changed_byte_and_no_cut_passes() {
        let record = signed(Keys::Classic, &["1.2.3.4:5".parse().unwrap()]);
        check_canonical(record.raw(), |bytes| {
            Some(SignedRecord::decode(&Bytes::copy_from_slice(bytes)).ok()?.raw().to_vec())
        });
        for at in 0..record.raw().len() {
            let mut damaged = record.raw().to_vec();
            damaged[at] ^= 0x10;
            let passes = SignedRecord::decode(&damaged.into()).is_ok_and(|record| record.verify(&NETWORK));
            assert!(!passes, "byte {at}");
        }
    }

    #[test]
    fn no_changed_byte_of_an_ml_dsa_record_passes() {
        let record = signed(Keys::PostQuantum, &["1.2.3.4:5".parse().unwrap()]);
        for at in (0..record.raw().len()).step_by(37) {
            let mut damaged = record.raw().to_vec();
            damaged[at] ^= 0x10;
            let passes = SignedRecord::decode(&damaged.into()).is_ok_and(|record| record.verify(&NETWORK));
            assert!(!passes, "byte {at}");
        }
    }

    #[test]
    fn the_bounds_are_met_exactly() {
        let v6: SocketAddr = "[2001:db8::1]:5".parse().unwrap();
        assert_eq!(signed(Keys::PostQuantum, &[v6; 9]).raw().len(), MAX_RECORD);
        assert_eq!(signed(Keys::Classic, &[]).raw().len(), MIN_RECORD);
    }

    #[test]
    fn a_key_of_another_identity_cannot_sign() {
        let record = signed(Keys::Classic, &[]);
        let mut foreign = record.raw().to_vec();
        foreign[32] ^= 1;
        let error = SignedRecord::decode(&foreign.into()).unwrap_err();
        assert!(error.to_string().contains("none of the identity's"), "{error}");
    }
}
