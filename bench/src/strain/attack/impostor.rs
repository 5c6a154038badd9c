//! Attackers who want to be taken for somebody else. Nobody may take them for that: what they gain fails the attack.
//!
//! | who | what it does |
//! |---|---|
//! | thief | proves its own key, and says hello with the keys of an honest peer that is connected |
//! | relay | lets honest peers dial it for the server, dials the server, and carries what each says to the other |
//! | twins | connect under one identity from ever new hosts, each a process of its own as far as the server can know |
//! | replayer | forwards the datagrams of an honest peer, and says them again from elsewhere when that peer has gone |
//!
//! Each tells what it has `gained` as far as it can see that, and how many `sessions` its honest peers had: more than these
//! the server may not have had.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rookery_base::CloseCause;
use rookery_runtime::Clock;
use rookery_transport::quic::Udp;
use rookery_transport::tls::Identity;
use rookery_transport::{Arrival, Closed, MuxConn, MuxStream, Quic, Transport, cause_of};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use super::super::peers::{Ending, Peer, Server, identity};
use super::super::{LOOPBACK, Outcome, said, source};
use super::raw::DATAGRAM;
use super::{flood, transport};

/// The last octet of the addresses that they come from, in the first round.
const IMPOSTORS: u8 = 7;
/// What a server has for its answer to an impostor, and an honest peer for finding out that it speaks to one.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// For the goodbyes of honest peers to be heard.
const GOODBYE: Duration = Duration::from_millis(500);

/// Twins that are there at a time, all but one of them without a session.
const TWINS: usize = 4;

/// Seconds that one of them needs at least.
pub const LEAST: u64 = 4;

/// Acts evenly over the time of an attack, but for its end, in which what is under way may end.
struct Pace {
    clock: Clock,
    acts: usize,
    over: Duration,
}

impl Pace {
    /// Waits for the turn of this act; whether it is still to be.
    async fn due(&self, act: usize) -> bool {
        let time = self.over.saturating_sub(ANSWER_WITHIN + GOODBYE);
        let at = time.mul_f64(act as f64 / self.acts as f64);
        self.clock.sleep(at.saturating_sub(self.clock.elapsed())).await;
        act < self.acts && self.clock.elapsed() < time
    }

    /// Waits until the time is over.
    async fn out(&self) {
        self.clock.sleep(self.over.saturating_sub(self.clock.elapsed())).await;
    }

    /// An honest peer that is connected to the server, at this address of it; none when nobody answers there.
    async fn honest(&self, to: &Server) -> Outcome<Option<Peer>> {
        self.clock.timeout(self.over, Peer::connect(identity()?, LOOPBACK, to)).await.transpose()
    }

    /// What is told when the server was never reached.
    fn nothing(&self) -> Value {
        json!({ "acts": self.acts, "gained": 0, "sessions": 0 })
    }
}

fn pace(acts: usize, over: Duration) -> Pace {
    Pace { clock: Clock::system(), acts, over }
}

/// Says hello with an honest peer's keys, again and again.
pub async fn thief(acts: usize, to: &Server, over: Duration, round: u8) -> Outcome<Value> {
    let pace = pace(acts, over);
    let own = identity()?;
    let (_env, quic) = transport(&own, Arc::new(Udp::AS_THEY_ARE))?;
    let _door = quic.listen(source(0, IMPOSTORS + round)).await.map_err(said)?;
    let Some(victim) = pace.honest(to).await? else { return Ok(pace.nothing()) };
    let (mut act, mut told) = (0, 0);
    while pace.due(act).await {
        let told_no = pace.clock.timeout(ANSWER_WITHIN, steal(&quic, victim.identity(), to.address)).await;
        told += usize::from(told_no == Some(true));
        act += 1;
    }
    let lost = victim.ask().await.is_err();
    victim.end(Ending::Closed);
    pace.clock.sleep(GOODBYE).await;
    pace.out().await;
    Ok(json!({
        "acts": act, "gained": usize::from(lost), "sessions": 1, "told_no": told, "victim_lost": lost,
    }))
}

/// Whether the server has ended it with a word of why, or not let it in at all.
async fn steal(quic: &Quic, victim: &Identity, to: SocketAddr) -> bool {
    let connected = async {
        let MuxConn { mux, .. } = quic.dial(to).await?.into_mux().map_err(std::io::Error::other)?;
        let mut stream = mux.open().await?;
        stream.write.write_all(&flood::hello(victim, to).encode()).await?;
        Ok::<_, std::io::Error>(mux.closed().await)
    };
    match connected.await {
        Ok(closed) => matches!(closed, Closed::ByPeer { .. }),
        Err(error) => matches!(cause_of(&error), CloseCause::ByPeer { .. }),
    }
}

/// Connects under one identity again and again. Each takes the session of the one before: at any time one of them has one.
pub async fn twins(acts: usize, to: &Server, over: Duration, round: u8) -> Outcome<Value> {
    let pace = pace(acts, over);
    let shared = identity()?;
    let (mut act, mut held) = (0, VecDeque::new());
    while pace.due(act).await {
        let twin = Peer::connect(shared.clone(), source(act, IMPOSTORS + round), to);
        // One that is not let in, or loses its session before it knows of it, is as good as one that does later.
        if let Some(Ok(twin)) = pace.clock.timeout(ANSWER_WITHIN, twin).await {
            held.push_back(twin);
        }
        if held.len() > TWINS {
            held.pop_front().into_iter().for_each(|twin: Peer| twin.end(Ending::Closed));
        }
        act += 1;
    }
    let mut answered = 0;
    for twin in held {
        let answer = pace.clock.timeout(ANSWER_WITHIN, twin.ask()).await;
        answered += usize::from(matches!(answer, Some(Ok(()))));
        twin.end(Ending::Closed);
    }
    pace.out().await;
    Ok(json!({
        "acts": act, "gained": answered.saturating_sub(1), "sessions": act, "answered_at_end": answered,
    }))
}

/// Stands between honest peers and the server.
pub async fn relay(acts: usize, to: &Server, over: Duration) -> Outcome<Value> {
    let pace = pace(acts, over);
    let own = identity()?;
    let (_env, quic) = transport(&own, Arc::new(Udp::AS_THEY_ARE))?;
    let mut door = quic.listen(LOOPBACK).await.map_err(said)?;
    let posing = to.at(door.local_addr());
    let between = async {
        let mut carried = JoinSet::new();
        while let Ok(arrival) = door.accept().await {
            carried.spawn(carry(arrival, quic.clone(), to.address));
            while carried.try_join_next().is_some() {}
        }
    };
    let dialling = async {
        let (mut act, mut dialled) = (0, JoinSet::new());
        while pace.due(act).await {
            dialled.spawn(is_fooled(identity()?, posing.clone(), pace.clock));
            act += 1;
        }
        let fooled = dialled.join_all().await;
        let gained = fooled.into_iter().filter(|fooled| *fooled).count();
        Ok::<_, String>(json!({ "acts": act, "gained": gained, "sessions": 0 }))
    };
    let done = tokio::select! {
        done = dialling => done?,
        () = between => return Err("a relay's door has closed".into()),
    };
    pace.out().await;
    Ok(done)
}

/// Whether an honest peer takes who answers there for the server.
async fn is_fooled(identity: Identity, posing: Server, clock: Clock) -> bool {
    match clock.timeout(ANSWER_WITHIN, Peer::connect(identity, LOOPBACK, &posing)).await {
        Some(Ok(fooled)) => {
            fooled.end(Ending::Closed);
            true
        }
        _ => false,
    }
}

/// Carries what one who has dialled the relay says to the server, and back.
async fn carry(arrival: Arrival, quic: Quic, to: SocketAddr) {
    let both = async {
        let (client, server) = (arrival.connect().await?, quic.dial(to).await?);
        let shape = std::io::Error::other;
        let (client, server) = (client.into_mux().map_err(shape)?, server.into_mux().map_err(shape)?);
        let MuxStream { read: mut from_client, write: mut to_client } = client.mux.accept().await?;
        let MuxStream { read: mut from_server, write: mut to_server } = server.mux.open().await?;
        tokio::try_join!(
            tokio::io::copy(&mut from_client, &mut to_server),
            tokio::io::copy(&mut from_server, &mut to_client),
        )
    };
    // Either side may end it; then both have.
    let _ = both.await;
}

/// Forwards an honest peer's datagrams, and says them again.
pub async fn replay(acts: usize, to: &Server, over: Duration, round: u8) -> Outcome<Value> {
    let pace = pace(acts, over);
    let bind = async |at: SocketAddr| UdpSocket::bind(at).await.map_err(said);
    let (front, back) = (bind(LOOPBACK).await?, bind(LOOPBACK).await?);
    let through = to.at(front.local_addr().map_err(said)?);
    let mut kept = Vec::new();
    let honest = async {
        let Some(peer) = pace.honest(&through).await? else { return Ok(false) };
        peer.ask().await?;
        peer.end(Ending::Closed);
        pace.clock.sleep(GOODBYE).await;
        Ok::<_, String>(true)
    };
    let reached = tokio::select! {
        reached = honest => reached?,
        failed = forward(&front, &back, to.address, &mut kept) => return Err(failed),
    };
    if !reached {
        return Ok(pace.nothing());
    }
    let mut act = 0;
    while pace.due(act).await {
        let socket = bind(source(act, IMPOSTORS + round)).await?;
        for datagram in &kept {
            socket.send_to(datagram, to.address).await.map_err(said)?;
        }
        act += 1;
    }
    pace.out().await;
    Ok(json!({ "acts": act, "gained": 0, "sessions": 1, "datagrams_each": kept.len() }))
}

/// Until it fails, with why.
async fn forward(front: &UdpSocket, back: &UdpSocket, server: SocketAddr, kept: &mut Vec<Vec<u8>>) -> String {
    let (mut there, mut back_again) = ([0; DATAGRAM], [0; DATAGRAM]);
    let mut client = None;
    loop {
        let sent = tokio::select! {
            heard = front.recv_from(&mut there) => match heard {
                Ok((len, from)) => {
                    client = Some(from);
                    kept.push(there[..len].to_vec());
                    back.send_to(&there[..len], server).await
                }
                Err(error) => Err(error),
            },
            heard = back.recv(&mut back_again) => match (heard, client) {
                (Ok(len), Some(client)) => front.send_to(&back_again[..len], client).await,
                (heard, _) => heard,
            },
        };
        if let Err(error) = sent {
            return said(error);
        }
    }
}
