//! Our QUIC transport with nothing above it: no admission, engine or overlay. What it asks for beyond the floor is the price
//! of its seams (streams and connections behind `dyn`, tasks in a scope); what the whole asks for beyond it is the accept
//! path's and the network's.

use std::net::SocketAddr;
use std::sync::Arc;

use aws_lc_rs::rand;
use rookery_base::PeerId;
use rookery_runtime::{Env, OnPanic};
use rookery_transport::quic::{Quic, QuicLimits, Udp};
use rookery_transport::tls::{self, Identity, KeyHashes, Trust};
use rookery_transport::{Arrival, Conn, Listener, MuxConn, MuxStream, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Attempt, Held, Serving};
use crate::storm::exchange::{Answered, MAX_ANSWER, REQUEST, answer, check, request};
use crate::storm::{Keys, Outcome, Plan, SERVER};

/// The application of both ends.
const ALPN: &[u8] = b"storm";

/// Listens.
pub async fn serve(plan: &Plan, answered: Arc<Answered>) -> Outcome<Serving> {
    let env = Env::system();
    // A thread helps to read the server's socket where its receive buffer is not enlarged, as it does where the kernel does not
    // allow it.
    let (identity, quic) = node(&env, plan, Udp::HELPED)?;
    let door = quic.listen(SERVER).await.map_err(said)?;
    let invitation = format!("{}/{}", door.local_addr(), identity.peer_id());
    env.scope.spawn("accept", OnPanic::StopNode, accept(env.clone(), door, answered));
    Ok(Serving::new(invitation, (env, quic)))
}

async fn accept(env: Env, mut door: Box<dyn Listener>, answered: Arc<Answered>) {
    while let Ok(arrival) = door.accept().await {
        let answered = Arc::clone(&answered);
        env.scope.spawn("peer", OnPanic::StopNode, async move {
            // A connection that fails is a peer that is not counted, and its own side says why.
            if let Ok(connection) = attend(arrival, &answered).await {
                connection.mux.closed().await;
            }
        });
    }
}

/// Verifies and answers one peer.
async fn attend(arrival: Arrival, answered: &Answered) -> Outcome<MuxConn> {
    let connection = mux(arrival.connect().await.map_err(said)?)?;
    let identity = proved(&connection)?.as_bytes().to_vec();
    let MuxStream { mut read, mut write } = connection.mux.accept().await.map_err(said)?;
    let mut asked = [0; REQUEST];
    read.read_exact(&mut asked).await.map_err(said)?;
    write.write_all(&answer(&asked, &identity)).await.map_err(said)?;
    write.shutdown().await.map_err(said)?;
    answered.note(identity);
    Ok(connection)
}

/// Makes the peers: surroundings, keys and a bound transport each.
pub async fn peers(plan: &Plan, invitation: &str) -> Outcome<Vec<Attempt>> {
    let (address, server) = invitation.split_once('/').ok_or("an invitation is ADDRESS/IDENTITY")?;
    let address = address.parse::<SocketAddr>().map_err(said)?;
    let mut peers = Vec::with_capacity(plan.peers);
    for number in 0..plan.peers {
        let env = Env::system();
        let (identity, quic) = node(&env, plan, Udp::AS_THEY_ARE)?;
        // A transport dials from the socket that it listens on.
        let door = quic.listen(plan.source(number)).await.map_err(said)?;
        let peer = Peer { number, own: identity.peer_id(), server: server.to_owned(), address };
        peers.push(Box::pin(async move {
            let connection = peer.ask(&quic).await?;
            Ok(Box::new((env, quic, door, connection)) as Held)
        }) as Attempt);
    }
    Ok(peers)
}

/// One peer, and whom it asks.
struct Peer {
    number: usize,
    own: PeerId,
    server: String,
    address: SocketAddr,
}

impl Peer {
    async fn ask(&self, quic: &Quic) -> Outcome<MuxConn> {
        let connection = mux(quic.dial(self.address).await.map_err(said)?)?;
        let found = proved(&connection)?.to_string();
        if found != self.server {
            return Err(format!("{found} answers in place of {}", self.server));
        }
        let MuxStream { read, mut write } = connection.mux.open().await.map_err(said)?;
        write.write_all(&request(self.number)).await.map_err(said)?;
        write.shutdown().await.map_err(said)?;
        let mut got = Vec::new();
        read.take(MAX_ANSWER as u64).read_to_end(&mut got).await.map_err(said)?;
        check(self.number, self.own.as_bytes(), &got)?;
        Ok(connection)
    }
}

fn node(env: &Env, plan: &Plan, default: Udp) -> Outcome<(Identity, Quic)> {
    let keys = match plan.keys {
        Keys::MlDsa65 => tls::Keys::PostQuantum,
        Keys::Ed25519 => tls::Keys::Classic,
    };
    let mut seed = [0; 32];
    rand::fill(&mut seed).map_err(|_| "the machine has no randomness")?;
    let identity = Identity::from_seed(&seed, keys).map_err(said)?;
    let secured = identity.tls(ALPN, Trust::Both).map_err(said)?;
    let datagrams = if plan.default_buffers { default } else { Udp::LARGE };
    let quic = Quic::start(env, secured, &seed, QuicLimits::DEFAULT, Arc::new(datagrams)).map_err(said)?;
    Ok((identity, quic))
}

fn mux(connection: Conn) -> Outcome<MuxConn> {
    match connection {
        Conn::Mux(connection) => Ok(connection),
        Conn::Stream(_) => Err("QUIC gave a connection without streams".into()),
    }
}

/// The identity that the other end has proved: its one key's.
fn proved(connection: &MuxConn) -> Outcome<PeerId> {
    let hashes = KeyHashes::of(&connection.proof, [0; 32]);
    hashes
        .map(|hashes| hashes.peer_id())
        .ok_or_else(|| "the peer proved a key of no kind that we know".into())
}

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}
