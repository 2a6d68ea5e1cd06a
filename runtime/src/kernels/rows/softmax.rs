//! Softmax of a row, and its logarithm.
//!
//! The greatest element is subtracted first, so that no exponential overflows; those below `e^-80` count as that, or nothing. A row of nothing but -inf gives NaN, as
//! the formula and ONNX have it.

use super::reduce::greatest;
use super::{Step, walk};
use crate::kernels::lanes::{self, Group, Lanes};
use crate::kernels::level::per_level;
use crate::kernels::math;

/// `exp(x - shift)`, added up, and written where `dst` is not null.
struct Exponentials<V: Lanes> {
    dst: *mut f32,
    src: *const f32,
    shift: V,
    sum: V,
}

impl<V: Lanes> Step<V> for Exponentials<V> {
    #[inline(always)]
    unsafe fn take(&mut self, group: impl Group<V>) {
        // SAFETY: the caller vouches for the arrays.
        unsafe {
            let exponential = math::exp_of_term(group.load(self.src).sub(self.shift));
            self.sum = group.update(self.sum, self.sum.add(exponential));
            if !self.dst.is_null() {
                group.store(exponential, self.dst);
            }
        }
    }
}

/// `x * factor`, in place.
struct Scale<V: Lanes> {
    row: *mut f32,
    factor: V,
}

impl<V: Lanes> Step<V> for Scale<V> {
    #[inline(always)]
    unsafe fn take(&mut self, group: impl Group<V>) {
        // SAFETY: the caller vouches for the array.
        unsafe { group.store(group.load(self.row).mul(self.factor), self.row) }
    }
}

/// `(x - first) - second`.
struct Subtract<V: Lanes> {
    dst: *mut f32,
    src: *const f32,
    first: V,
    second: V,
}

impl<V: Lanes> Step<V> for Subtract<V> {
    #[inline(always)]
    unsafe fn take(&mut self, group: impl Group<V>) {
        // SAFETY: the caller vouches for the arrays.
        unsafe { group.store(group.load(self.src).sub(self.first).sub(self.second), self.dst) }
    }
}

/// # Safety
/// As for [`softmax_row_f32`].
#[inline(always)]
unsafe fn softmax_row<V: Lanes>(dst: *mut f32, src: *const f32, count: u64) {
    let count = count as usize;
    // SAFETY: the caller vouches for the arrays.
    unsafe {
        // NaN elements are passed over here and come back in the sum of the exponentials.
        let shift = greatest::<V>(src, count);
        let sum = walk(count, Exponentials { dst, src, shift, sum: V::splat(0.0) }).sum.total();
        walk(count, Scale { row: dst, factor: V::splat(1.0).div(sum) });
    }
}

/// # Safety
/// As for [`log_softmax_row_f32`].
#[inline(always)]
unsafe fn log_softmax_row<V: Lanes>(dst: *mut f32, src: *const f32, count: u64) {
    let count = count as usize;
    // SAFETY: the caller vouches for the arrays.
    unsafe {
        let first = greatest::<V>(src, count);
        let sums = walk(count, Exponentials { dst: std::ptr::null_mut(), src, shift: first, sum: V::splat(0.0) }).sum;
        walk(count, Subtract { dst, src, first, second: math::log(sums.total()) });
    }
}

per_level! {
    /// `e * (1 / sum of e)` with `e = exp(x - max)`: one division a row.
    ///
    /// # Safety
    /// `count` elements can be read at `src` and written at `dst`, which is `src` or does not overlap it.
    pub(crate) mod softmax_row_f32 = softmax_row::<lanes>(dst: *mut f32, src: *const f32, count: u64);
    /// `(x - max) - ln(sum of exp(x - max))`.
    ///
    /// # Safety
    /// `count` elements can be read at `src` and written at `dst`, which is `src` or does not overlap it.
    pub(crate) mod log_softmax_row_f32 = log_softmax_row::<lanes>(dst: *mut f32, src: *const f32, count: u64);
}
