//! `bench run [NAME ...]` measures what the project promises about its own cost; `bench storm` and `bench vs` what it
//! takes to accept many peers at once, beside bare QUIC and other stacks, see [`storm`];
//! `bench churn`, `crowd`, `attack` and `fairness` what a node bears, see [`strain`].
//!
//! Each bench is a module with a `run` that returns [`Figure`]s; the table [`BENCHES`] is the only list of them.
//! Every figure is printed twice: as one JSON line on standard output, for machines, and in a table on standard error.
//!
//! CPU time is the measuring thread's or process's own, so other load on the machine disturbs it little; wall-clock
//! times are disturbed by it and are given with their least and their most.
//!
//! `bench serve` is the peer that the sync bench syncs from, see [`serve`]; `bench idle` is one part of the idle bench
//! in a process of its own, see [`idle`].

mod child;
mod figure;
mod floor;
mod headers;
mod idle;
mod mailbox;
mod measure;
mod process;
mod serve;
mod storm;
mod strain;
mod sync;

use std::path::PathBuf;
use std::process::ExitCode;

use figure::Figure;
use rookery_handshake::params::{Params, SIMNET};

/// What benches are told.
pub struct Setup {
    /// The node's program; none: the workspace's release build.
    rookery: Option<PathBuf>,
    /// Headers to sync.
    headers: usize,
}

/// About Handshake mainnet's height in 2026.
const HEADERS: usize = 330_000;

/// A bench: its name on the command line, what it measures, and how.
struct Bench {
    name: &'static str,
    about: &'static str,
    run: fn(&Setup) -> Result<Vec<Figure>, String>,
}

/// Every bench.
const BENCHES: &[Bench] = &[
    Bench {
        name: "headers",
        about: "verification of Handshake headers, per CPU second",
        run: |_| Ok(headers::run()),
    },
    Bench {
        name: "sync",
        about: "the node's CPU, memory and restart with a long chain, over loopback",
        run: sync::run,
    },
    Bench {
        name: "mailbox",
        about: "a message through the fair mailbox, beside a plain channel",
        run: |_| Ok(mailbox::run()),
    },
    Bench { name: "idle", about: "an idle peer: memory, tasks, CPU at 1,000 sessions", run: |_| idle::run() },
];

/// What a command line asks for.
enum Asked {
    Run(Vec<&'static Bench>, Setup),
    Serve(serve::Options),
    Idle(idle::Kind),
    Storm(storm::Command),
    Strain(strain::Command),
}

fn main() -> ExitCode {
    if std::env::args().nth(1).is_some_and(|first| matches!(first.as_str(), "-h" | "--help" | "help")) {
        println!("{}", usage());
        return ExitCode::SUCCESS;
    }
    let done = match parse(std::env::args().skip(1)) {
        Ok(Asked::Run(benches, setup)) => benches.into_iter().try_for_each(|bench| report(bench, &setup)),
        Ok(Asked::Serve(options)) => serve::serve(&options),
        Ok(Asked::Idle(kind)) => idle::measure(kind),
        Ok(Asked::Storm(command)) => storm::run(command),
        Ok(Asked::Strain(command)) => strain::run(command),
        Err(what) => {
            eprintln!("error: {what}\n{}", usage());
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("error: {what}");
            ExitCode::FAILURE
        }
    }
}

/// Reads a command line.
fn parse(mut args: impl Iterator<Item = String>) -> Result<Asked, String> {
    let command = args.next().ok_or("a command is missing")?;
    let args: Vec<_> = args.collect();
    if let Some(command) = storm::parse(&command, &args) {
        return command.map(Asked::Storm);
    }
    if let Some(command) = strain::parse(&command, &args) {
        return command.map(Asked::Strain);
    }
    let mut args = args.into_iter();
    let (mut named, mut rookery, mut headers) = (Vec::new(), None, None);
    let (mut params, mut listen) = (&SIMNET, "127.0.0.1:0".to_owned());
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        match (command.as_str(), arg.as_str()) {
            ("run", "--rookery") => rookery = Some(value()?.into()),
            ("run" | "serve", "--headers") => headers = Some(count(&value()?)?),
            ("serve", "--network") => {
                let name = value()?;
                params = Params::by_name(&name).ok_or(format!("there is no network {name}"))?;
            }
            ("serve", "--listen") => listen = value()?,
            (_, name) if !name.starts_with('-') => named.push(arg),
            _ => return Err(format!("{command} has no {arg}")),
        }
    }
    match command.as_str() {
        "run" => {
            let benches = select(&named)?;
            Ok(Asked::Run(benches, Setup { rookery, headers: headers.unwrap_or(HEADERS) }))
        }
        "serve" => {
            let headers = headers.ok_or("serve needs --headers")?;
            let listen = listen.parse().map_err(|_| format!("{listen} is not IP:PORT"))?;
            Ok(Asked::Serve(serve::Options { headers, params, listen }))
        }
        "idle" => match named.as_slice() {
            [name] => idle::Kind::by_name(name).map(Asked::Idle).ok_or(format!("there is no {name}")),
            _ => Err("idle takes one name".into()),
        },
        _ => Err(format!("there is no command {command}")),
    }
}

/// A number of headers: at least one, and no more than have a height.
fn count(text: &str) -> Result<usize, String> {
    let count = text.parse::<u32>().ok().filter(|count| *count > 0);
    count.map(|count| count as usize).ok_or(format!("{text} is not a number of headers"))
}

/// The benches of these names; all of them when there are none.
fn select(names: &[String]) -> Result<Vec<&'static Bench>, String> {
    if let Some(name) = names.iter().find(|name| BENCHES.iter().all(|bench| bench.name != **name)) {
        return Err(format!("there is no bench {name}"));
    }
    let wanted = |bench: &&Bench| names.is_empty() || names.iter().any(|name| name == bench.name);
    Ok(BENCHES.iter().filter(wanted).collect())
}

/// Runs a bench and prints its figures.
fn report(bench: &Bench, setup: &Setup) -> Result<(), String> {
    eprintln!("{}: {}", bench.name, bench.about);
    let figures = (bench.run)(setup).map_err(|what| format!("{}: {what}", bench.name))?;
    figures.iter().for_each(|figure| figure.print(bench.name));
    Ok(())
}

/// How to call it.
fn usage() -> String {
    let own = [
        "bench run [NAME ...] [--rookery PROGRAM] [--headers N]   (all of them without a name)",
        "bench serve --headers N [--network NAME] [--listen IP:PORT]",
    ];
    let commands: Vec<_> = own.iter().chain(storm::USAGE).chain(strain::USAGE).copied().collect();
    let benches: Vec<_> =
        BENCHES.iter().map(|bench| format!("  {:<10} {}", bench.name, bench.about)).collect();
    format!("usage: {}\n{}", commands.join("\n       "), benches.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(line: &str) -> Result<Asked, String> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn no_name_means_every_bench_and_a_wrong_one_is_said() {
        let Ok(Asked::Run(all, setup)) = asked("run") else { panic!("not understood") };
        assert_eq!((all.len(), setup.headers), (BENCHES.len(), HEADERS));
        let Ok(Asked::Run(some, setup)) = asked("run sync --headers 10") else { panic!("not understood") };
        assert_eq!((some.len(), some[0].name, setup.headers), (1, "sync", 10));
        for wrong in ["", "fly", "run nothing", "run --headers 0", "serve", "serve --headers 1 --rookery x"] {
            assert!(asked(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn serve_takes_network_and_address() {
        let line = "serve --headers 7 --network handshake-regtest --listen 127.0.0.1:5";
        let Ok(Asked::Serve(options)) = asked(line) else { panic!("not understood") };
        assert_eq!((options.headers, options.params.name), (7, "handshake-regtest"));
        assert_eq!(options.listen.port(), 5);
    }
}
