//! Handshake (HNS): its wire, its rules for headers, and what a headers node says on it.
//!
//! ```text
//!  bytes -> [handshake] version, verack -> Established
//!        -> [link] head, payload -> [services] pipes -> header reactor, address book
//!                        [wire] bytes <-> packets     [chain] is this header right, and in its place
//! ```
//!
//! | module | what it is for |
//! |---|---|
//! | [`network`] | [`Handshake`]: the whole as one [`Network`](rookery_engine::Network); begin here |
//! | [`handshake`] | `version` and `verack`, self-connections |
//! | [`link`] | framing: nine bytes in front of every packet |
//! | [`services`] | what is said and answered, kind by kind: control, discovery, headers |
//! | [`wire`] | every packet, to and from bytes, with limits; pure |
//! | [`chain`] | the rules: proof of work, targets, times, checkpoints; pure |
//! | [`params`] | the four networks and what differs between them |
//! | [`checkpoint`] | starting from 150 headers instead of genesis; files that hnsd reads and writes |
//! | [`node`] | engine, header sync and store joined: a whole node, on any transport |
//! | [`miner`] | mines empty blocks on a node's tip |
//! | [`mine`] | empty blocks for demos and devnets, long header chains for tests |
//!
//! What the wire carries and what peers do is told in each module's first lines, with the limits and the attack that
//! each one stops.

pub mod chain;
pub mod checkpoint;
pub mod handshake;
pub mod link;
pub mod mine;
pub mod miner;
pub mod network;
pub mod node;
pub mod params;
pub mod services;
pub mod wire;

pub use network::{Handshake, HandshakeConfig};
