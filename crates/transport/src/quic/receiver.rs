//! A socket whose reader has help.
//!
//! A kernel that gives a small receive buffer holds fewer than a hundred full datagrams (each counts with its bookkeeping), and a
//! runtime whose threads are all in handshakes comes back to the socket after milliseconds: in a storm the rest is lost. So a
//! thread looks after the socket: what has waited there for longer than its [`patience`] it moves into a bounded [`Ring`] in our
//! memory.
//!
//! ```text
//! socket ------------------------------------> poll_recv -> quinn
//!    '--> thread "udp receiver" --> Ring -------^
//! ```
//!
//! Whoever reads, reads in turn, and the ring before the socket: datagrams reach quinn in the order of arrival. A runtime that
//! comes in time reads everything itself, at the cost of one look of the thread for each patience in which something came;
//! having the thread carry every datagram would double the wake-ups of a storm.
//!
//! The thread waits in the operating system's poll. It ends at the word of whoever runs it, or when quinn's handle to the socket
//! is dropped, and by itself on an error, which the reader of the socket then gets.

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{self, Context, ready};
use std::thread;
use std::time::Duration;

use mio::{Events, Interest, Poll, Token, Waker};
use quinn::udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncUdpSocket, Runtime as _, TokioRuntime, UdpPoller};
use rookery_runtime::{Env, OnPanic};
use tokio_util::sync::CancellationToken;

use super::lock;
use super::ring::{Received, Ring, RingLimits};

/// Bytes of each buffer of a read: the largest datagram, which is also the most that the kernel joins.
const LARGEST: usize = 64 << 10;
/// What a line of 1 Gbit/s brings in a millisecond, as the kernel counts it: 100 full datagrams with their bookkeeping.
const LINE: usize = 100 * 2304;
/// The longest that the node's runtime has for what arrives, however much the socket holds: a thread that looks 200 times a second
/// costs nothing, and one that looks less often helps late.
const PATIENCE: Duration = Duration::from_millis(5);

/// How long the node's runtime has for what arrives: until a line of 1 Gbit/s has filled a quarter of the socket's buffer, for the
/// thread itself may be kept waiting. With Linux's default buffer this is a quarter of a millisecond.
fn patience(receive_buffer: usize) -> Duration {
    Duration::from_millis(1).mul_f64((receive_buffer / 4) as f64 / LINE as f64).min(PATIENCE)
}

/// What the thread and the socket's handle share.
#[derive(Debug)]
struct Shared {
    ring: Ring,
    /// Held by whoever reads the socket, so that what was read first is first in the ring as well.
    turn: Mutex<()>,
}

/// What the thread is woken for.
const ARRIVALS: Token = Token(0);
const END: Token = Token(1);

/// Looks after a socket, once it is started.
#[must_use = "a socket whose receiver is dropped receives nothing"]
#[derive(Debug)]
pub struct Receiver {
    shared: Arc<Shared>,
    poll: Poll,
    /// Wakes the thread at its end. As long as the poll lives: a dropped one takes its word back.
    waker: Arc<Waker>,
    /// The thread's own handle to the socket. It waits for arrivals only: each departure would wake it as well.
    socket: mio::net::UdpSocket,
    system: UdpSocketState,
    patience: Duration,
    /// It has nothing more to do.
    over: CancellationToken,
}

/// Ends a thread when it is dropped.
#[derive(Debug)]
struct End {
    over: CancellationToken,
    waker: Arc<Waker>,
}

impl Drop for End {
    fn drop(&mut self) {
        self.over.cancel();
        if let Err(error) = self.waker.wake() {
            tracing::error!(%error, "cannot wake the thread of a UDP socket; it ends with the next arrival");
        }
    }
}

/// A bound socket with this many bytes of receive buffer, as quinn uses it, and who helps to read it. Needs a tokio runtime, whose
/// poll the socket is put into.
pub(super) fn helped(
    socket: UdpSocket,
    receive_buffer: usize,
    limits: RingLimits,
) -> io::Result<(Arc<dyn AsyncUdpSocket>, Receiver)> {
    let mut again = mio::net::UdpSocket::from_std(socket.try_clone()?);
    let inner = TokioRuntime.wrap_udp_socket(socket)?;
    let system = UdpSocketState::new((&again).into())?;
    let poll = Poll::new()?;
    poll.registry().register(&mut again, ARRIVALS, Interest::READABLE)?;
    let waker = Arc::new(Waker::new(poll.registry(), END)?);
    let shared = Arc::new(Shared { ring: Ring::new(limits), turn: Mutex::default() });
    let over = CancellationToken::new();
    let end = End { over: over.clone(), waker: Arc::clone(&waker) };
    let receiver = Receiver {
        shared: Arc::clone(&shared),
        poll,
        waker,
        socket: again,
        system,
        patience: patience(receive_buffer),
        over,
    };
    Ok((Arc::new(Helped { inner, shared, _end: end }), receiver))
}

impl Receiver {
    /// Starts the thread in `env`'s scope. It ends as soon as `until` is cancelled.
    pub(super) fn start(mut self, env: &Env, until: CancellationToken) {
        let end = End { over: self.over.clone(), waker: Arc::clone(&self.waker) };
        env.scope.spawn_to_end("udp receiver's end", OnPanic::StopNode, async move {
            tokio::select! {
                () = until.cancelled() => {}
                () = end.over.cancelled() => {}
            }
            drop(end);
        });
        let metrics = Arc::clone(&env.metrics);
        env.scope.thread("udp receiver", move || {
            let ended = self.run(|dropped| {
                metrics.udp_ring_dropped.inc_by(dropped);
            });
            if let Err(error) = ended {
                tracing::error!(%error, "a UDP socket can no longer be read");
                self.shared.ring.end(error);
            }
        });
    }

    /// Moves what has waited for too long into the ring, until it is over.
    fn run(&mut self, dropped: impl Fn(u64)) -> io::Result<()> {
        let mut events = Events::with_capacity(2);
        let mut space = vec![0; LARGEST * BATCH_SIZE];
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            // The thread has nothing else to do, and hears of its end this much later.
            thread::park_timeout(self.patience);
            loop {
                if self.over.is_cancelled() {
                    return Ok(());
                }
                match self.read(&mut space) {
                    Ok(0) => {}
                    Ok(lost) => dropped(lost),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // What some systems say when an earlier datagram of ours found nobody: anyone could cause it.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// One read of the socket into the ring, in turn. Gives the number of datagrams that the ring had no room for.
    fn read(&self, space: &mut [u8]) -> io::Result<u64> {
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        let mut chunks = space.chunks_mut(LARGEST).map(IoSliceMut::new);
        let mut slices: [_; BATCH_SIZE] =
            std::array::from_fn(|_| chunks.next().expect("the space has a chunk for each"));
        let _turn = lock(&self.shared.turn);
        let read = || self.system.recv((&self.socket).into(), &mut slices, &mut metas);
        let count = self.socket.try_io(read)?;
        let batch = metas[..count].iter().zip(&slices);
        let batch = batch.map(|(meta, bytes)| Received { meta: *meta, bytes: bytes[..meta.len].into() });
        let batch: Vec<_> = batch.collect();
        Ok(self.shared.ring.push(batch))
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.shared.ring.end(io::Error::new(io::ErrorKind::NotConnected, "this socket's receiver has ended"));
    }
}

/// quinn's handle to a socket that a [`Receiver`] looks after.
#[derive(Debug)]
struct Helped {
    inner: Arc<dyn AsyncUdpSocket>,
    shared: Arc<Shared>,
    /// Ends the receiver when this is dropped.
    _end: End,
}

impl AsyncUdpSocket for Helped {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.inner.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> task::Poll<io::Result<usize>> {
        let mut first = self.shared.ring.poll_pop(cx);
        if first.is_pending() {
            // Only the socket is read in turn: whatever is in the ring came before everything else.
            let _turn = lock(&self.shared.turn);
            first = self.shared.ring.poll_pop(cx);
            if first.is_pending() {
                return self.inner.poll_recv(cx, bufs, metas);
            }
        }
        let mut next = Some(ready!(first)?);
        let mut count = 0;
        for (buffer, meta) in bufs.iter_mut().zip(metas) {
            let Some(received) = next.take().or_else(|| self.shared.ring.pop()) else { break };
            // What is longer than quinn expects is cut, as it would be by the kernel.
            let len = received.bytes.len().min(buffer.len());
            buffer[..len].copy_from_slice(&received.bytes[..len]);
            *meta = RecvMeta { len, ..received.meta };
            count += 1;
        }
        task::Poll::Ready(Ok(count))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }
}

#[cfg(test)]
mod tests;
