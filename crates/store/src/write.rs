//! One commit: checked first, then written in one transaction.

use crate::error::Fail;
use crate::layout::{self, BLOBS, Format, Lane, META, REORGS, SIDE, TIP_ROW};
use crate::reader::read_tip;
use crate::types::{
    Batch, Committed, Config, MAX_BLOB_BYTES, MAX_BLOB_NAME, MAX_BLOBS, Reorg, Run, SideHeader, State, Tip,
};
use redb::{Database, Durability, ReadableTable, ReadableTableMetadata, WriteTransaction};
use rookery_base::{Hash32, Work};

/// Refuses a batch that breaks a rule, before anything is written.
pub(crate) fn check(format: &Format, state: &State, batch: &Batch) -> Result<(), Fail> {
    if let Some(run) = &batch.run {
        check_run(format, state, run)?;
    }
    let record_len = format.headers.record_len;
    if let Some(side) = batch.side.iter().find(|side| side.raw.len() != record_len) {
        return Err(Fail::batch(format!(
            "side header {} at height {} has {} bytes, expected {record_len}",
            side.hash,
            side.height,
            side.raw.len()
        )));
    }
    for (name, bytes) in &batch.blobs {
        if name.is_empty() || name.len() > MAX_BLOB_NAME {
            return Err(Fail::batch(format!(
                "a blob's name has {} bytes, expected 1 to {MAX_BLOB_NAME}",
                name.len()
            )));
        }
        if bytes.len() > MAX_BLOB_BYTES {
            return Err(Fail::batch(format!(
                "blob {name:?} has {} bytes, the most is {MAX_BLOB_BYTES}",
                bytes.len()
            )));
        }
    }
    Ok(())
}

fn check_run(format: &Format, state: &State, run: &Run) -> Result<(), Fail> {
    let (base, next) = (state.base, state.next_height());
    if run.replaces && !(base.height..=next).contains(&run.start) {
        return Err(Fail::batch(format!("replaces from {}, expected {} to {next}", run.start, base.height)));
    }
    if !run.replaces && run.start != next {
        return Err(Fail::batch(format!("extends from {}, expected {next}", run.start)));
    }
    let expected_work = match run.start {
        start if start == base.height => Some(base.work_before),
        start if start == next => Some(state.work()),
        _ => None,
    };
    if let Some(expected) = expected_work.filter(|expected| *expected != run.work_before) {
        return Err(Fail::batch(format!(
            "work before height {} is {:#x}, expected {expected:#x}",
            run.start, run.work_before
        )));
    }
    let (len, record_len) = (run.len(), format.headers.record_len);
    if run.raw.len() != len * record_len {
        return Err(Fail::batch(format!(
            "{len} headers have {} bytes, expected {record_len} each",
            run.raw.len()
        )));
    }
    // One below the end of the type: the height after the tip must be a height as well.
    if len as u64 + u64::from(run.start) > u64::from(u32::MAX) {
        return Err(Fail::batch(format!("{len} headers from {} pass the last height", run.start)));
    }
    Ok(())
}

/// Writes a checked batch, durably. On an error nothing of it is to be seen, unless the error came from the last
/// write of all: then reopening tells.
pub(crate) fn commit(
    db: &Database,
    format: &Format,
    config: &Config,
    batch: &Batch,
) -> Result<Committed, Fail> {
    let mut txn = db.begin_write()?;
    txn.set_durability(Durability::Immediate)?;
    let mut done = Committed {
        state: State { base: format.base, tip: read_tip(&txn.open_table(META)?)? },
        written: 0,
        removed: 0,
    };
    if let Some(run) = &batch.run {
        write_run(&txn, format, run, &mut done)?;
    }
    write_side(&txn, config.max_side, &batch.side, batch.run.as_ref())?;
    if let Some(reorg) = &batch.reorg {
        write_reorg(&txn, config.max_reorgs, reorg)?;
    }
    write_blobs(&txn, &batch.blobs)?;
    txn.commit()?;
    Ok(done)
}

fn write_run(txn: &WriteTransaction, format: &Format, run: &Run, done: &mut Committed) -> Result<(), Fail> {
    let old_len = done.state.len() as u32;
    let at = run.start - format.base.height;
    let hashes: Vec<u8> = run.hashes.iter().flat_map(|hash| hash.0).collect();
    write_lane(txn, &format.headers, &Splice { old_len, at, run, records: &run.raw })?;
    write_lane(txn, &format.hashes, &Splice { old_len, at, run, records: &hashes })?;

    done.state.tip = match (run.hashes.last(), run.start.checked_sub(1)) {
        (Some(&hash), _) => {
            Some(Tip { height: run.start + (run.len() as u32 - 1), hash, work: run.work_at(run.len()) })
        }
        (None, Some(height)) if at > 0 => {
            Some(Tip { height, hash: hash_at(txn, &format.hashes, at - 1)?, work: run.work_before })
        }
        (None, _) => None,
    };
    done.written = run.len();
    done.removed = (old_len - at) as usize;
    let mut meta = txn.open_table(META)?;
    meta.insert(TIP_ROW, layout::encode_tip(done.state.tip).as_slice())?;
    Ok(())
}

impl Run {
    /// Work of the chain up to and including the run's first `count` headers.
    fn work_at(&self, count: usize) -> Work {
        count.checked_sub(1).map_or(self.work_before, |last| self.works[last])
    }
}

fn hash_at(txn: &WriteTransaction, lane: &Lane, position: u32) -> Result<Hash32, Fail> {
    let index = position % lane.per_chunk;
    let table = txn.open_table(lane.table())?;
    let hash = lane.with_chunk(&table, position / lane.per_chunk, index + 1, |chunk| {
        layout::hashes_of(chunk.records).nth(index as usize)
    })?;
    Ok(hash.expect("with_chunk found index + 1 hashes"))
}

/// A change of one lane: the records from position `at` on become `records`.
struct Splice<'a> {
    old_len: u32,
    at: u32,
    run: &'a Run,
    records: &'a [u8],
}

/// Rewrites the chunk in which the splice begins, writes those after it, removes those beyond the new end.
fn write_lane(txn: &WriteTransaction, lane: &Lane, splice: &Splice<'_>) -> Result<(), Fail> {
    let mut table = txn.open_table(lane.table())?;
    let new_len = splice.at + splice.run.len() as u32;
    let first = splice.at / lane.per_chunk;
    let kept_count = splice.at % lane.per_chunk;
    let mut kept = Vec::new();
    let mut work_before = splice.run.work_before;
    if kept_count > 0 {
        work_before = lane.with_chunk(&table, first, kept_count, |chunk| {
            kept.extend_from_slice(&chunk.records[..kept_count as usize * lane.record_len]);
            chunk.work_before
        })?;
    }
    let mut rest = splice.records;
    for number in first..lane.chunks(new_len) {
        let start = number * lane.per_chunk;
        let count = lane.per_chunk.min(new_len - start);
        if number > first {
            work_before = splice.run.work_at((start - splice.at) as usize);
            kept.clear();
        }
        let (added, after) = rest.split_at(count as usize * lane.record_len - kept.len());
        let mut row = table.insert_reserve(number, lane.row_len(count))?;
        layout::fill_chunk(row.as_mut(), number, work_before, &kept, added);
        rest = after;
    }
    for number in lane.chunks(new_len)..lane.chunks(splice.old_len) {
        table.remove(number)?;
    }
    Ok(())
}

/// Adds side headers, drops those that the run has put on the main chain, and then the lowest over the cap.
fn write_side(
    txn: &WriteTransaction,
    max_side: usize,
    added: &[SideHeader],
    run: Option<&Run>,
) -> Result<(), Fail> {
    let mut table = txn.open_table(SIDE)?;
    for side in added {
        let row = layout::seal(&layout::side_key(side.height, &side.hash), &side.raw);
        table.insert((side.height, side.hash.as_bytes()), row.as_slice())?;
    }
    if let Some(run) = run.filter(|run| !run.is_empty()) {
        let mut on_main = Vec::new();
        let last = run.start + (run.len() as u32 - 1);
        for row in table.range((run.start, &[0; 32])..=(last, &[0xff; 32]))? {
            let key = row?.0;
            let (height, hash) = key.value();
            if run.hashes[(height - run.start) as usize].as_bytes() == hash {
                on_main.push((height, *hash));
            }
        }
        for (height, hash) in &on_main {
            table.remove((*height, hash))?;
        }
    }
    while table.len()? > max_side as u64 {
        table.pop_first()?;
    }
    Ok(())
}

fn write_reorg(txn: &WriteTransaction, max_reorgs: usize, reorg: &Reorg) -> Result<(), Fail> {
    let mut table = txn.open_table(REORGS)?;
    let sequence = table.last()?.map_or(0, |(last, _)| last.value().saturating_add(1));
    table.insert(sequence, layout::encode_reorg(sequence, reorg).as_slice())?;
    while table.len()? > max_reorgs as u64 {
        table.pop_first()?;
    }
    Ok(())
}

fn write_blobs(txn: &WriteTransaction, blobs: &[(String, Vec<u8>)]) -> Result<(), Fail> {
    if blobs.is_empty() {
        return Ok(());
    }
    let mut table = txn.open_table(BLOBS)?;
    for (name, bytes) in blobs {
        table.insert(name.as_str(), layout::seal(name.as_bytes(), bytes).as_slice())?;
    }
    if table.len()? > MAX_BLOBS as u64 {
        return Err(Fail::batch(format!("more than {MAX_BLOBS} blobs")));
    }
    Ok(())
}
