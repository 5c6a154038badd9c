//! Arrivals that wait at a listener's door, as QUIC's do, and the connection with streams behind it.
//!
//! What the listener does to one is told to whoever knocked. A connection's streams are in-memory pipes; closing it ends
//! it for both sides, with the closer's code and words, and so does dropping the last handle of a side.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use rookery_runtime::BoxFuture;
use rookery_transport::{Closed, Entering, Mux, MuxConn, MuxStats, MuxStream, Pending};
use tokio::io::{AsyncRead, DuplexStream, ReadBuf, ReadHalf};
use tokio::sync::{Mutex, mpsc, oneshot, watch};

use crate::switchboard::PIPE;

/// Streams that wait until the other side accepts them.
const STREAMS: usize = 16;

/// What was done to an arrival.
pub enum Told {
    /// It has to prove its address.
    Retried,
    /// It is not let in.
    Refused,
    /// Nothing: it was ignored, or its handshake was given up.
    Ignored,
    /// It was let in, and this is its end of the connection.
    In(MuxConn),
}

impl Told {
    /// The connection of one that was let in.
    pub fn conn(self) -> Option<MuxConn> {
        match self {
            Self::In(conn) => Some(conn),
            _ => None,
        }
    }
}

/// Whoever knocked.
pub struct Knock(oneshot::Receiver<Told>);

impl Knock {
    /// Waits until something was done to the arrival.
    pub async fn told(self) -> Told {
        self.0.await.unwrap_or(Told::Ignored)
    }

    /// What was done to it already.
    pub fn try_told(&mut self) -> Option<Told> {
        match self.0.try_recv() {
            Ok(told) => Some(told),
            Err(oneshot::error::TryRecvError::Closed) => Some(Told::Ignored),
            Err(oneshot::error::TryRecvError::Empty) => None,
        }
    }
}

struct Door {
    remote: SocketAddr,
    local: SocketAddr,
    validated: bool,
    half_open: bool,
    tell: oneshot::Sender<Told>,
}

pub(crate) fn knock(
    from: SocketAddr,
    to: SocketAddr,
    validated: bool,
    half_open: bool,
) -> (Knock, Box<dyn Pending>) {
    let (tell, told) = oneshot::channel();
    (Knock(told), Box::new(Door { remote: from, local: to, validated, half_open, tell }))
}

impl Pending for Door {
    fn remote(&self) -> SocketAddr {
        self.remote
    }

    fn validated(&self) -> bool {
        self.validated
    }

    fn retry(self: Box<Self>) {
        // Whoever knocked may have gone, here and below.
        let _ = self.tell.send(if self.validated { Told::Refused } else { Told::Retried });
    }

    fn refuse(self: Box<Self>) {
        let _ = self.tell.send(Told::Refused);
    }

    fn ignore(self: Box<Self>) {
        let _ = self.tell.send(Told::Ignored);
    }

    fn accept(self: Box<Self>) -> Entering {
        let Self { remote, local, half_open, tell, .. } = *self;
        let (near, far) = pair(remote, local);
        let ending = Arc::clone(&far.mux);
        let conn = Box::pin(async move {
            if half_open {
                std::future::pending::<()>().await;
            }
            tell.send(Told::In(near)).map_err(|_| io::Error::from(io::ErrorKind::ConnectionReset))?;
            Ok(rookery_transport::Conn::Mux(far))
        });
        Entering { conn, farewell: Some(Box::new(move |code, reason| ending.close(code, reason))) }
    }
}

/// Both ends of a connection dialled from the first address to the second.
pub fn pair(from: SocketAddr, to: SocketAddr) -> (MuxConn, MuxConn) {
    let ended = Arc::new(watch::Sender::new(None));
    let (to_far, at_far) = mpsc::channel(STREAMS);
    let (to_near, at_near) = mpsc::channel(STREAMS);
    let end = |dialled, opens, opened| End {
        dialled,
        ended: Arc::clone(&ended),
        opens,
        opened: Mutex::new(opened),
    };
    let (near, far) = (end(true, to_far, at_near), end(false, to_near, at_far));
    let conn = |remote, local, end: End| MuxConn { remote, local, proof: Bytes::new(), mux: Arc::new(end) };
    (conn(to, from, near), conn(from, to, far))
}

/// Who closed, with what code and words.
type Ended = Arc<watch::Sender<Option<(bool, u32, String)>>>;

struct End {
    dialled: bool,
    ended: Ended,
    opens: mpsc::Sender<MuxStream>,
    opened: Mutex<mpsc::Receiver<MuxStream>>,
}

fn closed_for(dialled: bool, ended: &Ended) -> Option<Closed> {
    ended.borrow().as_ref().map(|(by, code, reason)| match *by == dialled {
        true => Closed::ByUs,
        false => Closed::ByPeer { code: *code, reason: reason.clone() },
    })
}

impl End {
    fn half(&self, stream: DuplexStream, dialled: bool) -> MuxStream {
        let (read, write) = tokio::io::split(stream);
        let read = Reading { read, dialled, ended: Arc::clone(&self.ended) };
        MuxStream { read: Box::new(read), write: Box::new(write) }
    }

    fn error(&self) -> io::Error {
        io::Error::other(closed_for(self.dialled, &self.ended).unwrap_or(Closed::ByUs))
    }
}

impl Mux for End {
    fn open(&self) -> BoxFuture<'_, io::Result<MuxStream>> {
        Box::pin(async move {
            let (near, far) = tokio::io::duplex(PIPE);
            let far = self.half(far, !self.dialled);
            tokio::select! {
                biased;
                _ = self.closed() => Err(self.error()),
                sent = self.opens.send(far) => {
                    sent.map_err(|_| self.error()).map(|()| self.half(near, self.dialled))
                }
            }
        })
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<MuxStream>> {
        Box::pin(async move {
            let mut opened = self.opened.lock().await;
            tokio::select! {
                biased;
                _ = self.closed() => Err(self.error()),
                stream = opened.recv() => stream.ok_or_else(|| self.error()),
            }
        })
    }

    fn close(&self, code: u32, reason: &str) {
        self.ended.send_if_modified(|ended| {
            let first = ended.is_none();
            ended.get_or_insert_with(|| (self.dialled, code, reason.to_owned()));
            first
        });
    }

    fn closed(&self) -> BoxFuture<'_, Closed> {
        Box::pin(async move {
            let mut ended = self.ended.subscribe();
            // The sender is in our own hands.
            let _ = ended.wait_for(Option::is_some).await;
            closed_for(self.dialled, &self.ended).unwrap_or(Closed::ByUs)
        })
    }

    fn export_keying_material(&self, out: &mut [u8], label: &[u8], context: &[u8]) -> io::Result<()> {
        // Alike on both ends and unlike on other connections, which is all that tests need.
        let seed = Arc::as_ptr(&self.ended).addr();
        for (n, byte) in out.iter_mut().enumerate() {
            let mixed = label.iter().chain(context).fold(seed.wrapping_add(n), |hash, byte| {
                hash.wrapping_mul(0x0100_0000_01b3) ^ usize::from(*byte)
            });
            *byte = (mixed >> 24) as u8;
        }
        Ok(())
    }

    fn stats(&self) -> MuxStats {
        let remote = SocketAddr::from(([0, 0, 0, 0], 0));
        MuxStats { remote, rtt: Duration::ZERO, sent: 0, received: 0, lost: 0, mtu: 1200 }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.close(0, "");
    }
}

/// A stream's reading half, which tells an end of the connection from an end of the stream.
struct Reading {
    read: ReadHalf<DuplexStream>,
    dialled: bool,
    ended: Ended,
}

impl AsyncRead for Reading {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.read).poll_read(cx, buf);
        let over = matches!(read, Poll::Ready(Ok(()))) && buf.filled().len() == before;
        match closed_for(self.dialled, &self.ended).filter(|_| over) {
            Some(closed) => Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, closed))),
            None => read,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn both_ends_see_streams_and_the_first_closer_tells_the_other_why() {
        let at = |port| SocketAddr::from(([1, 1, 1, 1], port));
        let (near, far) = pair(at(1), at(2));
        let mut ours = near.mux.open().await.unwrap();
        ours.write.write_all(b"hello").await.unwrap();
        let mut theirs = far.mux.accept().await.unwrap();
        let mut got = [0; 5];
        theirs.read.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"hello");
        let (mut a, mut b) = ([0; 8], [0; 8]);
        near.mux.export_keying_material(&mut a, b"x", b"").unwrap();
        far.mux.export_keying_material(&mut b, b"x", b"").unwrap();
        assert_eq!(a, b);
        far.mux.close(3, "full");
        near.mux.close(9, "late");
        let told = Closed::ByPeer { code: 3, reason: "full".to_owned() };
        assert_eq!((near.mux.closed().await, far.mux.closed().await), (told, Closed::ByUs));
        drop(theirs);
        let error = ours.read.read(&mut got).await.unwrap_err();
        assert!(error.get_ref().unwrap().is::<Closed>());
    }
}
