//! Starts nodes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use rand::Rng;
use rookery_base::ByteBudget;
use rookery_engine::book::{Book, BookConfig};
use rookery_engine::dial::{DialConfig, addresses};
use rookery_engine::{DialPace, Engine, EngineConfig, Limits, Service};
use rookery_runtime::Env;
use rookery_transport::quic::{Datagrams, Quic, QuicLimits, Udp};
use rookery_transport::tls::{Identity, KeyError, Keys, Trust};

use super::files::{Folder, FolderError};
use super::handle::Handle;
use super::mapping::{self, Gateway};
use super::{Node, desk, reach};
use crate::handshake::{ExtraKey, Introduction};
use crate::network::Overlay;
use crate::services::discovery::{Discovery, DiscoveryConfig};
use crate::services::gossip::Gossip;
use crate::services::messages::Messages;
use crate::services::ping::Ping;
use crate::services::requests::{Handler, RequestServer, ServiceLimits};
use crate::wire::hello::network_id;
use crate::wire::request::ServiceName;
use crate::wire::snapshot::Owner;

/// The application protocol that TLS agrees on.
const ALPN: &[u8] = b"rookery-overlay/1";
/// Bytes of messages that all peers together may have a node hold, unless its owner gives it a share of a larger budget.
const PROCESS_BYTES: usize = 64 << 20;
/// Bytes that QUIC may hold for all sessions together, both ways: a gigabyte leaves each of 500 the whole of its window, and thousands
/// rarely fill theirs at the same time.
const QUIC_BYTES: u64 = 1 << 30;
/// Sessions that a node opens by itself: eight are what an attacker has to hold all of, as in other networks.
const OUTBOUND: usize = 8;

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// Its keys.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// QUIC.
    #[error("cannot start QUIC: {0}")]
    Quic(#[from] std::io::Error),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] rookery_engine::StartError),
}

/// What a node is started with. Everything has a default but the network's name.
#[must_use]
pub struct Builder {
    network: String,
    identity: Option<Identity>,
    keys: Keys,
    trust: Trust,
    folder: Option<PathBuf>,
    listen: Vec<SocketAddr>,
    advertise: Vec<SocketAddr>,
    named: Vec<SocketAddr>,
    bootstrap: Vec<SocketAddr>,
    outbound: usize,
    local: bool,
    limits: Limits,
    quic: QuicLimits,
    agent: String,
    capabilities: u64,
    process: Option<ByteBudget>,
    extra: Option<Arc<dyn ExtraKey>>,
    requests: Vec<(ServiceName, ServiceLimits, Arc<dyn Handler>)>,
    gateway: Option<Box<dyn Gateway>>,
}

impl Builder {
    /// A node of the network of this name: nodes of other names are not spoken to. It listens nowhere, knows nobody, has
    /// a new identity with ML-DSA-65 and Ed25519 keys and the limits of a public node.
    pub fn new(network: impl Into<String>) -> Self {
        Self {
            network: network.into(),
            identity: None,
            keys: Keys::Both,
            trust: Trust::Both,
            folder: None,
            listen: Vec::new(),
            advertise: Vec::new(),
            named: Vec::new(),
            bootstrap: Vec::new(),
            outbound: OUTBOUND,
            local: false,
            limits: Limits::PUBLIC,
            quic: QuicLimits::DEFAULT,
            agent: concat!("rookery/", env!("CARGO_PKG_VERSION")).into(),
            capabilities: 0,
            process: None,
            extra: None,
            requests: Vec::new(),
            gateway: None,
        }
    }

    /// Keeps the identity and the addresses of peers in this folder, and makes it where it is not there.
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Has this identity, instead of a new one or the folder's.
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Has these kinds of keys, where the identity is new or the folder's.
    pub const fn keys(mut self, keys: Keys) -> Self {
        self.keys = keys;
        self
    }

    /// Refuses peers that cannot prove an ML-DSA-65 key.
    pub const fn require_post_quantum(mut self) -> Self {
        self.trust = Trust::PostQuantum;
        self
    }

    /// Listens here as well. Port 0 takes any free one; `[::]` takes IPv4 too.
    pub fn listen(mut self, at: SocketAddr) -> Self {
        self.listen.push(at);
        self
    }

    /// Tells others that this node can be reached here, beside where it listens and where several of them see it.
    pub fn advertise(mut self, addr: SocketAddr) -> Self {
        self.advertise.push(addr);
        self
    }

    /// Asks this gateway for a port that leads here, for a node behind an address translator, and keeps it until the node
    /// stops. Where the port leads from is told to others once several of them see the node at the same IP. `Router` asks by
    /// PCP and NAT-PMP (feature `port-mapping`).
    pub fn map_port(mut self, gateway: impl Gateway) -> Self {
        self.gateway = Some(Box::new(gateway));
        self
    }

    /// Keeps a session with whoever is at this address.
    pub fn peer(mut self, addr: SocketAddr) -> Self {
        self.named.push(addr);
        self
    }

    /// Asks whoever is at this address for others, while nobody else is known.
    pub fn bootstrap(mut self, addr: SocketAddr) -> Self {
        self.bootstrap.push(addr);
        self
    }

    /// How many sessions to open besides the named ones.
    pub const fn outbound(mut self, sessions: usize) -> Self {
        self.outbound = sessions;
        self
    }

    /// Is on a loopback or private network: addresses there may be dialled and told, and peers share address groups.
    pub const fn local(mut self) -> Self {
        self.local = true;
        self.limits = Limits::LOCAL;
        self
    }

    /// How much of everything there may be.
    pub const fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Bounds of QUIC. Its windows become smaller where there may be so many sessions that they would hold more than a gigabyte
    /// together: see [`QuicLimits::sharing`].
    pub const fn quic(mut self, limits: QuicLimits) -> Self {
        self.quic = limits;
        self
    }

    /// The program's name, for people to read.
    pub fn agent(mut self, agent: impl Into<String>) -> Self {
        self.agent = agent.into();
        self
    }

    /// What this node can do, as bits that the application gives a meaning.
    pub const fn capabilities(mut self, bits: u64) -> Self {
        self.capabilities = bits;
        self
    }

    /// Binds a further key to every connection, and looks at those of peers: see [`ExtraKey`].
    pub fn extra_key(mut self, key: Arc<dyn ExtraKey>) -> Self {
        self.extra = Some(key);
        self
    }

    /// Takes the bytes of messages from this budget, which other nodes of the process may share.
    pub fn budget(mut self, process: ByteBudget) -> Self {
        self.process = Some(process);
        self
    }

    /// Answers the requests of a service.
    pub fn serve(mut self, service: ServiceName, limits: ServiceLimits, handler: Arc<dyn Handler>) -> Self {
        self.requests.push((service, limits, handler));
        self
    }

    /// Starts the node on the machine's sockets, clock and randomness.
    ///
    /// # Errors
    /// When its folder cannot be used, an address cannot be listened on, or keys cannot be made.
    pub async fn start(self) -> Result<(Node, Handle), StartError> {
        let udp = self.sockets();
        self.start_in(&Env::system(), Arc::new(udp)).await
    }

    /// The machine's sockets as [`start`](Self::start) takes them. Who listens may meet a storm, and its socket is read also while
    /// every core computes.
    pub const fn sockets(&self) -> Udp {
        if self.listen.is_empty() { Udp::LARGE } else { Udp::LARGE.helped() }
    }

    /// Starts the node in surroundings of the caller's: a scope of its own below `env`'s, these sockets.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_in(
        self,
        env: &Env,
        datagrams: Arc<dyn Datagrams>,
    ) -> Result<(Node, Handle), StartError> {
        let env = env.within(env.scope.child("overlay"));
        let folder = self.folder.as_deref().map(Folder::open).transpose()?;
        let mut secret = [0; 32];
        match &folder {
            Some(folder) => secret = folder.secret(&mut env.rng.fork("overlay secret", 0))?,
            None => env.rng.fork("overlay secret", 0).fill_bytes(&mut secret),
        }
        let identity = match self.identity {
            Some(identity) => identity,
            None => Identity::from_seed(&secret, self.keys)?,
        };
        let network = network_id(&self.network);
        let owner = Owner { network, peer: identity.peer_id(), secret };
        let most_peers = 2 * (self.limits.sessions.inbound + self.limits.sessions.outbound);

        let (address_service, inbox) = addresses(&env, most_peers);
        let (desk, topics) = desk::start(&env, most_peers);
        let (gossip_service, gossip) = Gossip::start(&env, most_peers);
        let discovery = DiscoveryConfig {
            network,
            signer: Arc::new(identity.clone()),
            addrs: self.advertise.clone(),
            most_peers,
            wants_peers: self.outbound > 0,
        };
        let (discovery_service, discovery, last) = Discovery::start(&env, discovery, address_service);
        let services: Vec<Arc<dyn Service>> = vec![
            Arc::new(Ping),
            Arc::new(Messages::new(topics.watch(), desk.opener)),
            Arc::new(gossip_service),
            Arc::new(discovery_service),
        ];
        let quic =
            self.quic.sharing(QUIC_BYTES, self.limits.sessions.inbound + self.limits.sessions.outbound);
        let quic = Quic::start(&env, identity.tls(ALPN, self.trust)?, &secret, quic, datagrams)?;
        let introduction = Introduction {
            identity: identity.clone(),
            network,
            capabilities: self.capabilities,
            incarnation: env.rng.fork("overlay incarnation", 0).next_u64() | 1,
            agent: self.agent,
            addrs: self.advertise.clone(),
            listen_port: self.listen.first().map_or(0, SocketAddr::port),
            attempts: AtomicU64::new(0),
            extra: self.extra,
        };
        let overlay =
            Overlay { introduction, services, streams: Some(Arc::new(RequestServer::new(self.requests))) };
        let mut seeds = self.bootstrap;
        if let Some(folder) = &folder {
            seeds.extend(folder.candidates(&owner));
        }
        let prefix = network.as_bytes().first_chunk().copied().unwrap_or_default();
        let shape = BookConfig::new(u32::from_be_bytes(prefix), 0, 0);
        let shape = if self.local { shape.with_private() } else { shape };
        let dial = DialConfig {
            named: self.named,
            only_named: false,
            outbound: self.outbound,
            one_per_group: !self.local,
            seeds,
            pace: DialPace::QUIC,
            ..DialConfig::only(Vec::new(), Book::new(shape, &mut env.rng.fork("overlay book", 0)))
        };
        let process = self.process.unwrap_or_else(|| ByteBudget::root("process", PROCESS_BYTES));
        let config = EngineConfig { listen: self.listen, dial, limits: self.limits };
        let engine = Engine::start(&env, Arc::new(quic), Arc::new(overlay), &process, inbox, config).await?;

        let mapped = mapping::start(&env, self.gateway, mapping::token(&secret), engine.listening());
        reach::start(&env, &engine, &discovery, self.advertise, mapped);
        if let Some(folder) = folder {
            folder.keep(&env, discovery.clone(), last, owner);
        }
        let node = Node { env: env.clone(), states: engine.watch(), inbox: desk.inbox };
        let handle = Handle::new(env, identity.peer_id(), engine, topics, gossip, discovery);
        Ok((node, handle))
    }
}
