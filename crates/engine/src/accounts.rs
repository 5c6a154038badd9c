//! Where every arrival is: the conservation of what peers open.
//!
//! ```text
//!            +--> retried                (it was asked to prove its address, and may come again)
//! arrived ---+--> ignored                (nothing was said to it)
//!   (shaking)+--> refused{why}           (there was never a session: turned away, failed, too slow, a panic)
//!            +--> live --> ended{why}    (a session, until its slot is back)
//! ```
//!
//! At every instant `arrived = shaking + live + ended + refused + retried + ignored`. Each arrival is held by one
//! passage, which moves it from stage to stage under one short lock, and which says where it ended when it is dropped
//! by whatever way: return, cancellation or panic. So no arrival can be lost or counted twice, and no reader sees a sum
//! that is off.
//!
//! Connections that we dial are not arrivals; `dial_total` counts them.

use std::collections::BTreeMap;

use rookery_base::CloseCause;
use rookery_observe::metrics::Standing;

const ARRIVED: &str = "arrived";
const SHAKING: &str = "shaking";
const LIVE: &str = "live";
const ENDED: &str = "ended";
const REFUSED: &str = "refused";
const RETRIED: &str = "retried";
const IGNORED: &str = "ignored";

/// Counts of arrivals, all of one instant.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Accounts {
    /// All that ever came.
    pub arrived: u64,
    /// In their handshake.
    pub shaking: u64,
    /// Sessions, those that are closing included.
    pub live: u64,
    /// Sessions that ended, by cause.
    pub ended: BTreeMap<&'static str, u64>,
    /// Arrivals that never became a session, by cause.
    pub refused: BTreeMap<&'static str, u64>,
    /// Arrivals that were asked to prove their address; those that did have arrived again.
    pub retried: u64,
    /// Arrivals to which nothing was said.
    pub ignored: u64,
}

impl Accounts {
    /// Whether every arrival is somewhere, once.
    pub fn balanced(&self) -> bool {
        let told: u64 = self.ended.values().chain(self.refused.values()).sum();
        self.arrived == self.shaking + self.live + told + self.retried + self.ignored
    }
}

/// Keeps the accounts. Cloning gives another handle to the same ones.
#[derive(Debug, Clone)]
pub(crate) struct Accountant(Standing);

impl Accountant {
    /// On the node's metrics, which show the same counts.
    pub const fn new(counts: Standing) -> Self {
        Self(counts)
    }

    /// Counts an arrival, before anything is decided about it.
    pub fn arrival(&self) -> Passage {
        self.0.change(|counts| {
            *counts.entry((ARRIVED, "")).or_default() += 1;
            *counts.entry((SHAKING, "")).or_default() += 1;
        });
        Passage { accountant: self.clone(), at: SHAKING }
    }

    /// All counts, of one instant.
    pub fn read(&self) -> Accounts {
        let mut all = Accounts::default();
        self.0.change(|counts| {
            for (&(stage, why), &count) in &*counts {
                match stage {
                    ARRIVED => all.arrived = count,
                    SHAKING => all.shaking = count,
                    LIVE => all.live = count,
                    RETRIED => all.retried = count,
                    IGNORED => all.ignored = count,
                    ENDED => drop(all.ended.insert(why, count)),
                    _ => drop(all.refused.insert(why, count)),
                }
            }
        });
        all
    }

    fn move_one(&self, from: &'static str, to: &'static str, why: &'static str) {
        self.0.change(|counts| {
            *counts.entry((from, "")).or_default() -= 1;
            *counts.entry((to, why)).or_default() += 1;
        });
    }
}

/// One arrival, until it has ended. Dropped without a word it has ended by a panic, or because the node stops.
#[derive(Debug)]
#[must_use = "dropping it ends the arrival"]
pub(crate) struct Passage {
    accountant: Accountant,
    /// `SHAKING` or `LIVE`, then the stage in which it ended.
    at: &'static str,
}

impl Passage {
    /// It has become a session.
    pub fn live(&mut self) {
        if self.at == SHAKING {
            self.accountant.move_one(SHAKING, LIVE, "");
            self.at = LIVE;
        }
    }

    /// Its session has ended, or there was none: for this cause.
    pub fn end(mut self, cause: &CloseCause) {
        self.close(cause.label());
    }

    /// It was asked to prove its address.
    pub fn retried(mut self) {
        self.leave(RETRIED, "");
    }

    /// Nothing was said to it.
    pub fn ignored(mut self) {
        self.leave(IGNORED, "");
    }

    fn close(&mut self, why: &'static str) {
        let to = if self.at == LIVE { ENDED } else { REFUSED };
        self.leave(to, why);
    }

    fn leave(&mut self, to: &'static str, why: &'static str) {
        if matches!(self.at, SHAKING | LIVE) {
            self.accountant.move_one(self.at, to, why);
            self.at = to;
        }
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        let unsaid = if std::thread::panicking() { CloseCause::Panic } else { CloseCause::Shutdown };
        self.close(unsaid.label());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rookery_base::Refusal;

    #[test]
    fn every_way_out_is_counted_once_and_the_sum_is_right_after_each_step() {
        let accountant = Accountant::new(Standing::default());
        let checked = || {
            let all = accountant.read();
            assert!(all.balanced(), "{all:?}");
            all
        };
        let mut passages: Vec<Passage> = (0..7).map(|_| accountant.arrival()).collect();
        assert_eq!((checked().arrived, checked().shaking), (7, 7));
        passages.pop().unwrap().retried();
        passages.pop().unwrap().ignored();
        passages.pop().unwrap().end(&CloseCause::Refused(Refusal::Full));
        drop(passages.pop());
        let panics = passages.pop().unwrap();
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _held = panics;
            panic!("holder");
        }));
        assert!(caught.is_err());
        for passage in &mut passages {
            passage.live();
            passage.live();
        }
        assert_eq!((checked().shaking, checked().live), (0, 2));
        passages.pop().unwrap().end(&CloseCause::PeerClosed);
        drop(passages.pop());
        let all = checked();
        assert_eq!((all.arrived, all.shaking, all.live, all.retried, all.ignored), (7, 0, 0, 1, 1));
        assert_eq!(all.refused, BTreeMap::from([("full", 1), ("shutdown", 1), ("panic", 1)]));
        assert_eq!(all.ended, BTreeMap::from([("peer_closed", 1), ("shutdown", 1)]));
    }

    /// Readers and a scrape on one thread, arrivals on three others.
    #[test]
    fn no_reader_ever_sees_a_sum_that_is_off() {
        let accountant = Accountant::new(Standing::default());
        std::thread::scope(|threads| {
            for n in 0..3_u64 {
                let accountant = &accountant;
                threads.spawn(move || {
                    for step in 0..20_000 {
                        let mut passage = accountant.arrival();
                        match (step + n) % 4 {
                            0 => passage.retried(),
                            1 => drop(passage),
                            2 => passage.end(&CloseCause::Panic),
                            _ => {
                                passage.live();
                                passage.end(&CloseCause::PeerClosed);
                            }
                        }
                    }
                });
            }
            for _ in 0..20_000 {
                let all = accountant.read();
                assert!(all.balanced(), "{all:?}");
            }
        });
        assert_eq!((accountant.read().arrived, accountant.read().shaking), (60_000, 0));
    }
}
