//! Matrix products in bf16: weights rounded once and packed in sixteen bits, what they multiply rounded as it is read.

use super::{run_on, with_weights};
use strang::{
    Compiler, ElementType, Precision, Tensor,
    compiler::precision::round_weights,
    ir::{
        Module,
        interpret::{Arithmetic, interpret},
    },
    random::{self, Random},
    runtime::{Bindings, kernels::Level},
};

/// Two layers, a table that is read by position, one that is both read and multiplied, and channels that have weights of their own.
const NETWORK: &str = r#"
ncd 0.1 "network"
axis b   axis i = 97   axis o = 200   axis v = 70
param @w: f32[i, o]   param @bias: f32[o]   param @table: f32[v, o]   param @names: f32[v, o]   param @each: f32[o]
fn @network(%x: f32[b, i], %at: i64[b]) -> f32[b, v] {
  %y = dot : %x[b, {i}], @w[{i}, o] -> [b, o]
  %g = gather : @table[{v}, o], %at[b] -> [b, o]
  %n = gather : @names[{v}, o], %at[b] -> [b, o]
  %h = map relu($0 * $4 + $1) + $2 + $3 : %y[b, o], @bias[o], %g[b, o], %n[b, o], @each[o] -> [b, o]
  %z = dot : %h[b, {o}], @names[v, {o}] -> [b, v]
  return %z
}
"#;

fn network() -> Module {
    with_weights(NETWORK, 21)
}

fn inputs(rows: usize) -> [Tensor; 2] {
    let x = random::tensor(&mut Random::new(22), ElementType::F32, &[rows, 97]).unwrap();
    let places: Vec<i64> = (0..rows as i64).map(|row| row * 7 % 70).collect();
    [x, Tensor::from_slice(&[rows], &places).unwrap()]
}

/// The largest distance, as a share of the largest number expected.
fn distance(expected: &Tensor, found: &Tensor) -> f64 {
    let (expected, found) = (expected.to_f64(), found.to_f64());
    let range = expected.iter().fold(0f64, |most, value| most.max(value.abs()));
    expected.iter().zip(&found).map(|(a, b)| (a - b).abs()).fold(0., f64::max) / range
}

#[test]
fn products_are_those_of_rounded_numbers_at_every_level() {
    let module = network();
    let exact = Compiler::new().compile(module.clone()).unwrap();
    for level in Level::available() {
        let compiler = Compiler::new().precision(Precision::Bf16).level(level);
        let planned = compiler.plan(module.clone()).unwrap();
        let text = planned.plan.to_string();
        assert_eq!(text.matches("times packed pairs of bf16").count(), 2, "{text}");
        let rounded = compiler.compile(module.clone()).unwrap();
        for rows in [1, 5, 33] {
            let inputs = inputs(rows);
            let bindings = Bindings::from([("b".into(), rows as i64)]);
            let [one, two] =
                [1, 2].map(|threads| run_on(threads, &rounded.executable, &bindings, &inputs).swap_remove(0));
            assert!(one.bytes() == two.bytes(), "the bits depend on the number of threads");
            // What is computed is the circuit, which says what is rounded; nothing else is.
            let expected = &interpret(&rounded.rewritten, &inputs, Arithmetic::Typed).unwrap()[0];
            assert!(distance(expected, &one) < 1e-5, "{level}, {rows}: {:.1e}", distance(expected, &one));
            let change = distance(&run_on(1, &exact.executable, &bindings, &inputs)[0], &one);
            assert!((1e-4..2e-2).contains(&change), "{rows}: rounding changes {change:.1e}");
        }
    }
}

#[test]
fn what_no_matrix_product_multiplies_is_not_rounded() {
    let module = network();
    let mut rounded = module.clone();
    assert_eq!(round_weights(&mut rounded), 2);
    let find = |module: &Module, name: &str| module.parameters.iter().find(|p| *p.name == *name).cloned();
    for name in ["bias", "table", "names", "each"] {
        let [before, after] = [&module, &rounded].map(|module| find(module, name).unwrap().data.unwrap());
        assert_eq!(before.bytes(), after.bytes(), "{name}");
    }
    assert!(find(&rounded, "w").is_none(), "nothing reads all bits of it");
    for name in ["w", "names"] {
        let before = find(&module, name).unwrap().data.unwrap();
        let after = find(&rounded, &format!("{name}.bf16")).unwrap().data.unwrap();
        assert_eq!(after.element(), ElementType::BF16);
        for (a, b) in before.to_f64().into_iter().zip(after.to_f64()) {
            assert!((a - b).abs() <= a.abs() / 256., "{a} is rounded to {b}");
        }
    }
}

#[test]
fn weights_that_cannot_be_packed_stay_in_f32() {
    let module = with_weights(
        r#"
ncd 0.1 "turned"
axis t = 40   axis c = 32   axis o = 24
param @w: f32[c, o]
fn @turned(%x: f32[t, c]) -> f32[t, o] {
  %y = dot : %x[t, {c}], @w[31 - {c}, o] -> [t, o]
  return %y
}
"#,
        24,
    );
    assert_eq!(round_weights(&mut module.clone()), 0);
}

#[test]
fn depthwise_convolutions_and_products_of_two_arrays_stay_in_f32() {
    let module = with_weights(
        r#"
ncd 0.1 "others"
axis t = 40   axis k = 3   axis c = 32   axis u = 38   axis p = 38
param @taps: f32[c, k]
fn @others(%x: f32[t, c], %y: f32[p, c]) -> f32[u, p] {
  %d = dot : %x[u + {k}, c], @taps[c, {k}] -> [u, c]
  %z = dot : %d[u, {c}], %y[p, {c}] -> [u, p]
  return %z
}
"#,
        23,
    );
    assert_eq!(round_weights(&mut module.clone()), 0);
}
