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

use std::time::Duration;

use rookery_base::{CloseCause, Fault, PeerFaultKind};
use rookery_runtime::{Backoff, Env, Instant};

use crate::DialPace;
use crate::network::BUSY;

/// What is left of one dial.
pub(crate) struct Tries {
    pace: DialPace,
    backoff: Option<Backoff>,
    /// Set when it has its turn.
    deadline: Option<Instant>,
    /// How long the next try may be silent.
    patience: Duration,
}

impl Tries {
    /// None made yet. `number` tells dials apart that begin at one time.
    pub fn new(pace: &DialPace, env: &Env, number: u64) -> Self {
        let backoff = pace.retry.map(|retry| Backoff::new(retry, env.rng.fork("reach", number)));
        Self { pace: *pace, backoff, deadline: None, patience: pace.patience }
    }

    /// Time that the next try has for its connection: its patience, as far as the deadline, which begins with the first.
    pub fn next(&mut self, now: Instant) -> Duration {
        let deadline = *self.deadline.get_or_insert(now + self.pace.connect);
        self.patience.min(deadline.saturating_duration_since(now))
    }

    /// Time that this try has for its hello. The deadline does not count: a connection that has come about is worth as
    /// much at the end as at the beginning.
    pub const fn hello(&self) -> Duration {
        self.patience
    }

    /// How long to wait before the next try; none: there is none.
    pub fn again(&mut self, cause: &CloseCause, now: Instant) -> Option<Duration> {
        let backoff = self.backoff.as_mut().filter(|_| may_pass(cause))?;
        let wait = backoff.next_wait();
        // A second try has twice the time: what was too slow, and not stuck, gets through then.
        self.patience = self.patience.saturating_mul(2);
        self.deadline.is_none_or(|deadline| now + wait < deadline).then_some(wait)
    }
}

/// Whether what ended a try may be over by the next: nothing that the peer is, or says, or that we are stands against it.
fn may_pass(cause: &CloseCause) -> bool {
    match cause {
        CloseCause::Broken(_) | CloseCause::ByPeer { code: BUSY, .. } => true,
        // Let go of without a word: nobody has decided anything.
        CloseCause::ByPeer { code: 0, reason } => reason.is_empty(),
        CloseCause::Fault(Fault::Peer(fault)) => {
            matches!(fault.kind, PeerFaultKind::ConnectTimeout | PeerFaultKind::HandshakeTimeout)
        }
        _ => false,
    }
}
