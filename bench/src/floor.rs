//! What the machine asks for a sync, whoever does it: CPU to receive the bytes over loopback, to check them, and to
//! make them durable in a plain file. One thread, blocking calls, nothing between them.

use std::fs::File;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use rookery_base::Hash32;
use rookery_handshake::chain::{HandshakeChain, hash};
use rookery_handshake::params::Params;
use rookery_handshake::wire::{
    HEADER_LEN, Locator, MAX_HEADERS, NetAddress, Packet, Services, Text, Version, encode_frame, kind,
};
use rookery_sync::Chain;

use crate::measure::CpuWatch;
use crate::serve::read_frame;

/// CPU seconds of each part.
pub struct Floor {
    /// Asking for the headers and reading them from the socket.
    pub receive: f64,
    /// Hashing them and checking proof of work and links.
    pub check: f64,
    /// Writing them to a file in the pieces they came in, and one `fsync`.
    pub write: f64,
}

/// Does each part once with `headers` headers of the server at `peer`; the file is made in `directory`.
pub fn measure(
    params: &'static Params,
    peer: SocketAddr,
    headers: usize,
    directory: &Path,
) -> io::Result<Floor> {
    let watch = CpuWatch::start();
    let messages = receive(params, peer, headers)?;
    let receive = watch.seconds();
    let watch = CpuWatch::start();
    check(params, &messages);
    let check = watch.seconds();
    let watch = CpuWatch::start();
    let mut file = File::create(directory.join("floor"))?;
    for message in &messages {
        file.write_all(raw(message))?;
    }
    file.sync_all()?;
    Ok(Floor { receive, check, write: watch.seconds() })
}

/// The headers in a payload: what follows the count.
fn raw(payload: &[u8]) -> &[u8] {
    &payload[payload.len() % HEADER_LEN..]
}

/// Asks, reads, asks on: one request at a time, as a client with one peer does.
fn receive(params: &'static Params, peer: SocketAddr, headers: usize) -> io::Result<Vec<Vec<u8>>> {
    let mut stream = TcpStream::connect(peer)?;
    stream.set_nodelay(true)?;
    let version = Packet::Version(Box::new(Version {
        version: 3,
        services: Services::NONE,
        time: 0,
        remote: NetAddress::NULL,
        nonce: *b"rkfloor\0",
        agent: Text::default(),
        height: 0,
        no_relay: true,
    }));
    stream.write_all(&encode_frame(params.magic, &version))?;
    stream.write_all(&encode_frame(params.magic, &Packet::Verack))?;
    let mut tip = params.genesis_hash;
    let mut messages = Vec::with_capacity(headers.div_ceil(MAX_HEADERS));
    while messages.len() < headers.div_ceil(MAX_HEADERS) {
        let locator = Locator { hashes: vec![tip], stop: Hash32::ZERO };
        stream.write_all(&encode_frame(params.magic, &Packet::GetHeaders(locator)))?;
        let mut payload = Vec::new();
        while read_frame(&mut stream, params.magic, &mut payload)?.ok_or(io::ErrorKind::UnexpectedEof)?
            != kind::HEADERS
        {}
        let last = raw(&payload).as_chunks().0.last().ok_or(io::ErrorKind::InvalidData)?;
        tip = hash::hash(last);
        messages.push(payload);
    }
    Ok(messages)
}

/// Proof of work and links, message by message.
fn check(params: &'static Params, messages: &[Vec<u8>]) {
    let chain = HandshakeChain::new(params);
    let mut tip = params.genesis_hash;
    for message in messages {
        for header in chain.check(raw(message)).expect("the server's chain is valid") {
            assert_eq!(header.prev, tip, "the server's chain links");
            tip = header.hash;
        }
    }
}
