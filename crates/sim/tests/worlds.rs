//! What a world promises: one hash per seed in any process, bytes in order under every fault, failures that say how
//! to replay, and a thousand hosts at once.

#![expect(clippy::unwrap_used, reason = "in a test, a failure is a result")]

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rookery_runtime::OnPanic;
use rookery_sim::auditor::first_difference;
use rookery_sim::{Node, World, WorldConfig, scenarios};
use rookery_transport::Arrival;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SEEDS: u64 = 200;
const REEXECUTED: &str = "ROOKERY_SIM_REEXECUTED";

/// What every scenario comes to with one seed.
fn hashes() -> Vec<String> {
    let run = |scenario: &rookery_sim::Scenario| {
        let report = (scenario.run)(7).unwrap_or_else(|failure| panic!("{failure}"));
        format!("audit {} {} {:?}", report.scenario, report.hash, report.virtual_time)
    };
    scenarios().iter().map(run).collect()
}

#[test]
fn a_seed_gives_one_hash_twice_here_and_once_in_a_fresh_process() {
    let here = hashes();
    if std::env::var_os(REEXECUTED).is_some() {
        here.iter().for_each(|line| println!("{line}"));
        return;
    }
    assert_eq!(here, hashes());
    let fresh = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_seed_gives_one_hash_twice_here_and_once_in_a_fresh_process", "--nocapture"])
        .env(REEXECUTED, "1")
        .output()
        .unwrap();
    let text = String::from_utf8(fresh.stdout).unwrap();
    let there: Vec<&str> = text.lines().filter(|line| line.starts_with("audit ")).collect();
    assert_eq!(here, there, "{text}");
}

#[test]
fn bytes_arrive_in_order_or_the_connection_ends_for_every_seed() {
    let pipes = rookery_sim::scenarios::find("pipes").unwrap();
    let mut totals: BTreeMap<&str, u64> = BTreeMap::new();
    let mut hashes = std::collections::BTreeSet::new();
    for seed in 0..SEEDS {
        let report = (pipes.run)(seed).unwrap_or_else(|failure| panic!("{failure}"));
        hashes.insert(report.hash);
        for (event, count) in report.counts {
            *totals.entry(event).or_default() += count;
        }
    }
    println!("{totals:?}");
    assert_eq!(hashes.len() as u64, SEEDS, "different seeds are different runs");
    // Every way in which an exchange can end was seen, so the property is not empty.
    for event in ["talk_clean", "talk_reset", "talk_silent", "dial_failed", "dial_hung", "net_cut", "net_fin"]
    {
        assert!(totals[event] >= SEEDS, "{event}: {totals:?}");
    }
}

fn host(n: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + n))
}

/// Answers each connection with what it says.
fn echo(node: &Node) {
    let node = node.clone();
    node.env.scope.clone().spawn("echo", OnPanic::StopNode, async move {
        let mut listener = node.transport.listen(node.at(1000)).await.unwrap();
        while let Ok(Arrival::Ready(conn)) = listener.accept().await {
            node.env.scope.spawn("answer", OnPanic::StopNode, async move {
                let mut conn = conn.into_stream().unwrap();
                let _ = tokio::io::copy(&mut conn.read, &mut conn.write).await;
            });
        }
    });
}

#[test]
fn a_thousand_hosts_keep_eight_thousand_connections() {
    const HOSTS: u32 = 1000;
    const EACH: u32 = 8;
    let world = World::new("thousand", 1);
    let answered = Arc::new(Mutex::new(0));
    let report = world.run(async {
        for n in 0..HOSTS {
            let node = world.node(host(n));
            echo(&node);
            for k in 1..=EACH {
                let (node, answered) = (node.clone(), Arc::clone(&answered));
                node.env.scope.clone().spawn("talk", OnPanic::StopNode, async move {
                    // Nobody dials before everybody listens.
                    node.env.clock.sleep(Duration::from_millis(10)).await;
                    let to = std::net::SocketAddr::new(host((n + k * k * 7) % HOSTS), 1000);
                    let mut conn = node.transport.dial(to).await.unwrap().into_stream().unwrap();
                    for size in [10, 1000, 100] {
                        let mut got = vec![0; size];
                        conn.write.write_all(&vec![3; size]).await.unwrap();
                        conn.read.read_exact(&mut got).await.unwrap();
                    }
                    *answered.lock().unwrap() += 1;
                    std::future::pending::<()>().await;
                });
            }
        }
        let all = || *answered.lock().unwrap() == HOSTS * EACH;
        world.until("every exchange is answered", Duration::from_secs(2), all).await?;
        assert_eq!(world.fabric().connections().len() as u32, HOSTS * EACH);
        Ok(())
    });
    println!("{}", report.unwrap_or_else(|failure| panic!("{failure}")));
}

fn failure_of(
    config: WorldConfig,
    scenario: impl AsyncFnOnce(&World) -> Result<(), String>,
) -> rookery_sim::Failure {
    let world = World::with("broken", 42, config);
    *world.run(scenario(&world)).expect_err("the scenario fails")
}

#[test]
fn a_failure_says_when_what_came_before_and_how_to_replay() {
    let failure = failure_of(WorldConfig::default(), async |world| {
        let node = world.node(host(1));
        node.env.trace("something", 5, 0, 0, "odd");
        world.until("pigs fly", Duration::from_secs(3), || false).await
    });
    assert_eq!((failure.seed, failure.at), (42, Duration::from_secs(3)));
    let text = failure.to_string();
    for part in ["pigs fly", "1 = 10.0.0.1", "something peer=5", "rookery sim broken --seed 42"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn a_broken_invariant_a_panic_and_a_scenario_without_end_are_found() {
    let invariant = failure_of(WorldConfig::default(), async |world| {
        let clock = world.clock();
        world.add_invariant("it is early", move || {
            if clock.elapsed() < Duration::from_secs(2) { Ok(()) } else { Err("it is late".to_owned()) }
        });
        std::future::pending().await
    });
    assert!(invariant.what.contains("it is early") && invariant.what.contains("it is late"), "{invariant}");
    assert_eq!(invariant.at, Duration::from_secs(2));

    let in_node = failure_of(WorldConfig::default(), async |world| {
        let scope = world.node(host(1)).env.scope;
        scope.child("peer").spawn("routine", OnPanic::EndScope, async { panic!("boom") });
        world.pass(Duration::from_secs(1)).await;
        Ok(())
    });
    assert!(in_node.what.contains("node 1") && in_node.what.contains("boom"), "{in_node}");

    let in_scenario = failure_of(WorldConfig::default(), async |_| panic!("lost the thread"));
    assert!(in_scenario.what.contains("lost the thread"), "{in_scenario}");

    let limit = Duration::from_secs(60);
    let endless =
        failure_of(WorldConfig { limit, ..WorldConfig::default() }, async |_| std::future::pending().await);
    assert_eq!(endless.at, limit);
}

#[test]
fn a_node_that_does_not_stop_or_keeps_a_connection_fails_the_scenario() {
    let stubborn = failure_of(WorldConfig::default(), async |world| {
        let scope = world.node(host(1)).env.scope;
        scope.spawn_to_end("stubborn", OnPanic::EndScope, std::future::pending());
        Ok(())
    });
    assert!(stubborn.what.contains("stubborn"), "{stubborn}");

    let kept = Mutex::new(None);
    let leak = failure_of(WorldConfig::default(), async |world| {
        let (a, b) = (world.node(host(1)), world.node(host(2)));
        echo(&b);
        world.pass(Duration::from_millis(1)).await;
        *kept.lock().unwrap() = Some(a.transport.dial(b.at(1000)).await.map_err(|error| error.to_string())?);
        Ok(())
    });
    assert!(leak.what.contains("10.0.0.2:1000"), "{leak}");
    drop(kept);
}

#[test]
fn a_crashed_node_says_nothing_and_its_host_can_start_another() {
    use rookery_sim::fabric::Down;
    let world = World::new("crash", 3);
    let report = world.run(async {
        let (a, b) = (world.node(host(1)), world.node_with_skew(host(2), -3600));
        assert_eq!(a.env.clock.unix() - b.env.clock.unix(), 3600);
        echo(&b);
        world.pass(Duration::from_millis(1)).await;
        let mut conn =
            a.transport.dial(b.at(1000)).await.map_err(|error| error.to_string())?.into_stream().unwrap();
        world.pass(Duration::from_secs(1)).await;
        world.crash(&b, Down::Silent).await?;
        let heard = world.clock().timeout(Duration::from_secs(600), conn.read.read(&mut [0; 9])).await;
        assert!(heard.is_none(), "a silent crash sends neither FIN nor reset: {heard:?}");
        world.fabric().up(b.ip);
        let again = world.node(b.ip);
        echo(&again);
        world.pass(Duration::from_millis(1)).await;
        let mut conn =
            a.transport.dial(again.at(1000)).await.map_err(|error| error.to_string())?.into_stream().unwrap();
        conn.write.write_all(b"back?").await.map_err(|error| error.to_string())?;
        let mut got = [0; 5];
        conn.read.read_exact(&mut got).await.map_err(|error| error.to_string())?;
        assert_eq!(again.number, 3);
        Ok(())
    });
    report.unwrap_or_else(|failure| panic!("{failure}"));
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn dumped_traces_show_where_two_seeds_part() {
    let dump = |seed| {
        let (world, out) = (World::new("dump", seed), Shared::default());
        world.auditor().dump_to(out.clone());
        // The world's clock stands still until the run begins, whoever acts before it.
        world.fabric().heal();
        world.node(host(3)).env.trace("before", 0, 0, 0, "");
        let run = world.run(async {
            let (a, b) = (world.node(host(1)), world.node(host(2)));
            echo(&b);
            world.pass(Duration::from_millis(1)).await;
            let dialled = a.transport.dial(b.at(1000)).await;
            world.pass(Duration::from_secs(1)).await;
            dialled.map(drop).map_err(|error| error.to_string())
        });
        run.unwrap_or_else(|failure| panic!("{failure}"));
        out.0.lock().unwrap().clone()
    };
    assert_eq!(first_difference(&*dump(1), &*dump(1)).unwrap(), None);
    let parted = first_difference(&*dump(1), &*dump(2)).unwrap().expect("jitter differs");
    assert!(parted.left.unwrap().contains("net_open"), "what comes before does not depend on the seed");
}
