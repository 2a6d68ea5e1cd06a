//! Minimal filtering in registers: transforms of inputs, kernel and results, and the tile that multiplies between them.

use super::DEPTHS;
use super::block::ByteBlock;
use super::filter::{ByteFilter, CHUNK, Layout, PARTS, RESULTS, SIDE, TAPS};
use super::finish::FinishFunction;
use super::lanes::{Pairs, Sums};
use super::widened::TALLEST;
use crate::kernels::lanes::WIDTH;

/// Depths of which inputs are transformed at a time.
pub(super) const fn step<P: Pairs>() -> usize {
    P::COLUMNS * DEPTHS
}

/// Adds the products of some rows of transformed inputs, which are so far apart, and of the transformed kernel, over so many groups
/// of four depths, to sums whose rows are a panel apart, or puts them there if they are the first.
///
/// # Safety
/// Inputs and kernel can be read, and the sums read and written; the CPU is of the level the function was compiled for.
pub(super) type TileFunction =
    unsafe fn(inputs: *const i16, row_stride: usize, kernel: *const i16, groups: usize, sums: (*mut i32, bool));

/// # Safety
/// As for [`FilterFunction`](super::filter::FilterFunction), and the tiles and the finish are of the same level.
#[inline(always)]
pub(super) unsafe fn filter<P: Pairs, S: Sums>(
    tiles: &[TileFunction; TALLEST],
    finish: FinishFunction,
    filter: &ByteFilter,
) {
    let block = &filter.block;
    let [depth, columns] = [block.depth, block.columns].map(|size| size as usize);
    let layout = Layout::new(filter.lines as usize, block.rows as usize, depth);
    let [inputs, kernel, sums, results, _] = layout.places().map(|place| filter.memory.wrapping_add(place));
    let (inputs, kernel, sums) = (inputs.cast::<i16>(), kernel.cast::<i16>(), sums.cast::<i32>());
    let count = layout.count();
    let strips = count.div_ceil(TALLEST);
    // SAFETY: the memory has room for what the layout says, and the caller vouches for the block.
    unsafe {
        transform_inputs::<P>(filter, &layout, inputs);
        for column in (0..columns).step_by(WIDTH) {
            for start in (0..depth).step_by(CHUNK) {
                let length = (depth - start).min(CHUNK);
                transform_kernel::<P>(block, column, [start, length], (kernel, layout.kernel));
                for part in 0..PARTS {
                    let (mut first, from) = (0, inputs.add(part * layout.inputs + start));
                    for strip in 0..strips {
                        let height = (count - first).div_ceil(strips - strip);
                        for place in (0..WIDTH).step_by(2 * P::COLUMNS) {
                            tiles[height - 1](
                                from.add(first * layout.row),
                                layout.row,
                                kernel.add(part * layout.kernel + place * DEPTHS),
                                length / DEPTHS,
                                (sums.add(part * layout.sums + first * WIDTH + place), start == 0),
                            );
                        }
                        first += height;
                    }
                }
            }
            transform_results::<S>(filter, &layout, sums, results.cast());
            finish_lines(filter, finish, column, results.cast());
        }
    }
}

/// The numbers that are multiplied: `B^T d` of an axis.
#[inline(always)]
fn of_inputs<P: Pairs>([d0, d1, d2, d3]: [P::Numbers; SIDE]) -> [P::Numbers; SIDE] {
    [P::minus(d0, d2), P::plus(d1, d2), P::minus(d2, d1), P::minus(d1, d3)]
}

/// Twice the numbers that they are multiplied with: `2 G g` of an axis.
#[inline(always)]
fn of_kernel<P: Pairs>([g0, g1, g2]: [P::Numbers; TAPS]) -> [P::Numbers; SIDE] {
    let ends = P::plus(g0, g2);
    [P::plus(g0, g0), P::plus(ends, g1), P::minus(ends, g1), P::plus(g2, g2)]
}

/// The results: `A^T m` of an axis.
#[inline(always)]
fn of_products<S: Sums>([m0, m1, m2, m3]: [S; SIDE]) -> [S; RESULTS] {
    [m0.add(m1).add(m2), m1.sub(m2).sub(m3)]
}

/// # Safety
/// As for [`FilterFunction`](super::filter::FilterFunction); what the layout says can be written.
#[inline(always)]
unsafe fn transform_inputs<P: Pairs>(filter: &ByteFilter, layout: &Layout, to: *mut i16) {
    let block = &filter.block;
    // SAFETY: there is an item for each tap.
    let first = unsafe { (*block.items).a };
    let strides = [filter.a_line_stride as isize, block.a_row_stride as isize];
    // Of what lies beyond the inputs of the last result no result is stored: the last inputs are read in its place.
    let last = [filter.lines as usize + TAPS - 2, block.rows as usize + TAPS - 2];
    for tile in 0..layout.count() {
        let at = [tile / layout.tiles[0], tile % layout.tiles[0]];
        let mut ahead = [[0; SIDE]; 2];
        for (axis, ahead) in ahead.iter_mut().enumerate() {
            for (index, ahead) in ahead.iter_mut().enumerate() {
                *ahead = (RESULTS * at[axis] + index).min(last[axis]) as isize * strides[axis];
            }
        }
        let [lines, pixels] = ahead;
        for depth in (0..block.depth as usize).step_by(step::<P>()) {
            let from = first.wrapping_add(depth);
            let to = to.wrapping_add(tile * layout.row + depth);
            let mut across = [[P::zeros(); SIDE]; SIDE];
            for (index, pixel) in pixels.into_iter().enumerate() {
                let mut inputs = [P::zeros(); SIDE];
                for (input, line) in inputs.iter_mut().zip(lines) {
                    // SAFETY: the inputs of results can be read.
                    *input = unsafe { P::unsigned(from.wrapping_offset(line + pixel)) };
                }
                for (across, numbers) in across.iter_mut().zip(of_inputs::<P>(inputs)) {
                    across[index] = numbers;
                }
            }
            for (part, across) in across.into_iter().enumerate() {
                for (index, numbers) in of_inputs::<P>(across).into_iter().enumerate() {
                    // SAFETY: there is room for the inputs of every part.
                    unsafe { P::store(numbers, to.wrapping_add((SIDE * part + index) * layout.inputs)) };
                }
            }
        }
    }
}

/// Transforms some depths of a panel of weights; parts are so far apart.
///
/// # Safety
/// As for [`FilterFunction`](super::filter::FilterFunction); the panel lies in the block, and what the layout says can be written.
#[inline(always)]
unsafe fn transform_kernel<P: Pairs>(
    block: &ByteBlock,
    column: usize,
    [start, length]: [usize; 2],
    (to, part_stride): (*mut i16, usize),
) {
    let ahead = (column / WIDTH) as isize * block.b_panel_stride as isize + (start * WIDTH) as isize;
    let mut taps = [std::ptr::null(); TAPS * TAPS];
    for (tap, place) in taps.iter_mut().enumerate() {
        // SAFETY: there is an item for each tap.
        *place = unsafe { (*block.items.add(tap)).b.wrapping_offset(ahead) };
    }
    for place in (0..length * WIDTH).step_by(step::<P>()) {
        let to = to.wrapping_add(place);
        let mut across = [[P::zeros(); TAPS]; SIDE];
        for x in 0..TAPS {
            let mut kernel = [P::zeros(); TAPS];
            for (y, kernel) in kernel.iter_mut().enumerate() {
                // SAFETY: the panels of every tap can be read.
                *kernel = unsafe { P::panel(taps[TAPS * y + x].wrapping_add(place)) };
            }
            for (across, numbers) in across.iter_mut().zip(of_kernel::<P>(kernel)) {
                across[x] = numbers;
            }
        }
        for (part, across) in across.into_iter().enumerate() {
            for (index, numbers) in of_kernel::<P>(across).into_iter().enumerate() {
                // SAFETY: there is room for the kernel of every part.
                unsafe { P::store(numbers, to.wrapping_add((SIDE * part + index) * part_stride)) };
            }
        }
    }
}

/// # Safety
/// As for [`TileFunction`].
#[inline(always)]
pub(super) unsafe fn tile<P: Pairs, const ROWS: usize>(
    mut inputs: *const i16,
    row_stride: usize,
    mut kernel: *const i16,
    groups: usize,
    (sums, are_first): (*mut i32, bool),
) {
    let mut pairs = [[P::zero(); 2]; ROWS];
    for _ in 0..groups {
        // SAFETY: there are so many groups of depths.
        unsafe {
            let mut panels = [P::zeros(); 2];
            for (half, panel) in panels.iter_mut().enumerate() {
                *panel = P::numbers(kernel.add(half * P::COLUMNS * DEPTHS));
            }
            for (r, pairs) in pairs.iter_mut().enumerate() {
                let factor = P::factor(inputs.add(r * row_stride));
                for (pair, panel) in pairs.iter_mut().zip(panels) {
                    *pair = pair.dot(factor, panel);
                }
            }
        }
        inputs = inputs.wrapping_add(DEPTHS);
        kernel = kernel.wrapping_add(DEPTHS * WIDTH);
    }
    for (r, pairs) in pairs.iter().enumerate() {
        // SAFETY: the sums can be read and written.
        unsafe { P::add_to(sums.add(r * WIDTH), *pairs, are_first) };
    }
}

/// Sums of a panel of columns, pixel by pixel and line by line.
///
/// # Safety
/// As for [`FilterFunction`](super::filter::FilterFunction); what the layout says can be read and written.
#[inline(always)]
unsafe fn transform_results<S: Sums>(filter: &ByteFilter, layout: &Layout, sums: *const i32, to: *mut i32) {
    let [lines, pixels] = [filter.lines, filter.block.rows].map(|size| size as usize);
    for tile in 0..layout.count() {
        let [y, x] = [tile / layout.tiles[0] * RESULTS, tile % layout.tiles[0] * RESULTS];
        let mut across = [[S::splat(0); SIDE]; RESULTS];
        for index in 0..SIDE {
            let mut products = [S::splat(0); SIDE];
            for (part, product) in products.iter_mut().enumerate() {
                let place = (SIDE * part + index) * layout.sums + tile * WIDTH;
                // SAFETY: every part has a row of sums for each tile.
                *product = unsafe { S::load(sums.add(place), WIDTH) };
            }
            for (across, result) in across.iter_mut().zip(of_products(products)) {
                across[index] = result;
            }
        }
        for (line, across) in across.into_iter().enumerate().take(lines - y) {
            for (pixel, result) in of_products(across).into_iter().enumerate().take(pixels - x) {
                // SAFETY: every pixel has a row of results.
                unsafe { result.quarter().store(to.add(((y + line) * pixels + x + pixel) * WIDTH), WIDTH) };
            }
        }
    }
}

/// Finishes a panel of columns.
///
/// # Safety
/// As for [`FilterFunction`](super::filter::FilterFunction) and [`FinishFunction`]; every pixel has a row of sums.
#[inline(always)]
unsafe fn finish_lines(filter: &ByteFilter, finish: FinishFunction, column: usize, sums: *const i32) {
    let block = &filter.block;
    let [lines, pixels] = [filter.lines, block.rows].map(|size| size as usize);
    let columns = [column, (block.columns as usize - column).min(WIDTH)];
    let follow = |line: i64, row: i64| line == row * pixels as i64;
    // SAFETY: the rows and columns are those of the block.
    unsafe {
        if follow(filter.c_line_stride, block.c_row_stride)
            && (block.residual.is_null() || follow(filter.residual_line_stride, block.residual_row_stride))
        {
            return finish(block, [0, lines * pixels], columns, (sums, WIDTH));
        }
        for line in 0..lines {
            finish(&filter.line(line), [0, pixels], columns, (sums.add(line * pixels * WIDTH), WIDTH));
        }
    }
}
