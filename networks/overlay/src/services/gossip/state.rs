//! The rules of gossip, pure: events go in, orders for peers and deliveries come out.
//!
//! An id is at any moment in exactly one of: unknown, wanted (with its announcers), seen. A seen item may be held besides,
//! to be served. What belongs to a session goes with it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

use bytes::Bytes;
use rookery_base::{Generation, PeerFault, PeerFaultKind};
use rookery_runtime::Instant;

use super::peer::Peer;
use super::slots::{Bits, Slots};
use super::{
    ASKED_AT_ONCE, CATCH_UP, HEDGE, HELD, HELD_BYTES, HELD_FOR, Judgement, Order, PENDING, REJECT_SCORE,
    SEEN, SEEN_FOR, Validator,
};
use crate::wire::Topic;
use crate::wire::gossip::{Inventory, Item, ItemId, encode_missing, encode_topics};

/// Idle items looked at in one turn for an announcer that has room. The rest has its turn later.
const LOOKED_AT: usize = 256;

/// An item that is being fetched.
#[derive(Debug)]
struct Wanted {
    topic: Topic,
    /// Who has it and was not asked yet, in the order of their announcements.
    announcers: Vec<Generation>,
    /// Who was asked, the oldest first.
    asked: VecDeque<Generation>,
    /// When somebody was asked last.
    asked_at: Option<Instant>,
    /// When the next is asked; none while there is nobody to ask or nobody was asked.
    hedge: Option<Instant>,
}

impl Wanted {
    const fn of(topic: Topic) -> Self {
        Self { topic, announcers: Vec::new(), asked: VecDeque::new(), asked_at: None, hedge: None }
    }
}

/// An item that can be served.
#[derive(Debug)]
struct Held {
    topic: Topic,
    /// Its message's body.
    body: Bytes,
    /// Who has it or was told of it.
    told: Bits,
    /// Who was served.
    served: Bits,
}

/// What all neighbours have said. See the module's page.
#[derive(Default)]
pub(super) struct State {
    peers: BTreeMap<Generation, Peer>,
    slots: Slots,
    subscriptions: BTreeMap<Topic, Validator>,
    wanted: BTreeMap<ItemId, Wanted>,
    /// Wanted ids that nobody is asked for.
    idle: BTreeSet<ItemId>,
    /// The idle id that was looked at last.
    looked_at: ItemId,
    /// When wanted ids are looked at again.
    hedges: BTreeSet<(Instant, ItemId)>,
    held: BTreeMap<ItemId, Held>,
    held_order: VecDeque<(Instant, ItemId)>,
    held_bytes: usize,
    seen: BTreeSet<ItemId>,
    seen_order: VecDeque<(Instant, ItemId)>,
    /// Peers with something to be handed over.
    dirty: BTreeSet<Generation>,
}

impl State {
    pub fn up(&mut self, session: Generation) {
        let slot = self.slots.take();
        self.peers.insert(session, Peer::new(slot));
        if !self.subscriptions.is_empty() {
            let topics = encode_topics(self.subscriptions.keys());
            self.order(session, Order::Topics(topics));
        }
    }

    pub fn gone(&mut self, session: Generation) {
        let Some(peer) = self.peers.remove(&session) else { return };
        self.dirty.remove(&session);
        for id in peer.pending {
            if let Some(wanted) = self.wanted.get_mut(&id) {
                wanted.announcers.retain(|other| *other != session);
                wanted.asked.retain(|other| *other != session);
            }
            self.settle(id);
        }
        for held in self.held.values_mut() {
            held.told.remove(peer.slot);
            held.served.remove(peer.slot);
        }
        self.slots.give_back(peer.slot);
    }

    /// False when as many topics are subscribed to as a peer may be told.
    pub fn subscribe(&mut self, topic: Topic, validator: Validator) -> bool {
        let full = self.subscriptions.len() == crate::wire::gossip::MAX_TOPICS;
        if full && !self.subscriptions.contains_key(&topic) {
            return false;
        }
        self.subscriptions.insert(topic, validator);
        self.tell_topics();
        true
    }

    pub fn unsubscribe(&mut self, topic: &Topic) {
        if self.subscriptions.remove(topic).is_some() {
            self.tell_topics();
        }
    }

    fn tell_topics(&mut self) {
        let body = encode_topics(self.subscriptions.keys());
        let sessions: Vec<Generation> = self.peers.keys().copied().collect();
        for session in sessions {
            self.order(session, Order::Topics(body.clone()));
        }
    }

    /// A peer's topics. It is told of the newest items under those that it did not have before.
    pub fn topics(&mut self, session: Generation, topics: Vec<Topic>) {
        let Some(peer) = self.peers.get_mut(&session) else { return };
        let topics: BTreeSet<Topic> = topics.into_iter().collect();
        let before = std::mem::replace(&mut peer.topics, topics);
        let (slot, after) = (peer.slot, &peer.topics);
        let added = |topic: &Topic| after.contains(topic) && !before.contains(topic);
        let mut news: Vec<ItemId> = Vec::new();
        for (_, id) in self.held_order.iter().rev() {
            if news.len() == CATCH_UP {
                break;
            }
            if self.held.get(id).is_some_and(|held| added(&held.topic) && !held.told.contains(slot)) {
                news.push(*id);
            }
        }
        news.into_iter().rev().for_each(|id| self.announce(session, id));
    }

    /// A peer has these items.
    pub fn announced(&mut self, session: Generation, inventory: &Inventory) {
        let listened_to = self.subscriptions.contains_key(&inventory.topic);
        for id in inventory.ids() {
            let Some(peer) = self.peers.get_mut(&session) else { return };
            if let Some(held) = self.held.get_mut(&id) {
                held.told.insert(peer.slot);
            }
            if !listened_to || self.seen.contains(&id) || peer.pending.len() == PENDING {
                continue;
            }
            if !peer.pending.insert(id) {
                continue;
            }
            let idle = &mut self.idle;
            let wanted = self.wanted.entry(id).or_insert_with(|| {
                idle.insert(id);
                Wanted::of(inventory.topic.clone())
            });
            wanted.announcers.push(session);
            // There was nobody else to ask until now.
            if wanted.hedge.is_none()
                && let Some(asked_at) = wanted.asked_at.filter(|_| !wanted.asked.is_empty())
            {
                wanted.hedge = Some(asked_at + HEDGE);
                self.hedges.insert((asked_at + HEDGE, id));
            }
        }
    }

    /// A peer wants an item: it gets it once.
    pub fn wants(&mut self, session: Generation, id: ItemId) {
        let Some(slot) = self.peers.get(&session).map(|peer| peer.slot) else { return };
        let held = self.held.get_mut(&id).filter(|held| !held.served.contains(slot));
        let body = match held {
            Some(held) => {
                held.served.insert(slot);
                held.told.insert(slot);
                held.body.clone()
            }
            None => encode_missing(&id),
        };
        self.order(session, Order::Serve(body));
    }

    /// An answer to a want. The item comes back when it is to be delivered.
    pub fn answered(
        &mut self,
        session: Generation,
        id: ItemId,
        item: Option<(Item, Bytes)>,
        now: Instant,
    ) -> Option<Item> {
        let Some((item, body)) = item else {
            self.failed(session, id);
            return None;
        };
        let peer = self.peers.get_mut(&session)?;
        let (slot, wanted) = (peer.slot, self.wanted.get(&id)?);
        if !wanted.asked.contains(&session) {
            return None;
        }
        peer.failures = peer.failures.saturating_sub(1);
        let mislabelled = wanted.topic != item.topic;
        self.finish(id, session, now);
        if mislabelled {
            self.blame(session, "an item under another topic than it was announced");
            return None;
        }
        let judgement = match self.subscriptions.get(&item.topic) {
            Some(validator) => validator(&item.topic, &item.payload),
            // Unsubscribed while it was on its way.
            None => Judgement::Ignore,
        };
        match judgement {
            Judgement::Ignore => return None,
            Judgement::Reject => {
                self.blame(session, "an item that the application rejects");
                return None;
            }
            Judgement::Accept => {}
        }
        self.hold(id, item.topic.clone(), body, now);
        if let Some(held) = self.held.get_mut(&id) {
            held.told.insert(slot);
        }
        self.spread(id);
        Some(item)
    }

    /// A want has ended without the item.
    pub fn failed(&mut self, session: Generation, id: ItemId) {
        let Some(wanted) = self.wanted.get_mut(&id) else { return };
        let Some(at) = wanted.asked.iter().position(|other| *other == session) else { return };
        wanted.asked.remove(at);
        if let Some(peer) = self.peers.get_mut(&session) {
            peer.failed(&id);
        }
        self.settle(id);
    }

    /// Publishes. The id, whether or not anybody is there to be told; none when exactly this was published before.
    pub fn publish(&mut self, item: &Item, now: Instant) -> Option<ItemId> {
        let id = item.id();
        if self.seen.contains(&id) {
            return None;
        }
        self.see(id, now);
        self.hold(id, item.topic.clone(), item.encode(), now);
        self.spread(id);
        Some(id)
    }

    /// When [`State::tick`] has something to do.
    pub fn due(&self) -> Option<Instant> {
        let hedge = self.hedges.first().map(|(at, _)| *at);
        let held = self.held_order.front().map(|(at, _)| *at + HELD_FOR);
        let seen = self.seen_order.front().map(|(at, _)| *at + SEEN_FOR);
        [hedge, held, seen].into_iter().flatten().min()
    }

    /// Asks whom there is to ask, and further announcers where the first is slow; forgets what is old. After each event.
    pub fn tick(&mut self, now: Instant) {
        while let Some((at, id)) = self.hedges.first().copied()
            && at <= now
        {
            self.hedges.pop_first();
            if let Some(wanted) = self.wanted.get_mut(&id) {
                wanted.hedge = None;
                if !self.ask(id, now) {
                    self.hedge_later(id, now);
                }
            }
        }
        while let Some((at, _)) = self.held_order.front()
            && *at + HELD_FOR <= now
        {
            self.release_oldest();
        }
        while let Some((at, id)) = self.seen_order.front().copied()
            && at + SEEN_FOR <= now
        {
            self.seen_order.pop_front();
            self.seen.remove(&id);
        }
        self.ask_idle(now);
    }

    /// What a peer's routine is to be given next, for each peer that has something. What it does not take comes back by
    /// [`State::give_back`].
    pub fn orders(&mut self) -> Vec<(Generation, Vec<Order>)> {
        let dirty = std::mem::take(&mut self.dirty);
        dirty
            .into_iter()
            .filter_map(|session| Some((session, self.peers.get_mut(&session)?.drain())))
            .collect()
    }

    /// Orders that found no room, to be given again.
    pub fn give_back(&mut self, session: Generation, orders: Vec<Order>) {
        let Some(peer) = self.peers.get_mut(&session) else { return };
        for order in orders.into_iter().rev() {
            match order {
                Order::Announce(topic, ids) => {
                    ids.into_iter().rev().for_each(|id| peer.tell.push_front((topic.clone(), id)));
                }
                order => peer.orders.push_front(order),
            }
        }
        peer.trim();
        self.dirty.insert(session);
    }

    fn order(&mut self, session: Generation, order: Order) {
        let Some(peer) = self.peers.get_mut(&session) else { return };
        peer.orders.push_back(order);
        peer.trim();
        self.dirty.insert(session);
    }

    fn blame(&mut self, session: Generation, what: &'static str) {
        let fault = PeerFault::score(REJECT_SCORE, PeerFaultKind::InvalidData, what);
        self.order(session, Order::Fault(fault));
    }

    /// Tells all subscribers that do not know of it.
    fn spread(&mut self, id: ItemId) {
        let Some(held) = self.held.get(&id) else { return };
        let wants = |(session, peer): (&Generation, &Peer)| {
            (peer.topics.contains(&held.topic) && !held.told.contains(peer.slot)).then_some(*session)
        };
        let sessions: Vec<Generation> = self.peers.iter().filter_map(wants).collect();
        sessions.into_iter().for_each(|session| self.announce(session, id));
    }

    fn announce(&mut self, session: Generation, id: ItemId) {
        let (Some(held), Some(peer)) = (self.held.get_mut(&id), self.peers.get_mut(&session)) else { return };
        held.told.insert(peer.slot);
        peer.tell.push_back((held.topic.clone(), id));
        peer.trim();
        self.dirty.insert(session);
    }

    fn hold(&mut self, id: ItemId, topic: Topic, body: Bytes, now: Instant) {
        self.held_bytes += body.len();
        self.held.insert(id, Held { topic, body, told: Bits::default(), served: Bits::default() });
        self.held_order.push_back((now, id));
        while self.held.len() > HELD || self.held_bytes > HELD_BYTES {
            self.release_oldest();
        }
    }

    fn release_oldest(&mut self) {
        if let Some((_, id)) = self.held_order.pop_front()
            && let Some(held) = self.held.remove(&id)
        {
            self.held_bytes -= held.body.len();
        }
    }

    fn see(&mut self, id: ItemId, now: Instant) {
        if self.seen.insert(id) {
            self.seen_order.push_back((now, id));
        }
        if self.seen.len() > SEEN
            && let Some((_, oldest)) = self.seen_order.pop_front()
        {
            self.seen.remove(&oldest);
        }
    }

    /// The item is here: nobody else is asked, and its id is seen.
    fn finish(&mut self, id: ItemId, from: Generation, now: Instant) {
        let Some(wanted) = self.wanted.remove(&id) else { return };
        if let Some(at) = wanted.hedge {
            self.hedges.remove(&(at, id));
        }
        for session in &wanted.asked {
            if let Some(peer) = self.peers.get_mut(session) {
                peer.open -= 1;
            }
            if *session != from {
                self.order(*session, Order::Cancel(id));
            }
        }
        for session in wanted.announcers.iter().chain(&wanted.asked) {
            if let Some(peer) = self.peers.get_mut(session) {
                peer.pending.remove(&id);
            }
        }
        self.idle.remove(&id);
        self.see(id, now);
    }

    /// After an announcer has gone or failed: an item that nobody is asked for is idle, or forgotten when nobody has it.
    fn settle(&mut self, id: ItemId) {
        let Some(wanted) = self.wanted.get_mut(&id) else { return };
        if !wanted.asked.is_empty() {
            return;
        }
        if let Some(at) = wanted.hedge.take() {
            self.hedges.remove(&(at, id));
        }
        if wanted.announcers.is_empty() {
            self.wanted.remove(&id);
            self.idle.remove(&id);
        } else {
            self.idle.insert(id);
        }
    }

    fn ask_idle(&mut self, now: Instant) {
        let after = (Bound::Excluded(self.looked_at), Bound::Unbounded);
        let from_here = self.idle.range(after).chain(self.idle.range(..=self.looked_at));
        let ids: Vec<ItemId> = from_here.take(LOOKED_AT).copied().collect();
        for id in ids {
            self.looked_at = id;
            if self.ask(id, now) {
                self.idle.remove(&id);
            }
        }
    }

    fn hedge_later(&mut self, id: ItemId, now: Instant) {
        if let Some(wanted) = self.wanted.get_mut(&id)
            && !wanted.announcers.is_empty()
        {
            wanted.hedge = Some(now + HEDGE);
            self.hedges.insert((now + HEDGE, id));
        }
    }

    /// Asks the announcer that has failed least and has room. False when there is none.
    fn ask(&mut self, id: ItemId, now: Instant) -> bool {
        let Some(wanted) = self.wanted.get_mut(&id) else { return false };
        let free = |session: &Generation| self.peers.get(session).is_some_and(Peer::has_room);
        let failures = |session: &Generation| self.peers.get(session).map_or(u32::MAX, |peer| peer.failures);
        let candidates = wanted.announcers.iter().enumerate().filter(|(_, session)| free(session));
        let Some((at, _)) = candidates.min_by_key(|(at, session)| (failures(session), *at)) else {
            return false;
        };
        let session = wanted.announcers.remove(at);
        wanted.asked.push_back(session);
        wanted.asked_at = Some(now);
        let given_up = (wanted.asked.len() > ASKED_AT_ONCE).then(|| wanted.asked.pop_front()).flatten();
        self.hedge_later(id, now);
        if let Some(peer) = self.peers.get_mut(&session) {
            peer.open += 1;
        }
        self.order(session, Order::Want(id));
        if let Some(slow) = given_up {
            if let Some(peer) = self.peers.get_mut(&slow) {
                peer.failed(&id);
            }
            self.order(slow, Order::Cancel(id));
        }
        true
    }

    /// Compares what is kept twice, and holds it against the bounds. For tests.
    #[cfg(test)]
    pub fn audit(&self) {
        use super::{BACKLOG, OPEN_WANTS};
        for (session, peer) in &self.peers {
            let open = self.wanted.values().filter(|wanted| wanted.asked.contains(session)).count();
            assert_eq!(peer.open, open, "wants open towards {session}");
            assert!(peer.open <= usize::from(OPEN_WANTS) && peer.pending.len() <= PENDING);
            assert!(peer.orders.len() + peer.tell.len() <= 2 * BACKLOG);
            let named =
                |wanted: &Wanted| wanted.asked.contains(session) || wanted.announcers.contains(session);
            let pending: BTreeSet<ItemId> =
                self.wanted.iter().filter(|(_, wanted)| named(wanted)).map(|(id, _)| *id).collect();
            assert_eq!(peer.pending, pending, "ids pending through {session}");
        }
        for (id, wanted) in &self.wanted {
            assert!(wanted.asked.len() <= ASKED_AT_ONCE);
            assert!(!wanted.asked.is_empty() || !wanted.announcers.is_empty(), "nobody has {id}");
            assert!(!wanted.asked.is_empty() || self.idle.contains(id), "nobody looks after {id}");
            assert!(!self.seen.contains(id));
        }
        assert_eq!(self.held.len(), self.held_order.len());
        assert_eq!(self.held.values().map(|held| held.body.len()).sum::<usize>(), self.held_bytes);
        assert!(self.held.len() <= HELD && self.held_bytes <= HELD_BYTES && self.seen.len() <= SEEN);
        assert_eq!(self.seen.len(), self.seen_order.len());
    }
}
