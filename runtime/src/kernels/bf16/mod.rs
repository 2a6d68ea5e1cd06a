//! Products of bf16: numbers of A are rounded when they are read, B is packed as bf16, sums are f32.
//!
//! Two depths go at a time, side by side in 32 bits: that is what the dot products of AVX-512 BF16 take, with twice the
//! arithmetic of floats in an instruction. So to the tiles of [`super::gemm`] such a pair is one depth; other CPUs make floats of
//! it. The rows of A of a strip are rounded once, a part of the depths at a time, into L1, where all columns of the block read them.
//! Tile registers (AMX) take the same pairs, and more rows at a time.

mod families;
#[cfg(target_arch = "x86_64")]
mod matrix;
mod pack;
mod round;
#[cfg(target_arch = "x86_64")]
mod rounded;

#[cfg(target_arch = "x86_64")]
pub use matrix::{has_tile_registers, memory_for};
pub use pack::{pack, packed_len};

use super::gemm::{self, GemmBlock, GemmItem, Tiles};
use super::lanes::WIDTH;
use super::level::{Level, per_level};
use families::Family;
use std::mem::MaybeUninit;

/// Depths that lie side by side.
pub const DEPTHS: usize = 2;

/// Whether this machine has instructions for such products at a level. Others compute them as products of floats, at the speed of
/// those or less.
#[cfg(target_arch = "x86_64")]
pub fn is_native(level: Level) -> bool {
    level == Level::Avx512 && level.is_available() && is_x86_feature_detected!("avx512bf16")
}

/// Other CPUs have none.
#[cfg(not(target_arch = "x86_64"))]
pub fn is_native(_level: Level) -> bool {
    false
}

/// Other CPUs have none.
#[cfg(not(target_arch = "x86_64"))]
pub fn has_tile_registers(_level: Level) -> bool {
    false
}

/// Other CPUs need none.
#[cfg(not(target_arch = "x86_64"))]
pub const fn memory_for(_rows: usize, _depth: usize, _items: usize) -> usize {
    0
}

per_level! {
    /// [`GemmBlock`] says what it computes, with every element of A rounded to the nearest bf16, ties to even, and B packed in
    /// pairs ([`pack`]): its strides are in words of 32 bits, [`DEPTHS`] depths of a column each, and `b_is_bf16` means nothing.
    /// The sums are those of f32, but in which order the two products of a pair are added, and whether rounded between, is the
    /// CPU's business; numbers below the normal ones of f32 may count as zeros.
    ///
    /// # Safety
    /// As for [`gemm::gemm_f32`].
    pub(crate) mod gemm_bf16 = run::<families>(block: *const GemmBlock);
}

/// Words of one row that are rounded at a time: with the tallest tile, three quarters of the smallest L1 that is usual.
const CHUNK: usize = 448;
/// Distance of two rounded rows in words: a line more, since rows a power of two apart would share few sets of the cache.
const ROW: usize = CHUNK + WIDTH;
/// Rows of the tallest strip.
const TALLEST: usize = 32;
/// Columns whose sums are kept between two parts of the depths.
const STRIP: usize = 16 * WIDTH;
/// Items of a part, at most.
const ITEMS: usize = 64;

/// Memory that is as aligned as vectors are.
#[repr(C, align(64))]
struct Aligned<T>(T);

/// # Safety
/// As for [`gemm_bf16`].
#[inline(always)]
unsafe fn run<F: Family>(block: *const GemmBlock) {
    // SAFETY: the caller vouches for the block.
    unsafe { F::run(&*block) }
}

/// Cuts the block into strips of rows, as tall as the tiles.
///
/// # Safety
/// As for [`gemm_bf16`]; the CPU is of the level that the tiles and the rounding are for.
#[inline(always)]
unsafe fn strips<T: Tiles>(block: &GemmBlock, round: round::RoundFunction) {
    const { assert!(T::TILES.len() <= TALLEST) };
    if block.item_count == 0 || block.depth == 0 {
        // SAFETY: the caller vouches for the block, and neither A nor B is read.
        return unsafe { gemm::run::<T>(&GemmBlock { item_count: 0, ..*block }) };
    }
    let (rows, columns) = (block.rows as usize, block.columns as usize);
    let strips = rows.div_ceil(T::TILES.len());
    let mut row = 0;
    for index in 0..strips {
        let height = (rows - row).div_ceil(strips - index);
        for column in (0..columns).step_by(STRIP) {
            let width = (columns - column).min(STRIP);
            // SAFETY: the strip lies in the block.
            unsafe {
                let strip = GemmBlock { rows: height as u64, columns: width as u64, ..block.within(row, column) };
                parts(&strip, round, (T::STEPS, 1), [row, column], |part| multiply::<T>(&strip, part));
            }
        }
        row += height;
    }
}

/// Some of the depths of a strip, those of A being rounded.
struct Part<'a> {
    /// Rounded rows, [`ROW`] words apart, beside the panels they are multiplied by.
    items: &'a [GemmItem],
    /// Pairs of depths of each.
    pairs: usize,
    /// Where the sums of the strip are kept from part to part; rows are [`STRIP`] apart.
    sums: *mut f32,
    is_first: bool,
    is_last: bool,
}

/// Cuts the depths of a strip into parts: a strip of at most [`TALLEST`] rows and [`STRIP`] columns, whose place in the items is
/// given, for rounding into so many words a pair; what is rounded of an item begins at a multiple of so many words.
///
/// # Safety
/// As for [`strips`].
#[inline(always)]
unsafe fn parts(
    strip: &GemmBlock,
    round: round::RoundFunction,
    (steps, unit): (usize, usize),
    [row, column]: [usize; 2],
    mut multiply: impl FnMut(&Part<'_>),
) {
    let mut rounded = MaybeUninit::<Aligned<[u32; TALLEST * ROW]>>::uninit();
    let mut sums = MaybeUninit::<Aligned<[f32; TALLEST * STRIP]>>::uninit();
    let (rounded, sums) = (rounded.as_mut_ptr().cast::<u32>(), sums.as_mut_ptr().cast::<f32>());
    let mut items = [const { MaybeUninit::<GemmItem>::uninit() }; ITEMS];
    let (pairs, most) = ((strip.depth as usize).div_ceil(DEPTHS), CHUNK / steps);
    // Whole items where they fit, of which each has the same depth; else pieces of one.
    let (most_items, piece) =
        if pairs <= most { ((most / pairs.next_multiple_of(unit)).min(ITEMS), pairs) } else { (1, most) };
    let item_count = strip.item_count as usize;
    for first in (0..item_count).step_by(most_items) {
        let count = most_items.min(item_count - first);
        for pair in (0..pairs).step_by(piece) {
            let length = piece.min(pairs - pair);
            let depths = (length * DEPTHS).min(strip.depth as usize - pair * DEPTHS);
            // SAFETY: items, A and B are valid for the sizes and strides of the strip; what is rounded is no more than there is
            // room for.
            unsafe {
                for (place, target) in items[..count].iter_mut().enumerate() {
                    let item = *strip.items.add(first + place);
                    let source = round::Rows {
                        from: item
                            .a
                            .wrapping_offset(row as isize * strip.a_row_stride as isize)
                            .wrapping_offset((pair * DEPTHS) as isize * strip.a_depth_stride as isize),
                        strides: [strip.a_row_stride as isize, strip.a_depth_stride as isize],
                        rows: strip.rows as usize,
                        depths,
                        rounded_stride: ROW,
                    };
                    let a = rounded.add(place * (length * steps).next_multiple_of(unit));
                    round(&source, a);
                    let b = item.b.wrapping_offset((column / WIDTH) as isize * strip.b_panel_stride as isize);
                    target.write(GemmItem { a: a.cast(), b: b.wrapping_add(pair * WIDTH) });
                }
                multiply(&Part {
                    items: std::slice::from_raw_parts(items.as_ptr().cast(), count),
                    pairs: length,
                    sums,
                    is_first: first == 0 && pair == 0,
                    is_last: first + count == item_count && pair + length == pairs,
                });
            }
        }
    }
}

/// Multiplies a part of a strip, no taller than the tallest tile.
///
/// # Safety
/// As for [`strips`]; the part is one of the strip.
#[inline(always)]
unsafe fn multiply<T: Tiles>(strip: &GemmBlock, part: &Part<'_>) {
    let sum_stride = STRIP as i64;
    let (start, start_row_stride) =
        if part.is_first { (strip.start, strip.start_row_stride) } else { (part.sums.cast_const(), sum_stride) };
    let end = if part.is_last { *strip } else { strip.without_epilogue(part.sums, sum_stride) };
    // SAFETY: the caller vouches for the strip; sums are read where an earlier part has written them.
    unsafe {
        gemm::run::<T>(&GemmBlock {
            items: part.items.as_ptr(),
            item_count: part.items.len() as u64,
            a_row_stride: ROW as i64,
            a_depth_stride: T::STEPS as i64,
            depth: part.pairs as u64,
            start,
            start_row_stride,
            ..end
        });
    }
}

#[cfg(test)]
mod tests;
