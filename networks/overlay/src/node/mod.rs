//! A node of the overlay, for applications.
//!
//! ```text
//! Builder -> start -> Node    one owner: what happens (peers come and go, messages arrive), and the end
//!                  -> Handle  as many as wanted: connect, send, publish, request, ask how things are
//! ```
//!
//! | what comes | where it waits | when it is not taken |
//! |---|---|---|
//! | peers that come and go | [`Node::next`]; coalesced, never lost | a session that came and went unseen is left out |
//! | messages | [`Node::next`]; a lane for each peer | that peer is not read, then its messages are answered with `busy` |
//! | published items | the receiver of [`Handle::subscribe`] | the newest are lost to this application; the next says how many |
//! | requests | their handlers, at most as many at a time as the service allows | the caller is told `busy` |
//!
//! State and data do not share a channel: a thousand messages cannot hide that a peer has gone.
//!
//! What an application names in calls to its node can all be had from here, so that it depends on one crate. Programs to
//! begin with are in `examples/`.

mod answer;
mod builder;
mod desk;
mod files;
#[cfg(feature = "port-mapping")]
mod gateway;
mod handle;
mod mapping;
mod reach;

use rookery_base::{CloseCause, Generation};
use rookery_engine::registry::watch::{Change, StateWatch};
use tokio::sync::mpsc;

use crate::services::messages::Received;

pub use answer::{Question, Reply, answering};
pub use builder::{Builder, StartError};
pub use files::{Folder, FolderError};
#[cfg(feature = "port-mapping")]
pub use gateway::Router;
pub use handle::{Handle, RequestFailed};
pub use mapping::{Gateway, GatewayError, Mapping, Token, Wanted};

pub use crate::services::gossip::{Delivery, Judgement, Validator};
pub use crate::services::messages::{PostError, Receipt, Sent};
pub use crate::services::requests::{
    Answer, AnswerWriter, BodyReader, BodyWriter, Handler, Incoming, Pending, RequestError, ServiceLimits,
};
pub use crate::wire::Topic;
pub use crate::wire::request::{ServiceName, Status};
pub use rookery_base::{ByteBudget, PeerId};
pub use rookery_engine::Limits;
pub use rookery_runtime::{BoxFuture, Env, OnPanic};
pub use rookery_transport::quic::{Datagrams, QuicLimits, Udp};
pub use rookery_transport::tls::{Identity, Keys};

/// A peer with which there is a session.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The session's number; a later session of the same peer has a higher one.
    pub generation: Generation,
    /// What its handshake has proven and said.
    pub facts: std::sync::Arc<rookery_engine::PeerFacts>,
}

/// What happens.
#[derive(Debug)]
pub enum Event {
    /// There is a session with a peer. At most once for each generation.
    Connected(Peer),
    /// The session has ended, for this cause. At most once, after its beginning.
    Lost(Peer, CloseCause),
    /// A message under a topic that this node listens to.
    Message(Received),
}

/// A running node. Dropping it stops the node at once; [`stop`](Self::stop) does it in order.
pub struct Node {
    env: Env,
    states: StateWatch,
    inbox: mpsc::Receiver<Received>,
}

/// Time for everything to end; the promise that every Rookery node keeps.
const STOP_WITHIN: std::time::Duration = std::time::Duration::from_secs(5);

impl Node {
    /// What happens next; `None` once the node has stopped. Cancel-safe. Peers that come and go are told before messages.
    pub async fn next(&mut self) -> Option<Event> {
        tokio::select! {
            biased;
            change = self.states.next() => {
                let change = change?;
                let peer = Peer { generation: change.generation, facts: change.facts };
                Some(match change.change {
                    Change::Connected => Event::Connected(peer),
                    Change::Lost(cause) => Event::Lost(peer, cause),
                })
            }
            Some(message) = self.inbox.recv() => Some(Event::Message(message)),
        }
    }

    /// The node's surroundings: clock, scope, metrics.
    pub const fn env(&self) -> &Env {
        &self.env
    }

    /// Why the node has stopped by itself, if it has.
    pub fn stop_cause(&self) -> Option<&str> {
        self.env.scope.stop_cause()
    }

    /// Stops the node: peers are told, what is to be kept is saved, every task ends.
    ///
    /// # Errors
    /// With the tasks that have not ended within five seconds.
    pub async fn stop(self) -> Result<(), StopError> {
        self.env.scope.close(STOP_WITHIN).await.map_err(|tasks| StopError { tasks })
    }
}

/// A node has not stopped in time. What it was to keep may not be saved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not stopped within {} s: {} did not end", STOP_WITHIN.as_secs(), .tasks.join(", "))]
pub struct StopError {
    /// The names of the tasks that still run.
    pub tasks: Vec<&'static str>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.env.scope.cancel();
    }
}
