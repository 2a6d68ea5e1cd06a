//! Depthwise convolutions of bytes, channels innermost: segments of output rows as in [`crate::kernels::window`], and the
//! finish of products of bytes.

use super::block::ByteBlock;
use super::families::{Family, Tiles};
use super::lanes::Sums;
use super::{STRIP, TALLEST};
use crate::kernels::lanes::{Lanes, WIDTH};
use std::mem::MaybeUninit;

/// A segment of one output row of a depthwise convolution. Every field has 8 bytes and starts at a multiple of 8; strides are
/// in elements.
///
/// ```text
/// s = sum over taps t of taps[t][i * input_stride + j] * weights[t * weight_stride + j]     modulo 2^32
/// ```
///
/// for pixel `i < block.rows` and channel `j < block.columns`; what becomes of it, and where it goes, is in the block, whose
/// items, A and B are not looked at.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ByteWindow {
    /// What happens to the sums.
    pub block: ByteBlock,
    /// For each tap the first channel of the input pixel that the first output pixel reads.
    pub taps: *const *const u8,
    /// The number of taps.
    pub tap_count: u64,
    /// Distance of the input pixels that neighbouring output pixels read.
    pub input_stride: i64,
    /// The weights of the first tap, by channel.
    pub weights: *const i8,
    /// Distance of the weights of two taps.
    pub weight_stride: i64,
}

/// Computes the sums of some pixels from one on, at most [`TALLEST`], and some channels from one on, at most [`STRIP`]. Rows of
/// sums are [`STRIP`] apart, and whole panels are written.
///
/// # Safety
/// Pixels and channels lie in the window, whose arrays are valid; the sums can be written; the CPU is of the level the
/// function was compiled for.
pub(super) type WindowFunction =
    unsafe fn(window: &ByteWindow, pixels: [usize; 2], channels: [usize; 2], sums: *mut i32);

/// Cuts the segment into strips, whose sums wait in L1 for the finish.
///
/// # Safety
/// As for [`super::depthwise_bytes`].
#[inline(always)]
pub(super) unsafe fn convolve<T: Tiles>(window: *const ByteWindow) {
    // SAFETY: the caller vouches for the window.
    let window = unsafe { &*window };
    let Family { window: sum, finish, .. } = T::family();
    let (pixels, channels) = (window.block.rows as usize, window.block.columns as usize);
    let mut sums = MaybeUninit::<[i32; TALLEST * STRIP]>::uninit();
    let sums = sums.as_mut_ptr().cast::<i32>();
    let strips = pixels.div_ceil(TALLEST);
    let mut pixel = 0;
    for index in 0..strips {
        let height = (pixels - pixel).div_ceil(strips - index);
        for channel in (0..channels).step_by(STRIP) {
            let width = (channels - channel).min(STRIP);
            // SAFETY: the strip lies in the segment and has no more rows than there are sums for, which the first function
            // writes and the second reads.
            unsafe {
                sum(window, [pixel, height], [channel, width], sums);
                finish(&window.block, [pixel, height], [channel, width], (sums, STRIP));
            }
        }
        pixel += height;
    }
}

/// The most pixels of a tile.
const PIXELS: usize = 7;

/// # Safety
/// As for [`WindowFunction`].
#[inline(always)]
pub(super) unsafe fn sum<S: Sums>(
    window: &ByteWindow,
    [first, height]: [usize; 2],
    [channel, width]: [usize; 2],
    sums: *mut i32,
) {
    let (whole, rest) = (width / WIDTH, width % WIDTH);
    let pairs = if S::HAS_MANY_REGISTERS { whole / 2 } else { 0 };
    let tiles = height.div_ceil(PIXELS.min(S::Floats::REGISTERS / 4 * 3));
    let mut pixel = 0;
    for index in 0..tiles {
        let pixels = (height - pixel).div_ceil(tiles - index);
        // SAFETY: the panels lie in the strip.
        unsafe {
            let rows = [first + pixel, pixels];
            let to = sums.add(pixel * STRIP);
            for pair in 0..pairs {
                let place = 2 * pair * WIDTH;
                tiles_of::<S, 2>(window, rows, [channel + place, WIDTH], to.add(place));
            }
            for panel in 2 * pairs..whole {
                tiles_of::<S, 1>(window, rows, [channel + panel * WIDTH, WIDTH], to.add(panel * WIDTH));
            }
            if rest > 0 {
                tiles_of::<S, 1>(window, rows, [channel + whole * WIDTH, rest], to.add(whole * WIDTH));
            }
        }
        pixel += pixels;
    }
}

/// One tile, with its number of pixels as a constant.
///
/// # Safety
/// As for [`WindowFunction`]; panels have so many channels each.
#[inline(always)]
unsafe fn tiles_of<S: Sums, const PANELS: usize>(
    window: &ByteWindow,
    [pixel, pixels]: [usize; 2],
    [channel, lanes]: [usize; 2],
    to: *mut i32,
) {
    let place = [pixel, channel, lanes];
    // SAFETY: the caller vouches for the tile.
    unsafe {
        match pixels {
            1 => tile::<S, 1, PANELS>(window, place, to),
            2 => tile::<S, 2, PANELS>(window, place, to),
            3 => tile::<S, 3, PANELS>(window, place, to),
            4 => tile::<S, 4, PANELS>(window, place, to),
            5 => tile::<S, 5, PANELS>(window, place, to),
            6 => tile::<S, 6, PANELS>(window, place, to),
            _ => tile::<S, 7, PANELS>(window, place, to),
        }
    }
}

/// # Safety
/// As for [`WindowFunction`]; panels have so many channels each.
#[inline(always)]
unsafe fn tile<S: Sums, const PIXELS: usize, const PANELS: usize>(
    window: &ByteWindow,
    [pixel, channel, lanes]: [usize; 3],
    to: *mut i32,
) {
    let stride = window.input_stride as isize;
    let mut sums = [[S::splat(0); PANELS]; PIXELS];
    for tap in 0..window.tap_count as usize {
        // SAFETY: every tap has a weight for each channel, and its pixels have the channels of the tile.
        unsafe {
            let input = (*window.taps.add(tap)).offset(pixel as isize * stride).add(channel);
            let weights = window.weights.offset(tap as isize * window.weight_stride as isize).add(channel);
            for panel in 0..PANELS {
                let weight = load::<S>(weights.add(panel * WIDTH).cast(), lanes, true);
                for (index, sums) in sums.iter_mut().enumerate() {
                    let from = input.offset(index as isize * stride).add(panel * WIDTH);
                    sums[panel] = sums[panel].add_products(load::<S>(from, lanes, false), weight);
                }
            }
        }
    }
    for (index, sums) in sums.iter().enumerate() {
        for (panel, sum) in sums.iter().enumerate() {
            // SAFETY: whole panels can be written.
            unsafe { sum.store(to.add(index * STRIP + panel * WIDTH), WIDTH) };
        }
    }
}

/// Bytes of a panel; of whole panels the compiler knows that they are.
///
/// # Safety
/// So many bytes can be read.
#[inline(always)]
unsafe fn load<S: Sums>(from: *const u8, lanes: usize, signed: bool) -> S {
    // SAFETY: the caller vouches for the bytes.
    unsafe { if lanes == WIDTH { S::load_bytes(from, WIDTH, signed) } else { S::load_bytes(from, lanes, signed) } }
}
