//! An in-memory transport. Listeners register addresses; a dial becomes a pipe of bytes at once, from whatever
//! source address the test chose.
//!
//! | a test can | with |
//! |---|---|
//! | give a node an IP | [`Switchboard::transport`] |
//! | be a peer by hand | [`Switchboard::connect`] |
//! | knock as QUIC does | [`Switchboard::knock`], [`Switchboard::half_open`] |
//! | give a node streams | [`Switchboard::mux_transport`] |
//! | reset a connection | [`Wire::reset`]: the other side sees `ConnectionReset`, also with bytes unread |
//! | make dials hang | [`Switchboard::blackhole`] |
//! | make accepting fail | [`Switchboard::fail_accept`] |
//! | count dials | [`Switchboard::dials`] |

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use rookery_runtime::BoxFuture;
use rookery_transport::{Arrival, Closed, Conn, Listener, Pending, StreamConn, Transport};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::mpsc;

use crate::knock::{self, Knock, Told};

/// Bytes that a connection holds each way before its writer waits: a small socket buffer, so that tests meet it.
pub const PIPE: usize = 64 * 1024;
/// Arrivals that a listener holds until they are accepted, as a kernel does.
const BACKLOG: usize = 4096;

/// What a listener gets.
enum Comes {
    Wire(Wire),
    Door(Box<dyn Pending>),
    Failure(io::ErrorKind),
}

#[derive(Debug, Default)]
struct State {
    listeners: BTreeMap<SocketAddr, mpsc::Sender<Comes>>,
    blackholes: Vec<SocketAddr>,
    dials: BTreeMap<SocketAddr, u64>,
    next_port: u16,
}

/// Where addresses meet. Cloning gives another handle to the same one.
#[derive(Debug, Clone, Default)]
pub struct Switchboard {
    state: Arc<Mutex<State>>,
}

impl Switchboard {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The transport of a node with this IP.
    pub fn transport(&self, ip: IpAddr) -> Arc<dyn Transport> {
        Arc::new(Node { board: self.clone(), ip, mux: false })
    }

    /// The same, but its dials knock first, answer a Retry, and become connections with streams.
    pub fn mux_transport(&self, ip: IpAddr) -> Arc<dyn Transport> {
        Arc::new(Node { board: self.clone(), ip, mux: true })
    }

    /// Knocks by hand. Let in, it shakes hands at once.
    pub fn knock(&self, from: SocketAddr, to: SocketAddr, validated: bool) -> io::Result<Knock> {
        let (knock, door) = knock::knock(from, to, validated, false);
        self.bring(to, Comes::Door(door)).map(|()| knock)
    }

    /// Knocks by hand. Let in, it never finishes its handshake.
    pub fn half_open(&self, from: SocketAddr, to: SocketAddr, validated: bool) -> io::Result<Knock> {
        let (knock, door) = knock::knock(from, to, validated, true);
        self.bring(to, Comes::Door(door)).map(|()| knock)
    }

    fn bring(&self, to: SocketAddr, comes: Comes) -> io::Result<()> {
        let mut state = self.lock();
        *state.dials.entry(to).or_default() += 1;
        let listener = state.listeners.get(&to).ok_or(io::ErrorKind::ConnectionRefused)?;
        listener.try_send(comes).map_err(|_| io::ErrorKind::ConnectionRefused.into())
    }

    /// Connects by hand. Refused when nobody listens at `to`, or its backlog is full.
    pub fn connect(&self, from: SocketAddr, to: SocketAddr) -> io::Result<Wire> {
        let (near, far) = Wire::pair(from, to);
        self.bring(to, Comes::Wire(far)).map(|()| near)
    }

    /// Dials to this address never complete.
    pub fn blackhole(&self, at: SocketAddr) {
        self.lock().blackholes.push(at);
    }

    /// The listener's next accept fails like this.
    pub fn fail_accept(&self, at: SocketAddr, kind: io::ErrorKind) {
        if let Some(listener) = self.lock().listeners.get(&at) {
            assert!(listener.try_send(Comes::Failure(kind)).is_ok(), "the backlog has room");
        }
    }

    /// How often an address was dialled.
    pub fn dials(&self, at: SocketAddr) -> u64 {
        self.lock().dials.get(&at).copied().unwrap_or(0)
    }

    fn port(&self) -> u16 {
        let mut state = self.lock();
        state.next_port = state.next_port.wrapping_add(1);
        // Above the well-known ports, as a system chooses them.
        20_000 + state.next_port % 40_000
    }
}

struct Node {
    board: Switchboard,
    ip: IpAddr,
    mux: bool,
}

impl Node {
    async fn knock(&self, from: SocketAddr, to: SocketAddr) -> io::Result<Conn> {
        let mut validated = false;
        loop {
            match self.board.knock(from, to, validated)?.told().await {
                Told::In(conn) => return Ok(Conn::Mux(conn)),
                Told::Refused => {
                    let closed = Closed::Broken("refused at the door".to_owned());
                    return Err(io::Error::new(io::ErrorKind::ConnectionRefused, closed));
                }
                Told::Retried => validated = true,
                Told::Ignored => std::future::pending().await,
            }
        }
    }
}

impl Transport for Node {
    fn listen(&self, at: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let port = if at.port() == 0 { self.board.port() } else { at.port() };
            let at = SocketAddr::new(at.ip(), port);
            let (tx, arrivals) = mpsc::channel(BACKLOG);
            let mut state = self.board.lock();
            if state.listeners.get(&at).is_some_and(|old| !old.is_closed()) {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            state.listeners.insert(at, tx);
            Ok(Box::new(Bound { at, arrivals }) as Box<dyn Listener>)
        })
    }

    fn dial(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<Conn>> {
        Box::pin(async move {
            let hangs = self.board.lock().blackholes.contains(&to);
            if hangs {
                *self.board.lock().dials.entry(to).or_default() += 1;
                std::future::pending::<()>().await;
            }
            let from = SocketAddr::new(self.ip, self.board.port());
            if self.mux {
                return self.knock(from, to).await;
            }
            self.board.connect(from, to).map(Wire::into_conn)
        })
    }
}

struct Bound {
    at: SocketAddr,
    arrivals: mpsc::Receiver<Comes>,
}

impl Listener for Bound {
    fn local_addr(&self) -> SocketAddr {
        self.at
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<Arrival>> {
        Box::pin(async move {
            match self.arrivals.recv().await {
                Some(Comes::Wire(wire)) => Ok(Arrival::Ready(wire.into_conn())),
                Some(Comes::Door(pending)) => Ok(Arrival::Pending(pending)),
                Some(Comes::Failure(kind)) => Err(kind.into()),
                None => std::future::pending().await,
            }
        })
    }
}

/// Whether a connection was reset, and who waits on it.
#[derive(Debug, Default)]
struct Cut {
    reset: bool,
    waiting: Vec<Waker>,
}

/// One end of a connection.
#[derive(Debug)]
pub struct Wire {
    stream: DuplexStream,
    cut: Arc<Mutex<Cut>>,
    /// The other end's address.
    pub remote: SocketAddr,
    /// This end's address.
    pub local: SocketAddr,
}

impl Wire {
    /// Both ends of a connection dialled from the first address to the second.
    pub fn pair(from: SocketAddr, to: SocketAddr) -> (Self, Self) {
        let (near, far) = tokio::io::duplex(PIPE);
        let cut = Arc::<Mutex<Cut>>::default();
        (
            Self { stream: near, cut: Arc::clone(&cut), remote: to, local: from },
            Self { stream: far, cut, remote: from, local: to },
        )
    }

    /// Breaks the connection: both ends fail from now on, unread bytes are lost.
    pub fn reset(self) {
        let waiting = {
            let mut cut = self.cut.lock().unwrap_or_else(PoisonError::into_inner);
            cut.reset = true;
            std::mem::take(&mut cut.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// The end as an engine takes it.
    pub fn into_conn(self) -> Conn {
        let (remote, local) = (self.remote, self.local);
        let (read, write) = tokio::io::split(self);
        Conn::Stream(StreamConn { remote, local, read: Box::new(read), write: Box::new(write) })
    }

    fn check(&self, cx: &Context<'_>) -> io::Result<()> {
        let mut cut = self.cut.lock().unwrap_or_else(PoisonError::into_inner);
        if cut.reset {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if !cut.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            cut.waiting.push(cx.waker().clone());
        }
        Ok(())
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn a_dial_arrives_with_its_source_and_bytes_pass_both_ways() {
        let board = Switchboard::default();
        let mut listener = board.transport(addr("1.1.1.1:0").ip()).listen(addr("1.1.1.1:80")).await.unwrap();
        let mut a = board
            .transport(addr("2.2.2.2:0").ip())
            .dial(addr("1.1.1.1:80"))
            .await
            .unwrap()
            .into_stream()
            .unwrap();
        let mut b = listener.accept().await.unwrap().connect().await.unwrap().into_stream().unwrap();
        assert_eq!((a.remote, b.remote.ip()), (addr("1.1.1.1:80"), addr("2.2.2.2:0").ip()));
        assert_eq!(board.dials(addr("1.1.1.1:80")), 1);
        a.write.write_all(b"ping").await.unwrap();
        let mut got = [0; 4];
        b.read.read_exact(&mut got).await.unwrap();
        drop(a);
        assert_eq!(b.read.read(&mut got).await.unwrap(), 0, "the end is orderly");
    }

    #[tokio::test]
    async fn a_reset_wakes_a_reader_and_loses_what_was_unread() {
        let (mut a, mut b) = Wire::pair(addr("1.1.1.1:1"), addr("2.2.2.2:2"));
        a.write_all(b"lost").await.unwrap();
        a.reset();
        assert_eq!(b.read(&mut [0; 4]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        let (a, mut b) = Wire::pair(addr("1.1.1.1:1"), addr("2.2.2.2:2"));
        let mut buf = [0; 4];
        let (read, ()) = tokio::join!(b.read(&mut buf), async move { a.reset() });
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn nobody_listening_is_a_refusal() {
        let board = Switchboard::default();
        let refused = board.connect(addr("1.1.1.1:1"), addr("2.2.2.2:2"));
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
