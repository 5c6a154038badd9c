//! One message as it travels from the link to a pipe.

use crate::Charge;
use bytes::Bytes;

/// A message kind's number on its network's wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind(pub u16);

/// A message whose head passed the guard and whose body has arrived whole.
///
/// Its bytes stay charged to the peer's, the network's and the process's budget until it is dropped, or until
/// whoever takes the body over drops the [`Charge`].
#[derive(Debug)]
pub struct Frame {
    /// What it is.
    pub kind: Kind,
    /// Its payload, without the wire's head.
    pub body: Bytes,
    charge: Charge,
}

impl Frame {
    /// A frame that holds `charge` for its body.
    pub const fn new(kind: Kind, body: Bytes, charge: Charge) -> Self {
        Self { kind, body, charge }
    }

    /// Splits off the charge, for handing body and charge on together.
    pub fn into_parts(self) -> (Kind, Bytes, Charge) {
        (self.kind, self.body, self.charge)
    }
}
