//! What happens to the sums of a tile: to floats, through scales, bias, residual and activation, and to what is stored.

use super::STRIP;
use super::block::{ByteBlock, Quantisation, Stored};
use super::lanes::Sums;
use crate::kernels::gemm::Activation;
use crate::kernels::gemm::curve::{self, Curve};
use crate::kernels::lanes::{Lanes, WIDTH};

/// Does what the block says with sums, whose rows are [`STRIP`] apart, and stores them: of so many rows from one on, and so
/// many columns from one on.
///
/// # Safety
/// The rows and columns lie in the block, whose arrays are valid; sums of whole panels can be read; the CPU is of the level
/// the function was compiled for.
pub(crate) type FinishFunction = unsafe fn(block: &ByteBlock, rows: [usize; 2], columns: [usize; 2], sums: *const i32);

/// # Safety
/// As for [`FinishFunction`].
#[inline(always)]
pub(super) unsafe fn finish<S: Sums>(block: &ByteBlock, rows: [usize; 2], columns: [usize; 2], sums: *const i32) {
    let strip = &Strip { block, rows, columns, sums };
    const RELU: u64 = Activation::Relu as u64;
    const CLIP: u64 = Activation::Clip as u64;
    const LEAKY_RELU: u64 = Activation::LeakyRelu as u64;
    const HARD_SWISH: u64 = Activation::HardSwish as u64;
    const SIGMOID: u64 = Activation::Sigmoid as u64;
    const TANH: u64 = Activation::Tanh as u64;
    const SILU: u64 = Activation::Silu as u64;
    const GELU: u64 = Activation::Gelu as u64;
    const GELU_TANH: u64 = Activation::GeluTanh as u64;
    let [p0, p1] = block.activation_parameters.map(|parameter| parameter.0);
    // SAFETY: the caller vouches for the strip and the arrays.
    unsafe {
        match block.activation {
            RELU => with::<S>(strip, curve::Relu),
            CLIP => with::<S>(strip, curve::Clip(p0, p1)),
            LEAKY_RELU => with::<S>(strip, curve::LeakyRelu(p0)),
            HARD_SWISH => with::<S>(strip, curve::HardSwish),
            SIGMOID => with::<S>(strip, curve::Sigmoid),
            TANH => with::<S>(strip, curve::Tanh),
            SILU => with::<S>(strip, curve::Silu),
            GELU => with::<S>(strip, curve::Gelu),
            GELU_TANH => with::<S>(strip, curve::GeluTanh),
            _ => with::<S>(strip, curve::Identity),
        }
    }
}

/// A [`Quantisation`] in registers. What has no effect is left out: a step of 1, a zero of 0.
struct Codes<S: Sums> {
    stored: u64,
    scale: Option<S::Floats>,
    step: Option<S::Floats>,
    zero: Option<S::Floats>,
    whole_zero: Option<S>,
    /// The least and the greatest number that has a code, before the zero is added.
    low: S::Floats,
    high: S::Floats,
}

impl<S: Sums> Codes<S> {
    #[inline(always)]
    fn new(from: &Quantisation) -> Self {
        let (low, high) = if from.stored == Stored::I8 as u64 { (-128.0, 127.0) } else { (0.0, 255.0) };
        let zero = from.zero.0;
        let factor = |value: f32| if value == 1.0 { None } else { Some(S::Floats::splat(value)) };
        Codes {
            stored: from.stored,
            scale: factor(from.scale.0),
            step: factor(from.step.0),
            zero: if zero == 0.0 { None } else { Some(S::Floats::splat(zero)) },
            whole_zero: if zero == 0.0 { None } else { Some(S::splat(zero as i32)) },
            low: S::Floats::splat(low - zero),
            high: S::Floats::splat(high - zero),
        }
    }

    #[inline(always)]
    fn is(&self, stored: Stored) -> bool {
        self.stored == stored as u64
    }

    /// A number as far as it has a code. The zero is a whole number, so clamping before it is added and before rounding is
    /// the same as after.
    #[inline(always)]
    fn clamped(&self, x: S::Floats) -> S::Floats {
        let x = scaled(x, self.scale);
        // NaN becomes the code 0: of unsigned bytes the least, of signed ones what the zero is added to.
        let nothing = if self.is(Stored::I8) { self.zero.map_or(S::Floats::splat(0.0), Lanes::neg) } else { self.low };
        let x = if self.is(Stored::I8) { S::Floats::select(x.is_nan(), nothing, x) } else { x };
        x.greater(self.low).lesser(self.high)
    }

    /// The code of a number.
    #[inline(always)]
    fn code(&self, x: S::Floats) -> S {
        let whole = S::nearest(self.clamped(x));
        self.whole_zero.map_or(whole, |zero| whole.add(zero))
    }

    /// The number that the code of a number stands for.
    #[inline(always)]
    fn snapped(&self, x: S::Floats) -> S::Floats {
        // A code has no sign of zero.
        scaled(S::round(self.clamped(x)).add(S::Floats::splat(0.0)), self.step)
    }

    /// The number that a code stands for.
    #[inline(always)]
    fn number(&self, code: S) -> S::Floats {
        let whole = code.to_floats();
        scaled(self.zero.map_or(whole, |zero| whole.sub(zero)), self.step)
    }
}

#[inline(always)]
fn scaled<F: Lanes>(x: F, factor: Option<F>) -> F {
    factor.map_or(x, |factor| x.mul(factor))
}

/// Sums and where they go.
struct Strip<'a> {
    block: &'a ByteBlock,
    rows: [usize; 2],
    columns: [usize; 2],
    sums: *const i32,
}

/// # Safety
/// As for [`FinishFunction`].
#[inline(always)]
unsafe fn with<S: Sums>(strip: &Strip<'_>, activation: impl Curve) {
    // A copy: stores to C do not change it, so nothing of it is read again.
    let block = *strip.block;
    let (snap, residual_type, output) =
        (Codes::<S>::new(&block.snap), Codes::<S>::new(&block.residual_type), Codes::<S>::new(&block.output));
    let scale = if block.scale.0 == 1.0 { None } else { Some(S::Floats::splat(block.scale.0)) };
    let ([first_row, height], [first_column, width]) = (strip.rows, strip.columns);
    for panel in 0..width.div_ceil(WIDTH) {
        let column = first_column + panel * WIDTH;
        let lanes = (width - panel * WIDTH).min(WIDTH);
        let mask = S::Floats::mask(lanes);
        // SAFETY: the panel's columns in the mask are in the block, and so are those of its vectors.
        let [column_scale, column_bias] = unsafe {
            [of_columns::<S>(block.column_scale, column, mask), of_columns::<S>(block.column_bias, column, mask)]
        };
        // SAFETY: as above.
        let offset = unsafe {
            if block.offset.is_null() { None } else { Some(S::load(block.offset.wrapping_add(column), lanes)) }
        };
        for row in 0..height {
            let place = ((first_row + row) as i64 * block.c_row_stride) as isize + column as isize;
            // SAFETY: the panel's columns in the mask are in the block, and so are those of the residual; the sums of whole
            // panels can be read.
            unsafe {
                let mut sum = S::load(strip.sums.add(row * STRIP + panel * WIDTH), WIDTH);
                if let Some(offset) = offset {
                    sum = sum.sub(offset);
                }
                if output.is(Stored::I32) {
                    sum.store(block.c.cast::<i32>().offset(place), lanes);
                    continue;
                }
                let mut x = scaled(scaled(sum.to_floats(), scale), column_scale);
                if let Some(bias) = column_bias {
                    x = x.add(bias);
                }
                if !snap.is(Stored::F32) {
                    x = snap.snapped(x);
                }
                if !block.residual.is_null() {
                    let place = ((first_row + row) as i64 * block.residual_row_stride) as isize + column as isize;
                    let residual = if residual_type.is(Stored::F32) {
                        S::Floats::load_masked(block.residual.cast::<f32>().offset(place), mask)
                    } else {
                        let from = block.residual.offset(place);
                        residual_type.number(S::load_bytes(from, lanes, residual_type.is(Stored::I8)))
                    };
                    x = x.add(residual);
                }
                x = activation.of(x);
                if output.is(Stored::F32) {
                    x.store_masked(block.c.cast::<f32>().offset(place), mask);
                } else {
                    output.code(x).store_bytes(block.c.offset(place), lanes);
                }
            }
        }
    }
}

/// The columns of a panel in a vector of all, if there is one.
///
/// # Safety
/// The columns in the mask can be read.
#[inline(always)]
unsafe fn of_columns<S: Sums>(
    vector: *const f32,
    column: usize,
    mask: <S::Floats as Lanes>::Mask,
) -> Option<S::Floats> {
    // SAFETY: the caller vouches for the columns.
    if vector.is_null() { None } else { Some(unsafe { S::Floats::load_masked(vector.add(column), mask) }) }
}
