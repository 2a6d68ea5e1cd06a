//! Depthwise convolution, channels innermost: each channel is convolved with its own few weights.

use super::gemm::{Activation, FloatSlot};
use super::lanes::{self, Group, Lanes};
use super::level::per_level;
use super::math;
use super::strips;
use super::window::{self, Operation, Window};

/// One segment of an output row of a depthwise convolution. Every output is one chain of fused multiply-adds over the
/// taps in order, from +0, leaving out taps that are null; then times the scale, plus the bias, and the activation.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DepthwiseBlock {
    /// The segment and its taps.
    pub window: Window,
    /// The weights of the first tap, by channel.
    pub weights: *const f32,
    /// Distance of the weights of two taps.
    pub weight_stride: i64,
    /// A factor for each channel, or null.
    pub scale: *const f32,
    /// A summand for each channel, or null.
    pub bias: *const f32,
    /// An [`Activation`] as its number; unknown numbers are [`Activation::None`].
    pub activation: u64,
    /// The parameters of the activation, each in the first four bytes of its slot.
    pub activation_parameters: [FloatSlot; 2],
}

impl<V: Lanes> Operation<V> for DepthwiseBlock {
    const PANELS: usize = 4;
    type Factor = V;
    type Ending = (V, V);

    #[inline(always)]
    fn start(&self) -> V {
        V::splat(0.0)
    }
    #[inline(always)]
    unsafe fn factor(&self, tap: usize, group: impl Group<V>) -> V {
        // SAFETY: every tap has a weight for each channel.
        unsafe { group.load(self.weights.offset(tap as isize * self.weight_stride as isize)) }
    }
    #[inline(always)]
    fn step(sum: V, x: V, factor: V) -> V {
        x.fma(factor, sum)
    }
    #[inline(always)]
    unsafe fn ending(&self, group: impl Group<V>) -> (V, V) {
        let load = |array: *const f32| {
            // SAFETY: the array, where there is one, has an element for each channel.
            if array.is_null() { V::splat(0.0) } else { unsafe { group.load(array) } }
        };
        (load(self.scale), load(self.bias))
    }
    #[inline(always)]
    fn finish<const PIXELS: usize>(&self, mut sums: [V; PIXELS], (scale, bias): (V, V)) -> [V; PIXELS] {
        const RELU: u64 = Activation::Relu as u64;
        const CLIP: u64 = Activation::Clip as u64;
        const LEAKY_RELU: u64 = Activation::LeakyRelu as u64;
        const HARD_SWISH: u64 = Activation::HardSwish as u64;
        if !self.scale.is_null() {
            for sum in &mut sums {
                *sum = sum.mul(scale);
            }
        }
        if !self.bias.is_null() {
            for sum in &mut sums {
                *sum = sum.add(bias);
            }
        }
        let [p0, p1] = self.activation_parameters.map(|parameter| V::splat(parameter.0));
        match self.activation {
            RELU => {
                for sum in &mut sums {
                    *sum = math::relu(*sum);
                }
            }
            CLIP => {
                let [low, high] = self.activation_parameters;
                match math::Bounds::new(low.0, high.0) {
                    Some(bounds) => {
                        for sum in &mut sums {
                            *sum = bounds.clip(*sum);
                        }
                    }
                    None => {
                        for sum in &mut sums {
                            *sum = math::clip(*sum, p0, p1);
                        }
                    }
                }
            }
            LEAKY_RELU => {
                for sum in &mut sums {
                    *sum = math::leaky_relu(*sum, p0);
                }
            }
            HARD_SWISH => {
                for sum in &mut sums {
                    *sum = math::hard_swish(*sum);
                }
            }
            _ => {}
        }
        sums
    }
    /// The long activations: once for all tiles, on what was just stored.
    #[inline(always)]
    unsafe fn revise(&self, output: *mut f32, count: usize) {
        const SIGMOID: u64 = Activation::Sigmoid as u64;
        const TANH: u64 = Activation::Tanh as u64;
        const SILU: u64 = Activation::Silu as u64;
        const GELU: u64 = Activation::Gelu as u64;
        const GELU_TANH: u64 = Activation::GeluTanh as u64;
        let count = count as u64;
        // SAFETY: the caller vouches for the outputs.
        unsafe {
            match self.activation {
                SIGMOID => strips::sigmoid_f32::<V>(output, output, count),
                TANH => strips::tanh_f32::<V>(output, output, count),
                SILU => strips::silu_f32::<V>(output, output, count),
                GELU => strips::gelu_f32::<V>(output, output, count),
                GELU_TANH => strips::gelu_tanh_f32::<V>(output, output, count),
                _ => {}
            }
        }
    }
    #[inline(always)]
    fn revises(&self) -> bool {
        self.activation > Activation::HardSwish as u64
    }
}

/// # Safety
/// As for [`depthwise_f32`].
#[inline(always)]
unsafe fn depthwise<V: Lanes>(block: *const DepthwiseBlock) {
    // SAFETY: the caller vouches for the block and its arrays.
    unsafe { window::run::<V, _>(&(*block).window, &*block) }
}

per_level! {
    /// [`DepthwiseBlock`] says what it computes.
    ///
    /// # Safety
    /// The block and the arrays it points at can be read for the sizes and strides it gives, the output can be written
    /// and overlaps none of them.
    pub(crate) mod depthwise_f32 = depthwise::<lanes>(block: *const DepthwiseBlock);
}
