//! Decoding with limits.
//!
//! A [`Reader`] walks a byte slice that is already in memory. Every step names what it expected and at which
//! offset it failed. A count that a peer wrote is believed only as far as the remaining bytes could hold it
//! ([`Reader::count`]), so nothing is ever allocated beyond a small multiple of what the peer has sent.

use crate::Hash32;
use bytes::BufMut;

/// Why some bytes are not the value they should be. Offsets are from the start of the slice.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end inside a value.
    #[error("{what} at byte {at} needs {need} bytes, {have} are left")]
    Short {
        /// The value that was being read.
        what: &'static str,
        /// Where it starts.
        at: usize,
        /// Bytes it needs.
        need: usize,
        /// Bytes that are left.
        have: usize,
    },
    /// A compact-size integer was not in its shortest form.
    #[error("{what} at byte {at} is not in its shortest form")]
    NonCanonical {
        /// The value that was being read.
        what: &'static str,
        /// Where it starts.
        at: usize,
    },
    /// A count or length is over its cap.
    #[error("{what} at byte {at} is {value}, the most allowed is {cap}")]
    OverCap {
        /// The value that was being read.
        what: &'static str,
        /// Where it starts.
        at: usize,
        /// What the peer wrote.
        value: u64,
        /// The most that is allowed.
        cap: u64,
    },
    /// A value that no encoder writes.
    #[error("{what} at byte {at} has an invalid value")]
    Invalid {
        /// The value that was being read.
        what: &'static str,
        /// Where it starts.
        at: usize,
    },
    /// Bytes are left over after the last value.
    #[error("{left} bytes are left over at byte {at}")]
    Trailing {
        /// Where the value ended.
        at: usize,
        /// How many bytes follow it.
        left: usize,
    },
}

/// A cursor over bytes in memory.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

macro_rules! integers {
    ($($name:ident: $ty:ty = $from:ident, $doc:literal;)*) => {$(
        #[doc = $doc]
        pub fn $name(&mut self, what: &'static str) -> Result<$ty, DecodeError> {
            Ok(<$ty>::$from(self.array(what)?))
        }
    )*};
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Offset of the next byte.
    pub const fn at(&self) -> usize {
        self.at
    }

    /// Bytes not read yet.
    pub const fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The next `n` bytes.
    pub fn take(&mut self, n: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        if n > self.left() {
            return Err(DecodeError::Short { what, at: self.at, need: n, have: self.left() });
        }
        let slice = &self.bytes[self.at..self.at + n];
        self.at += n;
        Ok(slice)
    }

    /// The next `N` bytes as an array.
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        let slice = self.take(N, what)?;
        let mut out = [0; N];
        out.copy_from_slice(slice);
        Ok(out)
    }

    /// Everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        let slice = &self.bytes[self.at..];
        self.at = self.bytes.len();
        slice
    }

    /// A hash.
    pub fn hash(&mut self, what: &'static str) -> Result<Hash32, DecodeError> {
        self.array(what).map(Hash32)
    }

    integers! {
        u8: u8 = from_le_bytes, "One byte.";
        u16_le: u16 = from_le_bytes, "Two bytes, little-endian.";
        u16_be: u16 = from_be_bytes, "Two bytes, big-endian.";
        u32_le: u32 = from_le_bytes, "Four bytes, little-endian.";
        u32_be: u32 = from_be_bytes, "Four bytes, big-endian.";
        u64_le: u64 = from_le_bytes, "Eight bytes, little-endian.";
        i64_le: i64 = from_le_bytes, "Eight bytes, little-endian, signed.";
    }

    /// A compact-size integer (Bitcoin's `CompactSize`: 1, 3, 5 or 9 bytes), refused unless in its shortest form.
    pub fn compact_size(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        let at = self.at;
        let (value, least) = match self.u8(what)? {
            0xff => (self.u64_le(what)?, 0x1_0000_0000),
            0xfe => (u64::from(self.u32_le(what)?), 0x1_0000),
            0xfd => (u64::from(self.u16_le(what)?), 0xfd),
            small => (u64::from(small), 0),
        };
        if value < least {
            return Err(DecodeError::NonCanonical { what, at });
        }
        Ok(value)
    }

    /// A compact-size count of items of at least `item` bytes each: refused over `cap`, and refused when the
    /// bytes that are left could not hold that many, so that it is safe to allocate for.
    pub fn count(&mut self, cap: usize, item: usize, what: &'static str) -> Result<usize, DecodeError> {
        let at = self.at;
        let value = self.compact_size(what)?;
        if value > cap as u64 {
            return Err(DecodeError::OverCap { what, at, value, cap: cap as u64 });
        }
        let count = value as usize;
        let need = count.saturating_mul(item);
        if need > self.left() {
            return Err(DecodeError::Short { what, at, need, have: self.left() });
        }
        Ok(count)
    }

    /// A compact-size length, then that many bytes; refused over `cap`.
    pub fn var_bytes(&mut self, cap: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let n = self.count(cap, 1, what)?;
        self.take(n, what)
    }

    /// Ends the walk: an error unless every byte was read.
    pub fn finish(self) -> Result<(), DecodeError> {
        match self.left() {
            0 => Ok(()),
            left => Err(DecodeError::Trailing { at: self.at, left }),
        }
    }
}

/// Appends a compact-size integer in its shortest form.
pub fn put_compact_size(out: &mut impl BufMut, value: u64) {
    match value {
        0..=0xfc => out.put_u8(value as u8),
        0xfd..=0xffff => {
            out.put_u8(0xfd);
            out.put_u16_le(value as u16);
        }
        0x1_0000..=0xffff_ffff => {
            out.put_u8(0xfe);
            out.put_u32_le(value as u32);
        }
        _ => {
            out.put_u8(0xff);
            out.put_u64_le(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn compact_size_round_trips_and_every_truncation_errs(value: u64, shift in 0u32..64) {
            let value = value >> shift;
            let mut out = Vec::new();
            put_compact_size(&mut out, value);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.compact_size("v"), Ok(value));
            prop_assert_eq!(reader.finish(), Ok(()));
            for cut in 0..out.len() {
                prop_assert!(Reader::new(&out[..cut]).compact_size("v").is_err());
            }
        }
    }

    #[test]
    fn longer_forms_of_small_values_are_refused() {
        for bytes in [&[0xfd, 0xfc, 0][..], &[0xfe, 0xff, 0xff, 0, 0], &[0xff, 1, 0, 0, 0, 0, 0, 0, 0]] {
            assert_eq!(
                Reader::new(bytes).compact_size("v"),
                Err(DecodeError::NonCanonical { what: "v", at: 0 })
            );
        }
    }

    #[test]
    fn a_count_is_believed_only_as_far_as_the_bytes_reach() {
        let bytes = [0xfe, 0xff, 0xff, 0xff, 0x7f, 1, 2, 3];
        assert!(matches!(
            Reader::new(&bytes).count(usize::MAX, 32, "hashes"),
            Err(DecodeError::Short { have: 3, .. })
        ));
        assert!(matches!(
            Reader::new(&bytes).count(1000, 32, "hashes"),
            Err(DecodeError::OverCap { cap: 1000, .. })
        ));
    }

    #[test]
    fn trailing_bytes_are_named() {
        let mut reader = Reader::new(&[1, 2]);
        assert_eq!(reader.u8("x"), Ok(1));
        assert_eq!(reader.finish(), Err(DecodeError::Trailing { at: 1, left: 1 }));
    }
}
