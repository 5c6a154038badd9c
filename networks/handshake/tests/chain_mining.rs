//! Mined blocks and synthetic chains follow the rules they are made under.

use rookery_base::Work;
use rookery_handshake::chain::HandshakeChain;
use rookery_handshake::chain::header::Header;
use rookery_handshake::chain::recent::Recent;
use rookery_handshake::mine::{Payee, Template, mine, synthetic};
use rookery_handshake::params::{MAIN, REGTEST, SIMNET};
use rookery_sync::{Ancestry, Chain};

#[test]
fn mined_chains_follow_every_rule() {
    for params in [&REGTEST, &SIMNET] {
        let chain = HandshakeChain::new(params);
        let (raw, genesis) = chain.genesis();
        let mut parent = *raw.first_chunk().unwrap();
        let mut tip = genesis;
        let mut branch = Recent::new(0, &genesis, chain.proof(genesis.bits));
        for _ in 0..160 {
            let payee = Payee::new(0, &[1; 20]).unwrap();
            let template = Template::after(params, &parent, &branch, tip.time + 150, payee).unwrap();
            let mined = mine(&template, 1 << 20).unwrap();
            assert_eq!(chain.check(&mined.header).unwrap(), [mined.facts]);
            assert_eq!(mined.facts.prev, tip.hash);
            chain.place(&mined.facts, &branch, mined.facts.time).unwrap();
            branch.push(&mined.facts);
            assert_eq!(mined.height, branch.height());
            (parent, tip) = (mined.header, mined.facts);
        }
        // Four times too fast: only the network that retargets has become harder.
        assert_eq!(tip.bits == params.pow_bits, params.no_retarget, "{}", params.name);
    }
}

#[test]
fn synthetic_chains_are_valid_repeatable_and_fork_by_salt() {
    let chain = HandshakeChain::new(&SIMNET);
    for (spacing, moves) in [(600, false), (400, true), (900, false)] {
        let mut made = synthetic::extend(&SIMNET, 7).with_spacing(spacing);
        let (_, genesis) = chain.genesis();
        let mut branch = Recent::new(0, &genesis, chain.proof(genesis.bits));
        let mut tip = genesis;
        for (raw, facts) in made.by_ref().take(400) {
            assert_eq!(chain.check(&raw).unwrap(), [facts]);
            assert_eq!(facts.prev, tip.hash);
            chain.place(&facts, &branch, facts.time).unwrap();
            branch.push(&facts);
            tip = facts;
        }
        assert_eq!((made.height(), *made.tip()), (400, tip));
        assert_eq!(made.branch().work(), branch.work());
        assert_eq!(tip.bits != SIMNET.pow_bits, moves, "{spacing} s");
    }
    let first = |salt| synthetic::extend(&SIMNET, salt).take(5).collect::<Vec<_>>();
    assert_eq!(first(1), first(1));
    assert_ne!(first(1), first(2));

    let mut trunk = synthetic::extend(&SIMNET, 1);
    trunk.nth(9);
    let mut fork = trunk.clone().with_salt(2);
    let (ours, theirs) = (trunk.next().unwrap(), fork.next().unwrap());
    assert_eq!(ours.1.prev, theirs.1.prev);
    assert_ne!(ours.1.hash, theirs.1.hash);
}

#[test]
fn a_chain_ends_where_no_valid_header_can_follow() {
    assert!(synthetic::extend(&MAIN, 0).next().is_none(), "out of reach");
    assert!(synthetic::extend(&SIMNET, 0).with_spacing(0).next().is_none(), "not after the median");
    assert!(synthetic::extend(&SIMNET, 0).with_spacing(u64::MAX).next().is_none(), "no such time");
}

#[test]
fn a_mined_block_carries_its_parents_roots() {
    let chain = HandshakeChain::new(&REGTEST);
    let (_, genesis) = chain.genesis();
    let branch = Recent::new(0, &genesis, Work::from(2));
    let parent = Header { tree_root: rookery_base::Hash32([5; 32]), ..Header::decode(&REGTEST.genesis) };
    let payee = Payee::new(0, &[1; 20]).unwrap();
    let template = Template::after(&REGTEST, &parent.encode(), &branch, genesis.time + 1, payee).unwrap();
    let mined = mine(&template, 1 << 16).unwrap();
    assert_eq!(Header::decode(&mined.header).tree_root, parent.tree_root);
}
