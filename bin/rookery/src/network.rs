//! The one table of networks, and what the choice of one presets.

use std::fmt;
use std::time::Duration;

use rookery_handshake::params::{MAIN, Params, REGTEST, SIMNET, TESTNET};

/// The port of an overlay node that names none: ROOK on a telephone's keys, in the range that users may take and, as far as
/// the system's list of services goes, nobody else's.
const OVERLAY_PORT: u16 = 7665;
/// Sessions that others may open to a Handshake node: hsd's own default.
const HANDSHAKE_INBOUND: u32 = 20;
/// The same for an overlay node, which accepts peers by default and whose peers cost less: what `Limits::PUBLIC` has.
const OVERLAY_INBOUND: u32 = 64;

/// A network that this node can join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Network {
    /// Handshake, where names and coins have value.
    HandshakeMain,
    /// Handshake's public test network.
    HandshakeTestnet,
    /// Handshake on one machine: blocks on demand, no retarget.
    HandshakeRegtest,
    /// Handshake on one machine with the main network's retarget rules.
    HandshakeSimnet,
    /// A general-purpose overlay of peers with proven identities; which one, its name says.
    Overlay,
}

/// What a network presets in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preset {
    /// The port of an address that names none.
    pub port: u16,
    /// Whether there are seeds to start from.
    pub bootstrap: bool,
    /// Whether peers are accepted, on every address of the machine, unless the user says otherwise.
    pub listens: bool,
    /// Sessions that others may open.
    pub max_inbound: u32,
    /// Age of the tip from which the node is not ready, or `None` where blocks come only on demand.
    pub max_tip_age: Option<Duration>,
}

impl Network {
    /// Every network.
    pub const ALL: [Self; 5] = [
        Self::HandshakeMain,
        Self::HandshakeTestnet,
        Self::HandshakeRegtest,
        Self::HandshakeSimnet,
        Self::Overlay,
    ];

    /// The Handshake parameters; none for the overlay, which has no chain.
    pub const fn handshake(self) -> Option<&'static Params> {
        match self {
            Self::HandshakeMain => Some(&MAIN),
            Self::HandshakeTestnet => Some(&TESTNET),
            Self::HandshakeRegtest => Some(&REGTEST),
            Self::HandshakeSimnet => Some(&SIMNET),
            Self::Overlay => None,
        }
    }

    /// The name in options, files and directories.
    pub const fn name(self) -> &'static str {
        match self.handshake() {
            Some(params) => params.name,
            None => "overlay",
        }
    }

    /// The network of that name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|network| network.name() == name)
    }

    /// What it presets.
    pub fn preset(self) -> Preset {
        let Some(params) = self.handshake() else {
            return Preset {
                port: OVERLAY_PORT,
                bootstrap: false,
                listens: true,
                max_inbound: OVERLAY_INBOUND,
                max_tip_age: None,
            };
        };
        let public = matches!(self, Self::HandshakeMain | Self::HandshakeTestnet);
        Preset {
            port: params.port,
            bootstrap: public,
            listens: false,
            max_inbound: HANDSHAKE_INBOUND,
            max_tip_age: public.then(|| Duration::from_secs(params.max_tip_age)),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
