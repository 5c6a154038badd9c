//! One host of a chain world: its disk, which outlives its nodes, and the node that runs on it, if any.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use rookery_base::{ByteBudget, Height};
use rookery_engine::Limits;
use rookery_handshake::miner::Miner;
use rookery_handshake::node::{Node as ChainNode, NodeConfig, OUTBOUND};
use rookery_handshake::params::Params;
use rookery_store::{Config as StoreConfig, MemoryDisk, Store, StoreError};
use rookery_sync::headers::Opener;

use super::line::PARAMS;
use crate::world::Node;

/// Where every node listens.
pub const PORT: u16 = PARAMS.port;
/// Bytes of messages that a node may hold: twice its network's, so that the network's own cap is the one that bites.
const PROCESS_BYTES: usize = 64 << 20;

/// What a host's nodes are started with.
#[derive(Clone)]
pub struct Plan {
    /// The network.
    pub params: &'static Params,
    /// Peers to keep connected.
    pub connect: Vec<IpAddr>,
    /// Whether to dial nobody else.
    pub only: bool,
    /// Outbound sessions besides the named ones.
    pub outbound: usize,
    /// Whether to accept.
    pub listen: bool,
    /// Whether the limits of a public node hold, and one outbound session for each address group.
    pub public: bool,
    /// Seconds by which its clock is wrong.
    pub skew: i64,
    /// What its disk holds at first.
    pub image: Option<Arc<Vec<u8>>>,
}

impl Default for Plan {
    /// Listens, knows nobody, dials nobody, has nothing.
    fn default() -> Self {
        Self {
            params: PARAMS,
            connect: Vec::new(),
            only: true,
            outbound: OUTBOUND,
            listen: true,
            public: false,
            skew: 0,
            image: None,
        }
    }
}

impl Plan {
    /// A node that keeps these connected and dials nobody else.
    pub fn to(connect: &[IpAddr]) -> Self {
        Self { connect: connect.to_vec(), ..Self::default() }
    }

    /// The same, beginning with what is on this disk.
    #[must_use]
    pub fn with(self, image: &Arc<Vec<u8>>) -> Self {
        Self { image: Some(Arc::clone(image)), ..self }
    }

    fn config(&self, ip: IpAddr) -> NodeConfig {
        let at = |ip: &IpAddr| SocketAddr::new(*ip, PORT);
        NodeConfig {
            listen: if self.listen { vec![at(&ip)] } else { Vec::new() },
            named: self.connect.iter().map(at).collect(),
            only_named: self.only,
            outbound: self.outbound,
            private: !self.public,
            bootstrap: self.public,
            limits: if self.public { Limits::PUBLIC } else { Limits::LOCAL },
            ..NodeConfig::new(self.params)
        }
    }
}

/// A node that runs.
#[derive(Clone)]
pub struct Up {
    /// Its surroundings in the world.
    pub node: Node,
    /// The node itself.
    pub chain: ChainNode,
    /// What its store's opener goes by.
    pub machine: Arc<Machine>,
}

/// What becomes of a store that is opened again after a failure.
#[derive(Debug)]
pub struct Machine {
    /// Without power it cannot be opened.
    pub power: AtomicBool,
    /// As often as this, the first write after opening it fails again.
    pub relapses: AtomicU32,
    /// How often it was opened again.
    pub reopened: AtomicU32,
}

impl Machine {
    fn reopen(&self, disk: &MemoryDisk, shape: &StoreConfig) -> Result<Store, StoreError> {
        if !self.power.load(Relaxed) {
            return Err(StoreError::Closed { path: "a machine without power".into() });
        }
        let store = Store::in_memory(disk, shape)?;
        self.reopened.fetch_add(1, Relaxed);
        if self.relapses.load(Relaxed) > 0 {
            self.relapses.fetch_sub(1, Relaxed);
            disk.fail_after(0, io::ErrorKind::StorageFull);
        }
        Ok(store)
    }
}

impl Up {
    /// Height of its best header.
    pub fn height(&self) -> Height {
        self.chain.headers.status().height
    }

    /// A miner on its tip.
    pub fn miner(&self) -> Result<Miner, String> {
        Miner::new(self.chain.params, self.chain.headers.clone()).map_err(|error| error.to_string())
    }
}

/// A host.
pub struct Host {
    /// What its nodes are started with.
    pub plan: Plan,
    /// Its disk.
    pub disk: MemoryDisk,
    /// Its node.
    pub up: Option<Up>,
    /// The height that its nodes have told to be durable.
    pub acknowledged: Height,
}

impl Host {
    /// A host whose node is not started yet.
    pub fn new(plan: Plan) -> Self {
        let disk = plan.image.as_ref().map_or_else(MemoryDisk::new, |image| MemoryDisk::from_image(image));
        Self { plan, disk, up: None, acknowledged: 0 }
    }
}

/// Starts a node on a host's disk.
pub async fn start(node: Node, disk: MemoryDisk, plan: &Plan) -> Result<Up, String> {
    let config = plan.config(node.ip);
    let shape = config.store();
    let machine = Arc::new(Machine {
        power: AtomicBool::new(true),
        relapses: AtomicU32::new(0),
        reopened: AtomicU32::new(0),
    });
    let store = Store::in_memory(&disk, &shape).map_err(|error| format!("{}: {error}", node.ip))?;
    let below = Arc::clone(&machine);
    let opener: Opener = Box::new(move || below.reopen(&disk, &shape));
    let process = ByteBudget::root("process", PROCESS_BYTES);
    let transport = Arc::clone(&node.transport);
    let chain = ChainNode::start(&node.env, transport, &process, store, opener, config).await;
    let chain = chain.map_err(|error| format!("{} does not start: {error}", node.ip))?;
    Ok(Up { node, chain, machine })
}
