//! The overlay: a general-purpose network of peers with proven identities.
//!
//! ```text
//!  QUIC, TLS 1.3 with raw keys: proves one key of the peer
//!    stream 0: hello each way, then frames -> [services] ping, messages, gossip, discovery
//!    further streams, one per request      -> [services::requests] head, body | head, body
//! ```
//!
//! | module | what it is for |
//! |---|---|
//! | [`wire`] | every byte that is sent, to and from values, with limits; pure |
//! | [`services`] | what is said and answered: ping, messages, gossip, discovery, requests |
//! | [`crypto`] | hashes, public keys, signatures, identities |
//!
//! The wire's specification, with the abuse of each message and what stops it: `docs/networks/overlay.md`.

pub mod crypto;
pub mod wire;
