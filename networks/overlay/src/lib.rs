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
//! | [`node`] | for applications: [`Builder`] gives a [`Node`] and its [`Handle`] |
//! | `handshake`, `network` | hellos, and the overlay as the engine's network |
//! | [`wire`] | every byte that is sent, to and from values, with limits; pure |
//! | [`services`] | what is said and answered: ping, messages, gossip, discovery, requests |
//! | [`crypto`] | hashes, and whose key a key is |
//!
//! The wire's specification, with the abuse of each message and what stops it: `docs/networks/overlay.md`.

pub mod crypto;
mod handshake;
mod network;
pub mod node;
pub mod services;
pub mod wire;

pub use handshake::ExtraKey;
pub use node::{Builder, Event, Handle, Node};
