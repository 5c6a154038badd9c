//! Topics: names under which messages and gossip are sorted.
//!
//! ```text
//! length u8 (1 to 64) | printable ASCII
//! ```

use std::fmt;
use std::sync::Arc;

use bytes::BufMut;
use rookery_base::{DecodeError, Reader};

/// Longest topic: a name with a few parts. It is repeated in every message, so it is not for content.
pub const MAX_TOPIC: usize = 64;

/// A topic. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(Arc<str>);

impl Topic {
    /// A topic of 1 to [`MAX_TOPIC`] printable ASCII characters; `None` for any other text.
    pub fn new(name: &str) -> Option<Self> {
        let fits = !name.is_empty() && name.len() <= MAX_TOPIC && super::is_printable(name.as_bytes());
        fits.then(|| Self(name.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Bytes on the wire.
    pub fn encoded_len(&self) -> usize {
        1 + self.0.len()
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        super::text8(reader, 1, MAX_TOPIC, "topic").map(|name| Self(name.into()))
    }

    pub(super) fn put(&self, out: &mut impl BufMut) {
        super::put_text8(out, &self.0);
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_printable_and_not_empty() {
        assert_eq!(Topic::new("a/b c").unwrap().as_str(), "a/b c");
        assert!(Topic::new(&"x".repeat(MAX_TOPIC)).is_some());
        for bad in ["", "line\n", "\u{1b}[2J", "größe", &"x".repeat(MAX_TOPIC + 1)] {
            assert!(Topic::new(bad).is_none(), "{bad:?}");
        }
        assert!(Topic::read(&mut Reader::new(b"\x03a\x07b")).is_err(), "a bell is no name");
    }
}
