//! Opening: what is refused, in which words, and that nothing refused is touched.

use crate::chain::{Model, RECORD, config};
use rookery_base::Work;
use rookery_store::{Base, Config, MAX_RECORD_LEN, MemoryDisk, Store, StoreError};
use std::fs;

#[test]
fn foreign_files_are_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("headers.redb");
    for content in [&b""[..], b"r", b"SQLite format 3\0 and so on", &[0; 8192], &[0xff; 100_000]] {
        fs::write(&path, content).unwrap();
        let error = Store::open(&path, &config()).unwrap_err();
        assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
        assert!(error.to_string().contains("headers.redb"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), content);
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_database_of_another_program_is_foreign() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("other.redb");
    drop(redb::Database::create(&path).unwrap());
    assert!(matches!(Store::open(&path, &config()), Err(StoreError::Foreign { .. })));
    let db = redb::Database::create(&path).unwrap();
    let txn = db.begin_write().unwrap();
    let table: redb::TableDefinition<'_, u64, u64> = redb::TableDefinition::new("meta");
    txn.open_table(table).unwrap().insert(1, 2).unwrap();
    txn.commit().unwrap();
    drop(db);
    assert!(matches!(Store::open(&path, &config()), Err(StoreError::Foreign { .. })));
}

#[test]
fn one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("headers.redb");
    let store = Store::open(&path, &config()).unwrap();
    assert!(matches!(Store::open(&path, &config()), Err(StoreError::Locked { .. })));
    // A reader that somebody forgot keeps neither the file nor the lock.
    let reader = store.reader();
    drop(store);
    assert!(matches!(reader.state(), Err(StoreError::Closed { .. })));
    let store = Store::open(&path, &config()).unwrap();
    assert!(!store.recovered());

    let disk = MemoryDisk::new();
    let _store = Store::in_memory(&disk, &config()).unwrap();
    assert!(matches!(Store::in_memory(&disk, &config()), Err(StoreError::Locked { .. })));
}

#[test]
fn other_networks_lengths_and_later_schemas_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("headers.redb");
    drop(Store::open(&path, &config()).unwrap());
    let other = Store::open(&path, &Config::new("other-net", RECORD)).unwrap_err();
    assert!(matches!(&other, StoreError::OtherNetwork { found, .. } if found == "test-net"), "{other}");
    let other = Store::open(&path, &Config::new("test-net", 80)).unwrap_err();
    assert!(matches!(other, StoreError::OtherRecordLen { found: RECORD, expected: 80, .. }), "{other}");

    let db = redb::Database::open(&path).unwrap();
    let txn = db.begin_write().unwrap();
    let meta: redb::TableDefinition<'_, &str, &[u8]> = redb::TableDefinition::new("meta");
    txn.open_table(meta).unwrap().insert("schema", &[0, 0, 0, 9, 0xff, 0xff, 0xff, 0xf6][..]).unwrap();
    txn.commit().unwrap();
    drop(db);
    let newer = Store::open(&path, &config()).unwrap_err();
    assert!(matches!(newer, StoreError::NewerSchema { found: 9, known: 1, .. }), "{newer}");
    assert!(newer.to_string().contains("newer rookery (schema 9"), "{newer}");
}

#[test]
fn a_half_made_file_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("headers.redb");
    fs::write(dir.path().join("headers.redb.new"), b"half").unwrap();
    drop(Store::open(&path, &config()).unwrap());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    assert!(Store::open(&path, &config()).is_ok());
}

#[test]
fn a_missing_directory_is_an_error_of_the_system() {
    let dir = tempfile::tempdir().unwrap();
    let error = Store::open(&dir.path().join("no/headers.redb"), &config()).unwrap_err();
    assert!(matches!(error, StoreError::Io { kind: std::io::ErrorKind::NotFound, .. }), "{error}");
}

#[test]
fn senseless_configurations_are_refused() {
    let disk = MemoryDisk::new();
    for bad in [
        Config::new("", RECORD),
        Config::new("n".repeat(65), RECORD),
        Config::new("n", 0),
        Config::new("n", MAX_RECORD_LEN + 1),
        Config { max_reorgs: 0, ..config() },
    ] {
        assert!(matches!(Store::in_memory(&disk, &bad), Err(StoreError::Config { .. })));
    }
}

#[test]
fn a_file_keeps_its_own_base() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("headers.redb");
    let base = Base { height: 150, work_before: Work::from(99) };
    let mut model = Model::new(base);
    let mut store = Store::open(&path, &Config { base, ..config() }).unwrap();
    store.commit(&model.replace(0, 1_000, 0)).unwrap();
    drop(store);
    let store = Store::open(&path, &config()).unwrap();
    model.assert_held_by(&store);
    assert_eq!(store.reader().headers(149, 10).unwrap(), Vec::<u8>::new());
}

#[cfg(unix)]
#[test]
fn the_file_is_its_owners_only() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("headers.redb");
    drop(Store::open(&path, &config()).unwrap());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}
