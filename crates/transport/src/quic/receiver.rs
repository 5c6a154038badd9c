//! A socket that a thread of its own drains.
//!
//! A kernel that gives a small receive buffer holds fewer than a hundred full datagrams (each counts with its bookkeeping), and a
//! runtime whose threads are all in handshakes comes back to the socket after milliseconds: in a storm the rest is lost. So one
//! thread does nothing but move what arrives into a bounded [`Ring`] in our memory, and quinn reads that.
//!
//! ```text
//! socket -> thread "udp receiver" -> Ring -> poll_recv -> quinn
//!        <--------------------------------- try_send <---
//! ```
//!
//! The thread waits in the operating system's poll, in a runtime of its own that has nothing else to do; the socket is registered
//! there only, so that arrivals do not wake the node's runtime twice. It ends at the word of whoever runs it, or when the socket's
//! last handle is dropped, and by itself on an error, which the reader of the socket then gets.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use quinn::udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncUdpSocket, UdpPoller};
use rookery_runtime::Env;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::ring::{Received, Ring, RingLimits};

/// Bytes of each buffer of a read: the largest datagram, which is also the most that the kernel joins.
const LARGEST: usize = 64 << 10;

/// What the thread and the socket's handle share.
#[derive(Debug)]
struct Shared {
    io: UdpSocket,
    system: UdpSocketState,
    ring: Ring,
}

/// Drains a socket, once it is run.
#[must_use = "without it the socket receives nothing"]
pub struct Receiver {
    shared: Arc<Shared>,
    /// The socket's handle is gone.
    abandoned: CancellationToken,
    /// There until it is dropped.
    runtime: Option<Runtime>,
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("socket", &self.shared.io).finish_non_exhaustive()
    }
}

/// A bound socket as quinn uses it, and what has to be run for it to receive.
pub(super) fn drained(
    socket: std::net::UdpSocket,
    limits: RingLimits,
) -> io::Result<(Arc<dyn AsyncUdpSocket>, Receiver)> {
    let runtime = Builder::new_current_thread().enable_io().build()?;
    let system = UdpSocketState::new((&socket).into())?;
    let io = {
        let _here = runtime.enter();
        UdpSocket::from_std(socket)?
    };
    let shared = Arc::new(Shared { io, system, ring: Ring::new(limits) });
    let abandoned = CancellationToken::new();
    let receiver =
        Receiver { shared: Arc::clone(&shared), abandoned: abandoned.clone(), runtime: Some(runtime) };
    Ok((Arc::new(Drained { shared, _held: abandoned.drop_guard() }), receiver))
}

impl Receiver {
    /// Starts the thread in `env`'s scope. It ends as soon as `until` is cancelled.
    pub(super) fn start(self, env: &Env, until: CancellationToken) {
        let metrics = Arc::clone(&env.metrics);
        env.scope.thread("udp receiver", move || {
            self.run(&until, |dropped| {
                metrics.udp_ring_dropped.inc_by(dropped);
            });
        });
    }

    fn run(self, until: &CancellationToken, dropped: impl Fn(u64)) {
        let runtime = self.runtime.as_ref().expect("a receiver has its runtime until it is dropped");
        let ended = runtime.block_on(async {
            tokio::select! {
                biased;
                () = until.cancelled() => Ok(()),
                () = self.abandoned.cancelled() => Ok(()),
                failed = self.shared.drain(dropped) => failed,
            }
        });
        if let Err(error) = ended {
            tracing::error!(%error, "a UDP socket can no longer be read");
            self.shared.ring.end(error);
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.shared.ring.end(io::Error::new(io::ErrorKind::NotConnected, "this socket's receiver has ended"));
        if let Some(runtime) = self.runtime.take() {
            // Dropped in place it would wait for its threads, which it has not, and refuse to do that in a task.
            runtime.shutdown_background();
        }
    }
}

impl Shared {
    /// Moves what arrives into the ring, until reading fails.
    async fn drain(&self, dropped: impl Fn(u64)) -> io::Result<()> {
        let mut space = vec![0; LARGEST * BATCH_SIZE];
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        loop {
            self.io.readable().await?;
            let read = self.io.try_io(Interest::READABLE, || {
                let mut chunks = space.chunks_mut(LARGEST).map(IoSliceMut::new);
                let mut slices: [_; BATCH_SIZE] =
                    std::array::from_fn(|_| chunks.next().expect("the space has a chunk for each"));
                self.system.recv((&self.io).into(), &mut slices, &mut metas)
            });
            match read {
                Ok(count) => {
                    let batch: Vec<Received> = metas[..count]
                        .iter()
                        .zip(space.chunks(LARGEST))
                        .map(|(meta, bytes)| Received { meta: *meta, bytes: bytes[..meta.len].into() })
                        .collect();
                    match self.ring.push(batch) {
                        0 => {}
                        lost => dropped(lost),
                    }
                }
                // The second is what some systems say when an earlier datagram of ours found nobody: anyone could cause it.
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionReset) => {
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// quinn's handle to a socket that a [`Receiver`] drains.
#[derive(Debug)]
struct Drained {
    shared: Arc<Shared>,
    /// Ends the receiver when this is dropped.
    _held: DropGuard,
}

impl AsyncUdpSocket for Drained {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable { shared: Arc::clone(&self.shared), waiting: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let Shared { io, system, .. } = &*self.shared;
        io.try_io(Interest::WRITABLE, || system.send(io.into(), transmit))
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut next = Some(ready!(self.shared.ring.poll_pop(cx))?);
        let mut count = 0;
        for (buffer, meta) in bufs.iter_mut().zip(meta) {
            let Some(received) = next.take().or_else(|| self.shared.ring.pop()) else { break };
            // What is longer than quinn expects is cut, as it would be by the kernel.
            let len = received.bytes.len().min(buffer.len());
            buffer[..len].copy_from_slice(&received.bytes[..len]);
            *meta = RecvMeta { len, ..received.meta };
            count += 1;
        }
        Poll::Ready(Ok(count))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.shared.io.local_addr()
    }

    fn may_fragment(&self) -> bool {
        self.shared.system.may_fragment()
    }

    fn max_transmit_segments(&self) -> usize {
        self.shared.system.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.shared.system.gro_segments()
    }
}

type Waiting = Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>;

/// Waits until a socket takes something to send; there is one for each task that sends.
struct Writable {
    shared: Arc<Shared>,
    waiting: Option<Waiting>,
}

impl fmt::Debug for Writable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writable").finish_non_exhaustive()
    }
}

impl UdpPoller for Writable {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { shared, waiting } = &mut *self;
        let future = waiting.get_or_insert_with(|| {
            let shared = Arc::clone(shared);
            Box::pin(async move { shared.io.writable().await })
        });
        let ready = future.as_mut().poll(cx);
        if ready.is_ready() {
            *waiting = None;
        }
        ready
    }
}

#[cfg(test)]
mod tests;
