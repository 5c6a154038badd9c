//! hsd accepts the blocks that Rookery mines.

use rookery_base::Work;
use rookery_handshake::chain::HandshakeChain;
use rookery_handshake::chain::recent::Recent;
use rookery_handshake::mine::{Payee, Template, mine};
use rookery_handshake::params::REGTEST;
use rookery_interop::hsd::Hsd;
use rookery_interop::turn;
use rookery_sync::Chain;
use serde_json::{Value, json};

/// Twice what any template of regtest's target needs: each nonce meets it with a chance of one half.
const TRIES: u32 = 256;
/// Past regtest's first commitment of the name tree, at 5.
const BLOCKS: u32 = 12;

#[test]
fn hsd_builds_on_our_blocks() {
    let _turn = turn();
    let hsd = Hsd::start();
    let (_, genesis) = HandshakeChain::new(&REGTEST).genesis();
    let mut branch = Recent::new(0, &genesis, Work::ZERO);
    let (mut parent, mut tip, mut time) = (REGTEST.genesis, genesis.hash, genesis.time);
    for height in 1..=BLOCKS {
        time += 600;
        let payee = Payee::new(0, &[7; 20]).unwrap();
        let template = Template::after(&REGTEST, &parent, &branch, time, payee).unwrap();
        let mined = mine(&template, TRIES).expect("half of all nonces do");
        // hsd answers null for a block that it takes, and a reason for one that it does not.
        let verdict = hsd.rpc("submitblock", json!([const_hex::encode(&mined.block)]));
        assert_eq!(verdict, Value::Null, "block {height}");
        assert_eq!(hsd.tip(), mined.facts.hash);
        branch.push(&mined.facts);
        (parent, tip) = (mined.header, mined.facts.hash);
    }
    assert_eq!(hsd.height(), BLOCKS);
    hsd.mine(1);
    assert_eq!(hsd.hash_at(BLOCKS), tip, "hsd mines on our tip");
    assert_eq!(hsd.height(), BLOCKS + 1);
}
