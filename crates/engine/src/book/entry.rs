//! One address of the book: what is known of it, when it is stale, and its chance to be picked.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use rookery_base::AddrGroup;
use rookery_base::id::{canonical_ip, mapped};

/// Seconds in a minute, an hour and a day, for the rules below.
pub(super) const MINUTE: u64 = 60;
pub(super) const HOUR: u64 = 60 * MINUTE;
pub(super) const DAY: u64 = 24 * HOUR;

/// How far ahead of our clock an address's time may be: clocks differ.
pub(super) const FUTURE: u64 = 10 * MINUTE;
/// Tried within this time: a dial may still be under way, so the entry is not judged.
const UNDER_WAY: u64 = MINUTE;
/// Last heard of before this: most such addresses are gone.
const HORIZON: u64 = 30 * DAY;
/// Attempts after which an address that never answered is given up.
const RETRIES: u32 = 3;
/// Failures in a row, without a success for [`FAILING`], after which one that did answer is given up.
const MAX_FAILURES: u32 = 10;
const FAILING: u64 = 7 * DAY;
/// Tried within this time: tried again only when there is little else.
pub(super) const RECENT: u64 = 10 * MINUTE;
/// What a recent attempt leaves of the chance.
const RECENT_CHANCE: f64 = 0.01;
/// What each failure in a row leaves of the chance, up to [`COUNTED_FAILURES`] of them.
const FAILURE_CHANCE: f64 = 0.66;
const COUNTED_FAILURES: u32 = 8;

/// Fresh buckets that may hold the same entry: one that many speak of is picked more often, but not without end.
pub(super) const MAX_REFS: usize = 8;

/// An address in 18 bytes: the IP as IPv6, then the port. Its order is the order of everything that is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key([u8; Key::LEN]);

impl Key {
    /// Bytes in a key.
    pub(super) const LEN: usize = 18;

    pub(super) fn of(addr: SocketAddr) -> Self {
        let mut bytes = [0; Self::LEN];
        bytes[..16].copy_from_slice(&mapped(addr.ip()).octets());
        bytes[16..].copy_from_slice(&addr.port().to_be_bytes());
        Self(bytes)
    }

    pub(super) const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    pub(super) const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    pub(super) fn addr(&self) -> SocketAddr {
        let [ip @ .., high, low] = self.0;
        SocketAddr::new(canonical_ip(Ipv6Addr::from(ip).into()), u16::from_be_bytes([high, low]))
    }

    pub(super) fn group(&self) -> AddrGroup {
        AddrGroup::of(self.addr().ip())
    }
}

/// The fresh buckets that hold an entry, in rising order.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Refs {
    count: u8,
    buckets: [u16; MAX_REFS],
}

impl Refs {
    pub(super) const fn one(bucket: u16) -> Self {
        let mut buckets = [0; MAX_REFS];
        buckets[0] = bucket;
        Self { count: 1, buckets }
    }

    pub(super) fn as_slice(&self) -> &[u16] {
        &self.buckets[..usize::from(self.count)]
    }

    pub(super) const fn is_full(&self) -> bool {
        self.count as usize == MAX_REFS
    }

    /// Adds a bucket; false when it is there already or there is no room.
    pub(super) fn insert(&mut self, bucket: u16) -> bool {
        let Err(at) = self.as_slice().binary_search(&bucket) else { return false };
        if self.is_full() {
            return false;
        }
        self.buckets.copy_within(at..usize::from(self.count), at + 1);
        self.buckets[at] = bucket;
        self.count += 1;
        true
    }

    pub(super) fn remove(&mut self, bucket: u16) {
        if let Ok(at) = self.as_slice().binary_search(&bucket) {
            self.buckets.copy_within(at + 1..usize::from(self.count), at);
            self.count -= 1;
        }
    }
}

/// Where an entry is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Home {
    /// In these buckets of the fresh table.
    Fresh(Refs),
    /// In this bucket of the used table.
    Used(u16),
}

/// What is known of one address.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node {
    pub(super) source: Ipv6Addr,
    pub(super) services: u64,
    pub(super) time: u64,
    pub(super) last_attempt: u64,
    pub(super) last_success: u64,
    pub(super) attempts: u32,
    pub(super) home: Home,
}

impl Node {
    pub(super) const fn is_used(&self) -> bool {
        matches!(self.home, Home::Used(_))
    }

    /// True when a dial may be under way.
    pub(super) const fn is_under_way(&self, now: u64) -> bool {
        self.last_attempt != 0 && self.last_attempt.saturating_add(UNDER_WAY) >= now
    }

    /// True when the address is not worth a place, nor another's time.
    pub(super) const fn is_stale(&self, now: u64) -> bool {
        if self.is_under_way(now) {
            return false;
        }
        self.time > now.saturating_add(FUTURE)
            || now.saturating_sub(self.time) > HORIZON
            || (self.last_success == 0 && self.attempts >= RETRIES)
            || (now.saturating_sub(self.last_success) > FAILING && self.attempts >= MAX_FAILURES)
    }

    /// The probability, 0 to 1, with which a candidate is accepted at its first try. Multiplied out, not raised to a
    /// power: the library's power may differ in the last bit between machines.
    pub(super) fn chance(&self, now: u64) -> f64 {
        let recent = if self.is_recent(now) { RECENT_CHANCE } else { 1.0 };
        (0..self.attempts.min(COUNTED_FAILURES)).fold(recent, |chance, _| chance * FAILURE_CHANCE)
    }

    /// True when the address was tried a short time ago.
    pub(super) const fn is_recent(&self, now: u64) -> bool {
        self.last_attempt != 0 && now.saturating_sub(self.last_attempt) < RECENT
    }

    pub(super) fn view(&self, key: Key) -> Entry {
        Entry {
            addr: key.addr(),
            source: canonical_ip(self.source.into()),
            services: self.services,
            time: self.time,
            attempts: self.attempts,
            last_attempt: self.last_attempt,
            last_success: self.last_success,
            references: match &self.home {
                Home::Fresh(refs) => refs.count,
                Home::Used(_) => 0,
            },
        }
    }
}

/// What is known of one address, as callers see it. Times are seconds since 1970, 0 for never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The address; IPv4-mapped IPv6 as IPv4.
    pub addr: SocketAddr,
    /// Who told it first; unspecified when it was configured here.
    pub source: IpAddr,
    /// Service bits, announced by it or, until it has answered, by others.
    pub services: u64,
    /// When it was last heard of, as far as can be believed.
    pub time: u64,
    /// Attempts since the last success.
    pub attempts: u32,
    /// When it was last tried.
    pub last_attempt: u64,
    /// When a handshake with it last succeeded.
    pub last_success: u64,
    /// Fresh buckets that hold it; 0 when it is in the used table.
    pub references: u8,
}

impl Entry {
    /// True when it is in the used table: a handshake with it has succeeded.
    pub const fn is_used(&self) -> bool {
        self.references == 0
    }

    /// Its group, for limits per group.
    pub fn group(&self) -> AddrGroup {
        AddrGroup::of(self.addr.ip())
    }
}
