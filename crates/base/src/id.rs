//! Who a peer is, which side dialled, which generation of a session this is, and which group an address is in.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Which side opened the connection, seen from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// The peer dialled us.
    Inbound,
    /// We dialled the peer.
    Outbound,
}

impl Direction {
    /// A stable label for metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Inbound => "in",
            Self::Outbound => "out",
        }
    }
}

/// A process-monotone session number. Nothing that belongs to an old generation can touch a newer one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Generation(pub u64);

impl Generation {
    /// The next generation, or `None` when the counter is used up: then nothing more is registered.
    pub const fn next(self) -> Option<Self> {
        match self.0.checked_add(1) {
            Some(n) => Some(Self(n)),
            None => None,
        }
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// A peer's identity on its network: a key, a hash of one, or, where the wire has none, its address.
/// At most [`PeerId::MAX`] bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId {
    bytes: [u8; Self::MAX],
    len: u8,
}

impl PeerId {
    /// The longest identity in use: a libp2p peer id of an identity-hashed key is 38 bytes.
    pub const MAX: usize = 40;

    /// An identity of 1 to [`PeerId::MAX`] bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() || bytes.len() > Self::MAX {
            return None;
        }
        let mut out = [0; Self::MAX];
        out[..bytes.len()].copy_from_slice(bytes);
        Some(Self { bytes: out, len: bytes.len() as u8 })
    }

    /// The identity of a peer on a wire without keys: its address, IPv4-mapped addresses being IPv4.
    pub fn from_addr(addr: SocketAddr) -> Self {
        let mut out = [0; Self::MAX];
        out[..16].copy_from_slice(&mapped(addr.ip()).octets());
        out[16..18].copy_from_slice(&addr.port().to_be_bytes());
        Self { bytes: out, len: 18 }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&const_hex::encode(self.as_bytes()))
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The group an address counts in for limits: /16 of IPv4, /32 of IPv6 (hsd's grouping). One operator rarely
/// holds many groups, so limits per group are what an eclipse attempt has to pay for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddrGroup([u8; 5]);

impl AddrGroup {
    /// The group of an address; IPv4-mapped IPv6 shares IPv4's.
    pub fn of(ip: IpAddr) -> Self {
        match canonical_ip(ip) {
            IpAddr::V4(v4) => {
                let o = v4.octets();
                Self([4, o[0], o[1], 0, 0])
            }
            IpAddr::V6(v6) => {
                let o = v6.octets();
                Self([6, o[0], o[1], o[2], o[3]])
            }
        }
    }

    /// The bytes, for hashing into buckets.
    pub const fn as_bytes(&self) -> &[u8; 5] {
        &self.0
    }
}

impl fmt::Display for AddrGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [4, a, b, ..] => write!(f, "{a}.{b}.0.0/16"),
            [_, a, b, c, d] => write!(f, "{a:02x}{b:02x}:{c:02x}{d:02x}::/32"),
        }
    }
}

/// IPv4-mapped IPv6 as IPv4; anything else as it is.
pub fn canonical_ip(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(ip, IpAddr::V4),
        v4 => v4,
    }
}

/// A socket address whose IP is canonical, see [`canonical_ip`].
pub fn canonical_addr(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(canonical_ip(addr.ip()), addr.port())
}

/// IPv4 as IPv4-mapped IPv6; IPv6 as it is.
pub fn mapped(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_addresses_are_one_peer_and_one_group() {
        let v4: SocketAddr = "1.2.3.4:5".parse().unwrap();
        let mapped: SocketAddr = "[::ffff:1.2.3.4]:5".parse().unwrap();
        assert_eq!(PeerId::from_addr(v4), PeerId::from_addr(mapped));
        assert_eq!(AddrGroup::of(v4.ip()), AddrGroup::of(mapped.ip()));
        assert_eq!(AddrGroup::of(v4.ip()).to_string(), "1.2.0.0/16");
    }

    #[test]
    fn the_last_generation_has_no_successor() {
        assert_eq!(Generation(u64::MAX).next(), None);
        assert_eq!(Generation(0).next(), Some(Generation(1)));
    }

    #[test]
    fn identities_are_bounded() {
        assert!(PeerId::from_bytes(&[]).is_none());
        assert!(PeerId::from_bytes(&[1; PeerId::MAX + 1]).is_none());
        assert_eq!(PeerId::from_bytes(&[1, 2]).unwrap().as_bytes(), &[1, 2]);
    }
}
