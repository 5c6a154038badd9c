//! Faults as data, and seeded schedules of them.

use std::net::IpAddr;
use std::time::Duration;

use rand::{Rng, RngExt};
use rookery_runtime::Clock;

use super::{Dials, Down, Fabric, Link};

/// One change of the fabric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Resets every connection between two hosts.
    Reset(IpAddr, IpAddr),
    /// Makes every connection between two hosts half-open.
    HalfOpen(IpAddr, IpAddr),
    /// Paces a host's reading, or lifts the limit.
    ReadRate(IpAddr, Option<u64>),
    /// Decides what becomes of dials to a host.
    Dials(IpAddr, Dials),
    /// Parts the hosts into groups.
    Partition(Vec<Vec<IpAddr>>),
    /// Ends the partition.
    Heal,
    /// Takes a host off the net.
    Down(IpAddr, Down),
    /// Brings a host back.
    Up(IpAddr),
    /// Sets the link from one host to another.
    Link(IpAddr, IpAddr, Link),
    /// Ends every lasting fault.
    Calm,
}

impl Fabric {
    /// Carries out one fault.
    pub fn apply(&self, fault: &Fault) {
        match fault {
            Fault::Reset(a, b) => self.between(*a, *b).into_iter().for_each(|conn| self.reset(conn)),
            Fault::HalfOpen(a, b) => self.between(*a, *b).into_iter().for_each(|conn| self.half_open(conn)),
            Fault::ReadRate(ip, rate) => self.set_read_rate(*ip, *rate),
            Fault::Dials(ip, fate) => self.set_dials(*ip, *fate),
            Fault::Partition(groups) => self.partition(groups),
            Fault::Heal => self.heal(),
            Fault::Down(ip, how) => self.down(*ip, *how),
            Fault::Up(ip) => self.up(*ip),
            Fault::Link(from, to, link) => self.set_link(*from, *to, *link),
            Fault::Calm => self.calm(),
        }
    }
}

/// How often each fault is drawn, relative to the others; 0 leaves one out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mix {
    /// [`Fault::Reset`].
    pub reset: u32,
    /// [`Fault::HalfOpen`].
    pub half_open: u32,
    /// [`Fault::ReadRate`], lifted again later.
    pub slow_reader: u32,
    /// [`Fault::Dials`], refusing or swallowing, answered again later.
    pub dials: u32,
    /// [`Fault::Partition`] into two groups, healed later.
    pub partition: u32,
    /// [`Fault::Down`] in either way, up again later.
    pub down: u32,
}

impl Mix {
    /// All faults, the local ones more often than those of the whole net.
    pub const ALL: Self = Self { reset: 4, half_open: 2, slow_reader: 2, dials: 2, partition: 1, down: 1 };

    const fn shares(&self) -> [u32; 6] {
        [self.reset, self.half_open, self.slow_reader, self.dials, self.partition, self.down]
    }
}

/// Faults with the times at which they happen, in order. The last one is [`Fault::Calm`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// Time since the schedule began, and what happens then.
    pub steps: Vec<(Duration, Fault)>,
}

impl Schedule {
    /// Draws faults among `hosts`, one per `every` on average, over `span`; lasting ones end after up to a quarter
    /// of the span, and all of them at its end.
    ///
    /// # Panics
    /// When there are fewer than two hosts or the mix leaves everything out.
    pub fn seeded(rng: &mut impl Rng, hosts: &[IpAddr], mix: Mix, every: Duration, span: Duration) -> Self {
        assert!(hosts.len() >= 2, "faults happen between at least two hosts");
        let mut steps = Vec::new();
        let mut at = Duration::ZERO;
        loop {
            at += every.mul_f64(rng.random_range(0.0..2.0));
            if at >= span {
                break;
            }
            let (begins, ends) = draw(rng, hosts, mix);
            steps.push((at, begins));
            let lasts = span.mul_f64(rng.random_range(0.02..0.25));
            steps.extend(ends.map(|fault| ((at + lasts).min(span), fault)));
        }
        steps.push((span, Fault::Calm));
        // Stable: what was drawn first happens first within one instant, and calm comes last.
        steps.sort_by_key(|(at, _)| *at);
        Self { steps }
    }

    /// Carries the schedule out, beginning now.
    pub async fn play(&self, fabric: &Fabric, clock: &Clock) {
        let start = clock.now();
        for (at, fault) in &self.steps {
            clock.sleep_until(start + *at).await;
            fabric.apply(fault);
        }
    }
}

/// A fault, and what ends it if it lasts.
fn draw(rng: &mut impl Rng, hosts: &[IpAddr], mix: Mix) -> (Fault, Option<Fault>) {
    let a = rng.random_range(0..hosts.len());
    let b = (a + rng.random_range(1..hosts.len())) % hosts.len();
    let (a, b) = (hosts[a], hosts[b]);
    let coin = rng.random_range(0..2) == 0;
    let mut ticket = rng.random_range(0..mix.shares().iter().sum());
    let kind = mix.shares().iter().position(|share| {
        let hit = ticket < *share;
        ticket = ticket.saturating_sub(*share);
        hit
    });
    match kind.expect("a ticket is below the sum of the shares") {
        0 => (Fault::Reset(a, b), None),
        1 => (Fault::HalfOpen(a, b), None),
        2 => {
            let rate = if coin { 0 } else { rng.random_range(100..50_000) };
            (Fault::ReadRate(a, Some(rate)), Some(Fault::ReadRate(a, None)))
        }
        3 => {
            let fate = if coin { Dials::Refuse } else { Dials::BlackHole };
            (Fault::Dials(a, fate), Some(Fault::Dials(a, Dials::Answer)))
        }
        4 => {
            let group = hosts.iter().copied().filter(|_| rng.random_range(0..2) == 0).collect();
            (Fault::Partition(vec![group]), Some(Fault::Heal))
        }
        _ => {
            let how = if coin { Down::Reset } else { Down::Silent };
            (Fault::Down(a, how), Some(Fault::Up(a)))
        }
    }
}
