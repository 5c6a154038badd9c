//! Who may begin a handshake. Pure: no I/O, no clock of its own; the accept loop asks it for every arrival and is
//! answered at once.
//!
//! A handshake costs memory while it is under way and computing that never comes back, and whoever asks for one has
//! proven nothing yet. So handshakes are budgeted by count, bytes and computing time, in all, per host and per prefix, and
//! an arrival is counted before it is judged:
//!
//! | the arrival | verdict |
//! |---|---|
//! | its address is banned | refused; ignored while its address is not proven |
//! | not proven, below the low-water mark of all three | admitted: one round trip less |
//! | not proven, above it, or its host or prefix is at its limit, or its prefix has spent that much of its part | must prove its address (Retry), which costs us no memory |
//! | not proven, and Retries are asked for faster than they are worth | ignored |
//! | proven, a limit of its host or prefix reached | instead of the oldest unproven handshake of that host or prefix, else refused |
//! | proven, all places taken | instead of the oldest unproven one; else of the oldest that has had us wait for its [`grace`](HandshakeLimits::grace) or is three graces old, of the most crowded prefix first, when that is more crowded than its own; else of that prefix's oldest; else refused. Refused, too, when its host has lost such a place lately |
//! | computing time used up, in all or of its prefix, or more of its prefix's than of all | refused |
//!
//! The attacks. Forged addresses get Retries and never come back. One host or prefix meets its own limits, and a stranger
//! who forges a host's address cannot keep that host out, because the proven go first. Slow handshakes that never finish
//! lose their places to whoever comes next, the most crowded prefix first, and their hosts then wait for free places. A
//! place lasts as long as it takes the others to be taken; what remains is an attacker with more real prefixes than there
//! are places, who begins so many handshakes a second that this is less than the grace: he meets the limit of computing time,
//! and whom he leaves how much of it is a question of how many prefixes are his.
//!
//! A connection of a transport without Retry is proven: its kernel has shaken hands with it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use rookery_base::Refusal;
use rookery_base::id::canonical_ip;
use rookery_runtime::{Instant, TokenBucket};
use rookery_transport::Waits;

/// Handshakes that peers may have under way, and what they may cost.
#[derive(Debug, Clone, Copy)]
pub struct HandshakeLimits {
    /// In all.
    pub total: usize,
    /// From one host: an IPv4 address, or an IPv6 /64, which is what one host has.
    pub per_ip: usize,
    /// From one prefix: an IPv4 /24 or an IPv6 /48, which is what one customer of a network has.
    pub per_prefix: usize,
    /// Bytes that all together may hold, at [`bytes_each`](Self::bytes_each).
    pub bytes: usize,
    /// What one holds, in bytes.
    pub bytes_each: usize,
    /// Computing time that a storm may cost at once.
    pub cpu_burst: Duration,
    /// Computing time that comes back, in cores.
    pub cpu_share: f64,
    /// What one costs in computing time.
    pub cpu_each: Duration,
    /// A prefix may spend one part in so many of the computing time.
    pub prefix_part: u32,
    /// The part of the count, of the bytes or of the computing time from which on an arrival has to prove its address.
    pub low_water: f64,
    /// Whether every arrival has to prove its address.
    pub always_retry: bool,
    /// What a handshake may have us wait before it can lose its place although nothing else speaks against it.
    pub grace: Duration,
    /// How long a host that has lost its place as too slow may take nobody else's.
    pub bench: Duration,
    /// Deadline for the connection itself; the network has its own for what comes then.
    pub connect: Duration,
}

impl HandshakeLimits {
    /// For a public node. total: at the 1,666 handshakes a second that computing time allows for good, each has a place for
    /// six tenths of a second whoever else comes; three times the grace, so that whoever has proven its address and is
    /// quick is never kept out by who is slow, also where the machine stands still for a moment. At 5,120 a second, which a
    /// burst allows for two seconds, it is the grace.
    /// per_ip: two users behind one address translation, twice. per_prefix: an eighth, so that no customer network holds
    /// them all. bytes_each: 77 kB measured for a half-open handshake over QUIC with ML-DSA-65, and 16 KiB that one may
    /// have said and nobody has read. bytes: what `total` needs, and a sixth more, so that the count binds first. cpu_each: 0.3 ms measured with ML-DSA-65. cpu_burst: two seconds are
    /// 6,667 handshakes, six storms of a thousand. cpu_share: half a core, so that shaking hands never starves serving.
    /// prefix_part: a hundred handshakes a second for good are more than the newcomers of any customer network, and it takes more
    /// than sixteen of these to use all of it up. low_water: a quarter; honest bursts stay under it, and
    /// forged addresses never hold more.
    /// grace: three round trips of 66 ms; it counts only while all places are taken. bench: so that whoever comes again at
    /// once is heard once a minute: a hundred thousand hosts of such are the 1,666 a second. connect: a first flight that is
    /// lost is sent again after 1, 3 and 7 s; each of them is still in time.
    pub const PUBLIC: Self = Self {
        total: 1024,
        per_ip: 4,
        per_prefix: 128,
        bytes: 112 << 20,
        bytes_each: 96 << 10,
        cpu_burst: Duration::from_secs(2),
        cpu_share: 0.5,
        cpu_each: Duration::from_micros(300),
        prefix_part: 16,
        low_water: 0.25,
        always_retry: false,
        grace: Duration::from_millis(200),
        bench: Duration::from_secs(60),
        connect: Duration::from_secs(10),
    };
    /// For loopback, where all peers share an address. total: a storm of a thousand stays below its quarter. cpu_burst: thirty
    /// thousand handshakes, because in simulation none of the time passes in which computing would come back. grace and bench:
    /// here all share one host, and who is slow waits for this machine. connect: as long as the patience of those who dial,
    /// because here both sides of a storm compute on one machine.
    pub const LOCAL: Self = Self {
        total: 4096,
        per_ip: 4096,
        per_prefix: 4096,
        bytes: 512 << 20,
        cpu_burst: Duration::from_secs(10),
        cpu_share: 1.0,
        prefix_part: 1,
        grace: Duration::from_secs(1),
        bench: Duration::ZERO,
        connect: Duration::from_secs(30),
        ..Self::PUBLIC
    };

    /// Bytes that handshakes hold at most: those under way, and those that have lost their places, of which there are no more
    /// than there is computing time to begin them.
    pub fn most_bytes(&self) -> usize {
        let computing = self.cpu_burst.as_secs_f64() + self.cpu_share * LINGERS.as_secs_f64();
        self.bytes + (computing / self.cpu_each.as_secs_f64()) as usize * LINGERING
    }
}

/// How long a transport keeps a handshake that lost its place: three probe timeouts (RFC 9000, 10.2), which are 325 ms while no
/// round trip has been measured and 100 ms is what is assumed.
const LINGERS: Duration = Duration::from_millis(975);
/// What it holds until then, in bytes: measured, with 5,000 that lose their places within three seconds.
const LINGERING: usize = 32 << 10;

/// Graces after which a handshake can lose its place whoever waits for whom: when we are that slow, those who always have another
/// packet for us would keep all places. So all places change hands faster than computing time allows handshakes for good.
const OLD: u32 = 3;

/// Retries in a second: at the 0.03 ms that one costs us, half a core.
const RETRIES: u32 = 16_384;
/// Prefixes whose computing time is kept before those that have all of theirs back are forgotten. The table cannot grow
/// without bound: each entry was paid for by a handshake, and is back to full within seconds.
const PREFIXES: usize = 1024;

/// Hosts that are kept because they have lost a place as too slow; of more, the oldest are forgotten. A minute of the most that
/// computing time allows for good; six megabytes.
const BENCHED: usize = 100_000;

/// A handshake under way. Numbers only grow, so the smallest is the oldest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AttemptId(u64);

/// What becomes of an arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may shake hands, under this number, after this other handshake has been ended.
    Admit(AttemptId, Option<AttemptId>),
    /// It has to prove its address first.
    Retry,
    /// It is told no.
    Refuse(Refusal),
    /// It is told nothing.
    Ignore,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Host(u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Prefix(u64);

/// Where an arrival is from. IPv4 and IPv6 never share a number: no IPv6 address that is routed begins with zeroes.
fn origin(ip: IpAddr) -> (Host, Prefix) {
    match canonical_ip(ip) {
        IpAddr::V4(v4) => {
            let bits = u64::from(v4.to_bits());
            (Host(bits), Prefix(bits >> 8))
        }
        IpAddr::V6(v6) => {
            let bits = (v6.to_bits() >> 64) as u64;
            (Host(bits), Prefix(bits >> 16 << 16))
        }
    }
}

#[derive(Debug)]
struct Shaking {
    host: Host,
    prefix: Prefix,
    since: Instant,
    /// None: as far as anybody knows, all of the time.
    waits: Option<Waits>,
}

impl Shaking {
    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }

    /// How long it has had us wait.
    fn waited(&self, now: Instant) -> Duration {
        self.waits.as_ref().map_or_else(|| self.age(now), |waits| waits.total(now))
    }
}

/// Computing time that is left.
#[derive(Debug, Clone, Copy)]
struct Purse {
    seconds: f64,
    at: Instant,
}

/// A purse's size and how fast it fills.
#[derive(Debug, Clone, Copy)]
struct Income {
    most: f64,
    per_second: f64,
}

impl Purse {
    fn at(self, now: Instant, income: Income) -> Self {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        Self { seconds: (self.seconds + passed * income.per_second).min(income.most), at: self.at.max(now) }
    }
}

impl Income {
    /// Whether as much of a full purse as this part of it, or more, has been spent.
    fn is_spent(self, purse: Purse, part: f64, now: Instant) -> bool {
        self.most - purse.at(now, self).seconds >= self.most * part
    }
}

/// What is left after a handshake.
#[derive(Debug, Clone, Copy)]
struct Paid {
    purse: Purse,
    own: Purse,
}

/// The limit that an arrival meets first.
enum Over {
    Host,
    Prefix,
    Total(Refusal),
}

/// The handshakes under way.
#[derive(Debug)]
pub struct Admission {
    limits: HandshakeLimits,
    last: u64,
    shaking: BTreeMap<AttemptId, Shaking>,
    unproven: BTreeSet<AttemptId>,
    hosts: BTreeMap<Host, BTreeSet<AttemptId>>,
    prefixes: BTreeMap<Prefix, BTreeSet<AttemptId>>,
    /// The same prefixes, by how many handshakes each has.
    crowds: BTreeSet<(usize, Prefix)>,
    purse: Purse,
    /// Prefixes that have spent something lately.
    purses: BTreeMap<Prefix, Purse>,
    sweep_at: usize,
    /// Hosts that have lost a place as too slow, and when the last time was.
    benched: BTreeMap<Host, Instant>,
    /// The same, in order of time; a host that was benched again is there more than once.
    bench: VecDeque<(Instant, Host)>,
    retries: TokenBucket,
}

impl Admission {
    /// With nothing under way.
    pub fn new(limits: HandshakeLimits, now: Instant) -> Self {
        Self {
            limits,
            last: 0,
            shaking: BTreeMap::new(),
            unproven: BTreeSet::new(),
            hosts: BTreeMap::new(),
            prefixes: BTreeMap::new(),
            crowds: BTreeSet::new(),
            purse: Purse { seconds: limits.cpu_burst.as_secs_f64(), at: now },
            purses: BTreeMap::new(),
            sweep_at: PREFIXES,
            benched: BTreeMap::new(),
            bench: VecDeque::new(),
            retries: TokenBucket::new(f64::from(RETRIES), RETRIES, now),
        }
    }

    /// Judges an arrival. One that is admitted is under way from here on, and the one that it replaces is not.
    pub fn judge(&mut self, from: IpAddr, proven: bool, banned: bool, now: Instant) -> Verdict {
        if banned {
            return if proven { Verdict::Refuse(Refusal::Banned) } else { Verdict::Ignore };
        }
        let (host, prefix) = origin(from);
        let must_prove = || {
            self.limits.always_retry
                || self.is_high(now)
                || self.has_spent(prefix, now)
                || self.over(host, prefix).is_some()
        };
        if !proven && must_prove() {
            return if self.retries.take(now).is_ok() { Verdict::Retry } else { Verdict::Ignore };
        }
        // In this order, because looking for room may take a look at every handshake.
        let may_begin = self.price(prefix, now).and_then(|paid| Ok((paid, self.room(host, prefix, now)?)));
        let (paid, instead) = match may_begin {
            Ok(both) => both,
            Err(refusal) => return Verdict::Refuse(refusal),
        };
        self.pay(prefix, paid, now);
        if let Some(victim) = instead {
            self.bench(victim, now);
            self.ended(victim);
        }
        self.last += 1;
        let id = AttemptId(self.last);
        self.shaking.insert(id, Shaking { host, prefix, since: now, waits: None });
        if !proven {
            self.unproven.insert(id);
        }
        self.hosts.entry(host).or_default().insert(id);
        self.recount(prefix, |ids| {
            ids.insert(id);
        });
        Verdict::Admit(id, instead)
    }

    /// How long a handshake has had us wait is told by these. Without them all of its time is.
    pub fn told_by(&mut self, id: AttemptId, waits: Waits) {
        if let Some(shaking) = self.shaking.get_mut(&id) {
            shaking.waits = Some(waits);
        }
    }

    /// A handshake is over, well or not. Idempotent: one that was replaced is over already.
    pub fn ended(&mut self, id: AttemptId) {
        let Some(Shaking { host, prefix, .. }) = self.shaking.remove(&id) else { return };
        self.unproven.remove(&id);
        if let Some(ids) = self.hosts.get_mut(&host) {
            ids.remove(&id);
            if ids.is_empty() {
                self.hosts.remove(&host);
            }
        }
        self.recount(prefix, |ids| {
            ids.remove(&id);
        });
    }

    /// Handshakes under way.
    pub fn under_way(&self) -> usize {
        self.shaking.len()
    }

    fn recount(&mut self, prefix: Prefix, change: impl FnOnce(&mut BTreeSet<AttemptId>)) {
        let ids = self.prefixes.entry(prefix).or_default();
        self.crowds.remove(&(ids.len(), prefix));
        change(ids);
        if ids.is_empty() {
            self.prefixes.remove(&prefix);
        } else {
            self.crowds.insert((ids.len(), prefix));
        }
    }

    /// Whether arrivals have to prove their addresses.
    fn is_high(&self, now: Instant) -> bool {
        let limits = &self.limits;
        let part = |used: usize, cap: usize| used as f64 >= cap as f64 * limits.low_water;
        part(self.shaking.len(), limits.total)
            || part(self.shaking.len() * limits.bytes_each, limits.bytes)
            || self.income(1).is_spent(self.purse, limits.low_water, now)
    }

    /// Whether a prefix is above the low-water mark of its own part of the computing time: what is left of it is for those who
    /// have proven that they are there, for the rest may have been spent in its name.
    fn has_spent(&self, prefix: Prefix, now: Instant) -> bool {
        let part = self.income(self.limits.prefix_part);
        self.purses.get(&prefix).is_some_and(|purse| part.is_spent(*purse, self.limits.low_water, now))
    }

    fn over(&self, host: Host, prefix: Prefix) -> Option<Over> {
        let limits = &self.limits;
        if self.hosts.get(&host).is_some_and(|ids| ids.len() >= limits.per_ip) {
            Some(Over::Host)
        } else if self.prefixes.get(&prefix).is_some_and(|ids| ids.len() >= limits.per_prefix) {
            Some(Over::Prefix)
        } else if self.shaking.len() >= limits.total {
            Some(Over::Total(Refusal::Handshakes))
        } else if (self.shaking.len() + 1) * limits.bytes_each > limits.bytes {
            Some(Over::Total(Refusal::HandshakeBytes))
        } else {
            None
        }
    }

    /// The handshake that has to go for one of a proven address to begin, if any. One is enough: whoever leaves a host has
    /// left its prefix and the whole as well.
    fn room(&self, host: Host, prefix: Prefix, now: Instant) -> Result<Option<AttemptId>, Refusal> {
        let oldest_unproven = |ids: Option<&BTreeSet<AttemptId>>| {
            ids.and_then(|ids| ids.iter().find(|id| self.unproven.contains(id)).copied())
        };
        let (victim, refusal) = match self.over(host, prefix) {
            None => return Ok(None),
            Some(Over::Host) => (oldest_unproven(self.hosts.get(&host)), Refusal::HandshakesPerIp),
            Some(Over::Prefix) => (oldest_unproven(self.prefixes.get(&prefix)), Refusal::HandshakesPerPrefix),
            Some(Over::Total(_)) if self.is_benched(host, now) => (None, Refusal::HandshakeEvicted),
            Some(Over::Total(refusal)) => (self.worst(prefix, now), refusal),
        };
        victim.map(Some).ok_or(refusal)
    }

    fn worst(&self, prefix: Prefix, now: Instant) -> Option<AttemptId> {
        let own = self.prefixes.get(&prefix).map_or(0, BTreeSet::len);
        let crowd = self.crowds.last().filter(|(count, _)| *count > own + 1);
        let crowd = crowd.and_then(|(_, crowd)| self.prefixes.get(crowd)).and_then(BTreeSet::first);
        let slow_one =
            |id: &&AttemptId| self.shaking.get(id).is_some_and(|shaking| self.is_slow(shaking, now));
        let slow = || {
            let old = |shaking: &Shaking| shaking.age(now) >= self.limits.grace;
            let mut old = self.shaking.iter().take_while(|(_, shaking)| old(shaking));
            old.find(|(_, shaking)| self.is_slow(shaking, now)).map(|(id, _)| id)
        };
        let slowest = || crowd.filter(slow_one).or_else(slow).or(crowd);
        self.unproven.first().or_else(slowest).copied()
    }

    /// Whether it can lose its place although nothing else speaks against it.
    fn is_slow(&self, shaking: &Shaking, now: Instant) -> bool {
        let grace = self.limits.grace;
        shaking.waited(now) >= grace || shaking.age(now) >= grace * OLD
    }

    /// Remembers the host of a handshake that loses its place, if it has had us wait for its grace. One that was not proven is
    /// nobody's fault: its address may be forged.
    fn bench(&mut self, victim: AttemptId, now: Instant) {
        while self.bench.front().is_some_and(|(since, _)| {
            self.bench.len() >= BENCHED || now.saturating_duration_since(*since) >= self.limits.bench
        }) && let Some((since, host)) = self.bench.pop_front()
        {
            if self.benched.get(&host) == Some(&since) {
                self.benched.remove(&host);
            }
        }
        let Some(shaking) = self.shaking.get(&victim) else { return };
        let slow = shaking.waited(now) >= self.limits.grace;
        if slow && !self.limits.bench.is_zero() && !self.unproven.contains(&victim) {
            self.benched.insert(shaking.host, now);
            self.bench.push_back((now, shaking.host));
        }
    }

    fn is_benched(&self, host: Host, now: Instant) -> bool {
        let since = self.benched.get(&host);
        since.is_some_and(|since| now.saturating_duration_since(*since) < self.limits.bench)
    }

    /// What one in `part` of the computing time amounts to.
    fn income(&self, part: u32) -> Income {
        let part = f64::from(part.max(1));
        Income { most: self.limits.cpu_burst.as_secs_f64() / part, per_second: self.limits.cpu_share / part }
    }

    /// What is left of the whole and of the prefix's part after a handshake's computing time.
    fn price(&self, prefix: Prefix, now: Instant) -> Result<Paid, Refusal> {
        let price = self.limits.cpu_each.as_secs_f64();
        let (all, part) = (self.income(1), self.income(self.limits.prefix_part));
        let full = Purse { seconds: part.most, at: now };
        let mut own = self.purses.get(&prefix).copied().unwrap_or(full).at(now, part);
        let mut purse = self.purse.at(now, all);
        if purse.seconds < price {
            return Err(Refusal::HandshakeCpu);
        }
        let behind = own.seconds / part.most < 1.0 - purse.seconds / all.most;
        if own.seconds < price || (behind && self.limits.prefix_part > 1) {
            return Err(Refusal::HandshakesPerPrefix);
        }
        purse.seconds -= price;
        own.seconds -= price;
        Ok(Paid { purse, own })
    }

    fn pay(&mut self, prefix: Prefix, Paid { purse, own }: Paid, now: Instant) {
        self.purse = purse;
        self.purses.insert(prefix, own);
        if self.purses.len() >= self.sweep_at {
            let part = self.income(self.limits.prefix_part);
            self.purses.retain(|_, purse| purse.at(now, part).seconds < part.most);
            self.sweep_at = PREFIXES.max(2 * self.purses.len());
        }
    }
}

#[cfg(test)]
mod tests;
