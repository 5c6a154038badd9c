//! Configuration: one table of keys, five layers, and where each value came from.
//!
//! ```text
//! flag  >  ROOKERY_* environment  >  file  >  preset of the network  >  default
//! ```
//!
//! One name in three spellings: the key `data_dir` is `--data-dir` and `ROOKERY_DATA_DIR`; a key in a section,
//! `ready.min_peers`, is `ROOKERY_READY__MIN_PEERS`. The file is `--config` or `ROOKERY_CONFIG`, else
//! `$XDG_CONFIG_HOME/rookery/config.toml`, else `/etc/rookery/config.toml`; the first that exists is the only one
//! read. An unknown key is an error that suggests the nearest name. Every layer is checked, also where a higher one
//! overrides it: a typo does not wait for the day the flag is left out.
//!
//! | module | what it is for |
//! |---|---|
//! | [`keys`] | the table: name, meaning, how it is set and shown |
//! | [`value`] | the types of values, what they accept and how they are written |
//! | [`layers`] | files, environment and flags as assignments with an origin |
//! | [`text`] | the documented default file |

pub mod keys;
pub mod layers;
pub mod text;
pub mod value;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use rookery_transport::tls::Keys;

use crate::exit::Report;
use crate::network::Network;
use keys::{KEYS, Key};
use layers::{Assignment, Origin, Surroundings};
use value::{ListenAddress, LogFormat, MapPort, PeerAddress, Raw};

/// When the node counts as ready to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// Fewest connected peers.
    pub min_peers: u32,
    /// Most blocks behind the best peer.
    pub max_lag: u32,
    /// Greatest age of the tip; `None` does not look at it.
    pub max_tip_age: Option<Duration>,
}

/// What an overlay node is given beside what every node is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "documented once, in the table of keys that users read")]
pub struct OverlayConfig {
    pub name: String,
    pub topic: String,
    pub bootstrap: Vec<PeerAddress>,
    pub local: bool,
    pub keys: Keys,
    pub require_post_quantum: bool,
    pub map_port: MapPort,
}

/// Everything that can be configured, all layers applied. [`KEYS`] says what each field means.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "documented once, in the table of keys that users read")]
pub struct Config {
    pub network: Network,
    pub data_dir: PathBuf,
    pub connect: Vec<PeerAddress>,
    pub peer: Vec<PeerAddress>,
    pub bootstrap: bool,
    pub listen: Vec<ListenAddress>,
    pub checkpoint: Option<PathBuf>,
    pub max_outbound: u32,
    pub max_inbound: u32,
    pub metrics: Option<SocketAddr>,
    pub log: String,
    pub log_format: LogFormat,
    pub ready: Ready,
    pub overlay: OverlayConfig,
}

/// Outbound sessions. hsd keeps 8: enough that one honest operator is among them, few enough to be polite.
const MAX_OUTBOUND: u32 = 8;
/// A tip two blocks behind is the ordinary state of a node that has just heard of a block.
const MAX_LAG: u32 = 2;

impl Config {
    /// The defaults of a network, on a machine with this data home.
    pub fn defaults(network: Network, surroundings: &Surroundings) -> Self {
        let preset = network.preset();
        Self {
            network,
            data_dir: surroundings.data_home.join("rookery"),
            connect: Vec::new(),
            peer: Vec::new(),
            bootstrap: preset.bootstrap,
            listen: if preset.listens { vec![ListenAddress::ANY] } else { Vec::new() },
            checkpoint: None,
            max_outbound: MAX_OUTBOUND,
            max_inbound: preset.max_inbound,
            metrics: None,
            log: "info".to_owned(),
            log_format: LogFormat::Auto,
            ready: Ready { min_peers: 1, max_lag: MAX_LAG, max_tip_age: preset.max_tip_age },
            overlay: OverlayConfig {
                name: "rookery".to_owned(),
                topic: String::new(),
                bootstrap: Vec::new(),
                local: false,
                keys: Keys::Both,
                require_post_quantum: false,
                map_port: MapPort::Off,
            },
        }
    }

    /// What a file with this text alone configures, on a machine without environment. Total: any text gives a
    /// configuration or a report, for the fuzzer and for tools that check files.
    pub fn from_toml(text: &str) -> Result<Self, Report> {
        let assignments = layers::from_toml(text, &PathBuf::from("config.toml"))?;
        Ok(Settled::new(&Surroundings::nowhere(), &assignments)?.config)
    }

    /// Where the overlay node's identity and known peers are: one of each for every overlay, as identities that are used in
    /// several networks would tell who is in them.
    pub fn identity_dir(&self) -> PathBuf {
        self.chain_dir().join("nodes").join(&self.overlay.name)
    }

    /// The overlay's bootstrap nodes as `host:port`.
    pub fn bootstrap_nodes(&self) -> Vec<String> {
        let port = self.network.preset().port;
        self.overlay.bootstrap.iter().map(|node| node.with_port(port)).collect()
    }

    /// Where this network's data, lock and control socket are.
    pub fn chain_dir(&self) -> PathBuf {
        self.data_dir.join(self.network.name())
    }

    /// The peers that were named, with ports, and whether there may be others.
    pub fn named_peers(&self) -> NamedPeers {
        let port = self.network.preset().port;
        let only = !self.connect.is_empty();
        let named = if only { &self.connect } else { &self.peer };
        NamedPeers { named: named.iter().map(|peer| peer.with_port(port)).collect(), only }
    }

    /// The addresses to listen on, with ports.
    pub fn listen_addresses(&self) -> Vec<SocketAddr> {
        let port = self.network.preset().port;
        self.listen.iter().map(|address| address.with_port(port)).collect()
    }
}

/// The peers that the user named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedPeers {
    /// `host:port`, the host an address or a name to resolve.
    pub named: Vec<String>,
    /// Only these: no seeds, no address book, no discovery.
    pub only: bool,
}

/// A configuration and where each of its values came from.
#[derive(Debug, Clone)]
pub struct Settled {
    /// The values.
    pub config: Config,
    origins: BTreeMap<&'static str, Origin>,
}

impl Settled {
    /// Applies assignments, lowest layer first, over the network's preset and the defaults.
    pub fn new(surroundings: &Surroundings, assignments: &[Assignment]) -> Result<Self, Report> {
        let scratch = || Config::defaults(Network::HandshakeMain, surroundings);
        // The network decides presets, so it is settled before everything else.
        let mut first = scratch();
        for assignment in assignments.iter().filter(|assignment| assignment.key.path == "network") {
            assignment.apply(&mut first)?;
        }
        let mut settled = Self {
            config: Config::defaults(first.network, surroundings),
            origins: KEYS.iter().map(|key| (key.path, key.untouched(first.network))).collect(),
        };
        for assignment in assignments {
            assignment.apply(&mut settled.config)?;
            settled.origins.insert(assignment.key.path, assignment.origin.clone());
        }
        Ok(settled)
    }

    /// Every layer of this process: file, environment and the given flags.
    pub fn load(
        surroundings: &Surroundings,
        file: Option<PathBuf>,
        flags: Vec<(&'static str, Raw)>,
    ) -> Result<Self, Report> {
        let mut assignments = layers::from_file(surroundings, file)?;
        assignments.extend(layers::from_environment(surroundings)?);
        assignments.extend(flags.into_iter().filter_map(|(path, raw)| {
            let key = Key::by_path(path)?;
            Some(Assignment { key, raw, origin: Origin::Flag(key.flag?) })
        }));
        let settled = Self::new(surroundings, &assignments)?;
        if settled.config.data_dir.as_os_str() == "rookery" {
            return Err(Report::usage("there is no home directory to keep data in").hint(
                "set --data-dir DIR, or one of ROOKERY_DATA_DIR, XDG_DATA_HOME and HOME in the environment",
            ));
        }
        Ok(settled)
    }

    /// That no option was given which the network has no use for.
    pub fn check_flags(&self) -> Result<(), Report> {
        let overlay = self.config.network == Network::Overlay;
        for key in KEYS {
            let Some(Origin::Flag(flag)) = self.origins.get(key.path) else { continue };
            let (fits, whose) = match key.path.strip_prefix("overlay.") {
                Some(_) => (overlay, "the overlay"),
                None => (!overlay || key.path != "checkpoint", "networks with a chain"),
            };
            if !fits {
                let what = format!("--{flag} is for {whose}, and this is {}", self.config.network);
                return Err(Report::usage(what).hint(if overlay {
                    "leave it out, or choose another --network"
                } else {
                    "add --network overlay, or leave it out"
                }));
            }
        }
        Ok(())
    }

    /// Where the value of a key came from.
    pub fn origin(&self, path: &str) -> Option<&Origin> {
        self.origins.get(path)
    }

    /// Every key with its value as TOML and its origin, in the order of the table.
    pub fn rows(&self) -> Vec<(&'static str, String, &Origin)> {
        KEYS.iter()
            .filter_map(|key| Some((key.path, (key.show)(&self.config), self.origins.get(key.path)?)))
            .collect()
    }
}
