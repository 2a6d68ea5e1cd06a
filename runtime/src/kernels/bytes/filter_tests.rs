//! Minimal filtering against the products of every line, bit for bit.

use super::tests::{numbers, quantisation};
use super::*;
use crate::kernels::gemm::FloatSlot;
use crate::kernels::{KernelTable, Level};
use proptest::prelude::*;
use std::alloc::{Layout, alloc, dealloc};

#[derive(Clone, Copy, Debug)]
struct Case {
    lines: usize,
    pixels: usize,
    depth: usize,
    columns: usize,
    /// Numbers between two lines.
    gap: usize,
    extreme: bool,
    residual: bool,
    output: Stored,
    seed: u64,
}

/// Calls a kernel with memory for a filter.
fn with_memory(case: &Case, call: impl FnOnce(*mut u8)) {
    let layout = Layout::from_size_align(filter_memory(case.lines, case.pixels, case.depth), 64).unwrap();
    // SAFETY: the layout is not empty.
    let memory = unsafe { alloc(layout) };
    // SAFETY: so much was allocated. Whatever there was in it before is not read.
    unsafe { memory.write_bytes(0x5a, layout.size()) };
    call(memory);
    // SAFETY: it was allocated with this layout.
    unsafe { dealloc(memory, layout) };
}

fn check(case: Case) {
    let Case { lines, pixels, depth, columns, gap, .. } = case;
    let mut next = numbers(case.seed);
    let mut byte = |extremes: [u8; 2]| match case.extreme {
        true => extremes[(next() >> 9) as usize % 2],
        false => (next() >> 7) as u8,
    };
    let a_line_stride = (pixels + 2) * depth + gap;
    let a: Vec<u8> = (0..(lines + 2) * a_line_stride - gap).map(|_| byte([0, 255])).collect();
    let kernel: Vec<i8> = (0..9 * depth * columns).map(|_| byte([128, 127]) as i8).collect();
    let c_line_stride = pixels * columns + gap;
    let residual: Vec<u8> = (0..lines * c_line_stride).map(|_| byte([0, 255])).collect();
    let each = packed_len(depth, columns);
    let mut packed = vec![0i8; 9 * each];
    for (kernel, packed) in kernel.chunks_exact(depth * columns).zip(packed.chunks_exact_mut(each)) {
        pack(kernel, [columns, 1], depth, columns, packed).unwrap();
    }
    let items = |line: usize| -> Vec<ByteItem> {
        let place = |tap: usize| (line + tap / 3) * a_line_stride + tap % 3 * depth;
        (0..9).map(|tap| ByteItem { a: a[place(tap)..].as_ptr(), b: packed[tap * each..].as_ptr() }).collect()
    };
    let size = if matches!(case.output, Stored::U8 | Stored::I8) { 1 } else { 4 };
    let scales: Vec<f32> = (0..columns).map(|column| 1e-4 + column as f32 * 1e-6).collect();
    let block = |line: usize, items: &[ByteItem], c: &mut [u8]| ByteBlock {
        c: c[line * c_line_stride * size..].as_mut_ptr(),
        c_row_stride: columns as i64,
        rows: pixels as u64,
        columns: columns as u64,
        items: items.as_ptr(),
        item_count: 9,
        a_row_stride: depth as i64,
        depth: depth as u64,
        b_panel_stride: (depth * WIDTH) as i64,
        column_scale: scales.as_ptr(),
        residual: if case.residual { residual[line * c_line_stride..].as_ptr() } else { std::ptr::null() },
        residual_row_stride: columns as i64,
        residual_type: quantisation(Stored::U8),
        output: match case.output {
            Stored::I32 | Stored::F32 => Quantisation { stored: case.output as u64, ..Quantisation::default() },
            stored => Quantisation { scale: FloatSlot(0.5), ..quantisation(stored) },
        },
        ..ByteBlock::default()
    };
    let mut expected = vec![0xa5u8; lines * c_line_stride * size];
    for line in 0..lines {
        let items = items(line);
        // SAFETY: all arrays have the sizes the block states.
        unsafe { (KernelTable::for_level(Level::Portable).gemm_bytes)(&block(line, &items, &mut expected)) };
    }
    let mut found = expected.clone();
    let items = items(0);
    let mut run = |name: &str, kernel: &dyn Fn(*const ByteFilter)| {
        found.fill(0xa5);
        with_memory(&case, |memory| {
            kernel(&ByteFilter {
                block: block(0, &items, &mut found),
                lines: lines as u64,
                a_line_stride: a_line_stride as i64,
                c_line_stride: c_line_stride as i64,
                residual_line_stride: c_line_stride as i64,
                memory,
            });
        });
        assert!(found == expected, "{name}: {case:?}");
    };
    for level in Level::available() {
        // SAFETY: all arrays and the memory have the sizes the filter states.
        run(level.name(), &|filter| unsafe { (KernelTable::for_level(level).filter_bytes)(filter) });
    }
    #[cfg(target_arch = "x86_64")]
    if Level::Avx512.is_available() {
        // SAFETY: as above, and the level is available.
        run("without VNNI", &|filter| unsafe { convolve_filter::<families::Widening>(filter) });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn filters_equal_their_lines(
        (lines, pixels) in (1usize..=9, 1usize..=13),
        // With what no level filters, and more than is transformed at a time.
        depth in prop_oneof![Just(32usize), Just(48), Just(64), Just(288), Just(544), Just(20)],
        columns in 1usize..=40,
        gap in prop_oneof![Just(0usize), Just(48)],
        (extreme, residual) in any::<(bool, bool)>(),
        output in prop_oneof![Just(Stored::F32), Just(Stored::U8), Just(Stored::I8), Just(Stored::I32)],
        seed in any::<u64>(),
    ) {
        check(Case { lines, pixels, depth, columns, gap, extreme, residual, output, seed });
    }
}

/// Sums that are as large as they can be: of the deepest convolution, four times them has 32 bits.
#[test]
fn sums_of_the_deepest_filter_hold() {
    let case = Case {
        lines: 2,
        pixels: 3,
        depth: DEEPEST,
        columns: 16,
        gap: 0,
        extreme: false,
        residual: false,
        output: Stored::I32,
        seed: 0,
    };
    let a = vec![255u8; 4 * 5 * DEEPEST];
    let packed = vec![-128i8; DEEPEST * 16];
    let items: Vec<ByteItem> =
        (0..9).map(|tap| ByteItem { a: a[(tap / 3 * 5 + tap % 3) * DEEPEST..].as_ptr(), b: packed.as_ptr() }).collect();
    for level in Level::available() {
        let mut sums = [0i32; 2 * 3 * 16];
        let block = ByteBlock {
            c: sums.as_mut_ptr().cast(),
            c_row_stride: 16,
            rows: 3,
            columns: 16,
            items: items.as_ptr(),
            item_count: 9,
            a_row_stride: DEEPEST as i64,
            depth: DEEPEST as u64,
            b_panel_stride: (DEEPEST * 16) as i64,
            output: Quantisation { stored: Stored::I32 as u64, ..Quantisation::default() },
            ..ByteBlock::default()
        };
        with_memory(&case, |memory| {
            let filter = ByteFilter {
                block,
                lines: 2,
                a_line_stride: (5 * DEEPEST) as i64,
                c_line_stride: 48,
                residual_line_stride: 0,
                memory,
            };
            // SAFETY: all arrays and the memory have the sizes the filter states.
            unsafe { (KernelTable::for_level(level).filter_bytes)(&filter) };
        });
        assert_eq!(sums, [9 * 255 * -128 * DEEPEST as i32; 2 * 3 * 16], "{level}");
    }
}
