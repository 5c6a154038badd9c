//! `ping` and `pong`.
//!
//! ```text
//! nonce u64
//! ```

use rookery_base::{DecodeError, Reader};

/// Bytes of either.
pub const LEN: usize = 8;

/// The nonce.
pub fn decode(body: &[u8]) -> Result<u64, DecodeError> {
    let mut reader = Reader::new(body);
    let nonce = super::u64_be(&mut reader, "nonce")?;
    reader.finish().map(|()| nonce)
}

/// The body.
pub const fn encode(nonce: u64) -> [u8; LEN] {
    nonce.to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::testing::check_canonical;

    #[test]
    fn a_nonce_is_eight_bytes_and_no_other_number_of_them() {
        assert_eq!(decode(&encode(0x0102_0304_0506_0708)), Ok(0x0102_0304_0506_0708));
        check_canonical(&encode(7), |bytes| decode(bytes).ok().map(|nonce| encode(nonce).to_vec()));
    }
}
