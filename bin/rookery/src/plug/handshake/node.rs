//! A Handshake node as the front sees it, and how one is started from a configuration.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rookery_base::{ByteBudget, Height, Work};
use rookery_engine::dial::Resolve;
use rookery_engine::{Limits, StartError};
use rookery_handshake::chain::HandshakeChain;
use rookery_handshake::checkpoint::Checkpoint;
use rookery_handshake::node::{Node as HandshakeNode, NodeConfig, NodeError};
use rookery_handshake::params::Params;
use rookery_runtime::{BoxFuture, Env, OnPanic};
use rookery_store::{Store, StoreError};
use rookery_sync::headers::OpenError;
use rookery_transport::Tcp;
use tokio::sync::watch;

use super::views;
use crate::config::Config;
use crate::exit::{Exit, Report};
use crate::node::Node;
use crate::node::view::{BanRow, ChainView, NodeStatus, NodeWhy, PeerRow, PeerWhy, Progress};
use crate::plug::engine;
use crate::plug::resolve::resolve_all;

/// Bytes of messages that the process may hold for peers. A headers node needs one message of half a megabyte per
/// peer that is asked; this is thirty times what eight such peers need, and half of what the whole node may take.
const PROCESS_BYTES: usize = 32 << 20;
/// The store's file in a network's data directory.
const STORE: &str = "headers.redb";

/// A running node.
pub(in crate::plug) struct Plug {
    pub node: HandshakeNode,
    limits: Limits,
    progress: watch::Receiver<Progress>,
}

impl Plug {
    /// Follows a node's chain for the front.
    pub fn new(node: HandshakeNode, limits: Limits) -> Self {
        let mut status = node.headers.watch();
        let first = views::progress(&status.borrow());
        let (tell, progress) = watch::channel(first);
        node.env.scope.spawn("progress", OnPanic::StopNode, async move {
            while status.changed().await.is_ok() {
                let now = views::progress(&status.borrow_and_update());
                tell.send_replace(now);
            }
            // The last value stays readable for as long as the node's scope lives.
            std::future::pending().await
        });
        Self { node, limits, progress }
    }
}

impl Node for Plug {
    fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    fn status(&self) -> BoxFuture<'_, NodeStatus> {
        Box::pin(views::status(&self.node))
    }

    fn peers(&self) -> BoxFuture<'_, Vec<PeerRow>> {
        Box::pin(views::peers(&self.node))
    }

    fn peer_why(&self, peer: SocketAddr) -> BoxFuture<'_, Vec<PeerWhy>> {
        Box::pin(engine::peer_why(&self.node.env, &self.node.engine, peer))
    }

    fn bans(&self) -> BoxFuture<'_, Vec<BanRow>> {
        Box::pin(engine::bans(&self.node.engine))
    }

    fn chain(&self) -> BoxFuture<'_, Option<ChainView>> {
        Box::pin(async { Some(views::chain(&self.node).await) })
    }

    fn why(&self) -> BoxFuture<'_, NodeWhy> {
        Box::pin(views::why(&self.node, &self.limits))
    }
}

/// Asks the system's resolver.
pub(super) struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, name: &str, port: u16) -> BoxFuture<'_, Vec<SocketAddr>> {
        let name = name.to_owned();
        Box::pin(async move {
            match tokio::net::lookup_host((name.as_str(), port)).await {
                Ok(found) => found.collect(),
                Err(error) => {
                    tracing::warn!(target: "rookery", %name, %error, "a seed's name cannot be resolved");
                    Vec::new()
                }
            }
        })
    }
}

/// Starts a node as configured.
pub(in crate::plug) async fn start(
    env: &Env,
    config: &Config,
    params: &'static Params,
) -> Result<Plug, Report> {
    let peers = config.named_peers();
    let named = resolve_all(&peers.named).await?;
    let usual = NodeConfig::new(params);
    let mut limits = usual.limits;
    limits.sessions.inbound = config.max_inbound as usize;
    limits.sessions.outbound = config.max_outbound as usize + named.len();
    let node_config = NodeConfig {
        listen: config.listen_addresses(),
        named,
        only_named: peers.only,
        outbound: config.max_outbound as usize,
        limits,
        bootstrap: config.bootstrap,
        checkpoint: config.checkpoint.as_deref().map(|file| checkpoint(params, file)).transpose()?,
        resolver: config.bootstrap.then(|| Arc::new(SystemResolver) as Arc<dyn Resolve>),
        ..usual
    };
    let node = open(env, &config.chain_dir(), node_config).await?;
    for at in node.engine.listening() {
        tracing::info!(target: "rookery", "listening on {at}");
    }
    if let Some(why) = &node.book_lost {
        tracing::warn!(target: "rookery", "the address book was begun anew: {why}");
    }
    Ok(Plug::new(node, limits))
}

/// The trusted headers in a file: height of the first, work below it, raw headers.
fn checkpoint(params: &'static Params, file: &Path) -> Result<(Height, Work, Vec<u8>), Report> {
    let unusable = |why: String| {
        Report::usage(format!("cannot begin with the checkpoint {}: {why}", file.display()))
            .hint("give a file that hnsd has written for this network, or leave --checkpoint out to begin at genesis")
    };
    let bytes = std::fs::read(file).map_err(|error| unusable(error.to_string()))?;
    let read = Checkpoint::read(&HandshakeChain::new(params), &bytes);
    let read = read.map_err(|error| unusable(error.to_string()))?;
    Ok((read.height(), read.work_before(), read.raw().to_vec()))
}

/// Starts a node on the store in a directory.
pub(super) async fn open(env: &Env, directory: &Path, config: NodeConfig) -> Result<HandshakeNode, Report> {
    let (path, shape) = (directory.join(STORE), config.store());
    let opener = Box::new(move || Store::open(&path, &shape));
    let store = opener().map_err(|error| store_report(&error))?;
    if store.recovered() {
        tracing::info!(target: "rookery", "the store was not closed in order last time; it was checked and is whole");
    }
    let process = ByteBudget::root("process", PROCESS_BYTES);
    let started = HandshakeNode::start(env, Arc::new(Tcp), &process, store, opener, config).await;
    started.map_err(|error| node_report(&error))
}

/// A node of the demo: on loopback, listening on any free port.
pub(super) fn loopback(params: &'static Params, named: Vec<SocketAddr>) -> NodeConfig {
    NodeConfig {
        listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
        named,
        only_named: true,
        limits: Limits::LOCAL,
        ..NodeConfig::new(params)
    }
}

fn store_report(error: &StoreError) -> Report {
    let exit = match error {
        StoreError::OtherNetwork { .. } => Exit::NetworkMismatch,
        StoreError::Batch { .. } | StoreError::Config { .. } => Exit::Bug,
        _ => Exit::DataDir,
    };
    Report::new(exit, error.to_string())
}

fn node_report(error: &NodeError) -> Report {
    match error {
        NodeError::Store(error) | NodeError::Open(OpenError::Store(error)) => store_report(error),
        NodeError::Open(error) => Report::new(Exit::DataDir, error.to_string()),
        NodeError::Start(StartError::Listen { .. }) => Report::new(Exit::PortTaken, error.to_string()).hint(
            "another program listens there, or the address is not this machine's: choose another --listen",
        ),
        NodeError::Start(error) => Report::bug(error.to_string()),
    }
}
