//! Speed of depthwise convolution, pooling and the row functions, on shapes networks have.
//!
//! `cargo bench -p strang-runtime --bench windows`. A summary of best times for every level comes first, because medians
//! suffer from whoever shares the machine; Criterion then follows depthwise convolution on the highest level.

use std::hint::black_box;
use std::time::Instant;

use criterion::{Criterion, Throughput};
use strang_runtime::kernels::depthwise::DepthwiseBlock;
use strang_runtime::kernels::gemm::{Activation, FloatSlot};
use strang_runtime::kernels::window::Window;
use strang_runtime::kernels::{KernelTable, Level};

/// A cache line of floats: programs begin their arrays with one.
#[repr(align(64))]
#[derive(Clone, Copy)]
struct Line([f32; 16]);

/// Floats from the beginning of a cache line on.
struct Floats(Vec<Line>);

impl Floats {
    fn new(count: usize) -> Floats {
        let line = |first: usize| Line(std::array::from_fn(|place| ((first + place) % 17) as f32 / 16.0 - 0.5));
        Floats((0..count).step_by(16).map(line).collect())
    }

    fn from(&self, place: usize) -> *const f32 {
        self.0[place / 16].0[place % 16..].as_ptr()
    }
}

/// One output row of a convolution of `size` by `size` taps, in the middle of an image with a halo.
struct Row {
    columns: usize,
    channels: usize,
    size: usize,
    step: usize,
    input: Floats,
    weights: Floats,
    bias: Floats,
    output: Floats,
}

impl Row {
    fn new([columns, channels, size, step]: [usize; 4]) -> Row {
        let width = (columns - 1) * step + size;
        Row {
            columns,
            channels,
            size,
            step,
            input: Floats::new(size * width * channels),
            weights: Floats::new(size * size * channels.next_multiple_of(16)),
            bias: Floats::new(channels),
            output: Floats::new(columns * channels),
        }
    }

    fn taps(&self) -> Vec<*const f32> {
        let width = (self.columns - 1) * self.step + self.size;
        let tap = |index: usize| (index / self.size * width + index % self.size) * self.channels;
        (0..self.size * self.size).map(|index| self.input.from(tap(index))).collect()
    }

    fn window(&mut self, taps: &[*const f32]) -> Window {
        Window {
            output: self.output.0.as_mut_ptr().cast(),
            output_stride: self.channels as i64,
            columns: self.columns as u64,
            channels: self.channels as u64,
            taps: taps.as_ptr(),
            tap_count: taps.len() as u64,
            input_stride: (self.channels * self.step) as i64,
        }
    }

    fn depthwise(&mut self, taps: &[*const f32]) -> DepthwiseBlock {
        DepthwiseBlock {
            window: self.window(taps),
            weights: self.weights.from(0),
            weight_stride: self.channels.next_multiple_of(16) as i64,
            scale: std::ptr::null(),
            bias: self.bias.from(0),
            activation: Activation::Relu as u64,
            activation_parameters: [FloatSlot(0.0); 2],
        }
    }

    /// Multiply-adds.
    fn terms(&self) -> usize {
        self.columns * self.channels * self.size * self.size
    }
}

/// Columns, channels, size and step: rows of MobileNet, EfficientNet and the like.
const ROWS: [[usize; 4]; 10] = [
    [12, 64, 3, 1],
    [24, 16, 3, 1],
    [112, 32, 3, 1],
    [56, 96, 3, 2],
    [28, 144, 3, 1],
    [28, 192, 5, 1],
    [14, 384, 3, 1],
    [14, 480, 5, 2],
    [7, 960, 3, 1],
    [7, 30, 3, 1],
];

/// The shortest of many runs of `repeats` calls, in nanoseconds a call.
fn best(repeats: usize, mut call: impl FnMut()) -> f64 {
    let mut time = || {
        let start = Instant::now();
        for _ in 0..repeats {
            call();
        }
        start.elapsed().as_nanos() as f64 / repeats as f64
    };
    (0..300).map(|_| time()).fold(f64::INFINITY, f64::min)
}

fn main() {
    for level in Level::available() {
        let table = KernelTable::for_level(level);
        for shape in ROWS {
            let mut row = Row::new(shape);
            let taps = row.taps();
            let terms = row.terms() as f64;
            let block = row.depthwise(&taps);
            // SAFETY: the block describes arrays of the row.
            let time = best(4, || unsafe { (table.depthwise_f32)(black_box(&block)) });
            println!("{level:<9} depthwise {shape:?}: {:7.2} GFLOP/s", 2.0 * terms / time);
            let window = row.window(&taps);
            // SAFETY: the block describes arrays of the row.
            let maximum = best(4, || unsafe { (table.max_pool_f32)(black_box(&window)) });
            // SAFETY: the block describes arrays of the row.
            let sum = best(4, || unsafe { (table.sum_pool_f32)(black_box(&window)) });
            println!(
                "{level:<9} pools     {shape:?}: {:7.2} and {:.2} elements/ns (maximum, sum)",
                terms / maximum,
                terms / sum
            );
        }
        for count in [64, 384, 768, 1024] {
            let src: Vec<f32> = (0..count).map(|i| (i * 37 % count) as f32 / count as f32 * 8.0 - 4.0).collect();
            let (gain, bias, mut dst) = (src.clone(), src.clone(), vec![0.0; count]);
            let n = count as u64;
            let (src, dst) = (src.as_ptr(), dst.as_mut_ptr());
            // SAFETY: both arrays have that many elements.
            let softmax = best(50, || unsafe { (table.softmax_row_f32)(dst, black_box(src), n) });
            let norm = best(50, || {
                // SAFETY: all arrays have that many elements.
                unsafe { (table.layer_norm_row_f32)(dst, black_box(src), gain.as_ptr(), bias.as_ptr(), n, 1e-5) }
            });
            let sum = best(50, || {
                // SAFETY: the array has that many elements.
                black_box(unsafe { (table.sum_row_f32)(black_box(src), n) });
            });
            println!("{level:<9} rows of {count}: softmax {softmax:.1} ns, layer norm {norm:.1} ns, sum {sum:.1} ns");
        }
    }

    let table = KernelTable::for_level(Level::detect().expect("a CPU level"));
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("depthwise");
    for shape in ROWS {
        let mut row = Row::new(shape);
        let taps = row.taps();
        group.throughput(Throughput::Elements(2 * row.terms() as u64));
        let block = row.depthwise(&taps);
        group.bench_function(format!("{shape:?}"), |bencher| {
            // SAFETY: the block describes arrays of the row.
            bencher.iter(|| unsafe { (table.depthwise_f32)(black_box(&block)) });
        });
    }
    group.finish();
    criterion.final_summary();
}
