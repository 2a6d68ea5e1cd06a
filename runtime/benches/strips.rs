//! Speed of the strips on arrays that stay in L1.
//!
//! `cargo bench -p strang-runtime --bench strips`. A summary of best times for every level comes first, in cycles per
//! element, because medians suffer from whoever shares the machine; Criterion then follows the highest level.

use std::hint::black_box;
use std::time::Instant;

use criterion::{Criterion, Throughput};
use strang_runtime::kernels::{KernelTable, Level};

/// Elements of a strip: source and destination together fill half of a 32 KiB L1.
const COUNT: usize = 2048;

type Unary = unsafe extern "C" fn(*mut f32, *const f32, u64);

fn unary(table: &KernelTable) -> Vec<(&'static str, Unary)> {
    vec![
        ("exp", table.exp_f32),
        ("expm1", table.expm1_f32),
        ("log", table.log_f32),
        ("log1p", table.log1p_f32),
        ("tanh", table.tanh_f32),
        ("erf", table.erf_f32),
        ("sigmoid", table.sigmoid_f32),
        ("gelu", table.gelu_f32),
        ("gelu_tanh", table.gelu_tanh_f32),
        ("silu", table.silu_f32),
        ("softplus", table.softplus_f32),
        ("mish", table.mish_f32),
        ("sin", table.sin_f32),
        ("cos", table.cos_f32),
        ("relu", table.relu_f32),
        ("hard_swish", table.hard_swish_f32),
        ("sqrt", table.sqrt_f32),
    ]
}

/// The duration of a cycle in nanoseconds: a chain of dependent multiplications (3 cycles) and exclusive ors (1 cycle).
fn cycle() -> f64 {
    const LINKS: u64 = 1_000_000;
    best(20, || {
        let mut x = black_box(3u64);
        for link in 0..LINKS {
            x = x.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ link;
        }
        black_box(x);
    }) / (4 * LINKS) as f64
}

/// The shortest of many runs, in nanoseconds.
fn best(runs: usize, mut run: impl FnMut()) -> f64 {
    let time = |run: &mut dyn FnMut()| {
        let start = Instant::now();
        run();
        start.elapsed().as_nanos() as f64
    };
    (0..runs).map(|_| time(&mut run)).fold(f64::INFINITY, f64::min)
}

fn main() {
    let src: Vec<f32> = (0..COUNT).map(|i| (i * 37 % COUNT) as f32 / COUNT as f32 * 8.0 - 4.0).collect();
    let (positive, mut dst) = (src.iter().map(|x| x.abs() + 0.1).collect::<Vec<_>>(), vec![0.0; COUNT]);
    let cycle = cycle();
    println!("{:.2} GHz; cycles per element:", 1.0 / cycle);
    for level in Level::available() {
        let table = KernelTable::for_level(level);
        for (name, strip) in unary(table) {
            let src = if name.contains("log") { &positive } else { &src };
            const REPEATS: usize = 20;
            let time = best(200, || {
                for _ in 0..REPEATS {
                    // SAFETY: both arrays have that many elements.
                    unsafe { strip(dst.as_mut_ptr(), black_box(src).as_ptr(), COUNT as u64) };
                }
            });
            println!("{level:<9} {name:<10} {:6.3}", time / cycle / (COUNT * REPEATS) as f64);
        }
        let power = best(200, || {
            // SAFETY: the arrays have that many elements, the exponent is one.
            unsafe { (table.pow_f32)(dst.as_mut_ptr(), black_box(&positive).as_ptr(), &1.7, COUNT as u64, 1, 0) };
        });
        println!("{level:<9} {:<10} {:6.3}", "pow", power / cycle / COUNT as f64);
    }

    let table = KernelTable::for_level(Level::detect().expect("a CPU level"));
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("strips");
    group.throughput(Throughput::Elements(COUNT as u64));
    for (name, strip) in unary(table) {
        group.bench_function(name, |bencher| {
            // SAFETY: both arrays have that many elements.
            bencher.iter(|| unsafe { strip(dst.as_mut_ptr(), black_box(&positive).as_ptr(), COUNT as u64) });
        });
    }
    group.finish();
    criterion.final_summary();
}
