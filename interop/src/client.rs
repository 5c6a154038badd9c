//! A plain wire client: it says what it is told to, and keeps what comes.
//!
//! It uses Rookery's codec, and nothing else of it: no engine, no rules, no answers of its own except to `version`.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rookery_handshake::params::REGTEST;
use rookery_handshake::wire::{
    HEAD_LEN, Head, MAX_BODY, NetAddress, Packet, Services, Text, Version, encode_frame, kind,
};

/// How long a handshake may take: hsd's own limit for a step.
const SHAKE_WITHIN: Duration = Duration::from_secs(5);

/// A packet as it came: its kind and its payload.
pub type Raw = (u8, Bytes);

/// What a peer said in a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// Its packets, in order.
    pub packets: Vec<Raw>,
    /// Whether it then closed the connection.
    pub closed: bool,
}

/// A connection to a peer, after the handshake.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    /// Bytes that are not yet a packet.
    pending: Vec<u8>,
    /// What the peer said of itself.
    pub version: Version,
    /// The kinds of the packets that it sent until the handshake was over, in order.
    pub greeting: Vec<u8>,
}

impl Client {
    /// Dials, and shakes hands as a light client that relays nothing.
    ///
    /// # Panics
    /// When the peer does not shake hands.
    pub fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).unwrap_or_else(|error| panic!("nobody at {addr}: {error}"));
        stream.set_nodelay(true).expect("a socket takes its options");
        let mut client = Self { stream, pending: Vec::new(), version: hello(addr), greeting: Vec::new() };
        client.send(&Packet::Version(Box::new(hello(addr))));
        let start = Instant::now();
        while client.greeting.iter().filter(|&&kind| kind == kind::VERSION || kind == kind::VERACK).count()
            < 2
        {
            let (number, body) = client
                .next(SHAKE_WITHIN.saturating_sub(start.elapsed()))
                .ok()
                .flatten()
                .unwrap_or_else(|| panic!("{addr} does not shake hands: {:?}", client.greeting));
            if number == kind::VERSION {
                client.version = match Packet::decode(number, &body) {
                    Ok(Packet::Version(version)) => *version,
                    other => panic!("{addr}: expected a version, got {other:?}"),
                };
                client.send(&Packet::Verack);
            }
            client.greeting.push(number);
        }
        client
    }

    /// Sends a packet.
    pub fn send(&mut self, packet: &Packet) {
        self.write(&encode_frame(REGTEST.magic, packet));
    }

    /// Sends any payload under any kind.
    pub fn send_raw(&mut self, number: u8, body: &[u8]) {
        let length = u32::try_from(body.len()).expect("a test's payload is short");
        let head = Head { magic: REGTEST.magic, kind: number, length };
        self.write(&[&head.encode()[..], body].concat());
    }

    /// A peer that has closed is what some tests are about: it shows in what is heard.
    fn write(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Everything that comes until nothing has come for `quiet`, or the peer has closed.
    pub fn hear(&mut self, quiet: Duration) -> Heard {
        let mut packets = Vec::new();
        loop {
            match self.next(quiet) {
                Ok(Some(packet)) => packets.push(packet),
                Ok(None) => return Heard { packets, closed: false },
                Err(Closed) => return Heard { packets, closed: true },
            }
        }
    }

    /// The next packet; none when none has come whole within `deadline`.
    fn next(&mut self, deadline: Duration) -> Result<Option<Raw>, Closed> {
        let start = Instant::now();
        loop {
            if let Some(packet) = self.take() {
                return Ok(Some(packet));
            }
            let left = deadline.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Ok(None);
            }
            self.stream.set_read_timeout(Some(left)).expect("a socket takes its options");
            let mut chunk = [0; 16 * 1024];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(Closed),
                Ok(len) => self.pending.extend_from_slice(&chunk[..len]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(Closed),
            }
        }
    }

    /// The first whole packet of the bytes that have come.
    fn take(&mut self) -> Option<Raw> {
        let head = Head::parse(&self.pending)?;
        let length = head.length as usize;
        assert_eq!(head.magic, REGTEST.magic, "a frame of another network");
        assert!(length <= MAX_BODY, "a frame of {length} bytes");
        let end = HEAD_LEN + length;
        let body = Bytes::copy_from_slice(self.pending.get(HEAD_LEN..end)?);
        self.pending.drain(..end);
        Some((head.kind, body))
    }
}

/// The peer has closed the connection.
#[derive(Debug)]
struct Closed;

/// What the client says of itself: nothing that a peer could want of it.
fn hello(remote: SocketAddr) -> Version {
    Version {
        version: 3,
        services: Services::NONE,
        // Peers take it as a sample of our clock and no more.
        time: rookery_handshake::chain::header::time(&REGTEST.genesis),
        remote: NetAddress::new(remote),
        nonce: std::process::id().to_le_bytes().repeat(2).try_into().expect("twice four bytes are eight"),
        agent: Text::new("/rookery-interop:0.1/").expect("a short text"),
        height: 0,
        no_relay: true,
    }
}
