//! The echo network in a world: the tutorial's network under the same faults as any other.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use rookery_base::ByteBudget;
use rookery_echo::{Echo, Heard, say};
use rookery_engine::book::{Book, BookConfig};
use rookery_engine::dial::{DialConfig, addresses};
use rookery_engine::{Engine, EngineConfig, EngineHandle, Limits, PeerHandle};
use rookery_runtime::{FairMailbox, LaneLimits};

use super::Scenario;
use crate::chainworld::host;
use crate::fabric::{Mix, Schedule};
use crate::world::{Failure, Node, Report, World};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "echo",
    about: "two echo nodes under faults: every question ends once, and after the faults they talk again",
    run,
};

const PORT: u16 = 7;
const SPAN: Duration = Duration::from_secs(60);
/// A redial within half a minute, and three exchanges.
const TALK_WITHIN: Duration = Duration::from_secs(40);
/// Longest silence after a fault: an unanswered question's deadline and a redial.
const QUIET: Duration = Duration::from_secs(10);

struct Party {
    engine: EngineHandle,
    heard: FairMailbox<Heard>,
    peer: Option<PeerHandle>,
}

async fn start(node: &Node, identity: u8, connect: &[IpAddr]) -> Result<Party, String> {
    let env = &node.env;
    let heard = FairMailbox::new("echo", LaneLimits::PEER, 100, env.clock, Arc::clone(&env.metrics));
    let network = Arc::new(Echo::new([identity; 32], heard.opener()));
    let (_, inbox) = addresses(env, 100);
    let named = connect.iter().map(|ip| SocketAddr::new(*ip, PORT)).collect();
    let book = Book::new(BookConfig::new(0, PORT, 0).with_private(), &mut env.rng.fork("book", 0));
    let dial = DialConfig::only(named, book);
    let config = EngineConfig { listen: vec![node.at(PORT)], dial, limits: Limits::LOCAL };
    let process = ByteBudget::root("process", 64 << 20);
    let engine = Engine::start(env, Arc::clone(&node.transport), network, &process, inbox, config).await;
    Ok(Party { engine: engine.map_err(|error| error.to_string())?, heard, peer: None })
}

/// Talks for a while: (said, answered, unanswered).
async fn talk(world: &World, party: &mut Party, span: Duration) -> (u64, u64, u64) {
    let until = world.clock().now() + span;
    let mut counts = (0, 0, 0);
    while world.clock().now() < until {
        match world.clock().timeout(QUIET, party.heard.recv()).await {
            Some(Heard::Up(up)) => party.peer = Some(up),
            Some(Heard::Said(..)) => counts.1 += 1,
            Some(Heard::Unanswered(_)) => counts.2 += 1,
            Some(Heard::Down) => party.peer = None,
            None => {}
        }
        if let Some(to) = &party.peer
            && say(to, vec![counts.0 as u8; 100])
        {
            counts.0 += 1;
        }
    }
    counts
}

fn run(seed: u64) -> Result<Report, Box<Failure>> {
    let world = World::new(SCENARIO.name, seed);
    let mut rng = world.rng("echo", 0);
    let ips = [host(0), host(1)];
    let every = Duration::from_secs(rng.random_range(3..15));
    // Echo has no sign of life: a connection whose other end is gone without a word stays for good.
    let schedule = Schedule::seeded(&mut rng, &ips, Mix { half_open: 0, down: 0, ..Mix::ALL }, every, SPAN);
    world.run(async {
        let (a, b) = (world.node(ips[0]), world.node(ips[1]));
        let answering = start(&a, 1, &[]).await?;
        let mut asking = start(&b, 2, &ips[..1]).await?;
        let clock = world.clock();
        let (stormy, ()) =
            tokio::join!(talk(&world, &mut asking, SPAN), schedule.play(world.fabric(), &clock));
        let calm = talk(&world, &mut asking, TALK_WITHIN).await;
        if calm.1 < 3 {
            return Err(format!("after the faults: {calm:?} said, answered, unanswered"));
        }
        world.stop(&b).await?;
        world.stop(&a).await?;
        let (opened, ended) = (world.auditor().count("request"), world.auditor().count("request_end"));
        if opened != ended || answering.engine.held_bytes().0 != 0 {
            return Err(format!("{opened} questions were opened, {ended} have ended"));
        }
        world.say(format!("in the storm {stormy:?}, after it {calm:?}: said, answered, unanswered"));
        Ok(())
    })
}
