//! The control socket against a node that shows what the test tells it to, and against clients of every kind.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::support::{Fake, KNOWN, at_tip, front};
use rookery::control::{self, MAX_CLIENTS, MAX_QUESTION, SOCKET};
use rookery::front::Front;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

struct Served {
    front: Front,
    dir: tempfile::TempDir,
}

impl Served {
    fn new(node: Fake) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let front = front(node, dir.path());
        control::server::serve(control::server::bind(dir.path()).unwrap(), front.clone());
        Self { front, dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join(SOCKET)
    }
}

async fn say(path: &Path, bytes: &[u8]) -> Value {
    let mut stream = UnixStream::connect(path).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    hear(&mut stream).await
}

async fn hear(stream: &mut UnixStream) -> Value {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert!(text.ends_with('\n') && text.lines().count() == 1, "{text:?}");
    serde_json::from_str(&text).unwrap()
}

fn error(answer: &Value) -> &str {
    answer["error"].as_str().unwrap()
}

#[tokio::test]
async fn every_question_has_its_answer() {
    let served = Served::new(Fake::new(at_tip()));
    let path = served.path();
    let status = say(&path, b"{\"ask\":\"status\"}\n").await;
    assert_eq!(status["ok"]["height"], 7);
    assert_eq!(status["ok"]["pid"], std::process::id());
    assert_eq!(say(&path, b"{\"ask\":\"peers\"}\n").await["ok"][0]["address"], KNOWN);
    assert_eq!(say(&path, b"{\"ask\":\"chain\"}\n").await["ok"]["height"], 7);
    assert_eq!(say(&path, b"{\"ask\":\"why\"}\n").await["ok"]["hops"][0]["state"], "waiting");
    let why = |address: &str| format!("{{\"ask\":\"peer_why\",\"address\":\"{address}\"}}\n");
    assert_eq!(say(&path, why(KNOWN).as_bytes()).await["ok"][0]["address"], KNOWN);
    assert_eq!(say(&path, why("192.0.2.7:0").as_bytes()).await["ok"][1]["address"], "192.0.2.7");
    assert_eq!(say(&path, why("192.0.2.8:1").as_bytes()).await["ok"], serde_json::json!([]));
    assert_eq!(say(&path, b"{\"ask\":\"bans\"}\n").await["ok"][0]["reason"], "a forged record");
}

#[tokio::test]
async fn garbage_is_answered_and_harms_nobody() {
    let served = Served::new(Fake::new(at_tip()));
    let path = served.path();
    for garbage in [
        &b"\n"[..],
        b"hello\n",
        b"{\"ask\":\"stop\"}\n",
        b"{\"ask\":\"peer_why\",\"address\":\"nobody\"}\n",
        b"\xff\xfe\x00\n",
        b"[[[[[[[[[[\n",
    ] {
        let answer = say(&path, garbage).await;
        assert!(error(&answer).starts_with("not a question"), "{answer}");
    }
    assert_eq!(say(&path, b"{\"ask\":\"status\"}\n").await["ok"]["height"], 7);
}

#[tokio::test]
async fn a_question_ends_at_its_limit() {
    let served = Served::new(Fake::new(at_tip()));
    let answer = say(&served.path(), &vec![b' '; MAX_QUESTION]).await;
    assert!(error(&answer).contains("at most"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_ask_is_told_so() {
    let served = Served::new(Fake::new(at_tip()));
    let mut stream = UnixStream::connect(served.path()).await.unwrap();
    stream.write_all(b"{\"ask\":").await.unwrap();
    assert!(error(&hear(&mut stream).await).contains("no question within"));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_hangs_is_named_as_such() {
    let served = Served::new(Fake { hangs: true, ..Fake::new(at_tip()) });
    let answer = say(&served.path(), b"{\"ask\":\"why\"}\n").await;
    assert!(error(&answer).contains("the node hangs"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn silent_clients_hold_up_the_next_only_until_their_deadline() {
    let served = Served::new(Fake::new(at_tip()));
    let mut silent = Vec::new();
    for _ in 0..MAX_CLIENTS {
        silent.push(UnixStream::connect(served.path()).await.unwrap());
    }
    assert_eq!(say(&served.path(), b"{\"ask\":\"status\"}\n").await["ok"]["height"], 7);
    for mut stream in silent {
        assert!(error(&hear(&mut stream).await).contains("no question"));
    }
}

#[tokio::test]
async fn the_socket_is_the_owner_s_replaces_a_dead_one_and_goes_with_the_node() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(SOCKET);
    // What a killed node leaves behind.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let front = front(Fake::new(at_tip()), dir.path());
    control::server::serve(control::server::bind(dir.path()).unwrap(), front.clone());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    front.env.scope.close(std::time::Duration::from_secs(5)).await.unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn a_stop_does_not_wait_for_clients() {
    let served = Served::new(Fake { hangs: true, ..Fake::new(at_tip()) });
    let mut asking = UnixStream::connect(served.path()).await.unwrap();
    asking.write_all(b"{\"ask\":\"why\"}\n").await.unwrap();
    served.front.env.scope.close(std::time::Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn a_path_that_is_too_long_is_explained() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("d".repeat(120));
    std::fs::create_dir(&deep).unwrap();
    let report = control::server::bind(&deep).unwrap_err();
    assert_eq!(report.exit, rookery::exit::Exit::DataDir);
    assert!(report.hint.unwrap().contains("107 bytes"));
}
