//! Functions of one f32 at a time, bit for bit as the strips compute them: for interpreters, and wherever a single value
//! must agree with a strip. The code is that of the strips, on the lanes of any CPU.

use super::lanes::{Lanes, Portable};
use super::math;

macro_rules! scalar_functions {
    ($($(#[$doc:meta])* $name:ident($($operand:ident),+);)*) => {$(
        $(#[$doc])*
        pub fn $name($($operand: f32),+) -> f32 {
            math::$name($(Portable::splat($operand)),+).first()
        }
    )*};
}

scalar_functions! {
    /// `e^x`
    exp(x);
    /// `e^x - 1`
    expm1(x);
    /// The natural logarithm.
    log(x);
    /// `ln(1 + x)`
    log1p(x);
    /// The sine of radians.
    sin(x);
    /// The cosine.
    cos(x);
    /// The hyperbolic tangent.
    tanh(x);
    /// The error function.
    erf(x);
    /// `1 / (1 + e^-x)`
    sigmoid(x);
    /// `x` times the normal distribution function.
    gelu(x);
    /// The approximation of GELU by `tanh`.
    gelu_tanh(x);
    /// `x sigmoid(x)`
    silu(x);
    /// `ln(1 + e^x)`
    softplus(x);
    /// `x tanh(softplus(x))`
    mish(x);
    /// `a^b`
    pow(a, b);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{KernelTable, Level};

    /// A function of one value, and the strip that must agree with it.
    type Pair = (fn(f32) -> f32, unsafe extern "C" fn(*mut f32, *const f32, u64));

    #[test]
    fn a_value_has_the_bits_of_the_strip() {
        let inputs: Vec<f32> = (-40..40).map(|step| step as f32 * 0.37).chain([f32::INFINITY, -0., 1e-40]).collect();
        let table = KernelTable::for_level(Level::detect().expect("a level of this machine"));
        let pairs: [Pair; 14] = [
            (exp, table.exp_f32),
            (expm1, table.expm1_f32),
            (log, table.log_f32),
            (log1p, table.log1p_f32),
            (sin, table.sin_f32),
            (cos, table.cos_f32),
            (tanh, table.tanh_f32),
            (erf, table.erf_f32),
            (sigmoid, table.sigmoid_f32),
            (gelu, table.gelu_f32),
            (gelu_tanh, table.gelu_tanh_f32),
            (silu, table.silu_f32),
            (softplus, table.softplus_f32),
            (mish, table.mish_f32),
        ];
        for (index, (function, strip)) in pairs.into_iter().enumerate() {
            let mut outputs = vec![0f32; inputs.len()];
            // SAFETY: both arrays have the length that is given.
            unsafe { strip(outputs.as_mut_ptr(), inputs.as_ptr(), inputs.len() as u64) };
            for (input, output) in inputs.iter().zip(outputs) {
                let value = function(*input);
                let same = value.to_bits() == output.to_bits() || value.is_nan() && output.is_nan();
                assert!(same, "function {index} of {input}: {value}, not {output}");
            }
        }
    }
}
