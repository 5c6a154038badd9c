//! Gossip: a chat in which every line reaches everybody, through whoever is connected.
//!
//! ```sh
//! cargo run -p rookery-overlay --example chat -- ann 127.0.0.1:4001
//! cargo run -p rookery-overlay --example chat -- bob 127.0.0.1:4002 127.0.0.1:4001   # in a second terminal
//! ```
//!
//! Type lines; an empty input (Ctrl-D) or Ctrl-C leaves. What others publish comes unproven and may be anything, so a
//! validator judges it before it is shown or passed on. Names here are only claimed: an application that needs to know
//! who wrote a line signs it.

use std::error::Error;
use std::net::SocketAddr;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;

use rookery_overlay::node::{Delivery, Judgement, Topic};
use rookery_overlay::{Builder, Event};
use tokio::io::{AsyncBufReadExt, BufReader};

const USAGE: &str = "usage: chat NAME LISTEN [PEER...]

Chats as NAME. Listens on the address LISTEN (port 0: any), keeps a session with each PEER.";

/// Longest line: what a screen shows. Longer ones are nobody's chat.
const MAX_LINE: usize = 1024;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let ran = tokio::runtime::Runtime::new().map_err(Into::into).and_then(|runtime| {
        let ran = runtime.block_on(chat(&args));
        // A thread of the runtime waits for the terminal's next line, which nobody will type.
        runtime.shutdown_background();
        ran
    });
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chat: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether these bytes may be shown: text without control characters, which could rewrite a terminal's screen.
fn is_line(payload: &[u8]) -> bool {
    let text = std::str::from_utf8(payload);
    payload.len() <= MAX_LINE && text.is_ok_and(|text| !text.contains(char::is_control))
}

async fn chat(args: &[String]) -> Result<(), Box<dyn Error>> {
    let [name, listen, peers @ ..] = args else { return Err(USAGE.into()) };
    let parse = |addr: &String| addr.parse::<SocketAddr>().map_err(|error| format!("{addr}: {error}"));
    let mut builder = Builder::new("chat example").local().agent("chat").listen(parse(listen)?);
    for peer in peers {
        builder = builder.peer(parse(peer)?);
    }
    let (mut node, handle) = builder.start().await?;
    let topic = Topic::new("chat").expect("a short, printable name");
    let judge = |_: &Topic, line: &[u8]| if is_line(line) { Judgement::Accept } else { Judgement::Reject };
    let mut lines = handle.subscribe(topic.clone(), Arc::new(judge)).await?;
    println!("* listening on {} as {}", handle.listening()[0], handle.id());

    let mut typed = BufReader::new(tokio::io::stdin()).lines();
    // One for all turns: a Ctrl-C between two of them would be nobody's.
    let mut interrupted = pin!(tokio::signal::ctrl_c());
    loop {
        tokio::select! {
            event = node.next() => match event {
                Some(Event::Connected(peer)) => println!("* connected: {} at {}", peer.facts.peer, peer.facts.addr),
                Some(Event::Lost(peer, cause)) => println!("* lost: {}: {cause}", peer.facts.peer),
                Some(Event::Message(_)) => {}
                None => return Err(node.stop_cause().unwrap_or("the node has stopped").into()),
            },
            Some(line) = lines.recv() => show(&line),
            line = typed.next_line() => {
                let Some(line) = line? else { break };
                let line = format!("{name}: {}", line.trim_end());
                if !is_line(line.as_bytes()) {
                    println!("* not sent: over {MAX_LINE} bytes, or with control characters");
                } else {
                    handle.publish(topic.clone(), line).await?;
                }
            }
            over = &mut interrupted => {
                over?;
                break;
            }
        }
    }
    Ok(node.stop().await?)
}

fn show(line: &Delivery) {
    if line.missed > 0 {
        println!("* {} lines before this one were lost: they came faster than they were shown", line.missed);
    }
    println!("{}", String::from_utf8_lossy(&line.payload));
}
