//! Writes a peer's outbox to its connection, and closes a peer that does not read.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::BytesMut;
use rookery_base::{CloseCause, PeerFault, PeerFaultKind};
use rookery_observe::metrics::Message;
use rookery_runtime::{Env, Instant};
use rookery_transport::{WriteHalf, cause_of};
use tokio::io::AsyncWriteExt;

use crate::outbox::OutQueue;
use crate::session::{Closer, PeerStats};
use crate::streams::{Line, hear_out};
use crate::{Enframe, KindTable};

/// Messages are gathered up to this many bytes for one write.
const GATHER: usize = 32 * 1024;
/// A peer that takes no byte for this long does not read: hsd's response timeout.
const STALL: Duration = Duration::from_secs(30);
/// Time to hand over everything that is queued when a session ends, and again to close the connection, inside the five
/// seconds in which a node stops. In all, not per write: a peer that takes a byte now and then could draw it out.
const FLUSH: Duration = Duration::from_secs(1);

/// Tells the routine that its writer has panicked, before the scope's cancellation could pass for a stop.
struct Blame(Closer);

impl Drop for Blame {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.close(CloseCause::Panic);
        }
    }
}

/// Ends when the queue is closed and written, or when the connection fails; then it hangs up.
pub(crate) async fn run(
    env: Env,
    queue: Arc<OutQueue>,
    mut link: Box<dyn Enframe>,
    mut line: Line,
    table: KindTable,
    stats: Arc<PeerStats>,
    closer: Closer,
) {
    let _blame = Blame(closer.clone());
    let mut flush_until = None;
    while let Some(first) = queue.next().await {
        // Anew for each gathering: what has been said must not keep its memory on a peer that is quiet from then on.
        let mut buffer = BytesMut::new();
        let mut next = Some(first);
        while let Some((kind, body)) = next {
            let before = buffer.len();
            link.frame(kind, &body, &mut buffer);
            let name = table.find(kind).map_or("other", |(_, spec, _)| spec.name);
            let label = Message { kind: name, direction: "out" };
            env.metrics.frames.get_or_create(&label).inc();
            env.metrics.frame_bytes.get_or_create(&label).inc_by((buffer.len() - before) as u64);
            stats.frames_out.fetch_add(1, Relaxed);
            next = if buffer.len() < GATHER { queue.try_next() } else { None };
        }
        if let Err(cause) =
            write_all(&env, &mut line.write, &mut buffer, &stats, &closer, &mut flush_until).await
        {
            if matches!(cause, CloseCause::Fault(_)) {
                env.metrics.write_stalls.inc();
            }
            if line.hangup.is_some() {
                hear_out(&env, &closer, &cause).await;
            }
            closer.close(cause);
            return;
        }
    }
    if line.hangup.is_none() {
        // The other side may be gone already; there is nobody left to tell.
        let _ = env.clock.timeout(FLUSH, line.write.shutdown()).await;
    }
}

async fn write_all(
    env: &Env,
    write: &mut WriteHalf,
    buffer: &mut BytesMut,
    stats: &PeerStats,
    closer: &Closer,
    flush_until: &mut Option<Instant>,
) -> Result<(), CloseCause> {
    while !buffer.is_empty() {
        let now = env.clock.now();
        let within = match closer.cause() {
            Some(_) => flush_until.get_or_insert(now + FLUSH).saturating_duration_since(now),
            None => STALL,
        };
        let written = tokio::select! {
            biased;
            written = env.clock.timeout(within, write.write_buf(buffer)) => written,
            // Woken when the session ends, to go on with the shorter deadline.
            () = closer.closed(), if closer.cause().is_none() => continue,
        };
        match written {
            None => {
                let detail = format!("took no byte for {} s", within.as_secs());
                return Err(CloseCause::Fault(PeerFault::close(PeerFaultKind::WriteStalled, detail).into()));
            }
            Some(Ok(0)) => return Err(CloseCause::Broken("closed while we wrote".into())),
            Some(Ok(n)) => {
                stats.bytes_out.fetch_add(n as u64, Relaxed);
            }
            Some(Err(error)) => return Err(cause_of(&error)),
        }
    }
    Ok(())
}
