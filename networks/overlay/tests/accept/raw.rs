//! A peer without a node: the real transport, and every byte of the overlay by hand.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rookery_base::CloseCause;
use rookery_overlay::wire::hello::{self, Hello, network_id};
use rookery_runtime::Env;
use rookery_transport::quic::Udp;
use rookery_transport::tls::{Identity, Keys, Trust};
use rookery_transport::{
    Closed, Listener, Mux, MuxConn, MuxStream, Quic, QuicLimits, QuicTls, Transport, cause_of,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::{NETWORK, soon};

/// How far a fleeting peer comes before it closes.
#[derive(Debug, Clone, Copy)]
pub enum Stage {
    /// It has sent its first packets, and listens to nobody.
    Asked,
    /// The connection is there.
    Proven,
    /// It has said hello and does not wait for an answer.
    Opened,
    /// It has been told hello too.
    Greeted,
}

pub struct Raw {
    env: Env,
    pub identity: Identity,
    quic: Quic,
    /// Where it is bound, if it matters.
    _door: Option<Box<dyn Listener>>,
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.env.scope.cancel();
    }
}

impl Raw {
    /// With an identity of this number. Ed25519 only: what is told apart here are identities, not schemes.
    pub fn new(number: u64) -> Self {
        Self::speaking(number, |tls| tls)
    }

    /// The same, with this done to its TLS.
    pub fn speaking(number: u64, change: impl FnOnce(QuicTls) -> QuicTls) -> Self {
        let mut seed = [1; 32];
        seed[..8].copy_from_slice(&number.to_be_bytes());
        let (env, identity) = (Env::system(), Identity::from_seed(&seed, Keys::Classic).unwrap());
        let tls = change(identity.tls(b"rookery-overlay/1", Trust::Both).unwrap());
        let quic = Quic::start(&env, tls, &seed, QuicLimits::DEFAULT, Arc::new(Udp::AS_THEY_ARE)).unwrap();
        Self { env, identity, quic, _door: None }
    }

    /// Where others can dial it.
    pub async fn listen(&self) -> Box<dyn Listener> {
        self.quic.listen("127.0.0.1:0".parse().unwrap()).await.unwrap()
    }

    /// The same, dialling from this address.
    pub async fn at(number: u64, from: SocketAddr) -> Self {
        let mut raw = Self::new(number);
        raw._door = Some(raw.quic.listen(from).await.unwrap());
        raw
    }

    /// A connection, and nothing said on it.
    pub async fn dial(&self, to: SocketAddr) -> Result<MuxConn, CloseCause> {
        let conn = soon("a connection, or a refusal", self.quic.dial(to)).await;
        conn.map(|conn| conn.into_mux().unwrap()).map_err(|error| cause_of(&error))
    }

    pub fn hello(&self) -> Hello {
        Hello {
            version: hello::VERSION,
            min_version: hello::MIN_VERSION,
            network: network_id(NETWORK),
            capabilities: 0,
            incarnation: 7,
            attempt: 1,
            keys: self.identity.hashes(),
            listen_port: 0,
            addrs: Vec::new(),
            observed: None,
            agent: "raw".into(),
            extra: None,
        }
    }

    /// A connection whose stream 0 has taken these bytes as its hello.
    pub async fn say(&self, to: SocketAddr, bytes: &[u8]) -> (MuxConn, MuxStream) {
        let conn = self.dial(to).await.unwrap();
        let mut stream = conn.mux.open().await.unwrap();
        stream.write.write_all(bytes).await.unwrap();
        (conn, stream)
    }

    /// A session: hellos are exchanged. What the other side says next is still to be read.
    pub async fn join(&self, to: SocketAddr) -> (MuxConn, MuxStream) {
        let (conn, mut stream) = self.say(to, &self.hello().encode()).await;
        soon("a hello", read_hello(&mut stream)).await.unwrap();
        (conn, stream)
    }

    /// Comes as far as this stage, and closes.
    pub async fn reach(&self, to: SocketAddr, stage: Stage) {
        if matches!(stage, Stage::Asked) {
            let _ = tokio::time::timeout(Duration::ZERO, self.quic.dial(to)).await;
            return;
        }
        let conn = self.dial(to).await.unwrap();
        if !matches!(stage, Stage::Proven) {
            let mut stream = conn.mux.open().await.unwrap();
            stream.write.write_all(&self.hello().encode()).await.unwrap();
            if matches!(stage, Stage::Greeted) {
                // An older connection of ours may be on its way out, and this one with it.
                let _ = soon("a hello", read_hello(&mut stream)).await;
            }
        }
        conn.mux.close(9, "fleeting");
    }
}

pub async fn read_hello(stream: &mut MuxStream) -> std::io::Result<Hello> {
    let mut head = [0; hello::HEAD_LEN];
    stream.read.read_exact(&mut head).await?;
    let mut fields = vec![0; hello::fields_len(&head).unwrap()];
    stream.read.read_exact(&mut fields).await?;
    Ok(Hello::decode(&Bytes::from(fields)).unwrap())
}

/// What the other side says when it ends a connection.
pub async fn told(mux: &Arc<dyn Mux>) -> (u32, String) {
    match mux.closed().await {
        Closed::ByPeer { code, reason } => (code, reason),
        other => panic!("{other}"),
    }
}

/// A frame, head and body.
pub fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let [_, high, middle, low] = (body.len() as u32).to_be_bytes();
    [&[kind, high, middle, low][..], body].concat()
}
