//! A connection's further streams, and its end.
//!
//! Beside its ordered messages a session may have streams, on transports that bring them. Those that the peer opens go to
//! the network's [`StreamService`]; those that we open are opened through the session's handle. All end with the
//! session: it closes the connection, with the reason.

use std::sync::Arc;

use rookery_base::CloseCause;
use rookery_transport::{Mux, cause_of};

use crate::session::Closer;
use crate::{Network, StreamPeer, StreamService};

/// Hands the streams that a peer opens to their service, until the connection ends: then the session ends for the same
/// cause, also while its reading is parked.
pub(crate) async fn run(mux: Arc<dyn Mux>, service: Option<Arc<dyn StreamService>>, peer: StreamPeer) {
    let cause = match service {
        None => mux.closed().await.into(),
        Some(service) => loop {
            match mux.accept().await {
                Ok(stream) => service.accept(&peer, stream),
                Err(error) => break cause_of(&error),
            }
        },
    };
    peer.handle.close(cause);
}

/// Closes the connection with the session's cause when it is dropped. The writer holds it, so that what is still queued is
/// written first.
pub(crate) struct Hangup {
    mux: Arc<dyn Mux>,
    network: Arc<dyn Network>,
    closer: Closer,
}

impl Hangup {
    pub fn new(mux: Arc<dyn Mux>, network: Arc<dyn Network>, closer: Closer) -> Self {
        Self { mux, network, closer }
    }
}

impl Drop for Hangup {
    fn drop(&mut self) {
        let unsaid = CloseCause::Panic;
        let (code, reason) = self.network.goodbye(self.closer.cause().unwrap_or(&unsaid));
        self.mux.close(code, &reason);
    }
}
