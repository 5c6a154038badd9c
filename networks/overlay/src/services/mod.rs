//! What peers say to each other once a session is established.
//!
//! | service | kinds | shared between peers |
//! |---|---|---|
//! | [`ping`] | `ping`, `pong` | nothing |
//! | [`messages`] | `message`, `ack` | the application's mailbox |
//! | [`gossip`] | `topics`, `inventory`, `want`, `item` | a reactor: items, announcers, subscriptions |
//! | [`discovery`] | `get_records`, `records` | a reactor: signed records; the engine's address book |
//! | [`requests`] | none: each has a stream of its own | the table of handlers |
//!
//! [`votes`] finds out under which address others see this node.
//!
//! Pipes are synchronous and never wait. What they have for a reactor or for the application goes into their peer's
//! own lane of a fair mailbox; where that has no room, reading from that peer waits, and nothing else does.

pub mod discovery;
pub mod gossip;
pub mod messages;
pub mod ping;
pub mod requests;
#[cfg(test)]
pub(crate) mod testing;
pub mod votes;

use std::collections::VecDeque;
use std::task::{Context, Poll};

use rookery_base::{DecodeError, Kind, PeerFault};
use rookery_engine::{Caps, Flow, KindSpec, LaneName, Outbox, Over, Rate, Role, Until};
use rookery_runtime::{Lane, Push};

/// A kind's declaration. All kinds are for all peers.
const fn spec(
    kind: Kind,
    name: &'static str,
    (min, max): (usize, usize),
    role: Role,
    rate: Rate,
    lane: LaneName,
) -> KindSpec {
    KindSpec { kind, name, min: min as u32, max: max as u32, role, rate, lane, needs: Caps::NONE }
}

const fn rate(per_second: f64, burst: u32, over: Over) -> Rate {
    Rate { per_second, burst, over }
}

/// Bytes that do not decode: the peer's fault, and the end.
fn malformed(what: &'static str, error: DecodeError, out: &mut Outbox) -> Flow {
    let detail = format!("{what}: {error}");
    out.fault(PeerFault { detail: detail.into(), ..error.into() })
}

/// Mail on its way to a reactor, in order. What finds no room waits here, and its peer is parked: what waits is one frame's
/// worth and the ends of requests that were open, so it is bounded by them.
struct Mailer<T> {
    /// None when all lanes are taken: then nobody listens.
    lane: Option<Lane<T>>,
    waiting: VecDeque<(T, usize)>,
}

impl<T> Mailer<T> {
    const fn new(lane: Option<Lane<T>>) -> Self {
        Self { lane, waiting: VecDeque::new() }
    }

    /// Hands mail over, behind what waits already; says whether to go on reading.
    fn tell(&mut self, mail: T, bytes: usize) -> Flow {
        self.waiting.push_back((mail, bytes));
        if self.hand_over() { Flow::Continue } else { Flow::Park(Until::Room) }
    }

    /// True when nothing waits any more.
    fn hand_over(&mut self) -> bool {
        let Some(lane) = &self.lane else {
            self.waiting.clear();
            return true;
        };
        while let Some((mail, bytes)) = self.waiting.pop_front() {
            match lane.push(mail, bytes) {
                Push::Accepted => {}
                Push::Full(mail) => {
                    self.waiting.push_front((mail, bytes));
                    return false;
                }
                // The reactor has ended, which stops the node.
                Push::Closed(_) => self.waiting.clear(),
            }
        }
        true
    }

    /// Ready when nothing waits any more.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.hand_over() {
                return Poll::Ready(());
            }
            match self.lane.as_ref().map(|lane| lane.poll_room(cx)) {
                Some(Poll::Pending) => return Poll::Pending,
                _ => continue,
            }
        }
    }
}
