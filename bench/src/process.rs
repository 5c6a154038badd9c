//! The processes that a measurement starts: the node, as users run it, the header server, this program again. Each ends
//! with its handle, whatever way the measurement ends.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rookery_runtime::Clock;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Time for a node to be ready, a hundred times what it should take: after it, it never will be.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// Between two looks at whether it is: a hundredth of the target, and little work for the machine.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// A child that is killed with its handle.
pub struct Owned(pub Child);

impl Owned {
    /// Starts one, with its streams as the command says.
    pub fn start(command: &mut Command) -> Result<Self, String> {
        command.spawn().map(Self).map_err(|error| format!("cannot run {command:?}: {error}"))
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // Both fail only for a child that has already ended and been waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `bench serve` in a process of its own.
pub struct Server {
    _child: Owned,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Server {
    /// Starts it and waits until its chain is made.
    pub fn start(network: &str, headers: usize) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|error| format!("this program's path: {error}"))?;
        let mut command = Command::new(program);
        command.args(["serve", "--network", network, "--headers", &headers.to_string()]);
        let mut child =
            Owned::start(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()))?;
        let mut line = String::new();
        let stdout = child.0.stdout.take().expect("its output was asked for");
        BufReader::new(stdout).read_line(&mut line).map_err(|error| format!("the server's line: {error}"))?;
        let said: Value = serde_json::from_str(&line)
            .map_err(|_| format!("the server said {line:?} in place of its address"))?;
        let address = said["listening"].as_str().and_then(|text| text.parse().ok());
        Ok(Self { _child: child, address: address.ok_or("the server's line has no address")? })
    }
}

/// The node's program, as it is on this machine.
pub struct Rookery {
    program: PathBuf,
    network: &'static str,
}

impl Rookery {
    /// The program named, or the workspace's release build, which is made when it is not there.
    pub fn find(named: Option<&Path>, network: &'static str) -> Result<Self, String> {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let target =
            std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from);
        let program = named.map_or_else(|| target.join("release/rookery"), Path::to_path_buf);
        if !program.exists() && named.is_none() {
            eprintln!("building {}", program.display());
            let mut cargo = Command::new("cargo");
            cargo.args(["build", "--release", "-p", "rookery", "--manifest-path"]);
            let built = cargo.arg(workspace.join("Cargo.toml")).arg("--target-dir").arg(&target).status();
            let built = built.map_err(|error| format!("cannot run cargo: {error}"))?;
            if !built.success() {
                return Err(format!("the node cannot be built: {built}"));
            }
        }
        if !program.exists() {
            return Err(format!("there is no {}", program.display()));
        }
        Ok(Self { program, network })
    }

    /// Where it is.
    pub fn program(&self) -> &Path {
        &self.program
    }

    fn command(&self, name: &str, data: &Path, peer: SocketAddr) -> Command {
        let mut command = Command::new(&self.program);
        command.args([name, "--network", self.network, "--log", "error", "--data-dir"]).arg(data);
        command.arg("--connect").arg(peer.to_string());
        command
    }

    /// `rookery sync --json`: its summary.
    pub fn sync(&self, data: &Path, peer: SocketAddr) -> Result<Value, String> {
        let mut command = self.command("sync", data, peer);
        let output = command.arg("--json").stderr(Stdio::inherit()).output();
        let output = output.map_err(|error| format!("cannot run {}: {error}", self.program.display()))?;
        if !output.status.success() {
            return Err(format!("rookery sync ended with {}", output.status));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let last = text.lines().last().unwrap_or_default();
        serde_json::from_str(last).map_err(|error| format!("the summary {last:?}: {error}"))
    }

    /// `rookery run`, and the seconds from its start until its control socket says that the chain has `height`.
    pub fn ready(&self, data: &Path, peer: SocketAddr, height: usize) -> Result<(Running, f64), String> {
        let clock = Clock::system();
        let socket = data.join(self.network).join("control.sock");
        let mut command = self.command("run", data, peer);
        let running = Running(Owned::start(command.stdin(Stdio::null()).stdout(Stdio::null()))?);
        while clock.elapsed() < READY_WITHIN {
            if asked_height(&socket) == Some(height as u64) {
                return Ok((running, clock.elapsed().as_secs_f64()));
            }
            pause();
        }
        Err(format!("no answer with height {height} on {} for {READY_WITHIN:?}", socket.display()))
    }
}

/// A node that runs. Dropped, it is killed as by a power cut.
pub struct Running(Owned);

impl Running {
    /// Asks it to stop, and waits until it has.
    pub fn stop(mut self) -> Result<(), String> {
        let child = &mut self.0.0;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a child has a process id");
        kill_process(pid, Signal::TERM).map_err(|error| format!("cannot stop the node: {error}"))?;
        let ended = child.wait().map_err(|error| format!("cannot wait for the node: {error}"))?;
        if ended.success() { Ok(()) } else { Err(format!("the node ended with {ended}")) }
    }
}

/// The height that a node states, if it answers.
fn asked_height(socket: &Path) -> Option<u64> {
    let mut stream = match UnixStream::connect(socket) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            return None;
        }
        Err(error) => panic!("{}: {error}", socket.display()),
    };
    stream.write_all(b"{\"ask\":\"status\"}\n").ok()?;
    stream.shutdown(Shutdown::Write).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    serde_json::from_str::<Value>(&text).ok()?["ok"]["height"].as_u64()
}

#[expect(
    clippy::disallowed_methods,
    reason = "another process becomes ready, and nothing here can wake for that"
)]
fn pause() {
    std::thread::sleep(LOOK_EVERY);
}
