//! Reductions of a row to one number.

use super::{Step, walk};
use crate::kernels::lanes::{self, Group, Lanes};
use crate::kernels::level::per_level;

/// One element more for each lane's accumulator; `parameter` is the same for all.
pub(super) trait Fold<V: Lanes> {
    fn fold(sum: V, x: V, parameter: V) -> V;
}

struct Reduce<V: Lanes, F: Fold<V>> {
    src: *const f32,
    sum: V,
    parameter: V,
    fold: std::marker::PhantomData<F>,
}

impl<V: Lanes, F: Fold<V>> Step<V> for Reduce<V, F> {
    #[inline(always)]
    unsafe fn take(&mut self, group: impl Group<V>) {
        // SAFETY: the caller vouches for the array.
        let x = unsafe { group.load(self.src) };
        self.sum = group.update(self.sum, F::fold(self.sum, x, self.parameter));
    }
}

/// The accumulators of all lanes after a row.
///
/// # Safety
/// `count` elements can be read at `src`.
#[inline(always)]
unsafe fn reduce<V: Lanes, F: Fold<V>>(src: *const f32, count: usize, start: f32, parameter: V) -> V {
    let step = Reduce::<V, F> { src, sum: V::splat(start), parameter, fold: std::marker::PhantomData };
    // SAFETY: the caller vouches for the array.
    unsafe { walk(count, step) }.sum
}

macro_rules! folds {
    ($($Fold:ident = |$sum:ident, $x:ident, $parameter:pat_param| $value:expr;)*) => {$(
        pub(super) struct $Fold;
        impl<V: Lanes> Fold<V> for $Fold {
            #[inline(always)]
            fn fold($sum: V, $x: V, $parameter: V) -> V {
                $value
            }
        }
    )*};
}

folds! {
    Sum = |sum, x, _| sum.add(x);
    Product = |product, x, _| product.mul(x);
    Max = |greatest, x, _| greatest.max(x);
    Min = |least, x, _| least.min(x);
    // NaN elements are passed over, which is for the caller to allow.
    Greatest = |greatest, x, _| x.greater(greatest);
    Squares = |sum, x, _| x.fma(x, sum);
    CentredSquares = |sum, x, mean| {
        let centred = x.sub(mean);
        centred.fma(centred, sum)
    };
}

/// The sum of a row, in every lane.
///
/// # Safety
/// `count` elements can be read at `src`.
#[inline(always)]
pub(super) unsafe fn sum<V: Lanes>(src: *const f32, count: usize) -> V {
    // SAFETY: the caller vouches for the array.
    unsafe { reduce::<V, Sum>(src, count, 0.0, V::splat(0.0)) }.total()
}

/// The sum of the squares of a row, in every lane.
///
/// # Safety
/// `count` elements can be read at `src`.
#[inline(always)]
pub(super) unsafe fn squares<V: Lanes>(src: *const f32, count: usize) -> V {
    // SAFETY: the caller vouches for the array.
    unsafe { reduce::<V, Squares>(src, count, 0.0, V::splat(0.0)) }.total()
}

/// The sum of the squares of a row's distances from `mean`, in every lane.
///
/// # Safety
/// `count` elements can be read at `src`.
#[inline(always)]
pub(super) unsafe fn centred_squares<V: Lanes>(src: *const f32, count: usize, mean: V) -> V {
    // SAFETY: the caller vouches for the array.
    unsafe { reduce::<V, CentredSquares>(src, count, 0.0, mean) }.total()
}

/// The greatest number of a row, in every lane: NaN elements are passed over, and a zero may have either sign.
///
/// # Safety
/// `count` elements can be read at `src`.
#[inline(always)]
pub(super) unsafe fn greatest<V: Lanes>(src: *const f32, count: usize) -> V {
    // SAFETY: the caller vouches for the array.
    unsafe { reduce::<V, Greatest>(src, count, f32::NEG_INFINITY, V::splat(0.0)) }.greatest()
}

/// # Safety
/// As for [`sum_row_f32`].
#[inline(always)]
unsafe fn sum_row<V: Lanes>(src: *const f32, count: u64) -> f32 {
    // SAFETY: the caller vouches for the array.
    unsafe { sum::<V>(src, count as usize) }.first()
}

/// # Safety
/// As for [`product_row_f32`].
#[inline(always)]
unsafe fn product_row<V: Lanes>(src: *const f32, count: u64) -> f32 {
    // SAFETY: the caller vouches for the array.
    unsafe { reduce::<V, Product>(src, count as usize, 1.0, V::splat(0.0)) }.total_product().first()
}

/// # Safety
/// As for [`max_row_f32`].
#[inline(always)]
unsafe fn max_row<V: Lanes>(src: *const f32, count: u64) -> f32 {
    // SAFETY: the caller vouches for the array.
    unsafe { reduce::<V, Max>(src, count as usize, f32::NEG_INFINITY, V::splat(0.0)) }.greatest().first()
}

/// # Safety
/// As for [`min_row_f32`].
#[inline(always)]
unsafe fn min_row<V: Lanes>(src: *const f32, count: u64) -> f32 {
    // SAFETY: the caller vouches for the array.
    unsafe { reduce::<V, Min>(src, count as usize, f32::INFINITY, V::splat(0.0)) }.least().first()
}

/// # Safety
/// As for [`squares_row_f32`].
#[inline(always)]
unsafe fn squares_row<V: Lanes>(src: *const f32, count: u64) -> f32 {
    // SAFETY: the caller vouches for the array.
    unsafe { squares::<V>(src, count as usize) }.first()
}

/// # Safety
/// As for [`centred_squares_row_f32`].
#[inline(always)]
unsafe fn centred_squares_row<V: Lanes>(src: *const f32, count: u64, mean: f32) -> f32 {
    // SAFETY: the caller vouches for the array.
    unsafe { centred_squares(src, count as usize, V::splat(mean)) }.first()
}

per_level! {
    /// The sum of a row; +0 of an empty one.
    ///
    /// # Safety
    /// `count` elements can be read at `src`.
    pub(crate) mod sum_row_f32 = sum_row::<lanes>(src: *const f32, count: u64) -> f32;
    /// The product of a row; 1 of an empty one.
    ///
    /// # Safety
    /// `count` elements can be read at `src`.
    pub(crate) mod product_row_f32 = product_row::<lanes>(src: *const f32, count: u64) -> f32;
    /// The greatest element of a row, NaN if one is NaN; -0 is less than +0; -inf of an empty row.
    ///
    /// # Safety
    /// `count` elements can be read at `src`.
    pub(crate) mod max_row_f32 = max_row::<lanes>(src: *const f32, count: u64) -> f32;
    /// The least element of a row, NaN if one is NaN; -0 is less than +0; inf of an empty row.
    ///
    /// # Safety
    /// `count` elements can be read at `src`.
    pub(crate) mod min_row_f32 = min_row::<lanes>(src: *const f32, count: u64) -> f32;
    /// The sum of the squares of a row, by fused multiply-adds.
    ///
    /// # Safety
    /// `count` elements can be read at `src`.
    pub(crate) mod squares_row_f32 = squares_row::<lanes>(src: *const f32, count: u64) -> f32;
    /// The sum of the squares of `x - mean`, the differences rounded, by fused multiply-adds.
    ///
    /// # Safety
    /// `count` elements can be read at `src`.
    pub(crate) mod centred_squares_row_f32 = centred_squares_row::<lanes>(src: *const f32, count: u64, mean: f32) -> f32;
}
