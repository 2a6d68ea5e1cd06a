//! The batch-reduce GEMM kernel: `C = epilogue(C? + sum over items of A_item * B_item)` on one block of C.
//!
//! Products, convolutions (an item per tap), attention and recurrences all come down to it. The kernel cuts the block
//! into register tiles; whoever calls it cuts the whole product into blocks that suit the caches.
//!
//! Every output is one chain of fused multiply-adds, over the items in order and the depth in order within an item,
//! from +0 or from what C holds: cutting the depth into several accumulating calls keeps the bits, and so does every
//! choice of tile.
//!
//! Good blocks are 64 to 128 columns wide, so that the B of a block stays in the second-level cache while the rows pass
//! by, and 13 rows or a multiple high; rows of A must not all lie a multiple of 4 KiB apart, or they evict each other. One
//! to three rows run at the speed of reading B if it is packed; in place they want B in cache.

mod block;
pub(crate) mod curve;
mod epilogue;
#[cfg(target_arch = "x86_64")]
mod narrow;
pub(crate) mod tile;

pub use block::{Activation, FloatSlot, GemmBlock, GemmItem, ResidualPlace};
pub(crate) use epilogue::FinishFunction;
pub(crate) use tile::{TileFunction, Tiles, families};

use super::lanes::WIDTH;
use super::level::per_level;
use tile::FEW_ROWS;

per_level! {
    /// [`GemmBlock`] says what it computes.
    ///
    /// # Safety
    /// The block, and the arrays it points at with the strides and sizes it gives, can be read and C written; nothing
    /// C covers is read through another pointer, except a residual or a start that is C itself (same pointer and stride).
    pub(crate) mod gemm_f32 = run::<families>(block: *const GemmBlock);
}

/// Cuts the block into tiles: rows outside, so that the rows of A of a tile stay in L1 while B passes by.
///
/// # Safety
/// As for [`gemm_f32`].
#[inline(always)]
pub(super) unsafe fn run<T: Tiles>(block: *const GemmBlock) {
    // SAFETY: the caller vouches for the block.
    let block = unsafe { &*block };
    let (rows, columns) = (block.rows as usize, block.columns as usize);
    let is_narrow = !T::NARROW.is_empty() && rows > FEW_ROWS && (1..=WIDTH / 2).contains(&(columns % WIDTH));
    let is_narrow = is_narrow && tile::is_packed(block) && epilogue::ends_in_registers(block);
    let panels = if is_narrow { columns / WIDTH } else { columns.div_ceil(WIDTH) };
    // As few row tiles as there can be, all of nearly the same height: 64 rows are 13 + 13 + 13 + 13 + 12.
    let tiles = rows.div_ceil(T::TILES.len());
    let mut row = 0;
    for index in 0..tiles {
        let height = T::height(rows - row, tiles - index);
        let widths = T::TILES[height - 1];
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
    if is_narrow {
        // The tallest tiles, of nearly the same height again; rows go in pairs, and no row is of two tiles.
        let tiles = rows.div_ceil(2 * T::NARROW.len());
        let mut row = 0;
        for index in 0..tiles {
            let pairs = (rows - row).div_ceil(tiles - index).div_ceil(2);
            // SAFETY: the tile lies in the block, or repeats its last row, and the caller vouches for the arrays and for the
            // level.
            unsafe { T::NARROW[pairs - 1](block, row, panels * WIDTH) };
            row += 2 * pairs;
        }
    }
}

#[cfg(all(test, unix))]
mod tests;
