//! One direction of a connection: what flies, what has arrived and is not read yet, and how it ends.

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::task::Waker;

use bytes::{Buf, Bytes};
use rookery_runtime::Instant;
use tokio::io::ReadBuf;

use super::link::{self, Link};

/// The last thing that a sender says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// Nothing more comes; what was sent before stays readable.
    Fin,
    /// The connection is gone in both directions.
    Reset,
}

#[derive(Debug)]
struct Segment {
    arrives: Instant,
    bytes: Bytes,
}

/// What one delivery brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Delivered {
    pub bytes: usize,
    pub ending: Option<Ending>,
}

/// A direction. Empty queues hold no memory.
#[derive(Debug)]
pub(super) struct Lane {
    pub link: Link,
    seed: u64,
    /// Which direction of which connection, for its own jitter.
    number: u64,
    draws: u64,
    flying: VecDeque<Segment>,
    arrived: VecDeque<Bytes>,
    flying_bytes: usize,
    arrived_bytes: usize,
    /// When the transmission of what was written so far ends.
    wire_free: Instant,
    /// When the last byte written so far arrives: nothing later may arrive before.
    last_arrival: Instant,
    sent: Option<Ending>,
    ending_arrives: Option<Instant>,
    received: Option<Ending>,
    /// The delivery that is on the agenda.
    pub due: Option<Instant>,
    /// The paced reader's next permitted read, and the wake-up on the agenda for it.
    next_read: Instant,
    pub pace_due: Option<Instant>,
    pub reader: Option<Waker>,
    pub writer: Option<Waker>,
}

impl Lane {
    pub(super) fn new(link: Link, seed: u64, number: u64, now: Instant) -> Self {
        Self {
            link,
            seed,
            number,
            draws: 0,
            flying: VecDeque::new(),
            arrived: VecDeque::new(),
            flying_bytes: 0,
            arrived_bytes: 0,
            wire_free: now,
            last_arrival: now,
            sent: None,
            ending_arrives: None,
            received: None,
            due: None,
            next_read: now,
            pace_due: None,
            reader: None,
            writer: None,
        }
    }

    /// Bytes in flight and unread.
    pub(super) const fn held(&self) -> usize {
        self.flying_bytes + self.arrived_bytes
    }

    /// Bytes that have arrived and are not read.
    pub(super) const fn unread(&self) -> usize {
        self.arrived_bytes
    }

    /// Bytes that a writer may add now.
    pub(super) const fn room(&self) -> usize {
        self.link.window.saturating_sub(self.held())
    }

    /// Whether the writer should be woken: a third of the window is free. Waking it for every byte that a slow
    /// reader takes would cut the stream into crumbs; sockets wait for the same share.
    pub(super) const fn worth_writing(&self) -> bool {
        self.room() >= self.link.window.div_ceil(3)
    }

    /// What the sender said last.
    pub(super) const fn sent(&self) -> Option<Ending> {
        self.sent
    }

    /// The ending that the reader has got to.
    pub(super) const fn received(&self) -> Option<Ending> {
        self.received
    }

    fn arrival(&mut self, now: Instant, bytes: usize) -> Instant {
        self.wire_free = self.wire_free.max(now) + self.link.transmission(bytes);
        let flight = self.link.flight(link::draw(self.seed, self.number, self.draws));
        self.draws += 1;
        self.last_arrival = self.last_arrival.max(self.wire_free + flight);
        self.last_arrival
    }

    /// Takes what fits into the window and says how much.
    pub(super) fn send(&mut self, now: Instant, data: &[u8]) -> usize {
        let taken = data.len().min(self.room());
        let mut rest = Bytes::copy_from_slice(&data[..taken]);
        while !rest.is_empty() {
            let bytes = rest.split_to(rest.len().min(self.link.segment.max(1)));
            let arrives = self.arrival(now, bytes.len());
            self.flying.push_back(Segment { arrives, bytes });
        }
        self.flying_bytes += taken;
        taken
    }

    /// Sends an ending, once; a reset overrides a FIN and drops what flies.
    pub(super) fn end(&mut self, now: Instant, ending: Ending) {
        match (self.sent, ending) {
            (Some(Ending::Reset), _) | (Some(Ending::Fin), Ending::Fin) => return,
            (_, Ending::Reset) => {
                self.flying.clear();
                self.flying_bytes = 0;
                self.wire_free = now;
            }
            (None, Ending::Fin) => {}
        }
        self.sent = Some(ending);
        self.ending_arrives = Some(self.arrival(now, 0));
    }

    /// When the next segment or ending arrives.
    pub(super) fn next_arrival(&self) -> Option<Instant> {
        self.flying.front().map(|segment| segment.arrives).or(self.ending_arrives)
    }

    /// Makes readable what has arrived by `at`.
    pub(super) fn deliver(&mut self, at: Instant) -> Delivered {
        let mut bytes = 0;
        while let Some(segment) = self.flying.pop_front_if(|segment| segment.arrives <= at) {
            bytes += segment.bytes.len();
            self.arrived.push_back(segment.bytes);
        }
        self.flying_bytes -= bytes;
        self.arrived_bytes += bytes;
        let ended = self.flying.is_empty() && self.ending_arrives.is_some_and(|arrives| arrives <= at);
        if ended {
            self.ending_arrives = None;
            self.received = self.sent;
        }
        Delivered { bytes, ending: self.sent.filter(|_| ended) }
    }

    /// Copies at most `limit` readable bytes out and says how many.
    pub(super) fn read(&mut self, buf: &mut ReadBuf<'_>, limit: usize) -> usize {
        let wanted = buf.remaining().min(limit);
        let mut copied = 0;
        while copied < wanted
            && let Some(front) = self.arrived.front_mut()
        {
            let part = front.len().min(wanted - copied);
            buf.put_slice(&front[..part]);
            front.advance(part);
            copied += part;
            if front.is_empty() {
                self.arrived.pop_front();
            }
        }
        self.arrived_bytes -= copied;
        copied
    }

    /// When a reader paced to some rate may read next, if that is not yet.
    pub(super) fn paced_until(&self, now: Instant) -> Option<Instant> {
        (self.next_read > now).then_some(self.next_read)
    }

    /// Charges a paced read.
    pub(super) fn pace(&mut self, now: Instant, bytes: usize, rate: NonZeroU64) {
        self.next_read = self.next_read.max(now) + link::time_for(bytes as u64, rate);
    }

    /// Sends again, from `now`, everything that has not arrived: what a healed route does for TCP.
    pub(super) fn retransmit(&mut self, now: Instant) {
        self.wire_free = now;
        self.last_arrival = now;
        let mut flying = std::mem::take(&mut self.flying);
        for segment in &mut flying {
            segment.arrives = self.arrival(now, segment.bytes.len());
        }
        self.flying = flying;
        if self.ending_arrives.is_some() {
            self.ending_arrives = Some(self.arrival(now, 0));
        }
    }

    /// Drops everything that is held: nobody will read it.
    pub(super) fn discard(&mut self) {
        self.flying = VecDeque::new();
        self.arrived = VecDeque::new();
        (self.flying_bytes, self.arrived_bytes) = (0, 0);
    }

    /// Drops everything and ends without a word on the wire: the connection was reset under it.
    pub(super) fn kill(&mut self) {
        self.discard();
        self.sent = Some(Ending::Reset);
        self.ending_arrives = None;
    }
}
