//! Churn: peers end and others take their places all the time, and the server is held against what the peers know.
//!
//! At every check the server is asked for its sessions, then the peers for theirs, some milliseconds later. A peer that is
//! connected for over [`SLACK`] and has no session is **missing**. A session whose peer has ended is a **ghost**; it may last
//! [`SLACK`] after a goodbye, and without one for the silence that the server allows, plus the one keep-alive with which it
//! may begin to count again, plus [`SLACK`]. At the end the churn stops, and when the last ghost has to be gone the two have to be
//! equal; then all peers leave, and tasks and descriptors have to be what they were before the first came.
//!
//! Slopes are lines of least squares through the second half of the checks, by which tables of bounded size (ended
//! sessions, addresses, records) are mostly full: what grows then would grow for ever, or belongs to one that is still filling.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rookery_runtime::Clock;
use serde_json::{Value, json};

use super::options::ChurnAsked;
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
/// Points of the curve of what is held that a report tells.
const POINTS: usize = 12;
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

/// What a check has found.
#[derive(Debug, Default)]
struct Check {
    sample: Value,
    sessions: usize,
    live: usize,
    missing: usize,
    ghosts_over: usize,
    oldest_silent_s: f64,
    oldest_clean_s: f64,
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
fn entries<'a>(view: &'a Value, list: &str) -> Outcome<Vec<(&'a str, f64, bool)>> {
    let all = view[list].as_array().ok_or_else(|| format!("a view has no {list}"))?;
    all.iter()
        .map(|entry| {
            let (peer, age) = (entry[0].as_str(), entry[1].as_f64());
            peer.zip(age)
                .map(|(peer, age)| (peer, age, entry[2] == true))
                .ok_or_else(|| format!("{entry} of {list}"))
        })
        .collect()
}

fn compare(scan: &Value, view: &Value, silent_s: f64) -> Outcome<Check> {
    let sessions = scan["sessions"].as_array().ok_or("a scan has no sessions")?;
    let sessions: Vec<&str> = sessions.iter().filter_map(Value::as_str).collect();
    let live = entries(view, "live")?;
    let ended: BTreeMap<&str, (f64, bool)> =
        entries(view, "ended")?.into_iter().map(|(peer, age, silently)| (peer, (age, silently))).collect();
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
        match ended.get(peer) {
            Some((age, true)) => {
                check.oldest_silent_s = check.oldest_silent_s.max(*age);
                check.ghosts_over += usize::from(*age > silent_s);
            }
            Some((age, false)) => {
                check.oldest_clean_s = check.oldest_clean_s.max(*age);
                check.ghosts_over += usize::from(*age > SLACK);
            }
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
        self.missing + self.ghosts_over + self.strangers == 0
            && self.differ == 0
            && self.sample["balanced"] == true
            && self.sample["panics"] == 0
    }

    fn number(&self, name: &str) -> Option<f64> {
        self.sample[name].as_f64()
    }

    fn arrived(&self) -> f64 {
        self.sample["accounts"]["arrived"].as_f64().unwrap_or_default()
    }

    fn line(&self) -> String {
        format!(
            "{} sessions, {} peers, {} missing, {} ghosts over their time (oldest {:.1} s silent, {:.2} s clean), {} strangers, \
             {} doubles, {} differ; balanced {}; {} tasks, {} descriptors, {:.1} MB, \
             heap {:.1} MB",
            self.sessions,
            self.live,
            self.missing,
            self.ghosts_over,
            self.oldest_silent_s,
            self.oldest_clean_s,
            self.strangers,
            self.doubles,
            self.differ,
            self.sample["balanced"],
            self.sample["tasks"],
            self.sample["descriptors"],
            self.number("rss_kb").unwrap_or_default() / 1024.0,
            self.number("heap_kb").unwrap_or_default() / 1024.0,
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
    /// What grows for each 1,000 arrivals, in the second half.
    fn per_thousand(&self, name: &str) -> Option<f64> {
        let half = &self.checks[self.checks.len() / 2..];
        let points: Option<Vec<_>> =
            half.iter().map(|check| Some((check.arrived() / 1e3, check.number(name)?))).collect();
        slope(&points?)
    }

    fn most(&self, of: impl Fn(&Check) -> f64) -> f64 {
        self.checks.iter().chain([&self.last]).map(of).fold(0.0, f64::max)
    }

    /// Thousands of arrivals, kilobytes resident, kilobytes of heap: at evenly spread checks.
    fn curve(&self) -> Vec<Value> {
        let each = self.checks.len().div_ceil(POINTS).max(1);
        let point =
            |check: &Check| json!([check.arrived() / 1e3, check.sample["rss_kb"], check.sample["heap_kb"]]);
        self.checks.iter().step_by(each).map(point).collect()
    }

    /// What is there beyond what was, once all peers have left.
    fn left_over(&self, name: &str) -> Option<f64> {
        Some(self.after[name].as_f64()? - self.before[name].as_f64()?)
    }

    fn json(&self, right: bool) -> Value {
        let checks = self.checks.iter().chain([&self.last]);
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
            "ghosts_over": self.most(|check| check.ghosts_over as f64),
            "ghost_bound_silent_s": self.silent_s,
            "ghost_bound_clean_s": SLACK,
            "oldest_ghost_silent_s": self.most(|check| check.oldest_silent_s),
            "oldest_ghost_clean_s": self.most(|check| check.oldest_clean_s),
            "filled": self.filled,
            "churned": self.calmed,
            "arrived": self.last.arrived(),
            "cpu_ms_per_arrival": spent.map(|(all, start)| (all - start) / self.last.arrived()),
            "rss_kb_per_1000": self.per_thousand("rss_kb"),
            "heap_kb_per_1000": self.per_thousand("heap_kb"),
            "curve_k_rss_heap": self.curve(),
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
            && self.after["slots"] == 0;
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
            &["a", "b", "d", "e"],
            json!({
                "live": [["a", 9.0], ["c", 0.1]], "connecting": ["b"],
                "ended": [["d", 39.0, true], ["e", 0.5, false]],
            }),
        );
        assert!(fine.right(), "{fine:?}");
        assert_eq!((fine.oldest_silent_s, fine.oldest_clean_s), (39.0, 0.5));
        let view = |view: &str| serde_json::from_str(view).unwrap();
        for (sessions, seen) in [
            (&[][..], r#"{"live":[["a",2.0]],"ended":[],"connecting":[]}"#),
            (&["a"], r#"{"live":[],"ended":[["a",1.5,false]],"connecting":[]}"#),
            (&["a"], r#"{"live":[],"ended":[["a",40.5,true]],"connecting":[]}"#),
            (&["a"], r#"{"live":[],"ended":[],"connecting":[]}"#),
        ] {
            assert!(!found(sessions, view(seen)).right(), "{sessions:?} {seen}");
        }
    }

    #[test]
    fn the_last_end_of_an_identity_counts_and_a_double_is_seen() {
        let ended = json!([["a", 60.0, true], ["a", 3.0, true]]);
        let check =
            found(&["a", "b", "b"], json!({ "live": [["b", 5.0]], "connecting": [], "ended": ended }));
        assert!(check.right() && check.doubles == 1, "{check:?}");
    }

    #[test]
    fn a_slope_is_that_of_the_line() {
        assert_eq!(slope(&[(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]), Some(2.0));
        assert_eq!(slope(&[(1.0, 1.0)]), None);
    }
}
