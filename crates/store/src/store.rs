//! Opening, committing, closing.

use crate::error::{Fail, StoreError, io_error};
use crate::layout::{
    self, BLOBS, FORMAT_ROW, Format, MAX_RECORD_LEN, META, REORGS, SCHEMA, SCHEMA_ROW, SIDE, TIP_ROW,
};
use crate::memory::MemoryDisk;
use crate::reader::{Reader, Shared, guarded, read_tip};
use crate::types::{Batch, Committed, Config, MAX_NETWORK_NAME, State};
use crate::write;
use redb::{Builder, Database, Durability, ReadableDatabase, TableError};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};

/// What every file of the database begins with. Looked at before the database sees the file: what begins with
/// anything else is somebody else's.
const MAGIC: [u8; 9] = *b"redb\x1a\x0a\xa9\x0d\x0a";

/// The one writer of a store. Dropping it closes the file, even while readers are around.
#[derive(Debug)]
pub struct Store {
    shared: Arc<Shared>,
    config: Config,
    state: State,
    recovered: bool,
    failed: Option<String>,
}

impl Store {
    /// Opens the store at `path`, or creates it if nothing is there. The directory must exist.
    ///
    /// A new file appears under its name only once it is whole: it is made beside it as `.new`, and a `.new` that
    /// a crash has left is made again. An existing file is never truncated, replaced or removed, whatever is in it.
    pub fn open(path: &Path, config: &Config) -> Result<Self, StoreError> {
        check_config(config)?;
        let label = path.display().to_string();
        let at = |fail: Fail| fail.at(&label);
        let opener = Opener::new(config);
        let io = |error: io::Error| io_error(&error, label.clone());
        let db = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let new = path.with_added_extension("new");
                let db = opener.run(|builder| Ok(builder.create_file(fresh(&new)?)?)).map_err(at)?;
                initialise(&db, config).map_err(at)?;
                publish(&new, path).map_err(|error| match error.kind() {
                    io::ErrorKind::AlreadyExists => StoreError::Locked { path: label.clone() },
                    _ => io(error),
                })?;
                db
            }
            Err(error) => return Err(io(error)),
            Ok(mut file) => {
                let mut head = Vec::with_capacity(MAGIC.len());
                file.by_ref().take(MAGIC.len() as u64).read_to_end(&mut head).map_err(io)?;
                check_magic(&head).map_err(at)?;
                drop(file);
                opener.run(|builder| Ok(builder.open(path)?)).map_err(at)?
            }
        };
        Self::with_database(label, db, config, opener.recovered())
    }

    /// Opens or creates a store on a disk in memory, for simulation and tests.
    pub fn in_memory(disk: &MemoryDisk, config: &Config) -> Result<Self, StoreError> {
        check_config(config)?;
        let label = "memory".to_owned();
        let at = |fail: Fail| fail.at(&label);
        let opener = Opener::new(config);
        let backend = disk.attach().ok_or_else(|| StoreError::Locked { path: label.clone() })?;
        let head = disk.head(MAGIC.len());
        if !head.is_empty() {
            check_magic(&head).map_err(at)?;
        }
        let db = opener.run(|builder| Ok(builder.create_with_backend(backend)?)).map_err(at)?;
        if head.is_empty() {
            guarded(|| initialise(&db, config)).map_err(at)?;
            disk.publish();
        }
        Self::with_database(label, db, config, opener.recovered())
    }

    fn with_database(
        path: String,
        db: Database,
        config: &Config,
        recovered: bool,
    ) -> Result<Self, StoreError> {
        let (format, state) = match guarded(|| Ok(inspect(&db, &path, config))) {
            Ok(inspected) => inspected?,
            Err(fail) => return Err(fail.at(&path)),
        };
        let shared = Arc::new(Shared { path, format, db: RwLock::new(Some(db)) });
        let store = Self { shared, config: config.clone(), state, recovered, failed: None };
        store.check_end()?;
        Ok(store)
    }

    /// The last chunks must be there and agree with the tip: a chain that cannot be extended is found at the start.
    fn check_end(&self) -> Result<(), StoreError> {
        let Some(tip) = self.state.tip else { return Ok(()) };
        let reader = self.reader();
        let (headers, hashes) = (reader.headers(tip.height, 1)?, reader.hashes(tip.height, 1)?);
        if headers.len() == self.shared.format.headers.record_len && hashes == [tip.hash] {
            return Ok(());
        }
        let path = self.shared.path.clone();
        Err(StoreError::Corrupt { path, detail: format!("the chain does not end in its tip {}", tip.hash) })
    }

    /// The main chain as the last commit left it.
    pub const fn state(&self) -> State {
        self.state
    }

    /// The last process did not close the file, so opening has checked all of it.
    pub const fn recovered(&self) -> bool {
        self.recovered
    }

    /// A handle for reading.
    pub fn reader(&self) -> Reader {
        Reader { shared: Arc::clone(&self.shared) }
    }

    /// Writes a batch as one transaction and returns once it is on disk.
    ///
    /// # Errors
    ///
    /// [`StoreError::Batch`] if the batch breaks a rule: nothing was written, and the store goes on. After any
    /// other error the store takes no more commits ([`StoreError::Failed`]): drop it and open it again, which
    /// tells whether the failed batch reached the disk. It did so as a whole or not at all.
    pub fn commit(&mut self, batch: &Batch) -> Result<Committed, StoreError> {
        if let Some(first) = &self.failed {
            return Err(StoreError::Failed { path: self.shared.path.clone(), first: first.clone() });
        }
        if batch.is_empty() {
            return Ok(Committed { state: self.state, written: 0, removed: 0 });
        }
        let (format, path) = (&self.shared.format, &self.shared.path);
        write::check(format, &self.state, batch).map_err(|fail| fail.at(path))?;
        match self.shared.with_db(|db| write::commit(db, format, &self.config, batch)) {
            Ok(done) => {
                self.state = done.state;
                Ok(done)
            }
            Err(refused @ StoreError::Batch { .. }) => Err(refused),
            Err(error) => {
                self.failed = Some(error.to_string());
                Err(error)
            }
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.shared.close();
    }
}

fn check_config(config: &Config) -> Result<(), StoreError> {
    let refuse = |detail: String| Err(StoreError::Config { detail });
    if config.network.is_empty() || config.network.len() > MAX_NETWORK_NAME {
        return refuse(format!(
            "the network's name has {} bytes, expected 1 to {MAX_NETWORK_NAME}",
            config.network.len()
        ));
    }
    if !(1..=MAX_RECORD_LEN).contains(&config.record_len) {
        return refuse(format!("headers of {} bytes, expected 1 to {MAX_RECORD_LEN}", config.record_len));
    }
    if config.max_reorgs == 0 {
        return refuse(
            "no reorganisation is kept, expected at least 1, which carries the numbering".to_owned(),
        );
    }
    Ok(())
}

fn check_magic(head: &[u8]) -> Result<(), Fail> {
    match head {
        [] => Err(Fail::Foreign("an empty file".to_owned())),
        head if head == MAGIC => Ok(()),
        head => Err(Fail::Foreign(format!("it begins with {}", head.escape_ascii()))),
    }
}

/// The database's builder with our settings, and whether it had to recover.
struct Opener {
    builder: Builder,
    recovered: Arc<AtomicBool>,
}

impl Opener {
    fn new(config: &Config) -> Self {
        let recovered = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&recovered);
        let mut builder = Builder::new();
        builder.set_cache_size(config.cache_bytes);
        builder.set_repair_callback(move |_| flag.store(true, Ordering::Relaxed));
        Self { builder, recovered }
    }

    fn run(&self, open: impl FnOnce(&Builder) -> Result<Database, Fail>) -> Result<Database, Fail> {
        guarded(|| open(&self.builder))
    }

    fn recovered(&self) -> bool {
        self.recovered.load(Ordering::Relaxed)
    }
}

/// An empty file at `path`, in place of one that a crash has left half made there.
fn fresh(path: &Path) -> Result<File, Fail> {
    let make = || {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        // The node's secret is among the blobs.
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(path)
    };
    make().map_err(|error| Fail::Db(redb::Error::Io(error)))
}

/// Gives the finished file its name, unless somebody else has got there first, and makes the name durable.
fn publish(new: &Path, path: &Path) -> io::Result<()> {
    fs::hard_link(new, path)?;
    fs::remove_file(new)?;
    #[cfg(unix)]
    {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

/// The first commit: every table, and the rows that are always there.
fn initialise(db: &Database, config: &Config) -> Result<(), Fail> {
    let format = Format::new(&config.network, config.record_len, config.base);
    let mut txn = db.begin_write()?;
    txn.set_durability(Durability::Immediate)?;
    {
        let mut meta = txn.open_table(META)?;
        meta.insert(SCHEMA_ROW, layout::encode_schema(SCHEMA).as_slice())?;
        meta.insert(FORMAT_ROW, format.encode().as_slice())?;
        meta.insert(TIP_ROW, layout::encode_tip(None).as_slice())?;
        txn.open_table(format.headers.table())?;
        txn.open_table(format.hashes.table())?;
        txn.open_table(SIDE)?;
        txn.open_table(REORGS)?;
        txn.open_table(BLOBS)?;
    }
    txn.commit()?;
    Ok(())
}

/// Reads what the file says of itself, and refuses it if it is not what the caller asked for.
fn inspect(db: &Database, path: &str, config: &Config) -> Result<(Format, State), StoreError> {
    let at = |fail: Fail| fail.at(path);
    let rows = || -> Result<(u32, Vec<u8>), Fail> {
        let txn = db.begin_read()?;
        let meta = match txn.open_table(META) {
            Ok(meta) => meta,
            Err(TableError::Storage(error)) => return Err(error.into()),
            Err(_) => return Err(Fail::Foreign("a database of another program".to_owned())),
        };
        let Some(schema) = meta.get(SCHEMA_ROW)? else {
            return Err(Fail::Foreign("a database of another program".to_owned()));
        };
        let schema = layout::decode_schema(schema.value())?;
        let format = meta.get(FORMAT_ROW)?.map(|row| row.value().to_vec()).unwrap_or_default();
        Ok((schema, format))
    };
    let (schema, format) = rows().map_err(at)?;
    if schema > SCHEMA {
        return Err(StoreError::NewerSchema { path: path.to_owned(), found: schema, known: SCHEMA });
    }
    let format = Format::decode(&format).map_err(at)?;
    if format.network != config.network {
        let (found, expected) = (format.network, config.network.clone());
        return Err(StoreError::OtherNetwork { path: path.to_owned(), found, expected });
    }
    if format.headers.record_len != config.record_len {
        let (found, expected) = (format.headers.record_len, config.record_len);
        return Err(StoreError::OtherRecordLen { path: path.to_owned(), found, expected });
    }
    let tip = || read_tip(&db.begin_read()?.open_table(META)?);
    let state = State { base: format.base, tip: tip().map_err(at)? };
    if state.tip.is_some_and(|tip| tip.height < format.base.height || tip.height == u32::MAX) {
        return Err(Fail::corrupt("the tip lies outside the chain").at(path));
    }
    Ok((format, state))
}
