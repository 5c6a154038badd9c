//! Storms of a few peers on the floor, through the program as users call it.

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
fn every_peer_of_a_storm_is_verified_on_both_sides() {
    for options in ["--identity mldsa65", "--identity ed25519 --sources many --default-buffers"] {
        let line = line(&format!("storm quinn --peers 20 --runs 2 --json {options}"));
        assert_eq!((&line["verified"], &line["lost"]), (&20.into(), &0.into()), "{line}");
        assert_eq!(line["server_verified"], Value::from(vec![20, 20]), "{line}");
        assert_eq!(line["client_verified"], Value::from(vec![20, 20]), "{line}");
        for name in ["cpu_ratio_to_quinn", "rss_ratio_to_quinn"] {
            assert_eq!(line[name], 1.0, "the floor is held against itself: {line}");
        }
        for name in ["p50_ms", "p99_ms", "cpu_ms_per_peer", "connects_per_s", "wall_s"] {
            assert!(line[name].as_f64().is_some_and(|value| value > 0.0), "{name} of {line}");
        }
    }
}

#[test]
fn more_peers_than_descriptors_are_refused_with_what_to_do() {
    let script =
        format!("ulimit -n 64; exec {} storm quinn --peers 100 --runs 1", env!("CARGO_BIN_EXE_bench"));
    let output = Command::new("sh").args(["-c", &script]).output().expect("there is a shell");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("164 descriptors are needed and 64 allowed"), "{said}");
}

#[cfg(not(feature = "rivals"))]
#[test]
fn a_rival_that_is_not_built_in_says_how_to_build_it() {
    let output = bench("vs storm");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("--features rivals"), "{said}");
}
