//! Questions to a running node, over `<data dir>/<network>/control.sock`.
//!
//! One connection, one question: a line of JSON in, a line of JSON out, end.
//!
//! ```text
//! {"ask":"status"}                                  -> {"ok":{...}}
//! {"ask":"peer_why","address":"192.0.2.7:12038"}    -> {"ok":[{...}]}
//! anything else                                     -> {"error":"..."}
//! ```
//!
//! | limit | value | what happens at it |
//! |---|---|---|
//! | question | [`MAX_QUESTION`] | an error line, then the end |
//! | time to ask | [`ASK_WITHIN`] | an error line, then the end |
//! | time to answer | [`VIEW_WITHIN`](crate::front::VIEW_WITHIN) | an error line that says that the node hangs |
//! | time to read the answer | [`READ_WITHIN`] | the end |
//! | clients at a time | [`MAX_CLIENTS`] | the next waits in the kernel's queue |
//! | answer | [`MAX_ANSWER`] | the client gives up |
//!
//! Only the user who started the node, and root, are answered: the socket's mode says so, and the server asks the
//! kernel who called. All questions are reads: nothing here can change the node.

pub mod client;
pub mod server;
pub mod show;

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The socket's name in the data directory.
pub const SOCKET: &str = "control.sock";
/// The longest question, `peer_why` of an IPv6 address, has about 90 bytes.
pub const MAX_QUESTION: usize = 512;
/// A client that connects knows its question.
pub const ASK_WITHIN: Duration = Duration::from_secs(2);
/// An answer fits in the socket's buffer or is read by a program that waits for it.
pub const READ_WITHIN: Duration = Duration::from_secs(5);
/// People and scripts that ask at the same moment.
pub const MAX_CLIENTS: usize = 16;
/// Four thousand peers of 400 bytes, twice over.
pub const MAX_ANSWER: u64 = 4 * 1024 * 1024;

/// A question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Question {
    /// [`Status`](crate::node::view::Status).
    Status,
    /// A list of [`PeerRow`](crate::node::view::PeerRow).
    Peers,
    /// A list of [`PeerWhy`](crate::node::view::PeerWhy), empty when the address was never met.
    PeerWhy {
        /// The peer; port 0: every port.
        address: SocketAddr,
    },
    /// A list of [`BanRow`](crate::node::view::BanRow).
    Bans,
    /// [`ChainView`](crate::node::view::ChainView).
    Chain,
    /// [`NodeWhy`](crate::node::view::NodeWhy).
    Why,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer<T> {
    /// The view that was asked for.
    Ok(T),
    /// Why there is none.
    Error(String),
}
