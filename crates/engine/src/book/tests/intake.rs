//! One test for each rule of intake.

use super::*;
use crate::book::{Refusal, is_dialable, is_routable};

/// The outcome of one record in a message of its own: the reason it was refused, or the time it was entered with.
fn fate(record: Record) -> Result<u64, Refusal> {
    let mut book = book(1);
    let intake = book.intake(&[record], source(0), NOW, &mut rng(2));
    match intake.refused.first_key_value() {
        Some((why, count)) => {
            assert_eq!((*count, intake.added, book.len(), intake.relay.len()), (1, 0, 0, 0));
            Err(*why)
        }
        None => {
            assert_eq!((intake.added, book.len(), book.fresh()), (1, 1, 1));
            Ok(book.get(record.addr).unwrap().time)
        }
    }
}

#[test]
fn each_rule_of_intake() {
    let good = record(v4(8, 8, 8, 8));
    let addr = |text: &str| Record { addr: text.parse().unwrap(), ..good };
    let fake = NOW - 5 * 24 * 3600;
    let time = |time| Record { time, ..good };
    for (what, record, expected) in [
        ("good", good, Ok(good.time)),
        ("IPv6", addr("[2a00::1]:12038"), Ok(good.time)),
        ("IPv4-mapped", addr("[::ffff:8.8.8.8]:12038"), Ok(good.time)),
        ("another port", addr("8.8.8.8:1"), Ok(good.time)),
        ("more services than needed", Record { services: 3, ..good }, Ok(good.time)),
        ("private", addr("10.1.2.3:12038"), Err(Refusal::Unroutable)),
        ("private, mapped", addr("[::ffff:192.168.1.1]:12038"), Err(Refusal::Unroutable)),
        ("no port", addr("8.8.8.8:0"), Err(Refusal::NoPort)),
        ("no services", Record { services: 0, ..good }, Err(Refusal::Services)),
        ("other services", Record { services: 2, ..good }, Err(Refusal::Services)),
        ("keyed", Record { keyed: true, ..good }, Err(Refusal::Keyed)),
        ("no time", time(0), Ok(fake)),
        ("the last absurd time", time(100_000_000), Ok(fake)),
        ("the first possible time", time(100_000_001), Ok(100_000_001)),
        ("ten minutes ahead", time(NOW + 600), Ok(NOW + 600)),
        ("further ahead", time(NOW + 601), Ok(fake)),
        ("the end of time", time(u64::MAX), Ok(fake)),
    ] {
        assert_eq!(fate(record), expected, "{what}");
    }
}

#[test]
fn only_short_fresh_news_is_relayed() {
    let at = |age: u64, n: usize| -> Vec<Record> {
        let one = |i: usize| Record { time: NOW - age, ..record(v4(8, 8, 8, i as u8)) };
        (0..n).map(one).collect()
    };
    let relayed = |records: &[Record]| book(1).intake(records, source(0), NOW, &mut rng(1)).relay;
    assert_eq!(relayed(&at(599, 9)), at(599, 9));
    assert_eq!(relayed(&at(600, 9)), []);
    assert_eq!(relayed(&at(599, 10)), []);
    let future = Record { time: NOW + 601, ..record(v4(8, 8, 8, 8)) };
    assert_eq!(relayed(&[future]), [], "a time that cannot be believed is no news");
    let mut refused = at(10, 1);
    refused[0].addr.set_port(0);
    assert_eq!(relayed(&refused), []);
}

#[test]
fn addresses_of_no_public_host_are_told_apart() {
    let routable = [
        "1.1.1.1",
        "100.63.0.1",
        "100.128.0.1",
        "172.32.0.1",
        "192.0.1.1",
        "198.17.0.1",
        "198.20.0.1",
        "223.255.255.255",
        "2a00::1",
        "2001:4860::1",
        "2002:808:808::1",
        "::ffff:1.1.1.1",
    ];
    let only_dialable = [
        "10.0.0.1",
        "100.64.0.1",
        "127.0.0.1",
        "169.254.0.1",
        "172.16.0.1",
        "192.0.0.1",
        "192.0.2.1",
        "192.168.0.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "::1",
        "fc00::1",
        "fd87:d87e:eb43::1",
        "fe80::1",
        "fec0::1",
        "2001:10::1",
        "2001:20::1",
        "2001:db8::1",
        "100::1",
        "::ffff:127.0.0.1",
        "::8.8.8.8",
    ];
    let neither = [
        "0.0.0.0",
        "0.1.2.3",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "ff02::1",
        "::ffff:0.0.0.0",
    ];
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    for (list, expected) in
        [(&routable[..], (true, true)), (&only_dialable, (false, true)), (&neither, (false, false))]
    {
        for text in list {
            assert_eq!((is_routable(ip(text)), is_dialable(ip(text))), expected, "{text}");
        }
    }
}

#[test]
fn private_addresses_are_taken_in_where_allowed() {
    let mut rng = rng(1);
    let mut book = Book::new(config().with_private(), &mut rng);
    let records = [record(v4(127, 0, 0, 1)), record(v4(10, 0, 0, 1)), record(v4(0, 0, 0, 0))];
    let intake = book.intake(&records, source(0), NOW, &mut rng);
    assert_eq!((intake.added, intake.refused.get(&Refusal::Unroutable)), (2, Some(&1)));
    assert!(book.pick(NOW, &mut rng, &mut no_objection).is_some());

    let public = Book::decode(&book.encode(), config()).unwrap();
    assert_eq!(public.len(), 2);
    assert_eq!(
        public.pick(NOW, &mut rng, &mut no_objection),
        None,
        "what is not taken in today is not handed out either"
    );
    assert_eq!(public.sample(10, NOW, &mut rng), []);
}

#[test]
fn own_addresses_are_removed_and_refused() {
    let (mut book, mut rng, own) = (book(1), rng(1), v4(8, 8, 8, 8));
    book.intake(&[record(own)], source(0), NOW, &mut rng);
    book.mark_self("[::ffff:8.8.8.8]:12038".parse().unwrap());
    assert!(book.is_empty() && book.is_self(own));
    let again = book.intake(&[record(own)], source(0), NOW, &mut rng);
    assert_eq!(again.refused.get(&Refusal::Own), Some(&1));
    assert_eq!(book.add_known(own, NOW, &mut rng), Err(Refusal::Own));
    for n in 0..1000 {
        book.mark_self(in_group(n, 1));
    }
    assert_eq!(book.own.len(), crate::book::MAX_OWN);
    assert!(book.is_self(own), "the first ones stay");
    book.audit().unwrap();
}

#[test]
fn a_repeated_address_moves_in_time_only_as_its_source_is_believed() {
    let day = 24 * 3600;
    let heard = |first: u64, second: u64| {
        let (mut book, mut rng, addr) = (book(1), rng(1), v4(8, 8, 8, 8));
        for time in [first, second] {
            book.intake(&[Record { time, ..record(addr) }], source(0), NOW, &mut rng);
        }
        assert_eq!(book.len(), 1);
        book.get(addr).unwrap().time == second
    };
    // Heard of today: an hour, and two for having a source. Before: a day, and two hours.
    assert!(!heard(NOW - 3 * 3600, NOW) && heard(NOW - 3 * 3600 - 1, NOW));
    let old = NOW - 2 * day;
    assert!(!heard(old - day - 7200, old) && heard(old - day - 7201, old));
    assert!(!heard(NOW, NOW - 3600), "time never moves back");
}

#[test]
fn more_references_are_ever_less_likely_and_at_most_eight() {
    let (mut most, mut told) = (0, [0; 9]);
    for seed in 0..50 {
        let (mut book, mut rng, addr) = (book(seed), rng(seed), v4(8, 8, 8, 8));
        for n in 0..1000_u16 {
            // Each time a little newer, never enough to move the entry's own time.
            let time = NOW - 3600 + u64::from(n);
            let before = book.get(addr).map_or(0, |entry| entry.references);
            book.intake(&[Record { time, ..record(addr) }], source(n), NOW, &mut rng);
            let after = book.get(addr).unwrap().references;
            assert!(after == before || after == before + 1);
            told[usize::from(before)] += 1;
            most = most.max(after);
        }
        book.audit().unwrap();
    }
    assert_eq!(most, 8);
    // 50 books; the wait for the reference after the nth is 2^n messages on average.
    for (n, told) in told.iter().enumerate().take(6).skip(1) {
        let mean = f64::from(*told) / 50.0;
        let expected = f64::from(1_u32 << n);
        assert!((0.5..2.0).contains(&(mean / expected)), "{mean} messages at {n} references");
    }
    assert_eq!(told[0], 50);
}

#[test]
fn one_source_cannot_raise_its_own_addresses_chance() {
    let (mut book, mut rng, addr) = (book(1), rng(1), v4(8, 8, 8, 8));
    for n in 0..1000 {
        book.intake(&[Record { time: NOW - 3600 + n, ..record(addr) }], source(0), NOW, &mut rng);
    }
    assert_eq!(
        book.get(addr).unwrap().references,
        1,
        "one source group and one address group share one bucket"
    );
}
