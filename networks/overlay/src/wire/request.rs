//! The heads of a request and of its answer, each at the start of one half of a stream of its own.
//!
//! ```text
//! request: length u16 (to 4,352) | service: length u8 (1 to 64), printable ASCII | header: length u16 (to 4,096) | skipped
//! answer:  length u16 (to 4,352) | status u8                                    | header: length u16 (to 4,096) | skipped
//! ```
//!
//! After its head comes the body, as long as the half is not finished. Finishing a half says that its body is complete;
//! a reset says that it is not and never will be. Both heads may be followed by both bodies at the same time: an answer
//! may begin before its request has ended. What a header means is between the service and its callers.

use std::fmt;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use rookery_base::{DecodeError, Reader};

/// Bytes in front of a head.
pub const LEN_LEN: usize = 2;
/// Longest head, its length not counted. All that is held before it is known what to do with a stream.
pub const MAX_HEAD: usize = 4352;
/// Longest header: a page. What is longer belongs into the body, where it flows.
pub const MAX_HEADER: usize = 4096;
/// Longest name of a service.
pub const MAX_SERVICE: usize = 64;

/// A service's name. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName(Arc<str>);

impl ServiceName {
    /// A name of 1 to [`MAX_SERVICE`] printable ASCII characters; `None` for any other text.
    pub fn new(name: &str) -> Option<Self> {
        let fits = !name.is_empty() && name.len() <= MAX_SERVICE && super::is_printable(name.as_bytes());
        fits.then(|| Self(name.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// How a request went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Well; the body is the answer.
    Ok,
    /// There is no such service.
    NoService,
    /// As many requests are being served as may be. Try again later, or elsewhere.
    Busy,
    /// The service does not do that for this peer.
    Refused,
    /// The request's body is over the service's bound.
    TooLarge,
    /// The service needed longer than it may.
    Late,
    /// The service failed; not the caller's fault.
    Failed,
    /// A number from a later version: not well.
    Other(u8),
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "all is well",
            Self::NoService => "there is no such service",
            Self::Busy => "it serves as many requests as it may",
            Self::Refused => "it does not do that for this peer",
            Self::TooLarge => "the request's body is too large",
            Self::Late => "it needed longer than it may",
            Self::Failed => "it failed",
            Self::Other(code) => return write!(f, "something went wrong (status {code})"),
        })
    }
}

impl Status {
    /// The number on the wire.
    pub const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::NoService => 1,
            Self::Busy => 2,
            Self::Refused => 3,
            Self::TooLarge => 4,
            Self::Late => 5,
            Self::Failed => 6,
            Self::Other(code) => code,
        }
    }

    /// The status with this number.
    pub const fn from_code(code: u8) -> Self {
        match code {
            0 => Self::Ok,
            1 => Self::NoService,
            2 => Self::Busy,
            3 => Self::Refused,
            4 => Self::TooLarge,
            5 => Self::Late,
            6 => Self::Failed,
            code => Self::Other(code),
        }
    }
}

/// How many bytes of head follow.
///
/// # Errors
/// When it is more than a head may have.
pub fn head_len(len: [u8; LEN_LEN]) -> Result<usize, DecodeError> {
    let len = usize::from(u16::from_be_bytes(len));
    super::within(len, MAX_HEAD, "head", 0).map(|()| len)
}

/// The head of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHead {
    /// Who is asked.
    pub service: ServiceName,
    /// What for; at most [`MAX_HEADER`] bytes.
    pub header: Bytes,
}

impl RequestHead {
    /// Takes a head apart; what follows the header is skipped.
    ///
    /// # Errors
    /// When it is no such head.
    pub fn decode(head: &Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(head);
        let service = ServiceName(super::text8(&mut reader, 1, MAX_SERVICE, "service")?.into());
        let header = head.slice_ref(super::bytes16(&mut reader, MAX_HEADER, "header")?);
        Ok(Self { service, header })
    }

    /// The whole, its length in front. `None` when the header is too long.
    pub fn encode(&self) -> Option<Bytes> {
        framed(&self.header, |out| super::put_text8(out, self.service.as_str()))
    }
}

/// The head of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerHead {
    /// How it went.
    pub status: Status,
    /// More about it; at most [`MAX_HEADER`] bytes.
    pub header: Bytes,
}

impl AnswerHead {
    /// Takes a head apart; what follows the header is skipped.
    ///
    /// # Errors
    /// When it is no such head.
    pub fn decode(head: &Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(head);
        let status = Status::from_code(reader.u8("status")?);
        let header = head.slice_ref(super::bytes16(&mut reader, MAX_HEADER, "header")?);
        Ok(Self { status, header })
    }

    /// The whole, its length in front. `None` when the header is too long.
    pub fn encode(&self) -> Option<Bytes> {
        framed(&self.header, |out| out.put_u8(self.status.code()))
    }
}

fn framed(header: &[u8], first: impl FnOnce(&mut BytesMut)) -> Option<Bytes> {
    if header.len() > MAX_HEADER {
        return None;
    }
    let mut out = BytesMut::with_capacity(LEN_LEN + 1 + MAX_SERVICE + 2 + header.len());
    out.put_u16(0);
    first(&mut out);
    super::put_bytes16(&mut out, header);
    let len = u16::try_from(out.len() - LEN_LEN).expect("a head is shorter than 5 KiB");
    out[..LEN_LEN].copy_from_slice(&len.to_be_bytes());
    Some(out.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(whole: &Bytes, more: &[u8], reencode: impl Fn(&Bytes) -> Option<Bytes>) {
        let len = head_len(*whole.first_chunk().unwrap()).unwrap();
        let head = whole.slice(LEN_LEN..);
        assert_eq!(len, head.len());
        assert_eq!(reencode(&head).as_ref(), Some(whole));
        assert_eq!(
            reencode(&[&head[..], more].concat().into()).as_ref(),
            Some(whole),
            "later versions append"
        );
        for cut in 0..len {
            assert_eq!(reencode(&head.slice(..cut)), None, "cut at {cut}");
        }
        for at in 0..len {
            let mut flipped = head.to_vec();
            flipped[at] ^= 0x81;
            if let Some(again) = reencode(&flipped.clone().into()) {
                assert!(flipped.starts_with(&again[LEN_LEN..]), "byte {at} changed");
            }
        }
    }

    proptest! {
        #[test]
        fn heads_round_trip(
            service in "[ -~]{1,64}",
            header in proptest::collection::vec(any::<u8>(), 0..80),
            code: u8,
            more in proptest::collection::vec(any::<u8>(), 0..9),
        ) {
            let service = ServiceName::new(&service).unwrap();
            let header = Bytes::from(header);
            let request = RequestHead { service, header: header.clone() };
            check(&request.encode().unwrap(), &more, |head| RequestHead::decode(head).ok()?.encode());
            let answer = AnswerHead { status: Status::from_code(code), header };
            check(&answer.encode().unwrap(), &more, |head| AnswerHead::decode(head).ok()?.encode());
        }
    }

    #[test]
    fn every_status_keeps_its_number() {
        assert!((0..=u8::MAX).all(|code| Status::from_code(code).code() == code));
    }

    #[test]
    fn the_longest_heads_fit_and_longer_ones_are_not_sent() {
        let service = ServiceName::new(&"s".repeat(MAX_SERVICE)).unwrap();
        let longest = RequestHead { service, header: vec![0; MAX_HEADER].into() };
        assert!(longest.encode().unwrap().len() <= LEN_LEN + MAX_HEAD);
        let over = RequestHead { header: vec![0; MAX_HEADER + 1].into(), ..longest };
        assert_eq!(over.encode(), None);
        assert!(matches!(head_len([0xff, 0xff]), Err(DecodeError::OverCap { value: 65_535, .. })));
    }
}
