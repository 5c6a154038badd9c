//! The fabric's promises, each in virtual time: the link's arithmetic, back-pressure, and what each fault looks like
//! from both ends.

#![expect(clippy::unwrap_used, reason = "in a test, a failure is a result")]

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rookery_observe::Trace;
use rookery_runtime::{Clock, Env};
use rookery_sim::fabric::{BACKLOG, DIAL_RETRY, Dials, Down};
use rookery_sim::{Fabric, Link};
use rookery_transport::{Conn, StreamConn, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const A: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const B: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
const AT_B: SocketAddr = SocketAddr::new(B, 1000);
const LATENCY: Duration = Duration::from_millis(20);
/// Longer than anything that still happens.
const FOREVER: Duration = Duration::from_secs(10_000);

struct Net {
    fabric: Fabric,
    clock: Clock,
    a: Arc<dyn Transport>,
    b: Arc<dyn Transport>,
    _env: Env,
}

fn net(link: Link) -> Net {
    let env = Env::simulated(1, 0, 0, 0, Trace::off());
    let fabric = Fabric::new(&env, 1);
    fabric.set_default_link(link);
    Net { clock: env.clock, a: fabric.host(A), b: fabric.host(B), fabric, _env: env }
}

impl Net {
    /// A connection from A to B, as both see it.
    async fn pair(&self) -> (StreamConn, StreamConn) {
        let mut listener = self.b.listen(AT_B).await.unwrap();
        let (dialled, accepted) = tokio::join!(self.a.dial(AT_B), listener.accept());
        (
            dialled.unwrap().into_stream().unwrap(),
            accepted.unwrap().connect().await.unwrap().into_stream().unwrap(),
        )
    }

    fn only(&self) -> rookery_sim::fabric::ConnInfo {
        let conns = self.fabric.connections();
        assert_eq!(conns.len(), 1);
        conns[0]
    }

    async fn after<T>(&self, future: impl Future<Output = T>) -> (Duration, T) {
        let start = self.clock.now();
        let result = future.await;
        (self.clock.now() - start, result)
    }

    /// Whether the future is still waiting when everything that could happen has happened.
    async fn hangs<T>(&self, future: impl Future<Output = T>) -> bool {
        self.clock.timeout(FOREVER, future).await.is_none()
    }
}

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

async fn kind_of_read(conn: &mut StreamConn) -> ErrorKind {
    conn.read.read(&mut [0; 64]).await.unwrap_err().kind()
}

async fn kind_of_write(conn: &mut StreamConn) -> ErrorKind {
    conn.write.write_all(&[0; 64]).await.unwrap_err().kind()
}

fn kind_of_dial(result: std::io::Result<Conn>) -> ErrorKind {
    result.err().expect("the dial fails").kind()
}

#[tokio::test(start_paused = true)]
async fn dial_takes_a_round_trip_and_accept_half_a_trip_more() {
    let net = net(Link::new(LATENCY));
    let mut listener = net.b.listen(AT_B).await.unwrap();
    let dialled = net.after(net.a.dial(AT_B));
    let accepted = net.after(listener.accept());
    let ((dial_took, dialled), (accept_took, accepted)) = tokio::join!(dialled, accepted);
    assert_eq!((dial_took, accept_took), (2 * LATENCY, 3 * LATENCY));
    let (dialled, accepted) = (
        dialled.unwrap().into_stream().unwrap(),
        accepted.unwrap().connect().await.unwrap().into_stream().unwrap(),
    );
    assert_eq!((dialled.local, dialled.remote), (accepted.remote, accepted.local));
    assert_eq!((dialled.local.ip(), dialled.remote), (A, AT_B));
}

#[tokio::test(start_paused = true)]
async fn a_byte_takes_its_latency_and_a_load_its_transmission_too() {
    let net = net(Link::new(LATENCY).with_bandwidth(1_000_000).with_segment(1000));
    let (mut a, mut b) = net.pair().await;
    a.write.write_all(&[7; 100_000]).await.unwrap();
    let mut load = vec![0; 100_000];
    // The first segment: 1 ms to leave. The last one: 100 ms.
    assert_eq!(net.after(b.read.read_exact(&mut load[..1])).await.0, LATENCY + ms(1));
    assert_eq!(net.after(b.read.read_exact(&mut load[1..])).await.0, ms(99));
    // Both directions have a wire of their own, and it is idle now.
    b.write.write_all(&[7; 50_000]).await.unwrap();
    assert_eq!(net.after(a.read.read_exact(&mut load[..50_000])).await.0, LATENCY + ms(50));
}

#[tokio::test(start_paused = true)]
async fn latency_and_bandwidth_can_differ_by_direction_and_change_while_open() {
    let net = net(Link::new(LATENCY));
    net.fabric.set_link(B, A, Link::new(ms(70)));
    let (mut a, mut b) = net.pair().await;
    let mut byte = [0];
    a.write.write_all(&[1]).await.unwrap();
    assert_eq!(net.after(b.read.read_exact(&mut byte)).await.0, ms(20));
    b.write.write_all(&[1]).await.unwrap();
    assert_eq!(net.after(a.read.read_exact(&mut byte)).await.0, ms(70));
    net.fabric.set_uplink(A, Link::new(ms(300)));
    a.write.write_all(&[1]).await.unwrap();
    assert_eq!(net.after(b.read.read_exact(&mut byte)).await.0, ms(300));
    // A later byte over a faster link does not overtake.
    a.write.write_all(&[2]).await.unwrap();
    net.fabric.set_uplink(A, Link::new(ms(1)));
    a.write.write_all(&[3]).await.unwrap();
    let mut both = [0; 2];
    assert_eq!(net.after(b.read.read_exact(&mut both)).await.0, ms(300));
    assert_eq!(both, [2, 3]);
}

#[tokio::test(start_paused = true)]
async fn jitter_never_reorders() {
    let net = net(Link::new(LATENCY).with_jitter(ms(500)).with_segment(1));
    let (mut a, mut b) = net.pair().await;
    let sent: Vec<u8> = (0..200).collect();
    for byte in &sent {
        a.write.write_all(&[*byte]).await.unwrap();
        net.clock.sleep(ms(3)).await;
    }
    drop(a);
    let mut got = Vec::new();
    b.read.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, sent);
}

#[tokio::test(start_paused = true)]
async fn a_writer_waits_once_the_window_is_full_and_goes_on_when_the_reader_reads() {
    const WINDOW: usize = 10_000;
    let net = net(Link::new(LATENCY).with_window(WINDOW));
    let (mut a, mut b) = net.pair().await;
    assert!(net.hangs(a.write.write_all(&[1; 3 * WINDOW])).await);
    assert_eq!(net.only().held, [WINDOW, 0]);
    // One byte read is not worth waking the writer; a third of the window is.
    let mut load = [0; WINDOW];
    b.read.read_exact(&mut load[..1]).await.unwrap();
    assert_eq!(a.write.write(&[2; 5]).await.unwrap(), 1);
    assert!(net.hangs(a.write.write(&[2; 5])).await);
    let (write, read) = (a.write.write(&[2; WINDOW]), b.read.read(&mut load));
    let (wrote, read) = tokio::join!(write, read);
    assert_eq!((wrote.unwrap(), read.unwrap()), (WINDOW, WINDOW));
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_sets_its_peers_pace() {
    let net = net(Link::new(LATENCY).with_window(1000));
    let (mut a, mut b) = net.pair().await;
    net.fabric.set_read_rate(B, Some(1000));
    let sending = net.after(async {
        a.write.write_all(&[1; 10_000]).await.unwrap();
        drop(a.write);
    });
    let receiving = net.after(async {
        let mut got = Vec::new();
        b.read.read_to_end(&mut got).await.unwrap();
        got.len()
    });
    let ((_, ()), (took, bytes)) = tokio::join!(sending, receiving);
    assert_eq!(bytes, 10_000);
    // 10 s for the bytes; each time the writer is woken the pipe has been empty for at most a latency.
    assert!((ms(9_900)..ms(11_000)).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_host_that_stops_reading_reads_again_when_the_fault_ends() {
    let net = net(Link::new(LATENCY));
    let (mut a, mut b) = net.pair().await;
    net.fabric.set_read_rate(B, Some(0));
    a.write.write_all(b"hello").await.unwrap();
    let mut got = [0; 5];
    assert!(net.hangs(b.read.read_exact(&mut got)).await);
    let lift = async {
        net.clock.sleep(ms(50)).await;
        net.fabric.calm();
    };
    let ((took, read), ()) = tokio::join!(net.after(b.read.read_exact(&mut got)), lift);
    assert_eq!((took, read.unwrap(), &got), (ms(50), 5, b"hello"));
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_before_a_close_can_be_read_and_then_the_end() {
    let net = net(Link::new(LATENCY).with_bandwidth(1000));
    let (mut a, mut b) = net.pair().await;
    a.write.write_all(&[5; 500]).await.unwrap();
    drop(a);
    let mut got = Vec::new();
    let (took, read) = net.after(b.read.read_to_end(&mut got)).await;
    assert_eq!((took, read.unwrap(), got), (LATENCY + ms(500), 500, vec![5; 500]));
    drop(b);
    assert_eq!(net.fabric.connections(), []);
}

#[tokio::test(start_paused = true)]
async fn a_half_closed_connection_still_carries_the_other_direction() {
    let net = net(Link::new(LATENCY));
    let (mut a, mut b) = net.pair().await;
    a.write.shutdown().await.unwrap();
    assert_eq!(kind_of_write(&mut a).await, ErrorKind::BrokenPipe);
    assert_eq!(b.read.read(&mut [0; 9]).await.unwrap(), 0);
    b.write.write_all(b"answer").await.unwrap();
    drop(b);
    let mut got = String::new();
    a.read.read_to_string(&mut got).await.unwrap();
    assert_eq!(got, "answer");
}

#[tokio::test(start_paused = true)]
async fn bytes_to_a_closed_end_come_back_as_a_reset() {
    let net = net(Link::new(LATENCY));
    let (mut a, b) = net.pair().await;
    drop(b);
    // It heard the close; writing is still allowed, as in TCP, and shows what became of the reader.
    assert_eq!(a.read.read(&mut [0; 9]).await.unwrap(), 0);
    a.write.write_all(b"anybody?").await.unwrap();
    net.clock.sleep(2 * LATENCY).await;
    assert_eq!(kind_of_write(&mut a).await, ErrorKind::ConnectionReset);
    assert_eq!(kind_of_read(&mut a).await, ErrorKind::ConnectionReset);
}

#[tokio::test(start_paused = true)]
async fn an_end_that_closes_with_unread_input_resets_and_what_had_arrived_stays_readable() {
    let net = net(Link::new(LATENCY));
    let (mut a, mut b) = net.pair().await;
    a.write.write_all(b"unread").await.unwrap();
    b.write.write_all(b"before").await.unwrap();
    net.clock.sleep(LATENCY).await;
    drop(b);
    net.clock.sleep(LATENCY).await;
    let mut got = [0; 6];
    a.read.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"before");
    assert_eq!(kind_of_read(&mut a).await, ErrorKind::ConnectionReset);
}

#[tokio::test(start_paused = true)]
async fn a_reset_reaches_both_ends_at_once_even_when_they_wait() {
    let net = net(Link::new(LATENCY).with_window(100));
    let (mut a, mut b) = net.pair().await;
    a.write.write_all(&[1; 100]).await.unwrap();
    net.clock.sleep(LATENCY).await;
    let reset = async {
        net.clock.sleep(ms(5)).await;
        net.fabric.reset(net.only().id);
    };
    let StreamConn { read, write, .. } = &mut a;
    let (mut byte, load) = ([0], [1; 100]);
    let both = async { tokio::join!(read.read(&mut byte), write.write(&load)) };
    let ((took, (read, wrote)), ()) = tokio::join!(net.after(both), reset);
    let kinds = (read.unwrap_err().kind(), wrote.unwrap_err().kind());
    assert_eq!((took, kinds), (ms(5), (ErrorKind::ConnectionReset, ErrorKind::ConnectionReset)));
    assert_eq!(kind_of_read(&mut b).await, ErrorKind::ConnectionReset, "what had arrived is lost");
    assert_eq!(kind_of_write(&mut b).await, ErrorKind::ConnectionReset);
}

#[tokio::test(start_paused = true)]
async fn a_half_open_connection_says_nothing_ever() {
    let net = net(Link::new(LATENCY).with_window(1000));
    let (mut a, mut b) = net.pair().await;
    a.write.write_all(b"in flight").await.unwrap();
    net.fabric.half_open(net.only().id);
    assert!(net.hangs(b.read.read(&mut [0; 9])).await);
    drop(b);
    assert!(net.hangs(a.read.read(&mut [0; 9])).await);
    // Swallowed until nothing more fits: nobody acknowledges.
    a.write.write_all(&[0; 900]).await.unwrap();
    assert!(net.hangs(a.write.write_all(&[0; 900])).await);
    net.fabric.reset(net.only().id);
    assert!(net.hangs(a.read.read(&mut [0; 9])).await);
    drop(a);
    assert_eq!(net.fabric.connections(), []);
}

#[tokio::test(start_paused = true)]
async fn a_partition_stalls_bytes_closes_and_dials_and_healing_lets_them_through() {
    let net = net(Link::new(LATENCY));
    let (mut a, mut b) = net.pair().await;
    let mut listener = net.b.listen(SocketAddr::new(B, 2000)).await.unwrap();
    a.write.write_all(b"in flight, ").await.unwrap();
    net.fabric.partition(&[vec![A]]);
    a.write.write_all(b"stalled").await.unwrap();
    drop(a.write);
    let mut got = String::new();
    assert!(net.hangs(b.read.read(&mut [0; 9])).await);
    assert!(net.hangs(net.a.dial(listener.local_addr())).await);
    let dial = net.after(net.a.dial(listener.local_addr()));
    let heal = async {
        net.clock.sleep(ms(500)).await;
        net.fabric.heal();
    };
    let ((dial_took, dialled), accepted, (took, read), ()) =
        tokio::join!(dial, listener.accept(), net.after(b.read.read_to_string(&mut got)), heal);
    read.unwrap();
    assert_eq!((got.as_str(), took), ("in flight, stalled", ms(500) + LATENCY));
    // The first packet of the dial was lost, and asked again a second later.
    assert_eq!(dial_took, 2 * LATENCY + DIAL_RETRY);
    drop((dialled.unwrap(), accepted.unwrap()));
}

#[tokio::test(start_paused = true)]
async fn a_partition_leaves_those_on_one_side_alone() {
    let net = net(Link::new(LATENCY));
    let (mut a, mut b) = net.pair().await;
    let far = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 3));
    net.fabric.host(far);
    a.write.write_all(b"x").await.unwrap();
    net.fabric.partition(&[vec![A, B], vec![far]]);
    net.clock.sleep(ms(10)).await;
    net.fabric.heal();
    assert_eq!(net.after(b.read.read_exact(&mut [0])).await.0, ms(10));
}

#[tokio::test(start_paused = true)]
async fn dials_are_refused_or_swallowed_as_commanded() {
    let net = net(Link::new(LATENCY));
    let (took, nobody) = net.after(net.a.dial(AT_B)).await;
    assert_eq!((took, kind_of_dial(nobody)), (2 * LATENCY, ErrorKind::ConnectionRefused));
    let _listener = net.b.listen(AT_B).await.unwrap();
    net.fabric.set_dials(B, Dials::Refuse);
    assert_eq!(kind_of_dial(net.a.dial(AT_B).await), ErrorKind::ConnectionRefused);
    net.fabric.set_dials(B, Dials::BlackHole);
    assert!(net.hangs(net.a.dial(AT_B)).await);
    assert!(net.hangs(net.a.dial("10.9.9.9:1".parse().unwrap())).await);
    net.fabric.set_dials(B, Dials::Answer);
    assert!(net.a.dial(AT_B).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_host_goes_down_loudly_or_silently_and_comes_back() {
    for (how, hears) in [(Down::Reset, true), (Down::Silent, false)] {
        let net = net(Link::new(LATENCY));
        let (mut a, b) = net.pair().await;
        let mut listener = net.b.listen(SocketAddr::new(B, 2000)).await.unwrap();
        let at = listener.local_addr();
        net.fabric.down(B, how);
        assert_eq!(net.hangs(a.read.read(&mut [0; 9])).await, !hears);
        drop((a, b));
        match net.clock.timeout(FOREVER, net.a.dial(at)).await {
            Some(refused) => assert_eq!((kind_of_dial(refused), hears), (ErrorKind::ConnectionRefused, true)),
            None => assert!(!hears),
        }
        assert_eq!(kind_of_dial(net.b.dial(at).await), ErrorKind::NetworkUnreachable);
        net.fabric.up(B);
        let (dialled, accepted) = tokio::join!(net.a.dial(at), listener.accept());
        drop((dialled.unwrap(), accepted.unwrap()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_listener_holds_a_bounded_backlog_and_resets_what_it_never_accepted() {
    let net = net(Link::new(LATENCY));
    let listener = net.b.listen(AT_B).await.unwrap();
    assert_eq!(net.b.listen(AT_B).await.err().unwrap().kind(), ErrorKind::AddrInUse);
    assert_eq!(net.a.listen(AT_B).await.err().unwrap().kind(), ErrorKind::AddrNotAvailable);
    let mut waiting = Vec::new();
    for _ in 0..BACKLOG {
        waiting.push(net.a.dial(AT_B).await.unwrap().into_stream().unwrap());
    }
    assert!(net.hangs(net.a.dial(AT_B)).await);
    drop(listener);
    assert_eq!(kind_of_read(&mut waiting[0]).await, ErrorKind::ConnectionReset);
    drop(waiting);
    assert_eq!(net.fabric.connections(), []);
    assert!(net.b.listen(AT_B).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_dial_that_is_given_up_leaves_nothing_behind() {
    let net = net(Link::new(LATENCY));
    let mut listener = net.b.listen(AT_B).await.unwrap();
    for given_up_after in [5, 25, 39, 41, 59] {
        assert_eq!(
            net.clock.timeout(ms(given_up_after), net.a.dial(AT_B)).await.is_some(),
            given_up_after > 40
        );
    }
    let arrived = net.clock.timeout(FOREVER, async {
        for _ in 0..2 {
            let mut conn = listener.accept().await.unwrap().connect().await.unwrap().into_stream().unwrap();
            assert_eq!(conn.read.read(&mut [0; 9]).await.unwrap(), 0);
        }
        listener.accept().await.map(drop)
    });
    assert!(arrived.await.is_none(), "three dials were dropped before they were answered");
    assert_eq!(net.fabric.connections(), []);
}

#[tokio::test(start_paused = true)]
async fn a_host_reaches_itself_without_delay() {
    let net = net(Link::new(LATENCY));
    let mut listener = net.a.listen(SocketAddr::new(A, 0)).await.unwrap();
    let at = listener.local_addr();
    let (took, (dialled, accepted)) =
        net.after(async { tokio::join!(net.a.dial(at), listener.accept()) }).await;
    assert_eq!(took, Duration::ZERO);
    let (dialled, accepted) = (
        dialled.unwrap().into_stream().unwrap(),
        accepted.unwrap().connect().await.unwrap().into_stream().unwrap(),
    );
    assert_eq!((dialled.local, dialled.remote), (accepted.remote, at));
}
