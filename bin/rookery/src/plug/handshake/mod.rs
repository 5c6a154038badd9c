//! Handshake nodes behind the front's seam.
//!
//! | file | what it holds |
//! |---|---|
//! | `node` | a node as the front sees it, and how one is started from a configuration |
//! | `views` | from what the header sync tells to what is shown |
//! | `demo` | a network of nodes in this process |
//! | `probe` | one question to one peer, without a node |

mod demo;
mod node;
mod probe;
mod views;

pub(super) use demo::Demo;
pub(super) use node::start;
pub(super) use probe::probe;
