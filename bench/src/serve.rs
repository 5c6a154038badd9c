//! `bench serve`: a peer with a long chain of headers in memory, in a process of its own, so that what it costs is
//! not counted to whoever syncs from it.
//!
//! ```text
//! bench serve --headers N [--network NAME] [--listen ADDRESS]
//! stdout: {"listening":"127.0.0.1:40123","network":"handshake-simnet","headers":330000,"tip":"..."}
//! ```
//!
//! It makes the chain first (every rule holds: proof of work, retargets, times), prints the line, and serves until it
//! is killed. It answers as hsd does where a syncing client looks:
//!
//! | from the client | answer |
//! |---|---|
//! | `version` | `verack`, then its own `version`, whatever came before |
//! | `ping` | `pong` |
//! | `getheaders` | the headers after the first known hash, or after genesis; silence at the tip |
//! | anything else | nothing |
//!
//! Not provided: any defence. It trusts its clients and is for loopback.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use bytes::{Bytes, BytesMut};
use rookery_base::codec::put_compact_size;
use rookery_base::{Hash32, Height};
use rookery_handshake::chain::rules;
use rookery_handshake::mine::synthetic;
use rookery_handshake::params::Params;
use rookery_handshake::wire::{
    HEAD_LEN, HEADER_LEN, Head, Locator, MAX_BODY, MAX_HEADERS, NetAddress, Packet, Services, Text, Version,
    encode_frame, kind,
};
use rookery_runtime::Clock;

/// What to serve, and where.
pub struct Options {
    /// Headers after genesis.
    pub headers: usize,
    /// Whose rules.
    pub params: &'static Params,
    /// Where.
    pub listen: SocketAddr,
}

/// A chain in memory.
struct Chain {
    params: &'static Params,
    /// Headers from height 1 on, back to back.
    raw: Vec<u8>,
    /// Heights by hash, in the hashes' order; genesis is among them.
    heights: Vec<(Hash32, Height)>,
    tip: Hash32,
}

impl Chain {
    /// Makes it. Its last header's time is not ahead of the clock: what does not fit at the spacing that the rules
    /// wish stands closer together.
    fn make(params: &'static Params, headers: usize) -> Result<Self, String> {
        let genesis = rookery_handshake::chain::header::time(&params.genesis);
        let room = Clock::system().unix().saturating_sub(genesis);
        let spacing = rules::SPACING.min(room / (headers as u64).max(1));
        let mut chain = Self {
            params,
            raw: Vec::new(),
            heights: vec![(params.genesis_hash, 0)],
            tip: params.genesis_hash,
        };
        chain.raw.reserve_exact(headers * HEADER_LEN);
        for (height, (raw, facts)) in
            (1..).zip(synthetic::extend(params, 0).with_spacing(spacing).take(headers))
        {
            chain.raw.extend_from_slice(&raw);
            chain.heights.push((facts.hash, height));
            chain.tip = facts.hash;
        }
        if chain.len() < headers {
            let (name, made) = (params.name, chain.len());
            return Err(format!("{name} gets too hard at {spacing} s a block: {made} of {headers} headers"));
        }
        chain.heights.sort_unstable();
        Ok(chain)
    }

    fn len(&self) -> usize {
        self.heights.len() - 1
    }

    fn height(&self, hash: &Hash32) -> Option<usize> {
        let place = self.heights.binary_search_by_key(hash, |(hash, _)| *hash).ok()?;
        usize::try_from(self.heights[place].1).ok()
    }

    /// The bytes that answer a locator.
    fn after(&self, locator: &Locator) -> &[u8] {
        let first = locator.hashes.iter().find_map(|hash| self.height(hash)).unwrap_or(0);
        let most = self.len().min(first + MAX_HEADERS);
        let last = self.height(&locator.stop).map_or(most, |stop| stop.clamp(first, most));
        &self.raw[first * HEADER_LEN..last * HEADER_LEN]
    }

    fn version(&self) -> Packet {
        Packet::Version(Box::new(Version {
            version: 3,
            services: Services::NETWORK,
            time: Clock::system().unix(),
            remote: NetAddress::NULL,
            // Nobody draws this one, so nobody takes the server for itself.
            nonce: *b"rkbench\0",
            agent: Text::new("/rookery-bench/").expect("short enough"),
            height: self.len() as u32,
            no_relay: true,
        }))
    }
}

/// Makes the chain, says where it is, and serves until the process is killed.
pub fn serve(options: &Options) -> Result<(), String> {
    let chain = Chain::make(options.params, options.headers)?;
    let listener = TcpListener::bind(options.listen);
    let listener = listener.map_err(|error| format!("cannot listen on {}: {error}", options.listen))?;
    let listening = listener.local_addr().map_err(|error| error.to_string())?;
    let line = serde_json::json!({
        "listening": listening.to_string(),
        "network": chain.params.name,
        "headers": chain.len(),
        "tip": chain.tip.to_string(),
    });
    println!("{line}");
    std::thread::scope(|scope| {
        loop {
            match listener.accept() {
                Ok((stream, peer)) => {
                    let chain = &chain;
                    scope.spawn(move || match session(stream, chain) {
                        Ok(()) => eprintln!("{peer}: closed"),
                        Err(error) => eprintln!("{peer}: {error}"),
                    });
                }
                Err(error) => return Err(format!("cannot accept: {error}")),
            }
        }
    })
}

/// One client, to its end.
fn session(mut stream: TcpStream, chain: &Chain) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let magic = chain.params.magic;
    let mut body = Vec::new();
    while let Some(number) = read_frame(&mut stream, magic, &mut body)? {
        let answers =
            match Packet::decode(number, &Bytes::copy_from_slice(&body)).map_err(io::Error::other)? {
                Packet::Version(_) => vec![Packet::Verack, chain.version()],
                Packet::Ping(nonce) => vec![Packet::Pong(nonce)],
                Packet::GetHeaders(locator) => {
                    write_headers(&mut stream, magic, chain.after(&locator))?;
                    Vec::new()
                }
                _ => Vec::new(),
            };
        for packet in answers {
            stream.write_all(&encode_frame(magic, &packet))?;
        }
    }
    Ok(())
}

/// Reads one frame into `body` and says its kind; none at an orderly end.
pub fn read_frame(stream: &mut impl Read, magic: u32, body: &mut Vec<u8>) -> io::Result<Option<u8>> {
    let mut head = [0; HEAD_LEN];
    match stream.read_exact(&mut head) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let head = Head::parse(&head).expect("a whole head was read");
    let length = head.length as usize;
    if head.magic != magic || length > MAX_BODY {
        let what = format!("magic {:08x} and {length} bytes, the network's is {magic:08x}", head.magic);
        return Err(io::Error::other(what));
    }
    body.resize(length, 0);
    stream.read_exact(body)?;
    Ok(Some(head.kind))
}

/// Sends headers straight from the chain's memory; nothing when there are none.
fn write_headers(stream: &mut impl Write, magic: u32, raw: &[u8]) -> io::Result<()> {
    if raw.is_empty() {
        return Ok(());
    }
    let mut count = BytesMut::new();
    put_compact_size(&mut count, (raw.len() / HEADER_LEN) as u64);
    let head = Head { magic, kind: kind::HEADERS, length: (count.len() + raw.len()) as u32 };
    stream.write_all(&[&head.encode()[..], &count].concat())?;
    stream.write_all(raw)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rookery_handshake::chain::hash;
    use rookery_handshake::params::SIMNET;

    fn locator(hashes: Vec<Hash32>) -> Locator {
        Locator { hashes, stop: Hash32::ZERO }
    }

    #[test]
    fn a_locator_is_answered_from_its_first_known_hash() {
        let chain = Chain::make(&SIMNET, MAX_HEADERS + 5).unwrap();
        let all = chain.raw.as_chunks::<HEADER_LEN>().0;
        let third = hash::hash(&all[2]);
        let count = |hashes| chain.after(&locator(hashes)).len() / HEADER_LEN;
        assert_eq!(count(vec![]), MAX_HEADERS);
        assert_eq!(count(vec![Hash32([7; 32])]), MAX_HEADERS, "unknown is genesis");
        assert_eq!(count(vec![third]), MAX_HEADERS);
        assert_eq!(chain.after(&locator(vec![third]))[..HEADER_LEN], all[3]);
        assert_eq!(count(vec![hash::hash(&all[MAX_HEADERS])]), 4);
        assert_eq!(count(vec![chain.tip]), 0, "silence at the tip");
        let stopped = Locator { hashes: vec![third], stop: hash::hash(&all[9]) };
        assert_eq!(chain.after(&stopped).len() / HEADER_LEN, 7);
    }

    #[test]
    fn headers_are_framed_as_the_wire_has_them() {
        let chain = Chain::make(&SIMNET, 300).unwrap();
        let mut wire = Vec::new();
        write_headers(&mut wire, SIMNET.magic, &chain.raw).unwrap();
        let mut body = Vec::new();
        let number = read_frame(&mut &wire[..], SIMNET.magic, &mut body).unwrap();
        assert_eq!(number, Some(kind::HEADERS));
        let packet = Packet::decode(kind::HEADERS, &Bytes::from(body)).unwrap();
        let Packet::Headers(headers) = packet else { panic!("{packet:?}") };
        assert_eq!(headers.raw()[..], chain.raw);
        let mut silent = Vec::new();
        write_headers(&mut silent, SIMNET.magic, &[]).unwrap();
        assert!(silent.is_empty());
    }
}
