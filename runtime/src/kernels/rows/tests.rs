//! Every row function on every level, held bit by bit against scalars in the order the module states.

use crate::kernels::{KernelTable, Level};

/// The reduction of the module's head.
fn reduce(row: &[f32], start: f32, fold: impl Fn(f32, f32) -> f32, combine: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [start; 16];
    for (i, &x) in row.iter().enumerate() {
        lanes[i % 16] = fold(lanes[i % 16], x);
    }
    for distance in [8, 4, 2, 1] {
        for i in 0..distance {
            lanes[i] = combine(lanes[i], lanes[i + distance]);
        }
    }
    lanes[0]
}

fn sum(row: &[f32]) -> f32 {
    reduce(row, 0.0, |sum, x| sum + x, |a, b| a + b)
}

fn maximum(a: f32, b: f32) -> f32 {
    if a.is_nan() || b.is_nan() {
        return f32::NAN;
    }
    if a.total_cmp(&b).is_gt() { a } else { b }
}

fn max(row: &[f32]) -> f32 {
    reduce(row, f32::NEG_INFINITY, maximum, maximum)
}

fn min(row: &[f32]) -> f32 {
    -reduce(row, f32::NEG_INFINITY, |greatest, x| maximum(greatest, -x), maximum)
}

fn centred_squares(row: &[f32], mean: f32) -> f32 {
    reduce(row, 0.0, |sum, x| (x - mean).mul_add(x - mean, sum), |a, b| a + b)
}

/// A strip of one element.
fn apply(strip: unsafe extern "C" fn(*mut f32, *const f32, u64), x: f32) -> f32 {
    let mut result = 0.0;
    // SAFETY: both are single elements.
    unsafe { strip(&mut result, &x, 1) };
    result
}

fn softmax(row: &[f32]) -> Vec<f32> {
    let table = KernelTable::for_level(Level::Portable);
    let exponentials: Vec<f32> = row.iter().map(|x| apply(table.exp_f32, x - max(row))).collect();
    let factor = 1.0 / sum(&exponentials);
    exponentials.iter().map(|e| e * factor).collect()
}

fn log_softmax(row: &[f32]) -> Vec<f32> {
    let table = KernelTable::for_level(Level::Portable);
    let exponentials: Vec<f32> = row.iter().map(|x| apply(table.exp_f32, x - max(row))).collect();
    let logarithm = apply(table.log_f32, sum(&exponentials));
    row.iter().map(|x| (x - max(row)) - logarithm).collect()
}

fn normalise(
    row: &[f32],
    mean: f32,
    squares: f32,
    epsilon: f32,
    gain: Option<&[f32]>,
    bias: Option<&[f32]>,
) -> Vec<f32> {
    let scale = 1.0 / (squares / row.len() as f32 + epsilon).sqrt();
    let scaled = row.iter().map(|x| (x - mean) * scale);
    let gained = scaled.enumerate().map(|(i, x)| gain.map_or(x, |gain| x * gain[i]));
    gained.enumerate().map(|(i, x)| bias.map_or(x, |bias| x + bias[i])).collect()
}

fn values(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 8) as f32 / 8_388_608.0 - 1.0
    };
    (0..count).map(|_| next() * 5.0).collect()
}

fn same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}

#[track_caller]
fn check(name: &str, level: Level, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (i, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        assert!(same(found, expected), "{name} on {level}, {i}: {found:e}, not {expected:e}");
    }
}

/// Rows of every count up to 67 and some longer ones, plain and with special values in them.
fn rows() -> Vec<Vec<f32>> {
    let mut rows: Vec<Vec<f32>> =
        (0..68).chain([100, 128, 333, 768]).map(|count| values(count, count as u32)).collect();
    for (count, special) in [(5, f32::NAN), (40, f32::NAN), (20, f32::INFINITY), (33, f32::NEG_INFINITY), (17, -0.0)] {
        for at in [0, count / 2, count - 1] {
            let mut row = values(count, 9);
            row[at] = special;
            rows.push(row);
        }
    }
    rows.extend([0.0, -0.0, f32::NEG_INFINITY, f32::INFINITY, f32::NAN].map(|x| vec![x; 19]));
    rows.push((0..40).map(|i| if i % 3 == 0 { -0.0 } else { 0.0 }).collect());
    rows
}

#[test]
fn reductions_keep_to_their_order() {
    for level in Level::available() {
        let table = KernelTable::for_level(level);
        for row in rows() {
            let (src, count) = (row.as_ptr(), row.len() as u64);
            // SAFETY: the row has that many elements.
            let found = unsafe {
                [
                    (table.sum_row_f32)(src, count),
                    (table.product_row_f32)(src, count),
                    (table.max_row_f32)(src, count),
                    (table.min_row_f32)(src, count),
                    (table.squares_row_f32)(src, count),
                    (table.centred_squares_row_f32)(src, count, 0.3),
                ]
            };
            let expected = [
                sum(&row),
                reduce(&row, 1.0, |product, x| product * x, |a, b| a * b),
                max(&row),
                min(&row),
                reduce(&row, 0.0, |sum, x| x.mul_add(x, sum), |a, b| a + b),
                centred_squares(&row, 0.3),
            ];
            check("reductions", level, &found, &expected);
        }
    }
}

#[test]
fn softmax_of_every_count() {
    for level in Level::available() {
        let table = KernelTable::for_level(level);
        for row in rows() {
            for (name, function, expected) in [
                ("softmax", table.softmax_row_f32, softmax(&row)),
                ("log_softmax", table.log_softmax_row_f32, log_softmax(&row)),
            ] {
                let mut dst = vec![7.25; row.len() + 16];
                // SAFETY: both arrays have that many elements.
                unsafe { function(dst.as_mut_ptr(), row.as_ptr(), row.len() as u64) };
                check(name, level, &dst[..row.len()], &expected);
                assert!(dst[row.len()..].iter().all(|&x| x == 7.25), "{name} wrote outside");
                let mut both = row.clone();
                // SAFETY: both arrays have that many elements.
                unsafe { function(both.as_mut_ptr(), both.as_ptr(), row.len() as u64) };
                check(name, level, &both, &expected);
            }
        }
    }
}

#[test]
fn softmax_sums_to_one_and_is_nan_where_nothing_is_left() {
    let table = KernelTable::for_level(Level::detect().unwrap());
    let mut row = values(1000, 4);
    row[7] = f32::NEG_INFINITY;
    // SAFETY: the row has 1000 elements.
    unsafe { (table.softmax_row_f32)(row.as_mut_ptr(), row.as_ptr(), 1000) };
    let total: f64 = row.iter().map(|&x| f64::from(x)).sum();
    assert!((total - 1.0).abs() < 1e-6 && row[7] == 0.0, "{total}");
    let mut masked = [f32::NEG_INFINITY; 21];
    // SAFETY: the row has 21 elements.
    unsafe { (table.softmax_row_f32)(masked.as_mut_ptr(), masked.as_ptr(), 21) };
    assert!(masked.iter().all(|x| x.is_nan()));
}

#[test]
fn normalisations_of_every_count() {
    const EPSILON: f32 = 1e-5;
    for level in Level::available() {
        let table = KernelTable::for_level(level);
        for row in rows() {
            let n = row.len();
            let (other, gain, bias) = (values(n, 21), values(n, 22), values(n, 23));
            let both: Vec<f32> = row.iter().zip(&other).map(|(a, b)| a + b).collect();
            let squares = |row: &[f32]| reduce(row, 0.0, |sum, x| x.mul_add(x, sum), |a, b| a + b);
            for (gain, bias) in
                [(None, None), (Some(&gain[..]), None), (None, Some(&bias[..])), (Some(&gain[..]), Some(&bias[..]))]
            {
                let pointer = |array: Option<&[f32]>| array.map_or(std::ptr::null(), <[f32]>::as_ptr);
                let (g, b, count) = (pointer(gain), pointer(bias), n as u64);
                let layer = |row: &[f32]| {
                    let mean = sum(row) / n as f32;
                    normalise(row, mean, centred_squares(row, mean), EPSILON, gain, bias)
                };
                let rms = |row: &[f32]| normalise(row, 0.0, squares(row), EPSILON, gain, None);
                let (mut dst, mut out) = (vec![7.25; n], vec![7.25; n]);
                // SAFETY: all arrays have that many elements.
                unsafe {
                    (table.layer_norm_row_f32)(dst.as_mut_ptr(), row.as_ptr(), g, b, count, EPSILON);
                    check("layer_norm", level, &dst, &layer(&row));
                    (table.rms_norm_row_f32)(dst.as_mut_ptr(), row.as_ptr(), g, count, EPSILON);
                    check("rms_norm", level, &dst, &rms(&row));
                    let (x, y) = (row.as_ptr(), other.as_ptr());
                    (table.layer_norm_row_residual_f32)(dst.as_mut_ptr(), out.as_mut_ptr(), x, y, g, b, count, EPSILON);
                    check("layer_norm_residual", level, &dst, &layer(&both));
                    check("sum", level, &out, &both);
                    (table.rms_norm_row_residual_f32)(dst.as_mut_ptr(), std::ptr::null_mut(), x, y, g, count, EPSILON);
                    check("rms_norm_residual", level, &dst, &rms(&both));
                    // Over its own operands.
                    let (mut a, mut b_row) = (row.clone(), other.clone());
                    let (x, y) = (a.as_mut_ptr(), b_row.as_mut_ptr());
                    (table.layer_norm_row_residual_f32)(x, y, x, y, g, b, count, EPSILON);
                    check("layer_norm_residual in place", level, &a, &layer(&both));
                    check("sum in place", level, &b_row, &both);
                }
            }
        }
    }
}

#[test]
fn rows_side_by_side_get_the_bits_of_rows() {
    const EPSILON: f32 = 1e-5;
    for level in Level::available() {
        let table = KernelTable::for_level(level);
        // All rows of a block have one count.
        for count in [0, 1, 15, 16, 17, 40, 333] {
            let special = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0];
            let rows: Vec<Vec<f32>> = (0..16)
                .map(|row| {
                    let mut values = values(count, row + 1);
                    if let (Some(place), Some(x)) = (values.get_mut(count / 2), special.get(row as usize)) {
                        *place = *x;
                    }
                    values
                })
                .collect();
            let block: Vec<f32> = (0..16 * count).map(|place| rows[place % 16][place / 16]).collect();
            let n = count as u64;
            for which in 0..4 {
                let mut found = block.clone();
                // SAFETY: the block has sixteen rows of that many elements.
                unsafe {
                    match which {
                        0 | 1 => (table.normalise_columns_f32)(found.as_mut_ptr(), n, EPSILON, which),
                        _ => (table.softmax_columns_f32)(found.as_mut_ptr(), n, which - 2),
                    }
                }
                for (number, row) in rows.iter().enumerate() {
                    let mut alone = row.clone();
                    let (dst, none) = (alone.as_mut_ptr(), std::ptr::null());
                    // SAFETY: the row has that many elements.
                    unsafe {
                        match which {
                            0 => (table.rms_norm_row_f32)(dst, dst, none, n, EPSILON),
                            1 => (table.layer_norm_row_f32)(dst, dst, none, none, n, EPSILON),
                            2 => (table.softmax_row_f32)(dst, dst, n),
                            _ => (table.log_softmax_row_f32)(dst, dst, n),
                        }
                    }
                    let column: Vec<f32> = found.iter().skip(number).step_by(16).copied().collect();
                    check("columns", level, &column, &alone);
                }
            }
        }
    }
}
