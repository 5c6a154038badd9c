//! Framing on a clear connection: nine bytes in front of every packet.
//!
//! ```text
//! magic u32 LE | type u8 | length u32 LE | payload
//! ```
//!
//! There is no checksum and nothing to find one's place again by. So another magic ends the connection at once
//! (hsd reads on in steps of nine bytes and finds nothing but garbage), and so does a length that no packet has.

use bytes::{BufMut, BytesMut};
use rookery_base::{Kind, PeerFault, PeerFaultKind};
use rookery_engine::{Deframe, Enframe, Head, Link};

use crate::wire::{self, HEAD_LEN, MAX_BODY};

/// The framing of the network with this magic, both ways.
pub fn link(magic: u32) -> Link {
    Link { reader: Box::new(Framing { magic }), writer: Box::new(Framing { magic }) }
}

/// One direction's framing. It has no state: every head stands for itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Framing {
    pub magic: u32,
}

impl Deframe for Framing {
    fn head(&mut self, bytes: &[u8]) -> Result<Option<Head>, PeerFault> {
        let Some(head) = wire::Head::parse(bytes) else { return Ok(None) };
        if head.magic != self.magic {
            let detail = format!("magic {:08x} in front of a packet, ours is {:08x}", head.magic, self.magic);
            return Err(PeerFault::close(PeerFaultKind::WrongNetwork, detail));
        }
        let body_len = head.length as usize;
        if body_len > MAX_BODY {
            let detail = format!("a packet of {body_len} bytes, the most of any kind is {MAX_BODY}");
            return Err(PeerFault::close(PeerFaultKind::Oversize, detail));
        }
        Ok(Some(Head { kind: Kind(u16::from(head.kind)), head_len: HEAD_LEN, body_len }))
    }
}

impl Enframe for Framing {
    fn frame(&mut self, kind: Kind, body: &[u8], out: &mut BytesMut) {
        let kind = u8::try_from(kind.0).expect("every kind that a service declares is one byte");
        debug_assert!(body.len() <= MAX_BODY, "a payload of {} bytes cannot be framed", body.len());
        let head = wire::Head { magic: self.magic, kind, length: body.len() as u32 };
        out.reserve(HEAD_LEN + body.len());
        out.put_slice(&head.encode());
        out.put_slice(body);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Packet, encode_frame};

    const MAGIC: u32 = 0xae38_95cf;

    fn framing() -> Framing {
        Framing { magic: MAGIC }
    }

    #[test]
    fn a_framed_packet_is_read_back_and_no_prefix_of_its_head_is_refused() {
        let mut out = BytesMut::new();
        framing().frame(Kind(2), &[7; 8], &mut out);
        assert_eq!(out, encode_frame(MAGIC, &Packet::Ping([7; 8])));
        for cut in 0..HEAD_LEN {
            assert_eq!(framing().head(&out[..cut]), Ok(None));
        }
        let head = Head { kind: Kind(2), head_len: HEAD_LEN, body_len: 8 };
        assert_eq!(framing().head(&out), Ok(Some(head)));
    }

    #[test]
    fn another_networks_magic_is_refused() {
        let frame = encode_frame(0x5b6e_f2d3, &Packet::Verack);
        assert_eq!(framing().head(&frame).unwrap_err().kind, PeerFaultKind::WrongNetwork);
    }

    #[test]
    fn a_length_over_the_wires_cap_is_refused_at_its_head() {
        let head = |length| wire::Head { magic: MAGIC, kind: 13, length }.encode();
        assert!(framing().head(&head(8_000_000)).is_ok());
        assert_eq!(framing().head(&head(8_000_001)).unwrap_err().kind, PeerFaultKind::Oversize);
        assert_eq!(framing().head(&head(u32::MAX)).unwrap_err().kind, PeerFaultKind::Oversize);
    }
}
