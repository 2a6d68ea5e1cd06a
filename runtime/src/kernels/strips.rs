//! Strips: elementwise functions of contiguous f32, what generated code calls for everything that is faster in wide
//! vectors than in Cranelift's 128 bits.
//!
//! Every element is computed alone and the same way: its bits do not depend on its position, the count or the CPU.
//! Where an output is also an input (the same pointer) it is overwritten in place; other overlaps are not allowed.

use super::lanes::{self, Lanes, WIDTH};
use super::level::per_level;
use super::math;

/// A function of one operand, with parameters that are the same for all elements. A trait rather than a closure, because
/// only what is `#[inline(always)]` is sure to be compiled for the level of its caller.
trait Unary<const PARAMETERS: usize> {
    fn apply<V: Lanes>(x: V, parameters: [V; PARAMETERS]) -> V;
}

/// A function of two operands.
trait Binary {
    fn apply<V: Lanes>(a: V, b: V) -> V;
}

/// # Safety
/// `count` elements can be read at `src` and written at `dst`.
#[inline(always)]
unsafe fn unary<F: Unary<PARAMETERS>, V: Lanes, const PARAMETERS: usize>(
    dst: *mut f32,
    src: *const f32,
    count: u64,
    parameters: [f32; PARAMETERS],
) {
    let count = count as usize;
    let mut splats = [V::splat(0.0); PARAMETERS];
    for (splat, parameter) in splats.iter_mut().zip(parameters) {
        *splat = V::splat(parameter);
    }
    let whole = count / WIDTH * WIDTH;
    // SAFETY: all offsets are below the count, and the mask ends where the arrays do.
    unsafe {
        for at in (0..whole).step_by(WIDTH) {
            F::apply(V::load(src.add(at)), splats).store(dst.add(at));
        }
        if whole < count {
            let mask = V::mask(count - whole);
            F::apply(V::load_masked(src.add(whole), mask), splats).store_masked(dst.add(whole), mask);
        }
    }
}

/// # Safety
/// `count` elements can be written at `dst` and read at `a` and `b`, or one element where the step is 0.
#[inline(always)]
unsafe fn binary<F: Binary, V: Lanes>(
    dst: *mut f32,
    a: *const f32,
    b: *const f32,
    count: u64,
    a_step: u64,
    b_step: u64,
) {
    if count == 0 {
        return;
    }
    // SAFETY: the caller vouches for the arrays.
    unsafe {
        match (a_step, b_step) {
            (0, 0) => stepped::<F, V, false, false>(dst, a, b, count as usize),
            (0, _) => stepped::<F, V, false, true>(dst, a, b, count as usize),
            (_, 0) => stepped::<F, V, true, false>(dst, a, b, count as usize),
            _ => stepped::<F, V, true, true>(dst, a, b, count as usize),
        }
    }
}

/// # Safety
/// As for [`binary`]; the count is not 0.
#[inline(always)]
unsafe fn stepped<F: Binary, V: Lanes, const A: bool, const B: bool>(
    dst: *mut f32,
    a: *const f32,
    b: *const f32,
    count: usize,
) {
    let whole = count / WIDTH * WIDTH;
    // SAFETY: all offsets are below the count, and the mask ends where the arrays do; single elements are read alone.
    unsafe {
        let (a_splat, b_splat) = (V::splat(*a), V::splat(*b));
        for at in (0..whole).step_by(WIDTH) {
            let x = if A { V::load(a.add(at)) } else { a_splat };
            let y = if B { V::load(b.add(at)) } else { b_splat };
            F::apply(x, y).store(dst.add(at));
        }
        if whole < count {
            let mask = V::mask(count - whole);
            let x = if A { V::load_masked(a.add(whole), mask) } else { a_splat };
            let y = if B { V::load_masked(b.add(whole), mask) } else { b_splat };
            F::apply(x, y).store_masked(dst.add(whole), mask);
        }
    }
}

/// Instantiates functions of one operand for every level: `name(parameters) = path;`, where `path` takes the operand and
/// the parameters.
macro_rules! unary_strips {
    ($($(#[$doc:meta])* $name:ident($($parameter:ident),*) = $($path:ident)::+;)*) => {$(
        /// # Safety
        /// As for [`unary`].
        #[inline(always)]
        pub(super) unsafe fn $name<V: Lanes>(dst: *mut f32, src: *const f32, count: u64 $(, $parameter: f32)*) {
            const PARAMETERS: usize = <[&str]>::len(&[$(stringify!($parameter)),*]);
            struct Function;
            impl Unary<PARAMETERS> for Function {
                #[inline(always)]
                fn apply<V: Lanes>(x: V, [$($parameter),*]: [V; PARAMETERS]) -> V {
                    $($path)::+(x $(, $parameter)*)
                }
            }
            // SAFETY: the caller vouches for the arrays.
            unsafe { unary::<Function, V, PARAMETERS>(dst, src, count, [$($parameter),*]) }
        }

        per_level! {
            $(#[$doc])*
            ///
            /// # Safety
            /// `count` elements can be read at `src` and written at `dst`, which is `src` or does not overlap it.
            pub(crate) mod $name = $name::<lanes>(dst: *mut f32, src: *const f32, count: u64 $(, $parameter: f32)*);
        }
    )*};
}

/// Instantiates functions of two operands for every level.
macro_rules! binary_strips {
    ($($(#[$doc:meta])* $name:ident = $($path:ident)::+;)*) => {$(
        /// # Safety
        /// As for [`binary`].
        #[inline(always)]
        unsafe fn $name<V: Lanes>(
            dst: *mut f32, a: *const f32, b: *const f32, count: u64, a_step: u64, b_step: u64,
        ) {
            struct Function;
            impl Binary for Function {
                #[inline(always)]
                fn apply<V: Lanes>(a: V, b: V) -> V {
                    $($path)::+(a, b)
                }
            }
            // SAFETY: the caller vouches for the arrays.
            unsafe { binary::<Function, V>(dst, a, b, count, a_step, b_step) }
        }

        per_level! {
            $(#[$doc])*
            /// A step of 0 makes its operand a single element, 1 an array.
            ///
            /// # Safety
            /// `count` elements can be written at `dst` and read at `a` and `b`, or one element where the step is 0; `dst`
            /// is an operand or does not overlap it.
            pub(crate) mod $name = $name::<lanes>(
                dst: *mut f32, a: *const f32, b: *const f32, count: u64, a_step: u64, b_step: u64,
            );
        }
    )*};
}

unary_strips! {
    /// `e^x`
    exp_f32() = math::exp;
    /// `e^x - 1`
    expm1_f32() = math::expm1;
    /// The natural logarithm.
    log_f32() = math::log;
    /// `ln(1 + x)`
    log1p_f32() = math::log1p;
    /// The hyperbolic tangent.
    tanh_f32() = math::tanh;
    /// The error function.
    erf_f32() = math::erf;
    /// `1 / (1 + e^-x)`
    sigmoid_f32() = math::sigmoid;
    /// `x` times the normal distribution function.
    gelu_f32() = math::gelu;
    /// The approximation of GELU by `tanh`.
    gelu_tanh_f32() = math::gelu_tanh;
    /// `x sigmoid(x)`
    silu_f32() = math::silu;
    /// `ln(1 + e^x)`
    softplus_f32() = math::softplus;
    /// `x tanh(softplus(x))`
    mish_f32() = math::mish;
    /// `x < 0 ? slope (e^x - 1) : x`
    elu_f32(slope) = math::elu;
    /// The sine.
    sin_f32() = math::sin;
    /// The cosine.
    cos_f32() = math::cos;
    /// `max(x, 0)`
    relu_f32() = math::relu;
    /// `x < 0 ? slope x : x`
    leaky_relu_f32(slope) = math::leaky_relu;
    /// `min(max(x, low), high)`
    clip_f32(low, high) = math::clip;
    /// `max(0, min(1, slope x + offset))`
    hard_sigmoid_f32(slope, offset) = math::hard_sigmoid;
    /// `x max(0, min(1, x / 6 + 1/2))`, with the product by the rounded 1/6.
    hard_swish_f32() = math::hard_swish;
    /// `scale x + shift`, rounded twice.
    scale_shift_f32(scale, shift) = math::scale_shift;
    /// `-x`
    neg_f32() = Lanes::neg;
    /// `|x|`
    abs_f32() = Lanes::abs;
    /// The square root.
    sqrt_f32() = Lanes::sqrt;
}

binary_strips! {
    /// `a + b`.
    add_f32 = Lanes::add;
    /// `a - b`.
    sub_f32 = Lanes::sub;
    /// `a b`.
    mul_f32 = Lanes::mul;
    /// `a / b`.
    div_f32 = Lanes::div;
    /// The greater of both, NaN if either is NaN; -0 is less than +0.
    max_f32 = Lanes::max;
    /// The lesser of both, NaN if either is NaN; -0 is less than +0.
    min_f32 = Lanes::min;
    /// `a^b`.
    pow_f32 = math::pow;
}

#[cfg(test)]
mod tests;
