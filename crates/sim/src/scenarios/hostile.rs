//! An honest minority among hostile peers of all kinds, drawn by the seed.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use rand::seq::SliceRandom;

use super::Scenario;
use crate::chainworld::{ChainWorld, Line, Plan, host};
use crate::hostile::{self, Rogue};
use crate::world::{Failure, Report};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "hostile",
    about: "two late nodes, one honest server, and six to ten hostile peers that the nodes dial and are dialled by",
    run,
};

/// Rogues that a node dials. As many again dial it.
const MOST_NAMED: usize = 5;
/// The node asks three at a time: two rounds of 30 s may go to liars before the server's turn comes, then a hedge.
const REACHED_WITHIN: Duration = Duration::from_secs(120);
/// A new block is announced: no liar stands in between.
const FOLLOWED_WITHIN: Duration = Duration::from_secs(5);
const HEIGHT: u32 = 3_000;

fn run(seed: u64) -> Result<Report, Box<Failure>> {
    let cw = ChainWorld::new(SCENARIO.name, seed);
    let mut rng = cw.world.rng("hostile", 0);
    let mut kinds = Rogue::ALL.to_vec();
    kinds.shuffle(&mut rng);
    kinds.truncate(rng.random_range(6..=2 * MOST_NAMED));
    cw.owe_progress(REACHED_WITHIN);
    cw.run(async {
        let line = Arc::new(Line::trunk(HEIGHT));
        let (server, late) = (host(0), [host(1), host(2)]);
        cw.add(server, Plan::default().with(&line.image())).await?;
        let rogues: Vec<IpAddr> = (0..kinds.len()).map(|n| host(10 + n as u32)).collect();
        for (ip, kind) in rogues.iter().zip(&kinds) {
            hostile::start(&cw, *ip, *kind, &line, &late);
        }
        let mut named = rogues[..rogues.len() / 2].to_vec();
        // In the middle, so that some liars are dialled before it and some after.
        named.insert(named.len() / 2, server);
        for ip in late {
            cw.add(ip, Plan::to(&named)).await?;
        }
        let all = [server, late[0], late[1]];
        let told = cw.agree(&all, HEIGHT, REACHED_WITHIN).await;
        told.map_err(|why| format!("among {kinds:?}: {why}"))?;
        cw.world.say(format!("among {kinds:?} in {:.1} s", cw.world.clock().elapsed().as_secs_f64()));
        for n in 1..=3 {
            cw.mine(server, 1).await?;
            cw.agree(&all, HEIGHT + n, FOLLOWED_WITHIN).await?;
            cw.world.pass(Duration::from_secs(rng.random_range(1..30))).await;
        }
        Ok(())
    })
}
