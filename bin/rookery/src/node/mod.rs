//! The one seam between the front of the house and the node.
//!
//! The front (commands, control socket, HTTP) knows no protocol. It asks a [`Node`] for [`view`]s, and a
//! [`Machinery`] for nodes. Everything a node runs is spawned in the [`Env`]'s scope that it was started with:
//! closing that scope is how it is stopped, and the scope's cause is how its failure is learnt.
//!
//! ```text
//! command line -> commands -> Machinery::start(env, config) -> Node <- control socket, HTTP
//!                                        |                      |
//!                                     env.scope <- close(5 s)   +-> watch: Progress (newest only)
//! ```
//!
//! A view never waits for a peer. It may wait for one of the node's owners, so callers give it a deadline; an owner
//! that does not answer in time is what liveness means here.

pub mod view;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use rookery_overlay::services::gossip::Delivery;
use rookery_runtime::{BoxFuture, Env};
use tokio::sync::{mpsc, watch};

use crate::config::Config;
use crate::exit::Report;
use view::{
    BanRow, ChainView, Identity, NodeStatus, NodeWhy, PeerRow, PeerWhy, ProbeAnswer, Progress, Scenario,
    Simulated,
};

/// A running node.
pub trait Node: Send + Sync {
    /// How far it is, newest value only. The sender lives as long as the node.
    fn progress(&self) -> watch::Receiver<Progress>;
    /// Its state at a glance.
    fn status(&self) -> BoxFuture<'_, NodeStatus>;
    /// Its sessions, oldest first.
    fn peers(&self) -> BoxFuture<'_, Vec<PeerRow>>;
    /// What shaped a peer's fate, connected or not; port 0 asks for every port. Empty when the address was never met.
    fn peer_why(&self, peer: SocketAddr) -> BoxFuture<'_, Vec<PeerWhy>>;
    /// The addresses that it refuses.
    fn bans(&self) -> BoxFuture<'_, Vec<BanRow>>;
    /// Its chain, where its network has one.
    fn chain(&self) -> BoxFuture<'_, Option<ChainView>>;
    /// What its progress waits for, hop by hop.
    fn why(&self) -> BoxFuture<'_, NodeWhy>;
    /// What is published in its network, where anything is.
    fn topics(&self) -> Option<&dyn Topics> {
        None
    }
}

/// What is published in a network of topics.
pub trait Topics: Send + Sync {
    /// Gets what others publish under a topic from now on, and what they have lately.
    fn subscribe<'a>(&'a self, topic: &'a str) -> BoxFuture<'a, Result<mpsc::Receiver<Delivery>, Report>>;
    /// Publishes under a topic; on failure says why not.
    fn publish<'a>(&'a self, topic: &'a str, payload: Bytes) -> BoxFuture<'a, Result<(), String>>;
}

/// A network of nodes in this process, on loopback, for `demo`.
pub trait DemoNetwork: Send {
    /// How many nodes there are before the late one joins.
    fn nodes(&self) -> usize;
    /// The mining node's progress towards the first height, then beyond, a block at a time.
    fn mining(&self) -> watch::Receiver<Progress>;
    /// Starts the late node, which knows nothing but the others' addresses.
    fn join(&mut self) -> BoxFuture<'_, Result<Arc<dyn Node>, Report>>;
}

/// A question to one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Question {
    /// Round-trip time of a ping.
    Ping,
    /// The headers after genesis.
    Headers,
    /// Addresses of other peers.
    Addrs,
    /// Who it is.
    Version,
}

/// One question to one peer, without a node.
#[derive(Debug, Clone)]
pub struct Probe {
    /// The network it is on.
    pub network: crate::network::Network,
    /// `host:port`.
    pub address: String,
    /// What is asked.
    pub question: Question,
}

/// Makes nodes, and whatever else needs the engine.
pub trait Machinery: Send + Sync {
    /// Starts a node in `env.scope`. The data directory exists and is locked by the caller.
    fn start<'a>(&'a self, env: &'a Env, config: &'a Config) -> BoxFuture<'a, Result<Arc<dyn Node>, Report>>;
    /// Who the node of this configuration is, from what is kept; makes nothing.
    fn identity(&self, config: &Config) -> Result<Identity, Report>;
    /// Starts this many overlay nodes in `env.scope`, which are told of the first one and of nobody else.
    fn meeting<'a>(&'a self, env: &'a Env, nodes: usize)
    -> BoxFuture<'a, Result<Vec<Arc<dyn Node>>, Report>>;
    /// Starts a network for the demo in `env.scope`; its miner goes to `headers`, then makes a block every second
    /// once the late node has joined.
    fn demo<'a>(&'a self, env: &'a Env, headers: u32) -> BoxFuture<'a, Result<Box<dyn DemoNetwork>, Report>>;
    /// Asks one peer one question. A peer that does not answer is [`Exit::Unreachable`](crate::exit::Exit::Unreachable), one of
    /// another network [`Exit::NetworkMismatch`](crate::exit::Exit::NetworkMismatch).
    fn probe<'a>(&'a self, env: &'a Env, probe: &'a Probe) -> BoxFuture<'a, Result<ProbeAnswer, Report>>;
    /// The simulation's scenarios.
    fn scenarios(&self) -> Vec<Scenario>;
    /// Runs one. A broken promise is a result, not an error; an unknown name is [`Exit::Usage`](crate::exit::Exit::Usage).
    fn simulate(&self, scenario: &str, seed: u64) -> Result<Simulated, Report>;
}
