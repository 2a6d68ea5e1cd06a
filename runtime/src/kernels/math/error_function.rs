//! The error function and the Gaussian error linear unit.

use super::exponential::parts;
use super::polynomial;
use crate::kernels::lanes::Lanes;

/// `2 / sqrt(pi)` times the integral of `e^(-t^2)` from 0 to `x`, within 2 ulp.
#[inline(always)]
pub(crate) fn erf<V: Lanes>(x: V) -> V {
    let (one, a) = (V::splat(1.0), x.abs());
    // erf(a) / a - 2 / sqrt(pi) in a^2 on [0, 1], to 2^-29.3 of erf(a) / a; the constant in two parts.
    let square = a.mul(a);
    let series = polynomial(
        square,
        [-5.863_538_3e-8, -0.376_126_3, 0.112_836_03, -0.026_854_202, 0.005_188_598_3, -0.000_800_939_86, 7.842_549e-5],
    );
    let small = a.fma(V::splat(std::f32::consts::FRAC_2_SQRT_PI), a.mul(series));
    // erf(a) in a - 2.25 on [1, 3.95], to 2^-25.4.
    let large = polynomial(
        a.sub(V::splat(2.25)),
        [
            0.998_537_3,
            0.007_142_285_4,
            -0.016_071_104,
            0.021_725_133,
            -0.019_076_502,
            0.010_654_481,
            -0.002_924_507_5,
            -0.000_662_195_44,
            0.001_027_953_9,
            -0.000_380_638_2,
            -3.277_823e-5,
            7.356_246e-5,
            -1.403_157_5e-5,
            -4.850_807_3e-6,
            1.575_066_4e-6,
        ],
    );
    // From 3.92 on the result rounds to 1.
    let large = V::select(V::splat(3.92).is_less(a), one, large);
    V::select(a.is_less(one), small, large).or(x.sign())
}

/// `x` times the standard normal distribution function of `x` (`0.5 x (1 + erf(x / sqrt 2))`), within 6 ulp, the negative
/// tail included: sums with `erf` lose all digits there.
#[inline(always)]
pub(crate) fn gelu<V: Lanes>(x: V) -> V {
    // max(x, 0) - a Q(a) with a = |x| and Q the upper tail. At 14.5 it is below the least subnormal.
    let one = V::splat(1.0);
    let a = V::splat(14.5).lesser(x.abs());
    // Q(a) = exp(-a^2 / 2) R(a), the square with its rounding error: exp would multiply that by a^2.
    let square = a.mul(a);
    let error = a.fma(a, square.neg());
    let (m, k) = parts(square.mul(V::splat(-0.5)));
    let m = m.fma(error.mul(V::splat(-0.5)), m);
    // R(a) / t in t = 1 / (1 + 0.3 a) for a on [0, 14.5], to 2^-27.2.
    let t = one.div(a.fma(V::splat(0.3), one));
    let series = polynomial(
        t,
        [
            0.119_686_69,
            0.119_571_75,
            0.110_235_93,
            0.078_387_32,
            0.096_163_45,
            -0.079_435_53,
            0.191_798_6,
            -0.228_223_83,
            0.112_439_83,
            -0.020_624_22,
        ],
    );
    let tail = a.mul(t).mul(series).mul(m).scale(k);
    x.greater(V::splat(0.0)).sub(tail).or(x.sign())
}
