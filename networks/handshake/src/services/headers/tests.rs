use super::*;
use crate::chain::HandshakeChain;
use crate::mine::synthetic::extend;
use crate::params::REGTEST;
use crate::services::testing::{Gate, env, facts, fault, frame, handle, mailbox, outbox, sent};
use rookery_base::{ByteBudget, CloseCause, Direction};
use rookery_engine::kinds::Verdict;
use rookery_runtime::{Env, FairMailbox};
use std::task::Waker;

struct Desk {
    env: Env,
    out: Outbox,
    pipe: HeadersPipe,
    mail: FairMailbox<HeadersMail>,
    flow: Flow,
}

/// A session that has begun; the mailbox holds nothing any more.
fn desk() -> Desk {
    let env = env();
    let mut mail = mailbox(&env);
    let lane = mail.opener().open(HeadersMail::Gone(Generation(9)));
    let chain = Arc::new(HandshakeChain::new(&REGTEST));
    let direction = Direction::Outbound;
    let mut pipe = HeadersPipe::new(chain, lane, &facts(direction), handle(direction));
    let mut out = outbox(&env);
    assert_eq!(pipe.on_start(env.clock.now(), &mut out), Flow::Continue);
    assert_eq!(sent(&mut out), [Packet::SendHeaders]);
    assert!(matches!(mail.try_recv(), Some(HeadersMail::Up { height: 77, time_offset: -5, .. })));
    Desk { env, out, pipe, mail, flow: Flow::Continue }
}

impl Desk {
    fn order(&mut self, order: HeadersOrder) {
        self.flow = self.pipe.on_command(self.env.clock.now(), Command::new(order), &mut self.out);
    }

    fn ask(&mut self, locator: &[Hash32]) {
        self.order(HeadersOrder::Ask { locator: locator.to_vec() });
        assert_eq!(self.flow, Flow::Continue);
    }

    /// As the routine does it: what has a key answers the open request, if it is open.
    fn comes(&mut self, frame: Frame) {
        let now = self.env.clock.now();
        self.flow = match self.pipe.key(&frame) {
            Some(key) => {
                assert!(self.pipe.asked.is_some(), "the request table would have to judge");
                self.out.cancel(&key);
                let end = End::Answered(frame, Duration::ZERO);
                self.pipe.on_answer(now, Answer { key, end }, &mut self.out)
            }
            None => self.pipe.on_frame(now, frame, &mut self.out),
        };
    }

    fn times_out(&mut self) {
        self.out.cancel(&ASKED);
        let answer = Answer { key: ASKED, end: End::TimedOut };
        self.flow = self.pipe.on_answer(self.env.clock.now(), answer, &mut self.out);
    }

    #[track_caller]
    fn batch(&mut self) -> (usize, bool) {
        match self.mail.try_recv() {
            Some(HeadersMail::Batch { facts, raw, asked, .. }) => {
                assert_eq!(raw.len(), facts.len() * HEADER_LEN);
                (facts.len(), asked)
            }
            other => panic!("no batch but {other:?}"),
        }
    }
}

/// Headers from genesis.
fn chain(count: usize) -> (Vec<u8>, Vec<HeaderFacts>) {
    let (mut raw, mut facts) = (Vec::new(), Vec::new());
    for (header, fact) in extend(&REGTEST, 0).take(count) {
        raw.extend_from_slice(&header);
        facts.push(fact);
    }
    (raw, facts)
}

fn packet(raw: &[u8]) -> Frame {
    frame(&Packet::Headers(Headers::from_raw(raw.to_vec().into()).unwrap()))
}

fn from(raw: &[u8], at: std::ops::Range<usize>) -> Frame {
    packet(&raw[at.start * HEADER_LEN..at.end * HEADER_LEN])
}

#[test]
fn a_question_goes_out_as_getheaders_and_its_answer_comes_back_as_asked() {
    let (raw, facts) = chain(40);
    let mut desk = desk();
    let locator = vec![facts[9].hash, REGTEST.genesis_hash];
    desk.ask(&locator);
    let expected = Packet::GetHeaders(Locator { hashes: locator, stop: Hash32::ZERO });
    assert_eq!(sent(&mut desk.out), [expected]);
    desk.comes(from(&raw, 10..40));
    assert_eq!((desk.batch(), &desk.flow), ((30, true), &Flow::Continue));
    assert!(desk.mail.try_recv().is_none(), "one end");
}

#[test]
fn a_peer_that_knows_nothing_of_the_locator_answers_from_genesis() {
    let (raw, _) = chain(40);
    let mut desk = desk();
    desk.ask(&[[5; 32].into()]);
    desk.comes(from(&raw, 0..40));
    assert_eq!(desk.batch(), (40, true));
}

#[test]
fn a_block_pushed_while_an_answer_is_under_way_ends_no_request() {
    let (raw, facts) = chain(60);
    let mut desk = desk();
    desk.ask(&[facts[9].hash]);
    desk.comes(from(&raw, 59..60));
    assert_eq!(desk.batch(), (1, false));
    desk.comes(from(&raw, 10..59));
    assert_eq!(desk.batch(), (49, true));
}

#[test]
fn silence_is_an_end_without_headers_and_no_fault() {
    let mut desk = desk();
    desk.ask(&[REGTEST.genesis_hash]);
    desk.times_out();
    assert_eq!(desk.flow, Flow::Continue);
    assert!(matches!(desk.mail.try_recv(), Some(HeadersMail::Unanswered { why: "timed_out", .. })));
    desk.ask(&[REGTEST.genesis_hash]);
    assert_eq!(sent(&mut desk.out).len(), 2, "it may be asked again");
}

#[test]
fn a_second_question_at_the_same_time_is_refused_and_the_first_stays() {
    let (raw, _) = chain(3);
    let mut desk = desk();
    desk.ask(&[REGTEST.genesis_hash]);
    desk.ask(&[[1; 32].into()]);
    assert!(matches!(desk.mail.try_recv(), Some(HeadersMail::Unanswered { why: "refused", .. })));
    desk.comes(from(&raw, 0..3));
    assert_eq!(desk.batch(), (3, true));
}

#[test]
fn an_empty_answer_is_an_answer_and_empty_headers_unasked_are_nothing() {
    let mut desk = desk();
    desk.comes(packet(&[]));
    assert!(desk.mail.try_recv().is_none());
    desk.ask(&[REGTEST.genesis_hash]);
    desk.comes(packet(&[]));
    assert_eq!(desk.batch(), (0, true));
}

#[test]
fn the_end_of_the_session_ends_the_question_by_the_farewell_alone() {
    let mut desk = desk();
    desk.ask(&[REGTEST.genesis_hash]);
    let gone = Answer { key: ASKED, end: End::Gone(CloseCause::PeerClosed) };
    assert_eq!(desk.pipe.on_answer(desk.env.clock.now(), gone, &mut desk.out), Flow::Continue);
    drop(desk.pipe);
    assert!(matches!(desk.mail.try_recv(), Some(HeadersMail::Gone(Generation(9)))));
    assert!(desk.mail.try_recv().is_none());
}

#[test]
fn an_answer_to_an_earlier_question_is_swallowed_once_and_the_next_of_its_kind_ends_the_session() {
    let (raw, facts) = chain(60);
    let mut desk = desk();
    desk.ask(&[facts[9].hash]);
    desk.times_out();
    assert!(matches!(desk.mail.try_recv(), Some(HeadersMail::Unanswered { .. })));
    desk.ask(&[facts[30].hash]);
    desk.comes(from(&raw, 10..60));
    assert_eq!(desk.flow, Flow::Continue, "late");
    assert!(desk.mail.try_recv().is_none());
    desk.comes(from(&raw, 31..60));
    assert_eq!(desk.batch(), (29, true));
    desk.ask(&[facts[30].hash]);
    desk.comes(from(&raw, 10..60));
    assert_eq!(fault(desk.flow).kind, PeerFaultKind::Unsolicited);
}

#[test]
fn many_headers_without_a_question_are_for_the_request_table_to_judge() {
    let (raw, _) = chain(PUSHED + 1);
    let desk = desk();
    assert_eq!(desk.pipe.key(&from(&raw, 0..PUSHED)), None);
    assert_eq!(desk.pipe.key(&from(&raw, 0..PUSHED + 1)), Some(ASKED));
    let len = |count| 1 + count * HEADER_LEN;
    let mut gate = Gate::new(&desk.env);
    assert!(matches!(gate.check(k::HEADERS, len(PUSHED), false), Verdict::Pass(_)));
    let Verdict::Refuse(fault) = gate.check(k::HEADERS, len(PUSHED + 1), false) else { panic!("passes") };
    assert_eq!(fault.kind, PeerFaultKind::Unsolicited);
}

#[test]
fn a_bad_header_ends_the_session_and_says_which() {
    let (raw, _) = chain(20);
    for index in [0, 7, 19] {
        let mut desk = desk();
        desk.ask(&[REGTEST.genesis_hash]);
        let mut bad = raw.clone();
        // The claimed target becomes the hardest there is.
        bad[index * HEADER_LEN + 200..][..4].copy_from_slice(&0x0100_0001_u32.to_le_bytes());
        desk.comes(packet(&bad));
        let fault = fault(desk.flow);
        assert_eq!(fault.kind, PeerFaultKind::InvalidData);
        assert!(fault.detail.starts_with(&format!("header {} of 20", index + 1)), "{}", fault.detail);
        assert!(desk.mail.try_recv().is_none());
    }
}

#[test]
fn headers_that_do_not_follow_each_other_end_the_session() {
    let (raw, _) = chain(20);
    let mut swapped = raw[..5 * HEADER_LEN].to_vec();
    swapped.extend_from_slice(&raw[6 * HEADER_LEN..]);
    let mut desk = desk();
    desk.ask(&[REGTEST.genesis_hash]);
    desk.comes(packet(&swapped));
    let fault = fault(desk.flow);
    assert_eq!(fault.kind, PeerFaultKind::InvalidData);
    assert_eq!(fault.detail, "header 6 of 19 does not follow the one before it");
}

#[test]
fn headers_that_do_not_decode_end_the_session() {
    let (raw, _) = chain(2);
    let whole = packet(&raw).body;
    for cut in [1, HEADER_LEN, whole.len() - 1] {
        let mut desk = desk();
        desk.ask(&[REGTEST.genesis_hash]);
        desk.comes(Frame::new(kind(k::HEADERS), whole.slice(..cut), Charge::none()));
        assert_eq!(fault(desk.flow).kind, PeerFaultKind::Malformed, "{cut}");
    }
}

#[test]
fn the_charge_travels_with_the_batch() {
    let (raw, _) = chain(2);
    let budget = ByteBudget::root("test", 1 << 20);
    let mut desk = desk();
    let (kind, body, _) = packet(&raw).into_parts();
    let charge = budget.try_charge(body.len()).unwrap();
    desk.comes(Frame::new(kind, body, charge));
    assert!(budget.used() > 0);
    drop(desk.mail.try_recv());
    assert_eq!(budget.used(), 0);
}

#[test]
fn mail_that_finds_no_room_waits_parks_the_peer_and_arrives_in_order() {
    let (raw, facts) = chain(30);
    let mut desk = desk();
    let mut count = 0;
    while desk.flow == Flow::Continue {
        desk.comes(from(&raw, count..count + 1));
        count += 1;
    }
    assert_eq!(desk.flow, Flow::Park(Until::Room));
    desk.ask_while_parked();
    let mut cx = Context::from_waker(Waker::noop());
    assert!(desk.pipe.poll_room(&mut cx).is_pending());
    let mut seen = Vec::new();
    while let Some(mail) = desk.mail.try_recv() {
        match mail {
            HeadersMail::Batch { facts, .. } => seen.push(facts[0].hash),
            HeadersMail::Unanswered { .. } => seen.push(Hash32::ZERO),
            other => panic!("{other:?}"),
        }
        let _ = desk.pipe.poll_room(&mut cx);
    }
    assert!(desk.pipe.poll_room(&mut cx).is_ready());
    let mut expected: Vec<Hash32> = facts[..count].iter().map(|fact| fact.hash).collect();
    expected.push(Hash32::ZERO);
    assert_eq!(seen, expected);
}

impl Desk {
    fn ask_while_parked(&mut self) {
        self.ask(&[REGTEST.genesis_hash]);
        self.times_out();
        assert_eq!(self.flow, Flow::Park(Until::Room));
    }
}

#[test]
fn getheaders_become_a_locate_with_the_first_hashes() {
    for count in [0, 1, LOCATOR, LOCATOR + 1, 50_000] {
        let hashes: Vec<Hash32> = (0..count)
            .map(|n| {
                let mut hash = [0; 32];
                hash[..8].copy_from_slice(&n.to_le_bytes());
                hash.into()
            })
            .collect();
        let mut desk = desk();
        let stop = [3; 32].into();
        desk.comes(frame(&Packet::GetHeaders(Locator { hashes: hashes.clone(), stop })));
        match desk.mail.try_recv() {
            Some(HeadersMail::Locate { locator, stop: at, .. }) => {
                assert_eq!((&locator[..], at), (&hashes[..count.min(LOCATOR)], stop));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_locator_that_does_not_decode_ends_the_session() {
    let mut desk = desk();
    desk.comes(Frame::new(kind(k::GETHEADERS), vec![2; 64].into(), Charge::none()));
    assert_eq!(fault(desk.flow).kind, PeerFaultKind::Malformed);
}

#[test]
fn served_headers_are_one_packet_and_none_is_silence() {
    let (raw, _) = chain(20);
    let mut desk = desk();
    desk.order(HeadersOrder::Serve { raw: Bytes::new() });
    assert!(sent(&mut desk.out).is_empty());
    desk.order(HeadersOrder::Serve { raw: raw.clone().into() });
    assert_eq!(sent(&mut desk.out), [Packet::Headers(Headers::from_raw(raw.into()).unwrap())]);
    let long = Bytes::from(vec![1; (MAX_HEADERS + 5) * HEADER_LEN]);
    desk.order(HeadersOrder::Serve { raw: long });
    assert!(matches!(&sent(&mut desk.out)[..], [Packet::Headers(headers)] if headers.len() == MAX_HEADERS));
}

#[test]
fn new_blocks_are_announced_as_the_peer_wants_them() {
    let (raw, facts) = chain(ANNOUNCED + 1);
    let hashes: Vec<Hash32> = facts.iter().map(|fact| fact.hash).collect();
    let announce = |count: usize| HeadersOrder::Announce {
        raw: raw[..count * HEADER_LEN].to_vec().into(),
        hashes: hashes[..count].to_vec(),
    };
    let inv = |at: usize| [Packet::Inv(vec![Inv { kind: InvKind::BLOCK, hash: hashes[at] }])];
    let mut desk = desk();
    desk.order(announce(2));
    assert_eq!(sent(&mut desk.out), inv(1));
    desk.comes(frame(&Packet::SendHeaders));
    desk.order(announce(ANNOUNCED));
    assert!(matches!(&sent(&mut desk.out)[..], [Packet::Headers(headers)] if headers.len() == ANNOUNCED));
    desk.order(announce(ANNOUNCED + 1));
    assert_eq!(sent(&mut desk.out), inv(ANNOUNCED));
}

#[test]
fn an_inventory_of_blocks_is_an_announcement_and_one_of_transactions_is_nothing() {
    let item = |kind, n: u8| Inv { kind, hash: [n; 32].into() };
    let mut desk = desk();
    desk.comes(frame(&Packet::Inv(vec![item(InvKind::TX, 1), item(InvKind::CLAIM, 2)])));
    assert!(desk.mail.try_recv().is_none());
    let blocks = [item(InvKind::BLOCK, 3), item(InvKind::BLOCK, 4), item(InvKind::TX, 5)];
    desk.comes(frame(&Packet::Inv(blocks.to_vec())));
    assert!(matches!(
        desk.mail.try_recv(),
        Some(HeadersMail::Announced { hash, .. }) if hash == [4; 32].into()
    ));
}

#[test]
fn faults_and_notes_of_the_reactor_reach_the_ledger() {
    let mut desk = desk();
    desk.order(HeadersOrder::Note("a fact".into()));
    assert_eq!(desk.flow, Flow::Continue);
    desk.order(HeadersOrder::Fault(PeerFault::ban(PeerFaultKind::BadChain, "a checkpoint")));
    assert_eq!(fault(desk.flow).kind, PeerFaultKind::BadChain);
}

#[test]
fn without_a_lane_the_session_ends_and_the_peer_is_not_blamed() {
    let env = env();
    let chain = Arc::new(HandshakeChain::new(&REGTEST));
    let direction = Direction::Inbound;
    let mut pipe = HeadersPipe::new(chain, None, &facts(direction), handle(direction));
    let flow = pipe.on_start(env.clock.now(), &mut outbox(&env));
    let Flow::Close(CloseCause::Fault(rookery_base::Fault::Local(_))) = flow else { panic!("{flow:?}") };
}
