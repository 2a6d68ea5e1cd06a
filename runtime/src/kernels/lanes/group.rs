//! Groups: 16 neighbours, or the last few of a row, so that a kernel is written once for both.

use super::Lanes;

/// Up to 16 neighbouring elements of a row: which ones, for any array that runs along the row.
pub(crate) trait Group<V: Lanes>: Copy {
    /// The elements of the group in an array of the row's length; zero in lanes the row does not reach.
    /// # Safety
    /// The array can be read where the row is.
    unsafe fn load(self, array: *const f32) -> V;
    /// # Safety
    /// The array can be written where the row is.
    unsafe fn store(self, value: V, array: *mut f32);
    /// Starts bringing near where the group will be stored.
    fn prefetch_to_write(self, array: *mut f32);
    /// `new` in the lanes of the group, `old` in lanes the row does not reach.
    fn update(self, old: V, new: V) -> V;
}

/// 16 elements, from the given one on.
#[derive(Clone, Copy)]
pub(crate) struct Whole(pub(crate) usize);

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
    fn prefetch_to_write(self, array: *mut f32) {
        super::prefetch_to_write(array.wrapping_add(self.0));
    }
    #[inline(always)]
    fn update(self, _: V, new: V) -> V {
        new
    }
}

/// The elements in the mask, from the given one on.
pub(crate) struct Part<V: Lanes>(pub(crate) usize, pub(crate) V::Mask);

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
    fn prefetch_to_write(self, array: *mut f32) {
        super::prefetch_to_write(array.wrapping_add(self.0));
    }
    #[inline(always)]
    fn update(self, old: V, new: V) -> V {
        V::select(self.1, new, old)
    }
}
