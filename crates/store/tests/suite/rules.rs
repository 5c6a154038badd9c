//! The rules of a batch, and the bounds on what is kept.

use crate::chain::{Model, config, header};
use rookery_base::{Hash32, Work};
use rookery_store::{
    Base, Batch, MAX_BLOB_BYTES, MAX_BLOBS, MemoryDisk, Reorg, Run, SideHeader, Store, StoreError,
};

fn store_with(count: usize) -> (Store, Model) {
    let mut store = Store::in_memory(&MemoryDisk::new(), &config()).unwrap();
    let mut model = Model::new(Base::default());
    store.commit(&model.replace(0, count, 0)).unwrap();
    (store, model)
}

fn of(run: Run) -> Batch {
    Batch { run: Some(run), ..Batch::default() }
}

#[test]
fn a_batch_that_breaks_a_rule_writes_nothing_and_the_store_goes_on() {
    let (mut store, mut model) = store_with(500);
    let work = model.work_of(500);
    let mut short = Run::extend(500, work);
    short.push(&[0; 80], Hash32::ZERO, work);
    let side = SideHeader { height: 3, hash: Hash32::ZERO, raw: vec![0; 80] };
    let blob = |name: &str, len| Batch { blobs: vec![(name.to_owned(), vec![0; len])], ..Batch::default() };
    let many = (0..=MAX_BLOBS).map(|n| (n.to_string(), Vec::new())).collect();
    let mut with_good_run = of(model.run(500, 10, 0));
    with_good_run.side.push(side);
    for bad in [
        of(Run::extend(501, work)),
        of(Run::extend(499, work)),
        of(Run::extend(500, work + Work::from(1))),
        of(Run::replace(501, work)),
        of(Run::replace(0, Work::from(1))),
        of(short),
        with_good_run,
        blob("", 1),
        blob(&"n".repeat(65), 1),
        blob("big", MAX_BLOB_BYTES + 1),
        Batch { blobs: many, ..of(model.run(500, 10, 0)) },
    ] {
        let error = store.commit(&bad).unwrap_err();
        assert!(matches!(error, StoreError::Batch { .. }), "{bad:?}: {error}");
        model.assert_held_by(&store);
    }
    store.commit(&model.replace(500, 10, 0)).unwrap();
    model.assert_held_by(&store);
}

#[test]
fn cutting_to_any_height_and_to_nothing() {
    let (mut store, mut model) = store_with(2_500);
    for position in [2_499, 2_047, 2_046, 2_045, 555, 554, 553, 277, 1, 0] {
        let before = model.main.len();
        let done = store.commit(&model.replace(position, 0, 0)).unwrap();
        assert_eq!((done.written, done.removed), (0, before - position));
        model.assert_held_by(&store);
    }
    assert!(store.state().is_empty());
}

#[test]
fn the_last_height_is_never_passed() {
    let base = Base { height: u32::MAX - 2, work_before: Work::ZERO };
    let mut store =
        Store::in_memory(&MemoryDisk::new(), &rookery_store::Config { base, ..config() }).unwrap();
    let mut model = Model::new(base);
    let mut run = Run::extend(base.height, Work::ZERO);
    for _ in 0..3 {
        run.push(&header(0, 0).0, Hash32::ZERO, Work::ZERO);
    }
    assert!(matches!(store.commit(&of(run)), Err(StoreError::Batch { .. })));
    store.commit(&model.replace(0, 2, 0)).unwrap();
    model.assert_held_by(&store);
}

#[test]
fn side_headers_and_reorganisations_are_bounded() {
    let (mut store, mut model) = store_with(20);
    for number in 0..12u32 {
        let (raw, hash) = header(40 - number, 9);
        let tip = store.state().tip.unwrap();
        let mut batch = Batch::default();
        batch.side.push(SideHeader { height: 40 - number, hash, raw });
        batch.reorg = Some(Reorg {
            fork: 1,
            old_tip: (tip.height, tip.hash),
            new_tip: (tip.height, hash),
            unix_time: u64::from(number),
        });
        model.note(&batch);
        store.commit(&batch).unwrap();
        model.assert_held_by(&store);
    }
    let reader = store.reader();
    assert_eq!(reader.side_headers().unwrap().len(), config().max_side);
    assert_eq!(reader.reorgs(2).unwrap().iter().map(|record| record.sequence).collect::<Vec<_>>(), [10, 11]);
    assert_eq!(reader.reorgs(1).unwrap()[0].reorg.depth(), 18);
    let (raw, hash) = header(40, 9);
    assert_eq!(reader.side_header(40, &hash).unwrap(), Some(SideHeader { height: 40, hash, raw }));
    assert_eq!(reader.side_header(39, &hash).unwrap(), None);
}

#[test]
fn a_reader_sees_whole_commits_while_the_writer_works() {
    let (mut store, mut model) = store_with(300);
    let reader = store.reader();
    let (send, receive) = std::sync::mpsc::sync_channel::<()>(0);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while receive.try_recv() != Err(std::sync::mpsc::TryRecvError::Disconnected) {
                let mut seen = 0;
                let state = reader.visit_hashes(&mut |chunk| seen += chunk.hashes.len()).unwrap();
                assert_eq!(seen, state.len());
            }
        });
        for branch in 1..40 {
            store.commit(&model.replace(model.main.len() / 2, 200, branch)).unwrap();
        }
        drop(send);
    });
    model.assert_held_by(&store);
}

#[test]
fn what_is_printed_of_a_batch_holds_no_blob() {
    let batch = Batch { blobs: vec![("secret".to_owned(), vec![7; 3])], ..Batch::default() };
    assert_eq!(format!("{batch:?}"), r#"Batch { run: None, side: 0, reorg: None, blobs: [("secret", 3)] }"#);
}
