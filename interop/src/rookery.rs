//! The program under test: `rookery`, as a user starts it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::process::Process;
use crate::{ports, wait};

/// How long a node may take from its start to its first answer on its control socket.
const START_WITHIN: Duration = Duration::from_secs(20);

/// The binary: `ROOKERY_BIN`, or a release build of this checkout.
///
/// # Panics
/// When it cannot be built.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(given) = std::env::var_os("ROOKERY_BIN") {
            return PathBuf::from(given);
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let target = root.join("target");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let built = Command::new(cargo)
            .args(["build", "--release", "--package", "rookery", "--manifest-path"])
            .arg(root.join("Cargo.toml"))
            .env("CARGO_TARGET_DIR", &target)
            .status()
            .expect("cargo starts");
        assert!(built.success(), "rookery does not build: {built}");
        target.join("release/rookery")
    })
}

/// A command on regtest with its data in `data`; no configuration but what is on the line.
pub fn command(name: &str, data: &Path) -> Command {
    let mut command = Command::new(binary());
    command.arg(name).args(["--network", "handshake-regtest", "--json", "--data-dir"]).arg(data);
    for (key, _) in std::env::vars_os() {
        // Apart from the binary's place, these are the program's own settings.
        if key.to_string_lossy().starts_with("ROOKERY_") {
            command.env_remove(key);
        }
    }
    // Nor a configuration file of the user's.
    command.env("XDG_CONFIG_HOME", data).env("XDG_RUNTIME_DIR", data);
    command
}

/// A `rookery sync`; killed on drop.
#[derive(Debug)]
pub struct Sync {
    process: Process,
}

impl Sync {
    /// Starts one from this peer only, with its data in `data`.
    pub fn start(data: &Path, peer: SocketAddr) -> Self {
        let mut command = command("sync", data);
        command.args(["--connect", &peer.to_string(), "--log", "debug"]);
        Self { process: Process::start("rookery sync", &mut command, &data.join("sync.out")) }
    }

    /// Waits for its end; what it printed last, which on success is its summary.
    ///
    /// # Panics
    /// When it does not end within `deadline`, or not with exit code 0.
    pub fn summary(mut self, deadline: Duration) -> Value {
        let status = self.process.wait(deadline);
        let printed = self.process.printed();
        assert_eq!(status.code(), Some(0), "{printed}");
        let last = printed.lines().rfind(|line| line.starts_with('{')).unwrap_or_default();
        serde_json::from_str(last).unwrap_or_else(|error| panic!("expected a summary, got {last:?}: {error}"))
    }
}

/// A running `rookery run`; killed on drop. Its data directory outlives it when the caller made it.
#[derive(Debug)]
pub struct Node {
    process: Process,
    data: PathBuf,
    addr: SocketAddr,
    _own: Option<TempDir>,
}

impl Node {
    /// Starts one with a new data directory, connected to these peers only.
    pub fn start(peers: &[SocketAddr]) -> Self {
        let own = TempDir::new().expect("a temporary directory can be made");
        let mut node = Self::start_in(own.path(), peers);
        node._own = Some(own);
        node
    }

    /// Starts one in `data`, and waits until it answers.
    pub fn start_in(data: &Path, peers: &[SocketAddr]) -> Self {
        let node = Self::launch(data, peers);
        wait::until("rookery's first answer on its control socket", START_WITHIN, || node.status());
        node
    }

    /// Starts one in `data`, and does not wait.
    pub fn launch(data: &Path, peers: &[SocketAddr]) -> Self {
        let addr = SocketAddr::from(([127, 0, 0, 1], ports::free()));
        let mut command = command("run", data);
        command.args(["--listen", &addr.to_string(), "--log", "debug"]);
        for peer in peers {
            command.args(["--connect", &peer.to_string()]);
        }
        let process = Process::start("rookery", &mut command, &data.join("rookery.out"));
        Self { process, data: data.to_owned(), addr, _own: None }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its process, for signals.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// What `rookery status` says of it; none while it does not answer.
    pub fn status(&self) -> Option<Value> {
        self.ask("status")
    }

    /// What one of the commands that look at a running node says: `status`, `peers`, `chain`, `why`.
    pub fn ask(&self, view: &str) -> Option<Value> {
        let output = command(view, &self.data).output().expect("rookery starts");
        output.status.success().then(|| serde_json::from_slice(&output.stdout).ok()).flatten()
    }

    /// Its tip, in hexadecimal.
    pub fn tip(&self) -> Option<String> {
        Some(self.status()?["tip"].as_str()?.to_owned())
    }

    /// Waits until its tip is this one.
    ///
    /// # Panics
    /// When it is not within `deadline`.
    pub fn await_tip(&self, tip: &str, deadline: Duration) {
        let look = || (self.tip()? == tip).then_some(());
        wait::until(&format!("rookery at {tip}"), deadline, look);
    }
}
