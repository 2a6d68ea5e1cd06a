//! Products of bf16 in tile registers ([`amx`](super::super::amx)).

use super::{DEPTHS, ITEMS, Part, ROW, STRIP, TALLEST, parts, round::RoundFunction, rounded, rounded::Sources};
use crate::kernels::amx::{self, Item, Pairs, Product, Tall};
use crate::kernels::gemm::{self, GemmBlock, GemmItem, Tiles};
use crate::kernels::lanes::WIDTH;
use crate::kernels::level::Level;
use std::mem::MaybeUninit;

/// Rows from which on tile registers take less time than vectors.
const LEAST_ROWS: u64 = 3;
/// Bytes of a word.
const WORD: isize = 4;
/// Most memory for rounded rows: half of the second-level cache of CPUs with tile registers.
const MOST_MEMORY: usize = 1 << 20;
/// Bytes of the panels that strips of rows pass by, at most where they are more than the least columns.
const PASSED: usize = 512 << 10;

/// Whether products of bf16 are computed in tile registers at a level.
pub fn has_tile_registers(level: Level) -> bool {
    super::is_native(level) && amx::is_available()
}

/// Bytes of [`GemmBlock::memory`] that serve a block of so many rows, and so many items of a depth.
pub const fn memory_for(rows: usize, depth: usize, items: usize) -> usize {
    let bytes = rows * items * rounded::stride(depth.div_ceil(DEPTHS)) * WORD as usize;
    if bytes < MOST_MEMORY { bytes } else { MOST_MEMORY }
}

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
    // SAFETY: the caller vouches for the block and the CPU.
    unsafe {
        if !block.memory.is_null() && block.item_count as usize <= ITEMS {
            let sources = Sources::new(block);
            let room = sources.rows_in(block.memory_words as usize);
            let rows = if room >= block.rows as usize { block.rows as usize } else { room / TALLEST * TALLEST };
            if rows > 0 {
                return at_once::<T>(block, round, &sources, rows);
            }
        }
        in_parts::<T>(block, round);
    }
}

/// Rounds so many rows at a time, with all their depths.
///
/// # Safety
/// As for [`run`]; the block's memory has room for so many rows of the sources.
#[inline(always)]
unsafe fn at_once<T: Tiles>(block: &GemmBlock, round: RoundFunction, sources: &Sources, most: usize) {
    let (rows, columns) = (block.rows as usize, block.columns as usize);
    let pairs = (block.depth as usize).div_ceil(DEPTHS);
    let mut items = [const { MaybeUninit::<GemmItem>::uninit() }; ITEMS];
    let mut sums = MaybeUninit::<super::Aligned<[f32; TALLEST * STRIP]>>::uninit();
    let sums = sums.as_mut_ptr().cast::<f32>();
    let deep = pairs * block.item_count as usize * WORD as usize;
    let wide = (PASSED / deep / WIDTH * WIDTH).clamp(4 * WIDTH, STRIP);
    for top in (0..rows).step_by(most) {
        let count = most.min(rows - top);
        let tall = Tall::new(count, pairs);
        // SAFETY: these rows lie in the block; the registers are configured for strips of them.
        unsafe {
            sources.round(block, [top, count], round, block.memory, &mut items);
            tall.configure();
            for column in (0..columns).step_by(wide) {
                let width = (columns - column).min(wide);
                for row in (0..count).step_by(tall.strip) {
                    // The last strip is as tall as the others: its first rows are again those of the one before.
                    let first = row.min(count - tall.strip);
                    let product = Product {
                        items: items.as_ptr().cast::<Item>(),
                        item_count: block.item_count as usize,
                        row: first,
                        panel: column / WIDTH,
                        panels: width.div_ceil(WIDTH),
                        a_row_stride: WORD * sources.stride() as isize,
                        b_panel_stride: WORD * block.b_panel_stride as isize,
                        sums: sums.cast(),
                        sum_stride: WORD * STRIP as isize,
                        continues: false,
                    };
                    amx::multiply::<Pairs>(&product, &tall);
                    let results = [tall.strip - (row - first), width];
                    finish::<T>(block, [top + row, column], results, sums.add((row - first) * STRIP));
                }
            }
        }
    }
    // SAFETY: the caller vouches for the registers.
    unsafe { amx::release() };
}

/// Rounds the rows of a strip, a part of their depths at a time, for all columns whose sums can wait.
///
/// # Safety
/// As for [`run`].
#[inline(always)]
unsafe fn in_parts<T: Tiles>(block: &GemmBlock, round: RoundFunction) {
    let (rows, columns) = (block.rows as usize, block.columns as usize);
    let height = Tall::strip_of(rows);
    let mut configured = None;
    for row in (0..rows).step_by(height) {
        let first = row.min(rows - height);
        for column in (0..columns).step_by(STRIP) {
            let width = (columns - column).min(STRIP);
            let strip = GemmBlock { rows: height as u64, columns: width as u64, ..block.within(first, column) };
            // SAFETY: the strip lies in the block, and its parts are multiplied by registers that are configured for them.
            unsafe {
                parts(&strip, round, (1, WIDTH), [first, column], |part| {
                    let tall = Tall::new(rows, part.pairs);
                    if configured != Some(part.pairs) {
                        tall.configure();
                        configured = Some(part.pairs);
                    }
                    multiply(&strip, part, &tall);
                    if part.is_last {
                        let sums = part.sums.add((row - first) * STRIP);
                        finish::<T>(block, [row, column], [height - (row - first), width], sums);
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

/// Does what comes after the sums, of so many rows and columns of the block from some on; rows of sums are [`STRIP`] apart.
///
/// # Safety
/// As for [`run`]; the rows and columns lie in the block, and their sums can be read.
#[inline(always)]
unsafe fn finish<T: Tiles>(
    block: &GemmBlock,
    [row, column]: [usize; 2],
    [rows, columns]: [usize; 2],
    sums: *const f32,
) {
    let part = GemmBlock {
        rows: rows as u64,
        columns: columns as u64,
        item_count: 0,
        start: sums,
        start_row_stride: STRIP as i64,
        ..block.within(row, column)
    };
    // SAFETY: the caller vouches for the part.
    unsafe { gemm::run::<T>(&part) };
}
