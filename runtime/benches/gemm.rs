//! Speed of the GEMM kernel on the shapes networks have, against the measured peak of one core.
//!
//! `cargo bench -p strang-runtime --bench gemm`; throughput in "elements" is floating-point operations, so Gelem/s is
//! GFLOP/s. A summary of best times against the peak comes first, because medians suffer from whoever shares the machine.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use strang_runtime::kernels::gemm::{Activation, GemmBlock, GemmItem};
use strang_runtime::kernels::{KernelTable, Level};

/// A product as a caller blocks it: rows and columns in blocks, the items all at once.
struct Product {
    rows: usize,
    columns: usize,
    depth: usize,
    items: usize,
    block_rows: usize,
    block_columns: usize,
    packed: bool,
    activation: Activation,
    a_row_stride: usize,
    a: Vec<f32>,
    b: Vec<f32>,
    c: Vec<f32>,
}

impl Product {
    fn new(
        [rows, columns, depth, items]: [usize; 4],
        [block_rows, block_columns]: [usize; 2],
        packed: bool,
        activation: Activation,
    ) -> Self {
        let fill = |length: usize| (0..length).map(|index| (index % 17) as f32 / 16.0 - 0.5).collect();
        // As the layout planner does it: a row stride of whole pages is padded by a cache line.
        let padding = if (depth * items).is_multiple_of(1024) { 16 } else { 0 };
        let a_row_stride = depth * items + padding;
        let (a, b) = (fill(rows * a_row_stride), fill(columns.next_multiple_of(16) * depth * items));
        let c = vec![0.0; rows * columns];
        Product { rows, columns, depth, items, block_rows, block_columns, packed, activation, a_row_stride, a, b, c }
    }

    fn operations(&self) -> f64 {
        2.0 * (self.rows * self.columns * self.depth * self.items) as f64
    }

    fn run(&mut self, table: &KernelTable) {
        let panels = self.columns.div_ceil(16);
        let (b_depth_stride, b_panel_stride) = if self.packed { (16, 16 * self.depth) } else { (self.columns, 16) };
        let mut items = Vec::with_capacity(self.items);
        for column in (0..self.columns).step_by(self.block_columns) {
            for row in (0..self.rows).step_by(self.block_rows) {
                items.clear();
                items.extend((0..self.items).map(|item| GemmItem {
                    a: self.a[row * self.a_row_stride + item * self.depth..].as_ptr(),
                    b: self.b[item * panels * 16 * self.depth + column / 16 * b_panel_stride..].as_ptr(),
                }));
                let block = GemmBlock {
                    c: self.c[row * self.columns + column..].as_mut_ptr(),
                    c_row_stride: self.columns as i64,
                    rows: self.block_rows.min(self.rows - row) as u64,
                    columns: self.block_columns.min(self.columns - column) as u64,
                    items: items.as_ptr(),
                    item_count: items.len() as u64,
                    a_row_stride: self.a_row_stride as i64,
                    a_depth_stride: 1,
                    depth: self.depth as u64,
                    b_depth_stride: b_depth_stride as i64,
                    b_panel_stride: b_panel_stride as i64,
                    activation: self.activation as u64,
                    ..GemmBlock::default()
                };
                // SAFETY: the arrays have the sizes the block states.
                unsafe { (table.gemm_f32)(&block) };
            }
        }
    }
}

/// The shortest of many runs, in seconds.
fn best(mut run: impl FnMut()) -> f64 {
    let (start, mut best) = (Instant::now(), f64::INFINITY);
    while start.elapsed() < Duration::from_millis(300) {
        let start = Instant::now();
        run();
        best = best.min(start.elapsed().as_secs_f64());
    }
    best
}

/// Floating-point operations per second of independent chains of multiply-adds in registers.
#[cfg(target_arch = "x86_64")]
fn peak() -> f64 {
    use core::arch::x86_64::*;
    const CHAINS: usize = 16;
    const STEPS: usize = 20_000;

    #[target_feature(enable = "avx512f")]
    fn wide() -> f32 {
        let mut sums = [_mm512_set1_ps(black_box(0.0)); CHAINS];
        let (a, b) = (_mm512_set1_ps(black_box(0.5)), _mm512_set1_ps(black_box(0.25)));
        for _ in 0..STEPS {
            sums.iter_mut().for_each(|sum| *sum = _mm512_fmadd_ps(a, *sum, b));
        }
        sums.into_iter().map(|sum| _mm512_reduce_add_ps(sum)).sum()
    }

    #[target_feature(enable = "avx2,fma")]
    fn narrow() -> f32 {
        let mut sums = [_mm256_set1_ps(black_box(0.0)); 12];
        let (a, b) = (_mm256_set1_ps(black_box(0.5)), _mm256_set1_ps(black_box(0.25)));
        for _ in 0..STEPS {
            sums.iter_mut().for_each(|sum| *sum = _mm256_fmadd_ps(a, *sum, b));
        }
        sums.into_iter().map(|sum| _mm256_cvtss_f32(sum)).sum()
    }

    // SAFETY: the level was detected.
    unsafe {
        match Level::detect() {
            Ok(Level::Avx512) => {
                (2 * 16 * CHAINS * STEPS) as f64
                    / best(|| {
                        black_box(wide());
                    })
            }
            Ok(Level::Avx2) => {
                (2 * 8 * 12 * STEPS) as f64
                    / best(|| {
                        black_box(narrow());
                    })
            }
            _ => f64::NAN,
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn peak() -> f64 {
    f64::NAN
}

/// Bytes per second at which one core reads an array of that many bytes.
fn read_bandwidth(bytes: usize) -> f64 {
    let array = vec![1u64; bytes / 8];
    let time = best(|| {
        let mut sums = [0u64; 32];
        for chunk in array.as_chunks::<32>().0 {
            sums.iter_mut().zip(chunk).for_each(|(sum, value)| *sum ^= value);
        }
        black_box(sums);
    });
    bytes as f64 / time
}

fn main() {
    let level = Level::detect().expect("a level this machine runs");
    let table = KernelTable::for_level(level);
    // rows, columns, depth, items; rows and columns of a block; whether B is packed
    let none = Activation::None;
    let shapes = [
        ("dense 128x384x384", [128, 384, 384, 1], [128, 128], true, none),
        ("dense 128x3072x768", [128, 3072, 768, 1], [128, 64], true, none),
        ("dense 128x768x3072", [128, 768, 3072, 1], [128, 64], true, none),
        ("dense 64x1024x1024", [64, 1024, 1024, 1], [64, 64], true, none),
        ("dense 16x512x512", [16, 512, 512, 1], [16, 128], true, none),
        ("dense 4x1024x1024", [4, 1024, 1024, 1], [4, 128], true, none),
        ("conv 3136x64x64x9", [3136, 64, 64, 9], [196, 64], true, none),
        ("conv 49x512x512x9", [49, 512, 512, 9], [49, 64], true, none),
        ("conv 3136x24x144", [3136, 24, 144, 1], [196, 24], true, none),
        ("conv 784x40x240", [784, 40, 240, 1], [112, 40], true, none),
        ("conv 49x960x160 by 7 rows", [49, 960, 160, 1], [7, 64], true, none),
        ("conv 196x80x480", [196, 80, 480, 1], [196, 80], true, none),
        ("in place 128x384x384", [128, 384, 384, 1], [128, 128], false, none),
        ("scores 64x128x64", [64, 128, 64, 1], [64, 128], true, none),
        ("relu 128x3072x768", [128, 3072, 768, 1], [128, 64], true, Activation::Relu),
        ("gelu 128x3072x768", [128, 3072, 768, 1], [128, 64], true, Activation::Gelu),
        ("row 1x1024x1024", [1, 1024, 1024, 1], [1, 128], true, none),
        ("row 1x4096x4096", [1, 4096, 4096, 1], [1, 128], true, none),
        ("rows 2x4096x4096", [2, 4096, 4096, 1], [2, 128], true, none),
        ("row in place 1x4096x4096", [1, 4096, 4096, 1], [1, 128], false, none),
    ];
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20)
        .configure_from_args();
    // The best of several, spread over time: clocks rise late, and others may share the core.
    let peak = (0..4).map(|_| peak()).fold(f64::NAN, f64::max);
    println!("level {level}: peak {:.1} GFLOP/s", peak / 1e9);
    for (name, sizes, block, packed, activation) in shapes {
        let mut product = Product::new(sizes, block, packed, activation);
        let rate = product.operations() / best(|| product.run(table));
        print!("{name:28} {:7.1} GFLOP/s {:5.1} % of peak", rate / 1e9, 100.0 * rate / peak);
        if sizes[0] <= 4 {
            let bytes = product.b.len() * size_of::<f32>();
            let (found, bound) = (rate / 2.0 / sizes[0] as f64 * 4.0, read_bandwidth(bytes));
            print!(", B at {:.1} GB/s, {:.1} % of reading alone", found / 1e9, 100.0 * found / bound);
        }
        println!();
    }
    let mut group = criterion.benchmark_group("gemm_f32");
    for (name, sizes, block, packed, activation) in shapes {
        let mut product = Product::new(sizes, block, packed, activation);
        group.throughput(Throughput::Elements(product.operations() as u64));
        group.bench_function(name, |bencher| bencher.iter(|| product.run(table)));
    }
    group.finish();
    criterion.final_summary();
}
