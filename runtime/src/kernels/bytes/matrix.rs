//! Products of bytes in tile registers ([`amx`](super::super::amx)).

use super::block::ByteBlock;
use super::filter::ByteFilter;
use super::finish::FinishFunction;
use super::{DEPTHS, STRIP};
use crate::kernels::amx::{self, Bytes, Item, Product, TALLEST, Tall};
use crate::kernels::lanes::WIDTH;
use std::mem::MaybeUninit;

/// Whether such products take less time than those of vectors: not where a register would have a few rows, or a few depths.
#[inline(always)]
pub(super) fn suits(block: &ByteBlock) -> bool {
    block.rows >= LEAST_ROWS
        && block.depth >= LEAST_DEPTH
        && block.depth.is_multiple_of(DEPTHS as u64)
        && block.item_count > 0
}

const LEAST_ROWS: u64 = 4;
const LEAST_DEPTH: u64 = 16;

/// Whether lines can be computed together: their rows lie evenly in A, as those of an image with its padding do.
#[inline(always)]
pub(super) fn joins(filter: &ByteFilter) -> bool {
    let (line, row) = (filter.a_line_stride, filter.block.a_row_stride);
    suits(&filter.block) && row > 0 && line % row == 0 && line / row >= filter.block.rows as i64
}

/// Computes a block.
///
/// # Safety
/// As for [`gemm_bytes`](super::gemm_bytes), and [`suits`] said yes; `finish` is compiled for this CPU, which has the registers.
#[inline(always)]
pub(super) unsafe fn run(block: &ByteBlock, finish: FinishFunction) {
    let rows = block.rows as usize;
    // SAFETY: the caller vouches for the block and the registers.
    unsafe {
        strips(block, [rows, block.columns as usize], |[row, height], columns, sums| {
            finish(block, [row, height], columns, (sums, STRIP));
        });
    }
}

/// Computes the lines of a convolution as one block, with what lies between two lines of A: its sums go nowhere.
///
/// # Safety
/// As for [`filter_bytes`](super::filter_bytes), and [`joins`] said yes; `finish` is compiled for this CPU, which has the registers.
#[inline(always)]
pub(super) unsafe fn run_lines(filter: &ByteFilter, finish: FinishFunction) {
    let block = &filter.block;
    if filter.lines == 0 {
        return;
    }
    let (pixels, pitch) = (block.rows as usize, (filter.a_line_stride / block.a_row_stride) as usize);
    let rows = (filter.lines as usize - 1) * pitch + pixels;
    // SAFETY: the caller vouches for the lines and the registers.
    unsafe {
        strips(block, [rows, block.columns as usize], |[first, height], columns, sums| {
            let mut row = first;
            while row < first + height {
                let (line, pixel) = (row / pitch, row % pitch);
                if pixel < pixels {
                    let count = (pixels - pixel).min(first + height - row);
                    let sums = sums.add((row - first) * STRIP);
                    finish(&filter.line(line), [pixel, count], columns, (sums, STRIP));
                }
                row += pitch - pixel;
            }
        });
    }
}

/// Computes the sums of so many rows and columns a strip at a time, and hands them on: which rows and columns they are of, and where
/// the first one is.
///
/// # Safety
/// As for [`run`], of so many rows, that of A being evenly apart.
#[inline(always)]
unsafe fn strips(
    block: &ByteBlock,
    [rows, columns]: [usize; 2],
    mut finish: impl FnMut([usize; 2], [usize; 2], *const i32),
) {
    let tall = Tall::new(rows, block.depth as usize / DEPTHS);
    let mut sums = MaybeUninit::<Aligned<[i32; TALLEST * STRIP]>>::uninit();
    let sums = sums.as_mut_ptr().cast::<i32>();
    // SAFETY: the caller vouches for the block and the registers; sums have room for a strip.
    unsafe {
        tall.configure();
        for row in (0..rows).step_by(tall.strip) {
            // The last strip is as tall as the others.
            let first = row.min(rows - tall.strip);
            for column in (0..columns).step_by(STRIP) {
                let width = (columns - column).min(STRIP);
                let product = Product {
                    items: block.items.cast::<Item>(),
                    item_count: block.item_count as usize,
                    row: first,
                    panel: column / WIDTH,
                    panels: width.div_ceil(WIDTH),
                    a_row_stride: block.a_row_stride as isize,
                    b_panel_stride: block.b_panel_stride as isize,
                    sums: sums.cast(),
                    sum_stride: 4 * STRIP as isize,
                    continues: false,
                };
                amx::multiply::<Bytes>(&product, &tall);
                let height = tall.strip - (row - first);
                finish([row, height], [column, width], sums.add((row - first) * STRIP));
            }
        }
        amx::release();
    }
}

/// Memory that is as aligned as rows of registers are.
#[repr(C, align(64))]
struct Aligned<T>(T);
