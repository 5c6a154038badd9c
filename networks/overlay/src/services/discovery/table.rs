//! The records that are known, pure: what is kept, what is confirmed, what is told to whom.
//!
//! ```text
//!  session up ---> present ---- its record, naming where the session is ---> kept, confirmed
//!  session gone -> absent: kept until [`ABSENT`] others have gone after it, or until its time is over
//! ```
//!
//! A record of somebody whom we have no session with is of no use here: its addresses are in the address book, and once one of them is
//! dialled its owner is asked for the record. So none is taken, and what strangers say of others costs no memory. What the present
//! need they get: an absent one makes room for a present one, never the other way round.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use rookery_base::id::canonical_addr;
use rookery_base::{AddrGroup, Generation, PeerId};
use siphasher::sip::SipHasher13;

use crate::wire::SignedRecord;
use crate::wire::snapshot::{Candidate, MAX_CANDIDATES};

/// Records kept, of present and absent peers. With what is kept beside it a record takes up to 6 kB (ML-DSA-65): 12.3 MB in all.
pub const RECORDS: usize = 2048;
/// Records kept of peers that have gone: twice what a restart's snapshot takes, and 3 MB. However many strangers come and go,
/// they displace one another; the bound on those that stay is the bound on sessions.
pub const ABSENT: usize = 2 * MAX_CANDIDATES;
/// Longest time that a record may still have: a day, so that a key that was lost, or an address that was given up, is
/// forgotten by tomorrow. What claims more is not taken.
pub const LIFETIME_MAX: Duration = Duration::from_secs(24 * 3600);
/// How long one asker's group gets the same sample.
const EPOCH: u64 = 3600;

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// Its owner was not known.
    New,
    /// It replaces an older one.
    Newer,
    /// Known already, or older than what is known.
    Known,
    /// Our own.
    Own,
    /// Its time is over, or further away than any honest peer's.
    Untimely,
    /// We have no session with its owner at any of its addresses.
    Unmet,
    /// The table is full of records of those who are present.
    NoRoom,
}

#[derive(Debug)]
struct Entry {
    record: SignedRecord,
    /// At which of its addresses we had a session with its owner, and when last, in seconds since 1970.
    confirmed: Option<(SocketAddr, u64)>,
    /// The number of the end of its owner's last session; none while there is one.
    left: Option<u64>,
}

/// The records of other peers.
#[derive(Debug)]
pub struct Table {
    own: PeerId,
    /// Keys the choice of samples, so that nobody can aim at them.
    key: (u64, u64),
    entries: BTreeMap<PeerId, Entry>,
    /// Sessions, for what they confirm: the proven identity, and where it is.
    sessions: BTreeMap<Generation, (PeerId, SocketAddr)>,
    /// The same by identity.
    present: BTreeSet<(PeerId, Generation)>,
    /// Whose records are kept though they have gone, in that order.
    absent: BTreeMap<u64, PeerId>,
    /// Sessions that have ended so far.
    ends: u64,
}

impl Table {
    /// An empty table of the peer `own`.
    pub const fn new(own: PeerId, key: (u64, u64)) -> Self {
        Self {
            own,
            key,
            entries: BTreeMap::new(),
            sessions: BTreeMap::new(),
            present: BTreeSet::new(),
            absent: BTreeMap::new(),
            ends: 0,
        }
    }

    /// A session with a proven identity, at this address.
    pub fn up(&mut self, session: Generation, peer: PeerId, addr: SocketAddr, unix: u64) {
        self.sessions.insert(session, (peer, canonical_addr(addr)));
        self.present.insert((peer, session));
        if let Some(left) = self.entries.get_mut(&peer).and_then(|entry| entry.left.take()) {
            self.absent.remove(&left);
        }
        self.confirm(&peer, unix);
    }

    /// A session has ended. What it has confirmed stays so.
    pub fn gone(&mut self, session: Generation, unix: u64) {
        let Some((peer, addr)) = self.sessions.remove(&session) else { return };
        self.present.remove(&(peer, session));
        let still_here = self.sessions_of(&peer).next().is_some();
        let Some(entry) = self.entries.get_mut(&peer) else { return };
        if entry.record.addrs.contains(&addr) {
            entry.confirmed = Some((addr, unix));
        }
        if still_here {
            return;
        }
        entry.left = Some(self.ends);
        self.absent.insert(self.ends, peer);
        self.ends += 1;
        if self.absent.len() > ABSENT {
            self.forget_longest_gone();
        }
    }

    /// Who is at the other end of a session, and where.
    pub fn session(&self, session: Generation) -> Option<(PeerId, SocketAddr)> {
        self.sessions.get(&session).copied()
    }

    /// Takes a record whose signature holds.
    pub fn take(&mut self, record: SignedRecord, unix: u64) -> Taken {
        let id = record.id();
        if id == self.own {
            return Taken::Own;
        }
        if record.expiry <= unix || record.expiry - unix > LIFETIME_MAX.as_secs() {
            return Taken::Untimely;
        }
        if let Some(entry) = self.entries.get_mut(&id) {
            if record.sequence <= entry.record.sequence {
                return Taken::Known;
            }
            // What was confirmed counts on as long as its owner still names it.
            entry.confirmed = entry.confirmed.filter(|(addr, _)| record.addrs.contains(addr));
            entry.record = record;
            self.confirm(&id, unix);
            return Taken::Newer;
        }
        let Some(addr) = self.sessions_of(&id).find(|addr| record.addrs.contains(addr)) else {
            return Taken::Unmet;
        };
        if !self.has_room(unix) {
            return Taken::NoRoom;
        }
        self.entries.insert(id, Entry { record, confirmed: Some((addr, unix)), left: None });
        Taken::New
    }

    /// Forgets what has expired.
    pub fn expire(&mut self, unix: u64) {
        let Self { entries, absent, .. } = self;
        entries.retain(|_, entry| {
            let current = entry.record.expiry > unix;
            if let Some(left) = entry.left.filter(|_| !current) {
                absent.remove(&left);
            }
            current
        });
    }

    /// At most `most` records for a peer that asks: confirmed, not expired, not its own.
    pub fn sample(&self, asker: PeerId, from: IpAddr, most: usize, unix: u64) -> Vec<Bytes> {
        let rank = |id: &PeerId| {
            let mut hasher = SipHasher13::new_with_keys(self.key.0, self.key.1);
            hasher.write(AddrGroup::of(from).as_bytes());
            hasher.write_u64(unix / EPOCH);
            hasher.write(id.as_bytes());
            hasher.finish()
        };
        let mut ranked: Vec<(u64, &Bytes)> = self
            .entries
            .iter()
            .filter(|(id, entry)| entry.confirmed.is_some() && entry.record.expiry > unix && **id != asker)
            .map(|(id, entry)| (rank(id), entry.record.raw()))
            .collect();
        ranked.sort_by_key(|(rank, _)| *rank);
        ranked.into_iter().take(most).map(|(_, raw)| raw.clone()).collect()
    }

    /// Where peers were reached, the latest first, for the file that is read after a restart.
    pub fn candidates(&self) -> Vec<Candidate> {
        let reached = |entry: &Entry| entry.confirmed.map(|(addr, reached)| Candidate { addr, reached });
        let mut candidates: Vec<Candidate> = self.entries.values().filter_map(reached).collect();
        candidates.sort_by_key(|candidate| (std::cmp::Reverse(candidate.reached), candidate.addr));
        candidates.truncate(MAX_CANDIDATES);
        candidates
    }

    /// Records known, and how many of them are confirmed.
    pub fn len(&self) -> (usize, usize) {
        (self.entries.len(), self.entries.values().filter(|entry| entry.confirmed.is_some()).count())
    }

    /// Where the sessions with this identity are.
    fn sessions_of<'a>(&'a self, peer: &PeerId) -> impl Iterator<Item = SocketAddr> + use<'a> {
        let all = (*peer, Generation(0))..=(*peer, Generation(u64::MAX));
        self.present.range(all).filter_map(|(_, session)| Some(self.sessions.get(session)?.1))
    }

    fn confirm(&mut self, peer: &PeerId, unix: u64) {
        let Some(entry) = self.entries.get(peer) else { return };
        let Some(addr) = self.sessions_of(peer).find(|addr| entry.record.addrs.contains(addr)) else {
            return;
        };
        if let Some(entry) = self.entries.get_mut(peer) {
            entry.confirmed = Some((addr, unix));
        }
    }

    /// Makes room for the record of one who is present: what has expired goes first, then who has gone longest ago.
    fn has_room(&mut self, unix: u64) -> bool {
        if self.entries.len() >= RECORDS {
            self.expire(unix);
        }
        self.entries.len() < RECORDS || self.forget_longest_gone()
    }

    fn forget_longest_gone(&mut self) -> bool {
        self.absent.pop_first().is_some_and(|(_, peer)| self.entries.remove(&peer).is_some())
    }
}
