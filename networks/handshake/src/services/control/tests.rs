use super::*;
use crate::services::testing::{Gate, env, fault, frame, outbox, sent};
use crate::wire::reject::RejectCode;
use crate::wire::{InvKind, Packet, Text};
use bytes::Bytes;
use rookery_base::{Charge, CloseCause};
use rookery_engine::kinds::Verdict;

fn nonce_of(packet: &Packet) -> u64 {
    match packet {
        Packet::Ping(nonce) | Packet::Pong(nonce) => u64::from_le_bytes(*nonce),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_ping_is_answered_with_its_nonce_whatever_follows_it() {
    let env = env();
    let (mut pipe, mut out) = (ControlPipe::default(), outbox(&env));
    let long = Frame::new(kind(k::PING), Bytes::from_static(b"12345678 and more"), Charge::none());
    assert_eq!(pipe.on_frame(env.clock.now(), long, &mut out), Flow::Continue);
    assert_eq!(sent(&mut out), [Packet::Pong(*b"12345678")]);
}

#[test]
fn pings_go_out_at_once_and_every_half_minute_and_a_pong_gives_the_round_trip() {
    let env = env();
    let (mut pipe, mut out) = (ControlPipe::default(), outbox(&env));
    let now = env.clock.now();
    assert_eq!(pipe.on_start(now, &mut out), Flow::Continue);
    let first = sent(&mut out).remove(0);
    assert_eq!(pipe.timer(), Some(now + PING_EVERY));
    assert_eq!(pipe.on_timer(now + PING_EVERY, &mut out), Flow::Continue);
    let second = sent(&mut out).remove(0);
    assert_ne!(nonce_of(&first), nonce_of(&second));
    assert_eq!(pipe.timer(), Some(now + 2 * PING_EVERY));

    let pong = frame(&Packet::Pong(nonce_of(&first).to_le_bytes()));
    let key = pipe.key(&pong).unwrap();
    assert_eq!(key, RequestKey::number(kind(k::PING), nonce_of(&first)));
    let answer = Answer { key, end: End::Answered(pong, Duration::from_millis(40)) };
    assert_eq!(pipe.on_answer(now, answer, &mut out), Flow::Continue);
}

#[test]
fn a_ping_without_its_pong_for_two_minutes_ends_the_session() {
    let env = env();
    let (mut pipe, mut out) = (ControlPipe::default(), outbox(&env));
    let key = RequestKey::number(kind(k::PING), 1);
    let flow = pipe.on_answer(env.clock.now(), Answer { key, end: End::TimedOut }, &mut out);
    assert_eq!(fault(flow).kind, PeerFaultKind::Silent);
    let gone = Answer { key, end: End::Gone(CloseCause::PeerClosed) };
    assert_eq!(pipe.on_answer(env.clock.now(), gone, &mut out), Flow::Continue);
}

#[test]
fn as_many_pings_can_be_open_as_fall_into_the_silence() {
    let env = env();
    let (mut pipe, mut out) = (ControlPipe::default(), outbox(&env));
    for _ in 0..10 {
        assert_eq!(pipe.on_timer(env.clock.now(), &mut out), Flow::Continue);
    }
    assert_eq!(sent(&mut out).len(), usize::from(OPEN_PINGS));
}

#[test]
fn a_second_version_ends_the_session_and_a_second_verack_does_not() {
    let env = env();
    let (mut pipe, mut out) = (ControlPipe::default(), outbox(&env));
    let of = |number| Frame::new(kind(number), Bytes::new(), Charge::none());
    assert_eq!(pipe.on_frame(env.clock.now(), of(k::VERACK), &mut out), Flow::Continue);
    let flow = pipe.on_frame(env.clock.now(), of(k::VERSION), &mut out);
    assert_eq!(fault(flow).kind, PeerFaultKind::BadHandshake);
}

#[test]
fn getdata_is_answered_by_notfound_for_every_item() {
    let env = env();
    let (mut pipe, mut out) = (ControlPipe::default(), outbox(&env));
    let items: Vec<Inv> =
        (0..300_u32).map(|n| Inv { kind: InvKind(n % 7), hash: [n as u8; 32].into() }).collect();
    let _ = pipe.on_frame(env.clock.now(), frame(&Packet::GetData(items.clone())), &mut out);
    let _ = pipe.on_frame(env.clock.now(), frame(&Packet::GetData(vec![])), &mut out);
    assert_eq!(sent(&mut out), [Packet::NotFound(items)]);
}

#[test]
fn getdata_with_a_count_beyond_its_bytes_ends_the_session() {
    let env = env();
    let (mut pipe, mut out) = (ControlPipe::default(), outbox(&env));
    for (body, expected) in [
        (&[2, 1, 0, 0, 0][..], PeerFaultKind::Malformed),
        (&[0xfe, 0x51, 0xc3, 0, 0][..], PeerFaultKind::Malformed),
        (&[0xfe, 0, 0, 1, 0][..], PeerFaultKind::Oversize),
    ] {
        let getdata = Frame::new(kind(k::GETDATA), Bytes::from_static(body), Charge::none());
        assert_eq!(fault(pipe.on_frame(env.clock.now(), getdata, &mut out)).kind, expected, "{body:?}");
    }
    assert!(sent(&mut out).is_empty());
}

#[test]
fn valid_packets_that_a_headers_node_has_no_use_for_keep_the_session_and_get_no_answer() {
    let env = env();
    let (mut pipe, mut out) = (ControlPipe::default(), outbox(&env));
    for spec in SPECS.iter().filter(|spec| !matches!(spec.role, Role::Answer { .. })) {
        let number = spec.kind.0 as u8;
        if matches!(number, k::VERSION | k::PING | k::GETDATA | k::REJECT) {
            continue;
        }
        let some = Frame::new(spec.kind, vec![0; spec.min as usize].into(), Charge::none());
        assert_eq!(pipe.on_frame(env.clock.now(), some, &mut out), Flow::Continue, "{}", spec.name);
    }
    let reject = crate::wire::reject::Reject {
        message: k::TX,
        code: RejectCode::INVALID,
        reason: Text::new("bad\n").unwrap(),
        hash: Some([1; 32].into()),
    };
    assert_eq!(pipe.on_frame(env.clock.now(), frame(&Packet::Reject(reject)), &mut out), Flow::Continue);
    assert!(sent(&mut out).is_empty());
}

#[test]
fn blocks_and_proofs_that_nobody_asked_for_are_refused_by_their_head() {
    let env = env();
    for number in [k::BLOCK, k::MERKLEBLOCK, k::CMPCTBLOCK, k::BLOCKTXN, k::PROOF, k::NOTFOUND] {
        let info = &KINDS[usize::from(number)];
        let Verdict::Refuse(fault) = Gate::new(&env).check(number, info.max, false) else {
            panic!("{} passes", info.name)
        };
        assert_eq!(fault.kind, PeerFaultKind::Unsolicited, "{}", info.name);
    }
}

#[test]
fn unwanted_transactions_are_read_past_after_the_first() {
    let env = env();
    for number in [k::TX, k::CLAIM, k::AIRDROP, k::MEMPOOL, k::GETBLOCKS] {
        let (mut gate, len) = (Gate::new(&env), KINDS[usize::from(number)].max);
        assert!(matches!(gate.check(number, len, false), Verdict::Pass(_)));
        for _ in 0..100 {
            assert!(matches!(gate.check(number, len, false), Verdict::Drop(_)));
        }
    }
}

#[test]
fn the_hundredth_getproof_at_once_ends_the_session() {
    let env = env();
    let mut gate = Gate::new(&env);
    for n in 0..99 {
        assert!(matches!(gate.check(k::GETPROOF, 64, false), Verdict::Pass(_)), "{n}");
    }
    let Verdict::Refuse(fault) = gate.check(k::GETPROOF, 64, false) else { panic!("the hundredth passes") };
    assert_eq!(fault.kind, PeerFaultKind::Flood);
}

#[test]
fn pings_over_their_rate_wait_and_are_not_dropped() {
    let env = env();
    let mut gate = Gate::new(&env);
    for _ in 0..200 {
        assert!(matches!(gate.check(k::PING, 8, false), Verdict::Pass(_)));
    }
    assert!(matches!(gate.check(k::PING, 8, false), Verdict::Wait(..)));
}
