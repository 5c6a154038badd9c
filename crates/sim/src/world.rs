//! A world: a paused runtime, an internet, nodes, invariants, and a report that says how to replay.
//!
//! ```text
//! World::new(name, seed) --> node(ip): Env, Transport --> run(scenario) --> Report { hash, virtual time, counts }
//!                              |                             |                or Failure { seed, time, events, replay }
//!                              +-- add_invariant             +-- until(what, within, condition)
//! ```
//!
//! While the scenario runs, invariants are checked at every step of [`WorldConfig::step`] of virtual time. Three are
//! always there: no task has panicked, no node has stopped itself, and at the end every node's tasks end within
//! [`CLOSE_WITHIN`] and leave no connection and no socket behind.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use rand::Rng;
use rookery_observe::Trace;
use rookery_runtime::rng::ChaCha8Rng;
use rookery_runtime::{Clock, Env, RngSource};
use rookery_transport::Transport;
use rookery_transport::quic::{Datagrams, Quic, QuicLimits, QuicTls};
use tokio::runtime::{Builder, Runtime};

use crate::auditor::{AuditHash, Auditor, describe};
use crate::datagram::HostDatagrams;
use crate::fabric::{Down, Fabric};

/// How long a node may take to stop, in virtual time; a real one promises the same on Ctrl-C.
pub const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// What a world is made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorldConfig {
    /// Seconds since 1970 at which it begins.
    pub unix: u64,
    /// The scenario fails when it takes longer than this, in virtual time.
    pub limit: Duration,
    /// How often invariants and conditions are checked, in virtual time.
    pub step: Duration,
    /// Whether caught panics and nodes that stop themselves are part of the scenario.
    pub tolerate_panics: bool,
    /// Polls of tasks before the scenario, if it is ready, is polled again.
    pub turn: u32,
}

impl Default for WorldConfig {
    /// Begins in 2026; an hour at most; checks every 100 ms, a few times per round trip of a default link. Turns of 61 polls
    /// are the runtime's own.
    fn default() -> Self {
        Self {
            unix: 1_767_225_600,
            limit: Duration::from_secs(3600),
            step: Duration::from_millis(100),
            tolerate_panics: false,
            turn: 61,
        }
    }
}

/// One node's surroundings in a world. What runs in it is the scenario's business.
#[derive(Clone)]
pub struct Node {
    /// Its number in the trace, from 1; every start is a new one.
    pub number: u32,
    /// Its host.
    pub ip: IpAddr,
    /// Clock, randomness, scope, trace.
    pub env: Env,
    /// Its host's sockets for streams.
    pub transport: Arc<dyn Transport>,
    /// Its host's sockets for datagrams.
    datagrams: HostDatagrams,
    /// What its QUIC seals tokens with; the same for every node that is started on this host.
    secret: [u8; 32],
}

impl Node {
    /// Its host's sockets for datagrams.
    pub fn datagrams(&self) -> Arc<dyn Datagrams> {
        Arc::new(self.datagrams.clone())
    }

    /// A QUIC transport over its host's datagrams: the real one. Tokens from it are good after a restart, as those
    /// of a node that keeps its secret are.
    ///
    /// # Errors
    /// When the TLS configuration cannot be used for QUIC.
    pub fn quic(&self, tls: QuicTls, limits: QuicLimits) -> io::Result<Quic> {
        Quic::start(&self.env, tls, &self.secret, limits, self.datagrams())
    }

    /// An address at this node's host.
    pub const fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip, port)
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("number", &self.number).field("ip", &self.ip).finish_non_exhaustive()
    }
}

/// What a scenario came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The scenario.
    pub scenario: &'static str,
    /// Its seed.
    pub seed: u64,
    /// The hash over everything that happened.
    pub hash: AuditHash,
    /// How long it took, in virtual time.
    pub virtual_time: Duration,
    /// How often each event happened.
    pub counts: BTreeMap<&'static str, u64>,
    /// What the scenario has to say.
    pub lines: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scenario, seed, hash, virtual_time, counts, lines } = self;
        writeln!(
            f,
            "{scenario}: seed {seed}, {:.3} s of virtual time, audit {hash}",
            virtual_time.as_secs_f64()
        )?;
        for line in lines {
            writeln!(f, "  {line}")?;
        }
        for (event, count) in counts {
            writeln!(f, "  {count:>10} {event}")?;
        }
        Ok(())
    }
}

/// Why a scenario failed, and how to see it again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Failure {
    /// The scenario.
    pub scenario: &'static str,
    /// Its seed.
    pub seed: u64,
    /// When, in virtual time.
    pub at: Duration,
    /// What was expected and what came.
    pub what: String,
    /// The nodes.
    pub nodes: Vec<String>,
    /// The last events, oldest first.
    pub last: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scenario, seed, at, what, nodes, last } = self;
        writeln!(
            f,
            "{scenario} failed at {:.3} s of virtual time with seed {seed}: {what}",
            at.as_secs_f64()
        )?;
        writeln!(f, "nodes: {}", nodes.join(", "))?;
        writeln!(f, "last events:")?;
        for event in last {
            writeln!(f, "  {event}")?;
        }
        write!(f, "replay: rookery sim {scenario} --seed {seed}")
    }
}

type Invariant = (String, Box<dyn Fn() -> Result<(), String>>);

/// See the module's page.
pub struct World {
    scenario: &'static str,
    seed: u64,
    config: WorldConfig,
    /// Node 0: the world itself and its fabric.
    env: Env,
    auditor: Arc<Auditor>,
    fabric: Fabric,
    nodes: RefCell<Vec<Node>>,
    /// Numbers of nodes that may stop by themselves.
    pardoned: RefCell<BTreeSet<u32>>,
    invariants: RefCell<Vec<Invariant>>,
    lines: RefCell<Vec<String>>,
    /// Last, so that it is dropped last.
    runtime: Runtime,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World")
            .field("scenario", &self.scenario)
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

impl World {
    /// A world with the default configuration.
    pub fn new(scenario: &'static str, seed: u64) -> Self {
        Self::with(scenario, seed, WorldConfig::default())
    }

    /// A world.
    ///
    /// # Panics
    /// When the runtime cannot be built, or inside another runtime.
    pub fn with(scenario: &'static str, seed: u64, config: WorldConfig) -> Self {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .event_interval(config.turn)
            .build()
            .expect("a runtime without I/O needs nothing from the system");
        let entered = runtime.enter();
        let auditor = Arc::new(Auditor::new(Clock::simulated(config.unix, 0)));
        let env = Env::simulated(seed, 0, config.unix, 0, Trace::to(Arc::clone(&auditor) as _, 0));
        let fabric = Fabric::new(&env, seed);
        drop(entered);
        Self {
            scenario,
            seed,
            config,
            env,
            auditor,
            fabric,
            nodes: RefCell::default(),
            pardoned: RefCell::default(),
            invariants: RefCell::default(),
            lines: RefCell::default(),
            runtime,
        }
    }

    /// The seed.
    pub const fn seed(&self) -> u64 {
        self.seed
    }

    /// The internet.
    pub const fn fabric(&self) -> &Fabric {
        &self.fabric
    }

    /// The auditor, for counts and for dumping the trace.
    pub const fn auditor(&self) -> &Arc<Auditor> {
        &self.auditor
    }

    /// The world's clock.
    pub const fn clock(&self) -> Clock {
        self.env.clock
    }

    /// Randomness of the scenario's own.
    pub fn rng(&self, label: &str, number: u64) -> ChaCha8Rng {
        RngSource::seeded(self.seed, 0).fork(label, number)
    }

    /// A new node at this host, with a right clock. A host that is started again gets a new node.
    pub fn node(&self, ip: IpAddr) -> Node {
        self.node_with_skew(ip, 0)
    }

    /// A new node whose clock is wrong by `skew` seconds.
    pub fn node_with_skew(&self, ip: IpAddr, skew: i64) -> Node {
        let _entered = self.runtime.enter();
        let mut nodes = self.nodes.borrow_mut();
        let number = u32::try_from(nodes.len() + 1).expect("a world has fewer than 2^32 nodes");
        let trace = Trace::to(Arc::clone(&self.auditor) as _, number);
        let unix = self.env.clock.unix();
        let env = Env::simulated(self.seed, number, unix, skew, trace);
        let datagrams = self.fabric.datagrams(ip);
        let mut secret = [0; 32];
        self.rng(&format!("quic secret {ip}"), 0).fill_bytes(&mut secret);
        let node = Node { number, ip, env, transport: self.fabric.host(ip), datagrams, secret };
        nodes.push(node.clone());
        node
    }

    /// Stops a node in order: its tasks get to say goodbye.
    pub async fn stop(&self, node: &Node) -> Result<(), String> {
        let closed = node.env.scope.close(CLOSE_WITHIN).await;
        closed.map_err(|left| format!("node {} did not stop within {CLOSE_WITHIN:?}: {left:?}", node.number))
    }

    /// Ends a node as a crash does: its host goes down first, so nothing that its tasks still say gets out. The
    /// host stays down; bring it up before starting a new node on it.
    pub async fn crash(&self, node: &Node, how: Down) -> Result<(), String> {
        self.fabric.down(node.ip, how);
        self.stop(node).await
    }

    /// From now on this node may stop by itself: its machine fails, and it has to notice. A panic is still a failure.
    pub fn pardon(&self, node: &Node) {
        self.pardoned.borrow_mut().insert(node.number);
    }

    /// Adds a check that is made at every step.
    pub fn add_invariant(&self, name: impl Into<String>, check: impl Fn() -> Result<(), String> + 'static) {
        self.invariants.borrow_mut().push((name.into(), Box::new(check)));
    }

    /// Adds a line to the report.
    pub fn say(&self, line: impl Into<String>) {
        self.lines.borrow_mut().push(line.into());
    }

    /// Lets virtual time pass.
    pub async fn pass(&self, time: Duration) {
        self.env.clock.sleep(time).await;
    }

    /// Waits until the condition holds, checking it at every step; fails when it does not hold `within` this time.
    pub async fn until(
        &self,
        what: &str,
        within: Duration,
        mut condition: impl FnMut() -> bool,
    ) -> Result<(), String> {
        let deadline = self.env.clock.now() + within;
        while !condition() {
            if self.env.clock.now() >= deadline {
                return Err(format!("not within {within:?}: {what}"));
            }
            self.env.clock.sleep(self.config.step).await;
        }
        Ok(())
    }

    /// Runs the scenario, then stops every node. A panic in it is a failure like any other.
    pub fn run(&self, scenario: impl Future<Output = Result<(), String>>) -> Result<Report, Box<Failure>> {
        let whole = async {
            self.under_watch(scenario).await?;
            self.close().await?;
            self.check()
        };
        let outcome = self.runtime.block_on(AssertUnwindSafe(whole).catch_unwind());
        // The virtual clock is read inside its runtime only; outside, an instant is the machine's.
        let _entered = self.runtime.enter();
        outcome
            .unwrap_or_else(|panic| Err(panic_text(&*panic)))
            .map_err(|what| Box::new(self.failure(what)))?;
        Ok(Report {
            scenario: self.scenario,
            seed: self.seed,
            hash: self.auditor.hash(),
            virtual_time: self.env.clock.elapsed(),
            counts: self.auditor.counts(),
            lines: self.lines.borrow().clone(),
        })
    }

    async fn under_watch(&self, scenario: impl Future<Output = Result<(), String>>) -> Result<(), String> {
        let limit = self.config.limit;
        tokio::select! {
            biased;
            ended = scenario => ended,
            broken = self.watch() => Err(broken),
            () = self.env.clock.sleep(limit) => Err(format!("the scenario did not end within {limit:?}")),
        }
    }

    /// Ends with the first invariant that does not hold.
    async fn watch(&self) -> String {
        loop {
            if let Err(broken) = self.check() {
                return broken;
            }
            self.env.clock.sleep(self.config.step).await;
        }
    }

    fn check(&self) -> Result<(), String> {
        if !self.config.tolerate_panics {
            for node in self.nodes.borrow().iter() {
                if let Some(panic) = node.env.scope.panics().first() {
                    return Err(format!("a task of node {} panicked: {panic}", node.number));
                }
                if let Some(cause) = node.env.scope.stop_cause()
                    && !self.pardoned.borrow().contains(&node.number)
                {
                    return Err(format!("node {} stopped itself: {cause}", node.number));
                }
            }
        }
        if let Some(cause) = self.env.scope.stop_cause() {
            return Err(format!("the fabric stopped: {cause}"));
        }
        for (name, check) in self.invariants.borrow().iter() {
            check().map_err(|why| format!("invariant \"{name}\" does not hold: {why}"))?;
        }
        Ok(())
    }

    async fn close(&self) -> Result<(), String> {
        let nodes = self.nodes.borrow().clone();
        for node in &nodes {
            node.env.scope.cancel();
        }
        for node in &nodes {
            self.stop(node).await?;
        }
        // What was on its way to an accept queue gets there, and is turned away.
        self.fabric.calm();
        let gone = self
            .until("connections end with their nodes", CLOSE_WITHIN, || self.fabric.connections().is_empty());
        gone.await.map_err(|why| format!("{why}; still held: {:?}", self.fabric.connections().first()))?;
        let gone =
            self.until("sockets end with their nodes", CLOSE_WITHIN, || self.fabric.sockets().is_empty());
        gone.await.map_err(|why| format!("{why}; still bound: {:?}", self.fabric.sockets().first()))
    }

    fn failure(&self, what: String) -> Failure {
        let node = |node: &Node| format!("{} = {}", node.number, node.ip);
        Failure {
            scenario: self.scenario,
            seed: self.seed,
            at: self.env.clock.elapsed(),
            what,
            nodes: self.nodes.borrow().iter().map(node).collect(),
            last: self.auditor.last().iter().map(describe).collect(),
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the scenario panicked: {}", text.unwrap_or("no message"))
}
