//! Errors against f64 (std and libm), special values, and equal bits on all levels.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

use crate::kernels::lanes::{Lanes, Portable};
use crate::kernels::{Function, KernelTable, Level};

type Strip = unsafe extern "C" fn(*mut f32, *const f32, u64);

/// A function, its exact value in f64 and the greatest error it may have there, in units in the last place.
struct Case {
    function: Function,
    strip: fn(&KernelTable) -> Strip,
    exact: fn(f64) -> f64,
    bound: fn(f64) -> f64,
}

fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

fn gelu_argument(x: f64) -> f64 {
    (2.0 / PI).sqrt() * (x + 0.044715 * x * x * x)
}

const CASES: &[Case] = &[
    Case { function: Function::ExpF32, strip: |t| t.exp_f32, exact: f64::exp, bound: |_| 1.0 },
    Case { function: Function::Expm1F32, strip: |t| t.expm1_f32, exact: f64::exp_m1, bound: |_| 2.0 },
    Case { function: Function::LogF32, strip: |t| t.log_f32, exact: f64::ln, bound: |_| 2.0 },
    Case { function: Function::Log1pF32, strip: |t| t.log1p_f32, exact: f64::ln_1p, bound: |_| 2.0 },
    Case { function: Function::TanhF32, strip: |t| t.tanh_f32, exact: f64::tanh, bound: |_| 2.0 },
    Case { function: Function::ErfF32, strip: |t| t.erf_f32, exact: libm::erf, bound: |_| 2.0 },
    Case {
        function: Function::SigmoidF32,
        strip: |t| t.sigmoid_f32,
        exact: |x| 1.0 / (1.0 + (-x).exp()),
        bound: |_| 2.0,
    },
    Case { function: Function::SinF32, strip: |t| t.sin_f32, exact: f64::sin, bound: |_| 2.0 },
    Case { function: Function::CosF32, strip: |t| t.cos_f32, exact: f64::cos, bound: |_| 2.0 },
    Case {
        function: Function::GeluF32,
        strip: |t| t.gelu_f32,
        exact: |x| 0.5 * x * libm::erfc(-x * FRAC_1_SQRT_2),
        bound: |_| 6.0,
    },
    Case {
        function: Function::GeluTanhF32,
        strip: |t| t.gelu_tanh_f32,
        exact: |x| x / (1.0 + (-2.0 * gelu_argument(x)).exp()),
        bound: |x| 4.0 + 6.0 * gelu_argument(x).abs().min(75.0),
    },
    Case { function: Function::SiluF32, strip: |t| t.silu_f32, exact: |x| x / (1.0 + (-x).exp()), bound: |_| 3.0 },
    Case { function: Function::SoftplusF32, strip: |t| t.softplus_f32, exact: softplus, bound: |_| 3.0 },
    Case { function: Function::MishF32, strip: |t| t.mish_f32, exact: |x| x * softplus(x).tanh(), bound: |_| 4.0 },
];

/// The distance of `found` from `exact` in units of the last place that f32 has there.
fn error(found: f32, exact: f64) -> f64 {
    if found.is_nan() || exact.is_nan() {
        return if found.is_nan() && exact.is_nan() { 0.0 } else { f64::INFINITY };
    }
    // An infinity stands where the next f32 would be if there were one.
    let beyond = 2f64.powi(128);
    let value = f64::from(found).clamp(-beyond, beyond);
    let exact = exact.clamp(-beyond, beyond);
    let exponent = (((exact.abs().to_bits() >> 52) as i32) - 1023).clamp(-126, 127);
    (value - exact).abs() / 2f64.powi(exponent - 23)
}

/// Calls a strip on 4096 arguments at a time: the bit patterns that are multiples of `step`, plus `offset`.
fn check_every(step: usize, offset: u32, case: &Case) {
    let table = KernelTable::for_level(Level::detect().unwrap());
    let mut worst = (0.0, 0.0f32, 0.0f32);
    let (mut arguments, mut results) = (Vec::with_capacity(4096), vec![0.0; 4096]);
    let mut patterns = (0..=u32::MAX - offset).step_by(step).map(|bits| f32::from_bits(bits + offset));
    loop {
        arguments.clear();
        arguments.extend(patterns.by_ref().take(4096));
        if arguments.is_empty() {
            break;
        }
        // SAFETY: both arrays have that many elements.
        unsafe { (case.strip)(table)(results.as_mut_ptr(), arguments.as_ptr(), arguments.len() as u64) };
        for (&x, &found) in arguments.iter().zip(&results).filter(|(x, _)| x.is_finite()) {
            let error = error(found, (case.exact)(f64::from(x))) / (case.bound)(f64::from(x));
            if error > worst.0 {
                worst = (error, x, found);
            }
        }
    }
    let (error, x, found) = worst;
    println!(
        "{:<16} {error:.3} of its bound, {:.3} ulp, at {x:e}",
        case.function.name(),
        error * (case.bound)(f64::from(x))
    );
    let exact = (case.exact)(f64::from(x));
    assert!(error <= 1.0, "{}({x:e}) = {found:e}, not {exact:e}: {error} of its bound", case.function);
}

#[test]
fn errors_keep_to_their_bounds() {
    for case in CASES {
        check_every(1009, 0, case);
        check_every(1009, 503, case);
    }
}

#[test]
#[ignore = "takes minutes: every one of the 2^32 arguments"]
fn errors_keep_to_their_bounds_everywhere() {
    for case in CASES {
        check_every(1, 0, case);
    }
}

/// Powers are checked on random bits and where base and exponent leave the result in range.
#[test]
fn powers_keep_to_their_bound() {
    let table = KernelTable::for_level(Level::detect().unwrap());
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 32) as u32
    };
    let mut worst = (0.0, 0.0, 0.0);
    for round in 0..400 {
        let a: Vec<f32> = (0..4096).map(|_| f32::from_bits(next() & 0x7fff_ffff)).collect();
        let b: Vec<f32> = (0..4096)
            .map(|i| match round % 4 {
                0 => f32::from_bits(next()),
                1 => (next() as f32 / 2f32.powi(31) - 1.0) * 100.0 / a[i].ln(),
                2 => (next() % 2000) as f32 / 100.0 - 10.0,
                _ => (next() % 41) as f32 - 20.0,
            })
            .collect();
        let a: Vec<f32> = match round % 8 {
            3 => a.iter().map(|a| -a).collect(),
            2 => (0..4096).map(|_| 0.5 + next() as f32 / 2f32.powi(32)).collect(),
            _ => a,
        };
        let mut found = vec![0.0; 4096];
        // SAFETY: all arrays have 4096 elements.
        unsafe { (table.pow_f32)(found.as_mut_ptr(), a.as_ptr(), b.as_ptr(), 4096, 1, 1) };
        for i in 0..4096 {
            let error = error(found[i], f64::from(a[i]).powf(f64::from(b[i])));
            if error > worst.0 {
                worst = (error, a[i], b[i]);
            }
        }
    }
    println!("pow_f32 {worst:?}");
    assert!(worst.0 <= 2.0, "pow({:e}, {:e}): {} ulp", worst.1, worst.2, worst.0);
}

#[test]
fn special_powers_are_those_of_ieee_754() {
    let table = KernelTable::for_level(Level::detect().unwrap());
    let values = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        -0.5,
        2.0,
        -2.0,
        3.0,
        -3.0,
        2.5,
        -2.5,
        1e-40,
        -1e-40,
        1e38,
        -1e38,
        8_388_607.0,
        8_388_608.0,
        8_388_609.0,
        16_777_215.0,
        16_777_216.0,
        0.999_999_94,
        1.000_000_1,
        -0.999_999_94,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        f32::MAX,
        f32::MIN_POSITIVE,
    ];
    for a in values {
        for b in values {
            let mut found = 0.0;
            // SAFETY: every array has one element.
            unsafe { (table.pow_f32)(&mut found, &a, &b, 1, 1, 1) };
            let expected = f64::from(a).powf(f64::from(b));
            let close = error(found, expected) <= 2.0
                && (found != 0.0 || expected as f32 != 0.0 || found.is_sign_negative() == expected.is_sign_negative());
            assert!(close, "pow({a:e}, {b:e}) = {found:e}, not {expected:e}");
        }
    }
}

/// Arguments and the exact results they must give, signs of zeros included.
#[test]
fn special_values() {
    const INFINITY: f32 = f32::INFINITY;
    const TINY: f32 = 1e-45;
    let table = KernelTable::for_level(Level::detect().unwrap());
    let cases: &[(Function, &[(f32, f32)])] = &[
        (
            Function::ExpF32,
            &[(0.0, 1.0), (-0.0, 1.0), (INFINITY, INFINITY), (-INFINITY, 0.0), (1e30, INFINITY), (-1e30, 0.0)],
        ),
        (
            Function::Expm1F32,
            &[(0.0, 0.0), (-0.0, -0.0), (INFINITY, INFINITY), (-INFINITY, -1.0), (TINY, TINY), (-1e30, -1.0)],
        ),
        (
            Function::LogF32,
            &[
                (0.0, -INFINITY),
                (-0.0, -INFINITY),
                (1.0, 0.0),
                (INFINITY, INFINITY),
                (-1.0, f32::NAN),
                (-INFINITY, f32::NAN),
            ],
        ),
        (
            Function::Log1pF32,
            &[
                (0.0, 0.0),
                (-0.0, -0.0),
                (-1.0, -INFINITY),
                (INFINITY, INFINITY),
                (TINY, TINY),
                (-1.5, f32::NAN),
                (-INFINITY, f32::NAN),
            ],
        ),
        (
            Function::TanhF32,
            &[(0.0, 0.0), (-0.0, -0.0), (INFINITY, 1.0), (-INFINITY, -1.0), (-TINY, -TINY), (20.0, 1.0)],
        ),
        (
            Function::ErfF32,
            &[(0.0, 0.0), (-0.0, -0.0), (INFINITY, 1.0), (-INFINITY, -1.0), (-TINY, -TINY), (4.0, 1.0), (1e30, 1.0)],
        ),
        (Function::SigmoidF32, &[(0.0, 0.5), (-0.0, 0.5), (INFINITY, 1.0), (-INFINITY, 0.0)]),
        (
            Function::GeluF32,
            &[(0.0, 0.0), (-0.0, -0.0), (INFINITY, INFINITY), (-INFINITY, -0.0), (20.0, 20.0), (-20.0, -0.0)],
        ),
        (Function::GeluTanhF32, &[(0.0, 0.0), (-0.0, -0.0), (INFINITY, INFINITY), (-INFINITY, -0.0), (-20.0, -0.0)]),
        (Function::SiluF32, &[(0.0, 0.0), (-0.0, -0.0), (INFINITY, INFINITY), (-INFINITY, -0.0)]),
        (Function::SoftplusF32, &[(INFINITY, INFINITY), (-INFINITY, 0.0)]),
        (Function::MishF32, &[(0.0, 0.0), (-0.0, -0.0), (INFINITY, INFINITY), (-INFINITY, -0.0)]),
        (Function::SinF32, &[(0.0, 0.0), (-0.0, -0.0), (INFINITY, f32::NAN), (-INFINITY, f32::NAN), (TINY, TINY)]),
        (Function::CosF32, &[(0.0, 1.0), (-0.0, 1.0), (INFINITY, f32::NAN), (-INFINITY, f32::NAN)]),
    ];
    for (function, pairs) in cases {
        let strip = CASES.iter().find(|case| case.function == *function).unwrap().strip;
        for &(x, expected) in pairs.iter().chain(&[(f32::NAN, f32::NAN), (-f32::NAN, f32::NAN)]) {
            let mut found = 0.0;
            // SAFETY: both arrays have one element.
            unsafe { strip(table)(&mut found, &x, 1) };
            let equal = found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan());
            assert!(equal, "{function}({x:e}) = {found:e}, not {expected:e}");
        }
    }
}

#[test]
fn clipping_with_usual_bounds_is_clipping() {
    let bounds = [-0.0, 0.0, 1e-40, -1.0, 6.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
    let values = [0.0, -0.0, 1e-45, -1e-45, 0.5, -0.5, 6.0, 7.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
    let mut usual = 0;
    for (low, high) in bounds.iter().flat_map(|low| bounds.iter().map(move |high| (*low, *high))) {
        let Some(given) = super::Bounds::<Portable>::new(low, high) else {
            assert!(low.is_nan() || high.is_nan() || high.to_bits() == (-0f32).to_bits());
            continue;
        };
        usual += 1;
        for x in values {
            let expected = super::clip(Portable::splat(x), Portable::splat(low), Portable::splat(high)).first();
            let found = given.clip(Portable::splat(x)).first();
            let same = expected.to_bits() == found.to_bits() || (expected.is_nan() && found.is_nan());
            assert!(same, "{x} in {low}..{high}: {found}, not {expected}");
        }
    }
    assert_eq!(usual, 7 * 6);
}
