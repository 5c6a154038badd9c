//! quinn's configuration. Everything random comes from the node's own source, so that a simulated run repeats exactly.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, ConnectionId, ConnectionIdGenerator, EndpointConfig, IdleTimeout, MtuDiscoveryConfig,
    ServerConfig, TimeSource, TransportConfig, VarInt,
};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rookery_runtime::{Clock, Env};

use super::first::{Sparing, VERSION_1};
use super::floor::Floored;
use super::keys::{Sealing, Signing};
use super::{QuicLimits, QuicTls, lock};

/// Bytes of a connection id: as quinn's own; enough that guessing one of a million connections is hopeless.
const CID: usize = 8;
/// Bytes of the first datagrams that are kept of an arrival which waits to be let in: a post-quantum hello fills two.
const ARRIVAL_BYTES: u64 = 8 << 10;

/// How fine the search for a path's packet size is, in bytes: just over half of the way from the 1,200 bytes that every path
/// takes to the 1,452 that an Ethernet takes. So the largest is tried first, and on nearly all paths it is the only packet of
/// the search in place of four; where it is lost, one or two more find 1,325 or stay at 1,200.
const MTU_STEP: u16 = 127;

/// What each endpoint of a transport is made with.
pub(super) struct Setup {
    pub client: ClientConfig,
    pub server: ServerConfig,
    /// Of a connection that is let in.
    pub window: VarInt,
}

impl Setup {
    pub fn new(env: &Env, tls: QuicTls, secret: &[u8; 32], limits: QuicLimits) -> io::Result<Self> {
        let ours = Arc::new(transport(&limits, limits.window)?);
        let theirs = Arc::new(transport(&limits, limits.first_window.min(limits.window))?);
        let crypto = QuicClientConfig::try_from(tls.client).map_err(io::Error::other)?;
        let mut client = ClientConfig::new(Arc::new(crypto));
        client.transport_config(ours);
        let first_ids = Mutex::new(env.rng.fork("quic first connection ids", 0));
        client.initial_dst_cid_provider(Arc::new(move || {
            let mut id = [0; 20];
            lock(&first_ids).fill_bytes(&mut id);
            ConnectionId::new(&id)
        }));
        let crypto = Sparing::new(QuicServerConfig::try_from(tls.server).map_err(io::Error::other)?);
        let mut server = ServerConfig::new(Arc::new(crypto), Arc::new(Sealing::new(secret)));
        server
            .transport_config(theirs)
            .time_source(Arc::new(Calendar(env.clock)))
            .max_incoming(limits.arrivals)
            .incoming_buffer_size(ARRIVAL_BYTES)
            .incoming_buffer_size_total(ARRIVAL_BYTES * limits.arrivals as u64);
        Ok(Self { client, server, window: VarInt::from_u32(limits.window) })
    }

    /// A new endpoint's own part.
    pub fn endpoint(&self, env: &Env, number: u64) -> EndpointConfig {
        let mut rng = env.rng.fork("quic endpoint", number);
        let mut reset = [0; 64];
        rng.fill_bytes(&mut reset);
        let mut config = EndpointConfig::new(Arc::new(Signing::new(&reset)));
        config.supported_versions(vec![VERSION_1]);
        let mut seed = [0; 32];
        rng.fill_bytes(&mut seed);
        config.rng_seed(Some(seed));
        rng.fill_bytes(&mut seed);
        config.cid_generator(move || Box::new(Ids(ChaCha8Rng::from_seed(seed))));
        config
    }
}

/// For connections on which the other side may have sent so much that we have not read.
fn transport(limits: &QuicLimits, window: u32) -> io::Result<TransportConfig> {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.minimum_change(MTU_STEP);
    let mut config = TransportConfig::default();
    config
        .mtu_discovery_config(Some(mtu))
        .max_concurrent_bidi_streams(VarInt::from_u32(limits.streams))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(limits.stream_window))
        .receive_window(VarInt::from_u32(window))
        .send_window(u64::from(limits.window))
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(Some(IdleTimeout::try_from(limits.idle).map_err(io::Error::other)?))
        .keep_alive_interval(Some(limits.keep_alive))
        .congestion_controller_factory(Arc::new(Floored::default()))
        .initial_rtt(limits.initial_rtt);
    Ok(config)
}

/// Connection ids from the node's randomness.
struct Ids(ChaCha8Rng);

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; CID];
        self.0.fill_bytes(&mut id);
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        CID
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// The node's calendar, by which tokens run out.
struct Calendar(Clock);

impl TimeSource for Calendar {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.0.unix())
    }
}
