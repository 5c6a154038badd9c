//! Log lines: to stderr, one event each, above the progress bar if there is one.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::Config;
use crate::config::value::LogFormat;
use crate::exit::Report;
use crate::output::colours_wanted;
use crate::progress::Stderr;

/// Starts logging as configured. Once per process; a second call is a bug.
pub fn start(config: &Config) -> Result<(), Report> {
    let filter = EnvFilter::try_new(&config.log).map_err(|error| {
        Report::usage(format!("log: {error}")).hint("for example --log info,rookery=debug")
    })?;
    let terminal = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Stderr)
        .with_ansi(terminal && colours_wanted());
    let started = match (config.log_format, terminal) {
        (LogFormat::Pretty, _) | (LogFormat::Auto, true) => builder.with_target(false).compact().try_init(),
        (LogFormat::Plain, _) | (LogFormat::Auto, false) => builder.with_ansi(false).try_init(),
        (LogFormat::Json, _) => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| Report::bug(format!("cannot start logging: {error}")))
}
