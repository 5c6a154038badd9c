//! The mailbox on one thread: order, limits, ends, and what a flood costs the others.

use proptest::prelude::*;
use rand::RngExt;

use super::*;
use crate::RngSource;

fn mailbox<T>(events: usize, bytes: usize) -> FairMailbox<T> {
    FairMailbox::new("test", LaneLimits { events, bytes }, 100, Clock::system(), Arc::default())
}

fn drain<T>(mailbox: &mut FairMailbox<T>) -> Vec<T> {
    std::iter::from_fn(|| mailbox.try_recv()).collect()
}

#[test]
fn a_flood_in_one_lane_does_not_delay_the_others() {
    let mut mailbox = mailbox(1000, usize::MAX / 2);
    let opener = mailbox.opener();
    let lanes: Vec<_> = (0..3).map(|n| opener.open((n, usize::MAX)).unwrap()).collect();
    for i in 0..1000 {
        assert_eq!(lanes[0].push((0, i), 1000), Push::Accepted);
    }
    for (number, lane) in lanes.iter().enumerate().skip(1) {
        assert_eq!(lane.push((number, 0), 1000), Push::Accepted);
    }
    let order: Vec<_> = drain(&mut mailbox);
    for lane in 1..3 {
        let place = order.iter().position(|(from, _)| *from == lane).unwrap();
        assert!(place <= 2, "lane {lane} waited behind {place} events");
    }
}

#[test]
fn a_turn_is_one_event_and_a_large_one_waits_as_many_turns_as_its_bytes_take() {
    let mut mailbox = mailbox(10_000, usize::MAX / 2);
    let opener = mailbox.opener();
    let (large, small) = (opener.open(0).unwrap(), opener.open(0).unwrap());
    for _ in 0..100 {
        let _ = large.push(100_000, 100_000);
    }
    for _ in 0..10_000 {
        let _ = small.push(1_000, 1_000);
    }
    let taken: Vec<usize> = std::iter::from_fn(|| mailbox.try_recv()).take(2_000).collect();
    let before_the_last_large = taken.iter().rposition(|size| *size == 100_000).unwrap();
    let small = taken[..before_the_last_large].iter().filter(|size| **size == 1_000).count();
    // A large one takes 100,064 bytes of 32 KiB turns: a little over three of the other lane's.
    let ratio = small as f64 / 100.0;
    assert!((2.9..3.2).contains(&ratio), "{ratio}");
}

#[test]
fn a_lane_that_is_refilled_while_it_is_served_holds_up_no_other_for_more_than_one_event() {
    let mut mailbox = mailbox(8, 256 * 1024);
    let opener = mailbox.opener();
    let (flooder, honest) = (opener.open(0).unwrap(), opener.open(0).unwrap());
    let refill = || while matches!(flooder.push(1, 10), Push::Accepted) {};
    refill();
    assert_eq!(mailbox.try_recv(), Some(1));
    for _ in 0..100 {
        refill();
        assert!(matches!(honest.push(2, 10), Push::Accepted));
        let next_two = [mailbox.try_recv(), mailbox.try_recv()];
        assert!(next_two.contains(&Some(2)), "{next_two:?}");
    }
}

#[test]
fn a_rare_question_goes_before_every_flood_however_many_flood() {
    let mut mailbox = mailbox(8, 256 * 1024);
    let opener = mailbox.opener();
    let flooders: Vec<_> = (0..10).map(|n| opener.open(n).unwrap()).collect();
    let honest = opener.open(99).unwrap();
    let refill = || {
        for (number, flooder) in flooders.iter().enumerate() {
            while matches!(flooder.push(number, 10), Push::Accepted) {}
        }
    };
    let mut served = [0; 10];
    // Between two questions of one peer, all others have had an event, wherever in their round that was.
    for between in 10..60 {
        for _ in 0..between {
            refill();
            served[mailbox.try_recv().unwrap()] += 1;
        }
        let _ = honest.push(99, 10);
        assert_eq!(mailbox.try_recv(), Some(99), "after {between}");
    }
    let (least, most) = (served.iter().min().unwrap(), served.iter().max().unwrap());
    assert!(most - least <= 1, "those who flood share alike: {served:?}");
}

#[test]
fn leaving_and_coming_back_wins_no_more_than_the_farewells() {
    let mut mailbox =
        FairMailbox::new("test", LaneLimits::PEER, 9, Clock::system(), Arc::<Metrics>::default());
    let opener = mailbox.opener();
    let stays = opener.open("farewell").unwrap();
    let mut of_who_stays = 0;
    for _ in 0..900 {
        while matches!(stays.push("stays", 10), Push::Accepted) {}
        while let Some(new) = opener.open("farewell") {
            let _ = new.push("new", 10);
        }
        of_who_stays += usize::from(mailbox.try_recv() == Some("stays"));
    }
    // Each of the eight others has two turns for each of its own: an event and a farewell.
    assert!(of_who_stays >= 900 / 17, "{of_who_stays}");
}

#[test]
fn what_was_taken_while_nobody_else_asked_is_not_held_against_anybody() {
    let mut mailbox = mailbox(100, usize::MAX / 2);
    let opener = mailbox.opener();
    let (large, small) = (opener.open(0).unwrap(), opener.open(0).unwrap());
    let _ = large.push(1, 100 * TURN);
    let _ = small.push(2, 1);
    assert_eq!(drain(&mut mailbox), [1, 2]);
    let _ = large.push(3, 1);
    for _ in 0..10 {
        let _ = small.push(4, 1);
    }
    assert_eq!(mailbox.try_recv(), Some(3));
}

#[test]
fn a_full_lane_refuses_then_wakes_its_own_sender() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    #[derive(Default)]
    struct Count(AtomicUsize);
    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let mut mailbox = mailbox(1, 1000);
    let lane = mailbox.opener().open(99).unwrap();
    assert_eq!(lane.push(1, 5000), Push::Accepted, "one event larger than the lane passes when it is empty");
    assert_eq!(lane.push(2, 1), Push::Full(2));
    let count = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&count));
    assert!(lane.poll_room(&mut Context::from_waker(&waker)).is_pending());
    assert_eq!(mailbox.try_recv(), Some(1));
    assert_eq!(count.0.load(Ordering::SeqCst), 1);
    assert!(lane.has_room());
    drop(mailbox);
    assert_eq!(lane.push(3, 1), Push::Closed(3));
}

#[test]
fn a_mailbox_that_goes_may_hold_its_own_lanes_and_leaves_no_depth_behind() {
    let metrics: Arc<Metrics> = Arc::default();
    struct Held {
        _lane: Option<Lane<Held>>,
    }
    let own: FairMailbox<Held> =
        FairMailbox::new("own", LaneLimits::PEER, 9, Clock::system(), Arc::clone(&metrics));
    let lane = own.opener().open(Held { _lane: None }).unwrap();
    let inner = own.opener().open(Held { _lane: None }).unwrap();
    inner.set_farewell(Held { _lane: own.opener().open(Held { _lane: None }) });
    assert!(matches!(lane.push(Held { _lane: Some(inner) }, 1), Push::Accepted));
    drop(lane);
    drop(own);
    let depth = metrics.mailbox_depth.get_or_create(&BoxLabel { mailbox: "own" }).get();
    assert_eq!(depth, 0);
}

#[test]
fn lanes_are_bounded_and_their_places_come_back() {
    let mut mailbox: FairMailbox<u8> =
        FairMailbox::new("test", LaneLimits::PEER, 1, Clock::system(), Arc::default());
    let opener = mailbox.opener();
    let lane = opener.open(1).unwrap();
    assert!(opener.open(2).is_none());
    drop(lane);
    assert_eq!(mailbox.try_recv(), Some(1));
    assert!(opener.open(2).is_some());
}

proptest! {
    /// Whatever the order of pushes, drops and receives: each lane's events arrive in order, exactly once, and
    /// its farewell once, last.
    #[test]
    fn nothing_is_lost_or_reordered(steps in proptest::collection::vec((0usize..4, 0usize..5, 1usize..90_000), 1..300)) {
        let mut mailbox = mailbox(4, 100_000);
        let opener = mailbox.opener();
        let mut lanes: Vec<_> = (0..4).map(|n| Some(opener.open((n, u32::MAX)).unwrap())).collect();
        let (mut sent, mut got) = (vec![0u32; 4], vec![Vec::new(); 4]);
        for (n, what, bytes) in steps {
            match (what, &lanes[n]) {
                (0, _) => mailbox.try_recv().into_iter().for_each(|(from, i)| got[from].push(i)),
                (1, Some(_)) if bytes < 2_000 => lanes[n] = None,
                (_, Some(lane)) if lane.push((n, sent[n]), bytes) == Push::Accepted => sent[n] += 1,
                _ => {}
            }
        }
        lanes.clear();
        drain(&mut mailbox).into_iter().for_each(|(from, i)| got[from].push(i));
        for n in 0..4 {
            prop_assert_eq!(&got[n], &(0..sent[n]).chain([u32::MAX]).collect::<Vec<_>>());
        }
    }
}

/// Honest peers that ask a service which takes one unit of time for an event and is not interrupted, and perhaps one
/// that floods it: their time from asking to answered, at the 99th percentile.
fn p99(arrivals: &[(f64, usize)], peers: usize, flood: bool) -> f64 {
    let mut mailbox = mailbox(100, usize::MAX / 2);
    let opener = mailbox.opener();
    let lanes: Vec<_> = (0..=peers).map(|_| opener.open(None).expect("a place for each lane")).collect();
    let flooder = &lanes[peers];
    let (mut arriving, mut now, mut took) = (arrivals.iter().peekable(), 0.0, Vec::new());
    while took.len() < arrivals.len() {
        while let Some((at, peer)) = arriving.next_if(|(at, _)| *at <= now) {
            assert_eq!(lanes[*peer].push(Some(*at), 100), Push::Accepted);
        }
        while flood && flooder.push(None, 100) == Push::Accepted {}
        match (mailbox.try_recv(), arriving.peek()) {
            (Some(asked), _) => {
                now += 1.0;
                took.extend(asked.map(|at| now - at));
            }
            (None, Some((at, _))) => now = *at,
            (None, None) => unreachable!("who has not been answered waits, or is yet to come"),
        }
    }
    took.sort_by(f64::total_cmp);
    took[took.len() * 99 / 100]
}

#[test]
fn a_flood_makes_the_slowest_honest_answers_at_most_half_as_slow_again_however_busy_the_service() {
    const PEERS: usize = 25;
    for load in [0.3_f64, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9] {
        let mut rng = RngSource::seeded(load.to_bits(), 0).fork("arrivals", 0);
        let mut at = 0.0;
        // Who asks, and when, depends on nobody: a Poisson process.
        let mut next = || {
            at -= (1.0 - rng.random::<f64>()).ln() / load;
            (at, rng.random_range(0..PEERS))
        };
        let arrivals: Vec<_> = (0..20_000).map(|_| next()).collect();
        let (alone, flooded) = (p99(&arrivals, PEERS, false), p99(&arrivals, PEERS, true));
        assert!(flooded <= 1.5 * alone, "at {load}: {alone} alone, {flooded} flooded");
    }
}

#[test]
fn peers_that_never_meet_wait_for_the_event_under_way_and_no_more() {
    let apart: Vec<_> = (0..2_000_u32).map(|n| (f64::from(n) * 1.7, n as usize % 25)).collect();
    let alone = p99(&apart, 25, false);
    assert!((0.999..1.001).contains(&alone), "nobody waits for anybody: {alone}");
    // Twice is the least that a service which finishes what it has begun can promise them.
    assert!(p99(&apart, 25, true) <= 2.0);
}
