//! The header store: the main chain's headers, hashes and work, the branches beside it, the reorganisations it went
//! through, and a few small blobs (address book, bans, node secret), in one file, on an embedded database (redb).
//!
//! Synchronous, with one writer and any number of readers. It knows no clock, no task and no network; in production
//! it sits on a thread of its own, in simulation it is called inline, on a [`MemoryDisk`].
//!
//! ```text
//!            Batch { run, side, reorg, blobs }
//!                          |
//!   Store::commit  --- check ---> one transaction ---> fdatasync ---> Committed
//!                                      |
//!   headers   0: [crc | work before | 277 raw headers of 236 bytes]   1: [...]   2: [... 93]
//!   hashes    0: [crc | work before | 2,046 hashes                ]   1: [... ]
//!   meta      schema | format (network, record length, chunk sizes, base) | tip (height, hash, work)
//!   side      (height, hash) -> raw header            bounded, the lowest go first
//!   reorgs    sequence -> fork, old tip, new tip      bounded, the oldest go first
//!   blobs     name -> bytes                           64 of at most 4 MiB
//!                                      |
//!   Reader: headers, hashes, visit_hashes, work_anchor, side_header(s), reorgs, blob, verify
//! ```
//!
//! A row per header and an index by hash would cost a tree insertion each, in random order. Here an append rewrites
//! one chunk and adds others behind it; a reorganisation rewrites from the chunk of its fork. An index by hash is the
//! caller's, in memory, rebuilt at the start from the hash chunks alone ([`Reader::visit_hashes`]): 10 MB of the
//! 90 for 330,000 headers. Work is kept once per chunk; at heights between, the caller adds the headers' own
//! ([`Reader::work_anchor`]). Chunks count from the base height.
//!
//! # Promises
//!
//! - **All or nothing.** A batch is one transaction. Once [`Store::commit`] has returned, the batch survives the
//!   process and, if the disk keeps its word about syncs, the power.
//! - **A prefix.** After a crash at any step the store holds all acknowledged batches, and at most the one in flight.
//! - **Contiguous.** A run extends the tip or replaces from a height that is there, and says which; anything else is
//!   [`StoreError::Batch`]. The store does not judge headers: hashes and work are the caller's word.
//! - **Nothing wrong is handed out.** Every row carries a checksum over its key and its body, compared on every read:
//!   the database compares its own only when it recovers. A flipped bit is [`StoreError::Corrupt`]. The checksum is
//!   CRC-32: it finds decay, not an attacker, who could as well write a whole file. Opening reads the rows it needs
//!   and the ends of the chain; [`Reader::verify`] reads everything.
//! - **Nothing is destroyed.** A foreign, damaged, later or other network's file is refused with words that say what
//!   to do, and never truncated, replaced or deleted. Assertions of the database that damage sets off are caught and
//!   become [`StoreError::Corrupt`].
//! - **One instance.** The file is locked while a [`Store`] lives ([`StoreError::Locked`]), and unlocked when it is
//!   dropped, even if somebody kept a [`Reader`].
//!
//! # What to know about the database
//!
//! - Commits are `Durability::Immediate`, one phase, without quick repair. Commits that are not durable let the file
//!   grow without bound, and quick repair writes the allocator's state with every commit to save time once after a
//!   crash: the full check takes about 0.1 s here, since it reads 90 MB and no block bodies are in the file.
//! - Its cache is 1 GiB unless set: see [`DEFAULT_CACHE_BYTES`].
//! - The file grows by doubling (128 MiB for 330,000 headers, of which 85 are used); the unused part is a hole that
//!   takes no room on common file systems. Pages freed by a commit are used again by the next ones.
//! - It believes the page numbers in its own inner pages. On a file that was closed in order, one flipped bit in the
//!   size class of such a number, some thousand bits in all of the file, makes it ask for up to 4 GiB; it gets them and
//!   finds the damage, or the system refuses and the process aborts. After a crash every page is checked before it
//!   is followed. No caller's data can bring this about.
//! - After a failed write it takes no more until it is reopened, and so does [`Store`]: [`StoreError::Failed`].
//!
//! # Measured
//!
//! 330,000 headers of 236 bytes, written and synced, on two shared cores and ext4, by `examples/measure.rs`. Of the CPU
//! time 0.08 s are what the system takes to write as many bytes with nothing in front of them.
//!
//! | headers per commit | cache | write, CPU s | write, wall s | peak | restart s | restart after kill -9 s |
//! |---|---|---|---|---|---|---|
//! | 2,000 | 4 MiB | 0.15 to 0.17 | 0.73 to 0.91 | 8.5 MiB | 0.01 to 0.05 | 0.09 to 0.10 |
//! | 8,000 | 1 MiB | 0.11 to 0.13 | 0.30 to 0.42 | 7.7 MiB | 0.01 | 0.08 to 0.13 |
//! | **8,000** | **4 MiB** | 0.12 to 0.13 | 0.35 to 0.39 | 11.9 MiB | 0.01 | 0.05 to 0.16 |
//! | 8,000 | 32 MiB | 0.13 to 0.14 | 0.31 to 0.45 | 38.4 MiB | 0.01 to 0.02 | 0.12 to 0.16 |
//! | 20,000 | 4 MiB | 0.13 | 0.32 to 0.40 | 19.4 MiB | 0.01 | 0.07 to 0.12 |
//!
//! Three runs each; peak is the whole process with one batch in memory; a restart hands out all hashes.
//!
//! Commit when a run reaches [`BATCH_BYTES`], or when there is nothing more to come.

mod error;
mod layout;
mod memory;
mod reader;
mod store;
mod types;
mod write;

/// Raw header bytes (see [`Run::bytes`]) after which a batch is worth committing: 8,886 headers of 236 bytes.
///
/// Ten times less and the syncs are felt; ten times more and the batch itself takes memory, with nothing gained.
pub const BATCH_BYTES: usize = 2 << 20;

pub use error::StoreError;
pub use layout::MAX_RECORD_LEN;
pub use memory::MemoryDisk;
pub use reader::Reader;
pub use store::Store;
pub use types::{
    Base, Batch, Committed, Config, DEFAULT_CACHE_BYTES, DEFAULT_MAX_REORGS, DEFAULT_MAX_SIDE, HashChunk,
    MAX_BLOB_BYTES, MAX_BLOB_NAME, MAX_BLOBS, MAX_NETWORK_NAME, Reorg, ReorgRecord, Run, SideHeader, State,
    Tip, WorkAnchor,
};
