//! What becomes of an entry: attempts, successes, moves between the tables, removal.

use std::net::SocketAddr;

use rookery_base::AddrGroup;
use rookery_base::id::canonical_ip;

use super::Book;
use super::entry::{Home, Key, MINUTE, Node, Refs};

/// A connection moves an address's time forward when it is older than this.
const HEARD_BEFORE: u64 = 20 * MINUTE;

impl Book {
    /// A dial to the address begins. False when the book does not know it.
    pub fn attempted(&mut self, addr: SocketAddr, now: u64) -> bool {
        self.update(addr, |node| {
            node.attempts = node.attempts.saturating_add(1);
            node.last_attempt = now;
        })
    }

    /// A connection to the address was made, or one that lasted ends: something is there. False when the book does
    /// not know it.
    pub fn connected(&mut self, addr: SocketAddr, now: u64) -> bool {
        self.update(addr, |node| {
            if now.saturating_sub(node.time) > HEARD_BEFORE {
                node.time = now;
            }
        })
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
        if known {
            self.promote(Key::of(addr), now);
        }
        known
    }

    /// Forgets an address. False when the book does not know it.
    pub fn remove(&mut self, addr: SocketAddr) -> bool {
        let key = Key::of(addr);
        let Some(node) = self.nodes.remove(&key) else { return false };
        self.vacate(key, &node);
        self.changed = true;
        true
    }

    fn update(&mut self, addr: SocketAddr, change: impl FnOnce(&mut Node)) -> bool {
        let Some(node) = self.nodes.get_mut(&Key::of(addr)) else { return false };
        change(node);
        self.changed = true;
        true
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
    fn promote(&mut self, key: Key, now: u64) {
        let node = self.nodes[&key];
        if node.is_used() {
            return;
        }
        self.vacate(key, &node);
        let bucket = self.placement.used(&key);
        if self.used.is_full(bucket) {
            let oldest = self.used.bucket(bucket).iter().min_by_key(|key| self.nodes[key].time).copied();
            self.demote(oldest.expect("a full bucket holds something"), now);
        }
        assert!(self.used.insert(bucket, key), "room was made, and the entry was fresh");
        self.used_count += 1;
        self.set_home(key, Home::Used(bucket));
    }

    /// Moves a used entry back to its bucket in the fresh table: it gave way, it did not fail.
    fn demote(&mut self, key: Key, now: u64) {
        let node = self.nodes[&key];
        self.vacate(key, &node);
        self.set_home(key, Home::Fresh(Refs::default()));
        let bucket = self.placement.fresh(key.group(), AddrGroup::of(canonical_ip(node.source.into())));
        self.refer(key, bucket, now);
    }

    fn set_home(&mut self, key: Key, home: Home) {
        self.nodes.get_mut(&key).expect("only entries that are in the book move").home = home;
    }

    /// Makes room in a fresh bucket, when it is full: stale entries leave it; if there are none, the one that was heard
    /// of longest ago, those that are being tried last. An entry that no other bucket holds is forgotten.
    pub(super) fn make_room(&mut self, bucket: u16, now: u64) {
        if !self.fresh.is_full(bucket) {
            return;
        }
        let held = self.fresh.bucket(bucket);
        let mut leaving: Vec<Key> =
            held.iter().filter(|key| self.nodes[key].is_stale(now)).copied().collect();
        if leaving.is_empty() {
            let rank = |key: &&Key| (self.nodes[key].is_under_way(now), self.nodes[key].time);
            leaving.extend(held.iter().min_by_key(rank));
        }
        for key in leaving {
            self.fresh.remove(bucket, &key);
            let node = self.nodes.get_mut(&key).expect("buckets hold only entries that are in the book");
            if let Home::Fresh(refs) = &mut node.home {
                refs.remove(bucket);
                if refs.as_slice().is_empty() {
                    self.nodes.remove(&key);
                }
            }
        }
    }
}
