//! Activations made of comparisons, products and sums: exactly the scalar expression each states, every operation
//! rounded once.

use crate::kernels::lanes::Lanes;

/// `max(x, 0)`: NaN for NaN, +0 for -0.
#[inline(always)]
pub(crate) fn relu<V: Lanes>(x: V) -> V {
    // The single instruction lets NaN pass this way round, but also -0, to which adding +0 gives +0.
    V::splat(0.0).greater(x).add(V::splat(0.0))
}

/// `min(max(x, low), high)`.
#[inline(always)]
pub(crate) fn clip<V: Lanes>(x: V, low: V, high: V) -> V {
    x.max(low).min(high)
}

/// Bounds with which [`clip`] is three instructions: numbers, and no upper bound of -0.
#[derive(Clone, Copy)]
pub(crate) struct Bounds<V> {
    low: V,
    high: V,
    /// What turns -0 to +0 where that is the lower bound, and nothing else.
    lift: V,
}

impl<V: Lanes> Bounds<V> {
    #[inline(always)]
    pub(crate) fn new(low: f32, high: f32) -> Option<Self> {
        let usual = !low.is_nan() && !high.is_nan() && high.to_bits() != (-0f32).to_bits();
        let lift = if low.to_bits() == 0 { 0. } else { -0. };
        // No closure: one that is not inlined would not be compiled for the level.
        if usual { Some(Bounds { low: V::splat(low), high: V::splat(high), lift: V::splat(lift) }) } else { None }
    }

    /// [`clip`] of a value. Where both are equal or either is NaN, the instructions give the value.
    #[inline(always)]
    pub(crate) fn clip(self, x: V) -> V {
        self.high.lesser(self.low.greater(x.add(self.lift)))
    }
}

/// `x < 0 ? slope * x : x`.
#[inline(always)]
pub(crate) fn leaky_relu<V: Lanes>(x: V, slope: V) -> V {
    x.unless_negative(x.mul(slope))
}

/// `max(0, min(1, slope * x + offset))`.
#[inline(always)]
pub(crate) fn hard_sigmoid<V: Lanes>(x: V, slope: V, offset: V) -> V {
    relu(V::splat(1.0).lesser(x.mul(slope).add(offset)))
}

/// `x * max(0, min(1, x / 6 + 1/2))`, with that division; NaN for -inf, as the product says.
#[inline(always)]
pub(crate) fn hard_swish<V: Lanes>(x: V) -> V {
    x.mul(relu(V::splat(1.0).lesser(x.div(V::splat(6.0)).add(V::splat(0.5)))))
}

/// `scale * x + shift`, rounded twice.
#[inline(always)]
pub(crate) fn scale_shift<V: Lanes>(x: V, scale: V, shift: V) -> V {
    x.mul(scale).add(shift)
}
