//! Everybody dials one node at once.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};

use super::overlay_world::{OverlayWorld, Seated, percentile};
use crate::fabric::{Chance, Link};
use crate::scenarios::Scenario;
use crate::world::{Failure, Report, WorldConfig};

pub(in crate::scenarios) const SCENARIO: Scenario = Scenario {
    name: "overlay-storm",
    about: "sixty nodes dial one at once, without and with loss: all are verified and heard on both sides",
    run: |seed| storm(seed, Storm::SMALL),
};

/// How large a storm is.
#[derive(Debug, Clone, Copy)]
pub struct Storm {
    /// Diallers in each wave.
    pub diallers: u32,
    /// The losses of the waves, in percent.
    pub losses: [u32; 2],
}

impl Storm {
    /// As the scenario has it.
    pub const SMALL: Self = Self { diallers: 60, losses: [0, 5] };
}

/// How soon the sessions of a wave that has stopped are gone at the other end: it was told, unless that was lost.
const GONE_WITHIN: Duration = super::overlay_world::GHOST_WITHIN;
const SERVER: u32 = 0;

/// One wave; how long each connect took.
async fn wave(
    ow: &OverlayWorld,
    server: &Seated,
    seats: std::ops::Range<u32>,
) -> Result<Vec<Duration>, String> {
    let (clock, heard_before) = (ow.world.clock(), server.heard.load(Relaxed));
    let mut diallers = Vec::new();
    for seat in seats {
        diallers.push(ow.start(seat, |builder| builder).await?);
    }
    let connect = async |dialler: &Seated| {
        let began = clock.now();
        let peer = dialler.connect(server.addr()).await?;
        if peer != server.id() {
            return Err(format!("node {} reached {peer} instead", dialler.node.number));
        }
        Ok(clock.now() - began)
    };
    let ended = join_all(diallers.iter().map(connect)).await;
    let mut took = ended.into_iter().collect::<Result<Vec<_>, String>>()?;
    took.sort();
    // Usable on both sides: one message each way, all at once.
    try_join_all(diallers.iter().map(|dialler| dialler.talk(server.id()))).await?;
    try_join_all(diallers.iter().map(|dialler| server.talk(dialler.id()))).await?;
    let heard = server.heard.load(Relaxed) - heard_before;
    let said = diallers.len() as u64;
    if heard != said || diallers.iter().any(|dialler| dialler.heard.load(Relaxed) != 1) {
        return Err(format!("the server heard {heard} of {said} messages, or a dialler not its one"));
    }
    let live = server.handle.engine().accounts().live;
    if live != diallers.len() as u64 {
        return Err(format!("{live} of {} are live at the server", diallers.len()));
    }
    Ok(took)
}

/// Runs a storm.
///
/// # Errors
/// When anybody is not verified and heard on both sides.
pub fn storm(seed: u64, plan: Storm) -> Result<Report, Box<Failure>> {
    let ow = OverlayWorld::new(SCENARIO.name, seed, WorldConfig::default());
    ow.run(async {
        let link = Link::new(Duration::from_millis(20)).with_jitter(Duration::from_millis(10));
        ow.world.fabric().set_default_link(link);
        let server = ow.start(SERVER, |builder| builder.local()).await?;
        for (number, loss) in (0..).zip(plan.losses) {
            ow.world.fabric().set_default_link(link.with_loss(Chance::percent(loss)));
            let seats = 1 + number * plan.diallers..1 + (number + 1) * plan.diallers;
            let took = wave(&ow, &server, seats.clone()).await?;
            ow.world.say(format!(
                "{} at once, {loss} % loss: connected within {:?} (median), {:?} (99 %), {:?} (all)",
                plan.diallers,
                percentile(&took, 50),
                percentile(&took, 99),
                percentile(&took, 100),
            ));
            try_join_all(seats.map(|seat| ow.stop(seat))).await?;
            let accounts = || server.handle.engine().accounts();
            let gone = || accounts().live == 0 && accounts().shaking == 0;
            ow.world.until("the wave's sessions end", GONE_WITHIN, gone).await?;
        }
        let accounts = server.handle.engine().accounts();
        ow.world.say(format!("the server's accounts: {accounts:?}"));
        Ok(())
    })
}
