//! The book as a file.
//!
//! ```text
//! head   magic 8 "ROOKADDR" | version u16 | network u32 | shape: fresh u16, used u16, bucket u16 | key 32
//! body   count, compact size | entries in rising address order:
//!        ip 16, IPv4 as mapped | port u16, big-endian | source ip 16 | services u64 | time u64 | last attempt u64 |
//!        last success u64 | attempts u32 | references u8: 0 = used, then its bucket u16;
//!        1 to 8 = fresh, then that many buckets u16, rising
//! tail   checksum u64: SipHash-2-4 of all before it, under a key that is no secret
//! ```
//!
//! Integers are little-endian unless said. A book has one encoding, and bytes that decode encode to themselves (under the
//! shape they were written with), so that comparing files compares books. The checksum finds accidents, not forgery: who
//! can write the file can write a book of their own.
//!
//! A file of another shape is taken in entry by entry, each placed anew; what finds its bucket full is dropped.

use std::hash::Hasher;
use std::net::Ipv6Addr;
use std::num::NonZeroU16;

use bytes::BufMut;
use rookery_base::AddrGroup;
use rookery_base::codec::{DecodeError, Reader, put_compact_size};
use rookery_base::id::canonical_ip;
use siphasher::sip::SipHasher24;

use super::entry::{Home, Key, MAX_REFS, Node, Refs};
use super::{Book, BookConfig, Shape};

const MAGIC: &[u8; 8] = b"ROOKADDR";
/// The format written here. A change to the layout takes the next number.
const VERSION: u16 = 1;
const CHECKSUM_KEY: &[u8; 16] = b"rookery-book-sum";
const CHECKSUM_LEN: usize = 8;
/// magic, version, network, shape, key.
const HEAD_LEN: usize = 8 + 2 + 4 + 6 + 32;
/// The shortest entry: one bucket.
const MIN_ENTRY: usize = Key::LEN + 16 + 4 * 8 + 4 + 1 + 2;
/// The longest: eight buckets.
const MAX_ENTRY: usize = MIN_ENTRY + 2 * (MAX_REFS - 1);
/// The most entries a file may hold: the places of both tables.
const MAX_ENTRIES: usize = (super::FRESH_BUCKETS.get() as usize + super::USED_BUCKETS.get() as usize)
    * super::BUCKET_SIZE.get() as usize;
/// The largest file there can be, 7.2 MB; a larger one is refused unread. Readers of the file can stop there too.
pub const MAX_ENCODED: usize = HEAD_LEN + 5 + MAX_ENTRIES * MAX_ENTRY + CHECKSUM_LEN;

/// Why some bytes are not this network's address book. A book is only a cache: each message says how to go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BookError {
    /// More bytes than the largest book has.
    #[error(
        "the address book has {found} bytes and the largest has {most}: it is not one of ours, or damaged; \
         move it away, and a new one starts from the seeds"
    )]
    Oversize {
        /// Bytes found.
        found: usize,
        /// Bytes of the largest book.
        most: usize,
    },
    /// Some other kind of file.
    #[error(
        "this is not an address book: it does not begin with ROOKADDR; \
         give the right file, or move it away, and a new one starts from the seeds"
    )]
    Foreign,
    /// Written by a newer version.
    #[error(
        "the address book has format {found} and this version knows up to {known}: \
         start the newer version again, or move the file away, and a new one starts from the seeds"
    )]
    Newer {
        /// The format found.
        found: u16,
        /// The newest format known here.
        known: u16,
    },
    /// Another network's book.
    #[error(
        "the address book belongs to network {found:#010x} and this node is on {expected:#010x}: \
         give each network a data directory of its own"
    )]
    OtherNetwork {
        /// The network in the file.
        found: u32,
        /// This node's.
        expected: u32,
    },
    /// Cut short, or changed since it was written.
    #[error(
        "the address book is damaged: its checksum is {found:#018x} and that of its content {expected:#018x}; \
         move it away, and a new one starts from the seeds"
    )]
    Checksum {
        /// The checksum in the file.
        found: u64,
        /// The checksum of what is before it.
        expected: u64,
    },
    /// Whole, but no book writes this.
    #[error("the address book is damaged: {0}; move it away, and a new one starts from the seeds")]
    Corrupt(#[from] DecodeError),
}

/// The checksum that ends a file: of all bytes before it, written as eight bytes, little-endian. Public for tools that
/// make or change files, such as a fuzzer.
pub fn checksum(content: &[u8]) -> u64 {
    let mut hasher = SipHasher24::new_with_key(CHECKSUM_KEY);
    hasher.write(content);
    hasher.finish()
}

impl Book {
    /// The book as bytes. Own addresses are not part of it.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD_LEN + 5 + self.nodes.len() * (MIN_ENTRY + 2) + CHECKSUM_LEN);
        out.put_slice(MAGIC);
        out.put_u16_le(VERSION);
        out.put_u32_le(self.config.network);
        let Shape { fresh, used, bucket } = self.config.shape;
        [fresh, used, bucket].into_iter().for_each(|dimension| out.put_u16_le(dimension.get()));
        out.put_slice(self.placement.key());
        put_compact_size(&mut out, self.nodes.len() as u64);
        for (key, node) in self.nodes.iter() {
            put_entry(&mut out, &key, node);
        }
        out.put_u64_le(checksum(&out));
        out
    }

    /// Reads a book back, with the key it was written with: a restart changes nobody's buckets.
    ///
    /// # Errors
    /// Bytes that are no book, damaged, another network's or a newer version's.
    pub fn decode(bytes: &[u8], config: BookConfig) -> Result<Self, BookError> {
        let content = open(bytes, config.network)?;
        let mut reader = Reader::new(content);
        reader.take(MAGIC.len() + 2 + 4, "head")?;
        let shape = Shape {
            fresh: dimension(&mut reader, "fresh buckets")?,
            used: dimension(&mut reader, "used buckets")?,
            bucket: dimension(&mut reader, "bucket size")?,
        };
        let mut book = Self::with_key(config, reader.array("key")?);
        let mut last = None;
        for _ in 0..reader.count(MAX_ENTRIES, MIN_ENTRY, "entries")? {
            let at = reader.at();
            let (key, node) = read_entry(&mut reader)?;
            if last.is_some_and(|last| last >= key) {
                return Err(DecodeError::Invalid { what: "order of addresses", at }.into());
            }
            last = Some(key);
            if shape == config.shape {
                book.restore(key, node).map_err(|what| DecodeError::Invalid { what, at })?;
            } else {
                book.place_anew(key, node);
            }
        }
        reader.finish()?;
        Ok(book)
    }

    /// Puts an entry where it was.
    fn restore(&mut self, key: Key, node: Node) -> Result<(), &'static str> {
        let Shape { fresh, used, .. } = self.config.shape;
        let slot = self.nodes.insert(key, node);
        let (table, count, buckets) = match &node.home {
            Home::Fresh(refs) => (&mut self.fresh, fresh, refs.as_slice()),
            Home::Used(bucket) => (&mut self.used, used, std::slice::from_ref(bucket)),
        };
        for bucket in buckets {
            if *bucket >= count.get() {
                return Err("bucket number");
            }
            if !table.insert(*bucket, key, slot) {
                return Err("bucket that is full already");
            }
        }
        self.used_count += usize::from(node.is_used());
        Ok(())
    }

    /// Puts an entry of a file of another shape where it belongs in this one, if there is room.
    fn place_anew(&mut self, key: Key, mut node: Node) {
        let fresh = self.placement.fresh(key.group(), AddrGroup::of(canonical_ip(node.source.into())));
        let used = self.placement.used(&key);
        if node.is_used() && !self.used.is_full(used) {
            node.home = Home::Used(used);
        } else if !self.fresh.is_full(fresh) {
            node.home = Home::Fresh(Refs::one(fresh));
        } else {
            return;
        }
        self.restore(key, node).expect("the buckets are this shape's and have room");
    }
}

/// Checks what can be checked before the content is walked, and gives the content without its checksum.
fn open(bytes: &[u8], network: u32) -> Result<&[u8], BookError> {
    if bytes.len() > MAX_ENCODED {
        return Err(BookError::Oversize { found: bytes.len(), most: MAX_ENCODED });
    }
    let mut head = Reader::new(bytes);
    if !bytes.starts_with(MAGIC) {
        return Err(BookError::Foreign);
    }
    head.take(MAGIC.len(), "magic")?;
    let at = head.at();
    match head.u16_le("version")? {
        VERSION => {}
        0 => return Err(DecodeError::Invalid { what: "version", at }.into()),
        found => return Err(BookError::Newer { found, known: VERSION }),
    }
    let found = head.u32_le("network")?;
    if found != network {
        return Err(BookError::OtherNetwork { found, expected: network });
    }
    let Some((content, tail)) = bytes.split_last_chunk::<CHECKSUM_LEN>() else {
        let have = bytes.len();
        return Err(DecodeError::Short { what: "checksum", at: 0, need: CHECKSUM_LEN, have }.into());
    };
    let (found, expected) = (u64::from_le_bytes(*tail), checksum(content));
    if found == expected { Ok(content) } else { Err(BookError::Checksum { found, expected }) }
}

fn dimension(reader: &mut Reader<'_>, what: &'static str) -> Result<NonZeroU16, DecodeError> {
    let at = reader.at();
    NonZeroU16::new(reader.u16_le(what)?).ok_or(DecodeError::Invalid { what, at })
}

fn put_entry(out: &mut Vec<u8>, key: &Key, node: &Node) {
    out.put_slice(key.as_bytes());
    out.put_slice(&node.source.octets());
    out.put_u64_le(node.services);
    out.put_u64_le(node.time);
    out.put_u64_le(node.last_attempt);
    out.put_u64_le(node.last_success);
    out.put_u32_le(node.attempts);
    match &node.home {
        Home::Used(bucket) => {
            out.put_u8(0);
            out.put_u16_le(*bucket);
        }
        Home::Fresh(refs) => {
            out.put_u8(refs.as_slice().len() as u8);
            refs.as_slice().iter().for_each(|bucket| out.put_u16_le(*bucket));
        }
    }
}

fn read_entry(reader: &mut Reader<'_>) -> Result<(Key, Node), DecodeError> {
    let at = reader.at();
    let key = Key::from_bytes(reader.array("address")?);
    let source = Ipv6Addr::from(reader.array::<16>("source")?);
    if key.addr().port() == 0 {
        return Err(DecodeError::Invalid { what: "port", at });
    }
    let node = Node {
        source,
        services: reader.u64_le("services")?,
        time: reader.u64_le("time")?,
        last_attempt: reader.u64_le("last attempt")?,
        last_success: reader.u64_le("last success")?,
        attempts: reader.u32_le("attempts")?,
        home: read_home(reader)?,
    };
    Ok((key, node))
}

fn read_home(reader: &mut Reader<'_>) -> Result<Home, DecodeError> {
    let at = reader.at();
    let count = usize::from(reader.u8("references")?);
    if count == 0 {
        return Ok(Home::Used(reader.u16_le("bucket")?));
    }
    if count > MAX_REFS {
        return Err(DecodeError::OverCap {
            what: "references",
            at,
            value: count as u64,
            cap: MAX_REFS as u64,
        });
    }
    let mut refs = Refs::default();
    for _ in 0..count {
        let at = reader.at();
        let bucket = reader.u16_le("bucket")?;
        if refs.as_slice().last().is_some_and(|last| *last >= bucket) {
            return Err(DecodeError::Invalid { what: "order of buckets", at });
        }
        refs.insert(bucket);
    }
    Ok(Home::Fresh(refs))
}
