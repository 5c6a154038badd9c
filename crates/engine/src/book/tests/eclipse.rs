//! What one group can and cannot do to a book: hundred thousand addresses against the rest of the world.

use super::*;
use std::collections::BTreeSet;

const SEEDS: u64 = 3;
const FLOOD: u32 = 100_000;

/// A book with 2,000 honest addresses of 2,000 groups, told by 100 sources in as many groups.
fn honest(seed: u64) -> (Book, ChaCha8Rng, BTreeSet<SocketAddr>) {
    let (mut book, mut rng) = (book(seed), rng(seed + 1000));
    for n in 0..2000 {
        book.intake(&[record(in_group(n, 1))], source(n % 100), NOW, &mut rng);
    }
    let known: BTreeSet<_> = book.entries().map(|entry| entry.addr).collect();
    assert!(known.len() > 1900, "{}", known.len());
    (book, rng, known)
}

/// Feeds the flood from one source, each address as young as can be, in messages as large as can be.
fn flood(book: &mut Book, rng: &mut ChaCha8Rng, addr: impl Fn(u32) -> SocketAddr) {
    let evil = IpAddr::V4(Ipv4Addr::new(6, 6, 6, 6));
    let records: Vec<_> = (0..FLOOD).map(|n| Record { time: NOW + 600, ..record(addr(n)) }).collect();
    for message in records.chunks(1000) {
        book.intake(message, evil, NOW, rng);
    }
    book.audit().unwrap();
}

/// The attacker's entries, the honest survivors, and the attacker's share of 4,000 picks.
fn outcome(book: &Book, rng: &mut ChaCha8Rng, known: &BTreeSet<SocketAddr>) -> (usize, usize, f64) {
    let survivors = book.entries().filter(|entry| known.contains(&entry.addr)).count();
    let evil = (0..4000)
        .filter(|_| book.pick(NOW, rng, &mut no_objection).is_some_and(|entry| !known.contains(&entry.addr)))
        .count();
    (book.len() - survivors, survivors, evil as f64 / 4000.0)
}

#[test]
fn one_group_told_by_one_source_holds_one_bucket() {
    for seed in 0..SEEDS {
        let (mut book, mut rng, known) = honest(seed);
        // One /16, all its hosts, on two ports.
        flood(&mut book, &mut rng, |n| {
            let mut addr = v4(6, 6, (n >> 8) as u8, n as u8);
            addr.set_port(if n < 65_536 { PORT } else { PORT + 1 });
            addr
        });
        let (evil, survivors, share) = outcome(&book, &mut rng, &known);
        assert!((1..=64).contains(&evil), "seed {seed}: {evil} places");
        assert!(survivors + 64 >= known.len(), "seed {seed}: {survivors} of {}", known.len());
        assert!(share < 0.01, "seed {seed}: {share} of the picks");
    }
}

#[test]
fn one_source_that_tells_of_many_groups_holds_64_buckets() {
    for seed in 0..SEEDS {
        let (mut book, mut rng, known) = honest(seed);
        let before = book.fresh.occupied();
        flood(&mut book, &mut rng, |n| v4(110 + (n >> 16) as u8, (n >> 8) as u8, n as u8, 7));
        let (evil, survivors, share) = outcome(&book, &mut rng, &known);
        assert!(evil > 2048 && evil <= 64 * 64, "seed {seed}: {evil} places");
        assert!(book.fresh.occupied() <= before + 64);
        // The flood evicts what it shares a bucket with: a sixteenth of the rest.
        assert!(survivors * 100 >= known.len() * 88, "seed {seed}: {survivors} of {}", known.len());
        assert!(share < 0.10, "seed {seed}: {share} of the picks, by {evil} of {} entries", book.len());
    }
}

#[test]
fn a_restart_gives_no_source_other_buckets() {
    let (mut book, mut rng, known) = honest(1);
    let many = |n: u32| v4(110 + (n >> 16) as u8, (n >> 8) as u8, n as u8, 7);
    flood(&mut book, &mut rng, many);
    let (before, ..) = outcome(&book, &mut rng, &known);
    let mut book = Book::decode(&book.encode(), config()).unwrap();
    flood(&mut book, &mut rng, many);
    let (after, ..) = outcome(&book, &mut rng, &known);
    assert!(before <= 4096 && after <= 4096, "{before} and {after} places");
}

#[test]
fn a_group_that_does_answer_holds_eight_used_buckets() {
    let (mut book, mut rng, _) = honest(1);
    for n in 0..60 {
        assert!(book.succeeded(in_group(n, 1), 1, NOW) || n > 0);
    }
    let honest = book.used();
    for n in 0..10_000_u16 {
        let [c, d] = n.to_be_bytes();
        let addr = v4(6, 6, c, d);
        // From as many sources as it likes.
        book.intake(&[Record { time: NOW, ..record(addr) }], source(n % 1000), NOW, &mut rng);
        book.succeeded(addr, 1, NOW);
    }
    book.audit().unwrap();
    let group =
        book.entries().filter(|entry| entry.is_used() && entry.addr.ip().to_string().starts_with("6.6."));
    let held = group.count();
    assert!(held <= 8 * 64 && held > 256, "{held}");
    assert!(book.used() - held + 8 >= honest, "{} of {honest}", book.used() - held);
}

#[test]
fn seeds_survive_a_flood() {
    let (mut survived, mut total) = (0, 0);
    for seed in 0..SEEDS {
        let (mut book, mut rng) = (book(seed), rng(seed));
        let seeds: Vec<_> = (0..24).map(|n| in_group(n, 1)).collect();
        for addr in &seeds {
            assert_eq!(book.add_known(*addr, NOW, &mut rng), Ok(true));
            assert_eq!(book.add_known(*addr, NOW, &mut rng), Ok(false));
        }
        flood(&mut book, &mut rng, |n| v4(110 + (n >> 16) as u8, (n >> 8) as u8, n as u8, 7));
        survived += seeds.iter().filter(|addr| book.get(**addr).is_some()).count();
        total += seeds.len();
    }
    assert!(survived * 100 >= total * 80, "{survived} of {total}");
}
