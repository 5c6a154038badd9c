//! First packets of QUIC without a stack: opened, and sealed again for another connection (RFC 9000, 17.2; RFC 9001, 5).
//!
//! Keys of these packets follow from the connection id to which they go, so whoever has seen one can say the same again in the
//! name of any connection, with or without the token of a Retry. That is what makes an attacker cheap: no key exchange, no
//! connection, some microseconds a packet.

use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::quic::{Keys, Version};
use rustls::{Side, SupportedCipherSuite};

/// QUIC's version 1.
const VERSION: [u8; 4] = [0, 0, 0, 1];
/// A long header with the fixed bit; the type is in the two bits below.
const LONG: u8 = 0xc0;
/// The type's bits, and the one that means Retry. Initial has neither.
const TYPE: u8 = 0x30;
/// The integrity tag at the end of a Retry, which only clients look at.
const RETRY_TAG: usize = 16;
/// Where the sample for a header's protection begins, after the beginning of the packet number.
const SAMPLE_AT: usize = 4;

/// What a first packet says, and as whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Initial {
    /// The connection id of the one who sends it.
    source: Vec<u8>,
    /// The packet number's bytes.
    number: Vec<u8>,
    frames: Vec<u8>,
}

/// A demand to prove an address.
#[derive(Debug, PartialEq, Eq)]
pub struct Retry {
    /// To which the proof goes.
    pub destination: Vec<u8>,
    /// The proof.
    pub token: Vec<u8>,
}

/// Reads a packet from its beginning.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    /// What its length, a byte, stands before.
    fn short(&mut self) -> Option<&'a [u8]> {
        let len = self.take(1)?[0];
        self.take(len.into())
    }

    /// A number of variable length.
    fn number(&mut self) -> Option<usize> {
        let first = self.take(1)?[0];
        let rest = self.take((1 << (first >> 6)) - 1)?;
        Some(rest.iter().fold(usize::from(first & 0x3f), |number, byte| number << 8 | usize::from(*byte)))
    }

    /// First byte, destination and source of a long header.
    fn header(&mut self) -> Option<(u8, &'a [u8], &'a [u8])> {
        let first = self.take(1)?[0];
        let known = first & LONG == LONG && self.take(VERSION.len())? == VERSION;
        known.then_some((first, self.short()?, self.short()?))
    }
}

/// A number below 16,384 in two bytes.
fn two_bytes(number: usize) -> [u8; 2] {
    let number = u16::try_from(number).expect("a datagram's length");
    (number | 0x4000).to_be_bytes()
}

fn keys(destination: &[u8], side: Side) -> Keys {
    let SupportedCipherSuite::Tls13(suite) = TLS13_AES_128_GCM_SHA256 else {
        unreachable!("the suite is named after TLS 1.3")
    };
    let suite = suite.quic_suite().expect("the suite of QUIC's first packets");
    suite.keys(destination, side, Version::V1)
}

fn value(number: &[u8]) -> u64 {
    number.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

impl Initial {
    /// Its number among its sender's packets.
    pub fn number(&self) -> u64 {
        value(&self.number)
    }

    /// Opens the packet with which a client's datagram begins, and says to which connection it went. `None` when it is none.
    pub fn open(datagram: &[u8]) -> Option<(Vec<u8>, Self)> {
        let mut reader = Reader(datagram);
        let (first, destination, source) = reader.header()?;
        if first & TYPE != 0 {
            return None;
        }
        let token = reader.number()?;
        reader.take(token)?;
        let length = reader.number()?;
        let number_at = datagram.len() - reader.0.len();
        let mut packet = datagram.get(..number_at + length)?.to_vec();
        let keys = keys(destination, Side::Server).remote;
        let (header, body) = packet.split_at_mut(number_at);
        let (number, after) = body.split_at_mut_checked(SAMPLE_AT)?;
        let sample = after.get(..keys.header.sample_len())?;
        keys.header.decrypt_in_place(sample, &mut header[0], number).ok()?;
        let frames_at = number_at + usize::from(packet[0] & 0x03) + 1;
        let (header, sealed) = packet.split_at_mut(frames_at);
        let number = header[number_at..].to_vec();
        let frames = keys.packet.decrypt_in_place(value(&number), header, sealed).ok()?.to_vec();
        Some((destination.to_vec(), Self { source: source.to_vec(), number, frames }))
    }

    /// The same for another connection, with the token of a Retry or an empty one.
    pub fn seal(&self, destination: &[u8], token: &[u8]) -> Vec<u8> {
        let keys = keys(destination, Side::Client).local;
        let mut packet = vec![LONG | (self.number.len() as u8 - 1)];
        packet.extend(VERSION);
        for id in [destination, &self.source] {
            packet.push(id.len() as u8);
            packet.extend(id);
        }
        packet.extend(two_bytes(token.len()));
        packet.extend(token);
        packet.extend(two_bytes(self.number.len() + self.frames.len() + keys.packet.tag_len()));
        let number_at = packet.len();
        packet.extend(&self.number);
        let mut frames = self.frames.clone();
        let tag = keys.packet.encrypt_in_place(self.number(), &packet, &mut frames);
        packet.extend(frames);
        packet.extend(tag.expect("a datagram is shorter than what the suite seals").as_ref());
        let (header, body) = packet.split_at_mut(number_at);
        let (number, after) = body.split_at_mut(SAMPLE_AT);
        let (sample, number) = (&after[..keys.header.sample_len()], &mut number[..self.number.len()]);
        keys.header.encrypt_in_place(sample, &mut header[0], number).expect("a sample of the right length");
        packet
    }
}

impl Retry {
    /// Reads a datagram that is one.
    pub fn read(datagram: &[u8]) -> Option<Self> {
        let mut reader = Reader(datagram);
        let (first, _, source) = reader.header()?;
        let token = reader.0.len().checked_sub(RETRY_TAG).and_then(|len| reader.take(len))?;
        (first & TYPE == TYPE).then(|| Self { destination: source.to_vec(), token: token.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_opens_to_the_same() {
        let initial = Initial { source: vec![1; 8], number: vec![3], frames: vec![6; 1162] };
        for (destination, token) in [(&[9; 8][..], &[][..]), (&[7; 20], &[5; 120])] {
            let sealed = initial.seal(destination, token);
            assert_eq!(Initial::open(&sealed), Some((destination.to_vec(), initial.clone())));
            let mut other = sealed;
            other[6] ^= 1;
            assert_eq!(Initial::open(&other), None, "sealed for another connection");
        }
    }

    #[test]
    fn a_retry_is_told_from_other_packets() {
        let retry = [&[0xf5, 0, 0, 0, 1, 2, 8, 8, 3, 7, 7, 7, 1, 2, 3, 4][..], &[0; RETRY_TAG]].concat();
        assert_eq!(Retry::read(&retry), Some(Retry { destination: vec![7; 3], token: vec![1, 2, 3, 4] }));
        let mut initial = retry.clone();
        initial[0] = 0xc5;
        assert_eq!((Retry::read(&initial), Retry::read(&retry[..20])), (None, None));
    }
}
