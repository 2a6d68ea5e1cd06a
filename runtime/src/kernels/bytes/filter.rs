//! Convolutions of bytes with three by three taps, with fewer products: Winograd's minimal filtering `F(2 x 2, 3 x 3)`, which
//! takes sixteen for four results instead of thirty-six. It is for CPUs that multiply pairs of 16-bit numbers, to which bytes
//! are widened anyway.
//!
//! It is exact. The transform of the kernel is doubled along both axes, so that all numbers are integers; those of the
//! inputs are within 510 and those of the kernel within 1152, which 16 bits hold, and a sum of their products is four times
//! that of the convolution, modulo `2^32`: what it is a quarter of is known as long as it has 30 bits, which [`DEEPEST`]
//! sees to.
//!
//! Tiles are four inputs high and wide and overlap by two. The inputs of all tiles are transformed at once; of the
//! kernel a panel of columns at a time, while the block is computed: that costs little beside the products of some tiles,
//! and weights stay the bytes that they are.
//!
//! CPUs with registers for matrices compute lines together instead, since a line of a small image fills no register.
//!
//! Source: Lavin and Gray, 2016, Fast Algorithms for Convolutional Neural Networks.

use super::block::{ByteBlock, ByteItem};
use super::families::Tiles;
#[cfg(target_arch = "x86_64")]
use super::matrix;
use super::run;
use crate::kernels::lanes::WIDTH;

/// Lines of a convolution with three by three taps that move by a line and by a pixel. Every field has 8 bytes and starts at a
/// multiple of 8.
///
/// Every line is what the block says, with A, C and the residual so much further. The block's items are the taps of
/// the first line, line by line: of tap `(y, x)`, A begins `y` lines and `x` pixels after that of the first.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ByteFilter {
    /// The first line: its rows are pixels.
    pub block: ByteBlock,
    /// How many lines.
    pub lines: u64,
    /// Distance of two lines of A, in bytes.
    pub a_line_stride: i64,
    /// Distance of two lines of C, in elements.
    pub c_line_stride: i64,
    /// Distance of two lines of the residual, in elements.
    pub residual_line_stride: i64,
    /// Memory of [`filter_memory`] bytes, aligned to 64.
    pub memory: *mut u8,
}

/// Taps along an axis.
pub(super) const TAPS: usize = 3;
/// Results of a tile along an axis.
pub(super) const RESULTS: usize = 2;
/// Products of a tile along an axis, and its inputs.
pub(super) const SIDE: usize = 4;
/// Products of a tile.
pub(super) const PARTS: usize = SIDE * SIDE;
/// Depths whose weights are transformed at a time.
pub(super) const CHUNK: usize = 256;
/// What the depth has to be a multiple of where vectors have 256 bits: as many are transformed at a time.
pub const FILTER_DEPTHS: usize = 16;
/// The deepest convolution whose sums have 30 bits: nine taps of `255 * 128`.
pub const DEEPEST: usize = 1792;
/// Numbers between rows and between parts, which would else share few sets of the cache.
const GAP: usize = 32;

/// Computes the lines.
///
/// # Safety
/// As for [`super::filter_bytes`]; the depth is a multiple of those that are transformed at a time and at most [`DEEPEST`]; the
/// CPU is of the level the function was compiled for.
pub(super) type FilterFunction = unsafe fn(filter: &ByteFilter);

/// What the memory of a filter holds, one after the other. Other CPUs fill none of it, but compile for those that do.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub(super) struct Layout {
    /// Tiles of results along a line, and how many lines of them.
    pub(super) tiles: [usize; 2],
    /// Distance of two tiles in the transformed inputs.
    pub(super) row: usize,
    /// Distances of two parts: in the transformed inputs, in a chunk of the transformed kernel, and in the sums.
    pub(super) inputs: usize,
    pub(super) kernel: usize,
    pub(super) sums: usize,
    /// Results of a panel of columns.
    results: usize,
}

#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
impl Layout {
    pub(super) fn new(lines: usize, pixels: usize, depth: usize) -> Self {
        let tiles = [pixels.div_ceil(RESULTS), lines.div_ceil(RESULTS)];
        let count = tiles[0] * tiles[1];
        let row = depth + GAP / 2;
        Layout {
            tiles,
            row,
            inputs: (count * row).next_multiple_of(GAP) + GAP,
            kernel: depth.min(CHUNK) * WIDTH + GAP,
            sums: (count | 1) * WIDTH,
            results: lines * pixels * WIDTH,
        }
    }

    pub(super) fn count(&self) -> usize {
        self.tiles[0] * self.tiles[1]
    }

    /// Where the parts begin, in bytes, and where the memory ends.
    pub(super) fn places(&self) -> [usize; 5] {
        let sizes = [2 * PARTS * self.inputs, 2 * PARTS * self.kernel, 4 * PARTS * self.sums, 4 * self.results];
        let mut places = [0; 5];
        for (index, size) in sizes.into_iter().enumerate() {
            places[index + 1] = places[index] + size.next_multiple_of(64);
        }
        places
    }
}

/// Bytes of memory that a filter of so many lines, pixels and depths needs.
pub fn filter_memory(lines: usize, pixels: usize, depth: usize) -> usize {
    Layout::new(lines, pixels, depth).places()[4]
}

/// # Safety
/// As for [`super::filter_bytes`].
#[inline(always)]
pub(super) unsafe fn convolve<T: Tiles>(filter: *const ByteFilter) {
    // SAFETY: the caller vouches for the filter.
    let filter = unsafe { &*filter };
    #[cfg(target_arch = "x86_64")]
    if T::has_tile_registers() && matrix::joins(filter) {
        // SAFETY: the caller vouches for the filter, and this CPU has the registers.
        return unsafe { matrix::run_lines(filter, T::family().finish) };
    }
    let depth = filter.block.depth as usize;
    if let Some((function, step)) = T::family().filter
        && depth.is_multiple_of(step)
        && depth <= DEEPEST
    {
        // SAFETY: the caller vouches for the filter, and the depth is one of those.
        return unsafe { function(filter) };
    }
    for line in 0..filter.lines as usize {
        let mut items = [ByteItem { a: std::ptr::null(), b: std::ptr::null() }; TAPS * TAPS];
        for (tap, item) in items.iter_mut().enumerate() {
            // SAFETY: there is an item for each tap.
            let first = unsafe { *filter.block.items.add(tap) };
            let ahead = line as isize * filter.a_line_stride as isize;
            *item = ByteItem { a: first.a.wrapping_offset(ahead), ..first };
        }
        let block = ByteBlock { items: items.as_ptr(), ..filter.line(line) };
        // SAFETY: the line is one of the filter.
        unsafe { run::<T>(&block) };
    }
}

impl ByteFilter {
    /// What becomes of a line.
    pub(super) fn line(&self, line: usize) -> ByteBlock {
        let block = &self.block;
        let c = line as isize * self.c_line_stride as isize * block.output.size();
        let residual = line as isize * self.residual_line_stride as isize * block.residual_type.size();
        ByteBlock { c: block.c.wrapping_offset(c), residual: offset(block.residual, residual), ..*block }
    }
}

/// A place in an array, if there is one.
fn offset(array: *const u8, bytes: isize) -> *const u8 {
    if array.is_null() { array } else { array.wrapping_offset(bytes) }
}
