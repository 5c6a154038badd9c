//! The real program: exit codes, the lock, what goes to stdout and what to stderr.

use std::path::Path;
use std::process::{Command, Output};

use rookery::exit::Exit;
use rookery::lock::DirLock;

fn rookery(home: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rookery")).args(args).env_clear().env("HOME", home).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[track_caller]
fn ends(output: &Output, exit: Exit) {
    assert_eq!(output.status.code(), Some(exit.code().into()), "{}", stderr(output));
}

#[test]
fn a_data_directory_in_use_is_refused_with_its_holder() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("data/handshake-regtest");
    let _held = DirLock::acquire(&dir).unwrap();
    let data = home.path().join("data");
    let args = ["--network", "handshake-regtest", "--data-dir", data.to_str().unwrap()];
    for command in ["run", "sync"] {
        let output = rookery(home.path(), &[&[command], &args[..]].concat());
        ends(&output, Exit::DataDir);
        let text = stderr(&output);
        assert!(text.contains(&format!("pid {}", std::process::id())), "{text}");
        assert!(text.contains(dir.to_str().unwrap()) && text.contains("hint:"), "{text}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_taken_metrics_port_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = rookery(home.path(), &["run", "--network", "handshake-regtest", "--metrics", &address]);
    ends(&output, Exit::PortTaken);
    assert!(stderr(&output).contains(&address));
}

#[test]
fn asking_where_no_node_runs_says_how_to_start_one() {
    let home = tempfile::tempdir().unwrap();
    for args in [&["status"][..], &["peers"], &["peers", "192.0.2.7:1", "why"], &["chain"], &["why"]] {
        let output = rookery(home.path(), args);
        ends(&output, Exit::Unreachable);
        assert!(stderr(&output).contains("rookery run --network handshake-main"), "{}", stderr(&output));
    }
    let output = rookery(home.path(), &["status", "--json"]);
    let line: serde_json::Value = serde_json::from_str(&stderr(&output)).unwrap();
    assert_eq!(line["exit"], Exit::Unreachable.code());
}

#[test]
fn wrong_usage_and_configuration_end_alike() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("wrong.toml");
    std::fs::write(&file, "lisen = []\n").unwrap();
    for args in [
        &["fly"][..],
        &["run", "--network", "bitcoin"],
        &["run", "--connect", "a", "--peer", "b"],
        &["peers", "nobody", "why"],
        &["probe", "handshake-main", "192.0.2.7", "secrets"],
        &["probe", "bitcoin", "192.0.2.7", "ping"],
        &["sync", "--patience", "long"],
        &["config", "check", "--config", file.to_str().unwrap()],
        &["config", "check", "--config", "/nonexistent/rookery.toml"],
    ] {
        let output = rookery(home.path(), args);
        ends(&output, Exit::Usage);
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn the_printed_configuration_is_one_that_checks() {
    let home = tempfile::tempdir().unwrap();
    let output = rookery(home.path(), &["config"]);
    ends(&output, Exit::Clean);
    let file = home.path().join(".config/rookery/config.toml");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, stdout(&output)).unwrap();
    let output = rookery(home.path(), &["config", "check"]);
    ends(&output, Exit::Clean);
    assert!(output.stdout.is_empty() && output.stderr.is_empty());
    let shown = stdout(&rookery(home.path(), &["config", "show", "--origin", "--log", "debug"]));
    assert!(shown.contains(&format!("{}, line ", file.display())), "{shown}");
    assert!(shown.lines().any(|line| line.starts_with("log ") && line.ends_with("--log")), "{shown}");
    assert!(!shown.contains('\x1b'), "a pipe is no terminal");
}

#[test]
fn help_version_and_completions_go_to_stdout() {
    let home = tempfile::tempdir().unwrap();
    for args in [&["--help"][..], &["--version"], &["help", "sync"], &["config"]] {
        let output = rookery(home.path(), args);
        ends(&output, Exit::Clean);
        assert!(!output.stdout.is_empty() && output.stderr.is_empty());
    }
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = rookery(home.path(), &["completions", shell]);
        ends(&output, Exit::Clean);
        assert!(stdout(&output).contains("rookery"), "{shell}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let home = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_rookery"))
        .args(["completions", "bash"])
        .env("HOME", home.path())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    ends(&output, Exit::Clean);
    assert!(output.stderr.is_empty(), "{}", stderr(&output));
}
