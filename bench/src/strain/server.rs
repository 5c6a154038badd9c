//! The server's process: one overlay node that says how it is whenever it is asked.
//!
//! | order | what it says |
//! |---|---|
//! | `sample` | what it has used and holds: CPU, memory, tasks, descriptors, the accounts of arrivals |
//! | `scan` | the same, and every session's peer as the registry lists it and as events have told of it |
//!
//! `sessions` are the peers of the registry's list, matched by generation with those of whom events have told. A session that only
//! one of the two has, and still has [`FLUX`] later, is in `differ`: the two views disagree.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rookery_base::PeerId;
use rookery_engine::registry::SessionLimits;
use rookery_engine::registry::watch::{Change, StateWatch};
use rookery_engine::{HandshakeLimits, Limits};
use rookery_overlay::services::requests::{AnswerWriter, Handler, Incoming, RequestError, ServiceLimits};
use rookery_overlay::{Builder, Handle, Node};
use rookery_runtime::{BoxFuture, Clock, Env};
use rookery_transport::quic::{QuicLimits, Udp};
use rookery_transport::tls::Keys;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::{DEADLINE, LOOPBACK, NETWORK, Outcome, said, service};
use crate::child::{heard, make_room, runtime, say};
use crate::measure::{descriptors, heap_bytes, process_cpu, resident_bytes};

/// To the server: say what you use.
pub const SAMPLE: &str = "sample";
/// To the server: say who is connected.
pub const SCAN: &str = "scan";
/// Between two looks at sessions on which the registry's list and the events differ, as they do while one is on its way.
const FLUX: Duration = Duration::from_millis(200);
/// Bytes of a question at most.
const MOST_BODY: u64 = 4096;

/// How handshakes are admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admit {
    /// As on loopback and private networks.
    Local,
    /// As a public node: each host and prefix has its limits, and above a low-water mark addresses have to be proven.
    Public,
    /// As a public node, and every address has to be proven.
    Proven,
    /// As many as a private network, and no address has ever to be proven.
    Anyone,
}

impl Admit {
    /// All of them, with their names on the command line.
    pub const ALL: [(&str, Self); 4] = [
        ("local", Self::Local),
        ("public", Self::Public),
        ("proven", Self::Proven),
        ("anyone", Self::Anyone),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, admit)| *admit == self).map_or("", |(name, _)| name)
    }

    /// The limits.
    pub const fn limits(self) -> HandshakeLimits {
        match self {
            Self::Local => HandshakeLimits::LOCAL,
            Self::Public => HandshakeLimits::PUBLIC,
            Self::Proven => HandshakeLimits { always_retry: true, ..HandshakeLimits::PUBLIC },
            // A mark above all there is is never reached.
            Self::Anyone => HandshakeLimits { low_water: 2.0, ..HandshakeLimits::LOCAL },
        }
    }
}

/// What a server is started with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Serving {
    /// Sessions that it has room for.
    pub sessions: usize,
    /// How handshakes are admitted.
    pub admit: Admit,
    /// Silence after which a connection is over.
    pub idle: Duration,
}

/// The bounds of QUIC for this silence; three and a third keep-alives fit, as in the usual ones.
pub fn quic(idle: Duration) -> QuicLimits {
    QuicLimits { idle, keep_alive: idle * 3 / 10, ..QuicLimits::DEFAULT }
}

impl Serving {
    /// The arguments that tell a process of it.
    pub fn arguments(&self) -> Vec<String> {
        let Self { sessions, admit, idle } = self;
        let idle = idle.as_secs_f64().to_string();
        ["--sessions", &sessions.to_string(), "--admit", admit.name(), "--idle", &idle]
            .map(str::to_owned)
            .into()
    }

    fn limits(&self) -> Limits {
        let most = self.sessions;
        let sessions = SessionLimits { inbound: most, per_ip: most, per_group: most, ..SessionLimits::LOCAL };
        Limits { sessions, handshakes: self.admit.limits(), ..Limits::LOCAL }
    }
}

/// Answers with the question.
struct Echo;

impl Handler for Echo {
    fn handle<'a>(
        &'a self,
        mut request: Incoming,
        to: &'a mut AnswerWriter,
    ) -> BoxFuture<'a, Result<(), RequestError>> {
        Box::pin(async move {
            let asked = request.body.all().await?;
            to.write(&asked).await
        })
    }
}

/// The process.
pub fn serve(serving: &Serving) -> Outcome<()> {
    // All of a server's connections are on its one socket.
    make_room(1)?;
    let runtime = runtime()?;
    let (node, handle) = runtime.block_on(start(serving))?;
    let mut looking = Looking { watch: handle.states(), told: BTreeMap::new(), handle };
    let _follow = runtime.block_on(async { follow(node) });
    let address = looking.handle.listening().first().copied().ok_or("a node that listens nowhere")?;
    say(&json!({ "invitation": format!("{address}/{}", looking.handle.id()) }));
    while let Some(order) = heard()? {
        match order.as_str() {
            SAMPLE => say(&looking.sample(&runtime)?),
            SCAN => {
                let mut report = looking.sample(&runtime)?;
                let (sessions, differ) = runtime.block_on(looking.scan());
                report["sessions"] = sessions.iter().map(|peer| short(*peer)).collect();
                report["differ"] = differ.into();
                say(&report);
            }
            other => return Err(format!("a server has no order {other:?}")),
        }
    }
    Ok(())
}

async fn start(serving: &Serving) -> Outcome<(Node, Handle)> {
    let limits = ServiceLimits { at_once: serving.sessions, most_body: MOST_BODY, within: DEADLINE };
    let builder = Builder::new(NETWORK)
        .keys(Keys::PostQuantum)
        .local()
        .limits(serving.limits())
        .quic(quic(serving.idle))
        .outbound(0)
        .listen(LOOPBACK)
        .serve(service(), limits, Arc::new(Echo));
    builder.start_in(&Env::system(), Arc::new(Udp::LARGE)).await.map_err(said)
}

/// Takes the events of a node, as applications do.
fn follow(mut node: Node) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { while node.next().await.is_some() {} });
    tasks
}

/// Enough of an identity to tell it from all others of a measurement.
pub fn short(peer: PeerId) -> String {
    peer.as_bytes().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

struct Looking {
    handle: Handle,
    watch: StateWatch,
    /// Sessions of which events have told.
    told: BTreeMap<u64, PeerId>,
}

impl Looking {
    fn sample(&self, runtime: &Runtime) -> Outcome<Value> {
        let engine = self.handle.engine();
        let accounts = engine.accounts();
        let audit = runtime.block_on(engine.audit()).ok_or("the registry does not answer")?;
        let (records, _) = runtime.block_on(self.handle.discovery().known());
        Ok(json!({
            "cpu_ms": process_cpu().as_secs_f64() * 1e3,
            "rss_kb": resident_bytes()? as f64 / 1024.0,
            "heap_kb": heap_bytes().map(|bytes| bytes as f64 / 1024.0),
            "tasks": self.handle.env().scope.running().len(),
            "panics": self.handle.env().scope.panics().len(),
            "descriptors": descriptors()?,
            "held_bytes": engine.held_bytes().0,
            "slots": audit.slots,
            "records": records,
            "balanced": accounts.balanced(),
            "accounts": accounts,
        }))
    }

    /// Sessions that registry and events agree on, and how many they lastingly differ on.
    async fn scan(&mut self) -> (Vec<PeerId>, usize) {
        let first = self.differing().await;
        let mut lasting = BTreeSet::new();
        if !first.is_empty() {
            Clock::system().sleep(FLUX).await;
            lasting = self.differing().await.intersection(&first).copied().collect();
        }
        (self.told.values().copied().collect(), lasting.len())
    }

    /// Generations that one of the two views has and the other has not.
    async fn differing(&mut self) -> BTreeSet<u64> {
        let listed: BTreeSet<u64> =
            self.handle.engine().peers().await.iter().map(|peer| peer.generation).collect();
        while let Some(change) = self.watch.try_next() {
            match change.change {
                Change::Connected => self.told.insert(change.generation.0, change.facts.peer),
                Change::Lost(_) => self.told.remove(&change.generation.0),
            };
        }
        let told = self.told.keys().copied().collect();
        listed.symmetric_difference(&told).copied().collect()
    }
}
