//! A Handshake peer that says anything at all before the handshake has ended, and then closes.
//!
//! The first byte says who dialled, the rest is what the peer sends. No bytes may panic, hang or establish a session
//! with a peer that has not said a version above 0.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use rookery_base::Direction;
use rookery_engine::Approach;
use rookery_handshake::handshake::nonce::OwnNonces;
use rookery_handshake::handshake::{DEADLINE, Introduction};
use rookery_handshake::params::MAIN;
use rookery_handshake::wire::Services;
use rookery_observe::Trace;
use rookery_runtime::Env;
use rookery_transport::{Conn, StreamConn};
use tokio::runtime::{Builder, Runtime};

thread_local! {
    static RUNTIME: Runtime =
        Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime can be made");
}

fuzz_target!(|input: &[u8]| {
    let Some((&first, said)) = input.split_first() else { return };
    let direction = if first & 1 == 0 { Direction::Inbound } else { Direction::Outbound };
    RUNTIME.with(|runtime| runtime.block_on(meet(direction, said)));
});

async fn meet(direction: Direction, said: &[u8]) {
    let env = Env::simulated(1, 0, 1_700_000_000, 0, Trace::off());
    let remote = ([1, 2, 3, 4], 12038).into();
    let read = Box::new(std::io::Cursor::new(said.to_vec()));
    let write = Box::new(tokio::io::sink());
    let conn = Conn::Stream(StreamConn { remote, local: remote, read, write });
    let us = Introduction {
        params: &MAIN,
        services: Services::NONE,
        height: Arc::new(|| 1),
        nonces: OwnNonces::new(&env.rng),
    };
    let began = env.clock.now();
    let ended = us.shake(Approach { conn, direction, env: env.clone() }).await;
    assert!(env.clock.now() - began < DEADLINE);
    let Ok(established) = ended else { return };
    assert!(established.facts.version > 0);
    assert!(established.facts.agent.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
    assert!(established.read_ahead.len() <= said.len());
}
