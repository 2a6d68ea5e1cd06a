//! Pooling, channels innermost: the maximum or the average of each channel over the taps of a window.

use super::lanes::{self, Group, Lanes};
use super::level::per_level;
use super::window::{self, Operation, Window};

/// One segment of an output row of a pooling. Taps that are null are left out.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PoolBlock {
    /// The segment and its taps.
    pub window: Window,
    /// For each pixel what its sum is multiplied with: the reciprocal of the count, with or without padding. Only averages
    /// read it.
    pub reciprocals: *const f32,
    /// Distance of two pixels' reciprocals: 1, or 0 if all share one.
    pub reciprocal_stride: i64,
}

/// The maximum: NaN if one is NaN; -0 is less than +0; -inf if there is no tap.
struct Maximum;

impl<V: Lanes> Operation<V> for Maximum {
    const PANELS: usize = 1;
    type Factor = ();
    type Ending = ();

    #[inline(always)]
    fn start(&self) -> V {
        V::splat(f32::NEG_INFINITY)
    }
    #[inline(always)]
    unsafe fn factor(&self, _: usize, _: impl Group<V>) {}
    #[inline(always)]
    fn step(sum: V, x: V, (): ()) -> V {
        sum.max(x)
    }
    #[inline(always)]
    unsafe fn ending(&self, _: impl Group<V>) {}
    #[inline(always)]
    unsafe fn finish(&self, sum: V, (): (), _: usize) -> V {
        sum
    }
}

/// The sum over the taps in order, from +0, times the reciprocal of the pixel.
impl<V: Lanes> Operation<V> for PoolBlock {
    const PANELS: usize = 1;
    type Factor = ();
    type Ending = ();

    #[inline(always)]
    fn start(&self) -> V {
        V::splat(0.0)
    }
    #[inline(always)]
    unsafe fn factor(&self, _: usize, _: impl Group<V>) {}
    #[inline(always)]
    fn step(sum: V, x: V, (): ()) -> V {
        sum.add(x)
    }
    #[inline(always)]
    unsafe fn ending(&self, _: impl Group<V>) {}
    #[inline(always)]
    unsafe fn finish(&self, sum: V, (): (), pixel: usize) -> V {
        // SAFETY: every pixel has a reciprocal.
        sum.mul(V::splat(unsafe { *self.reciprocals.offset(pixel as isize * self.reciprocal_stride as isize) }))
    }
}

/// # Safety
/// As for [`max_pool_f32`].
#[inline(always)]
unsafe fn max_pool<V: Lanes>(block: *const PoolBlock) {
    // SAFETY: the caller vouches for the block and its arrays.
    unsafe { window::run::<V, _>(&(*block).window, &Maximum) }
}

/// # Safety
/// As for [`average_pool_f32`].
#[inline(always)]
unsafe fn average_pool<V: Lanes>(block: *const PoolBlock) {
    // SAFETY: the caller vouches for the block and its arrays.
    unsafe { window::run::<V, _>(&(*block).window, &*block) }
}

per_level! {
    /// The maximum over the taps: NaN if one is NaN; -0 is less than +0; -inf if there is no tap.
    ///
    /// # Safety
    /// The block and the arrays of its window can be read for the sizes and strides it gives, the output can be written
    /// and overlaps none of them.
    pub(crate) mod max_pool_f32 = max_pool::<lanes>(block: *const PoolBlock);
    /// The sum over the taps in order, from +0, times the reciprocal of the pixel.
    ///
    /// # Safety
    /// As for [`max_pool_f32`], and the reciprocals can be read.
    pub(crate) mod average_pool_f32 = average_pool::<lanes>(block: *const PoolBlock);
}
