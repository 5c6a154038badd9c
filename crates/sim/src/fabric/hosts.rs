//! The hosts, the links between them, and who reaches whom: what streams and datagrams share.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::IpAddr;
use std::task::Waker;

use rookery_base::id::canonical_ip;

use super::agenda::ConnId;
use super::link::Link;
use super::{Dials, Down};

/// The first port given to those who ask for any, as IANA reserves them.
const FIRST_EPHEMERAL: u16 = 49_152;

/// The ports of one protocol at one host.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    taken: BTreeSet<u16>,
    next: u16,
}

impl Ports {
    /// Takes this port, or any free one for 0.
    pub(crate) fn take(&mut self, ip: IpAddr, port: u16) -> io::Result<u16> {
        if port == 0 {
            return self.take_any(ip);
        }
        if self.taken.insert(port) {
            return Ok(port);
        }
        Err(io::Error::new(io::ErrorKind::AddrInUse, format!("port {port} of {ip} is in use")))
    }

    fn take_any(&mut self, ip: IpAddr) -> io::Result<u16> {
        for _ in FIRST_EPHEMERAL..=u16::MAX {
            let port = self.next.max(FIRST_EPHEMERAL);
            self.next = port.wrapping_add(1);
            if self.taken.insert(port) {
                return Ok(port);
            }
        }
        Err(io::Error::new(io::ErrorKind::AddrNotAvailable, format!("{ip} has no free port left")))
    }

    pub(crate) fn give_back(&mut self, port: u16) {
        self.taken.remove(&port);
    }
}

#[derive(Debug, Default)]
pub(super) struct Bound {
    /// Which `listen` this is: what was on its way to a listener that is gone must not reach its successor.
    pub number: u64,
    pub queue: VecDeque<ConnId>,
    /// Answered dials whose confirmation has not come.
    pub awaited: usize,
    pub waker: Option<Waker>,
}

#[derive(Debug, Default)]
pub(crate) struct Host {
    /// In the order in which hosts became known, from 1: what the trace calls it.
    pub(crate) number: u64,
    pub(super) tcp: Ports,
    pub(crate) udp: Ports,
    pub(super) listeners: BTreeMap<u16, Bound>,
    pub(super) read_rate: Option<u64>,
    /// What the kernel grants a datagram socket that is bound from now on, if not the default.
    pub(crate) receive_buffer: Option<usize>,
    pub(super) dials: Dials,
    pub(super) down: Option<Down>,
    pub(super) group: usize,
    pub(super) uplink: Option<Link>,
}

impl Host {
    /// Whether no byte of a stream gets to it or from it.
    fn is_dark(&self) -> bool {
        self.down == Some(Down::Silent)
    }

    pub(super) fn fate_of_dials(&self) -> Dials {
        match self.down {
            Some(Down::Reset) => Dials::Refuse,
            Some(Down::Silent) => Dials::BlackHole,
            None => self.dials,
        }
    }
}

/// Why a datagram does not get from one host to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Barrier {
    /// No host has the address it is for.
    Nowhere,
    /// One of the two is down.
    Down,
    /// They are in different parts of a partition.
    Parted,
}

#[derive(Debug, Default)]
pub(crate) struct Hosts {
    map: BTreeMap<IpAddr, Host>,
    default_link: Link,
    links: BTreeMap<(IpAddr, IpAddr), Link>,
}

impl Hosts {
    pub(crate) fn get(&self, ip: IpAddr) -> Option<&Host> {
        self.map.get(&ip)
    }

    pub(super) fn get_mut(&mut self, ip: IpAddr) -> Option<&mut Host> {
        self.map.get_mut(&ip)
    }

    /// The host of this address, as commands use it: they may come before the host does.
    pub(crate) fn entry(&mut self, ip: IpAddr) -> &mut Host {
        let number = self.map.len() as u64 + 1;
        self.map.entry(canonical_ip(ip)).or_insert_with(|| Host { number, ..Host::default() })
    }

    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        self.map.keys().copied().collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (IpAddr, &Host)> {
        self.map.iter().map(|(ip, host)| (*ip, host))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Host> {
        self.map.values_mut()
    }

    pub(crate) fn link(&self, from: IpAddr, to: IpAddr) -> Link {
        if let Some(link) = self.links.get(&(from, to)) {
            return *link;
        }
        if from == to {
            return Link::LOOPBACK;
        }
        self.map.get(&from).and_then(|host| host.uplink).unwrap_or(self.default_link)
    }

    pub(super) fn set_default_link(&mut self, link: Link) {
        self.default_link = link;
    }

    pub(super) fn set_link(&mut self, from: IpAddr, to: IpAddr, link: Link) {
        self.links.insert((canonical_ip(from), canonical_ip(to)), link);
    }

    /// Whether streams flow between two hosts.
    pub(super) fn reachable(&self, a: IpAddr, b: IpAddr) -> bool {
        match (self.map.get(&a), self.map.get(&b)) {
            (Some(a), Some(b)) => !a.is_dark() && !b.is_dark() && a.group == b.group,
            _ => false,
        }
    }

    /// What keeps a datagram from getting from one host to another. One from an address that no host has, which is
    /// a forged one, comes from among the hosts that no partition names.
    pub(crate) fn barrier(&self, from: IpAddr, to: IpAddr) -> Option<Barrier> {
        let Some(there) = self.map.get(&to) else { return Some(Barrier::Nowhere) };
        let (is_down, group) =
            self.map.get(&from).map_or((false, 0), |host| (host.down.is_some(), host.group));
        if is_down || there.down.is_some() {
            Some(Barrier::Down)
        } else if group != there.group {
            Some(Barrier::Parted)
        } else {
            None
        }
    }
}
