//! The accept path of real overlay nodes over real sockets, under honest load and under attack.

#![expect(clippy::unwrap_used, reason = "in a test, a failure is a result")]

mod common;
mod doors;
mod fates;
mod foreign;
mod hostile;
mod pairs;
mod raw;
mod storms;
mod wires;
