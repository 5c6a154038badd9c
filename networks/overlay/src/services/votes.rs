//! Under which address others see this node.
//!
//! Every peer says in its hello at which address it sees us. One peer can be wrong or lie, and one operator can run many
//! peers; so an address is believed when peers of [`GROUPS`] different address groups say the same, one vote for each
//! group, and no other address of its family has as many. Behind a translator that gives each connection another port no two
//! agree, and nothing is believed: an address that only one peer can reach is of no use to others.
//!
//! The cheapest abuse is to run liars in several groups, as many as honest peers of other groups agree. What it buys is that
//! we tell a wrong address of ourselves, which others dial in vain once: nothing is trusted for coming from there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use rookery_base::id::canonical_addr;
use rookery_base::{AddrGroup, Generation};

/// Address groups that must agree. An attacker needs addresses in as many of the internet's /16 networks among our peers.
pub const GROUPS: usize = 3;
/// Votes kept. More sessions than this are not needed to know; the oldest votes go first.
pub const MOST: usize = 256;

/// What connected peers say. A vote goes with its session.
#[derive(Debug)]
pub struct Votes {
    groups: usize,
    /// By session: the voter's group, and what it said.
    votes: BTreeMap<Generation, (AddrGroup, SocketAddr)>,
}

impl Default for Votes {
    fn default() -> Self {
        Self::needing(GROUPS)
    }
}

impl Votes {
    /// Votes of which `groups` different groups must agree. Fewer than [`GROUPS`] only where all peers are ours.
    pub const fn needing(groups: usize) -> Self {
        Self { groups, votes: BTreeMap::new() }
    }

    /// A peer at `from` sees us at `seen`.
    pub fn vote(&mut self, session: Generation, from: SocketAddr, seen: SocketAddr) {
        self.votes.insert(session, (AddrGroup::of(from.ip()), canonical_addr(seen)));
        if self.votes.len() > MOST {
            self.votes.pop_first();
        }
    }

    /// A session has ended.
    pub fn gone(&mut self, session: Generation) {
        self.votes.remove(&session);
    }

    /// The addresses that are believed: at most one of each family.
    pub fn believed(&self) -> Vec<SocketAddr> {
        let of_family = |v4| self.winner(|seen| (seen.is_ipv4() == v4).then_some(seen));
        [true, false].into_iter().filter_map(of_family).collect()
    }

    /// Whether this is the IP under which we are seen, whatever the port: enough for an address of which something else has
    /// told the port, and so also behind a translator that gives each connection another one.
    pub fn believed_ip(&self, ip: IpAddr) -> bool {
        self.winner(|seen| (seen.is_ipv4() == ip.is_ipv4()).then_some(seen.ip())) == Some(ip)
    }

    /// What enough groups say, and no other thing is said by as many.
    fn winner<T: Ord>(&self, said: impl Fn(SocketAddr) -> Option<T>) -> Option<T> {
        let mut groups: BTreeMap<T, BTreeSet<AddrGroup>> = BTreeMap::new();
        for (group, seen) in self.votes.values() {
            if let Some(what) = said(*seen) {
                groups.entry(what).or_default().insert(*group);
            }
        }
        let most = groups.values().map(BTreeSet::len).max().filter(|most| *most >= self.groups)?;
        let mut best = groups.into_iter().filter(|(_, by)| by.len() == most).map(|(what, _)| what);
        best.next().filter(|_| best.next().is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(group: u8, host: u8) -> SocketAddr {
        SocketAddr::from(([20, group, 0, host], 7000))
    }

    fn ours(n: u8) -> SocketAddr {
        SocketAddr::from(([8, 8, 8, n], 7000))
    }

    #[test]
    fn three_groups_that_agree_are_believed_and_many_voters_of_one_group_are_not() {
        let mut votes = Votes::default();
        for n in 0..50 {
            votes.vote(Generation(n), from(0, n as u8), ours(66));
        }
        assert_eq!(votes.believed(), []);
        for n in 0..3 {
            votes.vote(Generation(100 + n), from(n as u8, 200), ours(1));
        }
        assert_eq!(votes.believed(), [ours(1)]);
        votes.gone(Generation(102));
        assert_eq!(votes.believed(), [], "a vote goes with its session");
    }

    #[test]
    fn a_tie_and_a_port_for_each_peer_give_nothing() {
        let mut votes = Votes::default();
        for n in 0..6 {
            votes.vote(Generation(n), from(n as u8, 1), ours((n % 2) as u8));
        }
        assert_eq!(votes.believed(), []);
        votes.vote(Generation(7), from(7, 1), ours(1));
        assert_eq!(votes.believed(), [ours(1)]);
        let mut translated = Votes::default();
        for n in 0..9_u16 {
            let seen = SocketAddr::from(([8, 8, 8, 8], 1000 + n));
            translated.vote(Generation(u64::from(n)), from(n as u8, 1), seen);
        }
        assert_eq!(translated.believed(), []);
        assert!(translated.believed_ip([8, 8, 8, 8].into()), "but all agree on the host");
        assert!(!translated.believed_ip([8, 8, 8, 9].into()));
    }

    #[test]
    fn an_ip_needs_as_many_groups_as_an_address() {
        let mut votes = Votes::default();
        for n in 0..50 {
            votes.vote(Generation(n), from(n as u8 % 2, n as u8), ours(1));
        }
        assert!(!votes.believed_ip(ours(1).ip()), "two groups, however many voters");
        (50..53).for_each(|n| votes.vote(Generation(n), from(n as u8, 1), ours(1)));
        assert!(votes.believed_ip(ours(1).ip()));
        (53..58).for_each(|n| votes.vote(Generation(n), from(n as u8, 1), ours(2)));
        assert!(!votes.believed_ip(ours(1).ip()), "a tie gives nothing");
    }

    #[test]
    fn families_are_counted_apart_and_mapped_addresses_are_one() {
        let mut votes = Votes::needing(2);
        votes.vote(Generation(1), from(1, 1), "[::ffff:8.8.8.1]:7000".parse().unwrap());
        votes.vote(Generation(2), from(2, 1), ours(1));
        let v6: SocketAddr = "[2001:db8::1]:7000".parse().unwrap();
        votes.vote(Generation(3), from(3, 1), v6);
        votes.vote(Generation(4), from(4, 1), v6);
        assert_eq!(votes.believed(), [ours(1), v6]);
    }

    #[test]
    fn votes_are_bounded() {
        let mut votes = Votes::default();
        (0..10_000).for_each(|n| votes.vote(Generation(n), from(n as u8, 1), ours(n as u8)));
        assert_eq!(votes.votes.len(), MOST);
    }
}
