//! What a node bears: churn, crowds, attacks and floods, measured at one server process.
//!
//! ```text
//!  parent                server process                    process of honest peers        process of the attacker
//!    | strain-serve ----> one overlay node
//!    | strain-peers ------------------------------------> a node and a socket each
//!    | strain-attack ----------------------------------------------------------------> raw sockets
//!    | "sample", "scan" > CPU, memory, tasks, sessions
//!    | "fill 1000", "churn 50", "visit 500 50" ----------> connect, end, ask
//! ```
//!
//! | command | question |
//! |---|---|
//! | [`churn`] | does the registry stay right, and does anything grow, while peers come and go abruptly |
//! | [`crowd`] | what an idle peer costs, by how many there are |
//! | [`attack`] | what a hostile act costs the server, and what honest peers notice |
//! | [`fairness`] | what one peer that floods a shared service costs the others |
//!
//! The server is a node as applications have it, with ML-DSA-65 identities, on loopback. Limits of sessions are widened to the
//! peers asked for; everything else is [`Limits::LOCAL`](rookery_engine::Limits::LOCAL) unless an attack says otherwise.

mod attack;
mod churn;
mod crowd;
mod fairness;
mod options;
mod peers;
mod server;
mod sockets;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use rookery_overlay::wire::request::ServiceName;

/// Error of a measurement, in words.
type Outcome<T> = Result<T, String>;

/// The network of all nodes.
const NETWORK: &str = "strain";
/// What an honest peer has for its connection, and for an answer: as in storms.
const DEADLINE: Duration = Duration::from_secs(30);
/// Where nodes listen.
const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// What a command line asks for.
pub struct Command(options::Asked);

/// Reads the command line of these measurements and their processes; `None` when the command is another.
pub fn parse(command: &str, args: &[String]) -> Option<Outcome<Command>> {
    options::parse(command, args).map(|asked| asked.map(Command))
}

/// Does what was asked for.
pub fn run(command: Command) -> Outcome<()> {
    match command.0 {
        options::Asked::Churn(asked) => churn::run(&asked),
        options::Asked::Crowd(asked) => crowd::run(&asked),
        options::Asked::Attack(asked) => attack::run(&asked),
        options::Asked::Fairness(asked) => fairness::run(&asked),
        options::Asked::Serve(serving) => server::serve(&serving),
        options::Asked::Peers { most, at } => peers::process(most, &at),
        options::Asked::Attacker(attacker) => attack::attacker(&attacker),
        options::Asked::Share(share) => fairness::serve(share),
        options::Asked::Callers { honest, at } => fairness::call(honest, at),
    }
}

/// How to call it, for the usage.
pub const USAGE: &[&str] = options::USAGE;

/// An address of 127.0.0.0/8 for the one of this number; those of one `last` are apart from those of another.
fn source(number: usize, last: u8) -> SocketAddr {
    // 250 of each octet, so that none is 0 or 255; neighbours in number are in different networks of /16.
    let octet = |of: usize| u8::try_from(of % 250 + 1).expect("at most 250");
    SocketAddr::new(Ipv4Addr::new(127, octet(number), octet(number / 250), last).into(), 0)
}

/// The service of which honest peers ask.
fn service() -> ServiceName {
    ServiceName::new("strain").expect("six printable characters")
}

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}
