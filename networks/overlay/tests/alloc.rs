//! What a peer writes in a count or a length never decides what is allocated; what it sends does.
//!
//! Everything the testing thread allocates while decoding is added up, freed or not, which is stricter than what is held at
//! a time.

#![expect(clippy::unwrap_used, reason = "a failed set-up fails the test")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::Bytes;
use rookery_base::Hash32;
use rookery_overlay::wire::{
    Hello, SignedRecord, Topic, discovery, gossip, hello, message, request, snapshot,
};
use rookery_transport::tls::{Identity, Keys};

/// Allocated bytes per byte decoded. The worst is a list of topics of one character each: a shared string and its place
/// in the list, grown by doubling, for two bytes.
const PER_BYTE: usize = 64;
/// Allocated whatever the length: an error's words, the first place of a list.
const BESIDE: usize = 2048;

thread_local! {
    static ALLOCATED: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

// SAFETY: every call goes to the system's allocator unchanged; the counter is a plain cell that never allocates.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.set(ALLOCATED.get() + layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

type Decode = fn(&Bytes);

fn samples() -> Vec<(&'static str, Vec<u8>, Decode)> {
    let key = Identity::from_seed(&[1; 32], Keys::Classic).unwrap();
    let addrs = ["1.2.3.4:5".parse().unwrap(), "[2001:db8::1]:6".parse().unwrap()];
    let record = SignedRecord::sign(&Hash32::ZERO, &key, 1, 2, &addrs).unwrap();
    let topics = ["a", "b", "c"].map(|name| Topic::new(name).unwrap());
    let item = gossip::Item { nonce: 1, topic: topics[0].clone(), payload: vec![7; 300].into() };
    let hello = Hello {
        version: hello::VERSION,
        min_version: hello::MIN_VERSION,
        network: Hash32::ZERO,
        capabilities: 0,
        incarnation: 1,
        attempt: 1,
        keys: key.hashes(),
        listen_port: 1,
        addrs: addrs.to_vec(),
        observed: Some(addrs[0]),
        agent: "agent".into(),
        extra: None,
    };
    let heads = message::Message { number: 1, topic: topics[0].clone(), payload: vec![1; 99].into() };
    vec![
        ("hello", hello.encode()[hello::HEAD_LEN..].to_vec(), |bytes| drop(Hello::decode(bytes))),
        ("message", heads.encode().to_vec(), |bytes| drop(message::Message::decode(bytes))),
        ("ack", vec![0; 9], |bytes| drop(message::Ack::decode(bytes))),
        ("topics", gossip::encode_topics(topics.iter()).to_vec(), |bytes| drop(gossip::decode_topics(bytes))),
        ("inventory", gossip::Inventory::encode(&topics[0], &[Hash32::ZERO; 9]).to_vec(), |bytes| {
            drop(gossip::Inventory::decode(bytes));
        }),
        ("item", item.encode().to_vec(), |bytes| drop(gossip::decode_item(bytes))),
        ("record", record.raw().to_vec(), |bytes| drop(SignedRecord::decode(bytes))),
        ("records", discovery::encode_records(&vec![record.raw().clone(); 3]).to_vec(), |bytes| {
            drop(discovery::decode_records(bytes));
        }),
        ("request", vec![3, b'a', b'b', b'c', 0, 2, 9, 9], |bytes| drop(request::RequestHead::decode(bytes))),
        ("answer", vec![0, 0, 2, 9, 9], |bytes| drop(request::AnswerHead::decode(bytes))),
        ("snapshot", vec![0; 200], |bytes| drop(snapshot::Snapshot::decode(bytes, &owner()))),
    ]
}

fn owner() -> snapshot::Owner {
    let peer = rookery_base::PeerId::from_bytes(&[0; 32]).unwrap();
    snapshot::Owner { network: Hash32::ZERO, peer, secret: [0; 32] }
}

fn check(name: &str, bytes: Vec<u8>, decode: Decode) {
    let (len, bytes) = (bytes.len(), Bytes::from(bytes));
    let before = ALLOCATED.get();
    decode(&bytes);
    let cost = ALLOCATED.get() - before;
    assert!(cost <= PER_BYTE * len + BESIDE, "{name}: {len} bytes made us allocate {cost}");
}

#[test]
fn a_claimed_length_or_count_allocates_nothing_to_speak_of() {
    for (name, sample, decode) in samples() {
        check(name, sample.clone(), decode);
        for at in 0..sample.len() {
            for claim in [&[0xff][..], &[0x7f], &[0xff, 0xff], &[0x0f, 0xff], &[0x40]] {
                let mut claims = sample.clone();
                let end = (at + claim.len()).min(claims.len());
                claims.splice(at..end, claim.iter().copied());
                check(name, claims.clone(), decode);
                claims.truncate(at + claim.len());
                check(name, claims, decode);
            }
        }
    }
}

#[test]
fn the_densest_lists_cost_a_small_multiple() {
    let names: Vec<Topic> = (b'0'..b'0' + 64).filter_map(|c| Topic::new(&(c as char).to_string())).collect();
    check("topics", gossip::encode_topics(names.iter()).to_vec(), |bytes| drop(gossip::decode_topics(bytes)));
    let topic = Topic::new("t").unwrap();
    let ids = gossip::Inventory::encode(&topic, &[Hash32::ZERO; gossip::MAX_IDS]).to_vec();
    check("inventory", ids, |bytes| drop(gossip::Inventory::decode(bytes)));
}
