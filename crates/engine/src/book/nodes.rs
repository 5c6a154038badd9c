//! The entries themselves: found by address in rising order, or at once by the number of their slot.
//!
//! Buckets remember slots, because judging a full bucket looks at all its entries for each newcomer: by address that
//! would be the most expensive thing a peer can ask for. Slot numbers depend on history, so nothing is ordered by them.

use std::collections::BTreeMap;
use std::ops::{Index, IndexMut};

use super::entry::{Key, Node};

/// Where an entry is kept, as long as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot(u32);

/// Entries by address and by slot.
#[derive(Debug, Clone, Default)]
pub(super) struct Nodes {
    slots: BTreeMap<Key, Slot>,
    nodes: Vec<Node>,
    /// Slots whose entry is gone; their nodes are leftovers.
    free: Vec<Slot>,
}

impl Nodes {
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Adds an entry for an address that has none.
    pub(super) fn insert(&mut self, key: Key, node: Node) -> Slot {
        let slot = match self.free.pop() {
            Some(slot) => {
                self[slot] = node;
                slot
            }
            None => {
                self.nodes.push(node);
                Slot(u32::try_from(self.nodes.len() - 1).expect("the tables have fewer than 2^32 places"))
            }
        };
        assert!(self.slots.insert(key, slot).is_none(), "the caller has looked for the address");
        slot
    }

    pub(super) fn remove(&mut self, key: &Key) -> Option<Node> {
        let slot = self.slots.remove(key)?;
        self.free.push(slot);
        Some(self[slot])
    }

    pub(super) fn find(&self, key: &Key) -> Option<Slot> {
        self.slots.get(key).copied()
    }

    /// All entries, in address order.
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = (Key, &Node)> {
        self.slots.iter().map(|(key, slot)| (*key, &self[*slot]))
    }
}

impl Index<Slot> for Nodes {
    type Output = Node;

    fn index(&self, slot: Slot) -> &Node {
        &self.nodes[slot.0 as usize]
    }
}

impl IndexMut<Slot> for Nodes {
    fn index_mut(&mut self, slot: Slot) -> &mut Node {
        &mut self.nodes[slot.0 as usize]
    }
}
