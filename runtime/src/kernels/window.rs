//! Windows: what depthwise convolution and pooling have in common. Channels are innermost; every output pixel combines
//! the same few input pixels around it (the taps), each channel by itself.
//!
//! A tile is a few neighbouring output pixels by a slice of up to 64 channels, whose sums stay in registers over all
//! taps: what a tap brings along (its weights) is loaded once for all pixels of the tile, and the input pixels are
//! operands in memory, one load for each multiply-add, which is what the first-level cache can do.

mod sharing;

use super::lanes::{Group, Lanes, Part, WIDTH, Whole};
use sharing::Runs;

/// The most pixels of a tile: rows of 7, 14, 28, 56 and 112 pixels, which convolutional networks have, divide by it.
const PIXELS: usize = 7;

/// A segment of one output row, and its taps. Code generators fill it in memory: every field has 8 bytes, at the offset
/// that `offset_of!` says. Strides count elements.
///
/// A tap that is out of range for all pixels of the segment is null and left out. Where it is in range for some pixels
/// only, the caller cuts the row into segments (left border, middle, right border) or points into a halo.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// The first channel of the first output pixel.
    pub output: *mut f32,
    /// Distance of two output pixels.
    pub output_stride: i64,
    /// The number of output pixels.
    pub columns: u64,
    /// The number of channels.
    pub channels: u64,
    /// For each tap the first channel of the input pixel that the first output pixel reads, or null.
    pub taps: *const *const f32,
    /// The number of taps.
    pub tap_count: u64,
    /// Distance of the input pixels that neighbouring output pixels read.
    pub input_stride: i64,
}

/// What is computed in a window.
pub(super) trait Operation<V: Lanes> {
    /// The most groups of 16 channels a tile may have. Where it is one, all channels of a few pixels come before the next pixels: they
    /// lie side by side in memory. Where it is more, what a tap brings along is little: pixels [share](sharing) what they read if registers
    /// are few.
    const PANELS: usize;
    /// What a tap brings along for 16 channels.
    type Factor: Copy;
    /// What the epilogue needs to know of 16 channels.
    type Ending: Copy;

    /// What sums begin with.
    fn start(&self) -> V;
    /// # Safety
    /// The tap and the group lie in the window.
    unsafe fn factor(&self, tap: usize, group: impl Group<V>) -> Self::Factor;
    fn step(sum: V, x: V, factor: Self::Factor) -> V;
    /// # Safety
    /// The group lies in the window.
    unsafe fn ending(&self, group: impl Group<V>) -> Self::Ending;
    /// What becomes of the sums of some pixels.
    fn finish<const PIXELS: usize>(&self, sums: [V; PIXELS], ending: Self::Ending) -> [V; PIXELS];
    /// What is done with outputs once they are stored: with so many side by side.
    ///
    /// # Safety
    /// The outputs can be read and written.
    #[inline(always)]
    unsafe fn revise(&self, _output: *mut f32, _count: usize) {}
    /// Whether [`Operation::revise`] does anything.
    #[inline(always)]
    fn revises(&self) -> bool {
        false
    }
}

/// The tiles that so many pixels are cut into, of nearly the same size.
#[inline(always)]
fn tile_count<V: Lanes>(pixels: usize) -> usize {
    // A quarter of the registers is left for what a tap brings and for the compiler: with a single one left it keeps some
    // sums in memory, where a chain takes twice as long.
    pixels.div_ceil(PIXELS.min(V::REGISTERS / 4 * 3))
}

/// Computes all outputs of the window, by slices of channels and tiles of pixels.
///
/// # Safety
/// The arrays of window and operation are valid for the sizes and strides given; the output overlaps no other array.
#[inline(always)]
pub(super) unsafe fn run<V: Lanes, O: Operation<V>>(window: &Window, operation: &O) {
    let columns = window.columns as usize;
    if O::PANELS > 1 {
        let mut runs = Runs::new();
        // SAFETY: the caller vouches for the window and its taps.
        unsafe {
            let shares = const { sharing::pays::<V, O>() } && runs.find(window);
            let runs = if shares { Some(&runs) } else { None };
            pixels::<V, O>(window, operation, runs, (0, columns));
            revise(window, operation, (0, columns));
        }
        return;
    }
    let tiles = tile_count::<V>(columns);
    let mut pixel = 0;
    for index in 0..tiles {
        let end = pixel + (columns - pixel).div_ceil(tiles - index);
        // SAFETY: these pixels lie in the window.
        unsafe {
            pixels::<V, O>(window, operation, None, (pixel, end));
            revise(window, operation, (pixel, end));
        }
        pixel = end;
    }
}

/// Computes the outputs of some pixels.
///
/// # Safety
/// As for [`run`]; the pixels lie in the window.
#[inline(always)]
unsafe fn pixels<V: Lanes, O: Operation<V>>(
    window: &Window,
    operation: &O,
    runs: Option<&Runs>,
    pixels: (usize, usize),
) {
    let channels = window.channels as usize;
    let mut channel = 0;
    // SAFETY: every slice lies in the channels.
    unsafe {
        if O::PANELS >= 4 && V::REGISTERS >= 32 {
            while channels - channel >= 4 * WIDTH {
                let groups = [0, 1, 2, 3].map(|panel| Whole(channel + panel * WIDTH));
                slice::<V, O, Whole, 4>(window, operation, (runs, pixels), groups);
                channel += 4 * WIDTH;
            }
            if channels - channel >= 2 * WIDTH {
                let groups = [Whole(channel), Whole(channel + WIDTH)];
                slice::<V, O, Whole, 2>(window, operation, (runs, pixels), groups);
                channel += 2 * WIDTH;
            }
        }
        while channels - channel >= WIDTH {
            slice::<V, O, Whole, 1>(window, operation, (runs, pixels), [Whole(channel)]);
            channel += WIDTH;
        }
        if channel < channels {
            let groups = [Part(channel, V::mask(channels - channel))];
            slice::<V, O, Part<V>, 1>(window, operation, (runs, pixels), groups);
        }
    }
}

/// One slice of channels for some pixels, in tiles of nearly the same size.
///
/// # Safety
/// As for [`run`]; the groups are those of the channels from `channel` on, and the pixels lie in the window.
#[inline(always)]
unsafe fn slice<V: Lanes, O: Operation<V>, G: Group<V>, const PANELS: usize>(
    window: &Window,
    operation: &O,
    (runs, (first, end)): (Option<&Runs>, (usize, usize)),
    groups: [G; PANELS],
) {
    // What is constantly false is not even compiled.
    if const { sharing::pays::<V, O>() }
        && let Some(runs) = runs
    {
        // SAFETY: the caller vouches for the slice.
        return unsafe { sharing::slice::<V, O, G>(window, operation, runs, (first, end), groups[0]) };
    }
    let tiles = tile_count::<V>(end - first);
    let mut pixel = first;
    for index in 0..tiles {
        let pixels = (end - pixel).div_ceil(tiles - index);
        // SAFETY: the tile's pixels lie in the window.
        unsafe {
            match pixels {
                1 => tile::<V, O, G, 1, PANELS>(window, operation, pixel, groups),
                2 => tile::<V, O, G, 2, PANELS>(window, operation, pixel, groups),
                3 => tile::<V, O, G, 3, PANELS>(window, operation, pixel, groups),
                4 => tile::<V, O, G, 4, PANELS>(window, operation, pixel, groups),
                5 => tile::<V, O, G, 5, PANELS>(window, operation, pixel, groups),
                6 => tile::<V, O, G, 6, PANELS>(window, operation, pixel, groups),
                _ => tile::<V, O, G, 7, PANELS>(window, operation, pixel, groups),
            }
        }
        pixel += pixels;
    }
}

/// What is done with pixels once they are stored.
///
/// # Safety
/// The pixels lie in the window.
#[inline(always)]
unsafe fn revise<V: Lanes, O: Operation<V>>(window: &Window, operation: &O, (first, end): (usize, usize)) {
    if operation.revises() {
        let (channels, stride) = (window.channels as usize, window.output_stride as isize);
        let pixels = if stride == channels as isize { end - first } else { 1 };
        for pixel in (first..end).step_by(pixels.max(1)) {
            // SAFETY: the caller vouches for the pixels.
            unsafe { operation.revise(window.output.offset(pixel as isize * stride), pixels * channels) };
        }
    }
}

/// # Safety
/// As for [`run`]; the pixels and groups lie in the window.
#[inline(always)]
unsafe fn tile<V: Lanes, O: Operation<V>, G: Group<V>, const PIXELS: usize, const PANELS: usize>(
    window: &Window,
    operation: &O,
    pixel: usize,
    groups: [G; PANELS],
) {
    let (input_stride, output_stride) = (window.input_stride as isize, window.output_stride as isize);
    let mut sums = [[operation.start(); PANELS]; PIXELS];
    // Pixels lie too far apart for the CPU to foresee where the tile will write.
    for index in pixel..pixel + PIXELS {
        let output = window.output.wrapping_offset(index as isize * output_stride);
        groups.into_iter().for_each(|group| group.prefetch_to_write(output));
    }
    // SAFETY: the caller vouches for the arrays; taps that are not null can be read for all pixels of the window.
    unsafe {
        for tap in 0..window.tap_count as usize {
            let input = *window.taps.add(tap);
            if input.is_null() {
                continue;
            }
            let input = input.offset(pixel as isize * input_stride);
            for (panel, group) in groups.into_iter().enumerate() {
                let factor = operation.factor(tap, group);
                for (index, sums) in sums.iter_mut().enumerate() {
                    let x = group.load(input.wrapping_offset(index as isize * input_stride));
                    sums[panel] = O::step(sums[panel], x, factor);
                }
            }
        }
        for (panel, group) in groups.into_iter().enumerate() {
            let ending = operation.ending(group);
            for (index, sums) in sums.iter().enumerate() {
                let output = window.output.offset((pixel + index) as isize * output_stride);
                let [sum] = operation.finish([sums[panel]], ending);
                group.store(sum, output);
            }
        }
    }
}

#[cfg(test)]
mod tests;
