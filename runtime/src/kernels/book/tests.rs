use super::*;
use crate::kernels::{KernelTable, Level, gemm::Activation, pack as floats};
use proptest::prelude::*;

#[derive(Clone, Debug)]
struct Case {
    rows: usize,
    columns: usize,
    depth: usize,
    items: usize,
    /// Numbers that each column has, or 0.
    by_column: u32,
    /// Bits of a code, depths of a scale, and whether there are zero points.
    scales: Option<(usize, usize, bool)>,
    continues: bool,
    bias: bool,
    residual_is_c: bool,
    activation: Activation,
    seed: u64,
}

fn cases() -> impl Strategy<Value = Case> {
    let by_column = prop_oneof![Just(0u32), 1u32..=16];
    let scales = (proptest::sample::select(vec![4usize, 8]), 1usize..=20, any::<bool>());
    let scales = proptest::option::of(scales.prop_map(|(bits, depths, zeros)| (bits, 8 * depths, zeros)));
    let sizes =
        (prop_oneof![1usize..=3, 1usize..=150], 1usize..=180, prop_oneof![0usize..=40, 250usize..=300], 0usize..=3);
    let activations = proptest::sample::select(&Activation::ALL[..]);
    (sizes, any::<[bool; 3]>(), by_column, scales, activations, any::<u64>()).prop_map(
        |(sizes, flags, by_column, scales, activation, seed)| Case {
            rows: sizes.0,
            columns: sizes.1,
            depth: sizes.2,
            items: sizes.3,
            by_column: if scales.is_some() { 0 } else { by_column },
            scales,
            continues: flags[0],
            bias: flags[1],
            residual_is_c: flags[2],
            activation,
            seed,
        },
    )
}

/// The same bits as the product with the numbers themselves, at every level.
fn check(case: &Case) {
    let Case { rows, columns, depth, items, .. } = *case;
    let mut state = case.seed | 1;
    let mut bits = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as u32
    };
    let mut value = || bits() as f32 / 8_388_608.0 - 1.0;
    let panels = columns.div_ceil(WIDTH);
    let book: Vec<f32> =
        (0..if case.by_column > 0 { panels * CODES * WIDTH } else { CODES }).map(|_| value()).collect();
    let a: Vec<Vec<f32>> = (0..items).map(|_| (0..rows * depth).map(|_| value()).collect()).collect();
    let bias: Vec<f32> = (0..columns).map(|_| value()).collect();
    let c: Vec<f32> = (0..rows * columns).map(|_| value()).collect();
    let (bits_of_code, scale_depths, has_zeros) = case.scales.unwrap_or((4, 8, false));
    let most = if case.by_column > 0 { case.by_column } else { 1 << bits_of_code };
    let codes: Vec<Vec<u32>> = (0..items).map(|_| (0..depth * columns).map(|_| bits() % most).collect()).collect();
    // Scales and zero points are those of all items.
    let (groups, rows_of_group) = (depth.div_ceil(scale_depths), 1 + usize::from(has_zeros));
    let scales: Vec<f32> = (0..panels * groups * rows_of_group * WIDTH)
        .map(|place| if place / WIDTH % rows_of_group == 1 { (bits() % most) as f32 } else { bits() as f32 * 1e-9 })
        .collect();
    let number = |code: u32, k: usize, j: usize| match case.by_column > 0 {
        true => book[(j / WIDTH * CODES + code as usize) * WIDTH + j % WIDTH],
        false if case.scales.is_some() => {
            let row = (j / WIDTH * groups + k / scale_depths) * rows_of_group;
            let zero = if has_zeros { scales[(row + 1) * WIDTH + j % WIDTH] } else { 0. };
            let number = if bits_of_code == 8 { code as f32 } else { book[code as usize] };
            (number - zero) * scales[row * WIDTH + j % WIDTH]
        }
        false => book[code as usize],
    };
    let mut words = vec![vec![0; packed_len(bits_of_code, depth, columns)]; items];
    let mut numbers = vec![vec![0.0; floats::packed_len(depth, columns)]; items];
    for ((codes, words), numbers) in codes.iter().zip(&mut words).zip(&mut numbers) {
        pack(bits_of_code, depth, columns, |k, j| codes[k * columns + j], words).unwrap();
        for (k, j) in (0..depth).flat_map(|k| (0..columns).map(move |j| (k, j))) {
            numbers[(j / WIDTH * depth + k) * WIDTH + j % WIDTH] = number(codes[k * columns + j], k, j);
        }
    }
    let block = |c: &mut [f32], items: &[GemmItem]| {
        let pointer = c.as_mut_ptr();
        GemmBlock {
            c: pointer,
            c_row_stride: columns as i64,
            rows: rows as u64,
            columns: columns as u64,
            items: items.as_ptr(),
            item_count: items.len() as u64,
            a_row_stride: depth as i64,
            a_depth_stride: 1,
            depth: depth as u64,
            b_depth_stride: WIDTH as i64,
            b_panel_stride: (depth * WIDTH) as i64,
            start: if case.continues { pointer } else { std::ptr::null() },
            start_row_stride: columns as i64,
            column_bias: if case.bias { bias.as_ptr() } else { std::ptr::null() },
            residual: if case.residual_is_c { pointer } else { std::ptr::null() },
            residual_row_stride: columns as i64,
            activation: case.activation as u64,
            ..GemmBlock::default()
        }
    };
    for level in Level::available() {
        let table = KernelTable::for_level(level);
        let (mut expected, mut found) = (c.clone(), c.clone());
        let list: Vec<GemmItem> =
            a.iter().zip(&numbers).map(|(a, b)| GemmItem { a: a.as_ptr(), b: b.as_ptr() }).collect();
        // SAFETY: all arrays have the sizes the block states.
        unsafe { (table.gemm_f32)(&block(&mut expected, &list)) };
        let list: Vec<GemmItem> =
            a.iter().zip(&words).map(|(a, b)| GemmItem { a: a.as_ptr(), b: b.as_ptr().cast() }).collect();
        let product =
            GemmBlock { b_panel_stride: packed_len(bits_of_code, depth, WIDTH) as i64, ..block(&mut found, &list) };
        let block = BookBlock {
            product,
            book: book.as_ptr(),
            by_column: case.by_column.into(),
            bits: bits_of_code as u64,
            scales: if case.scales.is_some() { scales.as_ptr() } else { std::ptr::null() },
            scale_depths: scale_depths as u64,
            has_zeros: has_zeros.into(),
        };
        // SAFETY: all arrays have the sizes the block states.
        unsafe { (table.gemm_book)(&block) };
        let same = found.iter().zip(&expected).all(|(found, expected)| found.to_bits() == expected.to_bits());
        assert!(same, "{level}: {case:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn codes_give_the_bits_of_their_numbers(case in cases()) {
        check(&case);
    }
}

#[test]
fn every_field_has_eight_bytes() {
    assert_eq!(size_of::<BookBlock>(), size_of::<GemmBlock>() + 48);
}
