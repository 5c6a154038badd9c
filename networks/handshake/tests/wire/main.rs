//! The wire codec: rows F1 (declared sizes), F2 (counts never allocate), F3 (golden bytes, truncation, trailing bytes,
//! wrong discriminators) and F5 (declared bounds) of the engine's acceptance list, and Handshake's wire row: every kind
//! round-trips, little-endian ports, canonical integers, unknown kinds skipped, every truncation an error.

#![expect(clippy::unwrap_used, reason = "what a test builds and reads is known to be whole")]

mod alloc;
mod fixtures;
mod packets;
mod random;
mod sized;
