//! The registry's rules against a model that only lists sessions, and the simultaneous open in every order.

use proptest::prelude::*;
use rookery_base::PeerFault;
use rookery_base::PeerFaultKind::InvalidData;
use rookery_runtime::Clock;
use rookery_testkit::strategies::crowded_addr;

use super::*;

const LIMITS: SessionLimits = SessionLimits {
    inbound: 6,
    outbound: 3,
    kept_for_known: 0,
    per_ip: 2,
    per_group: 4,
    ban: Duration::from_secs(60),
};
const US: u8 = 3;

fn id(n: u8) -> PeerId {
    PeerId::from_bytes(&[n]).unwrap()
}

#[derive(Debug, Clone)]
enum Step {
    Ask { peer: u8, addr: SocketAddr, outbound: bool, reserved: bool },
    Leave(usize),
    End { which: usize, ban: bool, twice: bool },
    Ban(IpAddr),
    Unban(IpAddr),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let ask = (0_u8..8, crowded_addr(), any::<bool>(), any::<bool>());
    prop_oneof![
        6 => ask.prop_map(|(peer, addr, outbound, reserved)| {
            // Only dials can be reserved, as in the engine.
            Step::Ask { peer, addr, outbound, reserved: outbound && reserved }
        }),
        1 => (0_usize..9).prop_map(Step::Leave),
        3 => (0_usize..9, proptest::bool::weighted(0.1), any::<bool>())
            .prop_map(|(which, ban, twice)| Step::End { which, ban, twice }),
        1 => crowded_addr().prop_map(|addr| Step::Ban(addr.ip())),
        1 => crowded_addr().prop_map(|addr| Step::Unban(addr.ip())),
        2 => (0_u64..400).prop_map(Step::Pass),
    ]
}

/// A session as the model sees it.
#[derive(Debug, Clone, Copy)]
struct Known {
    generation: Generation,
    candidate: Candidate,
    since: Instant,
    leaving: bool,
}

fn check(state: &RegistryState, known: &[Known]) {
    assert_eq!(state.slots(), known.len());
    let staying: Vec<&Known> = known.iter().filter(|k| !k.leaving).collect();
    for direction in [Direction::Inbound, Direction::Outbound] {
        let there = staying.iter().filter(|k| k.candidate.direction == direction).count();
        assert_eq!(state.count(direction), there);
        assert!(there <= if direction == Direction::Inbound { LIMITS.inbound } else { LIMITS.outbound });
    }
    for one in &staying {
        assert_eq!(staying.iter().filter(|k| k.candidate.peer == one.candidate.peer).count(), 1);
        let inbound = || staying.iter().filter(|k| k.candidate.direction == Direction::Inbound);
        let ip = canonical_ip(one.candidate.addr.ip());
        assert!(inbound().filter(|k| canonical_ip(k.candidate.addr.ip()) == ip).count() <= LIMITS.per_ip);
        let group = AddrGroup::of(ip);
        assert!(
            inbound().filter(|k| AddrGroup::of(k.candidate.addr.ip()) == group).count() <= LIMITS.per_group
        );
        assert_ne!(one.candidate.peer, id(US));
    }
}

/// What an admission may cost: the peer's own stale or beaten session, and one inbound stranger of a more crowded group.
fn check_leaving(candidate: &Candidate, leave: &[Generation], known: &[Known], now: Instant) {
    for generation in leave {
        let old = known.iter().find(|k| k.generation == *generation && !k.leaving).expect("it was there");
        if old.candidate.peer == candidate.peer {
            let same = canonical_ip(old.candidate.addr.ip()) == canonical_ip(candidate.addr.ip());
            let stale = now - old.since >= if same { STALE_SAME_IP } else { STALE_OTHER_IP };
            assert!(stale || old.candidate.direction != candidate.direction);
        } else {
            let crowd = |addr: SocketAddr| {
                let group = AddrGroup::of(addr.ip());
                let inside = |k: &&Known| !k.leaving && AddrGroup::of(k.candidate.addr.ip()) == group;
                let counted = |k: &&Known| {
                    k.candidate.direction == Direction::Inbound && !leave[..1].contains(&k.generation)
                };
                known.iter().filter(inside).filter(counted).count()
            };
            assert_eq!(candidate.direction, Direction::Inbound);
            assert!(old.candidate.direction == Direction::Inbound && !old.candidate.reserved);
            assert!(now - old.since < LASTING, "who has lasted stays");
            assert!(crowd(old.candidate.addr) + 1 > crowd(candidate.addr) + 1);
        }
    }
    assert!(leave.len() <= 2);
}

/// Nobody is refused without the reason that is named: who has one of its own to replace counts without that one.
fn check_refusal(candidate: &Candidate, cause: &CloseCause, banned: bool, known: &[Known], now: Instant) {
    let ip = |addr: SocketAddr| canonical_ip(addr.ip());
    let group = |addr: SocketAddr| AddrGroup::of(ip(addr));
    let others: Vec<&Known> = known
        .iter()
        .filter(|k| !k.leaving && k.candidate.direction == candidate.direction)
        .filter(|k| k.candidate.peer != candidate.peer)
        .collect();
    let many = |holds: &dyn Fn(SocketAddr) -> bool| others.iter().filter(|k| holds(k.candidate.addr)).count();
    let inbound = candidate.direction == Direction::Inbound;
    let right = match cause {
        CloseCause::Fault(fault) => candidate.peer == id(US) && fault.to_string().contains("identity"),
        CloseCause::Refused(Refusal::Banned) => banned,
        CloseCause::Refused(Refusal::PerAddress) => {
            inbound && many(&|addr| ip(addr) == ip(candidate.addr)) >= LIMITS.per_ip
        }
        CloseCause::Refused(Refusal::PerGroup) => {
            inbound && many(&|addr| group(addr) == group(candidate.addr)) >= LIMITS.per_group
        }
        CloseCause::Refused(Refusal::Full) if inbound => {
            let own = many(&|addr| group(addr) == group(candidate.addr));
            let sheds = |k: &&&Known| {
                now - k.since < LASTING && many(&|addr| group(addr) == group(k.candidate.addr)) > own + 1
            };
            others.len() >= LIMITS.inbound && others.iter().filter(sheds).count() == 0
        }
        CloseCause::Refused(Refusal::Full) => others.len() >= LIMITS.outbound,
        _ => false,
    };
    assert!(right, "{candidate:?} was refused for {cause}, with {known:?}");
}

proptest! {
    /// C8, R6, W2: whatever happens in whatever order, the table equals the list, limits hold, one identity has one
    /// session, the banned are refused and nobody else without a reason, generations only grow, and an end counts once.
    #[test]
    fn the_table_equals_a_list(steps in proptest::collection::vec(step(), 1..120)) {
        let mut now = Clock::system().now();
        let mut state = RegistryState::new(LIMITS, Some(id(US)));
        let (mut known, mut bans): (Vec<Known>, BTreeMap<IpAddr, Instant>) = Default::default();
        let mut last = Generation(0);
        for step in steps {
            match step {
                Step::Pass(seconds) => now += Duration::from_secs(seconds),
                Step::Ban(ip) => {
                    state.ban(ip, now, LIMITS.ban);
                    bans.insert(canonical_ip(ip), now + LIMITS.ban);
                }
                Step::Unban(ip) => {
                    state.unban(ip);
                    bans.remove(&canonical_ip(ip));
                }
                Step::Ask { peer, addr, outbound, reserved } => {
                    let direction = if outbound { Direction::Outbound } else { Direction::Inbound };
                    let candidate = Candidate { peer: id(peer), addr, direction, reserved, precedence: Precedence::NONE };
                    let banned = bans.get(&canonical_ip(addr.ip())).is_some_and(|until| *until > now);
                    let decision = state.decide(&candidate, now);
                    check(&state, &known);
                    match decision {
                        Decision::Admit(leave) => {
                            prop_assert!(!banned && peer != US);
                            check_leaving(&candidate, &leave, &known, now);
                            let generation = state.admit(candidate, &leave, now).unwrap();
                            prop_assert!(generation > last);
                            last = generation;
                            known.iter_mut().filter(|k| leave.contains(&k.generation)).for_each(|k| k.leaving = true);
                            known.push(Known { generation, candidate, since: now, leaving: false });
                        }
                        Decision::Refuse(CloseCause::Duplicate(of)) => {
                            let incumbent = known.iter().find(|k| k.generation == of);
                            prop_assert!(incumbent.is_some_and(|k| k.candidate.peer == candidate.peer && !k.leaving));
                        }
                        Decision::Refuse(cause) => check_refusal(&candidate, &cause, banned, &known, now),
                    }
                }
                Step::Leave(which) => {
                    if let Some(one) = known.get_mut(which) {
                        one.leaving = true;
                        state.leaving(one.generation);
                    }
                }
                Step::End { which, ban, twice } => {
                    if which < known.len() {
                        let one = known.remove(which);
                        let cause = if ban {
                            if !one.candidate.reserved {
                                bans.insert(canonical_ip(one.candidate.addr.ip()), now + LIMITS.ban);
                            }
                            CloseCause::Fault(PeerFault::ban(InvalidData, "forged").into())
                        } else {
                            CloseCause::PeerClosed
                        };
                        let end = || SessionEnd { generation: one.generation, cause: cause.clone(), ledger: Ledger::default(), passage: None };
                        let banned = state.ended(end(), now).map(|closed| closed.banned);
                        prop_assert_eq!(banned, Some(ban && !one.candidate.reserved));
                        prop_assert!(!twice || state.ended(end(), now).is_none(), "an end counts once");
                    }
                }
            }
            check(&state, &known);
            let held: Vec<IpAddr> = state.bans(now).map(|(ip, _)| ip).collect();
            let expected: Vec<IpAddr> = bans.iter().filter(|(_, until)| **until > now).map(|(ip, _)| *ip).collect();
            prop_assert_eq!(held, expected);
        }
    }
}

/// C6, C7: two nodes dial each other. Whatever the order in which each end sees the two connections, both keep the same
/// one, and it is the one that the smaller identity dialled.
#[test]
fn a_simultaneous_open_has_one_winner_on_both_ends() {
    let now = Clock::system().now();
    let addr: SocketAddr = "20.7.0.1:1".parse().unwrap();
    for (a_first, b_first, gap) in every(&[false, true], &[false, true], &[0, 1, 2, 4]) {
        let mut kept = Vec::new();
        for (local, other, own_first) in [(1, 2, a_first), (2, 1, b_first)] {
            let mut state = RegistryState::new(LIMITS, Some(id(local)));
            let mut holds = None;
            let order = if own_first {
                [Direction::Outbound, Direction::Inbound]
            } else {
                [Direction::Inbound, Direction::Outbound]
            };
            for (n, direction) in order.into_iter().enumerate() {
                let at = now + Duration::from_secs(gap * n as u64);
                let candidate = Candidate {
                    peer: id(other),
                    addr,
                    direction,
                    reserved: false,
                    precedence: Precedence::NONE,
                };
                if let Decision::Admit(leave) = state.decide(&candidate, at) {
                    state.admit(candidate, &leave, at).unwrap();
                    holds = Some(direction);
                }
            }
            let dialled_by = if holds == Some(Direction::Outbound) { local } else { other };
            kept.push(dialled_by);
        }
        assert_eq!(kept, [1, 1], "{a_first} {b_first} {gap}");
    }
}

fn every(a: &[bool], b: &[bool], c: &[u64]) -> Vec<(bool, bool, u64)> {
    a.iter().flat_map(|a| b.iter().flat_map(move |b| c.iter().map(move |c| (*a, *b, *c)))).collect()
}

/// R8: when the generations are used up a candidate is refused, and nothing has changed: the session that it would
/// have replaced stays.
#[test]
fn the_last_generation_refuses_without_changing_anything() {
    let now = Clock::system().now();
    let mut state = RegistryState::new(LIMITS, None);
    state.last = Generation(u64::MAX - 1);
    let addr: SocketAddr = "20.7.0.1:1".parse().unwrap();
    let candidate = |n| Candidate {
        peer: id(n),
        addr,
        direction: Direction::Inbound,
        reserved: false,
        precedence: Precedence::NONE,
    };
    let held = state.admit(candidate(1), &[], now).unwrap();
    assert_eq!(held, Generation(u64::MAX));
    let later = now + STALE_SAME_IP;
    assert!(matches!(
        state.decide(&candidate(1), later),
        Decision::Refuse(CloseCause::Refused(Refusal::Generations))
    ));
    assert_eq!(state.admit(candidate(1), &[held], later), None);
    assert_eq!((state.slots(), state.count(Direction::Inbound)), (1, 1));
}

/// Row 10: the shed policy. A proven stranger finds the kept slots taken; a peer with whom a session has lasted gets one, and
/// when all are taken a stranger's place, but never that of one who has lasted or is known as good; a fault makes it
/// a stranger again.
#[test]
fn slots_are_kept_for_peers_that_are_known_as_good() {
    let limits = SessionLimits { inbound: 4, kept_for_known: 1, ..SessionLimits::LOCAL };
    let mut state = RegistryState::new(limits, Some(id(US)));
    let mut now = Clock::system().now();
    let candidate = |n: u8| Candidate {
        peer: id(n),
        addr: SocketAddr::from(([20, 1, 0, n], 1)),
        direction: Direction::Inbound,
        reserved: false,
        precedence: Precedence { incarnation: 1, attempt: 1 },
    };
    let full = Decision::Refuse(CloseCause::Refused(Refusal::Full));
    let admit = |state: &mut RegistryState, n, now| match state.decide(&candidate(n), now) {
        Decision::Admit(leave) => (state.admit(candidate(n), &leave, now).unwrap(), leave),
        refused => panic!("{n}: {refused:?}"),
    };
    let end = |state: &mut RegistryState, generation, cause, now| {
        let end = SessionEnd { generation, cause, ledger: Ledger::default(), passage: None };
        assert!(state.ended(end, now).is_some());
    };
    let (good, _) = admit(&mut state, 10, now);
    let (lasting, _) = admit(&mut state, 11, now);
    now += LASTING;
    end(&mut state, good, CloseCause::PeerClosed, now);
    let (first, _) = admit(&mut state, 12, now);
    now += Duration::from_secs(1);
    let (second, _) = admit(&mut state, 13, now);
    assert_eq!(state.decide(&candidate(14), now), full, "the fourth slot is kept");
    let (kept, leave) = admit(&mut state, 10, now);
    assert!(leave.is_empty());
    end(&mut state, kept, CloseCause::PeerClosed, now);
    let unproven = Candidate { precedence: Precedence::NONE, ..candidate(15) };
    let Decision::Admit(leave) = state.decide(&unproven, now) else { panic!("nothing is kept from it") };
    assert!(leave.is_empty());
    state.admit(unproven, &[], now).unwrap();
    let (again, leave) = admit(&mut state, 10, now);
    assert_ne!(leave, [lasting]);
    assert_eq!(leave.len(), 1, "the youngest stranger makes room");
    assert!(state.is_live(first) && state.is_live(second));
    let fault = PeerFault::close(InvalidData, "forged");
    end(&mut state, again, CloseCause::Fault(fault.into()), now);
    assert_eq!(state.decide(&candidate(10), now), full, "a stranger again");
}
