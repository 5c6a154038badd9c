//! docs/acceptance.md names tests and scenarios: each of them has to exist.
#![expect(clippy::unwrap_used, reason = "a failed set-up fails the test")]

use std::collections::BTreeSet;
use std::path::Path;

/// Adds the names of all functions and all quoted names in a folder's Rust files.
fn names(folder: &Path, into: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            names(&path, into);
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let functions = text.split("fn ").skip(1).filter_map(|rest| rest.split(['(', '<']).next());
            into.extend(functions.map(|name| name.trim().to_owned()));
            if path.components().any(|part| part.as_os_str() == "scenarios") {
                into.extend(text.split('"').skip(1).step_by(2).map(|name| format!("sim {name}")));
            }
        }
    }
}

#[test]
fn every_test_and_scenario_that_the_page_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut known = BTreeSet::new();
    for folder in ["crates", "networks", "bin", "interop"] {
        names(&root.join(folder), &mut known);
    }
    let targets = std::fs::read_dir(root.join("fuzz/fuzz_targets")).unwrap();
    known
        .extend(targets.map(|file| file.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned()));
    let page = std::fs::read_to_string(root.join("docs/acceptance.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| ") || line.starts_with("sim "));
    let mut missing = Vec::new();
    for row in rows {
        let mut parts = row.split('`');
        while let (Some(before), Some(name)) = (parts.next(), parts.next()) {
            let name = if before.ends_with("sim ") { format!("sim {name}") } else { name.to_owned() };
            let is_name = name.contains('_') || name.starts_with("sim ");
            if is_name && name != "await_holding_lock" && !known.contains(&name) {
                missing.push(name);
            }
        }
    }
    assert!(missing.is_empty(), "docs/acceptance.md names what is not there: {missing:#?}");
}
