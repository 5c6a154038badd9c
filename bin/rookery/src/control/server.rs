//! The node's side of the control socket.

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rookery_runtime::OnPanic;
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::{ASK_WITHIN, Answer, MAX_CLIENTS, MAX_QUESTION, Question, READ_WITHIN, SOCKET};
use crate::exit::{Exit, Report};
use crate::front::Front;

/// Only the owner may connect.
const MODE: u32 = 0o600;
/// After an accept that failed for want of descriptors, others get time to end.
const ACCEPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// The bound socket. Its file goes with it.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // What is left behind is replaced by the next node, which holds the directory's lock by then.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Takes the socket in a directory whose lock the caller holds: a file that is there is a dead node's.
pub fn bind(dir: &Path) -> Result<ControlSocket, Report> {
    let path = dir.join(SOCKET);
    let failed = |error| {
        Report::io(Exit::DataDir, format_args!("cannot open the control socket {}", path.display()), &error)
            .hint("a socket's path may have 107 bytes at most: try a shorter --data-dir")
    };
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&path).map_err(failed)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(MODE)).map_err(failed)?;
    Ok(ControlSocket { listener, path })
}

/// Answers until the scope is cancelled.
pub fn serve(socket: ControlSocket, front: Front) {
    let scope = front.env.scope.child("control");
    let clock = front.env.clock;
    let room = Arc::new(Semaphore::new(MAX_CLIENTS));
    let clients = scope.clone();
    scope.spawn("control accept", OnPanic::StopNode, async move {
        loop {
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
            match socket.listener.accept().await {
                Ok((stream, _)) => {
                    let front = front.clone();
                    clients.child("control client").spawn("control client", OnPanic::EndScope, async move {
                        client(stream, &front).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a control connection");
                    clock.sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    });
}

async fn client(mut stream: UnixStream, front: &Front) {
    if !is_allowed(&stream) {
        return;
    }
    let clock = front.env.clock;
    let line = match clock.timeout(ASK_WITHIN, question(&mut stream)).await {
        Some(Ok(question)) => answer(question, front).await,
        Some(Err(wrong)) => error(&wrong),
        None => error(&format!("no question within {} s", ASK_WITHIN.as_secs())),
    };
    // A client that went away or does not read has lost its answer, not ours to report.
    let _ = clock
        .timeout(READ_WITHIN, async {
            stream.write_all(line.as_bytes()).await?;
            stream.shutdown().await
        })
        .await;
}

/// Whether the caller is the user who started the node, or root.
fn is_allowed(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|caller| caller.uid() == own || caller.uid() == 0)
}

async fn question(stream: &mut UnixStream) -> Result<Question, String> {
    let mut buffer = [0; MAX_QUESTION];
    let mut filled = 0;
    let line = loop {
        if let Some(end) = buffer[..filled].iter().position(|byte| *byte == b'\n') {
            break &buffer[..end];
        }
        if filled == MAX_QUESTION {
            return Err(format!("a question has at most {MAX_QUESTION} bytes"));
        }
        match stream.read(&mut buffer[filled..]).await {
            Ok(0) => break &buffer[..filled],
            Ok(read) => filled += read,
            Err(error) => return Err(error.to_string()),
        }
    };
    serde_json::from_slice(line).map_err(|error| format!("not a question: {error}"))
}

async fn answer(question: Question, front: &Front) -> String {
    let node = &front.node;
    match question {
        Question::Status => ok(front.view(node.status()).await.map(|status| front.status(status))),
        Question::Peers => ok(front.view(node.peers()).await),
        Question::PeerWhy { address } => ok(front.view(node.peer_why(address)).await),
        Question::Bans => ok(front.view(node.bans()).await),
        Question::Chain => match front.view(node.chain()).await {
            Some(None) => error(&format!("{} has no chain", front.config.network)),
            chain => ok(chain.flatten()),
        },
        Question::Why => ok(front.view(node.why()).await),
    }
}

fn ok<T: Serialize>(view: Option<T>) -> String {
    let Some(view) = view else {
        let seconds = crate::front::VIEW_WITHIN.as_secs();
        return error(&format!("the node hangs: no answer from its owners within {seconds} s"));
    };
    serde_json::to_string(&Answer::Ok(view)).map_or_else(|e| error(&e.to_string()), |line| line + "\n")
}

fn error(what: &str) -> String {
    serde_json::json!({ "error": what }).to_string() + "\n"
}
