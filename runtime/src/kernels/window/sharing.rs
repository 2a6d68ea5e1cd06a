//! Slices of channels whose pixels share what they read, for CPUs with few registers.
//!
//! Neighbouring output pixels read mostly the same input pixels: by three taps side by side four of them read six, twelve
//! times. Where few sums fit in registers, reading takes longer than computing unless every pixel is read once.

use super::{Group, Lanes, Operation, Window};
use std::mem::MaybeUninit;

/// Taps side by side that share what they read.
const TAPS: usize = 3;
/// The most taps, or three of them, that a window may have.
const MOST: usize = 64;

/// Whether an operation does this where registers are few, but so many that four sums and what three taps bring along fit.
#[inline(always)]
pub(super) const fn pays<V: Lanes, O: Operation<V>>() -> bool {
    O::PANELS > 1 && V::REGISTERS == 8
}

/// A tap, or three side by side.
struct Run {
    first: usize,
    /// What the first output pixel reads by the first of them.
    input: *const f32,
    is_shared: bool,
}

/// The taps of a window in which some share what they read.
pub(super) struct Runs {
    list: [MaybeUninit<Run>; MOST],
    count: usize,
    /// By how many input pixels neighbouring output pixels lie apart: one or two.
    step: usize,
    /// Elements between neighbouring input pixels.
    distance: isize,
}

impl Runs {
    /// None, before it is known.
    #[inline(always)]
    pub(super) fn new() -> Runs {
        Runs { list: [const { MaybeUninit::uninit() }; MOST], count: 0, step: 1, distance: 0 }
    }

    /// The taps of a window, if three side by side are among them and they are not too many. They stay where they are: to move
    /// them would take as long as a tile.
    ///
    /// # Safety
    /// The taps of the window can be read.
    #[inline(always)]
    pub(super) unsafe fn find(&mut self, window: &Window) -> bool {
        // SAFETY: the caller vouches for the taps.
        let taps = unsafe { std::slice::from_raw_parts(window.taps, window.tap_count as usize) };
        let stride = window.input_stride as isize;
        let mut first = 0;
        while first < taps.len() && taps[first].is_null() {
            first += 1;
        }
        self.step = if are_neighbours(taps, first, stride) { 1 } else { 2 };
        self.distance = stride / self.step as isize;
        if self.distance * self.step as isize != stride || !are_neighbours(taps, first, self.distance) {
            return false;
        }
        let mut tap = first;
        while tap < taps.len() {
            let is_shared = are_neighbours(taps, tap, self.distance);
            if !taps[tap].is_null() {
                if self.count == MOST {
                    return false;
                }
                self.list[self.count].write(Run { first: tap, input: taps[tap], is_shared });
                self.count += 1;
            }
            tap += if is_shared { TAPS } else { 1 };
        }
        true
    }

    #[inline(always)]
    fn list(&self) -> &[Run] {
        // SAFETY: so many were written.
        unsafe { std::slice::from_raw_parts(self.list.as_ptr().cast(), self.count) }
    }
}

/// Whether three taps from one on lie at this distance.
#[inline(always)]
fn are_neighbours(taps: &[*const f32], first: usize, distance: isize) -> bool {
    first + TAPS <= taps.len()
        && !taps[first].is_null()
        && taps[first + 1] == taps[first].wrapping_offset(distance)
        && taps[first + 2] == taps[first].wrapping_offset(2 * distance)
}

/// Computes some pixels of a slice of channels, three or four at a time.
///
/// # Safety
/// As for [`run`](super::run); the pixels and the group lie in the window, whose taps these are.
#[inline(always)]
pub(super) unsafe fn slice<V: Lanes, O: Operation<V>, G: Group<V>>(
    window: &Window,
    operation: &O,
    runs: &Runs,
    pixels: (usize, usize),
    group: G,
) {
    // SAFETY: the caller vouches for the slice.
    unsafe {
        match runs.step {
            1 => tiles::<V, O, G, 1>(window, operation, runs, pixels, group),
            _ => tiles::<V, O, G, 2>(window, operation, runs, pixels, group),
        }
    }
}

/// # Safety
/// As for [`slice`].
#[inline(always)]
unsafe fn tiles<V: Lanes, O: Operation<V>, G: Group<V>, const STEP: usize>(
    window: &Window,
    operation: &O,
    runs: &Runs,
    (first, end): (usize, usize),
    group: G,
) {
    let mut pixel = first;
    while pixel < end {
        // SAFETY: the tile's pixels lie in the window.
        unsafe {
            // No tile has a single pixel where that can be: its chains are too few to keep the CPU busy.
            pixel += match end - pixel {
                1 | 2 => tile::<V, O, G, STEP, 1>(window, operation, runs, pixel, group),
                3 | 6 | 9 => tile::<V, O, G, STEP, 3>(window, operation, runs, pixel, group),
                _ => tile::<V, O, G, STEP, 4>(window, operation, runs, pixel, group),
            };
        }
    }
}

/// Computes a tile; says how many pixels it has.
///
/// # Safety
/// As for [`slice`].
#[inline(always)]
unsafe fn tile<V: Lanes, O: Operation<V>, G: Group<V>, const STEP: usize, const PIXELS: usize>(
    window: &Window,
    operation: &O,
    runs: &Runs,
    pixel: usize,
    group: G,
) -> usize {
    let output_stride = window.output_stride as isize;
    let output = window.output.wrapping_offset(pixel as isize * output_stride);
    for index in 0..PIXELS {
        group.prefetch_to_write(output.wrapping_offset(index as isize * output_stride));
    }
    let before = pixel as isize * window.input_stride as isize;
    let mut sums = [operation.start(); PIXELS];
    // SAFETY: the caller vouches for the arrays; taps can be read for all pixels of the window.
    unsafe {
        for run in runs.list() {
            let input = (run.input.offset(before), runs.distance);
            if run.is_shared {
                add::<V, O, G, STEP, PIXELS, TAPS>(operation, &mut sums, run.first, input, group);
            } else {
                add::<V, O, G, STEP, PIXELS, 1>(operation, &mut sums, run.first, input, group);
            }
        }
        let sums = operation.finish(sums, operation.ending(group));
        for (index, sum) in sums.into_iter().enumerate() {
            group.store(sum, output.offset(index as isize * output_stride));
        }
    }
    PIXELS
}

/// Adds what some taps side by side read, each input pixel at once for all output pixels. The taps of an output pixel come in
/// their order.
///
/// # Safety
/// The taps lie in the window, and so do the pixels that they read from `input` on, which are `distance` apart.
#[inline(always)]
unsafe fn add<V: Lanes, O: Operation<V>, G: Group<V>, const STEP: usize, const PIXELS: usize, const COUNT: usize>(
    operation: &O,
    sums: &mut [V; PIXELS],
    tap: usize,
    (input, distance): (*const f32, isize),
    group: G,
) {
    // SAFETY: the caller vouches for the taps.
    let mut factors = [unsafe { operation.factor(tap, group) }; COUNT];
    for (ahead, factor) in factors.iter_mut().enumerate().skip(1) {
        // SAFETY: as above.
        *factor = unsafe { operation.factor(tap + ahead, group) };
    }
    for place in 0..(PIXELS - 1) * STEP + COUNT {
        if place % STEP >= COUNT {
            continue;
        }
        // SAFETY: a tap of an output pixel reads this.
        let x = unsafe { group.load(input.offset(place as isize * distance)) };
        for (ahead, factor) in factors.into_iter().enumerate() {
            if place >= ahead && (place - ahead) % STEP == 0 && (place - ahead) / STEP < PIXELS {
                let sum = &mut sums[(place - ahead) / STEP];
                *sum = O::step(*sum, x, factor);
            }
        }
    }
}
