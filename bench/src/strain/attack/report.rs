//! What an attack came to, as a line for machines and as tables.

use serde_json::{Value, json};

use super::super::Outcome;
use super::super::options::AttackAsked;
use super::number;

/// All that was measured of one attack.
pub struct Report<'a> {
    /// What was asked for.
    pub asked: &'a AttackAsked,
    /// Honest peers with no attack anywhere.
    pub alone: Value,
    /// Honest peers while the attackers speak to a socket that never answers.
    pub elsewhere: Value,
    /// Honest peers while their server is attacked.
    pub attacked: Value,
    /// What the attack alone cost the server.
    pub cost: Value,
    /// The server before the first attack.
    pub before: Value,
    /// The server after the last one.
    pub last: Value,
}

impl Report<'_> {
    /// Prints it. An error says which promise was broken.
    pub fn print(&self) -> Outcome<()> {
        let line = self.line()?;
        if self.asked.json {
            println!("{line}");
        } else {
            self.tables(&line);
        }
        let failed = number(&self.attacked, "failed")?;
        if failed > 0.0 {
            return Err(format!("{failed} honest peers failed under attack"));
        }
        if self.last["balanced"] != true || self.last["panics"] != 0 {
            return Err("the accounts are off, or something panicked".into());
        }
        let gained = number(&line, "gained")?;
        if gained > 0.0 {
            return Err(format!("somebody was taken for somebody else: {gained} gained"));
        }
        let (grown, bound) = (number(&line, "rss_kb_grown")?, number(&line, "handshakes_kb_bound")?);
        if grown > bound {
            return Err(format!("the server has grown by {grown} kB, {bound} may be held by handshakes"));
        }
        Ok(())
    }

    fn line(&self) -> Outcome<Value> {
        let p99 = |of: &Value| of["p99_ms"].as_f64();
        let over = |base: &Value| p99(&self.attacked).zip(p99(base)).map(|(under, base)| under / base);
        let before = number(&self.before, "rss_kb")?;
        let most = number(&self.cost, "rss_kb")?.max(number(&self.last, "rss_kb")?);
        Ok(json!({
            "bench": "attack",
            "attack": self.asked.name(),
            "admit": self.asked.admit.name(),
            "acts": self.asked.acts.iter().map(|(kind, count)| json!([kind.name(), count])).collect::<Vec<_>>(),
            "seconds": self.asked.seconds,
            "cost": self.cost,
            "gained": self.gained()?,
            "honest_alone": self.alone,
            "honest_elsewhere": self.elsewhere,
            "honest_under": self.attacked,
            "p99_ratio_to_elsewhere": over(&self.elsewhere),
            "p99_ratio_to_alone": over(&self.alone),
            "rss_kb_before": before,
            "rss_kb_grown": most - before,
            "handshakes_kb_bound": self.asked.admit.limits().most_bytes() as f64 / 1024.0,
            "accounts_last": self.last["accounts"],
            "balanced": self.last["balanced"],
        }))
    }

    /// Sessions that the server had in the attack alone and nobody accounts for, and what attackers have told of their own gain.
    fn gained(&self) -> Outcome<f64> {
        let sessions = |accounts: &Value| {
            let ended = accounts["ended"].as_object().into_iter().flat_map(|ended| ended.values());
            ended.filter_map(Value::as_f64).sum::<f64>() + accounts["live"].as_f64().unwrap_or(0.0)
        };
        let attackers = self.cost["attackers"].as_array().ok_or("nobody attacked")?;
        let told = |name: &str| attackers.iter().filter_map(|attacker| attacker[name].as_f64()).sum::<f64>();
        let had = sessions(&self.cost["accounts_after"]) - sessions(&self.cost["accounts_before"]);
        Ok(told("gained") + (had - told("sessions")).max(0.0))
    }

    fn tables(&self, line: &Value) {
        let Self { asked, cost, .. } = self;
        let acts: Vec<_> =
            asked.acts.iter().map(|(kind, count)| format!("{} x {count}", kind.name())).collect();
        println!(
            "{} in {} s, handshakes admitted as `{}`",
            acts.join(", "),
            asked.seconds,
            asked.admit.name()
        );
        let shown = |of: &Value, name: &str, decimals: usize| {
            of[name].as_f64().map_or_else(|| "-".to_owned(), |value| format!("{value:.decimals$}"))
        };
        println!(
            "an act costs {} CPU ms, {} kB resident, {} kB of heap; all of them {} cores",
            shown(cost, "cpu_ms_per_act", 4),
            shown(cost, "rss_kb_per_act", 2),
            shown(cost, "heap_kb_per_act", 2),
            shown(cost, "cores", 2),
        );
        println!("attackers: {}", cost["attackers"]);
        println!("taken for somebody else: {}", shown(line, "gained", 0));
        println!(
            "accounts before it: {}\naccounts after it:  {}\nafter the next one: {}",
            cost["accounts_before"], cost["accounts_after"], self.last["accounts"]
        );
        println!(
            "{:<22} {:>8} {:>8} {:>10} {:>10} {:>10}",
            "honest peers", "all", "failed", "p50 ms", "p99 ms", "max ms"
        );
        let rows =
            [("alone", &self.alone), ("attack elsewhere", &self.elsewhere), ("under attack", &self.attacked)];
        for (name, of) in rows {
            println!(
                "{name:<22} {:>8} {:>8} {:>10} {:>10} {:>10}",
                shown(of, "connects", 0),
                shown(of, "failed", 0),
                shown(of, "p50_ms", 1),
                shown(of, "p99_ms", 1),
                shown(of, "max_ms", 1),
            );
            of["reasons"].as_array().into_iter().flatten().for_each(|why| println!("  failed: {why}"));
        }
        println!(
            "p99 under attack: {} of that with the attack elsewhere, {} of that alone",
            shown(line, "p99_ratio_to_elsewhere", 2),
            shown(line, "p99_ratio_to_alone", 2)
        );
        println!(
            "the server grew from {} kB by {}; handshakes may hold {}",
            shown(line, "rss_kb_before", 0),
            shown(line, "rss_kb_grown", 0),
            shown(line, "handshakes_kb_bound", 0)
        );
    }
}
