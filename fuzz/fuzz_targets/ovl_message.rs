//! Everything that the overlay reads after the hello: the first byte is the kind, the rest the body. 200 and 201 stand for
//! the heads of a request and of its answer.
//!
//! No bytes may panic a decoder; what decodes encodes to the same bytes (the heads: to the bytes before what is skipped),
//! and a frame's head says what it was made of.

#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use rookery_base::Kind;
use rookery_engine::{Deframe, Enframe};
use rookery_overlay::wire::frame::{Framing, HEAD_LEN, MAX_BODY};
use rookery_overlay::wire::gossip::{self, Inventory, ItemId};
use rookery_overlay::wire::message::{Ack, Message};
use rookery_overlay::wire::request::{AnswerHead, LEN_LEN, RequestHead};
use rookery_overlay::wire::{SignedRecord, discovery, kind, ping};

const REQUEST: u8 = 200;
const ANSWER: u8 = 201;

fuzz_target!(|input: &[u8]| {
    if let Ok(Some(head)) = Framing.head(input) {
        assert!(head.head_len == HEAD_LEN && head.body_len <= MAX_BODY);
    }
    let Some((&number, body)) = input.split_first() else { return };
    let body = Bytes::copy_from_slice(body);
    if let REQUEST | ANSWER = number {
        let again = match number {
            REQUEST => RequestHead::decode(&body).ok().map(|head| head.encode()),
            _ => AnswerHead::decode(&body).ok().map(|head| head.encode()),
        };
        let Some(again) = again else { return };
        let again = again.expect("a header that was read is not too long");
        assert_eq!(again[LEN_LEN..], body[..again.len() - LEN_LEN]);
        return;
    }
    let Some(again) = reencoded(Kind(u16::from(number)), &body) else { return };
    assert_eq!(again, body, "one encoding of each value");
    let mut framed = BytesMut::new();
    Framing.frame(Kind(u16::from(number)), &body, &mut framed);
    let head = Framing.head(&framed).expect("our own frame").expect("all of its head is there");
    assert_eq!((head.kind, head.body_len), (Kind(u16::from(number)), body.len()));
});

fn reencoded(kind: Kind, body: &Bytes) -> Option<Bytes> {
    match kind {
        kind::PING | kind::PONG => ping::decode(body).ok().map(|nonce| ping::encode(nonce).to_vec().into()),
        kind::MESSAGE => Message::decode(body).ok().map(|message| message.encode()),
        kind::ACK => Ack::decode(body).ok().map(|ack| ack.encode()),
        kind::INVENTORY => Inventory::decode(body).ok().map(|inventory| {
            let ids: Vec<ItemId> = inventory.ids().collect();
            Inventory::encode(&inventory.topic, &ids)
        }),
        kind::ITEM => gossip::decode_item(body).ok().map(|(id, item)| {
            assert_eq!(gossip::answered_id(body), Some(id));
            item.map_or_else(|| gossip::encode_missing(&id), |item| item.encode())
        }),
        kind::TOPICS => gossip::decode_topics(body).ok().map(|topics| gossip::encode_topics(topics.iter())),
        kind::GET_RECORDS => {
            discovery::decode_get(body).ok().map(|most| discovery::encode_get(most).to_vec().into())
        }
        kind::RECORDS => discovery::decode_records(body).ok().map(|records| {
            let raw: Vec<Bytes> = records.iter().map(SignedRecord::raw).cloned().collect();
            discovery::encode_records(&raw)
        }),
        _ => None,
    }
}
