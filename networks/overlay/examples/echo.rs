//! Messages: one node sends back what it gets, another measures how long that takes.
//!
//! ```sh
//! cargo run -p rookery-overlay --example echo -- listen 127.0.0.1:4001
//! cargo run -p rookery-overlay --example echo -- send 127.0.0.1:4001 hello again     # in a second terminal
//! ```
//!
//! `send` returns once the message is in the other application's mailbox; that it was looked at, only an answer says.
//! Here the answer is another message, under a topic of its own: two nodes that echo the same topic would never end.

use std::error::Error;
use std::net::SocketAddr;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use rookery_overlay::node::{OnPanic, Sent, Topic};
use rookery_overlay::{Builder, Event, Handle, Node};

const USAGE: &str = "usage: echo listen ADDR          sends back every message, until Ctrl-C
       echo send ADDR TEXT...       sends each text to the node at ADDR, and prints the round trips";

/// For an answer: an acknowledgement has 20 s, and its answer as long again.
const ANSWER_WITHIN: Duration = Duration::from_secs(40);

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let ran = match args[..] {
        ["listen", addr] => listen(addr).await,
        ["send", addr, ref texts @ ..] if !texts.is_empty() => send(addr, texts).await,
        ["--help" | "-h"] => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => Err(USAGE.into()),
    };
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("echo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn topic(name: &str) -> Topic {
    Topic::new(name).expect("the names here are short and printable")
}

fn builder() -> Builder {
    Builder::new("echo example").local().outbound(0)
}

async fn listen(addr: &str) -> Result<(), Box<dyn Error>> {
    let addr: SocketAddr = addr.parse().map_err(|error| format!("{addr}: {error}"))?;
    let (mut node, handle) = builder().listen(addr).start().await?;
    handle.listen_to(topic("echo"));
    println!("listening on {} as {}", handle.listening()[0], handle.id());
    // One for all turns: a Ctrl-C between two of them would be nobody's.
    let mut interrupted = pin!(tokio::signal::ctrl_c());
    loop {
        tokio::select! {
            event = node.next() => match event {
                Some(Event::Connected(peer)) => println!("connected: {}", peer.facts.peer),
                Some(Event::Lost(peer, cause)) => println!("lost: {}: {cause}", peer.facts.peer),
                Some(Event::Message(message)) => {
                    println!("{} bytes from {}", message.payload.len(), message.from);
                    let handle = handle.clone();
                    // Waiting here for one peer's acknowledgement would keep all others waiting. At most eight messages
                    // to a peer are open, each for 20 s, so these tasks are few.
                    node.env().scope.spawn("echo", OnPanic::StopNode, async move {
                        let sent = handle.send(message.from, topic("echoed"), message.payload).await;
                        if !matches!(sent, Sent::Accepted(_)) {
                            println!("not sent back to {}: {sent:?}", message.from);
                        }
                    });
                }
                None => return Err(node.stop_cause().unwrap_or("the node has stopped").into()),
            },
            over = &mut interrupted => {
                over?;
                return stop(node).await;
            }
        }
    }
}

async fn send(addr: &str, texts: &[&str]) -> Result<(), Box<dyn Error>> {
    let addr: SocketAddr = addr.parse().map_err(|error| format!("{addr}: {error}"))?;
    let (mut node, handle) = builder().start().await?;
    handle.listen_to(topic("echoed"));
    let peer = handle.connect([addr]).await?.peer;
    let talk = async {
        for text in texts {
            round_trip(&mut node, &handle, peer, text).await?;
        }
        Ok(())
    };
    let talked = tokio::select! {
        talked = talk => talked,
        interrupted = tokio::signal::ctrl_c() => interrupted.map_err(Into::into),
    };
    talked.and(stop(node).await)
}

async fn round_trip(
    node: &mut Node,
    handle: &Handle,
    peer: rookery_overlay::node::PeerId,
    text: &str,
) -> Result<(), Box<dyn Error>> {
    let clock = handle.env().clock;
    let began = clock.now();
    let Sent::Accepted(acknowledged) = handle.send(peer, topic("echo"), text.to_owned()).await else {
        return Err("the message was not accepted".into());
    };
    loop {
        match clock.timeout(ANSWER_WITHIN, node.next()).await.ok_or("no answer in time")? {
            Some(Event::Message(message)) if message.from == peer => {
                let took = clock.now().saturating_duration_since(began);
                let back = String::from_utf8_lossy(&message.payload);
                println!("{back:?} after {took:?}, acknowledged after {acknowledged:?}");
                return Ok(());
            }
            Some(Event::Lost(_, cause)) => return Err(format!("the peer is gone: {cause}").into()),
            Some(_) => {}
            None => return Err("the node has stopped".into()),
        }
    }
}

async fn stop(node: Node) -> Result<(), Box<dyn Error>> {
    Ok(node.stop().await?)
}
