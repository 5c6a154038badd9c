//! What happens to a network besides malice: connections that break, machines that fail, disks that do.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rand::RngExt;
use rookery_base::Height;

use super::Scenario;
use crate::chainworld::{ChainWorld, Line, Plan, host};
use crate::fabric::{Down, Mix, Schedule};
use crate::hostile::{self, Rogue};
use crate::world::{Failure, Report};

pub(super) const CHURN: Scenario = Scenario {
    name: "churn",
    about: "connections are reset, cut and slowed, nodes crash and come back, blocks go on: in the end all agree",
    run: churn,
};

pub(super) const FAULT: Scenario = Scenario {
    name: "storefault",
    about: "a write fails, of headers or of the address book: the store is opened again and nothing is lost",
    run: fault,
};

pub(super) const FAULTS: Scenario = Scenario {
    name: "storefaults",
    about: "two writes in a row fail: the node stops with that cause, and a restart has what was acknowledged",
    run: faults,
};

pub(super) const CRASH: Scenario = Scenario {
    name: "crash",
    about: "the power goes at a random write of a sync, again and again: each restart has what was acknowledged",
    run: crash,
};

/// How long faults go on.
const SPAN: Duration = Duration::from_secs(120);
/// A cut connection is noticed by its unanswered ping after two minutes and a half, and redialled half a minute later.
const SETTLED_WITHIN: Duration = Duration::from_secs(300);
/// One sync of a trunk, redial included.
const SYNC_WITHIN: Duration = Duration::from_secs(60);
const HEIGHT: Height = 2_500;
/// More than a tree keeps in memory, so that the first headers are read from the store.
const LONG: Height = 5_000;

fn churn(seed: u64) -> Result<Report, Box<Failure>> {
    let cw = ChainWorld::new(CHURN.name, seed);
    let mut rng = cw.world.rng("churn", 0);
    let ips: Vec<IpAddr> = (0..rng.random_range(3..=5)).map(host).collect();
    let every = Duration::from_millis(rng.random_range(2_000..8_000));
    let schedule = Schedule::seeded(&mut rng, &ips, Mix { down: 0, ..Mix::ALL }, every, SPAN);
    let faults = schedule.steps.len();
    let mut crashes = 0;
    cw.run(async {
        let image = Line::trunk(HEIGHT).image();
        for (n, ip) in ips.iter().enumerate() {
            let others: Vec<IpAddr> = ips.iter().copied().filter(|other| other != ip).collect();
            let plan = Plan::to(&others);
            cw.add(*ip, if n == 0 { plan.with(&image) } else { plan }).await?;
        }
        cw.stormy(true);
        let work = async {
            let started = cw.world.clock().now();
            while cw.world.clock().now() - started < SPAN {
                cw.world.pass(Duration::from_secs(rng.random_range(1..10))).await;
                let ip = ips[rng.random_range(0..ips.len())];
                if rng.random_range(0..3) > 0 {
                    cw.mine(ip, rng.random_range(1..4)).await?;
                    continue;
                }
                let how = if rng.random_range(0..2) == 0 { Down::Reset } else { Down::Silent };
                cw.crash(ip, how, rng.random_range(0..u64::MAX)).await?;
                cw.world.pass(Duration::from_millis(rng.random_range(0..5_000))).await;
                cw.restart(ip).await?;
                crashes += 1;
            }
            Ok::<(), String>(())
        };
        let clock = cw.world.clock();
        let (worked, ()) = tokio::join!(work, schedule.play(cw.world.fabric(), &clock));
        worked?;
        cw.world.fabric().calm();
        // Connections that were cut are still to be noticed. Two branches of equal work may be left; a block decides.
        cw.level(&ips, HEIGHT, SETTLED_WITHIN).await?;
        cw.stormy(false);
        let mined = cw.mine(ips[0], 1).await?;
        cw.agree(&ips, mined.height, SETTLED_WITHIN).await?;
        cw.world.say(format!("{faults} faults, {crashes} crashes, height {}", mined.height));
        Ok(())
    })
}

fn fault(seed: u64) -> Result<Report, Box<Failure>> {
    let cw = ChainWorld::new(FAULT.name, seed);
    let mut rng = cw.world.rng("fault", 0);
    let (server, node, teller) = (host(0), host(1), host(2));
    cw.run(async {
        let line = Arc::new(Line::trunk(LONG));
        cw.add(server, Plan::default().with(&line.image())).await?;
        // It tells of addresses, so that the book has something to save.
        hostile::start(&cw, teller, Rogue::Addrs, &line, &[]);
        let up = cw.add(node, Plan::to(&[server, teller])).await?;
        if rng.random_range(0..2) == 0 {
            cw.world.pass(Duration::from_millis(rng.random_range(0..100))).await;
            cw.disk(node)?.fail_after(rng.random_range(0..10), io::ErrorKind::StorageFull);
            cw.agree(&[server, node], LONG, SYNC_WITHIN).await?;
        } else {
            cw.agree(&[server, node], LONG, SYNC_WITHIN).await?;
            cw.world.pass(Duration::from_secs(60)).await;
            // Nothing is written now until the book is saved, two minutes after the start.
            cw.disk(node)?.fail_after(rng.random_range(0..3), io::ErrorKind::StorageFull);
            cw.world.pass(Duration::from_secs(70)).await;
        }
        // The node still reads what is old, and writes what is new.
        let old = up.chain.headers.range(1, 10).await?;
        if old != line.raw(1, 10) {
            return Err(format!("the first headers are not those that were stored: {} bytes", old.len()));
        }
        let deep = cw.mine(server, 5).await?;
        cw.agree(&[server, node], deep.height, SYNC_WITHIN).await?;
        match up.machine.reopened.load(Relaxed) {
            1 => {}
            times => return Err(format!("the store was opened again {times} times, expected once")),
        }
        cw.stop(node).await?;
        cw.restart(node).await?;
        cw.agree(&[server, node], deep.height, SYNC_WITHIN).await
    })
}

fn faults(seed: u64) -> Result<Report, Box<Failure>> {
    let cw = ChainWorld::new(FAULTS.name, seed);
    let mut rng = cw.world.rng("faults", 0);
    let (server, node) = (host(0), host(1));
    cw.run(async {
        cw.add(server, Plan::default().with(&Line::trunk(HEIGHT).image())).await?;
        let up = cw.add(node, Plan::to(&[server])).await?;
        cw.agree(&[server, node], HEIGHT, SYNC_WITHIN).await?;
        cw.world.pardon(&up.node);
        cw.disk(node)?.fail_after(rng.random_range(0..3), io::ErrorKind::StorageFull);
        up.machine.relapses.store(1, Relaxed);
        let mined = cw.mine(server, 1).await?;
        let scope = &up.node.env.scope;
        cw.world.until("the node stops itself", SYNC_WITHIN, || scope.stop_cause().is_some()).await?;
        let cause = scope.stop_cause().unwrap_or_default().to_owned();
        if !cause.contains("the store failed twice") {
            return Err(format!("stopped for another cause: {cause}"));
        }
        cw.stop(node).await?;
        cw.disk(node)?.clear_plan();
        cw.restart(node).await?;
        cw.agree(&[server, node], mined.height, SYNC_WITHIN).await?;
        cw.world.say(cause);
        Ok(())
    })
}

fn crash(seed: u64) -> Result<Report, Box<Failure>> {
    let cw = ChainWorld::new(CRASH.name, seed);
    let mut rng = cw.world.rng("crash", 0);
    let (server, node) = (host(0), host(1));
    cw.run(async {
        let height = 4_500;
        cw.add(server, Plan::default().with(&Line::trunk(height).image())).await?;
        cw.add(node, Plan::to(&[server])).await?;
        for _ in 0..rng.random_range(1..=4) {
            cw.world.pass(Duration::from_millis(rng.random_range(0..700))).await;
            let up = cw.up(node)?;
            cw.world.pardon(&up.node);
            up.machine.power.store(false, Relaxed);
            let seed = rng.random_range(0..u64::MAX);
            cw.disk(node)?.crash_after(rng.random_range(0..60), seed);
            cw.world.pass(Duration::from_millis(rng.random_range(0..2_000))).await;
            cw.crash(node, Down::Reset, seed).await?;
            cw.world.pass(Duration::from_millis(rng.random_range(0..3_000))).await;
            cw.restart(node).await?;
        }
        cw.agree(&[server, node], height, SYNC_WITHIN).await
    })
}
