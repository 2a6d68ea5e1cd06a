//! The functions of scalar expressions on floats, in f64 and in f32.

use super::scalar::{maximum, minimum};
use crate::scalar::{Binary, Unary};
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_PI};

/// A function in f64.
pub(super) fn double(function: Unary, x: f64) -> f64 {
    use Unary::*;
    match function {
        Negate => -x,
        Absolute => x.abs(),
        Sign if x.is_nan() || x == 0. => x,
        Sign => 1f64.copysign(x),
        Floor => x.floor(),
        Ceil => x.ceil(),
        Round => x.round_ties_even(),
        Truncate => x.trunc(),
        SquareRoot => x.sqrt(),
        ReciprocalSquareRoot => 1. / x.sqrt(),
        Reciprocal => 1. / x,
        Exp => libm::exp(x),
        ExpMinusOne => libm::expm1(x),
        Log => libm::log(x),
        LogOnePlus => libm::log1p(x),
        Sin => libm::sin(x),
        Cos => libm::cos(x),
        Tan => libm::tan(x),
        Asin => libm::asin(x),
        Acos => libm::acos(x),
        Atan => libm::atan(x),
        Sinh => libm::sinh(x),
        Cosh => libm::cosh(x),
        Tanh => libm::tanh(x),
        Asinh => libm::asinh(x),
        Acosh => libm::acosh(x),
        Atanh => libm::atanh(x),
        Erf => libm::erf(x),
        Sigmoid => sigmoid(x),
        Relu => maximum(x, 0.),
        // The complement keeps the digits that 1 + erf loses where x is far below zero.
        Gelu => x * (0.5 * libm::erfc(-x * FRAC_1_SQRT_2)),
        GeluTanh => x * sigmoid(2. * FRAC_2_PI.sqrt() * (x + 0.044715 * x * x * x)),
        Silu => x * sigmoid(x),
        Softplus => softplus(x),
        Mish => x * libm::tanh(softplus(x)),
        HardSigmoid6 => hard_sigmoid(x),
        HardSwish => x * hard_sigmoid(x),
        // Integers and predicates do not come here.
        Not | IsNan | IsInfinite => x,
    }
}

fn sigmoid(x: f64) -> f64 {
    1. / (1. + libm::exp(-x))
}

fn softplus(x: f64) -> f64 {
    if x.is_nan() { x } else { x.max(0.) + libm::log1p(libm::exp(-x.abs())) }
}

fn hard_sigmoid(x: f64) -> f64 {
    maximum(0., minimum(1., x / 6. + 0.5))
}

/// A function in f32: what one instruction or an exact formula gives, else the f64 value rounded.
pub(super) fn single(function: Unary, x: f32) -> f32 {
    use Unary::*;
    match function {
        SquareRoot => x.sqrt(),
        ReciprocalSquareRoot => 1. / x.sqrt(),
        Reciprocal => 1. / x,
        HardSigmoid6 => single_hard_sigmoid(x),
        HardSwish => x * single_hard_sigmoid(x),
        _ => double(function, x.into()) as f32,
    }
}

fn single_hard_sigmoid(x: f32) -> f32 {
    maximum(0., minimum(1., (x / 6. + 0.5).into())) as f32
}

/// A function of two values in f64.
pub(super) fn double_binary(function: Binary, a: f64, b: f64) -> f64 {
    match function {
        Binary::Add => a + b,
        Binary::Subtract => a - b,
        Binary::Multiply => a * b,
        Binary::Divide => a / b,
        Binary::Remainder => a % b,
        Binary::Modulo => match a % b {
            0. => 0f64.copysign(b),
            left if (left < 0.) != (b < 0.) => left + b,
            left => left,
        },
        Binary::Power => libm::pow(a, b),
        Binary::Minimum => minimum(a, b),
        _ => maximum(a, b),
    }
}

/// A function of two values in f32.
pub(super) fn single_binary(function: Binary, a: f32, b: f32) -> f32 {
    match function {
        Binary::Add => a + b,
        Binary::Subtract => a - b,
        Binary::Multiply => a * b,
        Binary::Divide => a / b,
        Binary::Modulo => match a % b {
            0. => 0f32.copysign(b),
            left if (left < 0.) != (b < 0.) => left + b,
            left => left,
        },
        // Remainders are exact, extremes are operands, and a power is rounded once.
        _ => double_binary(function, a.into(), b.into()) as f32,
    }
}
