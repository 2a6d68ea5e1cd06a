//! Fused multiply-add where there may be no hardware for it.
//!
//! The summation rule of this project is a chain of fused multiply-adds, and every CPU must give the same bits. On a
//! target without the instruction `f32::mul_add` is a library call per lane. For f32 there is a better way: the product
//! is exact in f64, so one f64 addition rounded *to odd* and a conversion round correctly (S. Boldo and G. Melquiond,
//! "Emulation of FMA and correctly rounded sums: proved algorithms using rounding to odd", IEEE Trans. Computers 57(4),
//! 2008). It has no branch, so loops over it vectorise.

use super::lanes::{self, Lanes, WIDTH};
use super::level::{at_highest_level, per_level};

/// `a * b + c` with one rounding.
#[inline(always)]
pub fn fma(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(any(target_feature = "fma", target_arch = "aarch64")) {
        return a.mul_add(b, c);
    }
    let (product, addend) = (f64::from(a) * f64::from(b), f64::from(c));
    let sum = product + addend;
    // Knuth's TwoSum: `error` is what the addition rounded off; NaN when the sum is not finite.
    let part = sum - product;
    let error = (product - (sum - part)) + (addend - part);
    // To odd: an inexact sum with an even last bit moves one step towards the exact value.
    let bits = sum.to_bits();
    let inexact = (error > 0.0) | (error < 0.0);
    let even = bits & 1 == 0;
    let outwards = (error > 0.0) == (sum > 0.0);
    let step = if outwards { 1u64 } else { u64::MAX };
    let odd = bits.wrapping_add(if inexact & even { step } else { 0 });
    f64::from_bits(odd) as f32
}

/// Adds the products of a number and those of `b` to `values`, position by position, each with one rounding. The same bits on
/// every CPU.
pub fn add_products(a: f32, b: &[f32], values: &mut [f32]) {
    let count = b.len().min(values.len()) as u64;
    // SAFETY: the CPU is of the level, and so many numbers can be read and written.
    unsafe { at_highest_level!(add(a, b.as_ptr(), values.as_mut_ptr(), count)) }
}

per_level! {
    /// `(a, b, values, count)`: adds the products of `a` and `count` numbers of `b` to `values`.
    ///
    /// # Safety
    /// The numbers can be read and written; they do not overlap.
    pub(crate) mod add = add_all::<lanes>(a: f32, b: *const f32, values: *mut f32, count: u64);
}

/// # Safety
/// As for [`add`].
#[inline(always)]
unsafe fn add_all<V: Lanes>(a: f32, b: *const f32, values: *mut f32, count: u64) {
    let a = V::splat(a);
    for first in (0..count as usize).step_by(WIDTH) {
        let mask = V::mask((count as usize - first).min(WIDTH));
        // SAFETY: the mask keeps to the numbers there are.
        unsafe {
            let (b, place) = (V::load_masked(b.add(first), mask), values.add(first));
            a.fma(b, V::load_masked(place, mask)).store_masked(place, mask);
        }
    }
}

/// [`fma`] as a function of the platform's C ABI, for generated code on CPUs that have no such instruction.
pub extern "C" fn fma_f32(a: f32, b: f32, c: f32) -> f32 {
    fma(a, b, c)
}

/// `a * b + c` with one rounding in f64, as a function of the platform's C ABI.
pub extern "C" fn fma_f64(a: f64, b: f64, c: f64) -> f64 {
    a.mul_add(b, c)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(a: f32, b: f32, c: f32) {
        let (found, expected) = (fma(a, b, c), a.mul_add(b, c));
        assert!(
            found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan()),
            "fma({a:e}, {b:e}, {c:e}): {found:e}, not {expected:e}"
        );
    }

    #[test]
    fn products_are_added_one_by_one() {
        for count in [0, 1, 15, 16, 17, 100] {
            let b: Vec<f32> = (0..count).map(|place| 1. / (place as f32 + 3.)).collect();
            let mut values: Vec<f32> = (0..count).map(|place| place as f32 - 8.1).collect();
            let expected: Vec<f32> = b.iter().zip(&values).map(|(b, value)| 0.7f32.mul_add(*b, *value)).collect();
            add_products(0.7, &b, &mut values);
            assert_eq!(values, expected);
        }
    }

    #[test]
    fn special_values() {
        let values = [
            0.0,
            -0.0,
            1.0,
            -1.0,
            f32::MIN_POSITIVE,
            -f32::MIN_POSITIVE,
            f32::from_bits(1),
            -f32::from_bits(1),
            f32::MAX,
            f32::MIN,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::NAN,
            1.0 + f32::EPSILON,
            1.0 - f32::EPSILON / 2.0,
            f32::from_bits(0x007f_ffff),
            1.5e-23,
            3.0e19,
        ];
        for a in values {
            for b in values {
                for c in values {
                    check(a, b, c);
                }
            }
        }
    }

    /// Sums whose exact value lies next to a halfway point between two f32: where rounding twice goes wrong.
    #[test]
    fn next_to_ties() {
        for shift in 25..70 {
            let small = f32::from_bits((127 - shift) << 23);
            for c in [1.0 + f32::EPSILON, 1.0, -1.0, 1.0 + 2.0 * f32::EPSILON] {
                for a in [1.0f32, -1.0] {
                    // The product is half a unit in the last place of 1 plus or minus a little.
                    let half = f32::EPSILON / 2.0;
                    check(a * half, 1.0 + small.max(f32::EPSILON), c);
                    check(a * half, 1.0 - small.max(f32::EPSILON), c);
                    check(a * small, half, c);
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]
        #[test]
        fn any_bits(a: u32, b: u32, c: u32) {
            check(f32::from_bits(a), f32::from_bits(b), f32::from_bits(c));
        }

        /// Exponents close enough for product and addend to overlap.
        #[test]
        fn overlapping(a in -2.0f32..2.0, b in -2.0f32..2.0, c in -2.0f32..2.0, shift in -60i32..20) {
            check(a, b, c * 2f32.powi(shift));
            check(a * 2f32.powi(-75), b * 2f32.powi(-70), c * 2f32.powi(shift - 90));
        }
    }
}
