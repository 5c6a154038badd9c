//! A Handshake node: engine, header sync and store joined. Used by the binary, by the demo with many in one process,
//! and by simulation, on whatever transport and store they bring.

use std::net::SocketAddr;
use std::sync::Arc;

use rookery_base::{ByteBudget, Height, Work};
use rookery_engine::book::{Book, BookConfig};
use rookery_engine::dial::{BOOK_BLOB, DialConfig, Resolve, Shelf, addresses};
use rookery_engine::{DialPace, Engine, EngineConfig, EngineHandle, Limits, StartError};
use rookery_runtime::{BoxFuture, Env, Worker, WorkerGone};
use rookery_store::{Base, Config as StoreConfig, Store, StoreError};
use rookery_sync::Chain;
use rookery_sync::headers::{HeadersConfig, HeadersHandle, Keeper, OpenError, Opened, Opener};
use rookery_transport::Transport;

use crate::chain::HandshakeChain;
use crate::network::{Handshake, HandshakeConfig};
use crate::params::Params;
use crate::wire::{HEADER_LEN, MAX_HEADERS, Services};

/// What a node is started with.
pub struct NodeConfig {
    /// Which Handshake network.
    pub params: &'static Params,
    /// Where to listen; none: accept nobody.
    pub listen: Vec<SocketAddr>,
    /// Peers to keep connected.
    pub named: Vec<SocketAddr>,
    /// Whether to dial nobody else.
    pub only_named: bool,
    /// Outbound sessions to keep besides the named ones.
    pub outbound: usize,
    /// Whether to ask the network's seeds when no other address is known.
    pub bootstrap: bool,
    /// How much of everything there may be.
    pub limits: Limits,
    /// Whether addresses of private networks may be dialled and kept. For networks without public peers.
    pub private: bool,
    /// Asks DNS seeds; none: they are not asked.
    pub resolver: Option<Arc<dyn Resolve>>,
    /// Trusted headers to begin a new chain with: height of the first, work below it, raw headers.
    pub checkpoint: Option<(Height, Work, Vec<u8>)>,
}

impl NodeConfig {
    /// A node of this network with its usual limits, listening nowhere and knowing its network's seeds.
    pub fn new(params: &'static Params) -> Self {
        let private = params.dns_seeds.is_empty();
        Self {
            params,
            listen: Vec::new(),
            named: Vec::new(),
            only_named: false,
            outbound: OUTBOUND,
            bootstrap: !private,
            limits: if private { Limits::LOCAL } else { Limits::PUBLIC },
            private,
            resolver: None,
            checkpoint: None,
        }
    }

    /// The shape of this node's store.
    pub fn store(&self) -> StoreConfig {
        let checkpoint = self.checkpoint.as_ref();
        StoreConfig {
            base: checkpoint.map_or_else(Base::default, |(height, work_before, _)| Base {
                height: *height,
                work_before: *work_before,
            }),
            ..StoreConfig::new(self.params.name, HEADER_LEN)
        }
    }
}

/// Outbound sessions, hsd's number: enough that an attacker must hold all of eight address groups to fool a node.
pub const OUTBOUND: usize = 8;

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The stored chain.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The engine.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// A running node. It stops with the scope that it was started in.
#[derive(Clone)]
pub struct Node {
    /// Its surroundings.
    pub env: Env,
    /// Which Handshake network.
    pub params: &'static Params,
    /// Sessions and addresses.
    pub engine: EngineHandle,
    /// The chain.
    pub headers: HeadersHandle,
    /// Whether the address book had to be begun anew because the stored one could not be read, and why.
    pub book_lost: Option<String>,
}

/// Keeps blobs in the header store.
struct StoreShelf(Worker<Keeper>);

impl Shelf for StoreShelf {
    fn save(&self, name: &'static str, bytes: Vec<u8>) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            match self.0.call(move |keeper| keeper.save(name, bytes)).await {
                Ok(saved) => saved.map_err(|error| error.to_string()),
                Err(WorkerGone) => Err("the store's worker has ended".into()),
            }
        })
    }
}

impl Node {
    /// Starts a node in `env`'s scope on an open store; `opener` opens it again should a write fail.
    ///
    /// # Errors
    /// When the stored chain cannot be used or an address cannot be listened on.
    pub async fn start(
        env: &Env,
        transport: Arc<dyn Transport>,
        process: &ByteBudget,
        store: Store,
        opener: Opener,
        config: NodeConfig,
    ) -> Result<Self, NodeError> {
        let params = config.params;
        let chain: Arc<dyn Chain> = Arc::new(HandshakeChain::new(params));
        let checkpoint =
            config.checkpoint.as_ref().map(|(height, work, raw)| (*height, *work, raw.as_slice()));
        let opened = Opened::new(env, &chain, &store, checkpoint)?;
        let (book, book_lost) = book(env, &config, &store)?;
        let durable = store.state().tip.map(|tip| tip.height);
        let most_peers = config.limits.sessions.inbound + config.limits.sessions.outbound;
        // Twice the sessions: one that was closed to make room keeps its lanes until its routine has ended.
        let headers_config = HeadersConfig { full: MAX_HEADERS, most_peers: 2 * most_peers };
        let keeper = Keeper::start(env, store, opener, &opened);
        let headers = HeadersHandle::start(env, Arc::clone(&chain), opened, &keeper, durable, headers_config);
        let (address_service, inbox) = addresses(env, 2 * most_peers);
        let network = Handshake::new(HandshakeConfig {
            params,
            chain,
            headers: headers.service(),
            status: headers.watch(),
            addresses: address_service,
            env: env.clone(),
        });
        let seeds = params.fixed_seeds.iter().filter(|_| config.bootstrap);
        let seeds = seeds.map(|ip| SocketAddr::new((*ip).into(), params.port)).collect();
        let names = params.dns_seeds.iter().filter(|_| config.bootstrap);
        let dial = DialConfig {
            named: config.named,
            only_named: config.only_named,
            outbound: config.outbound,
            one_per_group: !config.private,
            book,
            seeds,
            seed_names: names.map(|name| (*name).to_owned()).collect(),
            resolver: config.resolver,
            shelf: Some(Arc::new(StoreShelf(keeper))),
            pace: DialPace::TCP,
        };
        let engine_config = EngineConfig { listen: config.listen, dial, limits: config.limits };
        let engine = Engine::start(env, transport, Arc::new(network), process, inbox, engine_config).await?;
        Ok(Self { env: env.clone(), params, engine, headers, book_lost })
    }
}

/// The stored address book, or a new one. One that cannot be read is not worth stopping for: it is begun anew, and the
/// caller is told.
fn book(env: &Env, config: &NodeConfig, store: &Store) -> Result<(Book, Option<String>), StoreError> {
    let params = config.params;
    let mut shape = BookConfig::new(params.magic, params.port, u64::from(Services::NETWORK.0));
    if config.private {
        shape = shape.with_private();
        // Nodes of private networks serve each other without announcing it.
        shape.required_services = 0;
    }
    let mut rng = env.rng.fork("book", 0);
    match store.reader().blob(BOOK_BLOB)?.map(|bytes| Book::decode(&bytes, shape)) {
        Some(Ok(book)) => Ok((book, None)),
        Some(Err(error)) => Ok((Book::new(shape, &mut rng), Some(error.to_string()))),
        None => Ok((Book::new(shape, &mut rng), None)),
    }
}
