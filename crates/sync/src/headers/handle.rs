//! What others hold of the header reactor: its configuration, its status, a way to ask it.

use std::sync::Arc;

use bytes::Bytes;
use rookery_base::Height;
use rookery_runtime::{Env, FairMailbox, LaneLimits, OnPanic, Worker};
use tokio::sync::{mpsc, oneshot, watch};

use super::actor::Reactor;
use super::audit::HeadersAudit;
use super::commit::Committer;
use super::ingress::HeadersService;
use super::keeper::Keeper;
use super::start::Opened;
use super::why::Hop;
use crate::{Chain, HeaderFacts};

/// Questions from this node that wait.
const ASKS: usize = 16;
/// How a header reactor works.
#[derive(Debug, Clone, Copy)]
pub struct HeadersConfig {
    /// Headers in a full message of this wire.
    pub full: usize,
    /// Sessions at a time.
    pub most_peers: usize,
}

/// Where the chain is. Published after each change; the newest is always there to be read.
#[derive(Debug, Clone, serde::Serialize)]
pub struct ChainStatus {
    /// The network's name.
    pub network: &'static str,
    /// Height of the best header.
    pub height: Height,
    /// Its hash.
    pub tip: String,
    /// The time that it claims, in seconds since 1970.
    pub tip_time: u64,
    /// Accumulated work, hexadecimal.
    pub work: String,
    /// Height of the last header that is durably stored.
    pub stored: Option<Height>,
    /// The best height that a connected peer claims.
    pub target: Option<Height>,
    /// Peers that are asked for headers.
    pub peers: usize,
    /// Requests that are out for the headers after the tip.
    pub asked: usize,
    /// Whether every peer that has not failed us has told all it has, as far as can be told.
    pub settled: bool,
    /// Whether the chain is synced by its own rule: work, last checkpoint, age of the tip.
    pub synced: bool,
    /// Headers accepted since the start.
    pub accepted: u64,
    /// Reorganisations since the start.
    pub reorganisations: u64,
    /// Headers that the last reorganisation left.
    pub last_reorganisation_depth: u32,
}

impl ChainStatus {
    /// Every connected peer's headers are here and durable, as far as the peers tell.
    pub fn caught_up(&self) -> bool {
        self.settled
            && self.asked == 0
            && self.target.is_none_or(|target| target <= self.height)
            && self.stored == Some(self.height)
    }
}

/// What became of headers that this node made itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submitted {
    /// Headers that were new.
    pub new: usize,
    /// Why not all were taken.
    pub refused: Option<String>,
}

/// A question to the reactor.
pub(super) enum Ask {
    Submit(Vec<HeaderFacts>, Bytes, oneshot::Sender<Submitted>),
    Recent(usize, oneshot::Sender<(Height, Bytes)>),
    Range(Height, usize, oneshot::Sender<Result<Bytes, String>>),
    Why(oneshot::Sender<Vec<Hop>>),
    Audit(oneshot::Sender<HeadersAudit>),
}

/// Asks the header reactor.
#[derive(Clone)]
pub struct HeadersHandle {
    asks: mpsc::Sender<Ask>,
    status: watch::Receiver<ChainStatus>,
    service: HeadersService,
}

impl HeadersHandle {
    /// Starts the reactor in `env`'s scope; a panic in it stops the node. On cancellation what is pending is
    /// committed before the reactor ends.
    pub fn start(
        env: &Env,
        chain: Arc<dyn Chain>,
        opened: Opened,
        store: &Worker<Keeper>,
        durable: Option<Height>,
        config: HeadersConfig,
    ) -> Self {
        let mailbox = FairMailbox::new(
            "headers",
            LaneLimits::PEER,
            config.most_peers,
            env.clock,
            Arc::clone(&env.metrics),
        );
        let service = HeadersService(mailbox.opener());
        let (asks, asked) = mpsc::channel(ASKS);
        let committer = Committer::new(env.clone(), store.clone(), durable);
        let reactor = Reactor::new(env.clone(), chain, opened, committer, mailbox, asked, config);
        let (status, watch) = watch::channel(reactor.status());
        env.scope.spawn_to_end("headers", OnPanic::StopNode, reactor.run(status));
        Self { asks, status: watch, service }
    }

    /// Lanes for a network's headers service.
    pub fn service(&self) -> HeadersService {
        self.service.clone()
    }

    /// Where the chain is now.
    pub fn status(&self) -> ChainStatus {
        self.status.borrow().clone()
    }

    /// Follows [`status`](Self::status).
    pub fn watch(&self) -> watch::Receiver<ChainStatus> {
        self.status.clone()
    }

    /// Hands over headers that this node made; as if a peer had sent them.
    pub async fn submit(&self, facts: Vec<HeaderFacts>, raw: Bytes) -> Option<Submitted> {
        self.ask(|tell| Ask::Submit(facts, raw, tell)).await
    }

    /// The last `count` raw headers of the main chain at most, and the height of the first of them.
    pub async fn recent(&self, count: usize) -> Option<(Height, Bytes)> {
        self.ask(|tell| Ask::Recent(count, tell)).await
    }

    /// Raw main-chain headers from a height on, as far as they go.
    ///
    /// # Errors
    /// When the store cannot be read or the node is stopping.
    pub async fn range(&self, from: Height, count: usize) -> Result<Bytes, String> {
        self.ask(|tell| Ask::Range(from, count, tell))
            .await
            .unwrap_or_else(|| Err("the node is stopping".into()))
    }

    /// What progress waits for, hop by hop.
    pub async fn why(&self) -> Vec<Hop> {
        self.ask(Ask::Why).await.unwrap_or_else(|| vec![Hop::stuck("node", "it is stopping".into())])
    }

    /// What the reactor believes, for invariants; `None` when the node is stopping.
    pub async fn audit(&self) -> Option<HeadersAudit> {
        self.ask(Ask::Audit).await
    }

    async fn ask<T>(&self, make: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Option<T> {
        let (tell, told) = oneshot::channel();
        self.asks.send(make(tell)).await.ok()?;
        told.await.ok()
    }
}
