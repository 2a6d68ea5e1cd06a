//! Weights of few bits: what codes, clusters and splits promise.

use proptest::prelude::*;
use strang_compiler::quantise::{
    Granularity, QuantiseError, Scheme, Splitting, cluster::boundaries, codes::Coding, quantise, split::Split,
};
use strang_compiler::rewrite::evaluate::evaluate;
use strang_ir::{
    Bindings, FunctionId, Module, Op, Tensor,
    interpret::{Arithmetic, interpret, interpret_node},
    random::random_tensor,
    text,
};
use strang_runtime::tensor::Spare;

/// Numbers as weights are, with zeros, equal numbers, tiny ones and outliers among them.
fn numbers() -> impl Strategy<Value = Vec<f32>> {
    let number = prop_oneof![
        8 => -1f32..1.,
        1 => Just(0f32),
        1 => Just(-0f32),
        1 => Just(0.5f32),
        1 => -1e-38f32..1e-38,
        1 => -1e30f32..1e30,
    ];
    prop::collection::vec(number, 1..80)
}

fn squares(values: &[f32], boundaries: &[f32]) -> f64 {
    let mut parts: Vec<Vec<f64>> = vec![Vec::new(); boundaries.len() + 1];
    for value in values {
        parts[boundaries.iter().filter(|boundary| **boundary <= *value).count()].push((*value).into());
    }
    let spread = |part: &Vec<f64>| {
        let mean = part.iter().sum::<f64>() / part.len().max(1) as f64;
        part.iter().map(|value| (value - mean).powi(2)).sum::<f64>()
    };
    parts.iter().map(spread).sum()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rounding_stays_within_half_a_step_and_keeps_zero(values in numbers(), bits in prop::sample::select(vec![2u32, 3, 4, 8])) {
        for coding in [Coding::symmetric(values.iter().copied(), bits), Coding::affine(values.iter().copied(), bits)] {
            prop_assert_eq!(coding.rounded(0.), 0.);
            for value in &values {
                let code = coding.code(*value);
                prop_assert!(coding.codes.0 <= code && code <= coding.codes.1);
                prop_assert!(((coding.codes.1 - coding.codes.0) as u32) < 1 << bits);
                // Codes of an affine range are shifted by up to half a step to have an exact zero.
                let error = (coding.rounded(*value) - value).abs();
                prop_assert!(error <= coding.scale * 1.01, "{value} became {} in steps of {}", coding.rounded(*value), coding.scale);
                prop_assert_eq!(coding.code(coding.value(code)), code);
            }
        }
    }

    #[test]
    fn splits_are_disjoint_cover_everything_and_add_up(values in numbers()) {
        let split = Split::new(&values, 2);
        prop_assert_eq!(split.parts.len(), values.len());
        prop_assert!(split.parts.iter().all(|part| usize::from(*part) < split.codings.len()));
        let used = |number: usize| split.parts.iter().any(|part| usize::from(*part) == number);
        prop_assert!((0..split.codings.len()).all(used), "an empty cluster");
        let whole = split.rounded(&values);
        let parts: Vec<Vec<f32>> = (0..split.codings.len()).map(|number| split.part(&values, number)).collect();
        for (position, value) in whole.iter().enumerate() {
            prop_assert_eq!(parts.iter().map(|part| part[position]).sum::<f32>(), *value);
            let others = parts.iter().enumerate().filter(|(number, _)| *number != usize::from(split.parts[position]));
            prop_assert!(others.into_iter().all(|(_, part)| part[position] == 0.));
        }
        // Parts are ordered: nothing of one lies above what is in the next.
        for (a, first) in values.iter().zip(&split.parts) {
            for (b, second) in values.iter().zip(&split.parts) {
                prop_assert!(first >= second || a <= b);
            }
        }
        let again = Split::new(&values, 2);
        prop_assert_eq!(again, split);
    }

    #[test]
    fn clusters_are_the_best(values in prop::collection::vec(-1f32..1., 4..24)) {
        let found = squares(&values, &boundaries(&values, 3));
        let mut sorted = values.clone();
        sorted.sort_by(f32::total_cmp);
        let mut best = f64::INFINITY;
        for first in 1..sorted.len() {
            for second in first + 1..sorted.len() {
                best = best.min(squares(&values, &[sorted[first], sorted[second]]));
            }
        }
        prop_assert!((found - best).abs() <= 1e-6 * best + 1e-9, "{found} against {best}");
    }
}

#[test]
fn equal_numbers_are_one_cluster() {
    assert!(boundaries(&[0.25; 9], 3).is_empty());
    assert_eq!(boundaries(&[1., 3., 1., 3.], 3), [2.]);
    assert_eq!(Split::new(&[0.; 4], 2).rounded(&[0.; 4]), [0.; 4]);
}

fn network() -> Module {
    let source = "ncd 0.1 \"net\"
axis b = 4   axis m = 40   axis n = 24
param @w: f32[m, n]   param @v: f32[n, m]
fn @net(%x: f32[b, m]) -> f32[b, m] {
  %p = dot %x[b, {m}], @w[{m}, n] -> [b, n]
  %q = map tanh : %p[b, n] -> [b, n]
  %y = dot %q[b, {n}], @v[{n}, m] -> [b, m]
  return %y
}
";
    with_weights(text::parse(source, "net").unwrap())
}

fn with_weights(mut module: Module) -> Module {
    for (number, parameter) in module.parameters.iter_mut().enumerate() {
        let shape: Vec<usize> = parameter.axes.iter().map(|axis| axis.size.as_constant().unwrap() as usize).collect();
        parameter.data = Some(random_tensor(parameter.element, &shape, false, number as u64));
    }
    module
}

fn scheme(bits: u32, granularity: Granularity, split: bool) -> Scheme {
    let splitting = if split { Splitting::Joined } else { Splitting::Whole };
    Scheme { bits, affine: false, granularity, splitting }
}

#[test]
fn more_bits_smaller_groups_and_splits_lose_less() {
    let module = network();
    let input = vec![random_tensor(strang_ir::ElementType::F32, &[4, 40], false, 9)];
    let exact = interpret(&module, &input, Arithmetic::Wide).unwrap()[0].to_f64();
    let lost = |scheme: Scheme| {
        let (quantised, reports) = quantise(&module, &scheme).unwrap();
        assert_eq!(reports.len(), 2);
        assert!(reports.iter().all(|report| report.weights == 960));
        let got = interpret(&quantised, &input, Arithmetic::Wide).unwrap()[0].to_f64();
        let squares = exact.iter().zip(got).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
        (squares.sqrt(), reports[0].error, reports[0].bits)
    };
    let mut before = f64::INFINITY;
    for bits in [2, 3, 4, 8] {
        let (results, weights, size) = lost(scheme(bits, Granularity::Tensor, false));
        assert!(weights < before && results.is_finite(), "{bits} bits lose {weights}, after {before}");
        assert_eq!(size, 960 * bits as usize + 32);
        before = weights;
    }
    let of = |granularity, split| lost(scheme(2, granularity, split)).1;
    assert!(of(Granularity::Group(8), false) < of(Granularity::Channel, false));
    assert!(of(Granularity::Tensor, true) < 0.6 * of(Granularity::Tensor, false));
    assert_eq!(lost(scheme(2, Granularity::Tensor, true)).2, 960 * 4 + 3 * 34);
}

#[test]
fn what_has_no_codes_is_refused() {
    let mut module = network();
    assert_eq!(quantise(&module, &scheme(5, Granularity::Tensor, false)), Err(QuantiseError::Bits(5)));
    assert_eq!(quantise(&module, &scheme(4, Granularity::Group(0), false)), Err(QuantiseError::Group));
    let mut data = vec![1f32; 960];
    data[7] = f32::NAN;
    module.parameters[1].data = Tensor::from_slice(&[24, 40], &data).ok();
    let refused = quantise(&module, &scheme(4, Granularity::Tensor, true));
    assert_eq!(refused, Err(QuantiseError::NotFinite { layer: "%y".into() }));
}

fn network_with_biases() -> Module {
    let source = "ncd 0.1 \"net\"
axis b = 4   axis m = 40   axis n = 24
param @w: f32[m, n]   param @c: f32[n]   param @v: f32[n, m]   param @d: f32[m]
fn @net(%x: f32[b, m]) -> f32[b, m] {
  %p = dot %x[b, {m}], @w[{m}, n] -> [b, n]
  %q = map $0 + $1 : %p[b, n], @c[n] -> [b, n]
  %r = map tanh : %q[b, n] -> [b, n]
  %s = dot %r[b, {n}], @v[{n}, m] -> [b, m]
  %y = map $0 + $1 : %s[b, m], @d[m] -> [b, m]
  return %y
}
";
    with_weights(text::parse(source, "net").unwrap())
}

/// The numbers that weights become are those of their codes, in whichever form: three layers add up to one.
#[test]
fn forms_compute_the_same() {
    let module = network_with_biases();
    let input = vec![random_tensor(strang_ir::ElementType::F32, &[4, 40], false, 9)];
    let result = |module: &Module| interpret(module, &input, Arithmetic::Wide).unwrap()[0].to_f64();
    for granularity in [Granularity::Tensor, Granularity::Channel, Granularity::Group(8)] {
        for bits in [2, 8] {
            let of = |splitting| Scheme { bits, affine: true, granularity, splitting };
            let (joined, reports) = quantise(&module, &of(Splitting::Joined)).unwrap();
            assert_eq!(reports.iter().map(|report| report.weights).collect::<Vec<_>>(), [960 + 24, 960 + 40]);
            let (layers, same_reports) = quantise(&module, &of(Splitting::Layers)).unwrap();
            assert_eq!(reports, same_reports);
            let products = |module: &Module| {
                module.entry().graph.node_weights().filter(|node| matches!(node.op, strang_ir::Op::Dot { .. })).count()
            };
            assert_eq!((products(&joined), products(&layers)), (2, 6));
            let (one, three, exact) = (result(&joined), result(&layers), result(&module));
            for ((one, three), exact) in one.iter().zip(&three).zip(&exact) {
                assert!((one - three).abs() < 1e-9, "{one} and {three} with {bits} bits by {granularity:?}");
                assert!(bits < 8 || (one - exact).abs() < 0.1, "{one} instead of {exact} by {granularity:?}");
            }
            for module in [&joined, &layers] {
                let again = text::parse(&text::print(module), "again").unwrap();
                assert_eq!(text::print(&again), text::print(module));
            }
        }
    }
}

/// What a circuit computes with codes is what it computes with weights rounded beforehand.
#[test]
fn codes_stand_for_rounded_weights() {
    let module = network();
    let weights =
        |module: &Module, number: usize| module.parameters[number].data.as_ref().unwrap().to_vec::<f32>().unwrap();
    let (joined, _) = quantise(&module, &scheme(2, Granularity::Tensor, true)).unwrap();
    let mut rounded = module.clone();
    for number in 0..2 {
        let values = weights(&module, number);
        let shape = rounded.parameters[number].data.as_ref().unwrap().shape().to_vec();
        let values = Split::new(&values, 2).rounded(&values);
        rounded.parameters[number].data = Tensor::from_slice(&shape, &values).ok();
    }
    let input = vec![random_tensor(strang_ir::ElementType::F32, &[4, 40], false, 9)];
    let result = |module: &Module| interpret(module, &input, Arithmetic::Typed).unwrap()[0].to_vec::<f32>().unwrap();
    assert_eq!(result(&joined), result(&rounded));
}

/// Lookups that are made when a model is compiled give what the interpreter gives.
#[test]
fn lookups_are_evaluated_right() {
    for (granularity, fast) in
        [(Granularity::Tensor, true), (Granularity::Channel, true), (Granularity::Group(8), false)]
    {
        for bits in [2, 8] {
            let (module, _) = quantise(&network(), &scheme(bits, granularity, true)).unwrap();
            let gathers = |node: &petgraph::stable_graph::NodeIndex| module.entry().graph[*node].op == Op::Gather;
            let found: Vec<_> = module.entry().order().into_iter().filter(gathers).collect();
            assert_eq!(found.len(), 2);
            for node in found {
                let operands: Vec<Tensor> = module
                    .entry()
                    .operands(node)
                    .into_iter()
                    .map(|value| match module.entry().graph[value.node].op {
                        Op::Param(number) => module.parameters[number as usize].data.clone().unwrap(),
                        _ => panic!("codes and books are parameters"),
                    })
                    .collect();
                let expected =
                    interpret_node(&module, FunctionId(0), node, &operands, &Bindings::new(), Arithmetic::Typed)
                        .unwrap();
                let evaluated = evaluate(&module.entry().graph[node], &operands, &mut Spare::default());
                assert_eq!(evaluated.is_some(), fast, "{granularity:?}");
                assert!(evaluated.is_none_or(|evaluated| evaluated.bytes() == expected[0].bytes()));
            }
        }
    }
}
