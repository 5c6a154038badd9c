//! The asking side of the control socket: plain blocking I/O, as a command that asks has nothing else to do.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::{Answer, MAX_ANSWER, Question, SOCKET};
use crate::config::Config;
use crate::exit::{Exit, Report};

/// Longer than the server's own deadlines together, so that it is the server that says what is wrong.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks the node that runs with this configuration.
pub fn ask<T: DeserializeOwned>(config: &Config, question: Question) -> Result<T, Report> {
    let path = config.chain_dir().join(SOCKET);
    let mut stream = UnixStream::connect(&path).map_err(|error| absent(config, &error))?;
    let text = exchange(&mut stream, question).map_err(|error| {
        Report::io(Exit::Unreachable, format_args!("no answer on {}", path.display()), &error)
            .hint("the node may be stopping: its log says so")
    })?;
    let answer: Answer<T> = serde_json::from_slice(&text).map_err(|error| {
        Report::new(Exit::Unreachable, format!("the node's answer is not understood: {error}"))
            .hint("the node may be of another version than this command: compare `rookery --version`")
    })?;
    match answer {
        Answer::Ok(view) => Ok(view),
        Answer::Error(what) => Err(Report::new(Exit::Failed, format!("the node refused: {what}"))),
    }
}

fn exchange(stream: &mut UnixStream, question: Question) -> std::io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_vec(&question)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    stream.shutdown(Shutdown::Write)?;
    let mut text = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut text)?;
    Ok(text)
}

fn absent(config: &Config, error: &std::io::Error) -> Report {
    let (network, dir) = (config.network, config.data_dir.display());
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => Report::new(
            Exit::Unreachable,
            format!("no node of {network} runs in {dir}"),
        )
        .hint(format!(
            "start one (rookery run --network {network}), or name the running one's --network and --data-dir"
        )),
        ErrorKind::PermissionDenied => {
            Report::io(Exit::Unreachable, format_args!("may not ask the node in {dir}"), error)
                .hint("ask as the user who started it")
        }
        _ => Report::io(Exit::Unreachable, format_args!("cannot ask the node in {dir}"), error),
    }
}
