//! Why peers were not let in, or could not be reached, lately: for those who ask after an address that never became a
//! session.
//!
//! Kept per address, so that a flood from one cannot wash out what is known of another; equal causes in a row are one
//! entry with a count. When there is no room for a further address, the one that was heard of longest ago goes.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rookery_base::CloseCause;
use rookery_base::id::canonical_ip;

use crate::LedgerEntry;

/// Addresses that are remembered: at some 1 kB each, a megabyte, and an hour of a public node's refusals.
const ADDRESSES: usize = 1024;
/// Entries per address: enough to see a pattern.
const KEPT: usize = 8;

#[derive(Debug)]
struct Refused {
    unix: u64,
    port: u16,
    cause: CloseCause,
    times: u64,
}

#[derive(Debug, Default)]
struct Table {
    turn: u64,
    by_ip: BTreeMap<IpAddr, (u64, VecDeque<Refused>)>,
    /// The same addresses, by when they were last heard of.
    order: BTreeMap<u64, IpAddr>,
}

/// What is remembered. Cloning gives another handle to the same memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Refusals(Arc<Mutex<Table>>);

impl Refusals {
    fn lock(&self) -> MutexGuard<'_, Table> {
        // A table that a panic left half changed forgets an address too many or too few, and nothing else.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers that nothing came of a connection with this address.
    pub fn note(&self, addr: SocketAddr, unix: u64, cause: &CloseCause) {
        let mut table = self.lock();
        let (ip, turn) = (canonical_ip(addr.ip()), table.turn);
        table.turn += 1;
        let (before, entries) = table.by_ip.entry(ip).or_default();
        let old = std::mem::replace(before, turn);
        match entries.back_mut().filter(|last| last.cause == *cause) {
            Some(last) => {
                last.times += 1;
                (last.unix, last.port) = (unix, addr.port());
            }
            None => {
                if entries.len() == KEPT {
                    entries.pop_front();
                }
                entries.push_back(Refused { unix, port: addr.port(), cause: cause.clone(), times: 1 });
            }
        }
        if table.order.get(&old) == Some(&ip) {
            table.order.remove(&old);
        }
        table.order.insert(turn, ip);
        if table.by_ip.len() > ADDRESSES
            && let Some((_, oldest)) = table.order.pop_first()
        {
            table.by_ip.remove(&oldest);
        }
    }

    /// What is remembered of an address, oldest first.
    pub fn of(&self, ip: IpAddr) -> Vec<LedgerEntry> {
        let table = self.lock();
        let entries = table.by_ip.get(&canonical_ip(ip)).into_iter().flat_map(|(_, entries)| entries);
        let shown = |entry: &Refused| {
            let times = if entry.times == 1 { String::new() } else { format!(", {} times", entry.times) };
            let what = format!("{} (port {}{times})", entry.cause, entry.port);
            LedgerEntry { unix: entry.unix, what, score: 0 }
        };
        entries.map(shown).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rookery_base::Refusal;

    #[test]
    fn a_flood_from_one_address_washes_nothing_out_and_the_memory_is_bounded() {
        let refusals = Refusals::default();
        let addr = |n: u32, port| SocketAddr::new(IpAddr::V4(n.into()), port);
        refusals.note(addr(1, 7), 1, &CloseCause::Refused(Refusal::Full));
        for n in 0..100_000 {
            refusals.note(addr(2, 9), n, &CloseCause::Refused(Refusal::HandshakesPerIp));
        }
        for _ in 0..20 {
            refusals.note(addr(2, 9), 5, &CloseCause::Panic);
            refusals.note(addr(2, 9), 5, &CloseCause::PeerClosed);
        }
        assert_eq!(refusals.of(addr(1, 0).ip())[0].what, "refused: all slots are taken (port 7)");
        assert_eq!(refusals.of(addr(2, 0).ip()).len(), KEPT);
        for n in 0..2 * ADDRESSES as u32 {
            refusals.note(addr(100 + n, 9), 6, &CloseCause::Panic);
        }
        let table = refusals.lock();
        assert_eq!((table.by_ip.len(), table.order.len()), (ADDRESSES, ADDRESSES));
    }
}
