//! A public node under attack: forged half-open handshakes, loiterers, and a peer that floods it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_util::future::try_join_all;
use rand::RngExt;
use rookery_engine::HandshakeLimits;

use super::overlay_world::{OverlayWorld, Seated, percentile};
use super::rogue::Rogue;
use crate::fabric::Link;
use crate::scenarios::Scenario;
use crate::world::{Failure, Report, WorldConfig};

pub(in crate::scenarios) const SCENARIO: Scenario = Scenario {
    name: "overlay-flood",
    about: "forged handshakes, loiterers and a flooding peer, all at once: honest peers get in and are heard",
    run,
};

const SERVER: u32 = 0;
/// Honest nodes that come before the attack, and during it.
const HONEST: u32 = 12;
/// Where rogues sit.
const FORGER: u32 = 1000;
const FLOODER: u32 = 1001;
const LOITERERS: std::ops::Range<u32> = 1100..1160;
/// First flights that are sent again and again, from ever new addresses.
const FLIGHTS: usize = 300;
/// How long the attack lasts: longer than a connection may take to come about, so that forged ones meet their deadline.
const ATTACK: Duration = Duration::from_secs(15);
/// Who says no hello has half a minute for it, and the attack has lasted a part of that.
const THROWN_OUT_WITHIN: Duration = Duration::from_secs(30);
/// Forged first flights in a second: above the low-water mark of handshakes within half of one.
const FORGED: u32 = 600;
/// They come in so many bursts a second, as steps of the world are a few milliseconds.
const BURSTS: u32 = 200;
/// The flooder sends a hundred times the messages that a peer may: 10,000 in a second.
const FLOOD: u64 = 100;
/// Messages in a second that the server takes of one peer, and at once.
const TAKEN: (u64, u64) = (100, 200);
/// During the attack a stranger has to prove its address first, which is one round trip more than three.
const SLOWER_AT_MOST: u32 = 2;

/// Honest nodes come one after the other within this time; how long each took to be heard.
pub(super) async fn arrive(
    ow: &OverlayWorld,
    server: &Seated,
    seats: std::ops::Range<u32>,
    within: Duration,
) -> Result<Vec<Duration>, String> {
    let (clock, count) = (ow.world.clock(), seats.len() as u32);
    let first = seats.start;
    let each = async |seat: u32| {
        ow.world.pass(within / count * (seat - first)).await;
        let node = ow.start(seat, |builder| builder).await?;
        let began = clock.now();
        let peer = node.connect(server.addr()).await?;
        node.talk(peer).await?;
        let took = clock.now() - began;
        server.talk(node.id()).await?;
        Ok::<_, String>(took)
    };
    let mut took = try_join_all(seats.map(each)).await?;
    took.sort();
    Ok(took)
}

/// Sends so many first flights a second, a multiple of 200, from addresses that nobody has, for so long.
pub(super) async fn forge(
    ow: &OverlayWorld,
    to: SocketAddr,
    flights: &[Vec<bytes::Bytes>],
    per_second: u32,
    lasts: Duration,
) -> Result<(), String> {
    let mut rng = ow.world.rng("forger", 0);
    let end = ow.world.clock().now() + lasts;
    while ow.world.clock().now() < end {
        for _ in 0..per_second / BURSTS {
            let [_, a, b, c] = rng.random::<[u8; 4]>();
            let from = SocketAddr::new(Ipv4Addr::new(100, a, b, c).into(), rng.random_range(1024..=u16::MAX));
            for datagram in &flights[rng.random_range(0..flights.len())] {
                ow.world.fabric().forge(from, to, datagram.clone());
            }
        }
        ow.world.pass(Duration::from_secs(1) / BURSTS).await;
    }
    Ok(())
}

/// Checks at every step that the handshakes under way at this node are as many as its limits allow, and may hold no more bytes.
pub(super) fn limit_handshakes(ow: &OverlayWorld, server: &Seated, limits: HandshakeLimits) {
    let watched = server.handle.engine().clone();
    ow.world.add_invariant("handshakes stay below their limit", move || {
        let shaking = watched.accounts().shaking as usize;
        if shaking <= limits.total && shaking * limits.bytes_each <= limits.bytes {
            return Ok(());
        }
        Err(format!("{shaking} under way, {} and {} bytes are the most", limits.total, limits.bytes))
    });
}

fn run(seed: u64) -> Result<Report, Box<Failure>> {
    let ow = OverlayWorld::new(SCENARIO.name, seed, WorldConfig::default());
    ow.run(async {
        let link = Link::new(Duration::from_millis(20)).with_jitter(Duration::from_millis(10));
        ow.world.fabric().set_default_link(link);
        let server = ow.start(SERVER, |builder| builder).await?;
        limit_handshakes(&ow, &server, HandshakeLimits::PUBLIC);
        let calm = arrive(&ow, &server, 1..1 + HONEST, Duration::from_secs(5)).await?;

        let flights = Rogue::new(&ow, FORGER)?.first_flights(&ow, FLIGHTS).await?;
        let flooder = Rogue::new(&ow, FLOODER)?;
        let (heard_before, honest_before) = (server.heard.load(Relaxed), u64::from(HONEST));
        if heard_before != honest_before {
            return Err(format!("the server heard {heard_before} messages, {honest_before} were sent"));
        }
        flooder.flood(server.addr(), FLOOD);
        for seat in LOITERERS {
            Rogue::new(&ow, seat)?.loiter(server.addr());
        }
        let newcomers = async {
            // Once the attack has everything that it can get.
            ow.world.pass(Duration::from_secs(2)).await;
            arrive(&ow, &server, 1 + HONEST..1 + 2 * HONEST, ATTACK - Duration::from_secs(4)).await
        };
        let ((), attacked) =
            futures_util::try_join!(forge(&ow, server.addr(), &flights, FORGED, ATTACK), newcomers)?;

        // Who was there before is still there, and is heard.
        for seat in 1..1 + 2 * HONEST {
            ow.one_session(SERVER, seat)?;
        }
        let flooded = server.heard.load(Relaxed) - 2 * u64::from(HONEST);
        let taken = TAKEN.1 + TAKEN.0 * (ATTACK.as_secs() + 1);
        if flooded == 0 || flooded > taken {
            return Err(format!("{flooded} messages of the flooder were taken, 1 to {taken} expected"));
        }
        let (before, during) = (percentile(&calm, 100), percentile(&attacked, 100));
        ow.world.say(format!(
            "connected and heard within {before:?} in peace, {during:?} under attack (slowest)"
        ));
        if during > SLOWER_AT_MOST * before {
            return Err(format!("honest peers wait {during:?} under attack, {before:?} in peace"));
        }
        let accounts = || server.handle.engine().accounts();
        let refused = |why: &str| accounts().refused.get(why).copied().unwrap_or(0);
        let thrown_out = || refused("handshake_timeout") > 0;
        ow.world.until("loiterers are thrown out", THROWN_OUT_WITHIN, thrown_out).await?;
        ow.world
            .say(format!("the flooder was heard {flooded} times; the server's accounts: {:?}", accounts()));
        if accounts().retried == 0 || refused("connect_timeout") == 0 {
            return Err(format!("the forged handshakes have not met the limits: {:?}", accounts()));
        }
        Ok(())
    })
}
