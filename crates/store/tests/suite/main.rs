//! The store against a model: crashes, failures, damage, kill -9, refusals.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod chain;
mod crash;
mod damage;
mod kill;
mod open;
mod rules;
