//! Headers that are not on the main chain: a bounded forest that hangs on it.
//!
//! A *root* is a side header whose parent is on the main chain, a *leaf* one without children. Only leaves are ever
//! evicted, so what is kept always hangs together. Who is evicted when there is no room: see [`Side::add`].

use std::collections::{BTreeSet, HashMap};

use rookery_base::{Hash32, Height, Work};

use super::window::Recent;
use crate::chain::Ancestor;

/// Where a side header is kept.
pub(super) type Id = u32;

/// One side header, beside its bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node {
    /// Hash, time, bits, and work of its branch up to and including it.
    pub(super) recent: Recent,
    pub(super) height: Height,
    /// `None` for a root.
    pub(super) parent: Option<Id>,
    /// Who sent it.
    source: u64,
    children: u32,
}

impl Node {
    pub(super) const fn ancestor(&self) -> Ancestor {
        self.recent.ancestor()
    }
}

/// A header to keep.
#[derive(Debug, Clone, Copy)]
pub(super) struct NewNode<'a> {
    pub(super) recent: Recent,
    pub(super) raw: &'a [u8],
    pub(super) height: Height,
    pub(super) parent: Option<Id>,
    pub(super) source: u64,
}

#[derive(Debug)]
pub(super) struct Side {
    header_len: usize,
    /// Headers kept at most.
    most: usize,
    nodes: Vec<Option<Node>>,
    raw: Vec<u8>,
    free: Vec<Id>,
    by_hash: HashMap<Hash32, Id>,
    /// By the height of the main-chain parent.
    roots: BTreeSet<(Height, Id)>,
    leaves: BTreeSet<(Work, Id)>,
    leaves_of: BTreeSet<(u64, Work, Id)>,
}

impl Side {
    pub(super) fn new(header_len: usize, most: usize) -> Self {
        Self {
            header_len,
            most,
            nodes: Vec::new(),
            raw: Vec::new(),
            free: Vec::new(),
            by_hash: HashMap::new(),
            roots: BTreeSet::new(),
            leaves: BTreeSet::new(),
            leaves_of: BTreeSet::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_hash.len()
    }

    /// The leaf with the most work.
    pub(super) fn best(&self) -> Option<(Work, Id)> {
        self.leaves.last().copied()
    }

    pub(super) fn find(&self, hash: &Hash32) -> Option<Id> {
        self.by_hash.get(hash).copied()
    }

    pub(super) fn node(&self, id: Id) -> &Node {
        self.nodes[id as usize].as_ref().expect("ids are handed out for kept headers and dropped with them")
    }

    fn node_mut(&mut self, id: Id) -> &mut Node {
        self.nodes[id as usize].as_mut().expect("ids are handed out for kept headers and dropped with them")
    }

    pub(super) fn raw(&self, id: Id) -> &[u8] {
        let start = id as usize * self.header_len;
        &self.raw[start..start + self.header_len]
    }

    /// Keeps a header. With as many kept as there may be, one leaf makes room: the lowest in work of the same
    /// source, or, if that source has no other, the lowest in work of all. Never the parent, which is the end of the
    /// branch that is growing. `None`: nothing could make room.
    ///
    /// A flood of branches from one source therefore displaces its own headers; a branch that grows towards more work
    /// displaces the flood.
    pub(super) fn add(&mut self, new: &NewNode<'_>) -> Option<Id> {
        if self.len() >= self.most {
            let victim = self.victim(new.source, new.parent)?;
            self.remove_leaf(victim);
        }
        let node = Node {
            recent: new.recent,
            height: new.height,
            parent: new.parent,
            source: new.source,
            children: 0,
        };
        let id = self.place(node, new.raw);
        self.by_hash.insert(new.recent.hash, id);
        self.mark_leaf(id);
        match new.parent {
            Some(parent) => self.count_child(parent),
            None => {
                self.roots.insert((new.height - 1, id));
            }
        }
        Some(id)
    }

    fn victim(&self, source: u64, spared: Option<Id>) -> Option<Id> {
        let own = (source, Work::ZERO, Id::MIN)..=(source, Work::MAX, Id::MAX);
        let own = self.leaves_of.range(own).map(|leaf| leaf.2);
        own.chain(self.leaves.iter().map(|leaf| leaf.1)).find(|id| Some(*id) != spared)
    }

    /// Drops leaves, lowest in work first, until `count` more headers find room. Whether they can.
    pub(super) fn make_room(&mut self, count: usize) -> bool {
        if count > self.most {
            return false;
        }
        while self.len() + count > self.most {
            let Some(&(_, id)) = self.leaves.first() else { return false };
            self.remove_leaf(id);
        }
        true
    }

    /// The branch that ends in `tip`, root first.
    pub(super) fn branch(&self, tip: Id) -> Vec<Id> {
        let mut branch: Vec<Id> = std::iter::successors(Some(tip), |id| self.node(*id).parent).collect();
        branch.reverse();
        branch
    }

    /// Height of the main-chain header that the branch of `id` leaves from.
    pub(super) fn fork(&self, id: Id) -> Height {
        let root = std::iter::successors(Some(id), |id| self.node(*id).parent).last().unwrap_or(id);
        self.node(root).height - 1
    }

    /// Roots whose parents are above `fork`, lowest first.
    pub(super) fn roots_above(&self, fork: Height) -> Vec<(Height, Id)> {
        self.roots.range((fork + 1, Id::MIN)..).copied().collect()
    }

    /// Whether this is (still) a root.
    pub(super) fn is_root(&self, root: (Height, Id)) -> bool {
        self.roots.contains(&root)
    }

    /// Takes out a whole branch, root first, which is going to be the main chain. What else hung on it hangs on the
    /// main chain from now on.
    pub(super) fn take(&mut self, branch: &[Id], mut each: impl FnMut(&Node, &[u8])) {
        let children: usize = branch.iter().map(|id| self.node(*id).children as usize).sum();
        if children + 1 > branch.len() {
            self.plant(branch);
        }
        for &id in branch {
            each(self.node(id), self.raw(id));
            self.unmark_leaf(id);
            self.forget(id);
        }
    }

    /// Makes roots of the children of `branch` that are not part of it.
    fn plant(&mut self, branch: &[Id]) {
        let branch: BTreeSet<Id> = branch.iter().copied().collect();
        for id in 0..self.nodes.len() as Id {
            if let Some(node) = &mut self.nodes[id as usize]
                && !branch.contains(&id)
                && node.parent.is_some_and(|parent| branch.contains(&parent))
            {
                node.parent = None;
                self.roots.insert((node.height - 1, id));
            }
        }
    }

    /// Hangs a root on a side header: its parent has left the main chain.
    pub(super) fn adopt(&mut self, parent: Id, root: (Height, Id)) {
        self.roots.remove(&root);
        self.node_mut(root.1).parent = Some(parent);
        self.count_child(parent);
    }

    /// Drops these roots and all that hangs on them: their parents have left the main chain and are not kept.
    pub(super) fn uproot(&mut self, roots: &[(Height, Id)]) {
        let mut doomed = vec![false; self.nodes.len()];
        for root in roots {
            doomed[root.1 as usize] = true;
        }
        let mut kept: Vec<(Height, Id)> = (0..self.nodes.len() as Id)
            .filter_map(|id| self.nodes[id as usize].as_ref().map(|node| (node.height, id)))
            .collect();
        kept.sort_unstable();
        for &(_, id) in &kept {
            if let Some(parent) = self.node(id).parent {
                doomed[id as usize] |= doomed[parent as usize];
            }
        }
        for &(_, id) in kept.iter().rev().filter(|(_, id)| doomed[*id as usize]) {
            self.remove_leaf(id);
        }
    }

    /// Drops a header that has no children.
    fn remove_leaf(&mut self, id: Id) {
        self.unmark_leaf(id);
        if let Some(parent) = self.node(id).parent {
            let node = self.node_mut(parent);
            node.children -= 1;
            if node.children == 0 {
                self.mark_leaf(parent);
            }
        }
        self.forget(id);
    }

    fn count_child(&mut self, parent: Id) {
        self.node_mut(parent).children += 1;
        self.unmark_leaf(parent);
    }

    fn mark_leaf(&mut self, id: Id) {
        let Node { recent, source, .. } = *self.node(id);
        self.leaves.insert((recent.work, id));
        self.leaves_of.insert((source, recent.work, id));
    }

    fn unmark_leaf(&mut self, id: Id) {
        let Node { recent, source, .. } = *self.node(id);
        self.leaves.remove(&(recent.work, id));
        self.leaves_of.remove(&(source, recent.work, id));
    }

    fn place(&mut self, node: Node, raw: &[u8]) -> Id {
        let Some(id) = self.free.pop() else {
            self.nodes.push(Some(node));
            self.raw.extend_from_slice(raw);
            return self.nodes.len() as Id - 1;
        };
        self.nodes[id as usize] = Some(node);
        let start = id as usize * self.header_len;
        self.raw[start..start + self.header_len].copy_from_slice(raw);
        id
    }

    fn forget(&mut self, id: Id) {
        let node = self.nodes[id as usize].take().expect("forgotten once");
        self.by_hash.remove(&node.recent.hash);
        if node.parent.is_none() {
            self.roots.remove(&(node.height - 1, id));
        }
        if self.by_hash.is_empty() {
            // The flood or the fork is over: give its memory back.
            *self = Self::new(self.header_len, self.most);
        } else {
            self.free.push(id);
        }
    }
}

#[cfg(test)]
impl Side {
    /// Compares everything that is kept in two ways.
    pub(super) fn audit(&self) {
        let kept = |id: &Id| self.nodes[*id as usize].as_ref();
        let ids: Vec<Id> = (0..self.nodes.len() as Id).filter(|id| kept(id).is_some()).collect();
        assert_eq!(ids.len(), self.by_hash.len());
        assert_eq!(ids.len() + self.free.len(), self.nodes.len());
        let mut children = vec![0; self.nodes.len()];
        for id in &ids {
            let node = self.node(*id);
            assert_eq!(self.find(&node.recent.hash), Some(*id));
            match node.parent {
                Some(parent) => {
                    children[parent as usize] += 1;
                    assert_eq!(self.node(parent).height + 1, node.height);
                }
                None => assert!(self.is_root((node.height - 1, *id))),
            }
        }
        assert_eq!(self.roots.len(), ids.iter().filter(|id| self.node(**id).parent.is_none()).count());
        for id in &ids {
            let node = self.node(*id);
            let leaf = children[*id as usize] == 0;
            assert_eq!(node.children, children[*id as usize]);
            assert_eq!(self.leaves.contains(&(node.recent.work, *id)), leaf);
            assert_eq!(self.leaves_of.contains(&(node.source, node.recent.work, *id)), leaf);
        }
        assert_eq!(self.leaves.len(), self.leaves_of.len());
        assert_eq!(
            self.leaves.len(),
            children.iter().zip(&self.nodes).filter(|(n, node)| **n == 0 && node.is_some()).count()
        );
    }
}
