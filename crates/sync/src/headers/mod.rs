//! Header sync from many peers at once, and headers for those who ask.
//!
//! ```text
//!  pipe: shape, proof of work, links  --Batch-->  fair mailbox  -->  reactor: place, work, tip  -->  store worker
//!  pipe: getheaders                   --Locate->                       |  ^ whom to ask: roster
//!  pipe  <--Ask, Serve, Announce, Fault--------------------------------+  +-- durable
//! ```
//!
//! What a header says about itself is checked in its peer's own routine; the reactor checks its place in the tree,
//! which needs the chain. One reactor owns the tree; one worker owns the store.
//!
//! # Why it cannot wedge
//!
//! * The one piece of work, the headers after our tip, is always waiting or in stated hands (`roster`). Each
//!   request ends exactly once: answered, timed out, refused, or with its session, whose farewell cannot be lost.
//! * After each event the reactor asks again whom to ask. A peer that claims more than we have and is free is asked;
//!   one that does not help rests, so that no liar is asked in a loop, and rests end by the clock.
//! * When the store is behind, nothing more is admitted: events wait in their lanes, which park their peers. A commit
//!   ends, well or not; two failures stop the node.
//! * The reactor never waits for a peer: an order that finds no room has a verdict at once.
//!
//! | file | what it holds |
//! |---|---|
//! | `ingress` | what comes in and what goes out |
//! | `roster` | whom to ask, and what follows from answers; pure |
//! | `handle` | what others hold of it: status, questions |
//! | `actor` | the loop |
//! | `serve` | answers to peers that ask |
//! | `commit` | tree to store |
//! | `keeper` | the store's worker, and its second chance |
//! | `why` | what progress waits for |
//! | `audit` | what it believes, for invariants |
//! | `time` | our time, adjusted by peers' |

mod actor;
mod audit;
mod commit;
mod handle;
mod ingress;
mod keeper;
mod roster;
mod serve;
mod start;
mod time;
mod why;

pub use audit::{HeadersAudit, PeerAudit};
pub use handle::{ChainStatus, HeadersConfig, HeadersHandle, Submitted};
pub use ingress::{HeadersMail, HeadersOrder, HeadersService, LOCATE_COST};
pub use keeper::{Keeper, Opener};
pub use start::{OpenError, Opened};
pub use why::{Hop, HopState};
