use super::table::{Table, Taken};
use super::*;
use crate::services::testing::{Gate, UNIX, addr, env, facts, fault, frame, handle, mailbox, outbox, peer};
use rookery_base::Weight;
use rookery_engine::dial::addresses;
use rookery_engine::kinds::Verdict;
use rookery_runtime::{Env, FairMailbox};
use rookery_transport::tls::{Identity, Keys};
use std::net::SocketAddr;

const NETWORK: Hash32 = Hash32([3; 32]);

fn record(owner: u16, sequence: u64, addrs: &[SocketAddr]) -> SignedRecord {
    lasting(owner, sequence, UNIX + 3600, addrs)
}

fn lasting(owner: u16, sequence: u64, expiry: u64, addrs: &[SocketAddr]) -> SignedRecord {
    let mut seed = [7; 32];
    seed[..2].copy_from_slice(&owner.to_be_bytes());
    let key = Identity::from_seed(&seed, Keys::Classic).unwrap();
    SignedRecord::sign(&NETWORK, &key, sequence, expiry, addrs).unwrap()
}

fn at(n: u16) -> SocketAddr {
    SocketAddr::from(([9, 9, (n >> 8) as u8, n as u8], 7000))
}

fn table() -> Table {
    Table::new(peer(99), (1, 2))
}

fn ip() -> IpAddr {
    addr().ip()
}

#[test]
fn what_was_only_heard_is_not_told_and_a_session_at_its_address_confirms_it() {
    let mut table = table();
    assert_eq!(table.take(record(1, 1, &[at(1)]), peer(50), UNIX), Taken::New);
    assert!(table.sample(peer(60), ip(), 16, UNIX).is_empty());
    table.up(Generation(1), record(1, 1, &[]).id(), at(2), UNIX);
    assert!(table.sample(peer(60), ip(), 16, UNIX).is_empty(), "another address proves nothing of this one");
    table.up(Generation(2), peer(5), at(1), UNIX);
    assert!(table.sample(peer(60), ip(), 16, UNIX).is_empty(), "another identity at its address neither");
    table.up(Generation(3), record(1, 1, &[]).id(), at(1), UNIX);
    assert_eq!(table.sample(peer(60), ip(), 16, UNIX), [record(1, 1, &[at(1)]).raw().clone()]);
    assert_eq!(table.candidates(), [crate::wire::snapshot::Candidate { addr: at(1), reached: UNIX }]);
    table.gone(Generation(3));
    assert_eq!(table.len(), (1, 1), "what was confirmed stays so");
}

#[test]
fn a_newer_record_replaces_an_older_one_and_never_the_other_way_round() {
    let mut table = table();
    table.up(Generation(1), record(1, 1, &[]).id(), at(1), UNIX);
    assert_eq!(table.take(record(1, 5, &[at(1)]), peer(50), UNIX), Taken::New);
    assert_eq!(table.take(record(1, 4, &[at(1)]), peer(50), UNIX), Taken::Known);
    assert_eq!(
        table.take(record(1, 5, &[at(9)]), peer(50), UNIX),
        Taken::Known,
        "of two with one number the first"
    );
    assert_eq!(table.len(), (1, 1));
    assert_eq!(table.take(record(1, 6, &[at(2)]), peer(50), UNIX), Taken::Newer);
    assert_eq!(table.len(), (1, 0), "the new address is not confirmed");
}

#[test]
fn records_end_and_none_may_last_for_ever() {
    let mut table = table();
    let far = UNIX + LIFETIME_MAX.as_secs();
    assert_eq!(table.take(lasting(1, 1, UNIX, &[at(1)]), peer(50), UNIX), Taken::Untimely);
    assert_eq!(table.take(lasting(1, 1, far + 1, &[at(1)]), peer(50), UNIX), Taken::Untimely);
    assert_eq!(table.take(lasting(1, 1, u64::MAX, &[at(1)]), peer(50), UNIX), Taken::Untimely);
    assert_eq!(table.take(lasting(1, 1, far, &[at(1)]), peer(50), UNIX), Taken::New);
    table.expire(far);
    assert_eq!(table.len(), (0, 0));
}

#[test]
fn one_teller_fills_its_own_share_and_all_of_them_no_more_than_the_table() {
    let mut table = table();
    table.up(Generation(1), record(0, 1, &[]).id(), at(0), UNIX);
    assert_eq!(table.take(record(0, 1, &[at(0)]), peer(0), UNIX), Taken::New);
    for n in 1..=100 {
        let expected = if n <= PER_TELLER as u16 { Taken::New } else { Taken::NoRoom };
        assert_eq!(table.take(record(n, 1, &[at(n)]), peer(1), UNIX), expected);
    }
    for n in 101..2400_u16 {
        let _ = table.take(record(n, 1, &[at(n)]), peer((n / 60) as u8), UNIX);
    }
    assert_eq!(table.len(), (RECORDS, 1), "what is confirmed stays");
}

#[test]
fn a_sample_is_bounded_the_same_within_the_hour_and_another_one_elsewhere() {
    let mut table = table();
    for n in 0..200 {
        table.up(Generation(u64::from(n)), record(n, 1, &[]).id(), at(n), UNIX);
        table.take(record(n, 1, &[at(n)]), peer((n / 50) as u8), UNIX);
    }
    let group = |a: u8| IpAddr::from([a, 1, 1, 1]);
    let first = table.sample(peer(60), group(20), 16, UNIX);
    assert_eq!(first.len(), 16);
    assert_eq!(table.sample(peer(61), group(20), 16, UNIX + 60), first, "another identity of the same group");
    assert_ne!(table.sample(peer(60), group(21), 16, UNIX), first);
    assert_ne!(table.sample(peer(60), group(20), 16, UNIX + 3600), first);
    let own = record(3, 1, &[]).id();
    let told = table.sample(own, group(20), 200, UNIX);
    assert_eq!(told.len(), 199, "nobody is told of himself");
}

struct Desk {
    env: Env,
    out: Outbox,
    pipe: Box<dyn Pipe>,
    mail: FairMailbox<Mail>,
}

fn desk() -> Desk {
    desk_of(Direction::Outbound)
}

fn desk_of(direction: Direction) -> Desk {
    let env = env();
    let mail = mailbox(&env);
    let (addresses, _inbox) = addresses(&env, 4);
    let service = DiscoveryService { network: NETWORK, mail: mail.opener(), addresses, wants_peers: true };
    let pipe = service.pipe(&facts(direction), handle());
    Desk { out: outbox(&env), env, pipe, mail }
}

impl Desk {
    fn hear(&mut self, records: &[SignedRecord]) -> Flow {
        let raw: Vec<Bytes> = records.iter().map(|record| record.raw().clone()).collect();
        let end = End::Answered(frame(RECORDS_KIND, wire::encode_records(&raw)), Duration::ZERO);
        let answer = Answer { key: RequestKey::only(GET_RECORDS), end };
        self.pipe.on_answer(self.env.clock.now(), answer, &mut self.out)
    }
}

#[test]
fn a_session_begins_with_a_question_and_asks_again_ever_more_rarely() {
    let mut desk = desk();
    let now = desk.env.clock.now();
    assert_eq!(desk.pipe.on_start(now, &mut desk.out), Flow::Continue);
    let sent = desk.out.sent();
    assert_eq!(sent.iter().map(|(_, body)| wire::decode_get(body)).collect::<Vec<_>>(), [Ok(WANTED)]);
    assert!(matches!(desk.mail.try_recv(), Some(Mail::Up(_, id, false)) if id == peer(1)));
    let mut waits = Vec::new();
    for _ in 0..12 {
        let at = desk.pipe.timer().unwrap();
        assert_eq!(desk.pipe.on_timer(at, &mut desk.out), Flow::Continue);
        waits.push(desk.pipe.timer().unwrap() - at);
    }
    assert!(waits.iter().zip(&waits[1..]).all(|(wait, next)| next > wait || *wait >= ASK_EVERY), "{waits:?}");
    assert!(waits[0] < Duration::from_secs(5) && waits[11] >= ASK_EVERY);
}

#[test]
fn who_comes_to_us_is_asked_for_its_own_record_and_only_when_it_is_its_turn() {
    let mut desk = desk_of(Direction::Inbound);
    let now = desk.env.clock.now();
    assert_eq!(desk.pipe.on_start(now, &mut desk.out), Flow::Continue);
    assert!(desk.out.sent().is_empty() && desk.pipe.timer().is_none());
    assert!(matches!(desk.mail.try_recv(), Some(Mail::Up(_, _, true))));
    assert_eq!(desk.pipe.on_command(now, Command::new(Order::Ask), &mut desk.out), Flow::Continue);
    let sent = desk.out.sent();
    assert_eq!(sent.iter().map(|(_, body)| wire::decode_get(body)).collect::<Vec<_>>(), [Ok(1)]);
    assert!(desk.pipe.timer().is_some_and(|at| at >= now + ASK_EVERY));
}

#[test]
fn records_that_hold_go_on_and_a_forged_one_ends_the_session() {
    let mut desk = desk();
    let expired = lasting(2, 1, UNIX - 1, &[at(2)]);
    assert_eq!(desk.hear(&[record(1, 1, &[at(1)]), expired]), Flow::Continue);
    let Some(Mail::Records(_, records)) = desk.mail.try_recv() else { panic!("no records") };
    assert_eq!(records, [record(1, 1, &[at(1)])], "without the one that has expired");
    let key = Identity::from_seed(&[8; 32], Keys::Classic).unwrap();
    let foreign = SignedRecord::sign(&Hash32([4; 32]), &key, 1, UNIX + 60, &[]).unwrap();
    let fault = fault(desk.hear(&[foreign]));
    assert_eq!((fault.kind, fault.weight), (PeerFaultKind::InvalidData, Weight::Close));
}

#[test]
fn answers_that_nobody_asked_for_are_refused_unread_and_questions_without_end_are_read_past() {
    let mut gate = Gate::new(&env());
    assert!(matches!(gate.check(RECORDS_KIND, 5000, false), Verdict::Refuse(_)));
    assert!(matches!(gate.check(RECORDS_KIND, wire::MAX_LEN, true), Verdict::Pass(_)));
    let answered = (0..100).filter(|_| matches!(gate.check(GET_RECORDS, 1, false), Verdict::Pass(_))).count();
    assert_eq!(answered, 4);
}

#[tokio::test(start_paused = true)]
async fn our_own_record_is_renewed_and_changes_with_our_addresses() {
    let env = env();
    let signer = std::sync::Arc::new(Identity::from_seed(&[1; 32], Keys::Classic).unwrap());
    let (addresses, _inbox) = addresses(&env, 4);
    let config =
        DiscoveryConfig { network: NETWORK, signer, addrs: vec![], most_peers: 4, wants_peers: true };
    let (_service, handle, _last) = Discovery::start(&env, config, addresses);
    handle.set_addrs(vec![at(1)]).await;
    assert_eq!(handle.known().await, (0, 0));
    assert!(handle.candidates().await.is_empty());
    env.scope.close(Duration::from_secs(5)).await.unwrap();
    assert_eq!(handle.known().await, (0, 0), "a stopped reactor answers nothing, and nobody waits for it");
}

#[test]
fn our_sequence_grows_over_restarts_and_within_a_second() {
    let env = env();
    let signer = std::sync::Arc::new(Identity::from_seed(&[1; 32], Keys::Classic).unwrap());
    let now = env.clock.now();
    let mut own = actor::Own::new(NETWORK, signer, vec![at(1)], now);
    own.refresh(now, UNIX);
    let first = own.record.clone().unwrap();
    assert_eq!((first.sequence, first.expiry), (UNIX, UNIX + actor::LIFETIME.as_secs()));
    assert!(first.verify(&NETWORK));
    own.refresh(now, UNIX);
    assert_eq!(own.record.clone().unwrap(), first, "nothing is due");
    own.refresh(own.next, UNIX);
    assert_eq!(own.record.unwrap().sequence, UNIX + 1);
}
