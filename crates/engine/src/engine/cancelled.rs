//! An attempt that is dropped after any number of polls, from the accepted connection to the end of its session; a storm
//! that is stopped after any number of turns; and an accept loop whose registry does nothing, or panics.

use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};

use bytes::{BufMut, BytesMut};
use rookery_base::{Frame, Kind, PeerFault, PeerId};
use rookery_runtime::ticket::tickets;
use rookery_runtime::{BoxFuture, FairMailbox, Instant, Lane, LaneLimits, LaneOpener, Push};
use rookery_testkit::{Switchboard, Wire};
use rookery_transport::Arrival;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::attempt::{self, Attempt};
use crate::{
    Admit, Approach, Caps, Deframe, Enframe, Established, Flow, Head, KindSpec, LaneName, Link, Outbox, Over,
    PeerFacts, PeerHandle, Pipe, Rate, Role, Service, UnknownKind, Until,
};

/// A wire of one message: `kind u8 | length u8 | body`, after a hello of one byte each way.
struct Tiny {
    services: Vec<Arc<dyn Service>>,
}
struct TinyService(LaneOpener<&'static str>);
struct TinyPipe(Lane<&'static str>);
struct Framing;

const KINDS: [KindSpec; 1] = [KindSpec {
    kind: Kind(1),
    name: "ask",
    min: 0,
    max: 255,
    role: Role::Notice,
    rate: Rate { per_second: 1.0, burst: 2, over: Over::Wait },
    lane: LaneName::Answer,
    needs: Caps::NONE,
}];

impl Network for Tiny {
    fn name(&self) -> &'static str {
        "tiny"
    }
    fn handshake_deadline(&self) -> Duration {
        Duration::from_secs(5)
    }
    fn handshake(&self, approach: Approach) -> BoxFuture<'_, Result<Established, CloseCause>> {
        Box::pin(async move {
            let mut conn = approach.conn.into_stream()?;
            let broken = |_| CloseCause::Broken("hello".into());
            conn.write.write_all(b"h").await.map_err(broken)?;
            conn.read.read_exact(&mut [0]).await.map_err(broken)?;
            let facts = PeerFacts::of(PeerId::from_addr(conn.remote), conn.remote, approach.direction);
            let link = Link { reader: Box::new(Framing), writer: Box::new(Framing) };
            let (read, write) = (conn.read, conn.write);
            Ok(Established { facts, link, read, write, read_ahead: BytesMut::new(), mux: None })
        })
    }
    fn services(&self) -> &[Arc<dyn Service>] {
        &self.services
    }
    fn unknown_kind(&self, _kind: Kind) -> UnknownKind {
        UnknownKind::Refuse
    }
}

impl Deframe for Framing {
    fn head(&mut self, bytes: &[u8]) -> Result<Option<Head>, PeerFault> {
        let head = |h: &[u8; 2]| Head { kind: Kind(h[0].into()), head_len: 2, body_len: h[1].into() };
        Ok(bytes.first_chunk().map(head))
    }
}

impl Enframe for Framing {
    fn frame(&mut self, kind: Kind, body: &[u8], out: &mut BytesMut) {
        out.put_u8(kind.0 as u8);
        out.put_u8(body.len() as u8);
        out.put_slice(body);
    }
}

impl Service for TinyService {
    fn name(&self) -> &'static str {
        "tiny"
    }
    fn kinds(&self) -> &[KindSpec] {
        &KINDS
    }
    fn admit(&self, _facts: &PeerFacts) -> Admit {
        Admit::Yes
    }
    fn pipe(&self, _facts: &PeerFacts, _handle: PeerHandle) -> Box<dyn Pipe> {
        Box::new(TinyPipe(self.0.open("down").expect("lanes come back")))
    }
}

impl Pipe for TinyPipe {
    fn on_frame(&mut self, _now: Instant, frame: Frame, out: &mut Outbox) -> Flow {
        out.send(frame.kind, frame.body);
        assert_eq!(self.0.push("frame", 1), Push::Accepted);
        if self.0.has_room() { Flow::Continue } else { Flow::Park(Until::Room) }
    }
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll_room(cx)
    }
}

/// Polls what is inside at most so many times, and looks at the accounts each time.
struct Polls<F>(F, usize, Accountant);

impl<F: Future + Unpin> Future for Polls<F> {
    type Output = Option<F::Output>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let accounts = self.2.read();
        assert!(accounts.balanced(), "{accounts:?}");
        let Some(left) = self.1.checked_sub(1) else { return Poll::Ready(None) };
        self.1 = left;
        Pin::new(&mut self.0).poll(cx).map(Some)
    }
}

fn shared(env: &Env, heard: &FairMailbox<&'static str>, process: &ByteBudget) -> Arc<Shared> {
    with_registry(env, heard, process, Registry::start(env, SessionLimits::LOCAL, None))
}

fn with_registry(
    env: &Env,
    heard: &FairMailbox<&'static str>,
    process: &ByteBudget,
    registry: RegistryHandle,
) -> Arc<Shared> {
    let services: Vec<Arc<dyn Service>> = vec![Arc::new(TinyService(heard.opener()))];
    let network: Arc<dyn Network> = Arc::new(Tiny { services });
    Arc::new(Shared {
        env: env.clone(),
        table: KindTable::build(network.services()).unwrap(),
        network,
        transport: Switchboard::default().transport([1, 1, 1, 1].into()),
        registry,
        accounts: Accountant::new(env.metrics.arrivals.clone()),
        refusals: Refusals::default(),
        limits: Limits::LOCAL,
        inbound: process.child("inbound", 1 << 20),
        outbound: process.child("outbound", 1 << 20),
    })
}

/// The peer: small pieces, a flood over the rate, slow reading, then the end.
async fn visit(mut wire: Wire) {
    for piece in [&b"h"[..], b"\x01", b"\x03a", b"bc\x01\x02de", b"\x01\x01f\x01\x01g"] {
        if wire.write_all(piece).await.is_err() {
            return;
        }
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
    }
    let _ = wire.read_exact(&mut [0; 15]).await;
}

/// R1, R7, W2, W4, C16: dropped after k polls, for every k until it ends by itself, the attempt leaves nothing behind: its
/// handshake's place, its slot, its lane and its bytes are back, its farewell is delivered, its writer has ended, and the
/// connection is closed.
#[tokio::test(start_paused = true)]
async fn an_attempt_dropped_after_any_number_of_polls_leaves_nothing_behind() {
    let ended_by_itself = Mutex::new(None);
    for polls in 0..1_000 {
        let env = Env::simulated(1, 0, 0, 0, rookery_observe::Trace::off());
        let lanes = LaneLimits { events: 1, bytes: 1 << 20 };
        let mut heard = FairMailbox::new("tiny", lanes, 1, env.clock, Arc::clone(&env.metrics));
        let process = ByteBudget::root("process", 1 << 20);
        let shared = shared(&env, &heard, &process);
        let (office, mut returns) = tickets(1);
        let (near, far) = Wire::pair("20.0.0.1:1".parse().unwrap(), "20.0.0.2:2".parse().unwrap());
        env.scope.spawn("visitor", OnPanic::StopNode, visit(near));
        let peer = env.within(env.scope.child("peer"));
        let arrival = Arrival::Ready(far.into_conn());
        let begun = Attempt {
            passage: Some(shared.accounts.arrival()),
            ..Attempt::new(arrival, Direction::Inbound, &peer.scope, office.issue(()).unwrap())
        };
        let begun = attempt::run(&shared, peer, begun);
        let mut begun = Polls(Box::pin(begun), polls, shared.accounts.clone());
        let mut downs = 0;
        let done = loop {
            tokio::select! {
                biased;
                done = Pin::new(&mut begun) => break done,
                event = heard.recv() => downs += usize::from(event == "down"),
            }
        };
        drop(begun);
        env.clock.sleep(Duration::from_secs(5)).await;
        while let Some(event) = heard.try_recv() {
            downs += usize::from(event == "down");
        }
        assert_eq!(returns.try_next(), Some(()), "the handshake's place, {polls} polls");
        let audit = shared.registry.audit().await.unwrap();
        assert_eq!(audit.slots, 0, "{polls} polls");
        let accounts = shared.accounts.read();
        assert!(accounts.balanced(), "{accounts:?}");
        assert_eq!((accounts.arrived, accounts.shaking, accounts.live), (1, 0, 0), "{polls} polls");
        assert_eq!(process.used(), 0, "{polls} polls");
        assert_eq!(env.metrics.parked_peers.get(), 0, "{polls} polls");
        let ended = shared.registry.closed().await.len();
        assert!(downs <= ended && heard.opener().open("again").is_some(), "the lane, {polls} polls");
        assert_eq!(env.scope.running(), ["registry"], "{polls} polls");
        assert!(env.scope.panics().is_empty());
        env.scope.close(Duration::from_secs(5)).await.unwrap();
        if let Some(end) = done {
            assert_eq!(downs, 1);
            *ended_by_itself.lock().unwrap() = Some((polls, end));
            break;
        }
    }
    let (polls, end) = ended_by_itself.into_inner().unwrap().expect("it ends by itself in the end");
    assert_eq!(end.unwrap(), CloseCause::PeerClosed);
    assert!(polls > 10, "the visit has many awaits: {polls}");
}

/// Row 3, 5, 11: a storm of arrivals that are refused, evicted, hang, talk, break and panic, stopped after k turns of the
/// scheduler, for every k: at each turn the accounts are balanced, and after the end every arrival is accounted for and nothing
/// is held.
#[tokio::test(start_paused = true)]
async fn a_storm_stopped_after_any_number_of_turns_is_accounted_for() {
    let mut seen = Accounts::default();
    for turns in 0..160 {
        let env = Env::simulated(1, 0, 0, 0, rookery_observe::Trace::off());
        let heard = FairMailbox::new("tiny", LaneLimits::PEER, 1, env.clock, Arc::clone(&env.metrics));
        let process = ByteBudget::root("process", 1 << 20);
        let shared = shared(&env, &heard, &process);
        let limits = HandshakeLimits { total: 8, per_ip: 3, per_prefix: 6, ..HandshakeLimits::LOCAL };
        let (board, at) = (Switchboard::default(), "50.0.0.1:1".parse().unwrap());
        let listener = board.transport([50, 0, 0, 1].into()).listen(at).await.unwrap();
        let acceptor = Acceptor::new(Arc::clone(&shared), limits);
        env.scope.spawn("accept", OnPanic::StopNode, acceptor.run(vec![listener]));
        let mut knocks = Vec::new();
        let look = || {
            let accounts = shared.accounts.read();
            assert!(accounts.balanced(), "{accounts:?}");
            accounts
        };
        for turn in 0..turns {
            let from = SocketAddr::from(([20, 0, turn as u8 / 4, turn as u8 % 5], 1 + turn));
            match turn % 5 {
                0 | 1 => knocks.push(board.half_open(from, at, turn % 2 == 0).unwrap()),
                // One stream at most is served here, and the wire is an ordered pipe: this one breaks.
                2 => knocks.push(board.knock(from, at, true).unwrap()),
                // The second session finds no lane: its pipe panics while the first lives.
                _ => env.scope.spawn("visitor", OnPanic::EndScope, visit(board.connect(from, at).unwrap())),
            }
            tokio::task::yield_now().await;
            look();
        }
        env.scope.cancel();
        while env.scope.running() != Vec::<&str>::new() {
            look();
            tokio::task::yield_now().await;
            env.clock.sleep(Duration::from_millis(1)).await;
        }
        let accounts = look();
        assert_eq!((accounts.shaking, accounts.live), (0, 0), "{turns} turns: {accounts:?}");
        assert!(accounts.arrived <= turns.into() && process.used() == 0, "{turns} turns");
        seen = accounts;
    }
    for why in ["handshakes", "handshake_evicted", "local_fault", "shutdown"] {
        assert!(seen.refused.contains_key(why), "{why}: {seen:?}");
    }
    assert!(seen.ended.contains_key("panic") && seen.retried > 0, "{seen:?}");
}

/// Row 4: while the registry does nothing for ten seconds, every arrival is taken at once, and those whose handshake ended
/// wait in their own tasks: twice as many as there are places and no more, because they cannot be evicted any more.
#[tokio::test(start_paused = true)]
async fn a_stalled_registry_does_not_slow_the_accept_loop() {
    let env = Env::simulated(1, 0, 0, 0, rookery_observe::Trace::off());
    let heard = FairMailbox::new("tiny", LaneLimits::PEER, 1, env.clock, Arc::clone(&env.metrics));
    let process = ByteBudget::root("process", 1 << 20);
    let (registry, stalled) = RegistryHandle::stalled();
    let shared = with_registry(&env, &heard, &process, registry);
    let limits = HandshakeLimits { total: 100, ..HandshakeLimits::LOCAL };
    let (board, at) = (Switchboard::default(), "50.0.0.1:1".parse().unwrap());
    let listener = board.transport([50, 0, 0, 1].into()).listen(at).await.unwrap();
    let acceptor = Acceptor::new(Arc::clone(&shared), limits);
    env.scope.spawn("accept", OnPanic::StopNode, acceptor.run(vec![listener]));
    let mut held = Vec::new();
    for second in 1..=10_u64 {
        for n in 0..50 {
            let mut wire = board.connect(SocketAddr::from(([20, 0, second as u8, n], 1)), at).unwrap();
            wire.write_all(b"h").await.unwrap();
            held.push(wire);
        }
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
        let accounts = shared.accounts.read();
        assert!(accounts.balanced());
        assert_eq!(accounts.arrived, 50 * second, "taken before any time has passed");
        assert!(accounts.shaking <= 200);
        env.clock.sleep(Duration::from_secs(1)).await;
    }
    let accounts = shared.accounts.read();
    assert_eq!(accounts.live, 0, "nobody was let in meanwhile");
    drop(stalled);
    env.clock.sleep(Duration::from_secs(1)).await;
    assert_eq!(shared.accounts.read().shaking, 0, "whoever waited was told");
    env.scope.close(Duration::from_secs(5)).await.unwrap();
}

/// Row 11: a registry that panics, with the questions of those whose handshake has ended in its hands, stops the node: they
/// and those who are still on their way are told, every arrival is accounted for, and the panic is counted and named.
#[tokio::test(start_paused = true)]
async fn a_registry_that_panics_stops_the_node_and_everybody_is_accounted_for() {
    let env = Env::simulated(1, 0, 0, 0, rookery_observe::Trace::off());
    let heard = FairMailbox::new("tiny", LaneLimits::PEER, 1, env.clock, Arc::clone(&env.metrics));
    let process = ByteBudget::root("process", 1 << 20);
    let (registry, asked) = RegistryHandle::stalled();
    let shared = with_registry(&env, &heard, &process, registry);
    let (board, at) = (Switchboard::default(), "50.0.0.1:1".parse().unwrap());
    let listener = board.transport([50, 0, 0, 1].into()).listen(at).await.unwrap();
    let acceptor = Acceptor::new(Arc::clone(&shared), HandshakeLimits::LOCAL);
    env.scope.spawn("accept", OnPanic::StopNode, acceptor.run(vec![listener]));
    let clock = env.clock;
    env.scope.spawn("registry", OnPanic::StopNode, async move {
        let _asked = asked;
        clock.sleep(Duration::from_secs(1)).await;
        panic!("the table is broken");
    });
    let mut wires = Vec::new();
    for n in 0..20 {
        let mut wire = board.connect(SocketAddr::from(([20, 0, 0, n], 1)), at).unwrap();
        if n % 2 == 0 {
            wire.write_all(b"h").await.unwrap();
        }
        wires.push(wire);
    }
    clock.sleep(Duration::from_millis(900)).await;
    assert_eq!(shared.accounts.read().shaking, 20);
    clock.sleep(Duration::from_millis(200)).await;
    let accounts = shared.accounts.read();
    assert!(accounts.balanced(), "{accounts:?}");
    assert_eq!((accounts.arrived, accounts.shaking, accounts.live), (20, 0, 0), "{accounts:?}");
    // Ten were in the registry's hands.
    assert_eq!(accounts.refused, [("panic", 10), ("shutdown", 10)].into(), "{accounts:?}");
    for wire in &mut wires {
        let mut said = Vec::new();
        assert!(wire.read_to_end(&mut said).await.is_ok_and(|_| said == b"h"), "closed after our hello");
    }
    let panics = env.scope.panics();
    assert!(panics.len() == 1 && format!("{panics:?}").contains("the table is broken"), "{panics:?}");
    assert!(env.scope.stop_cause().is_some() && process.used() == 0);
    env.scope.close(Duration::from_secs(5)).await.unwrap();
}

/// Row 16: one loop serves IPv4 and IPv6 together, under the same limits: neither listener starves the other, and a mapped
/// address counts as the IPv4 one.
#[tokio::test(start_paused = true)]
async fn one_loop_serves_all_listeners_under_common_limits() {
    let env = Env::simulated(1, 0, 0, 0, rookery_observe::Trace::off());
    let heard = FairMailbox::new("tiny", LaneLimits::PEER, 1, env.clock, Arc::clone(&env.metrics));
    let shared = shared(&env, &heard, &ByteBudget::root("process", 1 << 20));
    let limits = HandshakeLimits { per_ip: 3, ..HandshakeLimits::LOCAL };
    let board = Switchboard::default();
    let (v4, v6): (SocketAddr, SocketAddr) =
        ("50.0.0.1:1".parse().unwrap(), "[2001:db8::1]:1".parse().unwrap());
    let mut listeners = Vec::new();
    for at in [v4, v6] {
        listeners.push(board.transport(at.ip()).listen(at).await.unwrap());
    }
    let acceptor = Acceptor::new(Arc::clone(&shared), limits);
    env.scope.spawn("accept", OnPanic::StopNode, acceptor.run(listeners));
    let mut held = Vec::new();
    for n in 0..1_000_u16 {
        let [a, b] = n.to_be_bytes();
        held.push(board.half_open(SocketAddr::from(([21, a, b, 1], 1)), v4, true).unwrap());
        let from: SocketAddr = format!("[2001:db8:{n:x}::2]:1").parse().unwrap();
        held.push(board.half_open(from, v6, true).unwrap());
    }
    for port in 1..=3 {
        held.push(board.half_open(SocketAddr::from(([22, 0, 0, 1], port)), v4, true).unwrap());
        let mapped: SocketAddr = format!("[::ffff:22.0.0.1]:{port}").parse().unwrap();
        held.push(board.half_open(mapped, v6, true).unwrap());
    }
    env.clock.sleep(Duration::from_millis(1)).await;
    let accounts = shared.accounts.read();
    assert_eq!((accounts.arrived, accounts.shaking), (2_006, 2_003), "{accounts:?}");
    assert_eq!(accounts.refused.get("handshakes_per_ip"), Some(&3));
    env.scope.close(Duration::from_secs(5)).await.unwrap();
}
