//! Pooling, channels innermost: the maximum or the sum of each channel over the taps of a window. Taps that are null are left out.

use super::lanes::{self, Group, Lanes};
use super::level::per_level;
use super::window::{self, Operation, Window};

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
    fn finish<const PIXELS: usize>(&self, sums: [V; PIXELS], (): ()) -> [V; PIXELS] {
        sums
    }
}

/// The sum over the taps in order, from +0.
struct Sum;

impl<V: Lanes> Operation<V> for Sum {
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
    fn finish<const PIXELS: usize>(&self, sums: [V; PIXELS], (): ()) -> [V; PIXELS] {
        sums
    }
}

/// # Safety
/// As for [`max_pool_f32`].
#[inline(always)]
unsafe fn max_pool<V: Lanes>(window: *const Window) {
    // SAFETY: the caller vouches for the window and its arrays.
    unsafe { window::run::<V, _>(&*window, &Maximum) }
}

/// # Safety
/// As for [`sum_pool_f32`].
#[inline(always)]
unsafe fn sum_pool<V: Lanes>(window: *const Window) {
    // SAFETY: the caller vouches for the window and its arrays.
    unsafe { window::run::<V, _>(&*window, &Sum) }
}

per_level! {
    /// The maximum over the taps: NaN if one is NaN; -0 is less than +0; -inf if there is no tap.
    ///
    /// # Safety
    /// The arrays of the window can be read for the sizes and strides it gives, the output can be written and overlaps none of them.
    pub(crate) mod max_pool_f32 = max_pool::<lanes>(window: *const Window);
    /// The sum over the taps in order, from +0.
    ///
    /// # Safety
    /// As for [`max_pool_f32`].
    pub(crate) mod sum_pool_f32 = sum_pool::<lanes>(window: *const Window);
}
