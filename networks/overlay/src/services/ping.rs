//! `ping` and `pong`: is the peer there, and how far away.
//!
//! We ping every [`PING_EVERY`], first at a random moment within it: sessions that began together in a storm do not ping together,
//! and the transport has measured a round trip by then. A ping without its pong for [`SILENCE`] ends the session. The transport keeps the path open by
//! itself; this asks for more: that the peer's routine reads, decides and writes.
//!
//! The cheapest abuse is to ping without end: a pong is as small as its ping, and above the rate the peer's reading
//! waits. A pong that answers nothing ends the session.

use std::time::Duration;

use rand::{Rng, RngExt};
use rookery_base::{Frame, PeerFault, PeerFaultKind};
use rookery_engine::{
    Answer, End, Flow, KindSpec, LaneName, Outbox, Over, PeerFacts, PeerHandle, Pipe, RequestKey, Role,
    Service,
};
use rookery_runtime::Instant;

use super::{malformed, rate, spec};
use crate::wire::kind::{PING, PONG};
use crate::wire::ping as wire;

/// How often we ping: a thousand idle peers cost fifty small messages a second.
pub const PING_EVERY: Duration = Duration::from_secs(20);
/// How long a ping may stay unanswered: three intervals. Longer than any park that a service of ours imposes on a peer
/// (its pong would wait unread), and than a change of route.
pub const SILENCE: Duration = Duration::from_secs(60);
/// Pings that can be open at once: one for each interval until the first of them ends the session.
const OPEN_PINGS: u16 = (SILENCE.as_secs() / PING_EVERY.as_secs()) as u16;

/// What this service declares. Honest peers ping a few times a minute; a tool that measures does so a few times a second.
pub const SPECS: [KindSpec; 2] = [
    spec(
        PING,
        "ping",
        (wire::LEN, wire::LEN),
        Role::Request(OPEN_PINGS),
        rate(10.0, 50, Over::Wait),
        LaneName::Control,
    ),
    spec(
        PONG,
        "pong",
        (wire::LEN, wire::LEN),
        Role::Answer { to: PING, unasked: wire::LEN as u32 },
        rate(10.0, 50, Over::Wait),
        LaneName::Control,
    ),
];

/// The service. It shares nothing between peers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ping;

impl Service for Ping {
    fn name(&self) -> &'static str {
        "ping"
    }

    fn kinds(&self) -> &[KindSpec] {
        &SPECS
    }

    fn pipe(&self, _facts: &PeerFacts, _handle: PeerHandle) -> Box<dyn Pipe> {
        Box::new(PingPipe::default())
    }
}

/// One peer's signs of life.
#[derive(Debug, Default)]
struct PingPipe {
    next: Option<Instant>,
    /// Pings sent, which also numbers the randomness of their nonces.
    sent: u32,
}

impl PingPipe {
    fn ping(&mut self, now: Instant, out: &mut Outbox) {
        let number = out.generation().0.rotate_left(32) ^ u64::from(self.sent);
        let nonce = out.env().rng.fork("overlay-ping", number).next_u64();
        self.sent = self.sent.wrapping_add(1);
        self.next = Some(now + PING_EVERY);
        // Refused only when the session is ending: the outbox is full, or as many pings are overdue as may be.
        let _ = out.request(RequestKey::number(PING, nonce), wire::encode(nonce).to_vec(), SILENCE);
    }
}

impl Pipe for PingPipe {
    fn on_start(&mut self, now: Instant, out: &mut Outbox) -> Flow {
        let mut rng = out.env().rng.fork("overlay-ping", out.generation().0);
        self.next = Some(now + PING_EVERY.mul_f64(rng.random::<f64>()));
        Flow::Continue
    }

    fn key(&self, frame: &Frame) -> Option<RequestKey> {
        wire::decode(&frame.body).ok().map(|nonce| RequestKey::number(PING, nonce))
    }

    fn on_frame(&mut self, _now: Instant, frame: Frame, out: &mut Outbox) -> Flow {
        match wire::decode(&frame.body) {
            Ok(_) => out.send(PONG, frame.body),
            Err(error) => return malformed("ping", error, out),
        }
        Flow::Continue
    }

    fn on_answer(&mut self, _now: Instant, answer: Answer, out: &mut Outbox) -> Flow {
        match answer.end {
            End::Answered(_, took) => {
                out.rtt(took);
                Flow::Continue
            }
            End::TimedOut => {
                let detail = format!("no pong for {} s", SILENCE.as_secs());
                out.fault(PeerFault::close(PeerFaultKind::Silent, detail))
            }
            End::Gone(_) => Flow::Continue,
        }
    }

    fn timer(&self) -> Option<Instant> {
        self.next
    }

    fn on_timer(&mut self, now: Instant, out: &mut Outbox) -> Flow {
        self.ping(now, out);
        Flow::Continue
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::testing::{Gate, env, facts, fault, frame, handle, outbox};
    use rookery_base::Direction;
    use rookery_engine::kinds::Verdict;

    #[test]
    fn the_first_ping_goes_out_within_an_interval_and_the_next_at_each() {
        let env = env();
        let mut out = outbox(&env);
        let mut pipe = Ping.pipe(&facts(Direction::Inbound), handle());
        let now = env.clock.now();
        assert_eq!(pipe.on_start(now, &mut out), Flow::Continue);
        let first = pipe.timer().unwrap();
        assert!(first >= now && first <= now + PING_EVERY && out.sent().is_empty());
        assert_eq!(pipe.on_timer(first, &mut out), Flow::Continue);
        assert_eq!(pipe.timer(), Some(first + PING_EVERY));
        assert_eq!(pipe.on_timer(first + PING_EVERY, &mut out), Flow::Continue);
        let sent = out.sent();
        assert_eq!(sent.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [PING, PING]);
        assert_ne!(sent[0].1, sent[1].1, "nobody can guess the next nonce from the last");
    }

    #[test]
    fn a_ping_is_answered_with_its_nonce_and_a_pong_gives_the_round_trip() {
        let env = env();
        let mut out = outbox(&env);
        let mut pipe = Ping.pipe(&facts(Direction::Inbound), handle());
        let ping = frame(PING, wire::encode(7).to_vec());
        assert_eq!(pipe.on_frame(env.clock.now(), ping, &mut out), Flow::Continue);
        assert_eq!(out.sent(), [(PONG, wire::encode(7).to_vec().into())]);
        let pong = frame(PONG, wire::encode(7).to_vec());
        assert_eq!(pipe.key(&pong), Some(RequestKey::number(PING, 7)));
        let end = End::Answered(pong, Duration::from_millis(30));
        let answer = Answer { key: RequestKey::number(PING, 7), end };
        assert_eq!(pipe.on_answer(env.clock.now(), answer, &mut out), Flow::Continue);
    }

    #[test]
    fn silence_ends_the_session_and_says_so() {
        let env = env();
        let mut out = outbox(&env);
        let mut pipe = Ping.pipe(&facts(Direction::Inbound), handle());
        let answer = Answer { key: RequestKey::number(PING, 7), end: End::TimedOut };
        let fault = fault(pipe.on_answer(env.clock.now(), answer, &mut out));
        assert_eq!((fault.kind, &*fault.detail), (PeerFaultKind::Silent, "no pong for 60 s"));
    }

    #[test]
    fn a_flood_of_pings_waits() {
        let mut gate = Gate::new(&env());
        let passed = (0..1000).take_while(|_| matches!(gate.check(PING, 8, false), Verdict::Pass(_))).count();
        assert_eq!(passed, 50);
        assert!(matches!(gate.check(PING, 8, false), Verdict::Wait(..)));
        assert!(matches!(gate.check(PING, 9, false), Verdict::Refuse(_)));
    }
}
