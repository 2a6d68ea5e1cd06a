//! The exponential function and what is made of it.
//!
//! `exp(x) = 2^k * exp(r)` with `k` the nearest integer to `x / ln 2` and `|r| <= ln 2 / 2` (W. J. Cody and W. Waite,
//! "Software Manual for the Elementary Functions", 1980). The functions with a tail that decays keep `2^k` apart until
//! the very end, so that nothing is lost where the exponential itself would be subnormal.

use super::{LN_2, SHIFT, polynomial};
use crate::kernels::lanes::Lanes;

/// Below, `exp` and the product of any function here with it are 0.
const LEAST: f32 = -150.0;
/// Below, a term of a sum counts for nothing beside 1: it is less than `2^-115`.
const NEGLIGIBLE: f32 = -80.0;
/// Below, `e^x` is less than half of the least subnormal number.
const VANISHING: f32 = -103.972_08;
/// Above, `exp` is infinite.
const GREATEST: f32 = 89.0;

/// `(k, r)` with `x = k ln 2 + r`, `|r| <= ln 2 / 2`, for `x` in `LEAST..=GREATEST`.
#[inline(always)]
fn reduce<V: Lanes>(x: V) -> (V, V) {
    let k = x.fma(V::splat(std::f32::consts::LOG2_E), V::splat(SHIFT)).sub(V::splat(SHIFT));
    let r = k.fma(V::splat(-LN_2.0), x);
    (k, k.fma(V::splat(-LN_2.1), r))
}

/// `(exp(r) - 1 - r) / r^2` on `|r| <= ln 2 / 2`, to `2^-26` of `exp(r) - 1`.
#[inline(always)]
fn remainder<V: Lanes>(r: V) -> V {
    polynomial(r, [0.499_999_97, 0.166_665_38, 0.041_667_74, 0.008_367_32, 0.001_383_782_1])
}

/// `x` limited to `low..=high`; NaN for NaN.
#[inline(always)]
fn limit<V: Lanes>(x: V, low: f32, high: f32) -> V {
    V::splat(low).greater(V::splat(high).lesser(x))
}

/// `(m, k)` with `exp(x) = m * 2^k` and `m` in `[0.7, 1.42]`, for `x` in `LEAST..=GREATEST`.
#[inline(always)]
pub(super) fn parts<V: Lanes>(x: V) -> (V, V) {
    let (k, r) = reduce(x);
    (mantissa(r), k)
}

/// `exp(r)` for `|r| <= ln 2 / 2`.
#[inline(always)]
fn mantissa<V: Lanes>(r: V) -> V {
    remainder(r).fma(r, V::splat(1.0)).fma(r, V::splat(1.0))
}

/// `exp(high + low)` with one rounding more than [`exp`], for a `low` much smaller than 1.
#[inline(always)]
pub(super) fn exp_of_sum<V: Lanes>(high: V, low: V) -> V {
    let (k, r) = reduce(limit(high, LEAST, GREATEST));
    mantissa(r.add(low)).scale(k)
}

/// `e^x`, within 2 ulp.
#[inline(always)]
pub(crate) fn exp<V: Lanes>(x: V) -> V {
    let (m, k) = parts(limit(x, LEAST, GREATEST));
    m.scale(k)
}

/// `e^x` for a term of a sum with a term of 1, never subnormal: `e^NEGLIGIBLE` for what is below it, but 0 where [`exp`] is.
/// `x` is at most 88.
/// The sum does not notice, and CPUs take a hundred times as long over subnormal numbers, the quotients by the sum included.
#[inline(always)]
pub(crate) fn exp_of_term<V: Lanes>(x: V) -> V {
    let (m, k) = parts(V::splat(NEGLIGIBLE).greater(x));
    V::select(x.is_less(V::splat(VANISHING)), V::splat(0.0), m.scale_normal(k))
}

/// `e^x - 1`, within 2 ulp.
#[inline(always)]
pub(crate) fn expm1<V: Lanes>(x: V) -> V {
    // Below -18 the result rounds to -1.
    let (k, r) = reduce(limit(x, -18.0, GREATEST));
    let fraction = remainder(r).fma(r.mul(r), r);
    // 2^k (fraction + 1 - 2^-k): unlike 2^k itself, 2^-k does not overflow.
    let one = V::splat(1.0);
    fraction.add(one.sub(one.scale(k.neg()))).scale(k).or(x.sign())
}

/// `x < 0 ? slope * (e^x - 1) : x`, within 3 ulp.
#[inline(always)]
pub(crate) fn elu<V: Lanes>(x: V, slope: V) -> V {
    x.unless_negative(slope.mul(expm1(x)))
}

/// `(m, k, e)` with `e = m * 2^k = exp(-|x|)`, for `|x|` up to `-LEAST`.
#[inline(always)]
fn decay<V: Lanes>(x: V) -> (V, V, V) {
    let (m, k) = parts(V::splat(LEAST).greater(x.abs().neg()));
    (m, k, m.scale(k))
}

/// `1 / (1 + e^-x)`, within 2 ulp.
#[inline(always)]
pub(crate) fn sigmoid<V: Lanes>(x: V) -> V {
    let one = V::splat(1.0);
    let (_, _, e) = decay(x);
    // With w = e / (1 + e) it is 1 - w, and e - e w where x is negative: that is as precise as e, to the last subnormal,
    // while w itself bears the errors of a sum and a quotient besides.
    let base = V::select(x.is_less(V::splat(0.0)), e, one);
    base.neg().fma(e.div(one.add(e)), base)
}

/// The hyperbolic tangent, within 2 ulp.
#[inline(always)]
pub(crate) fn tanh<V: Lanes>(x: V) -> V {
    let (one, two, a) = (V::splat(1.0), V::splat(2.0), x.abs());
    // (tanh(a) - a) / a^3 in a^2 on [0, 0.625], to 2^-27.7 of tanh(a).
    let square = a.mul(a);
    let series = polynomial(square, [-0.333_332_8, 0.133_314_06, -0.053_736_515, 0.020_628_167, -0.005_692_296_7]);
    let small = series.mul(square).fma(a, a);
    // From 9.02 on the result rounds to 1.
    let (m, k) = parts(V::splat(20.0).lesser(a.add(a)));
    let large = one.sub(two.div(m.scale_normal(k).add(one)));
    V::select(a.is_less(V::splat(0.625)), small, large).or(x.sign())
}

/// `x / (1 + e^-x)`, within 3 ulp.
#[inline(always)]
pub(crate) fn silu<V: Lanes>(x: V) -> V {
    // max(x, 0) - |x| e / (1 + e), which is the product where x is negative and subtracts less than half elsewhere.
    let a = V::splat(-LEAST).lesser(x.abs());
    let (m, k) = parts(a.neg());
    let tail = a.mul(m).div(V::splat(1.0).add(m.scale_term(k))).scale(k);
    x.greater(V::splat(0.0)).sub(tail).or(x.sign())
}

/// `0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))`, within `4 + 6 |z|` ulp, where `z` is the argument of `tanh`: it
/// grows in the negative tail, where the formula itself is far from the Gaussian it stands for.
#[inline(always)]
pub(crate) fn gelu_tanh<V: Lanes>(x: V) -> V {
    // x * sigmoid(2 z), written as for `silu`. At 11 the tail is below the least subnormal.
    let a = V::splat(11.0).lesser(x.abs());
    let doubled = a.mul(a).fma(V::splat(0.071_354_82), V::splat(1.595_769_2)).mul(a);
    let (m, k) = parts(doubled.neg());
    let tail = a.mul(m).div(V::splat(1.0).add(m.scale_term(k))).scale(k);
    x.greater(V::splat(0.0)).sub(tail).or(x.sign())
}

/// `ln(1 + e^x)`, within 3 ulp.
#[inline(always)]
pub(crate) fn softplus<V: Lanes>(x: V) -> V {
    let (_, _, e) = decay(x);
    // (ln(1 + e) - e) / e^2 on [0, 1], to 2^-27.5 of ln(1 + e).
    let series = polynomial(
        e,
        [
            -0.499_999_3,
            0.333_304_64,
            -0.249_580_19,
            0.196_921_02,
            -0.153_448_8,
            0.106_611_28,
            -0.057_457_23,
            0.020_086_242,
            -0.003_290_468_6,
        ],
    );
    x.greater(V::splat(0.0)).add(series.mul(e).fma(e, e))
}

/// `x tanh(ln(1 + e^x))`, within 4 ulp.
#[inline(always)]
pub(crate) fn mish<V: Lanes>(x: V) -> V {
    let (zero, one, two) = (V::splat(0.0), V::splat(1.0), V::splat(2.0));
    // With e = exp(-|x|): x e (e + 2) / (e (e + 2) + 2) below 0, x (1 + 2 e) / (1 + 2 e + 2 e^2) above.
    let (m, k, e) = decay(x);
    let negative = x.is_less(zero);
    let bounded = V::splat(LEAST).greater(x);
    let sum = e.add(two);
    let numerator = V::select(negative, bounded.mul(m).mul(sum), e.fma(two, one).mul(x));
    let denominator = V::select(negative, e.fma(sum, two), e.add(e).fma(e.add(one), one));
    numerator.div(denominator).scale(V::select(negative, k, zero))
}
