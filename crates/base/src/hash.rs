//! 32-byte hashes, heights and accumulated proof of work.

use std::fmt;

/// Height of a block in its chain; genesis is 0.
pub type Height = u32;

/// Accumulated or single proof of work, a 256-bit unsigned integer.
pub type Work = ruint::aliases::U256;

/// A 32-byte hash in its natural byte order, the order in which it is written on the wire.
///
/// Ordering is lexicographic, which for networks that compare hashes as big-endian numbers is numeric.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Hash32(pub [u8; 32]);

impl Hash32 {
    /// The all-zero hash.
    pub const ZERO: Self = Self([0; 32]);

    /// Parses 64 hexadecimal digits, without prefix. `None` on any other input.
    pub fn from_hex(text: &str) -> Option<Self> {
        const_hex::decode_to_array::<_, 32>(text).ok().filter(|_| text.len() == 64).map(Self)
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for Hash32 {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl AsRef<[u8]> for Hash32 {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Hash32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&const_hex::encode(self.0))
    }
}

impl fmt::Debug for Hash32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trip_and_refusals() {
        let hash = Hash32([0xab; 32]);
        assert_eq!(Hash32::from_hex(&hash.to_string()), Some(hash));
        assert_eq!(Hash32::from_hex("ab"), None);
        assert_eq!(Hash32::from_hex(&format!("0x{hash}")), None);
        assert_eq!(Hash32::from_hex(&"zz".repeat(32)), None);
    }
}
