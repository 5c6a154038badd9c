//! The records that are known, pure: what is kept, what is confirmed, what is told to whom.

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use rookery_base::id::canonical_addr;
use rookery_base::{AddrGroup, Generation, PeerId};
use siphasher::sip::SipHasher13;

use crate::wire::SignedRecord;
use crate::wire::snapshot::{Candidate, MAX_CANDIDATES};

/// Records kept. With ML-DSA-65 one takes up to 5.5 kB: 11 MB in all.
pub const RECORDS: usize = 2048;
/// Unconfirmed records kept for one teller: a few answers' worth. It takes 32 tellers with proven identities and slots of ours
/// to fill the table, and even then what is confirmed stays.
pub const PER_TELLER: usize = 64;
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
    /// Its teller has told too many, or the table is full of better ones.
    NoRoom,
}

#[derive(Debug)]
struct Entry {
    record: SignedRecord,
    /// Who told it first; counts against that peer while it is unconfirmed.
    teller: PeerId,
    /// At which of its addresses we had a session with its owner, and when last, in seconds since 1970.
    confirmed: Option<(SocketAddr, u64)>,
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
}

impl Table {
    /// An empty table of the peer `own`.
    pub const fn new(own: PeerId, key: (u64, u64)) -> Self {
        Self { own, key, entries: BTreeMap::new(), sessions: BTreeMap::new() }
    }

    /// A session with a proven identity, at this address.
    pub fn up(&mut self, session: Generation, peer: PeerId, addr: SocketAddr, unix: u64) {
        self.sessions.insert(session, (peer, canonical_addr(addr)));
        self.confirm(&peer, unix);
    }

    /// A session has ended. What it has confirmed stays so.
    pub fn gone(&mut self, session: Generation) {
        self.sessions.remove(&session);
    }

    /// Who is at the other end of a session, and where.
    pub fn session(&self, session: Generation) -> Option<(PeerId, SocketAddr)> {
        self.sessions.get(&session).copied()
    }

    /// Takes a record whose signature holds.
    pub fn take(&mut self, record: SignedRecord, teller: PeerId, unix: u64) -> Taken {
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
        if !self.has_room(&teller, unix) {
            return Taken::NoRoom;
        }
        self.entries.insert(id, Entry { record, teller, confirmed: None });
        self.confirm(&id, unix);
        Taken::New
    }

    /// Forgets what has expired.
    pub fn expire(&mut self, unix: u64) {
        self.entries.retain(|_, entry| entry.record.expiry > unix);
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

    fn confirm(&mut self, peer: &PeerId, unix: u64) {
        let Some(entry) = self.entries.get_mut(peer) else { return };
        let here = |(who, addr): &(PeerId, SocketAddr)| {
            (who == peer && entry.record.addrs.contains(addr)).then_some(*addr)
        };
        if let Some(addr) = self.sessions.values().find_map(here) {
            entry.confirmed = Some((addr, unix));
        }
    }

    /// Makes room for one more of this teller's. Unconfirmed records that end soonest go first, then confirmed ones.
    fn has_room(&mut self, teller: &PeerId, unix: u64) -> bool {
        let unconfirmed = |entry: &&Entry| entry.confirmed.is_none() && entry.teller == *teller;
        if self.entries.values().filter(unconfirmed).count() >= PER_TELLER {
            return false;
        }
        if self.entries.len() < RECORDS {
            return true;
        }
        self.expire(unix);
        let worst = self.entries.iter().min_by_key(|(id, entry)| {
            (entry.confirmed.is_some(), entry.confirmed.map(|(_, at)| at), entry.record.expiry, **id)
        });
        match worst.map(|(id, entry)| (*id, entry.confirmed.is_some())) {
            // One of the others' unconfirmed records is as good as this one: the newer is the more likely to answer.
            Some((id, false)) => self.entries.remove(&id).is_some(),
            // Nothing that was only heard displaces what was confirmed.
            Some((_, true)) => self.entries.len() < RECORDS,
            None => true,
        }
    }
}
