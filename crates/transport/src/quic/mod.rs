//! QUIC, by quinn: one endpoint for dialling and accepting.
//!
//! | file | what it holds |
//! |---|---|
//! | `mod.rs` | [`Quic`]: listens and dials; its limits |
//! | `setup.rs` | quinn's configuration: bounds, tokens, everything random from the node's own source |
//! | `keys.rs` | the keys of address tokens and stateless resets |
//! | `first.rs` | keys of first packets, derived as far as they are needed |
//! | `flights.rs` | the second datagram of a hello is no second arrival |
//! | `conn.rs` | a connection as a [`Mux`](crate::Mux) |
//! | `farewell.rs` | goodbyes are said again until they are answered |
//! | `turns.rs` | handshakes compute in turn |
//! | `floor.rs` | room in the congestion window for a handshake's own packets |
//! | `driver.rs` | quinn's tasks and timers in the node's scope and on its clock; how an endpoint ends |
//! | [`udp`] | sockets: the receive buffer is asked for and read back; the simulation brings its own |
//! | `receiver.rs`, `ring.rs` | a thread that helps to read a socket whose buffer is small, and what it has read |
//!
//! Nothing has been paid for an arrival until it is accepted: it is one datagram in quinn's queue, and the accept path asks for
//! a proof of its address (Retry), refuses it or lets it in. A peer that we have spoken to holds tokens (NEW_TOKEN) that prove
//! its address in its first datagram, so that a flood that makes strangers prove theirs costs it no round trip.

mod conn;
mod driver;
mod farewell;
mod first;
mod flights;
mod floor;
mod keys;
mod receiver;
mod ring;
mod setup;
mod turns;
pub mod udp;

use std::future::ready;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quinn::{AsyncUdpSocket, Endpoint, Incoming, VarInt};
use rookery_base::id::canonical_addr;
use rookery_runtime::{BoxFuture, Clock, Env};
use tokio::task::consume_budget;

use crate::{Arrival, Conn, Entering, Farewell, Listener, Pending, Transport, Waits};
use conn::Site;
use driver::Driver;
use farewell::Farewells;
use flights::Flights;
pub use receiver::Receiver;
use setup::Setup;
use turns::Shaking;
pub use udp::{Bound, Datagrams, Udp};

/// Bounds of an endpoint and of each of its connections.
#[derive(Debug, Clone, Copy)]
pub struct QuicLimits {
    /// Streams that the other side may have open at a time.
    pub streams: u32,
    /// Bytes that the other side may have sent of one stream before we have read them.
    pub stream_window: u32,
    /// The same for all streams of a connection, and what we may have sent and not heard of: with the number of connections this
    /// bounds what peers can have us hold; see [`sharing`](Self::sharing).
    pub window: u32,
    /// The same of a connection that has come to us and is not let in yet, see [`Mux::admit`](crate::Mux::admit): no stream's part of it is larger.
    pub first_window: u32,
    /// Nothing heard for this long ends a connection.
    pub idle: Duration,
    /// Something is said at least this often.
    pub keep_alive: Duration,
    /// What a round trip is taken to last before one was measured: three of it pass before a lost first packet is sent again.
    pub initial_rtt: Duration,
    /// Arrivals that wait for the accept path.
    pub arrivals: usize,
}

impl QuicLimits {
    /// streams: 64 requests at a time are more than one application asks one peer. windows: 256 KiB fill 20 Mbit/s at 100 ms;
    /// a connection holds four such streams. first_window: hellos have a few kilobytes, and strangers hold that much of each
    /// handshake's place. idle, keep_alive: NATs forget UDP after 30 s; three keep-alives fit, so that two may
    /// be lost. initial_rtt: RFC 9002's 333 ms make one lost first packet cost a second; 100 ms is a long way round the world's
    /// half. arrivals: four times a storm of a thousand.
    pub const DEFAULT: Self = Self {
        streams: 64,
        stream_window: 256 << 10,
        window: 1 << 20,
        first_window: 16 << 10,
        idle: Duration::from_secs(30),
        keep_alive: Duration::from_secs(9),
        initial_rtt: Duration::from_millis(100),
        arrivals: 4096,
    };

    /// These limits, with windows small enough that so many connections hold at most `bytes` of what their peers have sent and
    /// we have not read, and of what we have said and they have not acknowledged. Not below [`LEAST_WINDOW`](Self::LEAST_WINDOW),
    /// with which the most connections that this can be asked for hold more.
    #[must_use]
    pub fn sharing(self, bytes: u64, connections: usize) -> Self {
        let each = bytes / 2 / connections.max(1) as u64;
        let window = u32::try_from(each).unwrap_or(u32::MAX).max(Self::LEAST_WINDOW).min(self.window);
        Self { window, stream_window: self.stream_window.min(window), ..self }
    }

    /// Bytes under way that a connection is allowed however many there are: 5 Mbit/s at 100 ms.
    pub const LEAST_WINDOW: u32 = 64 << 10;
}

/// What a server and a client need for TLS. The overlay's come from [`tls::Identity`](crate::tls::Identity); a network
/// with certificates or keys of its own brings its own.
#[derive(Clone)]
pub struct QuicTls {
    /// For connections that we dial.
    pub client: rustls::ClientConfig,
    /// For connections that we accept.
    pub server: rustls::ServerConfig,
}

/// The QUIC transport of one node.
#[derive(Clone)]
pub struct Quic(Arc<Shared>);

struct Shared {
    env: Env,
    setup: Setup,
    datagrams: Arc<dyn Datagrams>,
    driver: Driver,
    /// The endpoints that are bound. The lock is held for a look or a push.
    endpoints: Mutex<Vec<(Endpoint, Site)>>,
}

impl Quic {
    /// A transport in `env`'s scope. `secret` is what the tokens are sealed with that prove a peer's address later: one that
    /// outlives the process lets known peers skip that proof after a restart.
    ///
    /// # Errors
    /// When the TLS configuration cannot be used for QUIC.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn start(
        env: &Env,
        tls: QuicTls,
        secret: &[u8; 32],
        limits: QuicLimits,
        datagrams: Arc<dyn Datagrams>,
    ) -> io::Result<Self> {
        let setup = Setup::new(env, tls, secret, limits)?;
        let driver = Driver::new(env);
        Ok(Self(Arc::new(Shared { env: env.clone(), setup, datagrams, driver, endpoints: Mutex::default() })))
    }

    fn bind(&self, at: SocketAddr) -> io::Result<(Endpoint, Site)> {
        let Shared { env, setup, datagrams, driver, endpoints } = &*self.0;
        let bound = datagrams.bind(at)?;
        let farewells = Farewells::around(bound.socket, env);
        let mut endpoint = Endpoint::new_with_abstract_socket(
            setup.endpoint(env, lock(endpoints).len() as u64),
            Some(setup.server.clone()),
            Arc::clone(&farewells) as Arc<dyn AsyncUdpSocket>,
            driver.runtime(),
        )?;
        endpoint.set_default_client_config(setup.client.clone());
        if let Some(receiver) = bound.receiver {
            receiver.start(env, driver.gone());
        }
        // A buffer is far smaller than 2^63 bytes.
        env.metrics.udp_receive_buffer_bytes.set(bound.receive_buffer.unwrap_or(0) as i64);
        driver.keep(env, endpoint.clone());
        let (local, metrics) = (endpoint.local_addr()?, Arc::clone(&env.metrics));
        let site = Site { local, window: setup.window, metrics, farewells };
        lock(endpoints).push((endpoint.clone(), site.clone()));
        Ok((endpoint, site))
    }

    /// An endpoint that can reach an address, bound to any port if none is bound yet.
    fn endpoint_to(&self, to: SocketAddr) -> io::Result<(Endpoint, Site, SocketAddr)> {
        for (endpoint, site) in lock(&self.0.endpoints).iter() {
            if let Some(to) = reach(site.local, to) {
                return Ok((endpoint.clone(), site.clone(), to));
            }
        }
        let any = match to {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let (endpoint, site) = self.bind(any)?;
        Ok((endpoint, site, to))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that runs under this lock can leave it half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The address as a socket bound at `from` writes it; `None` when it cannot reach it. A socket on all of IPv6 reaches IPv4 by
/// mapped addresses.
fn reach(from: SocketAddr, to: SocketAddr) -> Option<SocketAddr> {
    match (from, canonical_addr(to)) {
        (SocketAddr::V4(from), SocketAddr::V4(to)) => (from.ip().is_loopback() == to.ip().is_loopback()
            || from.ip().is_unspecified())
        .then_some(to.into()),
        (SocketAddr::V6(from), SocketAddr::V4(to)) if from.ip().is_unspecified() => {
            Some(SocketAddr::from((to.ip().to_ipv6_mapped(), to.port())))
        }
        (SocketAddr::V6(from), SocketAddr::V6(to)) => (from.ip().is_loopback() == to.ip().is_loopback()
            || from.ip().is_unspecified())
        .then_some(to.into()),
        _ => None,
    }
}

/// A name for a peer, by which tokens are remembered. It is never sent.
fn name_of(to: SocketAddr) -> String {
    let ip: String =
        to.ip().to_string().chars().map(|c| if c.is_ascii_hexdigit() { c } else { '-' }).collect();
    format!("p{}.ip-{}-x.peer", to.port(), ip.trim_matches('-'))
}

impl Transport for Quic {
    fn listen(&self, at: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let (endpoint, site) = self.bind(at)?;
            let door = Door { endpoint, site, clock: self.0.env.clock, flights: Flights::default() };
            Ok(Box::new(door) as Box<dyn Listener>)
        })
    }

    fn dial(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<Conn>> {
        Box::pin(async move {
            let (endpoint, site, to) = self.endpoint_to(to)?;
            let connecting = endpoint.connect(to, &name_of(canonical_addr(to))).map_err(io::Error::other)?;
            conn::established(connecting.await.map_err(conn::error)?, site)
        })
    }
}

/// A bound endpoint's arrivals.
struct Door {
    endpoint: Endpoint,
    site: Site,
    clock: Clock,
    flights: Flights,
}

impl Listener for Door {
    fn local_addr(&self) -> SocketAddr {
        self.site.local
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<Arrival>> {
        Box::pin(async move {
            loop {
                // quinn's queue counts for nothing in what a task may do in a row: however full it is, others have their turns.
                consume_budget().await;
                let Some(incoming) = self.endpoint.accept().await else { break };
                let now = self.clock.now();
                if self.flights.begins(&incoming, now) {
                    let (site, waits) = (self.site.clone(), Waits::new(now));
                    return Ok(Arrival::Pending(Box::new(AtTheDoor { incoming, site, waits })));
                }
                incoming.ignore();
                self.site.metrics.quic_passed_over.inc();
            }
            // The endpoint is closed: the node stops, and its scope ends the accept loop.
            std::future::pending().await
        })
    }
}

/// One datagram of a connection.
struct AtTheDoor {
    incoming: Incoming,
    site: Site,
    waits: Waits,
}

impl Pending for AtTheDoor {
    fn remote(&self) -> SocketAddr {
        canonical_addr(self.incoming.remote_address())
    }

    fn validated(&self) -> bool {
        self.incoming.remote_address_validated()
    }

    fn waits(&self) -> Option<&Waits> {
        Some(&self.waits)
    }

    fn retry(self: Box<Self>) {
        if let Err(error) = self.incoming.retry() {
            error.into_incoming().refuse();
        }
    }

    fn refuse(self: Box<Self>) {
        self.incoming.refuse();
    }

    fn ignore(self: Box<Self>) {
        self.incoming.ignore();
    }

    fn accept(self: Box<Self>) -> Entering {
        let Self { incoming, site, waits } = *self;
        let failed = |error| Entering { conn: Box::pin(ready(Err(conn::error(error)))), farewell: None };
        let shaking = Shaking::new(waits);
        let connecting = match shaking.making(|| incoming.accept()) {
            Ok(connecting) => connecting,
            Err(error) => return failed(error),
        };
        // Not for early data: only so can a handshake that is under way be ended with a reason.
        let (connection, shaken) = match connecting.into_0rtt() {
            Ok(begun) => begun,
            Err(_) => return failed(quinn::ConnectionError::LocallyClosed),
        };
        let (ending, farewells) = (connection.clone(), Arc::clone(&site.farewells));
        let shook = Arc::new(AtomicBool::new(false));
        let (over, until_over) = (Arc::clone(&shook), shaking.until_dropped());
        let conn = Box::pin(async move {
            let _until_over = until_over;
            shaken.await;
            over.store(true, Relaxed);
            match connection.close_reason() {
                Some(error) => Err(conn::error(error)),
                None => conn::established(connection, site),
            }
        });
        let farewell: Farewell = Box::new(move |code, reason| {
            let code = VarInt::from_u32(code);
            if shook.load(Relaxed) {
                farewells.close(&ending, code, reason.as_bytes());
            } else {
                // Whoever still shakes hands repeats what is not answered, and is told again by that; and who shakes thousands of
                // hands at once is not worth four datagrams for each.
                ending.close(code, reason.as_bytes());
            }
        });
        Entering { conn, farewell: Some(farewell) }
    }
}

#[cfg(test)]
mod tests;
