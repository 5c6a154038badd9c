//! Whole nodes over real sockets and real files: one mines, one joins late, catches up and follows, and keeps what it
//! has across a restart.
#![expect(clippy::unwrap_used, reason = "a failed set-up fails the test")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rookery_base::{ByteBudget, Height, Work};
use rookery_handshake::chain::HandshakeChain;
use rookery_handshake::checkpoint::Checkpoint;
use rookery_handshake::miner::Miner;
use rookery_handshake::node::{Node, NodeConfig};
use rookery_handshake::params::{MAIN, Params, REGTEST, SIMNET};
use rookery_handshake::wire::MAX_HEADERS;
use rookery_runtime::Env;
use rookery_store::Store;
use rookery_sync::headers::ChainStatus;
use rookery_transport::Tcp;

const STOP: Duration = Duration::from_secs(5);
/// Between the genesis blocks' times and any clock that runs this test.
const BEGAN: u64 = 1_600_000_000;

async fn start(params: &'static Params, directory: &Path, connect: &[SocketAddr]) -> Node {
    start_with(params, directory, connect, None).await
}

async fn start_with(
    params: &'static Params,
    directory: &Path,
    connect: &[SocketAddr],
    checkpoint: Option<(Height, Work, Vec<u8>)>,
) -> Node {
    let config = NodeConfig {
        checkpoint,
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        named: connect.to_vec(),
        only_named: true,
        ..NodeConfig::new(params)
    };
    let (path, shape) = (directory.join("headers.redb"), config.store());
    let opener = Box::new(move || Store::open(&path, &shape));
    let store = opener().unwrap();
    let process = ByteBudget::root("process", 64 << 20);
    Node::start(&Env::system(), Arc::new(Tcp), &process, store, opener, config).await.unwrap()
}

async fn until(node: &Node, what: impl Fn(&ChainStatus) -> bool) -> ChainStatus {
    let mut watch = node.headers.watch();
    let reached = tokio::time::timeout(Duration::from_secs(60), watch.wait_for(|status| what(status))).await;
    match reached {
        Ok(status) => status.unwrap().clone(),
        Err(_) => panic!("not reached: {:?}; {:#?}", node.headers.status(), node.headers.why().await),
    }
}

async fn stop(node: &Node) {
    node.env.scope.close(STOP).await.unwrap();
    assert_eq!(node.env.scope.stop_cause(), None);
    assert!(node.env.scope.panics().is_empty());
}

#[tokio::test]
async fn a_late_node_catches_up_follows_and_keeps_its_chain() {
    for params in [&REGTEST, &SIMNET] {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let miner_node = start(params, first.path(), &[]).await;
        let miner = Miner::new(params, miner_node.headers.clone()).unwrap();
        miner.mine(5000, BEGAN, 600).await.unwrap();
        let late = start(params, second.path(), miner_node.engine.listening()).await;
        let caught_up = until(&late, |status| status.height == 5000 && status.caught_up()).await;
        assert_eq!(caught_up.tip, miner_node.headers.status().tip);
        for n in 1..=5 {
            miner.mine(1, BEGAN, 600).await.unwrap();
            until(&late, |status| status.height == 5000 + n).await;
        }
        stop(&late).await;
        let again = start(params, second.path(), &[]).await;
        assert_eq!(again.headers.status().tip, miner_node.headers.status().tip);
        stop(&again).await;
        stop(&miner_node).await;
    }
}

/// A full message leaves open whether more follows. Nodes are silent at their tip, and that is no failure of theirs.
#[tokio::test]
async fn a_chain_that_ends_with_a_full_message_is_caught_up_with() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let miner_node = start(&REGTEST, first.path(), &[]).await;
    let miner = Miner::new(&REGTEST, miner_node.headers.clone()).unwrap();
    let length = 2 * MAX_HEADERS as u32;
    miner.mine(length, BEGAN, 600).await.unwrap();
    let late = start(&REGTEST, second.path(), miner_node.engine.listening()).await;
    let caught_up = until(&late, |status| status.height == length && status.caught_up()).await;
    assert_eq!(caught_up.target, Some(length));
    miner.mine(1, BEGAN, 600).await.unwrap();
    until(&late, |status| status.height == length + 1 && status.caught_up()).await;
    stop(&late).await;
    stop(&miner_node).await;
}

/// The checkpoints in the vectors' folder; says so when the folder is absent.
fn checkpoints() -> Vec<std::path::PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors");
    let vectors = std::env::var_os("ROOKERY_VECTORS").map_or(beside, Into::into);
    let Ok(files) = std::fs::read_dir(vectors.join("handshake")) else {
        println!("skipped: no vectors folder at {}", vectors.display());
        return Vec::new();
    };
    let paths = files.map(|file| file.unwrap().path());
    paths.filter(|path| path.to_string_lossy().contains("mainnet_checkpoint_")).collect()
}

#[tokio::test]
async fn a_node_begins_at_a_checkpoint_and_is_there_again_after_a_restart() {
    for file in checkpoints() {
        let bytes = std::fs::read(&file).unwrap();
        let checkpoint = Checkpoint::read(&HandshakeChain::new(&MAIN), &bytes).unwrap();
        let begin = (checkpoint.height(), checkpoint.work_before(), checkpoint.raw().to_vec());
        let (directory, last) = (tempfile::tempdir().unwrap(), checkpoint.height() + 149);
        let begun = start_with(&MAIN, directory.path(), &[], Some(begin)).await;
        until(&begun, |status| status.stored == Some(last)).await;
        let tip = begun.headers.status().tip;
        stop(&begun).await;
        let again = start(&MAIN, directory.path(), &[]).await;
        assert_eq!((again.headers.status().height, again.headers.status().tip), (last, tip));
        stop(&again).await;
    }
}
