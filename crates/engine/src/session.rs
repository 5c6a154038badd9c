//! What others hold of a session: a way to close it, a way to send it commands, and numbers to look at.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rookery_base::{CloseCause, Direction, Generation};
use rookery_transport::Mux;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use crate::{Command, Ledger};

/// Commands that wait for one peer. A reactor sends a peer one command per event it got from it, and one per
/// announcement; a peer that is 32 behind does not keep up, and the sender is told.
pub const MAIL: usize = 32;

/// Ends a session. The first cause wins and is what everybody reports.
#[derive(Debug, Clone, Default)]
pub struct Closer {
    cause: Arc<OnceLock<CloseCause>>,
    token: CancellationToken,
}

impl Closer {
    /// Ends the session for this cause, unless it is ending already. True when this cause won.
    pub fn close(&self, cause: CloseCause) -> bool {
        let won = self.cause.set(cause).is_ok();
        self.token.cancel();
        won
    }

    /// The cause, once the session is ending.
    pub fn cause(&self) -> Option<&CloseCause> {
        self.cause.get()
    }

    /// Completes when the session is to end.
    pub fn closed(&self) -> WaitForCancellationFuture<'_> {
        self.token.cancelled()
    }
}

/// What a routine is sent.
pub(crate) enum Mail {
    /// For the pipe of a service.
    Command(usize, Command),
    /// A look at the ledger.
    Inspect(oneshot::Sender<Ledger>),
}

/// What became of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a command that was not accepted did not reach the peer"]
pub enum Pushed {
    /// The routine will get it, unless the session ends first.
    Accepted,
    /// The peer does not keep up.
    Full,
    /// The session has ended.
    Gone,
}

/// A session, as a service's reactor holds it. Stamped with its generation: it cannot reach a later session.
#[derive(Clone)]
pub struct PeerHandle {
    /// The session's generation.
    pub generation: Generation,
    /// The peer's address.
    pub addr: SocketAddr,
    /// Who dialled.
    pub direction: Direction,
    pub(crate) service: usize,
    pub(crate) mail: mpsc::Sender<Mail>,
    pub(crate) closer: Closer,
    pub(crate) stats: Arc<PeerStats>,
    pub(crate) mux: Option<Arc<dyn Mux>>,
}

impl PeerHandle {
    /// A handle that leads nowhere, to test a pipe with.
    pub fn detached(generation: Generation, addr: SocketAddr, direction: Direction) -> Self {
        let (mail, _) = mpsc::channel(1);
        Self {
            generation,
            addr,
            direction,
            service: 0,
            mail,
            closer: Closer::default(),
            stats: Arc::default(),
            mux: None,
        }
    }

    /// The connection's further streams, where it has any. They end with the session.
    pub fn mux(&self) -> Option<&Arc<dyn Mux>> {
        self.mux.as_ref()
    }

    /// Hands a command to this service's pipe. Never waits.
    pub fn push(&self, command: Command) -> Pushed {
        match self.mail.try_send(Mail::Command(self.service, command)) {
            Ok(()) => Pushed::Accepted,
            Err(mpsc::error::TrySendError::Full(_)) => Pushed::Full,
            Err(mpsc::error::TrySendError::Closed(_)) => Pushed::Gone,
        }
    }

    /// Ends the session, unless it is ending already.
    pub fn close(&self, cause: CloseCause) {
        self.closer.close(cause);
    }

    /// The last round-trip time that was measured.
    pub fn rtt(&self) -> Option<Duration> {
        self.stats.rtt()
    }

    /// The same session, for the service of this place among its network's: commands go to that one's pipe.
    pub fn for_service(&self, service: usize) -> Self {
        Self { service, ..self.clone() }
    }

    pub(crate) async fn ledger(&self) -> Option<Ledger> {
        let (tell, told) = oneshot::channel();
        self.mail.try_send(Mail::Inspect(tell)).ok()?;
        told.await.ok()
    }
}

impl std::fmt::Debug for PeerHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.generation, self.addr)
    }
}

/// Numbers that a routine and its writer keep for whoever looks. Written by them alone.
#[derive(Debug, Default)]
pub struct PeerStats {
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    pub(crate) frames_in: AtomicU64,
    pub(crate) frames_out: AtomicU64,
    /// Microseconds; 0 while none was measured.
    pub(crate) rtt_us: AtomicU64,
    pub(crate) score: AtomicU32,
    pub(crate) requests: AtomicU32,
    pub(crate) parked: AtomicBool,
}

impl PeerStats {
    fn rtt(&self) -> Option<Duration> {
        match self.rtt_us.load(Relaxed) {
            0 => None,
            us => Some(Duration::from_micros(us)),
        }
    }
}

/// One session, as views show it.
#[derive(Debug, Clone, serde::Serialize)]
pub struct PeerView {
    /// The session's generation.
    pub generation: u64,
    /// The peer's address.
    pub addr: SocketAddr,
    /// `in` or `out`.
    pub direction: &'static str,
    /// Its user agent.
    pub agent: String,
    /// Its protocol version.
    pub version: u32,
    /// The height that it claimed in its handshake.
    pub height: u32,
    /// Seconds since the session began.
    pub seconds: u64,
    /// The last round-trip time in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// Messages received.
    pub frames_in: u64,
    /// Messages sent.
    pub frames_out: u64,
    /// Points towards the ban threshold of 100.
    pub score: u32,
    /// Requests that wait for the peer.
    pub requests: u32,
    /// Whether reading from it waits for room further in.
    pub parked: bool,
}

impl PeerView {
    pub(crate) fn fill(&mut self, stats: &PeerStats) {
        self.rtt_ms = stats.rtt().map(|rtt| rtt.as_secs_f64() * 1e3);
        self.bytes_in = stats.bytes_in.load(Relaxed);
        self.bytes_out = stats.bytes_out.load(Relaxed);
        self.frames_in = stats.frames_in.load(Relaxed);
        self.frames_out = stats.frames_out.load(Relaxed);
        self.score = stats.score.load(Relaxed);
        self.requests = stats.requests.load(Relaxed);
        self.parked = stats.parked.load(Relaxed);
    }
}
