//! Ctrl-C and SIGTERM: the first asks for a clean stop, the second does not wait for it.

use std::time::Duration;

use rookery_runtime::{Clock, Instant, Scope};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::{Exit, Report};

/// A clean stop takes no longer. Service managers wait longer (systemd 90 s, Kubernetes 30 s, Docker 10 s).
pub const STOP_WITHIN: Duration = Duration::from_secs(5);

/// A further signal this soon after the first is taken for its echo: `timeout` signals the process and then its group,
/// and a shell's Ctrl-C reaches every process of a job, some of which pass it on. A person who has lost patience needs
/// longer than that.
pub const ECHO_WITHIN: Duration = Duration::from_millis(500);

/// The signals that ask for an end.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    clock: Clock,
    first: Option<Instant>,
}

impl Signals {
    /// Listens from here on; before, a signal ends the process by itself.
    pub fn listen(clock: Clock) -> Result<Self, Report> {
        let open = |kind| {
            signal(kind).map_err(|error| Report::io(Exit::Failed, "cannot listen for signals", &error))
        };
        let (interrupt, terminate) = (open(SignalKind::interrupt())?, open(SignalKind::terminate())?);
        Ok(Self { interrupt, terminate, clock, first: None })
    }

    /// The next signal's name.
    pub async fn next(&mut self) -> &'static str {
        let name = tokio::select! {
            biased;
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        };
        self.first.get_or_insert_with(|| self.clock.now());
        name
    }

    /// The next signal's name that is no echo of the one which asked for the stop.
    async fn next_beyond_echo(&mut self) -> &'static str {
        let first = self.first;
        loop {
            let name = self.next().await;
            let echo = first.is_some_and(|at| self.clock.now().duration_since(at) < ECHO_WITHIN);
            if !echo {
                return name;
            }
            tracing::info!(target: "rookery", "{name} again at once: taken for the same, and stopping already");
        }
    }
}

/// Stops everything in `scope`. What does not end in time is named and left to the end of the process; a second
/// signal, unless it is the echo of the first, ends the process at once.
pub async fn stop(scope: &Scope, signals: &mut Signals) -> Result<(), Report> {
    let closed = tokio::select! {
        biased;
        name = signals.next_beyond_echo() => {
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
