//! What depends on what: the architecture's one-way rule, and what comes from outside.
//!
//! ```text
//! base <- observe <- runtime <- transport <- engine <- sync <- networks/* <- bin
//!   ^------------------- store <------------------------'
//! ```
//!
//! Read from `cargo metadata`, so that it holds for what is built and not for what was meant. A new crate has to take
//! its place in [`RULES`] before this passes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Each crate of `crates/` that is shipped, and what it may then use of the workspace.
const RULES: &[(&str, &[&str])] = &[
    ("rookery-base", &[]),
    ("rookery-observe", &["rookery-base"]),
    ("rookery-runtime", &["rookery-base", "rookery-observe"]),
    ("rookery-store", &["rookery-base", "rookery-runtime"]),
    ("rookery-transport", &["rookery-base", "rookery-observe", "rookery-runtime"]),
    ("rookery-engine", &["rookery-base", "rookery-observe", "rookery-runtime", "rookery-transport"]),
    (
        "rookery-sync",
        &[
            "rookery-base",
            "rookery-engine",
            "rookery-observe",
            "rookery-runtime",
            "rookery-store",
            "rookery-transport",
        ],
    ),
];

/// Crates for tests and tools. They may use anything; nothing that is shipped uses them, but for [`SIMULATES`].
const TOOLS: &[&str] = &["rookery-sim", "rookery-testkit"];

/// `rookery sim` is one of the program's commands, so the program alone carries the simulator.
const SIMULATES: (&str, &str) = ("rookery", "rookery-sim");

/// Licences that both of ours can be combined with.
const LICENCES: &[&str] = &[
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Packages that are built in several versions, and why that is borne: each costs build time and a second copy.
const DUPLICATES: &[(&str, &str)] = &[
    ("cpufeatures", "const-hex has 0.2, the random generators have 0.3"),
    ("syn", "num_enum, which crab_nat derives with, has 2, the others have 3; it is not in the program"),
];

/// A package of the build.
#[derive(Debug)]
struct Package {
    name: String,
    version: String,
    licence: String,
    /// Where it comes from; none for the workspace's own.
    source: Option<String>,
    manifest: PathBuf,
    /// What it needs when it is shipped.
    normal: BTreeSet<String>,
}

impl Package {
    /// The folder that it stands in: `crates`, `networks` or `bin`.
    fn shelf(&self) -> &str {
        let shelf = self.manifest.ancestors().nth(2).and_then(Path::file_name);
        shelf.and_then(|name| name.to_str()).unwrap_or_default()
    }
}

/// Asks cargo, without the network: the suite was just built from the same lock file.
fn cargo(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(args)
        .args(["--offline", "--manifest-path"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.toml"))
        .output()
        .expect("cargo starts");
    assert!(output.status.success(), "cargo {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("cargo prints UTF-8")
}

/// What cargo compiles along these edges on this machine: names and versions. `cargo metadata` lists more, such as
/// what features that are off would need.
fn built(edges: &str) -> BTreeSet<(String, String)> {
    let edges = format!("--edges={edges}");
    let tree = cargo(&["tree", "--workspace", &edges, "--prefix=none", "--format={p}"]);
    let words = tree.lines().map(|line| line.split_whitespace());
    let named = words.filter_map(|mut words| Some((words.next()?, words.next()?.strip_prefix('v')?)));
    let built: BTreeSet<_> = named.map(|(name, version)| (name.to_owned(), version.to_owned())).collect();
    assert!(built.iter().any(|(name, _)| name == "rookery-base"), "cargo tree lists the workspace");
    built
}

/// Everything that is compiled here, for the program or for its tests.
fn packages() -> Vec<Package> {
    let built = built("normal,build,dev");
    let text = cargo(&["metadata", "--format-version=1", "--filter-platform", &host()]);
    let metadata: Value = serde_json::from_str(&text).expect("metadata is JSON");
    let all = list(&metadata["packages"]).iter().map(package);
    all.filter(|package| built.contains(&(package.name.clone(), package.version.clone()))).collect()
}

/// This machine as cargo names it. What only other systems need is not fetched here, so it cannot be asked for.
fn host() -> String {
    let output = Command::new(env!("CARGO")).arg("-vV").output().expect("cargo starts");
    let text = String::from_utf8(output.stdout).expect("cargo prints UTF-8");
    text.lines().find_map(|line| line.strip_prefix("host: ")).expect("cargo names its host").to_owned()
}

fn package(found: &Value) -> Package {
    let normal = list(&found["dependencies"]).iter().filter(|dependency| dependency["kind"].is_null());
    Package {
        name: text_of(&found["name"]).to_owned(),
        version: text_of(&found["version"]).to_owned(),
        licence: found["license"].as_str().unwrap_or_default().to_owned(),
        source: found["source"].as_str().map(str::to_owned),
        manifest: text_of(&found["manifest_path"]).into(),
        normal: normal.map(|dependency| text_of(&dependency["name"]).to_owned()).collect(),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text_of(value: &Value) -> &str {
    value.as_str().expect("cargo metadata has a string here")
}

#[test]
fn dependencies_point_one_way() {
    let mut packages = packages();
    packages.retain(|package| package.source.is_none());
    let own: BTreeSet<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    assert!(own.len() > RULES.len() + TOOLS.len(), "cargo metadata lists the workspace: {own:?}");
    let layers: BTreeSet<&str> = RULES.iter().map(|&(name, _)| name).collect();
    let networks: BTreeSet<&str> = packages
        .iter()
        .filter(|package| package.shelf() == "networks")
        .map(|package| package.name.as_str())
        .collect();
    let mut wrong = Vec::new();
    for package in &packages {
        let name = package.name.as_str();
        if TOOLS.contains(&name) {
            continue;
        }
        let rule = RULES.iter().find(|&&(of, _)| of == name).map(|&(_, may)| may);
        let may = |used: &str| match package.shelf() {
            "crates" => rule.is_some_and(|may| may.contains(&used)),
            // A network sees the layers, and no other network.
            "networks" => layers.contains(used),
            "bin" => layers.contains(used) || networks.contains(used) || (name, used) == SIMULATES,
            shelf => panic!("{name} stands in {shelf}: expected crates, networks or bin"),
        };
        assert!(package.shelf() != "crates" || rule.is_some(), "{name} has no place in RULES yet");
        let used = package.normal.iter().map(String::as_str).filter(|used| own.contains(used));
        wrong.extend(used.filter(|used| !may(used)).map(|used| format!("{name} -> {used}")));
    }
    assert!(wrong.is_empty(), "against RULES: {wrong:#?}");
}

#[test]
fn rules_have_no_circle_and_name_crates_that_exist() {
    let packages = packages();
    for (at, (name, may)) in RULES.iter().enumerate() {
        assert!(packages.iter().any(|package| package.name == *name), "{name} is not in the workspace");
        let before: BTreeSet<&str> = RULES[..at].iter().map(|&(name, _)| name).collect();
        assert!(may.iter().all(|used| before.contains(used)), "{name} may use only what stands before it");
    }
}

#[test]
fn what_comes_from_outside_is_published_and_licensed_for_us() {
    let mut wrong = Vec::new();
    for Package { name, version, licence, source, .. } in packages() {
        if let Some(source) = source.filter(|source| !source.starts_with("registry+")) {
            wrong.push(format!("{name} {version} comes from {source}: expected a registry"));
        }
        if !allowed(&licence) {
            wrong.push(format!("{name} {version} is licensed {licence:?}: expected one of LICENCES"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn nothing_is_built_in_two_versions_without_a_reason() {
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, version) in built("normal,build") {
        versions.entry(name).or_default().insert(version);
    }
    versions.retain(|_, versions| versions.len() > 1);
    let borne: BTreeSet<&str> = DUPLICATES.iter().map(|&(name, _)| name).collect();
    let stale: Vec<&&str> = borne.iter().filter(|name| !versions.contains_key(**name)).collect();
    assert!(stale.is_empty(), "in DUPLICATES, but built in one version only: {stale:?}");
    versions.retain(|name, _| !borne.contains(name.as_str()));
    assert!(versions.is_empty(), "built in several versions, and not in DUPLICATES: {versions:#?}");
}

/// Whether a licence expression gives us one alternative made of [`LICENCES`]. `/` is how older manifests wrote `OR`.
/// Where there are parentheses every licence named has to be allowed: stricter than the expression, and enough so far.
fn allowed(expression: &str) -> bool {
    let known = |licence: &str| LICENCES.contains(&licence.trim().trim_matches(['(', ')']).trim());
    let flat = expression.replace('/', " OR ");
    let mut alternatives = flat.split(" OR ");
    let good = |alternative: &str| alternative.split(" AND ").all(known);
    if flat.contains('(') { alternatives.all(good) } else { alternatives.any(good) }
}

#[test]
fn licence_expressions_are_read() {
    for (expression, expected) in [
        ("MIT", true),
        ("MIT OR Apache-2.0", true),
        ("Unlicense/MIT", true),
        ("GPL-3.0-only OR MIT", true),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
        ("(MIT OR Apache-2.0) AND GPL-3.0-only", false),
        ("MIT AND GPL-3.0-only", false),
        ("Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT", true),
        ("GPL-3.0-only", false),
        ("", false),
    ] {
        assert_eq!(allowed(expression), expected, "{expression:?}");
    }
}
