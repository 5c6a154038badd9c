//! Starts and stops the engine of one network.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::Duration;

use rookery_base::{ByteBudget, CloseCause, Direction, PeerId};
use rookery_runtime::{Env, OnPanic};
use rookery_transport::Transport;

use crate::accept::Acceptor;
use crate::accounts::{Accountant, Accounts};
use crate::admission::HandshakeLimits;
use crate::attempt::Dialled;
use crate::connect::DialError;
use crate::dial::{AddressInbox, DialConfig, DialHandle, Dialer};
use crate::kinds::TableError;
use crate::ledger::LedgerEntry;
use crate::refusals::Refusals;
use crate::registry::actor::RegistryAudit;
use crate::registry::watch::StateWatch;
use crate::registry::{ClosedSession, Registry, RegistryHandle, SessionLimits};
use crate::session::{PeerHandle, PeerView};
use crate::{KindTable, Network};

/// How much of everything there may be.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Sessions.
    pub sessions: SessionLimits,
    /// Handshakes that peers have under way.
    pub handshakes: HandshakeLimits,
    /// Bytes of messages that one peer may have us hold: one largest message and what waits in a lane.
    pub peer_bytes: usize,
    /// Bytes of messages that all peers together may have us hold. Half of it is kept for peers that we dialled, so
    /// that strangers cannot starve our own sync.
    pub network_bytes: usize,
}

impl Limits {
    /// For a public node.
    pub const PUBLIC: Self = Self {
        sessions: SessionLimits::PUBLIC,
        handshakes: HandshakeLimits::PUBLIC,
        peer_bytes: 4 << 20,
        network_bytes: 32 << 20,
    };

    /// For loopback and private networks.
    pub const LOCAL: Self =
        Self { sessions: SessionLimits::LOCAL, handshakes: HandshakeLimits::LOCAL, ..Self::PUBLIC };
}

/// What an engine is started with.
pub struct EngineConfig {
    /// Where to listen; none: accept nobody.
    pub listen: Vec<SocketAddr>,
    /// Whom to dial.
    pub dial: DialConfig,
    /// How much of everything there may be.
    pub limits: Limits,
}

/// Why an engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The network's services do not fit together: a bug in the network.
    #[error(transparent)]
    Table(#[from] TableError),
    /// An address cannot be listened on.
    #[error("cannot listen on {at}: {error}")]
    Listen {
        /// The address.
        at: SocketAddr,
        /// What the system said.
        error: std::io::Error,
    },
}

/// What all tasks of an engine share. Immutable; state has owners.
pub(crate) struct Shared {
    pub env: Env,
    pub network: Arc<dyn Network>,
    pub transport: Arc<dyn Transport>,
    pub table: KindTable,
    pub registry: RegistryHandle,
    pub accounts: Accountant,
    pub refusals: Refusals,
    limits: Limits,
    inbound: ByteBudget,
    outbound: ByteBudget,
}

impl Shared {
    /// A new peer's budget.
    pub fn budget(&self, direction: Direction) -> ByteBudget {
        let pool = match direction {
            Direction::Inbound => &self.inbound,
            Direction::Outbound => &self.outbound,
        };
        pool.child("peer", self.limits.peer_bytes)
    }
}

/// Starts engines.
pub struct Engine;

impl Engine {
    /// Binds, then starts the registry, the accept loops and the dialer in `env`'s scope. Cancelling that scope
    /// stops the engine: sessions end with [`CloseCause::Shutdown`] after a short flush.
    ///
    /// # Errors
    /// When an address cannot be listened on, or the network's services do not fit together.
    pub async fn start(
        env: &Env,
        transport: Arc<dyn Transport>,
        network: Arc<dyn Network>,
        process: &ByteBudget,
        inbox: AddressInbox,
        config: EngineConfig,
    ) -> Result<EngineHandle, StartError> {
        let table = KindTable::build(network.services())?;
        let mut listeners = Vec::new();
        for at in &config.listen {
            let bound = transport.listen(*at).await;
            listeners.push(bound.map_err(|error| StartError::Listen { at: *at, error })?);
        }
        let listening: Vec<SocketAddr> = listeners.iter().map(|bound| bound.local_addr()).collect();
        let registry = Registry::start(env, config.limits.sessions, network.local_id());
        let budget = process.child("network", config.limits.network_bytes);
        let shared = Arc::new(Shared {
            env: env.clone(),
            network,
            transport,
            table,
            registry: registry.clone(),
            accounts: Accountant::new(env.metrics.arrivals.clone()),
            refusals: Refusals::default(),
            limits: config.limits,
            inbound: budget.child("inbound", config.limits.network_bytes / 2),
            outbound: budget.child("outbound", config.limits.network_bytes / 2),
        });
        if !listeners.is_empty() {
            let acceptor = Acceptor::new(Arc::clone(&shared), config.limits.handshakes);
            env.scope.spawn("accept", OnPanic::StopNode, acceptor.run(listeners));
        }
        let dial = Dialer::start(&shared, config.dial, inbox, listening.clone());
        Ok(EngineHandle {
            env: env.clone(),
            registry,
            accounts: shared.accounts.clone(),
            refusals: shared.refusals.clone(),
            shared: Arc::downgrade(&shared),
            dial,
            listening,
            budget,
        })
    }
}

/// A running engine.
#[derive(Clone)]
pub struct EngineHandle {
    env: Env,
    registry: RegistryHandle,
    accounts: Accountant,
    refusals: Refusals,
    /// Held by what runs, not by handles: one that outlives the engine keeps no transport open.
    shared: Weak<Shared>,
    dial: DialHandle,
    listening: Vec<SocketAddr>,
    budget: ByteBudget,
}

/// What is known about a peer and its fate.
#[derive(Debug, Clone, serde::Serialize)]
pub struct PeerWhy {
    /// The session, if it is live.
    pub live: Option<PeerView>,
    /// Why it closed, if it is not.
    pub closed: Option<String>,
    /// How long it lasted, in seconds, if it is not live.
    pub lasted: Option<f64>,
    /// Its last facts, oldest first.
    pub facts: Vec<LedgerEntry>,
}

/// Time for a routine to show its ledger; it answers between two messages.
const INSPECT: Duration = Duration::from_secs(1);

impl EngineHandle {
    /// Where the engine listens.
    pub fn listening(&self) -> &[SocketAddr] {
        &self.listening
    }

    /// Bytes of messages that are held for peers, and the most that ever were.
    pub fn held_bytes(&self) -> (usize, usize) {
        self.env.metrics.budget_bytes.set(self.budget.used() as i64);
        (self.budget.used(), self.budget.peak())
    }

    /// The cap of [`held_bytes`](Self::held_bytes).
    pub fn held_cap(&self) -> usize {
        self.budget.cap()
    }

    /// The session that stays of a peer, if it is connected. Commands of the handle go to the first service: see
    /// [`PeerHandle::for_service`].
    pub async fn session(&self, peer: PeerId) -> Option<PeerHandle> {
        self.registry.session(peer).await
    }

    /// Every session.
    pub async fn peers(&self) -> Vec<PeerView> {
        self.registry.peers().await
    }

    /// Where every arrival is, at one instant.
    pub fn accounts(&self) -> Accounts {
        self.accounts.read()
    }

    /// Follows who is connected, from the sessions of now on. Loses nothing, however slow the follower.
    pub fn watch(&self) -> StateWatch {
        self.registry.watch()
    }

    /// Everything known about an address (port 0: any port), live sessions first, then ended ones, newest first; then what
    /// never became a session, from any port; and how long it is still banned.
    pub async fn why(&self, addr: SocketAddr) -> (Vec<PeerWhy>, Option<Duration>) {
        let found = self.registry.find(addr).await;
        let mut all = Vec::new();
        for (view, handle) in found.live {
            let ledger = self.env.clock.timeout(INSPECT, handle.ledger()).await.flatten();
            let facts = ledger.iter().flat_map(|ledger| ledger.entries().cloned()).collect();
            all.push(PeerWhy { live: Some(view), closed: None, lasted: None, facts });
        }
        all.extend(found.closed.into_iter().map(|closed| PeerWhy {
            live: None,
            closed: Some(closed.cause.to_string()),
            lasted: Some(closed.lasted.as_secs_f64()),
            facts: closed.ledger.entries().cloned().collect(),
        }));
        let refused = self.refusals.of(addr.ip());
        if let Some(last) = refused.last() {
            all.push(PeerWhy { live: None, closed: Some(last.what.clone()), lasted: None, facts: refused });
        }
        (all, found.banned)
    }

    /// Ended sessions that are remembered, oldest first.
    pub async fn closed(&self) -> Vec<ClosedSession> {
        self.registry.closed().await
    }

    /// Ends the sessions with an address (port 0: any port); says how many.
    pub async fn disconnect(&self, addr: SocketAddr) -> usize {
        self.registry.close(addr, CloseCause::Dropped("by the operator".into())).await
    }

    /// Refuses an address, by default for the limits' usual time; says how many sessions that ended.
    pub async fn ban(&self, ip: IpAddr, lasts: Option<Duration>) -> usize {
        self.registry.ban(ip, lasts, CloseCause::Dropped("banned by the operator".into())).await
    }

    /// Lifts a ban; says whether there was one.
    pub async fn unban(&self, ip: IpAddr) -> bool {
        self.registry.unban(ip).await
    }

    /// Refused addresses, and how long they still are.
    pub async fn bans(&self) -> Vec<(IpAddr, Duration)> {
        self.registry.bans().await
    }

    /// What the registry believes, for invariants.
    pub async fn audit(&self) -> Option<RegistryAudit> {
        self.registry.audit().await
    }

    /// Connects to a peer, now, at one of these addresses of its own. Completes when the session is registered, or says
    /// why there is none; dropped, it gives up. The session is not dialled again when it ends: that is for named
    /// peers.
    ///
    /// # Errors
    /// For each address, why it led to no session.
    pub async fn dial_now(&self, addrs: Vec<SocketAddr>) -> Result<Dialled, DialError> {
        match self.shared.upgrade() {
            Some(shared) => self.dial.dials.connect(&shared, addrs).await,
            None => Err(DialError::all(&addrs, &CloseCause::Shutdown)),
        }
    }

    /// Dials and the address book.
    pub const fn dial(&self) -> &DialHandle {
        &self.dial
    }
}

#[cfg(test)]
mod cancelled;
