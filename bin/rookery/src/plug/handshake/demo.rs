//! A network of nodes in this process: one mines, two relay, one joins late.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rookery_engine::Limits;
use rookery_handshake::miner::{MineError, Miner};
use rookery_handshake::params::REGTEST;
use rookery_runtime::{BoxFuture, Env, OnPanic, RngSource};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};

use super::node::{self, Plug};
use crate::exit::{Exit, Report};
use crate::node::view::Progress;
use crate::node::{DemoNetwork, Node};

/// Between blocks before the late node joins, as on the real network.
const SPACING: u64 = 600;
/// Between blocks that it follows.
const PACE: Duration = Duration::from_secs(1);
/// Nodes between the miner and the late one, so that it has several to sync from.
const RELAYS: usize = 2;

pub(in crate::plug) struct Demo {
    env: Env,
    miner: Plug,
    relays: Vec<Plug>,
    late_joined: mpsc::Sender<()>,
    // Removed with everything in them when the demo ends.
    directories: Vec<TempDir>,
}

impl Demo {
    /// Starts the miner and the relays; the miner mines `headers` blocks, then waits for the late node.
    pub async fn start(env: &Env, headers: u32) -> Result<Self, Report> {
        let mut directories = Vec::new();
        let miner = start(env, "miner", Vec::new(), &mut directories).await?;
        let mut relays = Vec::new();
        for _ in 0..RELAYS {
            let named = miner.node.engine.listening().to_vec();
            relays.push(start(env, "relay", named, &mut directories).await?);
        }
        let (late_joined, joined) = mpsc::channel(1);
        let mines = Miner::new(&REGTEST, miner.node.headers.clone())
            .map_err(|error| Report::bug(error.to_string()))?;
        let scope = env.scope.clone();
        let clock = env.clock;
        env.scope.spawn("miner", OnPanic::StopNode, async move {
            let first = clock.unix().saturating_sub(u64::from(headers) * SPACING);
            let ended = mine(&mines, headers, first, joined, clock).await;
            if let Err(error) = ended {
                scope.stop_node(format!("the demo's miner stopped: {error}"));
            }
        });
        Ok(Self { env: env.clone(), miner, relays, late_joined, directories })
    }
}

async fn mine(
    miner: &Miner,
    headers: u32,
    first: u64,
    mut joined: mpsc::Receiver<()>,
    clock: rookery_runtime::Clock,
) -> Result<(), MineError> {
    miner.mine(headers, first, SPACING).await?;
    if joined.recv().await.is_none() {
        return Ok(());
    }
    loop {
        clock.sleep(PACE).await;
        miner.mine(1, clock.unix(), 0).await?;
    }
}

async fn start(
    env: &Env,
    name: &'static str,
    named: Vec<SocketAddr>,
    directories: &mut Vec<TempDir>,
) -> Result<Plug, Report> {
    let directory = tempfile::Builder::new().prefix("rookery-demo-").tempdir();
    let directory = directory
        .map_err(|error| Report::io(Exit::DataDir, "cannot make a directory for the demo", &error))?;
    // Each node has counters and secrets of its own: two with one secret would take each other for themselves.
    let own = env.within(env.scope.child(name));
    let env = Env { metrics: Arc::default(), rng: RngSource::system(), ..own };
    let started = node::open(&env, directory.path(), node::loopback(&REGTEST, named)).await?;
    directories.push(directory);
    Ok(Plug::new(started, Limits::LOCAL))
}

impl DemoNetwork for Demo {
    fn nodes(&self) -> usize {
        1 + self.relays.len()
    }

    fn mining(&self) -> watch::Receiver<Progress> {
        self.miner.progress()
    }

    fn join(&mut self) -> BoxFuture<'_, Result<Arc<dyn Node>, Report>> {
        Box::pin(async move {
            let others = std::iter::once(&self.miner).chain(&self.relays);
            let named = others.flat_map(|plug| plug.node.engine.listening().to_vec()).collect();
            let late = start(&self.env, "late", named, &mut self.directories).await?;
            // One message, into a queue of one.
            let _ = self.late_joined.try_send(());
            Ok(Arc::new(late) as Arc<dyn Node>)
        })
    }
}
