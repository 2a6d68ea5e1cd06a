//! Sine and cosine: `x = k pi / 2 + r` with `|r| <= pi / 4`, then the polynomial that the quadrant names.
//!
//! `r` comes from three fused multiply-adds (Cody and Waite), and for arguments beyond [`FAR`], where these no longer
//! do, from an exact product with enough bits of `2 / pi` (M. H. Payne and R. N. Hanek, "Radian reduction for
//! trigonometric functions", SIGNUM Newsletter 18(1), 1983), lane by lane: no network has such arguments by design.

use super::{SHIFT, polynomial};
use crate::kernels::lanes::{Lanes, WIDTH};

/// From here on arguments are reduced exactly.
const FAR: f32 = 65_536.0;

/// The sine, within 2 ulp; NaN at infinities.
#[inline(always)]
pub(crate) fn sin<V: Lanes>(x: V) -> V {
    let (quadrant, r) = reduce(x);
    // The sign of a zero gets lost on the way.
    V::select(x.is_equal(V::splat(0.0)), x, in_quadrant(quadrant, r))
}

/// The cosine, within 2 ulp; NaN at infinities.
#[inline(always)]
pub(crate) fn cos<V: Lanes>(x: V) -> V {
    let (quadrant, r) = reduce(x);
    in_quadrant(quadrant.add(V::splat(1.0)), r)
}

/// `(q, r)` with `x = k pi / 2 + r`; the last two bits of `q`, which is `SHIFT + k` or `SHIFT + k mod 4`, are `k mod 4`.
#[inline(always)]
fn reduce<V: Lanes>(x: V) -> (V, V) {
    let shifted = x.fma(V::splat(std::f32::consts::FRAC_2_PI), V::splat(SHIFT));
    let k = shifted.sub(V::splat(SHIFT));
    // pi / 2 in three parts.
    let r = k.fma(V::splat(-std::f32::consts::FRAC_PI_2), x);
    let r = k.fma(V::splat(4.371_139e-8), r);
    let r = k.fma(V::splat(1.715_124_5e-15), r);
    if !V::any(V::splat(FAR).is_less(x.abs())) {
        return (shifted, r);
    }
    let (mut arguments, mut quadrants, mut rests) = ([0.0; WIDTH], [0.0; WIDTH], [0.0; WIDTH]);
    // SAFETY: the arrays have 16 elements.
    unsafe {
        x.store(arguments.as_mut_ptr());
        shifted.store(quadrants.as_mut_ptr());
        r.store(rests.as_mut_ptr());
        reduce_far(&arguments, &mut quadrants, &mut rests);
        (V::load(quadrants.as_ptr()), V::load(rests.as_ptr()))
    }
}

/// Replaces quadrant and rest of the lanes whose arguments are beyond [`FAR`].
#[cold]
#[inline(never)]
fn reduce_far(arguments: &[f32; WIDTH], quadrants: &mut [f32; WIDTH], rests: &mut [f32; WIDTH]) {
    for ((&x, quadrant), rest) in arguments.iter().zip(quadrants).zip(rests) {
        if x.is_finite() && x.abs() > FAR {
            (*quadrant, *rest) = reduce_exactly(x);
        }
    }
}

/// [`reduce`] for one finite argument of at least [`FAR`].
fn reduce_exactly(x: f32) -> (f32, f32) {
    /// The bits of 2 / pi, after 64 zeros.
    const TWO_OVER_PI: [u64; 5] =
        [0, 0xa2f9_836e_4e44_1529, 0xfc27_57d1_f534_ddc0, 0xdb62_9599_3c43_9041, 0xfe51_63ab_debb_c561];
    let bits = x.abs().to_bits();
    let mantissa = u128::from(bits & 0x007f_ffff | 0x0080_0000);
    // |x| = mantissa * 2^(position - 62); of 2^(position - 62) * 2 / pi only the bits below 4 matter, and 128 of them
    // are plenty: they leave an error of 2^-102 beside an r of at least 2^-40.
    let position = (bits >> 23) as usize + 62 - 150;
    let word = position / 64;
    let window = [TWO_OVER_PI[word], TWO_OVER_PI[word + 1], TWO_OVER_PI[word + 2]].map(u128::from);
    let shift = position % 64;
    let factor = ((window[0] << 64 | window[1]) << shift) | (window[2] << shift >> 64);
    // A fixed-point number with 126 bits after the point, modulo 4.
    let product = factor.wrapping_mul(mantissa);
    let quadrant = product.wrapping_add(1 << 125) >> 126;
    let fraction = product.wrapping_sub(quadrant << 126) as i128;
    let unit = std::f64::consts::FRAC_PI_2 / (1u128 << 126) as f64;
    let rest = (fraction as f64 * unit) as f32;
    if x < 0.0 { (SHIFT + (4 - quadrant) as f32, -rest) } else { (SHIFT + quadrant as f32, rest) }
}

/// The sine of `k pi / 2 + r`, where `k mod 4` is in the last bits of `quadrant`.
#[inline(always)]
fn in_quadrant<V: Lanes>(quadrant: V, r: V) -> V {
    let square = r.mul(r);
    // (sin(r) - r) / r^3, to 2^-27.8 of sin(r).
    let sine = polynomial(square, [-0.166_666_54, 0.008_332_106, -0.000_195_078_83]);
    let sine = sine.mul(square).fma(r, r);
    // (cos(r) - 1 + r^2 / 2) / r^4, to 2^-32.7.
    let cosine = polynomial(square, [0.041_666_646, -0.001_388_729_8, 2.443_008_5e-5]);
    let cosine = cosine.fma(square, V::splat(-0.5)).fma(square, V::splat(1.0));
    let odd = quadrant.shift_left::<31>().has_sign();
    V::select(odd, cosine, sine).xor(quadrant.shift_left::<30>().sign())
}
