//! The reference pages are what the program says. `UPDATE=1 cargo test -p rookery --test suite reference` rewrites them.

use std::path::PathBuf;

fn keep(name: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference").join(name);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = kept.lines().zip(text.lines()).position(|(a, b)| a != b);
    assert!(
        kept == text,
        "docs/reference/{name} differs from the program (line {}): run UPDATE=1 cargo test -p rookery --test suite reference",
        differs.map_or(kept.lines().count().min(text.lines().count()), |line| line) + 1
    );
}

#[test]
fn the_command_line_page_is_true() {
    keep("cli.md", &rookery::cli::reference());
}

#[test]
fn the_configuration_page_is_true() {
    let text = rookery::config::text::default_toml();
    let head = "# Configuration\n\nGenerated from the program (`rookery config`); a test keeps it true.\n";
    keep("config.md", &format!("{head}\n```toml\n{text}```\n"));
}

#[test]
fn the_metrics_page_is_true() {
    let mut text = String::from(
        "# Metrics\n\nGenerated from the program; a test keeps it true. Served at `/metrics` by `--metrics ADDRESS`, in the\n\
         OpenMetrics text format. Counters end in `_total`, times are in seconds, sizes in bytes. Labels come from small\n\
         closed sets: a direction, a message, a reason. A peer is never a label.\n\n| metric | meaning |\n|---|---|\n",
    );
    for (name, help) in rookery_observe::metrics::REFERENCE {
        text.push_str(&format!("| `rookery_{name}` | {help} |\n"));
    }
    keep("metrics.md", &text);
}
