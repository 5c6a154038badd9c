//! Why a peer is not read from: a pipe without room, a pipe that waits for a time, a rate that is used up.
//!
//! Several reasons can hold at once, from different pipes; reading goes on when none is left. A short wait of one
//! pipe must not hand frames to another one that still has no room.

use std::future::poll_fn;
use std::task::Poll;

use rookery_runtime::Instant;

use crate::{Pipe, Until};

/// The reasons that hold.
#[derive(Debug, Default)]
pub(crate) struct Parks {
    /// The peer is over a rate until then.
    rate: Option<Instant>,
    /// Pipes that wait, by their service's index, and for what.
    pipes: Vec<(usize, Until)>,
    /// Since when any reason has held.
    since: Option<Instant>,
}

impl Parks {
    /// Whether reading waits.
    pub fn any(&self) -> bool {
        self.rate.is_some() || !self.pipes.is_empty()
    }

    /// The peer is over a rate.
    pub fn rate(&mut self, until: Instant, now: Instant) {
        self.rate = self.rate.max(Some(until));
        self.since.get_or_insert(now);
    }

    /// A pipe waits; what it waited for before no longer counts.
    pub fn pipe(&mut self, service: usize, until: Until, now: Instant) {
        self.pipes.retain(|(other, _)| *other != service);
        self.pipes.push((service, until));
        self.since.get_or_insert(now);
    }

    /// A pipe has room.
    pub fn has_room(&mut self, service: usize) {
        self.pipes.retain(|(other, _)| *other != service);
    }

    /// Forgets the waits whose time has come.
    pub fn expire(&mut self, now: Instant) {
        self.rate = self.rate.filter(|until| *until > now);
        self.pipes.retain(|(_, until)| !matches!(until, Until::Time(at) if *at <= now));
    }

    /// The next time at which a wait ends.
    pub fn next(&self) -> Option<Instant> {
        let times = self.pipes.iter().filter_map(|(_, until)| match until {
            Until::Time(at) => Some(*at),
            Until::Room => None,
        });
        times.chain(self.rate).min()
    }

    /// Since when reading has waited; asked once, when it goes on.
    pub fn take_since(&mut self) -> Option<Instant> {
        self.since.take()
    }

    /// The service of the first pipe that waits for room and has it. Cancel-safe; pending for ever when none waits.
    pub async fn room(&self, pipes: &mut [Option<Box<dyn Pipe>>]) -> usize {
        poll_fn(|cx| {
            for (service, until) in &self.pipes {
                if *until == Until::Room
                    && let Some(pipe) = &mut pipes[*service]
                    && pipe.poll_room(cx).is_ready()
                {
                    return Poll::Ready(*service);
                }
            }
            Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rookery_runtime::Clock;
    use std::time::Duration;

    #[test]
    fn every_reason_has_to_end() {
        let now = Clock::system().now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut parks = Parks::default();
        assert!(!parks.any());
        parks.pipe(0, Until::Room, now);
        parks.rate(at(5), at(1));
        parks.pipe(1, Until::Time(at(2)), at(1));
        assert_eq!(parks.next(), Some(at(2)));
        parks.expire(at(2));
        assert_eq!(parks.next(), Some(at(5)));
        parks.expire(at(5));
        assert!(parks.any() && parks.next().is_none(), "the first pipe still has no room");
        parks.has_room(0);
        assert!(!parks.any());
        assert_eq!((parks.take_since(), parks.take_since()), (Some(now), None));
    }

    #[test]
    fn a_pipes_last_word_counts() {
        let now = Clock::system().now();
        let mut parks = Parks::default();
        parks.pipe(0, Until::Room, now);
        parks.pipe(0, Until::Time(now), now);
        parks.expire(now);
        assert!(!parks.any());
    }
}
