//! What becomes of an entry: attempts, successes, moves between the tables, removal.

use std::net::SocketAddr;

use rookery_base::AddrGroup;
use rookery_base::id::canonical_ip;

use super::Book;
use super::entry::{Home, Key, MINUTE, Node, Refs};
use super::nodes::Slot;

/// A connection moves an address's time forward when it is older than this.
const HEARD_BEFORE: u64 = 20 * MINUTE;

impl Book {
    /// A dial to the address begins. False when the book does not know it.
    pub fn attempted(&mut self, addr: SocketAddr, now: u64) -> bool {
        self.update(addr, |node| {
            node.attempts = node.attempts.saturating_add(1);
            node.last_attempt = now;
        })
        .is_some()
    }

    /// A connection to the address was made, or one that lasted ends: something is there. False when the book does
    /// not know it.
    pub fn connected(&mut self, addr: SocketAddr, now: u64) -> bool {
        self.update(addr, |node| {
            if now.saturating_sub(node.time) > HEARD_BEFORE {
                node.time = now;
            }
        })
        .is_some()
    }

    /// A handshake with the address has succeeded, and it announces `services`: it moves to the used table, whose oldest
    /// entry in that bucket, when full, goes back to the fresh table. False when the book does not know it.
    pub fn succeeded(&mut self, addr: SocketAddr, services: u64, now: u64) -> bool {
        let known = self.update(addr, |node| {
            node.services = services;
            node.last_success = now;
            node.last_attempt = now;
            node.attempts = 0;
        });
        if let Some(slot) = known {
            self.promote(Key::of(addr), slot, now);
        }
        known.is_some()
    }

    /// Forgets an address. False when the book does not know it.
    pub fn remove(&mut self, addr: SocketAddr) -> bool {
        let key = Key::of(addr);
        let Some(node) = self.nodes.remove(&key) else { return false };
        self.vacate(key, &node);
        self.changed = true;
        true
    }

    fn update(&mut self, addr: SocketAddr, change: impl FnOnce(&mut Node)) -> Option<Slot> {
        let slot = self.nodes.find(&Key::of(addr))?;
        change(&mut self.nodes[slot]);
        self.changed = true;
        Some(slot)
    }

    /// Takes an entry out of the buckets that hold it.
    fn vacate(&mut self, key: Key, node: &Node) {
        match &node.home {
            Home::Fresh(refs) => refs.as_slice().iter().for_each(|bucket| self.fresh.remove(*bucket, &key)),
            Home::Used(bucket) => {
                self.used.remove(*bucket, &key);
                self.used_count -= 1;
            }
        }
    }

    /// Moves an entry to the used table, if it is not there.
    fn promote(&mut self, key: Key, slot: Slot, now: u64) {
        let node = self.nodes[slot];
        if node.is_used() {
            return;
        }
        self.vacate(key, &node);
        let bucket = self.placement.used(&key);
        if self.used.is_full(bucket) {
            let oldest = self.used.bucket(bucket).iter().min_by_key(|(_, slot)| self.nodes[*slot].time);
            let (oldest, slot) = *oldest.expect("a full bucket holds something");
            self.demote(oldest, slot, now);
        }
        assert!(self.used.insert(bucket, key, slot), "room was made, and the entry was fresh");
        self.used_count += 1;
        self.nodes[slot].home = Home::Used(bucket);
    }

    /// Moves a used entry back to its bucket in the fresh table: it gave way, it did not fail.
    fn demote(&mut self, key: Key, slot: Slot, now: u64) {
        let node = self.nodes[slot];
        self.vacate(key, &node);
        self.nodes[slot].home = Home::Fresh(Refs::default());
        let bucket = self.placement.fresh(key.group(), AddrGroup::of(canonical_ip(node.source.into())));
        self.refer(key, slot, bucket, now);
    }

    /// Makes room in a fresh bucket, when it is full: stale entries leave it; if there are none, the one that was heard
    /// of longest ago, those that are being tried last. An entry that no other bucket holds is forgotten.
    pub(super) fn make_room(&mut self, bucket: u16, now: u64) {
        if !self.fresh.is_full(bucket) {
            return;
        }
        let (mut leaving, mut oldest) = (Vec::new(), None);
        for (key, slot) in self.fresh.bucket(bucket) {
            let node = &self.nodes[*slot];
            let rank = (node.is_under_way(now), node.time);
            if node.is_stale(now) {
                leaving.push((*key, *slot));
            } else if oldest.is_none_or(|(least, _)| rank < least) {
                oldest = Some((rank, (*key, *slot)));
            }
        }
        if leaving.is_empty() {
            leaving.extend(oldest.map(|(_, held)| held));
        }
        for (key, slot) in leaving {
            self.fresh.remove(bucket, &key);
            if let Home::Fresh(refs) = &mut self.nodes[slot].home {
                refs.remove(bucket);
                if refs.as_slice().is_empty() {
                    self.nodes.remove(&key);
                }
            }
        }
    }
}
