//! Goodbyes that outlive a lost datagram.
//!
//! ```text
//!  close -> one datagram -> answered -------------------------> done
//!                        -> not answered within AGAIN[0] -> the same datagram once more -> ... AGAIN.len() times
//! ```
//!
//! A connection that is closed says so in one datagram, and again only to what the other side still sends. When that datagram is lost
//! and the other side has nothing to say, it keeps a ghost until its next keep-alive or its idle deadline. QUIC answers a goodbye with
//! one of its own (RFC 9000, 10.2.2), so it is known who has not heard it: to them it is said again, and they lose the ghost
//! within a second unless all of it is lost. Nothing more is sent where nothing is lost.
//!
//! What is said again is the datagram itself, byte for byte, as a network may deliver it twice: it has its packet number already,
//! and whoever has heard it drops the copy. Which datagram it is cannot be seen from outside: the first [`KEPT`] to that
//! address after the close are kept, and it is the first unless another connection with the same address speaks meanwhile. Copies of
//! those are as harmless.
//!
//! Not provided: delivery to a peer that loses all of them, and anything for a process that is killed.

use std::collections::BTreeMap;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Connection, UdpPoller, VarInt};
use rookery_runtime::{Clock, Env, OnPanic, Scope};

use super::lock;

/// Waits before the goodbye is said again. An answer comes within a round trip, which is mostly less than the first; the last
/// copy leaves after 700 ms, so that a ghost is gone within a second.
const AGAIN: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_millis(200), Duration::from_millis(400)];
/// Datagrams of one goodbye that are kept.
const KEPT: usize = 4;
/// Bytes of a datagram at most that is kept: a goodbye has a reason of at most a few hundred.
const LONGEST: usize = 1500;
/// Goodbyes under way at a time. Those above it are said once: each holds its connection's memory for up to 700 ms, and it must not
/// be strangers who say how much that is.
const MOST: usize = 1024;

/// A socket that notes goodbyes, and says them again.
#[derive(Debug)]
pub(super) struct Farewells {
    socket: Arc<dyn AsyncUdpSocket>,
    scope: Scope,
    clock: Clock,
    /// How many are under way: nothing is looked for while there are none.
    open: AtomicUsize,
    notes: Mutex<Notes>,
}

#[derive(Debug, Default)]
struct Notes {
    last: u64,
    /// What was sent there since the goodbye of this number began.
    said: BTreeMap<(SocketAddr, u64), Vec<Said>>,
}

#[derive(Debug, Clone)]
struct Said {
    bytes: Box<[u8]>,
    src_ip: Option<IpAddr>,
}

impl Farewells {
    pub fn around(socket: Arc<dyn AsyncUdpSocket>, env: &Env) -> Arc<Self> {
        let (scope, clock) = (env.scope.clone(), env.clock);
        Arc::new(Self { socket, scope, clock, open: AtomicUsize::new(0), notes: Mutex::default() })
    }

    /// Closes a connection, and says so until it is answered. A connection that has ended already has nobody to tell.
    pub fn close(self: &Arc<Self>, connection: &Connection, code: VarInt, reason: &[u8]) {
        let open = connection.close_reason().is_none();
        // Before the close: its datagram leaves from another task, at once.
        let note = open.then(|| self.note(connection.remote_address())).flatten();
        connection.close(code, reason);
        if let Some(note) = note {
            let (clock, connection) = (self.clock, connection.clone());
            self.scope.spawn_to_end("quic farewell", OnPanic::StopNode, async move {
                for wait in AGAIN {
                    clock.sleep(wait).await;
                    if connection.stats().frame_rx.connection_close > 0 {
                        break;
                    }
                    note.say_again();
                }
            });
        }
    }

    fn note(self: &Arc<Self>, to: SocketAddr) -> Option<Note> {
        let mut notes = lock(&self.notes);
        if notes.said.len() >= MOST {
            return None;
        }
        notes.last += 1;
        let key = (to, notes.last);
        notes.said.insert(key, Vec::new());
        self.open.store(notes.said.len(), Ordering::Release);
        Some(Note { farewells: Arc::clone(self), key })
    }

    fn sent(&self, transmit: &Transmit<'_>) {
        if transmit.segment_size.is_some() || transmit.contents.len() > LONGEST {
            return;
        }
        let all = (transmit.destination, 0)..=(transmit.destination, u64::MAX);
        for (_, said) in lock(&self.notes).said.range_mut(all) {
            if said.len() < KEPT {
                said.push(Said { bytes: transmit.contents.into(), src_ip: transmit.src_ip });
            }
        }
    }
}

/// A goodbye under way. Dropped, it is no longer noted.
struct Note {
    farewells: Arc<Farewells>,
    key: (SocketAddr, u64),
}

impl Note {
    fn say_again(&self) {
        let said = lock(&self.farewells.notes).said.get(&self.key).cloned().unwrap_or_default();
        for Said { bytes, src_ip } in said {
            let destination = self.key.0;
            let again = Transmit { destination, ecn: None, contents: &bytes, segment_size: None, src_ip };
            // A socket that takes nothing now is as good as a network that loses it.
            let _ = self.farewells.socket.try_send(&again);
        }
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        let mut notes = lock(&self.farewells.notes);
        notes.said.remove(&self.key);
        self.farewells.open.store(notes.said.len(), Ordering::Release);
    }
}

impl AsyncUdpSocket for Farewells {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.socket).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_send(transmit)?;
        if self.open.load(Ordering::Acquire) > 0 {
            self.sent(transmit);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.socket.poll_recv(cx, bufs, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}
