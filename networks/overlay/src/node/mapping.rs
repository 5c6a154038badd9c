//! A port of the gateway's that leads to this node, for a node behind an address translator.
//!
//! ```text
//!  owner --map--> gateway          at the start, then at half the time that was granted, at most every ten minutes
//!    |                             no answer: after 30 s, then ever more rarely, to ten minutes
//!    '-----> reach                 where the port leads from, while the grant lasts; None after it
//!  stop: --release--> gateway      within two seconds
//! ```
//!
//! **What it promises.** One port, the first UDP port on which the node listens and that a translator could lead to. A
//! gateway that changes its address, or forgets, is noticed at the next renewal. A node that is killed leaves a mapping behind
//! for at most an hour, and takes it over when it starts again.
//!
//! **What a gateway is believed.** Nothing: it says an address, and [`reach`](super::reach) tells it to others only while
//! peers of different networks see this node at the same IP. So a gateway that lies, or that stands behind a second
//! translator, does not make this node name an address that is not its own; what is left to the liar is the port, and who
//! dials that in vain has lost one dial. A grant of no time, or of a second, is renewed no faster than every 30 s. An answer
//! over which the library panics costs the mapping, not the node.
//!
//! Off unless the owner gives a [`Gateway`]: a simulated node has none, and nothing here asks the machine for anything.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::time::Duration;

use rookery_base::Hash32;
use rookery_runtime::{BoxFuture, Clock, Env, Instant, OnPanic};
use tokio::sync::watch;

use crate::crypto::sha256;

/// The time that is asked for. Half of what RFC 6886 suggests: a node that is killed leaves less behind.
const LIFETIME: Duration = Duration::from_secs(3_600);
/// Longest time between renewals. Gateways restart and lose mappings and addresses without a word that reaches us; two
/// datagrams in ten minutes are nothing.
const RENEW_MOST: Duration = Duration::from_secs(600);
/// Shortest time between renewals, whatever was granted: a gateway does not keep us busy.
const RENEW_LEAST: Duration = Duration::from_secs(30);
/// After a failure the gateway is asked again so much later, then twice as late each time, to [`RENEW_MOST`].
const RETRY: Duration = Duration::from_secs(30);
/// An answer is waited for so long. Two protocols, each with a few repetitions, fit.
const ASK_WITHIN: Duration = Duration::from_secs(15);
/// The farewell takes no longer; a node stops within five seconds, and has more to do than this.
const RELEASE_WITHIN: Duration = Duration::from_secs(2);

/// What a mapping is known by to a gateway that keeps its owners apart: the same for all starts of one node, so that a node
/// that was killed can renew what it left behind.
pub type Token = [u8; 12];

/// The token of the node with this secret.
pub(super) fn token(secret: &[u8; 32]) -> Token {
    let Hash32(hash) = sha256(&[b"rookery overlay port mapping v1", secret]);
    *hash.first_chunk().expect("a hash is longer than a token")
}

/// What a gateway is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// The UDP port of this machine that is to be led to.
    pub port: NonZeroU16,
    /// For how long.
    pub lifetime: Duration,
    /// What the mapping is known by.
    pub token: Token,
}

/// What a gateway has granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapping {
    /// Where it takes datagrams for this node.
    pub external: SocketAddr,
    /// For how long, unless it is asked again.
    pub lifetime: Duration,
}

/// Why there is no mapping.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// This machine does not say where its gateway is.
    #[error("this machine's routes name no IPv4 gateway")]
    Unknown,
    /// Nobody answers there.
    #[error("the gateway {0} answers neither PCP nor NAT-PMP")]
    Silent(IpAddr),
    /// Nobody answers in time.
    #[error("the gateway has not answered within {} s", ASK_WITHIN.as_secs())]
    Late,
    /// It does not want to, or answers nonsense.
    #[error("the gateway {gateway} grants no mapping: {why}")]
    Refused {
        /// Which gateway.
        gateway: IpAddr,
        /// What it has answered.
        why: String,
    },
    /// This machine's own failure.
    #[error("cannot ask the gateway: {0}")]
    System(#[from] std::io::Error),
}

/// What a node asks for a port. One implementation asks by PCP and NAT-PMP (feature `port-mapping`); an application may
/// bring another, such as one for UPnP.
pub trait Gateway: Send + 'static {
    /// Asks for a mapping, or renews the one that there is. The future may be dropped.
    fn map(&mut self, wanted: Wanted) -> BoxFuture<'_, Result<Mapping, GatewayError>>;

    /// Gives the mapping back. Does nothing where none is held.
    fn release(&mut self) -> BoxFuture<'_, Result<(), GatewayError>>;
}

/// Where the node can be reached through the gateway, as the gateway says.
pub(super) type Mapped = watch::Receiver<Option<SocketAddr>>;

/// Of the addresses on which a node listens, the port that is worth a mapping: an IPv4 gateway leads to IPv4, and from
/// nowhere to a loopback address.
fn worth_mapping(listening: &[SocketAddr]) -> Option<NonZeroU16> {
    let reached = |addr: &&SocketAddr| {
        let ip = addr.ip().to_canonical();
        ip.is_unspecified() || (ip.is_ipv4() && !ip.is_loopback())
    };
    listening.iter().find(reached).and_then(|addr| NonZeroU16::new(addr.port()))
}

/// Keeps a mapping with the gateway for as long as the scope lives; without a gateway it stays at `None`.
pub(super) fn start(
    env: &Env,
    gateway: Option<Box<dyn Gateway>>,
    token: Token,
    listening: &[SocketAddr],
) -> Mapped {
    let (tell, mapped) = watch::channel(None);
    let Some(gateway) = gateway else { return mapped };
    let Some(port) = worth_mapping(listening) else {
        tracing::warn!(
            "no port is mapped: this node listens on no address that an IPv4 gateway leads to; listen on 0.0.0.0, [::] or \
             the address of an interface"
        );
        return mapped;
    };
    let wanted = Wanted { port, lifetime: LIFETIME, token };
    let until = env.clock.now();
    let owner = Owner { clock: env.clock, gateway, wanted, tell, until, retry: RETRY, complained: false };
    // A scope of its own: a panic over what a gateway has answered costs the mapping, not the node.
    let scope = env.scope.child("port mapping");
    scope.clone().spawn_to_end("port mapping", OnPanic::EndScope, async move {
        let mut owner = owner;
        tokio::select! {
            biased;
            () = scope.cancelled() => {}
            never = owner.keep() => match never {},
        }
        owner.release().await;
    });
    mapped
}

/// Has the mapping.
struct Owner {
    clock: Clock,
    gateway: Box<dyn Gateway>,
    wanted: Wanted,
    tell: watch::Sender<Option<SocketAddr>>,
    /// When the grant ends.
    until: Instant,
    /// How long to wait after the next failure.
    retry: Duration,
    /// Whether the operator knows that there is no mapping.
    complained: bool,
}

impl Owner {
    async fn keep(&mut self) -> Infallible {
        loop {
            let asked = self.gateway.map(self.wanted);
            let answer = self.clock.timeout(ASK_WITHIN, asked).await.unwrap_or(Err(GatewayError::Late));
            let wait = match answer {
                Ok(mapping) => self.granted(mapping),
                Err(error) => self.failed(&error),
            };
            self.clock.sleep(wait).await;
        }
    }

    /// Tells what was granted; says when to renew it.
    fn granted(&mut self, Mapping { external, lifetime }: Mapping) -> Duration {
        self.until = self.clock.now() + lifetime;
        (self.retry, self.complained) = (RETRY, false);
        if self.tell.send_replace(Some(external)) != Some(external) {
            tracing::info!("mapped UDP port {} to {external} by the gateway", self.wanted.port);
        }
        (lifetime / 2).clamp(RENEW_LEAST, RENEW_MOST)
    }

    /// Tells that the grant has ended, if it has; says when to ask again.
    fn failed(&mut self, error: &GatewayError) -> Duration {
        let left = self.until.saturating_duration_since(self.clock.now());
        if !std::mem::replace(&mut self.complained, true) {
            tracing::warn!(
                "UDP port {} is not mapped: {error}; allow PCP or NAT-PMP in the router, or name the router if it is another \
                 one, or forward the port there by hand; trying again",
                self.wanted.port
            );
        }
        let wait = self.retry;
        self.retry = (2 * self.retry).min(RENEW_MOST);
        if left.is_zero() {
            self.tell.send_replace(None);
            wait
        } else {
            wait.min(left)
        }
    }

    async fn release(mut self) {
        match self.clock.timeout(RELEASE_WITHIN, self.gateway.release()).await {
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::info!("the port mapping stays until it expires: {error}"),
            None => tracing::info!("the port mapping stays until it expires: no answer from the gateway"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};

    use rookery_base::id::canonical_addr;
    use rookery_observe::Trace;

    use super::*;

    /// What the gateway was asked, and when.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Asked {
        Map(Wanted),
        Release,
    }

    /// Answers what it was told to; silence where nothing is left.
    #[derive(Clone, Default)]
    struct Fake {
        answers: Arc<Mutex<VecDeque<Mapping>>>,
        asked: Arc<Mutex<Vec<(u64, Asked)>>>,
        clock: Arc<Mutex<Option<Clock>>>,
        deaf_at_the_end: bool,
    }

    impl Fake {
        fn answering(answers: &[(&str, u64)]) -> Self {
            let mapping = |&(external, secs): &(&str, u64)| Mapping {
                external: external.parse().unwrap(),
                lifetime: Duration::from_secs(secs),
            };
            let answers = Arc::new(Mutex::new(answers.iter().map(mapping).collect()));
            Self { answers, ..Self::default() }
        }

        fn note(&self, asked: Asked) {
            let at = self.clock.lock().unwrap().unwrap().elapsed().as_secs();
            self.asked.lock().unwrap().push((at, asked));
        }

        /// When it was asked for a mapping, in seconds from the start.
        fn asked_at(&self) -> Vec<u64> {
            let asked = self.asked.lock().unwrap();
            asked.iter().filter(|(_, what)| *what != Asked::Release).map(|(at, _)| *at).collect()
        }
    }

    impl Gateway for Fake {
        fn map(&mut self, wanted: Wanted) -> BoxFuture<'_, Result<Mapping, GatewayError>> {
            self.note(Asked::Map(wanted));
            let answer = self.answers.lock().unwrap().pop_front();
            Box::pin(async move { answer.ok_or(GatewayError::Silent(IpAddr::from([192, 168, 1, 1]))) })
        }

        fn release(&mut self) -> BoxFuture<'_, Result<(), GatewayError>> {
            self.note(Asked::Release);
            let deaf = self.deaf_at_the_end;
            Box::pin(async move { if deaf { std::future::pending().await } else { Ok(()) } })
        }
    }

    const TOKEN: Token = [7; 12];

    fn started(fake: &Fake) -> (Env, Mapped) {
        let env = Env::simulated(1, 0, 1_800_000_000, 0, Trace::off());
        *fake.clock.lock().unwrap() = Some(env.clock);
        let at = ["127.0.0.1:1".parse().unwrap(), "[::]:7000".parse().unwrap()];
        let mapped = start(&env, Some(Box::new(fake.clone())), TOKEN, &at);
        (env, mapped)
    }

    async fn at(env: &Env, secs: u64) {
        env.clock.sleep(Duration::from_secs(secs).saturating_sub(env.clock.elapsed())).await;
    }

    fn external(text: &str) -> Option<SocketAddr> {
        Some(canonical_addr(text.parse().unwrap()))
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_asked_for_renewed_before_it_ends_followed_and_given_back() {
        let fake =
            Fake::answering(&[("8.8.8.1:40001", 600), ("8.8.8.1:40001", 7_200), ("8.8.8.2:40001", 7_200)]);
        let (env, mapped) = started(&fake);
        at(&env, 1).await;
        assert_eq!(*mapped.borrow(), external("8.8.8.1:40001"));
        at(&env, 301).await;
        assert_eq!(fake.asked_at(), [0, 300], "renewed at half the time");
        at(&env, 901).await;
        assert_eq!(fake.asked_at(), [0, 300, 900], "and at most ten minutes later, however much was granted");
        assert_eq!(*mapped.borrow(), external("8.8.8.2:40001"), "the gateway has another address");
        env.scope.close(Duration::from_secs(1)).await.unwrap();
        let asked = fake.asked.lock().unwrap();
        let wanted = Wanted { port: NonZeroU16::new(7_000).unwrap(), lifetime: LIFETIME, token: TOKEN };
        assert_eq!(asked.first(), Some(&(0, Asked::Map(wanted))));
        assert_eq!(asked.last(), Some(&(901, Asked::Release)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_grant_outlives_a_silent_gateway_and_no_longer() {
        let fake = Fake::answering(&[("8.8.8.1:40001", 200)]);
        let (env, mapped) = started(&fake);
        at(&env, 199).await;
        assert_eq!(*mapped.borrow(), external("8.8.8.1:40001"), "the gateway keeps what it has granted");
        at(&env, 201).await;
        assert_eq!(*mapped.borrow(), None);
        assert_eq!(fake.asked_at(), [0, 100, 130, 190, 200]);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_gateway_it_asks_ever_more_rarely_and_tells_nothing() {
        let fake = Fake::default();
        let (env, mapped) = started(&fake);
        at(&env, 3_000).await;
        assert_eq!(fake.asked_at(), [0, 30, 90, 210, 450, 930, 1_530, 2_130, 2_730]);
        assert_eq!(*mapped.borrow(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_gateway_that_grants_a_moment_is_not_asked_without_end() {
        let fake = Fake::answering(&[("8.8.8.1:1", 1), ("8.8.8.1:1", 0), ("8.8.8.1:1", 1)]);
        let (env, _mapped) = started(&fake);
        at(&env, 61).await;
        assert_eq!(fake.asked_at(), [0, 30, 60]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_gateway_that_is_deaf_at_the_end_does_not_hold_the_node_up() {
        let fake = Fake { deaf_at_the_end: true, ..Fake::answering(&[("8.8.8.1:40001", 600)]) };
        let (env, _mapped) = started(&fake);
        at(&env, 1).await;
        let asked = env.clock.now();
        env.scope.close(Duration::from_secs(5)).await.unwrap();
        assert_eq!(env.clock.now() - asked, RELEASE_WITHIN);
    }

    /// A library that meets an answer it was not written for.
    struct Broken;

    impl Gateway for Broken {
        fn map(&mut self, _: Wanted) -> BoxFuture<'_, Result<Mapping, GatewayError>> {
            panic!("an answer that nobody has thought of")
        }

        fn release(&mut self) -> BoxFuture<'_, Result<(), GatewayError>> {
            unreachable!("its owner has gone")
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_over_an_answer_costs_the_mapping_alone() {
        let env = Env::simulated(1, 0, 1_800_000_000, 0, Trace::off());
        let mut mapped = start(&env, Some(Box::new(Broken)), TOKEN, &["0.0.0.0:7000".parse().unwrap()]);
        assert!(mapped.changed().await.is_err(), "its owner has gone");
        assert!(!env.scope.is_cancelled());
        assert_eq!((env.scope.stop_cause(), env.scope.panics().len()), (None, 1));
    }

    #[test]
    fn what_a_gateway_cannot_lead_to_is_not_asked_for() {
        let port = |listening: &[&str]| {
            let listening: Vec<SocketAddr> = listening.iter().map(|addr| addr.parse().unwrap()).collect();
            worth_mapping(&listening).map(NonZeroU16::get)
        };
        assert_eq!(port(&[]), None);
        assert_eq!(port(&["127.0.0.1:1", "[::1]:2", "[2001:db8::1]:3"]), None);
        assert_eq!(port(&["127.0.0.1:1", "192.168.1.7:4", "0.0.0.0:5"]), Some(4));
        assert_eq!(port(&["[::]:6"]), Some(6));
        assert_eq!(port(&["[::ffff:127.0.0.1]:7"]), None);
    }

    #[test]
    fn a_node_keeps_its_token_and_does_not_show_its_secret() {
        assert_eq!(token(&[1; 32]), token(&[1; 32]));
        assert_ne!(token(&[1; 32]), token(&[2; 32]));
        assert_ne!(token(&[1; 32]), [1; 12]);
    }
}
