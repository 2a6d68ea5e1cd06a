//! Products with weights of four or eight bits: B holds codes. A book says which of sixteen numbers a code of four bits stands for,
//! and codes may have scales, and zero points, for some depths of a column each.
//!
//! Codes are looked up a few depths at a time into panels in L1, where the tiles of [`super::gemm`] read them: every element of C
//! is the same chain as with the numbers themselves, and an eighth of the memory passes by.

mod decode;
mod pack;
mod row;

pub use pack::{pack, packed_len};

use super::gemm::{self, GemmBlock, GemmItem, Tiles, families};
use super::lanes::WIDTH;
use super::level::per_level;
use decode::{Book, decode};
use std::mem::MaybeUninit;

/// Numbers that a code may stand for.
pub const CODES: usize = 16;
/// Codes are decoded so many depths at a time: those of one word of codes of four bits, or of two of eight.
pub const DEPTHS: usize = 8;

/// One block of C and all that goes into it, as [`GemmBlock`] says, but for B.
///
/// In panels of B, `b` and `b_panel_stride` count words of 32 bits, each of which has `w = 32 / bits` codes: those of depth `k` and
/// column `j` lie in word `b + (j / 16) * b_panel_stride + (k / w) * 16 + j % 16`, at the bits from `k % w * bits` on.
/// `b_depth_stride` means nothing.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct BookBlock {
    /// The product.
    pub product: GemmBlock,
    /// Sixteen numbers; or, for every panel, sixteen rows with the number of each of its columns.
    pub book: *const f32,
    /// When every column has numbers of its own, how many at most are used; 0 otherwise.
    pub by_column: u64,
    /// Bits of a code: 4, or 8 where there are scales; codes of 8 bits are their own numbers, from 0 to 255.
    pub bits: u64,
    /// What numbers are multiplied by, or null: for every panel and every `scale_depths` depths a row of 16, followed by a row of
    /// what is taken off before if there are zero points.
    pub scales: *const f32,
    /// Depths that have a scale in common: a multiple of eight.
    pub scale_depths: u64,
    /// Whether there are zero points: for codes of eight bits whole numbers, of so few bits that floats hold their differences.
    pub has_zeros: u64,
}

impl BookBlock {
    /// Where the scales of a panel begin.
    ///
    /// # Safety
    /// There are scales, for that panel too.
    #[inline(always)]
    unsafe fn scales_of(&self, panel: usize) -> *const f32 {
        let groups = self.product.depth.div_ceil(self.scale_depths) as usize;
        // SAFETY: the caller vouches for the panel.
        unsafe { self.scales.add(panel * groups * (1 + self.has_zeros as usize) * WIDTH) }
    }
}

per_level! {
    /// [`BookBlock`] says what it computes.
    ///
    /// # Safety
    /// As for [`gemm::gemm_f32`], and the book can be read.
    pub(crate) mod gemm_book = run::<families>(block: *const BookBlock);
}

/// Panels times depths that are looked up at a time: half of the smallest first-level cache that is usual.
const DECODED: usize = 256;
/// The most rows that pass by what was looked up, whose sums stay in L1 too: those of a block that code generation makes.
const MOST_ROWS: usize = 130;
/// The most panels of the tiles that many rows have.
const MOST_PANELS: usize = 2;

/// Memory that is as aligned as vectors are.
#[repr(C, align(64))]
struct Aligned<T>(T);

/// # Safety
/// As for [`gemm_book`].
#[inline(always)]
unsafe fn run<T: Tiles>(block: *const BookBlock) {
    // SAFETY: the caller vouches for the block.
    let block = unsafe { &*block };
    let product = &block.product;
    if product.item_count == 0 || product.depth == 0 {
        // SAFETY: the caller vouches for the block, and no B is read.
        return unsafe { gemm::run::<T>(&GemmBlock { item_count: 0, ..*product }) };
    }
    if product.rows == 1 && block.by_column == 0 {
        // SAFETY: the caller vouches for the block, which has one row.
        return unsafe { row::run::<T>(block) };
    }
    let (rows, panels) = (product.rows as usize, (product.columns as usize).div_ceil(WIDTH));
    let strip = rows.div_ceil(rows.div_ceil(MOST_ROWS).max(1)).max(1);
    for row in (0..rows).step_by(strip) {
        let height = strip.min(rows - row);
        let tallest = height.div_ceil(height.div_ceil(T::TILES.len()));
        let most = T::TILES[tallest - 1].len();
        let mut panel = 0;
        while panel < panels {
            // The widest tile that fits; entry i has 2^i panels.
            let width = 1 << (most.min((panels - panel).ilog2() as usize + 1) - 1);
            // SAFETY: the rows and panels lie in the block.
            unsafe { strip_of_panels::<T>(block, (row, height), (panel, width)) };
            panel += width;
        }
    }
}

/// Some rows of some panels, as many as the widest tile for the rows has.
///
/// # Safety
/// As for [`gemm_book`]; the rows and the first columns of the panels lie in the block.
#[inline(always)]
unsafe fn strip_of_panels<T: Tiles>(block: &BookBlock, (row, height): (usize, usize), (panel, width): (usize, usize)) {
    let product = &block.product;
    let (column, depth) = (panel * WIDTH, product.depth as usize);
    let chunk = DECODED / width / DEPTHS * DEPTHS;
    let mut decoded = MaybeUninit::<Aligned<[f32; DECODED * WIDTH]>>::uninit();
    let mut sums = MaybeUninit::<Aligned<[f32; MOST_ROWS * MOST_PANELS * WIDTH]>>::uninit();
    let (decoded, sums) = (decoded.as_mut_ptr().cast::<f32>(), sums.as_mut_ptr().cast::<f32>());
    let sum_stride = (width * WIDTH) as i64;
    // SAFETY: the strip lies in the block; what was looked up is no more than there is room for, and sums are read where an
    // earlier part has written them.
    unsafe {
        let whole = product.within(row, column);
        for number in 0..product.item_count as usize {
            let item = *product.items.add(number);
            for from in (0..depth).step_by(chunk) {
                let count = chunk.min(depth - from);
                let groups = count.div_ceil(DEPTHS);
                let panel_stride = groups * DEPTHS * WIDTH;
                for index in 0..width {
                    let words = item.b.offset((panel + index) as isize * product.b_panel_stride as isize);
                    let book = Book::<T::Panel>::of(block, panel + index);
                    let words = words.add(from * block.bits as usize / 32 * WIDTH);
                    decode(words, (from, groups), &book, decoded.add(index * panel_stride));
                }
                let a = item.a.offset(row as isize * product.a_row_stride as isize);
                let part = GemmItem { a: a.offset(from as isize * product.a_depth_stride as isize), b: decoded };
                let (is_first, is_last) = (number == 0 && from == 0, from + count == depth);
                let last = is_last && number + 1 == product.item_count as usize;
                let start =
                    if is_first { (whole.start, whole.start_row_stride) } else { (sums.cast_const(), sum_stride) };
                let end = if last { whole } else { whole.without_epilogue(sums, sum_stride) };
                gemm::run::<T>(&GemmBlock {
                    rows: height as u64,
                    columns: whole.columns.min((width * WIDTH) as u64),
                    items: &part,
                    item_count: 1,
                    depth: count as u64,
                    b_depth_stride: WIDTH as i64,
                    b_panel_stride: panel_stride as i64,
                    start: start.0,
                    start_row_stride: start.1,
                    ..end
                });
            }
        }
    }
}

#[cfg(test)]
mod tests;
