//! What a storm came to, and how several are summed up, compared and printed.

use serde_json::{Value, json};

use super::options::Runs;
use super::{Outcome, Plan, Sources, Stack};
use crate::measure::Spread;

/// One storm.
#[derive(Debug, Clone, PartialEq)]
pub struct Storm {
    /// Peers that both sides hold usable.
    pub verified: usize,
    /// Peers that the server holds usable.
    pub server_verified: usize,
    /// Peers that hold the server usable.
    pub client_verified: usize,
    /// From the start until every peer had its answer or was lost, in seconds.
    pub wall_s: f64,
    /// Time to an answer of half of the peers.
    pub p50_ms: Option<f64>,
    /// Time to an answer of 99 of 100 peers.
    pub p99_ms: Option<f64>,
    /// CPU time of the server.
    pub cpu_ms: f64,
    /// Memory that the server holds more than before.
    pub rss_kb: f64,
    /// Datagrams that the kernel dropped meanwhile for want of room in a receive buffer, whosever they were: each costs its
    /// sender a wait, and is what a long tail mostly comes from.
    pub dropped: u64,
    /// Where all that came to the server is, from servers that know.
    pub accounts: Option<Value>,
    /// Why peers were lost, some of the reasons.
    pub reasons: Vec<String>,
}

impl Storm {
    /// Reads what both processes have reported.
    pub fn read(server: &Value, client: &Value, dropped: u64) -> Outcome<Self> {
        let server_verified = count(server, "verified")?;
        let client_verified = count(client, "verified")?;
        let reasons = client["reasons"].as_array().into_iter().flatten();
        Ok(Self {
            // An answer comes only from a server that has noted the peer, or is about to: the fewer are in both.
            verified: server_verified.min(client_verified),
            server_verified,
            client_verified,
            wall_s: real(client, "wall_s")?,
            p50_ms: client["p50_ms"].as_f64(),
            p99_ms: client["p99_ms"].as_f64(),
            cpu_ms: real(server, "cpu_ms")?,
            rss_kb: real(server, "resident_kb")?,
            dropped,
            accounts: (!server["accounts"].is_null()).then(|| server["accounts"].clone()),
            reasons: reasons.filter_map(Value::as_str).map(str::to_owned).collect(),
        })
    }

    /// Whether the server has every arrival somewhere, once, as far as it keeps accounts.
    pub fn balanced(&self) -> bool {
        self.accounts.as_ref().is_none_or(|accounts| accounts["balanced"] == true)
    }

    fn each(&self, of: f64) -> f64 {
        of / self.verified.max(1) as f64
    }

    /// CPU milliseconds of the server for each verified peer.
    pub fn cpu_each(&self) -> f64 {
        self.each(self.cpu_ms)
    }

    /// Kilobytes of the server for each verified peer.
    pub fn rss_each(&self) -> f64 {
        self.each(self.rss_kb)
    }
}

fn real(report: &Value, name: &str) -> Outcome<f64> {
    report[name].as_f64().ok_or_else(|| format!("the report {report} has no {name}"))
}

fn count(report: &Value, name: &str) -> Outcome<usize> {
    let count = report[name].as_u64().and_then(|count| usize::try_from(count).ok());
    count.ok_or_else(|| format!("the report {report} has no {name}"))
}

/// All storms of one stack, beside the floor's of the same runs.
pub struct Summary<'a> {
    stack: Stack,
    runs: &'a Runs,
    storms: &'a [Storm],
    floor: Option<&'a [Storm]>,
}

impl<'a> Summary<'a> {
    /// Sums up at least one storm; the floor's have the same length.
    pub fn of(stack: Stack, runs: &'a Runs, storms: &'a [Storm], floor: Option<&'a [Storm]>) -> Self {
        Self { stack, runs, storms, floor }
    }

    /// Whose storms these are.
    pub fn stack_name(&self) -> &'static str {
        self.stack.name()
    }

    fn spread(&self, of: impl Fn(&Storm) -> f64) -> Spread {
        Spread::of(self.storms.iter().map(of).collect())
    }

    /// The middle, over the runs in which there is a time at all.
    fn time(&self, of: impl Fn(&Storm) -> Option<f64>) -> Option<Spread> {
        let times: Vec<_> = self.storms.iter().filter_map(of).collect();
        (!times.is_empty()).then(|| Spread::of(times))
    }

    /// The middle of the ratios to the floor, run by run.
    fn ratio(&self, of: impl Fn(&Storm) -> f64) -> Option<f64> {
        let pairs = self.storms.iter().zip(self.floor?);
        let ratios: Vec<_> = pairs.map(|(ours, floor)| of(ours) / of(floor)).collect();
        ratios.iter().all(|ratio| ratio.is_finite()).then(|| Spread::of(ratios).median)
    }

    /// Peers lost in all runs.
    pub fn lost(&self) -> usize {
        self.storms.iter().map(|storm| self.runs.plan.peers - storm.verified).sum()
    }

    /// Whether every arrival was somewhere, once, in each run.
    pub fn balanced(&self) -> bool {
        self.storms.iter().all(Storm::balanced)
    }

    /// The line for machines. Numbers are medians of the runs; `verified` is the worst run's, `lost` all runs' sum.
    pub fn json(&self) -> Value {
        let Plan { peers, sources, default_buffers, .. } = self.runs.plan;
        let each = |of: fn(&Storm) -> usize| self.storms.iter().map(of).collect::<Vec<_>>();
        let (cpu, rss) = (self.spread(Storm::cpu_each), self.spread(Storm::rss_each));
        let (p50, p99) = (self.time(|storm| storm.p50_ms), self.time(|storm| storm.p99_ms));
        json!({
            "bench": "storm",
            "stack": self.stack.name(),
            "identity": self.stack.keys(&self.runs.plan).name(),
            "sources": if sources == Sources::One { "one" } else { "many" },
            "default_buffers": default_buffers,
            "peers": peers,
            "runs": self.storms.len(),
            "verified": self.storms.iter().map(|storm| storm.verified).min(),
            "lost": self.lost(),
            "server_verified": each(|storm| storm.server_verified),
            "client_verified": each(|storm| storm.client_verified),
            "dropped_datagrams": self.storms.iter().map(|storm| storm.dropped).collect::<Vec<_>>(),
            "balanced": self.balanced(),
            "accounts": self.storms.iter().map(|storm| &storm.accounts).collect::<Vec<_>>(),
            "wall_s": self.spread(|storm| storm.wall_s).median,
            "connects_per_s": self.spread(rate).median,
            "p50_ms": p50.map(|p50| p50.median),
            "p99_ms": p99.map(|p99| p99.median),
            "p99_max_ms": p99.map(|p99| p99.max),
            "cpu_ms_per_peer": cpu.median,
            "cpu_ms_per_peer_min": cpu.min,
            "cpu_ms_per_peer_max": cpu.max,
            "rss_kb_per_peer": rss.median,
            "cpu_ratio_to_quinn": self.ratio(Storm::cpu_each),
            "rss_ratio_to_quinn": self.ratio(Storm::rss_each),
        })
    }

    /// The line for people, under [`HEADING`].
    pub fn row(&self) -> String {
        let identity = self.stack.keys(&self.runs.plan);
        let time = |of: fn(&Storm) -> Option<f64>| shown(self.time(of).map(|time| time.median), 0);
        let verified: Vec<_> = self.storms.iter().map(|storm| storm.verified.to_string()).collect();
        line(&[
            self.stack.name().to_owned(),
            identity.name().to_owned(),
            self.runs.plan.peers.to_string(),
            verified.join("/"),
            self.lost().to_string(),
            shown(Some(self.spread(|storm| storm.wall_s).median), 2),
            shown(Some(self.spread(rate).median), 0),
            time(|storm| storm.p50_ms),
            time(|storm| storm.p99_ms),
            shown(Some(self.spread(Storm::cpu_each).median), 3),
            shown(Some(self.spread(Storm::rss_each).median), 1),
            shown(self.ratio(Storm::cpu_each), 2),
            shown(self.ratio(Storm::rss_each), 2),
        ])
    }
}

/// What the columns of a row are.
pub fn heading() -> String {
    line(
        &[
            "stack",
            "identity",
            "peers",
            "verified",
            "lost",
            "wall s",
            "conn/s",
            "p50 ms",
            "p99 ms",
            "CPU ms/peer",
            "RSS kB/peer",
            "CPU:quinn",
            "RSS:quinn",
        ]
        .map(str::to_owned),
    )
}

/// Columns: the first two to the left, numbers to the right.
fn line(cells: &[String; 13]) -> String {
    let [stack, identity, numbers @ ..] = cells;
    let numbers: Vec<_> = numbers.iter().map(|cell| format!("{cell:>11}")).collect();
    format!("{stack:<11} {identity:<8} {}", numbers.join(" "))
}

fn shown(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.decimals$}"))
}

fn rate(storm: &Storm) -> f64 {
    storm.verified as f64 / storm.wall_s
}

#[cfg(test)]
mod tests {
    use super::super::Keys;
    use super::*;

    fn storm(verified: usize, cpu_ms: f64) -> Storm {
        let server = json!({ "verified": verified, "cpu_ms": cpu_ms, "resident_kb": 800.0 });
        let client = json!({
            "verified": verified, "wall_s": 0.5, "p50_ms": 100.0, "p99_ms": 200.0, "reasons": [],
        });
        Storm::read(&server, &client, 0).unwrap()
    }

    fn runs() -> Runs {
        let plan = Plan { peers: 10, sources: Sources::Many, keys: Keys::MlDsa65, default_buffers: true };
        Runs { stacks: vec![Stack::Quinn], plan, runs: 3, json: true, judged: true }
    }

    #[test]
    fn a_peer_that_one_side_alone_counts_is_lost() {
        let server = json!({ "verified": 10, "cpu_ms": 1.0, "resident_kb": 1.0 });
        let client =
            json!({ "verified": 9, "wall_s": 0.5, "p50_ms": 1.0, "p99_ms": 2.0, "reasons": ["no answer"] });
        let storm = Storm::read(&server, &client, 0).unwrap();
        assert_eq!((storm.verified, storm.reasons.as_slice()), (9, ["no answer".to_owned()].as_slice()));
        assert!(Storm::read(&json!({}), &client, 0).is_err());
    }

    #[test]
    fn accounts_that_do_not_add_up_show() {
        let client = json!({ "verified": 1, "wall_s": 0.5, "p50_ms": 1.0, "p99_ms": 2.0, "reasons": [] });
        let server = |accounts: Value| json!({ "verified": 1, "cpu_ms": 1.0, "resident_kb": 1.0, "accounts": accounts });
        let storm = |accounts| Storm::read(&server(accounts), &client, 0).unwrap();
        assert!(storm(Value::Null).balanced() && storm(json!({ "balanced": true })).balanced());
        let off = [storm(json!({ "balanced": false, "arrived": 2 }))];
        let line = Summary::of(Stack::Rookery, &runs(), &off, None).json();
        assert_eq!((&line["balanced"], &line["accounts"][0]["arrived"]), (&json!(false), &json!(2)));
    }

    #[test]
    fn ratios_are_of_the_same_run_and_losses_add_up() {
        // The third run was disturbed for both: the ratio of the run does not show it, that of the medians would.
        let ours = [storm(10, 12.0), storm(9, 12.6), storm(10, 60.0)];
        let floor = [storm(10, 10.0), storm(10, 10.0), storm(10, 50.0)];
        let runs = runs();
        let line = Summary::of(Stack::Quinn, &runs, &ours, Some(&floor)).json();
        assert_eq!((&line["verified"], &line["lost"]), (&json!(9), &json!(1)));
        assert_eq!(
            (&line["cpu_ratio_to_quinn"], &line["server_verified"]),
            (&json!(1.2), &json!([10, 9, 10]))
        );
        assert_eq!((&line["cpu_ms_per_peer"], &line["identity"]), (&json!(1.4), &json!("mldsa65")));
    }

    #[test]
    fn without_a_floor_or_without_anyone_verified_there_is_no_number() {
        let runs = runs();
        let client =
            json!({ "verified": 0, "wall_s": 30.0, "p50_ms": null, "p99_ms": null, "reasons": ["late"] });
        let none =
            [Storm::read(&json!({ "verified": 0, "cpu_ms": 3.0, "resident_kb": 9.0 }), &client, 0).unwrap()];
        let line = Summary::of(Stack::Quinn, &runs, &none, None).json();
        assert_eq!(
            (&line["p99_ms"], &line["cpu_ratio_to_quinn"], &line["lost"]),
            (&Value::Null, &Value::Null, &json!(10))
        );
    }
}
