//! The register tile of CPUs that multiply bytes as they are: `ROWS` rows by `PANELS` panels of sums, kept in registers over
//! all items and depths.

use super::block::ByteBlock;
use super::lanes::Fours;
use super::{DEPTHS, STRIP, cover};
use crate::kernels::lanes::WIDTH;

/// Computes the sums of the tile whose first row and column are given; rows of sums are [`STRIP`] apart.
///
/// # Safety
/// The tile's rows and the first column of its last panel lie in the block, whose arrays are valid; whole panels of sums
/// can be written; the CPU is of the level the function was compiled for.
pub(super) type TileFunction = unsafe fn(block: &ByteBlock, row: usize, column: usize, sums: *mut i32);

/// Computes the sums of a strip with the tiles of a level: entry `[r][i]` has `r + 1` rows and `2^i` panels.
///
/// # Safety
/// As for [`SumFunction`](super::families::SumFunction).
#[inline(always)]
pub(super) unsafe fn sum(
    tiles: &[&[TileFunction]],
    block: &ByteBlock,
    [row, height]: [usize; 2],
    [column, width]: [usize; 2],
    sums: *mut i32,
) {
    let widths = tiles[height - 1];
    cover(width.div_ceil(WIDTH), widths.len(), |panel, wide| {
        let place = panel * WIDTH;
        // SAFETY: the tile lies in the block and its sums in the strip, and the caller vouches for the rest.
        unsafe { widths[wide](block, row, column + place, sums.add(place)) };
    });
}

/// # Safety
/// As for [`TileFunction`].
#[inline(always)]
pub(super) unsafe fn tile<S: Fours, const ROWS: usize, const PANELS: usize>(
    block: &ByteBlock,
    row: usize,
    column: usize,
    to: *mut i32,
) {
    let mut sums = [[S::splat(0); PANELS]; ROWS];
    let (a_row, b_panel) = (block.a_row_stride as isize, block.b_panel_stride as isize);
    let (groups, rest) = (block.depth as usize / DEPTHS, block.depth as usize % DEPTHS);
    for item in 0..block.item_count as usize {
        // SAFETY: items, A and B are valid for the sizes and strides of the block; pointers beyond the last depth are
        // computed with wrapping arithmetic and not read.
        unsafe {
            let item = *block.items.add(item);
            let mut a = item.a.wrapping_offset(row as isize * a_row);
            let mut b = item.b.wrapping_offset((column / WIDTH) as isize * b_panel);
            for _ in 0..groups {
                let factor = |r: usize| a.wrapping_offset(r as isize * a_row).cast::<u32>().read_unaligned();
                add(&mut sums, b, b_panel, factor);
                a = a.wrapping_add(DEPTHS);
                b = b.wrapping_add(DEPTHS * WIDTH);
            }
            if rest > 0 {
                // What comes after the last depth is not A's. What comes before the rest is, where there is a whole group.
                if groups > 0 {
                    let known = DEPTHS - rest;
                    let factor = |r: usize| {
                        let last = a.wrapping_offset(r as isize * a_row - known as isize).cast::<u32>();
                        (u32::from_le(last.read_unaligned()) >> (8 * known)).to_le()
                    };
                    add(&mut sums, b, b_panel, factor);
                } else {
                    let factor = |r: usize| {
                        let mut bytes = [0; DEPTHS];
                        std::ptr::copy_nonoverlapping(a.wrapping_offset(r as isize * a_row), bytes.as_mut_ptr(), rest);
                        u32::from_ne_bytes(bytes)
                    };
                    add(&mut sums, b, b_panel, factor);
                }
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        for (p, sum) in sums.iter().enumerate() {
            // SAFETY: whole panels can be written.
            unsafe { sum.store(to.add(r * STRIP + p * WIDTH), WIDTH) };
        }
    }
}

/// Adds the products of four depths.
///
/// # Safety
/// The panels can be read.
#[inline(always)]
unsafe fn add<S: Fours, const ROWS: usize, const PANELS: usize>(
    sums: &mut [[S; PANELS]; ROWS],
    b: *const i8,
    b_panel: isize,
    factor: impl Fn(usize) -> u32,
) {
    // SAFETY: the caller vouches for the panels.
    let panel = |p: usize| unsafe { S::panel(b.wrapping_offset(p as isize * b_panel)) };
    // What there is less of stays in registers while the other passes by.
    if ROWS <= 3 {
        let factors: [S::Factor; ROWS] = std::array::from_fn(|r| S::factor(factor(r)));
        for p in 0..PANELS {
            let panel = panel(p);
            for (sums, factor) in sums.iter_mut().zip(factors) {
                sums[p] = sums[p].dot(factor, panel);
            }
        }
    } else {
        let panels: [S::Panel; PANELS] = std::array::from_fn(panel);
        for (r, sums) in sums.iter_mut().enumerate() {
            let factor = S::factor(factor(r));
            for (sum, panel) in sums.iter_mut().zip(panels) {
                *sum = sum.dot(factor, panel);
            }
        }
    }
}
