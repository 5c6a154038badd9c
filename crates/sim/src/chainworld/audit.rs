//! What always holds for every honest node, whatever its peers do.
//!
//! | invariant | when it is looked at |
//! |---|---|
//! | what a node tells to be durable never shrinks, and never exceeds its chain | every step |
//! | bytes held for peers stay within the network's budget | every step |
//! | a node that is connected to an honest one with more gets further within the owed time | every step |
//! | no request is out for longer than its deadline; at most three for the same headers | every second |
//! | what the reactor has asked is open in that session's request table; sessions that ended leave the reactor | every second |
//! | the registry's counts are those of its sessions and of the gauges | every second |
//! | what waits for the store, and headers on side branches, are bounded | every second |
//! | every request that was opened has ended, once; nothing is held, parked or queued any more | at the end |
//!
//! Two owners are asked one after the other, and messages between them may be under way: what only looks wrong is
//! called wrong when it still is after `SLACK`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use rookery_base::Height;
use rookery_engine::EngineHandle;
use rookery_handshake::services::headers::ASK_WITHIN;
use rookery_handshake::wire::{HEADER_LEN, MAX_HEADERS};
use rookery_observe::metrics::{BoxLabel, Way};
use rookery_runtime::{Env, Instant};
use rookery_sync::headers::HeadersAudit;
use rookery_sync::tree::{MAX_PENDING_BYTES, MAX_SIDE_HEADERS};

use super::Hosts;
use super::host::{Host, Up};
use crate::fabric::Fabric;
use crate::world::World;

/// How often owners are asked.
const EVERY: Duration = Duration::from_secs(1);
/// How long two owners may disagree: a message between them takes no time, but a routine that is parked holds it.
const SLACK: Duration = Duration::from_secs(3);
/// The primary and two hedges.
const MOST_WORKING: usize = 3;

/// Since when a node has been behind an honest peer.
#[derive(Debug, Clone, Copy)]
struct Behind {
    since: Instant,
    height: Height,
}

/// What is remembered between looks.
pub struct Books {
    /// How soon a node that is behind must get further.
    pub progress: Duration,
    storm: bool,
    behind: BTreeMap<IpAddr, Behind>,
    stored: BTreeMap<u32, Height>,
    /// What looked wrong, by node and session, and since when.
    doubts: BTreeMap<(u32, u64, &'static str), Instant>,
    /// Every node that was ever started.
    started: Vec<(u32, Env, EngineHandle)>,
}

impl Books {
    /// Empty books.
    pub const fn new(progress: Duration) -> Self {
        Self {
            progress,
            storm: false,
            behind: BTreeMap::new(),
            stored: BTreeMap::new(),
            doubts: BTreeMap::new(),
            started: Vec::new(),
        }
    }

    /// A node was started.
    pub fn started(&mut self, up: &Up) {
        self.started.push((up.node.number, up.node.env.clone(), up.chain.engine.clone()));
    }

    /// Faults begin or end.
    pub fn storm(&mut self, storm: bool) {
        self.storm = storm;
        self.behind.clear();
    }

    /// At the end, when every node has stopped.
    pub fn balance(&self, world: &World) -> Result<(), String> {
        let count = |event| world.auditor().count(event);
        if count("request") != count("request_end") {
            let (opened, ended) = (count("request"), count("request_end"));
            return Err(format!("{opened} requests were opened and {ended} have ended"));
        }
        for (number, env, engine) in &self.started {
            let parked = env.metrics.parked_peers.get();
            let queued: i64 = ["headers", "addresses"]
                .map(|mailbox| env.metrics.mailbox_depth.get_or_create(&BoxLabel { mailbox }).get())
                .iter()
                .sum();
            let held = engine.held_bytes().0;
            if (parked, queued, held) != (0, 0, 0) {
                return Err(format!(
                    "node {number} has stopped with {parked} peers parked, {queued} events queued, {held} bytes held"
                ));
            }
        }
        Ok(())
    }

    /// Says so once this has looked wrong for `SLACK`; forgets it when it does not any more.
    fn doubt(&mut self, wrong: bool, key: (u32, u64, &'static str), now: Instant) -> Result<(), String> {
        if !wrong {
            self.doubts.remove(&key);
            return Ok(());
        }
        let since = *self.doubts.entry(key).or_insert(now);
        let (node, session, what) = key;
        match now.saturating_duration_since(since) > SLACK {
            true => Err(format!("node {node}, session {session}: {what}, for more than {SLACK:?}")),
            false => Ok(()),
        }
    }
}

/// What can be seen without asking anybody.
pub fn step(
    books: &mut Books,
    hosts: &BTreeMap<IpAddr, Host>,
    fabric: &Fabric,
    now: Instant,
) -> Result<(), String> {
    let mut heights: BTreeMap<IpAddr, Height> = BTreeMap::new();
    for up in hosts.values().filter_map(|host| host.up.as_ref()) {
        let status = up.chain.headers.status();
        heights.insert(up.node.ip, status.height);
        let (ip, number) = (up.node.ip, up.node.number);
        let stored = status.stored.unwrap_or(0);
        let before = books.stored.insert(number, stored).unwrap_or(0);
        if stored < before || stored > status.height {
            let height = status.height;
            return Err(format!("{ip} tells {stored} as durable, before it was {before}; it is at {height}"));
        }
        let (engine, cap) = (&up.chain.engine, up.chain.engine.held_cap());
        let (held, peak) = engine.held_bytes();
        if peak > cap {
            return Err(format!("{ip} holds {held} bytes for its peers, held {peak}, and may hold {cap}"));
        }
    }
    if books.storm {
        return Ok(());
    }
    progress(books, &heights, fabric, now)
}

/// The best height of the honest peers that each node is connected to.
fn ahead(heights: &BTreeMap<IpAddr, Height>, fabric: &Fabric) -> BTreeMap<IpAddr, Height> {
    let mut best: BTreeMap<IpAddr, Height> = BTreeMap::new();
    for conn in fabric.connections().iter().filter(|conn| !conn.cut) {
        let (a, b) = (conn.dialler.ip(), conn.acceptor.ip());
        if let (Some(at_a), Some(at_b)) = (heights.get(&a), heights.get(&b)) {
            let best_of_a = best.entry(a).or_default();
            *best_of_a = (*best_of_a).max(*at_b);
            let best_of_b = best.entry(b).or_default();
            *best_of_b = (*best_of_b).max(*at_a);
        }
    }
    best
}

fn progress(
    books: &mut Books,
    heights: &BTreeMap<IpAddr, Height>,
    fabric: &Fabric,
    now: Instant,
) -> Result<(), String> {
    let ahead = ahead(heights, fabric);
    for (ip, height) in heights {
        let behind = books.behind.get(ip).filter(|behind| behind.height == *height).copied();
        if ahead.get(ip).is_none_or(|best| best <= height) {
            books.behind.remove(ip);
            continue;
        }
        let behind = behind.unwrap_or(Behind { since: now, height: *height });
        books.behind.insert(*ip, behind);
        if now.saturating_duration_since(behind.since) > books.progress {
            let (best, within) = (ahead[ip], books.progress);
            return Err(format!("{ip} stays at {height} for {within:?}, an honest peer has {best}"));
        }
    }
    Ok(())
}

/// Asks every node's owners each second; ends with the first thing that is wrong.
pub async fn each_second(world: &World, hosts: &Hosts, books: &Rc<RefCell<Books>>) -> String {
    loop {
        world.pass(EVERY).await;
        let all: Vec<Up> = hosts.borrow().values().filter_map(|host| host.up.clone()).collect();
        for up in all {
            if let Err(wrong) = ask(&up, books).await {
                return format!("{}: {wrong}", up.node.ip);
            }
        }
    }
}

/// One node's owners. A node that is stopping tells nothing.
async fn ask(up: &Up, books: &Rc<RefCell<Books>>) -> Result<(), String> {
    let Some(reactor) = up.chain.headers.audit().await else { return Ok(()) };
    let Some(registry) = up.chain.engine.audit().await else { return Ok(()) };
    let sessions = up.chain.engine.peers().await;
    let now = up.node.env.clock.now();
    if up.node.env.scope.is_cancelled() {
        return Ok(());
    }
    let node = up.node.number;
    bounded(&reactor)?;
    let gauge = |direction| up.node.env.metrics.sessions.get_or_create(&Way { direction }).get() as usize;
    let mut books = books.borrow_mut();
    let uncounted = registry.slots != sessions.len() || registry.slots < registry.inbound + registry.outbound;
    books.doubt(uncounted, (node, 0, "the registry's slots are not its sessions"), now)?;
    let ungauged = registry.inbound != gauge("in") || registry.outbound != gauge("out");
    books.doubt(ungauged, (node, 0, "the gauges are not the registry's counts"), now)?;
    for peer in &reactor.peers {
        let session = sessions.iter().find(|view| view.generation == peer.session.0);
        let key = peer.session.0;
        books.doubt(session.is_none(), (node, key, "the reactor keeps a session that has ended"), now)?;
        let lost = peer.asked.is_some() && session.is_some_and(|view| view.requests == 0);
        books.doubt(lost, (node, key, "asked by the reactor, not by the session"), now)?;
    }
    Ok(())
}

fn bounded(reactor: &HeadersAudit) -> Result<(), String> {
    let HeadersAudit { peers, working, pending_bytes, side_headers } = reactor;
    let out = peers.iter().filter(|peer| peer.asked.is_some() && !peer.probe).count();
    if *working != out || out > MOST_WORKING {
        return Err(format!("{working} requests counted, {out} are out, {MOST_WORKING} may be"));
    }
    if let Some(late) = peers.iter().find(|peer| peer.asked.is_some_and(|age| age > ASK_WITHIN + SLACK)) {
        return Err(format!("a request without an end: {late:?}"));
    }
    let most_pending = MAX_PENDING_BYTES + MAX_HEADERS * HEADER_LEN;
    if *pending_bytes > most_pending || *side_headers > MAX_SIDE_HEADERS {
        return Err(format!(
            "{pending_bytes} bytes wait for the store (at most {most_pending}), {side_headers} side headers (at most {MAX_SIDE_HEADERS})"
        ));
    }
    Ok(())
}
