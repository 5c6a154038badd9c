//! `topics`, `inventory`, `want` and `item`.
//!
//! ```text
//! topics:    count u8 (to 64) | topics, ascending, none twice
//! inventory: topic | ids, 32 bytes each, 1 to 128
//! want:      id
//! item:      id | 0                                       (not there any more)
//!            id | 1 | nonce u64 | topic | payload, to the end
//! ```
//!
//! The id of an item is SHA-256 over a domain, its nonce, its topic and its payload: whoever holds an item can check it
//! alone, and nobody can answer a `want` with anything else. The publisher draws the nonce, so that the same payload
//! can be published twice.

use bytes::{BufMut, Bytes, BytesMut};
use rookery_base::{DecodeError, Hash32, Reader};

use super::topic::{MAX_TOPIC, Topic};
use crate::crypto::sha256;

/// Topics that a peer may be subscribed to: an application has a handful; each costs every neighbour memory.
pub const MAX_TOPICS: usize = 64;
/// Bytes of the longest `topics`.
pub const MAX_TOPICS_LEN: usize = 1 + MAX_TOPICS * (1 + MAX_TOPIC);
/// Ids in one `inventory`: four kilobytes. More go into the next one.
pub const MAX_IDS: usize = 128;
/// Bytes of the shortest `inventory`.
pub const MIN_INVENTORY_LEN: usize = 2 + 32;
/// Bytes of the longest `inventory`.
pub const MAX_INVENTORY_LEN: usize = 1 + MAX_TOPIC + MAX_IDS * 32;
/// Largest payload of an item. Every subscriber in the network carries it, so it is a quarter of a direct message's:
/// what is larger is better announced here and fetched by a request.
pub const MAX_PAYLOAD: usize = 64 * 1024;
/// Bytes of a `want`.
pub const WANT_LEN: usize = 32;
/// Bytes of an `item` that is not there.
pub const MIN_ITEM_LEN: usize = 33;
/// Bytes of the longest `item`.
pub const MAX_ITEM_LEN: usize = 33 + 8 + 1 + MAX_TOPIC + MAX_PAYLOAD;

const ITEM_DOMAIN: &[u8] = b"rookery overlay item v1";

/// An item's id.
pub type ItemId = Hash32;

/// What is gossiped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Drawn by the publisher.
    pub nonce: u64,
    /// Under which name.
    pub topic: Topic,
    /// What it says.
    pub payload: Bytes,
}

impl Item {
    /// Its id.
    pub fn id(&self) -> ItemId {
        let name = self.topic.as_str().as_bytes();
        sha256(&[ITEM_DOMAIN, &self.nonce.to_be_bytes(), &[name.len() as u8], name, &self.payload])
    }

    /// The body of an `item`.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(33 + 8 + self.topic.encoded_len() + self.payload.len());
        out.put_slice(self.id().as_bytes());
        out.put_u8(1);
        out.put_u64(self.nonce);
        self.topic.put(&mut out);
        out.put_slice(&self.payload);
        out.freeze()
    }
}

/// The body of an `item` that is not there.
pub fn encode_missing(id: &ItemId) -> Bytes {
    [id.as_bytes(), &[0][..]].concat().into()
}

/// The id that an `item` answers, before anything else of it is looked at.
pub fn answered_id(body: &[u8]) -> Option<ItemId> {
    body.first_chunk().copied().map(Hash32)
}

/// An `item`: its id, and the item if it is there. The payload is a slice of the body.
///
/// # Errors
/// When the bytes are no item, or not the one with that id.
pub fn decode_item(body: &Bytes) -> Result<(ItemId, Option<Item>), DecodeError> {
    let mut reader = Reader::new(body);
    let id = reader.hash("id")?;
    let at = reader.at();
    match reader.u8("whether it is there")? {
        0 => reader.finish().map(|()| (id, None)),
        1 => {
            let nonce = super::u64_be(&mut reader, "nonce")?;
            let topic = Topic::read(&mut reader)?;
            let at = reader.at();
            super::within(body.len() - at, MAX_PAYLOAD, "payload", at)?;
            let item = Item { nonce, topic, payload: body.slice(at..) };
            if item.id() != id {
                return Err(DecodeError::Invalid { what: "item, whose id is another,", at: 0 });
            }
            Ok((id, Some(item)))
        }
        _ => Err(DecodeError::Invalid { what: "whether it is there", at }),
    }
}

/// The topics of a `topics`.
///
/// # Errors
/// When the bytes are no such list.
pub fn decode_topics(body: &[u8]) -> Result<Vec<Topic>, DecodeError> {
    let mut reader = Reader::new(body);
    let count = usize::from(reader.u8("count of topics")?);
    super::within(count, MAX_TOPICS, "count of topics", 0)?;
    let mut topics: Vec<Topic> = Vec::new();
    for _ in 0..count {
        let at = reader.at();
        let topic = Topic::read(&mut reader)?;
        if topics.last().is_some_and(|last| *last >= topic) {
            return Err(DecodeError::Invalid { what: "order of topics", at });
        }
        topics.push(topic);
    }
    reader.finish().map(|()| topics)
}

/// The body of a `topics`. The caller gives at most [`MAX_TOPICS`], ascending.
pub fn encode_topics<'a>(topics: impl ExactSizeIterator<Item = &'a Topic>) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(u8::try_from(topics.len()).expect("at most 64 topics"));
    topics.for_each(|topic| topic.put(&mut out));
    out.freeze()
}

/// An `inventory`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inventory {
    /// The topic of all of them.
    pub topic: Topic,
    /// The ids, each 32 bytes, one after the other.
    ids: Bytes,
}

impl Inventory {
    /// Takes a body apart; the ids stay where they are.
    ///
    /// # Errors
    /// When it is no inventory.
    pub fn decode(body: &Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let topic = Topic::read(&mut reader)?;
        let (at, left) = (reader.at(), reader.left());
        super::within(left / 32, MAX_IDS, "count of ids", at)?;
        if left == 0 || !left.is_multiple_of(32) {
            return Err(DecodeError::Invalid { what: "length of ids", at });
        }
        Ok(Self { topic, ids: body.slice(at..) })
    }

    /// The ids.
    pub fn ids(&self) -> impl ExactSizeIterator<Item = ItemId> {
        self.ids.chunks_exact(32).map(|id| Hash32(id.try_into().expect("32 bytes")))
    }

    /// The body of an inventory of 1 to [`MAX_IDS`] ids.
    pub fn encode(topic: &Topic, ids: &[ItemId]) -> Bytes {
        debug_assert!((1..=MAX_IDS).contains(&ids.len()), "{} ids do not fit", ids.len());
        let mut out = BytesMut::with_capacity(topic.encoded_len() + 32 * ids.len());
        topic.put(&mut out);
        ids.iter().for_each(|id| out.put_slice(id.as_bytes()));
        out.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::testing::{arb_topic, check_canonical, check_flips};
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn reencode_item(bytes: &[u8]) -> Option<Vec<u8>> {
        let (id, item) = decode_item(&Bytes::copy_from_slice(bytes)).ok()?;
        Some(item.map_or_else(|| encode_missing(&id), |item| item.encode()).to_vec())
    }

    proptest! {
        #[test]
        fn an_item_is_its_id_and_nothing_else(nonce: u64, topic in arb_topic(), payload in proptest::collection::vec(any::<u8>(), 0..100)) {
            let item = Item { nonce, topic, payload: payload.into() };
            let body = item.encode();
            prop_assert_eq!(decode_item(&body), Ok((item.id(), Some(item))));
            // Every byte is under the hash: no damage and no cut passes.
            check_canonical(&body, |bytes| reencode_item(bytes).filter(|_| bytes.len() > MIN_ITEM_LEN));
            for at in 0..body.len() {
                let mut damaged = body.to_vec();
                damaged[at] ^= 1;
                prop_assert!(decode_item(&damaged.into()).is_err(), "byte {} changed", at);
            }
        }

        #[test]
        fn topics_round_trip_in_one_order(topics in proptest::collection::btree_set(arb_topic(), 0..9)) {
            let body = encode_topics(topics.iter());
            let reencode = |bytes: &[u8]| {
                decode_topics(bytes).ok().map(|topics| encode_topics(topics.iter()).to_vec())
            };
            prop_assert_eq!(decode_topics(&body).map(BTreeSet::from_iter), Ok(topics));
            check_canonical(&body, reencode);
        }

        #[test]
        fn inventories_round_trip(topic in arb_topic(), ids in proptest::collection::vec(any::<[u8; 32]>(), 1..9)) {
            let ids: Vec<ItemId> = ids.into_iter().map(Hash32).collect();
            let body = Inventory::encode(&topic, &ids);
            let inventory = Inventory::decode(&body).unwrap();
            prop_assert_eq!(&inventory.topic, &topic);
            prop_assert_eq!(inventory.ids().collect::<Vec<_>>(), ids);
            let reencode = |bytes: &[u8]| {
                let inventory = Inventory::decode(&Bytes::copy_from_slice(bytes)).ok()?;
                Some(Inventory::encode(&inventory.topic, &inventory.ids().collect::<Vec<_>>()).to_vec())
            };
            check_flips(&body, reencode);
            let whole = |cut: usize| cut > topic.encoded_len() && (cut - topic.encoded_len()).is_multiple_of(32);
            for cut in (0..body.len()).filter(|cut| !whole(*cut)) {
                prop_assert!(reencode(&body[..cut]).is_none(), "cut at {}", cut);
            }
        }
    }

    #[test]
    fn the_missing_is_told_in_33_bytes() {
        let body = encode_missing(&Hash32([7; 32]));
        assert_eq!(body.len(), MIN_ITEM_LEN);
        assert_eq!(decode_item(&body), Ok((Hash32([7; 32]), None)));
        check_canonical(&body, reencode_item);
    }

    #[test]
    fn the_same_payload_has_another_id_under_another_nonce_or_topic() {
        let item = |nonce, topic| Item {
            nonce,
            topic: Topic::new(topic).unwrap(),
            payload: Bytes::from_static(b"x"),
        };
        assert_ne!(item(1, "a").id(), item(2, "a").id());
        assert_ne!(item(1, "a").id(), item(1, "b").id());
        let moved = Item { payload: Bytes::from_static(b"ax"), ..item(1, "b") };
        assert_ne!(moved.id(), Item { payload: Bytes::from_static(b"x"), ..item(1, "ba") }.id());
    }

    #[test]
    fn counts_over_their_caps_are_refused() {
        let topic = Topic::new("t").unwrap();
        let ids = [b"\x01t".to_vec(), vec![0; 32 * (MAX_IDS + 1)]].concat();
        assert!(matches!(Inventory::decode(&ids.into()), Err(DecodeError::OverCap { value: 129, .. })));
        assert!(matches!(decode_topics(&[65]), Err(DecodeError::OverCap { value: 65, cap: 64, .. })));
        assert_eq!(Inventory::encode(&topic, &[Hash32::ZERO; MAX_IDS]).len(), 2 + 32 * MAX_IDS);
    }
}
