//! The program's tests, in one binary: they share a made-up node and link once.
//!
//! | module | what it proves |
//! |---|---|
//! | [`config`] | layers, origins, what a wrong configuration is told |
//! | [`control`] | the control socket, against clients of every kind |
//! | [`http`] | metrics and health |
//! | [`binary`] | the real program: exit codes, lock, stdout and stderr |
//! | [`overlay`] | the overlay through the real program: chat, identity, refusals |
//! | [`fates`] | what the real program says of three hundred peers that were refused, parked, evicted or left |
//! | [`service`] | a whole process around a made-up node: signals, summaries |
//! | [`reference`] | the reference pages are what the program says |
#![allow(clippy::unwrap_used, missing_docs, reason = "tests: their helpers may panic too")]

mod binary;
mod config;
mod control;
mod fates;
mod http;
mod overlay;
mod reference;
mod service;
mod support;
