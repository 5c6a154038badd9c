//! Handshakes that take as long as they can: each proves its address, and says one thing a second.
//!
//! No stack stands behind them, so that thousands of them cost the machine next to nothing: each is a socket at an address of
//! its own, and what it says is the flight of a recorded handshake, sealed for its connection. It asks, answers the
//! demand to prove its address with its first packet, sends the second, and from then on repeats that. Where a server has given
//! its place to another one meanwhile, the proof is still good, and the repetition begins a new handshake.

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use rookery_runtime::Clock;
use serde_json::{Value, json};

use super::super::{Outcome, said as told, source};
use super::initial::Retry;
use super::raw::{DATAGRAM, Flight, new_id};

/// What each says a thing in.
const PERIOD: Duration = Duration::from_secs(1);
/// Who is later than this says nothing.
const LATE: Duration = Duration::from_millis(20);
/// Between two bursts.
const TICK: Duration = Duration::from_millis(5);
/// Handshakes begin within this part of the attack.
const BEGIN: f64 = 0.25;
/// The last octet of the addresses that they come from, in the first round.
const SLOW: u8 = 5;

/// One that shakes hands slowly.
pub struct Attempt {
    socket: UdpSocket,
    destination: Vec<u8>,
    token: Vec<u8>,
    /// The packet that it says next.
    next: usize,
    /// Whether anything was ever heard.
    answered: bool,
}

impl Attempt {
    fn new(number: usize, round: u8) -> Outcome<Self> {
        let socket = UdpSocket::bind(source(number, SLOW + round)).map_err(told)?;
        socket.set_nonblocking(true).map_err(told)?;
        Ok(Self { socket, destination: new_id()?.into(), token: Vec::new(), next: 0, answered: false })
    }

    /// Takes in what has come: a demand to prove its address begins it anew, with the proof.
    fn hear(&mut self) {
        let mut datagram = [0; DATAGRAM];
        while let Ok(len) = self.socket.recv(&mut datagram) {
            self.answered = true;
            if let Some(Retry { destination, token }) = Retry::read(&datagram[..len])
                && self.token.is_empty()
            {
                (self.destination, self.token, self.next) = (destination, token, 0);
            }
        }
    }

    fn say(&mut self, flight: &Flight, to: SocketAddr) -> Outcome<()> {
        self.hear();
        let packet = flight[self.next].seal(&self.destination, &self.token);
        self.next = (self.next + 1).min(flight.len() - 1);
        match self.socket.send_to(&packet, to) {
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => Err(told(error)),
            _ => Ok(()),
        }
    }
}

/// Makes them, each with its socket.
pub fn make(count: usize, round: u8) -> Outcome<Vec<Attempt>> {
    (0..count).map(|number| Attempt::new(number, round)).collect()
}

/// Shakes all hands until the time is over, and says how many were answered and how many have proven their address.
pub async fn attack(
    mut attempts: Vec<Attempt>,
    flight: &Flight,
    to: SocketAddr,
    over: Duration,
) -> Outcome<Value> {
    let clock = Clock::system();
    let (acts, mut said) = (attempts.len(), 0_u64);
    let begins = |number: usize| over.mul_f64(BEGIN * number as f64 / acts as f64);
    let mut due: BTreeSet<(Duration, usize)> = (0..acts).map(|number| (begins(number), number)).collect();
    while let Some((at, number)) = due.pop_first().filter(|(at, _)| *at < over) {
        // Timers are a millisecond coarse, and thousands are due in a second.
        if let Some(early) = at.checked_sub(clock.elapsed()) {
            clock.sleep(early.max(TICK)).await;
        }
        // Whom the machine kept waiting lets its second pass: caught up with, seconds of thousands would be one burst.
        if clock.elapsed() <= at + LATE {
            attempts[number].say(flight, to)?;
            said += 1;
        }
        due.insert((at + PERIOD, number));
    }
    clock.sleep(over.saturating_sub(clock.elapsed())).await;
    let counted = |which: fn(&Attempt) -> bool| attempts.iter().filter(|attempt| which(attempt)).count();
    Ok(json!({
        "acts": acts,
        "datagrams": said,
        "answered": counted(|attempt| attempt.answered),
        "proven": counted(|attempt| !attempt.token.is_empty()),
    }))
}
