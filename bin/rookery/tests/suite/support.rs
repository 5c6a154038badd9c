//! A node that shows what a test tells it to, and machinery that makes it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rookery::config::Config;
use rookery::config::layers::Surroundings;
use rookery::exit::Report;
use rookery::front::Front;
use rookery::network::Network;
use rookery::node::view::{
    BanRow, ChainGlance, ChainView, Hop, HopState, Identity, NodeStatus, NodeWhy, PeerRow, PeerWhy,
    ProbeAnswer, Progress, Scenario, Simulated,
};
use rookery::node::{DemoNetwork, Machinery, Node, Probe};
use rookery_runtime::{BoxFuture, Env};
use tokio::sync::watch;

pub const KNOWN: &str = "192.0.2.7:12038";

/// Shows its progress; its views never come when it hangs.
pub struct Fake {
    pub progress: watch::Sender<Progress>,
    pub hangs: bool,
}

pub fn at_tip() -> Progress {
    Progress { height: 7, tip: "ab".repeat(32), target: 7, headers: 7, peers: 1, at_tip: true }
}

impl Fake {
    pub fn new(progress: Progress) -> Self {
        Self { progress: watch::Sender::new(progress), hangs: false }
    }

    fn view<T: Send + 'static>(&self, view: T) -> BoxFuture<'_, T> {
        let hangs = self.hangs;
        Box::pin(async move { if hangs { std::future::pending().await } else { view } })
    }
}

impl Node for Fake {
    fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }
    fn status(&self) -> BoxFuture<'_, NodeStatus> {
        let progress = self.progress.borrow().clone();
        let (peers, chain) = (progress.peers, Some(ChainGlance::of(&progress)));
        let network = "handshake-regtest".into();
        self.view(NodeStatus { network, peers, chain, ..NodeStatus::default() })
    }
    fn peers(&self) -> BoxFuture<'_, Vec<PeerRow>> {
        self.view(vec![PeerRow { address: KNOWN.into(), direction: "out".into(), ..PeerRow::default() }])
    }
    fn peer_why(&self, peer: SocketAddr) -> BoxFuture<'_, Vec<PeerWhy>> {
        let known: SocketAddr = KNOWN.parse().unwrap();
        let row = |address: &str| PeerWhy { address: address.into(), ..PeerWhy::default() };
        self.view(match peer {
            peer if peer == known => vec![row(KNOWN)],
            peer if peer.ip() == known.ip() && peer.port() == 0 => vec![row(KNOWN), row("192.0.2.7")],
            _ => Vec::new(),
        })
    }
    fn bans(&self) -> BoxFuture<'_, Vec<BanRow>> {
        let reason = Some("a forged record".into());
        self.view(vec![BanRow { address: "192.0.2.9".into(), seconds_left: 61, reason }])
    }
    fn chain(&self) -> BoxFuture<'_, Option<ChainView>> {
        self.view(Some(ChainView { height: self.progress.borrow().height, ..ChainView::default() }))
    }
    fn why(&self) -> BoxFuture<'_, NodeWhy> {
        let hop = Hop { hop: "dial".into(), state: HopState::Waiting, detail: "for a peer".into() };
        self.view(NodeWhy { verdict: "waiting for a peer".into(), hops: vec![hop] })
    }
}

/// A front over a node, in a directory.
pub fn front(node: Fake, dir: &Path) -> Front {
    let mut config = Config::defaults(Network::HandshakeRegtest, &Surroundings::nowhere());
    config.data_dir = dir.to_owned();
    Front { node: Arc::new(node), env: Env::system(), config: Arc::new(config) }
}

/// Makes nodes that stay as they start.
pub struct FakeMachinery {
    pub progress: Progress,
    /// A task that ignores cancellation, as a hanging owner would.
    pub stubborn: bool,
}

impl Machinery for FakeMachinery {
    fn start<'a>(&'a self, env: &'a Env, _: &'a Config) -> BoxFuture<'a, Result<Arc<dyn Node>, Report>> {
        if self.stubborn {
            let panics = rookery_runtime::OnPanic::EndScope;
            env.scope.spawn_to_end("stubborn", panics, std::future::pending());
        }
        let node: Arc<dyn Node> = Arc::new(Fake::new(self.progress.clone()));
        Box::pin(async { Ok(node) })
    }
    fn identity(&self, _: &Config) -> Result<Identity, Report> {
        Err(Report::bug("a made-up node is nobody"))
    }
    fn meeting<'a>(&'a self, _: &'a Env, _: usize) -> BoxFuture<'a, Result<Vec<Arc<dyn Node>>, Report>> {
        Box::pin(async { Err(Report::bug("made-up nodes meet nobody")) })
    }
    fn demo<'a>(&'a self, env: &'a Env, headers: u32) -> BoxFuture<'a, Result<Box<dyn DemoNetwork>, Report>> {
        let demo: Box<dyn DemoNetwork> = Box::new(FakeDemo { env: env.clone(), headers });
        Box::pin(async { Ok(demo) })
    }
    fn probe<'a>(&'a self, _: &'a Env, probe: &'a Probe) -> BoxFuture<'a, Result<ProbeAnswer, Report>> {
        let answer = ProbeAnswer { address: probe.address.clone(), ..ProbeAnswer::default() };
        Box::pin(async { Ok(answer) })
    }
    fn scenarios(&self) -> Vec<Scenario> {
        vec![Scenario { name: "partition".into(), about: "two halves meet again".into() }]
    }
    fn simulate(&self, scenario: &str, seed: u64) -> Result<Simulated, Report> {
        let broken = if seed == 13 { vec!["a request without an end".to_owned()] } else { Vec::new() };
        let scenario = scenario.to_owned();
        Ok(Simulated { scenario, seed, hash: "00".into(), events: 1, virtual_seconds: 1.0, broken })
    }
}

/// A network whose miner is done; its late node has every header at once, then gets blocks without end.
struct FakeDemo {
    env: Env,
    headers: u32,
}

impl DemoNetwork for FakeDemo {
    fn nodes(&self) -> usize {
        3
    }
    fn mining(&self) -> watch::Receiver<Progress> {
        watch::Sender::new(Progress { height: self.headers, ..at_tip() }).subscribe()
    }
    fn join(&mut self) -> BoxFuture<'_, Result<Arc<dyn Node>, Report>> {
        let headers = self.headers;
        let first = Progress { height: headers, headers: headers.into(), ..at_tip() };
        let node = Arc::new(Fake::new(first));
        let (late, clock) = (Arc::clone(&node), self.env.clock);
        self.env.scope.spawn("miner", rookery_runtime::OnPanic::StopNode, async move {
            loop {
                clock.sleep(std::time::Duration::from_millis(1)).await;
                late.progress.send_modify(|progress| progress.height += 1);
            }
        });
        let node: Arc<dyn Node> = node;
        Box::pin(async { Ok(node) })
    }
}
