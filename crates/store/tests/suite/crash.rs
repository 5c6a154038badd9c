//! Whatever goes wrong, and whenever: what was acknowledged is there, and of the rest at most the batch in flight.

use crate::chain::{Model, config, header};
use proptest::prelude::*;
use rookery_base::Work;
use rookery_store::{Base, Batch, MemoryDisk, Reorg, SideHeader, Store, StoreError};
use std::io;

/// One batch: how far back it begins, how many headers it writes, and what else it carries.
#[derive(Debug, Clone)]
struct Step {
    back: usize,
    count: usize,
    side: usize,
    reorg: bool,
    blob: usize,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let back = prop_oneof![3 => Just(0usize), 1 => 1usize..20, 1 => 200usize..700];
    let count = prop_oneof![2 => 0usize..5, 2 => 1usize..400, 1 => 500usize..900];
    let step = (back, count, 0usize..4, any::<bool>(), prop_oneof![Just(0usize), 1usize..9_000])
        .prop_map(|(back, count, side, reorg, blob)| Step { back, count, side, reorg, blob });
    proptest::collection::vec(step, 1..9)
}

fn base() -> Base {
    Base { height: 1_000, work_before: Work::from(77) }
}

/// The batch of a step, and the model after it.
fn batch(before: &Model, number: usize, step: &Step) -> (Batch, Model) {
    let mut after = before.clone();
    let position = before.main.len().saturating_sub(step.back);
    let mut batch = after.replace(position, step.count, number as u32);
    for offset in 0..step.side {
        // Some of them become main-chain headers of the next step.
        let height = after.height(after.main.len() + offset);
        let (raw, hash) = header(height, number as u32 + 1);
        batch.side.push(SideHeader { height, hash, raw });
    }
    if step.reorg {
        let end = |model: &Model| model.state().tip.map_or(Default::default(), |tip| (tip.height, tip.hash));
        let fork = before.height(position) - 1;
        batch.reorg =
            Some(Reorg { fork, old_tip: end(before), new_tip: end(&after), unix_time: number as u64 });
    }
    if step.blob > 0 {
        batch.blobs.push((format!("blob-{}", number % 2), vec![number as u8; step.blob]));
    }
    after.note(&batch);
    (batch, after)
}

fn open(disk: &MemoryDisk) -> Result<Store, StoreError> {
    Store::in_memory(disk, &rookery_store::Config { base: base(), cache_bytes: 64 << 10, ..config() })
}

/// Opens a store and commits all steps, stopping at the first error. Returns the models after each acknowledged
/// commit, and the one of the batch in flight.
fn work(disk: &MemoryDisk, steps: &[Step]) -> (Vec<Model>, Option<Model>) {
    let mut acknowledged = vec![Model::new(base())];
    let Ok(mut store) = open(disk) else { return (acknowledged, None) };
    for (number, step) in steps.iter().enumerate() {
        let (batch, after) = batch(acknowledged.last().unwrap(), number, step);
        match store.commit(&batch) {
            Ok(done) => {
                assert_eq!(done.state, after.state());
                acknowledged.push(after);
            }
            Err(error) => {
                assert!(!matches!(error, StoreError::Batch { .. }), "{error}");
                assert!(matches!(store.commit(&batch), Err(StoreError::Failed { .. })), "after {error}");
                return (acknowledged, Some(after));
            }
        }
    }
    (acknowledged, None)
}

fn assert_prefix(disk: &MemoryDisk, acknowledged: &[Model], in_flight: Option<&Model>, context: &str) {
    disk.clear_plan();
    let store = open(disk).unwrap_or_else(|error| panic!("{context}: {error}"));
    let last = acknowledged.last().unwrap();
    let held = in_flight.filter(|in_flight| in_flight.is_held_by(&store)).unwrap_or(last);
    held.assert_held_by(&store);
}

fn operations(steps: &[Step]) -> u64 {
    let disk = MemoryDisk::new();
    let (acknowledged, in_flight) = work(&disk, steps);
    assert_eq!((acknowledged.len(), in_flight), (steps.len() + 1, None));
    assert_prefix(&disk, &acknowledged, None, "without any fault");
    disk.operations()
}

#[test]
fn a_crash_at_every_single_operation_keeps_what_was_acknowledged() {
    let step = |back, count, blob| Step { back, count, side: 2, reorg: back > 0, blob };
    let steps = [
        step(0, 600, 0),
        step(0, 1, 5_000),
        step(30, 40, 0),
        step(500, 700, 100),
        step(3, 0, 0),
        step(0, 9, 9),
    ];
    let mut landed_in_flight = 0;
    for after in 0..operations(&steps) {
        for seed in 0..6 {
            let disk = MemoryDisk::new();
            disk.crash_after(after, seed * 1_000 + after);
            let (acknowledged, in_flight) = work(&disk, &steps);
            // The plan may only fire when the store closes: cut the power then, too.
            disk.crash(seed);
            assert_prefix(
                &disk,
                &acknowledged,
                in_flight.as_ref(),
                &format!("operation {after}, seed {seed}"),
            );
            let store = open(&disk).unwrap();
            landed_in_flight += usize::from(in_flight.is_some_and(|model| model.is_held_by(&store)));
        }
    }
    assert!(landed_in_flight > 0, "no crash ever came after the point of no return");
}

#[test]
fn an_error_at_every_single_operation_keeps_what_was_acknowledged() {
    let step = |back, count| Step { back, count, side: 1, reorg: true, blob: 50 };
    let steps = [step(0, 300), step(10, 500), step(0, 2)];
    for kind in [io::ErrorKind::StorageFull, io::ErrorKind::Other] {
        for after in 0..operations(&steps) {
            let disk = MemoryDisk::new();
            disk.fail_after(after, kind);
            let (acknowledged, in_flight) = work(&disk, &steps);
            assert_prefix(
                &disk,
                &acknowledged,
                in_flight.as_ref(),
                &format!("{kind:?} at operation {after}"),
            );
        }
    }
}

#[test]
fn a_full_disk_is_called_a_full_disk() {
    let disk = MemoryDisk::new();
    let mut store = open(&disk).unwrap();
    disk.fail_after(0, io::ErrorKind::StorageFull);
    let (batch, _) =
        batch(&Model::new(base()), 0, &Step { back: 0, count: 9, side: 0, reorg: false, blob: 0 });
    assert!(matches!(store.commit(&batch), Err(StoreError::DiskFull { .. })));
    drop(store);
    assert!(open(&disk).unwrap().commit(&batch).is_ok());
}

#[test]
fn the_same_seed_leaves_the_same_bytes() {
    let steps = [Step { back: 0, count: 700, side: 2, reorg: true, blob: 10 }];
    let run = || {
        let disk = MemoryDisk::new();
        disk.crash_after(12, 3);
        work(&disk, &steps);
        disk.image()
    };
    assert_eq!(run(), run());
}

#[test]
fn a_fresh_store_is_small_enough_for_a_thousand_in_one_process() {
    let disk = MemoryDisk::new();
    let _store = open(&disk).unwrap();
    assert!(disk.resident_bytes() <= 128 << 10, "{} bytes", disk.resident_bytes());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn random_batches_crash_anywhere_and_go_on(steps in steps(), more in steps(), place in 0.0f64..1.0, seed: u64) {
        let after = (operations(&steps) as f64 * place) as u64;
        let disk = MemoryDisk::new();
        disk.crash_after(after, seed);
        let (acknowledged, in_flight) = work(&disk, &steps);
        disk.crash(seed);
        assert_prefix(&disk, &acknowledged, in_flight.as_ref(), &format!("operation {after}, seed {seed}"));
        // And the reopened store is as good as any.
        let mut store = open(&disk).unwrap();
        let mut model = match in_flight {
            Some(in_flight) if in_flight.is_held_by(&store) => in_flight,
            _ => acknowledged.last().unwrap().clone(),
        };
        for (number, step) in more.iter().enumerate() {
            let (batch, next) = batch(&model, 100 + number, step);
            store.commit(&batch).unwrap();
            model = next;
        }
        drop(store);
        model.assert_held_by(&open(&disk).unwrap());
    }
}
