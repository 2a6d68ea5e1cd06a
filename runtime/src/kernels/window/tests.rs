//! Depthwise convolution and pooling on every level, held bit by bit against scalar loops.

use proptest::prelude::*;

use super::Window;
use crate::kernels::depthwise::DepthwiseBlock;
use crate::kernels::gemm::{Activation, FloatSlot};
use crate::kernels::lanes::{Lanes, Portable};
use crate::kernels::{KernelTable, Level, math};

const MARGIN: f32 = 7.25;

/// A window with everything it points at. The gaps of the input are NaN and those of the output [`MARGIN`]: a read of
/// the former or a write to the latter shows.
#[derive(Debug)]
struct Case {
    columns: usize,
    channels: usize,
    input_stride: usize,
    pixel_stride: usize,
    output_stride: usize,
    /// Where the first pixel of each tap begins in the input.
    taps: Vec<Option<usize>>,
    input: Vec<f32>,
    seed: u32,
}

fn values(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 8) as f32 / 8_388_608.0 - 1.0
    };
    (0..count).map(|_| next() * 3.0).collect()
}

impl Case {
    fn new(
        columns: usize,
        channels: usize,
        gaps: [usize; 2],
        step: usize,
        taps: Vec<Option<usize>>,
        seed: u32,
    ) -> Case {
        let pixel_stride = channels + gaps[0];
        let pixels = columns * step + 8;
        let mut input = values(pixels * pixel_stride, seed);
        for pixel in input.chunks_exact_mut(pixel_stride) {
            pixel[channels..].fill(f32::NAN);
        }
        // Cut off right behind the last pixel that may be read, so that a tool that checks memory sees reads beyond.
        input.truncate(input.len() - gaps[0]);
        let taps = taps.into_iter().map(|tap| tap.map(|pixel| pixel * pixel_stride)).collect();
        Case {
            columns,
            channels,
            input_stride: pixel_stride * step,
            pixel_stride,
            output_stride: channels + gaps[1],
            taps,
            input,
            seed,
        }
    }

    fn step(&self) -> usize {
        self.input_stride / self.pixel_stride
    }

    /// The first pixel of each tap.
    fn pixels(&self) -> Vec<Option<usize>> {
        self.taps.iter().map(|tap| tap.map(|start| start / self.pixel_stride)).collect()
    }

    /// The inputs of one output, in the order of the taps; with the index of the tap.
    fn inputs(&self, pixel: usize, channel: usize) -> impl Iterator<Item = (usize, f32)> {
        let at = pixel * self.input_stride + channel;
        self.taps.iter().enumerate().filter_map(move |(tap, start)| start.map(|start| (tap, self.input[start + at])))
    }

    /// Runs a kernel on every level and compares every output.
    fn check(&self, run: impl Fn(&KernelTable, Window), expected: impl Fn(usize, usize) -> f32) {
        let taps: Vec<*const f32> =
            self.taps.iter().map(|tap| tap.map_or(std::ptr::null(), |start| self.input[start..].as_ptr())).collect();
        for level in Level::available() {
            let mut output = vec![MARGIN; 10 + self.columns * self.output_stride + 20];
            let window = Window {
                output: output[10..].as_mut_ptr(),
                output_stride: self.output_stride as i64,
                columns: self.columns as u64,
                channels: self.channels as u64,
                taps: taps.as_ptr(),
                tap_count: taps.len() as u64,
                input_stride: self.input_stride as i64,
            };
            run(KernelTable::for_level(level), window);
            for (index, &found) in output.iter().enumerate() {
                let inside = index >= 10
                    && (index - 10) / self.output_stride < self.columns
                    && (index - 10) % self.output_stride < self.channels;
                let expected = if inside {
                    expected((index - 10) / self.output_stride, (index - 10) % self.output_stride)
                } else {
                    MARGIN
                };
                let same = found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan());
                assert!(same, "{level}, output {index}: {found:e}, not {expected:e}");
            }
        }
    }
}

fn cases() -> impl Strategy<Value = Case> {
    // Anywhere, or in rows side by side of which some are out of range, as windows of images have them.
    let anywhere = prop::collection::vec(prop::option::weighted(0.8, 0usize..8), 0..26);
    let row = (prop::bool::weighted(0.8), 0usize..4, 1usize..5, 1usize..3);
    let row = row.prop_map(|(is_there, first, count, distance)| -> Vec<Option<usize>> {
        (0..count).map(|tap| Some(first + tap * distance).filter(|pixel| is_there && *pixel < 8)).collect()
    });
    let rows = prop::collection::vec(row, 0..8).prop_map(|rows| rows.concat());
    let taps = prop_oneof![anywhere, rows];
    let channels = prop_oneof![1usize..20, 20usize..150, Just(64), Just(16)];
    (1usize..30, channels, [0usize..4, 0usize..4], 1usize..3, taps, any::<u32>())
        .prop_map(|(columns, channels, gaps, step, taps, seed)| Case::new(columns, channels, gaps, step, taps, seed))
}

fn activate(activation: Activation, [p0, p1]: [f32; 2], x: f32) -> f32 {
    let (x, p0, p1) = (Portable::splat(x), Portable::splat(p0), Portable::splat(p1));
    match activation {
        Activation::None => x,
        Activation::Relu => math::relu(x),
        Activation::Clip => math::clip(x, p0, p1),
        Activation::LeakyRelu => math::leaky_relu(x, p0),
        Activation::HardSwish => math::hard_swish(x),
        Activation::Sigmoid => math::sigmoid(x),
        Activation::Tanh => math::tanh(x),
        Activation::Silu => math::silu(x),
        Activation::Gelu => math::gelu(x),
        Activation::GeluTanh => math::gelu_tanh(x),
    }
    .first()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn depthwise(
        case in cases(), scaled: bool, biased: bool, activation in prop::sample::select(&Activation::ALL[..]),
    ) {
        let weight_stride = case.channels.next_multiple_of(16);
        let weights = values(weight_stride * case.taps.len(), case.seed ^ 1);
        let (scale, bias) = (values(case.channels, case.seed ^ 2), values(case.channels, case.seed ^ 3));
        let parameters = [-0.5, 1.5];
        let run = |table: &KernelTable, window: Window| {
            let block = DepthwiseBlock {
                window,
                weights: weights.as_ptr(),
                weight_stride: weight_stride as i64,
                scale: if scaled { scale.as_ptr() } else { std::ptr::null() },
                bias: if biased { bias.as_ptr() } else { std::ptr::null() },
                activation: activation as u64,
                activation_parameters: parameters.map(FloatSlot),
            };
            // SAFETY: the block describes arrays of the case.
            unsafe { (table.depthwise_f32)(&block) };
        };
        case.check(run, |pixel, channel| {
            let weight = |tap: usize| weights[tap * weight_stride + channel];
            let mut sum = case.inputs(pixel, channel).fold(0.0f32, |sum, (tap, x)| x.mul_add(weight(tap), sum));
            if scaled {
                sum *= scale[channel];
            }
            if biased {
                sum += bias[channel];
            }
            activate(activation, parameters, sum)
        });
    }

    #[test]
    fn groups(case in cases(), members in prop::sample::select(&[2usize, 4, 8][..]), relu: bool) {
        let channels = case.channels.next_multiple_of(members);
        let case = Case::new(case.columns, channels, [members, 3], case.step(), case.pixels(), case.seed);
        let weight_stride = channels.next_multiple_of(16);
        let weights = values(weight_stride * case.taps.len() * members, case.seed ^ 1);
        let run = |table: &KernelTable, window: Window| {
            let block = DepthwiseBlock {
                window,
                weights: weights.as_ptr(),
                weight_stride: weight_stride as i64,
                scale: std::ptr::null(),
                bias: std::ptr::null(),
                activation: if relu { Activation::Relu } else { Activation::None } as u64,
                activation_parameters: [FloatSlot(0.); 2],
            };
            // SAFETY: the block describes arrays of the case, whose channels are whole groups.
            unsafe { (table.grouped_f32)(&block, members as u64) };
        };
        case.check(run, |pixel, channel| {
            let mut sum = 0.0f32;
            for tap in 0..case.taps.len() {
                for member in 0..members {
                    let input = case.inputs(pixel, channel / members * members + member).find(|(own, _)| *own == tap);
                    let Some((_, x)) = input else { continue };
                    sum = x.mul_add(weights[(tap * members + member) * weight_stride + channel], sum);
                }
            }
            if relu { math::relu(Portable::splat(sum)).first() } else { sum }
        });
    }

    #[test]
    fn pooling(case in cases()) {
        // SAFETY: the window describes arrays of the case.
        case.check(|table, window| unsafe { (table.sum_pool_f32)(&window) }, |pixel, channel| {
            case.inputs(pixel, channel).fold(0.0, |sum, (_, x)| sum + x)
        });
        // SAFETY: as above.
        case.check(|table, window| unsafe { (table.max_pool_f32)(&window) }, |pixel, channel| {
            case.inputs(pixel, channel).fold(f32::NEG_INFINITY, |greatest, (_, x)| greatest.max(x))
        });
    }
}

/// A NaN in any tap is a NaN in the maximum, and zeros are ordered.
#[test]
fn maximum_of_special_values() {
    let mut case = Case::new(2, 18, [0, 0], 1, vec![Some(0), Some(1), Some(2)], 1);
    case.input[..18].fill(-0.0);
    case.input[18..36].fill(0.0);
    case.input[36..54].fill(-0.0);
    case.input[54..72].fill(-1.0);
    case.input[19] = f32::NAN;
    // SAFETY: the window describes arrays of the case.
    case.check(
        |table, window| unsafe { (table.max_pool_f32)(&window) },
        |_, channel| {
            if channel == 1 { f32::NAN } else { 0.0 }
        },
    );
}
