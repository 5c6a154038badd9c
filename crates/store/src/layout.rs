//! How things lie in the file: tables, keys, and rows that carry their own checksum.
//!
//! Every row is `checksum (4 bytes, CRC-32 of key and body) | body`. The database under us checks its pages only
//! when it recovers from a crash; the checksum in the row finds a flipped bit on every read, and, because it covers
//! the key, a row that damage in the tree has moved to another place.
//!
//! | table | key | body |
//! |---|---|---|
//! | `meta` | `"schema"` | schema number, its complement: readable by every version, for ever |
//! | `meta` | `"format"` | record length, records per header chunk, per hash chunk, base height, base work, network |
//! | `meta` | `"tip"` | 0, or 1 with height, hash, work |
//! | `headers`, `hashes` | chunk number | work before the chunk, then records |
//! | `side` | height, hash | raw header |
//! | `reorgs` | sequence | fork height, old tip, new tip, unix time |
//! | `blobs` | name | bytes |
//!
//! Numbers are big-endian.

use crate::error::Fail;
use crate::types::{Base, Reorg, SideHeader, Tip};
use redb::{ReadableTable, TableDefinition};
use rookery_base::{Hash32, Height, Reader as Decoder, Work};

/// The layout written here. A file with a greater number is refused.
pub(crate) const SCHEMA: u32 = 1;

/// What one chunk takes in the database: a run of sixteen 4 KiB pages, 277 headers of 236 bytes or 2,046 hashes.
/// Measured over 330,000 headers, against 64 KiB: 16 KiB cost half as much CPU again (one tree insertion and one
/// system call each), 128 KiB gained nothing. The price is that following the tip rewrites up to 64 KiB per block.
const CHUNK_BYTES: usize = 64 << 10;

/// Kept free in a chunk for what is not a record: checksum 4, work 32, and the page's own head, key and offset, 12
/// in all. The rest is slack, so that the run is never overrun.
const CHUNK_OVERHEAD: usize = 64;

/// The longest header a store can be made for, in bytes: one must fit in a chunk.
pub const MAX_RECORD_LEN: usize = CHUNK_BYTES - CHUNK_OVERHEAD;

const CHECKSUM_LEN: usize = 4;
const WORK_LEN: usize = 32;
const CHUNK_HEAD: usize = CHECKSUM_LEN + WORK_LEN;
const HASH_LEN: usize = 32;

pub(crate) type Rows<K> = TableDefinition<'static, K, &'static [u8]>;

pub(crate) const META: Rows<&str> = TableDefinition::new("meta");
pub(crate) const SIDE: Rows<(u32, &[u8; HASH_LEN])> = TableDefinition::new("side");
pub(crate) const REORGS: Rows<u64> = TableDefinition::new("reorgs");
pub(crate) const BLOBS: Rows<&str> = TableDefinition::new("blobs");
const HEADERS: Rows<u32> = TableDefinition::new("headers");
const HASHES: Rows<u32> = TableDefinition::new("hashes");

pub(crate) const SCHEMA_ROW: &str = "schema";
pub(crate) const FORMAT_ROW: &str = "format";
pub(crate) const TIP_ROW: &str = "tip";

fn checksum(key: &[u8], body: &[u8]) -> [u8; CHECKSUM_LEN] {
    let mut crc = crc32fast::Hasher::new();
    crc.update(key);
    crc.update(body);
    crc.finalize().to_be_bytes()
}

/// A row of `body` under `key`.
pub(crate) fn seal(key: &[u8], body: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(CHECKSUM_LEN + body.len());
    row.extend_from_slice(&checksum(key, body));
    row.extend_from_slice(body);
    row
}

/// The body of a row, once its checksum is right.
pub(crate) fn open<'a>(key: &[u8], row: &'a [u8], what: &str) -> Result<&'a [u8], Fail> {
    match row.split_at_checked(CHECKSUM_LEN) {
        Some((sum, body)) if sum == checksum(key, body) => Ok(body),
        Some(_) => Err(Fail::corrupt(format!("the checksum of {what} does not match"))),
        None => Err(Fail::corrupt(format!("{what} has {} bytes, too few for a checksum", row.len()))),
    }
}

/// Key of a side header as its checksum sees it.
pub(crate) fn side_key(height: Height, hash: &Hash32) -> [u8; 4 + HASH_LEN] {
    let mut key = [0; 4 + HASH_LEN];
    key[..4].copy_from_slice(&height.to_be_bytes());
    key[4..].copy_from_slice(hash.as_bytes());
    key
}

pub(crate) fn side_header(height: Height, hash: &[u8; HASH_LEN], row: &[u8]) -> Result<SideHeader, Fail> {
    let hash = Hash32(*hash);
    let raw = open(&side_key(height, &hash), row, "a side header")?.to_vec();
    Ok(SideHeader { height, hash, raw })
}

/// What is fixed when a file is created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Format {
    pub(crate) network: String,
    pub(crate) base: Base,
    pub(crate) headers: Lane,
    pub(crate) hashes: Lane,
}

impl Format {
    /// The format of a new file. The chunk sizes are written into it: later versions may choose others.
    pub(crate) fn new(network: &str, record_len: usize, base: Base) -> Self {
        Self {
            network: network.to_owned(),
            base,
            headers: Lane::fitting(Kind::Headers, record_len),
            hashes: Lane::fitting(Kind::Hashes, HASH_LEN),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(64 + self.network.len());
        for number in [self.headers.record_len as u32, self.headers.per_chunk, self.hashes.per_chunk] {
            body.extend_from_slice(&number.to_be_bytes());
        }
        body.extend_from_slice(&self.base.height.to_be_bytes());
        body.extend_from_slice(&self.base.work_before.to_be_bytes::<WORK_LEN>());
        body.extend_from_slice(self.network.as_bytes());
        seal(FORMAT_ROW.as_bytes(), &body)
    }

    pub(crate) fn decode(row: &[u8]) -> Result<Self, Fail> {
        let mut body = Decoder::new(open(FORMAT_ROW.as_bytes(), row, "the format row")?);
        let record_len = body.u32_be("record length")? as usize;
        let per_header_chunk = body.u32_be("headers per chunk")?;
        let per_hash_chunk = body.u32_be("hashes per chunk")?;
        let base = Base { height: body.u32_be("base height")?, work_before: work(&mut body)? };
        let network = String::from_utf8_lossy(body.rest()).into_owned();
        if record_len == 0 || per_header_chunk == 0 || per_hash_chunk == 0 {
            return Err(Fail::corrupt("the format row has a zero length"));
        }
        Ok(Self {
            network,
            base,
            headers: Lane { kind: Kind::Headers, record_len, per_chunk: per_header_chunk },
            hashes: Lane { kind: Kind::Hashes, record_len: HASH_LEN, per_chunk: per_hash_chunk },
        })
    }
}

/// The schema row: the number and its complement, so that a flipped bit is not taken for another version.
pub(crate) fn encode_schema(schema: u32) -> [u8; 8] {
    let mut row = [0; 8];
    row[..4].copy_from_slice(&schema.to_be_bytes());
    row[4..].copy_from_slice(&(!schema).to_be_bytes());
    row
}

pub(crate) fn decode_schema(row: &[u8]) -> Result<u32, Fail> {
    let mut row = Decoder::new(row);
    let (schema, complement) = (row.u32_be("schema")?, row.u32_be("schema complement")?);
    row.finish()?;
    if schema == 0 || complement != !schema {
        return Err(Fail::corrupt("the schema row contradicts itself"));
    }
    Ok(schema)
}

pub(crate) fn encode_tip(tip: Option<Tip>) -> Vec<u8> {
    let mut body = vec![u8::from(tip.is_some())];
    if let Some(tip) = tip {
        body.extend_from_slice(&tip.height.to_be_bytes());
        body.extend_from_slice(tip.hash.as_bytes());
        body.extend_from_slice(&tip.work.to_be_bytes::<WORK_LEN>());
    }
    seal(TIP_ROW.as_bytes(), &body)
}

pub(crate) fn decode_tip(row: &[u8]) -> Result<Option<Tip>, Fail> {
    let mut body = Decoder::new(open(TIP_ROW.as_bytes(), row, "the tip row")?);
    if body.u8("tip presence")? == 0 {
        return Ok(None);
    }
    let (height, hash) = (body.u32_be("tip height")?, body.hash("tip hash")?);
    Ok(Some(Tip { height, hash, work: work(&mut body)? }))
}

pub(crate) fn encode_reorg(sequence: u64, reorg: &Reorg) -> Vec<u8> {
    let mut body = Vec::with_capacity(84);
    body.extend_from_slice(&reorg.fork.to_be_bytes());
    for (height, hash) in [&reorg.old_tip, &reorg.new_tip] {
        body.extend_from_slice(&height.to_be_bytes());
        body.extend_from_slice(hash.as_bytes());
    }
    body.extend_from_slice(&reorg.unix_time.to_be_bytes());
    seal(&sequence.to_be_bytes(), &body)
}

pub(crate) fn decode_reorg(sequence: u64, row: &[u8]) -> Result<Reorg, Fail> {
    let mut body = Decoder::new(open(&sequence.to_be_bytes(), row, "a reorganisation")?);
    let fork = body.u32_be("fork height")?;
    let old_tip = (body.u32_be("old height")?, body.hash("old tip")?);
    let new_tip = (body.u32_be("new height")?, body.hash("new tip")?);
    let unix_time = u64::from_be_bytes(body.array("unix time")?);
    Ok(Reorg { fork, old_tip, new_tip, unix_time })
}

fn work(body: &mut Decoder<'_>) -> Result<Work, Fail> {
    Ok(Work::from_be_bytes::<WORK_LEN>(body.array("work")?))
}

impl From<rookery_base::DecodeError> for Fail {
    fn from(error: rookery_base::DecodeError) -> Self {
        Self::Corrupt(error.to_string())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Headers,
    Hashes,
}

/// A sequence of fixed-length records, cut into chunks. Position 0 is the base height, so chunk borders depend on
/// the file's base, and the first chunk is full like every other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lane {
    kind: Kind,
    pub(crate) record_len: usize,
    pub(crate) per_chunk: u32,
}

impl Lane {
    const fn fitting(kind: Kind, record_len: usize) -> Self {
        Self { kind, record_len, per_chunk: (MAX_RECORD_LEN / record_len) as u32 }
    }

    pub(crate) const fn table(&self) -> Rows<u32> {
        match self.kind {
            Kind::Headers => HEADERS,
            Kind::Hashes => HASHES,
        }
    }

    const fn name(&self) -> &'static str {
        match self.kind {
            Kind::Headers => "header",
            Kind::Hashes => "hash",
        }
    }

    /// Number of chunks that `records` records take.
    pub(crate) const fn chunks(&self, records: u32) -> u32 {
        records.div_ceil(self.per_chunk)
    }

    /// Bytes of the row that holds `records` records.
    pub(crate) const fn row_len(&self, records: u32) -> usize {
        CHUNK_HEAD + records as usize * self.record_len
    }

    /// Hands chunk `number` to `then`. It must exist and hold at least `least` records: the caller knows from the
    /// tip that they are there.
    pub(crate) fn with_chunk<T>(
        &self,
        table: &impl ReadableTable<u32, &'static [u8]>,
        number: u32,
        least: u32,
        then: impl FnOnce(Chunk<'_>) -> T,
    ) -> Result<T, Fail> {
        let Some(row) = table.get(number)? else {
            return Err(Fail::corrupt(format!("{} chunk {number} is missing", self.name())));
        };
        let what = format_args!("{} chunk {number}", self.name()).to_string();
        let mut body = Decoder::new(open(&number.to_be_bytes(), row.value(), &what)?);
        let work_before = work(&mut body)?;
        let records = body.rest();
        if !records.len().is_multiple_of(self.record_len) || records.len() < least as usize * self.record_len
        {
            return Err(Fail::corrupt(format!(
                "{what} has {} bytes, expected at least {least} records of {}",
                records.len(),
                self.record_len
            )));
        }
        Ok(then(Chunk { work_before, records }))
    }
}

/// One chunk, its checksum found right.
pub(crate) struct Chunk<'a> {
    pub(crate) work_before: Work,
    pub(crate) records: &'a [u8],
}

/// Fills the row of chunk `number` in place: `row` is [`Lane::row_len`] long and is written from end to end.
pub(crate) fn fill_chunk(row: &mut [u8], number: u32, work_before: Work, kept: &[u8], added: &[u8]) {
    let (head, records) = row.split_at_mut(CHUNK_HEAD);
    head[CHECKSUM_LEN..].copy_from_slice(&work_before.to_be_bytes::<WORK_LEN>());
    records[..kept.len()].copy_from_slice(kept);
    records[kept.len()..].copy_from_slice(added);
    let sum = checksum(&number.to_be_bytes(), &row[CHECKSUM_LEN..]);
    row[..CHECKSUM_LEN].copy_from_slice(&sum);
}

/// The hashes in a run of hash records.
pub(crate) fn hashes_of(records: &[u8]) -> impl Iterator<Item = Hash32> + '_ {
    let (whole, rest) = records.as_chunks::<HASH_LEN>();
    debug_assert!(rest.is_empty(), "a hash chunk holds whole hashes, with_chunk has checked");
    whole.iter().map(|bytes| Hash32(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_of_any_record_length_fits_its_page_run() {
        for record_len in [1, 32, 80, 112, 236, 1_487, 40_000, MAX_RECORD_LEN] {
            let lane = Lane::fitting(Kind::Headers, record_len);
            assert!(lane.per_chunk >= 1);
            // 12: page head 4, key 4, end offset 4.
            assert!(lane.row_len(lane.per_chunk) + 12 <= CHUNK_BYTES, "{record_len}");
        }
    }

    #[test]
    fn a_row_is_bound_to_its_key_and_to_each_of_its_bits() {
        let row = seal(b"key", b"body");
        assert_eq!(open(b"key", &row, "row").unwrap(), b"body");
        assert!(open(b"kez", &row, "row").is_err());
        for bit in 0..row.len() * 8 {
            let mut bad = row.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(open(b"key", &bad, "row").is_err(), "bit {bit}");
        }
        assert!(open(b"key", &row[..3], "row").is_err());
    }

    #[test]
    fn meta_rows_round_trip_and_every_flipped_bit_is_found() {
        let base = Base { height: 7, work_before: Work::from(9) };
        let format = Format::new("net", 236, base);
        let tip = Some(Tip { height: 8, hash: Hash32([3; 32]), work: Work::MAX });
        assert_eq!(Format::decode(&format.encode()).unwrap(), format);
        assert_eq!(decode_tip(&encode_tip(tip)).unwrap(), tip);
        assert_eq!(decode_tip(&encode_tip(None)).unwrap(), None);
        assert_eq!(decode_schema(&encode_schema(5)).unwrap(), 5);
        for bit in 0..64 {
            let mut bad = encode_schema(SCHEMA);
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_schema(&bad).is_err(), "bit {bit}");
        }
    }
}
