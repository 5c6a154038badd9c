//! The reactor of gossip: one task that owns the state, and the application's handle to it.
//!
//! It waits for nobody. A peer whose routine does not take its orders keeps them here, up to a bound, and is tried again
//! after [`RETRY`]; a subscriber that does not keep up misses deliveries and is told how many.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::Rng;
use rookery_base::Generation;
use rookery_engine::session::Pushed;
use rookery_engine::{Command, PeerHandle};
use rookery_runtime::rng::ChaCha8Rng;
use rookery_runtime::{Env, FairMailbox, Instant, LaneLimits, OnPanic};
use tokio::sync::{mpsc, oneshot};

use super::state::State;
use super::{Delivery, GossipService, Judgement, Mail, Validator};
use crate::wire::Topic;
use crate::wire::gossip::{Item, ItemId, MAX_PAYLOAD, MAX_TOPICS};

/// When peers that did not take their orders are tried again: long for a routine, short for people.
const RETRY: Duration = Duration::from_millis(100);
/// Mail taken before orders are handed over: an order then carries what several events asked for.
const TURN: usize = 64;
/// Calls of the application that wait. Above it the application's call waits.
const ASKS: usize = 64;
/// Deliveries that wait for a subscriber: more than a second of a busy topic.
pub const DELIVERIES: usize = 1024;

/// Why a payload was not published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Longer than an item can be.
    #[error("the payload has {0} bytes, the most is {MAX_PAYLOAD}")]
    TooLong(usize),
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopped,
}

/// Why a topic was not subscribed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// As many topics are subscribed to as may be.
    #[error("{MAX_TOPICS} topics are subscribed to, and no more may be")]
    TooMany,
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopped,
}

enum Ask {
    Subscribe(Topic, Validator, oneshot::Sender<Option<mpsc::Receiver<Delivery>>>),
    Unsubscribe(Topic),
    Publish(Topic, Bytes, oneshot::Sender<ItemId>),
}

/// The application's side. Cloning gives another handle to the same reactor.
#[derive(Clone)]
pub struct GossipHandle {
    asks: mpsc::Sender<Ask>,
}

impl GossipHandle {
    /// Subscribes to a topic. Deliveries come until the receiver is dropped, the topic is unsubscribed from, or subscribed to
    /// again.
    ///
    /// # Errors
    /// When too many topics are subscribed to, or the node is stopping.
    pub async fn subscribe(
        &self,
        topic: Topic,
        validator: Validator,
    ) -> Result<mpsc::Receiver<Delivery>, SubscribeError> {
        let (tell, told) = oneshot::channel();
        let ask = Ask::Subscribe(topic, validator, tell);
        self.asks.send(ask).await.map_err(|_| SubscribeError::Stopped)?;
        told.await.map_err(|_| SubscribeError::Stopped)?.ok_or(SubscribeError::TooMany)
    }

    /// Ends a subscription.
    pub async fn unsubscribe(&self, topic: Topic) {
        // A reactor that has ended has no subscriptions.
        let _ = self.asks.send(Ask::Unsubscribe(topic)).await;
    }

    /// Publishes under a topic, whether or not this node is subscribed to it.
    ///
    /// # Errors
    /// When the payload is too long, or the node is stopping.
    pub async fn publish(&self, topic: Topic, payload: Bytes) -> Result<ItemId, PublishError> {
        if payload.len() > MAX_PAYLOAD {
            return Err(PublishError::TooLong(payload.len()));
        }
        let (tell, told) = oneshot::channel();
        let ask = Ask::Publish(topic, payload, tell);
        self.asks.send(ask).await.map_err(|_| PublishError::Stopped)?;
        told.await.map_err(|_| PublishError::Stopped)
    }
}

struct Subscriber {
    deliveries: mpsc::Sender<Delivery>,
    missed: u64,
}

/// The reactor.
pub struct Gossip {
    env: Env,
    state: State,
    peers: BTreeMap<Generation, PeerHandle>,
    subscribers: BTreeMap<Topic, Subscriber>,
    mail: FairMailbox<Mail>,
    asks: mpsc::Receiver<Ask>,
    /// Numbers the items of this node.
    rng: ChaCha8Rng,
    /// When peers that did not keep up are tried again.
    retry: Option<Instant>,
}

impl Gossip {
    /// Starts the reactor for at most `most_peers` sessions. A panic in it stops the node: the state is its own.
    pub fn start(env: &Env, most_peers: usize) -> (GossipService, GossipHandle) {
        let mail =
            FairMailbox::new("gossip", LaneLimits::PEER, most_peers, env.clock, Arc::clone(&env.metrics));
        let (asks, asked) = mpsc::channel(ASKS);
        let service = GossipService { mail: mail.opener() };
        let reactor = Self {
            env: env.clone(),
            state: State::default(),
            peers: BTreeMap::new(),
            subscribers: BTreeMap::new(),
            mail,
            asks: asked,
            rng: env.rng.fork("overlay-gossip", 0),
            retry: None,
        };
        env.scope.spawn("gossip", OnPanic::StopNode, reactor.run());
        (service, GossipHandle { asks })
    }

    async fn run(mut self) {
        let clock = self.env.clock;
        loop {
            let due = [self.state.due(), self.retry].into_iter().flatten().min();
            let sleep = async {
                match due {
                    Some(due) => clock.sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.env.scope.cancelled() => return,
                // None once every handle is gone: then nobody asks, and relaying goes on.
                Some(ask) = self.asks.recv() => self.answer(ask),
                mail = self.mail.recv() => self.take(mail),
                () = sleep => {}
            }
            let began = clock.now();
            for _ in 0..TURN {
                let Some(mail) = self.mail.try_recv() else { break };
                self.take(mail);
            }
            self.state.tick(clock.now());
            self.hand_over();
            let step = clock.now().saturating_duration_since(began);
            self.env.metrics.reactor_step_seconds.observe(step.as_secs_f64());
        }
    }

    fn take(&mut self, mail: Mail) {
        let now = self.env.clock.now();
        match mail {
            Mail::Up(peer) => {
                self.state.up(peer.generation);
                self.peers.insert(peer.generation, peer);
            }
            Mail::Topics(from, topics) => self.state.topics(from, topics),
            Mail::Announced(from, inventory) => self.state.announced(from, &inventory),
            Mail::Wanted(from, id) => self.state.wants(from, id),
            Mail::Answered(from, id, item) => {
                if let Some(item) = self.state.answered(from, id, item, now) {
                    self.deliver(id, item);
                }
            }
            Mail::Unanswered(from, id) => self.state.failed(from, id),
            Mail::Gone(session) => {
                self.peers.remove(&session);
                self.state.gone(session);
            }
        }
    }

    fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::Subscribe(topic, validator, tell) => {
                let accepted = self.state.subscribe(topic.clone(), self.guarded(validator));
                let deliveries = accepted.then(|| {
                    let (deliveries, receiver) = mpsc::channel(DELIVERIES);
                    self.subscribers.insert(topic, Subscriber { deliveries, missed: 0 });
                    receiver
                });
                let _ = tell.send(deliveries);
            }
            Ask::Unsubscribe(topic) => {
                self.subscribers.remove(&topic);
                self.state.unsubscribe(&topic);
            }
            Ask::Publish(topic, payload, tell) => {
                let item = Item { nonce: self.rng.next_u64(), topic, payload };
                // A nonce that was drawn before, of 2^64, has published this very payload before.
                let id = self.state.publish(&item, self.env.clock.now()).unwrap_or_else(|| item.id());
                let _ = tell.send(id);
            }
        }
    }

    /// A validator whose panic costs one item, and is counted.
    fn guarded(&self, validator: Validator) -> Validator {
        let scope = self.env.scope.clone();
        Arc::new(move |topic, payload| {
            catch_unwind(AssertUnwindSafe(|| validator(topic, payload))).unwrap_or_else(|panic| {
                scope.record_panic("gossip validator", &*panic);
                Judgement::Ignore
            })
        })
    }

    fn deliver(&mut self, id: ItemId, item: Item) {
        let Some(subscriber) = self.subscribers.get_mut(&item.topic) else { return };
        let delivery =
            Delivery { id, topic: item.topic.clone(), payload: item.payload, missed: subscriber.missed };
        match subscriber.deliveries.try_send(delivery) {
            Ok(()) => subscriber.missed = 0,
            Err(mpsc::error::TrySendError::Full(_)) => subscriber.missed += 1,
            Err(mpsc::error::TrySendError::Closed(_)) => {
                self.subscribers.remove(&item.topic);
                self.state.unsubscribe(&item.topic);
            }
        }
    }

    fn hand_over(&mut self) {
        self.retry = None;
        for (session, orders) in self.state.orders() {
            let Some(peer) = self.peers.get(&session) else { continue };
            match peer.push(Command::new(orders.clone())) {
                // One that is gone says so by its farewell.
                Pushed::Accepted | Pushed::Gone => {}
                Pushed::Full => {
                    self.state.give_back(session, orders);
                    self.retry = Some(self.env.clock.now() + RETRY);
                }
            }
        }
    }
}
