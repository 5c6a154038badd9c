//! Datagrams that were received and that quinn has not read yet.
//!
//! | bound | when full | metric |
//! |---|---|---|
//! | datagrams and bytes, [`RingLimits`] | the newest is dropped, as by a kernel whose buffer is full | `udp_ring_dropped` |
//!
//! One thread pushes, one task pops, in the order of arrival. The task is woken once for each batch that it waits for. The lock is
//! held to move a pointer in or out, never while bytes are copied.

use std::collections::VecDeque;
use std::io;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

use quinn::udp::RecvMeta;

use super::lock;

/// What a ring holds at most.
#[derive(Debug, Clone, Copy)]
pub(super) struct RingLimits {
    /// Buffers; each is one datagram, or several of a size that the kernel has joined.
    pub buffers: usize,
    /// Bytes, with what keeping each buffer costs.
    pub bytes: usize,
}

impl RingLimits {
    /// Both hold the first flights of a thousand peers with post-quantum hellos (two datagrams of 1,200 bytes each) four times
    /// over, for they repeat what is not answered in time. More would be of no use: at a millisecond of work for each peer, what
    /// is read after that is a repetition that nobody waits for any more.
    pub const DEFAULT: Self = Self { buffers: 16_384, bytes: 16 << 20 };
}

/// What one read of the socket gave.
#[derive(Debug)]
pub(super) struct Received {
    /// From whom, to which of our addresses, with which congestion mark, and where one datagram ends and the next begins.
    pub meta: RecvMeta,
    /// `meta.len` bytes.
    pub bytes: Box<[u8]>,
}

impl Received {
    fn cost(&self) -> usize {
        self.bytes.len() + size_of::<Self>()
    }

    fn datagrams(&self) -> u64 {
        self.meta.len.div_ceil(self.meta.stride.max(1)).max(1) as u64
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Ring {
    limits: RingLimits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Received>,
    bytes: usize,
    reader: Option<Waker>,
    end: Option<io::Error>,
}

impl State {
    fn pop(&mut self) -> Option<Received> {
        let received = self.waiting.pop_front()?;
        self.bytes -= received.cost();
        Some(received)
    }
}

impl Ring {
    pub fn new(limits: RingLimits) -> Self {
        Self { limits, state: Mutex::default() }
    }

    /// Adds what there is room for and wakes the reader. Gives the number of datagrams that there was no room for.
    pub fn push(&self, batch: impl IntoIterator<Item = Received>) -> u64 {
        let mut dropped = 0;
        let mut state = lock(&self.state);
        for received in batch {
            let bytes = state.bytes + received.cost();
            if state.waiting.len() == self.limits.buffers || bytes > self.limits.bytes {
                dropped += received.datagrams();
                continue;
            }
            state.bytes = bytes;
            state.waiting.push_back(received);
        }
        let reader = if state.waiting.is_empty() { None } else { state.reader.take() };
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
        dropped
    }

    /// The oldest, if there is one.
    pub fn pop(&self) -> Option<Received> {
        lock(&self.state).pop()
    }

    /// The oldest; when there is none, how the ring has ended; or else the caller is woken when either changes.
    pub fn poll_pop(&self, cx: &Context<'_>) -> Poll<io::Result<Received>> {
        let mut state = lock(&self.state);
        if let Some(received) = state.pop() {
            return Poll::Ready(Ok(received));
        }
        if let Some(end) = &state.end {
            return Poll::Ready(Err(io::Error::new(end.kind(), end.to_string())));
        }
        match &mut state.reader {
            Some(reader) => reader.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Nothing more will be pushed. The first cause is kept; what waits can still be read.
    pub fn end(&self, cause: io::Error) {
        let mut state = lock(&self.state);
        state.end.get_or_insert(cause);
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Buffers that wait.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        lock(&self.state).waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use quinn::udp::EcnCodepoint;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn datagram(number: u8, len: usize) -> Received {
        let meta = RecvMeta {
            addr: ([127, 0, 0, 1], u16::from(number)).into(),
            len,
            stride: len,
            ecn: Some(EcnCodepoint::Ce),
            dst_ip: Some([127, 0, 0, number].into()),
        };
        Received { meta, bytes: vec![number; len].into() }
    }

    #[test]
    fn what_goes_in_comes_out_in_order_with_all_that_is_known_of_it() {
        let ring = Ring::new(RingLimits::DEFAULT);
        assert_eq!(ring.push((1..=3).map(|n| datagram(n, 100))), 0);
        for number in 1..=3 {
            let (got, put) = (ring.pop().unwrap(), datagram(number, 100));
            assert_eq!(got.bytes, put.bytes);
            assert_eq!(format!("{:?}", got.meta), format!("{:?}", put.meta));
        }
        assert!(ring.pop().is_none());
    }

    #[test]
    fn a_full_ring_drops_the_newest_counts_every_datagram_and_has_room_again_after_a_read() {
        let ring = Ring::new(RingLimits { buffers: 2, bytes: 1 << 20 });
        let mut joined = datagram(3, 1000);
        joined.meta.stride = 300;
        assert_eq!(ring.push([datagram(1, 9), datagram(2, 9), joined]), 4);
        assert_eq!(ring.pop().unwrap().bytes[0], 1);
        assert_eq!(ring.push([datagram(4, 9)]), 0);
        assert_eq!((ring.pop().unwrap().bytes[0], ring.pop().unwrap().bytes[0]), (2, 4));

        let cost = datagram(0, 1000).cost();
        let ring = Ring::new(RingLimits { buffers: 100, bytes: 2 * cost });
        assert_eq!(ring.push((0..3).map(|n| datagram(n, 1000))), 1);
        for number in 0..10 {
            // Whatever was charged for comes back: ten rounds fit where two datagrams do.
            ring.pop().unwrap();
            assert_eq!(ring.push([datagram(number, 1000)]), 0);
        }
        assert_eq!(ring.push([datagram(9, 1)]), 1);
    }

    #[test]
    fn a_waiting_reader_is_woken_once_for_a_batch_and_a_busy_one_not_at_all() {
        let (ring, count) = (Ring::new(RingLimits::DEFAULT), Arc::new(Count::default()));
        let waker = Waker::from(Arc::clone(&count));
        let cx = Context::from_waker(&waker);
        let woken = || count.0.load(Ordering::SeqCst);
        assert!(ring.poll_pop(&cx).is_pending() && ring.poll_pop(&cx).is_pending());
        assert_eq!((ring.push([]), woken()), (0, 0));
        ring.push([datagram(1, 1), datagram(2, 1)]);
        ring.push([datagram(3, 1)]);
        assert_eq!(woken(), 1);
        for number in 1..=3 {
            let Poll::Ready(Ok(got)) = ring.poll_pop(&cx) else { panic!("three wait") };
            assert_eq!(got.bytes[0], number);
        }
        assert!(ring.poll_pop(&cx).is_pending());
        ring.push([datagram(4, 1)]);
        assert_eq!(woken(), 2);
    }

    #[test]
    fn an_end_wakes_the_reader_which_first_gets_what_came_before_it() {
        let (ring, count) = (Ring::new(RingLimits::DEFAULT), Arc::new(Count::default()));
        let waker = Waker::from(Arc::clone(&count));
        let cx = Context::from_waker(&waker);
        assert!(ring.poll_pop(&cx).is_pending());
        ring.end(io::ErrorKind::NotConnected.into());
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        ring.push([datagram(1, 1)]);
        ring.end(io::ErrorKind::BrokenPipe.into());
        assert!(matches!(ring.poll_pop(&cx), Poll::Ready(Ok(_))));
        for _ in 0..2 {
            let Poll::Ready(Err(end)) = ring.poll_pop(&cx) else { panic!("the ring has ended") };
            assert_eq!(end.kind(), io::ErrorKind::NotConnected);
        }
    }
}
