//! The overlay as the engine's [`Network`].

use std::sync::Arc;
use std::time::Duration;

use rookery_base::{CloseCause, PeerId};
use rookery_engine::{Approach, Established, Network, Service, StreamService};
use rookery_runtime::BoxFuture;

use crate::handshake::Introduction;

/// Time for both hellos, once the connection is there. A hello that a crowded receive buffer has dropped five times in a row
/// comes within it; who holds a place for longer than an honest peer needs is the first to go when places are short.
const HANDSHAKE: Duration = Duration::from_secs(30);

/// The network of one node.
pub(crate) struct Overlay {
    pub introduction: Introduction,
    pub services: Vec<Arc<dyn Service>>,
    pub streams: Option<Arc<dyn StreamService>>,
}

impl Network for Overlay {
    fn name(&self) -> &'static str {
        "overlay"
    }

    fn local_id(&self) -> Option<PeerId> {
        Some(self.introduction.identity.peer_id())
    }

    fn handshake_deadline(&self) -> Duration {
        HANDSHAKE
    }

    fn handshake(&self, approach: Approach) -> BoxFuture<'_, Result<Established, CloseCause>> {
        Box::pin(self.introduction.shake(approach))
    }

    fn services(&self) -> &[Arc<dyn Service>] {
        &self.services
    }

    fn streams(&self) -> Option<Arc<dyn StreamService>> {
        self.streams.clone()
    }
}
