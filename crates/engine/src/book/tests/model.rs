//! Any sequence of operations against a model, and a full scan after each.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

#[derive(Debug, Clone)]
enum Op {
    Intake { from: u16, records: Vec<(u16, u16, u64)> },
    Known(u16, u16),
    Attempted(u16, u16),
    Connected(u16, u16),
    Succeeded(u16, u16),
    Remove(u16, u16),
    MarkSelf(u16, u16),
    Pick,
    Wait(u64),
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    let addr = || (0..24_u16, 0..4_u16);
    let records = prop::collection::vec((0..24_u16, 0..4_u16, 0..3_000_000_u64), 1..12);
    prop_oneof![
        6 => (0..40_u16, records).prop_map(|(from, records)| Op::Intake { from, records }),
        1 => addr().prop_map(|(g, h)| Op::Known(g, h)),
        2 => addr().prop_map(|(g, h)| Op::Attempted(g, h)),
        1 => addr().prop_map(|(g, h)| Op::Connected(g, h)),
        4 => addr().prop_map(|(g, h)| Op::Succeeded(g, h)),
        1 => addr().prop_map(|(g, h)| Op::Remove(g, h)),
        1 => addr().prop_map(|(g, h)| Op::MarkSelf(g, h)),
        2 => Just(Op::Pick),
        2 => (0..2_000_000_u64).prop_map(Op::Wait),
        1 => Just(Op::Restart),
    ]
}

/// What must be true of a book whatever its chances decide.
#[derive(Default)]
struct Model {
    told: BTreeSet<SocketAddr>,
    reached: BTreeSet<SocketAddr>,
    own: BTreeSet<SocketAddr>,
}

impl Model {
    fn check(&self, book: &Book) {
        book.audit().unwrap();
        let shape = book.config().shape;
        let cap = |buckets: NonZeroU16| usize::from(buckets.get()) * usize::from(shape.bucket.get());
        assert!(book.fresh() <= cap(shape.fresh) && book.used() <= cap(shape.used));
        assert_eq!(book.entries().filter(Entry::is_used).count(), book.used());
        for entry in book.entries() {
            assert!(self.told.contains(&entry.addr) && !self.own.contains(&entry.addr));
            assert!(!entry.is_used() || self.reached.contains(&entry.addr));
            let holders = (0..shape.fresh.get())
                .filter(|bucket| book.fresh.contains(*bucket, &crate::book::Key::of(entry.addr)))
                .count();
            assert_eq!(holders, usize::from(entry.references));
        }
    }
}

fn step(book: &mut Book, model: &mut Model, rng: &mut ChaCha8Rng, now: &mut u64, op: &Op) {
    match op {
        Op::Intake { from, records } => {
            let record =
                |&(g, h, age): &(u16, u16, u64)| Record { time: *now - age, ..record(in_group(g, h)) };
            let records: Vec<_> = records.iter().map(record).collect();
            let intake = book.intake(&records, source(*from), *now, rng);
            assert_eq!(intake.added + intake.known + intake.refused.values().sum::<usize>(), records.len());
            model
                .told
                .extend(records.iter().map(|record| record.addr).filter(|addr| !model.own.contains(addr)));
        }
        Op::Known(g, h) => {
            let addr = in_group(*g, *h);
            let before = book.get(addr).is_some();
            if let Ok(new) = book.add_known(addr, *now, rng) {
                model.told.insert(addr);
                assert!(!model.own.contains(&addr) && book.get(addr).is_some() && new != before);
            }
        }
        Op::Attempted(g, h) => {
            let known = book.get(in_group(*g, *h));
            assert_eq!(book.attempted(in_group(*g, *h), *now), known.is_some());
        }
        Op::Connected(g, h) => {
            book.connected(in_group(*g, *h), *now);
        }
        Op::Succeeded(g, h) => {
            let addr = in_group(*g, *h);
            if book.succeeded(addr, 1, *now) {
                model.reached.insert(addr);
                assert!(book.get(addr).unwrap().is_used(), "who has just answered is in the used table");
            }
        }
        Op::Remove(g, h) => {
            book.remove(in_group(*g, *h));
            assert_eq!(book.get(in_group(*g, *h)), None);
        }
        Op::MarkSelf(g, h) => {
            book.mark_self(in_group(*g, *h));
            if book.is_self(in_group(*g, *h)) {
                model.own.insert(in_group(*g, *h));
            }
        }
        Op::Pick => {
            let entry = book.pick(*now, rng, &mut no_objection);
            assert!(entry.is_none_or(|entry| book.get(entry.addr) == Some(entry)));
            assert!(entry.is_some() || book.is_empty() || book.len() > 1, "a single entry is picked");
        }
        Op::Wait(seconds) => *now += seconds,
        Op::Restart => {
            let before = book.encode();
            *book = Book::decode(&before, *book.config()).unwrap();
            assert_eq!(book.encode(), before);
            model.own.iter().for_each(|own| book.mark_self(*own));
        }
    }
}

proptest! {
    #[test]
    fn any_operations_keep_tables_counters_and_caps(seed: u64, ops in prop::collection::vec(op(), 1..120)) {
        let mut rng = rng(seed);
        let mut book = Book::new(small(), &mut rng);
        let (mut model, mut now) = (Model::default(), NOW);
        for op in &ops {
            step(&mut book, &mut model, &mut rng, &mut now, op);
            model.check(&book);
        }
    }
}
