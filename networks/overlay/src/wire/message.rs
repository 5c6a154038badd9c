//! `message` and `ack`: direct messages under a topic.
//!
//! ```text
//! message: number u64 | topic | payload, to the end
//! ack:     number u64 | verdict u8 (0 accepted | 1 no subscriber | 2 busy)
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use rookery_base::{DecodeError, Reader};

use super::topic::{MAX_TOPIC, Topic};

/// Largest payload. A message holds memory at both ends and the line in between until it is through, so larger contents
/// are cut up by the application, or go by a request on a stream of its own, which flows.
pub const MAX_PAYLOAD: usize = 256 * 1024;
/// Bytes of the smallest message: a number and a topic of one character.
pub const MIN_LEN: usize = 8 + 2;
/// Bytes of the largest message.
pub const MAX_LEN: usize = 8 + 1 + MAX_TOPIC + MAX_PAYLOAD;
/// Bytes of an `ack`.
pub const ACK_LEN: usize = 9;

/// A direct message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What the `ack` repeats.
    pub number: u64,
    /// Under which name.
    pub topic: Topic,
    /// What it says.
    pub payload: Bytes,
}

impl Message {
    /// Takes a body apart. The payload is a slice of it.
    ///
    /// # Errors
    /// When it is no message.
    pub fn decode(body: &Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let number = super::u64_be(&mut reader, "number")?;
        let topic = Topic::read(&mut reader)?;
        let at = reader.at();
        super::within(body.len() - at, MAX_PAYLOAD, "payload", at)?;
        Ok(Self { number, topic, payload: body.slice(at..) })
    }

    /// The body.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(8 + self.topic.encoded_len() + self.payload.len());
        out.put_u64(self.number);
        self.topic.put(&mut out);
        out.put_slice(&self.payload);
        out.freeze()
    }
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is in the application's mailbox.
    Accepted,
    /// Nobody here listens to its topic.
    NoSubscriber,
    /// The application does not keep up; it was not taken.
    Busy,
}

/// An `ack`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// The message's number.
    pub number: u64,
    /// What became of it.
    pub verdict: Verdict,
}

impl Ack {
    /// Takes a body apart.
    ///
    /// # Errors
    /// When it is no `ack`.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let number = super::u64_be(&mut reader, "number")?;
        let at = reader.at();
        let verdict = match reader.u8("verdict")? {
            0 => Verdict::Accepted,
            1 => Verdict::NoSubscriber,
            2 => Verdict::Busy,
            _ => return Err(DecodeError::Invalid { what: "verdict", at }),
        };
        reader.finish()?;
        Ok(Self { number, verdict })
    }

    /// The body.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(ACK_LEN);
        out.put_u64(self.number);
        out.put_u8(match self.verdict {
            Verdict::Accepted => 0,
            Verdict::NoSubscriber => 1,
            Verdict::Busy => 2,
        });
        out.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::testing::{arb_topic, check_canonical, check_flips};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn messages_round_trip(number: u64, topic in arb_topic(), payload in proptest::collection::vec(any::<u8>(), 0..300)) {
            let message = Message { number, topic, payload: payload.into() };
            let body = message.encode();
            prop_assert_eq!(Message::decode(&body), Ok(message.clone()));
            // The payload reaches to the end, so a cut inside it is a shorter message, and not an error.
            let head = body.len() - message.payload.len();
            for cut in 0..head {
                prop_assert!(Message::decode(&body.slice(..cut)).is_err());
            }
            check_flips(&body, |bytes| {
                Message::decode(&Bytes::copy_from_slice(bytes)).ok().map(|message| message.encode().to_vec())
            });
        }

        #[test]
        fn acks_round_trip(number: u64, verdict in 0_u8..3) {
            let body = [&number.to_be_bytes()[..], &[verdict]].concat();
            let reencode = |bytes: &[u8]| Ack::decode(bytes).ok().map(|ack| ack.encode().to_vec());
            prop_assert_eq!(reencode(&body), Some(body.clone()));
            check_canonical(&body, reencode);
        }
    }

    #[test]
    fn the_bounds_are_those_of_the_smallest_and_the_largest_message() {
        let largest = Message {
            number: 1,
            topic: Topic::new(&"t".repeat(MAX_TOPIC)).unwrap(),
            payload: vec![0; MAX_PAYLOAD].into(),
        };
        assert_eq!(largest.encode().len(), MAX_LEN);
        let short = Topic::new("t").unwrap();
        let smallest = Message { number: 1, topic: short.clone(), payload: Bytes::new() };
        assert_eq!(smallest.encode().len(), MIN_LEN);
        let over = Message { number: 1, topic: short, payload: vec![0; MAX_PAYLOAD + 1].into() };
        assert!(matches!(Message::decode(&over.encode()), Err(DecodeError::OverCap { .. })));
    }
}
