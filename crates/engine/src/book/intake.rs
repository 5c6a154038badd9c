//! What the book takes in: addresses from messages, and those that the operator or a seed list gives.
//!
//! A message's addresses are hearsay. Each is judged alone and a bad one costs its sender nothing (honest nodes pass
//! on what they were told); the count per message is the wire's to check.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rookery_base::AddrGroup;
use rookery_base::id::{canonical_addr, canonical_ip, mapped};

use super::entry::{DAY, FUTURE, HOUR, Home, Key, MINUTE, Node, Refs};
use super::nodes::Slot;
use super::{Book, BookConfig};

/// Times up to this (March 1973) are some other number written in the field.
const ABSURD_TIME: u64 = 100_000_000;
/// The age given to an address whose time cannot be believed: old enough to yield to others, not yet stale.
const UNKNOWN_AGE: u64 = 5 * DAY;
/// Heard of within this time: worth telling others at once.
const RELAY_AGE: u64 = 10 * MINUTE;
/// Only messages shorter than this are news; longer ones are answers to a question.
const RELAY_MESSAGE: usize = 10;
/// How much later a source must say an address was heard of before it is believed: a source that repeats an address
/// all day must not keep it young.
const SOURCE_PENALTY: u64 = 2 * HOUR;
/// A known address's time is moved forward at most this often: for one heard of today, and for others.
const UPDATE_ONLINE: u64 = HOUR;
const UPDATE_OFFLINE: u64 = DAY;

/// An address as a message carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// The address.
    pub addr: SocketAddr,
    /// Service bits.
    pub services: u64,
    /// When it was last heard of, seconds since 1970.
    pub time: u64,
    /// It carries an identity key. Keyed addresses are not gossiped: a lie about the key would cost the address.
    pub keyed: bool,
}

/// Why an address was not taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// Not an address of the public internet (or, where private ones are allowed, not one that can be dialled).
    Unroutable,
    /// Port 0.
    NoPort,
    /// Lacks a required service bit.
    Services,
    /// Carries an identity key.
    Keyed,
    /// This node's own.
    Own,
}

impl Refusal {
    /// A stable label for metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unroutable => "unroutable",
            Self::NoPort => "no_port",
            Self::Services => "services",
            Self::Keyed => "keyed",
            Self::Own => "own",
        }
    }
}

/// What became of a message's addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Intake {
    /// Addresses that are new to the book.
    pub added: usize,
    /// Addresses that were known already.
    pub known: usize,
    /// Addresses refused, by reason.
    pub refused: BTreeMap<Refusal, usize>,
    /// News worth telling two other peers. The caller leaves out banned ones, and drops all of them when the message is
    /// the answer to its own question.
    pub relay: Vec<Record>,
}

impl Book {
    /// Takes in the addresses of one message from `source`, by hsd's rules.
    pub fn intake(&mut self, records: &[Record], source: IpAddr, now: u64, rng: &mut ChaCha8Rng) -> Intake {
        let mut intake = Intake::default();
        let news = records.len() < RELAY_MESSAGE;
        for record in records {
            let refusal =
                if record.keyed { Some(Refusal::Keyed) } else { self.refuses(record.addr, record.services) };
            if let Some(refusal) = refusal {
                *intake.refused.entry(refusal).or_default() += 1;
                continue;
            }
            let addr = canonical_addr(record.addr);
            let record = Record { addr, time: believable(record.time, now), ..*record };
            if news && record.time > now.saturating_sub(RELAY_AGE) {
                intake.relay.push(record);
            }
            if self.learn(&record, Some(source), now, rng) {
                intake.added += 1;
            } else {
                intake.known += 1;
            }
        }
        intake
    }

    /// Takes in an address that the operator or a seed list gives, as heard of now and with the required services.
    /// Such addresses have a source group of their own, whose buckets no peer can aim at. True when it is new.
    ///
    /// # Errors
    /// Why the address cannot be in this book.
    pub fn add_known(&mut self, addr: SocketAddr, now: u64, rng: &mut ChaCha8Rng) -> Result<bool, Refusal> {
        let services = self.config.required_services;
        match self.refuses(addr, services) {
            Some(refusal) => Err(refusal),
            None => {
                let record = Record { addr: canonical_addr(addr), services, time: now, keyed: false };
                Ok(self.learn(&record, None, now, rng))
            }
        }
    }

    /// Why an address does not belong here, if so. Asked again at every pick and sample, so that a book written under
    /// other rules gives nothing out that would not be taken in today.
    pub(super) fn refuses(&self, addr: SocketAddr, services: u64) -> Option<Refusal> {
        let BookConfig { allow_private, required_services, .. } = self.config;
        let reachable = if allow_private { is_dialable(addr.ip()) } else { is_routable(addr.ip()) };
        if !reachable {
            Some(Refusal::Unroutable)
        } else if addr.port() == 0 {
            Some(Refusal::NoPort)
        } else if services & required_services != required_services {
            Some(Refusal::Services)
        } else if self.is_self(addr) {
            Some(Refusal::Own)
        } else {
            None
        }
    }

    /// Enters a judged address, or adds what is new to a known one. True when it is new.
    fn learn(&mut self, record: &Record, source: Option<IpAddr>, now: u64, rng: &mut ChaCha8Rng) -> bool {
        let key = Key::of(record.addr);
        let from = mapped(source.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED)));
        let bucket = self.placement.fresh(key.group(), AddrGroup::of(canonical_ip(from.into())));
        if let Some(slot) = self.nodes.find(&key) {
            let node = &mut self.nodes[slot];
            let penalty = if source.is_some() { SOURCE_PENALTY } else { 0 };
            let before = (node.time, node.services);
            let more = node.hear(record, penalty, now, rng);
            self.changed |= before != (node.time, node.services);
            if more && !self.fresh.contains(bucket, &key) {
                self.refer(key, slot, bucket, now);
            }
            return false;
        }
        let node = Node {
            source: from,
            services: record.services,
            time: record.time,
            last_attempt: 0,
            last_success: 0,
            attempts: 0,
            home: Home::Fresh(Refs::default()),
        };
        let slot = self.nodes.insert(key, node);
        self.refer(key, slot, bucket, now);
        true
    }

    /// Puts a fresh entry into one more bucket, making room there first.
    pub(super) fn refer(&mut self, key: Key, slot: Slot, bucket: u16, now: u64) {
        self.make_room(bucket, now);
        if let Home::Fresh(refs) = &mut self.nodes[slot].home
            && refs.insert(bucket)
        {
            assert!(
                self.fresh.insert(bucket, key, slot),
                "room was made, and the entry did not name the bucket"
            );
        }
        self.changed = true;
    }
}

impl Node {
    /// Notes that a source speaks of this address again. True when another bucket may hold it: for an entry that is
    /// held by n buckets the chance is 1 in 2^n.
    fn hear(&mut self, record: &Record, penalty: u64, now: u64, rng: &mut ChaCha8Rng) -> bool {
        self.services |= record.services;
        let online = now.saturating_sub(record.time) < DAY;
        let interval = if online { UPDATE_ONLINE } else { UPDATE_OFFLINE };
        if self.time.saturating_add(interval + penalty) < record.time {
            self.time = record.time;
        }
        let Home::Fresh(refs) = &self.home else { return false };
        record.time > self.time && !refs.is_full() && rng.random_range(0..1_u32 << refs.as_slice().len()) == 0
    }
}

/// The time a message gives, unless it cannot be one.
const fn believable(time: u64, now: u64) -> u64 {
    if time <= ABSURD_TIME || time > now.saturating_add(FUTURE) {
        now.saturating_sub(UNKNOWN_AGE)
    } else {
        time
    }
}

/// True for an address that a connection can be made to at all: one host, named.
pub fn is_dialable(ip: IpAddr) -> bool {
    match canonical_ip(ip) {
        IpAddr::V4(v4) => v4.octets()[0] != 0 && v4.octets()[0] < 224,
        IpAddr::V6(v6) => !v6.is_unspecified() && !v6.is_multicast(),
    }
}

/// True for an address of the public internet: none of the ranges set aside for private use, links, documentation,
/// benchmarks and identifiers.
pub fn is_routable(ip: IpAddr) -> bool {
    is_dialable(ip)
        && match canonical_ip(ip) {
            IpAddr::V4(v4) => is_routable_v4(v4),
            IpAddr::V6(v6) => is_routable_v6(v6),
        }
}

fn is_routable_v4(ip: Ipv4Addr) -> bool {
    let set_aside = match ip.octets() {
        [100, b, ..] => b & 0xc0 == 64,         // carrier-grade NAT, RFC 6598
        [192, 0, 0, _] => true,                 // protocol assignments, RFC 6890
        [198, b, ..] if b & 0xfe == 18 => true, // benchmarks, RFC 2544
        _ => false,
    };
    !(set_aside || ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_documentation())
}

fn is_routable_v6(ip: Ipv6Addr) -> bool {
    !matches!(
        ip.segments(),
        [0, 0, 0, 0, 0, 0, _, _]             // loopback and IPv4-compatible, RFC 4291
            | [0xfc00..=0xfdff, ..]          // unique local, RFC 4193
            | [0xfe80..=0xfeff, ..]          // link and site local, RFC 4291 and 3879
            | [0x2001, 0x0010..=0x002f, ..]  // identifiers, RFC 4843 and 7343
            | [0x2001, 0x0db8, ..]           // documentation, RFC 3849
            | [0x0100, 0, 0, 0, ..] // discard, RFC 6666
    )
}
