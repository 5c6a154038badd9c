//! One neighbour, as the reactor of gossip sees it.

use std::collections::{BTreeSet, VecDeque};

use super::{BACKLOG, OPEN_WANTS, Order};
use crate::wire::Topic;
use crate::wire::gossip::{ItemId, MAX_IDS};

/// One neighbour.
#[derive(Debug)]
pub(super) struct Peer {
    /// Its number in the sets of who was told.
    pub slot: usize,
    pub topics: BTreeSet<Topic>,
    /// Wanted ids that it has announced.
    pub pending: BTreeSet<ItemId>,
    /// Wants open towards it.
    pub open: usize,
    /// Wants that failed, less those that succeeded.
    pub failures: u32,
    /// What it is to do, until its routine has taken it.
    pub orders: VecDeque<Order>,
    /// What it is to be told of, behind the orders.
    pub tell: VecDeque<(Topic, ItemId)>,
}

impl Peer {
    pub const fn new(slot: usize) -> Self {
        Self {
            slot,
            topics: BTreeSet::new(),
            pending: BTreeSet::new(),
            open: 0,
            failures: 0,
            orders: VecDeque::new(),
            tell: VecDeque::new(),
        }
    }

    /// Whether a further want may be open towards it.
    pub fn has_room(&self) -> bool {
        self.open < usize::from(OPEN_WANTS)
    }

    /// A want has ended badly, or was given up.
    pub fn failed(&mut self, id: &ItemId) {
        self.open -= 1;
        self.failures = self.failures.saturating_add(1);
        self.pending.remove(id);
    }

    /// All that it is to do and to be told of, the latter in as few inventories as it takes.
    pub fn drain(&mut self) -> Vec<Order> {
        let mut orders: Vec<Order> = self.orders.drain(..).collect();
        while let Some((topic, id)) = self.tell.pop_front() {
            let mut ids = vec![id];
            while ids.len() < MAX_IDS
                && let Some((_, id)) = self.tell.pop_front_if(|(next, _)| *next == topic)
            {
                ids.push(id);
            }
            orders.push(Order::Announce(topic, ids));
        }
        orders
    }

    /// Drops the oldest of what a peer does not take: what it would be told or served, never what keeps the count of our own
    /// wants.
    pub fn trim(&mut self) {
        if self.orders.len() > BACKLOG
            && let Some(at) = self.orders.iter().position(|order| matches!(order, Order::Serve(_)))
        {
            self.orders.remove(at);
        }
        while self.tell.len() > BACKLOG {
            self.tell.pop_front();
        }
    }
}
