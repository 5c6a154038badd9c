//! Who could help, whom to ask next, and what follows from how they answer. Pure.
//!
//! The work is one thing at any moment: the headers after our tip. It is in exactly one place: waiting, or in the
//! hands of one *primary* peer and of its *hedges*, whom the same was asked because the primary is slow. Whoever
//! answers first moves the tip; the others' answers are recognised as known and cost nothing but their bytes.
//!
//! | a peer | then |
//! |---|---|
//! | answers with something new | stays the first choice |
//! | answers with less than a full message | is believed to have no more than that |
//! | answers with a full message that reaches all it claims | is asked for more; silence is fine then, nothing new is not |
//! | does not answer, though it claims more | rests; the third time in a row it is dropped |
//! | answers with nothing new, though it claims more | the same |
//! | answers with headers of another branch | is asked for what follows them, until they outweigh ours or fill the tree |
//! | answers with [`MOST_FRUITLESS`] messages that bring us no further | rests |
//! | does not answer at our tip | is fine: hsd says nothing then; after a moment's silence it counts as settled |

use std::collections::BTreeMap;
use std::time::Duration;

use rookery_base::{Direction, Generation, Hash32, Height};
use rookery_engine::PeerHandle;
use rookery_runtime::Instant;

/// Primary and hedges that may be out for one piece of work.
const MOST_ASKED: usize = 3;
/// Hedge after three times the best answer so far, within these bounds. hsd takes 0.2 to 1 s for 2,000 headers.
const HEDGE_LEAST: Duration = Duration::from_secs(1);
/// The same, at most; and as long as no answer has been seen.
const HEDGE_MOST: Duration = Duration::from_secs(3);
/// How long a peer that did not help is not asked: longer than its answer would take if it were merely slow.
const REST: Duration = Duration::from_secs(60);
/// A peer that fails this often in a row is dropped; it may come back with a new handshake.
const STRIKES: u32 = 3;
/// Answers in a row that bring new headers and no more work than we have. Eight full messages are as many headers as a
/// tree keeps beside its main chain: a branch that does not outweigh ours by then cannot be followed.
const MOST_FRUITLESS: u32 = 9;
/// A peer that has something answers within this; one that has said nothing until then is at our tip, as far as can be
/// told without waiting for the deadline.
const SILENCE: Duration = Duration::from_millis(1500);
/// While nobody claims more, one peer is asked this often all the same: it finds a fork of equal height, and headers
/// that were announced to nobody.
pub(super) const PROBE: Duration = Duration::from_secs(60);

/// Why a peer was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It claims more than we have.
    Primary,
    /// The primary is slow.
    Hedge,
    /// Its last message was full, so it may have more than it claims. One peer at a time. Silence is a good answer: a
    /// chain can end where a message does.
    More,
    /// To see whether it has anything that it has not told. Silence is a good answer.
    Probe,
}

impl Purpose {
    /// Whether headers are owed: the peer claims them.
    pub const fn is_work(self) -> bool {
        matches!(self, Self::Primary | Self::Hedge)
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub at: Instant,
    pub purpose: Purpose,
    /// Our height when it was asked.
    pub height: Height,
}

#[derive(Debug)]
pub(super) struct Peer {
    pub handle: PeerHandle,
    pub claimed: Height,
    pub asked: Option<Asked>,
    pub rests_until: Option<Instant>,
    pub strikes: u32,
    took: Option<Duration>,
    last_asked: Option<Instant>,
    /// Answers in a row that were new and brought us no further.
    fruitless: u32,
    /// Its last message was full and reached all that it claims.
    more: bool,
    /// The last header that it gave us of another branch than our main chain, when it has more of that.
    pub branch: Option<Hash32>,
    /// As far as can be told, it has nothing that it has not told us of.
    settled: bool,
}

impl Peer {
    const fn helped(&mut self) -> Outcome {
        self.strikes = 0;
        self.fruitless = 0;
        Outcome::Fine
    }

    /// Whether it may have headers after this height although it does not say so.
    const fn may_have_more(&self, height: Height) -> bool {
        self.more && self.claimed == height
    }

    /// It gave us headers of a branch that does not outweigh ours. One that was not full was all that it has.
    fn did_not_help(&mut self, full: bool, now: Instant) -> Outcome {
        self.settled |= !full;
        self.fruitless += 1;
        if self.fruitless < MOST_FRUITLESS {
            return Outcome::Fine;
        }
        self.fruitless = 0;
        self.branch = None;
        Roster::strike(self, now)
    }
}

/// What follows from an answer, or from none.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing.
    Fine,
    /// The peer rests.
    Rests,
    /// The peer is to be dropped.
    Drop,
}

#[derive(Debug, Default)]
pub(super) struct Roster {
    peers: BTreeMap<Generation, Peer>,
    best_took: Option<Duration>,
    last_probe: Option<Instant>,
}

impl Roster {
    pub fn up(&mut self, handle: PeerHandle, claimed: Height) {
        let generation = handle.generation;
        let peer = Peer {
            handle,
            claimed,
            asked: None,
            rests_until: None,
            strikes: 0,
            took: None,
            last_asked: None,
            fruitless: 0,
            more: false,
            branch: None,
            settled: false,
        };
        self.peers.insert(generation, peer);
    }

    pub fn gone(&mut self, generation: Generation) {
        self.peers.remove(&generation);
    }

    pub fn get(&self, generation: Generation) -> Option<&Peer> {
        self.peers.get(&generation)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.peers.values()
    }

    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// The best height that a peer claims, of those that have not failed us.
    pub fn target(&self) -> Option<Height> {
        self.believed().map(|peer| peer.claimed).max()
    }

    /// Whether there are peers that have not failed us, and each of them has told all it has.
    pub fn all_settled(&self, now: Instant) -> bool {
        let silent = |asked: Asked| !asked.purpose.is_work() && now >= asked.at + SILENCE;
        self.believed().count() > 0
            && self.believed().all(|peer| peer.settled || peer.asked.is_some_and(silent))
    }

    /// The peers whose claims count: of those that have not failed us the ones that we chose, when there are any.
    /// Whoever dials us may claim anything, and would otherwise decide whether this node calls itself ready.
    fn believed(&self) -> impl Iterator<Item = &Peer> {
        let ours = |peer: &Peer| peer.strikes == 0 && peer.handle.direction == Direction::Outbound;
        let any = self.peers.values().any(ours);
        self.peers.values().filter(move |peer| peer.strikes == 0 && (!any || ours(peer)))
    }

    /// Requests that are out for the headers after our tip.
    pub fn working(&self) -> usize {
        self.peers.values().filter(|peer| peer.asked.is_some_and(|asked| asked.purpose.is_work())).count()
    }

    /// A peer has told of a header at this height.
    pub fn claims(&mut self, generation: Generation, height: Height) {
        if let Some(peer) = self.peers.get_mut(&generation) {
            peer.more &= peer.claimed >= height;
            peer.claimed = peer.claimed.max(height);
        }
    }

    /// Whom to ask now, and why; to be asked again after each [`asked`](Self::asked) until it says none.
    pub fn next(&self, now: Instant, height: Height) -> Option<(Generation, Purpose)> {
        let purpose = match self.first_asked() {
            None => Purpose::Primary,
            Some(at) if now >= at + self.hedge_after() && self.working() < MOST_ASKED => Purpose::Hedge,
            Some(_) => return None,
        };
        let ahead = self.free(now).filter(|peer| peer.claimed > height);
        if let Some(best) = ahead.min_by_key(|peer| self.rank(peer)) {
            return Some((best.handle.generation, purpose));
        }
        if purpose != Purpose::Primary {
            return None;
        }
        self.more(now, height).or_else(|| self.probe(now, height))
    }

    /// A peer that may have more than it claims, unless one was just asked for that: all would send the same.
    fn more(&self, now: Instant, height: Height) -> Option<(Generation, Purpose)> {
        let out = |asked: Asked| asked.purpose == Purpose::More && now < asked.at + SILENCE;
        if self.peers.values().any(|peer| peer.asked.is_some_and(out)) {
            return None;
        }
        let full = self.free(now).filter(|peer| peer.may_have_more(height));
        full.min_by_key(|peer| self.rank(peer)).map(|peer| (peer.handle.generation, Purpose::More))
    }

    /// A peer to look at though it claims nothing more: each until it has told all, then one after the other.
    fn probe(&self, now: Instant, height: Height) -> Option<(Generation, Purpose)> {
        let due = self.last_probe.is_none_or(|at| now >= at + PROBE);
        let unsettled = self.free(now).find(|peer| !peer.settled && !peer.may_have_more(height));
        let oldest = || self.free(now).filter(|_| due).min_by_key(|peer| peer.last_asked);
        unsettled.or_else(oldest).map(|peer| (peer.handle.generation, Purpose::Probe))
    }

    /// Lower is better: fewer failures, then peers that we chose, then the quickest, then the longest known.
    fn rank(&self, peer: &Peer) -> (u32, bool, Duration, Generation) {
        let took = peer.took.unwrap_or(HEDGE_MOST);
        (peer.strikes, peer.handle.direction == Direction::Inbound, took, peer.handle.generation)
    }

    fn free(&self, now: Instant) -> impl Iterator<Item = &Peer> {
        self.peers
            .values()
            .filter(move |peer| peer.asked.is_none() && peer.rests_until.is_none_or(|until| until <= now))
    }

    fn first_asked(&self) -> Option<Instant> {
        let asked = self.peers.values().filter_map(|peer| peer.asked);
        asked.filter(|asked| asked.purpose.is_work()).map(|asked| asked.at).max()
    }

    fn hedge_after(&self) -> Duration {
        self.best_took.map_or(HEDGE_MOST, |took| (took * 3).clamp(HEDGE_LEAST, HEDGE_MOST))
    }

    pub fn asked(&mut self, generation: Generation, purpose: Purpose, now: Instant, height: Height) {
        if let Some(peer) = self.peers.get_mut(&generation) {
            peer.asked = Some(Asked { at: now, purpose, height });
            peer.last_asked = Some(now);
            if purpose == Purpose::Probe {
                self.last_probe = Some(now);
            }
        }
    }

    /// A request could not be handed over: the peer does not keep up.
    pub fn not_asked(&mut self, generation: Generation, now: Instant) {
        if let Some(peer) = self.peers.get_mut(&generation) {
            peer.rests_until = Some(now + REST);
        }
    }

    /// An answer came, and was taken as far as it goes.
    pub fn answered(&mut self, generation: Generation, answer: &AnswerFacts, now: Instant) -> Outcome {
        let Some(peer) = self.peers.get_mut(&generation) else { return Outcome::Fine };
        let Some(asked) = peer.asked.take() else { return Outcome::Fine };
        let took = now.saturating_duration_since(asked.at);
        let moved_on = answer.height > asked.height;
        peer.more = answer.full && answer.last >= peer.claimed;
        // Less than a full message is all there is; and who repeats what we have is not asked for it again at once.
        peer.settled = !answer.full || answer.new == 0 || (peer.settled && !peer.more);
        peer.claimed = if answer.full { peer.claimed.max(answer.last) } else { answer.last };
        peer.branch = answer.branch;
        if answer.new > 0 {
            peer.took = Some(took);
            self.best_took = Some(self.best_took.map_or(took, |best| best.min(took)));
            return if moved_on { peer.helped() } else { peer.did_not_help(answer.full, now) };
        }
        // The same as somebody else has sent, or nothing at the tip: nobody's fault.
        if moved_on || asked.purpose == Purpose::Probe {
            return Outcome::Fine;
        }
        match (answer.full, asked.purpose.is_work()) {
            (true, _) => Self::strike(peer, now),
            // It claimed more, by a height or an announcement, and has nothing. Once is a race; often is a game.
            (false, true) => peer.did_not_help(false, now),
            (false, false) => Outcome::Fine,
        }
    }

    /// No answer came in time.
    pub fn unanswered(&mut self, generation: Generation, height: Height, now: Instant) -> Outcome {
        let Some(peer) = self.peers.get_mut(&generation) else { return Outcome::Fine };
        let Some(asked) = peer.asked.take() else { return Outcome::Fine };
        peer.settled = true;
        peer.more = false;
        peer.branch = None;
        if !asked.purpose.is_work() || peer.claimed <= height {
            return Outcome::Fine;
        }
        Self::strike(peer, now)
    }

    /// What a peer sent could not be used, through no fault that ends its session.
    pub fn rest(&mut self, generation: Generation, now: Instant) -> Outcome {
        match self.peers.get_mut(&generation) {
            Some(peer) => Self::strike(peer, now),
            None => Outcome::Fine,
        }
    }

    fn strike(peer: &mut Peer, now: Instant) -> Outcome {
        peer.strikes += 1;
        peer.rests_until = Some(now + REST);
        if peer.strikes >= STRIKES { Outcome::Drop } else { Outcome::Rests }
    }

    /// When the next thing is due without anybody's doing: a hedge, the end of a rest, a probe.
    pub fn due(&self, now: Instant) -> Option<Instant> {
        let hedge =
            self.first_asked().filter(|_| self.working() < MOST_ASKED).map(|at| at + self.hedge_after());
        let rests = self.peers.values().filter_map(|peer| peer.rests_until);
        let probe = self.last_probe.filter(|_| !self.peers.is_empty()).map(|at| at + PROBE);
        let asked = self.peers.values().filter_map(|peer| peer.asked);
        let silent = asked.filter(|asked| !asked.purpose.is_work()).map(|asked| asked.at + SILENCE);
        rests.chain(hedge).chain(probe).chain(silent).filter(|at| *at > now).min()
    }
}

/// What an answer brought.
#[derive(Debug, Clone, Copy)]
pub(super) struct AnswerFacts {
    /// Headers that were new to us.
    pub new: usize,
    /// The message was as full as messages get.
    pub full: bool,
    /// Height of the last header that it brought; our own height when it brought none.
    pub last: Height,
    /// Our height now.
    pub height: Height,
    /// The last header that it brought, when the message was full and that header is not on our main chain.
    pub branch: Option<Hash32>,
}
