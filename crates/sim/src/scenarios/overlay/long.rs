//! Hours on end: nodes come and go, the three that everybody knows are restarted, and nothing grows or slows.
//!
//! A stranger measures all the while: it connects to somebody, sends a message, and leaves. What that takes is compared
//! between the first hours and the last; so is what nodes hold.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt;
use rookery_runtime::rng::ChaCha8Rng;
use rookery_transport::quic::QuicLimits;

use super::bootstrap::{KNOWN, line, public};
use super::overlay_world::{OverlayWorld, Seated, percentile};
use crate::scenarios::Scenario;
use crate::world::{Failure, Report, WorldConfig};

pub(in crate::scenarios) const SCENARIO: Scenario = Scenario {
    name: "overlay-long",
    about: "three hours of nodes that vanish and come back: connects and messages take at the end what they took at first",
    run: |seed| long(seed, Long::SMALL),
};

/// How long and how large it is.
#[derive(Debug, Clone, Copy)]
pub struct Long {
    /// Nodes besides the three that everybody knows and the one that measures.
    pub nodes: u32,
    /// Sessions that each opens.
    pub outbound: usize,
    /// Hours, three at least: one to settle, and both of the compared parts.
    pub hours: u32,
    /// Hours in each of the two parts that are compared.
    pub part: u32,
    /// Silence after which a connection is over.
    pub patience: Duration,
}

impl Long {
    /// As the scenario has it.
    pub const SMALL: Self =
        Self { nodes: 6, outbound: 2, hours: 3, part: 1, patience: QuicLimits::DEFAULT.idle };
    /// As long as the field has reported; so many nodes that it takes some minutes of one core.
    pub const SEVENTEEN_HOURS: Self = Self { nodes: 72, outbound: 3, hours: 17, ..Self::SMALL };
    /// As large as it is long. patience: with keep-alives rarer than the 20 s between two pings, the pings are all that keeps
    /// connections, which spares two fifths of all datagrams.
    pub const THOUSAND: Self =
        Self { nodes: 997, patience: Duration::from_secs(70), ..Self::SEVENTEEN_HOURS };

    fn quic(&self) -> QuicLimits {
        QuicLimits { idle: self.patience, keep_alive: self.patience * 3 / 10, ..QuicLimits::DEFAULT }
    }
}

/// Of the nodes, one in so many vanishes in each hour.
const CHURN: u32 = 10;
/// The one that measures.
const STRANGER: u32 = 5000;
/// It measures so often, and then so many nodes.
const EVERY_MINUTES: u32 = 3;
const AT_ONCE: u32 = 3;
/// A connect is three round trips of 80 to 120 ms and a message one. With sixty of them the median is within 4 % of its mean
/// almost always; a connect that waits for anything it did not wait for at first costs a fifth at least.
const SLOWER_AT_MOST: f64 = 1.1;
/// Tasks and records change with who is connected to whom; a leak of one for each restart would double them in the time.
const MORE_AT_MOST: f64 = 1.3;
/// All nodes start within this time, as they did not come into the world at once.
const STARTS_WITHIN: Duration = Duration::from_secs(60);
/// How often invariants are checked: as often as need be to see a session that has one end only for too long.
const CHECKED_EVERY: Duration = Duration::from_secs(5);

/// What happens in a minute.
#[derive(Debug, Clone, Copy)]
enum Step {
    Kill(u32),
    Start(u32),
}

/// What one part of the time has shown.
#[derive(Debug, Default)]
struct Part {
    connects: Vec<Duration>,
    messages: Vec<Duration>,
    /// Tasks, records and addresses of all nodes, by hour.
    held: Vec<[f64; 3]>,
}

impl Part {
    fn sort(&mut self) {
        self.connects.sort();
        self.messages.sort();
    }

    /// The medians, in seconds; they are in order.
    fn medians(&self) -> (f64, f64) {
        (percentile(&self.connects, 50).as_secs_f64(), percentile(&self.messages, 50).as_secs_f64())
    }

    fn describe(&self) -> String {
        let shown = |sorted: &[Duration]| {
            let ms = |percent| 1e3 * percentile(sorted, percent).as_secs_f64();
            format!("{:.1} ms (median of {}), {:.1} ms (99 %)", ms(50), sorted.len(), ms(99))
        };
        format!("connect {}; message {}", shown(&self.connects), shown(&self.messages))
    }

    /// The most of each that was held, per node.
    fn most(&self) -> [f64; 3] {
        let most = |n: usize| self.held.iter().map(|held| held[n]).fold(0.0, f64::max);
        [most(0), most(1), most(2)]
    }
}

struct Run<'a> {
    ow: &'a OverlayWorld,
    plan: Long,
    rng: ChaCha8Rng,
    stranger: Seated,
    /// By minute.
    steps: BTreeMap<u32, Vec<Step>>,
    restarts: u32,
}

impl Run<'_> {
    async fn start(&self, seat: u32) -> Result<(), String> {
        let Long { outbound, .. } = self.plan;
        let quic = self.plan.quic();
        self.ow.start(seat, |builder| public(seat)(builder).outbound(outbound).quic(quic)).await.map(drop)
    }

    /// Who vanishes in the hour that begins, and when: a tenth of the nodes, and one of the three.
    fn draw_hour(&mut self, hour: u32) {
        let tenth = self.plan.nodes.div_ceil(CHURN);
        let mut leaving = vec![hour % KNOWN];
        while leaving.len() <= tenth as usize {
            let seat = KNOWN + self.rng.random_range(0..self.plan.nodes);
            if !leaving.contains(&seat) {
                leaving.push(seat);
            }
        }
        for seat in leaving {
            // Gone for up to ten minutes, and back within the hour.
            let at = 60 * hour + self.rng.random_range(0..48);
            let back = at + self.rng.random_range(1..=10);
            self.steps.entry(at).or_default().push(Step::Kill(seat));
            self.steps.entry(back).or_default().push(Step::Start(seat));
        }
    }

    async fn minute(&mut self, minute: u32) -> Result<(), String> {
        for step in self.steps.remove(&minute).unwrap_or_default() {
            match step {
                Step::Kill(seat) => self.ow.kill(seat).await?,
                Step::Start(seat) => {
                    self.restarts += 1;
                    self.start(seat).await?;
                }
            }
        }
        self.ow.world.pass(Duration::from_secs(60)).await;
        Ok(())
    }

    /// Connects to some of those that are there, sends each a message, and leaves.
    async fn measure(&mut self, part: &mut Part) -> Result<(), String> {
        let clock = self.ow.world.clock();
        for _ in 0..AT_ONCE {
            let seat = KNOWN + self.rng.random_range(0..self.plan.nodes);
            let Some(there) = self.ow.up(seat) else { continue };
            let began = clock.now();
            let peer = self.stranger.connect(there.addr()).await?;
            part.connects.push(clock.now() - began);
            part.messages.push(self.stranger.talk(peer).await?);
            self.stranger.handle.engine().disconnect(there.addr()).await;
        }
        Ok(())
    }

    /// What a node holds on average: tasks, records, addresses.
    async fn held(&self) -> [f64; 3] {
        let mut sums = [0.0; 3];
        let mut nodes = 0.0;
        for seat in 0..KNOWN + self.plan.nodes {
            let Some(there) = self.ow.up(seat) else { continue };
            let records = there.handle.discovery().known().await.0;
            let addresses = there.handle.engine().dial().report().await.known;
            let tasks = there.node.env.scope.running().len();
            for (sum, one) in sums.iter_mut().zip([tasks, records, addresses]) {
                *sum += one as f64;
            }
            nodes += 1.0;
        }
        sums.map(|sum| sum / nodes)
    }

    async fn hours(&mut self, hours: std::ops::Range<u32>) -> Result<Part, String> {
        let mut part = Part::default();
        for hour in hours {
            self.draw_hour(hour);
            for minute in 60 * hour..60 * (hour + 1) {
                self.minute(minute).await?;
                if minute % EVERY_MINUTES == 0 {
                    self.measure(&mut part).await?;
                }
            }
            part.held.push(self.held().await);
        }
        Ok(part)
    }
}

fn compare(ow: &OverlayWorld, plan: Long, mut first: Part, mut last: Part) -> Result<(), String> {
    first.sort();
    last.sort();
    let ((connect, message), (connect_then, message_then)) = (first.medians(), last.medians());
    let (held, held_then) = (first.most(), last.most());
    ow.world.say(format!("at first: {}", first.describe()));
    ow.world.say(format!("at last:  {}", last.describe()));
    ow.world
        .say(format!("tasks, records, addresses of a node: {held:.1?} at first, {held_then:.1?} at last"));
    for (what, before, after) in [("connects", connect, connect_then), ("messages", message, message_then)] {
        if after > SLOWER_AT_MOST * before {
            return Err(format!("{what} have slowed from {before:.4} s to {after:.4} s"));
        }
    }
    // Addresses are learned for as long as there are some to learn: a node never holds more than there are.
    let [tasks, records, _] = held.map(|before| MORE_AT_MOST * before);
    let there_are = f64::from(KNOWN + plan.nodes + 1);
    let most = [("tasks", tasks), ("records", records), ("addresses", there_are)];
    for ((what, most), after) in most.into_iter().zip(held_then) {
        if after > most {
            return Err(format!("a node holds {after:.1} {what} at last, {most:.1} at most were expected"));
        }
    }
    Ok(())
}

/// Runs it.
///
/// # Errors
/// When anything takes longer at the end than at the beginning, or more is held.
pub fn long(seed: u64, plan: Long) -> Result<Report, Box<Failure>> {
    let config = WorldConfig {
        step: CHECKED_EVERY,
        limit: Duration::from_secs(3600 * u64::from(plan.hours + 1)),
        ..WorldConfig::default()
    };
    let ow = OverlayWorld::patient(SCENARIO.name, seed, config, plan.quic());
    ow.run(async {
        ow.world.fabric().set_default_link(line());
        let stranger = ow.start(STRANGER, |builder| builder.quic(plan.quic())).await?;
        let rng = ow.world.rng("long", 0);
        let mut run = Run { ow: &ow, plan, rng, stranger, steps: BTreeMap::new(), restarts: 0 };
        for seat in 0..KNOWN + plan.nodes {
            run.start(seat).await?;
            ow.world.pass(STARTS_WITHIN / (KNOWN + plan.nodes)).await;
        }
        // The first hour is theirs, to find each other.
        run.hours(0..1).await?;
        let first = run.hours(1..1 + plan.part).await?;
        run.hours(1 + plan.part..plan.hours - plan.part).await?;
        let last = run.hours(plan.hours - plan.part..plan.hours).await?;
        ow.world.say(format!(
            "{} nodes, {} hours, {} restarts",
            plan.nodes + KNOWN,
            plan.hours,
            run.restarts
        ));
        compare(&ow, plan, first, last)
    })
}
