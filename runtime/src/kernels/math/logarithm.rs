//! The natural logarithm: `ln(m 2^e) = e ln 2 + ln(1 + f)` with `f = m - 1` in `[-0.25, 0.5)`.

use super::{LN_2, polynomial};
use crate::kernels::lanes::Lanes;

/// `exponent * ln 2 + ln(1 + f)`.
#[inline(always)]
fn combine<V: Lanes>(f: V, exponent: V) -> V {
    // (ln(1 + f) - f) / f^2, to 2^-27.1 of ln(1 + f).
    let series = polynomial(
        f,
        [
            -0.5,
            0.333_334_62,
            -0.250_001_94,
            0.199_903_95,
            -0.166_427_39,
            0.144_753_58,
            -0.132_056_71,
            0.105_816_36,
            -0.045_962_796,
        ],
    );
    let low = exponent.fma(V::splat(LN_2.1), series.mul(f.mul(f)));
    exponent.fma(V::splat(LN_2.0), f.add(low))
}

/// `value` where the `argument` of the logarithm is positive and finite, else the limit.
#[inline(always)]
fn with_limits<V: Lanes>(value: V, argument: V, infinite: V) -> V {
    let (zero, infinity) = (V::splat(0.0), V::splat(f32::INFINITY));
    let regular = V::both(zero.is_less(argument), argument.is_less(infinity));
    let limit = V::select(argument.is_equal(zero), infinity.neg(), infinite);
    let limit = V::select(argument.is_less(zero), V::splat(f32::NAN), limit);
    V::select(regular, value, limit)
}

/// The natural logarithm, within 2 ulp; -inf at either zero, NaN below.
#[inline(always)]
pub(crate) fn log<V: Lanes>(x: V) -> V {
    let (mantissa, exponent) = x.split();
    with_limits(combine(mantissa.sub(V::splat(1.0)), exponent), x, x)
}

/// `ln(1 + x)`, within 2 ulp; -inf at -1, NaN below.
#[inline(always)]
pub(crate) fn log1p<V: Lanes>(x: V) -> V {
    let one = V::splat(1.0);
    // The rounded sum only chooses the exponent; f = (1 + x) 2^-e - 1 is made from x itself.
    let sum = one.add(x);
    let (_, exponent) = sum.split();
    let down = exponent.neg();
    let f = x.scale(down).add(one.scale(down).sub(one));
    with_limits(combine(f, exponent).or(x.sign()), sum, x)
}
