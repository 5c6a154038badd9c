//! Verification of Handshake headers: decoding, proof of work and links ([`Chain::check`] and the comparison that sync
//! makes), and the rules in place ([`Chain::place`]) with the work that they need.
//!
//! Beside it, in the same run, the floor: nothing but the hash functions of a header, one header after the other, as
//! plain libraries give them.

use std::hint::black_box;

use blake2b_simd::Params as Blake;
use rookery_base::Hash32;
use rookery_handshake::chain::hash::Hasher;
use rookery_handshake::chain::header::HEADER_LEN;
use rookery_handshake::chain::keccak::Engine;
use rookery_handshake::chain::recent::Recent;
use rookery_handshake::chain::{HandshakeChain, header};
use rookery_handshake::mine::synthetic;
use rookery_handshake::params::SIMNET;
use rookery_sync::{Chain, HeaderFacts};
use sha3::{Digest, Sha3_256};

use crate::figure::Figure;
use crate::measure;

/// Headers in one message of the wire, which is what sync hands to `check` at a time.
const BATCH: usize = 2_000;
/// Headers in one round.
const HEADERS: usize = 10 * BATCH;
/// Headers that are to be verified per CPU second.
const VERIFY_TARGET: f64 = 1_200_000.0;

/// Measures.
pub fn run() -> Vec<Figure> {
    let chain = HandshakeChain::new(&SIMNET);
    let mut raw = Vec::with_capacity(HEADERS * HEADER_LEN);
    let mut facts = Vec::with_capacity(HEADERS);
    for (header, fact) in synthetic::extend(&SIMNET, 0).take(HEADERS) {
        raw.extend_from_slice(&header);
        facts.push(fact);
    }
    // A second chain on which every window gives new bits: blocks come at 580 s and slowly grow harder.
    let moving: Vec<HeaderFacts> =
        synthetic::extend(&SIMNET, 1).with_spacing(580).take(HEADERS / 10).map(|(_, facts)| facts).collect();

    let chains = || {
        Engine::available().map(|engine| HandshakeChain::with_hasher(&SIMNET, Hasher::with_engine(engine)))
    };
    let mut pieces: Vec<Box<dyn FnMut()>> = vec![
        Box::new(|| plain_hashing(black_box(&raw))),
        Box::new(|| place_all(&chain, black_box(&facts))),
        Box::new(|| place_all(&chain, black_box(&moving))),
    ];
    for chain in chains() {
        let raw = &raw;
        pieces.push(Box::new(move || verify(&chain, black_box(raw))));
    }
    let seconds = measure::fastest(&mut pieces);
    let [floor, place, place_moving, ref engines @ ..] = seconds[..] else { unreachable!("one per piece") };

    let count = HEADERS as f64;
    // The last engine is the one that `HandshakeChain::new` takes.
    let verify = engines.last().copied().expect("there is always the scalar engine");
    let mut figures = vec![
        Figure::new("verify", count / verify, "headers/cpu_s").at_least(VERIFY_TARGET),
        Figure::new("verify_each", verify / count * 1e9, "ns"),
        Figure::new("plain_hashing_floor", count / floor, "headers/cpu_s"),
        Figure::new("verify_against_floor", floor / verify, "ratio"),
        Figure::new("place_each_steady_bits", place / count * 1e9, "ns"),
        Figure::new("place_each_moving_bits", place_moving / moving.len() as f64 * 1e9, "ns"),
    ];
    for (engine, seconds) in Engine::available().zip(engines) {
        figures.push(Figure::new(format!("verify_{}", engine.label()), count / seconds, "headers/cpu_s"));
    }
    figures
}

/// Decode, proof of work, links: batch by batch, as they come off the wire.
fn verify(chain: &HandshakeChain, raw: &[u8]) {
    let mut tip = chain.genesis().1.hash;
    for batch in raw.chunks(BATCH * HEADER_LEN) {
        for header in chain.check(batch).expect("the chain is valid") {
            assert_eq!(header.prev, tip, "the chain links");
            tip = header.hash;
        }
    }
    black_box(tip);
}

/// The rules in place, with the work that they keep.
fn place_all(chain: &HandshakeChain, facts: &[HeaderFacts]) {
    let genesis = chain.genesis().1;
    let mut branch = Recent::new(0, &genesis, chain.proof(genesis.bits));
    for header in facts {
        chain.place(header, &branch, header.time).expect("the chain is valid");
        branch.push(header);
    }
    black_box(branch.work());
}

/// The five BLAKE2b and the one SHA3-256 of a header on inputs of the right lengths, and nothing else.
fn plain_hashing(raw: &[u8]) {
    let mut short = Blake::new();
    short.hash_length(Hash32::ZERO.0.len());
    let long = Blake::new();
    for header in raw.as_chunks::<HEADER_LEN>().0 {
        black_box(short.hash(&header[..128]));
        black_box(short.hash(&header[..64]));
        black_box(short.hash(&header[64..128]));
        black_box(long.hash(&header[..128]));
        black_box(Sha3_256::digest(&header[..136]));
        black_box(short.hash(&header[108..]));
        black_box(header::bits(header));
    }
}
