//! What happens to the sums of a tile before they are stored.
//!
//! Scales, bias, residual and the short activations are compiled into every tile and work on its registers. The long
//! activations exist once for each level and work on the tile as it lies on the stack, in L1.

use super::block::{Activation, GemmBlock, ResidualPlace};
use super::curve::{self, Curve};
use super::tile::Place;
use crate::kernels::lanes::{Lanes, WIDTH};
use crate::kernels::math;

/// A tile with everything done that comes before its activation.
pub(crate) struct Unfinished<'a, V> {
    pub(super) block: &'a GemmBlock,
    /// The first row of the tile.
    pub(super) row: usize,
    /// The first column of the tile.
    pub(super) column: usize,
    /// The panels of the tile, row by row.
    pub(super) sums: &'a [V],
    /// How many panels each row has; the last may reach beyond the columns of the block.
    pub(super) panels: usize,
}

/// Applies activation and residual and stores the tile.
///
/// # Safety
/// The tile lies in the block, whose arrays are valid; the CPU is of the level the function was compiled for.
pub(crate) type FinishFunction<V> = unsafe fn(tile: &Unfinished<V>);

/// Scales, bias, and the residual if it comes before the activation.
///
/// # Safety
/// The tile lies in the block, whose arrays are valid.
#[inline(always)]
pub(super) unsafe fn begin<V: Lanes, const ROWS: usize, const PANELS: usize>(
    block: &GemmBlock,
    place: &impl Place<V, PANELS>,
    sums: &mut [[V; PANELS]; ROWS],
) {
    // SAFETY: column vectors and residual are valid for the sizes and strides of the block.
    unsafe {
        if block.scale.0 != 1.0 {
            let scale = V::splat(block.scale.0);
            each(sums, |_, x| x.mul(scale));
        }
        if !block.column_scale.is_null() {
            let scale = place.columns(block.column_scale);
            each(sums, |p, x| x.mul(scale[p]));
        }
        if block.residual_place == ResidualPlace::BeforeBias as u64 {
            add_residual(block, place, sums);
        }
        if !block.column_bias.is_null() {
            let bias = place.columns(block.column_bias);
            each(sums, |p, x| x.add(bias[p]));
        }
        if block.residual_place == ResidualPlace::BeforeActivation as u64 {
            add_residual(block, place, sums);
        }
    }
}

/// Whether [`end`] knows the activation of the block, so that [`finish`] is not needed.
#[inline(always)]
pub(super) fn ends_in_registers(block: &GemmBlock) -> bool {
    block.activation <= Activation::LAST_SHORT as u64
}

/// A short activation, and the residual if it comes after.
///
/// # Safety
/// The tile lies in the block, whose arrays are valid.
#[inline(always)]
pub(super) unsafe fn end<V: Lanes, const ROWS: usize, const PANELS: usize>(
    block: &GemmBlock,
    place: &impl Place<V, PANELS>,
    sums: &mut [[V; PANELS]; ROWS],
) {
    const RELU: u64 = Activation::Relu as u64;
    const CLIP: u64 = Activation::Clip as u64;
    const LEAKY_RELU: u64 = Activation::LeakyRelu as u64;
    const HARD_SWISH: u64 = Activation::HardSwish as u64;
    let [p0, p1] = block.activation_parameters.map(|parameter| V::splat(parameter.0));
    match block.activation {
        RELU => each(sums, |_, x| math::relu(x)),
        CLIP => {
            let [low, high] = block.activation_parameters;
            match math::Bounds::new(low.0, high.0) {
                Some(bounds) => each(sums, |_, x| bounds.clip(x)),
                None => each(sums, |_, x| math::clip(x, p0, p1)),
            }
        }
        LEAKY_RELU => each(sums, |_, x| math::leaky_relu(x, p0)),
        HARD_SWISH => each(sums, |_, x| math::hard_swish(x)),
        _ => {}
    }
    if block.residual_place == ResidualPlace::AfterActivation as u64 {
        // SAFETY: the residual is valid for the sizes and strides of the block.
        unsafe { add_residual(block, place, sums) };
    }
}

/// Adds the residual, if there is one.
///
/// # Safety
/// The tile lies in the block, whose arrays are valid.
#[inline(always)]
unsafe fn add_residual<V: Lanes, const ROWS: usize, const PANELS: usize>(
    block: &GemmBlock,
    place: &impl Place<V, PANELS>,
    sums: &mut [[V; PANELS]; ROWS],
) {
    if block.residual.is_null() {
        return;
    }
    for (r, sums) in sums.iter_mut().enumerate() {
        // SAFETY: the residual has the rows and columns of the block.
        let residual = unsafe { place.row(block.residual, block.residual_row_stride, r) };
        for (sum, residual) in sums.iter_mut().zip(residual) {
            *sum = sum.add(residual);
        }
    }
}

/// Replaces every panel of the tile by a function of its place in the row and itself.
#[inline(always)]
fn each<V: Lanes, const ROWS: usize, const PANELS: usize>(
    sums: &mut [[V; PANELS]; ROWS],
    replace: impl Fn(usize, V) -> V,
) {
    for sums in sums {
        for (p, sum) in sums.iter_mut().enumerate() {
            *sum = replace(p, *sum);
        }
    }
}

/// The long activations, the residual if it comes after, and the store.
///
/// # Safety
/// As for [`FinishFunction`].
#[inline(always)]
pub(super) unsafe fn finish<V: Lanes>(tile: &Unfinished<V>) {
    const SIGMOID: u64 = Activation::Sigmoid as u64;
    const TANH: u64 = Activation::Tanh as u64;
    const SILU: u64 = Activation::Silu as u64;
    const GELU: u64 = Activation::Gelu as u64;
    const GELU_TANH: u64 = Activation::GeluTanh as u64;
    // SAFETY: the caller vouches for the tile and the arrays.
    unsafe {
        match tile.block.activation {
            SIGMOID => finish_with(tile, curve::Sigmoid),
            TANH => finish_with(tile, curve::Tanh),
            SILU => finish_with(tile, curve::Silu),
            GELU => finish_with(tile, curve::Gelu),
            GELU_TANH => finish_with(tile, curve::GeluTanh),
            _ => finish_with(tile, curve::Identity),
        }
    }
}

/// # Safety
/// As for [`FinishFunction`].
#[inline(always)]
unsafe fn finish_with<V: Lanes>(tile: &Unfinished<V>, activation: impl Curve) {
    let block = tile.block;
    let has_residual = !block.residual.is_null() && block.residual_place == ResidualPlace::AfterActivation as u64;
    for (index, &sum) in tile.sums.iter().enumerate() {
        let (row, column) = (tile.row + index / tile.panels, tile.column + index % tile.panels * WIDTH);
        let mask = V::mask((block.columns as usize - column).min(WIDTH));
        let mut result = activation.of(sum);
        // SAFETY: the panel's columns in the mask are in the block, as are those of the residual.
        unsafe {
            if has_residual {
                let offset = row as isize * block.residual_row_stride as isize + column as isize;
                result = result.add(V::load_masked(block.residual.offset(offset), mask));
            }
            let offset = row as isize * block.c_row_stride as isize + column as isize;
            result.store_masked(block.c.offset(offset), mask);
        }
    }
}
