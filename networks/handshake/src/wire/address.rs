//! Where a peer can be reached: 88 bytes each, in `version` and `addr`.
//!
//! ```text
//! time u64 | services u64 | type u8 | ip 16 | reserved 20 | port u16 LE | key 33
//! ```
//!
//! Everything is little-endian, **the port too**. As hsd does, the upper half of the services and the reserved bytes
//! are not looked at, and an address of any type but 0 (IP) is read as the null address.

use super::body::{Body, Wire};
use bytes::{BufMut, BytesMut};
use rookery_base::DecodeError;
use rookery_base::id::{canonical_ip, mapped};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Most addresses in one `addr`; a peer that sends more is banned by hsd.
pub const MAX_ADDRS: usize = 1000;

/// The only address type in use: an IP.
const TYPE_IP: u8 = 0;

/// A peer's Brontide identity: a compressed secp256k1 point, not checked to be on the curve.
pub type Key = [u8; 33];

/// What a node offers to its peers, one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Services(pub u32);

impl Services {
    /// Offers nothing: a light client.
    pub const NONE: Self = Self(0);
    /// Serves the whole chain: headers, blocks, proofs.
    pub const NETWORK: Self = Self(1);
    /// Answers bloom filters (BIP 37).
    pub const BLOOM: Self = Self(2);

    /// Whether every bit of `wanted` is offered.
    pub const fn has(self, wanted: Self) -> bool {
        self.0 & wanted.0 == wanted.0
    }

    /// The bits of both.
    pub const fn with(self, more: Self) -> Self {
        Self(self.0 | more.0)
    }
}

impl Wire for Services {
    const MIN: usize = 8;

    fn read(body: &mut Body<'_>) -> Result<Self, DecodeError> {
        let low = body.u32_le("services")?;
        body.take(4, "upper half of the services")?;
        Ok(Self(low))
    }

    fn write(&self, out: &mut BytesMut) {
        out.put_u64_le(u64::from(self.0));
    }
}

/// One peer's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetAddress {
    /// When the peer was last seen, in seconds since 1970.
    pub time: u64,
    /// What it is said to offer.
    pub services: Services,
    /// Its IP; IPv4 as IPv4-mapped IPv6.
    pub ip: Ipv6Addr,
    /// Its port.
    pub port: u16,
    /// Its identity, when it is reached over Brontide.
    pub key: Option<Key>,
}

impl NetAddress {
    /// The address of nobody.
    pub const NULL: Self =
        Self { time: 0, services: Services::NONE, ip: Ipv6Addr::UNSPECIFIED, port: 0, key: None };

    /// An unkeyed address of unknown age and services.
    pub fn new(addr: SocketAddr) -> Self {
        Self { ip: mapped(addr.ip()), port: addr.port(), ..Self::NULL }
    }

    /// Where to dial. `None` for an address without IP or port.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        let addr = SocketAddr::new(canonical_ip(IpAddr::V6(self.ip)), self.port);
        (!addr.ip().is_unspecified() && self.port != 0).then_some(addr)
    }
}

impl Wire for NetAddress {
    const MIN: usize = 88;

    fn read(body: &mut Body<'_>) -> Result<Self, DecodeError> {
        let time = body.integer("time of an address")?;
        let services = Services::read(body)?;
        let is_ip = body.u8("type of an address")? == TYPE_IP;
        let ip: [u8; 16] = body.array("ip of an address")?;
        body.take(20, "reserved bytes of an address")?;
        let port = body.u16_le("port of an address")?;
        let key: Key = body.array("key of an address")?;
        Ok(Self {
            time,
            services,
            ip: if is_ip { ip.into() } else { Ipv6Addr::UNSPECIFIED },
            port,
            key: (key != [0; 33]).then_some(key),
        })
    }

    fn write(&self, out: &mut BytesMut) {
        out.put_u64_le(self.time);
        self.services.write(out);
        out.put_u8(TYPE_IP);
        out.extend_from_slice(&self.ip.octets());
        out.put_bytes(0, 20);
        out.put_u16_le(self.port);
        out.extend_from_slice(&self.key.unwrap_or([0; 33]));
    }
}
