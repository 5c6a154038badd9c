//! What each rogue does on one connection.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rand::Rng;
use rookery_base::Hash32;
use rookery_handshake::chain::hash::hash;
use rookery_handshake::chain::header::Header;
use rookery_handshake::params::MAIN;
use rookery_handshake::services::headers::ASK_WITHIN;
use rookery_handshake::wire::kind::{ADDR, GETPROOF, HEADERS};
use rookery_handshake::wire::{
    HEADER_LEN, Head, Inv, InvKind, Locator, MAX_HEADERS, NetAddress, Packet, Services, encode_frame,
};
use rookery_runtime::Env;
use rookery_transport::StreamConn;

use super::Rogue;
use super::talk::{Claims, Talk};
use crate::chainworld::line::ground;
use crate::chainworld::{Line, PARAMS, host};

/// A height that nobody has.
const LIE: u32 = 1_000_000;
/// Bytes a second of a peer that only just answers: a full message would take eight minutes.
const TRICKLE: usize = 1_000;
/// Messages of a flood at a time, ten times a second: over every rate that a node allows.
const BURST: usize = 64;
/// How long a flood goes on; more of the same shows nothing more, and costs the simulation most of its time.
const FLOOD_FOR: Duration = Duration::from_secs(8);
/// Hosts that a teller tells of.
const TOLD: u32 = 100;
/// Forks that are made once and served in turn: together more headers than a tree keeps on the side.
const FORKS: u64 = 12;
/// Headers of each: a full message, and less work than any honest chain here.
const FORK_LEN: u32 = MAX_HEADERS as u32;

static FORK_LINES: LazyLock<Vec<Line>> =
    LazyLock::new(|| (0..FORKS).map(|salt| Line::fork(0, 900 + salt, FORK_LEN)).collect());

/// A rogue's script.
#[derive(Clone)]
pub struct Script {
    rogue: Rogue,
    line: Arc<Line>,
}

impl Script {
    /// For this rogue, that serves from this chain what it serves.
    pub const fn new(rogue: Rogue, line: Arc<Line>) -> Self {
        Self { rogue, line }
    }

    /// Plays it on one connection, to the end of either.
    ///
    /// # Errors
    /// When the other end has closed.
    pub async fn play(&self, conn: StreamConn, env: &Env) -> io::Result<()> {
        let mut talk = Talk::new(conn, PARAMS, env.clock);
        match self.rogue {
            Rogue::Stage(step) => return self.stage(step, &mut talk).await,
            Rogue::DropAt(step @ 0..=1) => return self.leave_early(step, &mut talk).await,
            Rogue::WrongMagic => return self.foreign(&mut talk).await,
            _ => talk.shake(self.claims()).await?,
        }
        match self.rogue {
            Rogue::Silent => talk.drain().await,
            Rogue::DropAt(2) | Rogue::Hasty => Ok(()),
            Rogue::Pings
            | Rogue::Questions
            | Rogue::Proofs
            | Rogue::Invs
            | Rogue::Addrs
            | Rogue::ManyAddrs
            | Rogue::Unknown
            | Rogue::Garbage
            | Rogue::Oversize => self.flood(&mut talk, env).await,
            _ => self.serve(&mut talk).await,
        }
    }

    fn claims(&self) -> Claims {
        let height = match self.rogue {
            Rogue::LyingTip | Rogue::Mute | Rogue::Silent | Rogue::Orphans => LIE,
            Rogue::Future => self.line.height() + 1,
            _ => self.line.height(),
        };
        let offset = if self.rogue == Rogue::WrongClock { 3600 } else { 0 };
        Claims { height, offset }
    }

    async fn stage(&self, step: u8, talk: &mut Talk) -> io::Result<()> {
        let version = encode_frame(PARAMS.magic, &talk.version(self.claims()));
        match step {
            0 => {}
            1 => talk.raw(&version[..version.len() / 2]).await?,
            2 => talk.raw(&version).await?,
            _ => talk.say(&Packet::Verack).await?,
        }
        talk.drain().await
    }

    async fn leave_early(&self, step: u8, talk: &mut Talk) -> io::Result<()> {
        if step == 1 {
            let version = talk.version(self.claims());
            talk.say(&version).await?;
            talk.hear().await?;
        }
        Ok(())
    }

    async fn foreign(&self, talk: &mut Talk) -> io::Result<()> {
        let version = encode_frame(MAIN.magic, &talk.version(self.claims()));
        talk.raw(&version).await?;
        talk.drain().await
    }

    async fn serve(&self, talk: &mut Talk) -> io::Result<()> {
        let mut asked = 0;
        loop {
            match talk.hear_and_pong().await? {
                Packet::GetHeaders(locator) => {
                    asked += 1;
                    if !self.answer(&locator, asked, talk).await? {
                        return Ok(());
                    }
                }
                Packet::GetAddr if self.rogue == Rogue::Teller => {
                    let unix = talk.unix();
                    talk.say(&neighbours(unix)).await?;
                }
                _ => {}
            }
        }
    }

    /// Answers one question. False: the connection is closed.
    async fn answer(&self, locator: &Locator, asked: u64, talk: &mut Talk) -> io::Result<bool> {
        let honest = |most| self.line.after(&locator.hashes, most);
        let answer = match self.rogue {
            Rogue::Mute => return Ok(true),
            Rogue::OneByOne => honest(1),
            Rogue::Trickle => {
                trickle(&honest(MAX_HEADERS), talk).await?;
                return Ok(true);
            }
            Rogue::Unlinked => self.gap(locator),
            Rogue::Orphans => FORK_LINES[0].raw(700, 710),
            Rogue::BadWork => spoilt(&honest(MAX_HEADERS)),
            Rogue::BadBits => self.next_with(|header| header.bits = 0x2000_ffff, locator),
            Rogue::Future => {
                let ahead = talk.unix() + 3 * 3600;
                self.next_with(|header| header.time = ahead, locator)
            }
            Rogue::ShortForks => FORK_LINES[(asked % FORKS) as usize].raw(1, FORK_LEN - 1),
            Rogue::Forks => FORK_LINES[(asked % FORKS) as usize].raw(1, FORK_LEN),
            Rogue::DropAt(3) => return Ok(false),
            Rogue::DropAt(_) => {
                let whole = encode_frame(PARAMS.magic, &packet(honest(MAX_HEADERS)));
                talk.raw(&whole[..whole.len() / 2]).await?;
                return Ok(false);
            }
            Rogue::Late => {
                talk.wait(ASK_WITHIN + Duration::from_secs(5)).await;
                honest(MAX_HEADERS)
            }
            Rogue::Twice if !honest(MAX_HEADERS).is_empty() => {
                talk.headers(honest(MAX_HEADERS)).await?;
                honest(MAX_HEADERS)
            }
            _ => honest(MAX_HEADERS),
        };
        // As hsd does, silence when there is nothing.
        if !answer.is_empty() {
            talk.headers(answer).await?;
        }
        Ok(true)
    }

    /// A full answer from which one header in the middle is missing.
    fn gap(&self, locator: &Locator) -> Bytes {
        let whole = self.line.after(&locator.hashes, MAX_HEADERS);
        let cut = whole.len() / HEADER_LEN / 2 * HEADER_LEN;
        let rest = whole.len().min(cut + HEADER_LEN);
        [&whole[..cut], &whole[rest..]].concat().into()
    }

    /// One header after the first that the locator names, with one thing wrong, and work for what it is.
    fn next_with(&self, wrong: impl FnOnce(&mut Header), locator: &Locator) -> Bytes {
        let parent = locator.hashes.first().copied().unwrap_or(PARAMS.genesis_hash);
        let tip = Header::decode(self.line.at(self.line.height()));
        let mut header = Header { prev: parent, time: tip.time + 1, bits: tip.bits, ..Header::default() };
        wrong(&mut header);
        ground(header).to_vec().into()
    }

    async fn flood(&self, talk: &mut Talk, env: &Env) -> io::Result<()> {
        let mut rng = env.rng.fork("flood", env.clock.elapsed().as_millis() as u64);
        let mut bytes = [0; 512];
        let until = env.clock.now() + FLOOD_FOR;
        while env.clock.now() < until {
            for n in 0..BURST {
                rng.fill_bytes(&mut bytes);
                let hash = Hash32(*bytes.first_chunk().expect("512 bytes are more than 32"));
                match self.rogue {
                    Rogue::Pings => talk.say(&Packet::Ping([n as u8; 8])).await?,
                    Rogue::Questions => {
                        let question = Locator { hashes: vec![hash; 500], stop: Hash32::ZERO };
                        talk.say(&Packet::GetHeaders(question)).await?;
                    }
                    Rogue::Proofs => talk.frame(GETPROOF, &bytes[..64]).await?,
                    Rogue::Invs => talk.say(&Packet::Inv(vec![Inv { kind: InvKind::BLOCK, hash }])).await?,
                    Rogue::Addrs => talk.say(&addresses(&bytes)).await?,
                    Rogue::ManyAddrs => {
                        talk.frame(ADDR, &[&[0xfd, 0xe9, 3][..], &[0; 1001 * 88]].concat()).await?
                    }
                    Rogue::Unknown => talk.frame(30 + (bytes[0] >> 1), &bytes).await?,
                    Rogue::Oversize => {
                        let head = Head { magic: PARAMS.magic, kind: HEADERS, length: u32::MAX };
                        talk.raw(&head.encode()).await?;
                    }
                    _ => talk.raw(&bytes).await?,
                }
            }
            talk.wait(Duration::from_millis(100)).await;
        }
        loop {
            talk.hear_and_pong().await?;
        }
    }
}

/// The first hosts of a world, seen just now.
fn neighbours(unix: u64) -> Packet {
    let addr = |n| NetAddress {
        time: unix,
        services: Services::NETWORK,
        ..NetAddress::new(SocketAddr::new(host(n), PARAMS.port))
    };
    Packet::Addr((0..TOLD).map(addr).collect())
}

/// Addresses in one group of the attacker's.
fn addresses(random: &[u8]) -> Packet {
    let addr = |pair: &[u8]| {
        let ip = Ipv4Addr::new(66, 66, pair[0], pair[1]);
        NetAddress { services: Services::NETWORK, ..NetAddress::new(SocketAddr::new(ip.into(), PARAMS.port)) }
    };
    Packet::Addr(random.chunks_exact(2).map(addr).collect())
}

fn packet(raw: Bytes) -> Packet {
    Packet::Headers(
        rookery_handshake::wire::Headers::from_raw(raw).expect("whole headers, one message at most"),
    )
}

async fn trickle(raw: &Bytes, talk: &mut Talk) -> io::Result<()> {
    let whole = encode_frame(PARAMS.magic, &packet(raw.clone()));
    for part in whole.chunks(TRICKLE) {
        talk.raw(part).await?;
        talk.wait(Duration::from_secs(1)).await;
    }
    Ok(())
}

/// The same headers with a last one whose hash is above its target.
fn spoilt(raw: &Bytes) -> Bytes {
    let mut raw = BytesMut::from(&raw[..]);
    let Some(start) = raw.len().checked_sub(HEADER_LEN) else { return raw.freeze() };
    loop {
        raw[start] = raw[start].wrapping_add(1);
        let header = raw[start..].try_into().expect("one header is left");
        // Half of all hashes are below this network's target.
        if hash(&header).0[0] >= 0x80 {
            return raw.freeze();
        }
    }
}
