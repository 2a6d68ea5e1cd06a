//! Speed of products of bytes and of bf16 on the shapes networks have.
//!
//! `cargo bench -p strang-runtime --bench bytes`; best times, because medians suffer from whoever shares the machine. Beside
//! each stands the product of floats of the same sizes.

use std::hint::black_box;
use std::time::{Duration, Instant};

use strang_runtime::kernels::bytes::{
    ByteBlock, ByteFilter, ByteItem, Quantisation, Stored, filter_memory, packed_len,
};
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

/// A part of a vector that begins where a cache line does, as packed weights do.
fn aligned<T: Clone>(value: T, length: usize, memory: &mut Vec<T>) -> &mut [T] {
    const LINE: usize = 64;
    *memory = vec![value; length + LINE / size_of::<T>()];
    let ahead = memory.as_ptr().align_offset(LINE);
    &mut memory[ahead..ahead + length]
}

/// Gop/s of one block of bytes whose results are stored as such.
fn of_bytes(table: &KernelTable, [rows, columns, depth, items]: [usize; 4], output: Stored) -> f64 {
    let [mut a, mut b, mut c] = [const { Vec::new() }; 3];
    let a = aligned(3u8, rows * depth * items, &mut a);
    let each = packed_len(depth, columns);
    let b = aligned(2, each * items, &mut b);
    let c = aligned(0, 4 * rows * columns, &mut c);
    let list: Vec<_> = (0..items)
        .map(|item| ByteItem { a: a[item * depth..].as_ptr(), b: b[item * each..].as_ptr().cast() })
        .collect();
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
    let [mut a, mut b, mut c] = [const { Vec::new() }; 3];
    let a = aligned(0.5f32, rows * depth * items, &mut a);
    // Words of 32 bits, one below the other in a panel.
    let deep = if is_bf16 { depth.div_ceil(2) } else { depth };
    let each = columns.next_multiple_of(16) * deep;
    let b = aligned(0.25, each * items, &mut b);
    let c = aligned(0.0, rows * columns, &mut c);
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

/// Gop/s, as of the convolution, of lines with three by three taps: with fewer products, and line by line.
fn of_lines(table: &KernelTable, [lines, pixels, depth, columns]: [usize; 4]) -> [f64; 2] {
    let line = (pixels + 2) * depth;
    let a = vec![3u8; (lines + 2) * line];
    let each = packed_len(depth, columns);
    let b = vec![2i8; 9 * each];
    let mut c = vec![0u8; lines * pixels * columns];
    // Memory of whole cache lines, aligned to them.
    let mut memory = vec![0u8; filter_memory(lines, pixels, depth) + 64];
    let ahead = memory.as_ptr().align_offset(64);
    let memory = memory[ahead..].as_mut_ptr();
    let item = |from: usize| {
        let place = |tap: usize| (from + tap / 3) * line + tap % 3 * depth;
        (0..9).map(|tap| ByteItem { a: a[place(tap)..].as_ptr(), b: b[tap * each..].as_ptr() }).collect::<Vec<_>>()
    };
    let items: Vec<_> = (0..lines).map(item).collect();
    let mut block = |line: usize| ByteBlock {
        c: c[line * pixels * columns..].as_mut_ptr(),
        c_row_stride: columns as i64,
        rows: pixels as u64,
        columns: columns as u64,
        items: items[line].as_ptr(),
        item_count: 9,
        a_row_stride: depth as i64,
        depth: depth as u64,
        b_panel_stride: (16 * depth) as i64,
        output: Quantisation { stored: Stored::U8 as u64, ..Quantisation::default() },
        ..ByteBlock::default()
    };
    let blocks: Vec<_> = (0..lines).map(&mut block).collect();
    let filter = ByteFilter {
        block: blocks[0],
        lines: lines as u64,
        a_line_stride: line as i64,
        c_line_stride: (pixels * columns) as i64,
        residual_line_stride: 0,
        memory,
    };
    // SAFETY: the arrays and the memory have the sizes the filter states.
    let filtered = best(|| unsafe { (table.filter_bytes)(black_box(&filter)) });
    // SAFETY: as above.
    let by_lines = best(|| blocks.iter().for_each(|block| unsafe { (table.gemm_bytes)(black_box(block)) }));
    [filtered, by_lines].map(|time| 2e-9 * (9 * lines * pixels * depth * columns) as f64 / time)
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
    println!("lines x pixels x depth x columns of 3 x 3 taps, Gop/s of bytes: fewer products, line by line");
    for sizes in [[8, 56, 64, 64], [8, 28, 128, 64], [14, 14, 256, 64], [7, 7, 512, 64], [7, 7, 512, 256]] {
        let [lines, pixels, depth, columns] = sizes;
        let [filtered, by_lines] = of_lines(table, sizes);
        println!("{lines:4} x {pixels:3} x {depth:4} x {columns:3}  {filtered:7.1} {by_lines:7.1}");
    }
}
