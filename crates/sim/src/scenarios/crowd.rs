//! Many peers: an eclipse attempt, wrong clocks, a hundred nodes that find each other.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rand::RngExt;
use rookery_base::AddrGroup;
use rookery_handshake::params::{Params, REGTEST};
use rookery_observe::metrics::Way;

use super::Scenario;
use crate::chainworld::{ChainWorld, Line, Plan, host};
use crate::hostile::{self, Rogue};
use crate::world::{Failure, Report, WorldConfig};

pub(super) const ECLIPSE: Scenario = Scenario {
    name: "eclipse",
    about: "one address group floods a public node with addresses and connections: honest peers keep their places",
    run: eclipse,
};

pub(super) const CLOCK: Scenario = Scenario {
    name: "clock",
    about: "nodes with wrong clocks, and blocks from the future: refused at first, taken when their time has come",
    run: clock,
};

pub(super) const HUNDRED: Scenario = Scenario {
    name: "hundred",
    about: "a hundred nodes hear of each other from three, reach the tip, and follow it when the three are gone",
    run: hundred,
};

const HEIGHT: u32 = 2_200;
/// A node refills its outbound slots every three seconds.
const FOUND_WITHIN: Duration = Duration::from_secs(120);

/// The honest hosts that a public node begins with.
const SEEDS: [Ipv4Addr; 3] =
    [Ipv4Addr::new(23, 1, 0, 1), Ipv4Addr::new(23, 2, 0, 1), Ipv4Addr::new(23, 3, 0, 1)];

static PUBLIC: LazyLock<Params> = LazyLock::new(|| Params { fixed_seeds: &SEEDS, ..REGTEST.clone() });

fn eclipse(seed: u64) -> Result<Report, Box<Failure>> {
    let cw = ChainWorld::new(ECLIPSE.name, seed);
    let mut rng = cw.world.rng("eclipse", 0);
    let victim = host(50);
    cw.run(async {
        let line = Arc::new(Line::trunk(HEIGHT));
        let image = line.image();
        for seed in SEEDS {
            cw.add(seed.into(), Plan::default().with(&image)).await?;
        }
        let plan = Plan { params: &PUBLIC, public: true, only: false, ..Plan::default() };
        cw.add(victim, plan).await?;
        let attackers: Vec<IpAddr> =
            (0..24).map(|n| IpAddr::V4(Ipv4Addr::new(66, 66, n, rng.random_range(1..255)))).collect();
        for (n, ip) in attackers.iter().enumerate() {
            let rogue = if n % 2 == 0 { Rogue::Addrs } else { Rogue::Mute };
            hostile::start(&cw, *ip, rogue, &line, &[victim, victim]);
        }
        let honest: Vec<IpAddr> = SEEDS.iter().map(|ip| IpAddr::V4(*ip)).chain([victim]).collect();
        cw.agree(&honest, HEIGHT, FOUND_WITHIN).await?;
        cw.world.pass(Duration::from_secs(120)).await;
        let mined = cw.mine(honest[0], 1).await?;
        cw.agree(&honest, mined.height, Duration::from_secs(5)).await?;
        let sessions = cw.up(victim)?.chain.engine.peers().await;
        let group = AddrGroup::of(attackers[0]);
        let of = |direction: &'static str| {
            let theirs = sessions.iter().filter(|peer| peer.direction == direction);
            theirs.filter(|peer| AddrGroup::of(peer.addr.ip()) == group).count()
        };
        let (inbound, outbound) = (of("in"), of("out"));
        if inbound > 16 || outbound > 1 {
            return Err(format!("one group holds {inbound} inbound and {outbound} outbound sessions"));
        }
        let kept = sessions.iter().filter(|peer| honest.contains(&peer.addr.ip())).count();
        if kept < SEEDS.len() {
            return Err(format!("{kept} of {} honest peers are left", SEEDS.len()));
        }
        // And a newcomer from elsewhere still gets in.
        let newcomer = host(60);
        cw.add(newcomer, Plan::to(&[victim])).await?;
        cw.agree(&[newcomer, victim], mined.height, FOUND_WITHIN).await?;
        cw.world.say(format!("{} attackers hold {inbound} inbound and {outbound} outbound", attackers.len()));
        Ok(())
    })
}

fn clock(seed: u64) -> Result<Report, Box<Failure>> {
    let cw = ChainWorld::new(CLOCK.name, seed);
    let mut rng = cw.world.rng("clock", 0);
    let (right, ahead) = (host(0), host(1));
    let skew: i64 = rng.random_range(7_800..9_000);
    cw.owe_progress(Duration::from_secs(u64::from(u16::MAX)));
    cw.run(async {
        let image = Line::trunk(HEIGHT).image();
        cw.add(right, Plan::default().with(&image)).await?;
        cw.add(ahead, Plan { skew, ..Plan::to(&[right]).with(&image) }).await?;
        let behind = host(2);
        cw.add(behind, Plan { skew: -rng.random_range(0..3_600), ..Plan::to(&[right]).with(&image) }).await?;
        cw.world.pass(Duration::from_secs(2)).await;
        let future = cw.mine(ahead, 1).await?;
        cw.world.pass(Duration::from_secs(60)).await;
        if cw.status(right)?.height >= future.height {
            return Err(format!("took a block from {skew} s ahead, two hours are the most"));
        }
        let (ledger, _) = cw.ledger(ahead, right).await?;
        if !ledger.iter().any(|line| line.contains("bad_chain")) {
            return Err(format!("the ledger does not tell of a block from the future: {ledger:#?}"));
        }
        // It comes of age; the next probe, rest or reconnection brings it.
        let of_age = Duration::from_secs(skew.unsigned_abs() - 7_200);
        cw.world.pass(of_age).await;
        cw.agree(&[right, ahead], future.height, Duration::from_secs(400)).await?;
        cw.world.say(format!("{skew} s ahead"));
        Ok(())
    })
}

fn hundred(seed: u64) -> Result<Report, Box<Failure>> {
    let config = WorldConfig {
        step: Duration::from_millis(500),
        limit: Duration::from_secs(3_600),
        ..WorldConfig::default()
    };
    let cw = ChainWorld::with(HUNDRED.name, seed, config);
    let mut rng = cw.world.rng("hundred", 0);
    let ips: Vec<IpAddr> = (0..100).map(host).collect();
    let tellers: Vec<IpAddr> = (200..203).map(host).collect();
    cw.run(async {
        let line = Arc::new(Line::trunk(HEIGHT));
        let told: Vec<_> =
            tellers.iter().map(|ip| hostile::start(&cw, *ip, Rogue::Teller, &line, &[])).collect();
        for ip in &ips {
            let named = vec![tellers[rng.random_range(0..tellers.len())]];
            cw.add(*ip, Plan { only: false, outbound: 4, ..Plan::to(&named) }).await?;
            cw.world.pass(Duration::from_millis(rng.random_range(0..300))).await;
        }
        cw.agree(&ips, HEIGHT, FOUND_WITHIN).await?;
        let reached = cw.world.clock().elapsed().as_secs_f64();
        // The nodes are on their own now: whom they know they know from hearsay.
        for teller in &told {
            cw.world.stop(teller).await?;
        }
        cw.world.pass(Duration::from_secs(10)).await;
        for _ in 0..3 {
            let mined = cw.mine(ips[rng.random_range(0..ips.len())], 1).await?;
            cw.agree(&ips, mined.height, Duration::from_secs(10)).await?;
        }
        let sessions: Vec<usize> = cw
            .all()
            .iter()
            .map(|up| up.node.env.metrics.sessions.get_or_create(&Way { direction: "out" }).get() as usize)
            .collect();
        let (least, most) = (sessions.iter().min(), sessions.iter().max());
        cw.world.say(format!("all at the tip after {reached:.1} s; {least:?} to {most:?} outbound sessions"));
        Ok(())
    })
}
