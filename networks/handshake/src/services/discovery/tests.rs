use super::*;
use crate::services::testing::{Gate, addr, env, facts, fault, frame, handle, mailbox, outbox, sent};
use rookery_base::{Charge, Weight};
use rookery_engine::kinds::Verdict;
use rookery_runtime::{Env, FairMailbox};
use std::net::SocketAddr;

struct Desk {
    env: Env,
    out: Outbox,
    pipe: DiscoveryPipe,
    mail: FairMailbox<AddressMail>,
}

fn desk(direction: Direction, version: u32) -> Desk {
    let env = env();
    let mail = mailbox(&env);
    let lane = mail.opener().open(AddressMail::Gone);
    let facts = PeerFacts { version, ..facts(direction) };
    let pipe = DiscoveryPipe::new(lane, &facts, handle(direction));
    Desk { out: outbox(&env), env, pipe, mail }
}

impl Desk {
    fn frame(&mut self, packet: &Packet) -> Flow {
        self.pipe.on_frame(self.env.clock.now(), frame(packet), &mut self.out)
    }
}

fn some(count: u16) -> Vec<NetAddress> {
    (0..count)
        .map(|n| NetAddress {
            time: 5,
            services: Services::NETWORK,
            ..NetAddress::new(SocketAddr::from(([9, 9, (n >> 8) as u8, n as u8], 0x2f06)))
        })
        .collect()
}

#[test]
fn who_was_dialled_is_told_to_the_book_and_asked_for_addresses_once() {
    let mut desk = desk(Direction::Outbound, 3);
    assert_eq!(desk.pipe.on_start(desk.env.clock.now(), &mut desk.out), Flow::Continue);
    assert_eq!(sent(&mut desk.out), [Packet::GetAddr]);
    assert!(matches!(desk.mail.try_recv(), Some(AddressMail::Connected(at, 1)) if at == addr()));
}

#[test]
fn who_dialled_us_is_asked_for_nothing() {
    let mut desk = desk(Direction::Inbound, 3);
    assert_eq!(desk.pipe.on_start(desk.env.clock.now(), &mut desk.out), Flow::Continue);
    assert!(sent(&mut desk.out).is_empty());
    assert!(desk.mail.try_recv().is_none());
}

#[test]
fn getaddr_is_answered_once_and_only_to_inbound_peers() {
    for (direction, expected) in [(Direction::Inbound, 1), (Direction::Outbound, 0)] {
        let mut desk = desk(direction, 3);
        for _ in 0..3 {
            assert_eq!(desk.frame(&Packet::GetAddr), Flow::Continue);
        }
        let asked = std::iter::from_fn(|| desk.mail.try_recv())
            .filter(|mail| matches!(mail, AddressMail::Asked(_)))
            .count();
        assert_eq!(asked, expected, "{direction:?}");
    }
}

#[test]
fn a_sample_goes_out_with_little_endian_ports_and_without_keyed_addresses_and_none_is_silence() {
    let mut desk = desk(Direction::Inbound, 3);
    let now = desk.env.clock.now();
    let at = SocketAddr::from(([1, 2, 3, 4], 12038));
    let of = |keyed| Record { addr: at, services: 1, time: 6, keyed };
    for records in [vec![], vec![of(true)]] {
        let _ = desk.pipe.on_command(now, Command::new(AddressSample(records)), &mut desk.out);
        assert!(desk.out.sent().is_empty());
    }
    let _ = desk.pipe.on_command(now, Command::new(AddressSample(vec![of(false); 1200])), &mut desk.out);
    let (_, body) = desk.out.sent().remove(0);
    let Ok(Packet::Addr(addrs)) = Packet::decode(k::ADDR, &body) else { panic!("no addr") };
    assert_eq!(addrs.len(), MAX_ADDRS);
    assert_eq!(addrs[0], NetAddress { time: 6, services: Services::NETWORK, ..NetAddress::new(at) });
    assert_eq!(body[3 + 8 + 8 + 1 + 16 + 20..][..2], [0x06, 0x2f], "12038 is 0x2f06");
}

#[test]
fn addresses_go_to_the_book_with_the_ip_of_the_one_who_told() {
    let mut desk = desk(Direction::Inbound, 3);
    let mut addrs = some(3);
    addrs[1].key = Some([2; 33]);
    addrs[2].port = 0;
    assert_eq!(desk.frame(&Packet::Addr(addrs)), Flow::Continue);
    let Some(AddressMail::Heard(records, source)) = desk.mail.try_recv() else { panic!("nothing heard") };
    assert_eq!(source, addr().ip());
    assert_eq!(records.iter().map(|record| record.keyed).collect::<Vec<_>>(), [false, true]);
    assert_eq!(records[0].addr.port(), 12038);
}

#[test]
fn addresses_of_peers_below_version_three_are_not_believed() {
    let mut desk = desk(Direction::Inbound, 2);
    assert_eq!(desk.frame(&Packet::Addr(some(3))), Flow::Continue);
    assert!(desk.mail.try_recv().is_none());
}

#[test]
fn a_thousand_addresses_are_taken_and_one_more_is_a_ban() {
    let mut desk = desk(Direction::Inbound, 3);
    assert_eq!(desk.frame(&Packet::Addr(some(1000))), Flow::Continue);
    let mut body = BytesMut::new();
    Packet::Addr(some(1000)).encode(&mut body);
    body.extend_from_slice(&[0; 88]);
    body[1..3].copy_from_slice(&1001_u16.to_le_bytes());
    assert!(matches!(Gate::new(&desk.env).check(k::ADDR, body.len(), false), Verdict::Pass(_)));
    let over = Frame::new(kind(k::ADDR), body.freeze(), Charge::none());
    let fault = fault(desk.pipe.on_frame(desk.env.clock.now(), over, &mut desk.out));
    assert_eq!((fault.kind, fault.weight), (PeerFaultKind::Oversize, Weight::Ban));
}

#[test]
fn a_book_that_is_busy_loses_hearsay_and_nothing_else() {
    let mut desk = desk(Direction::Outbound, 3);
    let _ = desk.pipe.on_start(desk.env.clock.now(), &mut desk.out);
    for _ in 0..100 {
        assert_eq!(desk.frame(&Packet::Addr(some(2))), Flow::Continue);
    }
    assert!(matches!(desk.mail.try_recv(), Some(AddressMail::Connected(..))));
    drop(desk.pipe);
    let rest: Vec<_> = std::iter::from_fn(|| desk.mail.try_recv()).collect();
    assert!(rest.len() < 10 && matches!(rest.last(), Some(AddressMail::Gone)));
}
