//! Whose an address is, as far as planning dials needs to know: an address of a peer that is connected already, by
//! whichever side's dial, is not dialled. It would cost both a whole handshake, to end as a duplicate.
//!
//! | an address is a connected peer's | because | until |
//! |---|---|---|
//! | a session runs there | seen | it ends |
//! | that peer was the last to answer there | its handshake has proven it | [`ANSWER`], or somebody else answers |
//! | who answered there said that another connection stays, before it could say who it is | told | [`UNNAMED`] |
//! | that peer says so in its record, and its session is with the same IP | claimed | the session ends |
//!
//! **Abuse.** What a peer merely claims counts for its own IP alone: somebody who is connected cannot keep a node from dialling
//! others by calling their addresses its own. An address that has changed hands is dialled again within an hour, or
//! as soon as its former owner is not connected. On wires that prove no identity only running sessions count.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use rookery_base::id::canonical_addr;
use rookery_base::{Direction, Generation, PeerId};
use rookery_runtime::Instant;

use crate::registry::watch::{Change, StateChange};
use crate::{PeerFacts, Precedence};

/// How long the last answer tells whose an address is: addresses are leased for hours or days, and one wasted handshake in an
/// hour is nothing.
const ANSWER: Duration = Duration::from_secs(3600);
/// The same where it is not known which of the connected peers it was.
const UNNAMED: Duration = Duration::from_secs(600);
/// Addresses whose last answer is remembered, half a megabyte; the one that answered longest ago goes. A node dials fewer
/// in [`ANSWER`].
const ANSWERS: usize = 4096;
/// Claims of one session: two records' worth, so that a new one with other addresses fits beside the old.
const CLAIMS: usize = 16;

/// Who answered at an address; none: a peer that is connected, not known which.
#[derive(Debug)]
struct Answer {
    peer: Option<PeerId>,
    at: Instant,
    turn: u64,
}

/// A session.
#[derive(Debug)]
struct Seat {
    /// None where nothing is proven.
    peer: Option<PeerId>,
    addr: SocketAddr,
    claims: Vec<SocketAddr>,
}

/// What is known of addresses and their owners.
#[derive(Debug, Default)]
pub(crate) struct Whose {
    seats: BTreeMap<Generation, Seat>,
    /// Sessions of each proven peer.
    peers: BTreeMap<PeerId, Vec<Generation>>,
    /// How many sessions run at an address, or claim it with right.
    held: BTreeMap<SocketAddr, usize>,
    answers: BTreeMap<SocketAddr, Answer>,
    /// The same addresses, by when they answered.
    turns: BTreeMap<u64, SocketAddr>,
    turn: u64,
}

impl Whose {
    /// A session has begun or ended.
    pub fn changed(&mut self, told: &StateChange, now: Instant) {
        match told.change {
            Change::Connected => self.connected(told.generation, &told.facts, now),
            Change::Lost(_) => self.lost(told.generation),
        }
    }

    fn connected(&mut self, generation: Generation, facts: &PeerFacts, now: Instant) {
        let peer = (facts.precedence != Precedence::NONE).then_some(facts.peer);
        let addr = canonical_addr(facts.addr);
        if let Some(peer) = peer {
            self.peers.entry(peer).or_default().push(generation);
            if facts.direction == Direction::Outbound {
                self.answered(addr, Some(peer), now);
            }
        }
        *self.held.entry(addr).or_default() += 1;
        self.seats.insert(generation, Seat { peer, addr, claims: Vec::new() });
    }

    fn lost(&mut self, generation: Generation) {
        let Some(seat) = self.seats.remove(&generation) else { return };
        for addr in seat.claims.into_iter().chain([seat.addr]) {
            if let Some(held) = self.held.get_mut(&addr) {
                *held -= 1;
                if *held == 0 {
                    self.held.remove(&addr);
                }
            }
        }
        if let Some(peer) = seat.peer
            && let Some(sessions) = self.peers.get_mut(&peer)
        {
            sessions.retain(|session| *session != generation);
            if sessions.is_empty() {
                self.peers.remove(&peer);
            }
        }
    }

    /// A dial of this address has reached a peer; none: one that has a connection to us already.
    pub fn answered(&mut self, addr: SocketAddr, peer: Option<PeerId>, now: Instant) {
        let addr = canonical_addr(addr);
        self.turn += 1;
        let answer = Answer { peer, at: now, turn: self.turn };
        if let Some(before) = self.answers.insert(addr, answer) {
            self.turns.remove(&before.turn);
        }
        self.turns.insert(self.turn, addr);
        if self.turns.len() > ANSWERS
            && let Some((_, oldest)) = self.turns.pop_first()
        {
            self.answers.remove(&oldest);
        }
    }

    /// A peer's record names this address as its own.
    pub fn claimed(&mut self, addr: SocketAddr, peer: &PeerId) {
        let addr = canonical_addr(addr);
        for generation in self.peers.get(peer).into_iter().flatten() {
            let Some(seat) = self.seats.get_mut(generation) else { continue };
            let new = seat.addr.ip() == addr.ip() && seat.addr != addr && !seat.claims.contains(&addr);
            if new && seat.claims.len() < CLAIMS {
                seat.claims.push(addr);
                *self.held.entry(addr).or_default() += 1;
            }
        }
    }

    /// Whether the address is, as far as is known, a peer's that is connected.
    pub fn is_connected(&self, addr: SocketAddr, now: Instant) -> bool {
        let addr = canonical_addr(addr);
        let answers_for_connected = |answer: &Answer| {
            let age = now.saturating_duration_since(answer.at);
            match &answer.peer {
                Some(peer) => age < ANSWER && self.peers.contains_key(peer),
                None => age < UNNAMED,
            }
        };
        self.held.contains_key(&addr) || self.answers.get(&addr).is_some_and(answers_for_connected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rookery_runtime::Clock;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn peer(number: u8) -> PeerId {
        PeerId::from_bytes(&[number; 32]).unwrap()
    }

    fn facts(number: u8, at: &str, direction: Direction) -> PeerFacts {
        let precedence = Precedence { incarnation: 1, attempt: 1 };
        PeerFacts { precedence, ..PeerFacts::of(peer(number), addr(at), direction) }
    }

    fn now() -> Instant {
        Clock::system().now()
    }

    #[test]
    fn a_peer_that_came_to_us_is_not_dialled_where_it_answered_before_until_it_leaves() {
        let (mut whose, now) = (Whose::default(), now());
        whose.answered(addr("[::ffff:1.1.1.1]:7"), Some(peer(1)), now);
        assert!(!whose.is_connected(addr("1.1.1.1:7"), now));
        whose.connected(Generation(1), &facts(1, "9.9.9.9:5555", Direction::Inbound), now);
        whose.connected(Generation(2), &facts(1, "9.9.9.9:5556", Direction::Inbound), now);
        assert!(whose.is_connected(addr("1.1.1.1:7"), now) && whose.is_connected(addr("9.9.9.9:5555"), now));
        assert!(!whose.is_connected(addr("1.1.1.1:7"), now + ANSWER), "addresses change hands");
        whose.lost(Generation(1));
        whose.lost(Generation(1));
        assert!(whose.is_connected(addr("1.1.1.1:7"), now), "its other session is still there");
        whose.lost(Generation(2));
        assert!(!whose.is_connected(addr("1.1.1.1:7"), now));
        assert!(whose.held.is_empty() && whose.peers.is_empty() && whose.seats.is_empty());
    }

    #[test]
    fn who_answers_last_owns_the_address_and_one_that_did_not_say_who_it_is_rests() {
        let (mut whose, now) = (Whose::default(), now());
        whose.connected(Generation(1), &facts(1, "1.1.1.1:7", Direction::Outbound), now);
        whose.connected(Generation(2), &facts(1, "2.2.2.2:7", Direction::Inbound), now);
        whose.lost(Generation(1));
        assert!(whose.is_connected(addr("1.1.1.1:7"), now));
        whose.answered(addr("1.1.1.1:7"), Some(peer(2)), now);
        assert!(!whose.is_connected(addr("1.1.1.1:7"), now), "another peer is there now");
        whose.answered(addr("3.3.3.3:7"), None, now);
        assert!(whose.is_connected(addr("3.3.3.3:7"), now));
        assert!(!whose.is_connected(addr("3.3.3.3:7"), now + UNNAMED));
    }

    #[test]
    fn claims_count_for_the_claimers_own_ip_and_as_long_as_it_is_there() {
        let (mut whose, now) = (Whose::default(), now());
        let own = addr("5.5.5.5:4000");
        whose.claimed(own, &peer(1));
        assert!(!whose.is_connected(own, now), "nobody is connected");
        whose.connected(Generation(1), &facts(1, "5.5.5.5:50000", Direction::Inbound), now);
        whose.claimed(addr("6.6.6.6:4000"), &peer(1));
        assert!(!whose.is_connected(addr("6.6.6.6:4000"), now), "somebody else's");
        for port in 4000..5000 {
            whose.claimed(SocketAddr::new(own.ip(), port), &peer(1));
        }
        assert!(whose.is_connected(own, now));
        assert_eq!(whose.held.len(), 1 + CLAIMS);
        whose.lost(Generation(1));
        assert!(!whose.is_connected(own, now) && whose.held.is_empty());
    }

    #[test]
    fn what_is_not_proven_counts_for_running_sessions_alone_and_memory_is_bounded() {
        let (mut whose, now) = (Whose::default(), now());
        let unproven = PeerFacts::of(peer(1), addr("1.1.1.1:7"), Direction::Outbound);
        whose.connected(Generation(1), &unproven, now);
        whose.claimed(addr("1.1.1.1:8"), &peer(1));
        assert!(whose.is_connected(addr("1.1.1.1:7"), now) && !whose.is_connected(addr("1.1.1.1:8"), now));
        whose.lost(Generation(1));
        assert!(!whose.is_connected(addr("1.1.1.1:7"), now));
        for n in 0..2 * ANSWERS as u32 {
            whose.answered(SocketAddr::new(std::net::IpAddr::V4(n.into()), 1), Some(peer(1)), now);
            whose.answered(addr("7.7.7.7:7"), Some(peer(1)), now);
        }
        assert_eq!((whose.answers.len(), whose.turns.len()), (ANSWERS, ANSWERS));
    }
}
