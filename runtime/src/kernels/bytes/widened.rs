//! The register tile of CPUs that multiply pairs of 16-bit numbers.
//!
//! There bytes are widened first. Those of A are for all columns of a strip at once, a chunk of depths at a time, which then
//! lies in L1; those of B in the tile, where all its rows share them. Products of two bytes and their sums in pairs hold in
//! 32 bits, so nothing saturates.
//!
//! Registers keep two sums for each column, which are added at the end of a chunk.

use super::block::ByteBlock;
use super::lanes::Pairs;
use super::{DEPTHS, STRIP, cover};
use crate::kernels::lanes::{self, WIDTH};
use core::arch::x86_64::*;
use std::mem::MaybeUninit;

/// Bytes of a line of the cache.
const LINE: usize = 64;
/// Depths of a chunk.
const CHUNK: usize = 512;
/// Pieces of a chunk, at most.
const PIECES: usize = 128;
/// Depths that are widened at a time.
const STEP: usize = 16;
/// Rows of the tallest tile.
pub(super) const TALLEST: usize = 6;
/// Distance of two widened rows: rows of a power of two would share few sets of the cache.
const ROW: usize = CHUNK + 2 * STEP;

/// Depths of one item.
#[derive(Clone, Copy)]
pub(super) struct Piece {
    /// The first panel of B at the first of these depths.
    b: *const i8,
    /// How many groups of four depths.
    groups: usize,
}

/// A part of the depths of a strip.
pub(super) struct Chunk<'a> {
    pieces: &'a [Piece],
    /// The depths of all pieces, each filled up to whole groups; rows are [`ROW`] apart.
    a: *const i16,
    b_panel_stride: isize,
    /// Whether no sums are there before.
    is_first: bool,
}

/// Adds the products of a chunk to the sums of the tile that begins at a column, or puts those of the first there; rows of sums
/// are [`STRIP`] apart.
///
/// # Safety
/// The tile's columns lie in the panels of B and its rows in the chunk; the sums can be read and written; the CPU is of the
/// level the function was compiled for.
pub(super) type TileFunction = unsafe fn(chunk: &Chunk<'_>, column: usize, sums: *mut i32);

/// Computes the sums of a strip with the tiles of a level: entry `[r][i]` has `r + 1` rows and `2^i` times the columns that
/// two registers have.
///
/// # Safety
/// As for [`SumFunction`](super::families::SumFunction).
#[inline(always)]
pub(super) unsafe fn sum<P: Pairs>(
    tiles: &[&[TileFunction]],
    block: &ByteBlock,
    [row, height]: [usize; 2],
    [column, width]: [usize; 2],
    sums: *mut i32,
) {
    prefetch(block, [row, height], [column, width]);
    let widths = tiles[height - 1];
    let mut widened = MaybeUninit::<[i16; TALLEST * ROW]>::uninit();
    let widened = widened.as_mut_ptr().cast::<i16>();
    let mut pieces = [const { MaybeUninit::<Piece>::uninit() }; PIECES];
    let (a_row, b_panel_stride) = (block.a_row_stride as isize, block.b_panel_stride as isize);
    let narrowest = 2 * P::COLUMNS;
    // What tiles do not write: all without items, and what fills up the last panel.
    let written = if block.item_count == 0 { 0 } else { width.next_multiple_of(narrowest) };
    for r in 0..height {
        // SAFETY: whole panels of sums can be written.
        unsafe { sums.add(r * STRIP + written).write_bytes(0, width.next_multiple_of(WIDTH) - written) };
    }
    let (mut item, mut depth, mut is_first) = (0, 0, true);
    while item < block.item_count as usize {
        let (mut count, mut filled) = (0, 0);
        while item < block.item_count as usize && count < PIECES && filled < CHUNK {
            let length = (block.depth as usize - depth).min(CHUNK - filled);
            // SAFETY: items, A and B are valid for the sizes and strides of the block, and `filled + length`, rounded up to
            // whole steps, is at most a row.
            unsafe {
                let from = *block.items.add(item);
                for r in 0..height {
                    let a = from.a.wrapping_offset((row + r) as isize * a_row).wrapping_add(depth);
                    widen(a, length, widened.add(r * ROW + filled));
                }
                let first = from.b.wrapping_offset((column / WIDTH) as isize * b_panel_stride);
                pieces[count].write(Piece { b: first.wrapping_add(depth * WIDTH), groups: length.div_ceil(DEPTHS) });
            }
            count += 1;
            filled += length.next_multiple_of(DEPTHS);
            depth += length;
            if depth == block.depth as usize {
                (item, depth) = (item + 1, 0);
            }
        }
        // SAFETY: so many were written.
        let pieces = unsafe { std::slice::from_raw_parts(pieces.as_ptr().cast::<Piece>(), count) };
        let chunk = Chunk { pieces, a: widened, b_panel_stride, is_first };
        is_first = false;
        cover(width.div_ceil(narrowest), widths.len(), |place, wide| {
            let column = place * narrowest;
            // SAFETY: the tile lies in the panels of the block and its sums in the strip, and the caller vouches for the rest.
            unsafe { widths[wide](&chunk, column, sums.add(column)) };
        });
    }
}

/// Asks for the lines that the finish of a strip reads and writes: its rows lie too far apart for the CPU to foresee them, and the
/// sums hide the wait.
#[inline(always)]
fn prefetch(block: &ByteBlock, rows: [usize; 2], columns: [usize; 2]) {
    for row in rows[0]..rows[0] + rows[1] {
        let place = |stride: i64, size: isize| (row as isize * stride as isize + columns[0] as isize) * size;
        let size = block.output.size();
        let to = block.c.wrapping_offset(place(block.c_row_stride, size));
        for line in (0..columns[1] * size as usize).step_by(LINE) {
            lanes::prefetch_to_write(to.wrapping_add(line).cast());
        }
        if block.residual.is_null() {
            continue;
        }
        let size = block.residual_type.size();
        let from = block.residual.wrapping_offset(place(block.residual_row_stride, size));
        for line in (0..columns[1] * size as usize).step_by(LINE) {
            lanes::prefetch(from.wrapping_add(line).cast());
        }
    }
}

/// Bytes of a register that begins at a place of this come first, and zeros after them.
const TO_THE_FRONT: [i8; 2 * STEP] = {
    let mut places = [-1; 2 * STEP];
    let mut place = 0;
    while place < STEP {
        places[place] = place as i8;
        place += 1;
    }
    places
};

/// Widens bytes. What fills up the last step is zero.
///
/// # Safety
/// So many bytes can be read, and as many numbers, rounded up to whole steps, written; the CPU has AVX2.
#[inline(always)]
unsafe fn widen(from: *const u8, length: usize, to: *mut i16) {
    let whole = length / STEP * STEP;
    for place in (0..whole).step_by(STEP) {
        // SAFETY: so many bytes are there, and as many numbers.
        unsafe {
            let bytes = _mm_loadu_si128(from.add(place).cast());
            _mm256_storeu_si256(to.add(place).cast(), _mm256_cvtepu8_epi16(bytes));
        }
    }
    let rest = length - whole;
    if rest == 0 {
        return;
    }
    // SAFETY: bytes before the length are read, and a whole step is written.
    unsafe {
        let bytes = if whole > 0 {
            // The last bytes that there are, of which some were widened already.
            let last = _mm_loadu_si128(from.add(length - STEP).cast());
            _mm_shuffle_epi8(last, _mm_loadu_si128(TO_THE_FRONT.as_ptr().add(STEP - rest).cast()))
        } else {
            let mut bytes = [0u8; STEP];
            std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), rest);
            _mm_loadu_si128(bytes.as_ptr().cast())
        };
        _mm256_storeu_si256(to.add(whole).cast(), _mm256_cvtepu8_epi16(bytes));
    }
}

/// # Safety
/// As for [`TileFunction`].
#[inline(always)]
pub(super) unsafe fn tile<P: Pairs, const ROWS: usize, const WIDE: usize>(
    chunk: &Chunk<'_>,
    column: usize,
    to: *mut i32,
) {
    let mut pairs = [[[P::zero(); 2]; WIDE]; ROWS];
    let mut a = chunk.a;
    // Where two registers of columns lie in the panels.
    let ahead = |place: usize| {
        let column = column + place * P::COLUMNS;
        (column / WIDTH) as isize * chunk.b_panel_stride + (column % WIDTH * DEPTHS) as isize
    };
    for piece in chunk.pieces {
        let mut b = piece.b;
        for _ in 0..piece.groups {
            // SAFETY: the chunk has so many groups of depths, and B the tile's columns.
            unsafe {
                let panels: [[P::Numbers; 2]; WIDE] = std::array::from_fn(|wide| {
                    std::array::from_fn(|half| P::panel(b.wrapping_offset(ahead(2 * wide + half))))
                });
                for (r, pairs) in pairs.iter_mut().enumerate() {
                    let factor = P::factor(a.add(r * ROW));
                    for (pair, panel) in pairs.as_flattened_mut().iter_mut().zip(panels.as_flattened()) {
                        *pair = pair.dot(factor, *panel);
                    }
                }
            }
            a = a.wrapping_add(DEPTHS);
            b = b.wrapping_add(DEPTHS * WIDTH);
        }
    }
    for (r, pairs) in pairs.iter().enumerate() {
        for (wide, pairs) in pairs.iter().enumerate() {
            // SAFETY: the sums can be read and written.
            unsafe { P::add_to(to.add(r * STRIP + 2 * wide * P::COLUMNS), *pairs, chunk.is_first) };
        }
    }
}
