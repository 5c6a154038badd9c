//! What the datagram fabric promises, with bare sockets: latency, order, loss, copies, buffers, faults.

#![expect(clippy::unwrap_used, reason = "in a test, a failure is a result")]

use std::io::{ErrorKind, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use quinn::AsyncUdpSocket;
use quinn::udp::{RecvMeta, Transmit};
use rookery_observe::Trace;
use rookery_runtime::{Clock, Env};
use rookery_sim::datagram::{RECEIVE_BUFFER, SimUdp, Verdict, charge};
use rookery_sim::fabric::{Chance, Down};
use rookery_sim::{Fabric, Link};

const A: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const B: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
const C: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 3));
const LATENCY: Duration = Duration::from_millis(20);
/// Longer than anything that still happens.
const FOREVER: Duration = Duration::from_secs(10_000);

struct Net {
    fabric: Fabric,
    clock: Clock,
    a: SimUdp,
    b: SimUdp,
    _env: Env,
}

fn net(link: Link) -> Net {
    let env = Env::simulated(1, 0, 0, 0, Trace::off());
    let fabric = Fabric::new(&env, 1);
    fabric.set_default_link(link);
    let a = fabric.datagrams(A).socket(SocketAddr::new(A, 0)).unwrap();
    let b = fabric.datagrams(B).socket(SocketAddr::new(B, 1000)).unwrap();
    Net { clock: env.clock, a, b, fabric, _env: env }
}

fn send(from: &SimUdp, to: SocketAddr, contents: &[u8], segment_size: Option<usize>) {
    let transmit = Transmit { destination: to, ecn: None, contents, segment_size, src_ip: None };
    from.try_send(&transmit).unwrap();
}

/// The next datagrams, as many as are there, at most eight.
async fn receive(socket: &SimUdp) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut space = vec![[0; 1500]; 8];
    let mut metas = [RecvMeta::default(); 8];
    let mut bufs: Vec<IoSliceMut<'_>> = space.iter_mut().map(|buf| IoSliceMut::new(buf)).collect();
    let count = std::future::poll_fn(|cx| socket.poll_recv(cx, &mut bufs, &mut metas)).await.unwrap();
    let one = |(meta, buf): (&RecvMeta, &[u8; 1500])| {
        assert_eq!((meta.stride, meta.ecn), (meta.len, None));
        (meta.addr, buf[..meta.len].to_vec())
    };
    metas.iter().zip(&space).take(count).map(one).collect()
}

impl Net {
    async fn receive_all(&self, socket: &SimUdp) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(some) = self.clock.timeout(FOREVER, receive(socket)).await {
            all.extend(some.into_iter().map(|(_, bytes)| bytes));
        }
        all
    }

    fn dropped_at_b(&self) -> u64 {
        self.fabric.sockets().iter().find(|socket| socket.at.ip() == B).unwrap().dropped
    }

    fn is_conserved(&self) -> bool {
        let counts = self.fabric.datagram_counts();
        counts.sent + counts.copied == counts.flying + counts.ended.values().sum::<u64>()
    }
}

#[tokio::test(start_paused = true)]
async fn a_datagram_takes_its_latency_and_says_where_it_is_from() {
    let net = net(Link::new(LATENCY));
    let start = net.clock.now();
    send(&net.a, net.b.local_addr().unwrap(), b"one", None);
    send(&net.a, net.b.local_addr().unwrap(), b"twothree", Some(3));
    assert_eq!(net.fabric.datagram_counts().flying, 4);
    let from_a = net.a.local_addr().unwrap();
    let got = receive(&net.b).await;
    let expected = [&b"one"[..], b"two", b"thr", b"ee"].map(|bytes| (from_a, bytes.to_vec()));
    assert_eq!((net.clock.now() - start, got), (LATENCY, expected.to_vec()));
    send(&net.b, from_a, b"", None);
    assert_eq!(receive(&net.a).await, [(net.b.local_addr().unwrap(), vec![])]);
    assert!(net.is_conserved());
}

#[tokio::test(start_paused = true)]
async fn order_is_kept_unless_the_link_reorders() {
    let link = Link::new(LATENCY).with_jitter(LATENCY);
    let net = net(link);
    let to = net.b.local_addr().unwrap();
    let numbers: Vec<Vec<u8>> = (0..60).map(|n| vec![n]).collect();
    numbers.iter().for_each(|number| send(&net.a, to, number, None));
    assert_eq!(net.receive_all(&net.b).await, numbers);

    net.fabric.set_default_link(link.with_reordering(Chance::percent(30)));
    numbers.iter().for_each(|number| send(&net.a, to, number, None));
    let mut got = net.receive_all(&net.b).await;
    assert_ne!(got, numbers);
    got.sort();
    assert_eq!(got, numbers);
}

#[tokio::test(start_paused = true)]
async fn loss_loses_and_duplication_doubles_and_every_datagram_is_accounted_for() {
    let net = net(Link::new(LATENCY).with_loss(Chance::percent(20)).with_duplication(Chance::percent(10)));
    let to = net.b.local_addr().unwrap();
    let mut got = 0;
    for n in 0..1000_u32 {
        send(&net.a, to, &n.to_le_bytes(), None);
        if n % 100 == 99 {
            assert!(net.is_conserved());
            got += net.receive_all(&net.b).await.len() as u64;
        }
    }
    let counts = net.fabric.datagram_counts();
    assert!((150..=250).contains(&counts.of(Verdict::Lost)), "{counts:?}");
    assert!((50..=110).contains(&counts.copied), "{counts:?}");
    assert_eq!((counts.of(Verdict::Delivered), counts.flying), (got, 0));
    assert!(net.is_conserved());
}

#[tokio::test(start_paused = true)]
async fn a_full_receive_buffer_drops_and_counts_and_takes_more_once_read() {
    let net = net(Link::new(LATENCY));
    let to = net.b.local_addr().unwrap();
    let fits = RECEIVE_BUFFER / charge(1200);
    (0..fits + 8).for_each(|_| send(&net.a, to, &[7; 1200], None));
    net.clock.sleep(LATENCY).await;
    assert_eq!(net.dropped_at_b(), 8);
    assert_eq!(net.fabric.datagram_counts().of(Verdict::Overflow), 8);
    assert_eq!(net.receive_all(&net.b).await.len(), fits);
    send(&net.a, to, &[7; 1200], None);
    assert_eq!(net.receive_all(&net.b).await.len(), 1);

    // What a kernel grants holds for sockets that are bound from then on.
    net.fabric.set_receive_buffer(B, 2 * charge(1200));
    let small = net.fabric.datagrams(B).socket(SocketAddr::new(B, 0)).unwrap();
    assert_eq!((small.receive_buffer(), net.b.receive_buffer()), (2 * charge(1200), RECEIVE_BUFFER));
    (0..5).for_each(|_| send(&net.a, small.local_addr().unwrap(), &[7; 1200], None));
    assert_eq!(net.receive_all(&small).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn partitions_and_downs_swallow_what_arrives_meanwhile() {
    let net = net(Link::new(LATENCY));
    let to = net.b.local_addr().unwrap();
    let fate = async |verdict| {
        let before = net.fabric.datagram_counts().of(verdict);
        send(&net.a, to, b"x", None);
        net.clock.sleep(LATENCY).await;
        net.fabric.datagram_counts().of(verdict) - before
    };
    net.fabric.partition(&[vec![B]]);
    assert_eq!(fate(Verdict::Parted).await, 1);
    net.fabric.heal();
    assert_eq!(fate(Verdict::Delivered).await, 1);
    for how in [Down::Reset, Down::Silent] {
        for ip in [A, B] {
            net.fabric.down(ip, how);
            assert_eq!(fate(Verdict::Down).await, 1);
            net.fabric.up(ip);
        }
    }
    // What the route lets through at arrival passes, whatever was in between.
    net.fabric.partition(&[vec![B]]);
    send(&net.a, to, b"x", None);
    net.fabric.calm();
    assert_eq!(net.receive_all(&net.b).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_goes_nowhere_vanishes_and_a_source_can_be_forged() {
    let net = net(Link::new(LATENCY));
    let nowhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 9, 9, 9)), 1000);
    send(&net.a, nowhere, b"x", None);
    send(&net.a, SocketAddr::new(B, 1001), b"x", None);
    send(&net.a, net.b.local_addr().unwrap(), &[0; 1473], None);
    net.fabric.forge(nowhere, net.b.local_addr().unwrap(), &b"forged"[..]);
    assert_eq!(receive(&net.b).await, [(nowhere, b"forged".to_vec())]);
    send(&net.b, nowhere, b"answer", None);
    net.clock.sleep(LATENCY).await;
    let counts = net.fabric.datagram_counts();
    assert_eq!(
        [Verdict::Nowhere, Verdict::Nobody, Verdict::TooBig].map(|verdict| counts.of(verdict)),
        [2, 1, 1]
    );
}

#[tokio::test(start_paused = true)]
async fn addresses_ports_and_families_are_as_a_kernel_has_them() {
    let net = net(Link::new(LATENCY));
    let at = |ip: IpAddr, port| SocketAddr::new(ip, port);
    let host = net.fabric.datagrams(A);
    let kind = |at| host.socket(at).map(drop).unwrap_err().kind();
    assert_eq!(net.a.local_addr().unwrap(), at(A, 49_152));
    assert_eq!(kind(at(A, 49_152)), ErrorKind::AddrInUse);
    assert_eq!(kind(at(B, 0)), ErrorKind::AddrNotAvailable);
    // Any address of either family; TCP has ports of its own.
    let any = host.socket(at(Ipv4Addr::UNSPECIFIED.into(), 5)).unwrap();
    assert_eq!(any.local_addr().unwrap(), "0.0.0.0:5".parse().unwrap());
    let dual = host.socket(at(Ipv6Addr::UNSPECIFIED.into(), 6)).unwrap();
    assert_eq!(dual.local_addr().unwrap(), "[::]:6".parse().unwrap());
    send(&net.b, at(A, 6), b"x", None);
    assert_eq!(receive(&dual).await[0].0, "[::ffff:10.0.0.2]:1000".parse().unwrap());
    send(&dual, "[::ffff:10.0.0.2]:1000".parse().unwrap(), b"x", None);
    assert_eq!(receive(&net.b).await[0].0, at(A, 6));

    let other = net.fabric.datagrams(C);
    assert_eq!(
        other.socket(at(Ipv4Addr::UNSPECIFIED.into(), 0)).unwrap_err().kind(),
        ErrorKind::AddrNotAvailable
    );
    let six = other.socket(at(Ipv6Addr::UNSPECIFIED.into(), 7)).unwrap();
    send(&six, at(A, 6), b"x", None);
    assert_eq!(receive(&dual).await[0].0, at(C, 7));
    // A socket of IPv4 does not hear it.
    send(&six, at(A, 5), b"x", None);
    assert!(net.receive_all(&any).await.is_empty());
    // A port is free once its socket is gone.
    drop(any);
    assert!(host.socket(at(A, 5)).is_ok());
}
