//! A socket's receive buffer: what has arrived and nobody has read, charged as a kernel charges it.

use std::collections::VecDeque;
use std::net::SocketAddr;

use bytes::Bytes;

/// What Linux gives a socket that asks for nothing (`net.core.rmem_default`): 256 datagrams of the smallest charge.
pub const RECEIVE_BUFFER: usize = 212_992;

/// A packet's bookkeeping, which is charged beside its data.
const BOOKKEEPING: usize = 256;
/// What stands around the payload in its allocation: headers, alignment, the trailer that shares pages.
const AROUND_PAYLOAD: usize = 379;
/// The smallest allocation for data.
const SMALLEST: usize = 576;

/// What a datagram with this much payload takes of a receive buffer. Allocations are powers of two, so 1,200 bytes
/// cost 2,304 and the default buffer holds 92 of them. Fits what Linux 6.18 drops over loopback, to the byte.
pub const fn charge(payload: usize) -> usize {
    let allocated = payload + AROUND_PAYLOAD;
    BOOKKEEPING + if allocated <= SMALLEST { SMALLEST } else { allocated.next_power_of_two() }
}

/// A datagram that waits to be read.
#[derive(Debug)]
pub(super) struct Received {
    pub from: SocketAddr,
    pub bytes: Bytes,
}

#[derive(Debug)]
pub(super) struct Buffer {
    limit: usize,
    charged: usize,
    waiting: VecDeque<Received>,
    dropped: u64,
}

impl Buffer {
    pub(super) const fn new(limit: usize) -> Self {
        Self { limit, charged: 0, waiting: VecDeque::new(), dropped: 0 }
    }

    /// Keeps a datagram, or drops and counts it when it does not fit.
    pub(super) fn push(&mut self, datagram: Received) -> bool {
        let charge = charge(datagram.bytes.len());
        let fits = self.charged + charge <= self.limit;
        if fits {
            self.charged += charge;
            self.waiting.push_back(datagram);
        } else {
            self.dropped += 1;
        }
        fits
    }

    pub(super) fn pop(&mut self) -> Option<Received> {
        let datagram = self.waiting.pop_front()?;
        self.charged -= charge(datagram.bytes.len());
        Some(datagram)
    }

    pub(super) const fn charged(&self) -> usize {
        self.charged
    }

    pub(super) const fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_buffer_holds_what_the_kernels_does() {
        // Measured: payload, and how many datagrams of it a default socket kept.
        for (payload, kept) in
            [(1, 256), (197, 256), (198, 166), (645, 166), (646, 92), (1669, 92), (1670, 48), (3718, 25)]
        {
            assert_eq!(RECEIVE_BUFFER / charge(payload), kept, "{payload} bytes");
        }
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_counted_and_reading_makes_room() {
        let mut buffer = Buffer::new(2 * charge(1200));
        let datagram = || Received { from: ([10, 0, 0, 1], 1).into(), bytes: Bytes::from_static(&[0; 1200]) };
        assert_eq!(
            [buffer.push(datagram()), buffer.push(datagram()), buffer.push(datagram())],
            [true, true, false]
        );
        assert_eq!((buffer.charged(), buffer.dropped()), (2 * charge(1200), 1));
        assert!(buffer.pop().is_some() && buffer.push(datagram()));
        while buffer.pop().is_some() {}
        assert_eq!((buffer.charged(), buffer.dropped()), (0, 1));
    }
}
