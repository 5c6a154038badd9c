//! The frame around every packet, and the whole plaintext of one Brontide record.
//!
//! ```text
//! magic u32 LE | type u8 | length u32 LE | payload
//! ```
//!
//! There is no checksum, so a stream that has lost its place is lost for good: a head with another network's magic
//! ends the connection. The length is judged against the kind's own bounds ([`super::kind_info`]) before a byte of
//! payload is read or memory for it is taken.

use super::Packet;
use bytes::{Bytes, BytesMut};

/// Bytes of a frame's head.
pub const HEAD_LEN: usize = 9;

/// The longest payload of any kind. hsd refuses a head that announces more.
pub const MAX_BODY: usize = 8_000_000;

/// What stands before a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The network's magic.
    pub magic: u32,
    /// The packet's kind, see [`super::kind`].
    pub kind: u8,
    /// Bytes of the payload that follows, as announced; not yet judged.
    pub length: u32,
}

impl Head {
    /// Reads a head from the first [`HEAD_LEN`] bytes. `None` while there are fewer.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let head: &[u8; HEAD_LEN] = bytes.first_chunk()?;
        let [m0, m1, m2, m3, kind, l0, l1, l2, l3] = *head;
        Some(Self {
            magic: u32::from_le_bytes([m0, m1, m2, m3]),
            kind,
            length: u32::from_le_bytes([l0, l1, l2, l3]),
        })
    }

    /// The head's bytes.
    pub fn encode(&self) -> [u8; HEAD_LEN] {
        let [m0, m1, m2, m3] = self.magic.to_le_bytes();
        let [l0, l1, l2, l3] = self.length.to_le_bytes();
        [m0, m1, m2, m3, self.kind, l0, l1, l2, l3]
    }
}

/// A packet in its frame, encoded once.
pub fn encode_frame(magic: u32, packet: &Packet) -> Bytes {
    let mut out = BytesMut::zeroed(HEAD_LEN);
    packet.encode(&mut out);
    let length = out.len() - HEAD_LEN;
    debug_assert!(length <= MAX_BODY, "{} of {length} bytes cannot be framed", packet.name());
    let head = Head { magic, kind: packet.kind(), length: length as u32 };
    out[..HEAD_LEN].copy_from_slice(&head.encode());
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_little_endian() {
        let head = Head { magic: 0x5b6e_f2d3, kind: 11, length: 0x0102_0304 };
        assert_eq!(head.encode(), [0xd3, 0xf2, 0x6e, 0x5b, 11, 4, 3, 2, 1]);
        assert_eq!(Head::parse(&head.encode()), Some(head));
    }

    #[test]
    fn a_head_needs_nine_bytes() {
        let bytes = Head { magic: 1, kind: 2, length: 3 }.encode();
        for cut in 0..HEAD_LEN {
            assert_eq!(Head::parse(&bytes[..cut]), None);
        }
    }

    #[test]
    fn a_frame_announces_its_payload() {
        let frame = encode_frame(7, &Packet::Ping([9; 8]));
        assert_eq!(Head::parse(&frame), Some(Head { magic: 7, kind: 2, length: 8 }));
        assert_eq!(frame[HEAD_LEN..], [9; 8]);
    }
}
