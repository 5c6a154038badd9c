//! Fairness: what one peer that floods a shared service costs the others, with the fair mailbox between the peers and the service
//! and, in its place, a plain queue of the same room.
//!
//! ```text
//!  honest, one ask each 150 ms ---+                     +--> fair mailbox: a lane for each peer, taken in turns --+
//!  flooder, as fast as it can ----+--> peer routines ---+                                                       +--> one reactor
//!                                                       +--> plain queue: first come, first served --------------+    2 ms an ask
//! ```
//!
//! The service stands for what works off one thing after the other, as a store does: it waits [`WORK`] for each ask and then
//! answers. Rates are set so high that no limit of the engine's holds the flooder back before the mailbox does. A peer whose lane
//! is full, or who waits for a place in the queue, is not read meanwhile; in both, places are given in the order in which they
//! were waited for. Each measurement, with and without the flooder, has its own server and its own process of
//! callers, over TCP.

mod call;
mod share;

use serde_json::{Value, json};

use super::Outcome;
use super::options::{self, FairnessAsked};
use crate::child::Process;

pub use call::call;
pub use share::serve;

/// What stands between the peers and the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// The fair mailbox; an ask is charged the bytes that it has.
    Fair,
    /// The fair mailbox; an ask is charged a whole turn of its lane, as a service can that works long for few bytes.
    Weighed,
    /// A plain queue.
    Plain,
}

impl Share {
    /// All of them, with their names on the command line.
    pub const ALL: [(&str, Self); 3] =
        [("fair", Self::Fair), ("weighed", Self::Weighed), ("plain", Self::Plain)];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, share)| *share == self).map_or("", |(name, _)| name)
    }
}

/// To the callers: call for so many seconds, with or without the flooder.
const CALL: &str = "call";
/// What a flooder may cost honest peers.
const TARGET: f64 = 1.5;

/// Runs all of them and prints them.
pub fn run(asked: &FairnessAsked) -> Outcome<()> {
    let mut boxes = Vec::new();
    for (name, share) in Share::ALL {
        boxes.push((name, ratio(share, asked)?));
    }
    let met = |of: &Value| of["p99_ratio"].as_f64().is_some_and(|ratio| ratio <= TARGET);
    if asked.json {
        let mut line =
            json!({ "bench": "fairness", "peers": asked.peers, "seconds": asked.seconds, "target": TARGET });
        for (name, both) in boxes {
            line[name] = both;
        }
        println!("{line}");
        return Ok(());
    }
    println!(
        "{:<16} {:>8} {:>10} {:>10} {:>10} {:>12} {:>10}",
        "", "asked", "p50 ms", "p99 ms", "max ms", "flood asked", "p99 ratio"
    );
    for (name, both) in &boxes {
        println!("{}", row(&format!("{name} alone"), &both["alone"], None));
        println!("{}", row(&format!("{name} flooded"), &both["flooded"], both["p99_ratio"].as_f64()));
    }
    for (name, both) in boxes.iter().filter(|(_, both)| met(both)) {
        println!("{name}: within {TARGET} ({})", both["p99_ratio"]);
    }
    Ok(())
}

fn row(name: &str, of: &Value, ratio: Option<f64>) -> String {
    let shown = |name: &str, decimals: usize| {
        of[name].as_f64().map_or_else(|| "-".into(), |value| format!("{value:.decimals$}"))
    };
    format!(
        "{name:<16} {:>8} {:>10} {:>10} {:>10} {:>12} {:>10}",
        shown("answered", 0),
        shown("p50_ms", 1),
        shown("p99_ms", 1),
        shown("max_ms", 1),
        shown("flood_answered", 0),
        ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}")),
    )
}

/// One kind of box, without the flooder and with it.
fn ratio(share: Share, asked: &FairnessAsked) -> Outcome<Value> {
    let once = |flood: usize| {
        let mut server = Process::start(options::SHARE, [share.name().to_owned()])?;
        let at = server.heard()?;
        let at = at["listening"].as_str().ok_or("the server said no address")?;
        let mut callers = Process::start(options::CALLERS, [asked.peers.to_string(), at.to_owned()])?;
        callers.heard()?;
        callers.ask(&format!("{CALL} {} {flood}", asked.seconds))
    };
    let (alone, flooded) = (once(0)?, once(1)?);
    let ratio =
        flooded["p99_ms"].as_f64().zip(alone["p99_ms"].as_f64()).map(|(flooded, alone)| flooded / alone);
    Ok(json!({ "alone": alone, "flooded": flooded, "p99_ratio": ratio }))
}
