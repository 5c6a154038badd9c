//! A disk in memory that loses power, for simulation and tests.
//!
//! ```text
//!  write, resize ──> what readers see ──sync──> what survives
//!        └──> since the last sync: each survives whole, torn at 512-byte sectors, or not at all
//! ```
//!
//! What a crash leaves is chosen by a seed and by nothing else, so a run repeats exactly. The model is that of a
//! journalling file system on a disk that reorders writes: contents written since the last sync survive in any
//! subset, changes of length survive in order, and no content survives beyond the surviving length.
//!
//! Pages of zeros that were never written take no memory: a fresh store costs some tens of kilobytes, so that a
//! thousand nodes fit in one process.

use redb::StorageBackend;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Granule of memory; the database's own page size.
const PAGE: usize = 4096;

/// What a disk writes in one piece. A write cut by a power loss is cut at its multiples.
const SECTOR: usize = 512;

type Page = Arc<[u8; PAGE]>;

/// Content by page, zeros left out, and a length.
#[derive(Debug, Clone, Default)]
struct Image {
    pages: BTreeMap<u64, Page>,
    len: u64,
}

impl Image {
    fn read(&self, offset: u64, out: &mut [u8]) {
        let mut at = offset;
        let mut rest = out;
        while !rest.is_empty() {
            let within = (at % PAGE as u64) as usize;
            let (here, after) = rest.split_at_mut(rest.len().min(PAGE - within));
            match self.pages.get(&(at / PAGE as u64)) {
                Some(page) => here.copy_from_slice(&page[within..within + here.len()]),
                None => here.fill(0),
            }
            at += here.len() as u64;
            rest = after;
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let mut at = offset;
        let mut rest = data;
        while !rest.is_empty() {
            let within = (at % PAGE as u64) as usize;
            let (here, after) = rest.split_at(rest.len().min(PAGE - within));
            let page = self.pages.entry(at / PAGE as u64).or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[within..within + here.len()].copy_from_slice(here);
            at += here.len() as u64;
            rest = after;
        }
        self.len = self.len.max(at);
    }

    fn resize(&mut self, len: u64) {
        self.len = len;
        let _beyond = self.pages.split_off(&len.div_ceil(PAGE as u64));
        let within = (len % PAGE as u64) as usize;
        if within > 0
            && let Some(page) = self.pages.get_mut(&(len / PAGE as u64))
        {
            Arc::make_mut(page)[within..].fill(0);
        }
    }
}

/// Something done since the last sync.
#[derive(Debug)]
enum Change {
    Write { offset: u64, data: Vec<u8> },
    Resize(u64),
}

/// What will go wrong, counted in operations (write, resize or sync) from when it was asked for.
#[derive(Debug, Clone, Copy)]
enum Plan {
    /// The operation fails, once.
    Fail { after: u64, kind: io::ErrorKind },
    /// The power goes during the operation.
    Crash { after: u64, seed: u64 },
}

#[derive(Debug, Default)]
struct State {
    /// What readers see.
    now: Image,
    /// What the last sync made safe.
    safe: Image,
    /// What was done since.
    changes: Vec<Change>,
    /// The attachment that may use the disk; a crash ends it. 0: none yet.
    session: u64,
    attached: bool,
    /// The store on it was created whole. Until then a crash leaves nothing, as a file without a name would be.
    published: bool,
    operations: u64,
    plan: Option<Plan>,
}

impl State {
    /// Counts an operation and returns what the plan says of it.
    fn operation(&mut self) -> Option<Plan> {
        self.operations += 1;
        match &mut self.plan {
            Some(Plan::Fail { after, .. } | Plan::Crash { after, .. }) if *after > 0 => {
                *after -= 1;
                None
            }
            _ => self.plan.take(),
        }
    }

    fn sync(&mut self) {
        for change in std::mem::take(&mut self.changes) {
            match change {
                Change::Write { offset, data } => self.safe.write(offset, &data),
                Change::Resize(len) => self.safe.resize(len),
            }
        }
    }

    fn crash(&mut self, seed: u64) {
        let changes = std::mem::take(&mut self.changes);
        self.now = std::mem::take(&mut self.safe);
        if self.published {
            survive(&mut self.now, &changes, &mut SplitMix(seed));
        } else {
            self.now = Image::default();
        }
        self.safe = self.now.clone();
        self.attached = false;
        self.session += 1;
    }
}

/// Applies what the seed lets survive of `changes` to `image`.
fn survive(image: &mut Image, changes: &[Change], random: &mut SplitMix) {
    // A third of all seeds each: nothing, everything up to some point, any subset.
    let mode = random.below(3);
    let cut = random.below(changes.len() as u64 + 1) as usize;
    let mut lengths_survive = true;
    for (index, change) in changes.iter().enumerate() {
        let (whole, torn) = match mode {
            0 => (false, false),
            1 => (index < cut, index == cut),
            _ => (random.below(2) == 0, random.below(2) == 0),
        };
        match change {
            Change::Resize(len) => {
                lengths_survive &= whole;
                if lengths_survive {
                    image.resize(*len);
                }
            }
            Change::Write { offset, data } => {
                let mut at = *offset;
                let mut rest = data.as_slice();
                while !rest.is_empty() && at < image.len {
                    let to_border = SECTOR - (at % SECTOR as u64) as usize;
                    let to_end = (image.len - at).try_into().unwrap_or(usize::MAX);
                    let (sector, after) = rest.split_at(rest.len().min(to_border).min(to_end));
                    if whole || (torn && random.below(2) == 0) {
                        image.write(at, sector);
                    }
                    at += sector.len() as u64;
                    rest = after;
                }
            }
        }
    }
}

/// A disk in memory. Clones are handles to the same disk, which outlives the stores that are opened on it.
#[derive(Debug, Clone, Default)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// A disk that holds these bytes, all of them safe.
    pub fn from_image(bytes: &[u8]) -> Self {
        let disk = Self::default();
        {
            let mut state = disk.lock();
            state.now.write(0, bytes);
            state.safe = state.now.clone();
            state.published = !bytes.is_empty();
        }
        disk
    }

    /// The bytes as a reader would see them.
    pub fn image(&self) -> Vec<u8> {
        let state = self.lock();
        let mut out = vec![0; state.now.len as usize];
        state.now.read(0, &mut out);
        out
    }

    /// Memory taken by content, in bytes.
    pub fn resident_bytes(&self) -> usize {
        self.lock().now.pages.len() * PAGE
    }

    /// Writes, resizes and syncs so far.
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// Makes the operation after the next `after` ones fail with an error of that kind, once.
    pub fn fail_after(&self, after: u64, kind: io::ErrorKind) {
        self.lock().plan = Some(Plan::Fail { after, kind });
    }

    /// Cuts the power during the operation after the next `after` ones.
    pub fn crash_after(&self, after: u64, seed: u64) {
        self.lock().plan = Some(Plan::Crash { after, seed });
    }

    /// Forgets what [`fail_after`](Self::fail_after) or [`crash_after`](Self::crash_after) planned.
    pub fn clear_plan(&self) {
        self.lock().plan = None;
    }

    /// Cuts the power now. A store that is open on this disk gets an error from whatever it does next; drop it,
    /// and open another one to restart.
    pub fn crash(&self, seed: u64) {
        self.lock().crash(seed);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that runs under this lock stops half way in a state that the next one could not use.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk for one store, or `None` while another one has it.
    pub(crate) fn attach(&self) -> Option<Attached> {
        let mut state = self.lock();
        if state.attached {
            return None;
        }
        if !state.published {
            (state.now, state.safe) = (Image::default(), Image::default());
            state.changes.clear();
        }
        state.attached = true;
        state.session += 1;
        Some(Attached { disk: self.clone(), session: state.session })
    }

    /// The store on the disk is whole.
    pub(crate) fn publish(&self) {
        self.lock().published = true;
    }

    /// The first bytes, at most `count`.
    pub(crate) fn head(&self, count: usize) -> Vec<u8> {
        let state = self.lock();
        let mut out = vec![0; count.min(state.now.len as usize)];
        state.now.read(0, &mut out);
        out
    }
}

/// The disk as one store has it. After a crash every call fails, and nothing that it still does has any effect.
#[derive(Debug)]
pub(crate) struct Attached {
    disk: MemoryDisk,
    session: u64,
}

impl Attached {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.lock();
        if state.session == self.session { Ok(state) } else { Err(no_power()) }
    }

    /// Does `change` to a copy-on-write view, unless the plan has it fail.
    fn change(&self, change: Change) -> io::Result<()> {
        let mut state = self.state()?;
        match state.operation() {
            Some(Plan::Fail { kind, .. }) => return Err(kind.into()),
            Some(Plan::Crash { seed, .. }) => {
                state.changes.push(change);
                state.crash(seed);
                return Err(no_power());
            }
            None => {}
        }
        match &change {
            Change::Write { offset, data } => state.now.write(*offset, data),
            Change::Resize(len) => state.now.resize(*len),
        }
        state.changes.push(change);
        Ok(())
    }
}

fn no_power() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the disk has lost power")
}

impl StorageBackend for Attached {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state()?.now.len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state()?;
        if offset.saturating_add(out.len() as u64) > state.now.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        state.now.read(offset, out);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Change::Resize(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state()?;
        match state.operation() {
            Some(Plan::Fail { kind, .. }) => Err(kind.into()),
            Some(Plan::Crash { seed, .. }) => {
                state.crash(seed);
                Err(no_power())
            }
            None => {
                state.sync();
                Ok(())
            }
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Change::Write { offset, data: data.to_vec() })
    }

    fn close(&self) -> io::Result<()> {
        self.state()?.attached = false;
        Ok(())
    }
}

/// A tiny generator (Steele, Lea and Flood's `SplitMix64`): what survives must depend on the seed alone, in every
/// version of every dependency.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, which is small.
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(disk: &MemoryDisk) -> Vec<u8> {
        disk.image()
    }

    #[test]
    fn what_was_synced_survives_every_crash_and_the_rest_by_seed_alone() {
        let mut outcomes = std::collections::BTreeSet::new();
        for seed in 0..64 {
            let run = || {
                let disk = MemoryDisk::new();
                let attached = disk.attach().unwrap();
                disk.publish();
                attached.set_len(8192).unwrap();
                attached.write(0, &[1; 512]).unwrap();
                attached.sync_data().unwrap();
                attached.write(4000, &[2; 1024]).unwrap();
                disk.crash(seed);
                assert!(attached.write(0, &[9]).is_err() && attached.len().is_err());
                bytes(&disk)
            };
            let image = run();
            assert_eq!(image, run(), "seed {seed}");
            assert_eq!((image.len(), &image[..512]), (8192, &[1; 512][..]));
            assert!(image[512..4000].iter().chain(&image[5024..]).all(|byte| *byte == 0));
            outcomes.insert(image[4000..5024].to_vec());
        }
        assert!(outcomes.contains(&vec![0; 1024]) && outcomes.contains(&vec![2; 1024]));
        assert!(outcomes.len() > 4, "torn writes happen: {}", outcomes.len());
    }

    #[test]
    fn no_content_survives_beyond_the_surviving_length() {
        for seed in 0..64 {
            let disk = MemoryDisk::from_image(&[1; 4096]);
            let attached = disk.attach().unwrap();
            attached.set_len(12_288).unwrap();
            attached.write(8192, &[3; 4096]).unwrap();
            disk.crash(seed);
            assert!([4096, 12_288].contains(&bytes(&disk).len()), "seed {seed}");
        }
    }

    #[test]
    fn one_store_at_a_time_and_planned_failures_happen_once() {
        let disk = MemoryDisk::from_image(&[0; 4096]);
        let attached = disk.attach().unwrap();
        assert!(disk.attach().is_none());
        disk.fail_after(1, io::ErrorKind::StorageFull);
        attached.write(0, &[1]).unwrap();
        assert_eq!(attached.sync_data().unwrap_err().kind(), io::ErrorKind::StorageFull);
        attached.sync_data().unwrap();
        attached.close().unwrap();
        assert!(disk.attach().is_some());
    }

    #[test]
    fn shrinking_forgets_and_growing_shows_zeros() {
        let mut image = Image::default();
        image.write(0, &[7; 10_000]);
        image.resize(5_000);
        image.resize(10_000);
        let mut out = vec![1; 10_000];
        image.read(0, &mut out);
        assert!(out[..5_000].iter().all(|b| *b == 7) && out[5_000..].iter().all(|b| *b == 0));
    }
}
