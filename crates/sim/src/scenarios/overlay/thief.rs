//! Somebody in the middle: who forwards datagrams, who replays them, and who stands between two nodes in his own name.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use quinn::AsyncUdpSocket;
use quinn::udp::Transmit;
use rookery_runtime::OnPanic;
use rookery_transport::{MuxStream, Transport};

use super::overlay_world::{GHOST_WITHIN, OverlayWorld, PORT, Seated};
use super::rogue::{Rogue, datagram};
use crate::chainworld::host;
use crate::datagram::SimUdp;
use crate::fabric::Link;
use crate::scenarios::Scenario;
use crate::world::{Failure, Report, WorldConfig};

pub(in crate::scenarios) const SCENARIO: Scenario = Scenario {
    name: "overlay-thief",
    about: "handshakes are forwarded, replayed and relayed under another name: nobody becomes somebody else",
    run,
};

const SERVER: u32 = 0;
const VICTIM: u32 = 1;
const FORWARDER: u32 = 1000;
const RELAY: u32 = 1001;
const STRANGER: u32 = 1002;
/// A connection that has ended is forgotten after three probe timeouts (RFC 9000, 10.2), of a fifth of a second here at most.
const FORGOTTEN_WITHIN: Duration = Duration::from_secs(2);
/// A replayed handshake is over by its deadlines: QUIC's and the hello's.
const OVER_WITHIN: Duration = Duration::from_secs(30);

type Recorded = Arc<Mutex<Vec<Bytes>>>;

fn send(socket: &SimUdp, to: SocketAddr, bytes: &[u8]) {
    let transmit = Transmit { destination: to, ecn: None, contents: bytes, segment_size: None, src_ip: None };
    // The simulated socket takes everything.
    let _ = socket.try_send(&transmit);
}

/// Forwards datagrams between whoever sends to its front and the server, and keeps what goes to the server.
fn forward(ow: &OverlayWorld, server: SocketAddr) -> Result<(SocketAddr, SocketAddr, Recorded), String> {
    let node = ow.world.node(host(FORWARDER));
    let bind = |port| {
        let socket = ow.world.fabric().datagrams(node.ip).socket(node.at(port));
        socket.map_err(|error| error.to_string())
    };
    let (front, back) = (bind(PORT)?, bind(PORT + 1)?);
    let recorded = Recorded::default();
    let kept = Arc::clone(&recorded);
    node.env.scope.spawn("forwarder", OnPanic::StopNode, async move {
        let mut client = None;
        loop {
            tokio::select! {
                biased;
                Some((from, bytes)) = datagram(&front) => {
                    client = Some(from);
                    send(&back, server, &bytes);
                    kept.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
                }
                Some((_, bytes)) = datagram(&back) => if let Some(client) = client {
                    send(&front, client, &bytes);
                },
            }
        }
    });
    Ok((node.at(PORT), node.at(PORT + 1), recorded))
}

/// Takes connections in its own name, and carries what is said on stream 0 to the server and back.
pub(super) async fn relay(rogue: &Rogue, server: SocketAddr) -> Result<(), String> {
    let mut door = rogue.quic.listen(rogue.node.at(PORT)).await.map_err(|error| error.to_string())?;
    let (rogue, scope) = (rogue.clone(), rogue.node.env.scope.clone());
    scope.clone().spawn("relay", OnPanic::StopNode, async move {
        while let Ok(arrival) = door.accept().await {
            let quic = rogue.quic.clone();
            scope.spawn("between", OnPanic::StopNode, async move {
                // Either side may end it; then both have.
                let (Ok(client), Ok(server)) = (arrival.connect().await, quic.dial(server).await) else {
                    return;
                };
                let (Ok(client), Ok(server)) = (client.into_mux(), server.into_mux()) else { return };
                let (Ok(theirs), Ok(ours)) = (client.mux.accept().await, server.mux.open().await) else {
                    return;
                };
                let MuxStream { read: mut from_client, write: mut to_client } = theirs;
                let MuxStream { read: mut from_server, write: mut to_server } = ours;
                let _ = tokio::join!(
                    tokio::io::copy(&mut from_client, &mut to_server),
                    tokio::io::copy(&mut from_server, &mut to_client),
                );
            });
        }
    });
    Ok(())
}

fn live(server: &Seated) -> u64 {
    server.handle.engine().accounts().live
}

/// Has a victim shake hands with the server through a forwarder, and leave: from where the forwarder has spoken, and what it
/// has heard. Forwarded datagrams are a longer line: the session is with the server itself, and nobody on the way can use it.
pub(super) async fn record(
    ow: &OverlayWorld,
    server: &Seated,
    server_seat: u32,
    victim_seat: u32,
) -> Result<(SocketAddr, Vec<Bytes>), String> {
    let (front, back, recorded) = forward(ow, server.addr())?;
    let victim = ow.start(victim_seat, |builder| builder).await?;
    let reached = victim.connect(front).await?;
    if reached != server.id() {
        return Err(format!("reached {reached} through a forwarder, {} expected", server.id()));
    }
    victim.talk(server.id()).await?;
    ow.one_session(server_seat, victim_seat)?;
    drop(victim);
    ow.stop(victim_seat).await?;
    ow.world.until("the session ends", GHOST_WITHIN, || live(server) == 0).await?;
    let said = std::mem::take(&mut *recorded.lock().unwrap_or_else(PoisonError::into_inner));
    Ok((back, said))
}

async fn replay(
    ow: &OverlayWorld,
    server: &Seated,
    back: SocketAddr,
    recorded: &[Bytes],
) -> Result<(), String> {
    let sessions = |server: &Seated| -> u64 { server.handle.engine().accounts().ended.values().sum() };
    let (ended, arrived) = (sessions(server), server.handle.engine().accounts().arrived);
    for from in [back, (host(STRANGER), PORT).into()] {
        for bytes in recorded {
            ow.world.fabric().forge(from, server.addr(), bytes.clone());
            ow.world.pass(Duration::from_millis(5)).await;
        }
    }
    let accounts = || server.handle.engine().accounts();
    if accounts().arrived == arrived {
        return Err("nothing of the replay arrived as a handshake: it has shown nothing".into());
    }
    ow.world.until("replayed handshakes end", OVER_WITHIN, || accounts().shaking == 0).await?;
    if live(server) != 0 || sessions(server) != ended {
        return Err(format!("a replayed handshake became a session: {:?}", accounts()));
    }
    ow.world.say(format!("{} datagrams replayed from two addresses: {:?}", recorded.len(), accounts()));
    Ok(())
}

fn run(seed: u64) -> Result<Report, Box<Failure>> {
    let ow = OverlayWorld::new(SCENARIO.name, seed, WorldConfig::default());
    ow.run(async {
        let link = Link::new(Duration::from_millis(20)).with_jitter(Duration::from_millis(10));
        ow.world.fabric().set_default_link(link);
        let server = ow.start(SERVER, |builder| builder).await?;

        let (back, recorded) = record(&ow, &server, SERVER, VICTIM).await?;
        // Until QUIC has forgotten the connection, what is sent again goes to it and not to the door.
        ow.world.pass(FORGOTTEN_WITHIN).await;
        replay(&ow, &server, back, &recorded).await?;

        // In the middle with a key of one's own, one is oneself to both: a hello names the keys of its sender, and what is
        // carried over names those of somebody else.
        let rogue = Rogue::new(&ow, RELAY)?;
        relay(&rogue, server.addr()).await?;
        let victim = ow.start(VICTIM, |builder| builder).await?;
        let reached = victim.connect(rogue.node.at(PORT)).await;
        let (at_victim, at_server) = (ow.sessions(VICTIM), ow.sessions(SERVER));
        if reached.is_ok() || !at_victim.is_empty() || !at_server.is_empty() {
            return Err(format!(
                "a relay passed for another: {at_victim:?} at the victim, {at_server:?} at the server"
            ));
        }
        let refused = server.handle.engine().accounts().refused;
        if !refused.contains_key("bad_handshake") {
            return Err(format!("the relay did not reach the server, it has shown nothing: {refused:?}"));
        }
        ow.world.say("what a relay carries over is believed by neither side");
        Ok(())
    })
}
