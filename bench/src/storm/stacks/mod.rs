//! Who can storm: ours, the floor, and the rivals, a module each with `serve` and `peers`.

#[cfg(feature = "rivals")]
mod iroh;
#[cfg(feature = "rivals")]
mod libp2p;
#[cfg(feature = "rivals")]
mod litep2p;
mod quinn;
mod rookery;
mod transport;

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use rookery_engine::Accounts;

use super::exchange::Answered;
use super::{Keys, Outcome, Plan, Sources};

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stack {
    /// Ours: a node of the overlay.
    Rookery,
    /// Our QUIC transport alone.
    Transport,
    /// The floor: bare quinn and rustls with ours' cryptography and nothing around it.
    Quinn,
    /// iroh, without relays and address look-up.
    Iroh,
    /// rust-libp2p over QUIC.
    Libp2p,
    /// rust-libp2p over TCP with Noise and Yamux.
    Libp2pTcp,
    /// litep2p over QUIC.
    Litep2p,
}

/// A server that listens.
pub struct Serving {
    /// What its peers need to know to reach and to verify it.
    pub invitation: String,
    /// Where all that came to it is, for those that know.
    pub accounts: Option<Box<dyn Fn() -> Accounts + Send>>,
    /// What ends it when dropped.
    _held: Held,
}

impl Serving {
    /// A server that keeps no accounts.
    fn new(invitation: String, held: impl Any + Send) -> Self {
        Self { invitation, accounts: None, _held: Box::new(held) }
    }
}

/// Something that ends when it is dropped.
pub type Held = Box<dyn Any + Send>;

/// One peer, made and bound, that has not begun. It ends with its checked answer, and holds its connection open.
pub type Attempt = Pin<Box<dyn Future<Output = Outcome<Held>> + Send>>;

impl Stack {
    /// All of them, ours and the floor first.
    pub const ALL: &[Self] = &[
        Self::Rookery,
        Self::Transport,
        Self::Quinn,
        Self::Iroh,
        Self::Libp2p,
        Self::Libp2pTcp,
        Self::Litep2p,
    ];
    /// What ours is held against in every storm.
    pub const FLOOR: Self = Self::Quinn;
    /// Ours and the floor.
    pub const PAIRED: &[Self] = &[Self::Rookery, Self::FLOOR];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rookery => "rookery",
            Self::Transport => "transport",
            Self::Quinn => "quinn",
            Self::Iroh => "iroh",
            Self::Libp2p => "libp2p",
            Self::Libp2pTcp => "libp2p-tcp",
            Self::Litep2p => "litep2p",
        }
    }

    /// The identities that its peers have in a storm of this plan.
    pub fn keys(self, plan: &Plan) -> Keys {
        match self {
            Self::Rookery | Self::Transport | Self::Quinn => plan.keys,
            Self::Iroh | Self::Libp2p | Self::Libp2pTcp | Self::Litep2p => Keys::Ed25519,
        }
    }

    /// Descriptors that a peer takes of its process, at most.
    pub fn descriptors(self) -> usize {
        match self {
            // The socket.
            Self::Rookery | Self::Transport | Self::Quinn => 1,
            // Sockets, and what it watches the machine's interfaces with.
            Self::Iroh => 8,
            // A swarm each, with listener and connection.
            Self::Libp2p | Self::Libp2pTcp | Self::Litep2p => 4,
        }
    }

    /// Whether this program can run it, and if not, what to do.
    pub fn available(self) -> Outcome<()> {
        let rival = !matches!(self, Self::Rookery | Self::Transport | Self::Quinn);
        if cfg!(feature = "rivals") || !rival {
            return Ok(());
        }
        Err(format!(
            "{} is not built in. Building it takes a while and needs protoc: cargo run --release --manifest-path bench/Cargo.toml \
             --features rivals -- vs storm",
            self.name()
        ))
    }

    /// Whether it can do what a plan asks for beyond numbers.
    pub fn fits(self, plan: &Plan) -> Outcome<()> {
        match self {
            Self::Iroh if plan.default_buffers => {
                Err("iroh asks for receive buffers itself: leave it out, or --default-buffers".into())
            }
            Self::Litep2p if plan.sources == Sources::Many => {
                Err("litep2p chooses the address that it dials from: leave it out, or --sources many".into())
            }
            _ => Ok(()),
        }
    }

    /// Listens, and answers every verified peer, noting it.
    pub async fn serve(self, plan: &Plan, answered: Arc<Answered>) -> Outcome<Serving> {
        match self {
            Self::Rookery => rookery::serve(plan, answered).await,
            Self::Transport => transport::serve(plan, answered).await,
            Self::Quinn => quinn::serve(plan, answered),
            #[cfg(feature = "rivals")]
            Self::Iroh => iroh::serve(answered).await,
            #[cfg(feature = "rivals")]
            Self::Libp2p => libp2p::serve(libp2p::Over::Quic, answered).await,
            #[cfg(feature = "rivals")]
            Self::Libp2pTcp => libp2p::serve(libp2p::Over::Tcp, answered).await,
            #[cfg(feature = "rivals")]
            Self::Litep2p => litep2p::serve(answered),
            #[cfg(not(feature = "rivals"))]
            _ => Err(self.available().expect_err("only rivals are absent")),
        }
    }

    /// Makes all peers of a storm.
    pub async fn peers(self, plan: &Plan, invitation: &str) -> Outcome<Vec<Attempt>> {
        match self {
            Self::Rookery => rookery::peers(plan, invitation).await,
            Self::Transport => transport::peers(plan, invitation).await,
            Self::Quinn => quinn::peers(plan, invitation),
            #[cfg(feature = "rivals")]
            Self::Iroh => iroh::peers(plan, invitation).await,
            #[cfg(feature = "rivals")]
            Self::Libp2p => libp2p::peers(libp2p::Over::Quic, plan, invitation).await,
            #[cfg(feature = "rivals")]
            Self::Libp2pTcp => libp2p::peers(libp2p::Over::Tcp, plan, invitation).await,
            #[cfg(feature = "rivals")]
            Self::Litep2p => litep2p::peers(plan, invitation),
            #[cfg(not(feature = "rivals"))]
            _ => Err(self.available().expect_err("only rivals are absent")),
        }
    }
}
