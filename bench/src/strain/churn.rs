//! Churn: peers end and others take their places all the time, and the server is held against what the peers know.
//!
//! At every check the server is asked for its sessions, then the peers for theirs, some milliseconds later. A peer that is
//! connected for over [`SLACK`] and has no session is **missing**. A session whose peer has ended is a **ghost**, of three kinds:
//!
//! | ghost of one that | may last |
//! |---|---|
//! | said goodbye (`closed`) | [`SLACK`] |
//! | said goodbye, and the first datagrams of that were lost (`lost`) | [`SLACK`] as well: it is said again |
//! | fell silent (`silent`) | the silence that the server allows, plus the one keep-alive with which it may begin to count again, plus [`SLACK`] |
//!
//! At the end the churn stops, and when the last ghost has to be gone the two have to be
//! equal; then all peers leave, and tasks and descriptors have to be what they were before the first came.
//!
//! Slopes are lines of least squares through the checks after the warm-up, by which tables of bounded size (ended sessions, records of
//! those who have gone) are full: what grows then would grow for ever. That of the heap is freed of what goes with the number of
//! sessions, which is a hundred kilobytes each and never quite the same twice.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rookery_overlay::services::discovery::{ABSENT, RECORDS};
use rookery_runtime::Clock;
use serde_json::{Value, json};

use super::options::ChurnAsked;
use super::peers::Ending;
use super::server::{Admit, SAMPLE, SCAN, Serving, quic};
use super::{Outcome, options};
use crate::child::Process;

/// What a change may take to be seen on the other side, the two looks not being at one instant.
const SLACK: f64 = 1.0;
/// Between two checks.
const CHECK: Duration = Duration::from_secs(5);
/// From the last goodbye to the count of what is left: QUIC keeps a closed connection for three of its timeouts, to answer what
/// was under way, and on a busy machine those are long.
const LEAVE: Duration = Duration::from_secs(5);
/// Until the tables are full that hold something of peers that have gone: the slowest to fill, of 512 discovery records, took about
/// five minutes at the usual fifty a second. Of a short run half is left to be measured.
const WARM_UP: Duration = Duration::from_secs(600);
/// Points of the curve of what is held that a report tells.
const POINTS: usize = 60;
/// Bytes of heap that a discovery record of an ML-DSA-65 identity takes at most, with what is kept beside it.
const RECORD_BYTES: usize = 6_000;
/// Room for sessions beside those of peers and ghosts.
const SPARE: usize = 256;

/// Runs it and prints what it came to.
pub fn run(asked: &ChurnAsked) -> Outcome<()> {
    let limits = quic(asked.idle);
    let silent_s = (limits.idle + limits.keep_alive).as_secs_f64() + SLACK;
    let ghosts = asked.per_second * silent_s.ceil() as usize;
    let serving = Serving { sessions: asked.peers + ghosts + SPARE, admit: Admit::Local, idle: asked.idle };
    let mut server = Process::start(options::SERVE, serving.arguments())?;
    let invitation = server.heard()?;
    let invitation = invitation["invitation"].as_str().ok_or("the server said no invitation")?;
    // Sockets of peers that have just ended may still be open.
    let most = asked.peers * 2 + asked.per_second * 10;
    let mut peers = Process::start(options::PEERS, [most.to_string(), invitation.to_owned()])?;
    peers.heard()?;
    let before = server.ask(SAMPLE)?;
    let filled = peers.ask(&format!("fill {}", asked.peers))?;
    peers.ask(&format!("churn {}", asked.per_second))?;

    let mut checks = Vec::new();
    let runtime = crate::child::runtime()?;
    let clock = Clock::system();
    while clock.elapsed() < Duration::from_secs_f64(asked.minutes * 60.0) {
        runtime.block_on(clock.sleep(CHECK));
        let check = check(&mut server, &mut peers, silent_s)?;
        eprintln!("{:>5.0} s  {}", clock.elapsed().as_secs_f64(), check.line());
        checks.push(check);
    }
    let seconds = clock.elapsed().as_secs_f64();
    let calmed = peers.ask("calm")?;
    runtime.block_on(clock.sleep(Duration::from_secs_f64(silent_s)));
    let last = check(&mut server, &mut peers, silent_s)?;
    peers.ask("leave")?;
    runtime.block_on(clock.sleep(LEAVE));
    let after = server.ask(SAMPLE)?;
    let report = Report { asked, seconds, silent_s, filled, calmed, before, checks, last, after };
    report.print()
}

/// Ghosts of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Ghosts {
    count: usize,
    oldest_s: f64,
    /// Those that were there for longer than they may be.
    over: usize,
}

impl Ghosts {
    fn add(&mut self, age: f64, bound: f64) {
        self.count += 1;
        self.oldest_s = self.oldest_s.max(age);
        self.over += usize::from(age > bound);
    }
}

const fn bound(kind: Ending, silent_s: f64) -> f64 {
    match kind {
        Ending::Closed | Ending::Lost => SLACK,
        Ending::Silent => silent_s,
    }
}

/// What a check has found.
#[derive(Debug, Default)]
struct Check {
    sample: Value,
    sessions: usize,
    live: usize,
    missing: usize,
    /// By kind, in the order of [`Ending::ALL`].
    ghosts: [Ghosts; Ending::ALL.len()],
    strangers: usize,
    doubles: usize,
    differ: u64,
}

fn check(server: &mut Process, peers: &mut Process, silent_s: f64) -> Outcome<Check> {
    let scan = server.ask(SCAN)?;
    let view = peers.ask("view")?;
    compare(&scan, &view, silent_s)
}

/// Identity and age of each entry of a list, and what else it says.
fn entries<'a>(view: &'a Value, list: &str) -> Outcome<Vec<(&'a str, f64, Option<&'a str>)>> {
    let all = view[list].as_array().ok_or_else(|| format!("a view has no {list}"))?;
    all.iter()
        .map(|entry| {
            let (peer, age) = (entry[0].as_str(), entry[1].as_f64());
            peer.zip(age)
                .map(|(peer, age)| (peer, age, entry[2].as_str()))
                .ok_or_else(|| format!("{entry} of {list}"))
        })
        .collect()
}

fn compare(scan: &Value, view: &Value, silent_s: f64) -> Outcome<Check> {
    let sessions = scan["sessions"].as_array().ok_or("a scan has no sessions")?;
    let sessions: Vec<&str> = sessions.iter().filter_map(Value::as_str).collect();
    let live = entries(view, "live")?;
    let ended: BTreeMap<&str, (f64, Option<&str>)> =
        entries(view, "ended")?.into_iter().map(|(peer, age, how)| (peer, (age, how))).collect();
    let connecting = view["connecting"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let here: BTreeSet<&str> = live.iter().map(|(peer, ..)| *peer).chain(connecting).collect();
    let there: BTreeSet<&str> = sessions.iter().copied().collect();
    let mut check = Check {
        sessions: sessions.len(),
        live: live.len(),
        missing: live.iter().filter(|(peer, age, _)| *age > SLACK && !there.contains(peer)).count(),
        doubles: sessions.len() - there.len(),
        differ: scan["differ"].as_u64().ok_or("a scan has no differ")?,
        ..Check::default()
    };
    for peer in there.difference(&here) {
        let kind = |(age, how): &(f64, Option<&str>)| {
            let kind = Ending::ALL.iter().position(|kind| *how == Some(kind.name()))?;
            Some((kind, *age))
        };
        match ended.get(peer).and_then(kind) {
            Some((kind, age)) => check.ghosts[kind].add(age, bound(Ending::ALL[kind], silent_s)),
            None => check.strangers += 1,
        }
    }
    let mut sample = scan.clone();
    if let Some(fields) = sample.as_object_mut() {
        fields.remove("sessions");
    }
    check.sample = sample;
    Ok(check)
}

impl Check {
    fn right(&self) -> bool {
        self.missing + self.ghosts_over() + self.strangers == 0
            && self.differ == 0
            && self.sample["balanced"] == true
            && self.sample["panics"] == 0
    }

    fn ghosts_over(&self) -> usize {
        self.ghosts.iter().map(|ghosts| ghosts.over).sum()
    }

    fn number(&self, name: &str) -> Option<f64> {
        self.sample[name].as_f64()
    }

    fn arrived(&self) -> f64 {
        self.sample["accounts"]["arrived"].as_f64().unwrap_or_default()
    }

    fn line(&self) -> String {
        let kinds = Ending::ALL.iter().zip(&self.ghosts);
        let ghosts = kinds.map(|(kind, found)| {
            format!("{} {} (oldest {:.2} s, {} over)", found.count, kind.name(), found.oldest_s, found.over)
        });
        format!(
            "{} sessions, {} peers, {} missing, ghosts: {}; {} strangers, {} doubles, {} differ; balanced {}; \
             {} arrived, {} records, {} tasks, {} descriptors, {:.1} MB, heap {:.0} kB",
            self.sessions,
            self.live,
            self.missing,
            ghosts.collect::<Vec<_>>().join(", "),
            self.strangers,
            self.doubles,
            self.differ,
            self.sample["balanced"],
            self.arrived(),
            self.sample["records"],
            self.sample["tasks"],
            self.sample["descriptors"],
            self.number("rss_kb").unwrap_or_default() / 1024.0,
            self.number("heap_kb").unwrap_or_default(),
        )
    }
}

/// The slope of the line of least squares through these points; none when they are all above one another.
fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let count = points.len() as f64;
    let (x, y) = points.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0 / count, y + point.1 / count));
    let (over, under) = points.iter().fold((0.0, 0.0), |(over, under), point| {
        (over + (point.0 - x) * (point.1 - y), under + (point.0 - x).powi(2))
    });
    (under > 0.0).then(|| over / under)
}

/// A plane of least squares, `z = start + by_x x + by_y y`.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Plane {
    by_x: f64,
    by_y: f64,
    /// Standard error of `by_x`, as if the points were independent of one another.
    error: f64,
}

impl Plane {
    /// None when the points do not tell the two apart, or are too few to say how well they do.
    fn through(points: &[(f64, f64, f64)]) -> Option<Self> {
        let count = points.len() as f64;
        let mean = |of: fn(&(f64, f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
        let (x, y, z) = (mean(|point| point.0), mean(|point| point.1), mean(|point| point.2));
        let sum = |of: &dyn Fn(f64, f64, f64) -> f64| {
            points.iter().map(|point| of(point.0 - x, point.1 - y, point.2 - z)).sum::<f64>()
        };
        let (xx, yy, xy) = (sum(&|x, _, _| x * x), sum(&|_, y, _| y * y), sum(&|x, y, _| x * y));
        let (xz, yz) = (sum(&|x, _, z| x * z), sum(&|_, y, z| y * z));
        let apart = xx * yy - xy * xy;
        if points.len() <= 3 || apart <= f64::EPSILON * xx * yy {
            return None;
        }
        let (by_x, by_y) = ((xz * yy - yz * xy) / apart, (yz * xx - xz * xy) / apart);
        let rest = sum(&|x, y, z| (z - by_x * x - by_y * y).powi(2)) / (count - 3.0);
        Some(Self { by_x, by_y, error: (rest * yy / apart).sqrt() })
    }
}

struct Report<'a> {
    asked: &'a ChurnAsked,
    seconds: f64,
    silent_s: f64,
    filled: Value,
    calmed: Value,
    before: Value,
    checks: Vec<Check>,
    last: Check,
    after: Value,
}

impl Report<'_> {
    /// The checks after the warm-up.
    fn measured(&self) -> &[Check] {
        let warm = (WARM_UP.as_secs_f64() / self.seconds * self.checks.len() as f64) as usize;
        &self.checks[warm.min(self.checks.len() / 2)..]
    }

    /// What grows for each 1,000 arrivals.
    fn per_thousand(&self, name: &str) -> Option<f64> {
        let points = self.measured().iter().map(|check| Some((check.arrived() / 1e3, check.number(name)?)));
        slope(&points.collect::<Option<Vec<_>>>()?)
    }

    /// Bytes of heap by thousands of arrivals and by sessions.
    fn heap(&self) -> Option<Plane> {
        let point = |check: &Check| {
            Some((check.arrived() / 1e3, check.sessions as f64, check.number("heap_kb")? * 1024.0))
        };
        Plane::through(&self.measured().iter().map(point).collect::<Option<Vec<_>>>()?)
    }

    /// Of one kind: how long they may last, how long the oldest did, the most at a time, and the most over their time.
    fn ghosts(&self) -> Value {
        let of = |(at, kind): (usize, &Ending)| {
            let report = json!({
                "bound_s": bound(*kind, self.silent_s),
                "oldest_s": self.most(|check| check.ghosts[at].oldest_s),
                "most": self.most(|check| check.ghosts[at].count as f64),
                "over": self.most(|check| check.ghosts[at].over as f64),
            });
            (kind.name().to_owned(), report)
        };
        Value::Object(Ending::ALL.iter().enumerate().map(of).collect())
    }

    fn most(&self, of: impl Fn(&Check) -> f64) -> f64 {
        self.checks.iter().chain([&self.last]).map(of).fold(0.0, f64::max)
    }

    /// Thousands of arrivals, sessions, records, kilobytes resident, kilobytes of heap: at evenly spread checks.
    fn curve(&self) -> Vec<Value> {
        let each = self.checks.len().div_ceil(POINTS).max(1);
        let point = |check: &Check| {
            let Check { sample, sessions, .. } = check;
            json!([check.arrived() / 1e3, sessions, sample["records"], sample["rss_kb"], sample["heap_kb"]])
        };
        self.checks.iter().step_by(each).map(point).collect()
    }

    /// Checks at which identities had two sessions, as they had at the check before: a session that another one replaces is there
    /// for a moment longer.
    fn doubles_stay(&self) -> usize {
        self.checks.windows(2).filter(|two| two.iter().all(|check| check.doubles > 0)).count()
            + usize::from(self.last.doubles > 0)
    }

    /// What is there beyond what was, once all peers have left.
    fn left_over(&self, name: &str) -> Option<f64> {
        Some(self.after[name].as_f64()? - self.before[name].as_f64()?)
    }

    fn json(&self, right: bool) -> Value {
        let checks = self.checks.iter().chain([&self.last]);
        let heap = self.heap();
        let spent = self.last.number("cpu_ms").zip(self.before["cpu_ms"].as_f64());
        json!({
            "bench": "churn",
            "peers": self.asked.peers,
            "per_second": self.asked.per_second,
            "minutes": self.seconds / 60.0,
            "right": right,
            "checks": self.checks.len() + 1,
            "checks_right": checks.filter(|check| check.right()).count(),
            "equal_at_end": self.last.sessions == self.last.live,
            "missing": self.most(|check| check.missing as f64),
            "strangers": self.most(|check| check.strangers as f64),
            "doubles_stayed": self.doubles_stay(),
            "ghosts_over": self.most(|check| check.ghosts_over() as f64),
            "ghosts": self.ghosts(),
            "filled": self.filled,
            "churned": self.calmed,
            "arrived": self.last.arrived(),
            "cpu_ms_per_arrival": spent.map(|(all, start)| (all - start) / self.last.arrived()),
            "checks_measured": self.measured().len(),
            "heap_slope_bytes_per_1000_connects": heap.map(|heap| heap.by_x),
            "heap_slope_error_bytes": heap.map(|heap| heap.error),
            "heap_bytes_per_session": heap.map(|heap| heap.by_y),
            "records_most": self.most(|check| check.number("records").unwrap_or_default()),
            "records_bound_bytes": RECORDS * RECORD_BYTES,
            "records_gone_bound_bytes": ABSENT * RECORD_BYTES,
            "rss_kb_per_1000": self.per_thousand("rss_kb"),
            "heap_kb_per_1000": self.per_thousand("heap_kb"),
            "curve_k_sessions_records_rss_heap": self.curve(),
            "tasks_per_1000": self.per_thousand("tasks"),
            "descriptors_per_1000": self.per_thousand("descriptors"),
            "tasks_left": self.left_over("tasks"),
            "descriptors_left": self.left_over("descriptors"),
            "slots_left": self.after["slots"],
            "held_bytes_left": self.after["held_bytes"],
            "rss_kb_left": self.left_over("rss_kb"),
            "heap_kb_left": self.left_over("heap_kb"),
            "balanced_at_end": self.after["balanced"],
            "accounts": self.after["accounts"],
        })
    }

    fn print(&self) -> Outcome<()> {
        let right = self.checks.iter().chain([&self.last]).all(Check::right)
            && self.last.sessions == self.last.live
            && self.after["balanced"] == true
            && self.after["slots"] == 0
            && self.after["held_bytes"] == 0
            && ["tasks", "descriptors"].iter().all(|name| self.left_over(name) == Some(0.0))
            && self.doubles_stay() == 0;
        let line = self.json(right);
        if self.asked.json {
            println!("{line}");
        } else {
            for (name, value) in line.as_object().into_iter().flatten() {
                println!("{name:<24} {value}");
            }
        }
        if right { Ok(()) } else { Err("the registry was wrong at a check, or something was left".into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(sessions: &[&str], view: Value) -> Check {
        let scan = json!({ "sessions": sessions, "differ": 0, "balanced": true, "panics": 0 });
        compare(&scan, &view, 40.0).unwrap()
    }

    #[test]
    fn what_is_missing_and_what_haunts_is_told_from_what_is_on_its_way() {
        let fine = found(
            &["a", "b", "d", "e", "f"],
            json!({
                "live": [["a", 9.0], ["c", 0.1]], "connecting": ["b"],
                "ended": [["d", 39.0, "silent"], ["e", 0.5, "closed"], ["f", 0.8, "lost"]],
            }),
        );
        assert!(fine.right(), "{fine:?}");
        assert_eq!(fine.ghosts.map(|ghosts| ghosts.oldest_s), [0.5, 0.8, 39.0]);
        let view = |view: &str| serde_json::from_str(view).unwrap();
        for (sessions, seen) in [
            (&[][..], r#"{"live":[["a",2.0]],"ended":[],"connecting":[]}"#),
            (&["a"], r#"{"live":[],"ended":[["a",1.5,"closed"]],"connecting":[]}"#),
            (&["a"], r#"{"live":[],"ended":[["a",1.5,"lost"]],"connecting":[]}"#),
            (&["a"], r#"{"live":[],"ended":[["a",40.5,"silent"]],"connecting":[]}"#),
            (&["a"], r#"{"live":[],"ended":[],"connecting":[]}"#),
        ] {
            assert!(!found(sessions, view(seen)).right(), "{sessions:?} {seen}");
        }
    }

    #[test]
    fn the_last_end_of_an_identity_counts_and_a_double_is_seen() {
        let ended = json!([["a", 60.0, "silent"], ["a", 3.0, "silent"]]);
        let check =
            found(&["a", "b", "b"], json!({ "live": [["b", 5.0]], "connecting": [], "ended": ended }));
        assert!(check.right() && check.doubles == 1, "{check:?}");
    }

    #[test]
    fn a_plane_tells_growth_from_what_goes_with_sessions() {
        let sessions = [7.0, 3.0, 9.0, 4.0, 4.0, 8.0];
        let point = |(x, y): (usize, &f64)| (x as f64, *y, 5.0 + 2.0 * x as f64 + 100.0 * y);
        let points: Vec<_> = sessions.iter().enumerate().map(point).collect();
        let plane = Plane::through(&points).unwrap();
        assert!((plane.by_x - 2.0).abs() < 1e-9 && (plane.by_y - 100.0).abs() < 1e-9, "{plane:?}");
        assert!(plane.error < 1e-6, "{plane:?}");
        assert_eq!(Plane::through(&points[..3]), None);
        assert_eq!(Plane::through(&[(1.0, 1.0, 1.0); 5]), None);
    }

    #[test]
    fn a_slope_is_that_of_the_line() {
        assert_eq!(slope(&[(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]), Some(2.0));
        assert_eq!(slope(&[(1.0, 1.0)]), None);
    }
}
