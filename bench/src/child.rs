//! A measurement's processes: this program again, told what to do by its arguments and by words on its standard input, and
//! answering with JSON lines on its standard output. It ends when its input does.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::process::Owned;

/// Error of a measurement, in words.
type Outcome<T> = Result<T, String>;

/// Descriptors beside those of peers: standard streams, the runtime's, libraries'.
const OWN_DESCRIPTORS: usize = 64;
/// One of them, for its parent. Dropped, it is killed.
pub struct Process {
    name: &'static str,
    _child: Owned,
    orders: ChildStdin,
    lines: BufReader<ChildStdout>,
}

impl Process {
    /// Starts the command of this name.
    pub fn start(name: &'static str, arguments: impl IntoIterator<Item = String>) -> Outcome<Self> {
        let program = std::env::current_exe().map_err(|error| format!("this program's path: {error}"))?;
        let mut command = Command::new(program);
        command.arg(name).args(arguments);
        let mut child = Owned::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let orders = child.0.stdin.take().expect("its input was asked for");
        let lines = BufReader::new(child.0.stdout.take().expect("its output was asked for"));
        Ok(Self { name, _child: child, orders, lines })
    }

    /// Tells it a line.
    pub fn order(&mut self, line: &str) -> Outcome<()> {
        writeln!(self.orders, "{line}").map_err(|error| format!("{} takes no orders: {error}", self.name))
    }

    /// Its next line. It is told on standard error why there is none.
    pub fn heard(&mut self) -> Outcome<Value> {
        let mut line = String::new();
        self.lines.read_line(&mut line).map_err(|error| format!("{}: {error}", self.name))?;
        serde_json::from_str(&line).map_err(|_| format!("{} said {line:?} in place of a report", self.name))
    }

    /// Tells it a line and waits for the one that it answers.
    pub fn ask(&mut self, line: &str) -> Outcome<Value> {
        self.order(line)?;
        self.heard()
    }
}

/// The runtime that users of all these stacks have: tokio's, with a worker for each core.
pub fn runtime() -> Outcome<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("no runtime: {error}"))
}

/// Raises this process's limit of descriptors to what the machine allows, and says so if that is too few.
pub fn make_room(for_peers: usize) -> Outcome<()> {
    let need = (for_peers + OWN_DESCRIPTORS) as u64;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= need) {
        return Ok(());
    }
    if let Some(most) = limit.maximum.filter(|most| *most < need) {
        return Err(format!(
            "{need} descriptors are needed and {most} allowed: raise it with `ulimit -Hn {need}`"
        ));
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(need), maximum: limit.maximum })
        .map_err(|error| format!("cannot raise the limit of descriptors to {need}: {error}"))
}

/// One line to the parent.
pub fn say(line: &Value) {
    println!("{line}");
}

/// One line of the parent; none when it has closed this process's input.
pub fn heard() -> Outcome<Option<String>> {
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line).map_err(|error| format!("my input: {error}"))?;
    Ok((read > 0).then(|| line.trim_end().to_owned()))
}

/// The least of sorted values that is not below so many hundredths of them.
pub fn percentile(sorted: &[f64], hundredths: usize) -> Option<f64> {
    let rank = (sorted.len() * hundredths).div_ceil(100);
    sorted.get(rank.checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!((percentile(&values, 50), percentile(&values, 99)), (Some(100.0), Some(198.0)));
        assert_eq!((percentile(&[5.0], 50), percentile(&[5.0], 99)), (Some(5.0), Some(5.0)));
        assert_eq!(percentile(&[], 99), None);
    }
}
