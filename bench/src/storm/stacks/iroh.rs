//! iroh 1.4 on loopback: no relays, no address look-up, no port mapping. What remains is its QUIC with raw Ed25519 keys,
//! its default cryptography (ring, X25519) and its per-peer bookkeeping. It asks for receive buffers itself.

use std::net::SocketAddr;
use std::sync::Arc;

use iroh::endpoint::{Connection, Incoming, presets};
use iroh::{Endpoint, EndpointAddr, EndpointId};
use tokio::task::JoinSet;

use super::{Attempt, Held, Serving};
use crate::storm::exchange::{Answered, MAX_ANSWER, REQUEST, answer, check, request};
use crate::storm::{Outcome, Plan, SERVER};

/// The application of both ends.
const ALPN: &[u8] = b"storm";

/// Listens.
pub async fn serve(answered: Arc<Answered>) -> Outcome<Serving> {
    let endpoint = endpoint(SERVER).await?;
    let address = *endpoint.bound_sockets().first().ok_or("an endpoint without a socket")?;
    let invitation = format!("{address}/{}", endpoint.id());
    let mut tasks = JoinSet::new();
    tasks.spawn(accept(endpoint, answered));
    Ok(Serving::new(invitation, tasks))
}

async fn accept(endpoint: Endpoint, answered: Arc<Answered>) {
    let mut tasks = JoinSet::new();
    while let Some(incoming) = endpoint.accept().await {
        let answered = Arc::clone(&answered);
        tasks.spawn(async move {
            // A connection that fails is a peer that is not counted, and its own side says why.
            if let Ok(connection) = attend(incoming, &answered).await {
                connection.closed().await;
            }
        });
    }
}

/// Verifies and answers one peer.
async fn attend(incoming: Incoming, answered: &Answered) -> Outcome<Connection> {
    let connection = incoming.accept().map_err(said)?.await.map_err(said)?;
    let identity = connection.remote_id().as_bytes().to_vec();
    let (mut write, mut read) = connection.accept_bi().await.map_err(said)?;
    let asked = read.read_to_end(REQUEST).await.map_err(said)?;
    write.write_all(&answer(&asked, &identity)).await.map_err(said)?;
    write.finish().map_err(said)?;
    answered.note(identity);
    Ok(connection)
}

/// Makes the peers: an endpoint each.
pub async fn peers(plan: &Plan, invitation: &str) -> Outcome<Vec<Attempt>> {
    let (address, server) = invitation.split_once('/').ok_or("an invitation is ADDRESS/IDENTITY")?;
    let address = address.parse::<SocketAddr>().map_err(said)?;
    let server = EndpointAddr::new(server.parse::<EndpointId>().map_err(said)?).with_ip_addr(address);
    let mut peers = Vec::with_capacity(plan.peers);
    for number in 0..plan.peers {
        let endpoint = endpoint(plan.source(number)).await?;
        peers.push(Box::pin(ask(endpoint, server.clone(), number)) as Attempt);
    }
    Ok(peers)
}

async fn ask(endpoint: Endpoint, server: EndpointAddr, number: usize) -> Outcome<Held> {
    let connection = endpoint.connect(server, ALPN).await.map_err(said)?;
    let (mut write, mut read) = connection.open_bi().await.map_err(said)?;
    write.write_all(&request(number)).await.map_err(said)?;
    write.finish().map_err(said)?;
    let got = read.read_to_end(MAX_ANSWER).await.map_err(said)?;
    check(number, endpoint.id().as_bytes(), &got)?;
    Ok(Box::new((endpoint, connection)))
}

async fn endpoint(at: SocketAddr) -> Outcome<Endpoint> {
    let builder = Endpoint::builder(presets::Minimal).clear_ip_transports().clear_relay_transports();
    let builder = builder.alpns(vec![ALPN.to_vec()]).bind_addr(at).map_err(said)?;
    builder.bind().await.map_err(said)
}

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}
