//! The registry's rules, pure: no I/O, no clock, no channels.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rookery_base::id::canonical_ip;
use rookery_base::{AddrGroup, CloseCause, Direction, Fault, Generation, PeerId, Weight};
use rookery_runtime::Instant;

use crate::Ledger;

/// How many sessions there may be, and from where.
#[derive(Debug, Clone, Copy)]
pub struct SessionLimits {
    /// Sessions that peers opened.
    pub inbound: usize,
    /// Sessions that we opened.
    pub outbound: usize,
    /// Inbound sessions from one IP.
    pub per_ip: usize,
    /// Inbound sessions from one address group.
    pub per_group: usize,
    /// How long a ban lasts.
    pub ban: Duration,
}

impl SessionLimits {
    /// For a public node. inbound: at 1 MiB of budget each, 64 are served from a small machine, three times hsd's
    /// default. outbound: hsd's 8 and room for peers named by the operator. per_ip: two users behind one
    /// address translation. per_group: an operator with one /16 can take a quarter of the slots and no more. ban: hsd's 24 h.
    pub const PUBLIC: Self =
        Self { inbound: 64, outbound: 64, per_ip: 2, per_group: 16, ban: Duration::from_secs(24 * 3600) };

    /// For loopback and private networks, where all peers share one address group and an operator's own mistakes
    /// should not lock the machine out for a day.
    pub const LOCAL: Self =
        Self { inbound: 2048, outbound: 256, per_ip: 2048, per_group: 2048, ban: Duration::from_secs(60) };
}

/// A duplicate from the same IP replaces a session of at least this age: the peer has restarted and we have not
/// noticed. A younger one is a simultaneous open or a race, and stays.
const STALE_SAME_IP: Duration = Duration::from_secs(5);
/// The same from another IP, where a thief of an identity would come from.
const STALE_OTHER_IP: Duration = Duration::from_secs(300);
/// Ended sessions whose ledgers can still be read.
const CLOSED_KEPT: usize = 256;
/// Addresses that can be banned at a time; the oldest ban goes first. An attacker with more addresses than this
/// meets the limits per group.
const BANS: usize = 65_536;
/// Stands for a ban that is longer than the clock can count: an operator's "for ever".
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// A session that asks to be admitted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate {
    pub peer: PeerId,
    pub addr: SocketAddr,
    pub direction: Direction,
    /// Named by the operator: not counted against groups, never evicted.
    pub reserved: bool,
}

/// What the rules say of a candidate.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Admit it, after closing these sessions for these causes.
    Admit(Vec<Generation>),
    /// Refuse it.
    Refuse(CloseCause),
}

/// A live session.
#[derive(Debug)]
struct Live {
    candidate: Candidate,
    since: Instant,
    /// Closed, its slot not back yet. It counts for memory, not for limits.
    leaving: bool,
}

/// What a slot comes back with.
#[derive(Debug)]
pub(crate) struct SessionEnd {
    pub generation: Generation,
    pub cause: CloseCause,
    pub ledger: Ledger,
}

/// An ended session, as far as it is remembered.
#[derive(Debug, Clone)]
pub struct ClosedSession {
    /// Its generation.
    pub generation: Generation,
    /// The peer's address.
    pub addr: SocketAddr,
    /// Who dialled.
    pub direction: Direction,
    /// Why it ended.
    pub cause: CloseCause,
    /// How long it lasted.
    pub lasted: Duration,
    /// Its last facts.
    pub ledger: Ledger,
}

/// The table.
#[derive(Debug)]
pub(crate) struct RegistryState {
    limits: SessionLimits,
    local: Option<PeerId>,
    last: Generation,
    live: BTreeMap<Generation, Live>,
    by_peer: BTreeMap<PeerId, Generation>,
    closed: VecDeque<ClosedSession>,
    /// Until when, by address.
    bans: BTreeMap<IpAddr, Instant>,
}

impl RegistryState {
    pub fn new(limits: SessionLimits, local: Option<PeerId>) -> Self {
        Self {
            limits,
            local,
            last: Generation(0),
            live: BTreeMap::new(),
            by_peer: BTreeMap::new(),
            closed: VecDeque::new(),
            bans: BTreeMap::new(),
        }
    }

    /// Judges a candidate. Changes nothing.
    pub fn decide(&self, candidate: &Candidate, now: Instant) -> Decision {
        if self.is_banned(candidate.addr.ip(), now) {
            return Decision::Refuse(CloseCause::Dropped("this address is banned".into()));
        }
        if self.local == Some(candidate.peer) {
            let fault = rookery_base::PeerFault::close(
                rookery_base::PeerFaultKind::SelfConnection,
                "the peer has our own identity",
            );
            return Decision::Refuse(CloseCause::Fault(fault.into()));
        }
        if self.last.next().is_none() {
            return Decision::Refuse(CloseCause::Dropped("all generations are used up".into()));
        }
        let mut leave = Vec::new();
        if let Some((generation, incumbent)) = self.incumbent(candidate) {
            if !self.replaces(candidate, incumbent, now) {
                return Decision::Refuse(CloseCause::Duplicate(generation));
            }
            leave.push(generation);
        }
        match self.make_room(candidate, &leave) {
            Ok(evicted) => {
                leave.extend(evicted);
                Decision::Admit(leave)
            }
            Err(why) => Decision::Refuse(CloseCause::Dropped(why.into())),
        }
    }

    /// Enters a candidate that was admitted.
    pub fn admit(&mut self, candidate: Candidate, leave: &[Generation], now: Instant) -> Option<Generation> {
        self.last = self.last.next()?;
        for generation in leave {
            self.leaving(*generation);
        }
        self.live.insert(self.last, Live { candidate, since: now, leaving: false });
        self.by_peer.insert(candidate.peer, self.last);
        Some(self.last)
    }

    /// Marks a session that is being closed.
    pub fn leaving(&mut self, generation: Generation) {
        if let Some(live) = self.live.get_mut(&generation) {
            live.leaving = true;
            if self.by_peer.get(&live.candidate.peer) == Some(&generation) {
                self.by_peer.remove(&live.candidate.peer);
            }
        }
    }

    /// Removes a session whose slot came back. Idempotent; an old generation cannot touch a newer one.
    pub fn ended(&mut self, end: SessionEnd, now: Instant) -> Option<&ClosedSession> {
        self.leaving(end.generation);
        let live = self.live.remove(&end.generation)?;
        if let CloseCause::Fault(Fault::Peer(fault)) = &end.cause
            && fault.weight == Weight::Ban
            && !live.candidate.reserved
        {
            self.ban(live.candidate.addr.ip(), now, self.limits.ban);
        }
        if self.closed.len() == CLOSED_KEPT {
            self.closed.pop_front();
        }
        self.closed.push_back(ClosedSession {
            generation: end.generation,
            addr: live.candidate.addr,
            direction: live.candidate.direction,
            cause: end.cause,
            lasted: now.saturating_duration_since(live.since),
            ledger: end.ledger,
        });
        self.closed.back()
    }

    /// Refuses an address for a while.
    pub fn ban(&mut self, ip: IpAddr, now: Instant, lasts: Duration) {
        self.bans.retain(|_, until| *until > now);
        if self.bans.len() >= BANS
            && let Some(first) = self.bans.iter().min_by_key(|(_, until)| **until).map(|(ip, _)| *ip)
        {
            self.bans.remove(&first);
        }
        let until = now.checked_add(lasts).unwrap_or_else(|| now + FOR_EVER);
        self.bans.insert(canonical_ip(ip), until);
    }

    /// Forgets a ban. True when there was one.
    pub fn unban(&mut self, ip: IpAddr) -> bool {
        self.bans.remove(&canonical_ip(ip)).is_some()
    }

    /// The peer of a live session.
    pub fn peer_of(&self, generation: Generation) -> Option<PeerId> {
        self.live.get(&generation).map(|live| live.candidate.peer)
    }

    /// The table of bans, for those who judge by themselves.
    pub const fn bans_until(&self) -> &BTreeMap<IpAddr, Instant> {
        &self.bans
    }

    /// The usual length of a ban.
    pub const fn usual_ban(&self) -> Duration {
        self.limits.ban
    }

    /// Whether a session's slot is out.
    pub fn is_live(&self, generation: Generation) -> bool {
        self.live.contains_key(&generation)
    }

    /// Bans that still hold.
    pub fn bans(&self, now: Instant) -> impl Iterator<Item = (IpAddr, Duration)> {
        self.bans
            .iter()
            .filter(move |(_, until)| **until > now)
            .map(move |(ip, until)| (*ip, until.saturating_duration_since(now)))
    }

    /// Ended sessions, oldest first.
    pub fn closed(&self) -> impl DoubleEndedIterator<Item = &ClosedSession> {
        self.closed.iter()
    }

    /// Sessions in a direction that are not leaving.
    pub fn count(&self, direction: Direction) -> usize {
        self.staying(&[]).filter(|(_, live)| live.candidate.direction == direction).count()
    }

    /// All sessions whose slots are out.
    pub fn slots(&self) -> usize {
        self.live.len()
    }

    fn is_banned(&self, ip: IpAddr, now: Instant) -> bool {
        self.bans.get(&canonical_ip(ip)).is_some_and(|until| *until > now)
    }

    fn incumbent(&self, candidate: &Candidate) -> Option<(Generation, &Live)> {
        let generation = *self.by_peer.get(&candidate.peer)?;
        Some((generation, self.live.get(&generation)?))
    }

    /// Whether a candidate replaces the session its peer has. Both ends decide alike: of two connections dialled
    /// from both sides at once, the one that the smaller identity dialled stays. Of two dialled from the same side
    /// the older stays while it is fresh.
    fn replaces(&self, candidate: &Candidate, incumbent: &Live, now: Instant) -> bool {
        let same_ip = canonical_ip(candidate.addr.ip()) == canonical_ip(incumbent.candidate.addr.ip());
        let stale = if same_ip { STALE_SAME_IP } else { STALE_OTHER_IP };
        if now.saturating_duration_since(incumbent.since) >= stale {
            return true;
        }
        match self.local {
            Some(local) if candidate.direction != incumbent.candidate.direction => {
                match candidate.direction {
                    Direction::Outbound => local < candidate.peer,
                    Direction::Inbound => candidate.peer < local,
                }
            }
            _ => false,
        }
    }

    fn staying<'a>(&'a self, without: &'a [Generation]) -> impl Iterator<Item = (&'a Generation, &'a Live)> {
        self.live.iter().filter(|(generation, live)| !live.leaving && !without.contains(generation))
    }

    /// The session that has to go for the candidate to fit, if any; or why it does not fit.
    fn make_room(
        &self,
        candidate: &Candidate,
        leave: &[Generation],
    ) -> Result<Option<Generation>, &'static str> {
        let same_way =
            || self.staying(leave).filter(|(_, live)| live.candidate.direction == candidate.direction);
        if candidate.direction == Direction::Outbound {
            let full = same_way().count() >= self.limits.outbound;
            return if full { Err("all outbound slots are taken") } else { Ok(None) };
        }
        let group = AddrGroup::of(candidate.addr.ip());
        let ip = canonical_ip(candidate.addr.ip());
        let in_group = |live: &Live| AddrGroup::of(live.candidate.addr.ip()) == group;
        if !candidate.reserved {
            let from_ip = same_way().filter(|(_, l)| canonical_ip(l.candidate.addr.ip()) == ip).count();
            if from_ip >= self.limits.per_ip {
                return Err("too many sessions from this address");
            }
            if same_way().filter(|(_, live)| in_group(live)).count() >= self.limits.per_group {
                return Err("too many sessions from this address group");
            }
        }
        if same_way().count() < self.limits.inbound {
            return Ok(None);
        }
        self.worst(candidate, leave).map(Some).ok_or("all inbound slots are taken")
    }

    /// When the slots are full: the youngest session of the most crowded address group, if that group is more
    /// crowded than the candidate's would become. Long-standing peers and rare groups are kept, so an attacker
    /// with few groups pushes out only its own.
    fn worst(&self, candidate: &Candidate, leave: &[Generation]) -> Option<Generation> {
        let mut groups: BTreeMap<AddrGroup, (usize, Option<(Instant, Generation)>)> = BTreeMap::new();
        for (generation, live) in self.staying(leave) {
            if live.candidate.direction == Direction::Inbound && !live.candidate.reserved {
                let entry = groups.entry(AddrGroup::of(live.candidate.addr.ip())).or_default();
                entry.0 += 1;
                entry.1 = entry.1.max(Some((live.since, *generation)));
            }
        }
        let own = groups.get(&AddrGroup::of(candidate.addr.ip())).map_or(0, |(count, _)| *count);
        let (count, youngest) = groups.into_values().max_by_key(|(count, _)| *count)?;
        (candidate.reserved || count > own + 1).then_some(youngest?.1)
    }
}

#[cfg(test)]
mod tests;
