//! Strategies for what several crates test with.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use proptest::prelude::*;

/// IPv4, IPv6 and IPv4-mapped IPv6 addresses, from few groups and few hosts, so that limits are met.
pub fn crowded_ip() -> impl Strategy<Value = IpAddr> {
    (0_u8..4, 0_u8..3, 0_u8..4).prop_map(|(group, host, shape)| {
        let v4 = Ipv4Addr::new(20 + group, 7, 0, host);
        match shape {
            0 => IpAddr::V6(v4.to_ipv6_mapped()),
            1 => IpAddr::V6(Ipv6Addr::new(0x2600 + u16::from(group), 1, 0, 0, 0, 0, 0, u16::from(host))),
            _ => IpAddr::V4(v4),
        }
    })
}

/// A [`crowded_ip`] with any port but 0.
pub fn crowded_addr() -> impl Strategy<Value = SocketAddr> {
    (crowded_ip(), 1_u16..).prop_map(|(ip, port)| SocketAddr::new(ip, port))
}

/// Bytes cut into pieces at any places: what a stream may do to them.
pub fn in_pieces(bytes: Vec<u8>) -> impl Strategy<Value = Vec<Vec<u8>>> {
    let len = bytes.len();
    proptest::collection::btree_set(0..=len, 0..8).prop_map(move |cuts| {
        let mut ends: Vec<usize> = cuts.into_iter().chain([len]).collect();
        ends.dedup();
        let starts = std::iter::once(0).chain(ends.iter().copied());
        starts.zip(&ends).map(|(from, to)| bytes[from..*to].to_vec()).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest! {
        #[test]
        fn pieces_join_to_the_whole(pieces in in_pieces((0..100).collect())) {
            prop_assert_eq!(pieces.concat(), (0..100).collect::<Vec<u8>>());
        }
    }
}
