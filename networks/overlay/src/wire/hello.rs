//! `hello`: who we are, once each way, the first bytes of stream 0.
//!
//! ```text
//! "ROOKOVL1" | length u16 (to 8,192) | fields
//!
//! version u16 | least version u16 | network id 32 | capabilities u64 | incarnation u64 | attempt u64
//! | hash of ML-DSA-65 key 32 | hash of Ed25519 key 32 | listen port u16 | count u8 (to 8), addresses
//! | observed: address, or u8 0 | agent: length u8 (to 64), printable ASCII
//! | extra: u8 0, or u8 1, scheme u8, key length u16, key, signature length u16, signature | anything, skipped
//! ```
//!
//! The connection beneath has proven one key of the sender, and the sender need not know which: that follows from what the
//! receiver's TLS knows. So a hello names both keys of its identity by their hashes (zero for one that it has not). The proven one
//! has to be one of them, in the place of its scheme; the identity is computed from both, so that a peer can lie about the other
//! only by being somebody else.
//!
//! The length comes before everything that versions may change, and the versions before everything else: a hello of versions
//! that we do not speak is not looked into. Version 1 named only the key that was not proven, which the sender had to guess.
//!
//! The extra identity binds a key of the application's to this connection: a signature over what [`extra_statement`]
//! gives. What the key means, and whether it is wanted, is the application's to say.

use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use rookery_base::{DecodeError, Hash32, PeerFault, PeerFaultKind, PeerId, Reader};

use rookery_transport::tls::KeyHashes;

use super::address::{is_sendable, put_addr, put_addrs, read_addr, read_addrs};
use crate::crypto::{MAX_SIGNATURE, MAX_SPKI};

/// What a hello begins with.
pub const MAGIC: [u8; 8] = *b"ROOKOVL1";
/// Bytes before the fields: magic and length.
pub const HEAD_LEN: usize = MAGIC.len() + 2;
/// Most bytes of fields: an extra identity of ML-DSA-65 takes 5,289, everything else 363; the rest is for growth. It is all
/// that is held for a peer that has not said hello.
pub const MAX_FIELDS: usize = 8192;
/// The version of this document.
pub const VERSION: u16 = 2;
/// The least version that is understood.
pub const MIN_VERSION: u16 = 2;
/// Longest agent, as in other networks' hellos, cut to what a table shows.
pub const MAX_AGENT: usize = 64;
/// The label under which the connection's keying material is drawn for the extra identity.
pub const EXTRA_LABEL: &[u8] = b"EXPERIMENTAL-rookery-extra-identity";
/// Bytes of keying material that the extra identity signs.
pub const EXTRA_KEYING: usize = 32;

/// A key of the application's, bound to this connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtraIdentity {
    /// Which kind of key; the application's to number.
    pub scheme: u8,
    /// The public key.
    pub key: Bytes,
    /// Over [`extra_statement`].
    pub signature: Bytes,
}

/// A hello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The highest version that the sender speaks.
    pub version: u16,
    /// The lowest.
    pub min_version: u16,
    /// SHA-256 of the network's name.
    pub network: Hash32,
    /// What the sender can do, as bits.
    pub capabilities: u64,
    /// Drawn when the sender's process started; never 0.
    pub incarnation: u64,
    /// The dialler's count of its dials; of a listener 0.
    pub attempt: u64,
    /// The hashes of the identity's keys.
    pub keys: KeyHashes,
    /// The port on which the sender listens; 0 when it does not.
    pub listen_port: u16,
    /// Where the sender believes to be reachable.
    pub addrs: Vec<SocketAddr>,
    /// Where the sender sees the receiver.
    pub observed: Option<SocketAddr>,
    /// The sender's program, for people to read.
    pub agent: String,
    /// A further key, bound to this connection.
    pub extra: Option<ExtraIdentity>,
}

/// Why a hello is none of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// Something else speaks there.
    #[error("the connection begins with {0:02x?}, not with a hello")]
    Magic([u8; 8]),
    /// The head claims more than any hello has.
    #[error("a hello of {0} bytes, the most is {MAX_FIELDS}")]
    TooLong(usize),
    /// The fields do not decode.
    #[error("hello: {0}")]
    Fields(#[from] DecodeError),
    /// A peer of another network.
    #[error("a peer of network {0}, ours is {1}")]
    Network(Hash32, Hash32),
    /// No version in common.
    #[error("speaks versions {0} to {1}, we speak {MIN_VERSION} to {VERSION}")]
    Version(u16, u16),
}

impl From<HelloError> for PeerFault {
    fn from(error: HelloError) -> Self {
        let kind = match &error {
            HelloError::Magic(_) | HelloError::Network(..) => PeerFaultKind::WrongNetwork,
            HelloError::TooLong(_) => PeerFaultKind::Oversize,
            HelloError::Fields(_) => PeerFaultKind::Malformed,
            HelloError::Version(..) => PeerFaultKind::BadHandshake,
        };
        Self::close(kind, error.to_string())
    }
}

/// How many bytes of fields follow this head.
///
/// # Errors
/// When it is the head of something else, or of a hello that is too long to be read.
pub fn fields_len(head: &[u8; HEAD_LEN]) -> Result<usize, HelloError> {
    let (magic, len) = head.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err(HelloError::Magic(magic.try_into().expect("split at its length")));
    }
    let len = usize::from(u16::from_be_bytes([len[0], len[1]]));
    if len > MAX_FIELDS {
        return Err(HelloError::TooLong(len));
    }
    Ok(len)
}

impl Hello {
    /// The whole, head and fields. Addresses beyond the eighth and characters beyond the agent's bounds are left out.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(512);
        out.put_slice(&MAGIC);
        out.put_u16(0);
        out.put_u16(self.version);
        out.put_u16(self.min_version);
        out.put_slice(self.network.as_bytes());
        out.put_u64(self.capabilities);
        out.put_u64(self.incarnation);
        out.put_u64(self.attempt);
        out.put_slice(&self.keys.post_quantum);
        out.put_slice(&self.keys.classic);
        out.put_u16(self.listen_port);
        put_addrs(&mut out, &self.addrs);
        match self.observed.filter(is_sendable) {
            Some(addr) => put_addr(&mut out, addr),
            None => out.put_u8(0),
        }
        super::put_text8(&mut out, &printable(&self.agent));
        match &self.extra {
            None => out.put_u8(0),
            Some(extra) => {
                out.put_slice(&[1, extra.scheme]);
                super::put_bytes16(&mut out, &extra.key);
                super::put_bytes16(&mut out, &extra.signature);
            }
        }
        let len = u16::try_from(out.len() - HEAD_LEN).expect("capped fields are shorter than 8 KiB");
        out[MAGIC.len()..HEAD_LEN].copy_from_slice(&len.to_be_bytes());
        out.freeze()
    }

    /// Takes the fields apart; what follows the last one is skipped.
    ///
    /// # Errors
    /// When they are not those of a hello, or of one in versions that we do not speak.
    pub fn decode(fields: &Bytes) -> Result<Self, HelloError> {
        let mut reader = Reader::new(fields);
        let version = reader.u16_be("version")?;
        let min_version = reader.u16_be("least version")?;
        common_version(version, min_version)?;
        let network = reader.hash("network id")?;
        let capabilities = super::u64_be(&mut reader, "capabilities")?;
        let at = reader.at();
        let incarnation = super::u64_be(&mut reader, "incarnation")?;
        if incarnation == 0 {
            return Err(DecodeError::Invalid { what: "incarnation", at }.into());
        }
        Ok(Self {
            version,
            min_version,
            network,
            capabilities,
            incarnation,
            attempt: super::u64_be(&mut reader, "attempt")?,
            keys: KeyHashes {
                post_quantum: reader.hash("ML-DSA-65 key")?.0,
                classic: reader.hash("Ed25519 key")?.0,
            },
            listen_port: reader.u16_be("listen port")?,
            addrs: read_addrs(&mut reader, "addresses")?,
            observed: read_observed(&mut reader)?,
            agent: super::text8(&mut reader, 0, MAX_AGENT, "agent")?.to_owned(),
            extra: read_extra(&mut reader, fields)?,
        })
    }

    /// The version that both speak, with a peer of our network.
    ///
    /// # Errors
    /// When it is of another network, or there is no such version.
    pub fn agree(&self, network: &Hash32) -> Result<u16, HelloError> {
        if self.network != *network {
            return Err(HelloError::Network(self.network, *network));
        }
        common_version(self.version, self.min_version)
    }
}

/// The highest version that both speak.
fn common_version(highest: u16, lowest: u16) -> Result<u16, HelloError> {
    let version = highest.min(VERSION);
    if version < lowest.max(MIN_VERSION) {
        return Err(HelloError::Version(lowest, highest));
    }
    Ok(version)
}

fn read_observed(reader: &mut Reader<'_>) -> Result<Option<SocketAddr>, DecodeError> {
    let mut ahead = reader.clone();
    if ahead.u8("observed address")? == 0 {
        *reader = ahead;
        return Ok(None);
    }
    read_addr(reader, "observed address").map(Some)
}

fn read_extra(reader: &mut Reader<'_>, fields: &Bytes) -> Result<Option<ExtraIdentity>, DecodeError> {
    let at = reader.at();
    match reader.u8("extra identity")? {
        0 => Ok(None),
        1 => Ok(Some(ExtraIdentity {
            scheme: reader.u8("scheme")?,
            key: fields.slice_ref(super::bytes16(reader, MAX_SPKI, "extra key")?),
            signature: fields.slice_ref(super::bytes16(reader, MAX_SIGNATURE, "extra signature")?),
        })),
        _ => Err(DecodeError::Invalid { what: "extra identity", at }),
    }
}

fn printable(agent: &str) -> String {
    agent.chars().filter(|c| matches!(c, ' '..='~')).take(MAX_AGENT).collect()
}

/// SHA-256 of a network's name: what tells networks apart. Two that choose one name are one network.
pub fn network_id(name: &str) -> Hash32 {
    crate::crypto::sha256(&[b"rookery overlay network v1", name.as_bytes()])
}

/// What an extra identity signs: the connection's keying material, so that it is worth nothing on another connection;
/// the role, so that it cannot be sent back; who signs, and the hash of the key that the receiver has proven, so that no
/// third one can carry it between them. The dialler signs before it knows the receiver's whole identity.
pub fn extra_statement(
    keying: &[u8; EXTRA_KEYING],
    by_dialler: bool,
    signer: &PeerId,
    receiver: &[u8; 32],
) -> Vec<u8> {
    let role: &[u8] = if by_dialler { b"dialler" } else { b"listener" };
    [EXTRA_LABEL, &[0], keying, role, &[0], signer.as_bytes(), receiver].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::testing::{arb_addr, check_flips};
    use proptest::prelude::*;

    fn arb_hello() -> impl Strategy<Value = Hello> {
        let numbers = (any::<[u64; 3]>(), any::<[[u8; 32]; 3]>(), any::<[u16; 3]>());
        let addrs = (proptest::collection::vec(arb_addr(), 0..=8), proptest::option::of(arb_addr()));
        let bytes = || proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
        let extra = proptest::option::of((any::<u8>(), bytes(), bytes()));
        (numbers, addrs, "[ -~]{0,64}", extra).prop_map(|(numbers, (addrs, observed), agent, extra)| {
            let (
                [capabilities, incarnation, attempt],
                [network, post_quantum, classic],
                [version, min, port],
            ) = numbers;
            Hello {
                version: version.max(VERSION),
                min_version: min.min(VERSION),
                network: Hash32(network),
                capabilities,
                incarnation: incarnation.max(1),
                attempt,
                keys: KeyHashes { post_quantum, classic },
                listen_port: port,
                addrs,
                observed,
                agent,
                extra: extra.map(|(scheme, key, signature)| ExtraIdentity { scheme, key, signature }),
            }
        })
    }

    fn fields(hello: &Hello) -> Bytes {
        hello.encode().slice(HEAD_LEN..)
    }

    fn plain() -> Hello {
        Hello {
            version: VERSION,
            min_version: MIN_VERSION,
            network: network_id("test"),
            capabilities: 0,
            incarnation: 1,
            attempt: 1,
            keys: KeyHashes { post_quantum: [0; 32], classic: [0; 32] },
            listen_port: 7000,
            addrs: vec![],
            observed: None,
            agent: String::new(),
            extra: None,
        }
    }

    proptest! {
        #[test]
        fn hellos_round_trip_and_later_versions_may_append(hello in arb_hello(), more in proptest::collection::vec(any::<u8>(), 0..9)) {
            let whole = hello.encode();
            let len = fields_len(whole.first_chunk().unwrap()).unwrap();
            prop_assert_eq!(len, whole.len() - HEAD_LEN);
            prop_assert_eq!(Hello::decode(&fields(&hello)), Ok(hello.clone()));
            let longer = [&fields(&hello)[..], &more].concat();
            prop_assert_eq!(Hello::decode(&longer.into()), Ok(hello.clone()));
            for cut in 0..len {
                prop_assert!(Hello::decode(&fields(&hello).slice(..cut)).is_err(), "cut at {}", cut);
            }
            // A flip may turn the end into something to skip; what was taken then encodes to a prefix of it.
            check_flips(&fields(&hello), |bytes| {
                let again = fields(&Hello::decode(&Bytes::copy_from_slice(bytes)).ok()?);
                assert!(bytes.starts_with(&again));
                Some(bytes.to_vec())
            });
        }
    }

    #[test]
    fn the_longest_hello_fits_its_bound() {
        let v6: SocketAddr = "[2001:db8::1]:9".parse().unwrap();
        let mut longest = Hello { addrs: vec![v6; 8], observed: Some(v6), agent: "a".repeat(64), ..plain() };
        assert_eq!(fields(&longest).len(), 364);
        longest.extra = Some(ExtraIdentity {
            scheme: 1,
            key: vec![0; MAX_SPKI].into(),
            signature: vec![0; MAX_SIGNATURE].into(),
        });
        assert!(fields(&longest).len() < MAX_FIELDS);
        assert_eq!(Hello::decode(&fields(&longest)), Ok(longest));
    }

    #[test]
    fn heads_of_others_and_claims_over_the_bound_are_refused() {
        assert!(matches!(fields_len(b"GET / HTTP"), Err(HelloError::Magic(_))));
        let mut head = *b"ROOKOVL1\0\0";
        head[8..].copy_from_slice(&8193_u16.to_be_bytes());
        assert_eq!(fields_len(&head), Err(HelloError::TooLong(8193)));
        assert_eq!(PeerFault::from(HelloError::TooLong(8193)).kind, PeerFaultKind::Oversize);
    }

    #[test]
    fn peers_agree_on_the_highest_common_version_of_one_network() {
        let ours = network_id("test");
        assert_eq!(Hello { version: 9, ..plain() }.agree(&ours), Ok(VERSION));
        let newer = Hello { version: 9, min_version: 3, ..plain() };
        assert_eq!(newer.agree(&ours), Err(HelloError::Version(3, 9)));
        let older = Hello { version: 1, min_version: 1, ..plain() };
        assert_eq!(older.agree(&ours), Err(HelloError::Version(1, 1)));
        assert!(matches!(plain().agree(&network_id("other")), Err(HelloError::Network(..))));
    }

    /// What follows the versions may be anything in versions that we do not speak.
    #[test]
    fn a_hello_of_other_versions_is_told_so_and_not_looked_into() {
        for (version, min_version) in [(1_u16, 1_u16), (9, 3)] {
            let bytes = [&version.to_be_bytes()[..], &min_version.to_be_bytes(), b"?"].concat();
            let refused = Hello::decode(&bytes.into());
            assert_eq!(refused, Err(HelloError::Version(min_version, version)));
        }
    }

    #[test]
    fn an_extra_statement_differs_by_connection_role_and_both_ends() {
        let [a, b] = [1, 2].map(|n| PeerId::from_bytes(&[n; 32]).unwrap());
        let base = extra_statement(&[0; 32], true, &a, &[2; 32]);
        assert_ne!(base, extra_statement(&[1; 32], true, &a, &[2; 32]));
        assert_ne!(base, extra_statement(&[0; 32], false, &a, &[2; 32]));
        assert_ne!(base, extra_statement(&[0; 32], true, &b, &[2; 32]));
        assert_ne!(base, extra_statement(&[0; 32], true, &a, &[1; 32]));
    }

    #[test]
    fn an_agent_that_would_draw_on_a_terminal_is_refused_and_ours_is_cut() {
        let hello = Hello { agent: format!("rookery\u{1b}[2J{}", "x".repeat(90)), ..plain() };
        let decoded = Hello::decode(&fields(&hello)).unwrap();
        assert_eq!(decoded.agent, format!("rookery[2J{}", "x".repeat(54)));
        let mut raw = fields(&Hello { agent: "ab".into(), ..plain() }).to_vec();
        let at = raw.len() - 2;
        raw[at] = 0x1b;
        assert!(Hello::decode(&raw.into()).is_err());
    }
}
