//! Nodes that part, and meet again: the chain with more work wins everywhere.

use std::net::IpAddr;
use std::time::Duration;

use rand::RngExt;

use super::Scenario;
use crate::chainworld::{ChainWorld, Line, Plan, TRUNK, host};
use crate::world::{Failure, Report};

pub(super) const FOLLOW: Scenario = Scenario {
    name: "follow",
    about: "a miner and followers in a row and in a ring: every block is everywhere within the stated time",
    run: follow,
};

pub(super) const REORG: Scenario = Scenario {
    name: "reorg",
    about: "two miners are parted, mine unequally, and meet: the longer work wins everywhere",
    run: reorg,
};

pub(super) const DEEP: Scenario = Scenario {
    name: "deep-fork",
    about: "a node on a chain of its own meets one that outweighs it only after more headers than a message holds",
    run: deep,
};

/// Eight hops of at most 60 ms, each with an announcement, a question and an answer.
const FOLLOWED_WITHIN: Duration = Duration::from_secs(5);
/// A redial within half a minute, and a probe each minute if nothing else told of the other branch.
const HEALED_WITHIN: Duration = Duration::from_secs(120);

fn follow(seed: u64) -> Result<Report, Box<Failure>> {
    let cw = ChainWorld::new(FOLLOW.name, seed);
    let mut rng = cw.world.rng("follow", 0);
    let count = rng.random_range(2..=8);
    let ring = rng.random_range(0..2) == 0;
    let ips: Vec<IpAddr> = (0..=count).map(host).collect();
    cw.run(async {
        let image = Line::trunk(rng.random_range(0..3_000)).image();
        for (n, ip) in ips.iter().enumerate() {
            let mut peers: Vec<IpAddr> = n.checked_sub(1).map(|before| ips[before]).into_iter().collect();
            if ring && n == ips.len() - 1 {
                peers.push(ips[0]);
            }
            let plan = Plan::to(&peers);
            cw.add(*ip, if n == 0 { plan.with(&image) } else { plan }).await?;
        }
        let begun = cw.status(ips[0])?.height;
        // A node that dialled nobody ahead yet hears of the chain hop by hop.
        cw.agree(&ips, begun, HEALED_WITHIN).await?;
        for _ in 0..rng.random_range(3..12) {
            let mined = cw.mine(ips[0], rng.random_range(1..=3)).await?;
            cw.agree(&ips, mined.height, FOLLOWED_WITHIN).await?;
            cw.world.pass(Duration::from_secs(rng.random_range(0..600))).await;
        }
        Ok(())
    })
}

fn reorg(seed: u64) -> Result<Report, Box<Failure>> {
    let cw = ChainWorld::new(REORG.name, seed);
    let mut rng = cw.world.rng("reorg", 0);
    let left = [host(0), host(1), host(2)];
    let right = [host(10), host(11)];
    let all = [&left[..], &right[..]].concat();
    let common = rng.random_range(0..2_500);
    let (short, more) = (rng.random_range(1..40), rng.random_range(1..40));
    let right_wins = rng.random_range(0..2) == 0;
    cw.run(async {
        let image = Line::trunk(common).image();
        cw.add(left[0], Plan::default().with(&image)).await?;
        cw.add(left[1], Plan::to(&[left[0], right[0]])).await?;
        cw.add(left[2], Plan::to(&[left[1]])).await?;
        cw.add(right[0], Plan::to(&[left[0]])).await?;
        cw.add(right[1], Plan::to(&[right[0], left[2]])).await?;
        cw.agree(&all, common, HEALED_WITHIN).await?;
        cw.stormy(true);
        cw.world.fabric().partition(&[left.to_vec(), right.to_vec()]);
        let (loser, winner) = if right_wins { (left[0], right[0]) } else { (right[0], left[0]) };
        for _ in 0..short {
            cw.mine(loser, 1).await?;
            cw.world.pass(Duration::from_millis(200)).await;
        }
        cw.world.pass(Duration::from_secs(1)).await;
        for _ in 0..short + more {
            cw.mine(winner, 1).await?;
            cw.world.pass(Duration::from_millis(rng.random_range(0..400))).await;
        }
        cw.world.pass(Duration::from_secs(rng.random_range(1..200))).await;
        let won = cw.status(winner)?;
        cw.world.fabric().heal();
        cw.stormy(false);
        cw.agree(&all, common + short + more, HEALED_WITHIN).await?;
        for ip in &all {
            if cw.status(*ip)?.tip != won.tip {
                return Err(format!("{ip} did not take the branch with more work; {}", cw.story(&all).await));
            }
        }
        let followed = cw.status(loser)?;
        if followed.reorganisations == 0 || followed.last_reorganisation_depth != short {
            return Err(format!("{loser} should have left {short} headers: {followed:?}"));
        }
        cw.world.say(format!("{short} headers by {}", short + more));
        Ok(())
    })
}

fn deep(seed: u64) -> Result<Report, Box<Failure>> {
    let cw = ChainWorld::new(DEEP.name, seed);
    let mut rng = cw.world.rng("deep", 0);
    let at = rng.random_range(0..200);
    let own = rng.random_range(2_100..3_500);
    let height = rng.random_range(at + own + 1..=TRUNK);
    cw.run(async {
        let (server, lost) = (host(0), host(1));
        cw.add(server, Plan::default().with(&Line::trunk(height).image())).await?;
        cw.add(lost, Plan::to(&[server]).with(&Line::fork(at, 5, own).image())).await?;
        cw.agree(&[server, lost], height, HEALED_WITHIN).await?;
        cw.world.say(format!("{own} headers by {}", height - at));
        match cw.status(lost)?.last_reorganisation_depth {
            depth if depth == own => Ok(()),
            depth => Err(format!("{lost} left {depth} headers, expected {own}")),
        }
    })
}
