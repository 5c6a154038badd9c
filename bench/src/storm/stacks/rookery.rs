//! Ours: the overlay as applications have it, with everything that a node does about peers. The server is one node with a
//! request service; every peer is a node of its own with its own socket, and asks as any application would.
//!
//! Limits are those for private networks, since a storm's peers share an address or a network; the service answers as many at
//! once as there are peers.

use std::net::SocketAddr;
use std::sync::Arc;

use rookery_base::PeerId;
use rookery_engine::Accounts;
use rookery_overlay::services::requests::{AnswerWriter, Handler, Incoming, RequestError, ServiceLimits};
use rookery_overlay::wire::request::ServiceName;
use rookery_overlay::{Builder, Handle, Node};
use rookery_runtime::{BoxFuture, Env};
use rookery_transport::quic::Udp;
use rookery_transport::tls;
use tokio::task::JoinSet;

use super::{Attempt, Held, Serving};
use crate::storm::exchange::{Answered, MAX_ANSWER, REQUEST, answer, check, request};
use crate::storm::{DEADLINE, Keys, Outcome, Plan, SERVER};

/// The network of both ends.
const NETWORK: &str = "storm";

/// Listens.
pub async fn serve(plan: &Plan, answered: Arc<Answered>) -> Outcome<Serving> {
    let limits = ServiceLimits { at_once: plan.peers, most_body: REQUEST as u64, within: DEADLINE };
    let builder = builder(plan, SERVER).serve(service(), limits, Arc::new(Answers(answered)));
    // As `Builder::start` does for a node that listens, or what a clamped kernel leaves of it.
    let (node, handle) =
        start(builder, if plan.default_buffers { Udp::HELPED } else { Udp::LARGE.helped() }).await?;
    let address = *handle.listening().first().ok_or("a node that listens nowhere")?;
    let invitation = format!("{address}/{}", handle.id());
    let engine = handle.engine().clone();
    let accounts = Some(Box::new(move || engine.accounts()) as Box<dyn Fn() -> Accounts + Send>);
    Ok(Serving { invitation, accounts, _held: Box::new((follow(node), handle)) })
}

/// Answers every peer and notes it.
struct Answers(Arc<Answered>);

impl Handler for Answers {
    fn handle<'a>(
        &'a self,
        mut request: Incoming,
        to: &'a mut AnswerWriter,
    ) -> BoxFuture<'a, Result<(), RequestError>> {
        Box::pin(async move {
            let asked = request.body.all().await?;
            let identity = request.peer.facts.peer.as_bytes().to_vec();
            to.write(&answer(&asked, &identity)).await?;
            self.0.note(identity);
            Ok(())
        })
    }
}

/// Makes the peers: a node each.
pub async fn peers(plan: &Plan, invitation: &str) -> Outcome<Vec<Attempt>> {
    let (address, server) = invitation.split_once('/').ok_or("an invitation is ADDRESS/IDENTITY")?;
    let address = address.parse::<SocketAddr>().map_err(said)?;
    let mut peers = Vec::with_capacity(plan.peers);
    for number in 0..plan.peers {
        let udp = if plan.default_buffers { Udp::AS_THEY_ARE } else { Udp::LARGE };
        let (node, handle) = start(builder(plan, plan.source(number)), udp).await?;
        let server = server.to_owned();
        peers.push(Box::pin(async move {
            let session = handle.connect(vec![address]).await.map_err(said)?;
            ask(&handle, number, session.peer, &server).await?;
            Ok(Box::new((node, handle)) as Held)
        }) as Attempt);
    }
    Ok(peers)
}

async fn ask(handle: &Handle, number: usize, found: PeerId, server: &str) -> Outcome<()> {
    if found.to_string() != server {
        return Err(format!("{found} answers in place of {server}"));
    }
    let question = request(number);
    let answer = handle.request(found, service(), Vec::new(), &question, DEADLINE, MAX_ANSWER as u64).await;
    let (_, got) = answer.map_err(said)?;
    check(number, handle.id().as_bytes(), &got)
}

/// A node that knows nobody and dials nobody by itself.
fn builder(plan: &Plan, at: SocketAddr) -> Builder {
    let keys = match plan.keys {
        Keys::MlDsa65 => tls::Keys::PostQuantum,
        Keys::Ed25519 => tls::Keys::Classic,
    };
    Builder::new(NETWORK).keys(keys).local().outbound(0).listen(at)
}

async fn start(builder: Builder, udp: Udp) -> Outcome<(Node, Handle)> {
    builder.start_in(&Env::system(), Arc::new(udp)).await.map_err(said)
}

/// Takes the events of a node, as applications do.
fn follow(mut node: Node) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { while node.next().await.is_some() {} });
    tasks
}

fn service() -> ServiceName {
    ServiceName::new("storm").expect("five printable characters")
}

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}
