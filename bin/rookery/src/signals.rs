//! Ctrl-C and SIGTERM: the first asks for a clean stop, the second does not wait for it.

use std::time::Duration;

use rookery_runtime::Scope;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::{Exit, Report};

/// A clean stop takes no longer. Service managers wait longer (systemd 90 s, Kubernetes 30 s, Docker 10 s).
pub const STOP_WITHIN: Duration = Duration::from_secs(5);

/// The signals that ask for an end.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Listens from here on; before, a signal ends the process by itself.
    pub fn listen() -> Result<Self, Report> {
        let open = |kind| {
            signal(kind).map_err(|error| Report::io(Exit::Failed, "cannot listen for signals", &error))
        };
        Ok(Self { interrupt: open(SignalKind::interrupt())?, terminate: open(SignalKind::terminate())? })
    }

    /// The next signal's name.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Stops everything in `scope`. What does not end in time is named and left to the end of the process; a second
/// signal ends the process at once.
pub async fn stop(scope: &Scope, signals: &mut Signals) -> Result<(), Report> {
    let closed = tokio::select! {
        biased;
        name = signals.next() => {
            tracing::warn!("{name} again: stopping at once");
            return Err(Report::new(Exit::Killed, format!("{name} while stopping")));
        }
        closed = scope.close(STOP_WITHIN) => closed,
    };
    if let Some(cause) = scope.stop_cause() {
        let what = format!("the node stopped: {cause}");
        // A node that stops without a panic met something outside itself, such as a full disk.
        return Err(if scope.panics().is_empty() {
            Report::new(Exit::Failed, what)
        } else {
            Report::bug(what)
        });
    }
    closed.map_err(|running| {
        let names = running.join(", ");
        Report::bug(format!("did not stop within {} s: {names}", STOP_WITHIN.as_secs()))
    })
}
