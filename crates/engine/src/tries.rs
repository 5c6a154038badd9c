//! The tries of one dial: how long each may take, and whether another one is worth it.
//!
//! ```text
//! turn -> connection -> hello -> session
//!    |        |           |
//!    |        +-----------+-> failed: for good?  -> said to whoever asked
//!    |                        may pass?          -> a wait, with jitter, and again, until the deadline
//!    +- the deadline begins
//! ```
//!
//! A dialler whose TLS has ended well may still be turned away: the other side had no place any more, gave the handshake up,
//! or has lost it. That passes. What a peer says it means: who is banned, of another network or connected already is not
//! heard again. A try that stays silent is given up for a new one while there is time: in QUIC a handshake whose last
//! flight was lost can stand still for ever, and a new one does not.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rookery_base::{CloseCause, Fault, PeerFaultKind};
use rookery_runtime::{Backoff, Env, Instant};

use crate::DialPace;
use crate::network::BUSY;

/// What is left of one dial of one address. Cloning gives another handle to the same: who races addresses drops the losers'
/// futures, and their past must not be forgotten with them.
#[derive(Clone)]
pub(crate) struct Tries(Arc<Mutex<Left>>);

struct Left {
    pace: DialPace,
    backoff: Option<Backoff>,
    /// Set when it has its turn.
    deadline: Option<Instant>,
    /// How long the next try may be silent.
    patience: Duration,
    /// What ended the last try that met anything but silence.
    told: Option<CloseCause>,
}

impl Tries {
    /// None made yet. `number` tells dials apart that begin at one time.
    pub fn new(pace: &DialPace, env: &Env, number: u64) -> Self {
        let backoff = pace.retry.map(|retry| Backoff::new(retry, env.rng.fork("reach", number)));
        let left = Left { pace: *pace, backoff, deadline: None, patience: pace.patience, told: None };
        Self(Arc::new(Mutex::new(left)))
    }

    fn lock(&self) -> MutexGuard<'_, Left> {
        // Nothing that runs under this lock can leave it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time that the next try has for its connection: its patience, as far as the deadline, which begins with the first.
    pub fn next(&self, now: Instant) -> Duration {
        let mut left = self.lock();
        let begins = now + left.pace.connect;
        let deadline = *left.deadline.get_or_insert(begins);
        left.patience.min(deadline.saturating_duration_since(now))
    }

    /// Time that this try has for its hello. The deadline does not count: a connection that has come about is worth as
    /// much at the end as at the beginning.
    pub fn hello(&self) -> Duration {
        self.lock().patience
    }

    /// How long to wait before the next try, or why there is none: the last that was heard, if this one met only silence.
    pub fn again(&self, cause: CloseCause, now: Instant) -> Result<Duration, CloseCause> {
        let mut left = self.lock();
        let passes = may_pass(&cause);
        if !is_silence(&cause) {
            left.told = Some(cause.clone());
        }
        let last = left.told.clone().unwrap_or(cause);
        // A second try has twice the time: what was too slow, and not stuck, gets through then.
        left.patience = left.patience.saturating_mul(2);
        let deadline = left.deadline;
        let wait = left.backoff.as_mut().filter(|_| passes).map(Backoff::next_wait);
        wait.filter(|wait| deadline.is_none_or(|deadline| now + *wait < deadline)).ok_or(last)
    }
}

/// Whether a try has met nobody that said anything.
pub(crate) fn is_silence(cause: &CloseCause) -> bool {
    matches!(cause, CloseCause::Fault(Fault::Peer(fault))
        if matches!(fault.kind, PeerFaultKind::ConnectTimeout | PeerFaultKind::HandshakeTimeout))
}

/// Whether what ended a try may be over by the next: nothing that the peer is, or says, or that we are stands against it.
fn may_pass(cause: &CloseCause) -> bool {
    match cause {
        CloseCause::Broken(_) | CloseCause::ByPeer { code: BUSY, .. } => true,
        // Let go of without a word: nobody has decided anything.
        CloseCause::ByPeer { code: 0, reason } => reason.is_empty(),
        cause => is_silence(cause),
    }
}
