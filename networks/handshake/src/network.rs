//! Handshake as the engine sees it: how hands are shaken, which services run, what is skipped.

use std::sync::Arc;
use std::time::Duration;

use rookery_base::{CloseCause, Direction, Fault, Kind, PeerFaultKind};
use rookery_engine::{AddressMail, AddressService, Approach, Established, Network, Service, UnknownKind};
use rookery_runtime::{BoxFuture, Env, Push};
use rookery_sync::Chain;
use rookery_sync::headers::{ChainStatus, HeadersService};
use tokio::sync::watch;

use crate::handshake::nonce::OwnNonces;
use crate::handshake::{DEADLINE, Introduction};
use crate::params::Params;
use crate::services::control::Control;
use crate::services::discovery::Discovery;
use crate::services::headers::HeaderExchange;
use crate::wire::{KINDS, MAX_BODY, Services};

/// What a node on a Handshake network is made of.
pub struct HandshakeConfig {
    /// Which of the networks.
    pub params: &'static Params,
    /// Its rules.
    pub chain: Arc<dyn Chain>,
    /// The header reactor.
    pub headers: HeadersService,
    /// Where the chain is: peers are told our height.
    pub status: watch::Receiver<ChainStatus>,
    /// The owner of the address book.
    pub addresses: AddressService,
    /// Surroundings: the secret of our nonces comes from here.
    pub env: Env,
}

/// One of the Handshake networks.
pub struct Handshake {
    introduction: Introduction,
    addresses: AddressService,
    services: Vec<Arc<dyn Service>>,
}

impl Handshake {
    /// A node that announces [`Services::NONE`]. That is right for a headers node, as for hnsd: `NETWORK` promises
    /// blocks and proofs, and peers that came for those would hold slots for nothing.
    pub fn new(config: HandshakeConfig) -> Self {
        let HandshakeConfig { params, chain, headers, status, addresses, env } = config;
        let introduction = Introduction {
            params,
            services: Services::NONE,
            height: Arc::new(move || status.borrow().height),
            nonces: OwnNonces::new(&env.rng),
        };
        let services: Vec<Arc<dyn Service>> = vec![
            Arc::new(Control),
            Arc::new(Discovery::new(addresses.clone())),
            Arc::new(HeaderExchange::new(chain, headers)),
        ];
        Self { introduction, addresses, services }
    }

    /// The same node, announcing these service bits.
    #[must_use]
    pub fn announcing(mut self, services: Services) -> Self {
        self.introduction.services = services;
        self
    }

    async fn shake(&self, approach: Approach) -> Result<Established, CloseCause> {
        let (direction, remote) = (approach.direction, approach.conn.remote());
        let shaken = self.introduction.shake(approach).await;
        if let Err(CloseCause::Fault(Fault::Peer(fault))) = &shaken
            && fault.kind == PeerFaultKind::SelfConnection
            && direction == Direction::Outbound
            && let Some(lane) = self.addresses.open()
        {
            // A new lane has room. Without one the address is dialled once more, and found out again.
            let _: Push<AddressMail> = lane.push(AddressMail::Own(remote), 0);
        }
        shaken
    }
}

impl Network for Handshake {
    fn name(&self) -> &'static str {
        self.introduction.params.name
    }

    fn handshake_deadline(&self) -> Duration {
        DEADLINE
    }

    fn handshake(&self, approach: Approach) -> BoxFuture<'_, Result<Established, CloseCause>> {
        Box::pin(self.shake(approach))
    }

    fn services(&self) -> &[Arc<dyn Service>] {
        &self.services
    }

    /// Newer peers may send kinds that this version does not know; hsd skips them too.
    fn unknown_kind(&self, kind: Kind) -> UnknownKind {
        if usize::from(kind.0) >= KINDS.len() { UnknownKind::Skip(MAX_BODY) } else { UnknownKind::Refuse }
    }
}
