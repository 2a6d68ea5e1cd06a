//! Equal bits on every level, at every position and for every count; nothing beyond the count is written.

use crate::kernels::{KernelTable, Level};

type Expression = Box<dyn Fn(f32) -> f32>;
type Unary = Box<dyn Fn(&KernelTable, *mut f32, *const f32, u64)>;
type Binary = unsafe extern "C" fn(*mut f32, *const f32, *const f32, u64, u64, u64);

/// Values of every kind, in an order that puts unlike ones next to each other.
fn values(count: usize, seed: u32) -> Vec<f32> {
    let special = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        88.0,
        -88.0,
        100.0,
        -104.0,
        1e-40,
        -1e-40,
        3e38,
        70_000.0,
        -1e30,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
    ];
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            match state % 4 {
                0 => special[(state >> 8) as usize % special.len()],
                1 => f32::from_bits(state),
                _ => ((state >> 8) as f32 / 8_388_608.0 - 1.0) * 12.0,
            }
        })
        .collect()
}

fn same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}

macro_rules! unary {
    ($($name:ident($($parameter:expr),*)),* $(,)?) => {
        vec![$((stringify!($name), Box::new(|table: &KernelTable, dst: *mut f32, src: *const f32, count: u64| {
            // SAFETY: the caller passes arrays of that many elements.
            unsafe { (table.$name)(dst, src, count $(, $parameter)*) }
        }) as Unary)),*]
    };
}

fn unary_strips() -> Vec<(&'static str, Unary)> {
    unary! {
        exp_f32(), expm1_f32(), log_f32(), log1p_f32(), tanh_f32(), erf_f32(), sigmoid_f32(), gelu_f32(),
        gelu_tanh_f32(), silu_f32(), softplus_f32(), mish_f32(), elu_f32(1.7), sin_f32(), cos_f32(), relu_f32(),
        leaky_relu_f32(0.1), clip_f32(-0.0, 6.0), hard_sigmoid_f32(0.2, 0.5), hard_swish_f32(), scale_shift_f32(1.3, -0.7),
        neg_f32(), abs_f32(), sqrt_f32(),
    }
}

fn binary_strips(table: &KernelTable) -> [(&'static str, Binary); 7] {
    [
        ("add", table.add_f32),
        ("sub", table.sub_f32),
        ("mul", table.mul_f32),
        ("div", table.div_f32),
        ("max", table.max_f32),
        ("min", table.min_f32),
        ("pow", table.pow_f32),
    ]
}

#[test]
fn unary_strips_give_the_same_bits_everywhere() {
    let portable = KernelTable::for_level(Level::Portable);
    for (name, strip) in unary_strips() {
        let src = values(67 * 13, 1);
        // Each element alone, in the first lane of the portable level, is what all others are held against.
        let expected: Vec<f32> = src
            .iter()
            .map(|x| {
                let mut result = 0.0;
                strip(portable, &mut result, x, 1);
                result
            })
            .collect();
        for level in Level::available() {
            let table = KernelTable::for_level(level);
            for count in 0..68 {
                for start in [0, count, src.len() - count] {
                    let mut dst = vec![7.25f32; count + 20];
                    strip(table, dst[10..].as_mut_ptr(), src[start..].as_ptr(), count as u64);
                    for i in 0..count {
                        let (x, found, expected) = (src[start + i], dst[10 + i], expected[start + i]);
                        assert!(
                            same(found, expected),
                            "{name} on {level}, {i} of {count}: {x:e} gives {found:e}, not {expected:e}"
                        );
                    }
                    assert!(dst[..10].iter().chain(&dst[10 + count..]).all(|&x| x == 7.25), "{name} wrote outside");
                    // In place.
                    let mut both = src[start..start + count].to_vec();
                    strip(table, both.as_mut_ptr(), both.as_ptr(), count as u64);
                    assert!(both.iter().zip(&dst[10..]).all(|(&a, &b)| same(a, b)), "{name} in place");
                }
            }
        }
    }
}

#[test]
fn binary_strips_give_the_same_bits_everywhere() {
    let portable = KernelTable::for_level(Level::Portable);
    for index in 0..binary_strips(portable).len() {
        let (name, single) = binary_strips(portable)[index];
        for level in Level::available() {
            let (_, strip) = binary_strips(KernelTable::for_level(level))[index];
            for count in 0..68usize {
                let (a, b) = (values(count + 1, count as u32 + 3), values(count + 1, count as u32 + 100));
                for (a_step, b_step) in [(1, 1), (0, 1), (1, 0), (0, 0)] {
                    let mut dst = vec![7.25f32; count + 20];
                    // SAFETY: the arrays have that many elements.
                    unsafe { strip(dst[10..].as_mut_ptr(), a.as_ptr(), b.as_ptr(), count as u64, a_step, b_step) };
                    for i in 0..count {
                        let (x, y) = (a[i * a_step as usize], b[i * b_step as usize]);
                        let mut expected = 0.0;
                        // SAFETY: all are single elements.
                        unsafe { single(&mut expected, &x, &y, 1, 1, 1) };
                        let found = dst[10 + i];
                        assert!(
                            same(found, expected),
                            "{name} on {level}: {x:e}, {y:e} give {found:e}, not {expected:e}"
                        );
                    }
                    assert!(dst[..10].iter().chain(&dst[10 + count..]).all(|&x| x == 7.25), "{name} wrote outside");
                }
            }
        }
    }
}

/// What the linear strips compute, said once more with scalars.
#[test]
fn linear_strips_are_their_expressions() {
    let maximum = |x: f32, y: f32| {
        if x.is_nan() || y.is_nan() {
            f32::NAN
        } else if x.total_cmp(&y).is_gt() {
            x
        } else {
            y
        }
    };
    let minimum = |x: f32, y: f32| {
        if x.is_nan() || y.is_nan() {
            f32::NAN
        } else if x.total_cmp(&y).is_lt() {
            x
        } else {
            y
        }
    };
    let hard_sigmoid = move |x: f32, slope: f32, offset: f32| maximum(minimum(slope * x + offset, 1.0), 0.0);
    let expressions: Vec<(&str, Expression)> = vec![
        ("relu_f32", Box::new(move |x| maximum(x, 0.0))),
        ("leaky_relu_f32", Box::new(|x| if x < 0.0 { 0.1 * x } else { x })),
        ("clip_f32", Box::new(move |x| minimum(maximum(x, -0.0), 6.0))),
        ("hard_sigmoid_f32", Box::new(move |x| hard_sigmoid(x, 0.2, 0.5))),
        ("hard_swish_f32", Box::new(move |x| x * maximum(minimum(x / 6.0 + 0.5, 1.0), 0.0))),
        ("scale_shift_f32", Box::new(|x| 1.3 * x + -0.7)),
        ("neg_f32", Box::new(|x| -x)),
        ("abs_f32", Box::new(f32::abs)),
        ("sqrt_f32", Box::new(f32::sqrt)),
    ];
    let table = KernelTable::for_level(Level::detect().unwrap());
    let strips = unary_strips();
    for (name, expression) in expressions {
        let strip = &strips.iter().find(|(other, _)| *other == name).unwrap().1;
        for x in values(2000, 5) {
            let mut found = 0.0;
            strip(table, &mut found, &x, 1);
            let expected = expression(x);
            assert!(same(found, expected), "{name}({x:e}) = {found:e}, not {expected:e}");
        }
    }
    for (a, b) in values(2000, 6).into_iter().zip(values(2000, 7)) {
        for ((name, strip), expected) in
            binary_strips(table).iter().zip([a + b, a - b, a * b, a / b, maximum(a, b), minimum(a, b)])
        {
            let mut found = 0.0;
            // SAFETY: all are single elements.
            unsafe { strip(&mut found, &a, &b, 1, 1, 1) };
            assert!(same(found, expected), "{name}({a:e}, {b:e}) = {found:e}, not {expected:e}");
        }
    }
}
