//! The examples, run as they are: processes on loopback, their input and their output.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "in a test, a failure is a result")]

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// For anything here: far more than it takes, so that only a stall reaches it.
const PATIENCE: Duration = Duration::from_secs(60);
/// An address to listen on: any free port.
const ANY: &str = "127.0.0.1:0";

/// The program of an example, which `cargo test` builds beside this one.
fn example(name: &str, args: &[&str]) -> Command {
    let here = std::env::current_exe().unwrap();
    let program = here.parent().unwrap().parent().unwrap().join("examples").join(name);
    assert!(program.exists(), "{program:?} is missing: cargo build -p rookery-overlay --examples");
    let mut command = Command::new(program);
    command.args(args).kill_on_drop(true);
    command
}

/// Runs an example to its end.
async fn run(name: &str, args: &[&str]) -> Output {
    tokio::time::timeout(PATIENCE, example(name, args).output()).await.expect("an end").unwrap()
}

/// What an example that ended well has said.
async fn says(name: &str, args: &[&str]) -> String {
    let output = run(name, args).await;
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// An example that goes on until it is told to end.
struct Running {
    child: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    /// Where it listens.
    addr: String,
}

impl Running {
    async fn start(name: &str, args: &[&str]) -> Self {
        let mut command = example(name, args);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let lines = BufReader::new(output).lines();
        let mut running = Self { child, input, lines, addr: String::new() };
        let line = running.hears("listening on ").await;
        running.addr = line.split("listening on ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
        running
    }

    /// The next line that contains this.
    async fn hears(&mut self, what: &str) -> String {
        let mut heard = Vec::new();
        let listening = async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                if line.contains(what) {
                    return Some(line);
                }
                heard.push(line);
            }
            None
        };
        let found = tokio::time::timeout(PATIENCE, listening).await;
        found.ok().flatten().unwrap_or_else(|| panic!("no {what:?} in {heard:#?}"))
    }

    async fn types(&mut self, line: &str) {
        self.input.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    /// Presses Ctrl-C; it ends, and well.
    async fn interrupt(mut self) {
        let pid = Pid::from_raw(self.child.id().unwrap().try_into().unwrap()).unwrap();
        kill_process(pid, Signal::INT).unwrap();
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("an end").unwrap();
        assert!(status.success(), "{status}");
    }
}

#[tokio::test]
async fn all_tell_how_they_are_used_and_what_was_wrong() {
    for name in ["echo", "chat", "file_transfer", "key_value", "metrics", "notice_board"] {
        assert!(says(name, &["--help"]).await.starts_with("usage: "), "{name}");
        let bad = run(name, &["nonsense"]).await;
        assert_eq!(bad.status.code(), Some(1), "{name}: {bad:?}");
        assert!(String::from_utf8_lossy(&bad.stderr).starts_with(&format!("{name}: ")), "{bad:?}");
    }
}

#[tokio::test]
async fn echo_prints_a_round_trip_for_each_text() {
    let mut listener = Running::start("echo", &["listen", ANY]).await;
    let said = says("echo", &["send", &listener.addr, "hello", "again"]).await;
    let texts: Vec<_> = said.lines().filter_map(|line| line.split(" after ").next()).collect();
    assert_eq!(texts, [r#""hello""#, r#""again""#], "{said}");
    listener.hears("connected: ").await;
    listener.hears("5 bytes from ").await;
    listener.hears("lost: ").await;
    listener.interrupt().await;
}

#[tokio::test]
async fn chat_lines_reach_everybody_and_terminals_are_safe() {
    let mut ann = Running::start("chat", &["ann", ANY]).await;
    let mut bob = Running::start("chat", &["bob", ANY, &ann.addr]).await;
    let mut eve = Running::start("chat", &["eve", ANY, &bob.addr]).await;
    eve.hears("* connected: ").await;
    ann.hears("* connected: ").await;
    bob.types("hello, all").await;
    ann.hears("bob: hello, all").await;
    eve.hears("bob: hello, all").await;
    eve.types("\u{1b}[2J").await;
    eve.hears("* not sent").await;
    bob.interrupt().await;
    ann.hears("* lost: ").await;
    ann.interrupt().await;
    eve.interrupt().await;
}

/// The most memory that a process has ever had, in bytes.
#[cfg(target_os = "linux")]
fn peak_memory(child: &Child) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id().unwrap())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

fn file_of(dir: &Path, bytes: usize) -> String {
    let path = dir.join("file.bin");
    let pattern: Vec<u8> = (0..bytes).map(|at| (at / 251) as u8 ^ at as u8).collect();
    std::fs::write(&path, pattern).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_file_arrives_whole_in_little_memory_and_no_faster_than_it_is_read() {
    const FILE: usize = 24 << 20;
    /// What may be on the way: a stream's window of 256 KiB at each end, and what the sender has not yet heard of.
    const ON_THE_WAY: usize = 2 << 20;
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (file, inbox) = (file_of(from.path(), FILE), to.path().to_str().unwrap());
    // Far below what the way could carry.
    let mut receiver = Running::start("file_transfer", &["receive", ANY, inbox, "12000000"]).await;
    #[cfg(target_os = "linux")]
    let before = peak_memory(&receiver.child);
    let said = says("file_transfer", &["send", &receiver.addr, &file]).await;
    assert!(said.lines().last().unwrap().starts_with("both ends have "), "{said}");
    let number = |text: &str| text.parse::<usize>().unwrap();
    let ahead =
        said.lines().filter_map(|line| line.split_once("on the way ")).map(|(_, bytes)| number(bytes));
    let most = ahead.max().unwrap();
    assert!((1..ON_THE_WAY).contains(&most), "{most} bytes were on the way at once");
    receiver.hears(&format!("file.bin: {FILE} bytes, ")).await;
    assert_eq!(std::fs::read(to.path().join("file.bin")).unwrap(), std::fs::read(&file).unwrap());
    #[cfg(target_os = "linux")]
    {
        let grown = peak_memory(&receiver.child) - before;
        assert!(grown < FILE / 2, "the receiver grew by {grown} bytes");
    }
    let again = run("file_transfer", &["send", &receiver.addr, &file]).await;
    assert!(String::from_utf8_lossy(&again.stderr).contains("error"), "a file was written over: {again:?}");
    assert_eq!(std::fs::read_dir(to.path()).unwrap().count(), 1, "parts stay behind");
    receiver.interrupt().await;
}

#[tokio::test]
async fn values_are_put_got_and_deleted_and_what_is_too_large_is_refused() {
    let server = Running::start("key_value", &["serve", ANY]).await;
    let at = server.addr.as_str();
    assert_eq!(says("key_value", &["get", at, "colour"]).await, "not found\n");
    assert_eq!(says("key_value", &["put", at, "colour", "green"]).await, "created\n");
    assert_eq!(says("key_value", &["put", at, "colour", "blue"]).await, "replaced\n");
    assert_eq!(says("key_value", &["get", at, "colour"]).await, "found: blue\n");
    assert_eq!(says("key_value", &["delete", at, "colour"]).await, "deleted\n");
    assert_eq!(says("key_value", &["delete", at, "colour"]).await, "not found\n");
    let large = run("key_value", &["put", at, "colour", &"x".repeat(100_000)]).await;
    assert!(String::from_utf8_lossy(&large.stderr).contains("TooLarge"), "{large:?}");
    server.interrupt().await;
}

#[tokio::test]
async fn a_node_tells_who_is_there_and_why_somebody_is_not() {
    let mut first = Running::start("metrics", &["1", ANY]).await;
    let second = Running::start("metrics", &["1", ANY, &first.addr]).await;
    first.hears("is connected (in)").await;
    first.hears("all accounted for").await;
    first.hears("rookery_sessions{").await;
    second.interrupt().await;
    first.hears("lost: ").await;
    let gone = first.hears("was connected for ").await;
    assert!(gone.contains("the peer closed the connection"), "{gone}");
    first.interrupt().await;
}

#[tokio::test]
async fn the_tutorials_board_is_seen_by_those_who_come_late() {
    let mut early = Running::start("notice_board", &[ANY]).await;
    early.types("for sale: a boat").await;
    early.hears("- for sale: a boat").await;
    let mut late = Running::start("notice_board", &[ANY, &early.addr]).await;
    late.hears("- for sale: a boat").await;
    late.types("wanted: a harbour").await;
    early.hears("- wanted: a harbour").await;
    early.interrupt().await;
    late.hears("* lost: ").await;
    late.interrupt().await;
}
