//! The rows of the admission table, and a model: whatever arrives in whatever order, no limit is exceeded and every
//! count equals a scan.

use proptest::prelude::*;
use rookery_runtime::Clock;

use super::*;

const SMALL: HandshakeLimits = HandshakeLimits {
    total: 8,
    per_ip: 2,
    per_prefix: 4,
    bytes: 8 * 1000,
    bytes_each: 1000,
    low_water: 0.5,
    ..HandshakeLimits::PUBLIC
};

fn ip(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    [a, b, c, d].into()
}

fn start(limits: HandshakeLimits) -> (Admission, Instant) {
    let now = Clock::system().now();
    (Admission::new(limits, now), now)
}

fn admitted(verdict: Verdict) -> AttemptId {
    let Verdict::Admit(id, _) = verdict else { panic!("{verdict:?}") };
    id
}

/// Row 20: below the low-water mark the unproven are let in, above it they must prove their address, and the proven pass.
#[test]
fn above_the_low_water_mark_addresses_must_be_proven() {
    let (mut doors, now) = start(SMALL);
    for n in 0..4 {
        admitted(doors.judge(ip(1, 1, n, 1), false, false, now));
    }
    assert_eq!(doors.judge(ip(1, 1, 9, 1), false, false, now), Verdict::Retry);
    let first = admitted(doors.judge(ip(1, 1, 9, 1), true, false, now));
    doors.ended(first);
    assert_eq!(doors.judge(ip(1, 1, 9, 1), false, false, now), Verdict::Retry, "still at half");
    let (mut strict, now) = start(HandshakeLimits { always_retry: true, ..SMALL });
    assert_eq!(strict.judge(ip(1, 1, 1, 1), false, false, now), Verdict::Retry);
    admitted(strict.judge(ip(1, 1, 1, 1), true, false, now));
}

/// Row 20: whoever forges the addresses of a network, with handshakes that fail at once, spends a part of its computing time, and
/// those who are there have the rest.
#[test]
fn what_is_forged_in_a_prefixs_name_leaves_computing_time_for_who_proves_its_address() {
    let (mut doors, now) = start(HandshakeLimits::PUBLIC);
    let mut let_in = 0;
    for n in 0..20_000 {
        let now = now + Duration::from_millis(n);
        match doors.judge(ip(7, 7, 7, n as u8), false, false, now) {
            Verdict::Admit(id, _) => {
                let_in += 1;
                doors.ended(id);
            }
            verdict => assert_eq!(verdict, Verdict::Retry),
        }
        if n % 100 == 0 {
            let honest = admitted(doors.judge(ip(7, 7, 7, 200), true, false, now));
            doors.ended(honest);
        }
    }
    assert!(let_in > 100, "it is not kept out itself: {let_in}");
}

/// Row 20: what handshakes may hold is bounded in bytes, too, where that binds first.
#[test]
fn bytes_bind_where_each_handshake_holds_more() {
    let (mut doors, now) = start(HandshakeLimits { bytes: 3 * 1000, low_water: 1.0, ..SMALL });
    let ids: Vec<_> = (0..3).map(|n| admitted(doors.judge(ip(1, n, 1, 1), true, false, now))).collect();
    assert_eq!(doors.judge(ip(1, 9, 1, 1), true, false, now), Verdict::Refuse(Refusal::HandshakeBytes));
    assert_eq!(doors.judge(ip(1, 9, 1, 1), false, false, now), Verdict::Retry);
    doors.ended(ids[0]);
    admitted(doors.judge(ip(1, 9, 1, 1), true, false, now));
}

/// Row 21: the oldest unproven handshake makes room; without one, the most crowded prefix's oldest; without a crowd,
/// whoever is over its grace; else the arrival is refused.
#[test]
fn the_oldest_unproven_goes_first_then_the_crowd_then_the_slow() {
    let (mut doors, now) = start(HandshakeLimits { low_water: 1.0, ..SMALL });
    let unproven = admitted(doors.judge(ip(9, 0, 0, 1), false, false, now));
    let crowd: Vec<AttemptId> =
        (0..3).map(|n| admitted(doors.judge(ip(2, 2, 2, n), true, false, now))).collect();
    let others: Vec<AttemptId> =
        (0..4).map(|n| admitted(doors.judge(ip(3, 3, n, 1), true, false, now))).collect();
    let Verdict::Admit(_, Some(gone)) = doors.judge(ip(4, 0, 0, 1), true, false, now) else { panic!() };
    assert_eq!(gone, unproven);
    let Verdict::Admit(_, Some(gone)) = doors.judge(ip(4, 0, 1, 1), true, false, now) else { panic!() };
    assert_eq!(gone, crowd[0]);
    // Two of the crowd are left: no more crowded than the newcomer's prefix would become.
    assert_eq!(doors.judge(ip(3, 3, 0, 2), true, false, now), Verdict::Refuse(Refusal::Handshakes));
    let late = now + SMALL.grace;
    let Verdict::Admit(_, Some(gone)) = doors.judge(ip(3, 3, 0, 2), true, false, late) else { panic!() };
    assert_eq!(gone, crowd[1]);
    let again = doors.judge(ip(2, 2, 2, 1), true, false, late);
    assert_eq!(again, Verdict::Refuse(Refusal::HandshakeEvicted), "its host was too slow just now");
    assert_eq!(doors.under_way(), SMALL.total);
    doors.ended(gone);
    assert_eq!(doors.under_way(), SMALL.total, "an end counts once");
    doors.ended(others[0]);
    assert_eq!(doors.under_way(), SMALL.total - 1);
}

/// Row 21: whoever waits for us is not slow, however old it is; for ever it does not keep its place either.
#[test]
fn who_waits_for_us_keeps_its_place_before_who_has_us_wait() {
    let (mut doors, now) = start(SMALL);
    let all: Vec<(AttemptId, Waits)> = (0..8)
        .map(|n| {
            let (id, waits) = (admitted(doors.judge(ip(3, n, 1, 1), true, false, now)), Waits::new(now));
            doors.told_by(id, waits.clone());
            (id, waits)
        })
        .collect();
    // The third and the sixth have said nothing since.
    all[2].1.begin(now);
    all[5].1.begin(now);
    let late = now + SMALL.grace;
    for (n, slow) in [(1, 2), (2, 5)] {
        let verdict = doors.judge(ip(4, n, 1, 1), true, false, late);
        assert!(matches!(verdict, Verdict::Admit(_, Some(gone)) if gone == all[slow].0), "{verdict:?}");
    }
    let (busy, full) = (ip(4, 3, 1, 1), Verdict::Refuse(Refusal::Handshakes));
    assert_eq!(doors.judge(busy, true, false, late), full, "the others wait for us");
    assert_eq!(doors.judge(ip(3, 2, 1, 1), true, false, late), Verdict::Refuse(Refusal::HandshakeEvicted));
    let old = now + SMALL.grace * OLD;
    let verdict = doors.judge(busy, true, false, old);
    assert!(matches!(verdict, Verdict::Admit(_, Some(gone)) if gone == all[0].0), "{verdict:?}");
    // It was us who were slow, so its host may take a place as any other.
    assert!(matches!(doors.judge(ip(3, 0, 1, 1), true, false, old), Verdict::Admit(_, Some(_))));
}

/// Row 21: a crowd of the quick, as many behind one address translation are, does not make room while somebody is slow.
#[test]
fn a_quick_crowd_goes_after_the_slow() {
    let (mut doors, now) = start(SMALL);
    let slow: Vec<AttemptId> =
        (0..5).map(|n| admitted(doors.judge(ip(3, n, 1, 1), true, false, now))).collect();
    let late = now + SMALL.grace;
    let crowd: Vec<AttemptId> =
        (0..3).map(|n| admitted(doors.judge(ip(2, 2, 2, n), true, false, late))).collect();
    for (n, gone) in (0..).zip(slow.iter().chain(&crowd[..1])) {
        let verdict = doors.judge(ip(4, n, 1, 1), true, false, late);
        assert!(matches!(verdict, Verdict::Admit(_, Some(victim)) if victim == *gone), "{verdict:?}");
    }
}

/// Row 20: some networks that say the same proofs again and again, which costs them nothing, use up their own parts of the
/// computing time, and not that of who comes for the first time.
#[test]
fn whoever_has_used_least_of_its_part_goes_first_when_computing_time_is_short() {
    // Fewer networks than the whole has parts cannot use it up; more of them are behind whoever is new.
    for (networks, let_in) in [(15, 1000), (20, 600)] {
        let (mut doors, began) = start(HandshakeLimits::PUBLIC);
        let mut honest = 0;
        for millisecond in 0..20_000_u64 {
            let now = began + Duration::from_millis(millisecond);
            for network in 0..networks {
                if let Verdict::Admit(id, _) = doors.judge(ip(8, 8, network, 1), true, false, now) {
                    // What follows the proof is nothing, so that it ends at once.
                    doors.ended(id);
                }
            }
            let [b, c] = ((millisecond / 20) as u16).to_be_bytes();
            if millisecond % 20 == 0
                && let Verdict::Admit(id, _) = doors.judge(ip(9, b, c, 1), true, false, now)
            {
                doors.ended(id);
                honest += 1;
            }
        }
        assert!(honest >= let_in, "{honest} of 1000 beside {networks} networks");
    }
}

/// Row 9: a host's limit refuses before anything is paid, forged arrivals cannot keep the true host out, and others are
/// not affected. An IPv6 host has a /64, and a mapped address is its IPv4 host.
#[test]
fn limits_per_host_hold_and_forgers_cannot_use_them_against_the_host() {
    let (mut doors, now) = start(HandshakeLimits { low_water: 1.0, ..SMALL });
    let forged: Vec<AttemptId> =
        (0..2).map(|_| admitted(doors.judge(ip(1, 1, 1, 1), false, false, now))).collect();
    assert_eq!(doors.judge(ip(1, 1, 1, 1), false, false, now), Verdict::Retry);
    for gone in forged {
        assert!(
            matches!(doors.judge(ip(1, 1, 1, 1), true, false, now), Verdict::Admit(_, Some(g)) if g == gone)
        );
    }
    let mapped: IpAddr = "::ffff:1.1.1.1".parse().unwrap();
    assert_eq!(doors.judge(mapped, true, false, now), Verdict::Refuse(Refusal::HandshakesPerIp));
    admitted(doors.judge(ip(1, 1, 1, 2), true, false, now));
    admitted(doors.judge(ip(1, 1, 1, 3), true, false, now));
    assert_eq!(doors.judge(ip(1, 1, 1, 4), true, false, now), Verdict::Refuse(Refusal::HandshakesPerPrefix));
    for end in ["2001:db8:1:1::1", "2001:db8:1:1:ffff::2"] {
        admitted(doors.judge(end.parse().unwrap(), true, false, now));
    }
    let third: IpAddr = "2001:db8:1:1::3".parse().unwrap();
    assert_eq!(doors.judge(third, true, false, now), Verdict::Refuse(Refusal::HandshakesPerIp));
}

#[test]
fn a_banned_address_is_refused_and_a_forged_one_is_told_nothing() {
    let (mut doors, now) = start(SMALL);
    assert_eq!(doors.judge(ip(1, 1, 1, 1), true, true, now), Verdict::Refuse(Refusal::Banned));
    assert_eq!(doors.judge(ip(1, 1, 1, 1), false, true, now), Verdict::Ignore);
    assert_eq!(doors.under_way(), 0);
}

/// Computing time: a storm of thousands passes at once; each prefix has its part, all together have theirs, and both come back.
#[test]
fn a_storm_of_thousands_passes_and_computing_time_is_bounded() {
    let limits = HandshakeLimits {
        total: 100_000,
        per_ip: 100_000,
        per_prefix: 100_000,
        bytes: usize::MAX,
        ..HandshakeLimits::PUBLIC
    };
    let (mut doors, now) = start(limits);
    let mut passed = 0;
    while let Verdict::Admit(..) = doors.judge(ip(1, 1, 1, 1), true, false, now) {
        passed += 1;
    }
    assert!((380..420).contains(&passed), "a sixteenth of two seconds at 0.3 ms, or a little less: {passed}");
    assert_eq!(doors.judge(ip(1, 1, 1, 2), true, false, now), Verdict::Refuse(Refusal::HandshakesPerPrefix));
    admitted(doors.judge(ip(1, 1, 2, 1), true, false, now));
    passed += 1;
    for n in 0..60_000_u32 {
        let [_, _, c, d] = n.to_be_bytes();
        match doors.judge(ip(7, c, d, 1), true, false, now) {
            Verdict::Admit(..) => passed += 1,
            verdict => assert!(matches!(
                verdict,
                Verdict::Refuse(Refusal::HandshakeCpu | Refusal::HandshakesPerPrefix)
            )),
        }
    }
    assert!((6_600..6_700).contains(&passed), "two seconds at 0.3 ms: {passed}");
    assert_eq!(doors.judge(ip(1, 1, 2, 1), false, false, now), Verdict::Retry, "above the low-water mark");
    let later = now + Duration::from_secs(4);
    admitted(doors.judge(ip(1, 1, 1, 1), true, false, later));
}

/// Row 20: a hundred thousand forged addresses are answered as far as Retries are worth it, and hold nothing.
#[test]
fn a_flood_of_forged_addresses_holds_a_quarter_at_most() {
    let (mut doors, now) = start(HandshakeLimits::PUBLIC);
    let (total, retries) = (HandshakeLimits::PUBLIC.total, RETRIES as usize);
    let quarter = total / 4;
    let mut counts = [0_usize; 3];
    for n in 0..100_000_u32 {
        let [_, b, c, d] = n.to_be_bytes();
        match doors.judge(ip(8 + d % 64, d, c, b), false, false, now) {
            Verdict::Admit(..) => counts[0] += 1,
            Verdict::Retry => counts[1] += 1,
            Verdict::Ignore => counts[2] += 1,
            Verdict::Refuse(why) => panic!("an unproven arrival was refused: {why}"),
        }
    }
    assert_eq!(counts, [quarter, retries, 100_000 - quarter - retries]);
    assert_eq!((doors.under_way(), doors.purses.len() <= quarter), (quarter, true));
    let ip_of = |a, n: usize| {
        let [b, c] = (n as u16).to_be_bytes();
        ip(a, b, c, 1)
    };
    for n in quarter..total {
        admitted(doors.judge(ip_of(200, n), true, false, now));
    }
    for n in 0..quarter {
        let honest = doors.judge(ip_of(201, n), true, false, now);
        assert!(matches!(honest, Verdict::Admit(_, Some(_))), "the forged make room: {honest:?}");
    }
}

/// Row 21: 5,000 hosts of as many networks prove their addresses, one datagram a second each, never end, and begin again when
/// they have lost their places. Whoever is honest and takes a tenth of a second gets in and is not thrown out, and the slow
/// ones do not use up the computing time.
#[test]
fn five_thousand_slow_handshakes_keep_nobody_out_who_is_quick() {
    const SECONDS: u64 = 30;
    let (mut doors, began) = start(HandshakeLimits::PUBLIC);
    let (mut honest, mut through) = (VecDeque::new(), 0);
    let mut slow: BTreeMap<u16, AttemptId> = BTreeMap::new();
    for millisecond in 0..1000 * SECONDS {
        let now = began + Duration::from_millis(millisecond);
        // They begin within two and a half seconds, and each comes back to its turn in every second.
        for n in 0..5_000_u64.min(2 * millisecond) {
            if n % 1000 != millisecond % 1000
                || slow.get(&(n as u16)).is_some_and(|id| doors.shaking.contains_key(id))
            {
                continue;
            }
            let [b, c] = (n as u16).to_be_bytes();
            if let Verdict::Admit(id, _) = doors.judge(ip(8, b, c, 1), true, false, now) {
                slow.insert(n as u16, id);
            }
        }
        if millisecond % 20 == 0 {
            let [b, c] = ((millisecond / 20) as u16).to_be_bytes();
            let id = admitted(doors.judge(ip(9, b, c, 1), true, false, now));
            honest.push_back((now + Duration::from_millis(100), id));
        }
        while let Some((_, id)) = honest.pop_front_if(|(due, _)| *due <= now) {
            assert!(doors.shaking.contains_key(&id), "{id:?} lost its place at {millisecond} ms");
            doors.ended(id);
            through += 1;
        }
        assert!(doors.under_way() <= HandshakeLimits::PUBLIC.total);
    }
    assert_eq!(through, 50 * SECONDS - 5);
    assert!(doors.benched.len() <= BENCHED && doors.bench.len() <= BENCHED);
}

#[derive(Debug, Clone)]
enum Step {
    Arrive { ip: IpAddr, proven: bool, banned: bool },
    End(usize),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let arrive = (0_u8..4, 0_u8..3, 0_u8..3, any::<bool>(), proptest::bool::weighted(0.05));
    prop_oneof![
        8 => arrive.prop_map(|(b, c, d, proven, banned)| Step::Arrive { ip: ip(1, b, c, d), proven, banned }),
        3 => (0_usize..8).prop_map(Step::End),
        1 => (0_u64..3_000).prop_map(Step::Pass),
    ]
}

proptest! {
    #[test]
    fn admission_equals_a_list_and_exceeds_no_limit(steps in proptest::collection::vec(step(), 1..200)) {
        // Computing time for ten handshakes at once, so that it binds as well.
        let limits = HandshakeLimits { cpu_burst: Duration::from_millis(10), cpu_each: Duration::from_millis(1),
            cpu_share: 0.01, prefix_part: 2, ..SMALL };
        let (mut doors, mut now) = start(limits);
        let mut known: Vec<(AttemptId, IpAddr, bool)> = Vec::new();
        let (mut paid, began) = (0_u32, now);
        for step in steps {
            match step {
                Step::Pass(ms) => now += Duration::from_millis(ms),
                Step::End(which) => if which < known.len() {
                    let (id, ..) = known.remove(which);
                    doors.ended(id);
                    doors.ended(id);
                },
                Step::Arrive { ip, proven, banned } => match doors.judge(ip, proven, banned, now) {
                    Verdict::Admit(id, instead) => {
                        prop_assert!(!banned);
                        prop_assert!(known.iter().all(|(other, ..)| *other < id), "numbers only grow");
                        if let Some(victim) = instead {
                            prop_assert!(proven, "only the proven replace anybody");
                            let at = known.iter().position(|(id, ..)| *id == victim).expect("it was under way");
                            known.remove(at);
                        }
                        known.push((id, ip, proven));
                        paid += 1;
                    }
                    Verdict::Retry => prop_assert!(!proven && !banned),
                    Verdict::Refuse(why) => prop_assert!(proven && (why == Refusal::Banned) == banned),
                    Verdict::Ignore => prop_assert!(!proven && banned),
                },
            }
            prop_assert_eq!(doors.under_way(), known.len());
            prop_assert!(known.len() <= limits.total);
            prop_assert_eq!(doors.unproven.len(), known.iter().filter(|(.., proven)| !proven).count());
            for (_, at, _) in &known {
                let (host, prefix) = origin(*at);
                let from = |same: &dyn Fn(IpAddr) -> bool| known.iter().filter(|(_, ip, _)| same(*ip)).count();
                prop_assert_eq!(doors.hosts[&host].len(), from(&|ip| origin(ip).0 == host));
                prop_assert_eq!(doors.prefixes[&prefix].len(), from(&|ip| origin(ip).1 == prefix));
                prop_assert!(doors.hosts[&host].len() <= limits.per_ip);
                prop_assert!(doors.prefixes[&prefix].len() <= limits.per_prefix);
            }
            prop_assert_eq!(doors.crowds.len(), doors.prefixes.len());
            let most = 10.0 + 10.0 * now.saturating_duration_since(began).as_secs_f64();
            prop_assert!(f64::from(paid) <= most + 1e-6, "{} handshakes, {} were to be had", paid, most);
        }
    }
}
