//! Which address to try next, and which to tell a peer that asks.

use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::entry::{Entry, Key, Node};
use super::intake::Record;
use super::{Book, buckets::Table};

/// Candidates drawn for one pick. When all of them are excluded the caller comes back later: it has what it can use.
const TRIES: usize = 10;
/// A book of this many entries at most is looked through when all draws were in vain: with five addresses, four of them
/// connected, every third pick would miss the other. Looking through as many costs no more than a dial's first packet.
pub(super) const SMALL: usize = 64;
/// In the first three tenths of the tries, those just tried are passed over; in the first five, unusual ports. One try
/// less in each case, so that a book of few addresses is not passed over as a whole.
const PASS_RECENT_TENTHS: usize = 3;
const PASS_PORT_TENTHS: usize = 5;
/// How much easier a table is to please after each candidate that it did not accept.
const IMPATIENCE: f64 = 1.2;
/// Addresses in one answer: the most that the wire allows.
pub const MAX_SAMPLE: usize = 1000;

impl Book {
    /// An address to dial: from the used or the fresh table by a coin, by its chance. `exclude` is asked about each
    /// candidate and says true for those that are of no use now: connected, banned, or in the group of a connected
    /// outbound peer. `None` when there is nothing to try; ask again after a while.
    pub fn pick(
        &self,
        now: u64,
        rng: &mut ChaCha8Rng,
        exclude: &mut dyn FnMut(&Entry) -> bool,
    ) -> Option<Entry> {
        let tries = self.len().min(TRIES);
        let early = |attempt: usize, tenths: usize| 10 * (attempt + 1) < tenths * tries;
        for attempt in 0..tries {
            let (key, node) = self.candidate(now, rng)?;
            let entry = node.view(key);
            let passed_over = (early(attempt, PASS_RECENT_TENTHS) && node.is_recent(now))
                || (early(attempt, PASS_PORT_TENTHS) && entry.addr.port() != self.config.default_port);
            if !passed_over && self.refuses(entry.addr, entry.services).is_none() && !exclude(&entry) {
                return Some(entry);
            }
        }
        if self.len() > SMALL { None } else { self.remaining(now, rng, exclude) }
    }

    /// Any entry that is not excluded, in any order, by its chance: one that was never tried for certain.
    fn remaining(
        &self,
        now: u64,
        rng: &mut ChaCha8Rng,
        exclude: &mut dyn FnMut(&Entry) -> bool,
    ) -> Option<Entry> {
        let mut all: Vec<(Key, &Node)> = self.nodes.iter().collect();
        all.shuffle(rng);
        let mut drawn = all.into_iter().filter(|(_, node)| rng.random::<f64>() < node.chance(now));
        drawn.find_map(|(key, node)| {
            let entry = node.view(key);
            (self.refuses(entry.addr, entry.services).is_none() && !exclude(&entry)).then_some(entry)
        })
    }

    /// Any entry, by its chance. Ends: after some forty candidates even the smallest chance has grown past 1.
    fn candidate(&self, now: u64, rng: &mut ChaCha8Rng) -> Option<(Key, &Node)> {
        let table: &Table = match (self.fresh(), self.used()) {
            (_, 0) => &self.fresh,
            (0, _) => &self.used,
            _ if rng.random_range(0..2_u32) == 0 => &self.used,
            _ => &self.fresh,
        };
        let mut factor = 1.0;
        loop {
            let (key, slot) = table.draw(rng)?;
            let node = &self.nodes[slot];
            if rng.random::<f64>() < factor * node.chance(now) {
                return Some((key, node));
            }
            factor *= IMPATIENCE;
        }
    }

    /// At most `n` addresses, and at most [`MAX_SAMPLE`], for a peer that asks: any that are not stale, each as likely as
    /// another. Ask once per inbound connection, or a peer reads the whole book.
    pub fn sample(&self, n: usize, now: u64, rng: &mut ChaCha8Rng) -> Vec<Record> {
        let mut all: Vec<(Key, &Node)> = self.nodes.iter().collect();
        let mut sample = Vec::with_capacity(n.min(MAX_SAMPLE).min(all.len()));
        for next in 0..all.len() {
            if sample.len() == n.min(MAX_SAMPLE) {
                break;
            }
            let other = rng.random_range(next..all.len());
            all.swap(next, other);
            let (key, node) = all[next];
            let addr = key.addr();
            if !node.is_stale(now) && self.refuses(addr, node.services).is_none() {
                sample.push(Record { addr, services: node.services, time: node.time, keyed: false });
            }
        }
        sample
    }
}
