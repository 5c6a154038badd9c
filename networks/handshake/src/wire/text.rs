//! Short texts that peers write about themselves.

use super::body::{Body, Wire};
use bytes::{BufMut, BytesMut};
use rookery_base::DecodeError;
use std::fmt;

/// At most 255 bytes: a user agent or a reason for refusal. Meant to be ASCII, but a peer can write anything, so the
/// bytes are kept as they came and shown escaped: no control sequence reaches a terminal or a log line.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Text(Box<[u8]>);

impl Text {
    /// The longest text: its length is one byte on the wire.
    pub const MAX: usize = 255;

    /// A text of at most [`Text::MAX`] bytes.
    pub fn new(bytes: impl AsRef<[u8]>) -> Option<Self> {
        let bytes = bytes.as_ref();
        (bytes.len() <= Self::MAX).then(|| Self(bytes.into()))
    }

    /// The bytes as they came.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Wire for Text {
    const MIN: usize = 1;

    fn read(body: &mut Body<'_>) -> Result<Self, DecodeError> {
        let length = usize::from(body.u8("length of a text")?);
        Ok(Self(body.take(length, "text")?.into()))
    }

    fn write(&self, out: &mut BytesMut) {
        out.put_u8(self.0.len() as u8);
        out.extend_from_slice(&self.0);
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.escape_ascii().fmt(f)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_bytes_are_shown_escaped() {
        let text = Text::new(b"/hsd:8.0.0/\x1b[2J\n\xff").unwrap();
        assert_eq!(text.to_string(), r"/hsd:8.0.0/\x1b[2J\n\xff");
    }

    #[test]
    fn a_text_has_at_most_255_bytes() {
        assert!(Text::new([b'a'; 255]).is_some());
        assert!(Text::new([b'a'; 256]).is_none());
    }
}
