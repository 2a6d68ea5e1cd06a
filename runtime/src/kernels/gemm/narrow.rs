//! Tiles of at most eight columns, for AVX2. A panel takes two registers there, of which the second would be empty: instead the two
//! hold two rows of the same columns.

use super::block::GemmBlock;
use super::epilogue;
use super::tile::Place;
use crate::kernels::lanes::{self, Avx2, Lanes, WIDTH, avx2::store_half};
use core::arch::x86_64::*;

/// Columns of a register.
const COLUMNS: usize = WIDTH / 2;

/// Where a tile is. If it reaches beyond the rows of the block, the last of these is computed again in their place.
struct Fold {
    row: usize,
    last_row: usize,
    column: usize,
    mask: __m256,
}

impl Fold {
    /// The rows of a pair.
    #[inline(always)]
    fn rows(&self, pair: usize) -> [usize; 2] {
        [self.row + 2 * pair, self.row + 2 * pair + 1].map(|row| row.min(self.last_row))
    }

    /// Where the tile's part of the rows of a pair begins.
    #[inline(always)]
    fn places(&self, stride: i64, pair: usize) -> [isize; 2] {
        self.rows(pair).map(|row| row as isize * stride as isize + self.column as isize)
    }

    /// # Safety
    /// The columns of the tile can be read.
    #[inline(always)]
    unsafe fn load(&self, from: *const f32) -> __m256 {
        // SAFETY: the caller vouches for the columns, and the mask keeps to them.
        unsafe { _mm256_maskload_ps(from, _mm256_castps_si256(self.mask)) }
    }
}

impl Place<Avx2, 1> for Fold {
    #[inline(always)]
    unsafe fn columns(&self, vector: *const f32) -> [Avx2; 1] {
        // SAFETY: the caller vouches for the columns.
        let columns = unsafe { self.load(vector.wrapping_add(self.column)) };
        [Avx2::of(columns, columns)]
    }

    #[inline(always)]
    unsafe fn row(&self, array: *const f32, stride: i64, index: usize) -> [Avx2; 1] {
        let [first, second] = self.places(stride, index);
        // SAFETY: the caller vouches for the rows.
        unsafe { [Avx2::of(self.load(array.wrapping_offset(first)), self.load(array.wrapping_offset(second)))] }
    }
}

/// The sums and their finish, of `2 PAIRS` rows.
///
/// # Safety
/// As for [`TileFunction`](super::TileFunction), but rows may reach beyond the block; there are at most eight columns, B is packed,
/// and the finish ends in registers.
#[inline(always)]
pub(super) unsafe fn tile<const PAIRS: usize>(block: &GemmBlock, row: usize, column: usize) {
    let (mask, _) = Avx2::mask((block.columns as usize - column).min(COLUMNS));
    let fold = Fold { row, last_row: block.rows as usize - 1, column, mask };
    // SAFETY: the caller vouches for the tile and the block's arrays.
    unsafe {
        let mut sums = [[Avx2::splat(0.0)]; PAIRS];
        if !block.start.is_null() {
            for (pair, sums) in sums.iter_mut().enumerate() {
                *sums = fold.row(block.start, block.start_row_stride, pair);
            }
        }
        for pair in 0..PAIRS {
            for place in fold.places(block.c_row_stride, pair) {
                lanes::prefetch_to_write(block.c.wrapping_offset(place));
            }
        }
        accumulate(block, &fold, &mut sums);
        epilogue::begin(block, &fold, &mut sums);
        epilogue::end(block, &fold, &mut sums);
        for (pair, [sum]) in sums.into_iter().enumerate() {
            let (first, second) = sum.halves();
            let [to_first, to_second] = fold.places(block.c_row_stride, pair);
            store_half(block.c.wrapping_offset(to_first), mask, first);
            store_half(block.c.wrapping_offset(to_second), mask, second);
        }
    }
}

/// The chains of fused multiply-adds.
///
/// # Safety
/// As for [`tile`].
#[inline(always)]
unsafe fn accumulate<const PAIRS: usize>(block: &GemmBlock, fold: &Fold, sums: &mut [[Avx2; 1]; PAIRS]) {
    let (a_row, a_depth) = (block.a_row_stride as isize, block.a_depth_stride as isize);
    for item in 0..block.item_count as usize {
        // SAFETY: items, A and B are valid for the sizes and strides of the block, and panels are whole; pointers beyond the last
        // depth are computed with wrapping arithmetic and not read.
        unsafe {
            let item = *block.items.add(item);
            let mut a = item.a.wrapping_offset(fold.row as isize * a_row);
            let mut b = item.b.wrapping_offset((fold.column / WIDTH) as isize * block.b_panel_stride as isize);
            for _ in 0..block.depth {
                let panel = _mm256_loadu_ps(b);
                for (pair, [sum]) in sums.iter_mut().enumerate() {
                    let [first, second] = fold.rows(pair);
                    let first = _mm256_set1_ps(*a.wrapping_offset((first - fold.row) as isize * a_row));
                    let second = _mm256_set1_ps(*a.wrapping_offset((second - fold.row) as isize * a_row));
                    *sum = Avx2::of(first, second).fma(Avx2::of(panel, panel), *sum);
                }
                a = a.wrapping_offset(a_depth);
                b = b.wrapping_add(WIDTH);
            }
        }
    }
}
