//! Who is connected. One task owns the table; everybody else asks it.
//!
//! A finished handshake asks to be promoted to a session and is told: admitted (with a generation and a slot), or
//! why not. The slot is a ticket: it comes back by itself with the cause of the end, so a session can be neither
//! lost nor counted twice. The table is keyed by generation, never by address.
//!
//! | file | what it holds |
//! |---|---|
//! | [`state`] | the rules, pure: duplicates, limits, eviction, bans |
//! | `known` | peers with whom a session has lasted |
//! | [`actor`] | the loop, and the handle that asks it |
//! | [`watch`] | what changes, for those who follow it |

pub mod actor;
mod known;
pub mod state;
pub mod watch;

pub(crate) use actor::{Registry, RegistryHandle};
pub(crate) use state::SessionEnd;
pub use state::{ClosedSession, SessionLimits};
