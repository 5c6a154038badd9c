//! Overlay nodes behind the front's seam.
//!
//! | file | what it holds |
//! |---|---|
//! | `node` | a node as the front sees it, and how one is started from a configuration |
//! | `views` | from what the overlay tells to what is shown |

mod node;
mod views;

pub(super) use node::{identity, meeting, start};
