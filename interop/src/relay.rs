//! A relay between a node and its peer that stops at a chosen byte, so that a test meets a sync in its middle.
//!
//! ```text
//! node <---- at most `bytes` ---- Relay <---- everything ---- peer
//!      ---- everything ------->        ---- everything ----->
//! ```
//!
//! It passes bytes on until that many have come from the peer. Then it holds: connections stay open and nothing comes
//! any more, as from a peer that hangs. [`Relay::cut`] drops what is held, closes those connections, and lets every
//! later one pass freely.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::wait;

/// A listening relay. Its threads end with their connections, and the listening one with the process.
#[derive(Debug)]
pub struct Relay {
    addr: SocketAddr,
    gate: Arc<Gate>,
}

/// What the connections share.
#[derive(Debug)]
struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// So many bytes may still come.
    Counting(usize),
    /// None may come, and some would have.
    Held,
    /// All may come on new connections; those that were held have ended.
    Free,
}

impl Relay {
    /// Starts one in front of `peer` that holds after so many bytes from it.
    ///
    /// # Panics
    /// When it cannot listen.
    pub fn start(peer: SocketAddr, bytes: usize) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port on loopback");
        let addr = listener.local_addr().expect("a listener has an address");
        let gate = Arc::new(Gate { state: Mutex::new(State::Counting(bytes)), changed: Condvar::new() });
        let shared = Arc::clone(&gate);
        thread::spawn(move || {
            for node in listener.incoming().flatten() {
                // While the peer is down the node sees what it would see without a relay: a closed connection.
                let Ok(peer) = TcpStream::connect(peer) else { continue };
                relay(node, peer, &shared);
            }
        });
        Self { addr, gate }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Waits until it holds.
    ///
    /// # Panics
    /// When that many bytes have not come within `deadline`.
    pub fn await_hold(&self, deadline: Duration) {
        let look = || (*self.gate.lock() == State::Held).then_some(());
        wait::until("the middle of a sync", deadline, look);
    }

    /// Ends the connections that are held, and holds no more.
    pub fn cut(&self) {
        *self.gate.lock() = State::Free;
        self.gate.changed.notify_all();
    }
}

impl Gate {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether these bytes may pass. Waits while the relay holds; what was held does not pass.
    fn admit(&self, bytes: usize) -> bool {
        let mut state = self.lock();
        match *state {
            State::Counting(left) if bytes <= left => {
                *state = State::Counting(left - bytes);
                true
            }
            State::Counting(_) | State::Held => {
                *state = State::Held;
                let held = |state: &mut State| *state == State::Held;
                drop(self.changed.wait_while(state, held).unwrap_or_else(PoisonError::into_inner));
                false
            }
            State::Free => true,
        }
    }
}

/// Serves one connection with a thread for each direction.
fn relay(node: TcpStream, peer: TcpStream, gate: &Arc<Gate>) {
    let (Ok(from_node), Ok(to_peer)) = (node.try_clone(), peer.try_clone()) else { return };
    let gate = Arc::clone(gate);
    thread::spawn(move || pass(from_node, to_peer, |_| true));
    thread::spawn(move || pass(peer, node, |bytes| gate.admit(bytes)));
}

/// Copies until one side ends or `admit` refuses, then ends both.
fn pass(mut from: TcpStream, mut to: TcpStream, admit: impl Fn(usize) -> bool) {
    let mut chunk = [0; 16 * 1024];
    while let Ok(len @ 1..) = from.read(&mut chunk) {
        if !admit(len) || to.write_all(&chunk[..len]).is_err() {
            break;
        }
    }
    // Ends the other direction's thread too; already ended is as good.
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
