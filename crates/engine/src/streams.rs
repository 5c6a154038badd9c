//! A connection's further streams, and its end.
//!
//! Beside its ordered messages a session may have streams, on transports that bring them. Those that the peer opens go to
//! the network's [`StreamService`]; those that we open are opened through the session's handle. All end with the
//! session: it closes the connection, with the reason.
//!
//! A connection's end is told once for all of its streams. A session that ends gives none of its ordered stream up before it
//! has closed the connection ([`Line`]), and what meets the end of a stream first asks whether that is the end of the
//! connection ([`hear_out`], [`last_words`]): otherwise a goodbye is a broken stream whenever it comes in another datagram.

use std::sync::Arc;
use std::time::Duration;

use rookery_base::CloseCause;
use rookery_runtime::{Clock, Env};
use rookery_transport::{Mux, ReadHalf, WriteHalf, cause_of};
use tokio::sync::oneshot;

use crate::session::Closer;
use crate::{Network, StreamPeer, StreamService};

/// How long a connection may take to end after one of its streams has: a goodbye comes with it or is said again within
/// 700 ms.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Whether a stream's end tells less than its connection's may.
const fn may_say_more(cause: &CloseCause) -> bool {
    matches!(cause, CloseCause::PeerClosed | CloseCause::Broken(_))
}

/// Why a handshake has failed: what the connection says where it ends too, or else what its stream has met.
pub(crate) async fn last_words(clock: Clock, mux: &dyn Mux, met: CloseCause) -> CloseCause {
    if !may_say_more(&met) {
        return met;
    }
    clock.timeout(LAST_WORDS, mux.closed()).await.map_or(met, CloseCause::from)
}

/// Waits for the session to end with its connection, where that may say more than what its ordered stream has met. Cut short by
/// a stop, after which there is nobody to hear it.
pub(crate) async fn hear_out(env: &Env, closer: &Closer, met: &CloseCause) {
    if may_say_more(met) {
        let heard = async {
            tokio::select! {
                () = closer.closed() => {}
                () = env.scope.cancelled() => {}
            }
        };
        // Without more words it ends for what it has met.
        let _ = env.clock.timeout(LAST_WORDS, heard).await;
    }
}

/// Hands the streams that a peer opens to their service, until the connection ends: then the session ends for the same
/// cause, also while its reading is parked.
pub(crate) async fn run(mux: Arc<dyn Mux>, service: Option<Arc<dyn StreamService>>, peer: StreamPeer) {
    let cause = match service {
        None => mux.closed().await.into(),
        Some(service) => loop {
            match mux.accept().await {
                Ok(stream) => service.accept(&peer, stream),
                Err(error) => break cause_of(&error),
            }
        },
    };
    peer.handle.close(cause);
}

/// What a writer writes to. Its fields are dropped in this order: a stream that is given up before its connection has ended is
/// one that broke.
pub(crate) struct Line {
    /// None where the connection is its one stream, whose end says all.
    pub hangup: Option<Hangup>,
    pub write: WriteHalf,
}

/// Closes the connection with the session's cause when it is dropped. The writer holds it, so that what is still queued is
/// written first.
pub(crate) struct Hangup {
    mux: Arc<dyn Mux>,
    network: Arc<dyn Network>,
    closer: Closer,
    /// What the routine does not read any more: given up after the connection.
    _unread: oneshot::Receiver<ReadHalf>,
}

impl Hangup {
    /// One, and where the routine leaves what it does not read any more.
    pub fn new(
        mux: Arc<dyn Mux>,
        network: Arc<dyn Network>,
        closer: Closer,
    ) -> (Self, oneshot::Sender<ReadHalf>) {
        let (leave, unread) = oneshot::channel();
        (Self { mux, network, closer, _unread: unread }, leave)
    }
}

impl Drop for Hangup {
    fn drop(&mut self) {
        let unsaid = CloseCause::Panic;
        let (code, reason) = self.network.goodbye(self.closer.cause().unwrap_or(&unsaid));
        self.mux.close(code, &reason);
    }
}
