//! Two nodes dial each other at the same time, or nearly.

use std::time::Duration;

use futures_util::future::{join, try_join_all};
use rand::RngExt;

use super::overlay_world::{OverlayWorld, Seated};
use crate::chainworld::host;
use crate::fabric::Link;
use crate::scenarios::Scenario;
use crate::world::{Failure, Report, WorldConfig};

pub(in crate::scenarios) const SCENARIO: Scenario = Scenario {
    name: "overlay-simultaneous",
    about: "pairs of nodes dial each other within 0 to 200 ms: each keeps one session, the same on both ends",
    run: |seed| crossing(seed, 20),
};

/// Nobody dials later than this after the other.
const MOST_LAG: u64 = 200;
/// The losing connection is gone after a few round trips of the longest line.
const SETTLED_WITHIN: Duration = Duration::from_secs(3);

/// Both connect, one of them later; both have to get a session with the other.
async fn dial_each_other(ow: &OverlayWorld, a: &Seated, b: &Seated, lag: Duration) -> Result<(), String> {
    let later = async {
        ow.world.pass(lag).await;
        b.connect(a.addr()).await
    };
    let (by_a, by_b) = join(a.connect(b.addr()), later).await;
    let context = |error| format!("lag {lag:?}: {error}");
    let (by_a, by_b) = (by_a.map_err(context)?, by_b.map_err(context)?);
    if (by_a, by_b) == (b.id(), a.id()) {
        return Ok(());
    }
    Err(format!("lag {lag:?}: connected to {by_a} and {by_b}, to each other expected"))
}

/// Runs it with so many pairs.
///
/// # Errors
/// When a pair does not end with exactly one session, or cannot use it.
pub fn crossing(seed: u64, pairs: u32) -> Result<Report, Box<Failure>> {
    let config = WorldConfig { step: Duration::from_millis(20), ..WorldConfig::default() };
    let ow = OverlayWorld::new(SCENARIO.name, seed, config);
    let mut rng = ow.world.rng("crossing", 0);
    ow.run(async {
        let mut seated = Vec::new();
        for pair in 0..pairs {
            let (a, b) = (2 * pair, 2 * pair + 1);
            let link = Link::new(Duration::from_millis(rng.random_range(0..=100)))
                .with_jitter(Duration::from_millis(rng.random_range(0..=10)));
            ow.world.fabric().set_link(host(a), host(b), link);
            ow.world.fabric().set_link(host(b), host(a), link);
            // A quarter dials in the very same moment.
            let lag = if pair % 4 == 0 { 0 } else { rng.random_range(0..=MOST_LAG) };
            let ends = (ow.start(a, |builder| builder).await?, ow.start(b, |builder| builder).await?);
            seated.push((ends.0, ends.1, Duration::from_millis(lag)));
        }
        try_join_all(seated.iter().map(|(a, b, lag)| dial_each_other(&ow, a, b, *lag))).await?;
        // Whatever has lost the race has ended on both sides.
        ow.world
            .until("every pair keeps one session", SETTLED_WITHIN, || {
                (0..pairs).all(|pair| ow.one_session(2 * pair, 2 * pair + 1).is_ok())
            })
            .await?;
        try_join_all(seated.iter().map(|(a, b, _)| a.talk(b.id()))).await?;
        try_join_all(seated.iter().map(|(a, b, _)| b.talk(a.id()))).await?;
        ow.world.pass(SETTLED_WITHIN).await;
        (0..pairs).try_for_each(|pair| ow.one_session(2 * pair, 2 * pair + 1))?;
        ow.world.say(format!("{pairs} pairs, each with one session"));
        Ok(())
    })
}
