//! Keys of first packets, derived as far as they are needed.
//!
//! Whoever is asked to prove its address, or ignored, has had one header opened. For that a third of the keys' secrets is
//! needed, and of the keys one of four; the rest is derived for whoever is let in or refused. In a flood of first packets the
//! whole of it is two fifths of what each of them costs.

use std::sync::{Arc, OnceLock};

use aws_lc_rs::aead::quic::{AES_128, HeaderProtectionKey};
use aws_lc_rs::hkdf;
use bytes::BytesMut;
use quinn::ConnectionId;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::crypto::{
    CryptoError, HeaderKey, KeyPair, Keys, PacketKey, ServerConfig, Session, UnsupportedVersion,
};
use quinn_proto::transport_parameters::TransportParameters;

/// QUIC version 1 (RFC 9000), the only one that is spoken here.
pub(super) const VERSION_1: u32 = 1;
/// Bytes of the id that a client makes up for us, at least (RFC 9000, 7.2). quinn would seal an answer for whoever has fewer.
const MADE_UP: usize = 8;
/// What its first secrets are extracted with (RFC 9001, 5.2).
const SALT: [u8; 20] = [
    0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad, 0xcc,
    0xbb, 0x7f, 0x0a,
];
/// HKDF's labels (RFC 9001, 5.1; RFC 8446, 7.1): the length of what is derived, then label and no context with theirs.
const CLIENT_IN: &[u8] = b"\x00\x20\x0ftls13 client in\x00";
const QUIC_HP: &[u8] = b"\x00\x10\x0dtls13 quic hp\x00";
/// Bytes of ciphertext from which a header's mask is made (RFC 9001, 5.4.2).
const SAMPLE: usize = 16;

/// TLS for those who dial us, sparing with what is derived for their first packets.
pub(super) struct Sparing(Arc<QuicServerConfig>);

impl Sparing {
    pub fn new(tls: QuicServerConfig) -> Self {
        Self(Arc::new(tls))
    }
}

impl ServerConfig for Sparing {
    fn initial_keys(&self, version: u32, id: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        if version != VERSION_1 || id.len() < MADE_UP {
            return Err(UnsupportedVersion);
        }
        let all = Arc::new(All { tls: Arc::clone(&self.0), id: *id, keys: OnceLock::new() });
        Ok(Keys {
            header: KeyPair {
                local: Box::new(Later::<dyn HeaderKey> {
                    all: Arc::clone(&all),
                    of: |keys| &*keys.header.local,
                }),
                remote: Box::new(TheirHeader { key: their_header_key(id), all: Arc::clone(&all) }),
            },
            packet: KeyPair {
                local: Box::new(Later::<dyn PacketKey> {
                    all: Arc::clone(&all),
                    of: |keys| &*keys.packet.local,
                }),
                remote: Box::new(Later::<dyn PacketKey> { all, of: |keys| &*keys.packet.remote }),
            },
        })
    }

    fn retry_tag(&self, version: u32, id: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.0.retry_tag(version, id, packet)
    }

    fn start_session(self: Arc<Self>, version: u32, params: &TransportParameters) -> Box<dyn Session> {
        Arc::clone(&self.0).start_session(version, params)
    }
}

/// What a client protects the headers of its first packets with (RFC 9001, 5.2 and 5.4.1).
fn their_header_key(id: &[u8]) -> HeaderProtectionKey {
    const ENOUGH: &str = "HKDF gives far more than one secret's bytes";
    let initial = hkdf::Salt::new(hkdf::HKDF_SHA256, &SALT).extract(id);
    let client: hkdf::Prk = initial.expand(&[CLIENT_IN], hkdf::HKDF_SHA256).expect(ENOUGH).into();
    client.expand(&[QUIC_HP], &AES_128).expect(ENOUGH).into()
}

/// All keys of a connection's first packets, once one is needed.
struct All {
    tls: Arc<QuicServerConfig>,
    id: ConnectionId,
    keys: OnceLock<Keys>,
}

impl All {
    fn get(&self) -> &Keys {
        self.keys.get_or_init(|| {
            self.tls.initial_keys(VERSION_1, &self.id).expect("rustls speaks version 1 of QUIC")
        })
    }
}

struct TheirHeader {
    key: HeaderProtectionKey,
    all: Arc<All>,
}

impl HeaderKey for TheirHeader {
    /// RFC 9001, 5.4.1, for long headers, which first packets have. quinn has seen to it that a sample is there.
    fn decrypt(&self, number_at: usize, packet: &mut [u8]) {
        let sample_at = number_at + 4;
        let mask = self.key.new_mask(&packet[sample_at..sample_at + SAMPLE]).expect("a sample of its length");
        packet[0] ^= mask[0] & 0x0f;
        let number_len = usize::from(packet[0] & 0x03) + 1;
        for (byte, mask) in packet[number_at..number_at + number_len].iter_mut().zip(&mask[1..]) {
            *byte ^= mask;
        }
    }

    fn encrypt(&self, number_at: usize, packet: &mut [u8]) {
        self.all.get().header.remote.encrypt(number_at, packet);
    }

    fn sample_size(&self) -> usize {
        SAMPLE
    }
}

/// One of all keys, derived with the others when it is used.
struct Later<K: ?Sized + 'static> {
    all: Arc<All>,
    of: fn(&Keys) -> &K,
}

impl<K: ?Sized> Later<K> {
    fn get(&self) -> &K {
        (self.of)(self.all.get())
    }
}

impl HeaderKey for Later<dyn HeaderKey> {
    fn decrypt(&self, number_at: usize, packet: &mut [u8]) {
        self.get().decrypt(number_at, packet);
    }

    fn encrypt(&self, number_at: usize, packet: &mut [u8]) {
        self.get().encrypt(number_at, packet);
    }

    fn sample_size(&self) -> usize {
        SAMPLE
    }
}

impl PacketKey for Later<dyn PacketKey> {
    fn encrypt(&self, number: u64, packet: &mut [u8], header_len: usize) {
        self.get().encrypt(number, packet, header_len);
    }

    fn decrypt(&self, number: u64, header: &[u8], payload: &mut BytesMut) -> Result<(), CryptoError> {
        self.get().decrypt(number, header, payload)
    }

    fn tag_len(&self) -> usize {
        self.get().tag_len()
    }

    fn confidentiality_limit(&self) -> u64 {
        self.get().confidentiality_limit()
    }

    fn integrity_limit(&self) -> u64 {
        self.get().integrity_limit()
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    use super::*;
    use crate::tls::{Identity, Keys as Kind, Trust};

    fn tls() -> QuicServerConfig {
        let tls = Identity::from_seed(&[1; 32], Kind::Classic).unwrap().tls(b"test", Trust::Both).unwrap();
        QuicServerConfig::try_from(tls.server).unwrap()
    }

    /// A packet of a client's, as it is before its header is protected.
    fn packet(rng: &mut ChaCha8Rng) -> (usize, Vec<u8>) {
        let number_at = 20 + (rng.next_u32() % 40) as usize;
        let mut packet = vec![0; number_at + 4 + SAMPLE + (rng.next_u32() % 64) as usize];
        rng.fill_bytes(&mut packet);
        packet[0] = 0xc0 | packet[0] & 0x03;
        (number_at, packet)
    }

    #[test]
    fn what_is_opened_is_what_the_library_opens_whatever_the_id() {
        let (whole, sparing) = (tls(), Sparing::new(tls()));
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for len in MADE_UP..=20 {
            let mut id = [0; 20];
            rng.fill_bytes(&mut id);
            let id = ConnectionId::new(&id[..len]);
            let theirs = whole.initial_keys(VERSION_1, &id).unwrap();
            let ours = sparing.initial_keys(VERSION_1, &id).unwrap();
            for _ in 0..50 {
                let (number_at, plain) = packet(&mut rng);
                let mut sent = plain.clone();
                theirs.header.remote.encrypt(number_at, &mut sent);
                assert_ne!(sent, plain);
                ours.header.remote.decrypt(number_at, &mut sent);
                assert_eq!(sent, plain);
                ours.header.remote.encrypt(number_at, &mut sent);
                theirs.header.remote.decrypt(number_at, &mut sent);
                assert_eq!(sent, plain);
            }
            // The other three are the library's own; that each is in its place:
            let (mut a, mut b) = (packet(&mut rng), Vec::new());
            b.clone_from(&a.1);
            ours.header.local.encrypt(a.0, &mut a.1);
            theirs.header.local.encrypt(a.0, &mut b);
            assert_eq!(a.1, b);
            for (ours, theirs) in
                [(&ours.packet.local, &theirs.packet.local), (&ours.packet.remote, &theirs.packet.remote)]
            {
                let mut sealed = b.clone();
                ours.encrypt(7, &mut sealed, 20);
                theirs.encrypt(7, &mut b, 20);
                assert_eq!(sealed, b);
            }
        }
    }

    #[test]
    fn a_header_is_opened_without_the_other_keys() {
        let id = ConnectionId::new(&[1; 8]);
        let all = Arc::new(All { tls: Arc::new(tls()), id, keys: OnceLock::new() });
        let header = TheirHeader { key: their_header_key(&id), all: Arc::clone(&all) };
        let (number_at, mut packet) = packet(&mut ChaCha8Rng::seed_from_u64(2));
        header.decrypt(number_at, &mut packet);
        assert!(all.keys.get().is_none());
    }

    #[test]
    fn nothing_is_derived_for_who_speaks_no_version_of_ours_or_makes_up_too_short_an_id() {
        let sparing = Sparing::new(tls());
        let keys = |version, id: &[u8]| sparing.initial_keys(version, &ConnectionId::new(id));
        assert!(keys(VERSION_1, &[1; MADE_UP]).is_ok());
        assert!(keys(VERSION_1, &[1; MADE_UP - 1]).is_err());
        assert!(keys(0xff00_001d, &[1; MADE_UP]).is_err());
    }
}
