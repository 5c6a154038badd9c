//! Late nodes and their servers: one, many, slow, stalling.

use std::time::Duration;

use rand::RngExt;

use super::Scenario;
use crate::chainworld::{ChainWorld, Line, Plan, TRUNK, host};
use crate::fabric::Link;
use crate::world::{Failure, Report};

pub(super) const ONE: Scenario = Scenario {
    name: "sync",
    about: "a node that has nothing syncs 5,000 headers and more from one peer",
    run: one,
};

pub(super) const MANY: Scenario = Scenario {
    name: "many",
    about: "a late node among servers near and far, of which one stalls in the middle: it is replaced",
    run: many,
};

/// For a whole trunk from one peer at a fifth of a second's distance: a dozen round trips and 1.5 MB.
const SYNC_WITHIN: Duration = Duration::from_secs(30);

fn one(seed: u64) -> Result<Report, Box<Failure>> {
    let cw = ChainWorld::new(ONE.name, seed);
    let mut rng = cw.world.rng("sync", 0);
    let height = rng.random_range(5_000..=TRUNK);
    cw.world.fabric().set_default_link(
        Link::new(Duration::from_millis(rng.random_range(0..200)))
            .with_jitter(Duration::from_millis(rng.random_range(0..50)))
            .with_bandwidth(rng.random_range(500_000..10_000_000)),
    );
    cw.run(async {
        let image = Line::trunk(height).image();
        cw.add(host(0), Plan::default().with(&image)).await?;
        cw.add(host(1), Plan::to(&[host(0)])).await?;
        cw.agree(&[host(0), host(1)], height, SYNC_WITHIN).await?;
        cw.world.say(format!("{height} headers in {:.1} s", cw.world.clock().elapsed().as_secs_f64()));
        Ok(())
    })
}

fn many(seed: u64) -> Result<Report, Box<Failure>> {
    let cw = ChainWorld::new(MANY.name, seed);
    let mut rng = cw.world.rng("many", 0);
    let servers: Vec<_> = (0..rng.random_range(3..=5)).map(host).collect();
    let late = host(100);
    for server in &servers {
        let link = Link::new(Duration::from_millis(rng.random_range(1..400)))
            .with_bandwidth(rng.random_range(200_000..2_000_000));
        cw.world.fabric().set_link(*server, late, link);
    }
    // One of them stops to send in the middle of the sync.
    let stalls = servers[rng.random_range(0..servers.len())];
    let after = Duration::from_millis(rng.random_range(100..3_000));
    cw.run(async {
        let image = Line::trunk(TRUNK).image();
        for server in &servers {
            cw.add(*server, Plan::default().with(&image)).await?;
        }
        cw.add(late, Plan::to(&servers)).await?;
        cw.world.pass(after).await;
        cw.world.fabric().set_link(stalls, late, Link::new(Duration::from_secs(3_600)));
        cw.agree(&[late, servers[0]], TRUNK, SYNC_WITHIN).await
    })
}
