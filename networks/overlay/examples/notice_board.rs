//! Gossip and requests together: a notice board without a server, as `docs/tutorial.md` builds it.
//!
//! ```sh
//! cargo run -p rookery-overlay --example notice_board -- 127.0.0.1:4001
//! cargo run -p rookery-overlay --example notice_board -- 127.0.0.1:4002 127.0.0.1:4001   # in a second terminal
//! ```

use std::collections::BTreeSet;
use std::error::Error;
use std::net::SocketAddr;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rookery_overlay::node::{
    Judgement, OnPanic, PeerId, Reply, ServiceLimits, ServiceName, Topic, answering,
};
use rookery_overlay::{Builder, Event, Handle};
use tokio::io::{AsyncBufReadExt, BufReader};

const USAGE: &str = "usage: notice_board LISTEN [PEER...]     each line of input is a notice";
/// Longest notice: a few lines on a screen.
const MAX_NOTICE: usize = 256;
/// Most notices. A full board takes no more: here nothing is taken down.
const MAX_NOTICES: usize = 1024;
/// For a whole board, from a peer on a slow line.
const BOARD_WITHIN: Duration = Duration::from_secs(10);

#[derive(Clone, Default)]
struct Board(Arc<Mutex<BTreeSet<String>>>);

impl Board {
    /// Puts up a notice, and prints it if it is new.
    fn put_up(&self, notice: &str) {
        let mut notices = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if is_notice(notice.as_bytes()) && notices.len() < MAX_NOTICES && notices.insert(notice.to_owned()) {
            println!("- {notice}");
        }
    }

    fn text(&self) -> String {
        let notices = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        notices.iter().map(|notice| format!("{notice}\n")).collect()
    }
}

/// A line of text. Control characters could rewrite a terminal's screen.
fn is_notice(bytes: &[u8]) -> bool {
    let text = std::str::from_utf8(bytes);
    (1..=MAX_NOTICE).contains(&bytes.len()) && text.is_ok_and(|text| !text.contains(char::is_control))
}

async fn run(args: &[String]) -> Result<(), Box<dyn Error>> {
    let [listen, peers @ ..] = args else { return Err(USAGE.into()) };
    let parse = |addr: &String| addr.parse::<SocketAddr>().map_err(|error| format!("{addr}: {error}"));
    let board = Board::default();
    let shown = board.clone();
    let whole = answering(move |_| std::future::ready(Reply::ok(shown.text())));
    let mut builder = Builder::new("notice board").local().listen(parse(listen)?);
    builder = builder.serve(board_service(), ServiceLimits::SMALL, whole);
    for peer in peers {
        builder = builder.peer(parse(peer)?);
    }
    let (mut node, handle) = builder.start().await?;
    println!("* listening on {}", handle.listening()[0]);

    let topic = Topic::new("notices").expect("a short, printable name");
    let judge = |_: &Topic, item: &[u8]| if is_notice(item) { Judgement::Accept } else { Judgement::Reject };
    let mut news = handle.subscribe(topic.clone(), Arc::new(judge)).await?;
    let mut typed = BufReader::new(tokio::io::stdin()).lines();

    // One for all turns: a Ctrl-C between two of them would be nobody's.
    let mut interrupted = pin!(tokio::signal::ctrl_c());
    loop {
        tokio::select! {
            event = node.next() => match event {
                Some(Event::Connected(peer)) => {
                    println!("* connected: {}", peer.facts.peer);
                    let asked = catch_up(handle.clone(), peer.facts.peer, board.clone());
                    node.env().scope.spawn("catch up", OnPanic::StopNode, asked);
                }
                Some(Event::Lost(peer, cause)) => println!("* lost: {}: {cause}", peer.facts.peer),
                Some(Event::Message(_)) => {}
                None => return Err(node.stop_cause().unwrap_or("the node has stopped").into()),
            },
            Some(item) = news.recv() => board.put_up(&String::from_utf8_lossy(&item.payload)),
            line = typed.next_line() => {
                let Some(line) = line? else { break };
                if is_notice(line.as_bytes()) {
                    board.put_up(&line);
                    handle.publish(topic.clone(), line).await?;
                }
            }
            over = &mut interrupted => break over?,
        }
    }
    Ok(node.stop().await?)
}

fn board_service() -> ServiceName {
    ServiceName::new("board").expect("a short, printable name")
}

/// Puts up what a peer has on its board.
async fn catch_up(handle: Handle, peer: PeerId, board: Board) {
    let most = (MAX_NOTICES * (MAX_NOTICE + 1)) as u64;
    match handle.request(peer, board_service(), "", b"", BOARD_WITHIN, most).await {
        Ok((_, text)) => String::from_utf8_lossy(&text).lines().for_each(|notice| board.put_up(notice)),
        Err(error) => println!("* {peer} did not show its board: {error}"),
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let ran = tokio::runtime::Runtime::new().map_err(Into::into).and_then(|runtime| {
        let ran = runtime.block_on(run(&args));
        runtime.shutdown_background();
        ran
    });
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("notice_board: {error}");
            ExitCode::FAILURE
        }
    }
}
