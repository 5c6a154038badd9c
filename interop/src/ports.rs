//! Free ports on loopback.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the range from which the system takes ports for outgoing connections, so that no other connection of a test
/// can take one between here and the peer that is to listen on it.
const FIRST: u16 = 20_000;
/// Ports that are tried.
const COUNT: u16 = 10_000;

/// A port that nobody listens on. Never the same one twice in a process, and processes start at different places.
///
/// # Panics
/// When all are taken.
pub fn free() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Far enough from the next process's for as many ports as one test binary uses.
    let start = (std::process::id() % 100) as u16 * 100;
    (0..COUNT)
        .map(|_| FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT)
        .find(|&port| TcpListener::bind(("127.0.0.1", port)).is_ok())
        .expect("one of ten thousand ports is free")
}
