//! Products of bf16 in tile registers ([`amx`](super::super::amx)).

use super::{Part, ROW, STRIP, parts, round::RoundFunction};
use crate::kernels::amx::{self, Item, Pairs, Product, Tall};
use crate::kernels::gemm::{self, GemmBlock, Tiles};
use crate::kernels::lanes::WIDTH;

/// Rows from which on tile registers take less time than vectors.
const LEAST_ROWS: u64 = 3;
/// Bytes of a word.
const WORD: isize = 4;

/// Whether tile registers are for such a block: not where they would have few rows. Sums that continue others are left to vectors.
#[inline(always)]
pub(super) fn suits(block: &GemmBlock) -> bool {
    block.rows >= LEAST_ROWS && block.item_count > 0 && block.depth > 0 && block.start.is_null()
}

/// Computes a block, whose epilogue is that of the tiles.
///
/// # Safety
/// As for [`gemm_bf16`](super::gemm_bf16), and [`suits`] said yes; rounding to pairs and the tiles are compiled for this CPU, which has
/// the registers.
#[inline(always)]
pub(super) unsafe fn run<T: Tiles>(block: &GemmBlock, round: RoundFunction) {
    let (rows, columns) = (block.rows as usize, block.columns as usize);
    let height = Tall::strip_of(rows);
    let mut configured = None;
    for row in (0..rows).step_by(height) {
        // The last strip is as tall as the others: its first rows are again those of the one before, whose results stay.
        let first = row.min(rows - height);
        for column in (0..columns).step_by(STRIP) {
            let width = (columns - column).min(STRIP);
            let strip = GemmBlock { rows: height as u64, columns: width as u64, ..block.within(first, column) };
            let results = (height - (row - first)) as u64;
            let results = GemmBlock { rows: results, columns: width as u64, ..block.within(row, column) };
            // SAFETY: the strip lies in the block, and its parts are multiplied by registers that are configured for them.
            unsafe {
                parts(&strip, round, 1, [first, column], |part| {
                    if configured != Some(part.pairs) {
                        Tall::new(rows, part.pairs).configure();
                        configured = Some(part.pairs);
                    }
                    multiply(&strip, part, &Tall::new(rows, part.pairs));
                    if part.is_last {
                        gemm::run::<T>(&GemmBlock {
                            item_count: 0,
                            start: part.sums.wrapping_add((row - first) * STRIP),
                            start_row_stride: STRIP as i64,
                            ..results
                        });
                    }
                });
            }
        }
    }
    // SAFETY: the caller vouches for the registers.
    unsafe { amx::release() };
}

/// Adds the products of a part of a strip to its sums.
///
/// # Safety
/// As for [`run`]; the registers are configured for the strip and the part.
#[inline(always)]
unsafe fn multiply(strip: &GemmBlock, part: &Part<'_>, tall: &Tall) {
    let product = Product {
        items: part.items.as_ptr().cast::<Item>(),
        item_count: part.items.len(),
        row: 0,
        panel: 0,
        panels: (strip.columns as usize).div_ceil(WIDTH),
        a_row_stride: WORD * ROW as isize,
        b_panel_stride: WORD * strip.b_panel_stride as isize,
        sums: part.sums.cast(),
        sum_stride: WORD * STRIP as isize,
        continues: !part.is_first,
    };
    // SAFETY: the caller vouches for the registers and the part.
    unsafe { amx::multiply::<Pairs>(&product, tall) };
}
