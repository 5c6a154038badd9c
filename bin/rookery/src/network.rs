//! The one table of networks, and what the choice of one presets.

use std::fmt;
use std::time::Duration;

use rookery_handshake::params::{MAIN, Params, REGTEST, SIMNET, TESTNET};

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
}

/// What a network presets in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preset {
    /// The port of an address that names none.
    pub port: u16,
    /// Whether there are seeds to start from.
    pub bootstrap: bool,
    /// Age of the tip from which the node is not ready, or `None` where blocks come only on demand.
    pub max_tip_age: Option<Duration>,
}

impl Network {
    /// Every network.
    pub const ALL: [Self; 4] =
        [Self::HandshakeMain, Self::HandshakeTestnet, Self::HandshakeRegtest, Self::HandshakeSimnet];

    /// The Handshake parameters.
    pub const fn params(self) -> &'static Params {
        match self {
            Self::HandshakeMain => &MAIN,
            Self::HandshakeTestnet => &TESTNET,
            Self::HandshakeRegtest => &REGTEST,
            Self::HandshakeSimnet => &SIMNET,
        }
    }

    /// The name in options, files and directories.
    pub const fn name(self) -> &'static str {
        self.params().name
    }

    /// The network of that name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|network| network.name() == name)
    }

    /// What it presets.
    pub fn preset(self) -> Preset {
        let params = self.params();
        let public = matches!(self, Self::HandshakeMain | Self::HandshakeTestnet);
        Preset {
            port: params.port,
            bootstrap: public,
            max_tip_age: public.then(|| Duration::from_secs(params.max_tip_age)),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
