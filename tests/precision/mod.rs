//! Weights in bf16: rounded once, packed in sixteen bits, and multiplied as the rounded numbers are.

use super::{run_on, with_weights};
use strang::{
    Compiler, ElementType, Precision, Tensor,
    compiler::precision::round_weights,
    ir::{
        Module,
        interpret::{Arithmetic, interpret},
    },
    random::{self, Random},
    runtime::Bindings,
};

/// Two layers, a table that is read by position, and one that is both read and multiplied.
const NETWORK: &str = r#"
ncd 0.1 "network"
axis b   axis i = 96   axis o = 200   axis v = 70
param @w: f32[i, o]   param @bias: f32[o]   param @table: f32[v, o]   param @names: f32[v, o]
fn @network(%x: f32[b, i], %at: i64[b]) -> f32[b, v] {
  %y = dot : %x[b, {i}], @w[{i}, o] -> [b, o]
  %g = gather : @table[{v}, o], %at[b] -> [b, o]
  %n = gather : @names[{v}, o], %at[b] -> [b, o]
  %h = map relu($0 + $1) + $2 + $3 : %y[b, o], @bias[o], %g[b, o], %n[b, o] -> [b, o]
  %z = dot : %h[b, {o}], @names[v, {o}] -> [b, v]
  return %z
}
"#;

fn network() -> Module {
    with_weights(NETWORK, 21)
}

#[test]
fn rounded_weights_are_packed_in_sixteen_bits_and_multiplied_exactly() {
    let module = network();
    let planned = Compiler::new().precision(Precision::Bf16).plan(module.clone()).unwrap();
    let text = planned.plan.to_string();
    assert_eq!(text.matches("times packed bf16").count(), 2, "{text}");
    let [exact, rounded] = [Precision::F32, Precision::Bf16]
        .map(|precision| Compiler::new().precision(precision).compile(module.clone()).unwrap());
    for rows in [1, 5, 33] {
        let x = random::tensor(&mut Random::new(22), ElementType::F32, &[rows, 96]).unwrap();
        let places: Vec<i64> = (0..rows as i64).map(|row| row * 7 % 70).collect();
        let inputs = [x, Tensor::from_slice(&[rows], &places).unwrap()];
        let bindings = Bindings::from([("b".into(), rows as i64)]);
        let [one, two] = [1, 2].map(|threads| run_on(threads, &rounded.executable, &bindings, &inputs).swap_remove(0));
        assert!(one.bytes() == two.bytes(), "the bits depend on the number of threads");
        // What is computed is the circuit with rounded weights, and nothing else is rounded.
        let expected = interpret(&rounded.rewritten, &inputs, Arithmetic::Wide).unwrap()[0].to_f64();
        let range = expected.iter().fold(0f64, |most, value| most.max(value.abs()));
        let far = |found: &[f64]| expected.iter().zip(found).map(|(a, b)| (a - b).abs()).fold(0., f64::max) / range;
        assert!(far(&one.to_f64()) < 1e-5, "{rows}: {:.1e}", far(&one.to_f64()));
        let before = run_on(1, &exact.executable, &bindings, &inputs)[0].to_f64();
        assert!((1e-4..2e-2).contains(&far(&before)), "{rows}: rounding changes {:.1e}", far(&before));
    }
}

#[test]
fn what_no_product_multiplies_is_not_rounded() {
    let module = network();
    let mut rounded = module.clone();
    assert_eq!(round_weights(&mut rounded), 2);
    for (before, after) in module.parameters.iter().zip(&rounded.parameters) {
        let (before, after) = (before.data.as_ref().unwrap(), after.data.as_ref().unwrap());
        let is_bf16 = after.to_vec::<f32>().unwrap().iter().all(|value| value.to_bits() & 0xffff == 0);
        assert_eq!(is_bf16, before.bytes() != after.bytes());
        for (a, b) in before.to_f64().into_iter().zip(after.to_f64()) {
            assert!((a - b).abs() <= a.abs() / 256., "{a} is rounded to {b}");
        }
    }
    let is_same = |name: &str| {
        let position = module.parameters.iter().position(|parameter| *parameter.name == *name).unwrap();
        let data = |module: &Module| module.parameters[position].data.as_ref().unwrap().bytes().to_vec();
        data(&module) == data(&rounded)
    };
    assert!(is_same("bias") && is_same("table") && !is_same("w") && !is_same("names"));
}
