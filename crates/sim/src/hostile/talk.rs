//! The real wire, held by a script: packets in and out, or any bytes at all.

use std::io;
use std::net::SocketAddr;

use bytes::{Buf, Bytes, BytesMut};
use rookery_handshake::params::Params;
use rookery_handshake::wire::{
    HEAD_LEN, Head, Headers, NetAddress, Packet, Services, Text, Version, encode_frame,
};
use rookery_runtime::Clock;
use rookery_transport::{ReadHalf, StreamConn, WriteHalf};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What a script says of itself.
#[derive(Debug, Clone, Copy)]
pub struct Claims {
    /// The height that its `version` claims.
    pub height: u32,
    /// Its clock minus the right one, in seconds.
    pub offset: i64,
}

/// A connection in a script's hands.
pub struct Talk {
    read: ReadHalf,
    write: WriteHalf,
    remote: SocketAddr,
    buffer: BytesMut,
    params: &'static Params,
    clock: Clock,
}

impl Talk {
    /// On this connection.
    pub fn new(conn: StreamConn, params: &'static Params, clock: Clock) -> Self {
        let StreamConn { read, write, remote, .. } = conn;
        Self { read, write, remote, buffer: BytesMut::new(), params, clock }
    }

    /// Sends any bytes.
    pub async fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write.write_all(bytes).await
    }

    /// Sends a packet.
    pub async fn say(&mut self, packet: &Packet) -> io::Result<()> {
        let frame = encode_frame(self.params.magic, packet);
        self.raw(&frame).await
    }

    /// Sends a frame of any kind with any payload.
    pub async fn frame(&mut self, kind: u8, payload: &[u8]) -> io::Result<()> {
        let head = Head { magic: self.params.magic, kind, length: payload.len() as u32 };
        self.raw(&[&head.encode()[..], payload].concat()).await
    }

    /// Sends headers; `raw` are whole ones, at most a message full.
    pub async fn headers(&mut self, raw: Bytes) -> io::Result<()> {
        let headers = Headers::from_raw(raw).ok_or(io::ErrorKind::InvalidInput)?;
        self.say(&Packet::Headers(headers)).await
    }

    /// The next packet; those that do not decode are left out.
    pub async fn hear(&mut self) -> io::Result<Packet> {
        loop {
            if let Some(head) = Head::parse(&self.buffer)
                && self.buffer.len() >= HEAD_LEN + head.length as usize
            {
                self.buffer.advance(HEAD_LEN);
                let payload = self.buffer.split_to(head.length as usize).freeze();
                match Packet::decode(head.kind, &payload) {
                    Ok(packet) => return Ok(packet),
                    Err(_) => continue,
                }
            }
            if self.read.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// The next packet that is not a ping; pings are answered.
    pub async fn hear_and_pong(&mut self) -> io::Result<Packet> {
        loop {
            match self.hear().await? {
                Packet::Ping(nonce) => self.say(&Packet::Pong(nonce)).await?,
                packet => return Ok(packet),
            }
        }
    }

    /// A `version` with these claims.
    pub fn version(&self, claims: Claims) -> Packet {
        Packet::Version(Box::new(Version {
            version: 3,
            services: Services::NETWORK,
            time: self.clock.unix().saturating_add_signed(claims.offset),
            remote: NetAddress::new(self.remote),
            // Nobody checks nonces but for being the reader's own.
            nonce: [7; 8],
            agent: Text::new("/rogue:1/").expect("nine bytes fit"),
            height: claims.height,
            no_relay: true,
        }))
    }

    /// Shakes hands as either end would: version and verack are sent at once, both are awaited.
    pub async fn shake(&mut self, claims: Claims) -> io::Result<()> {
        let version = self.version(claims);
        self.say(&version).await?;
        self.say(&Packet::Verack).await?;
        let (mut version, mut verack) = (false, false);
        while !(version && verack) {
            match self.hear().await? {
                Packet::Version(_) => version = true,
                Packet::Verack => verack = true,
                _ => {}
            }
        }
        Ok(())
    }

    /// The right time, in seconds since 1970.
    pub fn unix(&self) -> u64 {
        self.clock.unix()
    }

    /// Lets time pass.
    pub async fn wait(&mut self, time: std::time::Duration) {
        self.clock.sleep(time).await;
    }

    /// Reads and forgets until the other end closes.
    pub async fn drain(&mut self) -> io::Result<()> {
        loop {
            self.hear().await?;
        }
    }
}
