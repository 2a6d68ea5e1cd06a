//! One value of a strip function: what interpreters compute with, so that their bits are those of compiled code.

use super::{Function, KernelTable, Level};

/// The value of an f32 strip function at `x`; `None` for entries of the table that are no plain functions of one value.
pub fn single(function: Function, x: f32) -> Option<f32> {
    let table = KernelTable::for_level(Level::Portable);
    let strip = match function {
        Function::ExpF32 => table.exp_f32,
        Function::Expm1F32 => table.expm1_f32,
        Function::LogF32 => table.log_f32,
        Function::Log1pF32 => table.log1p_f32,
        Function::TanhF32 => table.tanh_f32,
        Function::ErfF32 => table.erf_f32,
        Function::SigmoidF32 => table.sigmoid_f32,
        Function::GeluF32 => table.gelu_f32,
        Function::GeluTanhF32 => table.gelu_tanh_f32,
        Function::SiluF32 => table.silu_f32,
        Function::SoftplusF32 => table.softplus_f32,
        Function::MishF32 => table.mish_f32,
        Function::SinF32 => table.sin_f32,
        Function::CosF32 => table.cos_f32,
        _ => return None,
    };
    let mut result = 0.;
    // SAFETY: both pointers are good for the one element that is read and written, and every CPU runs the portable level.
    unsafe { strip(&mut result, &x, 1) };
    Some(result)
}

/// `x` to the power `y`, as the strip computes it.
pub fn power32(x: f32, y: f32) -> f32 {
    let mut result = 0.;
    // SAFETY: the pointers are good for the one element that is read and written, and every CPU runs the portable level.
    unsafe { (KernelTable::for_level(Level::Portable).pow_f32)(&mut result, &x, &y, 1, 1, 1) };
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        assert_eq!(single(Function::ExpF32, 0.), Some(1.));
        assert_eq!(single(Function::GemmF32, 0.), None);
        assert_eq!(power32(2., 3.), 8.);
    }
}
