//! What a node tells about itself: why things are as they are, and its metrics, every few seconds.
//!
//! ```sh
//! cargo run -p rookery-overlay --example metrics -- 5 127.0.0.1:4001
//! cargo run -p rookery-overlay --example metrics -- 5 127.0.0.1:4002 127.0.0.1:4001   # in a second terminal
//! ```
//!
//! Stop one of the two and look at what the other says: who is gone and with what cause, and when it will be dialled again.
//! The metrics are in Prometheus' text format; `handle.env().metrics.text()` is all that an HTTP handler has to return.

use std::error::Error;
use std::net::SocketAddr;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use rookery_overlay::{Builder, Event, Handle};

const USAGE: &str = "usage: metrics SECONDS LISTEN [PEER...]

Runs a node that listens on LISTEN, keeps a session with each PEER, and prints what it knows every SECONDS.";

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    match run(&args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("metrics: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &[String]) -> Result<(), Box<dyn Error>> {
    let [seconds, listen, peers @ ..] = args else { return Err(USAGE.into()) };
    let every =
        Duration::from_secs(seconds.parse::<u64>().map_err(|error| format!("{seconds}: {error}"))?.max(1));
    let parse = |addr: &String| addr.parse::<SocketAddr>().map_err(|error| format!("{addr}: {error}"));
    let mut builder = Builder::new("metrics example").local().outbound(0).listen(parse(listen)?);
    for peer in peers {
        builder = builder.peer(parse(peer)?);
    }
    let (mut node, handle) = builder.start().await?;
    println!("listening on {} as {}", handle.listening()[0], handle.id());
    let clock = handle.env().clock;
    let mut due = clock.now();
    // One for all turns: a Ctrl-C between two of them would be nobody's.
    let mut interrupted = pin!(tokio::signal::ctrl_c());
    loop {
        tokio::select! {
            biased;
            over = &mut interrupted => {
                over?;
                break;
            }
            () = clock.sleep_until(due) => {
                due = clock.now() + every;
                print!("{}{}", why(&handle).await, handle.env().metrics.text());
            }
            event = node.next() => match event {
                Some(Event::Connected(peer)) => println!("connected: {}", peer.facts.peer),
                Some(Event::Lost(peer, cause)) => println!("lost: {}: {cause}", peer.facts.peer),
                Some(Event::Message(_)) => {}
                None => return Err(node.stop_cause().unwrap_or("the node has stopped").into()),
            },
        }
    }
    Ok(node.stop().await?)
}

/// Who is there, who was, who is waited for, and where everything that ever arrived is.
async fn why(handle: &Handle) -> String {
    let engine = handle.engine();
    let (peers, dials, accounts) = (engine.peers().await, engine.dial().report().await, engine.accounts());
    let mut text = format!("why: {} connected, {} addresses known\n", peers.len(), dials.known);
    for peer in peers {
        let rtt = peer.rtt_ms.map_or("unmeasured".to_owned(), |rtt| format!("{rtt:.1} ms"));
        text += &format!(
            "why: {} is connected ({}) for {} s, round trip {rtt}\n",
            peer.addr, peer.direction, peer.seconds
        );
    }
    for gone in engine.closed().await {
        text += &format!("why: {} was connected for {:?}: {}\n", gone.addr, gone.lasted, gone.cause);
    }
    for (addr, seconds, failures) in dials.waiting {
        text += &format!("why: {addr} is dialled again in {seconds:.0} s, after {failures} failures\n");
    }
    let balanced = if accounts.balanced() { "all accounted for" } else { "NOT all accounted for" };
    text += &format!(
        "why: {} arrived, {} shaking, {} live, ended {:?}, refused {:?}: {balanced}\n",
        accounts.arrived, accounts.shaking, accounts.live, accounts.ended, accounts.refused
    );
    let (held, peak) = engine.held_bytes();
    text + &format!("why: {held} bytes of messages held, {peak} at most, of {}\n", engine.held_cap())
}
