//! Hosts that speak the overlay's QUIC by themselves, and break its rules above it or below it.

use std::future::poll_fn;
use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quinn::AsyncUdpSocket;
use quinn::udp::RecvMeta;
use rookery_base::PeerId;
use rookery_engine::Enframe;
use rookery_overlay::wire::frame::Framing;
use rookery_overlay::wire::hello::{self, Hello, network_id};
use rookery_overlay::wire::kind;
use rookery_overlay::wire::message::Message;
use rookery_runtime::OnPanic;
use rookery_transport::quic::{Quic, QuicLimits};
use rookery_transport::tls::{KeyHashes, Trust};
use rookery_transport::{MuxConn, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::overlay_world::{NETWORK, OverlayWorld, PORT, topic};
use crate::chainworld::host;
use crate::datagram::SimUdp;
use crate::fabric::Link;
use crate::world::Node;

/// What the overlay's TLS agrees on.
const ALPN: &[u8] = b"rookery-overlay/1";
/// Long enough for a datagram to be on the other side of a line that takes no time.
const MOMENT: Duration = Duration::from_millis(2);
/// Longest datagram that comes.
const DATAGRAM: usize = 2048;

/// One datagram, if there is one.
fn poll_datagram(socket: &SimUdp, cx: &mut Context<'_>) -> Poll<Option<(SocketAddr, Bytes)>> {
    let mut buffer = [0; DATAGRAM];
    let mut meta = [RecvMeta::default()];
    match socket.poll_recv(cx, &mut [IoSliceMut::new(&mut buffer)], &mut meta) {
        Poll::Ready(Ok(1)) => {
            Poll::Ready(Some((meta[0].addr, Bytes::copy_from_slice(&buffer[..meta[0].len]))))
        }
        Poll::Ready(_) => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    }
}

/// The next datagram.
pub(super) async fn datagram(socket: &SimUdp) -> Option<(SocketAddr, Bytes)> {
    poll_fn(|cx| poll_datagram(socket, cx)).await
}

fn drain(socket: &SimUdp) -> Vec<Bytes> {
    let mut cx = Context::from_waker(Waker::noop());
    let mut all = Vec::new();
    while let Poll::Ready(Some((_, bytes))) = poll_datagram(socket, &mut cx) {
        all.push(bytes);
    }
    all
}

/// A host with an identity and QUIC, and no overlay node.
#[derive(Clone)]
pub(super) struct Rogue {
    /// Its surroundings.
    pub node: Node,
    /// Its QUIC.
    pub quic: Quic,
    /// Its identity: as good as any.
    pub id: PeerId,
    /// Whose keys these are.
    keys: KeyHashes,
}

impl Rogue {
    /// A rogue at this seat.
    pub fn new(ow: &OverlayWorld, seat: u32) -> Result<Self, String> {
        Self::named(ow, seat, seat)
    }

    /// A rogue at this seat with the identity of that one.
    pub fn named(ow: &OverlayWorld, seat: u32, name: u32) -> Result<Self, String> {
        let (node, identity) = (ow.world.node(host(seat)), ow.identity(name)?);
        let tls = identity.tls(ALPN, Trust::Both).map_err(|error| error.to_string())?;
        let quic = node.quic(tls, QuicLimits::DEFAULT).map_err(|error| error.to_string())?;
        Ok(Self { node, quic, id: identity.peer_id(), keys: identity.hashes() })
    }

    async fn dial(&self, to: SocketAddr) -> Option<MuxConn> {
        self.quic.dial(to).await.ok()?.into_mux().ok()
    }

    /// First flights of so many dials, as they leave this host; nobody has answered them.
    pub async fn first_flights(&self, ow: &OverlayWorld, count: usize) -> Result<Vec<Vec<Bytes>>, String> {
        // The host dials itself, where somebody listens who never answers.
        ow.world.fabric().set_link(self.node.ip, self.node.ip, Link::LOOPBACK);
        let trap = ow.world.fabric().datagrams(self.node.ip).socket(self.node.at(PORT + 1));
        let trap = trap.map_err(|error| error.to_string())?;
        let mut flights = Vec::new();
        for _ in 0..count {
            let mut dial = self.quic.dial(self.node.at(PORT + 1));
            if ow.world.clock().timeout(MOMENT, &mut dial).await.is_some() {
                return Err("a dial that nobody answers has ended".into());
            }
            flights.push(drain(&trap));
            drop(dial);
            // What it says when it gives up is no part of the flight.
            ow.world.pass(MOMENT).await;
            drain(&trap);
        }
        Ok(flights)
    }

    /// Dials, proves its key, and never says hello; when it is thrown out, it comes again.
    pub fn loiter(&self, to: SocketAddr) {
        let rogue = self.clone();
        self.node.env.scope.spawn("loiterer", OnPanic::StopNode, async move {
            loop {
                if let Some(conn) = rogue.dial(to).await {
                    conn.mux.closed().await;
                }
                rogue.node.env.clock.sleep(Duration::from_millis(100)).await;
            }
        });
    }

    /// Has a session until somebody else has it under the same name, and then takes it back.
    pub fn haunt(&self, to: SocketAddr) {
        let rogue = self.clone();
        self.node.env.scope.spawn("twin", OnPanic::StopNode, async move {
            loop {
                // Whatever ends a session, the next one follows.
                let _ = rogue.one_session(to).await;
                rogue.node.env.clock.sleep(Duration::from_millis(100)).await;
            }
        });
    }

    async fn one_session(&self, to: SocketAddr) -> Option<()> {
        let conn = self.dial(to).await?;
        let mut stream = conn.mux.open().await.ok()?;
        stream.write.write_all(&self.hello(to).encode()).await.ok()?;
        conn.mux.closed().await;
        Some(())
    }

    /// Has a session, and sends so many messages in each hundredth of a second.
    pub fn flood(&self, to: SocketAddr, in_a_hundredth: u64) {
        let rogue = self.clone();
        self.node.env.scope.spawn("flooder", OnPanic::StopNode, async move {
            // Whatever ends it, the scenario sees by how much arrives.
            let _ = rogue.flooding(to, in_a_hundredth).await;
        });
    }

    async fn flooding(&self, to: SocketAddr, in_a_hundredth: u64) -> Option<()> {
        let conn = self.dial(to).await?;
        let mut stream = conn.mux.open().await.ok()?;
        stream.write.write_all(&self.hello(to).encode()).await.ok()?;
        let mut read = stream.read;
        self.node.env.scope.spawn("reader", OnPanic::StopNode, async move {
            // Answers are read and thrown away, so that they hold nobody up.
            let mut answers = [0; 4096];
            while read.read(&mut answers).await.is_ok_and(|count| count > 0) {}
        });
        let mut number = 0;
        loop {
            let mut batch = BytesMut::new();
            for _ in 0..in_a_hundredth {
                number += 1;
                let message = Message { number, topic: topic(), payload: Bytes::from_static(&[0; 100]) };
                Framing.frame(kind::MESSAGE, &message.encode(), &mut batch);
            }
            stream.write.write_all(&batch).await.ok()?;
            self.node.env.clock.sleep(Duration::from_millis(10)).await;
        }
    }

    fn hello(&self, observed: SocketAddr) -> Hello {
        Hello {
            version: hello::VERSION,
            min_version: hello::MIN_VERSION,
            network: network_id(NETWORK),
            capabilities: 0,
            incarnation: u64::from(self.node.number),
            attempt: 1,
            keys: self.keys,
            listen_port: 0,
            addrs: Vec::new(),
            observed: Some(observed),
            agent: "flooder".into(),
            extra: None,
        }
    }
}
