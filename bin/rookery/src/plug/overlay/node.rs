//! An overlay node as the front sees it, and how one is started from a configuration.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use rookery_engine::{Limits, StartError as EngineError};
#[cfg(feature = "port-mapping")]
use rookery_overlay::node::Router;
use rookery_overlay::node::StartError;
use rookery_overlay::services::gossip::{Delivery, Judgement};
use rookery_overlay::wire::Topic;
use rookery_overlay::{Builder, Event, Handle, Node as OverlayNode};
use rookery_runtime::{BoxFuture, Env, OnPanic, RngSource};
use rookery_transport::quic::Udp;
use rookery_transport::tls::{Identity as KeySet, Keys};
use tokio::sync::{mpsc, watch};

use super::views::{self, Sessions};
use crate::config::Config;
use crate::config::value::{MapPort, name_of};
use crate::exit::{Exit, Report};
use crate::node::view::{
    BanRow, ChainView, Identity, NodeStatus, NodeWhy, OverlayGlance, PeerRow, PeerWhy, Progress,
};
use crate::node::{Node, Topics};
use crate::plug::engine;
use crate::plug::resolve::resolve_all;

/// A running node.
pub(in crate::plug) struct Plug {
    env: Env,
    handle: Handle,
    limits: Limits,
    glance: OverlayGlance,
    sessions: watch::Receiver<Sessions>,
    progress: watch::Receiver<Progress>,
}

impl Plug {
    /// Follows a node's sessions for the front.
    fn new(env: &Env, (node, handle): (OverlayNode, Handle), limits: Limits, glance: OverlayGlance) -> Self {
        let (tell_sessions, sessions) = watch::channel(Sessions::new());
        let (tell, progress) = watch::channel(Progress::default());
        env.scope.spawn("overlay events", OnPanic::StopNode, follow(node, tell_sessions, tell));
        let glance = OverlayGlance { peer_id: handle.id().to_string(), ..glance };
        Self { env: env.clone(), handle, limits, glance, sessions, progress }
    }
}

/// Keeps the node, and what is known of its sessions, until it ends.
async fn follow(mut node: OverlayNode, sessions: watch::Sender<Sessions>, progress: watch::Sender<Progress>) {
    while let Some(event) = node.next().await {
        match event {
            Event::Connected(peer) => {
                tracing::debug!(target: "rookery", peer = %peer.facts.peer, addr = %peer.facts.addr, "connected");
                sessions.send_modify(|all| {
                    all.insert(peer.generation.0, peer.facts.peer);
                });
            }
            Event::Lost(peer, cause) => {
                tracing::debug!(target: "rookery", peer = %peer.facts.peer, %cause, "not connected any more");
                sessions.send_modify(|all| {
                    all.remove(&peer.generation.0);
                });
            }
            // This program listens to no topic of direct messages.
            Event::Message(_) => {}
        }
        // Two sessions of one peer overlap while one of them is on its way out.
        let distinct: BTreeSet<_> = sessions.borrow().values().copied().collect();
        let peers = distinct.len() as u32;
        progress.send_if_modified(|now| std::mem::replace(&mut now.peers, peers) != peers);
    }
    // The last values stay readable for as long as the node's scope lives.
    std::future::pending().await
}

impl Node for Plug {
    fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    fn status(&self) -> BoxFuture<'_, NodeStatus> {
        Box::pin(views::status(&self.env, &self.handle, &self.glance))
    }

    fn peers(&self) -> BoxFuture<'_, Vec<PeerRow>> {
        Box::pin(async {
            let sessions = self.sessions.borrow().clone();
            views::peers(&self.handle, &sessions).await
        })
    }

    fn peer_why(&self, peer: SocketAddr) -> BoxFuture<'_, Vec<PeerWhy>> {
        Box::pin(engine::peer_why(&self.env, self.handle.engine(), peer))
    }

    fn bans(&self) -> BoxFuture<'_, Vec<BanRow>> {
        Box::pin(engine::bans(self.handle.engine()))
    }

    fn chain(&self) -> BoxFuture<'_, Option<ChainView>> {
        Box::pin(async { None })
    }

    fn why(&self) -> BoxFuture<'_, NodeWhy> {
        let peers = self.progress.borrow().peers as usize;
        Box::pin(views::why(&self.handle, &self.limits, peers))
    }

    fn topics(&self) -> Option<&dyn Topics> {
        Some(self)
    }
}

impl Topics for Plug {
    fn subscribe<'a>(&'a self, topic: &'a str) -> BoxFuture<'a, Result<mpsc::Receiver<Delivery>, Report>> {
        Box::pin(async move {
            // What is published here is text for people: whatever it is, it is shown and passed on.
            let all = Arc::new(|_: &Topic, _: &[u8]| Judgement::Accept);
            let subscribed = self.handle.subscribe(named(topic)?, all).await;
            subscribed
                .map_err(|error| Report::new(Exit::Failed, format!("cannot subscribe to {topic}: {error}")))
        })
    }

    fn publish<'a>(&'a self, topic: &'a str, payload: Bytes) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let topic = named(topic).map_err(|report| report.what)?;
            self.handle.publish(topic, payload).await.map(drop).map_err(|error| error.to_string())
        })
    }
}

fn named(topic: &str) -> Result<Topic, Report> {
    Topic::new(topic).ok_or_else(|| Report::usage(format!("{topic:?} is no topic")))
}

/// Starts a node as configured.
pub(in crate::plug) async fn start(env: &Env, config: &Config) -> Result<Plug, Report> {
    let overlay = &config.overlay;
    let peers = config.named_peers();
    let named = resolve_all(&peers.named).await?;
    let mut builder = Builder::new(&overlay.name).folder(config.identity_dir()).keys(overlay.keys);
    let mut limits = Limits::PUBLIC;
    if overlay.local {
        builder = builder.local();
        limits = Limits::LOCAL;
    }
    if overlay.require_post_quantum {
        builder = builder.require_post_quantum();
    }
    limits.sessions.inbound = config.max_inbound as usize;
    limits.sessions.outbound = config.max_outbound as usize + named.len();
    builder = builder.limits(limits);
    if peers.only {
        builder = builder.outbound(0);
    } else {
        builder = builder.outbound(config.max_outbound as usize);
        for at in resolve_all(&config.bootstrap_nodes()).await? {
            builder = builder.bootstrap(at);
        }
    }
    builder = named.into_iter().fold(builder, Builder::peer);
    builder = config.listen_addresses().into_iter().fold(builder, Builder::listen);
    builder = with_port(builder, overlay.map_port)?;
    let udp = Arc::new(builder.sockets());
    let started = builder.start_in(env, udp).await.map_err(|error| start_report(&error))?;
    tracing::info!(target: "rookery", "this node is {} in the overlay {}", started.1.id(), overlay.name);
    for at in started.1.listening() {
        tracing::info!(target: "rookery", "listening on {at}");
    }
    let glance = OverlayGlance {
        overlay: overlay.name.clone(),
        keys: name_of(overlay.keys).to_owned(),
        topic: overlay.topic.clone(),
        ..OverlayGlance::default()
    };
    Ok(Plug::new(env, started, limits, glance))
}

/// Asks a router for a port, where the configuration wants it.
#[cfg(feature = "port-mapping")]
fn with_port(builder: Builder, map_port: MapPort) -> Result<Builder, Report> {
    Ok(match map_port {
        MapPort::Off => builder,
        MapPort::Auto => builder.map_port(Router::of_default_route()),
        MapPort::At(router) => builder.map_port(Router::at(router)),
    })
}

/// This program was built without.
#[cfg(not(feature = "port-mapping"))]
fn with_port(builder: Builder, map_port: MapPort) -> Result<Builder, Report> {
    match map_port {
        MapPort::Off => Ok(builder),
        MapPort::Auto | MapPort::At(_) => {
            let what = "this program was built without the feature port-mapping";
            Err(Report::usage(what).hint("leave --map-port out and forward the port in the router by hand"))
        }
    }
}

fn start_report(error: &StartError) -> Report {
    let what = error.to_string();
    match error {
        StartError::Folder(_) => Report::new(Exit::DataDir, what),
        StartError::Engine(EngineError::Listen { .. }) => Report::new(Exit::PortTaken, what).hint(
            "another program has this UDP port, or the address is not this machine's: choose another --listen \
             (IP:0 takes any free port; 0.0.0.0 where there is no IPv6)",
        ),
        StartError::Quic(_) => Report::new(Exit::Failed, what),
        StartError::Keys(_) | StartError::Engine(_) => Report::bug(what),
    }
}

/// The identity that the first run has kept.
pub(in crate::plug) fn identity(config: &Config) -> Result<Identity, Report> {
    let (overlay, dir) = (&config.overlay, config.identity_dir());
    let secret = rookery_overlay::node::Folder::kept_secret(&dir)
        .map_err(|error| Report::new(Exit::DataDir, error.to_string()))?
        .ok_or_else(|| {
            let what = format!("there is no identity for the overlay {} in {}", overlay.name, dir.display());
            Report::new(Exit::Failed, what).hint(
                "the first `rookery run --network overlay` makes one; or name its --data-dir and --name",
            )
        })?;
    let keys = KeySet::from_seed(&secret, overlay.keys).map_err(|error| Report::bug(error.to_string()))?;
    Ok(Identity {
        network: config.network.name().to_owned(),
        overlay: overlay.name.clone(),
        peer_id: keys.peer_id().to_string(),
        keys: name_of(overlay.keys).to_owned(),
    })
}

/// Nodes on loopback that are told of the first one alone.
pub(in crate::plug) async fn meeting(env: &Env, nodes: usize) -> Result<Vec<Arc<dyn Node>>, Report> {
    let mut all: Vec<Arc<dyn Node>> = Vec::new();
    let mut first = None;
    for _ in 0..nodes {
        // Each node has counters and randomness of its own.
        let own = env.within(env.scope.child("demo node"));
        let env = Env { metrics: Arc::default(), rng: RngSource::system(), ..own };
        let builder = Builder::new("rookery-demo").local().keys(Keys::PostQuantum);
        let builder = builder.listen(SocketAddr::from(([127, 0, 0, 1], 0))).outbound(nodes - 1);
        let builder = first.into_iter().fold(builder, Builder::bootstrap);
        let started = builder.start_in(&env, Arc::new(Udp::LARGE)).await;
        let started = started.map_err(|error| start_report(&error))?;
        first = first.or_else(|| started.1.listening().first().copied());
        let glance = OverlayGlance {
            overlay: "rookery-demo".to_owned(),
            keys: name_of(Keys::PostQuantum).to_owned(),
            ..OverlayGlance::default()
        };
        all.push(Arc::new(Plug::new(&env, started, Limits::LOCAL, glance)));
    }
    Ok(all)
}
