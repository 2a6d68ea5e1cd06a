//! The functions of scalar expressions on floats, in f64 and in f32. Transcendentals are those of the runtime, so that a
//! compiled program can have the same bits.

use super::scalar::{maximum, minimum};
use crate::scalar::{Binary, Unary};
use strang_runtime::kernels::{
    scalar32,
    scalar64::{Scalar64, power64},
};

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
        Relu => maximum(x, 0.),
        HardSigmoid6 => hard_sigmoid(x),
        HardSwish => x * hard_sigmoid(x),
        Exp => Scalar64::Exp.eval(x),
        ExpMinusOne => Scalar64::ExpMinusOne.eval(x),
        Log => Scalar64::Log.eval(x),
        LogOnePlus => Scalar64::LogOnePlus.eval(x),
        Sin => Scalar64::Sin.eval(x),
        Cos => Scalar64::Cos.eval(x),
        Tan => Scalar64::Tan.eval(x),
        Asin => Scalar64::Asin.eval(x),
        Acos => Scalar64::Acos.eval(x),
        Atan => Scalar64::Atan.eval(x),
        Sinh => Scalar64::Sinh.eval(x),
        Cosh => Scalar64::Cosh.eval(x),
        Tanh => Scalar64::Tanh.eval(x),
        Asinh => Scalar64::Asinh.eval(x),
        Acosh => Scalar64::Acosh.eval(x),
        Atanh => Scalar64::Atanh.eval(x),
        Erf => Scalar64::Erf.eval(x),
        Sigmoid => Scalar64::Sigmoid.eval(x),
        Gelu => Scalar64::Gelu.eval(x),
        GeluTanh => Scalar64::GeluTanh.eval(x),
        Silu => Scalar64::Silu.eval(x),
        Softplus => Scalar64::Softplus.eval(x),
        Mish => Scalar64::Mish.eval(x),
        // Integers and predicates do not come here.
        Not | IsNan | IsInfinite => x,
    }
}

fn hard_sigmoid(x: f64) -> f64 {
    maximum(0., minimum(1., x / 6. + 0.5))
}

/// A function in f32: an instruction, an exact formula, what the strips of the runtime compute, else the f64 value rounded.
pub(super) fn single(function: Unary, x: f32) -> f32 {
    use Unary::*;
    match function {
        SquareRoot => x.sqrt(),
        ReciprocalSquareRoot => 1. / x.sqrt(),
        Reciprocal => 1. / x,
        HardSigmoid6 => single_hard_sigmoid(x),
        HardSwish => x * single_hard_sigmoid(x),
        Exp => scalar32::exp(x),
        ExpMinusOne => scalar32::expm1(x),
        Log => scalar32::log(x),
        LogOnePlus => scalar32::log1p(x),
        Sin => scalar32::sin(x),
        Cos => scalar32::cos(x),
        Tanh => scalar32::tanh(x),
        Erf => scalar32::erf(x),
        Sigmoid => scalar32::sigmoid(x),
        Gelu => scalar32::gelu(x),
        GeluTanh => scalar32::gelu_tanh(x),
        Silu => scalar32::silu(x),
        Softplus => scalar32::softplus(x),
        Mish => scalar32::mish(x),
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
        Binary::Power => power64(a, b),
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
        Binary::Power => scalar32::pow(a, b),
        // Remainders are exact and extremes are operands.
        _ => double_binary(function, a.into(), b.into()) as f32,
    }
}
