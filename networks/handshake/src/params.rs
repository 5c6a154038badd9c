//! The four Handshake networks: what differs between them.
//!
//! Values are facts of the public protocol (hsd 8.0.0, `lib/protocol/networks.js`); the genesis hashes are derived
//! again from the headers by a test.

use std::net::Ipv4Addr;

use rookery_base::{Hash32, Height, Work};

use crate::chain::header::{Header, RawHeader};

/// Base units in one coin.
pub const COIN: u64 = 1_000_000;

/// Reward of a block before the first halving, in base units.
pub const BASE_REWARD: u64 = 2_000 * COIN;

/// After this many halvings the reward is zero, as the reference node has it.
const MAX_HALVINGS: u32 = 52;

/// One network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Params {
    /// The name by which it is stored and shown: `handshake-main`.
    pub name: &'static str,
    /// The first field of every frame; also the first four bytes of the genesis hash.
    pub magic: u32,
    /// Where clear peers listen.
    pub port: u16,
    /// Where Brontide peers listen.
    pub brontide_port: u16,
    /// Names that resolve to peers.
    pub dns_seeds: &'static [&'static str],
    /// Peers without a key that are known from the start; they listen on [`port`](Self::port).
    pub fixed_seeds: &'static [Ipv4Addr],
    /// The header at height 0.
    pub genesis: RawHeader,
    /// Its hash.
    pub genesis_hash: Hash32,
    /// The compact target of the first blocks, and of every one where the rules say so.
    pub pow_bits: u32,
    /// The easiest target.
    pub pow_limit: Work,
    /// Every block has [`pow_bits`](Self::pow_bits).
    pub no_retarget: bool,
    /// A block more than twenty minutes after its parent may have [`pow_bits`](Self::pow_bits).
    pub target_reset: bool,
    /// Known hashes, in order of height.
    pub checkpoints: &'static [(Height, Hash32)],
    /// A chain with less work is not the network's.
    pub min_chainwork: Work,
    /// A tip older than this, in seconds, is not the network's tip.
    pub max_tip_age: u64,
    /// Blocks between two commitments of the name tree.
    pub tree_interval: u32,
    /// Blocks before a coinbase may be spent.
    pub coinbase_maturity: u32,
    /// Blocks between two halvings of the reward.
    pub halving_interval: u32,
    /// From here blocks may hold more than a coinbase.
    pub tx_start: Height,
    /// First part of an address in text.
    pub address_prefix: &'static str,
}

impl Params {
    /// Every network.
    pub const ALL: [&'static Self; 4] = [&MAIN, &TESTNET, &REGTEST, &SIMNET];

    /// The network of that name.
    pub fn by_name(name: &str) -> Option<&'static Self> {
        Self::ALL.into_iter().find(|params| params.name == name)
    }

    /// The most that a block at `height` may create, in base units.
    pub const fn reward(&self, height: Height) -> u64 {
        let halvings = height / self.halving_interval;
        if halvings >= MAX_HALVINGS { 0 } else { BASE_REWARD >> halvings }
    }
}

/// The network that holds value.
pub static MAIN: Params = Params {
    name: "handshake-main",
    magic: 0x5b6e_f2d3,
    port: 12_038,
    brontide_port: 44_806,
    dns_seeds: &["hs-mainnet.bcoin.ninja", "seed.htools.work"],
    fixed_seeds: MAIN_SEEDS,
    genesis: genesis(1_580_745_078, 0x1c00_ffff),
    genesis_hash: hash("5b6ef2d3c1f3cdcadfd9a030ba1811efdd17740f14e166489760741d075992e0"),
    pow_bits: 0x1c00_ffff,
    pow_limit: Work::from_limbs([0, 0, 0, 0x0000_0000_00ff_ff00]),
    no_retarget: false,
    target_reset: false,
    checkpoints: MAIN_CHECKPOINTS,
    min_chainwork: Work::from_limbs([0x75b5_a2b7_bf52_2d45, 0, 0, 0]),
    max_tip_age: 12 * 60 * 60,
    tree_interval: 36,
    coinbase_maturity: 100,
    halving_interval: 170_000,
    tx_start: 2_016,
    address_prefix: "hs",
};

/// The public test network.
pub static TESTNET: Params = Params {
    name: "handshake-testnet",
    magic: 0xb152_0dd2,
    port: 13_038,
    brontide_port: 45_806,
    dns_seeds: &["hs-testnet.bcoin.ninja"],
    fixed_seeds: &[],
    genesis: genesis(1_580_745_079, 0x1d00_ffff),
    genesis_hash: hash("b1520dd24372f82ec94ebf8cf9d9b037d419c4aa3575d05dec70aedd1b427901"),
    pow_bits: 0x1d00_ffff,
    pow_limit: Work::from_limbs([0, 0, 0, 0x0000_0000_ffff_0000]),
    no_retarget: false,
    target_reset: true,
    checkpoints: &[],
    min_chainwork: Work::ZERO,
    max_tip_age: 12 * 60 * 60,
    tree_interval: 36,
    coinbase_maturity: 100,
    halving_interval: 170_000,
    tx_start: 0,
    address_prefix: "ts",
};

/// For tests on one machine: every block at the easiest target.
pub static REGTEST: Params = Params {
    name: "handshake-regtest",
    magic: 0xae38_95cf,
    port: 14_038,
    brontide_port: 46_806,
    dns_seeds: &[],
    fixed_seeds: &[],
    genesis: genesis(1_580_745_080, 0x207f_ffff),
    genesis_hash: hash("ae3895cf597eff05b19e02a70ceeeecb9dc72dbfe6504a50e9343a72f06a87c5"),
    pow_bits: 0x207f_ffff,
    pow_limit: EASIEST,
    no_retarget: true,
    target_reset: true,
    checkpoints: &[],
    min_chainwork: Work::ZERO,
    max_tip_age: u32::MAX as u64,
    tree_interval: 5,
    coinbase_maturity: 2,
    halving_interval: 2_500,
    tx_start: 0,
    address_prefix: "rs",
};

/// For tests on one machine under the main network's retarget rules.
pub static SIMNET: Params = Params {
    name: "handshake-simnet",
    magic: 0x0e64_8edc,
    port: 15_038,
    brontide_port: 47_806,
    dns_seeds: &[],
    fixed_seeds: &[],
    genesis: genesis(1_580_745_081, 0x207f_ffff),
    genesis_hash: hash("0e648edc9cddb179014658061ea3f666a45cf44881877ae506e6babefbef6992"),
    pow_bits: 0x207f_ffff,
    pow_limit: EASIEST,
    no_retarget: false,
    target_reset: false,
    checkpoints: &[],
    min_chainwork: Work::ZERO,
    max_tip_age: u32::MAX as u64,
    tree_interval: 2,
    coinbase_maturity: 6,
    halving_interval: 170_000,
    tx_start: 0,
    address_prefix: "ss",
};

/// The limit of regtest and simnet.
const EASIEST: Work = Work::from_limbs([0, 0, 0, 0x7fff_ff00_0000_0000]);

/// The genesis header: only time and bits differ between networks.
const fn genesis(time: u64, bits: u32) -> RawHeader {
    Header {
        nonce: 0,
        time,
        prev: Hash32::ZERO,
        tree_root: Hash32::ZERO,
        extra_nonce: [0; 24],
        reserved_root: Hash32::ZERO,
        witness_root: hash("1a2c60b9439206938f8d7823782abdb8b211a57431e9c9b6a6365d8d42893351"),
        merkle_root: hash("8e4c9756fef2ad10375f360e0560fcc7587eb5223ddf8cd7c7e06e60a1140b15"),
        version: 0,
        bits,
        mask: Hash32::ZERO,
    }
    .encode()
}

/// A hash of this file; a slip in one does not compile.
const fn hash(hex: &str) -> Hash32 {
    match const_hex::const_decode_to_array(hex.as_bytes()) {
        Ok(bytes) => Hash32(bytes),
        Err(_) => panic!("not the hexadecimal digits of a hash"),
    }
}

const MAIN_CHECKPOINTS: &[(Height, Hash32)] = &[
    (1008, hash("0000000000001013c28fa079b545fb805f04c496687799b98e35e83cbbb8953e")),
    (2016, hash("0000000000000424ee6c2a5d6e0da5edfc47a4a10328c1792056ee48303c3e40")),
    (10000, hash("00000000000001a86811a6f520bf67cefa03207dc84fd315f58153b28694ec51")),
    (20000, hash("0000000000000162c7ac70a582256f59c189b5c90d8e9861b3f374ed714c58de")),
    (30000, hash("0000000000000004f790862846b23c3a81585aea0fa79a7d851b409e027bcaa7")),
    (40000, hash("0000000000000002966206a40b10a575cb46531253b08dae8e1b356cfa277248")),
    (50000, hash("00000000000000020c7447e7139feeb90549bfc77a7f18d4ff28f327c04f8d6e")),
    (56880, hash("0000000000000001d4ef9ea6908bb4eb970d556bd07cbd7d06a634e1cd5bbf4e")),
    (61043, hash("00000000000000015b84385e0307370f8323420eaa27ef6e407f2d3162f1fd05")),
    (100000, hash("000000000000000136d7d3efa688072f40d9fdd71bd47bb961694c0f38950246")),
    (130000, hash("0000000000000005ee5106df9e48bcd232a1917684ac344b35ddd9b9e4101096")),
    (160000, hash("00000000000000021e723ce5aedc021ab4f85d46a6914e40148f01986baa46c9")),
    (200000, hash("000000000000000181ebc18d6c34442ffef3eedca90c57ca8ecc29016a1cfe16")),
    (225000, hash("00000000000000021f0be013ebad018a9ef97c8501766632f017a778781320d5")),
    (258026, hash("0000000000000004963d20732c58e5a91cb7e1b61ec6709d031f1a5ca8c55b95")),
];

/// Main peers that listen without a key.
const MAIN_SEEDS: &[Ipv4Addr] = &[
    // hsd 8.0.0, lib/net/seeds/main.js
    Ipv4Addr::new(129, 153, 177, 220),
    Ipv4Addr::new(159, 69, 46, 23),
    Ipv4Addr::new(173, 255, 209, 126),
    Ipv4Addr::new(74, 207, 247, 120),
    Ipv4Addr::new(172, 104, 214, 189),
    Ipv4Addr::new(45, 79, 134, 225),
    Ipv4Addr::new(35, 154, 209, 88),
    Ipv4Addr::new(194, 50, 5, 26),
    Ipv4Addr::new(194, 50, 5, 27),
    Ipv4Addr::new(194, 50, 5, 28),
    Ipv4Addr::new(139, 59, 211, 187),
    Ipv4Addr::new(5, 161, 64, 49),
    Ipv4Addr::new(85, 214, 33, 200),
    Ipv4Addr::new(202, 61, 250, 91),
    // hnsd 2.99.0, src/seeds.h, as far as not named above
    Ipv4Addr::new(104, 254, 246, 153),
    Ipv4Addr::new(66, 94, 118, 127),
    Ipv4Addr::new(165, 227, 93, 117),
    Ipv4Addr::new(98, 47, 90, 111),
    Ipv4Addr::new(178, 18, 254, 92),
    Ipv4Addr::new(152, 69, 186, 119),
    Ipv4Addr::new(89, 58, 17, 86),
    Ipv4Addr::new(76, 217, 158, 15),
    Ipv4Addr::new(149, 102, 152, 193),
    Ipv4Addr::new(147, 124, 228, 198),
    Ipv4Addr::new(108, 175, 4, 26),
    Ipv4Addr::new(66, 29, 151, 42),
    Ipv4Addr::new(205, 250, 112, 133),
    Ipv4Addr::new(44, 229, 138, 206),
    Ipv4Addr::new(81, 6, 58, 121),
    Ipv4Addr::new(154, 26, 133, 109),
    Ipv4Addr::new(140, 238, 164, 155),
    Ipv4Addr::new(81, 169, 159, 30),
    Ipv4Addr::new(50, 112, 123, 184),
    Ipv4Addr::new(185, 232, 71, 108),
    Ipv4Addr::new(207, 244, 233, 76),
    Ipv4Addr::new(140, 238, 196, 136),
    Ipv4Addr::new(193, 41, 237, 153),
    Ipv4Addr::new(82, 223, 165, 215),
    Ipv4Addr::new(212, 227, 68, 123),
    Ipv4Addr::new(202, 61, 201, 15),
    Ipv4Addr::new(168, 138, 31, 136),
    Ipv4Addr::new(107, 152, 32, 250),
    Ipv4Addr::new(108, 61, 206, 38),
    Ipv4Addr::new(204, 99, 129, 8),
    Ipv4Addr::new(73, 185, 40, 66),
    Ipv4Addr::new(129, 153, 166, 244),
    Ipv4Addr::new(137, 184, 156, 222),
    Ipv4Addr::new(176, 96, 136, 143),
    Ipv4Addr::new(150, 136, 231, 120),
    Ipv4Addr::new(54, 184, 104, 94),
    Ipv4Addr::new(47, 108, 194, 84),
    Ipv4Addr::new(45, 79, 95, 228),
    Ipv4Addr::new(89, 163, 154, 217),
    Ipv4Addr::new(139, 178, 67, 226),
    Ipv4Addr::new(47, 242, 86, 29),
    Ipv4Addr::new(99, 92, 204, 3),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::{hash, target};

    #[test]
    fn genesis_hash_magic_and_limit_follow_from_the_header() {
        for params in Params::ALL {
            assert_eq!(hash::hash(&params.genesis), params.genesis_hash, "{}", params.name);
            assert_eq!(params.genesis_hash.0[..4], params.magic.to_be_bytes(), "{}", params.name);
            assert_eq!(target::expand(params.pow_bits), Some(params.pow_limit), "{}", params.name);
            assert_eq!(Header::decode(&params.genesis).bits, params.pow_bits, "{}", params.name);
        }
    }

    #[test]
    fn names_find_their_network_and_nothing_else_does() {
        for params in Params::ALL {
            assert_eq!(Params::by_name(params.name), Some(params));
        }
        assert_eq!(Params::by_name("main"), None);
    }

    #[test]
    fn tables_are_in_order_and_hold_nothing_twice() {
        assert!(MAIN_CHECKPOINTS.is_sorted_by(|a, b| a.0 < b.0));
        let mut seeds = MAIN_SEEDS.to_vec();
        seeds.sort();
        assert!(seeds.is_sorted_by(|a, b| a < b), "a seed is listed twice");
    }

    #[test]
    fn the_reward_halves_and_ends() {
        assert_eq!(MAIN.reward(0), 2_000_000_000);
        assert_eq!(MAIN.reward(169_999), 2_000_000_000);
        assert_eq!(MAIN.reward(170_000), 1_000_000_000);
        assert_eq!(REGTEST.reward(2_500 * 30), 1);
        assert_eq!(REGTEST.reward(2_500 * 31), 0);
        assert_eq!(REGTEST.reward(u32::MAX), 0);
    }
}
