//! Products of bytes in tile registers ([`amx`](super::super::amx)).

use super::block::ByteBlock;
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

/// Computes a block.
///
/// # Safety
/// As for [`gemm_bytes`](super::gemm_bytes), and [`suits`] said yes; `finish` is compiled for this CPU, which has the registers.
#[inline(always)]
pub(super) unsafe fn run(block: &ByteBlock, finish: FinishFunction) {
    let (rows, columns) = (block.rows as usize, block.columns as usize);
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
                let from = sums.add((row - first) * STRIP).cast_const();
                finish(block, [row, height], [column, width], (from, STRIP));
            }
        }
        amx::release();
    }
}

/// Memory that is as aligned as rows of registers are.
#[repr(C, align(64))]
struct Aligned<T>(T);
