//! Rows: functions of one contiguous row of f32 as a whole: sums, extremes, softmax and normalisation.
//!
//! The order of every reduction is fixed and the same on all CPUs: lane `i` of 16 takes the elements `i`, `i + 16`, ...
//! in turn, beginning with the neutral element (+0, 1, or an infinity); then lanes 8, 4, 2 and 1 apart are combined. A
//! last group that is not full leaves the other lanes as they are. So a row's bits depend on its values and its count
//! alone.

mod columns;
mod norm;
mod reduce;
mod softmax;

pub(crate) use columns::{normalise_columns_f32, softmax_columns_f32};
pub(crate) use norm::{layer_norm_row_f32, layer_norm_row_residual_f32, rms_norm_row_f32, rms_norm_row_residual_f32};
pub(crate) use reduce::{
    centred_squares_row_f32, max_row_f32, min_row_f32, product_row_f32, squares_row_f32, sum_row_f32,
};
pub(crate) use softmax::{log_softmax_row_f32, softmax_row_f32};

use super::lanes::{Group, Lanes, Part, WIDTH, Whole};

/// What is done with every group of a row. A trait rather than a closure, because only what is `#[inline(always)]` is
/// sure to be compiled for the level of its caller.
trait Step<V: Lanes> {
    /// # Safety
    /// The arrays of the step can be used where the group is.
    unsafe fn take(&mut self, group: impl Group<V>);
}

/// Takes the step through a row of `count` elements, and returns what it has become.
///
/// # Safety
/// The arrays of the step have `count` elements.
#[inline(always)]
unsafe fn walk<V: Lanes, S: Step<V>>(count: usize, mut step: S) -> S {
    let whole = count / WIDTH * WIDTH;
    // SAFETY: all offsets are below the count, and the mask ends where the row does.
    unsafe {
        for at in (0..whole).step_by(WIDTH) {
            step.take(Whole(at));
        }
        if whole < count {
            step.take(Part::<V>(whole, V::mask(count - whole)));
        }
    }
    step
}

#[cfg(test)]
mod tests;
