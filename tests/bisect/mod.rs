//! Stopping rewriting early, and finding the application of a rule that makes a difference.

use strang::{
    Compiler, Tensor,
    bisect::{Outcome, bisect},
    check::difference,
    compiler::rewrite::{rule::Class, rules},
    ir::{
        Module,
        interpret::{Arithmetic, interpret},
        text,
    },
};

/// Rules that keep every bit can be applied to this, and one that does not: the quotient by three.
const CIRCUIT: &str = "ncd 0.1 \"mixed\"
axis b = 5   axis m = 16   axis n = 4
param @v: f32[m, n] param @w: f32[m, n] param @s: f32[n] = [1, 2, 3, 4]
fn @mixed(%x: f32[b, m]) -> (f32[b, n], f32[b, n]) {
  %shift = map $0 * 2 : @s[n] -> [n]
  %p = dot %x[b, {m}], @v[{m}, n] -> [b, n]
  %q = dot %x[b, {m}], @w[{m}, n] -> [b, n]
  %half = map $0 / 2 : %p[b, n] -> [b, n]
  %third = map $0 / 3 : %q[b, n] -> [b, n]
  %sum = map add : %third[b, n], %shift[n] -> [b, n]
  return %half, %sum
}
";

fn sample() -> (Module, Vec<Tensor>) {
    let mut module = text::parse(CIRCUIT, "mixed").unwrap();
    let numbers = |count: usize, step: f32| (0..count).map(|i| (i as f32 * step).sin()).collect::<Vec<_>>();
    for (position, parameter) in module.parameters.iter_mut().take(2).enumerate() {
        parameter.data = Tensor::from_slice(&[16, 4], &numbers(64, 0.3 + position as f32)).ok();
    }
    let input = Tensor::from_slice(&[5, 16], &numbers(80, 0.7)).unwrap();
    (module, vec![input])
}

#[test]
fn every_prefix_of_the_applications_gives_the_same_results() {
    let (module, inputs) = sample();
    let want = interpret(&module, &inputs, Arithmetic::Wide).unwrap();
    let all = Compiler::new().compile(module.clone()).unwrap().receipt.spent;
    assert!(all > 3, "{all}");
    for fuel in 0..=all {
        let model = Compiler::new().fuel(fuel).compile(module.clone()).unwrap();
        assert_eq!(model.receipt.spent, fuel);
        let got = model.executable.run(&inputs).unwrap();
        let error = got.iter().zip(&want).map(|(got, want)| difference(got, want)).fold(0., f64::max);
        assert!(error < 1e-6, "{fuel}: {error}");
    }
}

#[test]
fn the_application_that_changes_bits_is_found() {
    let (module, inputs) = sample();
    let compiler = Compiler::new();
    let mut trials = 0;
    let outcome = bisect(&compiler, &module, &inputs, None, 0., &mut |_, _| trials += 1).unwrap();
    let Outcome::Found(culprit) = outcome else { panic!("{outcome:?}") };
    let rule = rules::all().iter().find(|rule| rule.name == culprit.application.rule).unwrap();
    assert_eq!(rule.class, Class::Real, "{}", rule.name);
    assert!(["%third", "%sum"].contains(&&*culprit.application.layer), "{:?}", culprit.application);
    assert_eq!(culprit.without, 0.);
    assert!(culprit.with > 0. && culprit.with < 1e-6, "{}", culprit.with);
    assert!(trials > 2);
    let run =
        |fuel: usize| compiler.clone().fuel(fuel).compile(module.clone()).unwrap().executable.run(&inputs).unwrap();
    assert_eq!(run(0), run(culprit.number - 1));
    assert_ne!(run(0), run(culprit.number));
}

#[test]
fn faults_that_no_rule_has_are_told() {
    let (module, inputs) = sample();
    let compiler = Compiler::new();
    let reference = compiler.compile(module.clone()).unwrap().executable.run(&inputs).unwrap();
    let outcome = bisect(&compiler, &module, &inputs, Some(&reference), 1e-3, &mut |_, _| {}).unwrap();
    assert!(matches!(outcome, Outcome::Kept { error: 0., applications } if applications > 3), "{outcome:?}");
    let wrong: Vec<Tensor> =
        reference.iter().map(|tensor| Tensor::zeros(tensor.element(), tensor.shape()).unwrap()).collect();
    let outcome = bisect(&compiler, &module, &inputs, Some(&wrong), 1e-3, &mut |_, _| {}).unwrap();
    assert!(matches!(outcome, Outcome::Unrewritten { error } if error > 1e-3), "{outcome:?}");
    assert!(bisect(&compiler, &module, &inputs, Some(&wrong[..1]), 1e-3, &mut |_, _| {}).is_err());
}
