//! The command line. Its help is the reference in docs/reference/cli.md, compared by a test.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::config::value::{Raw, parse_duration};
use crate::exit::Exit;
use crate::node::Question;

/// Help is wrapped at this width whatever the terminal, so that the reference has one text.
const HELP_WIDTH: usize = 100;

/// Rookery: a peer-to-peer node that keeps one supervised routine per peer.
///
/// Joins a network: Handshake, whose headers it verifies, keeps and serves to others, or an overlay of peers with
/// proven identities. Options win over ROOKERY_*
/// variables, those over the configuration file, that over the defaults; `rookery config` documents every key.
#[derive(Debug, Parser)]
#[command(name = "rookery", version, term_width = HELP_WIDTH, propagate_version = false)]
#[command(after_long_help = AFTER_HELP)]
pub struct Cli {
    /// The options that every command takes.
    #[command(flatten)]
    pub common: Common,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

const AFTER_HELP: &str = "\
Examples:
  rookery demo                                   a network of nodes in this process, nothing else needed
  rookery run                                    join Handshake's main network
  rookery run --listen 0.0.0.0 --metrics 127.0.0.1:9332
  rookery run --network overlay --topic chat --bootstrap 192.0.2.7
  rookery sync --network handshake-regtest --connect 127.0.0.1 --json
  rookery status                                 what the running node is doing
  rookery why                                    what its progress waits for
  rookery probe handshake-main 192.0.2.7 version";

/// The options that every command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Common options")]
pub struct Common {
    /// The network [default: handshake-main] [possible: handshake-main, handshake-testnet, handshake-regtest,
    /// handshake-simnet, overlay]
    #[arg(long, global = true, value_name = "NETWORK")]
    pub network: Option<String>,
    /// Where data is kept, in one directory per network below it [default: $XDG_DATA_HOME/rookery]
    #[arg(long, global = true, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Read this configuration file [default: $XDG_CONFIG_HOME/rookery/config.toml, else
    /// /etc/rookery/config.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What to log to stderr: a level, or a list such as info,rookery_engine=debug [default: info]
    #[arg(long, global = true, value_name = "FILTER")]
    pub log: Option<String>,
    /// How to log: auto, pretty, plain or json [default: auto]
    #[arg(long, global = true, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// Print JSON instead of text on stdout, one value per line
    #[arg(long, global = true)]
    pub json: bool,
}

/// How a node finds and meets peers.
#[derive(Debug, Args, Default)]
#[command(next_help_heading = "Peers")]
pub struct Peers {
    /// Connect to this peer and to nobody that is not named; repeat for more
    #[arg(long, value_name = "ADDRESS", conflicts_with = "peer")]
    pub connect: Vec<String>,
    /// Connect to this peer in addition to those found; repeat for more
    #[arg(long, value_name = "ADDRESS")]
    pub peer: Vec<String>,
    /// Accept peers on this IP or IP:PORT; repeat for more [default: accept nobody; in the
    /// overlay: on all addresses]
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Vec<String>,
    /// Begin a new chain with the 150 headers of this file, in hnsd's format, instead of genesis
    #[arg(long, value_name = "FILE")]
    pub checkpoint: Option<String>,
    /// Serve /metrics, /healthz and /readyz over HTTP on this IP:PORT [default: off]
    #[arg(long, value_name = "ADDRESS")]
    pub metrics: Option<String>,
}

/// What a node of the overlay does there.
#[derive(Debug, Args, Default)]
#[command(next_help_heading = "Overlay")]
pub struct Overlay {
    /// Print what is published under this topic, and publish the lines of stdin
    #[arg(long, value_name = "TOPIC")]
    pub topic: Option<String>,
    /// Which overlay to join: nodes of other names are not spoken to [default: rookery]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Ask this node for others while nobody else is known; repeat for more
    #[arg(long, value_name = "ADDRESS")]
    pub bootstrap: Vec<String>,
    /// The overlay is on this machine or a private network: its addresses may be told and dialled
    #[arg(long)]
    pub local: bool,
    /// Refuse peers that cannot prove an ML-DSA-65 key
    #[arg(long)]
    pub require_post_quantum: bool,
    /// Ask the router for a port that leads here, by PCP or NAT-PMP: that of the default route, or
    /// the one named
    #[arg(long, value_name = "ROUTER", num_args = 0..=1, require_equals = true, default_missing_value = "auto")]
    pub map_port: Option<String>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Join the network and stay
    #[command(after_help = "Ctrl-C or SIGTERM stops it within 5 seconds; a second one stops it at once.\n\n\
        In the overlay, what others publish under the topic goes to stdout, one line each (one JSON object\n\
        with --json), and each line of stdin is published. Who published is not told: what has to be\n\
        known, the payload says.\n\n\
        Example, in two terminals:\n  \
        rookery run --network overlay --topic chat --local --listen 127.0.0.1\n  \
        rookery run --network overlay --topic chat --local --listen 127.0.0.1:0 --bootstrap 127.0.0.1 \\\n    \
        --data-dir ./second")]
    Run {
        /// How to find peers.
        #[command(flatten)]
        peers: Peers,
        /// What to do in the overlay.
        #[command(flatten)]
        overlay: Overlay,
    },
    /// Catch up with the network, print a summary and exit
    #[command(after_help = "Exits with 0 at the tip of the connected peers, and with 6 when it gave up.\n\n\
        Example:\n  rookery sync --network handshake-regtest --connect 127.0.0.1:14038 --json")]
    Sync {
        /// How to find peers.
        #[command(flatten)]
        peers: Peers,
        /// Give up when nothing has advanced for this long: 45s, 10m, 1h
        #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
        patience: Duration,
    },
    /// Watch a network of nodes in this process: one mines, one joins late and catches up
    #[command(
        after_help = "With --network overlay, six nodes with ML-DSA-65 identities find each other through one of\n\
        them, one publishes, and all get it.\n\n\
        Needs no internet. On a terminal it goes on until Ctrl-C; with --json, or when \
        stdout is no\nterminal, it ends once the late node has followed five new blocks, and prints a summary."
    )]
    Demo {
        /// Headers that the late node has to catch up with
        #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        headers: u32,
    },
    /// Ask one peer one question, without a node
    #[command(after_help = "Example:\n  rookery probe handshake-main 192.0.2.7 ping --json")]
    Probe {
        /// The peer's network
        #[arg(value_name = "NETWORK")]
        of: String,
        /// HOST or HOST:PORT
        address: String,
        /// What to ask
        #[arg(value_enum)]
        question: Question,
    },
    /// Show the running node at a glance
    Status,
    /// Show who this node is to its peers: its peer id in the overlay
    #[command(after_help = "Reads the identity that the first `run` has made; makes none.\n\n\
        Example:\n  rookery id --network overlay")]
    Id {
        /// Which overlay's identity: each has its own [default: rookery]
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
    },
    /// List the running node's peers, or say why one of them is treated as it is
    #[command(after_help = "Examples:\n  rookery peers\n  rookery peers 192.0.2.7:12038 why\n  \
        rookery peers 192.0.2.7 why")]
    Peers {
        /// A peer's IP:PORT, as the list shows it, or an IP for every port of it
        #[arg(value_parser = address)]
        address: Option<SocketAddr>,
        /// What to tell about it
        #[arg(value_enum, requires = "address")]
        about: Option<About>,
    },
    /// List the addresses that the running node refuses, for how much longer, and why
    Bans,
    /// Show the running node's chain
    Chain,
    /// Say what the running node's progress waits for, hop by hop
    Why,
    /// Run a simulated world from a seed; without a scenario, list them
    #[command(after_help = "A run is its seed: the same seed gives the same hash, here and anywhere.\n\n\
        Example:\n  rookery sim partition --seed 7")]
    Sim {
        /// The scenario's name
        scenario: Option<String>,
        /// The seed
        #[arg(long, value_name = "N", default_value_t = 0, requires = "scenario")]
        seed: u64,
    },
    /// Print a documented default configuration, or look at the one in force
    #[command(after_help = "Examples:\n  rookery config > ~/.config/rookery/config.toml\n  \
        rookery config show --origin")]
    Config {
        /// What to do instead of printing the defaults.
        #[command(subcommand)]
        action: Option<ConfigAction>,
    },
    /// Print a completion script
    #[command(
        after_help = "Example:\n  rookery completions bash > ~/.local/share/bash-completion/completions/rookery"
    )]
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

/// What to tell about a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum About {
    /// The facts that shaped its fate.
    Why,
}

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigAction {
    /// Check file, environment and options, and say nothing if they are good
    Check,
    /// Print the values in force
    Show {
        /// Say where each value came from
        #[arg(long)]
        origin: bool,
    },
}

/// An IP with port, or without: port 0 then stands for all.
fn address(text: &str) -> Result<SocketAddr, String> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let any_port = || bare.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 0));
    text.parse().or_else(|_| any_port()).map_err(|_| "expected IP or IP:PORT".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "expected a number and a unit, such as 45s, 10m or 1h".to_owned())
}

impl Cli {
    /// The flags as assignments to keys of the configuration.
    pub fn assignments(&self) -> Vec<(&'static str, Raw)> {
        let common = &self.common;
        let data_dir = common.data_dir.as_ref().map(|dir| dir.to_string_lossy().into_owned());
        let mut flags = vec![
            ("network", common.network.clone().map(Raw::Word)),
            ("data_dir", data_dir.map(Raw::Word)),
            ("log", common.log.clone().map(Raw::Word)),
            ("log_format", common.log_format.clone().map(Raw::Word)),
        ];
        let list = |items: &Vec<String>| (!items.is_empty()).then(|| Raw::Words(items.clone()));
        let on = |on: bool| on.then(|| Raw::Word("true".to_owned()));
        if let Command::Run { overlay, .. } = &self.command {
            flags.push(("overlay.topic", overlay.topic.clone().map(Raw::Word)));
            flags.push(("overlay.name", overlay.name.clone().map(Raw::Word)));
            flags.push(("overlay.bootstrap", list(&overlay.bootstrap)));
            flags.push(("overlay.local", on(overlay.local)));
            flags.push(("overlay.require_post_quantum", on(overlay.require_post_quantum)));
            flags.push(("overlay.map_port", overlay.map_port.clone().map(Raw::Word)));
        }
        if let Command::Id { name } = &self.command {
            flags.push(("overlay.name", name.clone().map(Raw::Word)));
        }
        if let Command::Run { peers, .. } | Command::Sync { peers, .. } = &self.command {
            flags.push(("connect", list(&peers.connect)));
            flags.push(("peer", list(&peers.peer)));
            flags.push(("listen", list(&peers.listen)));
            flags.push(("checkpoint", peers.checkpoint.clone().map(Raw::Word)));
            flags.push(("metrics", peers.metrics.clone().map(Raw::Word)));
        }
        flags.into_iter().filter_map(|(path, raw)| Some((path, raw?))).collect()
    }
}

/// The command line's definition, with the exit codes in its help.
pub fn definition() -> clap::Command {
    let codes: Vec<_> =
        Exit::ALL.iter().map(|(exit, about)| format!("  {:<4} {about}", exit.code())).collect();
    Cli::command().after_long_help(format!("{AFTER_HELP}\n\nExit codes:\n{}", codes.join("\n")))
}

/// Parses a command line. What fails, and what asks for help or version, is clap's to print.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let matches = definition().try_get_matches_from(args)?;
    clap::FromArgMatches::from_arg_matches(&matches)
}

/// The reference page: every command's help.
pub fn reference() -> String {
    let mut root = definition();
    root.build();
    let mut out = String::from("# Command line\n\nGenerated from the program; a test keeps it true.\n");
    page(&mut root, &mut out);
    out
}

fn page(command: &mut clap::Command, out: &mut String) {
    let name = command.get_bin_name().unwrap_or("rookery").to_owned();
    let help = command.render_long_help().to_string();
    let help: Vec<_> = help.lines().map(str::trim_end).collect();
    out.push_str(&format!("\n## {name}\n\n```text\n{}\n```\n", help.join("\n").trim_end()));
    for inner in command.get_subcommands_mut() {
        if inner.get_name() != "help" {
            page(inner, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(line: &str) -> Vec<(&'static str, Raw)> {
        parse(line.split(' ').map(OsString::from)).unwrap().assignments()
    }

    #[test]
    fn the_definition_is_sound() {
        definition().debug_assert();
    }

    #[test]
    fn flags_become_assignments() {
        assert_eq!(flags("rookery status"), []);
        assert_eq!(
            flags("rookery sync --network handshake-regtest --connect a --connect b:1"),
            [
                ("network", Raw::Word("handshake-regtest".into())),
                ("connect", Raw::Words(vec!["a".into(), "b:1".into()])),
            ]
        );
    }

    #[test]
    fn every_flag_of_a_key_exists() {
        let run = definition();
        let run = run.find_subcommand("run").unwrap().clone();
        for key in crate::config::keys::KEYS {
            let Some(flag) = key.flag else { continue };
            let known = definition()
                .get_arguments()
                .chain(run.get_arguments())
                .any(|arg| arg.get_long() == Some(flag));
            assert!(known, "{flag}");
        }
    }

    #[test]
    fn only_and_in_addition_exclude_each_other() {
        let line = ["rookery", "run", "--connect", "a", "--peer", "b"];
        assert!(parse(line.iter().map(OsString::from)).is_err());
    }
}
