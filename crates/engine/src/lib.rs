//! From the socket to a pipe and back, for any wire.
//!
//! ```text
//!  socket -> Conn -> Link (deframe) -> guard (kind table) -> Pipe::on_frame -> fair mailbox -> reactor
//!    ^                                                         |   ^ answer                      | command
//!    +-- writer task <- Outbox (lanes, bytes) <- encode once <-+   +------------------------------+
//! ```
//!
//! | module | what it owns |
//! |---|---|
//! | [`network`] | the wire seam: [`Network`], [`Established`], [`Link`] |
//! | [`service`] | the protocol seam: [`Service`], [`Pipe`], [`Flow`] |
//! | [`kinds`] | [`KindSpec`]: what is checked of a message before its payload is read |
//! | [`requests`] | the request table: typed keys, deadlines, one end per request |
//! | [`outbox`] | what a peer is to be sent: lanes with byte caps and a verdict when full |
//! | [`routine`] | one supervised routine per peer: owns reading, pipes, requests, ledger |
//! | `streams` | a connection's further streams, and its end with a reason |
//! | [`registry`] | who is connected: one owner, generations, slots that come back by themselves |
//! | [`accept`], [`admission`], [`attempt`] | who may begin a handshake, and what becomes of it |
//! | [`accounts`] | where every arrival is: none is lost, none counted twice |
//! | [`dial`], [`connect`], [`book`] | whom we dial and how, and which addresses are known |
//! | `tries` | how often one dial tries, and for what it does not |
//! | `whose` | which addresses are those of connected peers, and need no dial |
//! | [`engine`] | starts and stops all of it |
//!
//! Why it cannot deadlock: a routine never awaits a reactor (it parks its own reading); a reactor never awaits a
//! peer (a push to one has a verdict at once); the accept loop awaits nothing but the next arrival and its own
//! tickets; the registry awaits nobody.

pub mod accept;
pub mod accounts;
pub mod admission;
pub mod attempt;
pub mod book;
pub mod connect;
pub mod dial;
pub mod engine;
pub mod kinds;
pub mod ledger;
pub mod network;
pub mod outbox;
mod park;
pub mod reader;
mod refusals;
pub mod registry;
pub mod requests;
pub mod routine;
pub mod service;
pub mod session;
mod streams;
mod tries;
mod whose;
mod writer;

pub use accounts::Accounts;
pub use admission::HandshakeLimits;
pub use attempt::Dialled;
pub use connect::{DialError, DialPace};
pub use dial::{AddressMail, AddressService};
pub use engine::{Engine, EngineConfig, EngineHandle, Limits, StartError};
pub use kinds::{KindSpec, KindTable, LaneName, Over, Rate, Role};
pub use ledger::{Ledger, LedgerEntry};
pub use network::{
    Approach, Caps, Deframe, Enframe, Established, ExtraFact, Head, Link, Network, PeerFacts, Precedence,
    StreamPeer, StreamService, UnknownKind,
};
pub use outbox::Outbox;
pub use registry::watch::{Change, StateChange, StateWatch};
pub use requests::{RequestKey, RequestRefused};
pub use service::{Admit, Answer, Command, End, Flow, Pipe, Service, Until};
pub use session::{PeerHandle, PeerView};
