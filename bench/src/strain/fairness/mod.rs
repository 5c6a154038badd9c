//! Fairness: what one peer that floods a shared service costs the others, with the fair mailbox between the peers and the service
//! and, in its place, a plain queue of the same room.
//!
//! ```text
//!  honest, 6.7 asks a second -----+                     +--> fair mailbox: a lane for each peer, least served first --+
//!  flooder, as fast as it can ----+--> peer routines ---+                                                             +--> one reactor
//!                                                       +--> plain queue: first come, first served --------------------+    2 ms an ask
//! ```
//!
//! The service stands for what works off one thing after the other, as a store does: it waits [`WORK`] for each ask and then
//! answers. Rates are set so high that no limit of the engine's holds the flooder back before the mailbox does. A peer whose lane
//! is full, or who waits for a place in the queue, is not read meanwhile; in both, places are given in the order in which they
//! were waited for. Honest peers ask at random times, which are the same in each measurement.
//!
//! Each kind of box is measured three times: alone; flooded; and with the flood *elsewhere*, at a second server like the
//! first. The last is the control: what a flood costs there is the price of the machine's cores that it takes, and no
//! box's to win back. Each measurement has its own servers and its own process of callers, over TCP.

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

/// To the callers: call for so many seconds, while one more peer floods the server at this address, or [`NOBODY`].
const CALL: &str = "call";
/// In the place of an address: there is no flood.
const NOBODY: &str = "nobody";
/// What a flooder may cost honest peers.
const TARGET: f64 = 1.5;

/// Runs all of them and prints them.
pub fn run(asked: &FairnessAsked) -> Outcome<()> {
    let mut boxes = Vec::new();
    for (name, share) in Share::ALL {
        boxes.push((name, ratio(share, asked)?));
    }
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
        "{:<18} {:>8} {:>10} {:>10} {:>10} {:>12} {:>10}",
        "", "asked", "p50 ms", "p99 ms", "max ms", "flood asked", "p99 ratio"
    );
    for (name, both) in &boxes {
        println!("{}", row(&format!("{name} alone"), &both["alone"], None));
        println!("{}", row(&format!("{name} elsewhere"), &both["elsewhere"], both["control"].as_f64()));
        println!("{}", row(&format!("{name} flooded"), &both["flooded"], both["p99_ratio"].as_f64()));
    }
    for (name, both) in boxes.iter().filter(|(_, both)| both["met"] == true) {
        println!("{name}: within {TARGET} ({})", both["p99_ratio"]);
    }
    Ok(())
}

fn row(name: &str, of: &Value, ratio: Option<f64>) -> String {
    let shown = |name: &str, decimals: usize| {
        of[name].as_f64().map_or_else(|| "-".into(), |value| format!("{value:.decimals$}"))
    };
    format!(
        "{name:<18} {:>8} {:>10} {:>10} {:>10} {:>12} {:>10}",
        shown("answered", 0),
        shown("p50_ms", 1),
        shown("p99_ms", 1),
        shown("max_ms", 1),
        shown("flood_answered", 0),
        ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}")),
    )
}

/// What a flood is aimed at.
enum Flood {
    Nobody,
    Elsewhere,
    Here,
}

/// One kind of box, without the flooder and with it.
fn ratio(share: Share, asked: &FairnessAsked) -> Outcome<Value> {
    let serving = || {
        let mut server = Process::start(options::SHARE, [share.name().to_owned()])?;
        let said = server.heard()?;
        let at = said["listening"].as_str().ok_or("the server said no address")?.to_owned();
        Ok::<_, String>((server, at))
    };
    let once = |flood: Flood| {
        let ((_here, at), (_there, elsewhere)) = (serving()?, serving()?);
        let mut callers = Process::start(options::CALLERS, [asked.peers.to_string(), at.clone()])?;
        callers.heard()?;
        let flooded = match flood {
            Flood::Nobody => NOBODY,
            Flood::Elsewhere => &elsewhere,
            Flood::Here => &at,
        };
        callers.ask(&format!("{CALL} {} {flooded}", asked.seconds))
    };
    let (alone, elsewhere, flooded) = (once(Flood::Nobody)?, once(Flood::Elsewhere)?, once(Flood::Here)?);
    let to_alone =
        |of: &Value| of["p99_ms"].as_f64().zip(alone["p99_ms"].as_f64()).map(|(of, alone)| of / alone);
    let (control, ratio) = (to_alone(&elsewhere), to_alone(&flooded));
    Ok(json!({
        "p99_ratio": ratio, "met": ratio.is_some_and(|ratio| ratio <= TARGET), "control": control,
        "alone": alone, "elsewhere": elsewhere, "flooded": flooded,
    }))
}
