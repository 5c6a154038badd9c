//! `version` and `verack`, before anything else.
//!
//! ```text
//!  dialler                          acceptor
//!  version ------------------------>
//!          <------------------------ verack, version     (in this order by us and by hsd; either is taken)
//!  verack  ------------------------>
//! ```
//!
//! Two things are awaited from the peer, its `version` and its `verack`, in whichever order, each for at most
//! [`STEP`]. Nothing is allocated on a peer's word: a packet of the handshake is bounded by its kind before it is
//! read, and at most [`EARLY_BYTES`] of anything else is kept.
//!
//! | from the peer | what happens |
//! |---|---|
//! | another magic, a length no packet has, bytes that do not decode | refused |
//! | protocol version 0 | refused; 1 and up are spoken with |
//! | a second `version` | refused |
//! | a second `verack` | ignored |
//! | our own nonce | refused as this node itself, after the other end has been told (see below) |
//! | other packets before the end | kept unread, and handed to the session when it begins |
//!
//! hsd answers a ping before the handshake has ended. Nobody known here sends one, and nothing is answered to a peer
//! that has not said what it is. But a packet that were simply ignored would leave its sender waiting, so a few are
//! kept for the session instead.
//!
//! **This node itself.** Our nonces carry a mark that only this process can make ([`nonce`]). The accepting end could
//! close at once, but only the dialling end knows which address turned out to be ours. So the acceptor says its version
//! before it looks at the nonce, and both ends end with [`PeerFaultKind::SelfConnection`].
//!
//! Not provided: any proof that a peer is who it was before. On clear connections a peer is its address.

pub mod nonce;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use rookery_base::{CloseCause, Direction, Height, PeerFault, PeerFaultKind, PeerId};
use rookery_engine::{Approach, Caps, Deframe, Established, PeerFacts};
use rookery_runtime::{Env, Instant};
use rookery_transport::{ReadHalf, StreamConn, WriteHalf};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::link::{Framing, link};
use crate::params::Params;
use crate::wire::kind::{VERACK, VERSION};
use crate::wire::{HEAD_LEN, NetAddress, Nonce, Packet, Services, Text, Version, encode_frame, kind_info};
use nonce::OwnNonces;

/// How long each of the peer's two packets may take: hsd's step. A round trip and a busy peer fit in many times over.
pub const STEP: Duration = Duration::from_secs(5);
/// Deadline for the whole: both steps, and a second so that the step that failed is what gets told.
pub const DEADLINE: Duration = Duration::from_secs(11);
/// The protocol that we speak, hsd's. From 3 on addresses are believed.
pub const PROTOCOL: u32 = 3;
/// Our user agent.
pub const AGENT: &str = concat!("/rookery:", env!("CARGO_PKG_VERSION"), "/");
/// Most packets besides the two that are awaited: an early client sends a ping and a question or two.
const EARLY_PACKETS: usize = 8;
/// Most bytes of them: eight questions with honest locators.
pub const EARLY_BYTES: usize = 16 * 1024;
/// Read at a time: a version and what an early client sends behind it.
const CHUNK: usize = 1024;

/// Where our height is read when a connection begins.
pub type HeightSource = Arc<dyn Fn() -> Height + Send + Sync>;

/// What this node says about itself.
pub struct Introduction {
    /// The network.
    pub params: &'static Params,
    /// What it offers. A headers node offers nothing that has a bit.
    pub services: Services,
    /// Its height.
    pub height: HeightSource,
    /// Its nonces.
    pub nonces: OwnNonces,
}

impl Introduction {
    /// Our `version` to the peer at `remote`, at `unix` seconds since 1970.
    pub fn version(&self, remote: SocketAddr, nonce: Nonce, unix: u64) -> Version {
        Version {
            version: PROTOCOL,
            services: self.services,
            time: unix,
            remote: NetAddress::new(remote),
            nonce,
            agent: Text::new(AGENT).expect("our user agent is shorter than 255 bytes"),
            height: (self.height)(),
            no_relay: true,
        }
    }

    /// Shakes hands on a connection. Dropping the future closes it.
    ///
    /// # Errors
    /// Why there is no session, and whose fault that is.
    pub async fn shake(&self, approach: Approach) -> Result<Established, CloseCause> {
        let Approach { conn, direction, env } = approach;
        let StreamConn { remote, read, write, .. } = conn.into_stream()?;
        let version = self.version(remote, self.nonces.fresh(), env.clock.unix());
        let mut shake = Shake {
            magic: self.params.magic,
            ours: encode_frame(self.params.magic, &Packet::Version(Box::new(version))),
            direction,
            env,
            read,
            write,
            buffer: BytesMut::new(),
            early: BytesMut::new(),
            others: 0,
            theirs: None,
            verack: false,
        };
        shake.run(&self.nonces).await?;
        shake.established(remote)
    }
}

/// A handshake under way.
struct Shake {
    magic: u32,
    /// Our version, framed.
    ours: Bytes,
    direction: Direction,
    env: Env,
    read: ReadHalf,
    write: WriteHalf,
    /// Bytes that were read and not looked at yet.
    buffer: BytesMut,
    /// Whole frames of other kinds, for the session.
    early: BytesMut,
    /// Packets besides the first version and the first verack.
    others: usize,
    theirs: Option<Box<Version>>,
    verack: bool,
}

/// What the peer sent.
enum Said {
    Version(Box<Version>),
    Verack,
}

impl Shake {
    async fn run(&mut self, nonces: &OwnNonces) -> Result<(), CloseCause> {
        let mut by = self.env.clock.now() + STEP;
        if self.direction == Direction::Outbound {
            let ours = self.ours.clone();
            self.say(&ours, by).await?;
        }
        while self.theirs.is_none() || !self.verack {
            match self.hear(by).await? {
                Said::Verack => self.verack = true,
                Said::Version(version) => {
                    let checked = check(&version, nonces);
                    // A dialler that turns out to be us has to hear our nonce before the connection closes.
                    if checked.is_ok() || self.direction == Direction::Inbound {
                        self.answer(by).await?;
                    }
                    checked?;
                    self.theirs = Some(version);
                }
            }
            by = self.env.clock.now() + STEP;
        }
        Ok(())
    }

    /// Accepts the peer's version; the acceptor introduces itself as well.
    async fn answer(&mut self, by: Instant) -> Result<(), CloseCause> {
        let mut reply = BytesMut::from(&encode_frame(self.magic, &Packet::Verack)[..]);
        if self.direction == Direction::Inbound {
            reply.extend_from_slice(&self.ours);
        }
        self.say(&reply, by).await
    }

    async fn say(&mut self, bytes: &[u8], by: Instant) -> Result<(), CloseCause> {
        let left = by.saturating_duration_since(self.env.clock.now());
        let written = self.env.clock.timeout(left, async {
            self.write.write_all(bytes).await?;
            self.write.flush().await
        });
        match written.await {
            Some(written) => written.map_err(broken),
            None => Err(fault(PeerFaultKind::HandshakeTimeout, "did not take our version in time")),
        }
    }

    /// The next packet of the handshake. Others on the way are put aside.
    async fn hear(&mut self, by: Instant) -> Result<Said, CloseCause> {
        loop {
            if let Some(said) = self.parse()? {
                return Ok(said);
            }
            self.buffer.reserve(CHUNK);
            let left = by.saturating_duration_since(self.env.clock.now());
            match self.env.clock.timeout(left, self.read.read_buf(&mut self.buffer)).await {
                Some(Ok(0)) if self.buffer.is_empty() => return Err(CloseCause::PeerClosed),
                Some(Ok(0)) => return Err(CloseCause::Broken("closed inside a packet".into())),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(broken(error)),
                None => return Err(self.too_slow()),
            }
        }
    }

    /// Takes the packets that are here whole, up to the first that the handshake awaits.
    fn parse(&mut self) -> Result<Option<Said>, CloseCause> {
        while let Some(head) = (Framing { magic: self.magic }).head(&self.buffer).map_err(peer)? {
            // A head's kind was one byte.
            let (kind, whole) = (head.kind.0 as u8, HEAD_LEN + head.body_len);
            self.judge(kind, head.body_len)?;
            if self.buffer.len() < whole {
                self.buffer.reserve(whole - self.buffer.len());
                return Ok(None);
            }
            let mut frame = self.buffer.split_to(whole);
            match kind {
                VERSION if self.theirs.is_some() => {
                    return Err(fault(PeerFaultKind::BadHandshake, "a second version"));
                }
                VERSION => {
                    frame.advance(HEAD_LEN);
                    let packet = Packet::decode(VERSION, &frame.freeze());
                    let Packet::Version(version) = packet.map_err(|error| peer(error.into()))? else {
                        return Err(fault(PeerFaultKind::Malformed, "a version that is none"));
                    };
                    return Ok(Some(Said::Version(version)));
                }
                VERACK if !self.verack => return Ok(Some(Said::Verack)),
                VERACK => self.others += 1,
                _ => {
                    self.others += 1;
                    self.early.extend_from_slice(&frame);
                }
            }
        }
        Ok(None)
    }

    /// Refuses a packet by its head: its kind's bounds, and what is kept before a peer has said what it is.
    fn judge(&self, kind: u8, len: usize) -> Result<(), CloseCause> {
        let name = kind_info(kind).map_or("a packet of unknown kind", |info| info.name);
        if let Some(info) = kind_info(kind)
            && !(info.min..=info.max_payload()).contains(&len)
        {
            let kind = if len < info.min { PeerFaultKind::Malformed } else { PeerFaultKind::Oversize };
            let detail = format!("{name} of {len} bytes, it has {} to {}", info.min, info.max_payload());
            return Err(peer(PeerFault::close(kind, detail)));
        }
        let awaited = kind == VERSION || (kind == VERACK && !self.verack);
        let room = EARLY_BYTES.saturating_sub(self.early.len());
        if !awaited && (self.others == EARLY_PACKETS || HEAD_LEN + len > room) {
            let detail =
                format!("{name} of {len} bytes before the end of the handshake, after {}", self.others);
            return Err(peer(PeerFault::close(PeerFaultKind::BadHandshake, detail)));
        }
        Ok(())
    }

    fn too_slow(&self) -> CloseCause {
        let missing = match (&self.theirs, self.verack) {
            (None, false) => "neither version nor verack",
            (None, true) => "no version",
            (Some(_), _) => "no verack",
        };
        let detail = format!("{missing} within {} s", STEP.as_secs());
        peer(PeerFault::close(PeerFaultKind::HandshakeTimeout, detail))
    }

    fn established(self, remote: SocketAddr) -> Result<Established, CloseCause> {
        let Some(theirs) = self.theirs else {
            return Err(fault(PeerFaultKind::BadHandshake, "no version"));
        };
        let now = self.env.clock.unix();
        let facts = PeerFacts {
            caps: Caps(u64::from(theirs.services.0)),
            version: theirs.version,
            agent: printable(theirs.agent.as_bytes()),
            height: theirs.height,
            // The wire's numbers end at 2^53, so neither can wrap.
            time_offset: theirs.time as i64 - now as i64,
            ..PeerFacts::of(PeerId::from_addr(remote), remote, self.direction)
        };
        let mut read_ahead = self.early;
        read_ahead.extend_from_slice(&self.buffer);
        let link = link(self.magic);
        Ok(Established { facts, link, read: self.read, write: self.write, read_ahead, mux: None })
    }
}

/// Whether we want to talk to a peer that says this.
fn check(version: &Version, nonces: &OwnNonces) -> Result<(), CloseCause> {
    if nonces.is_own(&version.nonce) {
        return Err(fault(PeerFaultKind::SelfConnection, "the nonce in its version is ours"));
    }
    if version.version == 0 {
        return Err(fault(PeerFaultKind::BadHandshake, "protocol version 0, the least is 1"));
    }
    Ok(())
}

/// A user agent that is safe to show: what is not printable ASCII becomes `?`.
fn printable(agent: &[u8]) -> String {
    agent.iter().map(|&byte| if matches!(byte, b' '..=b'~') { char::from(byte) } else { '?' }).collect()
}

fn peer(fault: PeerFault) -> CloseCause {
    CloseCause::Fault(fault.into())
}

fn fault(kind: PeerFaultKind, detail: &'static str) -> CloseCause {
    peer(PeerFault::close(kind, detail))
}

fn broken(error: std::io::Error) -> CloseCause {
    CloseCause::Broken(error.to_string().into())
}

#[cfg(test)]
mod tests;
