//! The overlay through the real program: nodes on loopback that talk through their stdin and stdout.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use rookery::exit::Exit;
use rustix::process::Signal;
use serde_json::Value;

/// For anything here: far more than it takes, so that only a stall reaches it.
const PATIENCE: Duration = Duration::from_secs(60);

fn rookery(home: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rookery"));
    command.args(args).env_clear().env("HOME", home).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[track_caller]
fn ends(output: &Output, exit: Exit) -> String {
    assert_eq!(output.status.code(), Some(exit.code().into()), "{}", text(&output.stderr));
    text(&output.stderr)
}

/// Lines that wait for a test; what writes more waits for it.
const LINES: usize = 1024;

/// Reads lines for as long as there are any, so that no wait for one can last for ever and no pipe fills.
fn lines(input: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (tell, lines) = sync_channel(LINES);
    std::thread::Builder::new()
        .spawn(move || {
            let all = BufReader::new(input).lines().map_while(Result::ok);
            all.take_while(|line| tell.send(line.clone()).is_ok()).for_each(drop);
        })
        .unwrap();
    lines
}

/// A running node.
pub struct Node {
    child: Child,
    stdin: Option<ChildStdin>,
    out: Receiver<String>,
    log: Receiver<String>,
    home: PathBuf,
}

impl Node {
    fn start(home: &Path, args: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_rookery"))
            .args(["run", "--network", "overlay", "--local", "--log-format", "plain"])
            .args(args.split(' '))
            .env_clear()
            .env("HOME", home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (out, log) = (lines(child.stdout.take().unwrap()), lines(child.stderr.take().unwrap()));
        let stdin = child.stdin.take();
        Self { child, stdin, out, log, home: home.to_owned() }
    }

    /// A node on a free port of loopback.
    pub fn listening(home: &Path, args: &str) -> (Self, String) {
        let node = Self::start(home, &format!("--listen 127.0.0.1:0 {args}"));
        let line = node.logs("listening on ");
        let at = line.rsplit(' ').next().unwrap().to_owned();
        (node, at)
    }

    /// Reads the log until a line has this text.
    #[track_caller]
    fn logs(&self, what: &str) -> String {
        let mut seen = String::new();
        loop {
            match self.log.recv_timeout(PATIENCE) {
                Ok(line) if line.contains(what) => return line,
                Ok(line) => seen += &(line + "\n"),
                Err(_) => panic!("{what:?} is not in the log:\n{seen}"),
            }
        }
    }

    fn say(&mut self, line: &[u8]) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(line).unwrap();
        stdin.write_all(b"\n").unwrap();
    }

    /// The next line of stdout.
    #[track_caller]
    fn hears(&self) -> String {
        self.out.recv_timeout(PATIENCE).unwrap()
    }

    pub fn ask(&self, args: &str) -> String {
        let args: Vec<&str> = args.split(' ').chain(["--network", "overlay"]).collect();
        let output = rookery(&self.home, &args);
        ends(&output, Exit::Clean);
        text(&output.stdout)
    }

    fn peer_id(&self) -> String {
        let status: Value = serde_json::from_str(&self.ask("status --json")).unwrap();
        status["peer_id"].as_str().unwrap().to_owned()
    }

    fn signal(&self, signal: Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }

    /// Stops it; says its exit code.
    fn stop(mut self, signal: Signal) -> Option<i32> {
        self.signal(signal);
        self.child.wait().unwrap().code()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn homes() -> [tempfile::TempDir; 2] {
    [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()]
}

#[test]
fn two_terminals_are_a_chat() {
    let [first, second] = homes();
    let (mut a, at) = Node::listening(first.path(), "--topic chat");
    let (mut b, _) = Node::listening(second.path(), &format!("--topic chat --json --bootstrap {at}"));
    a.logs("1 peer is connected");
    b.logs("1 peer is connected");
    a.say(b"");
    a.say(&[b'x'; 70_000]);
    a.say("gr\u{fc}\u{df}e".as_bytes());
    let line: Value = serde_json::from_str(&b.hears()).unwrap();
    assert_eq!((&line["topic"], &line["payload"]), (&"chat".into(), &"gr\u{fc}\u{df}e".into()));
    a.logs("a line of stdin was not published: the line has more than 65536 bytes");
    b.say(b"\x1b[2Jhi\xff");
    assert_eq!(a.hears(), r"\u{1b}[2Jhi\xff");
    // The end of stdin is the end of neither the node nor what it hears.
    drop(a.stdin.take());
    b.say(b"still there?");
    assert_eq!(a.hears(), "still there?");
    assert_eq!(a.stop(Signal::TERM), Some(0));
    b.logs("no peer is connected");
    assert_eq!(b.stop(Signal::INT), Some(0));
}

#[test]
fn a_node_whose_output_nobody_reads_any_more_ends_and_one_whose_reader_pauses_can_be_stopped() {
    let [first, second] = homes();
    let (mut a, at) = Node::listening(first.path(), "--topic chat");
    let start = |home: &Path| {
        let data = home.join("data");
        Command::new(env!("CARGO_BIN_EXE_rookery"))
            .args(["run", "--network", "overlay", "--local", "--topic", "chat", "--listen", "127.0.0.1:0"])
            .args(["--connect", &at, "--data-dir", data.to_str().unwrap()])
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let mut gone = start(second.path());
    drop(gone.stdout.take());
    a.logs("1 peer is connected");
    a.say(b"anybody?");
    assert_eq!(gone.wait().unwrap().code(), Some(0));

    let mut paused = start(second.path());
    let log = lines(paused.stderr.take().unwrap());
    assert!(log.iter().any(|line| line.contains("1 peer is connected")));
    // More than a pipe holds, and it has all of it.
    for _ in 0..4 {
        a.say(&[b'x'; 60_000]);
    }
    let data = second.path().join("data");
    let ask = ["status", "--json", "--network", "overlay", "--data-dir", data.to_str().unwrap()];
    let received = || {
        let status: Value = serde_json::from_slice(&rookery(second.path(), &ask).stdout).unwrap();
        status["received_bytes"].as_u64().unwrap()
    };
    assert!((0..1_000).any(|_| received() > 240_000), "not all of it came");
    rustix::process::kill_process(rustix::process::Pid::from_child(&paused), Signal::TERM).unwrap();
    assert_eq!(paused.wait().unwrap().code(), Some(0), "nobody has read its stdout");
}

#[test]
fn a_running_node_says_who_it_is_whom_it_has_met_and_why() {
    let [first, second] = homes();
    let (a, at) = Node::listening(first.path(), "--topic chat --metrics 127.0.0.1:0");
    let (b, _) = Node::listening(second.path(), &format!("--connect {at}"));
    a.logs("1 peer is connected");
    let status = a.ask("status");
    assert!(status.contains(&a.peer_id()) && status.contains("connected"), "{status}");
    assert!(!status.contains("height"), "an overlay has no chain: {status}");
    let peers: Value = serde_json::from_str(&a.ask("peers --json")).unwrap();
    let peer = &peers[0];
    assert_eq!((&peer["peer_id"], &peer["direction"]), (&b.peer_id().into(), &"in".into()));
    assert!(peer.get("height").is_none(), "{peer}");
    let address = peer["address"].as_str().unwrap();
    assert!(a.ask(&format!("peers {address} why")).contains("connected (inbound)"));
    assert!(a.ask("peers 127.0.0.1 why").contains(address), "without a port, every port is told about");
    let why = a.ask("why");
    assert!(why.starts_with("1 peer is connected"), "{why}");
    assert!(why.contains("1 arrived = 0 in a handshake + 1 live + 0 ended + 0 refused"), "{why}");
    assert!(why.contains("0 handshakes under way of at most"), "{why}");
    assert!(a.ask("bans").contains("no address is banned"));
    let chain = rookery(first.path(), &["chain", "--network", "overlay"]);
    assert!(ends(&chain, Exit::Failed).contains("overlay has no chain"));
    assert_eq!(b.stop(Signal::TERM), Some(0));
    a.logs("no peer is connected");
    let why: Value = serde_json::from_str(&a.ask("why --json")).unwrap();
    let hops = why["hops"].as_array().unwrap();
    let arrivals = hops.iter().find(|hop| hop["hop"] == "arrivals").unwrap();
    assert!(arrivals["detail"].as_str().unwrap().contains("1 ended"), "{arrivals}");
}

#[test]
fn a_refusal_is_named_to_both_sides() {
    let [first, second] = homes();
    let (a, at) = Node::listening(first.path(), "--require-post-quantum");
    std::fs::create_dir_all(second.path().join(".config/rookery")).unwrap();
    let file = second.path().join(".config/rookery/config.toml");
    std::fs::write(file, "network = \"overlay\"\n[overlay]\nkeys = \"classic\"\n").unwrap();
    let (b, _) = Node::listening(second.path(), &format!("--connect {at}"));
    // Each attempt is answered and told of; the first may not have ended yet when it is asked after.
    let mut asked = 0;
    let told = |node: &Node, asked: u32, what: &str| {
        let why = node.ask("why");
        assert!(asked < 1_000, "{what:?} is not in {why}");
        why.contains(what)
    };
    while !told(&a, asked, "refused (bad handshake ")
        || !told(&b, asked, "the peer accepts no key of this node")
    {
        asked += 1;
    }
    assert!(a.ask("why").contains("+ 0 live +"), "{}", a.ask("why"));
    assert!(a.ask("peers 127.0.0.1 why").contains("it has no key that this node accepts"));
}

#[test]
fn a_killed_node_comes_back_as_itself_and_finds_its_peers_again() {
    let [first, second] = homes();
    let (hub, at) = Node::listening(first.path(), "--topic chat");
    let hub_id = hub.peer_id();
    let (b, _) = Node::listening(second.path(), &format!("--topic chat --bootstrap {at}"));
    b.logs("1 peer is connected");
    let id = b.peer_id();
    // A clean stop saves whom it knows; a kill loses at most what came since.
    assert_eq!(b.stop(Signal::TERM), Some(0));
    let (b, _) = Node::listening(second.path(), "--topic chat");
    b.logs("1 peer is connected");
    assert_eq!(b.stop(Signal::KILL), None);
    let (b, _) = Node::listening(second.path(), "--topic chat");
    b.logs("1 peer is connected");
    assert_eq!(b.peer_id(), id);
    let peers: Value = serde_json::from_str(&b.ask("peers --json")).unwrap();
    assert_eq!(peers[0]["peer_id"], hub_id.as_str(), "nobody told it of the hub this time");
    let shown = rookery(second.path(), &["id", "--network", "overlay"]);
    assert_eq!(text(&shown.stdout).trim_end(), id, "beside the running node too");
}

#[test]
fn an_identity_is_shown_and_never_made_by_asking() {
    let home = tempfile::tempdir().unwrap();
    let output = rookery(home.path(), &["id", "--network", "overlay"]);
    assert!(ends(&output, Exit::Failed).contains("rookery run --network overlay"));
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0, "asking makes nothing");
    let (node, _) = Node::listening(home.path(), "--name garden");
    let id = node.peer_id();
    assert_eq!(node.stop(Signal::TERM), Some(0));
    let output = rookery(home.path(), &["id", "--network", "overlay", "--name", "garden", "--json"]);
    ends(&output, Exit::Clean);
    let shown: Value = serde_json::from_str(&text(&output.stdout)).unwrap();
    assert_eq!((&shown["peer_id"], &shown["overlay"]), (&id.into(), &"garden".into()));
    let at = home.path().join(".local/share/rookery/overlay/nodes/garden/identity");
    std::fs::write(&at, "mine\n").unwrap();
    let output = rookery(home.path(), &["id", "--network", "overlay", "--name", "garden"]);
    assert!(ends(&output, Exit::DataDir).contains("holds no identity"));
}

#[test]
fn what_cannot_be_is_refused_with_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    for (args, told) in [
        (&["run", "--topic", "chat"][..], "--topic is for the overlay"),
        (&["run", "--network", "overlay", "--checkpoint", "x"], "--checkpoint is for networks with a chain"),
        (&["run", "--network", "overlay", "--name", "../x"], "a name of 1 to 32 characters"),
        (&["run", "--network", "overlay", "--topic", "a\nb"], "printable ASCII"),
        (&["run", "--network", "overlay", "--bootstrap", "a b"], "HOST or HOST:PORT"),
        (&["run", "--network", "overlay", "--bootstrap", "no.such.host.invalid"], "cannot resolve"),
        (&["run", "--network", "overlya"], "or overlay"),
        (&["sync", "--network", "overlay"], "no chain to catch up with"),
        (&["id"], "rookery id --network overlay"),
        (&["probe", "overlay", "192.0.2.7", "ping"], "cannot be probed yet"),
    ] {
        let output = rookery(home.path(), args);
        let error = ends(&output, Exit::Usage);
        assert!(error.contains(told) && error.contains("hint: "), "{args:?}: {error}");
    }
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap().to_string();
    let output = rookery(home.path(), &["run", "--network", "overlay", "--listen", &at]);
    let error = ends(&output, Exit::PortTaken);
    assert!(error.contains(&at) && error.contains("--listen"), "{error}");
}

#[test]
fn the_demo_s_nodes_all_get_what_one_of_them_publishes() {
    let home = tempfile::tempdir().unwrap();
    let output = rookery(home.path(), &["demo", "--network", "overlay", "--json"]);
    ends(&output, Exit::Clean);
    let line: Value = serde_json::from_str(&text(&output.stdout)).unwrap();
    assert_eq!((&line["nodes"], &line["delivered"]), (&6.into(), &5.into()));
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0, "the demo leaves nothing behind");
    let output = rookery(home.path(), &["demo", "--network", "overlay"]);
    let told = text(&output.stdout);
    assert!(told.contains("each is connected to all 5 others"), "{told}");
    assert_eq!(told.matches(" has it, ").count(), 5, "{told}");
}
