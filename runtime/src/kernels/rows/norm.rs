//! Layer and root-mean-square normalisation of a row, alone or of the sum of two rows.
//!
//! Layer: `((x - mean) * s) * gain + bias` with `s = 1 / sqrt(variance + epsilon)`, `mean` the sum over `n`, and `variance`
//! the sum of the squares of the rounded `x - mean` (by fused multiply-adds) over `n`. Root mean square: `(x * s) * gain`
//! with `s = 1 / sqrt(squares / n + epsilon)`. Every other operation is rounded by itself.

use super::reduce::{centred_squares, squares, sum};
use super::{Step, walk};
use crate::kernels::lanes::{self, Group, Lanes};
use crate::kernels::level::per_level;

/// `((x - mean) * scale) * gain + bias`, where each of `gain` and `bias` may be null; without `CENTRED` no mean is
/// subtracted.
struct Normalise<V: Lanes, const CENTRED: bool> {
    dst: *mut f32,
    src: *const f32,
    gain: *const f32,
    bias: *const f32,
    mean: V,
    scale: V,
}

impl<V: Lanes, const CENTRED: bool> Step<V> for Normalise<V, CENTRED> {
    #[inline(always)]
    unsafe fn take(&mut self, group: impl Group<V>) {
        // SAFETY: the caller vouches for the arrays.
        unsafe {
            let x = group.load(self.src);
            let mut x = if CENTRED { x.sub(self.mean) } else { x }.mul(self.scale);
            if !self.gain.is_null() {
                x = x.mul(group.load(self.gain));
            }
            if !self.bias.is_null() {
                x = x.add(group.load(self.bias));
            }
            group.store(x, self.dst);
        }
    }
}

/// `a + b`.
struct Add {
    dst: *mut f32,
    a: *const f32,
    b: *const f32,
}

impl<V: Lanes> Step<V> for Add {
    #[inline(always)]
    unsafe fn take(&mut self, group: impl Group<V>) {
        // SAFETY: the caller vouches for the arrays.
        unsafe {
            let a: V = group.load(self.a);
            group.store(a.add(group.load(self.b)), self.dst);
        }
    }
}

/// `1 / sqrt(squares / count + epsilon)`.
#[inline(always)]
pub(super) fn inverse_deviation<V: Lanes>(squares: V, count: usize, epsilon: f32) -> V {
    V::splat(1.0).div(squares.div(V::splat(count as f32)).add(V::splat(epsilon)).sqrt())
}

/// # Safety
/// As for [`layer_norm_row_f32`].
#[inline(always)]
unsafe fn layer_norm_row<V: Lanes>(
    dst: *mut f32,
    src: *const f32,
    gain: *const f32,
    bias: *const f32,
    count: u64,
    epsilon: f32,
) {
    let count = count as usize;
    // SAFETY: the caller vouches for the arrays.
    unsafe {
        let mean = sum::<V>(src, count).div(V::splat(count as f32));
        let scale = inverse_deviation(centred_squares(src, count, mean), count, epsilon);
        walk(count, Normalise::<V, true> { dst, src, gain, bias, mean, scale });
    }
}

/// # Safety
/// As for [`layer_norm_row_residual_f32`].
#[inline(always)]
#[allow(clippy::too_many_arguments)] // they are those of the C function
unsafe fn layer_norm_row_residual<V: Lanes>(
    dst: *mut f32,
    sum_out: *mut f32,
    a: *const f32,
    b: *const f32,
    gain: *const f32,
    bias: *const f32,
    count: u64,
    epsilon: f32,
) {
    let row = if sum_out.is_null() { dst } else { sum_out };
    // SAFETY: the caller vouches for the arrays.
    unsafe {
        walk::<V, _>(count as usize, Add { dst: row, a, b });
        layer_norm_row::<V>(dst, row, gain, bias, count, epsilon);
    }
}

/// # Safety
/// As for [`rms_norm_row_f32`].
#[inline(always)]
unsafe fn rms_norm_row<V: Lanes>(dst: *mut f32, src: *const f32, gain: *const f32, count: u64, epsilon: f32) {
    let count = count as usize;
    // SAFETY: the caller vouches for the arrays.
    unsafe {
        let scale = inverse_deviation(squares::<V>(src, count), count, epsilon);
        let (bias, mean) = (std::ptr::null(), V::splat(0.0));
        walk(count, Normalise::<V, false> { dst, src, gain, bias, mean, scale });
    }
}

/// # Safety
/// As for [`rms_norm_row_residual_f32`].
#[inline(always)]
unsafe fn rms_norm_row_residual<V: Lanes>(
    dst: *mut f32,
    sum_out: *mut f32,
    a: *const f32,
    b: *const f32,
    gain: *const f32,
    count: u64,
    epsilon: f32,
) {
    let row = if sum_out.is_null() { dst } else { sum_out };
    // SAFETY: the caller vouches for the arrays.
    unsafe {
        walk::<V, _>(count as usize, Add { dst: row, a, b });
        rms_norm_row::<V>(dst, row, gain, count, epsilon);
    }
}

per_level! {
    /// Layer normalisation; `gain` and `bias` may each be null.
    ///
    /// # Safety
    /// `count` elements can be read at `src`, `gain` and `bias` and written at `dst`, which is `src` or overlaps nothing.
    pub(crate) mod layer_norm_row_f32 = layer_norm_row::<lanes>(
        dst: *mut f32, src: *const f32, gain: *const f32, bias: *const f32, count: u64, epsilon: f32,
    );
    /// Layer normalisation of `a + b`, which also goes to `sum_out` unless that is null.
    ///
    /// # Safety
    /// As for [`layer_norm_row_f32`]; `sum_out`, if not null, can be written. `dst` and `sum_out` differ, and each is `a`,
    /// `b` or overlaps nothing.
    pub(crate) mod layer_norm_row_residual_f32 = layer_norm_row_residual::<lanes>(
        dst: *mut f32, sum_out: *mut f32, a: *const f32, b: *const f32, gain: *const f32, bias: *const f32, count: u64,
        epsilon: f32,
    );
    /// Root-mean-square normalisation; `gain` may be null.
    ///
    /// # Safety
    /// `count` elements can be read at `src` and `gain` and written at `dst`, which is `src` or overlaps nothing.
    pub(crate) mod rms_norm_row_f32 = rms_norm_row::<lanes>(
        dst: *mut f32, src: *const f32, gain: *const f32, count: u64, epsilon: f32,
    );
    /// Root-mean-square normalisation of `a + b`, which also goes to `sum_out` unless that is null.
    ///
    /// # Safety
    /// As for [`layer_norm_row_residual_f32`].
    pub(crate) mod rms_norm_row_residual_f32 = rms_norm_row_residual::<lanes>(
        dst: *mut f32, sum_out: *mut f32, a: *const f32, b: *const f32, gain: *const f32, count: u64, epsilon: f32,
    );
}
