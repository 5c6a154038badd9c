//! SHA3-256 of eight 136-byte messages at once.
//!
//! A header's proof of work holds one SHA3-256 of exactly one rate block, which costs two permutations: the block
//! itself, then the block that holds nothing but padding. That is half of the whole price of a header. Headers are
//! independent of each other, so eight states ride in the 64-bit lanes of vector registers: one AVX-512 register, or
//! two AVX2 ones, holds the same word of several states. Why no published crate does this for us, with figures, is
//! in `docs/decisions/0001-parallel-keccak.md`.
//!
//! The engine is picked at run time. Without AVX2, and on other processors, the `sha3` crate does the work
//! message by message; it is also what the lanes are tested against.

use sha3::{Digest, Sha3_256};

/// How many messages are hashed together: the 64-bit lanes of one 512-bit register.
pub const LANES: usize = 8;

/// Bytes of one message: exactly the rate of SHA3-256.
pub const MESSAGE_LEN: usize = 136;

/// What computes the permutations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// The `sha3` crate, one message after the other. Correct everywhere.
    Scalar,
    /// Four states in 256-bit registers, twice.
    #[cfg(target_arch = "x86_64")]
    Avx2(x86::Avx2),
    /// Eight states in 512-bit registers.
    #[cfg(target_arch = "x86_64")]
    Avx512(x86::Avx512),
}

impl Engine {
    /// Every engine that this processor can run, the slowest first.
    pub fn available() -> impl Iterator<Item = Self> {
        let engines = [
            Some(Self::Scalar),
            #[cfg(target_arch = "x86_64")]
            x86::Avx2::detect().map(Self::Avx2),
            #[cfg(target_arch = "x86_64")]
            x86::Avx512::detect().map(Self::Avx512),
        ];
        engines.into_iter().flatten()
    }

    /// The fastest engine that this processor can run.
    pub fn detect() -> Self {
        Self::available().last().unwrap_or(Self::Scalar)
    }

    /// A stable name for reports.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => "avx512",
        }
    }

    /// The SHA3-256 digests of the messages.
    pub fn sha3_256(self, messages: &[[u8; MESSAGE_LEN]; LANES]) -> [[u8; 32]; LANES] {
        match self {
            Self::Scalar => messages.map(|message| Sha3_256::digest(message).into()),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(token) => {
                let (halves, _) = messages.as_chunks::<4>();
                let mut digests = [[0; 32]; LANES];
                for (half, out) in halves.iter().zip(digests.as_chunks_mut::<4>().0) {
                    *out = sponge(half, |state| token.permute(state));
                }
                digests
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(token) => sponge(messages, |state| token.permute(state)),
        }
    }
}

/// The same word of `N` states beside each other, for each of the 25 words.
#[cfg(target_arch = "x86_64")]
type States<const N: usize> = [[u64; N]; 25];

/// The sponge of SHA3-256 around a permutation, for messages of one rate block: absorb, permute, absorb the block that
/// is all padding, permute, squeeze.
#[cfg(target_arch = "x86_64")]
fn sponge<const N: usize>(
    messages: &[[u8; MESSAGE_LEN]; N],
    permute: impl Fn(&mut States<N>),
) -> [[u8; 32]; N] {
    let mut state = [[0; N]; 25];
    for (lane, message) in messages.iter().enumerate() {
        for (word, bytes) in state.iter_mut().zip(message.as_chunks::<8>().0) {
            word[lane] = u64::from_le_bytes(*bytes);
        }
    }
    permute(&mut state);
    // Domain bits 01 and the first padding bit open the second block, the last padding bit closes it.
    state[0].iter_mut().for_each(|word| *word ^= 0x06);
    state[MESSAGE_LEN / 8 - 1].iter_mut().for_each(|word| *word ^= 0x80 << 56);
    permute(&mut state);
    std::array::from_fn(|lane| {
        let mut digest = [0; 32];
        for (bytes, word) in digest.as_chunks_mut::<8>().0.iter_mut().zip(&state) {
            *bytes = word[lane].to_le_bytes();
        }
        digest
    })
}

/// Keccak-f[1600] over the lanes of vector registers. The round is written once; each width brings its four
/// operations.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256i, __m512i, _mm256_andnot_si256, _mm256_or_si256, _mm256_set_epi64x, _mm256_set1_epi64x,
        _mm256_setzero_si256, _mm256_slli_epi64, _mm256_srli_epi64, _mm256_storeu_si256, _mm256_xor_si256,
        _mm512_rol_epi64, _mm512_set_epi64, _mm512_set1_epi64, _mm512_setzero_si512, _mm512_storeu_si512,
        _mm512_ternarylogic_epi64, _mm512_xor_si512,
    };

    use super::States;

    /// The constants of the iota step (FIPS 202, section 3.2.5), one per round.
    const ROUND: [u64; 24] = [
        0x0000_0000_0000_0001,
        0x0000_0000_0000_8082,
        0x8000_0000_0000_808a,
        0x8000_0000_8000_8000,
        0x0000_0000_0000_808b,
        0x0000_0000_8000_0001,
        0x8000_0000_8000_8081,
        0x8000_0000_0000_8009,
        0x0000_0000_0000_008a,
        0x0000_0000_0000_0088,
        0x0000_0000_8000_8009,
        0x0000_0000_8000_000a,
        0x0000_0000_8000_808b,
        0x8000_0000_0000_008b,
        0x8000_0000_0000_8089,
        0x8000_0000_0000_8003,
        0x8000_0000_0000_8002,
        0x8000_0000_0000_0080,
        0x0000_0000_0000_800a,
        0x8000_0000_8000_000a,
        0x8000_0000_8000_8081,
        0x8000_0000_0000_8080,
        0x0000_0000_8000_0001,
        0x8000_0000_8000_8008,
    ];

    /// All 24 rounds on `$a`, 25 registers in the order x + 5y. `$xor3` joins three words, `$rotate` turns left
    /// by a literal, `$chi` is a ^ (!b & c).
    ///
    /// The second table below is rho and pi in one: the word that pi brings to place x + 5y, the column whose
    /// theta parity it takes, and its rotation.
    macro_rules! rounds {
        ($a:ident, $broadcast:ident, $xor:ident, $xor3:ident, $rotate:ident, $chi:ident) => {{
            macro_rules! parity {
                ($x:literal) => {
                    $xor3!($xor3!($a[$x], $a[$x + 5], $a[$x + 10]), $a[$x + 15], $a[$x + 20])
                };
            }
            for constant in ROUND {
                let c = [parity!(0), parity!(1), parity!(2), parity!(3), parity!(4)];
                let d = [
                    $rotate!(c[1], 1),
                    $rotate!(c[2], 1),
                    $rotate!(c[3], 1),
                    $rotate!(c[4], 1),
                    $rotate!(c[0], 1),
                ];
                macro_rules! moved {
                    ($from:literal, $x:literal, $by:literal) => {
                        $rotate!($xor3!($a[$from], c[($x + 4) % 5], d[$x]), $by)
                    };
                }
                #[rustfmt::skip]
                let b = [
                    $xor3!($a[0], c[4], d[0]),
                    moved!(6, 1, 44), moved!(12, 2, 43), moved!(18, 3, 21), moved!(24, 4, 14),
                    moved!(3, 3, 28), moved!(9, 4, 20), moved!(10, 0, 3), moved!(16, 1, 45), moved!(22, 2, 61),
                    moved!(1, 1, 1), moved!(7, 2, 6), moved!(13, 3, 25), moved!(19, 4, 8), moved!(20, 0, 18),
                    moved!(4, 4, 27), moved!(5, 0, 36), moved!(11, 1, 10), moved!(17, 2, 15), moved!(23, 3, 56),
                    moved!(2, 2, 62), moved!(8, 3, 55), moved!(14, 4, 39), moved!(15, 0, 41), moved!(21, 1, 2),
                ];
                for row in 0..5 {
                    for x in 0..5 {
                        let at = |x: usize| b[5 * row + x % 5];
                        $a[5 * row + x] = $chi!(at(x), at(x + 1), at(x + 2));
                    }
                }
                $a[0] = $xor!($a[0], $broadcast(constant.cast_signed()));
            }
        }};
    }

    /// Proof that this processor has AVX2: only [`Avx2::detect`] makes one.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Avx2(());

    impl Avx2 {
        /// The proof, if it holds.
        pub fn detect() -> Option<Self> {
            is_x86_feature_detected!("avx2").then_some(Self(()))
        }

        /// Permutes four states.
        pub fn permute(self, states: &mut States<4>) {
            // SAFETY: the token exists, so the processor has AVX2.
            unsafe { permute_avx2(states) }
        }
    }

    #[target_feature(enable = "avx2")]
    fn permute_avx2(states: &mut States<4>) {
        macro_rules! xor {
            ($a:expr, $b:expr) => {
                _mm256_xor_si256($a, $b)
            };
        }
        macro_rules! xor3 {
            ($a:expr, $b:expr, $c:expr) => {
                xor!($a, xor!($b, $c))
            };
        }
        macro_rules! chi {
            ($a:expr, $b:expr, $c:expr) => {
                xor!($a, _mm256_andnot_si256($b, $c))
            };
        }
        macro_rules! rotate {
            ($a:expr, $by:literal) => {{
                let a = $a;
                _mm256_or_si256(_mm256_slli_epi64::<$by>(a), _mm256_srli_epi64::<{ 64 - $by }>(a))
            }};
        }
        let mut a: [__m256i; 25] = [_mm256_setzero_si256(); 25];
        for (register, words) in a.iter_mut().zip(states.iter()) {
            let [w0, w1, w2, w3] = words.map(u64::cast_signed);
            *register = _mm256_set_epi64x(w3, w2, w1, w0);
        }
        rounds!(a, _mm256_set1_epi64x, xor, xor3, rotate, chi);
        for (register, words) in a.iter().zip(states.iter_mut()) {
            // SAFETY: `words` is 32 writable bytes; the store needs no alignment.
            unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), *register) }
        }
    }

    /// Proof that this processor has AVX-512F: only [`Avx512::detect`] makes one.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Avx512(());

    impl Avx512 {
        /// The proof, if it holds.
        pub fn detect() -> Option<Self> {
            is_x86_feature_detected!("avx512f").then_some(Self(()))
        }

        /// Permutes eight states.
        pub fn permute(self, states: &mut States<8>) {
            // SAFETY: the token exists, so the processor has AVX-512F.
            unsafe { permute_avx512(states) }
        }
    }

    /// The truth table of a ^ b ^ c.
    const XOR3: i32 = 0x96;
    /// The truth table of a ^ (!b & c).
    const CHI: i32 = 0xd2;

    #[target_feature(enable = "avx512f")]
    fn permute_avx512(states: &mut States<8>) {
        macro_rules! xor {
            ($a:expr, $b:expr) => {
                _mm512_xor_si512($a, $b)
            };
        }
        macro_rules! xor3 {
            ($a:expr, $b:expr, $c:expr) => {
                _mm512_ternarylogic_epi64::<XOR3>($a, $b, $c)
            };
        }
        macro_rules! chi {
            ($a:expr, $b:expr, $c:expr) => {
                _mm512_ternarylogic_epi64::<CHI>($a, $b, $c)
            };
        }
        macro_rules! rotate {
            ($a:expr, $by:literal) => {
                _mm512_rol_epi64::<$by>($a)
            };
        }
        let mut a: [__m512i; 25] = [_mm512_setzero_si512(); 25];
        for (register, words) in a.iter_mut().zip(states.iter()) {
            let [w0, w1, w2, w3, w4, w5, w6, w7] = words.map(u64::cast_signed);
            *register = _mm512_set_epi64(w7, w6, w5, w4, w3, w2, w1, w0);
        }
        rounds!(a, _mm512_set1_epi64, xor, xor3, rotate, chi);
        for (register, words) in a.iter().zip(states.iter_mut()) {
            // SAFETY: `words` is 64 writable bytes; the store needs no alignment.
            unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), *register) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_engine_equals_the_sha3_crate_in_every_lane(
            messages in proptest::array::uniform8(proptest::collection::vec(any::<u8>(), MESSAGE_LEN)),
        ) {
            let messages = messages.map(|bytes| <[u8; MESSAGE_LEN]>::try_from(bytes.as_slice()).unwrap());
            let expected = messages.map(|message| <[u8; 32]>::from(Sha3_256::digest(message)));
            for engine in Engine::available() {
                prop_assert_eq!(engine.sha3_256(&messages), expected, "{:?}", engine);
            }
        }
    }

    #[test]
    fn lanes_do_not_leak_into_each_other() {
        let zero = [[0; MESSAGE_LEN]; LANES];
        for engine in Engine::available() {
            let base = engine.sha3_256(&zero);
            for lane in 0..LANES {
                let mut messages = zero;
                messages[lane][MESSAGE_LEN - 1] = 1;
                let got = engine.sha3_256(&messages);
                for other in 0..LANES {
                    assert_eq!(
                        got[other] == base[other],
                        other != lane,
                        "{engine:?} lane {lane} against {other}"
                    );
                }
            }
        }
    }
}
