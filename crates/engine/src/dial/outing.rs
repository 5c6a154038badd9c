//! One attempt of the dialer's, from its first try to the end of its session.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rookery_base::{CloseCause, Direction, PeerId};
use rookery_runtime::{Env, Instant, Ticket};
use rookery_transport::Arrival;

use crate::attempt::{self, Attempt};
use crate::connect::{Dials, Unreached, instead};
use crate::engine::Shared;
use crate::network::ANOTHER_STAYS;

/// How an attempt has ended.
#[derive(Debug)]
pub(super) struct DialEnd {
    pub addr: SocketAddr,
    /// `session`, or why there was none.
    pub outcome: &'static str,
    /// How long the peer was connected, by this attempt or by the session that won over it.
    pub healthy: Duration,
    /// Whether somebody answered who is connected already, or who that is.
    pub answered: Option<Option<PeerId>>,
}

impl DialEnd {
    /// What is told of an attempt that ends without saying anything: it can only have panicked.
    pub const fn unsaid(addr: SocketAddr) -> Self {
        Self { addr, outcome: CloseCause::Panic.label(), healthy: Duration::ZERO, answered: None }
    }
}

/// An attempt that has not begun.
pub(super) struct Outing {
    pub shared: Arc<Shared>,
    pub dials: Dials,
    pub env: Env,
    pub addr: SocketAddr,
    /// Named by the operator.
    pub reserved: bool,
}

impl Outing {
    /// Runs it to its end, which the ticket tells.
    pub async fn run(self, mut ticket: Ticket<DialEnd>) {
        let (ended, began) = match self.hold(&mut ticket).await {
            Ok(held) => held,
            Err(outcome) => {
                ticket.outcome = outcome;
                return;
            }
        };
        ticket.outcome = match &ended {
            Ok(_) => "session",
            Err(cause) => {
                tracing::debug!(addr = %self.addr, %cause, "no session");
                cause.label()
            }
        };
        let session = ended.is_ok();
        let (Ok(cause) | Err(cause)) = ended;
        let won_over = tokio::select! {
            biased;
            () = self.env.scope.cancelled() => false,
            won_over = self.won_over(cause) => won_over,
        };
        if session || won_over {
            ticket.healthy = self.env.clock.now().saturating_duration_since(began);
        }
    }

    /// Tries until the peer was reached and had its session, or was not to be tried again: how that ended, and when the last
    /// try had reached it. An error says why it never was.
    async fn hold(
        &self,
        ticket: &mut Ticket<DialEnd>,
    ) -> Result<(Result<CloseCause, CloseCause>, Instant), &'static str> {
        let Self { shared, dials, env, addr, reserved } = self;
        let tries = dials.tries(env, *addr);
        loop {
            let reached = tokio::select! {
                biased;
                () = env.scope.cancelled() => return Err("stopped"),
                reached = dials.reach(shared, env, *addr, &tries) => reached,
            };
            let (conn, permit) = reached.map_err(|Unreached { outcome, cause }| {
                tracing::debug!(%addr, %cause, "cannot connect");
                shared.refusals.note(*addr, env.clock.unix(), &cause);
                outcome
            })?;
            let began = env.clock.now();
            let attempt = Attempt::new(Arrival::Ready(conn), Direction::Outbound, &env.scope, permit);
            let begun = Attempt { reserved: *reserved, hello: tries.hello(), ..attempt };
            let who = Arc::clone(&begun.who);
            let ended = attempt::run(shared, env.clone(), begun).await;
            ticket.answered = answered(&who, &ended);
            let wait = match ended {
                Ok(cause) => return Ok((Ok(cause), began)),
                Err(cause) => match tries.again(cause, env.clock.now()) {
                    Ok(wait) => wait,
                    Err(cause) => return Ok((Err(cause), began)),
                },
            };
            tokio::select! {
                biased;
                () = env.scope.cancelled() => return Err("stopped"),
                () = env.clock.sleep(wait) => {}
            }
        }
    }

    /// Whether the peer is connected, by a session that won over this one: then waits for its end. To dial it again while
    /// that lasts would replace it, the other side would do the same, and two nodes that name each other would never keep a
    /// session.
    async fn won_over(&self, cause: CloseCause) -> bool {
        let winner = match cause {
            _ if !self.reserved => None,
            CloseCause::Duplicate(winner) => Some(winner),
            cause => instead(&self.shared, self.addr, &cause).await.map(|winner| winner.generation),
        };
        if let Some(winner) = winner {
            self.shared.registry.ended(winner).await;
        }
        winner.is_some()
    }
}

/// Who has answered a dial, for planning the next ones.
fn answered(who: &OnceLock<PeerId>, ended: &Result<CloseCause, CloseCause>) -> Option<Option<PeerId>> {
    let (Ok(cause) | Err(cause)) = ended;
    let stays_another =
        matches!(cause, CloseCause::Duplicate(_) | CloseCause::ByPeer { code: ANOTHER_STAYS, .. });
    match who.get() {
        Some(peer) => Some(Some(*peer)),
        None => stays_another.then_some(None),
    }
}
