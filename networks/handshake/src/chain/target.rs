//! Compact targets and the work they stand for.
//!
//! A compact target is an exponent byte and a 24-bit mantissa: target = mantissa * 256^(exponent - 3). Several
//! compact forms give one target, but the rules compare the compact form itself, so a form that is not canonical never
//! passes. An exponent that would push the mantissa beyond 256 bits is no target; it never wraps.

use rookery_base::Work;

/// The sign bit of the mantissa. Targets are not negative.
const SIGN: u32 = 0x0080_0000;
/// The mantissa without its sign.
const MANTISSA: u32 = 0x007f_ffff;
/// Bytes of a mantissa.
const MANTISSA_BYTES: u32 = 3;

/// The target that `bits` stand for; `None` if negative, zero or above 256 bits.
pub fn expand(bits: u32) -> Option<Work> {
    let (exponent, mantissa) = (bits >> 24, bits & MANTISSA);
    if bits & SIGN != 0 {
        return None;
    }
    if exponent <= MANTISSA_BYTES {
        let target = mantissa >> (8 * (MANTISSA_BYTES - exponent));
        return (target != 0).then(|| Work::from(target));
    }
    let shift = 8 * (exponent - MANTISSA_BYTES);
    let width = u32::BITS - mantissa.leading_zeros();
    (mantissa != 0 && width + shift <= 256).then(|| Work::from(mantissa) << shift)
}

/// The canonical compact form of a target, rounded down.
pub fn compact(target: &Work) -> u32 {
    let len = u32::try_from(target.byte_len()).expect("a target has at most 32 bytes");
    let (exponent, mantissa) = if len <= MANTISSA_BYTES {
        (len, target.as_limbs()[0] << (8 * (MANTISSA_BYTES - len)))
    } else {
        (len, (*target >> (8 * (len - MANTISSA_BYTES))).as_limbs()[0])
    };
    let mantissa = u32::try_from(mantissa).expect("shifted to three bytes");
    if mantissa & SIGN == 0 {
        exponent << 24 | mantissa
    } else {
        // The top bit would read as the sign: one byte less of precision.
        (exponent + 1) << 24 | mantissa >> 8
    }
}

/// The work that a header with these bits stands for: floor(2^256 / (target + 1)); zero for what is no target.
pub fn proof(bits: u32) -> Work {
    // 2^256 does not fit, but 2^256 = (!t) + (t + 1), so the quotient is that of !t, and one.
    expand(bits).map_or(Work::ZERO, |target| !target / (target + Work::ONE) + Work::ONE)
}

/// The target of which `work` is the work of one block: floor(2^256 / work) - 1. `None` for no work at all.
pub fn of_work(work: Work) -> Option<Work> {
    // As above: 2^256 - work is work's two's complement, and its quotient is one less.
    (!work.is_zero()).then(|| work.wrapping_neg() / work)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use ruint::Uint;

    type Wide = Uint<320, 5>;

    /// 2^256, which needs more than 256 bits.
    fn two_to_256() -> Wide {
        Wide::ONE << 256
    }

    /// Byte by byte, as the definition reads.
    fn naive_expand(bits: u32) -> Option<Work> {
        if bits & SIGN != 0 {
            return None;
        }
        let mut target = Uint::<2304, 36>::from(bits & MANTISSA);
        let exponent = bits >> 24;
        for _ in exponent..3 {
            target /= Uint::from(256);
        }
        for _ in 3..exponent {
            target *= Uint::from(256);
        }
        (!target.is_zero() && target.bit_len() <= 256).then(|| Work::from(target))
    }

    #[test]
    fn known_forms() {
        assert_eq!(expand(0x207f_ffff), Some(Work::from(0x7f_ffffu32) << 232));
        assert_eq!(expand(0x0100_3456), None, "shifted to nothing");
        assert_eq!(expand(0x0112_3456), Some(Work::from(0x12)));
        assert_eq!(expand(0x0200_8000), Some(Work::from(0x80)));
        assert_eq!(expand(0x0492_3456), None, "sign bit");
        assert_eq!(expand(0x0080_0000), None);
        assert_eq!(expand(0x2000_0000), None, "zero");
        assert_eq!(expand(0x2100_ffff), Some(Work::from(0xffff) << 240));
        assert_eq!(expand(0x2101_0000), None, "257 bits");
        assert_eq!(expand(0x2200_00ff), Some(Work::from(0xff) << 248));
        assert_eq!(expand(0x2300_0001), None, "an exponent of 35 must not wrap");
        assert_eq!(expand(0xff00_0001), None);
        assert_eq!(compact(&Work::ZERO), 0);
        assert_eq!(compact(&Work::from(0x80)), 0x0200_8000);
        assert_eq!(compact(&Work::MAX), 0x2100_ffff);
        assert_eq!(proof(0x207f_ffff), Work::from(2));
        assert_eq!(proof(0), Work::ZERO);
        assert_eq!(of_work(Work::ZERO), None);
        assert_eq!(of_work(Work::ONE), Some(Work::MAX));
    }

    proptest! {
        #[test]
        fn expand_equals_the_definition(exponent in 0u32..=0x28, mantissa in 0u32..=0xff_ffff) {
            let bits = exponent << 24 | mantissa;
            prop_assert_eq!(expand(bits), naive_expand(bits));
        }

        #[test]
        fn any_bits_expand_as_defined(bits: u32) {
            prop_assert_eq!(expand(bits), naive_expand(bits));
        }

        #[test]
        fn compact_rounds_down_and_is_stable(limbs: [u64; 4], shift in 0usize..256) {
            let target = Work::from_limbs(limbs) >> shift;
            let bits = compact(&target);
            if target.is_zero() {
                prop_assert_eq!(bits, 0);
            } else {
                let back = expand(bits).expect("compact gives valid forms");
                prop_assert!(back <= target);
                prop_assert!(target - back < (target >> 15usize) + Work::ONE, "lost more than the mantissa allows");
                prop_assert_eq!(compact(&back), bits);
            }
        }

        #[test]
        fn proof_equals_the_wide_division(exponent in 1u32..=0x22, mantissa in 1u32..=MANTISSA) {
            let bits = exponent << 24 | mantissa;
            let expected = expand(bits).map_or(Wide::ZERO, |t| two_to_256() / (Wide::from(t) + Wide::ONE));
            prop_assert_eq!(Wide::from(proof(bits)), expected);
        }

        #[test]
        fn target_of_work_equals_the_wide_division(limbs: [u64; 4], shift in 0usize..256) {
            let work = Work::from_limbs(limbs) >> shift;
            let expected = (!work.is_zero()).then(|| two_to_256() / Wide::from(work) - Wide::ONE);
            prop_assert_eq!(of_work(work).map(Wide::from), expected);
        }
    }
}
