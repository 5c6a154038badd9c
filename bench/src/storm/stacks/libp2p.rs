//! rust-libp2p 0.57: a swarm each with the request-response behaviour, over QUIC, or over TCP with Noise and Yamux.
//! Defaults everywhere, but for the times after which an idle connection and an unanswered request end: those are the
//! storm's.

use std::sync::Arc;

use libp2p::futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt};
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::request_response::{Behaviour, Codec, Config, Event, Message, ProtocolSupport};
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, noise, tcp, yamux};
use tokio::task::JoinSet;

use super::{Attempt, Held, Serving};
use crate::storm::exchange::{Answered, MAX_ANSWER, REQUEST, answer, check, request};
use crate::storm::{DEADLINE, Outcome, Plan, SERVER, Sources};

/// What a peer and the server speak.
const PROTOCOL: StreamProtocol = StreamProtocol::new("/storm/1");

/// What is below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    Quic,
    Tcp,
}

impl Over {
    fn address(self, at: std::net::SocketAddr) -> Multiaddr {
        let address = Multiaddr::from(at.ip());
        match self {
            Self::Quic => address.with(Protocol::Udp(at.port())).with(Protocol::QuicV1),
            Self::Tcp => address.with(Protocol::Tcp(at.port())),
        }
    }
}

/// Listens.
pub async fn serve(over: Over, answered: Arc<Answered>) -> Outcome<Serving> {
    let mut swarm = swarm(over)?;
    let address = listen(&mut swarm, over.address(SERVER)).await?;
    let invitation = address.with(Protocol::P2p(*swarm.local_peer_id())).to_string();
    let mut tasks = JoinSet::new();
    tasks.spawn(attend(swarm, answered));
    Ok(Serving::new(invitation, tasks))
}

async fn attend(mut swarm: Swarm<Behaviour<Exchange>>, answered: Arc<Answered>) {
    loop {
        let SwarmEvent::Behaviour(event) = swarm.select_next_some().await else { continue };
        match event {
            Event::Message { peer, message: Message::Request { request, channel, .. }, .. } => {
                // It gives the answer back when the peer has gone meanwhile: that peer is lost, and says so.
                let _ = swarm.behaviour_mut().send_response(channel, answer(&request, &peer.to_bytes()));
            }
            Event::ResponseSent { peer, .. } => answered.note(peer.to_bytes()),
            _ => {}
        }
    }
}

/// Makes the peers: a swarm each. Over QUIC, and where an address of its own is asked for, it listens: it then dials
/// from that socket, which is there before the storm.
pub async fn peers(over: Over, plan: &Plan, invitation: &str) -> Outcome<Vec<Attempt>> {
    let mut address = invitation.parse::<Multiaddr>().map_err(said)?;
    let Some(Protocol::P2p(server)) = address.pop() else {
        return Err("an invitation ends with a peer".into());
    };
    let mut peers = Vec::with_capacity(plan.peers);
    for number in 0..plan.peers {
        let mut swarm = swarm(over)?;
        if over == Over::Quic || plan.sources == Sources::Many {
            listen(&mut swarm, over.address(plan.source(number))).await?;
        }
        peers.push(Box::pin(ask(swarm, server, address.clone(), number)) as Attempt);
    }
    Ok(peers)
}

async fn ask(
    mut swarm: Swarm<Behaviour<Exchange>>,
    server: PeerId,
    address: Multiaddr,
    number: usize,
) -> Outcome<Held> {
    swarm.behaviour_mut().send_request_with_addresses(&server, request(number), vec![address]);
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::Behaviour(Event::Message { message: Message::Response { response, .. }, .. }) => {
                check(number, &swarm.local_peer_id().to_bytes(), &response)?;
                // Its connection is a task of its own and lives on unpolled.
                return Ok(Box::new(swarm));
            }
            SwarmEvent::Behaviour(Event::OutboundFailure { error, .. }) => return Err(said(error)),
            _ => {}
        }
    }
}

fn swarm(over: Over) -> Outcome<Swarm<Behaviour<Exchange>>> {
    let builder = SwarmBuilder::with_existing_identity(Keypair::generate_ed25519()).with_tokio();
    let config = Config::default().with_request_timeout(DEADLINE);
    let behaviour = |_: &Keypair| Behaviour::<Exchange>::new([(PROTOCOL, ProtocolSupport::Full)], config);
    // Longer than a storm lasts, so that connections are there when they are counted.
    let idle = |config: libp2p::swarm::Config| config.with_idle_connection_timeout(DEADLINE * 2);
    Ok(match over {
        Over::Quic => {
            let builder = builder.with_quic().with_behaviour(behaviour).map_err(said)?;
            builder.with_swarm_config(idle).build()
        }
        Over::Tcp => {
            let builder =
                builder.with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default);
            let builder = builder.map_err(said)?.with_behaviour(behaviour).map_err(said)?;
            builder.with_swarm_config(idle).build()
        }
    })
}

/// Listens and waits until it does, for the address that it has then.
async fn listen(swarm: &mut Swarm<Behaviour<Exchange>>, at: Multiaddr) -> Outcome<Multiaddr> {
    swarm.listen_on(at).map_err(said)?;
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::NewListenAddr { address, .. } => return Ok(address),
            SwarmEvent::ListenerClosed { reason, .. } => {
                return Err(format!("it does not listen: {reason:?}"));
            }
            _ => {}
        }
    }
}

/// Requests and answers as they are, ended by the stream's end.
#[derive(Debug, Clone, Default)]
struct Exchange;

impl Codec for Exchange {
    type Protocol = StreamProtocol;
    type Request = [u8; REQUEST];
    type Response = Vec<u8>;

    async fn read_request<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> std::io::Result<[u8; REQUEST]> {
        let mut request = [0; REQUEST];
        io.read_exact(&mut request).await?;
        Ok(request)
    }

    async fn read_response<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> std::io::Result<Vec<u8>> {
        let mut answer = Vec::new();
        io.take(MAX_ANSWER as u64).read_to_end(&mut answer).await?;
        Ok(answer)
    }

    async fn write_request<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        request: [u8; REQUEST],
    ) -> std::io::Result<()> {
        io.write_all(&request).await
    }

    async fn write_response<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        answer: Vec<u8>,
    ) -> std::io::Result<()> {
        io.write_all(&answer).await
    }
}

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}
