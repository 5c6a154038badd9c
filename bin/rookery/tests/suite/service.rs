//! A whole process around a made-up node: signals, the summary of a sync, questions from another process.
//!
//! The process is this test program, started again with the name of its one ignored test.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};

use crate::support::{FakeMachinery, KNOWN, at_tip};
use rookery::exit::Exit;
use rookery::node::view::Progress;

const ARGS: &str = "SERVICE_TEST_ARGS";
const NODE: &str = "SERVICE_TEST_NODE";

#[test]
#[ignore = "the body of the process that the other tests start"]
fn process() {
    let Ok(args) = std::env::var(ARGS) else { return };
    let kind = std::env::var(NODE).unwrap();
    let progress = if kind == "behind" { Progress { at_tip: false, ..at_tip() } } else { at_tip() };
    let machinery = FakeMachinery { progress, stubborn: kind == "stubborn" };
    let args = std::iter::once("rookery").chain(args.split(' ')).map(Into::into);
    let exit = rookery::run(&machinery, args);
    std::process::exit(exit.code().into());
}

struct Process {
    child: Child,
    log: BufReader<ChildStderr>,
}

impl Process {
    fn start(node: &str, dir: &Path, args: &str) -> Self {
        let args =
            format!("{args} --network handshake-regtest --log-format plain --data-dir {}", dir.display());
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "service::process", "--ignored", "--nocapture", "--quiet"])
            .env_clear()
            .env("HOME", dir)
            .env(ARGS, args)
            .env(NODE, node)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        Self { child, log }
    }

    /// Reads the log until a line has this text.
    fn wait_for(&mut self, text: &str) -> String {
        let mut seen = String::new();
        while self.log.read_line(&mut seen).unwrap() > 0 {
            if seen.lines().last().is_some_and(|line| line.contains(text)) {
                return seen;
            }
        }
        panic!("{text:?} is not in the log:\n{seen}");
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// The exit code, stdout and the rest of the log.
    fn end(mut self) -> (Option<i32>, String, String) {
        let (mut out, mut log) = (String::new(), String::new());
        self.child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        self.log.read_to_string(&mut log).unwrap();
        (self.child.wait().unwrap().code(), out, log)
    }
}

#[test]
fn either_signal_stops_a_node_cleanly() {
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT] {
        let dir = tempfile::tempdir().unwrap();
        let mut process = Process::start("good", dir.path(), "run");
        process.wait_for("at the tip");
        let socket = dir.path().join("handshake-regtest/control.sock");
        assert!(socket.exists());
        process.signal(signal);
        process.wait_for("stopped");
        assert_eq!(process.end().0, Some(0));
        assert!(!socket.exists());
    }
}

#[test]
fn a_second_signal_does_not_wait() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = Process::start("stubborn", dir.path(), "run");
    process.wait_for("at the tip");
    process.signal(rustix::process::Signal::TERM);
    process.wait_for("SIGTERM: stopping");
    // The first ones come at once after it and count as its echo. Each is answered by a line of the log.
    let mut echoes = 0;
    loop {
        process.signal(rustix::process::Signal::INT);
        if process.wait_for("SIGINT again").contains("stopping at once") {
            break;
        }
        echoes += 1;
    }
    assert!(echoes > 0, "a signal right after the first was taken for impatience");
    let (code, _, log) = process.end();
    assert_eq!(code, Some(Exit::Killed.code().into()), "{log}");
}

#[test]
fn an_echo_of_the_first_signal_leaves_the_stop_clean() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = Process::start("good", dir.path(), "run");
    process.wait_for("at the tip");
    process.signal(rustix::process::Signal::TERM);
    process.signal(rustix::process::Signal::INT);
    let (code, _, log) = process.end();
    assert_eq!(code, Some(0), "{log}");
}

#[test]
fn what_does_not_stop_in_time_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = Process::start("stubborn", dir.path(), "run");
    process.wait_for("at the tip");
    process.signal(rustix::process::Signal::TERM);
    let (code, _, log) = process.end();
    assert_eq!(code, Some(Exit::Bug.code().into()));
    assert!(log.contains("did not stop within 5 s: stubborn"), "{log}");
}

#[test]
fn another_process_asks_the_running_node() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = Process::start("good", dir.path(), "run");
    process.wait_for("at the tip");
    let ask = |args: &str| {
        let args = format!("{args} --network handshake-regtest --data-dir {}", dir.path().display());
        let mut command = Command::new(env!("CARGO_BIN_EXE_rookery"));
        command.args(args.split(' ')).env_clear().env("HOME", dir.path()).output().unwrap()
    };
    let text = |args: &str| String::from_utf8(ask(args).stdout).unwrap();
    let status: serde_json::Value = serde_json::from_str(&text("status --json")).unwrap();
    assert_eq!(status["pid"], process.child.id());
    assert!(text("status").contains("at the tip"));
    assert!(text("peers").contains(KNOWN));
    assert!(text(&format!("peers {KNOWN} why")).contains(KNOWN));
    assert_eq!(
        text("peers 192.0.2.7 why --json").lines().count(),
        2,
        "one line for each port, and for the host"
    );
    assert!(text("bans").contains("192.0.2.9") && text("bans").contains("a forged record"));
    assert_eq!(ask("peers 192.0.2.8:1 why").status.code(), Some(Exit::Failed.code().into()));
    assert!(text("chain").contains('7'));
    assert!(text("why").contains("waiting for a peer"));
    let second = ask("run");
    assert_eq!(second.status.code(), Some(Exit::DataDir.code().into()));
    let message = String::from_utf8(second.stderr).unwrap();
    assert!(message.contains(&format!("pid {}", process.child.id())), "{message}");
    process.signal(rustix::process::Signal::TERM);
    assert_eq!(process.end().0, Some(0));
}

#[test]
fn sync_ends_with_one_line_that_holds_the_figures() {
    let dir = tempfile::tempdir().unwrap();
    let (code, out, log) = Process::start("good", dir.path(), "sync --json").end();
    assert_eq!(code, Some(0), "{log}");
    let line: serde_json::Value = serde_json::from_str(last_line(&out)).unwrap();
    assert_eq!((&line["network"], &line["height"]), (&"handshake-regtest".into(), &7.into()));
    assert_eq!(line["tip"].as_str().unwrap().len(), 64);
    for figure in ["headers", "seconds", "cpu_seconds", "peak_rss_bytes", "peers"] {
        assert!(line[figure].is_number(), "{figure}");
    }
}

#[test]
fn a_sync_that_does_not_get_there_says_so_by_its_code() {
    let dir = tempfile::tempdir().unwrap();
    let (code, out, log) = Process::start("behind", dir.path(), "sync --json --patience 0s").end();
    assert_eq!(code, Some(Exit::NotAtTip.code().into()));
    let line: serde_json::Value = serde_json::from_str(last_line(&out)).unwrap();
    assert_eq!(line["at_tip"], false);
    assert!(log.contains("nothing advanced"), "{log}");
}

#[test]
fn simulations_are_listed_and_a_broken_promise_shows_in_the_code() {
    let dir = tempfile::tempdir().unwrap();
    assert!(Process::start("good", dir.path(), "sim").end().1.contains("partition"));
    assert_eq!(Process::start("good", dir.path(), "sim partition --seed 1").end().0, Some(0));
    let (code, out, log) = Process::start("good", dir.path(), "sim partition --seed 13").end();
    assert_eq!(code, Some(Exit::Failed.code().into()));
    assert!(out.contains("a request without an end"), "{out}");
    assert!(log.contains("rookery sim partition --seed 13"), "{log}");
}

#[test]
fn a_demo_that_nobody_watches_ends_after_five_new_blocks_with_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let (code, out, log) = Process::start("good", dir.path(), "demo --json --headers 100").end();
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(out.lines().filter(|line| line.starts_with('{')).count(), 1, "{out}");
    let line: serde_json::Value = serde_json::from_str(last_line(&out)).unwrap();
    assert_eq!((&line["nodes"], &line["headers"]), (&4.into(), &100.into()));
    let (followed, height) = (line["followed"].as_u64().unwrap(), line["height"].as_u64().unwrap());
    assert!(followed >= 5 && height == 100 + followed, "{line}");

    let (code, out, log) = Process::start("good", dir.path(), "demo --headers 100").end();
    assert_eq!(code, Some(0), "{log}");
    assert!(out.contains("3 nodes on loopback") && out.contains("it verified 100 headers"), "{out}");
}

/// The last line of JSON: the test harness prints lines of its own.
fn last_line(text: &str) -> &str {
    text.lines().rfind(|line| line.starts_with('{')).unwrap_or(text)
}
