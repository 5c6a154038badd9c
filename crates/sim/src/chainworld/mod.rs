//! Worlds of real Handshake nodes: the real handshake, framing, engine, header sync and store, on simulated hosts.
//!
//! ```text
//!  ChainWorld ── Host (disk, plan) ── Up: engine + reactor + store      line: chains to begin with
//!      |            `─ survives stop and crash                          audit: invariants
//!      `── run(scenario): scenario || audits each second, then every node stops and the books must balance
//! ```
//!
//! A host's disk outlives its nodes. [`ChainWorld::stop`] ends a node in order; [`ChainWorld::crash`] takes its power:
//! what was not durable is lost by seed, nothing more is said to anybody, and a later [`ChainWorld::start`] must find
//! at least what was acknowledged.

pub mod audit;
pub mod host;
pub mod line;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rookery_base::Height;
use rookery_sync::headers::ChainStatus;

use crate::fabric::Down;
use crate::world::{Failure, Report, World, WorldConfig};

use audit::Books;
pub use host::{Host, PORT, Plan, Up};
pub use line::{Line, PARAMS, TRUNK};

/// How soon a node must get further while an honest peer that it is connected to has more. The first three that it asks
/// may all be silent, which costs their deadline of 30 s; a peer that reset may be redialled only 30 s later; and a
/// peer that grew without saying so is found by a probe, 60 s later at most.
pub const PROGRESS: Duration = Duration::from_secs(90);

/// Host `n`, in an address group of its own.
pub fn host(n: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(0x1700_0001 + (n << 16)))
}

pub(crate) type Hosts = Rc<RefCell<BTreeMap<IpAddr, Host>>>;

/// See the module's page.
pub struct ChainWorld {
    /// What is below.
    pub world: World,
    hosts: Hosts,
    books: Rc<RefCell<Books>>,
}

impl ChainWorld {
    /// A world in which progress is owed within [`PROGRESS`].
    pub fn new(name: &'static str, seed: u64) -> Self {
        Self::with(name, seed, WorldConfig { limit: Duration::from_secs(7200), ..WorldConfig::default() })
    }

    /// The same with another configuration.
    pub fn with(name: &'static str, seed: u64, config: WorldConfig) -> Self {
        let world = World::with(name, seed, config);
        let (hosts, books) = (Hosts::default(), Rc::new(RefCell::new(Books::new(PROGRESS))));
        let (watched, kept) = (Rc::clone(&hosts), Rc::clone(&books));
        let (fabric, clock) = (world.fabric().clone(), world.clock());
        world.add_invariant("chains and budgets", move || {
            audit::step(&mut kept.borrow_mut(), &watched.borrow(), &fabric, clock.now())
        });
        Self { world, hosts, books }
    }

    /// Owes progress only within this time: for worlds with more liars than can be asked at once.
    pub fn owe_progress(&self, within: Duration) {
        self.books.borrow_mut().progress = within;
    }

    /// While faults go on nobody owes progress; from their end on it is owed anew.
    pub fn stormy(&self, stormy: bool) {
        self.books.borrow_mut().storm(stormy);
    }

    /// Adds a host and starts its node.
    pub async fn add(&self, ip: IpAddr, plan: Plan) -> Result<Up, String> {
        self.hosts.borrow_mut().insert(ip, Host::new(plan));
        self.start(ip).await
    }

    /// Starts a host's node. What its earlier ones acknowledged must be there.
    pub async fn start(&self, ip: IpAddr) -> Result<Up, String> {
        let (plan, disk, acknowledged) = {
            let hosts = self.hosts.borrow();
            let host = hosts.get(&ip).ok_or_else(|| format!("{ip} is no host"))?;
            (host.plan.clone(), host.disk.clone(), host.acknowledged)
        };
        let up = host::start(self.world.node_with_skew(ip, plan.skew), disk, &plan).await?;
        let height = up.height();
        if height < acknowledged {
            return Err(format!("{ip} had told that {acknowledged} was durable and starts with {height}"));
        }
        self.books.borrow_mut().started(&up);
        if let Some(host) = self.hosts.borrow_mut().get_mut(&ip) {
            host.up = Some(up.clone());
        }
        Ok(up)
    }

    /// Ends a host's node in order.
    pub async fn stop(&self, ip: IpAddr) -> Result<(), String> {
        match self.take(ip) {
            Some(up) => self.world.stop(&up.node).await,
            None => Ok(()),
        }
    }

    /// Takes a host's power: what its disk had not made safe survives by seed. The host stays down until
    /// [`restart`](Self::restart).
    pub async fn crash(&self, ip: IpAddr, how: Down, seed: u64) -> Result<(), String> {
        let Some(up) = self.take(ip) else { return Ok(()) };
        self.world.pardon(&up.node);
        up.machine.power.store(false, Relaxed);
        if let Some(host) = self.hosts.borrow().get(&ip) {
            host.disk.clear_plan();
            host.disk.crash(seed);
        }
        self.world.crash(&up.node, how).await
    }

    /// Brings a host back and starts its node.
    pub async fn restart(&self, ip: IpAddr) -> Result<Up, String> {
        self.world.fabric().up(ip);
        self.start(ip).await
    }

    /// The node leaves the list of those that run; what it acknowledged stays.
    fn take(&self, ip: IpAddr) -> Option<Up> {
        let mut hosts = self.hosts.borrow_mut();
        let host = hosts.get_mut(&ip)?;
        let up = host.up.take()?;
        host.acknowledged = host.acknowledged.max(up.chain.headers.status().stored.unwrap_or(0));
        Some(up)
    }

    /// The node of a host.
    ///
    /// # Errors
    /// When none runs there.
    pub fn up(&self, ip: IpAddr) -> Result<Up, String> {
        self.hosts.borrow().get(&ip).and_then(|host| host.up.clone()).ok_or_else(|| format!("{ip} is down"))
    }

    /// Every node that runs.
    pub fn all(&self) -> Vec<Up> {
        self.hosts.borrow().values().filter_map(|host| host.up.clone()).collect()
    }

    /// With a host's disk.
    pub fn disk(&self, ip: IpAddr) -> Result<rookery_store::MemoryDisk, String> {
        let hosts = self.hosts.borrow();
        hosts.get(&ip).map(|host| host.disk.clone()).ok_or_else(|| format!("{ip} is no host"))
    }

    /// Where a host's chain is.
    pub fn status(&self, ip: IpAddr) -> Result<ChainStatus, String> {
        Ok(self.up(ip)?.chain.headers.status())
    }

    /// Mines blocks on a host's tip, the first of them now, by that host's clock.
    pub async fn mine(&self, ip: IpAddr, count: u32) -> Result<ChainStatus, String> {
        let up = self.up(ip)?;
        let mined = up.miner()?.mine(count, up.node.env.clock.unix(), 1).await;
        mined.map_err(|error| format!("{ip} mines: {error}"))?;
        Ok(up.chain.headers.status())
    }

    /// Waits until all of these hosts have the same durable tip at this height or above.
    pub async fn agree(&self, ips: &[IpAddr], at_least: Height, within: Duration) -> Result<(), String> {
        self.alike(ips, at_least, within, "all agree on one durable tip", |a, b| a.tip == b.tip).await
    }

    /// Waits until all of these hosts have a durable chain of the same work, at this height or above. Which of two
    /// branches of equal work a node keeps is decided by which it saw first, until the next block.
    pub async fn level(&self, ips: &[IpAddr], at_least: Height, within: Duration) -> Result<(), String> {
        self.alike(ips, at_least, within, "all have chains of the same work", |a, b| a.work == b.work).await
    }

    async fn alike(
        &self,
        ips: &[IpAddr],
        at_least: Height,
        within: Duration,
        what: &str,
        same: fn(&ChainStatus, &ChainStatus) -> bool,
    ) -> Result<(), String> {
        let all = || ips.iter().map(|ip| self.status(*ip).ok()).collect::<Option<Vec<_>>>();
        let there = |s: &ChainStatus| s.height >= at_least && s.stored == Some(s.height);
        let alike = || all().is_some_and(|all| all.iter().all(|s| same(s, &all[0]) && there(s)));
        match self.world.until(what, within, alike).await {
            Ok(()) => Ok(()),
            Err(why) => Err(format!("{why}; {}", self.story(ips).await)),
        }
    }

    /// What each of these hosts waits for.
    pub async fn story(&self, ips: &[IpAddr]) -> String {
        let mut story = String::new();
        for up in ips.iter().filter_map(|ip| self.up(*ip).ok()) {
            let status = up.chain.headers.status();
            let (height, stored, target) = (status.height, status.stored, status.target);
            story += &format!("\n{} at {height}, stored {stored:?}, target {target:?}", up.node.ip);
            for hop in up.chain.headers.why().await {
                story += &format!("\n    {hop:?}");
            }
        }
        story
    }

    /// Everything that a node knows of a host: causes of closure and ledgers, as text, and whether it is banned.
    pub async fn ledger(&self, of: IpAddr, at: IpAddr) -> Result<(Vec<String>, bool), String> {
        let (all, banned) = self.up(at)?.chain.engine.why(SocketAddr::new(of, 0)).await;
        let mut lines = Vec::new();
        for why in all {
            lines.extend(why.closed.map(|cause| format!("closed: {cause}")));
            lines.extend(why.facts.into_iter().map(|fact| fact.what));
        }
        Ok((lines, banned.is_some()))
    }

    /// Runs the scenario under the invariants, then stops every node and balances the books.
    pub fn run(&self, scenario: impl Future<Output = Result<(), String>>) -> Result<Report, Box<Failure>> {
        self.world.run(async {
            tokio::select! {
                biased;
                ended = scenario => ended?,
                broken = audit::each_second(&self.world, &self.hosts, &self.books) => return Err(broken),
            }
            let ips: Vec<IpAddr> = self.hosts.borrow().keys().copied().collect();
            for ip in ips {
                self.stop(ip).await?;
            }
            self.books.borrow().balance(&self.world)
        })
    }
}
