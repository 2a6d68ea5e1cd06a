//! Speed of products of bytes and of bf16 on the shapes networks have.
//!
//! `cargo bench -p strang-runtime --bench bytes`; best times, because medians suffer from whoever shares the machine. Beside
//! each stands the product of floats of the same sizes.

use std::hint::black_box;
use std::time::{Duration, Instant};

use strang_runtime::kernels::bytes::{ByteBlock, ByteItem, Quantisation, Stored, packed_len};
use strang_runtime::kernels::gemm::{GemmBlock, GemmItem};
use strang_runtime::kernels::{KernelTable, Level};

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

/// Gop/s of one block of bytes whose results are stored as such.
fn of_bytes(table: &KernelTable, [rows, columns, depth, items]: [usize; 4], output: Stored) -> f64 {
    let a = vec![3u8; rows * depth * items];
    let each = packed_len(depth, columns);
    let b = vec![2i8; each * items];
    let mut c = vec![0u8; 4 * rows * columns];
    let list: Vec<_> =
        (0..items).map(|item| ByteItem { a: a[item * depth..].as_ptr(), b: b[item * each..].as_ptr() }).collect();
    let block = ByteBlock {
        c: c.as_mut_ptr(),
        c_row_stride: columns as i64,
        rows: rows as u64,
        columns: columns as u64,
        items: list.as_ptr(),
        item_count: items as u64,
        a_row_stride: (depth * items) as i64,
        depth: depth as u64,
        b_panel_stride: (16 * depth.next_multiple_of(4)) as i64,
        output: Quantisation { stored: output as u64, ..Quantisation::default() },
        ..ByteBlock::default()
    };
    // SAFETY: the arrays have the sizes the block states.
    let time = best(|| unsafe { (table.gemm_bytes)(black_box(&block)) });
    2e-9 * (rows * columns * depth * items) as f64 / time
}

/// GFLOP/s of one block of floats, or of bf16.
fn of_floats(table: &KernelTable, [rows, columns, depth, items]: [usize; 4], is_bf16: bool) -> f64 {
    let a = vec![0.5f32; rows * depth * items];
    // Words of 32 bits, one below the other in a panel.
    let deep = if is_bf16 { depth.div_ceil(2) } else { depth };
    let each = columns.next_multiple_of(16) * deep;
    let b = vec![0.25f32; each * items];
    let mut c = vec![0f32; rows * columns];
    let list: Vec<_> =
        (0..items).map(|item| GemmItem { a: a[item * depth..].as_ptr(), b: b[item * each..].as_ptr() }).collect();
    let block = GemmBlock {
        c: c.as_mut_ptr(),
        c_row_stride: columns as i64,
        rows: rows as u64,
        columns: columns as u64,
        items: list.as_ptr(),
        item_count: items as u64,
        a_row_stride: (depth * items) as i64,
        a_depth_stride: 1,
        depth: depth as u64,
        b_depth_stride: 16,
        b_panel_stride: (16 * deep) as i64,
        ..GemmBlock::default()
    };
    let kernel = if is_bf16 { table.gemm_bf16 } else { table.gemm_f32 };
    // SAFETY: the arrays have the sizes the block states.
    let time = best(|| unsafe { kernel(black_box(&block)) });
    2e-9 * (rows * columns * depth * items) as f64 / time
}

fn main() {
    let level = Level::detect().expect("a level this machine runs");
    let table = KernelTable::for_level(level);
    println!("rows x columns x depth x items, Gop/s at level {level}: bytes to sums, bytes to bytes, bf16, floats");
    for sizes in [
        [128, 256, 64, 1],
        [128, 64, 256, 1],
        [112, 64, 64, 9],
        [112, 64, 21, 7],
        [112, 64, 128, 9],
        [98, 64, 512, 9],
        [128, 64, 1024, 1],
        [49, 256, 512, 1],
        [64, 16, 512, 1],
        [3, 128, 512, 1],
        [1, 128, 512, 1],
    ] {
        let [rows, columns, depth, items] = sizes;
        let bytes = [Stored::I32, Stored::U8].map(|stored| of_bytes(table, sizes, stored));
        let [bf16, floats] = [true, false].map(|is_bf16| of_floats(table, sizes, is_bf16));
        let [sums, stored] = bytes;
        println!("{rows:4} x {columns:3} x {depth:4} x {items}  {sums:7.1} {stored:7.1} {bf16:7.1} {floats:7.1}");
    }
}
