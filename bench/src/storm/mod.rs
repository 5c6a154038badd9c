//! The storm: N peers connect at once to one listener, prove who they are both ways, ask one thing and get its answer.
//!
//! ```text
//!  parent                server process                     client process
//!    | storm-serve ------> listens, says its invitation
//!    | storm-connect ----------------------------------------> makes N peers, each with its identity and its socket
//!    | "mark" -----------> notes CPU and memory
//!    | "go" -------------------------------------------------> all N at once: connect, prove, ask
//!    |                     verifies, answers, counts <======== checks the answer, counts, keeps the connection
//!    | <------------------------------------------------------ its report
//!    | "report" ---------> its report, all N connected
//! ```
//!
//! Both are this program again, in processes of their own, so that CPU and memory are the server's alone. Each says
//! what it has to say as JSON lines on its standard output, and ends when its standard input does.
//!
//! **Counted as verified** is a peer whom both sides hold usable: the server has proved its identity, has answered its
//! request and has seen this identity once only; the peer has proved the server's identity and its answer came and
//! names the identity that it has, so that a mix-up of two connections is a loss. An attempt is made once: whether a
//! stack tries again inside it is the stack's own affair, within [`DEADLINE`].
//!
//! **CPU** is the server's process time, user and system, from before the first packet until [`SETTLE`] after the last
//! answer. **Memory** is what is resident then, every connection open, less what was before. Times to an answer count
//! from the storm's start, as all peers ask at once. Loopback charges part of a receiver's work to the sender, for all
//! stacks alike. Wall-clock figures suffer from other load on the machine; CPU does so far less, and ratios of stacks
//! that took turns least: so stacks take turns run by run, and another of them begins each time.
//!
//! Not measured: what a stack does about hostile peers. All N are honest here.

mod child;
mod exchange;
mod options;
mod report;
mod runs;
mod stacks;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use stacks::Stack;

/// What a peer is given to be connected, verified and answered: far beyond what a storm takes that loses nobody, so
/// that slow stacks show a long tail and not a loss of our making. A peer without an answer by then is lost.
const DEADLINE: Duration = Duration::from_secs(30);
/// From the last answer to the server's count, for acknowledgements and tasks that are behind it.
const SETTLE: Duration = Duration::from_millis(300);
/// Receive buffer that ours and the floor ask for, in bytes: a thousand first flights of a post-quantum handshake at
/// once, with the kernel's own overhead for each datagram.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Where servers listen.
const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Error of a measurement, in words.
type Outcome<T> = Result<T, String>;

/// Whom peers call from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sources {
    /// All from one address, a port each.
    One,
    /// An address each, spread over the networks of 127.0.0.0/8.
    Many,
}

/// What peers prove who they are with, where a stack leaves a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keys {
    MlDsa65,
    Ed25519,
}

impl Keys {
    fn name(self) -> &'static str {
        match self {
            Self::MlDsa65 => "mldsa65",
            Self::Ed25519 => "ed25519",
        }
    }
}

/// A storm, as both of its processes are told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Plan {
    peers: usize,
    sources: Sources,
    keys: Keys,
    /// Leave the kernel's receive buffer as it is.
    default_buffers: bool,
}

impl Plan {
    /// Where the peer of this number calls from.
    fn source(&self, number: usize) -> SocketAddr {
        let address = match self.sources {
            Sources::One => Ipv4Addr::LOCALHOST,
            Sources::Many => {
                // 250 of each octet, so that none is 0 or 255; neighbours in number are in different networks of /16.
                let octet = |of: usize| u8::try_from(of % 250 + 1).expect("at most 250");
                Ipv4Addr::new(127, octet(number), octet(number / 250), 2)
            }
        };
        SocketAddr::new(address.into(), 0)
    }
}

/// What a command line asks for.
pub struct Command(options::Asked);

/// Reads the command line of `storm`, `vs` and their processes; `None` when the command is another.
pub fn parse(command: &str, args: &[String]) -> Option<Outcome<Command>> {
    options::parse(command, args).map(|asked| asked.map(Command))
}

/// Does what was asked for.
pub fn run(command: Command) -> Outcome<()> {
    match command.0 {
        options::Asked::Runs(asked) => runs::run(&asked),
        options::Asked::Serve(stack, plan) => child::serve(stack, &plan),
        options::Asked::Connect(stack, plan, invitation) => child::connect(stack, &plan, &invitation),
    }
}

/// How to call it, for the usage.
pub const USAGE: &[&str] = options::USAGE;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_peer_of_a_large_storm_has_its_own_loopback_address() {
        let plan =
            Plan { peers: 20_000, sources: Sources::Many, keys: Keys::Ed25519, default_buffers: false };
        let sources: BTreeSet<_> = (0..plan.peers).map(|number| plan.source(number).ip()).collect();
        assert_eq!(sources.len(), plan.peers);
        assert!(sources.iter().all(IpAddr::is_loopback) && !sources.contains(&SERVER.ip()));
        let networks: BTreeSet<_> = (0..1_000).map(|number| plan.source(number).ip()).map(prefix).collect();
        assert_eq!(networks.len(), 250);
    }

    fn prefix(address: IpAddr) -> [u8; 2] {
        let IpAddr::V4(address) = address else { panic!("{address} is not of version 4") };
        let [first, second, ..] = address.octets();
        [first, second]
    }
}
