//! The one way every packet is read and written.
//!
//! A [`Body`] is a bounded reader over a payload that can also hand out parts of it without copying: a block's
//! scripts, a claim or two thousand headers stay where the socket put them. Such a part keeps the whole payload
//! in memory until it is dropped.

use bytes::{Bytes, BytesMut};
use rookery_base::codec::put_compact_size;
use rookery_base::{DecodeError, Reader};
use std::ops::{Deref, DerefMut};

/// The largest integer that hsd reads: it keeps numbers as IEEE doubles and refuses every 64-bit field, times and
/// values included, above 2^53 - 1. What it refuses, no peer can have relayed.
pub const MAX_INTEGER: u64 = (1 << 53) - 1;

/// A value with one encoding. Reading is strict: the only bytes that are not kept are the ones hsd does not look at
/// either, and the type that drops them says so.
pub trait Wire: Sized {
    /// Bytes of the smallest encoding. Lists are believed only as far as this many bytes per item are present.
    const MIN: usize;

    /// Reads one value from where the body stands.
    fn read(body: &mut Body<'_>) -> Result<Self, DecodeError>;

    /// Appends the value. Limits are kept by whoever builds the value, not checked here.
    fn write(&self, out: &mut BytesMut);

    /// Reads one value that takes up all of `bytes`.
    fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {
        let mut body = Body::new(bytes);
        let value = Self::read(&mut body)?;
        body.finish()?;
        Ok(value)
    }
}

/// A payload being read. Reads like a [`Reader`].
#[derive(Debug)]
pub struct Body<'a> {
    whole: &'a Bytes,
    reader: Reader<'a>,
}

impl<'a> Body<'a> {
    /// Starts at the first byte.
    pub fn new(whole: &'a Bytes) -> Self {
        Self { whole, reader: Reader::new(whole) }
    }

    /// The next `n` bytes, shared with the payload.
    pub fn share(&mut self, n: usize, what: &'static str) -> Result<Bytes, DecodeError> {
        let slice = self.reader.take(n, what)?;
        Ok(self.whole.slice_ref(slice))
    }

    /// The bytes from offset `from` up to where the body stands, shared with the payload.
    pub fn since(&self, from: usize) -> Bytes {
        self.whole.slice(from..self.reader.at())
    }

    /// A compact-size length of at most `cap`, then that many bytes, shared with the payload.
    pub fn var_share(&mut self, cap: usize, what: &'static str) -> Result<Bytes, DecodeError> {
        let n = self.reader.count(cap, 1, what)?;
        self.share(n, what)
    }

    /// Everything that is left, shared with the payload.
    pub fn rest(&mut self) -> Bytes {
        let slice = self.reader.rest();
        self.whole.slice_ref(slice)
    }

    /// A compact-size count of at most `cap`, then that many values.
    pub fn list<T: Wire>(&mut self, cap: usize, what: &'static str) -> Result<Vec<T>, DecodeError> {
        let count = self.reader.count(cap, T::MIN, what)?;
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(T::read(self)?);
        }
        Ok(items)
    }

    /// A 64-bit integer of at most [`MAX_INTEGER`].
    pub fn integer(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        let at = self.reader.at();
        match self.reader.u64_le(what)? {
            value if value <= MAX_INTEGER => Ok(value),
            _ => Err(DecodeError::Invalid { what, at }),
        }
    }

    /// A compact-size integer of at most `cap`.
    pub fn compact(&mut self, cap: u64, what: &'static str) -> Result<u64, DecodeError> {
        let at = self.reader.at();
        match self.reader.compact_size(what)? {
            value if value <= cap => Ok(value),
            _ => Err(DecodeError::Invalid { what, at }),
        }
    }

    /// Ends the walk: an error unless every byte was read.
    pub fn finish(self) -> Result<(), DecodeError> {
        self.reader.finish()
    }
}

impl<'a> Deref for Body<'a> {
    type Target = Reader<'a>;

    fn deref(&self) -> &Reader<'a> {
        &self.reader
    }
}

impl DerefMut for Body<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.reader
    }
}

/// Appends a compact-size count, then the values.
pub(super) fn put_list<T: Wire>(out: &mut BytesMut, items: &[T]) {
    put_compact_size(out, items.len() as u64);
    for item in items {
        item.write(out);
    }
}

/// Appends a compact-size length, then the bytes.
pub(super) fn put_var_bytes(out: &mut BytesMut, bytes: &[u8]) {
    put_compact_size(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

impl Wire for rookery_base::Hash32 {
    const MIN: usize = 32;

    fn read(body: &mut Body<'_>) -> Result<Self, DecodeError> {
        body.hash("hash")
    }

    fn write(&self, out: &mut BytesMut) {
        out.extend_from_slice(self.as_bytes());
    }
}
