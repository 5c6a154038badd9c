use std::time::Duration;

use quinn::udp::EcnCodepoint;
use quinn::{Runtime as _, TokioRuntime};

use super::super::udp::{Bound, Datagrams, Udp};
use super::*;

/// What the kernel gives by default.
const RECEIVE_BUFFER: usize = 212_992;
/// What the kernel counts for a datagram of [`BODY`] bytes is less than four times this: [`ROUND`] of them fit into its buffer.
const BODY: usize = 1200;
const ROUND: u32 = 32;

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn bound(env: &Env, limits: RingLimits) -> (Arc<dyn AsyncUdpSocket>, Arc<Shared>, CancellationToken) {
    let socket = std::net::UdpSocket::bind(loopback()).unwrap();
    let (socket, receiver) = helped(socket, RECEIVE_BUFFER, limits).unwrap();
    let (shared, until) = (Arc::clone(&receiver.shared), CancellationToken::new());
    receiver.start(env, until.clone());
    (socket, shared, until)
}

fn numbered(number: u32) -> [u8; BODY] {
    let mut body = [0; BODY];
    body[..4].copy_from_slice(&number.to_be_bytes());
    body
}

/// Sends numbered datagrams while this thread, which is the runtime's only one, does nothing else: it waits for the receiver
/// only by looking.
fn send_while_the_runtime_is_blocked(to: SocketAddr, rounds: u32, taken: impl Fn() -> u64) {
    let sender = std::net::UdpSocket::bind(loopback()).unwrap();
    for round in 0..rounds {
        for number in round * ROUND..(round + 1) * ROUND {
            sender.send_to(&numbered(number), to).unwrap();
        }
        while taken() < u64::from((round + 1) * ROUND) {
            std::thread::yield_now();
        }
    }
}

/// Everything of one read: datagrams, each with how it came.
async fn read(socket: &Arc<dyn AsyncUdpSocket>) -> Vec<(Vec<u8>, RecvMeta)> {
    let mut space = vec![vec![0; LARGEST]; 4];
    let mut metas = [RecvMeta::default(); 4];
    let count = std::future::poll_fn(|cx| {
        let mut slices: Vec<_> = space.iter_mut().map(|chunk| IoSliceMut::new(chunk)).collect();
        socket.poll_recv(cx, &mut slices, &mut metas)
    });
    let count = count.await.unwrap();
    let mut all = Vec::new();
    for (meta, bytes) in metas[..count].iter().zip(&space) {
        all.extend(bytes[..meta.len].chunks(meta.stride).map(|one| (one.to_vec(), *meta)));
    }
    all
}

#[tokio::test]
async fn a_burst_larger_than_the_kernel_holds_arrives_whole_while_the_runtime_is_blocked() {
    let env = Env::system();
    let (socket, shared, _until) = bound(&env, RingLimits::DEFAULT);
    let rounds = 40;
    assert!(rounds * ROUND * BODY as u32 > 5 * RECEIVE_BUFFER as u32);
    send_while_the_runtime_is_blocked(socket.local_addr().unwrap(), rounds, || shared.ring.len() as u64);
    let mut expected = 0;
    while expected < rounds * ROUND {
        for (body, _) in read(&socket).await {
            assert_eq!(body, numbered(expected));
            expected += 1;
        }
    }
    assert_eq!(env.metrics.udp_ring_dropped.get(), 0);
}

#[tokio::test]
async fn datagrams_come_in_order_whoever_reads_them_and_the_runtime_reads_what_it_comes_for_in_time() {
    let env = Env::system();
    let (socket, shared, _until) = bound(&env, RingLimits::DEFAULT);
    let to = socket.local_addr().unwrap();
    let sender = std::net::UdpSocket::bind(loopback()).unwrap();
    let (mut number, mut in_time) = (0, false);
    while !in_time {
        // Two datagrams: the thread is waited for with the first, and raced for the second.
        sender.send_to(&numbered(number), to).unwrap();
        while shared.ring.len() == 0 {
            std::thread::yield_now();
        }
        sender.send_to(&numbered(number + 1), to).unwrap();
        let mut got = read(&socket).await;
        in_time = got.len() == 1 && shared.ring.len() == 0;
        while got.len() < 2 {
            got.extend(read(&socket).await);
        }
        let bodies: Vec<_> = got.into_iter().map(|(body, _)| body).collect();
        assert_eq!(bodies, [numbered(number), numbered(number + 1)]);
        number += 2;
    }
}

#[tokio::test]
async fn what_the_ring_has_no_room_for_is_counted() {
    let env = Env::system();
    let (socket, shared, _until) = bound(&env, RingLimits { buffers: 40, bytes: 1 << 20 });
    let dropped = || env.metrics.udp_ring_dropped.get();
    send_while_the_runtime_is_blocked(socket.local_addr().unwrap(), 2, || {
        shared.ring.len() as u64 + dropped()
    });
    assert_eq!((shared.ring.len() as u64, dropped()), (40, 24));
}

#[tokio::test]
async fn joined_datagrams_marks_and_addresses_come_as_from_a_socket_that_the_runtime_reads() {
    let env = Env::system();
    let (helped, _shared, _until) = bound(&env, RingLimits::DEFAULT);
    let plain = TokioRuntime.wrap_udp_socket(std::net::UdpSocket::bind(loopback()).unwrap()).unwrap();
    let parts = helped.max_transmit_segments().min(3);
    let mut contents: Vec<u8> = (0..parts as u32).flat_map(numbered).collect();
    contents.truncate(contents.len() - 100);
    let mut came = Vec::new();
    for to in [&helped, &plain] {
        // Both directions of the helped socket are used: it sends to itself as well.
        let transmit = Transmit {
            destination: to.local_addr().unwrap(),
            ecn: Some(EcnCodepoint::Ect0),
            contents: &contents,
            segment_size: (parts > 1).then_some(BODY),
            src_ip: None,
        };
        let mut writable = Arc::clone(&helped).create_io_poller();
        while let Err(error) = helped.try_send(&transmit) {
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
            std::future::poll_fn(|cx| writable.as_mut().poll_writable(cx)).await.unwrap();
        }
        let mut all = Vec::new();
        while all.len() < parts {
            all.extend(read(to).await);
        }
        came.push(all.into_iter().map(|(body, meta)| (body, format!("{meta:?}"))).collect::<Vec<_>>());
    }
    assert_eq!(came[0], came[1]);
    assert_eq!(came[0].iter().map(|(body, _)| body.len()).sum::<usize>(), contents.len());
    assert!(came[0][0].1.contains("Ect0"), "{:?}", came[0][0].1);
}

#[test]
fn a_runtime_has_until_a_quarter_of_the_buffer_may_be_full() {
    let micros = |buffer| patience(buffer).as_micros();
    assert!((200..250).contains(&micros(RECEIVE_BUFFER)), "{}", micros(RECEIVE_BUFFER));
    assert_eq!((micros(0), patience(8 << 20)), (0, PATIENCE));
}

#[tokio::test]
async fn the_thread_ends_with_its_node_and_with_its_socket_and_does_not_hold_up_either() {
    let soon = Duration::from_secs(5);
    for drop_it in [true, false] {
        let env = Env::system();
        let (socket, _, until) = bound(&env, RingLimits::DEFAULT);
        assert!(env.scope.running().contains(&"udp receiver"));
        if drop_it {
            drop(socket);
            assert_eq!(env.scope.close(soon).await, Ok(()));
        } else {
            // Whoever still holds the socket then learns that nothing will come.
            until.cancel();
            assert_eq!(env.scope.close(soon).await, Ok(()));
            let mut metas = [RecvMeta::default()];
            let end =
                std::future::poll_fn(|cx| socket.poll_recv(cx, &mut [IoSliceMut::new(&mut [0])], &mut metas));
            assert_eq!(end.await.unwrap_err().kind(), io::ErrorKind::NotConnected);
        }
    }
}

#[tokio::test]
async fn a_thread_helps_where_the_kernel_keeps_little_and_a_receiver_that_never_ran_says_so() {
    let Bound { receiver, .. } = Udp::AS_THEY_ARE.bind(loopback()).unwrap();
    assert!(receiver.is_none());
    let Bound { socket, receiver, receive_buffer } = Udp::HELPED.bind(loopback()).unwrap();
    assert!(receive_buffer.is_some_and(|bytes| bytes > 0));
    drop(receiver.expect("it is to be helped"));
    let mut metas = [RecvMeta::default()];
    let end = std::future::poll_fn(|cx| socket.poll_recv(cx, &mut [IoSliceMut::new(&mut [0])], &mut metas));
    assert_eq!(end.await.unwrap_err().kind(), io::ErrorKind::NotConnected);
    // No system grants this much.
    let Bound { receiver, .. } = Udp::asking(usize::MAX >> 33).bind(loopback()).unwrap();
    assert!(receiver.is_some());
}
