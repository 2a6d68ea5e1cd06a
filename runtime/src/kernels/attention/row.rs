//! The softmax of attention on one row of scores, in the pieces the kernel needs.

use super::block::AttentionBlock;
use crate::kernels::lanes::{Lanes, WIDTH};
use crate::kernels::math::{exp, exp_of_term};

/// What is added to the scores of a row: nothing, or a row of the mask.
pub(super) struct Mask {
    /// The mask's element for the first of the scores, or null.
    first: *const f32,
    stride: isize,
}

impl Mask {
    /// For scores of that row, the first of them against that key.
    #[inline(always)]
    pub(super) fn new(block: &AttentionBlock, row: usize, key: usize) -> Mask {
        let stride = block.mask_column_stride as isize;
        let offset = row as isize * block.mask_row_stride as isize + key as isize * stride;
        let first = if block.mask.is_null() { block.mask } else { block.mask.wrapping_offset(offset) };
        Mask { first, stride }
    }

    /// # Safety
    /// There is a mask, valid for the lanes from `index`.
    #[inline(always)]
    unsafe fn load<V: Lanes>(&self, index: usize, lanes: usize) -> V {
        let from = self.first.wrapping_offset(index as isize * self.stride);
        // SAFETY: the caller vouches for the lanes, and nothing else is read.
        unsafe {
            match self.stride {
                1 => V::load_masked(from, V::mask(lanes)),
                0 => V::splat(*from),
                stride => {
                    let mut gathered = [0.0; WIDTH];
                    for (lane, value) in gathered.iter_mut().enumerate().take(lanes) {
                        *value = *from.offset(lane as isize * stride);
                    }
                    V::load(gathered.as_ptr())
                }
            }
        }
    }
}

/// Masks the first `visible` scores and returns their maximum, or `before` if that is greater. A NaN among them is passed
/// over here; its exponential makes the row NaN.
///
/// # Safety
/// Whole panels that cover the scores can be written, and the mask is valid for them.
#[inline(always)]
pub(super) unsafe fn greatest<V: Lanes>(scores: *mut f32, visible: usize, mask: &Mask, before: f32) -> f32 {
    let mut greatest = V::splat(before);
    let whole = visible - visible % WIDTH;
    // SAFETY: the caller vouches for the panels.
    unsafe {
        if mask.first.is_null() {
            for index in (0..whole).step_by(WIDTH) {
                greatest = V::load(scores.add(index)).greater(greatest);
            }
        } else {
            for index in (0..whole).step_by(WIDTH) {
                let masked = V::load(scores.add(index)).add(mask.load(index, WIDTH));
                greatest = masked.greater(greatest);
                masked.store(scores.add(index));
            }
        }
        if whole < visible {
            let (scores, lanes) = (scores.add(whole), visible - whole);
            let inside = V::mask(lanes);
            let mut masked = V::load_masked(scores, inside);
            if !mask.first.is_null() {
                masked = masked.add(mask.load(whole, lanes));
            }
            let masked = V::select(inside, masked, V::splat(f32::NEG_INFINITY));
            greatest = masked.greater(greatest);
            masked.store(scores);
        }
    }
    greatest.greatest().first()
}

/// Replaces the first `visible` of `count` scores by `exp(score - shift)` and the others by zero; returns the sum:
/// 16 virtual lanes, then one tree.
///
/// # Safety
/// [`greatest`] has run on the scores, and whole panels that cover `count` can be written.
#[inline(always)]
pub(super) unsafe fn exponentials<V: Lanes>(scores: *mut f32, visible: usize, count: usize, shift: f32) -> f32 {
    let mut sum = V::splat(0.0);
    // SAFETY: the caller vouches for the panels; lanes beyond the last visible score are minus infinity.
    unsafe {
        for index in (0..visible).step_by(WIDTH) {
            let scores = scores.add(index);
            let weights = exp_of_term(V::load(scores).sub(V::splat(shift)));
            sum = sum.add(weights);
            weights.store(scores);
        }
        for index in (visible.next_multiple_of(WIDTH)..count).step_by(WIDTH) {
            V::splat(0.0).store(scores.add(index));
        }
    }
    sum.total().first()
}

/// Multiplies a row by `exp(exponent)` and returns the factor.
///
/// # Safety
/// The row can be read and written.
#[inline(always)]
pub(super) unsafe fn rescale<V: Lanes>(row: *mut f32, columns: usize, exponent: f32) -> f32 {
    let factor = exp(V::splat(exponent));
    // SAFETY: the caller vouches for the row.
    unsafe { replace::<V>(row, columns, |x| x.mul(factor)) };
    factor.first()
}

/// Divides a row.
///
/// # Safety
/// The row can be read and written.
#[inline(always)]
pub(super) unsafe fn divide<V: Lanes>(row: *mut f32, columns: usize, divisor: f32) {
    // SAFETY: the caller vouches for the row.
    unsafe { replace::<V>(row, columns, |x| x.div(V::splat(divisor))) };
}

/// # Safety
/// The row can be read and written.
#[inline(always)]
unsafe fn replace<V: Lanes>(row: *mut f32, columns: usize, function: impl Fn(V) -> V) {
    for index in (0..columns).step_by(WIDTH) {
        let (row, mask) = (row.wrapping_add(index), V::mask((columns - index).min(WIDTH)));
        // SAFETY: the mask keeps to the columns of the row.
        unsafe { function(V::load_masked(row, mask)).store_masked(row, mask) };
    }
}
