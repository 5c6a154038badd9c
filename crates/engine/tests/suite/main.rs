//! What the engine promises, shown on the echo network over an in-memory transport in virtual time. Each test names
//! the rows of the acceptance list that it proves.

#![expect(clippy::unwrap_used, reason = "the helpers are tests, too: to fail there is to fail the test")]

mod accepting;
mod common;
mod connecting;
mod dialling;
mod limits;
mod pairs;
mod panics;
mod planning;
mod sessions;
mod stopping;
