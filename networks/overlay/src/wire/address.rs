//! Socket addresses.
//!
//! ```text
//! family u8 (4 | 6) | ip (4 | 16 bytes) | port u16, not 0
//! ```
//!
//! IPv4-mapped IPv6 addresses are refused: they are IPv4 addresses, and one address has one encoding. Scope and flow
//! of IPv6 are not sent: they mean nothing elsewhere.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::BufMut;
use rookery_base::id::canonical_addr;
use rookery_base::{DecodeError, Reader};

/// Addresses that a peer may tell of itself: two families, a few interfaces, a mapped port. More would be for others
/// to dial in vain.
pub const MAX_ADDRS: usize = 8;
/// Bytes of the longest address.
pub const MAX_ADDR_LEN: usize = 1 + 16 + 2;

/// Reads an address.
pub fn read_addr(reader: &mut Reader<'_>, what: &'static str) -> Result<SocketAddr, DecodeError> {
    let at = reader.at();
    let ip = match reader.u8(what)? {
        4 => IpAddr::V4(Ipv4Addr::from(reader.array::<4>(what)?)),
        6 => IpAddr::V6(Ipv6Addr::from(reader.array::<16>(what)?)),
        _ => return Err(DecodeError::Invalid { what, at }),
    };
    let addr = SocketAddr::new(ip, reader.u16_be(what)?);
    if addr.port() == 0 || canonical_addr(addr) != addr {
        return Err(DecodeError::Invalid { what, at });
    }
    Ok(addr)
}

/// Appends an address.
pub fn put_addr(out: &mut impl BufMut, addr: SocketAddr) {
    match canonical_addr(addr).ip() {
        IpAddr::V4(ip) => {
            out.put_u8(4);
            out.put_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.put_u8(6);
            out.put_slice(&ip.octets());
        }
    }
    out.put_u16(addr.port());
}

/// Whether an address can be sent: it has a port.
pub fn is_sendable(addr: &SocketAddr) -> bool {
    addr.port() != 0
}

/// Reads a count and at most [`MAX_ADDRS`] addresses.
pub fn read_addrs(reader: &mut Reader<'_>, what: &'static str) -> Result<Vec<SocketAddr>, DecodeError> {
    let at = reader.at();
    let count = usize::from(reader.u8(what)?);
    super::within(count, MAX_ADDRS, what, at)?;
    (0..count).map(|_| read_addr(reader, what)).collect()
}

/// Appends a count and the first [`MAX_ADDRS`] addresses that can be sent.
pub fn put_addrs(out: &mut impl BufMut, addrs: &[SocketAddr]) {
    let sendable = || addrs.iter().filter(|addr| is_sendable(addr)).take(MAX_ADDRS);
    out.put_u8(sendable().count() as u8);
    sendable().for_each(|addr| put_addr(out, *addr));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::testing::{arb_addr, check_canonical};
    use proptest::prelude::*;

    fn read_all(bytes: &[u8]) -> Result<Vec<SocketAddr>, DecodeError> {
        let mut reader = Reader::new(bytes);
        let addrs = read_addrs(&mut reader, "addresses")?;
        reader.finish().map(|()| addrs)
    }

    proptest! {
        #[test]
        fn addresses_have_one_encoding(addrs in proptest::collection::vec(arb_addr(), 0..=MAX_ADDRS)) {
            let mut out = Vec::new();
            put_addrs(&mut out, &addrs);
            prop_assert_eq!(read_all(&out), Ok(addrs));
            check_canonical(&out, |bytes| {
                read_all(bytes).ok().map(|addrs| {
                    let mut out = Vec::new();
                    put_addrs(&mut out, &addrs);
                    out
                })
            });
        }
    }

    #[test]
    fn mapped_addresses_port_zero_and_a_ninth_are_refused() {
        let mut mapped = vec![6];
        mapped.extend(Ipv4Addr::new(1, 2, 3, 4).to_ipv6_mapped().octets());
        mapped.extend([0, 80]);
        assert!(read_addr(&mut Reader::new(&mapped), "a").is_err());
        assert!(read_addr(&mut Reader::new(&[4, 1, 2, 3, 4, 0, 0]), "a").is_err());
        let nine = [&[9][..], &[4, 1, 2, 3, 4, 0, 80].repeat(9)].concat();
        assert!(matches!(read_all(&nine), Err(DecodeError::OverCap { value: 9, cap: 8, .. })));
    }
}
