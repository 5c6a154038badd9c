//! The table of keys. What is not here cannot be configured; what is here is documented here and nowhere else.

use super::Config;
use super::layers::Origin;
use super::value::{Raw, assign, assign_count, assign_name, assign_topic, literal};
use crate::network::Network;

/// What the default of a key depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Default {
    /// On nothing.
    Fixed,
    /// On the network.
    Preset,
    /// On the machine and the user.
    Machine,
}

/// One key.
#[derive(Debug)]
pub struct Key {
    /// `name`, or `section.name`.
    pub path: &'static str,
    /// The option that sets it, without the dashes.
    pub flag: Option<&'static str>,
    /// What it means and what follows from it, one comment line each.
    pub about: &'static [&'static str],
    /// What its default depends on.
    pub default: Default,
    /// Sets it; on failure says what was expected.
    pub put: fn(&mut Config, &Raw) -> Result<(), String>,
    /// Its value as TOML.
    pub show: fn(&Config) -> String,
}

/// More sessions than this do not make a node see more, and each costs the network a slot.
const MOST_OUTBOUND: u32 = 64;
/// What one process is measured to carry with room to spare.
const MOST_INBOUND: u32 = 4_000;

/// Every key, in the order of the file.
pub static KEYS: &[Key] = &[
    Key {
        path: "network",
        flag: Some("network"),
        about: &[
            "The network to join: handshake-main, handshake-testnet, handshake-regtest, handshake-simnet or",
            "overlay. It presets the port, whether there are seeds, whether peers are accepted and how many,",
            "and how old a tip may be.",
        ],
        default: Default::Fixed,
        put: |config, raw| assign(&mut config.network, raw),
        show: |config| literal(&config.network),
    },
    Key {
        path: "data_dir",
        flag: Some("data-dir"),
        about: &["Where chains, identities, peers and locks are kept, in a directory per network below it."],
        default: Default::Machine,
        put: |config, raw| assign(&mut config.data_dir, raw),
        show: |config| literal(&config.data_dir),
    },
    Key {
        path: "connect",
        flag: Some("connect"),
        about: &[
            "Connect to these peers (HOST or HOST:PORT) and to nobody else: no seeds, no learnt addresses.",
            "When set, `peer`, `bootstrap` and `overlay.bootstrap` are not used.",
        ],
        default: Default::Fixed,
        put: |config, raw| assign(&mut config.connect, raw),
        show: |config| literal(&config.connect),
    },
    Key {
        path: "peer",
        flag: Some("peer"),
        about: &["Keep connections to these peers (HOST or HOST:PORT) in addition to those found."],
        default: Default::Fixed,
        put: |config, raw| assign(&mut config.peer, raw),
        show: |config| literal(&config.peer),
    },
    Key {
        path: "bootstrap",
        flag: None,
        about: &["Find first peers through the network's DNS and fixed seeds when none are known."],
        default: Default::Preset,
        put: |config, raw| assign(&mut config.bootstrap, raw),
        show: |config| literal(&config.bootstrap),
    },
    Key {
        path: "listen",
        flag: Some("listen"),
        about: &[
            "Accept peers on these addresses (IP or IP:PORT; the network's port by default), for example",
            "[\"0.0.0.0\", \"[::]\"]. Empty: accept nobody. Headers are served to whoever asks. The overlay's",
            "default is [\"[::]\"], which takes IPv4 too; its port is 7665, UDP.",
        ],
        default: Default::Preset,
        put: |config, raw| assign(&mut config.listen, raw),
        show: |config| literal(&config.listen),
    },
    Key {
        path: "checkpoint",
        flag: Some("checkpoint"),
        about: &[
            "Begin a new chain with the 150 headers of this file instead of genesis; hnsd writes such files",
            "(checkpoint_main.dat). Its first height and work are trusted, its headers are verified. A chain",
            "that is there already goes on from where it is.",
        ],
        default: Default::Fixed,
        put: |config, raw| assign(&mut config.checkpoint, raw),
        show: |config| literal(&config.checkpoint),
    },
    Key {
        path: "max_outbound",
        flag: None,
        about: &["Sessions that this node opens, 1 to 64."],
        default: Default::Fixed,
        put: |config, raw| assign_count(&mut config.max_outbound, raw, 1, MOST_OUTBOUND),
        show: |config| literal(&config.max_outbound),
    },
    Key {
        path: "max_inbound",
        flag: None,
        about: &["Sessions that others may open to this node, 0 to 4000; 64 in the overlay."],
        default: Default::Preset,
        put: |config, raw| assign_count(&mut config.max_inbound, raw, 0, MOST_INBOUND),
        show: |config| literal(&config.max_inbound),
    },
    Key {
        path: "metrics",
        flag: Some("metrics"),
        about: &[
            "Serve /metrics, /healthz and /readyz over HTTP on this IP:PORT; \"\" serves nothing.",
            "There is no authentication: keep it on loopback or behind a firewall.",
        ],
        default: Default::Fixed,
        put: |config, raw| assign(&mut config.metrics, raw),
        show: |config| literal(&config.metrics),
    },
    Key {
        path: "log",
        flag: Some("log"),
        about: &[
            "What is logged to stderr: error, warn, info, debug or trace, or by target:",
            "\"info,rookery_engine=debug\".",
        ],
        default: Default::Fixed,
        put: |config, raw| super::value::assign_filter(&mut config.log, raw),
        show: |config| literal(&config.log),
    },
    Key {
        path: "log_format",
        flag: Some("log-format"),
        about: &["How it is logged: auto (pretty on a terminal, plain elsewhere), pretty, plain or json."],
        default: Default::Fixed,
        put: |config, raw| assign(&mut config.log_format, raw),
        show: |config| literal(&config.log_format),
    },
    Key {
        path: "ready.min_peers",
        flag: None,
        about: &["/readyz asks for this many connected peers."],
        default: Default::Fixed,
        put: |config, raw| assign_count(&mut config.ready.min_peers, raw, 0, MOST_INBOUND),
        show: |config| literal(&config.ready.min_peers),
    },
    Key {
        path: "ready.max_lag",
        flag: None,
        about: &["/readyz allows this many blocks behind the best height that a peer claims."],
        default: Default::Fixed,
        put: |config, raw| assign_count(&mut config.ready.max_lag, raw, 0, u32::MAX),
        show: |config| literal(&config.ready.max_lag),
    },
    Key {
        path: "ready.max_tip_age",
        flag: None,
        about: &[
            "/readyz allows a tip of this age: \"12h\", \"90m\", \"45s\", \"2d\"; \"off\" does not look at it.",
        ],
        default: Default::Preset,
        put: |config, raw| assign(&mut config.ready.max_tip_age, raw),
        show: |config| literal(&config.ready.max_tip_age),
    },
    Key {
        path: "overlay.name",
        flag: Some("name"),
        about: &[
            "Which overlay to join: nodes of other names are not spoken to. 1 to 32 characters a to z, 0 to 9,",
            "- and _. Each has an identity and known peers of its own.",
        ],
        default: Default::Fixed,
        put: |config, raw| assign_name(&mut config.overlay.name, raw),
        show: |config| literal(&config.overlay.name),
    },
    Key {
        path: "overlay.topic",
        flag: Some("topic"),
        about: &[
            "Subscribe to this topic: print what is published there, and publish the lines of stdin. Empty:",
            "neither, for a node that only helps others to find each other.",
        ],
        default: Default::Fixed,
        put: |config, raw| assign_topic(&mut config.overlay.topic, raw),
        show: |config| literal(&config.overlay.topic),
    },
    Key {
        path: "overlay.bootstrap",
        flag: Some("bootstrap"),
        about: &["Ask these nodes (HOST or HOST:PORT) for others while nobody else is known."],
        default: Default::Fixed,
        put: |config, raw| assign(&mut config.overlay.bootstrap, raw),
        show: |config| literal(&config.overlay.bootstrap),
    },
    Key {
        path: "overlay.local",
        flag: Some("local"),
        about: &[
            "The overlay is on one machine or a private network: private addresses are told and dialled, and one",
            "host may open many sessions. Not for a node that strangers reach.",
        ],
        default: Default::Fixed,
        put: |config, raw| assign(&mut config.overlay.local, raw),
        show: |config| literal(&config.overlay.local),
    },
    Key {
        path: "overlay.keys",
        flag: None,
        about: &[
            "The keys of this node's identity: both (ML-DSA-65, and Ed25519 for peers that know only that),",
            "post-quantum (ML-DSA-65) or classic (Ed25519, at half the cost of a peer). Another choice is",
            "another peer id: the id commits to the keys.",
        ],
        default: Default::Fixed,
        put: |config, raw| assign(&mut config.overlay.keys, raw),
        show: |config| literal(&config.overlay.keys),
    },
    Key {
        path: "overlay.require_post_quantum",
        flag: Some("require-post-quantum"),
        about: &[
            "Refuse peers that cannot prove an ML-DSA-65 key. The key exchange is safe from quantum computers",
            "either way; this is about who a peer is.",
        ],
        default: Default::Fixed,
        put: |config, raw| assign(&mut config.overlay.require_post_quantum, raw),
        show: |config| literal(&config.overlay.require_post_quantum),
    },
    Key {
        path: "overlay.map_port",
        flag: Some("map-port"),
        about: &[
            "Ask the router for a port that leads to this node, by PCP or NAT-PMP, and give it back at the end:",
            "off, auto (the router of the default route) or the router's IPv4 address. The router learns that",
            "this machine wants to be reached; others learn the port once they see this node at the same IP.",
        ],
        default: Default::Fixed,
        put: |config, raw| assign(&mut config.overlay.map_port, raw),
        show: |config| literal(&config.overlay.map_port),
    },
];

impl Key {
    /// The key of that path.
    pub fn by_path(path: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.path == path)
    }

    /// The environment variable that sets it.
    pub fn variable(&self) -> String {
        format!("ROOKERY_{}", self.path.replace('.', "__").to_uppercase())
    }

    /// The origin of a value that no layer has set.
    pub(super) const fn untouched(&self, network: Network) -> Origin {
        match self.default {
            Default::Preset => Origin::Preset(network),
            Default::Fixed | Default::Machine => Origin::Default,
        }
    }
}

/// The nearest of `names` to `typed`, when it is near enough to be what was meant.
pub fn nearest<'a>(typed: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Two slips in a short name, a third of the letters in a long one.
    let most = (typed.chars().count() / 3).max(2);
    names
        .into_iter()
        .map(|name| (distance(typed, name), name))
        .filter(|(distance, name)| *distance <= most && *distance < name.chars().count())
        .min()
        .map(|(_, name)| name)
}

/// Letters to change, insert, leave out or swap with their neighbour to get from `a` to `b`. Long input is cut: what
/// differs after `LONGEST_TYPED` letters is no slip.
pub fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(LONGEST_TYPED).collect();
    let b: Vec<char> = b.chars().take(LONGEST_TYPED).collect();
    let (mut before, mut above) = (Vec::new(), (0..=b.len()).collect::<Vec<_>>());
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let replaced = above[j] + usize::from(x != y);
            let mut best = replaced.min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                let swapped: &Vec<usize> = &before;
                best = best.min(swapped[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

/// Twice the longest key.
const LONGEST_TYPED: usize = 48;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised_and_other_words_are_not() {
        let names = || KEYS.iter().map(|key| key.path);
        assert_eq!(nearest("netwrok", names()), Some("network"));
        assert_eq!(nearest("lisen", names()), Some("listen"));
        assert_eq!(nearest("ready.maxlag", names()), Some("ready.max_lag"));
        assert_eq!(nearest("colour", names()), None);
        assert_eq!(distance("ab", "ba"), 1);
        assert_eq!(distance("", "abc"), 3);
    }

    #[test]
    fn paths_are_unique_and_name_their_variable() {
        for (i, key) in KEYS.iter().enumerate() {
            assert!(KEYS[..i].iter().all(|other| other.path != key.path), "{}", key.path);
            assert!(key.about.iter().all(|line| line.len() <= 100), "{}", key.path);
        }
        assert_eq!(Key::by_path("ready.max_lag").unwrap().variable(), "ROOKERY_READY__MAX_LAG");
    }
}
