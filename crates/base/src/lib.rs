//! Plain types that every layer speaks. No runtime, no I/O, no clock.
//!
//! | module | what it is for |
//! |---|---|
//! | [`codec`] | decoding with limits: nothing is allocated beyond the bytes that are present |
//! | [`budget`] | byte budgets in a tree (peer, network, process); a [`Charge`] gives its bytes back on drop |
//! | [`frame`] | one message as it travels from the link to a pipe |
//! | [`fault`] | whose fault a failure is, and why a session closed |
//! | [`id`] | peer identities, generations, address groups |
//! | [`hash`] | 32-byte hashes and accumulated work |

pub mod budget;
pub mod codec;
pub mod fault;
pub mod frame;
pub mod hash;
pub mod id;

pub use budget::{ByteBudget, Charge};
pub use codec::{DecodeError, Reader};
pub use fault::{CloseCause, Fault, LocalFault, PeerFault, PeerFaultKind, Refusal, Weight};
pub use frame::{Frame, Kind};
pub use hash::{Hash32, Height, Work};
pub use id::{AddrGroup, Direction, Generation, PeerId};
