//! Nodes that know three others at first find each other, and what one publishes reaches all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use rand::RngExt;
use rookery_engine::Limits;
use rookery_engine::registry::SessionLimits;
use rookery_overlay::Builder;
use rookery_overlay::services::gossip::{Judgement, Validator};
use rookery_overlay::wire::Topic;
use rookery_runtime::OnPanic;

use super::overlay_world::{OverlayWorld, PORT, Seated};
use crate::chainworld::host;
use crate::fabric::{Chance, Link};
use crate::scenarios::Scenario;
use crate::world::{Failure, Report, WorldConfig};

pub(in crate::scenarios) const SCENARIO: Scenario = Scenario {
    name: "overlay-bootstrap",
    about: "nodes that know three others find each other; what one publishes reaches all, with and without the three",
    run: |seed| bootstrap(seed, Bootstrap::SMALL),
};

/// How large it is.
#[derive(Debug, Clone, Copy)]
pub struct Bootstrap {
    /// Nodes besides the three.
    pub nodes: u32,
    /// They start within this time.
    pub starts_within: Duration,
    /// Each has sessions with at least so many others in the end.
    pub peers: usize,
    /// How soon.
    pub found_within: Duration,
}

impl Bootstrap {
    /// As the scenario has it.
    pub const SMALL: Self = Self {
        nodes: 40,
        starts_within: Duration::from_secs(10),
        peers: 8,
        found_within: Duration::from_secs(120),
    };
    /// A thousand.
    pub const THOUSAND: Self = Self { nodes: 1000, starts_within: Duration::from_secs(60), ..Self::SMALL };
}

/// Nodes that everybody knows.
pub(super) const KNOWN: u32 = 3;
/// What is published reaches everybody within this time.
const REACHES_WITHIN: Duration = Duration::from_secs(10);

/// The limits of the three: as of a public node, but that their operators have made room for everybody.
pub(super) fn roomy() -> Limits {
    let sessions = SessionLimits { inbound: 2048, ..SessionLimits::PUBLIC };
    Limits { sessions, ..Limits::PUBLIC }
}

/// A public node that knows the three, or one of them.
pub(super) fn public(seat: u32) -> impl FnOnce(Builder) -> Builder {
    move |builder| {
        let others = (0..KNOWN).filter(|known| *known != seat);
        let builder = others.fold(builder, |builder, known| builder.bootstrap((host(known), PORT).into()));
        let builder = builder.outbound(8);
        if seat < KNOWN { builder.limits(roomy()) } else { builder }
    }
}

/// The line between any two.
pub(super) fn line() -> Link {
    let link = Link::new(Duration::from_millis(40)).with_jitter(Duration::from_millis(20));
    link.with_loss(Chance::percent(1))
}

/// Who has heard what of all that was published.
#[derive(Default)]
struct Ears {
    /// By seat: what it was told, and what others have published.
    heard: BTreeMap<u32, (Arc<AtomicU64>, u64)>,
}

impl Ears {
    async fn listen(&mut self, seat: u32, seated: &Seated, topic: Topic) -> Result<(), String> {
        let all: Validator = Arc::new(|_, _| Judgement::Accept);
        let subscribed = seated.handle.subscribe(topic, all).await;
        let mut news = subscribed.map_err(|error| error.to_string())?;
        let heard = Arc::new(AtomicU64::new(0));
        self.heard.insert(seat, (Arc::clone(&heard), 0));
        let env = seated.node.env.clone();
        seated.node.env.scope.spawn("ear", OnPanic::StopNode, async move {
            while let Some(delivery) = news.recv().await {
                env.trace("overlay_item", 0, 0, delivery.payload.len() as u64, "");
                heard.fetch_add(1, Relaxed);
            }
        });
        Ok(())
    }

    /// Everybody but the publisher, who knows it, is owed one more.
    fn owe_all_but(&mut self, publisher: u32) {
        let others = self.heard.iter_mut().filter(|(seat, _)| **seat != publisher);
        others.for_each(|(_, (_, owed))| *owed += 1);
    }

    /// How many have not heard exactly what they are owed.
    fn unsatisfied(&self) -> usize {
        self.heard.values().filter(|(heard, owed)| heard.load(Relaxed) != *owed).count()
    }
}

fn peers_of(ow: &OverlayWorld, seat: u32) -> usize {
    let others: BTreeSet<_> = ow.sessions(seat).into_iter().map(|(peer, _)| peer).collect();
    others.len()
}

/// Runs it.
///
/// # Errors
/// When somebody does not find enough others, or misses what is published.
pub fn bootstrap(seed: u64, plan: Bootstrap) -> Result<Report, Box<Failure>> {
    let config = WorldConfig { step: Duration::from_millis(250), ..WorldConfig::default() };
    let ow = OverlayWorld::new(SCENARIO.name, seed, config);
    let mut rng = ow.world.rng("bootstrap", 0);
    ow.run(async {
        ow.world.fabric().set_default_link(line());
        let news = Topic::new("news").ok_or("four letters are a topic")?;
        let all = KNOWN + plan.nodes;
        let mut ears = Ears::default();
        for seat in 0..KNOWN {
            ow.start(seat, public(seat)).await?;
        }
        let gap = plan.starts_within.as_micros() as u64 / u64::from(plan.nodes);
        for seat in KNOWN..all {
            let seated = ow.start(seat, public(seat)).await?;
            ears.listen(seat, &seated, news.clone()).await?;
            ow.world.pass(Duration::from_micros(rng.random_range(0..=2 * gap))).await;
        }
        let clock = ow.world.clock();
        let enough = |seat: &u32| peers_of(&ow, *seat) >= plan.peers;
        let found = ow
            .world
            .until("everybody has found enough", plan.found_within, || (0..all).all(|seat| enough(&seat)));
        found.await.map_err(|why| {
            let lonely: Vec<_> =
                (0..all).filter(|seat| !enough(seat)).map(|seat| (seat, peers_of(&ow, seat))).collect();
            format!("{why}: seats and their peers {lonely:?}")
        })?;
        let peers: Vec<usize> = (KNOWN..all).map(|seat| peers_of(&ow, seat)).collect();
        let spread = (peers.iter().min(), peers.iter().max());
        ow.world.say(format!("{all} nodes have {spread:?} peers each at {:?}", clock.elapsed()));
        for round in 1..=2 {
            if round == 2 {
                // The three go; what is left has to carry it alone.
                for seat in 0..KNOWN {
                    ow.kill(seat).await?;
                }
            }
            let (began, by) = (clock.now(), rng.random_range(KNOWN..all));
            let publisher = ow.up(by).ok_or("only the three have gone")?;
            let published = publisher.handle.publish(news.clone(), format!("number {round}")).await;
            published.map_err(|error| error.to_string())?;
            ears.owe_all_but(by);
            let everybody = ow.world.until("everybody has it", REACHES_WITHIN, || ears.unsatisfied() == 0);
            everybody.await.map_err(|why| format!("{why}: {} do not", ears.unsatisfied()))?;
            let (others, took) = (plan.nodes - 1, clock.now() - began);
            ow.world.say(format!("publication {round} reached {others} of {others} others in {took:?}"));
        }
        Ok(())
    })
}
