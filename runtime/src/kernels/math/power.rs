//! Powers: `exp(b ln a)` with the logarithm as an unevaluated sum of two f32, whose error the exponential does not see.

use super::exponential::exp_of_sum;
use super::polynomial;
use crate::kernels::lanes::Lanes;

/// `a^b`, within 2 ulp, with the special cases of IEEE 754 `pow`: 1 for `b = 0` and for `a = 1`, also beside a NaN;
/// NaN for a negative finite `a` and a `b` that is no integer; infinities and zeros as the limits say.
#[inline(always)]
pub(crate) fn pow<V: Lanes>(a: V, b: V) -> V {
    let (zero, one, infinity) = (V::splat(0.0), V::splat(1.0), V::splat(f32::INFINITY));
    let size = a.abs();
    let (high, low) = logarithm(size);
    let product = b.mul(high);
    let error = b.fma(high, product.neg()).add(b.mul(low));
    // Beyond this exp is 0 or infinite anyway, and the error may have overflowed.
    let error = V::select(product.abs().is_less(V::splat(200.0)), error, zero);
    let value = exp_of_sum(product, error);

    let (up, down) = (V::select(b.is_less(zero), infinity, zero), V::select(b.is_less(zero), zero, infinity));
    let value = V::select(size.is_equal(zero), up, value);
    let value = V::select(size.is_equal(infinity), down, value);
    let value = V::select(size.is_equal(one), one, value);
    let (integer, odd) = parity(b);
    let signed = value.or(a.sign());
    let value = V::select(V::both(a.has_sign(), odd), signed, value);
    let finite_negative = V::both(a.is_less(zero), size.is_less(infinity));
    let value = V::select(finite_negative, V::select(integer, value, V::splat(f32::NAN)), value);
    let value = V::select(V::either(a.is_nan(), b.is_nan()), a.add(b), value);
    V::select(V::either(a.is_equal(one), b.is_equal(zero)), one, value)
}

/// Where `b` is an integer, and where it is an odd one. Infinities count as even.
#[inline(always)]
fn parity<V: Lanes>(b: V) -> (V::Mask, V::Mask) {
    // From 2^23 on every f32 is an integer, from 2^24 on an even one; adding 2^23 rounds what is smaller.
    let whole = V::splat(8_388_608.0);
    let size = b.abs();
    let small = size.is_less(whole);
    let shifted = size.add(whole);
    let rounded = V::select(small, shifted.sub(whole), size);
    let integer = rounded.is_equal(size);
    let low_bit = V::select(small, shifted, size).shift_left::<31>().has_sign();
    let odd = V::both(V::both(integer, low_bit), size.is_less(V::splat(16_777_216.0)));
    (integer, odd)
}

/// `(high, low)` with `ln x = high + low` to about `2^-34` of it, for a positive finite `x`.
#[inline(always)]
fn logarithm<V: Lanes>(x: V) -> (V, V) {
    let one = V::splat(1.0);
    let (mantissa, exponent) = x.split();
    // s = (m - 1) / (m + 1), so that ln m = 2 artanh s; numerator exact, denominator and quotient in two parts.
    let numerator = mantissa.sub(one);
    let sum = mantissa.add(one);
    let sum_low = mantissa.sub(sum.sub(one));
    let inverse = one.div(sum);
    let s = numerator.mul(inverse);
    let rest = s.neg().fma(sum_low, s.neg().fma(sum, numerator));
    let s_low = rest.mul(inverse);
    let square = s.mul(s);
    let square_low = s.add(s).fma(s_low, s.fma(s, square.neg()));
    // artanh(s) = s + s z (1/3 + z W(z)) with z = s^2, W on [0, 0.0401], to 2^-41 of artanh(s) / s.
    let third = (V::splat(0.333_333_34), V::splat(-9.934_108e-9));
    let series = polynomial(square, [0.199_999_97, 0.142_862_33, 0.110_777_65, 0.099_604_234]).mul(square);
    let factor = third.0.add(series);
    let factor_low = third.0.sub(factor).add(series).add(third.1);
    let growth = square.mul(factor);
    let growth_low = square.fma(factor, growth.neg()).add(square.fma(factor_low, square_low.mul(factor)));
    let cubic = s.mul(growth);
    let cubic_low = s.fma(growth, cubic.neg()).add(s.fma(growth_low, s_low.mul(growth)));
    let half = s.add(cubic);
    let half_low = s.sub(half).add(cubic).add(cubic_low.add(s_low));
    // e ln 2, the first part of ln 2 short enough for an exact product.
    let whole = exponent.mul(V::splat(0.693_145_75));
    let whole_low = exponent.mul(V::splat(1.428_606_8e-6));
    let logarithm = half.add(half);
    let high = whole.add(logarithm);
    let low = whole.sub(high).add(logarithm).add(half_low.add(half_low).add(whole_low));
    (high, low)
}
