//! Headers in bulk, without copying them.
//!
//! A `headers` payload is a count and that many headers of 236 bytes, with nothing between or behind. Decoding it
//! costs the same for one header as for two thousand: the count must match the length, and that is all. The fields
//! are read where the rules are, and the bytes go from the socket to the store as they are.

use super::body::{Body, Wire};
use bytes::{Bytes, BytesMut};
use rookery_base::DecodeError;
use rookery_base::codec::put_compact_size;

pub use crate::chain::header::{HEADER_LEN, RawHeader};

/// Most headers in one packet: hsd sends no more and does not decode more.
pub const MAX_HEADERS: usize = 2000;

impl Wire for RawHeader {
    const MIN: usize = HEADER_LEN;

    fn read(body: &mut Body<'_>) -> Result<Self, DecodeError> {
        body.array("header")
    }

    fn write(&self, out: &mut BytesMut) {
        out.extend_from_slice(self);
    }
}

/// At most [`MAX_HEADERS`] headers, back to back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Headers {
    raw: Bytes,
}

impl Headers {
    /// Headers from their concatenated bytes. `None` unless they are whole and at most [`MAX_HEADERS`].
    pub fn from_raw(raw: Bytes) -> Option<Self> {
        let fits = raw.len().is_multiple_of(HEADER_LEN) && raw.len() <= MAX_HEADERS * HEADER_LEN;
        fits.then_some(Self { raw })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.raw.len() / HEADER_LEN
    }

    /// Whether there are none. hsd never sends that: at the tip it stays silent.
    pub fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    /// Each header's bytes, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &RawHeader> + DoubleEndedIterator {
        self.raw.as_chunks().0.iter()
    }

    /// All bytes; a slice of them shares the payload.
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }
}

impl Wire for Headers {
    const MIN: usize = 1;

    fn read(body: &mut Body<'_>) -> Result<Self, DecodeError> {
        let count = body.count(MAX_HEADERS, HEADER_LEN, "headers")?;
        Ok(Self { raw: body.share(count * HEADER_LEN, "headers")? })
    }

    fn write(&self, out: &mut BytesMut) {
        put_compact_size(out, self.len() as u64);
        out.extend_from_slice(&self.raw);
    }
}
