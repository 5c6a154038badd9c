//! The one request and its answer, and who has had one.
//!
//! A request is a number that its peer has made up. The answer is that number and the identity that the server has
//! proved of the asker, in whatever bytes the stack knows peers by. So an answer shows the asker that the server
//! knows whom it is talking with.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// Bytes of a request.
pub const REQUEST: usize = 8;
/// Bytes of an answer at most: the longest identity is a multihash of a public key, under 64 bytes.
pub const MAX_ANSWER: usize = REQUEST + 64;

/// The request of the peer of this number.
pub fn request(number: usize) -> [u8; REQUEST] {
    (number as u64).to_be_bytes()
}

/// The answer to a request of the peer with this identity.
pub fn answer(request: &[u8], identity: &[u8]) -> Vec<u8> {
    [request, identity].concat()
}

/// Whether this is the answer that the peer of this number and identity has to get.
pub fn check(number: usize, identity: &[u8], got: &[u8]) -> Result<(), String> {
    if got == answer(&request(number), identity) {
        return Ok(());
    }
    Err(format!("peer {number} got the answer to another: {} bytes", got.len()))
}

/// The peers that a server has verified and answered.
#[derive(Debug, Default)]
pub struct Answered(Mutex<HashSet<Vec<u8>>>);

impl Answered {
    /// Notes one. A peer that was there before is not counted again.
    pub fn note(&self, identity: Vec<u8>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(identity);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_to_another_peer_or_request_is_none() {
        assert_eq!(check(7, b"me", &answer(&request(7), b"me")), Ok(()));
        assert!(check(7, b"me", &answer(&request(7), b"you")).is_err());
        assert!(check(7, b"me", &answer(&request(8), b"me")).is_err());
        assert!(check(7, b"me", b"").is_err());
    }

    #[test]
    fn a_peer_counts_once() {
        let answered = Answered::default();
        answered.note(b"me".to_vec());
        answered.note(b"me".to_vec());
        assert_eq!(answered.count(), 1);
    }
}
