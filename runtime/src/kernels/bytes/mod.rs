//! Products of bytes: `C = epilogue(sum over items of A_item * B_item)` on one block of C, where A holds unsigned bytes, B
//! signed ones, and sums are 32-bit integers.
//!
//! The block is cut into register tiles as in [`super::gemm`], but four depths go at a time: that is what the dot products
//! of AVX-512 VNNI take, with 256 operations an instruction. CPUs without them widen bytes to 16 bits and multiply pairs
//! of those, where nothing saturates, so sums are exact at every level (modulo 2^32).
//!
//! The epilogue takes sums to floats, and floats back to bytes: what quantised models do between two products.

mod block;
pub(crate) mod families;
mod filter;
#[cfg(target_arch = "x86_64")]
mod filtered;
mod finish;
mod lanes;
#[cfg(target_arch = "x86_64")]
mod matrix;
mod pack;
mod sums;
mod table;
mod tile;
#[cfg(target_arch = "x86_64")]
mod widened;
mod window;

pub use block::{ByteBlock, ByteItem, Quantisation, Stored};
pub use filter::{ByteFilter, DEEPEST, FILTER_DEPTHS, filter_memory};
pub use pack::{pack, packed_len};
pub use sums::{add_signed, add_unsigned};
pub use window::ByteWindow;

use super::lanes::WIDTH;
use super::level::per_level;
use families::Tiles;
use filter::convolve as convolve_filter;
use std::mem::MaybeUninit;
use window::convolve;

/// Depths that lie side by side in a panel.
pub const DEPTHS: usize = 4;

per_level! {
    /// [`ByteBlock`] says what it computes.
    ///
    /// # Safety
    /// The block, and the arrays it points at with the strides and sizes it gives, can be read and C written; nothing
    /// C covers is read through another pointer.
    pub(crate) mod gemm_bytes = run::<families>(block: *const ByteBlock);
    /// [`ByteWindow`] says what it computes.
    ///
    /// # Safety
    /// The window, and the arrays it points at with the strides and sizes it gives, can be read and C written; nothing
    /// C covers is read through another pointer.
    pub(crate) mod depthwise_bytes = convolve::<families>(window: *const ByteWindow);
    /// [`ByteFilter`] says what it computes.
    ///
    /// # Safety
    /// The filter, and the arrays and memory it points at with the strides and sizes it gives, can be read and C and the
    /// memory written; nothing C covers is read through another pointer.
    pub(crate) mod filter_bytes = convolve_filter::<families>(filter: *const ByteFilter);
}

/// Columns of the sums that are kept for the epilogue: with those of the tallest tile they fit in L1.
const STRIP: usize = 16 * WIDTH;
/// Rows of the tallest tile.
const TALLEST: usize = 13;

/// Cuts the block into strips of rows, and those into tiles. The sums of a strip wait in L1 for the epilogue.
///
/// # Safety
/// As for [`gemm_bytes`].
#[inline(always)]
unsafe fn run<T: Tiles>(block: *const ByteBlock) {
    // SAFETY: the caller vouches for the block.
    let block = unsafe { &*block };
    let family = T::family();
    #[cfg(target_arch = "x86_64")]
    if T::has_tile_registers() && matrix::suits(block) {
        // SAFETY: the caller vouches for the block, and this CPU has the registers.
        return unsafe { matrix::run(block, family.finish) };
    }
    let (rows, columns) = (block.rows as usize, block.columns as usize);
    let mut sums = MaybeUninit::<[i32; TALLEST * STRIP]>::uninit();
    let sums = sums.as_mut_ptr().cast::<i32>();
    let strips = rows.div_ceil(family.tallest);
    let mut row = 0;
    for index in 0..strips {
        let height = (rows - row).div_ceil(strips - index);
        for column in (0..columns).step_by(STRIP) {
            let width = (columns - column).min(STRIP);
            // SAFETY: the strip lies in the block and has no more rows than there are sums for, which the first function
            // writes and the second reads.
            unsafe {
                (family.sum)(block, [row, height], [column, width], sums);
                (family.finish)(block, [row, height], [column, width], (sums, STRIP));
            }
        }
        row += height;
    }
}

/// Covers so many panels by the widest tiles that fit: the first panel of each, and the place of its width, of `widths`,
/// of which entry `i` has `2^i` panels.
#[inline(always)]
fn cover(panels: usize, widths: usize, mut tile: impl FnMut(usize, usize)) {
    let mut panel = 0;
    while panel < panels {
        let wide = widths.min((panels - panel).ilog2() as usize + 1) - 1;
        tile(panel, wide);
        panel += 1 << wide;
    }
}

#[cfg(test)]
mod filter_tests;
#[cfg(test)]
mod tests;
