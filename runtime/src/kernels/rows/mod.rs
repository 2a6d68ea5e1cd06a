//! Rows: functions of one contiguous row of f32 as a whole: sums, extremes, softmax and normalisation.
//!
//! The order of every reduction is fixed and the same on all CPUs: lane `i` of 16 takes the elements `i`, `i + 16`, ...
//! in turn, beginning with the neutral element (+0, 1, or an infinity); then lanes 8, 4, 2 and 1 apart are combined. A
//! last group that is not full leaves the other lanes as they are. So a row's bits depend on its values and its count
//! alone.

mod norm;
mod reduce;
mod softmax;

pub(crate) use norm::{layer_norm_row_f32, layer_norm_row_residual_f32, rms_norm_row_f32, rms_norm_row_residual_f32};
pub(crate) use reduce::{
    centred_squares_row_f32, max_row_f32, min_row_f32, product_row_f32, squares_row_f32, sum_row_f32,
};
pub(crate) use softmax::{log_softmax_row_f32, softmax_row_f32};

use super::lanes::{Lanes, WIDTH};

/// Up to 16 neighbouring elements of a row.
trait Group<V: Lanes>: Copy {
    /// The elements of the group in an array of the row's length; zero in lanes the row does not reach.
    /// # Safety
    /// The array can be read where the row is.
    unsafe fn load(self, array: *const f32) -> V;
    /// # Safety
    /// The array can be written where the row is.
    unsafe fn store(self, value: V, array: *mut f32);
    /// `new` in the lanes of the group, `old` in lanes the row does not reach.
    fn update(self, old: V, new: V) -> V;
}

/// 16 elements, from the given one on.
#[derive(Clone, Copy)]
struct Whole(usize);

impl<V: Lanes> Group<V> for Whole {
    #[inline(always)]
    unsafe fn load(self, array: *const f32) -> V {
        // SAFETY: the caller vouches for the array.
        unsafe { V::load(array.add(self.0)) }
    }
    #[inline(always)]
    unsafe fn store(self, value: V, array: *mut f32) {
        // SAFETY: the caller vouches for the array.
        unsafe { value.store(array.add(self.0)) }
    }
    #[inline(always)]
    fn update(self, _: V, new: V) -> V {
        new
    }
}

/// The elements in the mask, from the given one on.
struct Part<V: Lanes>(usize, V::Mask);

impl<V: Lanes> Clone for Part<V> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}
impl<V: Lanes> Copy for Part<V> {}

impl<V: Lanes> Group<V> for Part<V> {
    #[inline(always)]
    unsafe fn load(self, array: *const f32) -> V {
        // SAFETY: the caller vouches for the array, and the mask keeps to the row.
        unsafe { V::load_masked(array.add(self.0), self.1) }
    }
    #[inline(always)]
    unsafe fn store(self, value: V, array: *mut f32) {
        // SAFETY: the caller vouches for the array, and the mask keeps to the row.
        unsafe { value.store_masked(array.add(self.0), self.1) }
    }
    #[inline(always)]
    fn update(self, old: V, new: V) -> V {
        V::select(self.1, new, old)
    }
}

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
