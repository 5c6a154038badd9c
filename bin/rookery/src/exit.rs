//! How a command ends: exit codes that scripts can rely on, and errors that say what to do next.

use std::fmt;
use std::io;
use std::process::ExitCode;

/// An exit code and its meaning. The numbers are a promise: service managers and scripts act on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Exit {
    /// The command did what it was asked to, or was asked to stop and did.
    Clean = 0,
    /// The command ran to its end and the finding is bad, or something outside this program refused.
    Failed = 1,
    /// Wrong usage or configuration. The same number that the argument parser uses.
    Usage = 2,
    /// The data directory is in use by another process, corrupt, or cannot be written.
    DataDir = 3,
    /// An address to listen on is taken or not ours.
    PortTaken = 4,
    /// The data directory or a peer belongs to another network.
    NetworkMismatch = 5,
    /// `sync` ended before it reached the tip of its peers.
    NotAtTip = 6,
    /// Nobody answers: no node runs here, or the probed peer is not reachable.
    Unreachable = 7,
    /// A bug in this program.
    Bug = 70,
    /// A second signal came while the node was stopping.
    Killed = 130,
}

impl Exit {
    /// Every code, with the sentence that `--help` and the reference print.
    pub const ALL: [(Self, &'static str); 10] = [
        (Self::Clean, "done, or stopped cleanly"),
        (Self::Failed, "ran, and the finding is bad (a simulation broke a promise), or the system refused"),
        (Self::Usage, "wrong usage or configuration"),
        (Self::DataDir, "the data directory is locked, corrupt or cannot be written"),
        (Self::PortTaken, "an address to listen on is taken"),
        (Self::NetworkMismatch, "the data directory or the peer belongs to another network"),
        (Self::NotAtTip, "sync: not at the tip of the connected peers"),
        (Self::Unreachable, "no node runs here, or the probed peer does not answer"),
        (Self::Bug, "a bug in rookery; please report it"),
        (Self::Killed, "a second signal cut the clean stop short"),
    ];

    /// The number.
    pub const fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command could not go on: what happened, what to do about it, and the exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What happened: what was expected, what came, and from where.
    pub what: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The exit code.
    pub exit: Exit,
}

impl Report {
    /// A report without a hint.
    pub fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self { what: what.into(), hint: None, exit }
    }

    /// The same with a line that says what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Wrong usage or configuration.
    pub fn usage(what: impl Into<String>) -> Self {
        Self::new(Exit::Usage, what)
    }

    /// A broken promise of this program.
    pub fn bug(what: impl Into<String>) -> Self {
        Self::new(Exit::Bug, what)
            .hint("this is a bug: please report it with the log, and the seed if there is one")
    }

    /// The system refused something. `what` says what was tried.
    pub fn io(exit: Exit, what: impl fmt::Display, error: &io::Error) -> Self {
        Self::new(exit, format!("{what}: {error}"))
    }

    /// The report as one JSON line for `--json`.
    pub fn json(&self) -> String {
        serde_json::json!({ "error": self.what, "hint": self.hint, "exit": self.exit.code() }).to_string()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.what)?;
        if let Some(hint) = &self.hint {
            write!(f, "\n hint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Report {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_what_happened_and_what_to_do() {
        let report = Report::new(Exit::PortTaken, "cannot listen").hint("choose another");
        assert_eq!(report.to_string(), "error: cannot listen\n hint: choose another");
        assert_eq!(report.json(), r#"{"error":"cannot listen","exit":4,"hint":"choose another"}"#);
    }

    #[test]
    fn every_code_is_listed_once() {
        let mut codes: Vec<u8> = Exit::ALL.iter().map(|(exit, _)| exit.code()).collect();
        codes.dedup();
        assert_eq!(codes, [0, 1, 2, 3, 4, 5, 6, 7, 70, 130]);
    }
}
