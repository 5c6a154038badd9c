//! One question to one peer, on the real handshake and framing, without a node.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use rookery_base::{CloseCause, Direction, Fault, Hash32, Kind, PeerFaultKind};
use rookery_engine::{Approach, Established};
use rookery_handshake::chain::HandshakeChain;
use rookery_handshake::handshake::Introduction;
use rookery_handshake::handshake::nonce::OwnNonces;
use rookery_handshake::params::Params;
use rookery_handshake::wire::{Locator, Packet, Services};
use rookery_runtime::Env;
use rookery_sync::Chain;
use rookery_transport::{Tcp, Transport};
use serde_json::json;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::exit::{Exit, Report};
use crate::node::view::ProbeAnswer;
use crate::node::{Probe, Question};
use crate::plug::resolve::resolve;

/// For a connection, and for the answer: hsd's own deadline for each step.
const STEP: Duration = Duration::from_secs(5);
/// A full `headers` answer of a busy full node takes a second or two.
const ANSWER: Duration = Duration::from_secs(15);
/// Packets of other kinds that are passed over while the answer is awaited: a node sends a handful after the
/// handshake.
const OTHERS: usize = 64;

pub(in crate::plug) async fn probe(env: &Env, probe: &Probe) -> Result<ProbeAnswer, Report> {
    let Some(params) = probe.network.handshake() else {
        return Err(Report::usage(format!("{} cannot be probed yet", probe.network))
            .hint("join it (rookery run) and look at the peer: rookery peers ADDRESS why"));
    };
    let address = if probe.address.parse::<std::net::IpAddr>().is_ok() || !probe.address.contains(':') {
        format!("{}:{}", probe.address, params.port)
    } else {
        probe.address.clone()
    };
    let addr = resolve(&address).await?;
    let silent = |what: &str| {
        Report::new(Exit::Unreachable, format!("{addr} {what}"))
            .hint("is it running, is the port right, and is it this network's?")
    };
    let dialled = env.clock.timeout(STEP, Tcp.dial(addr)).await;
    let conn = match dialled {
        None => return Err(silent("does not answer: no connection within 5 s")),
        Some(Err(error)) => return Err(silent(&format!("cannot be reached: {error}"))),
        Some(Ok(conn)) => conn,
    };
    let introduction = Introduction {
        params,
        services: Services::NONE,
        height: Arc::new(|| 0),
        nonces: OwnNonces::new(&env.rng),
    };
    let began = env.clock.now();
    let approach = Approach { conn, direction: Direction::Outbound, env: env.clone() };
    let established = introduction.shake(approach).await.map_err(|cause| not_shaken(addr, &cause))?;
    let mut talk = Talk::new(params, established);
    let facts = talk.established.facts.clone();
    let mut fields = vec![
        ("agent".to_owned(), json!(facts.agent)),
        ("version".to_owned(), json!(facts.version)),
        ("height".to_owned(), json!(facts.height)),
    ];
    let asked = env.clock.now();
    let answered = env.clock.timeout(ANSWER, talk.ask(probe.question)).await;
    let since = if probe.question == Question::Version { began } else { asked };
    let took_ms = env.clock.now().duration_since(since).as_secs_f64() * 1e3;
    let answer = match answered {
        None if probe.question == Question::Addrs => vec![("addresses".to_owned(), json!([]))],
        None => return Err(silent("shook hands, and then did not answer within 15 s")),
        Some(Err(why)) => return Err(silent(&why)),
        Some(Ok(answer)) => answer,
    };
    fields.extend(answer);
    if probe.question == Question::Version {
        fields.push(("services".to_owned(), json!(facts.caps.0)));
        fields.push(("clock_offset_seconds".to_owned(), json!(facts.time_offset)));
    }
    Ok(ProbeAnswer { address: addr.to_string(), took_ms, fields })
}

fn not_shaken(addr: std::net::SocketAddr, cause: &CloseCause) -> Report {
    let mismatch =
        matches!(cause, CloseCause::Fault(Fault::Peer(fault)) if fault.kind == PeerFaultKind::WrongNetwork);
    let exit = if mismatch { Exit::NetworkMismatch } else { Exit::Unreachable };
    Report::new(exit, format!("{addr} did not shake hands: {cause}"))
        .hint("a peer of another network closes at once, or answers with another magic")
}

/// A conversation after the handshake.
struct Talk {
    params: &'static Params,
    established: Established,
    buffer: BytesMut,
}

type Fields = Vec<(String, serde_json::Value)>;

impl Talk {
    fn new(params: &'static Params, mut established: Established) -> Self {
        let buffer = std::mem::take(&mut established.read_ahead);
        Self { params, established, buffer }
    }

    async fn ask(&mut self, question: Question) -> Result<Fields, String> {
        match question {
            Question::Version => Ok(Vec::new()),
            Question::Ping => self.ping().await,
            Question::Headers => self.headers().await,
            Question::Addrs => self.addrs().await,
        }
    }

    async fn ping(&mut self) -> Result<Fields, String> {
        let nonce = *b"rookping";
        self.send(&Packet::Ping(nonce)).await?;
        self.until(|packet| matches!(packet, Packet::Pong(back) if *back == nonce).then(Vec::new)).await
    }

    async fn headers(&mut self) -> Result<Fields, String> {
        let params = self.params;
        let locator = Locator { hashes: vec![params.genesis_hash], stop: Hash32::ZERO };
        self.send(&Packet::GetHeaders(locator)).await?;
        self.until(|packet| match packet {
            Packet::Headers(headers) => Some(describe(params, headers.raw())),
            _ => None,
        })
        .await
    }

    async fn addrs(&mut self) -> Result<Fields, String> {
        self.send(&Packet::GetAddr).await?;
        self.until(|packet| match packet {
            Packet::Addr(addrs) => {
                let shown = addrs.iter().filter_map(|addr| addr.socket_addr().map(|at| at.to_string()));
                let shown: Vec<String> = shown.collect();
                Some(vec![("count".to_owned(), json!(addrs.len())), ("addresses".to_owned(), json!(shown))])
            }
            _ => None,
        })
        .await
    }

    async fn send(&mut self, packet: &Packet) -> Result<(), String> {
        let (mut body, mut out) = (BytesMut::new(), BytesMut::new());
        packet.encode(&mut body);
        self.established.link.writer.frame(Kind(u16::from(packet.kind())), &body, &mut out);
        self.established.write.write_all(&out).await.map_err(|error| format!("broke off: {error}"))
    }

    async fn until(&mut self, mut answer: impl FnMut(&Packet) -> Option<Fields>) -> Result<Fields, String> {
        for _ in 0..OTHERS {
            let packet = self.next().await?;
            if let Some(fields) = answer(&packet) {
                return Ok(fields);
            }
            if let Packet::Ping(nonce) = packet {
                self.send(&Packet::Pong(nonce)).await?;
            }
        }
        Err(format!("sent {OTHERS} other packets instead of an answer"))
    }

    async fn next(&mut self) -> Result<Packet, String> {
        loop {
            let head = self.established.link.reader.head(&self.buffer).map_err(|fault| fault.to_string())?;
            if let Some(head) = head
                && self.buffer.len() >= head.head_len + head.body_len
            {
                self.buffer.advance(head.head_len);
                let body: Bytes = self.buffer.split_to(head.body_len).freeze();
                let kind = u8::try_from(head.kind.0).map_err(|_| "sent an impossible kind".to_owned())?;
                return Packet::decode(kind, &body)
                    .map_err(|error| format!("sent a malformed packet of kind {kind}: {error}"));
            }
            let read = self.established.read.read_buf(&mut self.buffer).await;
            match read.map_err(|error| format!("broke off: {error}"))? {
                0 => return Err("closed the connection instead of answering".to_owned()),
                _ => continue,
            }
        }
    }
}

fn describe(params: &'static Params, raw: &[u8]) -> Fields {
    let checked = HandshakeChain::new(params).check(raw);
    let mut fields = Vec::new();
    match checked {
        Ok(facts) => {
            fields.push(("headers".to_owned(), json!(facts.len())));
            if let (Some(first), Some(last)) = (facts.first(), facts.last()) {
                fields.push(("follows_genesis".to_owned(), json!(first.prev == params.genesis_hash)));
                fields.push(("first".to_owned(), json!(first.hash.to_string())));
                fields.push(("last".to_owned(), json!(last.hash.to_string())));
            }
            fields.push(("proof_of_work".to_owned(), json!("valid")));
        }
        Err((index, fault)) => {
            fields.push(("proof_of_work".to_owned(), json!(format!("header {index}: {fault}"))));
        }
    }
    fields
}
