//! What an application does with a node.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use rookery_base::PeerId;
use rookery_engine::registry::watch::StateWatch;
use rookery_engine::{DialError, Dialled, EngineHandle};
use rookery_runtime::Env;
use tokio::sync::mpsc;

use super::desk::Topics;
use crate::services::discovery::DiscoveryHandle;
use crate::services::gossip::{Delivery, GossipHandle, PublishError, SubscribeError, Validator};
use crate::services::messages::{self, PostError, Receipt, Sent};
use crate::services::requests::{self, BodyWriter, Pending, RequestError};
use crate::wire::Topic;
use crate::wire::gossip::ItemId;
use crate::wire::request::{RequestHead, ServiceName};

/// The place of messages among the network's services.
const MESSAGES: usize = 1;

/// Why a request was not answered.
#[derive(Debug, thiserror::Error)]
pub enum RequestFailed {
    /// There is no session with the peer.
    #[error("not connected to {0}")]
    NotConnected(PeerId),
    /// It did not come to its end.
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// A running node's handle. Clones lead to the same node.
#[derive(Clone)]
pub struct Handle {
    env: Env,
    id: PeerId,
    engine: EngineHandle,
    topics: Topics,
    gossip: GossipHandle,
    discovery: DiscoveryHandle,
}

impl Handle {
    pub(super) const fn new(
        env: Env,
        id: PeerId,
        engine: EngineHandle,
        topics: Topics,
        gossip: GossipHandle,
        discovery: DiscoveryHandle,
    ) -> Self {
        Self { env, id, engine, topics, gossip, discovery }
    }

    /// This node's identity.
    pub const fn id(&self) -> PeerId {
        self.id
    }

    /// Where this node listens.
    pub fn listening(&self) -> &[SocketAddr] {
        self.engine.listening()
    }

    /// Sessions, dials, bans, and why things are as they are.
    pub const fn engine(&self) -> &EngineHandle {
        &self.engine
    }

    /// Who else is known, and where.
    pub const fn discovery(&self) -> &DiscoveryHandle {
        &self.discovery
    }

    /// Surroundings: clock, metrics.
    pub const fn env(&self) -> &Env {
        &self.env
    }

    /// Follows who is connected, independently of all others that do.
    pub fn states(&self) -> StateWatch {
        self.engine.watch()
    }

    /// Connects to the peer at one of these addresses. When it returns there is a session, with whoever holds the returned
    /// identity.
    ///
    /// # Errors
    /// Why there is none, for each address.
    pub async fn connect(&self, addrs: impl Into<Vec<SocketAddr>>) -> Result<Dialled, DialError> {
        self.engine.dial_now(addrs.into()).await
    }

    /// Takes messages under this topic, from now on. They come out of [`Node::next`](super::Node::next).
    pub fn listen_to(&self, topic: Topic) {
        self.topics.change(|topics| {
            topics.insert(topic);
        });
    }

    /// Takes no more messages under this topic.
    pub fn ignore(&self, topic: &Topic) {
        self.topics.change(|topics| {
            topics.remove(topic);
        });
    }

    /// Queues a message to a peer, and does not wait for the peer: what becomes of it the receipt tells whoever wants to know.
    ///
    /// # Errors
    /// When it is not queued: there is no session, the peer's queue is full, or the payload is too long.
    pub async fn post(
        &self,
        peer: PeerId,
        topic: Topic,
        payload: impl Into<Bytes>,
    ) -> Result<Receipt, PostError> {
        let session = self.engine.session(peer).await.ok_or(PostError::NotConnected)?;
        messages::post(&session.for_service(MESSAGES), topic, payload.into()).await
    }

    /// Sends a message to a peer and waits for what becomes of it, up to 20 s where the peer does not answer;
    /// [`post`](Self::post) does not wait. Dropping the future does not stop it.
    pub async fn send(&self, peer: PeerId, topic: Topic, payload: impl Into<Bytes>) -> Sent {
        match self.engine.session(peer).await {
            Some(session) => messages::send(&session.for_service(MESSAGES), topic, payload.into()).await,
            None => Sent::Gone,
        }
    }

    /// Subscribes to what is published under a topic.
    ///
    /// # Errors
    /// When too many topics are subscribed to, or the node is stopping.
    pub async fn subscribe(
        &self,
        topic: Topic,
        validator: Validator,
    ) -> Result<mpsc::Receiver<Delivery>, SubscribeError> {
        self.gossip.subscribe(topic, validator).await
    }

    /// Ends a subscription.
    pub async fn unsubscribe(&self, topic: Topic) {
        self.gossip.unsubscribe(topic).await;
    }

    /// Publishes to all subscribers of a topic.
    ///
    /// # Errors
    /// When the payload is too long, or the node is stopping.
    pub async fn publish(&self, topic: Topic, payload: impl Into<Bytes>) -> Result<ItemId, PublishError> {
        self.gossip.publish(topic, payload.into()).await
    }

    /// Asks a service of a peer a small question: header and body out, header and body of at most `most` bytes back, within the
    /// deadline.
    ///
    /// # Errors
    /// When there is no session, the exchange fails, or the answer is not `ok`.
    pub async fn request(
        &self,
        peer: PeerId,
        service: ServiceName,
        header: impl Into<Bytes>,
        body: &[u8],
        deadline: Duration,
        most: u64,
    ) -> Result<(Bytes, Bytes), RequestFailed> {
        let head = RequestHead { service, header: header.into() };
        let stream = self.stream(peer).await?;
        Ok(requests::ask(stream, self.env.clock, &head, body, deadline, most).await?)
    }

    /// Begins a request whose body and answer stream, side by side.
    ///
    /// # Errors
    /// When there is no session, or it ends.
    pub async fn begin(
        &self,
        peer: PeerId,
        service: ServiceName,
        header: impl Into<Bytes>,
    ) -> Result<(BodyWriter, Pending), RequestFailed> {
        let head = RequestHead { service, header: header.into() };
        let stream = self.stream(peer).await?;
        Ok(requests::begin(stream, self.env.clock, &head).await?)
    }

    async fn stream(&self, peer: PeerId) -> Result<rookery_transport::MuxStream, RequestFailed> {
        let session = self.engine.session(peer).await;
        let Some(mux) = session.as_ref().and_then(|session| session.mux()) else {
            return Err(RequestFailed::NotConnected(peer));
        };
        // A peer whose streams are all in use is waited for no longer than for a piece of a body.
        let opened = self.env.clock.timeout(requests::IDLE, mux.open()).await;
        let late = RequestError::Late("a free stream", requests::IDLE.as_secs());
        Ok(opened.ok_or(late)?.map_err(RequestError::from)?)
    }
}
