//! Every level against a plain loop, bit for bit.

use super::*;
use crate::kernels::gemm::{Activation, FloatSlot};
use crate::kernels::{KernelTable, Level};
use proptest::prelude::*;

#[derive(Clone, Debug)]
struct Case {
    rows: usize,
    columns: usize,
    depth: usize,
    items: usize,
    padding: usize,
    offset: bool,
    summand: bool,
    scale: f32,
    column_scale: bool,
    bias: bool,
    snap: Stored,
    residual: Option<Stored>,
    relu: bool,
    table: bool,
    /// What the table's entries stand for, where they are looked up before the residual is added.
    entries: Stored,
    output: Stored,
    seed: u64,
}

fn cases() -> impl Strategy<Value = Case> {
    let small = (0usize..=200, 0usize..=3);
    // More than is widened at a time, by depth and by items.
    let long = prop_oneof![(400usize..=1200, 1usize..=2), (1usize..=9, 100usize..=300)];
    let depths = prop_oneof![4 => small, 1 => long];
    let rows = prop_oneof![3 => 1usize..=30, 1 => 31usize..=70];
    let sizes = (rows, 1usize..=70, depths, 0usize..5);
    let stored = || prop_oneof![Just(Stored::F32), Just(Stored::U8), Just(Stored::I8)];
    let output = prop_oneof![Just(Stored::F32), Just(Stored::U8), Just(Stored::I8), Just(Stored::I32)];
    let finish = (any::<[bool; 2]>(), 0.001f32..0.01, any::<[bool; 4]>(), (stored(), stored()));
    (sizes, finish, proptest::option::of(stored()), output, any::<u64>()).prop_map(
        |(
            (rows, columns, (depth, items), padding),
            ([offset, summand], scale, flags, (snap, entries)),
            residual,
            output,
            seed,
        )| {
            let [column_scale, bias, relu, table] = flags;
            let is_byte = |stored: Stored| matches!(stored, Stored::U8 | Stored::I8);
            let is_early = table && is_byte(snap) && is_byte(output) && residual.is_some();
            let entries = if is_early { entries } else { Stored::F32 };
            Case {
                rows,
                columns,
                depth,
                items,
                padding,
                offset,
                summand,
                scale,
                column_scale,
                bias,
                snap,
                residual,
                relu,
                table,
                entries,
                output,
                seed,
            }
        },
    )
}

pub(super) fn numbers(seed: u64) -> impl FnMut() -> u32 {
    let mut state = seed | 1;
    move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as u32
    }
}

pub(super) fn quantisation(stored: Stored) -> Quantisation {
    let zero = if stored == Stored::I8 { -3.0 } else { 117.0 };
    let slots = [1.75, zero, 0.625].map(FloatSlot);
    Quantisation { stored: stored as u64, scale: slots[0], zero: slots[1], step: slots[2] }
}

fn quantised(x: f32, stored: Stored) -> f32 {
    let q = quantisation(stored);
    let whole = (x * q.scale.0).round_ties_even() + q.zero.0;
    if stored == Stored::I8 { f32::from(whole as i8) } else { f32::from(whole as u8) }
}

fn check(case: &Case) {
    let Case { rows, columns, depth, items, .. } = *case;
    let mut next = numbers(case.seed);
    let a_row_stride = depth + case.padding;
    let mut bytes = |length: usize| -> Vec<u8> { (0..length).map(|_| (next() >> 7) as u8).collect() };
    let a: Vec<Vec<u8>> = (0..items).map(|_| bytes(rows * a_row_stride)).collect();
    let b: Vec<Vec<i8>> = (0..items).map(|_| bytes(depth * columns).into_iter().map(|x| x as i8).collect()).collect();
    let residual_bytes = bytes(rows * columns);
    let packed: Vec<Vec<i8>> = b
        .iter()
        .map(|b| {
            let mut packed = vec![77; if depth == 0 { 0 } else { packed_len(depth, columns) }];
            pack(b, [columns, 1], depth, columns, &mut packed).unwrap();
            packed
        })
        .collect();
    let mut float = |scale: f32| (next() % 1000) as f32 * scale;
    let offset: Vec<i32> = (0..columns).map(|_| float(1.) as i32 - 500).collect();
    let summand: Vec<i32> = (0..columns).map(|_| float(1.) as i32 - 300).collect();
    let column_scale: Vec<f32> = (0..columns).map(|_| float(0.001) + 0.1).collect();
    let bias: Vec<f32> = (0..columns).map(|_| float(0.01) - 5.).collect();
    let residual_floats: Vec<f32> = (0..rows * columns).map(|_| float(0.02) - 10.).collect();
    let read_residual = |at: usize, stored: Stored| {
        let q = quantisation(stored);
        match stored {
            Stored::I8 => (f32::from(residual_bytes[at] as i8) - q.zero.0) * q.step.0,
            Stored::U8 => (f32::from(residual_bytes[at]) - q.zero.0) * q.step.0,
            _ => residual_floats[at],
        }
    };

    let table: Vec<u8> = (0..256).map(|place| (place * 89 + 7) as u8).collect();
    let size = if matches!(case.output, Stored::U8 | Stored::I8) { 1 } else { 4 };
    let c_row_stride = columns + case.padding;
    let mut expected = vec![0xa5u8; rows * c_row_stride * size];
    for (i, j) in (0..rows).flat_map(|i| (0..columns).map(move |j| (i, j))) {
        let mut sum = 0i32;
        for (a, b) in a.iter().zip(&b) {
            for k in 0..depth {
                sum += i32::from(a[i * a_row_stride + k]) * i32::from(b[k * columns + j]);
            }
        }
        if case.offset {
            sum -= offset[j];
        }
        if case.summand {
            sum += summand[j];
        }
        let mut x = sum as f32 * case.scale;
        x = if case.column_scale { x * column_scale[j] } else { x };
        x = if case.bias { x + bias[j] } else { x };
        let (is_early, before) = (case.entries != Stored::F32, x);
        if case.snap != Stored::F32 {
            let q = quantisation(case.snap);
            x = (quantised(x, case.snap) - q.zero.0) * q.step.0;
        }
        if is_early {
            let (code, q) = (quantised(before, case.snap) as i32 as u8, quantisation(case.entries));
            let entry = table[usize::from(code)];
            let entry = if case.entries == Stored::I8 { f32::from(entry as i8) } else { f32::from(entry) };
            x = (entry - q.zero.0) * q.step.0;
        }
        x = case.residual.map_or(x, |stored| x + read_residual(i * columns + j, stored));
        x = if case.relu && !is_early { x.max(0.) } else { x };
        let at = (i * c_row_stride + j) * size;
        match case.output {
            Stored::I32 => expected[at..at + 4].copy_from_slice(&sum.to_ne_bytes()),
            Stored::F32 => expected[at..at + 4].copy_from_slice(&x.to_ne_bytes()),
            stored => {
                let code = quantised(x, stored) as i32 as u8;
                expected[at] = if case.table && !is_early { table[usize::from(code)] } else { code };
            }
        }
    }

    let list: Vec<_> = a.iter().zip(&packed).map(|(a, b)| ByteItem { a: a.as_ptr(), b: b.as_ptr() }).collect();
    let mut found = vec![0xa5u8; expected.len()];
    let pointer = |vector: &[f32], given: bool| if given { vector.as_ptr() } else { std::ptr::null() };
    let block = |c: *mut u8| ByteBlock {
        c,
        c_row_stride: c_row_stride as i64,
        rows: rows as u64,
        columns: columns as u64,
        items: list.as_ptr(),
        item_count: items as u64,
        a_row_stride: a_row_stride as i64,
        depth: depth as u64,
        b_panel_stride: (depth.next_multiple_of(DEPTHS) * WIDTH) as i64,
        offset: if case.offset { offset.as_ptr() } else { std::ptr::null() },
        summand: if case.summand { summand.as_ptr() } else { std::ptr::null() },
        scale: FloatSlot(case.scale),
        column_scale: pointer(&column_scale, case.column_scale),
        column_bias: pointer(&bias, case.bias),
        snap: quantisation(case.snap),
        residual: match case.residual {
            None => std::ptr::null(),
            Some(Stored::F32) => residual_floats.as_ptr().cast(),
            Some(_) => residual_bytes.as_ptr(),
        },
        residual_row_stride: columns as i64,
        residual_type: quantisation(case.residual.unwrap_or(Stored::F32)),
        activation: if case.relu { Activation::Relu } else { Activation::None } as u64,
        output: if case.output == Stored::I32 {
            Quantisation { stored: Stored::I32 as u64, ..Quantisation::default() }
        } else {
            quantisation(case.output)
        },
        table: if case.table { table.as_ptr() } else { std::ptr::null() },
        entries: quantisation(case.entries),
        ..ByteBlock::default()
    };
    for level in Level::available() {
        found.fill(0xa5);
        // SAFETY: all arrays have the sizes the block states.
        unsafe { (KernelTable::for_level(level).gemm_bytes)(&block(found.as_mut_ptr())) };
        assert!(found == expected, "{level}: {case:?}");
    }
    #[cfg(target_arch = "x86_64")]
    if Level::Avx512.is_available() {
        found.fill(0xa5);
        // SAFETY: as above, and the level is available.
        unsafe { run::<families::Widening>(&block(found.as_mut_ptr())) };
        assert!(found == expected, "without VNNI: {case:?}");
        found.fill(0xa5);
        // SAFETY: as above.
        unsafe { run::<families::Vectors>(&block(found.as_mut_ptr())) };
        assert!(found == expected, "without tile registers: {case:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]
    #[test]
    fn all_levels_equal_a_plain_loop(case in cases()) {
        check(&case);
    }
}

/// Every height and width of tile.
#[test]
fn every_tile() {
    for rows in (1..=29).chain([32, 33, 47, 64, 65]) {
        for columns in (1..=140).step_by(if rows < 15 { 5 } else { 31 }) {
            check(&Case {
                rows,
                columns,
                depth: [7, 64, 20, 84][(rows + columns / 5) % 4],
                items: 2,
                padding: 1,
                offset: true,
                summand: rows % 2 == 0,
                scale: 0.005,
                column_scale: true,
                bias: true,
                snap: [Stored::F32, Stored::U8][columns % 2],
                residual: [None, Some(Stored::I8), Some(Stored::F32)][rows % 3],
                relu: true,
                table: columns % 3 == 0,
                entries: Stored::F32,
                output: [Stored::U8, Stored::I32, Stored::F32, Stored::I8][(rows + columns) % 4],
                seed: (rows * 1000 + columns) as u64,
            });
        }
    }
}

/// Sums that pairs of 16 bits would not hold, and what is not a number.
#[test]
fn extremes() {
    let a = [255u8; 64];
    let b = [-128i8; 64 * 16];
    let mut packed = vec![0; packed_len(64, 16)];
    pack(&b, [16, 1], 64, 16, &mut packed).unwrap();
    let item = ByteItem { a: a.as_ptr(), b: packed.as_ptr() };
    for level in Level::available() {
        let mut sums = [0i32; 16];
        let mut block = ByteBlock {
            c: sums.as_mut_ptr().cast(),
            rows: 1,
            columns: 16,
            items: &item,
            item_count: 1,
            depth: 64,
            b_panel_stride: 64 * 16,
            output: Quantisation { stored: Stored::I32 as u64, ..Quantisation::default() },
            ..ByteBlock::default()
        };
        // SAFETY: all arrays have the sizes the block states.
        unsafe { (KernelTable::for_level(level).gemm_bytes)(&block) };
        assert_eq!(sums, [-255 * 128 * 64; 16], "{level}");
        for (stored, expected) in [(Stored::U8, 0), (Stored::I8, 0)] {
            let mut bytes = [9u8; 16];
            block.c = bytes.as_mut_ptr();
            block.scale = FloatSlot(f32::NAN);
            block.output.stored = stored as u64;
            // SAFETY: as above.
            unsafe { (KernelTable::for_level(level).gemm_bytes)(&block) };
            assert_eq!(bytes, [expected; 16], "{level}");
        }
    }
}

/// Depthwise convolutions of every width of tile, to sums and to bytes.
#[test]
fn windows() {
    for [pixels, channels, taps, step] in
        [[1, 1, 1, 1], [7, 16, 9, 1], [13, 48, 9, 2], [29, 70, 25, 1], [14, 300, 3, 1], [5, 33, 9, 3], [40, 32, 2, 1]]
    {
        let mut next = numbers((pixels * channels) as u64);
        let mut bytes = |length: usize| -> Vec<u8> { (0..length).map(|_| (next() >> 7) as u8).collect() };
        let image = bytes(((pixels - 1) * step + taps) * channels);
        let weights: Vec<i8> = bytes(taps * channels).into_iter().map(|x| x as i8).collect();
        let scales: Vec<f32> = (0..channels).map(|channel| 0.001 + channel as f32 * 1e-5).collect();
        let sum = |pixel: usize, channel: usize| -> i32 {
            let product = |tap: usize| {
                i32::from(image[(pixel * step + tap) * channels + channel])
                    * i32::from(weights[tap * channels + channel])
            };
            (0..taps).map(product).sum()
        };
        let places = || (0..pixels).flat_map(|pixel| (0..channels).map(move |channel| (pixel, channel)));
        let sums: Vec<i32> = places().map(|(pixel, channel)| sum(pixel, channel)).collect();
        let codes: Vec<u8> = places()
            .zip(&sums)
            .map(|((_, channel), sum)| quantised(*sum as f32 * scales[channel], Stored::U8) as u8)
            .collect();
        let pointers: Vec<*const u8> = (0..taps).map(|tap| image[tap * channels..].as_ptr()).collect();
        let window = |c: *mut u8, output: Quantisation| ByteWindow {
            block: ByteBlock {
                c,
                c_row_stride: channels as i64,
                rows: pixels as u64,
                columns: channels as u64,
                column_scale: scales.as_ptr(),
                output,
                ..ByteBlock::default()
            },
            taps: pointers.as_ptr(),
            tap_count: taps as u64,
            input_stride: (step * channels) as i64,
            weights: weights.as_ptr(),
            weight_stride: channels as i64,
        };
        for level in Level::available() {
            let kernel = KernelTable::for_level(level).depthwise_bytes;
            let as_sums = Quantisation { stored: Stored::I32 as u64, ..Quantisation::default() };
            let (mut found, mut bytes) = (vec![77i32; sums.len()], vec![77u8; sums.len()]);
            // SAFETY: all arrays have the sizes the windows state.
            unsafe {
                kernel(&window(found.as_mut_ptr().cast(), as_sums));
                kernel(&window(bytes.as_mut_ptr(), quantisation(Stored::U8)));
            }
            assert!(found == sums, "{level}: {pixels} {channels} {taps} {step}");
            assert!(bytes == codes, "{level}: {pixels} {channels} {taps} {step}");
        }
    }
}

#[test]
fn every_field_has_eight_bytes() {
    assert_eq!(size_of::<ByteWindow>(), size_of::<ByteBlock>() + 5 * 8);
    assert_eq!(size_of::<ByteFilter>(), size_of::<ByteBlock>() + 5 * 8);
    assert_eq!(size_of::<Quantisation>(), 4 * 8);
    assert_eq!(size_of::<ByteBlock>(), (20 + 16) * 8);
}
