//! The node's front of the house: command line, configuration, control socket, health and metrics, output.
//!
//! No protocol lives here. What needs one goes through the seam in [`node`].
//!
//! ```text
//! main -> cli -> config (layers, origins) -> commands -> service -> node (the seam)
//!                                               |           +--> control socket, HTTP
//!                                               +--> output, progress, log
//! ```
//!
//! | module | what it is for |
//! |---|---|
//! | [`cli`] | the command line, from which the reference is made |
//! | [`config`] | five layers, one table of keys, the origin of each value |
//! | [`network`] | the one table of networks |
//! | [`node`] | the seam: what a node shows, what makes nodes |
//! | [`plug`] | nodes of every network behind the seam |
//! | [`service`] | one node with everything around it: lock, signals, sockets, clean stop |
//! | [`commands`] | what each command does |
//! | [`control`], [`http`] | questions to a running node, from people and from machines |
//! | [`output`], [`progress`], [`log`] | stdout for results, stderr for everything else |
//! | [`exit`] | exit codes and errors with a hint |
//! | [`lock`], [`signals`], [`usage`], [`front`] | small parts of the above |

pub mod cli;
pub mod commands;
pub mod config;
pub mod control;
pub mod exit;
pub mod front;
pub mod http;
pub mod lock;
pub mod log;
pub mod network;
pub mod node;
pub mod output;
pub mod plug;
pub mod progress;
pub mod service;
pub mod signals;
pub mod usage;

use std::ffi::OsString;

use exit::Exit;
use node::Machinery;

/// Runs a command line and says how the process should end. Errors have been printed: to stderr, as text or, with
/// `--json`, as one JSON line.
pub fn run(machinery: &dyn Machinery, args: impl IntoIterator<Item = OsString>) -> Exit {
    let cli = match cli::parse(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Printing fails only when nobody reads.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Clean };
        }
    };
    let json = cli.common.json;
    match commands::execute(machinery, cli) {
        Ok(()) => Exit::Clean,
        Err(report) => {
            if json {
                eprintln!("{}", report.json());
            } else {
                eprintln!("{report}");
            }
            report.exit
        }
    }
}
