//! Framing of messages on stream 0.
//!
//! ```text
//! kind u8 | length u24 | body
//! ```
//!
//! A length over [`MAX_BODY`] is refused whatever the kind; each kind's own bounds are in its service's table and are
//! checked by the engine before a body is read. There is nothing to find one's place again by: QUIC delivers the
//! bytes whole and in order, or not at all.

use bytes::{BufMut, BytesMut};
use rookery_base::{Kind, PeerFault, PeerFaultKind};
use rookery_engine::{Deframe, Enframe, Head, Link};

use super::message;

/// Bytes in front of a body.
pub const HEAD_LEN: usize = 4;
/// The longest body of any kind, known or to come: a direct message with the largest payload.
pub const MAX_BODY: usize = message::MAX_LEN;
/// Most of a kind that this version does not know that is read past: enough for announcements of later versions, little
/// enough that it cannot be used to keep a line busy. Larger ones end the session.
pub const MAX_UNKNOWN: usize = 4096;

/// The framing, both ways.
pub fn link() -> Link {
    Link { reader: Box::new(Framing), writer: Box::new(Framing) }
}

/// One direction's framing. It has no state: every head stands for itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct Framing;

impl Deframe for Framing {
    fn head(&mut self, bytes: &[u8]) -> Result<Option<Head>, PeerFault> {
        let Some([kind, high, middle, low]) = bytes.first_chunk::<HEAD_LEN>() else { return Ok(None) };
        let body_len = u32::from_be_bytes([0, *high, *middle, *low]) as usize;
        if body_len > MAX_BODY {
            let detail = format!("a message of {body_len} bytes, the most of any kind is {MAX_BODY}");
            return Err(PeerFault::close(PeerFaultKind::Oversize, detail));
        }
        Ok(Some(Head { kind: Kind(u16::from(*kind)), head_len: HEAD_LEN, body_len }))
    }
}

impl Enframe for Framing {
    fn frame(&mut self, kind: Kind, body: &[u8], out: &mut BytesMut) {
        let kind = u8::try_from(kind.0).expect("every kind that a service declares is one byte");
        debug_assert!(body.len() <= MAX_BODY, "a body of {} bytes cannot be framed", body.len());
        let [_, high, middle, low] = (body.len() as u32).to_be_bytes();
        out.reserve(HEAD_LEN + body.len());
        out.put_slice(&[kind, high, middle, low]);
        out.put_slice(body);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_framed_comes_apart_again(kind: u8, body in proptest::collection::vec(any::<u8>(), 0..600)) {
            let mut out = BytesMut::new();
            Framing.frame(Kind(u16::from(kind)), &body, &mut out);
            for cut in 0..HEAD_LEN {
                prop_assert_eq!(Framing.head(&out[..cut]), Ok(None));
            }
            let head = Head { kind: Kind(u16::from(kind)), head_len: HEAD_LEN, body_len: body.len() };
            prop_assert_eq!(Framing.head(&out), Ok(Some(head)));
            prop_assert_eq!(&out[HEAD_LEN..], &body[..]);
        }
    }

    #[test]
    fn a_length_over_every_kinds_is_refused_with_its_number() {
        let fault = Framing.head(&[10, 0xff, 0xff, 0xff]).unwrap_err();
        assert_eq!(fault.kind, PeerFaultKind::Oversize);
        assert!(fault.detail.contains("16777215"), "{fault}");
        let [_, a, b, c] = (MAX_BODY as u32).to_be_bytes();
        assert!(Framing.head(&[10, a, b, c]).unwrap().is_some());
    }
}
