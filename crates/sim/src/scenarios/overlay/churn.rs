//! Nodes that vanish and come back under the same name, while the others still hold the sessions of before.

use std::time::Duration;

use rand::RngExt;
use rookery_overlay::Builder;

use super::overlay_world::{GHOST_WITHIN, OverlayWorld, PORT};
use crate::chainworld::host;
use crate::fabric::{Chance, Link};
use crate::scenarios::Scenario;
use crate::world::{Failure, Report, WorldConfig};

pub(in crate::scenarios) const SCENARIO: Scenario = Scenario {
    name: "overlay-churn",
    about: "nodes vanish without a word and come back under the same name: one session wins on both ends, no ghosts",
    run,
};

/// Everybody names everybody, so that each restart is dialled from both sides.
const NODES: u32 = 6;
const ROUNDS: u32 = 8;
/// The last redial was at most this long ago when a node comes back, and the next one finds it.
const WHOLE_AGAIN_WITHIN: Duration = Duration::from_secs(45).saturating_add(GHOST_WITHIN);

/// Dials that were under way when everybody was connected already may each replace a session.
const LATE_DIALS: u32 = 5;

fn names_all(seat: u32) -> impl FnOnce(Builder) -> Builder {
    move |builder| {
        let others = (0..NODES).filter(|other| *other != seat);
        others.fold(builder, |builder, other| builder.peer((host(other), PORT).into()))
    }
}

fn pairs() -> impl Iterator<Item = (u32, u32)> {
    (0..NODES).flat_map(|a| (a + 1..NODES).map(move |b| (a, b)))
}

/// Waits until each two have one session, and uses it both ways.
async fn whole(ow: &OverlayWorld) -> Result<(), String> {
    let mut last = String::new();
    for _ in 0..LATE_DIALS {
        let all = || pairs().try_for_each(|(a, b)| ow.one_session(a, b));
        let whole = ow.world.until("each two have one session", WHOLE_AGAIN_WITHIN, || all().is_ok()).await;
        whole.map_err(|why| format!("{why}: {:?}", all()))?;
        let sessions = || (0..NODES).map(|seat| ow.sessions(seat)).collect::<Vec<_>>();
        let before = sessions();
        match talk(ow).await {
            Ok(()) => return Ok(()),
            // A message ends with its session; one that was replaced meanwhile is no failure.
            Err(why) if before != sessions() => last = why,
            Err(why) => return Err(why),
        }
    }
    Err(format!("sessions are replaced without end: {last}"))
}

async fn talk(ow: &OverlayWorld) -> Result<(), String> {
    for (a, b) in pairs() {
        let (Some(a), Some(b)) = (ow.up(a), ow.up(b)) else { continue };
        a.talk(b.id()).await?;
        b.talk(a.id()).await?;
    }
    Ok(())
}

/// Drops a session and connects again at once, while the other side has not heard of the end.
async fn reconnect(ow: &OverlayWorld, from: u32, to: u32) -> Result<(), String> {
    let (Some(a), Some(b)) = (ow.up(from), ow.up(to)) else { return Ok(()) };
    a.handle.engine().disconnect(b.addr()).await;
    let reached = a.connect(b.addr()).await?;
    if reached != b.id() {
        return Err(format!("seat {from} reached {reached} at the address of seat {to}"));
    }
    Ok(())
}

fn run(seed: u64) -> Result<Report, Box<Failure>> {
    let ow = OverlayWorld::new(SCENARIO.name, seed, WorldConfig::default());
    let mut rng = ow.world.rng("churn", 0);
    ow.run(async {
        let link = Link::new(Duration::from_millis(30)).with_jitter(Duration::from_millis(10));
        ow.world.fabric().set_default_link(link.with_loss(Chance::percent(1)));
        for seat in 0..NODES {
            ow.start(seat, names_all(seat)).await?;
        }
        whole(&ow).await?;
        for _ in 0..ROUNDS {
            let seat = rng.random_range(0..NODES);
            let other = (seat + rng.random_range(1..NODES)) % NODES;
            ow.kill(seat).await?;
            // Mostly before anybody has noticed, sometimes long after.
            let dead = if rng.random_range(0..4) == 0 { 60_000 } else { 5_000 };
            ow.world.pass(Duration::from_millis(rng.random_range(0..dead))).await;
            ow.start(seat, names_all(seat)).await?;
            ow.world.pass(Duration::from_millis(rng.random_range(0..2_000))).await;
            reconnect(&ow, seat, other).await?;
            if rng.random_range(0..2) == 0 {
                reconnect(&ow, other, seat).await?;
            }
            if rng.random_range(0..2) == 0 {
                whole(&ow).await?;
            }
        }
        whole(&ow).await?;
        ow.world.say(format!(
            "{ROUNDS} restarts of {NODES} nodes; each two have one session, the same on both ends"
        ));
        ow.world.say(format!("the longest that a session had one end only: {:?}", ow.longest_alone()));
        Ok(())
    })
}
