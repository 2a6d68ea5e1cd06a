//! Whole circuits, before and after rewriting.

use super::compare::difference;
use proptest::test_runner::{Config as Runner, RngAlgorithm, TestRng, TestRunner};
use std::path::Path;
use strang_compiler::rewrite::{Numerics, RewriteOptions, rewrite, rule::Class};
use strang_ir::{
    Axis, ElementType, IndexExpr, IndexMap, Module, Node, Op, Output, Size, Source, Tensor,
    circuit::distinct_variables,
    random::{Config, random_module, random_tensor},
    text,
    verify::verify,
};

fn check_random(config: Config, numerics: Numerics, class: Class) {
    let options = RewriteOptions { numerics, ..RewriteOptions::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner =
        TestRunner::new_with_rng(Runner { cases: 400, failure_persistence: None, ..Runner::default() }, rng);
    let outcome = runner.run(&random_module(config), |sample| {
        let (rewritten, _) = rewrite(&sample.module, &options).unwrap();
        verify(&rewritten).unwrap_or_else(|error| panic!("{error}\n{}", text::print(&rewritten)));
        if let Some(difference) = difference(class, &sample.module, &rewritten, &sample.inputs) {
            panic!("{difference}\n{}", text::print(&rewritten));
        }
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn random_circuits_keep_their_bits() {
    check_random(Config { special_values: true, symbolic: true, ..Config::default() }, Numerics::Exact, Class::Bit);
}

/// Real rules round elsewhere, and what follows may tell small differences apart by a jump: few steps, plain values.
#[test]
fn random_circuits_keep_their_values() {
    let config = Config { steps: 1..=3, all_elements: false, irregular: false, symbolic: true, ..Config::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner =
        TestRunner::new_with_rng(Runner { cases: 400, failure_persistence: None, ..Runner::default() }, rng);
    let outcome = runner.run(&random_module(config), |sample| {
        let (rewritten, receipt) = rewrite(&sample.module, &RewriteOptions::default()).unwrap();
        verify(&rewritten).unwrap_or_else(|error| panic!("{error}\n{}", text::print(&rewritten)));
        if let Some(difference) = close(&sample.module, &rewritten, &sample.inputs) {
            panic!("{difference}\n{receipt}\n{}\nbecame\n{}", text::print(&sample.module), text::print(&rewritten));
        }
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

/// Has every output of a circuit that is an array give its second position alone.
fn read_in_part(module: &mut Module) {
    let function = &mut module.functions[0];
    for place in 0..function.outputs.len() {
        let value = function.outputs[place];
        let node = &function.graph[value.node];
        let axes: Vec<Axis> = node.axes(value.port).into_iter().cloned().collect();
        let Some(axis) = axes.iter().position(|axis| axis.size.as_constant().is_some_and(|size| size > 1)) else {
            continue;
        };
        let output = &node.outputs[value.port as usize];
        let rest: Vec<Axis> =
            axes.iter().enumerate().filter(|(place, _)| *place != axis).map(|(_, a)| a.clone()).collect();
        let mut exprs: Vec<IndexExpr> = (0..rest.len() as u32).map(IndexExpr::variable).collect();
        exprs.insert(axis, IndexExpr::constant(1));
        let outputs = vec![Output {
            name: format!("{}_part", output.name).into(),
            element: output.element,
            variables: (0..rest.len() as u32).collect(),
        }];
        let variables = distinct_variables(&rest);
        let maps = vec![IndexMap::new(exprs)];
        let view = Node {
            op: Op::View,
            variables: variables.into(),
            maps: maps.into(),
            outputs,
            source: Source::None,
            block: None,
        };
        function.outputs[place] = function.add(view, &[value]).into();
    }
}

#[test]
fn what_is_left_unread_changes_no_bits() {
    let config = Config { special_values: true, symbolic: true, ..Config::default() };
    let options = RewriteOptions { numerics: Numerics::Exact, ..RewriteOptions::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner =
        TestRunner::new_with_rng(Runner { cases: 400, failure_persistence: None, ..Runner::default() }, rng);
    let shorter = std::cell::Cell::new(0);
    let outcome = runner.run(&random_module(config), |sample| {
        let mut module = sample.module.clone();
        read_in_part(&mut module);
        let (rewritten, receipt) = rewrite(&module, &options).unwrap();
        verify(&rewritten).unwrap_or_else(|error| panic!("{error}\n{}", text::print(&rewritten)));
        if let Some(difference) = difference(Class::Bit, &module, &rewritten, &sample.inputs) {
            panic!("{difference}\n{}\nbecame\n{}", text::print(&module), text::print(&rewritten));
        }
        let is_applied = receipt.applied.iter().any(|applied| *applied.rule == *"unread-positions");
        shorter.set(shorter.get() + usize::from(is_applied));
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    assert!(shorter.get() > 100, "only {} circuits were made shorter", shorter.get());
}

/// A recurrent layer that is given its weights, one of them through a view, between inputs that stay.
const GIVEN: &str = "ncd 0.1
axis t = 5
axis n = 4
axis m = 4
axis p = 4
axis q = 4
axis s = 4
axis i = 3
param @r: f32[m, p]
param @b: f32[q]
fn @f(%h0: f32[n], %x: f32[t, i], %scale: f32[s], %w: f32[i, n]) -> (f32[n], f32[t, n]) {
  %turned = view @r[m, p] -> [p, m]
  %h, %y = scan @step along t states=1 : %h0[n], %turned[{p}, {m}], %x[t, {i}], @b[{q}], %scale[{s}], %w[{i'}, {n'}] -> [n], [t, n]
  return %h, %y
}
fn @step(%h: f32[n], %r: f32[p, m], %x: f32[i], %b: f32[q], %scale: f32[s], %w: f32[i, n]) -> (f32[n], f32[n]) {
  %from_input = dot %x[{i}], %w[{i}, n] -> [n]
  %from_hidden = dot %h[{p}], %r[{p}, n] -> [n]
  %next = map tanh(($0 + $1 + $2) * $3) : %from_input[n], %from_hidden[n], %b[n], %scale[n] -> [n]
  return %next, %next
}
";

#[test]
fn weights_that_a_scan_is_given_become_its_own() {
    let mut module = text::parse(GIVEN, "given").unwrap_or_else(|error| panic!("{}", error.render()));
    for (parameter, seed) in module.parameters.iter_mut().zip(1..) {
        let shape: Vec<usize> = parameter.axes.iter().map(|axis| axis.size.as_constant().unwrap() as usize).collect();
        parameter.data = Some(random_tensor(ElementType::F32, &shape, false, seed));
    }
    verify(&module).unwrap();
    let shapes: [&[usize]; 4] = [&[4], &[5, 3], &[4], &[3, 4]];
    let inputs: Vec<Tensor> =
        shapes.iter().zip(7..).map(|(shape, seed)| random_tensor(ElementType::F32, shape, false, seed)).collect();
    let options = RewriteOptions { numerics: Numerics::Exact, ..RewriteOptions::default() };
    let (rewritten, receipt) = rewrite(&module, &options).unwrap();
    verify(&rewritten).unwrap_or_else(|error| panic!("{error}\n{}", text::print(&rewritten)));
    assert_eq!(difference(Class::Bit, &module, &rewritten, &inputs), None);
    assert_eq!(receipt.applied.iter().filter(|applied| *applied.rule == *"weight-into-scan").count(), 2);
    let body = rewritten.functions.iter().find(|function| *function.name == *"step").unwrap();
    let names: Vec<&str> = body.inputs.iter().map(|input| &*body.graph[*input].outputs[0].name).collect();
    assert!(!names.contains(&"r") && !names.contains(&"b") && names.contains(&"scale"), "{names:?}");
}

fn example(name: &str) -> Module {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/circuits").join(name);
    let source = std::fs::read_to_string(path).unwrap();
    let mut module = text::parse(&source, name).unwrap_or_else(|error| panic!("{}", error.render()));
    for (number, parameter) in module.parameters.iter_mut().enumerate() {
        let shape: Vec<usize> = parameter.axes.iter().map(|axis| axis.size.as_constant().unwrap() as usize).collect();
        let mut data = random_tensor(parameter.element, &shape, false, number as u64);
        for (position, value) in data.to_f64().into_iter().enumerate() {
            let value = if parameter.name.contains("variance") { value.abs() + 0.1 } else { value / 8. };
            data.set_bits(position, strang_ir::Literal::from_f64(parameter.element, value).bits);
        }
        parameter.data = Some(data);
    }
    module
}

const EXAMPLES: [&str; 7] =
    ["attention.ncd", "lstm.ncd", "macaron.ncd", "mlp.ncd", "residual.ncd", "unet.ncd", "vit.ncd"];

#[test]
fn examples_keep_their_values() {
    for name in EXAMPLES {
        let module = example(name);
        let (rewritten, receipt) = rewrite(&module, &RewriteOptions::default()).unwrap();
        println!("{name}\n{receipt}");
        verify(&rewritten).unwrap_or_else(|error| panic!("{error}\n{}", text::print(&rewritten)));
        let function = module.entry();
        let shape = |sizes: Vec<Size>| -> Vec<usize> {
            sizes.iter().map(|size| size.as_constant().unwrap_or(3) as usize).collect()
        };
        let inputs: Vec<_> = function
            .inputs
            .iter()
            .enumerate()
            .map(|(number, node)| {
                let value = (*node).into();
                random_tensor(function.element_of(value), &shape(function.shape_of(value)), false, number as u64)
            })
            .collect();
        assert_eq!(close(&module, &rewritten, &inputs), None, "{name}");
    }
}

/// Equal to what rounding of weights to f32 allows.
fn close(left: &Module, right: &Module, inputs: &[strang_ir::Tensor]) -> Option<String> {
    use strang_ir::interpret::{Arithmetic, interpret};
    let run = |module| interpret(module, inputs, Arithmetic::Wide).unwrap();
    for (left, right) in run(left).iter().zip(run(right)) {
        let largest = left
            .to_f64()
            .iter()
            .filter(|value| value.is_finite())
            .fold(0f64, |largest, value| largest.max(value.abs()));
        for (a, b) in left.to_f64().into_iter().zip(right.to_f64()) {
            if a.is_finite() && (b.is_nan() || (a - b).abs() > 1e-5 * largest) {
                return Some(format!("{a} against {b}"));
            }
        }
    }
    None
}
