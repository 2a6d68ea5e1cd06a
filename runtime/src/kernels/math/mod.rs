//! Transcendental functions of 16 lanes: our own polynomials, the same bits on every CPU and in every lane.
//!
//! `exp`, `expm1`, `log`, `log1p`, `tanh`, `erf`, `sigmoid`, `sin` and `cos` are within 2 units in the last place of the
//! real function over the whole range of f32, subnormal results included; each of the others says what it keeps to. All
//! give NaN for NaN, take infinities to the limit, and keep the sign of zero where the function has one.
//!
//! Polynomials are Remez approximations of the weighted error that the comment at their coefficients states, with the
//! coefficients rounded to f32 one after the other and the rest fitted anew.

mod error_function;
mod exponential;
mod linear;
mod logarithm;
mod power;
mod trigonometric;

pub(crate) use error_function::{erf, gelu};
pub(crate) use exponential::{elu, exp, exp_of_term, expm1, gelu_tanh, mish, sigmoid, silu, softplus, tanh};
pub(crate) use linear::{Bounds, clip, hard_sigmoid, hard_swish, leaky_relu, relu, scale_shift};
pub(crate) use logarithm::{log, log1p};
pub(crate) use power::pow;
pub(crate) use trigonometric::{cos, sin};

use super::lanes::Lanes;

/// `1.5 * 2^23`: added to a number below `2^22` it rounds it to an integer, which it leaves in the low bits.
const SHIFT: f32 = 12_582_912.0;
/// ln 2, rounded, and what is left of it.
const LN_2: (f32, f32) = (std::f32::consts::LN_2, -1.904_654_2e-9);

/// The polynomial with the given coefficients, lowest first, by Horner's rule.
#[inline(always)]
fn polynomial<V: Lanes, const TERMS: usize>(x: V, coefficients: [f32; TERMS]) -> V {
    let mut sum = V::splat(coefficients[TERMS - 1]);
    for coefficient in coefficients.into_iter().rev().skip(1) {
        sum = sum.fma(x, V::splat(coefficient));
    }
    sum
}

#[cfg(test)]
mod tests;
