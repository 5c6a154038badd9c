//! What a node bears, with few peers and for seconds, through the program as users call it.

use std::process::{Command, Output};

use serde_json::Value;

fn bench(line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
    command.args(line.split_whitespace()).output().expect("the program was built for this test")
}

/// The only line that it prints.
fn line(of: &str) -> Value {
    let output = bench(of);
    assert!(output.status.success(), "{of}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "{of}: {text}");
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_churn_ends_as_it_began() {
    // Whether all was in time besides is for a machine that has the time.
    let output = bench("churn --peers 20 --per-second 10 --minutes 0.1 --idle 3 --json");
    let line: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&line["balanced_at_end"], &line["equal_at_end"]), (&true.into(), &true.into()), "{line}");
    assert_eq!((&line["strangers"], &line["slots_left"]), (&0.0.into(), &0.into()), "{line}");
    assert_eq!((&line["tasks_left"], &line["descriptors_left"]), (&0.0.into(), &0.0.into()), "{line}");
    // Half of the ends are silent, so that not all sessions can have been ended by the peers.
    assert!(line["churned"]["connects"].as_u64() >= Some(40), "{line}");
    assert!(line["ghosts"]["silent"]["oldest_s"].as_f64() > Some(0.5), "{line}");
}

#[test]
fn a_crowd_is_counted_at_each_size() {
    let output = bench("crowd --peers 30 --minutes 0.01 --json");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let sizes: Vec<_> = lines.iter().map(|line| (&line["peers"], &line["connected_after"])).collect();
    assert_eq!(sizes, [(&10.into(), &10.into()), (&30.into(), &30.into())], "{text}");
    assert!(output.status.success());
}

#[test]
fn attacks_reach_the_server_and_honest_peers_get_through() {
    let half_open = |admit: &str| line(&format!("attack half-open --count 20 --seconds 1 --json {admit}"));
    let proven = half_open("--always-retry");
    assert!(proven["cost"]["accounts_after"]["retried"].as_u64() >= Some(20), "{proven}");
    assert_eq!(proven["cost"]["accounts_after"]["shaking"], 0, "{proven}");
    let anyone = half_open("--no-retry");
    assert_eq!(anyone["cost"]["accounts_after"]["retried"], 0, "{anyone}");
    assert_eq!(anyone["cost"]["accounts_after"]["shaking"], 20, "{anyone}");
    let flood = line("attack flood --count 2000 --seconds 1 --json");
    let flooder = &flood["cost"]["attackers"][0];
    assert_eq!((&flooder["closed"], flooder["taken"].as_u64() > Some(0)), (&Value::Null, true), "{flood}");
    for line in [proven, anyone, flood] {
        assert_eq!(line["gained"], 0.0, "{line}");
        assert_eq!((&line["honest_under"]["failed"], &line["balanced"]), (&0.into(), &true.into()), "{line}");
    }
}

#[test]
fn nobody_is_taken_for_somebody_else() {
    for kind in ["thief", "twins", "relay", "replay"] {
        let line = line(&format!("attack {kind} --count 5 --seconds 6 --json"));
        let impostor = &line["cost"]["attackers"][0];
        assert_eq!((&impostor["acts"], &line["gained"]), (&5.into(), &0.0.into()), "{kind}: {line}");
        assert_eq!(
            (&line["honest_under"]["failed"], &line["balanced"]),
            (&0.into(), &true.into()),
            "{kind}: {line}"
        );
        let accounts = &line["cost"]["accounts_after"];
        // They have come as far as the server, and a thief was told no each time.
        assert!(
            accounts["arrived"].as_u64() > line["cost"]["accounts_before"]["arrived"].as_u64(),
            "{kind}: {line}"
        );
        assert_eq!(impostor["told_no"].as_u64().unwrap_or(5), 5, "{kind}: {line}");
    }
}

#[test]
fn every_honest_ask_is_answered_beside_a_flood() {
    let line = line("fairness --peers 4 --seconds 1 --json");
    for name in ["fair", "weighed", "plain"] {
        let (flooded, alone) = (&line[name]["flooded"]["answered"], &line[name]["alone"]["answered"]);
        assert!(flooded == alone && flooded.as_u64() > Some(0), "{name}: {line}");
        assert!(line[name]["flooded"]["flood_answered"].as_u64() > Some(0), "{name}: {line}");
    }
}
