//! Row F2: what a peer writes in a count never decides what is allocated; what it sends does.
//!
//! Everything the testing thread allocates while decoding is added up, freed or not, which is stricter than what is held at a time.

use crate::fixtures::{Fixture, encode, fixtures};
use crate::sized::{largest, smallest};
use bytes::Bytes;
use rookery_handshake::wire::{HEADER_LEN, KINDS, Packet, kind};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Allocated bytes per byte of payload. The worst is a block whose counts of transactions and then of outputs both
/// claim the rest: 56 bytes for each possible transaction of 10, and 96 for each possible output of 14.
const PER_BYTE: usize = 16;

/// Allocated whatever the payload: the boxes of the larger packets and the payload's shared count.
const BESIDE: usize = 1024;

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

/// Bytes allocated by decoding.
fn cost(kind: u8, body: &Bytes) -> usize {
    let before = ALLOCATED.get();
    let decoded = Packet::decode(kind, body);
    let cost = ALLOCATED.get() - before;
    drop(decoded);
    cost
}

fn check(name: &str, kind: u8, body: &Bytes) -> f64 {
    let cost = cost(kind, body);
    let allowed = PER_BYTE * body.len() + BESIDE;
    assert!(cost <= allowed, "{name}: {} bytes made us allocate {cost}", body.len());
    cost.saturating_sub(BESIDE) as f64 / body.len().max(1) as f64
}

/// A small generator (xorshift), so that every run damages the same bytes.
struct Damage(u64);

impl Damage {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below as u64) as usize
    }
}

/// Counts that promise more than any payload holds, in every width, and some that just fit a limit.
const COUNTS: [&[u8]; 6] = [
    &[0xfc],
    &[0xfd, 0xe8, 0x03],
    &[0xfd, 0xff, 0xff],
    &[0xfe, 0xff, 0xff, 0xff, 0x7f],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
];

#[test]
fn damaged_packets_allocate_no_more_than_their_bytes_allow() {
    let mut damage = Damage(0x9e37_79b9_7f4a_7c15);
    let mut worst = 0.0f64;
    for Fixture { name, kind, body } in fixtures() {
        worst = worst.max(check(&name, kind, &body));
        for _ in 0..if body.len() > 50_000 { 30 } else { 300 } {
            let mut bytes = body.to_vec();
            for _ in 0..=damage.next(3) {
                let count = COUNTS[damage.next(COUNTS.len())];
                let at = damage.next(bytes.len() + 1);
                let end = (at + count.len()).min(bytes.len());
                bytes.splice(at..end, count.iter().copied());
            }
            bytes.truncate(damage.next(2 * bytes.len()));
            worst = worst.max(check(&name, kind, &bytes.into()));
        }
    }
    println!("worst: {worst:.1} bytes allocated per byte of payload, limit {PER_BYTE}");
}

#[test]
fn bare_counts_allocate_nothing_to_speak_of() {
    for info in &KINDS {
        let body = encode(&smallest(info.kind));
        for count in COUNTS {
            for at in 0..=body.len() {
                let bytes = [&body[..at], count].concat();
                check(info.name, info.kind, &bytes.into());
            }
        }
    }
}

#[test]
fn the_largest_packets_cost_a_small_multiple() {
    for info in &KINDS {
        check(info.name, info.kind, &encode(&largest(info.kind)));
    }
}

/// The cheapest things to send, as many as fit: transactions of nothing, outputs of the shortest program.
#[test]
fn the_densest_blocks_cost_a_small_multiple() {
    let header = [0; HEADER_LEN];
    let empty_txs = [&header[..], &[0xfd, 0x10, 0x27], &[0; 10 * 10_000]].concat();
    let output = [0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 9, 9, 0, 0];
    let outputs =
        [&header[..], &[1, 0, 0, 0, 0, 0, 0xfd, 0x10, 0x27], &output.repeat(10_000), &[0; 4]].concat();
    // Both counts claim the rest, and the second claim is made before the first has cost the peer anything.
    let claims = [&header[..], &[0xfd, 0x10, 0x27, 0, 0, 0, 0, 0, 0xfd, 0xe0, 0x1b], &[0; 100_000]].concat();
    for (name, bytes) in [("empty transactions", empty_txs), ("outputs", outputs), ("claims", claims)] {
        let per_byte = check(name, kind::BLOCK, &bytes.into());
        println!("{name}: {per_byte:.1} bytes allocated per byte of payload");
        assert!(per_byte > 1.0, "{name} were meant to be costly, and did not get that far");
    }
}

#[test]
fn headers_cost_the_same_for_one_as_for_two_thousand() {
    let cost = |count: usize| {
        let raw = Bytes::from(vec![7; count * HEADER_LEN]);
        let headers = rookery_handshake::wire::Headers::from_raw(raw).unwrap();
        cost(kind::HEADERS, &encode(&Packet::Headers(headers)))
    };
    assert_eq!(cost(1), cost(2000));
    assert!(cost(2000) <= 64, "no header is copied");
}
