//! litep2p 0.16 over QUIC with its request-response protocol. It opens the socket of a dial itself, when it dials, on
//! every interface: so a peer's socket is not there before the storm, and has no address of its own.

use std::sync::Arc;

use libp2p::futures::StreamExt;
use litep2p::config::ConfigBuilder;
use litep2p::crypto::ed25519::Keypair;
use litep2p::protocol::request_response::{
    ConfigBuilder as ProtocolBuilder, DialOptions, RequestResponseEvent, RequestResponseHandle,
};
use litep2p::transport::quic::config::Config as QuicConfig;
use litep2p::types::multiaddr::Multiaddr;
use litep2p::{Litep2p, PeerId, ProtocolName};
use tokio::task::JoinSet;

use super::{Attempt, Held, Serving};
use crate::storm::exchange::{Answered, MAX_ANSWER, answer, check, request};
use crate::storm::{DEADLINE, Outcome, Plan, SERVER};

/// What a peer and the server speak.
const PROTOCOL: &str = "/storm/1";

/// Listens.
pub fn serve(answered: Arc<Answered>) -> Outcome<Serving> {
    let at = format!("/ip4/{}/udp/{}/quic-v1", SERVER.ip(), SERVER.port());
    let (node, handle) = node(vec![at.parse().map_err(said)?])?;
    let invitation = node.listen_addresses().next().ok_or("a node without an address")?.to_string();
    let mut tasks = JoinSet::new();
    tasks.spawn(drive(node));
    tasks.spawn(attend(handle, answered));
    Ok(Serving::new(invitation, tasks))
}

async fn attend(mut handle: RequestResponseHandle, answered: Arc<Answered>) {
    while let Some(event) = handle.next().await {
        if let RequestResponseEvent::RequestReceived { peer, request_id, request, .. } = event {
            let identity = peer.to_bytes();
            handle.send_response(request_id, answer(&request, &identity));
            answered.note(identity);
        }
    }
}

/// Makes the peers: a node each.
pub fn peers(plan: &Plan, invitation: &str) -> Outcome<Vec<Attempt>> {
    let address = invitation.parse::<Multiaddr>().map_err(said)?;
    let server = PeerId::try_from_multiaddr(&address).ok_or("an invitation ends with a peer")?;
    let peer = |number| {
        let (mut node, handle) = node(Vec::new())?;
        node.add_known_address(server, std::iter::once(address.clone()));
        Ok(Box::pin(ask(node, handle, server, number)) as Attempt)
    };
    (0..plan.peers).map(peer).collect()
}

async fn ask(
    node: Litep2p,
    mut handle: RequestResponseHandle,
    server: PeerId,
    number: usize,
) -> Outcome<Held> {
    let identity = node.local_peer_id().to_bytes();
    let mut tasks = JoinSet::new();
    tasks.spawn(drive(node));
    let asked = handle.send_request(server, request(number).to_vec(), DialOptions::Dial).await;
    asked.map_err(|error| format!("{error:?}"))?;
    loop {
        match handle.next().await.ok_or("the node ended")? {
            RequestResponseEvent::ResponseReceived { response, .. } => {
                check(number, &identity, &response)?;
                return Ok(Box::new((tasks, handle)));
            }
            RequestResponseEvent::RequestFailed { error, .. } => return Err(format!("{error:?}")),
            RequestResponseEvent::RequestReceived { .. } => {}
        }
    }
}

/// A node makes progress only while somebody asks it for events.
async fn drive(mut node: Litep2p) {
    while node.next_event().await.is_some() {}
}

fn node(listen_addresses: Vec<Multiaddr>) -> Outcome<(Litep2p, RequestResponseHandle)> {
    let protocol = ProtocolBuilder::new(ProtocolName::from(PROTOCOL));
    let (protocol, handle) = protocol.with_max_size(MAX_ANSWER).with_timeout(DEADLINE).build();
    let config = ConfigBuilder::new()
        .with_keypair(Keypair::generate())
        .with_quic(QuicConfig { listen_addresses, ..QuicConfig::default() })
        .with_request_response_protocol(protocol)
        // Longer than a storm lasts, so that connections are there when they are counted.
        .with_keep_alive_timeout(DEADLINE * 2)
        .build();
    Ok((Litep2p::new(config).map_err(said)?, handle))
}

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}
