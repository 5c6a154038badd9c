//! One message through the fair mailbox, sender to receiver, beside a plain bounded channel in the same run.
//!
//! Sender and receiver take turns on one thread, so that the cost of the box is measured and not the waking of
//! threads: each lane is filled, then all is taken. The plain channel has room for the same number of messages, one
//! queue for all senders and neither byte limits, fairness, farewells nor metrics: it is the floor, not a rival.

use std::hint::black_box;
use std::sync::Arc;

use rookery_runtime::{Clock, FairMailbox, Lane, LaneLimits, Push};
use tokio::sync::mpsc;

use crate::figure::Figure;
use crate::measure;

/// Senders: one, a light node's peers, a large node's.
const LANES: [usize; 3] = [1, 16, 1_000];
/// Messages in one round, about: whole fillings of the lanes.
const MESSAGES: usize = 200_000;
/// Bytes that a message is said to hold: an announcement of one header.
const BYTES: usize = 256;

/// Measures.
pub fn run() -> Vec<Figure> {
    let clock = Clock::system();
    let mut pieces: Vec<Box<dyn FnMut()>> = Vec::new();
    for lanes in LANES {
        let mailbox = FairMailbox::new("bench", LaneLimits::PEER, lanes, clock, Arc::default());
        let opener = mailbox.opener();
        let senders: Vec<Lane<u64>> =
            (0..lanes).map(|_| opener.open(0).expect("there is a lane for each")).collect();
        let mut mailbox = mailbox;
        pieces.push(Box::new(move || fair(&mut mailbox, &senders)));
        let (sender, mut receiver) = mpsc::channel(lanes * LaneLimits::PEER.events);
        let senders = vec![sender; lanes];
        pieces.push(Box::new(move || plain(&mut receiver, &senders)));
    }
    let seconds = measure::fastest(&mut pieces);
    let mut figures = Vec::new();
    for (lanes, pair) in LANES.iter().zip(seconds.as_chunks::<2>().0) {
        let [fair, plain] = pair.map(|seconds| seconds / messages(*lanes) as f64 * 1e9);
        figures.push(Figure::new(format!("fair_{lanes}_lanes"), fair, "ns/message"));
        figures.push(Figure::new(format!("plain_{lanes}_senders"), plain, "ns/message"));
        figures.push(Figure::new(format!("fair_over_plain_{lanes}"), fair / plain, "ratio"));
    }
    figures
}

/// How often all lanes are filled in one round.
fn fillings(lanes: usize) -> usize {
    MESSAGES / (lanes * LaneLimits::PEER.events)
}

fn messages(lanes: usize) -> usize {
    fillings(lanes) * lanes * LaneLimits::PEER.events
}

fn fair(mailbox: &mut FairMailbox<u64>, senders: &[Lane<u64>]) {
    for _ in 0..fillings(senders.len()) {
        for event in 0..LaneLimits::PEER.events as u64 {
            for lane in senders {
                assert_eq!(lane.push(black_box(event), BYTES), Push::Accepted, "the lanes were emptied");
            }
        }
        for _ in 0..senders.len() * LaneLimits::PEER.events {
            black_box(mailbox.try_recv().expect("the lanes were filled"));
        }
    }
}

fn plain(receiver: &mut mpsc::Receiver<u64>, senders: &[mpsc::Sender<u64>]) {
    for _ in 0..fillings(senders.len()) {
        for event in 0..LaneLimits::PEER.events as u64 {
            for sender in senders {
                sender.try_send(black_box(event)).expect("the channel was emptied");
            }
        }
        for _ in 0..senders.len() * LaneLimits::PEER.events {
            black_box(receiver.try_recv().expect("the channel was filled"));
        }
    }
}
