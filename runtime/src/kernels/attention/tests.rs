//! Attention against f64 within a tolerance; levels, packings and cuts of the queries against each other, bit for bit.

use proptest::prelude::*;

use super::*;
use crate::kernels::gemm::FloatSlot;
use crate::kernels::{KernelTable, Level};

#[derive(Clone, Copy, Debug)]
struct Case {
    rows: usize,
    keys: usize,
    depth: usize,
    columns: usize,
    /// Row and column stride of the mask.
    mask: Option<[usize; 2]>,
    causal_offset: i64,
    seed: u64,
}

/// How a case is run.
#[derive(Clone, Copy, Debug)]
struct Manner {
    level: Level,
    packed: bool,
    /// Whether the keys are stored with their depth outside.
    transposed: bool,
    /// Queries per call.
    rows: usize,
}

struct Arrays {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    mask: Vec<f32>,
}

const SCALE: f32 = 0.3;
const PADDING: usize = 3;

impl Arrays {
    fn new(case: &Case) -> Arrays {
        let mut state = case.seed | 1;
        let mut random = |length: usize| -> Vec<f32> {
            let mut next = || {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 40) as f32 / (1u64 << 22) as f32 - 2.0
            };
            (0..length).map(|_| next()).collect()
        };
        let Case { rows, keys, depth, columns, .. } = *case;
        let mut mask = case.mask.map_or(vec![], |[row, column]| random(rows * row + keys * column + 1));
        mask.iter_mut().filter(|value| **value > 1.0).for_each(|value| *value = f32::NEG_INFINITY);
        Arrays {
            q: random(rows * (depth + PADDING)),
            k: random(keys * (depth + PADDING)),
            v: random(keys * (columns + PADDING)),
            mask,
        }
    }

    fn run(&self, case: &Case, manner: Manner) -> Vec<f32> {
        let Case { rows, keys, depth, columns, .. } = *case;
        let out_row_stride = columns + PADDING;
        let mut out = vec![7.0; rows * out_row_stride];
        let scratch = attention_scratch(manner.rows, keys, depth, columns) / size_of::<f32>();
        let mut scratch = vec![f32::NAN; scratch + 8];
        scratch[attention_scratch(manner.rows, keys, depth, columns) / size_of::<f32>()..].fill(7.0);
        let transposed: Vec<f32> =
            (0..depth * keys).map(|index| self.k[index % keys * (depth + PADDING) + index / keys]).collect();
        let (k, k_row_stride, k_depth_stride) =
            if manner.transposed { (&transposed, 1, keys) } else { (&self.k, depth + PADDING, 1) };
        let [mask_row_stride, mask_column_stride] = case.mask.unwrap_or_default();
        let mut block = AttentionBlock {
            q: std::ptr::null(),
            q_row_stride: (depth + PADDING) as i64,
            q_depth_stride: 1,
            k: k.as_ptr(),
            k_row_stride: k_row_stride as i64,
            k_depth_stride: k_depth_stride as i64,
            v: self.v.as_ptr(),
            v_row_stride: (columns + PADDING) as i64,
            packed: std::ptr::null(),
            rows: 0,
            keys: keys as u64,
            depth: depth as u64,
            columns: columns as u64,
            scale: FloatSlot(SCALE),
            mask: std::ptr::null(),
            mask_row_stride: mask_row_stride as i64,
            mask_column_stride: mask_column_stride as i64,
            causal_offset: case.causal_offset,
            out: std::ptr::null_mut(),
            out_row_stride: out_row_stride as i64,
            scratch: scratch.as_mut_ptr(),
        };
        let table = KernelTable::for_level(manner.level);
        let length = attention_packed_len(keys, depth, columns);
        let mut packed = vec![7.0; length + 8];
        if manner.packed {
            // SAFETY: keys, values and packed have the sizes the block states.
            unsafe { (table.attention_pack)(&block, packed.as_mut_ptr()) };
            (block.packed, block.k, block.v) = (packed.as_ptr(), std::ptr::null(), std::ptr::null());
        }
        for row in (0..rows).step_by(manner.rows) {
            block.rows = manner.rows.min(rows - row) as u64;
            block.q = self.q[row * (depth + PADDING)..].as_ptr();
            block.out = out[row * out_row_stride..].as_mut_ptr();
            if case.mask.is_some() {
                block.mask = self.mask[row * mask_row_stride..].as_ptr();
            }
            block.causal_offset = case.causal_offset.saturating_add(row as i64);
            // SAFETY: all arrays have the sizes the block states.
            unsafe { (table.attention_f32)(&block) };
        }
        assert!(scratch[scratch.len() - 8..].iter().chain(&packed[length..]).all(|&value| value == 7.0));
        for row in out.chunks(out_row_stride) {
            assert!(row[columns..].iter().all(|&value| value == 7.0), "padding was written");
        }
        out
    }

    fn reference(&self, case: &Case, row: usize) -> Vec<f64> {
        let Case { keys, depth, columns, .. } = *case;
        let visible = (row as i64 + 1).saturating_add(case.causal_offset).clamp(0, keys as i64) as usize;
        let scores: Vec<f64> = (0..visible)
            .map(|j| {
                let stride = depth + PADDING;
                let products =
                    (0..depth).map(|d| f64::from(self.q[row * stride + d]) * f64::from(self.k[j * stride + d]));
                let summand = case.mask.map_or(0.0, |[r, c]| f64::from(self.mask[row * r + j * c]));
                products.sum::<f64>() * f64::from(SCALE) + summand
            })
            .collect();
        let maximum = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - maximum).exp()).collect();
        let sum: f64 = weights.iter().sum();
        let column = |c| {
            weights.iter().enumerate().map(|(j, w)| w * f64::from(self.v[j * (columns + PADDING) + c])).sum::<f64>()
        };
        let row = |c| match (keys, visible) {
            (0, _) => 0.0,
            (_, 0) => f64::NAN,
            _ => column(c) / sum,
        };
        (0..columns).map(row).collect()
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    // NaN payloads are exempt.
    values.iter().map(|value| if value.is_nan() { f32::NAN.to_bits() } else { value.to_bits() }).collect()
}

fn check(case: &Case) {
    let arrays = Arrays::new(case);
    let whole = arrays.run(case, Manner { level: Level::Portable, packed: false, transposed: false, rows: case.rows });
    for (row, found) in whole.chunks(case.columns + PADDING).enumerate() {
        for (column, (&found, expected)) in found.iter().zip(arrays.reference(case, row)).enumerate() {
            let close = (f64::from(found) - expected).abs() <= 2e-5 * (1.0 + expected.abs());
            assert!(
                close || (found.is_nan() && expected.is_nan()),
                "[{row}, {column}]: {found}, not {expected}: {case:?}"
            );
        }
    }
    for level in Level::available() {
        for (packed, transposed, rows) in
            [(false, false, case.rows), (true, false, case.rows), (true, true, 1), (false, true, 5), (true, false, 17)]
        {
            let manner = Manner { level, packed, transposed, rows: rows.min(case.rows) };
            assert!(bits(&arrays.run(case, manner)) == bits(&whole), "{manner:?}: {case:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn equals_the_definition(
        rows in 1usize..40,
        keys in 0usize..120,
        depth in 0usize..40,
        columns in 1usize..70,
        mask in 0usize..5,
        causal_offset in prop_oneof![Just(i64::MAX), -3i64..100],
        seed: u64,
    ) {
        let mask = [None, Some([keys, 1]), Some([0, 1]), Some([1, 0]), Some([1, 2])][mask];
        check(&Case { rows, keys, depth, columns, mask, causal_offset, seed });
    }
}

#[test]
fn streams_over_chunks_of_keys() {
    for (keys, causal_offset) in [(CHUNK_KEYS + 300, i64::MAX), (2 * CHUNK_KEYS + 1, CHUNK_KEYS as i64 - 3)] {
        let mask = Some([keys, 1]);
        check(&Case { rows: 6, keys, depth: 4, columns: 9, mask, causal_offset, seed: 5 });
    }
}

/// Rows that see nothing are NaN and leave the others alone, also when only the first chunk shows nothing.
#[test]
fn rows_without_a_key() {
    check(&Case { rows: 20, keys: 30, depth: 8, columns: 5, mask: None, causal_offset: -4, seed: 1 });
    let case = Case {
        rows: 2,
        keys: CHUNK_KEYS + 40,
        depth: 3,
        columns: 4,
        mask: Some([CHUNK_KEYS + 40, 1]),
        causal_offset: i64::MAX,
        seed: 2,
    };
    let mut arrays = Arrays::new(&case);
    arrays.mask[..CHUNK_KEYS + 10].fill(f32::NEG_INFINITY);
    arrays.mask[case.keys..].fill(f32::NEG_INFINITY);
    for level in Level::available() {
        let out = arrays.run(&case, Manner { level, packed: true, transposed: false, rows: 2 });
        for (found, expected) in out[..case.columns].iter().zip(arrays.reference(&case, 0)) {
            assert!((f64::from(*found) - expected).abs() < 1e-5, "{level}: {found}, not {expected}");
        }
        assert!(out[case.columns + PADDING..][..case.columns].iter().all(|value| value.is_nan()), "{level}");
    }
}

#[test]
fn every_field_has_eight_bytes() {
    assert_eq!(size_of::<AttentionBlock>(), 21 * 8);
}
