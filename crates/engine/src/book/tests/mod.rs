//! Tests of the address book, by seeds.

mod codec;
mod eclipse;
mod fate;
mod intake;
mod model;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Book, BookConfig, Entry, Record, Shape};

/// Some day in 2023.
const NOW: u64 = 1_700_000_000;
const PORT: u16 = 12038;
const NETWORK: u32 = 0x5b6e_f2d3;

fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

fn config() -> BookConfig {
    BookConfig::new(NETWORK, PORT, 1)
}

/// Tables so small that every rule about full buckets is met within a few steps.
fn small() -> BookConfig {
    let number = |n| NonZeroU16::new(n).unwrap();
    BookConfig { shape: Shape { fresh: number(16), used: number(2), bucket: number(4) }, ..config() }
}

fn book(seed: u64) -> Book {
    Book::new(config(), &mut rng(seed))
}

fn v4(a: u8, b: u8, c: u8, d: u8) -> SocketAddr {
    (Ipv4Addr::new(a, b, c, d), PORT).into()
}

/// A record heard of an hour ago.
fn record(addr: SocketAddr) -> Record {
    Record { addr, services: 1, time: NOW - 3600, keyed: false }
}

/// The `n`th of 1,000 sources in 1,000 groups.
fn source(n: u16) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(12 + (n / 250) as u8, (n % 250) as u8, 3, 4))
}

/// An address of the group 20.0.0.0/16 to 99.255.0.0/16 that the number names; loopback and shared space are far off.
fn in_group(group: u16, host: u16) -> SocketAddr {
    let [c, d] = host.to_be_bytes();
    v4(20 + (group / 256) as u8 % 80, (group % 256) as u8, c, d)
}

fn no_objection(_: &Entry) -> bool {
    false
}

/// Drives a book through a few hundred random operations.
fn churn(book: &mut Book, rng: &mut ChaCha8Rng, steps: usize) {
    let mut now = NOW;
    for _ in 0..steps {
        let addr = in_group(rng.random_range(0..40), rng.random_range(0..6));
        now += rng.random_range(0..5000);
        match rng.random_range(0..8) {
            0..4 => {
                let from = source(rng.random_range(0..30));
                let time = now - rng.random_range(0..4_000_000);
                book.intake(&[Record { time, ..record(addr) }], from, now, rng);
            }
            4 => assert_eq!(book.attempted(addr, now), book.get(addr).is_some()),
            5 => assert_eq!(book.succeeded(addr, 1, now), book.get(addr).is_some()),
            6 => assert_eq!(book.connected(addr, now), book.get(addr).is_some()),
            _ => {
                if let Some(entry) = book.pick(now, rng, &mut no_objection) {
                    book.attempted(entry.addr, now);
                }
            }
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_book() {
    let run = |seed| {
        let mut rng = rng(seed);
        let mut book = Book::new(small(), &mut rng);
        churn(&mut book, &mut rng, 300);
        let picks: Vec<_> = (0..20).map(|_| book.pick(NOW, &mut rng, &mut no_objection)).collect();
        (book.encode(), picks, book.sample(10, NOW, &mut rng))
    };
    let runs: Vec<_> = (0..200).map(run).collect();
    for (seed, first) in runs.iter().enumerate() {
        assert_eq!(&run(seed as u64), first, "seed {seed}");
    }
    assert_ne!(runs[0].0, runs[1].0, "another seed gives another book");
}

#[test]
fn an_empty_book_is_small_and_an_entry_has_a_bounded_size() {
    let book = book(1);
    assert!(size_of::<Book>() < 512, "{}", size_of::<Book>());
    assert_eq!(book.fresh.occupied() + book.used.occupied() + book.nodes.len(), 0);
    let entry = size_of::<(super::entry::Key, super::entry::Node)>();
    assert!(entry <= 96, "{entry} bytes for an entry: the module's page says 90");
}
