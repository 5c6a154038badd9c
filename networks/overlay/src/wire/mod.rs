//! Every byte of the overlay's wire, to and from values. Pure: no clock, no randomness, no I/O.
//!
//! | module | what it holds |
//! |---|---|
//! | [`mod@hello`] | who we are, once each way, at the start of stream 0 |
//! | [`frame`] | four bytes in front of every message after it |
//! | [`ping`], [`message`], [`gossip`], [`discovery`] | the bodies of messages, by service |
//! | [`record`] | a peer's signed statement of its addresses |
//! | [`request`] | the heads of a request and of its answer, each at the start of a stream's half |
//! | [`snapshot`] | the file that remembers whom to dial after a restart |
//! | [`topic`], [`address`] | values that several of them carry |
//!
//! Rules that hold for all of it:
//!
//! * Integers are big-endian. A length or count stands in front of what it counts.
//! * A decoder takes exactly one encoding of a value: other bytes are refused, not interpreted. What it takes encodes
//!   to the same bytes. Only the ends of length-prefixed heads (hello, request, answer) are skipped, for growth.
//! * Nothing is allocated for a count or a length that a peer claims; lists are bounded by small constants, and larger
//!   contents are slices of the body that came.
//! * A text that a peer chose is printable ASCII, so that it can stand in logs and on terminals as it is.

use bytes::BufMut;
use rookery_base::{DecodeError, Kind, Reader};

pub mod address;
pub mod discovery;
pub mod frame;
pub mod gossip;
pub mod hello;
pub mod message;
pub mod ping;
pub mod record;
pub mod request;
pub mod snapshot;
pub mod topic;

pub use hello::Hello;
pub use record::SignedRecord;
pub use topic::Topic;

/// The numbers of the messages.
pub mod kind {
    use super::Kind;

    /// Are you there?
    pub const PING: Kind = Kind(1);
    /// Yes.
    pub const PONG: Kind = Kind(2);
    /// A direct message under a topic.
    pub const MESSAGE: Kind = Kind(10);
    /// What became of it.
    pub const ACK: Kind = Kind(11);
    /// Ids of items that the sender has.
    pub const INVENTORY: Kind = Kind(20);
    /// Asks for an item.
    pub const WANT: Kind = Kind(21);
    /// The item, or that it is not there any more.
    pub const ITEM: Kind = Kind(22);
    /// The topics whose items the sender wants to hear of.
    pub const TOPICS: Kind = Kind(23);
    /// Asks for signed records.
    pub const GET_RECORDS: Kind = Kind(30);
    /// Signed records.
    pub const RECORDS: Kind = Kind(31);
}

/// The next eight bytes as a number.
fn u64_be(reader: &mut Reader<'_>, what: &'static str) -> Result<u64, DecodeError> {
    reader.array(what).map(u64::from_be_bytes)
}

/// Bytes behind a length of two bytes, at most `cap`.
fn bytes16<'a>(reader: &mut Reader<'a>, cap: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
    let at = reader.at();
    let len = usize::from(reader.u16_be(what)?);
    within(len, cap, what, at)?;
    reader.take(len, what)
}

/// Appends bytes behind a length of two bytes. Callers hold every value to its cap, all of which fit.
fn put_bytes16(out: &mut impl BufMut, bytes: &[u8]) {
    out.put_u16(u16::try_from(bytes.len()).expect("every capped value is shorter than 64 KiB"));
    out.put_slice(bytes);
}

/// Printable ASCII behind a length of one byte, at least `least` and at most `cap` characters.
fn text8<'a>(
    reader: &mut Reader<'a>,
    least: usize,
    cap: usize,
    what: &'static str,
) -> Result<&'a str, DecodeError> {
    let at = reader.at();
    let len = usize::from(reader.u8(what)?);
    within(len, cap, what, at)?;
    let bytes = reader.take(len, what)?;
    if len < least || !is_printable(bytes) {
        return Err(DecodeError::Invalid { what, at });
    }
    std::str::from_utf8(bytes).map_err(|_| DecodeError::Invalid { what, at })
}

/// Appends a text behind a length of one byte.
fn put_text8(out: &mut impl BufMut, text: &str) {
    out.put_u8(u8::try_from(text.len()).expect("every capped text is shorter than 256"));
    out.put_slice(text.as_bytes());
}

/// Printable ASCII, the space included.
fn is_printable(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| (0x20..=0x7e).contains(byte))
}

fn within(value: usize, cap: usize, what: &'static str, at: usize) -> Result<(), DecodeError> {
    if value > cap {
        return Err(DecodeError::OverCap { what, at, value: value as u64, cap: cap as u64 });
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod testing;
