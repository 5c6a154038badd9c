//! Attempts, successes, staleness, and who gives way in a full bucket.

use super::*;
use crate::book::Key;
use crate::book::choose::SMALL;

const DAY: u64 = 24 * 3600;

/// A book that knows one address of the public internet, heard of at `time`.
fn with_one(time: u64) -> (Book, ChaCha8Rng, SocketAddr) {
    let (mut book, mut rng, addr) = (book(1), rng(1), v4(8, 8, 8, 8));
    book.intake(&[Record { time, ..record(addr) }], source(0), time, &mut rng);
    (book, rng, addr)
}

fn is_stale(book: &Book, now: u64) -> bool {
    book.sample(1, now, &mut rng(1)).is_empty()
}

#[test]
fn staleness() {
    let (book, ..) = with_one(NOW);
    assert!(
        !is_stale(&book, NOW + 30 * DAY) && is_stale(&book, NOW + 30 * DAY + 1),
        "not heard of for a month"
    );
    assert!(!is_stale(&book, NOW - 600) && is_stale(&book, NOW - 601), "heard of in the future");

    let (mut book, _, addr) = with_one(NOW);
    (0..2).for_each(|_| assert!(book.attempted(addr, NOW)));
    assert!(!is_stale(&book, NOW + 61));
    book.attempted(addr, NOW);
    assert!(!is_stale(&book, NOW + 60), "a dial may be under way");
    assert!(is_stale(&book, NOW + 61), "three attempts, never an answer");

    book.succeeded(addr, 1, NOW + 61);
    (0..9).for_each(|_| assert!(book.attempted(addr, NOW + 100)));
    assert!(!is_stale(&book, NOW + 8 * DAY), "nine failures");
    book.attempted(addr, NOW + 100);
    assert!(!is_stale(&book, NOW + 61 + 7 * DAY), "ten failures, but it answered within the week");
    assert!(is_stale(&book, NOW + 62 + 7 * DAY));
}

#[test]
fn what_happens_to_an_address_is_written_down() {
    let (mut book, _, addr) = with_one(NOW);
    assert!(book.take_changed() && !book.take_changed());
    book.attempted(addr, NOW + 5);
    let entry = book.get(addr).unwrap();
    assert_eq!(
        (entry.attempts, entry.last_attempt, entry.last_success, entry.is_used()),
        (1, NOW + 5, 0, false)
    );
    book.connected(addr, NOW + 1200);
    assert_eq!(book.get(addr).unwrap().time, NOW);
    book.connected(addr, NOW + 1201);
    assert_eq!(book.get(addr).unwrap().time, NOW + 1201);
    book.succeeded(addr, 5, NOW + 1300);
    let entry = book.get(addr).unwrap();
    assert_eq!((entry.attempts, entry.last_attempt, entry.last_success), (0, NOW + 1300, NOW + 1300));
    assert_eq!((entry.services, entry.is_used(), book.used(), book.fresh()), (5, true, 1, 0));
    assert!(book.take_changed());

    let stranger = v4(9, 9, 9, 9);
    assert!(
        !book.attempted(stranger, NOW) && !book.connected(stranger, NOW) && !book.succeeded(stranger, 1, NOW)
    );
    assert!(!book.remove(stranger) && !book.take_changed());
    assert!(book.remove(addr) && book.is_empty() && book.used() == 0);
    book.audit().unwrap();
}

/// Ten thousand picks among one entry with this history and one without: how often the first is taken.
fn share(history: impl Fn(&mut Book, SocketAddr), now: u64) -> f64 {
    let (mut book, mut rng, addr) = with_one(NOW);
    book.intake(&[record(v4(77, 7, 7, 7))], source(500), NOW, &mut rng);
    assert_eq!(book.fresh.occupied(), 2);
    history(&mut book, addr);
    let mut hits = 0;
    for _ in 0..10_000 {
        hits += u32::from(book.pick(now, &mut rng, &mut no_objection).unwrap().addr == v4(8, 8, 8, 8));
    }
    f64::from(hits) / 10_000.0
}

#[test]
fn failures_and_recent_attempts_lower_the_chance() {
    let fails = |n: u32| move |book: &mut Book, addr| (0..n).for_each(|_| assert!(book.attempted(addr, NOW)));
    let (even, one, eight, nine) = (
        share(|_, _| (), NOW),
        share(fails(1), NOW + 600),
        share(fails(8), NOW + 600),
        share(fails(9), NOW + 600),
    );
    let recent = share(fails(1), NOW + 599);
    assert!((0.48..0.52).contains(&even), "{even}");
    // Against a sure one, a candidate of chance c is taken in c / (c + 1) of the picks, plus what impatience adds.
    assert!((0.39..0.45).contains(&one), "{one}");
    assert!((0.03..0.08).contains(&eight) && (eight - nine).abs() < 0.01, "{eight} {nine}");
    assert!(recent < 0.02, "{recent}");
}

#[test]
fn an_unlikely_entry_is_picked_in_the_end_when_it_is_all_there_is() {
    let (mut book, mut rng, addr) = with_one(NOW);
    (0..20).for_each(|_| assert!(book.attempted(addr, NOW)));
    assert_eq!(book.pick(NOW, &mut rng, &mut no_objection).unwrap().addr, addr);
}

#[test]
fn the_callers_word_is_final_and_tries_are_few() {
    let (mut book, mut rng) = (book(1), rng(1));
    for n in 0..200 {
        book.intake(&[record(in_group(n, 1))], source(n), NOW, &mut rng);
    }
    let mut asked = 0;
    let none = book.pick(NOW, &mut rng, &mut |_| {
        asked += 1;
        true
    });
    assert!(none.is_none() && asked == 10, "{asked}");
    let even = |entry: &Entry| entry.group().as_bytes()[2].is_multiple_of(2);
    for _ in 0..200 {
        assert!(book.pick(NOW, &mut rng, &mut |entry| even(entry)).is_none_or(|entry| !even(&entry)));
    }
}

#[test]
fn in_a_small_book_the_one_address_of_use_is_always_found_and_one_that_fails_is_not_tried_every_time() {
    let (mut book, mut rng) = (book(1), rng(1));
    for n in 0..SMALL as u16 {
        book.intake(&[record(in_group(n, 1))], source(n), NOW, &mut rng);
    }
    let wanted = in_group(7, 1);
    for _ in 0..200 {
        let picked = book.pick(NOW, &mut rng, &mut |entry| entry.addr != wanted);
        assert_eq!(picked.map(|entry| entry.addr), Some(wanted));
    }
    (0..5).for_each(|n| assert!(book.attempted(wanted, NOW - 3600 + n)));
    let tried = (0..200).filter(|_| book.pick(NOW, &mut rng, &mut |entry| entry.addr != wanted).is_some());
    let tried = tried.count();
    assert!((1..150).contains(&tried), "{tried} of 200");
}

#[test]
fn the_first_tries_pass_over_recent_attempts_and_unusual_ports() {
    let (mut book, mut rng) = (book(1), rng(1));
    for n in 0..100 {
        let mut addr = in_group(n, 1);
        addr.set_port(if n % 2 == 0 { PORT } else { 4000 });
        book.intake(&[record(addr)], source(n), NOW, &mut rng);
    }
    let unusual = (0..1000)
        .filter(|_| {
            book.pick(NOW, &mut rng, &mut no_objection).is_some_and(|entry| entry.addr.port() != PORT)
        })
        .count();
    // Four candidates of ten are passed over for their port: one in sixteen picks gets that far and takes either.
    assert!((10..70).contains(&unusual), "{unusual} of 1000 with another port");

    // Nine of ten were just tried. The table's impatience makes one of them a candidate in eight draws or so; two such
    // candidates are passed over.
    let mut tried = self::book(2);
    for n in 0..100 {
        tried.intake(&[record(in_group(n, 1))], source(n), NOW, &mut rng);
        assert!(n % 10 == 0 || tried.attempted(in_group(n, 1), NOW - 100));
    }
    let mut recent = |now| {
        let was_tried =
            |_: &_| tried.pick(now, &mut rng, &mut no_objection).is_some_and(|entry| entry.last_attempt != 0);
        (0..4000).filter(was_tried).count()
    };
    let (at_once, later) = (recent(NOW), recent(NOW + 600));
    assert!(at_once < 100, "{at_once} of 4000 just tried");
    assert!(later > 3000, "{later} of 4000: after ten minutes they have failed once, no more");

    // In a book that has nothing else, they are picked.
    let (mut book, _, addr) = with_one(NOW);
    book.attempted(addr, NOW);
    assert!(book.pick(NOW + 1, &mut rng, &mut no_objection).is_some());
}

#[test]
fn used_and_fresh_are_picked_by_a_coin() {
    let (mut book, mut rng) = (book(1), rng(1));
    for n in 0..400 {
        book.intake(&[record(in_group(n, 1))], source(n), NOW, &mut rng);
    }
    book.succeeded(in_group(0, 1), 1, NOW - 1000);
    let used = (0..2000).filter(|_| book.pick(NOW, &mut rng, &mut no_objection).unwrap().is_used()).count();
    assert!((900..1100).contains(&used), "{used} of 2000");
}

/// A small book with one full fresh bucket: addresses of one group and one source; and the newcomer to it.
fn full_bucket() -> (Book, ChaCha8Rng, SocketAddr) {
    let mut rng = rng(3);
    let mut book = Book::new(small(), &mut rng);
    for host in 0..4 {
        let time = NOW - 4000 + u64::from(host);
        book.intake(&[Record { time, ..record(in_group(1, host)) }], source(0), NOW, &mut rng);
    }
    assert_eq!((book.len(), book.fresh.occupied()), (4, 1));
    (book, rng, in_group(1, 9))
}

fn hosts(book: &Book) -> Vec<SocketAddr> {
    book.entries().map(|entry| entry.addr).collect()
}

#[test]
fn the_stale_leave_a_full_bucket_first_and_alone() {
    let (mut book, mut rng, newcomer) = full_bucket();
    for host in [1, 3] {
        (0..3).for_each(|_| assert!(book.attempted(in_group(1, host), NOW - 100)));
    }
    book.intake(&[record(newcomer)], source(0), NOW, &mut rng);
    assert_eq!(hosts(&book), [in_group(1, 0), in_group(1, 2), newcomer]);
    book.audit().unwrap();
}

#[test]
fn without_stale_ones_the_oldest_leaves_unless_it_is_being_tried() {
    let (mut book, mut rng, newcomer) = full_bucket();
    book.attempted(in_group(1, 0), NOW - 30);
    book.intake(&[record(newcomer)], source(0), NOW, &mut rng);
    assert_eq!(hosts(&book), [in_group(1, 0), in_group(1, 2), in_group(1, 3), newcomer]);
    book.audit().unwrap();
}

#[test]
fn the_oldest_of_a_full_used_bucket_goes_back_to_the_fresh_table() {
    let mut rng = rng(4);
    let mut book = Book::new(small(), &mut rng);
    let mut reached = 0;
    for n in 0..40_u16 {
        let addr = in_group(n, 1);
        let time = NOW - 1000 + u64::from(n);
        book.intake(&[Record { time, ..record(addr) }], source(n), NOW, &mut rng);
        reached += usize::from(book.succeeded(addr, 1, NOW));
        assert!(book.get(addr).unwrap().is_used());
        book.audit().unwrap();
    }
    assert_eq!((reached, book.used()), (40, 8), "two buckets of four");
    let youngest: Vec<_> = (0..small().shape.used.get())
        .flat_map(|bucket| {
            let mut of: Vec<_> =
                (0..40).filter(|n| book.placement.used(&Key::of(in_group(*n, 1))) == bucket).collect();
            of.split_off(of.len() - 4)
        })
        .collect();
    assert!(youngest.iter().all(|n| book.get(in_group(*n, 1)).unwrap().is_used()), "{youngest:?}");
    assert!(book.used.audit(small().shape.used).is_ok() && book.fresh() > 0);
    let back = book.entries().find(|entry| !entry.is_used()).unwrap();
    assert_eq!((back.last_success, back.references), (NOW, 1), "it remembers that it has answered");
}

#[test]
fn samples_are_random_bounded_and_without_repeats() {
    let (mut book, mut rng) = (book(1), rng(1));
    for n in 0..1500 {
        book.intake(&[record(in_group(n, 1))], source(n % 1000), NOW, &mut rng);
    }
    let known = book.len();
    assert!(known > 1400, "{known}");
    let mut sample: Vec<_> =
        book.sample(usize::MAX, NOW, &mut rng).iter().map(|record| record.addr).collect();
    assert_eq!(sample.len(), crate::book::MAX_SAMPLE);
    let first: Vec<_> = book.sample(1000, NOW, &mut rng).iter().map(|record| record.addr).collect();
    assert_ne!(sample, first);
    sample.sort();
    sample.dedup();
    assert_eq!(sample.len(), crate::book::MAX_SAMPLE);
    assert!(book.sample(0, NOW, &mut rng).is_empty());
    assert_eq!(book.sample(7, NOW, &mut rng).len(), 7);
    // Each address is as likely as another: of 200 samples of 100, an address is in 13 or so.
    let mut seen = std::collections::BTreeMap::new();
    for _ in 0..200 {
        for record in book.sample(100, NOW, &mut rng) {
            *seen.entry(record.addr).or_insert(0) += 1;
        }
    }
    assert!(seen.len() == known && seen.values().all(|times| *times < 40));
}
