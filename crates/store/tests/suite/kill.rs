//! A real process, really killed, on a real file.

use crate::chain::{Model, config};
use rookery_store::{Base, Store};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// Names the file to a child that is this test binary again.
const CHILD: &str = "ROOKERY_STORE_KILL_CHILD";

/// Not a test of its own: what the child runs. Commits and acknowledges until it is killed.
#[test]
fn child() {
    let Ok(path) = std::env::var(CHILD) else { return };
    let mut store = Store::open(Path::new(&path), &config()).unwrap();
    let mut model = model_of(&store);
    let mut out = std::io::stdout().lock();
    loop {
        let batch = model.replace(model.main.len(), 137, 0);
        store.commit(&batch).unwrap();
        writeln!(out, "\nack {}", model.main.len()).unwrap();
        out.flush().unwrap();
    }
}

/// The chain is of branch 0 throughout, so its length says all of it.
fn model_of(store: &Store) -> Model {
    let mut model = Model::new(Base::default());
    model.main.resize(store.state().len(), 0);
    model
}

#[test]
fn a_killed_process_loses_nothing_that_it_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("headers.redb");
    let mut before = 0;
    for acknowledgements in [1usize, 2, 3, 5, 8, 13] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill::child", "--nocapture", "--test-threads=1"])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut last = None;
        let mut seen = 0;
        let mut line = String::new();
        while seen < acknowledgements {
            line.clear();
            assert!(out.read_line(&mut line).unwrap() > 0, "the child ended by itself");
            if let Some(count) = line.strip_prefix("ack ") {
                last = Some(count.trim().parse::<usize>().unwrap());
                seen += 1;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it still said before it died counts as well; a cut last line does not.
        let mut rest = String::new();
        out.read_to_string(&mut rest).unwrap();
        let whole = rest.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let acks = whole.lines().filter_map(|line| line.strip_prefix("ack "));
        let last = acks.filter_map(|count| count.parse().ok()).next_back().or(last).unwrap();

        let store = Store::open(&path, &config()).unwrap();
        assert!(store.recovered());
        let kept = store.state().len();
        assert!(kept == last || kept == last + 137, "acknowledged {last}, kept {kept}");
        assert!(kept > before);
        model_of(&store).assert_held_by(&store);
        before = kept;
    }
}
