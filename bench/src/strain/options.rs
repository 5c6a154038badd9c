//! The command lines of what a node bears.

use std::net::SocketAddr;
use std::time::Duration;

use rookery_transport::quic::QuicLimits;

use super::Outcome;
use super::attack::Kind;
use super::fairness::Share;
use super::server::{Admit, Serving};

/// How to call it.
pub const USAGE: &[&str] = &[
    "bench churn [--peers N] [--per-second R] [--minutes M] [--idle S] [--json]    1,000 peers, 50 a second, 1 minute",
    "bench crowd [--peers N] [--minutes M] [--idle S] [--only] [--json]           10, 100, 1,000 .. N idle peers",
    "bench attack half-open|prefix|slow|flood|thief|twins|relay|replay|all [--count N] [--seconds S] [--no-retry | --always-retry] [--json]",
    "bench fairness [--peers N] [--seconds S] [--json]",
];

/// The server's process.
pub const SERVE: &str = "strain-serve";
/// The process of honest peers.
pub const PEERS: &str = "strain-peers";
/// The attacker's process.
pub const ATTACKER: &str = "strain-attack";
/// The process of a shared service.
pub const SHARE: &str = "strain-share";
/// The process of those who ask it.
pub const CALLERS: &str = "strain-callers";

/// Peers of a churn, and of a fairness measurement, when none are asked for.
const CHURNING: usize = 1_000;
const CALLING: usize = 25;
/// Peers of a crowd when none are asked for: what the issue of scale asks of one process.
const CROWD: usize = 5_000;
/// Peers at most: each has a port of one address.
const MOST_PEERS: usize = 20_000;
/// Ends and connects in a second.
const PER_SECOND: usize = 50;
/// Seconds of an attack and of a fairness measurement.
const SECONDS: u64 = 10;
/// Silence after which a connection is over, when none is asked for.
const IDLE: Duration = QuicLimits::DEFAULT.idle;
/// Less than this is the time that an answer takes on a busy machine.
const LEAST_IDLE: f64 = 0.1;

/// A churn.
#[derive(Debug, PartialEq)]
pub struct ChurnAsked {
    pub peers: usize,
    pub per_second: usize,
    pub minutes: f64,
    pub idle: Duration,
    pub json: bool,
}

/// A crowd.
#[derive(Debug, PartialEq)]
pub struct CrowdAsked {
    pub peers: usize,
    pub minutes: f64,
    pub idle: Duration,
    /// This size only, not the smaller ones.
    pub only: bool,
    pub json: bool,
}

/// An attack.
#[derive(Debug, PartialEq, Eq)]
pub struct AttackAsked {
    /// Who attacks at once, and with how many acts.
    pub acts: Vec<(Kind, usize)>,
    pub seconds: u64,
    pub admit: Admit,
    pub json: bool,
}

impl AttackAsked {
    /// Its name on the command line.
    pub fn name(&self) -> &'static str {
        match self.acts.as_slice() {
            [(kind, _)] => kind.name(),
            _ => ALL,
        }
    }
}

/// The attack in which all attack at once.
const ALL: &str = "all";

/// An attacker's part of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Attacker {
    pub kind: Kind,
    pub count: usize,
    pub seconds: u64,
    /// The server's invitation.
    pub at: String,
    /// Which of a measurement's attacks: each comes from addresses of its own, for those of the one before are known.
    pub round: u8,
}

impl Attacker {
    /// The arguments that tell a process of it.
    pub fn arguments(&self) -> Vec<String> {
        let (round, count, seconds) =
            (self.round.to_string(), self.count.to_string(), self.seconds.to_string());
        [self.kind.name(), &self.at, &round, "--count", &count, "--seconds", &seconds]
            .map(str::to_owned)
            .into()
    }
}

/// A fairness measurement.
#[derive(Debug, PartialEq, Eq)]
pub struct FairnessAsked {
    pub peers: usize,
    pub seconds: u64,
    pub json: bool,
}

/// What a command line asks for.
#[derive(Debug, PartialEq)]
pub enum Asked {
    Churn(ChurnAsked),
    Crowd(CrowdAsked),
    Attack(AttackAsked),
    Fairness(FairnessAsked),
    Serve(Serving),
    Peers { most: usize, at: String },
    Attacker(Attacker),
    Share(Share),
    Callers { honest: usize, at: SocketAddr },
}

/// Reads a command line; `None` when the command is none of ours.
pub fn parse(command: &str, args: &[String]) -> Option<Outcome<Asked>> {
    let allowed: &[&str] = match command {
        "churn" => &["--peers", "--per-second", "--minutes", "--idle", "--json"],
        "crowd" => &["--peers", "--minutes", "--idle", "--only", "--json"],
        "attack" => &["--count", "--seconds", "--no-retry", "--always-retry", "--json"],
        "fairness" => &["--peers", "--seconds", "--json"],
        SERVE => &["--sessions", "--admit", "--idle"],
        ATTACKER => &["--count", "--seconds"],
        PEERS | SHARE | CALLERS => &[],
        _ => return None,
    };
    Some(read(command, args, allowed).and_then(|read| read.asked(command)))
}

/// Options in place, and what is not an option.
#[derive(Default)]
struct Read {
    peers: Option<usize>,
    count: Option<usize>,
    per_second: Option<usize>,
    sessions: Option<usize>,
    minutes: Option<f64>,
    seconds: Option<u64>,
    idle: Option<Duration>,
    admit: Option<Admit>,
    only: bool,
    json: bool,
    names: Vec<String>,
}

fn read(command: &str, args: &[String], allowed: &[&str]) -> Outcome<Read> {
    let mut read = Read::default();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if !arg.starts_with('-') {
            read.names.push(arg.clone());
            continue;
        }
        if !allowed.contains(&arg.as_str()) {
            return Err(format!("{command} has no {arg}"));
        }
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "--peers" => read.peers = Some(number(value()?, MOST_PEERS)?),
            "--count" => read.count = Some(number(value()?, usize::MAX)?),
            "--per-second" => read.per_second = Some(number(value()?, MOST_PEERS)?),
            "--sessions" => read.sessions = Some(number(value()?, usize::MAX)?),
            "--minutes" => read.minutes = Some(minutes(value()?)?),
            "--seconds" => read.seconds = Some(number(value()?, usize::MAX)? as u64),
            "--idle" => read.idle = Some(idle(value()?)?),
            "--admit" => read.admit = Some(one_of(value()?, &Admit::ALL)?),
            "--no-retry" => read.admit = Some(Admit::Anyone),
            "--always-retry" => read.admit = Some(Admit::Proven),
            "--only" => read.only = true,
            _ => read.json = true,
        }
    }
    Ok(read)
}

impl Read {
    fn asked(self, command: &str) -> Outcome<Asked> {
        let seconds = self.seconds.unwrap_or(SECONDS);
        let idle = self.idle.unwrap_or(IDLE);
        let minutes = self.minutes.unwrap_or(1.0);
        Ok(match (command, self.names.as_slice()) {
            ("churn", []) => Asked::Churn(ChurnAsked {
                peers: self.peers.unwrap_or(CHURNING),
                per_second: self.per_second.unwrap_or(PER_SECOND),
                minutes,
                idle,
                json: self.json,
            }),
            ("crowd", []) => {
                let peers = self.peers.unwrap_or(CROWD);
                Asked::Crowd(CrowdAsked { peers, minutes, idle, only: self.only, json: self.json })
            }
            ("attack", [name]) => {
                let kinds = match (name.as_str(), self.count) {
                    (ALL, Some(_)) => return Err("all attacks at once have their own counts".into()),
                    (ALL, None) => Kind::ALL.map(|(_, kind)| kind).to_vec(),
                    (name, _) => vec![one_of(name, &Kind::ALL)?],
                };
                let least = kinds.iter().map(|kind| kind.least_seconds()).max().unwrap_or(1);
                if seconds < least {
                    return Err(format!("{name} takes {least} seconds at least"));
                }
                let acts = |kind: Kind| (kind, self.count.unwrap_or_else(|| kind.acts(seconds)));
                let (acts, admit) =
                    (kinds.into_iter().map(acts).collect(), self.admit.unwrap_or(Admit::Public));
                Asked::Attack(AttackAsked { acts, seconds, admit, json: self.json })
            }
            ("fairness", []) => {
                let peers = self.peers.unwrap_or(CALLING);
                Asked::Fairness(FairnessAsked { peers, seconds, json: self.json })
            }
            (SERVE, []) => {
                let sessions = self.sessions.ok_or("a server needs --sessions")?;
                Asked::Serve(Serving { sessions, admit: self.admit.unwrap_or(Admit::Local), idle })
            }
            (PEERS, [most, at]) => Asked::Peers { most: number(most, usize::MAX)?, at: at.clone() },
            (ATTACKER, [kind, at, round]) => Asked::Attacker(Attacker {
                kind: one_of(kind, &Kind::ALL)?,
                count: self.count.ok_or("an attacker needs --count")?,
                seconds,
                at: at.clone(),
                round: round.parse().map_err(|_| format!("{round} is not a small number"))?,
            }),
            (SHARE, [share]) => Asked::Share(one_of(share, &Share::ALL)?),
            (CALLERS, [honest, at]) => Asked::Callers {
                honest: number(honest, MOST_PEERS)?,
                at: at.parse().map_err(|_| format!("{at} is not IP:PORT"))?,
            },
            ("attack", _) => return Err(format!("attack takes one of {}, {ALL}", names(&Kind::ALL))),
            (_, names) => return Err(format!("{command} does not take {names:?}")),
        })
    }
}

fn number(text: &str, most: usize) -> Outcome<usize> {
    let number = text.parse().ok().filter(|number| (1..=most).contains(number));
    number.ok_or_else(|| format!("{text} is not a number from 1 to {most}"))
}

fn minutes(text: &str) -> Outcome<f64> {
    let minutes = text.parse().ok().filter(|minutes: &f64| minutes.is_finite() && *minutes > 0.0);
    minutes.ok_or_else(|| format!("{text} is not a number of minutes"))
}

fn idle(text: &str) -> Outcome<Duration> {
    let seconds = text.parse().ok().filter(|seconds| *seconds >= LEAST_IDLE);
    let idle = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    idle.ok_or_else(|| format!("{text} is not a number of seconds from {LEAST_IDLE}"))
}

fn one_of<T: Copy>(text: &str, choices: &[(&str, T)]) -> Outcome<T> {
    let found = choices.iter().find(|(name, _)| *name == text).map(|(_, choice)| *choice);
    found.ok_or_else(|| format!("{text} is none of {}", names(choices)))
}

fn names<T>(choices: &[(&str, T)]) -> String {
    let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(command: &str, line: &str) -> Outcome<Asked> {
        let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        parse(command, &words).expect("a command of ours")
    }

    #[test]
    fn processes_are_told_all_that_they_are_asked() {
        for (_, admit) in Admit::ALL {
            let serving = Serving { sessions: 7, admit, idle: Duration::from_millis(9_500) };
            assert_eq!(parse(SERVE, &serving.arguments()), Some(Ok(Asked::Serve(serving))));
        }
        for (_, kind) in Kind::ALL {
            let attacker = Attacker { kind, count: 3, seconds: 2, at: "x/y".into(), round: 1 };
            let told = attacker.arguments();
            assert_eq!(parse(ATTACKER, &told), Some(Ok(Asked::Attacker(attacker))));
        }
    }

    #[test]
    fn retries_are_as_asked_for() {
        for (line, expected) in [
            ("half-open", Admit::Public),
            ("slow --no-retry", Admit::Anyone),
            ("prefix --always-retry --count 3", Admit::Proven),
        ] {
            let Ok(Asked::Attack(attack)) = asked("attack", line) else { panic!("{line}: not understood") };
            assert_eq!(attack.admit, expected, "{line}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (command, line) in [
            ("churn", "--minutes 0"),
            ("churn", "--count 5"),
            ("churn", "--idle 0.05"),
            ("churn", "--idle inf"),
            ("churn", "--peers"),
            ("crowd", "--peers 20001"),
            ("crowd", "many"),
            ("attack", ""),
            ("attack", "nobody"),
            ("attack", "slow flood"),
            ("attack", "all --count 5"),
            ("attack", "thief --seconds 3"),
            ("fairness", "--seconds x"),
            (SERVE, ""),
            (PEERS, "5"),
            (CALLERS, "5 nowhere"),
        ] {
            assert!(asked(command, line).is_err(), "{command} {line:?}");
        }
        assert!(parse("fly", &[]).is_none());
    }
}
