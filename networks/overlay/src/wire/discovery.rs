//! `get_records` and `records`.
//!
//! ```text
//! get_records: most u8 (1 to 16)
//! records:     count u8 (to 16) | each: length u16, record
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use rookery_base::{DecodeError, Reader};

use super::record::{MAX_RECORD, SignedRecord};

/// Records in one answer: twice what a node wants to dial. With ML-DSA-65 their signatures cost 0.7 ms to check.
pub const MAX_RECORDS: usize = 16;
/// Bytes of a `get_records`.
pub const GET_LEN: usize = 1;
/// Bytes of the longest `records`.
pub const MAX_LEN: usize = 1 + MAX_RECORDS * (2 + MAX_RECORD);

/// How many are asked for.
///
/// # Errors
/// When the body is no `get_records`.
pub fn decode_get(body: &[u8]) -> Result<usize, DecodeError> {
    let mut reader = Reader::new(body);
    let most = usize::from(reader.u8("most")?);
    super::within(most, MAX_RECORDS, "most", 0)?;
    if most == 0 {
        return Err(DecodeError::Invalid { what: "most", at: 0 });
    }
    reader.finish().map(|()| most)
}

/// The body of a `get_records` for this many, at most [`MAX_RECORDS`]. One asks for the peer's own.
pub const fn encode_get(most: usize) -> [u8; GET_LEN] {
    [if most < MAX_RECORDS { most as u8 } else { MAX_RECORDS as u8 }]
}

/// The records of a `records`; their signatures are still to be checked.
///
/// # Errors
/// When the body is no such list, or one of them no record.
pub fn decode_records(body: &Bytes) -> Result<Vec<SignedRecord>, DecodeError> {
    let mut reader = Reader::new(body);
    let count = usize::from(reader.u8("count of records")?);
    super::within(count, MAX_RECORDS, "count of records", 0)?;
    let mut records = Vec::new();
    for _ in 0..count {
        let raw = super::bytes16(&mut reader, MAX_RECORD, "record")?;
        records.push(SignedRecord::decode(&body.slice_ref(raw))?);
    }
    reader.finish().map(|()| records)
}

/// The body of a `records` with the first [`MAX_RECORDS`] of these.
pub fn encode_records(records: &[Bytes]) -> Bytes {
    let records = &records[..records.len().min(MAX_RECORDS)];
    let mut out = BytesMut::with_capacity(1 + records.iter().map(|raw| 2 + raw.len()).sum::<usize>());
    out.put_u8(records.len() as u8);
    records.iter().for_each(|raw| super::put_bytes16(&mut out, raw));
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::testing::check_canonical;
    use rookery_base::Hash32;
    use rookery_transport::tls::{Identity, Keys};

    fn record(seed: u8) -> SignedRecord {
        let key = Identity::from_seed(&[seed; 32], Keys::Classic).unwrap();
        SignedRecord::sign(&Hash32::ZERO, &key, 1, 2, &["1.2.3.4:5".parse().unwrap()]).unwrap()
    }

    #[test]
    fn lists_of_records_have_one_encoding() {
        for count in 0..4 {
            let records: Vec<SignedRecord> = (0..count).map(record).collect();
            let raw = |records: &[SignedRecord]| {
                encode_records(&records.iter().map(|record| record.raw().clone()).collect::<Vec<_>>())
            };
            let body = raw(&records);
            assert_eq!(decode_records(&body), Ok(records));
            check_canonical(&body, |bytes| {
                decode_records(&Bytes::copy_from_slice(bytes)).ok().map(|records| raw(&records).to_vec())
            });
        }
    }

    #[test]
    fn a_question_names_a_number_within_the_bound() {
        assert_eq!(decode_get(&encode_get(1)), Ok(1));
        assert_eq!(decode_get(&encode_get(99)), Ok(MAX_RECORDS));
        for bad in [&[][..], &[0], &[17], &[1, 0]] {
            assert!(decode_get(bad).is_err(), "{bad:?}");
        }
        assert!(matches!(decode_records(&Bytes::from_static(&[17])), Err(DecodeError::OverCap { .. })));
    }
}
