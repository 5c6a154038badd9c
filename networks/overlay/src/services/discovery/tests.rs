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

fn id(owner: u16) -> PeerId {
    record(owner, 1, &[]).id()
}

#[test]
fn what_was_only_heard_is_neither_kept_nor_told_and_a_session_at_its_address_confirms_it() {
    let mut table = table();
    let heard = record(1, 1, &[at(1)]);
    assert_eq!(table.take(heard.clone(), UNIX), Taken::Unmet);
    table.up(Generation(1), id(1), at(2), UNIX);
    assert_eq!(table.take(heard.clone(), UNIX), Taken::Unmet, "another address proves nothing of this one");
    table.up(Generation(2), peer(5), at(1), UNIX);
    assert_eq!(table.take(heard.clone(), UNIX), Taken::Unmet, "another identity at its address neither");
    table.up(Generation(3), id(1), at(1), UNIX);
    assert_eq!((table.len(), table.take(heard.clone(), UNIX)), ((0, 0), Taken::New));
    assert_eq!(table.sample(peer(60), ip(), 16, UNIX), [heard.raw().clone()]);
    table.gone(Generation(3), UNIX + 9);
    assert_eq!(table.candidates(), [crate::wire::snapshot::Candidate { addr: at(1), reached: UNIX + 9 }]);
    assert_eq!(table.len(), (1, 1), "what was confirmed stays so");
}

#[test]
fn a_newer_record_replaces_an_older_one_and_never_the_other_way_round() {
    let mut table = table();
    table.up(Generation(1), id(1), at(1), UNIX);
    assert_eq!(table.take(record(1, 5, &[at(1)]), UNIX), Taken::New);
    assert_eq!(table.take(record(1, 4, &[at(1)]), UNIX), Taken::Known);
    assert_eq!(table.take(record(1, 5, &[at(9)]), UNIX), Taken::Known, "of two with one number the first");
    assert_eq!(table.len(), (1, 1));
    assert_eq!(table.take(record(1, 6, &[at(2)]), UNIX), Taken::Newer);
    assert_eq!(table.len(), (1, 0), "the new address is not confirmed");
    assert!(table.sample(peer(60), ip(), 16, UNIX).is_empty());
}

#[test]
fn records_end_and_none_may_last_for_ever() {
    let mut table = table();
    table.up(Generation(1), id(1), at(1), UNIX);
    let far = UNIX + LIFETIME_MAX.as_secs();
    assert_eq!(table.take(lasting(1, 1, UNIX, &[at(1)]), UNIX), Taken::Untimely);
    assert_eq!(table.take(lasting(1, 1, far + 1, &[at(1)]), UNIX), Taken::Untimely);
    assert_eq!(table.take(lasting(1, 1, u64::MAX, &[at(1)]), UNIX), Taken::Untimely);
    assert_eq!(table.take(lasting(1, 1, far, &[at(1)]), UNIX), Taken::New);
    table.gone(Generation(1), UNIX);
    table.expire(far);
    assert_eq!(table.len(), (0, 0));
}

/// Comes, has its record taken, and goes if it does not stay.
fn visit(table: &mut Table, n: u16, stays: bool) -> Taken {
    let session = Generation(u64::from(n));
    table.up(session, id(n), at(n), UNIX);
    let taken = table.take(record(n, 1, &[at(n)]), UNIX);
    if !stays {
        table.gone(session, UNIX);
    }
    taken
}

#[test]
fn strangers_that_come_and_go_displace_one_another_and_nobody_who_is_here() {
    let mut table = table();
    assert_eq!(visit(&mut table, 0, true), Taken::New);
    for n in 1..3 * ABSENT as u16 {
        assert_eq!(visit(&mut table, n, false), Taken::New);
        assert_eq!(table.len().0, 1 + ABSENT.min(usize::from(n)));
    }
    assert_eq!(table.take(record(0, 1, &[at(0)]), UNIX), Taken::Known, "who stays is known");
    let last = 3 * ABSENT as u16 - 1;
    assert_eq!(visit(&mut table, last, false), Taken::Known, "and so is who was here last");
    assert_eq!(visit(&mut table, 1, false), Taken::New, "not so the first");
}

#[test]
fn who_is_here_displaces_who_has_gone_and_nobody_else() {
    let mut table = table();
    let gone = 5;
    for n in 0..RECORDS as u16 {
        assert_eq!(visit(&mut table, n, n >= gone), Taken::New);
    }
    for n in 0..gone {
        assert_eq!(visit(&mut table, RECORDS as u16 + n, true), Taken::New, "one who has gone makes room");
    }
    assert_eq!(visit(&mut table, 3000, true), Taken::NoRoom);
    assert_eq!(table.len(), (RECORDS, RECORDS));
}

#[test]
fn who_comes_back_before_its_ghost_has_gone_is_here() {
    let mut table = table();
    visit(&mut table, 1, true);
    table.up(Generation(7), id(1), at(1), UNIX);
    table.gone(Generation(1), UNIX);
    for n in 100..100 + 2 * ABSENT as u16 {
        visit(&mut table, n, false);
    }
    assert_eq!(table.take(record(1, 1, &[at(1)]), UNIX), Taken::Known);
    table.gone(Generation(7), UNIX);
    table.gone(Generation(7), UNIX);
    assert_eq!(table.len().0, ABSENT, "one more has gone, and one was forgotten");
}

#[test]
fn a_sample_is_bounded_the_same_within_the_hour_and_another_one_elsewhere() {
    let mut table = table();
    for n in 0..200 {
        visit(&mut table, n, n % 2 == 0);
    }
    let group = |a: u8| IpAddr::from([a, 1, 1, 1]);
    let first = table.sample(peer(60), group(20), 16, UNIX);
    assert_eq!(first.len(), 16);
    assert_eq!(table.sample(peer(61), group(20), 16, UNIX + 60), first, "another identity of the same group");
    assert_ne!(table.sample(peer(60), group(21), 16, UNIX), first);
    assert_ne!(table.sample(peer(60), group(20), 16, UNIX + 3600), first);
    let own = id(3);
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
