//! Requests: a store of keys and values that other nodes put to, get from and delete from.
//!
//! ```sh
//! cargo run -p rookery-overlay --example key_value -- serve 127.0.0.1:4001
//! cargo run -p rookery-overlay --example key_value -- put 127.0.0.1:4001 colour green     # in a second terminal
//! cargo run -p rookery-overlay --example key_value -- get 127.0.0.1:4001 colour
//! ```
//!
//! Each request has a stream of its own and one end: an answer with its status, or an error that says what came in between.
//! A key that is not there is an answer; a store that is full is a refusal.

use std::collections::BTreeMap;
use std::error::Error;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rookery_overlay::node::{
    Question, Reply, RequestError, RequestFailed, ServiceLimits, ServiceName, answering,
};
use rookery_overlay::{Builder, Node};

const USAGE: &str = "usage: key_value serve LISTEN              until Ctrl-C
       key_value put ADDR KEY VALUE
       key_value get ADDR KEY
       key_value delete ADDR KEY";
/// Longest value: it is held whole at both ends. Longer ones would stream.
const MAX_VALUE: u64 = 64 * 1024;
/// Most keys: with the longest values 256 MiB, which strangers may fill. More are refused.
const MAX_KEYS: usize = 4096;
/// For a request, there and back.
const WITHIN: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let ran = match args[..] {
        ["serve", addr] => serve(addr).await,
        ["put", addr, key, value] => ask(addr, "put", key, value).await,
        [what @ ("get" | "delete"), addr, key] => ask(addr, what, key, "").await,
        ["--help" | "-h"] => {
            println!("{USAGE}");
            Ok(())
        }
        _ => Err(USAGE.into()),
    };
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("key_value: {error}");
            ExitCode::FAILURE
        }
    }
}

fn builder() -> Builder {
    Builder::new("key-value example").local().outbound(0)
}

fn service() -> ServiceName {
    ServiceName::new("key-value").expect("a short, printable name")
}

/// What is kept. The lock is held for one look-up at a time and never across an await.
#[derive(Default)]
struct Store(Mutex<BTreeMap<String, Bytes>>);

impl Store {
    fn answer(&self, question: Question) -> Reply {
        let Ok(header) = std::str::from_utf8(&question.header) else { return Reply::refused("not UTF-8") };
        let (what, key) = header.split_once(' ').unwrap_or((header, ""));
        // Each change is one call of the map, so a panic elsewhere leaves nothing half changed.
        let mut values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match what {
            "put" if values.len() >= MAX_KEYS && !values.contains_key(key) => {
                Reply::refused("the store is full")
            }
            "put" => match values.insert(key.to_owned(), question.body) {
                Some(_) => Reply::ok("").with_header("replaced"),
                None => Reply::ok("").with_header("created"),
            },
            "get" => match values.get(key) {
                Some(value) => Reply::ok(value.clone()).with_header("found"),
                None => Reply::ok("").with_header("not found"),
            },
            "delete" => match values.remove(key) {
                Some(_) => Reply::ok("").with_header("deleted"),
                None => Reply::ok("").with_header("not found"),
            },
            _ => Reply::refused("expected put, get or delete, and a key"),
        }
    }
}

async fn serve(addr: &str) -> Result<(), Box<dyn Error>> {
    let store = Store::default();
    let limits = ServiceLimits { most_body: MAX_VALUE, ..ServiceLimits::SMALL };
    let handler = answering(move |question| std::future::ready(store.answer(question)));
    let (mut node, handle) =
        builder().listen(addr.parse()?).serve(service(), limits, handler).start().await?;
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

async fn ask(addr: &str, what: &str, key: &str, value: &str) -> Result<(), Box<dyn Error>> {
    let (node, handle) = builder().start().await?;
    let peer = handle.connect([addr.parse()?]).await?.peer;
    let header = format!("{what} {key}");
    let asked = handle.request(peer, service(), header, value.as_bytes(), WITHIN, MAX_VALUE).await;
    match asked {
        Ok((status, value)) if value.is_empty() => println!("{}", String::from_utf8_lossy(&status)),
        Ok((status, value)) => println!("{}: {}", String::from_utf8_lossy(&status), value.escape_ascii()),
        Err(RequestFailed::Request(RequestError::Answered(status, why))) => {
            return Err(format!("{status:?}: {}", String::from_utf8_lossy(&why)).into());
        }
        Err(error) => return Err(error.into()),
    }
    stop(node).await
}
