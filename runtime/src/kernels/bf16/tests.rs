use super::families::Family;
use super::*;
use crate::kernels::KernelTable;
use crate::kernels::gemm::Activation;
use half::bf16;
use proptest::prelude::*;

#[derive(Clone, Debug)]
struct Case {
    rows: usize,
    columns: usize,
    depth: usize,
    items: usize,
    /// Depths of A lie apart, and rows side by side.
    turned: bool,
    continues: bool,
    bias: bool,
    residual_is_c: bool,
    /// Items are rows of one array, each a few rows after the one before.
    overlaps: bool,
    /// Words for rounded rows.
    memory: usize,
    activation: Activation,
    seed: u64,
}

fn cases() -> impl Strategy<Value = Case> {
    let depths = prop_oneof![0usize..=70, 440usize..=460, 880usize..=1000, 1790usize..=1800];
    let sizes = (1usize..=70, prop_oneof![1usize..=80, 250usize..=300], depths, 0usize..=9);
    let activations = proptest::sample::select(&Activation::ALL[..]);
    let memory = prop_oneof![Just(0usize), 1usize..=40_000, Just(1usize << 20)];
    (sizes, any::<[bool; 5]>(), memory, activations, any::<u64>()).prop_map(
        |(sizes, flags, memory, activation, seed)| Case {
            rows: sizes.0,
            columns: sizes.1,
            depth: sizes.2,
            items: if sizes.2 > 400 { sizes.3.min(2) } else { sizes.3 },
            turned: flags[0],
            continues: flags[1],
            bias: flags[2],
            residual_is_c: flags[3],
            overlaps: flags[4],
            memory,
            activation,
            seed,
        },
    )
}

type Kernel = unsafe fn(&GemmBlock);

fn kernels() -> Vec<(String, Kernel)> {
    fn at<const LEVEL: usize>(block: &GemmBlock) {
        // SAFETY: the test states the sizes of its arrays, and only levels of this machine are called.
        unsafe { (KernelTable::for_level(Level::ALL[LEVEL]).gemm_bf16)(block) }
    }
    let all: [Kernel; 3] = [|block| at::<0>(block), |block| at::<1>(block), |block| at::<2>(block)];
    let levels = Level::ALL.into_iter().zip(all).filter(|(level, _)| level.is_available());
    let mut kernels: Vec<(String, Kernel)> = levels.map(|(level, kernel)| (level.to_string(), kernel)).collect();
    #[cfg(target_arch = "x86_64")]
    if Level::Avx512.is_available() {
        kernels.push(("avx512, emulated".into(), |block| {
            // SAFETY: as above.
            unsafe { families::Emulated::run(block) }
        }));
        kernels.push(("avx512, without tile registers".into(), |block| {
            // SAFETY: as above.
            unsafe { families::Vectors::run(block) }
        }));
    }
    kernels
}

/// The product of rounded numbers, to the precision of f32 sums, at every level.
fn check(case: &Case) {
    let Case { rows, columns, depth, items, .. } = *case;
    let mut state = case.seed | 1;
    let mut value = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / 8_388_608.0 - 1.0
    };
    let mut a: Vec<Vec<f32>> = (0..items).map(|_| (0..rows * depth).map(|_| value()).collect()).collect();
    let mut lines: Vec<f32> = Vec::new();
    // The row at which an item begins in lines that all share: some one after the other, some behind a gap, one before.
    let later = |item: usize| item + item / 3 * 2 + if item == 5 { 0 } else { 2 };
    if case.overlaps && !case.turned {
        lines = (0..(rows + 2 * items + 8) * depth).map(|_| value()).collect();
        for (item, a) in a.iter_mut().enumerate() {
            a.copy_from_slice(&lines[later(item) * depth..][..rows * depth]);
        }
    }
    let mut memory: Vec<u32> = vec![0x7fc0_7fc0; case.memory + WIDTH];
    let b: Vec<Vec<bf16>> =
        (0..items).map(|_| (0..depth * columns).map(|_| bf16::from_f32(value())).collect()).collect();
    let bias: Vec<f32> = (0..columns).map(|_| value()).collect();
    let c: Vec<f32> = (0..rows * columns).map(|_| value()).collect();
    let [a_row, a_depth] = if case.turned { [1, rows] } else { [depth, 1] };
    let packed: Vec<Vec<u16>> = b
        .iter()
        .map(|b| {
            let bytes: Vec<[u8; 2]> = b.iter().map(|number| number.to_bits().to_ne_bytes()).collect();
            let mut packed = vec![1; if depth == 0 { 0 } else { packed_len(depth, columns) }];
            pack(&bytes, [columns, 1], depth, columns, &mut packed).unwrap();
            packed
        })
        .collect();
    // What is computed, in f64, and the size of the terms: what errors are measured by.
    let mut sums = vec![0f64; rows * columns];
    let mut sizes = vec![1f64; rows * columns];
    for (i, j) in (0..rows).flat_map(|i| (0..columns).map(move |j| (i, j))) {
        let place = i * columns + j;
        if case.continues {
            sums[place] = c[place].into();
        }
        for (a, b) in a.iter().zip(&b) {
            for k in 0..depth {
                let term = bf16::from_f32(a[i * a_row + k * a_depth]).to_f64() * b[k * columns + j].to_f64();
                sums[place] += term;
                sizes[place] += term.abs();
            }
        }
    }
    let ahead = memory.as_ptr().align_offset(64);
    let memory_place = memory[ahead..].as_mut_ptr();
    for (name, kernel) in kernels() {
        let run = |activation: Activation| {
            let mut found = c.clone();
            let row =
                |item: usize| if lines.is_empty() { a[item].as_ptr() } else { lines[later(item) * depth..].as_ptr() };
            let list: Vec<GemmItem> =
                packed.iter().enumerate().map(|(item, b)| GemmItem { a: row(item), b: b.as_ptr().cast() }).collect();
            let pointer = found.as_mut_ptr();
            let block = GemmBlock {
                c: pointer,
                c_row_stride: columns as i64,
                rows: rows as u64,
                columns: columns as u64,
                items: list.as_ptr(),
                item_count: items as u64,
                a_row_stride: a_row as i64,
                a_depth_stride: a_depth as i64,
                depth: depth as u64,
                b_depth_stride: WIDTH as i64,
                b_panel_stride: (depth.div_ceil(DEPTHS) * WIDTH) as i64,
                start: if case.continues { pointer } else { std::ptr::null() },
                start_row_stride: columns as i64,
                column_bias: if case.bias { bias.as_ptr() } else { std::ptr::null() },
                residual: if case.residual_is_c { pointer } else { std::ptr::null() },
                residual_row_stride: columns as i64,
                activation: activation as u64,
                memory: if case.memory == 0 { std::ptr::null_mut() } else { memory_place },
                memory_words: case.memory as u64,
                ..GemmBlock::default()
            };
            // SAFETY: all arrays have the sizes the block states.
            unsafe { kernel(&block) };
            found
        };
        for (place, found) in run(Activation::None).into_iter().enumerate() {
            let expected = sums[place]
                + if case.bias { f64::from(bias[place % columns]) } else { 0. }
                + if case.residual_is_c { f64::from(c[place]) } else { 0. };
            let error = (f64::from(found) - expected).abs() / sizes[place];
            assert!(error < 2e-6, "{name}: {found} for {expected} at {place}: {error:.1e}, {case:?}");
        }
        // However a block is cut, its activation is that of the product of floats.
        if !case.bias && !case.residual_is_c {
            let mut other = run(Activation::None);
            let block = GemmBlock {
                c: other.as_mut_ptr(),
                c_row_stride: columns as i64,
                rows: rows as u64,
                columns: columns as u64,
                start: other.as_ptr(),
                start_row_stride: columns as i64,
                activation: case.activation as u64,
                ..GemmBlock::default()
            };
            // SAFETY: the array has the size the block states.
            unsafe { (KernelTable::for_level(Level::Portable).gemm_f32)(&block) };
            let same = run(case.activation).iter().zip(&other).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "{name}: {case:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn products_are_those_of_rounded_numbers(case in cases()) {
        check(&case);
    }
}

#[test]
fn rounding_is_to_the_nearest_of_every_number() {
    let special =
        [0., -0., 1., f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN_POSITIVE, 1. + 1. / 256., 1. + 3. / 256.];
    let nans = [f32::NAN, f32::from_bits(0x7f80_0001), f32::from_bits(0xffff_ffff)];
    let numbers = special.into_iter().chain(nans).chain((0..200).map(|i| (i as f32).sin() * 1e3));
    let numbers: Vec<f32> = numbers.collect();
    let b = [u32::from(bf16::from_f32(1.).to_bits()); WIDTH];
    for (name, kernel) in kernels() {
        // A product with one gives the rounded number.
        for number in &numbers {
            let item = GemmItem { a: number, b: b.as_ptr().cast() };
            let mut c = [9f32; 1];
            let block = GemmBlock {
                c: c.as_mut_ptr(),
                rows: 1,
                columns: 1,
                items: &item,
                item_count: 1,
                depth: 1,
                b_depth_stride: WIDTH as i64,
                b_panel_stride: WIDTH as i64,
                ..GemmBlock::default()
            };
            // SAFETY: one number and a panel of one pair.
            unsafe { kernel(&block) };
            let expected = bf16::from_f32(*number).to_f32();
            let same = c[0] == expected || (c[0].is_nan() && expected.is_nan());
            assert!(same, "{name}: {number} becomes {} for {expected}", c[0]);
        }
    }
}
