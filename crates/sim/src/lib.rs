//! Simulated worlds: many nodes, one virtual clock, one in-memory internet, one seed.
//!
//! | module | what it is for |
//! |---|---|
//! | [`fabric`] | the internet: ordered pipes between hosts, a link model, faults that can be commanded or scheduled |
//! | [`datagram`] | the same internet's lossy datagrams, on which the real quinn runs |
//! | [`auditor`] | one running hash over everything that happened, and the last events for a failure's report |
//! | [`world`] | runtime, nodes' surroundings, invariants, `until`, the failure report with its replay line |
//! | [`chainworld`] | worlds of real Handshake nodes, their disks and the invariants that they are held to |
//! | [`hostile`] | peers that break the rules on the real wire |
//! | [`mod@scenarios`] | the named scenarios that `rookery sim` and the tests run |
//!
//! A node in a world is whatever was started with an [`Env`](rookery_runtime::Env), an
//! `Arc<dyn Transport>` and an address: the world knows nothing of what it says. The same code runs in a real node;
//! the fabric stands where the operating system's sockets stand.
//!
//! What it promises: a scenario with a seed gives one [`AuditHash`], in any process, as long as
//! everything in it takes time, randomness and tasks from its `Env`. Real time is never read: the clock is tokio's,
//! paused, and moves only when nothing can run, in steps of a whole millisecond (tokio's timer tick).
//!
//! What it does not find: a task that never yields, or tasks that wake each other for ever without waiting for
//! time. Virtual time stands still then, and the run does not end.

pub mod auditor;
pub mod chainworld;
mod clock;
pub mod datagram;
pub mod fabric;
pub mod hostile;
pub mod scenarios;
pub mod world;

pub use auditor::{AuditHash, Auditor};
pub use chainworld::ChainWorld;
pub use fabric::{Fabric, Link};
pub use scenarios::{Scenario, scenarios};
pub use world::{Failure, Node, Report, World, WorldConfig};
