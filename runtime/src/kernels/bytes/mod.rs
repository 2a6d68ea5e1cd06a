//! Products of bytes: `C = epilogue(sum over items of A_item * B_item)` on one block of C, where A holds unsigned bytes, B
//! signed ones, and sums are 32-bit integers.
//!
//! The block is cut into register tiles as in [`super::gemm`], but four depths go at a time: that is what the dot products
//! of AVX-512 VNNI take, with 256 operations an instruction. CPUs without them widen bytes to 16 bits, where nothing
//! saturates, so sums are exact at every level (modulo 2^32).
//!
//! The epilogue takes sums to floats, and floats back to bytes: what quantised models do between two products.

mod block;
mod finish;
mod lanes;
mod pack;
mod tile;

pub use block::{ByteBlock, ByteItem, Quantisation, Stored};
pub use pack::{pack, packed_len};
pub(crate) use tile::{Tiles, families};

use super::lanes::WIDTH;
use super::level::per_level;

/// Depths that lie side by side in a panel.
pub const DEPTHS: usize = 4;

per_level! {
    /// [`ByteBlock`] says what it computes.
    ///
    /// # Safety
    /// The block, and the arrays it points at with the strides and sizes it gives, can be read and C written; nothing
    /// C covers is read through another pointer.
    pub(crate) mod gemm_bytes = run::<families>(block: *const ByteBlock);
}

/// Cuts the block into tiles, rows outside.
///
/// # Safety
/// As for [`gemm_bytes`].
#[inline(always)]
unsafe fn run<T: Tiles>(block: *const ByteBlock) {
    // SAFETY: the caller vouches for the block.
    let block = unsafe { &*block };
    let (rows, columns) = (block.rows as usize, block.columns as usize);
    let (panels, family) = (columns.div_ceil(WIDTH), T::tiles());
    let tiles = rows.div_ceil(family.len());
    let mut row = 0;
    for index in 0..tiles {
        let height = (rows - row).div_ceil(tiles - index);
        let widths = family[height - 1];
        let mut panel = 0;
        while panel < panels {
            // The widest tile that fits; entry i has 2^i panels.
            let width = widths.len().min((panels - panel).ilog2() as usize + 1) - 1;
            // SAFETY: the tile lies in the block, and the caller vouches for the arrays and for the level.
            unsafe { widths[width](block, row, panel * WIDTH) };
            panel += 1 << width;
        }
        row += height;
    }
}

#[cfg(test)]
mod tests;
