//! hsd, the reference full node, on regtest.
//!
//! Installed from the npm registry into `interop/target/hsd` (its native parts are built there: about a minute, once),
//! started with its own data directory and ports, spoken to by JSON-RPC over HTTP/1.1. It listens on loopback and
//! dials nobody: `--only` names an address where nobody can be.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rookery_base::Hash32;
use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::Process;
use crate::{cache, ports, wait};

/// The release that everything here was compared with.
pub const VERSION: &str = "8.0.0";
/// How long hsd may take from its start to its first RPC answer. Two seconds alone on a machine; it shares ours.
const START_WITHIN: Duration = Duration::from_secs(60);
/// How long a call may take: the longest mines [`BATCH`] blocks.
const ANSWER_WITHIN: Duration = Duration::from_secs(120);
/// Blocks mined in one call: 200 to 320 a second, so that a call stays far from its deadline.
const BATCH: u32 = 500;
/// Where rewards go: a version 0 address with a hash of no known key.
const PAYEE: &str = "rs1qqyqszqgpqyqszqgpqyqszqgpqyqszqgpprmh8u";

/// A running hsd; killed on drop, its data deleted.
#[derive(Debug)]
pub struct Hsd {
    process: Process,
    dir: TempDir,
    ports: Ports,
}

/// Where one hsd listens. All on loopback, all its own.
#[derive(Debug, Clone, Copy)]
struct Ports {
    p2p: u16,
    brontide: u16,
    rpc: u16,
}

/// Installs hsd unless it is there, and says where. Several processes may ask at once.
///
/// # Panics
/// When npm is absent or fails, with what to do.
pub fn install() -> PathBuf {
    let root = cache().join("hsd");
    let program = root.join("node_modules/hsd/bin/node");
    // The marker is written last: an installation that was cut short is done again.
    let marker = root.join(format!("installed-{VERSION}"));
    std::fs::create_dir_all(&root).expect("the cache directory can be made");
    let lock = std::fs::File::create(root.join("lock")).expect("the cache directory can be written");
    flock(&lock, FlockOperation::LockExclusive).expect("a lock can be waited for");
    if !marker.exists() {
        let package = format!("hsd@{VERSION}");
        let done = Command::new("npm")
            .args(["install", &package, "--no-audit", "--no-fund", "--no-save", "--prefix"])
            .arg(&root)
            .output()
            .unwrap_or_else(|error| {
                panic!("npm does not start ({error}): install node 20 or later with npm")
            });
        let errors = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "npm install {package} failed ({}):\n{errors}", done.status);
        assert!(program.exists(), "npm install {package} left no {}", program.display());
        std::fs::write(&marker, VERSION).expect("the cache directory can be written");
    }
    program
}

impl Hsd {
    /// Starts one with a new chain.
    pub fn start() -> Self {
        Self::start_in(TempDir::new().expect("a temporary directory can be made"))
    }

    /// Starts one on the chain in `dir`, which it takes over.
    pub fn start_in(dir: TempDir) -> Self {
        let ports = Ports { p2p: ports::free(), brontide: ports::free(), rpc: ports::free() };
        let process = launch(dir.path(), ports);
        let hsd = Self { process, dir, ports };
        hsd.await_rpc();
        hsd
    }

    /// Where it listens for peers.
    pub fn addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports.p2p))
    }

    /// Its process, for signals.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Starts it again on the same data and ports, after its process has ended.
    pub fn restart(&mut self) {
        self.process = launch(self.dir.path(), self.ports);
        self.await_rpc();
    }

    /// Ends it by its own `stop`, so that its chain is whole on disk, and gives its data away.
    pub fn stop(mut self) -> TempDir {
        self.rpc("stop", json!([]));
        self.process.wait(Duration::from_secs(30));
        self.dir
    }

    /// Calls a method.
    ///
    /// # Panics
    /// When hsd does not answer, or with an error.
    pub fn rpc(&self, method: &str, params: Value) -> Value {
        self.call(method, params).unwrap_or_else(|error| panic!("hsd's {method} failed: {error}"))
    }

    /// Calls a method; an error is hsd's, or that it cannot be reached.
    pub fn call(&self, method: &str, params: Value) -> Result<Value, String> {
        let body = json!({ "method": method, "params": params }).to_string();
        let mut answer = post(self.ports.rpc, &body).map_err(|error| error.to_string())?;
        match answer["error"].take() {
            Value::Null => Ok(answer["result"].take()),
            error => Err(error.to_string()),
        }
    }

    /// Mines that many blocks on its tip; their hashes, oldest first.
    pub fn mine(&self, blocks: u32) -> Vec<Hash32> {
        let mut mined = Vec::new();
        while (mined.len() as u32) < blocks {
            let batch = BATCH.min(blocks - mined.len() as u32);
            let hashes = self.rpc("generatetoaddress", json!([batch, PAYEE]));
            mined.extend(hashes.as_array().expect("generatetoaddress gives a list").iter().map(hash));
        }
        mined
    }

    /// The hash of its tip.
    pub fn tip(&self) -> Hash32 {
        hash(&self.rpc("getbestblockhash", json!([])))
    }

    /// Its height.
    pub fn height(&self) -> u32 {
        let height = self.rpc("getblockcount", json!([]));
        height.as_u64().and_then(|height| height.try_into().ok()).expect("a height is a small number")
    }

    /// The hash of its block at a height.
    pub fn hash_at(&self, height: u32) -> Hash32 {
        hash(&self.rpc("getblockhash", json!([height])))
    }

    /// Forgets whom it has banned: it bans by IP, and here everybody has the same one.
    pub fn forgive(&self) {
        self.rpc("clearbanned", json!([]));
    }

    fn await_rpc(&self) {
        let ready = || self.call("getblockcount", json!([])).ok();
        wait::until("hsd's first RPC answer", START_WITHIN, ready);
    }
}

fn launch(dir: &Path, ports: Ports) -> Process {
    let program = install();
    let mut command = Command::new("node");
    command
        .arg(program)
        .arg("--network=regtest")
        .arg(format!("--prefix={}", dir.display()))
        .args(["--listen=true", "--host=127.0.0.1", "--no-dns=true", "--no-wallet=true", "--seeds="])
        .arg(format!("--port={}", ports.p2p))
        .arg(format!("--brontide-port={}", ports.brontide))
        .arg(format!("--http-port={}", ports.rpc))
        .args(["--http-host=127.0.0.1", "--api-key=x", "--log-level=info", "--workers=false"])
        // Dials nobody; keeps all headers of a test's chain in memory; has room for every connection of a test.
        .args(["--only=127.0.0.1:1", "--entry-cache=60000", "--max-inbound=200"]);
    Process::start("hsd", &mut command, &dir.join("hsd.out"))
}

/// One JSON-RPC call. The connection serves one request and is closed, so that the answer ends where the stream does.
fn post(port: u16, body: &str) -> std::io::Result<Value> {
    /// Base64 of `x:x`: any user, and the key that hsd was started with.
    const LOGIN: &str = "eDp4";
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    let length = body.len();
    write!(
        stream,
        "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Basic {LOGIN}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, content) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let content = if chunked { unchunk(content) } else { content.to_owned() };
    serde_json::from_str(&content).map_err(|error| {
        let status = head.lines().next().unwrap_or_default();
        std::io::Error::other(format!("expected JSON, got {status:?}: {error}"))
    })
}

/// A chunked body in one piece; what is cut off stays cut off.
fn unchunk(mut rest: &str) -> String {
    let mut whole = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let chunk = usize::from_str_radix(size.trim(), 16).ok().filter(|&size| size > 0);
        let Some((chunk, after)) = chunk.and_then(|size| after.split_at_checked(size)) else { break };
        whole.push_str(chunk);
        rest = after.strip_prefix("\r\n").unwrap_or(after);
    }
    whole
}

fn hash(value: &Value) -> Hash32 {
    let text = value.as_str().expect("a hash is a string");
    Hash32::from_hex(text).expect("a hash has 64 hexadecimal digits")
}
