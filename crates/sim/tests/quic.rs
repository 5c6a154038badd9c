//! The real QUIC on the simulated datagrams: it gets through loss, ends by its own deadlines when nothing gets
//! through, and repeats exactly.

#![expect(clippy::unwrap_used, reason = "in a test, a failure is a result")]

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rookery_runtime::OnPanic;
use rookery_sim::datagram::{Verdict, charge};
use rookery_sim::fabric::Chance;
use rookery_sim::{Link, Node, Report, World};
use rookery_transport::quic::{Quic, QuicLimits};
use rookery_transport::tls::{Identity, Keys, Trust};
use rookery_transport::{Closed, MuxConn, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PORT: u16 = 9000;
const REEXECUTED: &str = "ROOKERY_QUIC_REEXECUTED";
/// What a client sends and gets back: more than one datagram, less than the windows.
const LOAD: usize = 20_000;
/// What a client says first.
const HELLO: usize = 500;

fn host(n: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + n))
}

/// The real transport on host `n`, with an identity made from its number.
fn quic(world: &World, n: u32, keys: Keys) -> (Node, Quic) {
    let node = world.node(host(n));
    let mut secret = [0; 32];
    secret[..4].copy_from_slice(&n.to_le_bytes());
    let tls = Identity::from_seed(&secret, keys).unwrap().tls(b"rookery-test", Trust::Both).unwrap();
    let quic = node.quic(tls, QuicLimits::DEFAULT).unwrap();
    (node, quic)
}

/// Sends back what comes on each stream of each connection.
fn serve(node: &Node, quic: &Quic) {
    let (node, quic) = (node.clone(), quic.clone());
    node.env.scope.clone().spawn("serve", OnPanic::StopNode, async move {
        let mut door = quic.listen(node.at(PORT)).await.unwrap();
        while let Ok(arrival) = door.accept().await {
            let scope = node.env.scope.clone();
            node.env.scope.spawn("answer", OnPanic::StopNode, async move {
                let Ok(conn) = arrival.connect().await else { return };
                let mux = conn.into_mux().unwrap().mux;
                while let Ok(mut stream) = mux.accept().await {
                    scope.spawn("echo", OnPanic::StopNode, async move {
                        // A connection that is lost meanwhile is the client's to notice.
                        if tokio::io::copy(&mut stream.read, &mut stream.write).await.is_ok() {
                            let _ = stream.write.shutdown().await;
                        }
                    });
                }
            });
        }
    });
}

/// Dials and says hello, as every protocol here does before it says more. quinn sends what is lost of a dialler's last
/// handshake flight behind the data that is in flight, and an acceptor that lacks that flight acknowledges no data:
/// a dialler that fills its congestion window before it has heard anything can wait for ever.
async fn dial(quic: &Quic, to: &Node) -> Result<MuxConn, String> {
    let conn = quic.dial(to.at(PORT)).await.map_err(|error| error.to_string())?;
    let conn = conn.into_mux().map_err(|error| error.to_string())?;
    echo(&conn, HELLO).await?;
    Ok(conn)
}

/// Sends a load and reads it back whole.
async fn echo(conn: &MuxConn, load: usize) -> Result<(), String> {
    let mut stream = conn.mux.open().await.map_err(|error| error.to_string())?;
    let sent: Vec<u8> = (0..load).map(|n| (n % 251) as u8).collect();
    let mut got = Vec::new();
    let exchange = async {
        stream.write.write_all(&sent).await?;
        stream.write.shutdown().await?;
        stream.read.read_to_end(&mut got).await
    };
    exchange.await.map_err(|error| error.to_string())?;
    if got == sent { Ok(()) } else { Err(format!("{} bytes came back of {load}", got.len())) }
}

/// `clients` dial one server at once, and each gets a load back.
async fn crowd(
    world: &World,
    server: &Node,
    clients: u32,
    keys: Keys,
    load: usize,
    within: Duration,
) -> Result<(), String> {
    let answered = Arc::new(Mutex::new(0));
    for n in 0..clients {
        let (node, quic) = quic(world, 1000 + n, keys);
        let (server, answered) = (server.clone(), Arc::clone(&answered));
        node.env.scope.clone().spawn("client", OnPanic::StopNode, async move {
            let conn = dial(&quic, &server).await.unwrap();
            echo(&conn, load).await.unwrap();
            node.env.trace("answered", 0, 0, 0, "");
            *answered.lock().unwrap() += 1;
            // Held until the node stops.
            conn.mux.closed().await;
        });
    }
    world.until("every client gets its load back", within, || *answered.lock().unwrap() == clients).await
}

fn link(loss: u32) -> Link {
    let link =
        Link::new(Duration::from_millis(25)).with_jitter(Duration::from_millis(5)).with_bandwidth(4 << 20);
    if loss == 0 {
        return link;
    }
    link.with_loss(Chance::percent(loss))
        .with_duplication(Chance::percent(1))
        .with_reordering(Chance::percent(2))
}

fn echoes(name: &'static str, seed: u64, link: Link, keys: Keys) -> Report {
    let world = World::new(name, seed);
    world.fabric().set_default_link(link);
    let run = world.run(async {
        let (server, quic) = quic(&world, 1, keys);
        serve(&server, &quic);
        crowd(&world, &server, 5, keys, LOAD, Duration::from_secs(60)).await?;
        world.say(format!("{:?}", world.fabric().datagram_counts()));
        Ok(())
    });
    run.unwrap_or_else(|failure| panic!("{failure}"))
}

/// What each loss comes to with one seed.
fn reports() -> Vec<String> {
    let run = |(name, loss, keys)| {
        let report = echoes(name, 7, link(loss), keys);
        format!(
            "audit {name} {} {:?} {:?} {:?}",
            report.hash, report.virtual_time, report.counts, report.lines
        )
    };
    [
        ("lossless", 0, Keys::Classic),
        ("lossless-pq", 0, Keys::Both),
        ("loss-5", 5, Keys::Classic),
        ("loss-20", 20, Keys::Both),
    ]
    .map(run)
    .to_vec()
}

#[test]
fn it_gets_through_loss_and_a_seed_gives_one_hash_twice_here_and_once_in_a_fresh_process() {
    let here = reports();
    here.iter().for_each(|line| println!("{line}"));
    if std::env::var_os(REEXECUTED).is_some() {
        return;
    }
    assert_eq!(here, reports());
    let name = "it_gets_through_loss_and_a_seed_gives_one_hash_twice_here_and_once_in_a_fresh_process";
    let fresh = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(REEXECUTED, "1")
        .output()
        .unwrap();
    let text = String::from_utf8(fresh.stdout).unwrap();
    let there: Vec<&str> = text.lines().filter(|line| line.starts_with("audit ")).collect();
    assert_eq!(here, there, "{text}");
}

#[test]
fn different_seeds_are_different_runs() {
    let hash = |seed| echoes("loss-5", seed, link(5), Keys::Classic).hash;
    assert_ne!(hash(1), hash(2));
}

#[test]
fn a_small_receive_buffer_drops_arrivals_and_they_come_again() {
    let world = World::new("overflow", 3);
    let report = world.run(async {
        let (server, quic) = quic(&world, 1, Keys::Both);
        // All first datagrams come in one moment, two from each client, and a third of them fits.
        world.fabric().set_default_link(Link::new(Duration::from_millis(20)));
        world.fabric().set_receive_buffer(server.ip, 20 * charge(1200));
        serve(&server, &quic);
        crowd(&world, &server, 30, Keys::Both, 100, Duration::from_secs(60)).await?;
        let dropped = world.fabric().datagram_counts().of(Verdict::Overflow);
        if dropped >= 30 { Ok(()) } else { Err(format!("{dropped} datagrams dropped")) }
    });
    report.unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn a_partition_ends_the_connection_by_the_idle_deadline_and_not_before() {
    let world = World::new("parted", 4);
    let report = world.run(async {
        let (server, server_quic) = quic(&world, 1, Keys::Classic);
        serve(&server, &server_quic);
        let (client, client_quic) = quic(&world, 2, Keys::Classic);
        let conn = dial(&client_quic, &server).await?;
        // Kept alive while nobody says anything, and through a short partition.
        world.pass(4 * QuicLimits::DEFAULT.idle).await;
        world.fabric().partition(&[vec![client.ip]]);
        world.pass(QuicLimits::DEFAULT.idle / 3).await;
        world.fabric().heal();
        echo(&conn, 100).await?;

        world.fabric().partition(&[vec![client.ip]]);
        let start = world.clock().now();
        let closed = conn.mux.closed().await;
        let took = world.clock().now() - start;
        assert_eq!(closed, Closed::TimedOut);
        // The first keep-alive that nobody answers starts the deadline once more (RFC 9000, 10.1).
        let limits = QuicLimits::DEFAULT;
        assert!((limits.idle..=limits.idle + limits.keep_alive).contains(&took), "{took:?}");
        assert!(world.fabric().datagram_counts().of(Verdict::Parted) > 0);
        Ok(())
    });
    report.unwrap_or_else(|failure| panic!("{failure}"));
}

fn thousand(loss: u32) -> Report {
    let world = World::new("thousand", 1);
    world.fabric().set_default_link(link(loss));
    let report = world.run(async {
        let (server, quic) = quic(&world, 1, Keys::Both);
        serve(&server, &quic);
        crowd(&world, &server, 1000, Keys::Both, 100, Duration::from_secs(60)).await?;
        world.say(format!("{:.3} s until all are answered", world.clock().elapsed().as_secs_f64()));
        world.say(format!("{:?}", world.fabric().datagram_counts()));
        Ok(())
    });
    report.unwrap_or_else(|failure| panic!("{failure}"))
}

#[test]
fn a_thousand_nodes_dial_one_whose_buffer_overflows_and_all_are_answered() {
    let report = thousand(0);
    println!("{report}");
    // The default buffer holds 92 of their two thousand first datagrams.
    assert!(report.counts["net_datagram_lost"] > 1000, "{report}");
}

#[test]
fn a_thousand_nodes_dial_one_over_lossy_links_and_it_repeats_exactly() {
    let (once, again) = (thousand(5), thousand(5));
    println!("{once}");
    assert_eq!(once, again);
}

/// Dials over lines that lose a fifth, each held for as long as a dialler waits before it tries anew; how many of them stand
/// still, and how long the slowest of the others took.
fn dials_that_stand_still(seed: u64, dials: u32) -> (u32, Duration) {
    const PATIENCE: Duration = Duration::from_secs(20);
    let world = World::new("still", seed);
    world.fabric().set_default_link(link(20));
    let outcome = Arc::new(Mutex::new((0, 0, Duration::ZERO)));
    let run = world.run(async {
        let (server, quic_of_server) = quic(&world, 1, Keys::Both);
        serve(&server, &quic_of_server);
        for n in 0..dials {
            let (node, quic) = quic(&world, 1000 + n, Keys::Both);
            let (server, outcome, clock) = (server.clone(), Arc::clone(&outcome), world.clock());
            node.env.scope.clone().spawn("client", OnPanic::StopNode, async move {
                clock.sleep(Duration::from_millis(40) * n).await;
                let began = clock.now();
                let dialled = clock.timeout(PATIENCE, dial(&quic, &server)).await;
                let took = clock.now() - began;
                let mut outcome = outcome.lock().unwrap();
                outcome.0 += 1;
                match dialled {
                    Some(conn) => {
                        conn.unwrap().mux.close(0, "");
                        outcome.2 = outcome.2.max(took);
                    }
                    None => outcome.1 += 1,
                }
            });
        }
        let all = || outcome.lock().unwrap().0 == dials;
        world.until("every dial has ended", Duration::from_secs(120), all).await
    });
    run.unwrap_or_else(|failure| panic!("{failure}"));
    let (_, still, slowest) = *outcome.lock().unwrap();
    (still, slowest)
}

/// Post-quantum handshakes over lines that lose a fifth: none stands still. Their last flight is five packets, and what of it is
/// lost has to get past the hello that follows it, which nobody can acknowledge before.
#[test]
fn no_handshake_stands_still_where_a_fifth_is_lost() {
    for seed in 0..3 {
        let (still, slowest) = dials_that_stand_still(seed, 250);
        println!("seed {seed}: {still} of 250 stand still, the slowest of the others took {slowest:?}");
        assert_eq!(still, 0, "seed {seed}");
    }
}
