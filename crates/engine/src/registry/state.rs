//! The registry's rules, pure: no I/O, no clock, no channels.
//!
//! **Duplicates.** One peer has one session. Where both sides prove who they are and tell their [`Precedence`], both ends
//! decide alike, whatever they learn first, and no age is looked at:
//!
//! 1. The peer's process is another one than the session's: it has restarted, and the candidate wins. A process that is
//!    known to have been replaced already never wins.
//! 2. Dialled by different sides: the connection that the smaller identity dialled stays.
//! 3. Dialled by the same side: the later dial stays.
//!
//! By 2 and 3 all connections of two processes are in one order that both ends know, so the greatest that both have
//! entered is what both keep. 1 relies on a process taking longer to start than a datagram takes on its way. Where nothing is proven
//! a session keeps a duplicate out while it is young, because anybody can claim any identity.
//!
//! **Shedding.** Inbound slots go first to peers that are known as good (a session of the same proven identity
//! has lasted, and was not ended for a fault of theirs), for whom some are kept; then to strangers. When
//! all are taken, a stranger who has not lasted makes room for a peer that is known as good, or for a stranger of a
//! less crowded address group; the youngest of the most crowded group goes. Who was named by the operator, is known as good or
//! has lasted is never evicted.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rookery_base::id::canonical_ip;
use rookery_base::{AddrGroup, CloseCause, Direction, Fault, Generation, PeerId, Refusal, Weight};
use rookery_runtime::Instant;

use super::known::KnownGood;
use crate::accounts::Passage;
use crate::{Ledger, Precedence};

/// How many sessions there may be, and from where.
#[derive(Debug, Clone, Copy)]
pub struct SessionLimits {
    /// Sessions that peers opened.
    pub inbound: usize,
    /// Sessions that we opened.
    pub outbound: usize,
    /// Of the inbound sessions, those that only peers known as good may have, on wires that prove who a peer is; half of
    /// them at most.
    pub kept_for_known: usize,
    /// Inbound sessions from one IP.
    pub per_ip: usize,
    /// Inbound sessions from one address group.
    pub per_group: usize,
    /// How long a ban lasts.
    pub ban: Duration,
}

impl SessionLimits {
    /// For a public node. inbound: at 1 MiB of budget each, 64 are served from a small machine, three times hsd's
    /// default. outbound: hsd's 8 and room for peers named by the operator. kept_for_known: an eighth, so that a
    /// node that strangers have filled can still be reached by those with whom it worked before. per_ip: two users behind one
    /// address translation. per_group: an operator with one /16 can take a quarter of the slots and no more. ban: hsd's 24 h.
    pub const PUBLIC: Self = Self {
        inbound: 64,
        outbound: 64,
        kept_for_known: 8,
        per_ip: 2,
        per_group: 16,
        ban: Duration::from_secs(24 * 3600),
    };

    /// For loopback and private networks, where all peers share one address group, nobody is a stranger, and an operator's own
    /// mistakes should not lock the machine out for a day.
    pub const LOCAL: Self = Self {
        inbound: 2048,
        outbound: 256,
        kept_for_known: 0,
        per_ip: 2048,
        per_group: 2048,
        ban: Duration::from_secs(60),
    };
}

/// A duplicate from the same IP replaces a session of at least this age: the peer has restarted and we have not
/// noticed. A younger one is a simultaneous open or a race, and stays.
const STALE_SAME_IP: Duration = Duration::from_secs(5);
/// The same from another IP, where a thief of an identity would come from.
const STALE_OTHER_IP: Duration = Duration::from_secs(300);
/// A session of this age has lasted: long enough that to hold slots this way costs an attacker more than to take new ones.
pub(super) const LASTING: Duration = Duration::from_secs(600);
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
    /// What decides against another session of the same peer.
    pub precedence: Precedence,
}

impl Candidate {
    /// Whether the wire has proven who the peer is.
    fn proven(&self) -> bool {
        self.precedence != Precedence::NONE
    }
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
    /// The peer's process before this one, if it has replaced one.
    former: Option<u64>,
    /// Closed, its slot not back yet. It counts for memory, not for limits.
    leaving: bool,
}

/// What a slot comes back with.
#[derive(Debug)]
pub(crate) struct SessionEnd {
    pub generation: Generation,
    pub cause: CloseCause,
    pub ledger: Ledger,
    /// Where it is counted; none for sessions that we dialled.
    pub passage: Option<Passage>,
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
    /// Whether that banned its address.
    pub banned: bool,
}

/// How many sessions stay, and where the inbound ones are from. Kept beside the table, because every candidate is judged by
/// it: counting thousands for each of a storm would cost more than their handshakes.
#[derive(Debug, Default)]
struct Crowd {
    inbound: usize,
    outbound: usize,
    by_ip: BTreeMap<IpAddr, usize>,
    by_group: BTreeMap<AddrGroup, usize>,
}

impl Crowd {
    fn enter(&mut self, candidate: &Candidate) {
        if candidate.direction == Direction::Outbound {
            self.outbound += 1;
            return;
        }
        let (ip, group) = places(candidate);
        self.inbound += 1;
        *self.by_ip.entry(ip).or_default() += 1;
        *self.by_group.entry(group).or_default() += 1;
    }

    fn leave(&mut self, candidate: &Candidate) {
        if candidate.direction == Direction::Outbound {
            self.outbound -= 1;
            return;
        }
        let (ip, group) = places(candidate);
        self.inbound -= 1;
        take_one(&mut self.by_ip, ip);
        take_one(&mut self.by_group, group);
    }
}

fn take_one<K: Ord>(counts: &mut BTreeMap<K, usize>, key: K) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

fn places(candidate: &Candidate) -> (IpAddr, AddrGroup) {
    (canonical_ip(candidate.addr.ip()), AddrGroup::of(candidate.addr.ip()))
}

/// The table.
#[derive(Debug)]
pub(crate) struct RegistryState {
    limits: SessionLimits,
    local: Option<PeerId>,
    last: Generation,
    live: BTreeMap<Generation, Live>,
    /// Of these, those that stay.
    crowd: Crowd,
    by_peer: BTreeMap<PeerId, Generation>,
    closed: VecDeque<ClosedSession>,
    known: KnownGood,
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
            crowd: Crowd::default(),
            by_peer: BTreeMap::new(),
            closed: VecDeque::new(),
            known: KnownGood::default(),
            bans: BTreeMap::new(),
        }
    }

    /// Judges a candidate. Changes nothing.
    pub fn decide(&self, candidate: &Candidate, now: Instant) -> Decision {
        if self.is_banned(candidate.addr.ip(), now) {
            return Decision::Refuse(CloseCause::Refused(Refusal::Banned));
        }
        if self.local == Some(candidate.peer) {
            let fault = rookery_base::PeerFault::close(
                rookery_base::PeerFaultKind::SelfConnection,
                "the peer has our own identity",
            );
            return Decision::Refuse(CloseCause::Fault(fault.into()));
        }
        if self.last.next().is_none() {
            return Decision::Refuse(CloseCause::Refused(Refusal::Generations));
        }
        let mut leave = Vec::new();
        if let Some((generation, incumbent)) = self.incumbent(candidate) {
            if !self.replaces(candidate, incumbent, now) {
                return Decision::Refuse(CloseCause::Duplicate(generation));
            }
            leave.push(generation);
        }
        match self.make_room(candidate, &leave, now) {
            Ok(evicted) => {
                leave.extend(evicted);
                Decision::Admit(leave)
            }
            Err(why) => Decision::Refuse(CloseCause::Refused(why)),
        }
    }

    /// Enters a candidate that was admitted.
    pub fn admit(&mut self, candidate: Candidate, leave: &[Generation], now: Instant) -> Option<Generation> {
        self.last = self.last.next()?;
        let former = self.incumbent(&candidate).and_then(|(_, incumbent)| {
            let before = incumbent.candidate.precedence.incarnation;
            if before == candidate.precedence.incarnation { incumbent.former } else { Some(before) }
        });
        for generation in leave {
            self.leaving(*generation);
        }
        self.crowd.enter(&candidate);
        self.live.insert(self.last, Live { candidate, since: now, former, leaving: false });
        self.by_peer.insert(candidate.peer, self.last);
        Some(self.last)
    }

    /// Marks a session that is being closed.
    pub fn leaving(&mut self, generation: Generation) {
        if let Some(live) = self.live.get_mut(&generation)
            && !std::mem::replace(&mut live.leaving, true)
        {
            self.crowd.leave(&live.candidate);
            if self.by_peer.get(&live.candidate.peer) == Some(&generation) {
                self.by_peer.remove(&live.candidate.peer);
            }
        }
    }

    /// Removes a session whose slot came back. Idempotent; an old generation cannot touch a newer one.
    pub fn ended(&mut self, end: SessionEnd, now: Instant) -> Option<&ClosedSession> {
        self.leaving(end.generation);
        let live = self.live.remove(&end.generation)?;
        let mut banned = false;
        if let CloseCause::Fault(Fault::Peer(fault)) = &end.cause
            && fault.weight == Weight::Ban
            && !live.candidate.reserved
        {
            self.ban(live.candidate.addr.ip(), now, self.limits.ban);
            banned = true;
        }
        if live.candidate.proven() {
            let lasted = now.saturating_duration_since(live.since) >= LASTING;
            self.known.ended(live.candidate.peer, lasted, &end.cause);
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
            banned,
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

    /// The session that stays of a peer.
    pub fn session_of(&self, peer: &PeerId) -> Option<Generation> {
        self.by_peer.get(peer).copied()
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
        match direction {
            Direction::Inbound => self.crowd.inbound,
            Direction::Outbound => self.crowd.outbound,
        }
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

    /// Whether a candidate replaces the session its peer has; see the module's page.
    fn replaces(&self, candidate: &Candidate, incumbent: &Live, now: Instant) -> bool {
        let (new, old) = (candidate.precedence, incumbent.candidate.precedence);
        if !candidate.proven() || !incumbent.candidate.proven() {
            let same_ip = canonical_ip(candidate.addr.ip()) == canonical_ip(incumbent.candidate.addr.ip());
            let stale = if same_ip { STALE_SAME_IP } else { STALE_OTHER_IP };
            let aged = now.saturating_duration_since(incumbent.since) >= stale;
            return aged || self.smaller_dialled(candidate, incumbent).unwrap_or(false);
        }
        if new.incarnation != old.incarnation {
            return incumbent.former != Some(new.incarnation);
        }
        self.smaller_dialled(candidate, incumbent).unwrap_or(new.attempt > old.attempt)
    }

    /// Of a candidate and a session that different sides dialled: whether the candidate is the one that the smaller
    /// identity dialled.
    fn smaller_dialled(&self, candidate: &Candidate, incumbent: &Live) -> Option<bool> {
        let local = self.local.filter(|_| candidate.direction != incumbent.candidate.direction)?;
        Some(match candidate.direction {
            Direction::Outbound => local < candidate.peer,
            Direction::Inbound => candidate.peer < local,
        })
    }

    fn staying<'a>(&'a self, without: &'a [Generation]) -> impl Iterator<Item = (&'a Generation, &'a Live)> {
        self.live.iter().filter(|(generation, live)| !live.leaving && !without.contains(generation))
    }

    /// The session that has to go for the candidate to fit, if any; or why it does not fit.
    fn make_room(
        &self,
        candidate: &Candidate,
        leave: &[Generation],
        now: Instant,
    ) -> Result<Option<Generation>, Refusal> {
        let same_way = |leaving: &&Candidate| leaving.direction == candidate.direction;
        let leaving = || leave.iter().filter_map(|old| Some(&self.live.get(old)?.candidate)).filter(same_way);
        let count = self.count(candidate.direction) - leaving().count();
        if candidate.direction == Direction::Outbound {
            return if count >= self.limits.outbound { Err(Refusal::Full) } else { Ok(None) };
        }
        let (ip, group) = places(candidate);
        if !candidate.reserved {
            let from_ip = self.crowd.by_ip.get(&ip).copied().unwrap_or(0);
            if from_ip - leaving().filter(|old| places(old).0 == ip).count() >= self.limits.per_ip {
                return Err(Refusal::PerAddress);
            }
            let in_group = self.crowd.by_group.get(&group).copied().unwrap_or(0);
            if in_group - leaving().filter(|old| places(old).1 == group).count() >= self.limits.per_group {
                return Err(Refusal::PerGroup);
            }
        }
        // On wires that prove nothing nobody can be known, and nothing is kept.
        let kept =
            if candidate.proven() && !self.is_known(candidate) { self.limits.kept_for_known } else { 0 };
        if count < self.limits.inbound.saturating_sub(kept) {
            return Ok(None);
        }
        self.worst(candidate, leave, now).map(Some).ok_or(Refusal::Full)
    }

    fn is_known(&self, candidate: &Candidate) -> bool {
        candidate.proven() && self.known.has(&candidate.peer)
    }

    /// When the slots are full: the youngest stranger of the most crowded address group, if the candidate is known as good
    /// or that group is more crowded than the candidate's would become. An attacker with few groups pushes out only
    /// its own.
    fn worst(&self, candidate: &Candidate, leave: &[Generation], now: Instant) -> Option<Generation> {
        let mut groups: BTreeMap<AddrGroup, (usize, Option<(Instant, Generation)>)> = BTreeMap::new();
        for (generation, live) in self.staying(leave) {
            if live.candidate.direction == Direction::Inbound && !live.candidate.reserved {
                let entry = groups.entry(AddrGroup::of(live.candidate.addr.ip())).or_default();
                entry.0 += 1;
                let lasts = now.saturating_duration_since(live.since) >= LASTING;
                if !lasts && !self.is_known(&live.candidate) {
                    entry.1 = entry.1.max(Some((live.since, *generation)));
                }
            }
        }
        let own = groups.get(&AddrGroup::of(candidate.addr.ip())).map_or(0, |(count, _)| *count);
        let sheddable = groups.into_values().filter_map(|(count, youngest)| Some((count, youngest?)));
        let (count, (_, youngest)) = sheddable.max_by_key(|(count, _)| *count)?;
        (candidate.reserved || self.is_known(candidate) || count > own + 1).then_some(youngest)
    }
}

#[cfg(test)]
mod mirror;
#[cfg(test)]
mod tests;
