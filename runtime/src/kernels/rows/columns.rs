//! Row functions of sixteen rows that lie side by side: element `i` of row `j` is number `16 i + j` of a block. Every row gets
//! the bits that it gets where it lies by itself.

use super::norm::inverse_deviation;
use super::reduce::{CentredSquares, Fold, Greatest, Squares, Sum};
use crate::kernels::lanes::{self, Lanes, WIDTH};
use crate::kernels::level::per_level;
use crate::kernels::math;

/// How accumulators are put together: `i` and `i + 8` first, then 4, 2 and 1 apart, as lanes of a row are.
trait Combine<V: Lanes> {
    fn combine(a: V, b: V) -> V;
}

impl<V: Lanes> Combine<V> for Sum {
    #[inline(always)]
    fn combine(a: V, b: V) -> V {
        a.add(b)
    }
}

impl<V: Lanes> Combine<V> for Greatest {
    #[inline(always)]
    fn combine(a: V, b: V) -> V {
        a.max(b)
    }
}

#[inline(always)]
fn combined<V: Lanes, C: Combine<V>>(mut sums: [V; WIDTH]) -> V {
    for distance in [8, 4, 2, 1] {
        for i in 0..distance {
            sums[i] = C::combine(sums[i], sums[i + distance]);
        }
    }
    sums[0]
}

/// What is done with the elements of all rows at one place. A trait for the reason that [`super::Step`] is one.
trait Step<V: Lanes> {
    /// # Safety
    /// The block has an element for every row at `place`; `lane` is what is left of the place by 16.
    unsafe fn take(&mut self, place: usize, lane: usize);
}

/// Takes a step through the places of a block, and returns what it has become.
///
/// # Safety
/// The block of the step has `count` places.
#[inline(always)]
unsafe fn walk<V: Lanes, S: Step<V>>(count: usize, mut step: S) -> S {
    let whole = count / WIDTH * WIDTH;
    // SAFETY: all places are below the count.
    unsafe {
        for at in (0..whole).step_by(WIDTH) {
            for lane in 0..WIDTH {
                step.take(at + lane, lane);
            }
        }
        for lane in 0..count - whole {
            step.take(whole + lane, lane);
        }
    }
    step
}

struct Reduce<V: Lanes, F> {
    block: *const f32,
    sums: [V; WIDTH],
    parameter: V,
    fold: std::marker::PhantomData<F>,
}

impl<V: Lanes, F: Fold<V>> Step<V> for Reduce<V, F> {
    #[inline(always)]
    unsafe fn take(&mut self, place: usize, lane: usize) {
        // SAFETY: the caller vouches for the block.
        let x = unsafe { V::load(self.block.add(place * WIDTH)) };
        self.sums[lane] = F::fold(self.sums[lane], x, self.parameter);
    }
}

/// # Safety
/// `count` places can be read at `block`.
#[inline(always)]
unsafe fn reduce<V: Lanes, F: Fold<V>, C: Combine<V>>(block: *const f32, count: usize, start: f32, parameter: V) -> V {
    let step = Reduce::<V, F> { block, sums: [V::splat(start); WIDTH], parameter, fold: std::marker::PhantomData };
    // SAFETY: the caller vouches for the block.
    combined::<V, C>(unsafe { walk(count, step) }.sums)
}

/// `(x - first) - second` or `(x - first) * second`, in place.
struct Finish<V: Lanes, const SCALED: bool> {
    block: *mut f32,
    first: V,
    second: V,
}

impl<V: Lanes, const SCALED: bool> Step<V> for Finish<V, SCALED> {
    #[inline(always)]
    unsafe fn take(&mut self, place: usize, _: usize) {
        // SAFETY: the caller vouches for the block.
        unsafe {
            let at = self.block.add(place * WIDTH);
            let x = V::load(at).sub(self.first);
            let x = if SCALED { x.mul(self.second) } else { x.sub(self.second) };
            x.store(at);
        }
    }
}

/// `exp(x - shift)`, added up, and written in place where it is `KEPT`.
struct Exponentials<V: Lanes, const KEPT: bool> {
    block: *mut f32,
    shift: V,
    sums: [V; WIDTH],
}

impl<V: Lanes, const KEPT: bool> Step<V> for Exponentials<V, KEPT> {
    #[inline(always)]
    unsafe fn take(&mut self, place: usize, lane: usize) {
        // SAFETY: the caller vouches for the block.
        unsafe {
            let at = self.block.add(place * WIDTH);
            let exponential = math::exp_of_term(V::load(at).sub(self.shift));
            self.sums[lane] = self.sums[lane].add(exponential);
            if KEPT {
                exponential.store(at);
            }
        }
    }
}

/// # Safety
/// As for [`normalise_columns_f32`].
#[inline(always)]
unsafe fn normalise_columns<V: Lanes>(block: *mut f32, count: u64, epsilon: f32, is_centred: u64) {
    let places = count as usize;
    let zero = V::splat(0.0);
    // SAFETY: the caller vouches for the block.
    unsafe {
        let (mean, squares) = if is_centred == 0 {
            (zero, reduce::<V, Squares, Sum>(block, places, 0.0, zero))
        } else {
            let mean = reduce::<V, Sum, Sum>(block, places, 0.0, zero).div(V::splat(count as f32));
            (mean, reduce::<V, CentredSquares, Sum>(block, places, 0.0, mean))
        };
        let second = inverse_deviation(squares, places, epsilon);
        walk(places, Finish::<V, true> { block, first: mean, second });
    }
}

/// # Safety
/// As for [`softmax_columns_f32`].
#[inline(always)]
unsafe fn softmax_columns<V: Lanes>(block: *mut f32, count: u64, is_logarithm: u64) {
    let places = count as usize;
    let zero = V::splat(0.0);
    // SAFETY: the caller vouches for the block.
    unsafe {
        // NaN elements are passed over here and come back in the sum of the exponentials.
        let shift = reduce::<V, Greatest, Greatest>(block, places, f32::NEG_INFINITY, zero);
        let sums = [zero; WIDTH];
        if is_logarithm == 0 {
            let sum = combined::<V, Sum>(walk(places, Exponentials::<V, true> { block, shift, sums }).sums);
            walk(places, Finish::<V, true> { block, first: zero, second: V::splat(1.0).div(sum) });
        } else {
            let sum = combined::<V, Sum>(walk(places, Exponentials::<V, false> { block, shift, sums }).sums);
            walk(places, Finish::<V, false> { block, first: shift, second: math::log(sum) });
        }
    }
}

per_level! {
    /// Layer normalisation of sixteen rows side by side, or normalisation by the root mean square if `is_centred` is 0.
    ///
    /// # Safety
    /// `16 * count` elements can be read and written at `block`.
    pub(crate) mod normalise_columns_f32 = normalise_columns::<lanes>(
        block: *mut f32, count: u64, epsilon: f32, is_centred: u64,
    );
    /// Softmax of sixteen rows side by side, or its logarithm if `is_logarithm` is not 0.
    ///
    /// # Safety
    /// `16 * count` elements can be read and written at `block`.
    pub(crate) mod softmax_columns_f32 = softmax_columns::<lanes>(block: *mut f32, count: u64, is_logarithm: u64);
}
