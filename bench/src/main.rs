//! `bench run [NAME ...]` measures what the project promises about its own cost.
//!
//! Each bench is a module with a `run` that returns [`Figure`]s; the table [`BENCHES`] is the only list of them.
//! Every figure is printed twice: as one JSON line on standard output, for machines, and in a table on standard error.
//!
//! Rates are per second of CPU time of the measuring thread, the best of several rounds: other load on the machine
//! makes a round slower, never faster.

mod headers;
mod measure;

use std::process::ExitCode;

/// One measured number.
pub struct Figure {
    /// What was measured, with words joined by underscores.
    pub name: String,
    /// The number.
    pub value: f64,
    /// Its unit: `headers/cpu_s`, `ns`, `ratio`.
    pub unit: &'static str,
}

impl Figure {
    /// A figure.
    pub fn new(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { name: name.into(), value, unit }
    }
}

/// A bench: its name on the command line, what it measures, and how.
struct Bench {
    name: &'static str,
    about: &'static str,
    run: fn() -> Vec<Figure>,
}

/// Every bench.
const BENCHES: &[Bench] = &[Bench {
    name: "headers",
    about: "verification of Handshake headers, per CPU second",
    run: headers::run,
}];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some((command, names)) = args.split_first() else { return usage() };
    let unknown = names.iter().any(|name| BENCHES.iter().all(|bench| bench.name != name));
    if command != "run" || unknown {
        return usage();
    }
    for bench in
        BENCHES.iter().filter(|bench| names.is_empty() || names.iter().any(|name| name == bench.name))
    {
        report(bench);
    }
    ExitCode::SUCCESS
}

/// Runs a bench and prints its figures both ways.
fn report(bench: &Bench) {
    eprintln!("{}: {}", bench.name, bench.about);
    for figure in (bench.run)() {
        let line = serde_json::json!({
            "bench": bench.name,
            "figure": figure.name,
            "value": figure.value,
            "unit": figure.unit,
        });
        println!("{line}");
        eprintln!("  {:<34} {:>14.3} {}", figure.name, figure.value, figure.unit);
    }
}

/// Says how to call it.
fn usage() -> ExitCode {
    eprintln!("usage: bench run [NAME ...]   (all of them without a name)");
    for bench in BENCHES {
        eprintln!("  {:<10} {}", bench.name, bench.about);
    }
    ExitCode::from(2)
}
