//! Reading, beside the writer and without waiting for it.
//!
//! Each call sees one committed state from its first row to its last, however long it takes and whatever is
//! committed meanwhile. A call holds on to that state's pages, so a caller reads in pieces rather than holding a
//! stream open.

use crate::error::{Fail, StoreError};
use crate::layout::{self, BLOBS, Format, META, REORGS, SIDE, TIP_ROW};
use crate::types::{HashChunk, ReorgRecord, SideHeader, State, Tip, WorkAnchor};
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata};
use rookery_base::{Hash32, Height};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError, RwLock};

/// What the store and its readers share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The file's name, for errors.
    pub(crate) path: String,
    pub(crate) format: Format,
    /// Taken out when the store closes: a forgotten reader must not keep the file open and locked.
    pub(crate) db: RwLock<Option<Database>>,
}

impl Shared {
    /// Runs `work` on the open database.
    ///
    /// The database asserts what it believes of its pages. A damaged page that passes its own checks can therefore
    /// end in a panic; here it becomes the error it is. Nothing of ours can be left half changed: what `work`
    /// touches is either on its stack or in a transaction that is dropped.
    pub(crate) fn with_db<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, Fail>,
    ) -> Result<T, StoreError> {
        let guard = self.db.read().unwrap_or_else(PoisonError::into_inner);
        let Some(db) = guard.as_ref() else {
            return Err(StoreError::Closed { path: self.path.clone() });
        };
        guarded(|| work(db)).map_err(|fail| fail.at(&self.path))
    }

    /// Closes the file, after the reads that are under way.
    pub(crate) fn close(&self) {
        let db = self.db.write().unwrap_or_else(PoisonError::into_inner).take();
        // An orderly close writes; on a disk that has failed there is nobody left to tell, and the next open
        // recovers as after a crash.
        let _closed = guarded(|| {
            drop(db);
            Ok(())
        });
    }
}

/// Runs `work`; a panic in it is damage found by an assertion of the database.
pub(crate) fn guarded<T>(work: impl FnOnce() -> Result<T, Fail>) -> Result<T, Fail> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let words = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        Err(Fail::Corrupt(format!("the database gave up on it: {words}")))
    })
}

/// Reads the main chain's end. `meta` is the meta table of any transaction.
pub(crate) fn read_tip(meta: &impl ReadableTable<&'static str, &'static [u8]>) -> Result<Option<Tip>, Fail> {
    let row = meta.get(TIP_ROW)?.ok_or_else(|| Fail::corrupt("the tip row is missing"))?;
    layout::decode_tip(row.value())
}

/// A handle for reading; cheap to clone, usable from any thread.
#[derive(Debug, Clone)]
pub struct Reader {
    pub(crate) shared: Arc<Shared>,
}

impl Reader {
    fn read<T>(&self, work: impl FnOnce(&Snapshot<'_>) -> Result<T, Fail>) -> Result<T, StoreError> {
        self.shared.with_db(|db| {
            let txn = db.begin_read()?;
            let tip = read_tip(&txn.open_table(META)?)?;
            work(&Snapshot { txn, format: &self.shared.format, tip })
        })
    }

    /// Where the main chain begins and ends.
    pub fn state(&self) -> Result<State, StoreError> {
        self.read(|snapshot| Ok(snapshot.state()))
    }

    /// Raw main-chain headers from height `from`, at most `count`, one after the other. Fewer (or none) where the
    /// chain does not reach.
    pub fn headers(&self, from: Height, count: usize) -> Result<Vec<u8>, StoreError> {
        self.read(|snapshot| {
            let lane = &snapshot.format.headers;
            let range = snapshot.range(from, count);
            let mut out = Vec::with_capacity(range.len() * lane.record_len);
            snapshot.pieces(lane, range, |piece| out.extend_from_slice(piece))?;
            Ok(out)
        })
    }

    /// Main-chain hashes from height `from`, at most `count`.
    pub fn hashes(&self, from: Height, count: usize) -> Result<Vec<Hash32>, StoreError> {
        self.read(|snapshot| {
            let range = snapshot.range(from, count);
            let mut out = Vec::with_capacity(range.len());
            snapshot.pieces(&snapshot.format.hashes, range, |piece| out.extend(layout::hashes_of(piece)))?;
            Ok(out)
        })
    }

    /// Hands every main-chain hash to `visit`, in order of height, chunk by chunk: this is how a caller builds its
    /// index at the start, without a second copy of all of them.
    pub fn visit_hashes(&self, visit: &mut dyn FnMut(HashChunk<'_>)) -> Result<State, StoreError> {
        self.read(|snapshot| {
            let (state, lane) = (snapshot.state(), &snapshot.format.hashes);
            let records = state.len() as u32;
            let table = snapshot.txn.open_table(lane.table())?;
            let mut hashes = Vec::with_capacity(lane.per_chunk as usize);
            for number in 0..lane.chunks(records) {
                let start = number * lane.per_chunk;
                let here = lane.per_chunk.min(records - start);
                let work_before = lane.with_chunk(&table, number, here, |chunk| {
                    hashes.clear();
                    hashes.extend(layout::hashes_of(chunk.records).take(here as usize));
                    chunk.work_before
                })?;
                visit(HashChunk { first: state.base.height + start, work_before, hashes: &hashes });
            }
            Ok(state)
        })
    }

    /// The nearest height at or below `height` whose work is on disk; `None` outside the main chain. The caller
    /// adds the work of the headers between, less than a chunk of them (276 of 236 bytes).
    pub fn work_anchor(&self, height: Height) -> Result<Option<WorkAnchor>, StoreError> {
        self.read(|snapshot| {
            let lane = &snapshot.format.headers;
            let range = snapshot.range(height, 1);
            if range.is_empty() {
                return Ok(None);
            }
            let number = range.start / lane.per_chunk;
            let table = snapshot.txn.open_table(lane.table())?;
            let work_before = lane.with_chunk(&table, number, 1, |chunk| chunk.work_before)?;
            let height = snapshot.format.base.height + number * lane.per_chunk;
            Ok(Some(WorkAnchor { height, work_before }))
        })
    }

    /// One header of another branch.
    pub fn side_header(&self, height: Height, hash: &Hash32) -> Result<Option<SideHeader>, StoreError> {
        self.read(|snapshot| {
            let table = snapshot.txn.open_table(SIDE)?;
            let Some(row) = table.get((height, hash.as_bytes()))? else { return Ok(None) };
            layout::side_header(height, hash.as_bytes(), row.value()).map(Some)
        })
    }

    /// All headers of other branches, lowest first: at most [`Config::max_side`](crate::Config::max_side).
    pub fn side_headers(&self) -> Result<Vec<SideHeader>, StoreError> {
        self.read(|snapshot| {
            let table = snapshot.txn.open_table(SIDE)?;
            let mut out = Vec::new();
            for row in table.iter()? {
                let (key, row) = row?;
                let (height, hash) = key.value();
                out.push(layout::side_header(height, hash, row.value())?);
            }
            Ok(out)
        })
    }

    /// The last `count` reorganisations, oldest first.
    pub fn reorgs(&self, count: usize) -> Result<Vec<ReorgRecord>, StoreError> {
        self.read(|snapshot| {
            let table = snapshot.txn.open_table(REORGS)?;
            let mut out = Vec::new();
            for row in table.iter()?.rev().take(count) {
                let (sequence, row) = row?;
                let sequence = sequence.value();
                out.push(ReorgRecord { sequence, reorg: layout::decode_reorg(sequence, row.value())? });
            }
            out.reverse();
            Ok(out)
        })
    }

    /// The blob of that name.
    pub fn blob(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(|snapshot| {
            let table = snapshot.txn.open_table(BLOBS)?;
            let Some(row) = table.get(name)? else { return Ok(None) };
            let what = format!("blob {name:?}");
            layout::open(name.as_bytes(), row.value(), &what).map(|body| Some(body.to_vec()))
        })
    }

    /// Reads every row and compares every checksum: what `open` leaves to the first use. Takes as long as reading
    /// the file.
    pub fn verify(&self) -> Result<(), StoreError> {
        self.read(|snapshot| {
            let records = snapshot.state().len() as u32;
            for lane in [&snapshot.format.headers, &snapshot.format.hashes] {
                let table = snapshot.txn.open_table(lane.table())?;
                let (found, expected) = (table.len()?, u64::from(lane.chunks(records)));
                if found != expected {
                    return Err(Fail::corrupt(format!("{found} chunks, expected {expected}")));
                }
                snapshot.pieces(lane, 0..records, |_| ())?;
            }
            Ok(())
        })?;
        self.side_headers()?;
        self.reorgs(usize::MAX)?;
        self.read(|snapshot| {
            for row in snapshot.txn.open_table(BLOBS)?.iter()? {
                let (name, row) = row?;
                layout::open(name.value().as_bytes(), row.value(), &format!("blob {:?}", name.value()))?;
            }
            Ok(())
        })
    }
}

/// One committed state.
struct Snapshot<'a> {
    txn: ReadTransaction,
    format: &'a Format,
    tip: Option<Tip>,
}

impl Snapshot<'_> {
    const fn state(&self) -> State {
        State { base: self.format.base, tip: self.tip }
    }

    /// The positions of at most `count` heights from `from` that are on the main chain.
    fn range(&self, from: Height, count: usize) -> std::ops::Range<u32> {
        let state = self.state();
        let len = state.len() as u32;
        match from.checked_sub(state.base.height) {
            Some(start) if start < len => {
                start..start + (len - start).min(count.try_into().unwrap_or(u32::MAX))
            }
            _ => 0..0,
        }
    }

    /// Hands the records at `range`, which lies on the chain, to `each`, one chunk's part at a time.
    fn pieces(
        &self,
        lane: &layout::Lane,
        range: std::ops::Range<u32>,
        mut each: impl FnMut(&[u8]),
    ) -> Result<(), Fail> {
        let table = self.txn.open_table(lane.table())?;
        let mut at = range.start;
        while at < range.end {
            let number = at / lane.per_chunk;
            let first = number * lane.per_chunk;
            let end = range.end.min(first.saturating_add(lane.per_chunk));
            lane.with_chunk(&table, number, end - first, |chunk| {
                each(
                    &chunk.records
                        [(at - first) as usize * lane.record_len..(end - first) as usize * lane.record_len],
                );
            })?;
            at = end;
        }
        Ok(())
    }
}
