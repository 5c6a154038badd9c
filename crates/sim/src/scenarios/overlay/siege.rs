//! Attacks on one public node, each alone and all at once: forged addresses, slow and silent handshakes, a flooding peer, twins
//! under one name, replayed handshakes and somebody in the middle.
//!
//! ```text
//! seat            who                                              what it tries
//! 0               the server
//! 1 ..            honest nodes: half of them before the siege, half during it
//! 900             honest, before the siege, through the forwarder
//! 901             honest, dials the relay during the siege
//! 1000            forwarder, then replayer                         what 900 has said, again and again, also from elsewhere
//! 1010            forger                                           first flights from ever new addresses, never answered
//! 1011            flooder                                          a hundred times the messages that a peer may send
//! 1012            relay                                            to be the server to 901, and 901 to the server
//! 1100 ..         loiterers                                        prove a key, and never say hello
//! 2000 ..         twins                                            one identity: each takes the session of the one before
//! 10000 ..        slow ones                                        a line that carries one datagram a second
//! ```
//!
//! Honest nodes have to get in and be heard, all of them, and at most twice as slowly as before; what handshakes hold stays
//! below the limits at every step, and so do the invariants of every overlay world.

use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use rookery_base::PeerId;
use rookery_engine::{Accounts, HandshakeLimits};

use super::flood::{arrive, forge, limit_handshakes};
use super::overlay_world::{OverlayWorld, PORT, Seated, percentile};
use super::rogue::Rogue;
use super::thief;
use crate::chainworld::host;
use crate::fabric::Link;
use crate::scenarios::Scenario;
use crate::world::{Failure, Report, WorldConfig};

/// What is done to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attack {
    /// First flights from ever new addresses, never answered.
    HalfOpen,
    /// Handshakes of one datagram a second, and such as never say hello.
    Slow,
    /// A hundred times the messages that a peer may send.
    Flood,
    /// One identity from several hosts at once.
    Twins,
    /// An honest node's handshake, said again.
    Replay,
    /// Somebody between an honest node and the server, in his own name.
    Relay,
}

impl Attack {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::HalfOpen, Self::Slow, Self::Flood, Self::Twins, Self::Replay, Self::Relay];
}

pub(in crate::scenarios) const SCENARIO: Scenario = Scenario {
    name: "overlay-siege",
    about: "every attack at once on one node: honest peers all get in, are heard, and wait twice as long at most",
    run: |seed| siege(seed, Siege::SMALL),
};

/// Each attack on its own, in the order of [`Attack::ALL`].
pub(in crate::scenarios) const ALONE: [Scenario; Attack::ALL.len()] = [
    Scenario {
        name: "overlay-siege-half-open",
        about: "forged first flights from ever new addresses: honest peers get in, are heard, and wait twice as long at most",
        run: |seed| siege(seed, Siege { attacks: &[Attack::HalfOpen], ..Siege::SMALL }),
    },
    Scenario {
        name: "overlay-siege-slow",
        about: "handshakes of one datagram a second, and such as never say hello: honest peers get in, are heard, and wait twice as long at most",
        run: |seed| siege(seed, Siege { attacks: &[Attack::Slow], ..Siege::SMALL }),
    },
    Scenario {
        name: "overlay-siege-flood",
        about: "one peer that sends a hundred times what it may: honest peers get in, are heard, and wait twice as long at most",
        run: |seed| siege(seed, Siege { attacks: &[Attack::Flood], ..Siege::SMALL }),
    },
    Scenario {
        name: "overlay-siege-twins",
        about: "one identity from several hosts at once: honest peers get in, are heard, and wait twice as long at most",
        run: |seed| siege(seed, Siege { attacks: &[Attack::Twins], ..Siege::SMALL }),
    },
    Scenario {
        name: "overlay-siege-replay",
        about: "an honest node's handshake, said again from two addresses: honest peers get in, are heard, and wait twice as long at most",
        run: |seed| siege(seed, Siege { attacks: &[Attack::Replay], ..Siege::SMALL }),
    },
    Scenario {
        name: "overlay-siege-relay",
        about: "somebody between an honest node and the server: honest peers get in, are heard, and wait twice as long at most",
        run: |seed| siege(seed, Siege { attacks: &[Attack::Relay], ..Siege::SMALL }),
    },
];

/// How large it is.
#[derive(Debug, Clone, Copy)]
pub struct Siege {
    /// What is done at once.
    pub attacks: &'static [Attack],
    /// Honest nodes before it, and as many during it.
    pub honest: u32,
    /// Forged first flights in a second, a multiple of 200, each from an address of its own.
    pub forged: u32,
    /// Handshakes of one datagram a second.
    pub slow: u32,
    /// How long it lasts.
    pub lasts: Duration,
}

impl Siege {
    /// As the scenario has it.
    pub const SMALL: Self =
        Self { attacks: &Attack::ALL, honest: 6, forged: 400, slow: 40, lasts: Duration::from_secs(5) };
    /// A hundred thousand addresses and five thousand slow handshakes; as many honest nodes as a public node has slots for.
    pub const LARGE: Self =
        Self { honest: 25, forged: 10_000, slow: 5_000, lasts: Duration::from_secs(12), ..Self::SMALL };

    fn has(self, attack: Attack) -> bool {
        self.attacks.contains(&attack)
    }

    /// What it is called as a scenario.
    fn name(self) -> &'static str {
        let alone = Attack::ALL.iter().zip(&ALONE).find(|(attack, _)| self.attacks == [**attack]);
        alone.map_or(SCENARIO.name, |(_, scenario)| scenario.name)
    }
}

const SERVER: u32 = 0;
const RECORDED: u32 = 900;
const RELAYED: u32 = 901;
const FORGER: u32 = 1010;
const FLOODER: u32 = 1011;
const RELAY: u32 = 1012;
const LOITERERS: std::ops::Range<u32> = 1100..1110;
const TWINS: std::ops::Range<u32> = 2000..2004;
const SLOW: u32 = 10_000;
/// First flights that are sent again and again: more than may be under way before addresses have to be proven.
const FLIGHTS: usize = 300;
/// The flooder sends a hundred times the messages that a peer may: 10,000 in a second.
const FLOOD: u64 = 100;
/// The siege is at its worst by then: honest nodes come from here on, until as long before its end.
const UNDER_WAY: Duration = Duration::from_secs(1);
/// A line of one datagram a second: another one waits, and what comes then is lost.
const ONE_A_SECOND: Link = Link::new(Duration::from_millis(20)).with_bandwidth(1_250).with_window(2_500);
/// A stranger has to prove its address, which is one round trip more than the three of peace.
const SLOWER_AT_MOST: u32 = 2;

/// Says again what an honest node has said, until the siege is over, from where it was said and from elsewhere.
async fn replay(
    ow: &OverlayWorld,
    server: &Seated,
    (back, said): (SocketAddr, Vec<Bytes>),
    lasts: Duration,
) -> Result<(), String> {
    let (clock, began) = (ow.world.clock(), ow.world.clock().now());
    let from = [back, (host(FORGER), PORT).into()];
    let all = from.iter().flat_map(|from| said.iter().map(move |said| (*from, said.clone())));
    for (from, said) in all.cycle() {
        if clock.now().saturating_duration_since(began) >= lasts {
            break;
        }
        ow.world.fabric().forge(from, server.addr(), said);
        ow.world.pass(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// All but those whose part the scenario has to play itself.
fn besiege(ow: &OverlayWorld, plan: Siege, server: SocketAddr) -> Result<(), String> {
    if plan.has(Attack::Flood) {
        Rogue::new(ow, FLOODER)?.flood(server, FLOOD);
    }
    if plan.has(Attack::Twins) {
        for seat in TWINS {
            Rogue::named(ow, seat, TWINS.start)?.haunt(server);
        }
    }
    if plan.has(Attack::Slow) {
        for seat in LOITERERS {
            Rogue::new(ow, seat)?.loiter(server);
        }
        for seat in SLOW..SLOW + plan.slow {
            let slow = Rogue::new(ow, seat)?;
            ow.world.fabric().set_uplink(slow.node.ip, ONE_A_SECOND);
            slow.loiter(server);
        }
    }
    Ok(())
}

/// An honest node dials the relay. Whatever comes of it, neither it nor the server takes the relay for the other one.
async fn be_relayed(ow: &OverlayWorld, server: SocketAddr) -> Result<(), String> {
    let relay = Rogue::new(ow, RELAY)?;
    thief::relay(&relay, server).await?;
    ow.world.pass(UNDER_WAY).await;
    let victim = ow.start(RELAYED, |builder| builder).await?;
    let dial = victim.connect(relay.node.at(PORT));
    let reached = ow.world.clock().timeout(2 * UNDER_WAY, dial).await.and_then(Result::ok);
    let known: Vec<PeerId> = ow.sessions(RELAYED).into_iter().map(|(peer, _)| peer).collect();
    let fooled = ow.sessions(SERVER).into_iter().any(|(peer, _)| peer == victim.id());
    if fooled || reached.iter().chain(&known).any(|peer| *peer != relay.id) {
        return Err(format!("a relay passed for {reached:?} or {known:?}, or for the victim: {fooled}"));
    }
    Ok(())
}

/// Whether each attack has met what stops it; otherwise the siege has shown nothing of it.
fn all_were_stopped(
    plan: Siege,
    (accounts, before): (&Accounts, &Accounts),
    twins: usize,
    flooded: u64,
) -> Result<(), String> {
    let ended = |why: &str| accounts.ended.get(why).copied().unwrap_or(0);
    let arrived = accounts.arrived - before.arrived;
    for attack in plan.attacks {
        let met = match attack {
            Attack::HalfOpen => accounts.retried > 0,
            Attack::Slow => arrived >= u64::from(plan.slow),
            Attack::Flood => flooded > 0,
            Attack::Twins => ended("duplicate") > 0 && twins <= 1,
            Attack::Replay | Attack::Relay => arrived > u64::from(plan.honest),
        };
        if !met {
            return Err(format!(
                "{attack:?} was not met ({flooded} of a flood heard, {twins} twins live): {accounts:?}"
            ));
        }
    }
    Ok(())
}

/// Runs it.
///
/// # Errors
/// When an honest node does not get in, is not heard, or waits too long, or when the server holds more than it may.
pub fn siege(seed: u64, plan: Siege) -> Result<Report, Box<Failure>> {
    let ow = OverlayWorld::new(plan.name(), seed, WorldConfig::default());
    ow.run(async {
        let link = Link::new(Duration::from_millis(20)).with_jitter(Duration::from_millis(10));
        ow.world.fabric().set_default_link(link);
        let server = ow.start(SERVER, |builder| builder).await?;
        limit_handshakes(&ow, &server, HandshakeLimits::PUBLIC);
        let said = thief::record(&ow, &server, SERVER, RECORDED).await?;
        let arriving = plan.lasts.saturating_sub(2 * UNDER_WAY);
        let calm = arrive(&ow, &server, 1..1 + plan.honest, arriving).await?;
        let (heard_before, before) = (server.heard.load(Relaxed), server.handle.engine().accounts());

        besiege(&ow, plan, server.addr())?;
        let forged = async {
            if plan.has(Attack::HalfOpen) {
                let flights = Rogue::new(&ow, FORGER)?.first_flights(&ow, FLIGHTS).await?;
                forge(&ow, server.addr(), &flights, plan.forged, plan.lasts).await?;
            }
            Ok::<_, String>(())
        };
        let replayed = async {
            if plan.has(Attack::Replay) {
                replay(&ow, &server, said, plan.lasts).await?;
            }
            Ok(())
        };
        let relayed = async {
            if plan.has(Attack::Relay) {
                be_relayed(&ow, server.addr()).await?;
            }
            Ok(())
        };
        let newcomers = async {
            ow.world.pass(UNDER_WAY).await;
            arrive(&ow, &server, 1 + plan.honest..1 + 2 * plan.honest, arriving).await
        };
        let ((), (), (), attacked) = futures_util::try_join!(forged, replayed, relayed, newcomers)?;

        for seat in 1..1 + 2 * plan.honest {
            ow.one_session(SERVER, seat)?;
        }
        let twin = ow.identity(TWINS.start)?.peer_id();
        let twins = ow.sessions(SERVER).iter().filter(|(peer, _)| *peer == twin).count();
        let accounts = server.handle.engine().accounts();
        let flooded = server.heard.load(Relaxed) - heard_before - u64::from(plan.honest);
        all_were_stopped(plan, (&accounts, &before), twins, flooded)?;
        let (before, during) = (percentile(&calm, 99), percentile(&attacked, 99));
        ow.world.say(format!(
            "connected and heard within {before:?} in peace, {during:?} under siege (99 %); slowest {:?}, {:?}",
            percentile(&calm, 100),
            percentile(&attacked, 100),
        ));
        ow.world.say(format!("the flooder was heard {flooded} times; the server's accounts: {accounts:?}"));
        if during > SLOWER_AT_MOST * before {
            return Err(format!("honest peers wait {during:?} under siege, {before:?} in peace"));
        }
        Ok(())
    })
}
