//! A streaming request: a file of any size, in little memory, as fast as its reader and no faster.
//!
//! ```sh
//! cargo run -p rookery-overlay --example file_transfer -- receive 127.0.0.1:4001 inbox 1000000
//! cargo run -p rookery-overlay --example file_transfer -- send 127.0.0.1:4001 FILE     # in a second terminal
//! ```
//!
//! The receiver above writes a megabyte a second. It reads no further while it waits, QUIC's window fills, and the sender's
//! `write` waits: that is all there is to back-pressure. While the body flows one way, the answer flows the other: how
//! much was written. The sender says what the file hashes to; the receiver compares before it gives the file its name,
//! and answers with its own hash, which the sender compares with what it has read.

use std::error::Error;
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use rookery_overlay::node::{AnswerWriter, BodyWriter, BoxFuture, Handler, Incoming, Pending, RequestError};
use rookery_overlay::node::{ServiceLimits, ServiceName, Status};
use rookery_overlay::{Builder, Node};
use tempfile::NamedTempFile;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const USAGE: &str = "usage: file_transfer receive LISTEN DIR [BYTES_PER_SECOND]
       file_transfer send ADDR FILE";
/// A file that takes longer, or is larger, is cut off. Four at once, so that one sender cannot keep others out.
const LIMITS: ServiceLimits =
    ServiceLimits { at_once: 4, most_body: 1 << 40, within: Duration::from_secs(24 * 60 * 60) };
/// Read and sent at a time, and all of a file that is in memory here.
const PIECE: usize = 64 * 1024;
/// The receiver may have to open its file; the disk under it may be busy.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let ran = match args[..] {
        ["receive", addr, dir] => receive(addr, dir, "4294967295").await,
        ["receive", addr, dir, rate] => receive(addr, dir, rate).await,
        ["send", addr, file] => send(addr, Path::new(file)).await,
        ["--help" | "-h"] => {
            println!("{USAGE}");
            Ok(())
        }
        _ => Err(USAGE.into()),
    };
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("file_transfer: {error}");
            ExitCode::FAILURE
        }
    }
}

fn builder() -> Builder {
    Builder::new("file transfer example").local().outbound(0)
}

fn service() -> ServiceName {
    ServiceName::new("file").expect("a short, printable name")
}

async fn receive(addr: &str, dir: &str, rate: &str) -> Result<(), Box<dyn Error>> {
    let rate = rate.parse::<u32>().map_err(|error| format!("{rate}: {error}"))?.max(1);
    tokio::fs::create_dir_all(dir).await?;
    let inbox = Arc::new(Inbox { dir: dir.to_owned(), rate });
    let (mut node, handle) = builder().listen(addr.parse()?).serve(service(), LIMITS, inbox).start().await?;
    println!("listening on {} as {}", handle.listening()[0], handle.id());
    // One for all turns: a Ctrl-C between two of them would be nobody's.
    let mut interrupted = pin!(tokio::signal::ctrl_c());
    loop {
        tokio::select! {
            event = node.next() => if event.is_none() {
                return Err(node.stop_cause().unwrap_or("the node has stopped").into());
            },
            over = &mut interrupted => {
                over?;
                return stop(node).await;
            }
        }
    }
}

async fn stop(node: Node) -> Result<(), Box<dyn Error>> {
    Ok(node.stop().await?)
}

struct Inbox {
    dir: String,
    rate: u32,
}

impl Handler for Inbox {
    fn handle<'a>(
        &'a self,
        mut request: Incoming,
        answer: &'a mut AnswerWriter,
    ) -> BoxFuture<'a, Result<(), RequestError>> {
        Box::pin(async move {
            // The header is a stranger's: a hash and a plain name, never a path.
            let header = String::from_utf8_lossy(&request.header).into_owned();
            let (hash, name) = header.split_once(' ').unwrap_or_default();
            if name.contains(char::is_control) || Path::new(name).file_name() != Some(name.as_ref()) {
                return answer.begin(Status::Refused, "expected a hash and a plain name".into()).await;
            }
            // Whatever ends this handler before the file has its name removes the file.
            let part = NamedTempFile::new_in(&self.dir)?;
            let mut file = File::from_std(part.reopen()?);
            let (mut sum, mut written) = (Context::new(&SHA256), 0);
            while let Some(piece) = request.body.chunk().await? {
                sum.update(&piece);
                file.write_all(&piece).await?;
                written += piece.len();
                answer.write(format!("{written}\n").as_bytes()).await?;
                request.peer.env.clock.sleep(Duration::from_secs(piece.len() as u64) / self.rate).await;
            }
            file.sync_all().await?;
            let sum = const_hex::encode(sum.finish());
            let verdict = match sum == hash {
                true => {
                    part.persist_noclobber(Path::new(&self.dir).join(name)).map_err(|error| error.to_string())
                }
                false => Err(format!("expected {hash}, received {sum}")),
            };
            println!(
                "{name}: {written} bytes, {}",
                verdict.as_ref().map_or_else(String::clone, |_| sum.clone())
            );
            let last = verdict.map_or_else(|error| format!("error {error}\n"), |_| format!("sha256 {sum}\n"));
            answer.write(last.as_bytes()).await
        })
    }
}

async fn send(addr: &str, path: &Path) -> Result<(), Box<dyn Error>> {
    let name = path.file_name().and_then(|name| name.to_str()).ok_or("the file's name is not UTF-8")?;
    let hash = read(path, async |_| Ok(())).await?;
    let (node, handle) = builder().start().await?;
    let peer = handle.connect([addr.parse()?]).await?.peer;
    let (body, pending) = handle.begin(peer, service(), format!("{hash} {name}")).await?;
    let sent = AtomicU64::new(0);
    let (mut sending, mut answering) = (pin!(write(path, body, &sent)), pin!(follow(pending, &sent)));
    // A receiver may answer before it has read everything: then its answer counts, not how sending ended.
    let received = tokio::select! {
        biased;
        answered = &mut answering => answered?,
        wrote = &mut sending => answering.await.map_err(|error| format!("{error}, sent: {wrote:?}"))?,
    };
    if received != format!("sha256 {hash}") {
        return Err(format!("sent {hash}, the receiver says: {received}").into());
    }
    println!("both ends have {hash}");
    stop(node).await
}

/// Reads the file, a piece at a time, and gives its hash.
async fn read(
    path: &Path,
    mut take: impl AsyncFnMut(&[u8]) -> Result<(), RequestError>,
) -> Result<String, RequestError> {
    let (mut file, mut sum, mut piece) = (File::open(path).await?, Context::new(&SHA256), vec![0; PIECE]);
    loop {
        let len = file.read(&mut piece).await?;
        if len == 0 {
            return Ok(const_hex::encode(sum.finish()));
        }
        sum.update(&piece[..len]);
        take(&piece[..len]).await?;
    }
}

/// Sends the file; each write waits while the receiver does not read.
async fn write(path: &Path, mut body: BodyWriter, sent: &AtomicU64) -> Result<(), RequestError> {
    let counted = async |piece: &[u8]| {
        body.write(piece).await?;
        sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
        Ok(())
    };
    read(path, counted).await?;
    body.finish().await
}

/// Follows how much was written at the other end, and gives the last line: how it went.
async fn follow(pending: Pending, sent: &AtomicU64) -> Result<String, Box<dyn Error>> {
    let mut answer = pending.answer(ANSWER_WITHIN, LIMITS.most_body).await?;
    if answer.status != Status::Ok {
        return Err(format!("{:?}: {}", answer.status, String::from_utf8_lossy(&answer.header)).into());
    }
    let mut text = String::new();
    while let Some(piece) = answer.body.chunk().await? {
        text.push_str(std::str::from_utf8(&piece)?);
        while let Some((line, rest)) = text.split_once('\n') {
            let Ok(written) = line.parse::<u64>() else { return Ok(line.to_owned()) };
            let on_the_way = sent.load(Ordering::Relaxed).saturating_sub(written);
            println!("written {written}, on the way {on_the_way}");
            text = rest.to_owned();
        }
    }
    Err("the answer ended without saying how it went".into())
}
