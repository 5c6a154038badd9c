//! The admission of handshakes, as anything that may happen to it: each three bytes are an operation. Arrivals come from a
//! few hosts of a few prefixes, proven, unproven or banned, handshakes end in any order and more than once, time passes.
//!
//! Beside it runs a list of what is under way, and after each operation: the counts agree; no limit is exceeded, in all, per
//! host, per prefix, in bytes; who is replaced was under way, and unproven or by right; the banned and, above a limit, the
//! unproven never get in; computing time is not spent faster than it comes.

#![no_main]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use rookery_base::Refusal;
use rookery_engine::HandshakeLimits;
use rookery_engine::admission::{Admission, AttemptId, Verdict};
use rookery_runtime::Clock;

const LIMITS: HandshakeLimits = HandshakeLimits {
    total: 12,
    per_ip: 2,
    per_prefix: 5,
    bytes: 11 * 1000,
    bytes_each: 1000,
    cpu_burst: Duration::from_millis(20),
    cpu_share: 0.5,
    cpu_each: Duration::from_millis(1),
    prefix_part: 2,
    low_water: 0.5,
    ..HandshakeLimits::PUBLIC
};

#[derive(Clone, Copy)]
struct Under {
    host: u8,
    proven: bool,
}

/// Sixteen hosts in each of eight prefixes; half of the prefixes are of IPv6, and odd IPv4 hosts come in their mapped form.
fn ip(host: u8) -> IpAddr {
    let (prefix, number) = (host >> 4 & 7, host & 15);
    if prefix & 1 == 1 {
        return Ipv6Addr::new(0x2001, 0xdb8, prefix.into(), number.into(), 0, 0, 0, 1).into();
    }
    let v4 = std::net::Ipv4Addr::new(203, 0, prefix, number);
    if number & 1 == 1 { v4.to_ipv6_mapped().into() } else { v4.into() }
}

fuzz_target!(|input: &[u8]| {
    let begin = Clock::system().now();
    let mut now = begin;
    let mut doors = Admission::new(LIMITS, now);
    let mut list: BTreeMap<AttemptId, Under> = BTreeMap::new();
    let (mut gone, mut admitted): (Vec<AttemptId>, u32) = (Vec::new(), 0);
    for &[what, host, how] in input.as_chunks::<3>().0 {
        match what % 8 {
            0..=4 => {
                let (host, proven, banned) = (host & 0x7f, how & 1 == 1, how & 0x1e == 0x1e);
                let per_host = list.values().filter(|under| under.host == host).count();
                match doors.judge(ip(host), proven, banned, now) {
                    Verdict::Admit(id, instead) => {
                        assert!(!banned);
                        admitted += 1;
                        if let Some(instead) = instead {
                            assert!(proven, "only the proven replace");
                            let victim = list.remove(&instead).expect("who is replaced was under way");
                            let own = per_host >= LIMITS.per_ip;
                            assert!(!own || victim.host == host && !victim.proven, "a host's own unproven");
                            gone.push(instead);
                        }
                        let before = list.insert(id, Under { host, proven });
                        assert!(before.is_none() && !gone.contains(&id), "a number is used once");
                    }
                    Verdict::Retry => assert!(!proven && !banned),
                    Verdict::Refuse(Refusal::Banned) => assert!(banned && proven),
                    Verdict::Refuse(_) => assert!(!banned),
                    Verdict::Ignore => assert!(!proven),
                }
            }
            5 => {
                let nth = list.keys().nth(usize::from(host) % list.len().max(1)).copied();
                if let Some(id) = nth {
                    list.remove(&id);
                    doors.ended(id);
                    gone.push(id);
                }
            }
            6 => gone.iter().rev().take(3).for_each(|id| doors.ended(*id)),
            _ => now += Duration::from_micros(u64::from(host) << (how % 16)),
        }
        check(&doors, &list);
        let worth = LIMITS.cpu_burst.as_secs_f64() + (now - begin).as_secs_f64() * LIMITS.cpu_share;
        let spent = f64::from(admitted) * LIMITS.cpu_each.as_secs_f64();
        assert!(spent <= worth + 1e-6, "{spent} s spent of {worth}");
    }
    list.keys().for_each(|id| doors.ended(*id));
    assert_eq!(doors.under_way(), 0, "nothing is left behind");
});

fn check(doors: &Admission, list: &BTreeMap<AttemptId, Under>) {
    assert_eq!(doors.under_way(), list.len());
    assert!(list.len() <= LIMITS.total && list.len() * LIMITS.bytes_each <= LIMITS.bytes);
    let (mut hosts, mut prefixes) = ([0; 128], [0; 8]);
    for under in list.values() {
        hosts[usize::from(under.host)] += 1;
        prefixes[usize::from(under.host >> 4)] += 1;
    }
    assert!(hosts.iter().all(|count| *count <= LIMITS.per_ip), "{hosts:?}");
    assert!(prefixes.iter().all(|count| *count <= LIMITS.per_prefix), "{prefixes:?}");
}
