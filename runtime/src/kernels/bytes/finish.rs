//! What happens to the sums of a tile: to floats, through scales, bias, residual and activation, and to what is stored.

use super::block::{ByteBlock, Quantisation, Stored};
use super::lanes::Sums;
use crate::kernels::gemm::Activation;
use crate::kernels::gemm::curve::{self, Curve};
use crate::kernels::lanes::{Lanes, WIDTH};

/// A tile of sums.
pub(crate) struct Unfinished<'a, S> {
    pub(super) block: &'a ByteBlock,
    /// The first row of the tile.
    pub(super) row: usize,
    /// The first column of the tile.
    pub(super) column: usize,
    /// The panels of the tile, row by row.
    pub(super) sums: &'a [S],
    /// How many panels each row has; the last may reach beyond the columns of the block.
    pub(super) panels: usize,
}

/// Does what the block says with the sums and stores the tile.
///
/// # Safety
/// The tile lies in the block, whose arrays are valid; the CPU is of the level the function was compiled for.
pub(crate) type FinishFunction<S> = unsafe fn(tile: &Unfinished<S>);

/// # Safety
/// As for [`FinishFunction`].
#[inline(always)]
pub(super) unsafe fn finish<S: Sums>(tile: &Unfinished<S>) {
    const RELU: u64 = Activation::Relu as u64;
    const CLIP: u64 = Activation::Clip as u64;
    const LEAKY_RELU: u64 = Activation::LeakyRelu as u64;
    const HARD_SWISH: u64 = Activation::HardSwish as u64;
    const SIGMOID: u64 = Activation::Sigmoid as u64;
    const TANH: u64 = Activation::Tanh as u64;
    const SILU: u64 = Activation::Silu as u64;
    const GELU: u64 = Activation::Gelu as u64;
    const GELU_TANH: u64 = Activation::GeluTanh as u64;
    let [p0, p1] = tile.block.activation_parameters.map(|parameter| parameter.0);
    // SAFETY: the caller vouches for the tile and the arrays.
    unsafe {
        match tile.block.activation {
            RELU => with(tile, curve::Relu),
            CLIP => with(tile, curve::Clip(p0, p1)),
            LEAKY_RELU => with(tile, curve::LeakyRelu(p0)),
            HARD_SWISH => with(tile, curve::HardSwish),
            SIGMOID => with(tile, curve::Sigmoid),
            TANH => with(tile, curve::Tanh),
            SILU => with(tile, curve::Silu),
            GELU => with(tile, curve::Gelu),
            GELU_TANH => with(tile, curve::GeluTanh),
            _ => with(tile, curve::Identity),
        }
    }
}

/// A [`Quantisation`] in registers.
struct Codes<F> {
    stored: u64,
    scale: F,
    zero: F,
    step: F,
    low: F,
    high: F,
}

impl<F: Lanes> Codes<F> {
    #[inline(always)]
    fn new(from: &Quantisation) -> Self {
        let (low, high) = if from.stored == Stored::I8 as u64 { (-128.0, 127.0) } else { (0.0, 255.0) };
        let [scale, zero, step] = [from.scale, from.zero, from.step].map(|value| F::splat(value.0));
        Codes { stored: from.stored, scale, zero, step, low: F::splat(low), high: F::splat(high) }
    }

    #[inline(always)]
    fn is(&self, stored: Stored) -> bool {
        self.stored == stored as u64
    }

    /// The whole number that stands for a number.
    #[inline(always)]
    fn whole<S: Sums<Floats = F>>(&self, x: F) -> F {
        let whole = S::round(x.mul(self.scale)).add(self.zero);
        // A NaN becomes the bound that comes second: 0 for unsigned bytes; signed ones ask.
        let whole = if self.is(Stored::I8) { F::select(whole.is_nan(), F::splat(0.0), whole) } else { whole };
        whole.greater(self.low).lesser(self.high)
    }

    /// The number that a whole number stands for.
    #[inline(always)]
    fn number(&self, whole: F) -> F {
        whole.sub(self.zero).mul(self.step)
    }
}

/// Part of a vector over the columns, zeros if there is none.
///
/// # Safety
/// The columns in the mask can be read.
#[inline(always)]
unsafe fn vector<F: Lanes>(from: *const f32, column: usize, mask: F::Mask) -> F {
    // SAFETY: the caller vouches for the columns.
    if from.is_null() { F::splat(0.0) } else { unsafe { F::load_masked(from.wrapping_add(column), mask) } }
}

/// # Safety
/// As for [`FinishFunction`].
#[inline(always)]
unsafe fn with<S: Sums>(tile: &Unfinished<S>, activation: impl Curve) {
    let block = tile.block;
    let (snap, residual_type, output) =
        (Codes::new(&block.snap), Codes::new(&block.residual_type), Codes::new(&block.output));
    let scale = S::Floats::splat(block.scale.0);
    for panel in 0..tile.panels {
        let column = tile.column + panel * WIDTH;
        let lanes = (block.columns as usize - column).min(WIDTH);
        let mask = S::Floats::mask(lanes);
        // SAFETY: the panel's columns in the mask are in the block, and so are those of its vectors and of the residual.
        unsafe {
            let column_scale = vector::<S::Floats>(block.column_scale, column, mask);
            let column_bias = vector::<S::Floats>(block.column_bias, column, mask);
            let offset = match block.offset.is_null() {
                true => S::splat(0),
                false => S::load(block.offset.wrapping_add(column), lanes),
            };
            let sums = tile.sums.iter().skip(panel).step_by(tile.panels);
            for (row, sum) in (tile.row..).zip(sums) {
                let sum = if block.offset.is_null() { *sum } else { sum.sub(offset) };
                let place = (row as i64 * block.c_row_stride) as isize + column as isize;
                if output.is(Stored::I32) {
                    sum.store(block.c.cast::<i32>().wrapping_offset(place), lanes);
                    continue;
                }
                let mut x = sum.to_floats().mul(scale);
                if !block.column_scale.is_null() {
                    x = x.mul(column_scale);
                }
                if !block.column_bias.is_null() {
                    x = x.add(column_bias);
                }
                if !snap.is(Stored::F32) {
                    x = snap.number(snap.whole::<S>(x));
                }
                if !block.residual.is_null() {
                    let place = (row as i64 * block.residual_row_stride) as isize + column as isize;
                    let residual = if residual_type.is(Stored::F32) {
                        S::Floats::load_masked(block.residual.cast::<f32>().wrapping_offset(place), mask)
                    } else {
                        let from = block.residual.wrapping_offset(place);
                        let whole = S::load_bytes(from, lanes, residual_type.is(Stored::I8));
                        residual_type.number(whole.to_floats())
                    };
                    x = x.add(residual);
                }
                x = activation.of(x);
                if output.is(Stored::F32) {
                    x.store_masked(block.c.cast::<f32>().wrapping_offset(place), mask);
                } else {
                    S::from_floats(output.whole::<S>(x)).store_bytes(block.c.wrapping_offset(place), lanes);
                }
            }
        }
    }
}
