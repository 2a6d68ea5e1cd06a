//! Weights made of weights: what is computed when compiling against the interpreter, bit by bit.

use super::compare::difference;
use petgraph::stable_graph::NodeIndex;
use strang_compiler::rewrite::{
    Receipt,
    evaluate::evaluate,
    fold::{self, fold_constants},
    rule::Class,
};
use strang_ir::{Module, Op, SharedNode, Tensor, random::random_tensor, text};
use strang_runtime::tensor::Spare;

const CIRCUITS: &[&str] = &[
    "param @w: f32[b, c] param @s: f32[c] param @t: f32[]
fn @f(%x: f32[c, b]) -> f32[c, b] {
  %v = map $0 * $1 - $2 / ($1 + 3.0) : @w[b, c], @s[c], @t[] -> [b, c]
  %u = map rsqrt(neg($0)) + sqrt($0) * 0.5 : %v[b, c] -> [b, c]
  %r = map add : %x[c, b], %u[b, c] -> [c, b]
  return %r
}",
    "param @v: f32[b, c] param @w: f32[c, d]
fn @f(%x: f32[d, b]) -> f32[d, b] {
  %p = dot @v[b, {c}], @w[{c}, d] -> [d, b]
  %r = map add : %x[d, b], %p[d, b] -> [d, b]
  return %r
}",
    "param @w: i8[b, c, a] param @z: i8[b] param @s: f32[b]
fn @f(%x: f32[b, c, a]) -> f32[b, c, a] {
  %p = map (cast(f32, $0) - cast(f32, $1)) * $2 : @w[b, c, a], @z[b], @s[b] -> [b, c, a]
  %r = map add : %x[b, c, a], %p[b, c, a] -> [b, c, a]
  return %r
}",
    "axis e = 1   param @w: u8[b, c, e] param @s: f32[c]
fn @f(%x: f32[b, c, e]) -> f32[b, c, e] {
  %p = map cast(f32, $0) * $1 : @w[b, c, e], @s[c] -> [b, c, e]
  %r = map add : %x[b, c, e], %p[b, c, e] -> [b, c, e]
  return %r
}",
    "axis e = b + d   param @v: f32[a, b, c] param @w: f32[a, d, c]
fn @f(%x: f32[a, e, c]) -> f32[a, e, c] {
  %p = concat along e : @v[a, e, c], @w[a, e - |b|, c] -> [a, e, c]
  %r = map add : %x[a, e, c], %p[a, e, c] -> [a, e, c]
  return %r
}",
    "axis e = b + d   param @v: f32[b, a] param @w: f32[a, d]
fn @f(%x: f32[a, e]) -> f32[a, e] {
  %p = concat along e : @v[e, a], @w[a, e - |b|] -> [a, e]
  %q = map mul : %p[a, e], %p[0, e] -> [a, e]
  %r = map add : %x[a, e], %q[a, e] -> [a, e]
  return %r
}",
    "axis e = 3   param @v: f32[b, a] param @w: f32[a, c, b]
fn @f(%x: f32[e, b, a]) -> f32[e, b, a] {
  %p = map $0 * 2.0 : @v[b, a] -> [b, a]
  %q = map neg : @v[b, a] -> [b, a]
  %s = concat along e at (0, 1, 2, 3) : %p[b, a], @w[a, 0, b], %q[b, a] -> [e, b, a]
  %r = map add : %x[e, b, a], %s[e, b, a] -> [e, b, a]
  return %r
}",
    "param @w: i8[b, c, a]
fn @f(%x: f32[b, a]) -> f32[b, a] {
  %v = map cast(i32) : @w[b, c, a] -> [c, b, a]
  %t = view %v[c, b, a] -> [a, c, b]
  %s = reduce sum : %t[a, {c}, b] -> [b, a]
  %r = map $0 + cast(f32, $1) : %x[b, a], %s[b, a] -> [b, a]
  return %r
}",
    "axis e = 2 * b   param @w: f32[a, e]
fn @f(%x: f32[a, b]) -> f32[a, b] {
  %p = map $0 * $1 : @w[a, 2*b + 1], @w[a, b] -> [a, b]
  %r = map add : %x[a, b], %p[a, b] -> [a, b]
  return %r
}",
];

fn module(circuit: &str, sizes: [usize; 4], seed: u64) -> Module {
    let [a, b, c, d] = sizes;
    let source = format!("ncd 0.1 \"weights\"\naxis a = {a}   axis b = {b}   axis c = {c}   axis d = {d}\n{circuit}\n");
    let mut module = text::parse(&source, "weights").unwrap_or_else(|error| panic!("{}", error.render()));
    for (number, parameter) in module.parameters.iter_mut().enumerate() {
        let shape: Vec<usize> = parameter.axes.iter().map(|axis| axis.size.as_constant().unwrap() as usize).collect();
        parameter.data =
            Some(random_tensor(parameter.element, &shape, seed.is_multiple_of(2), seed * 8 + number as u64));
    }
    module
}

#[test]
fn weights_are_what_the_interpreter_says() {
    for circuit in CIRCUITS {
        for seed in 0..64 {
            let sizes = [1 + seed % 5, 1 + seed / 5 % 7, 1 + seed / 3 % 6, 1 + seed % 4].map(|size| size as usize);
            let module = module(circuit, sizes, seed);
            let mut folded = module.clone();
            fold_constants(&mut folded, fold::WIDE, usize::MAX, &mut Receipt::default()).unwrap();
            let computes =
                |node: &strang_ir::Node| !matches!(node.op, Op::Input(_) | Op::Param(_) | Op::Const(_) | Op::View);
            assert_eq!(folded.entry().graph.node_weights().filter(|node| computes(node)).count(), 1, "{circuit}");
            let function = module.entry();
            let shape: Vec<usize> = function
                .shape_of(function.inputs[0].into())
                .iter()
                .map(|size| size.as_constant().unwrap() as usize)
                .collect();
            let input = random_tensor(strang_ir::ElementType::F32, &shape, false, seed);
            assert_eq!(difference(Class::Bit, &module, &folded, &[input]), None, "{circuit}");
        }
    }
}

/// A table of biases looked up by positions of 64 bits.
#[test]
fn tables_are_what_the_interpreter_says() {
    let circuit = "axis e = 4   param @w: f32[b, e, a]   param @at: i64[c, d]
fn @f(%x: f32[b, c, d, a]) -> f32[b, c, d, a] {
  %p = gather @w[b, $1, a], @at[c, d] -> [b, c, d, a]
  %r = map add : %x[b, c, d, a], %p[b, c, d, a] -> [b, c, d, a]
  return %r
}";
    let mut module = module(circuit, [5, 3, 6, 7], 2);
    let places: Vec<i64> = (0..42).map(|place| place * 5 % 4).collect();
    module.parameters[1].data = Some(Tensor::from_slice(&[6, 7], &places).unwrap());
    let is_gather = |node: &&SharedNode| matches!(node.op, Op::Gather);
    let weights: Vec<_> = module.parameters.iter().map(|parameter| parameter.data.clone().unwrap()).collect();
    let gather = module.entry().graph.node_weights().find(is_gather).expect("a gather");
    assert!(evaluate(gather, &weights, &mut Spare::default()).is_some());
    let mut folded = module.clone();
    fold_constants(&mut folded, fold::WIDE, usize::MAX, &mut Receipt::default()).unwrap();
    let input = random_tensor(strang_ir::ElementType::F32, &[3, 6, 7, 5], false, 5);
    assert_eq!(difference(Class::Bit, &module, &folded, &[input]), None);
}

/// Enough weights that they are made in blocks: parts of parts, and a vector that every block reads whole.
#[test]
fn blocks_are_what_the_interpreter_says() {
    let circuit = "axis e = 2   axis f = 3   axis n = 150   axis m = 301   param @w: f32[n, m, f] param @s: f32[m]
fn @f(%x: f32[f, e, n, m]) -> f32[f, e, n, m] {
  %p = map $0 * $1 : @w[n, m, 0], @s[m] -> [n, m]
  %q = map $0 + $1 : @w[n, m, 1], @w[n, m, 2] -> [n, m]
  %j = concat along e at (0, 1, 2) : %p[n, m], %q[n, m] -> [e, n, m]
  %g = map $0 * 0.5 : %j[e, n, m] -> [e, n, m]
  %h = map $0 + $1 : %g[e, n, m], %j[e, n, m] -> [e, n, m]
  %k = concat along f at (0, 1, 2, 3) : %g[e, n, m], %h[e, n, m], %j[e, n, m] -> [f, e, n, m]
  %r = map add : %x[f, e, n, m], %k[f, e, n, m] -> [f, e, n, m]
  return %r
}";
    let module = module(circuit, [1; 4], 3);
    let mut folded = module.clone();
    let mut receipt = Receipt::default();
    fold_constants(&mut folded, fold::WIDE, usize::MAX, &mut receipt).unwrap();
    assert_eq!(receipt.spent, 6, "every node counts");
    assert_eq!(folded.parameters.len(), module.parameters.len() + 1, "what lies between is not kept");
    let input = random_tensor(strang_ir::ElementType::F32, &[3, 2, 150, 301], false, 5);
    assert_eq!(difference(Class::Bit, &module, &folded, &[input]), None);
    // Without fuel for all of them they are computed one after the other.
    let mut partly = module.clone();
    fold_constants(&mut partly, fold::WIDE, 3, &mut Receipt::default()).unwrap();
    let input = random_tensor(strang_ir::ElementType::F32, &[3, 2, 150, 301], false, 6);
    assert_eq!(difference(Class::Bit, &module, &partly, &[input]), None);
}

/// Sums of bytes, which are not widened before, along either axis and through views; what is not computed in blocks reads them.
#[test]
fn sums_in_blocks_are_what_the_interpreter_says() {
    // A square weight fits either way round.
    for (element, n, m) in [("i8", 301, 403), ("u8", 301, 403), ("i8", 352, 352)] {
        let circuit = format!(
            "axis n = {n}   axis m = {m}   param @w: {element}[n, m]   param @z: i32[n]
fn @f(%x: f32[n, m]) -> f32[n, m] {{
  %v = map cast(i32) : @w[n, m] -> [n, m]
  %rows = reduce sum : %v[n, {{m}}] -> [n]
  %z = map $0 * $1 : %rows[n], @z[n] -> [n]
  %t = map cast(i32) : @w[n, m] -> [n, m]
  %u = view %t[n, m] -> [m, n]
  %columns = reduce sum : %u[m, {{n}}] -> [m]
  %s = map cast(i32) : @w[n, m] -> [n, m]
  %p = view %s[n, m] -> [m, n]
  %q = view %p[m, {n} - 1 - n] -> [n, m]
  %turned = reduce sum : %q[{{n}}, m] -> [m]
  %a = view @w[n, m] -> [m, n]
  %b = map cast(i32) : %a[m, n] -> [m, n]
  %wide = reduce sum : %b[m, {{n}}] -> [m]
  %r = map $0 + cast(f32, $1 + $2 - 3 * $3 + 5 * $4) : %x[n, m], %z[n], %columns[m], %turned[m], %wide[m] -> [n, m]
  return %r
}}"
        );
        let module = module(&circuit, [1; 4], 3);
        let mut folded = module.clone();
        fold_constants(&mut folded, fold::WIDE, usize::MAX, &mut Receipt::default()).unwrap();
        assert_eq!(folded.parameters.len(), module.parameters.len() + 4, "what lies between is not kept");
        let input = random_tensor(strang_ir::ElementType::F32, &[n, m], false, 5);
        assert_eq!(difference(Class::Bit, &module, &folded, &[input]), None);
    }
}

/// Integers that something else than a sum reads stay as wide as they are.
#[test]
fn maxima_of_bytes_are_what_the_interpreter_says() {
    let circuit = "axis n = 301   axis m = 403   param @w: i8[n, m]
fn @f(%x: f32[n, m]) -> f32[n, m] {
  %v = map cast(i32) : @w[n, m] -> [n, m]
  %most = reduce max : %v[n, {m}] -> [n]
  %r = map $0 + cast(f32, $1) : %x[n, m], %most[n] -> [n, m]
  return %r
}";
    let module = module(circuit, [1; 4], 3);
    let mut folded = module.clone();
    fold_constants(&mut folded, fold::WIDE, usize::MAX, &mut Receipt::default()).unwrap();
    assert_eq!(folded.parameters.len(), module.parameters.len() + 1);
    let input = random_tensor(strang_ir::ElementType::F32, &[301, 403], false, 5);
    assert_eq!(difference(Class::Bit, &module, &folded, &[input]), None);
}

/// Weights that are read outside, or where a condition fails, in rows and in short axes: computed fast, and as the interpreter
/// says.
#[test]
fn weights_with_a_border_are_what_the_interpreter_says() {
    let operands = [
        "@w[b, c, a + 2 * d - 3] else 0.5",
        "@w[b, c - 2, 0] where 0 <= d < 2 else 0",
        "@w[b, 1 - c, a] where -1 <= b - c < 1 else 0",
        "@w[0, c, 2 - 2 * d] where 1 <= a < 3 else 2",
        "@w[d - 1, 3 - c, 1 - b] else 1",
    ];
    for operand in operands {
        for seed in 0..96 {
            let circuit = format!(
                "param @w: f32[b, c, a]   param @v: f32[d, c]
fn @f(%x: f32[b, c, a, d]) -> f32[b, c, a, d] {{
  %p = map $0 * ($1 + 2.0) : {operand}, @v[d, c] -> [b, c, a, d]
  %r = map add : %x[b, c, a, d], %p[b, c, a, d] -> [b, c, a, d]
  return %r
}}"
            );
            let sizes = [1 + seed % 4, 1 + seed / 4 % 5, 1 + seed / 3 % 37, 1 + seed % 6].map(|size| size as usize);
            let module = module(&circuit, sizes, seed);
            let function = module.entry();
            let is_weights = |node: &NodeIndex| {
                matches!(function.graph[*node].op, Op::Map(_))
                    && function
                        .operands(*node)
                        .iter()
                        .all(|value| matches!(function.graph[value.node].op, Op::Param(_)))
            };
            let node = function.order().into_iter().find(is_weights).expect("a map of weights");
            let weights: Vec<_> = module.parameters.iter().map(|parameter| parameter.data.clone().unwrap()).collect();
            assert!(evaluate(&function.graph[node], &weights, &mut Spare::default()).is_some(), "{circuit}");
            let mut folded = module.clone();
            fold_constants(&mut folded, fold::WIDE, usize::MAX, &mut Receipt::default()).unwrap();
            let input = random_tensor(strang_ir::ElementType::F32, &[sizes[1], sizes[2], sizes[0], sizes[3]], false, 1);
            assert_eq!(difference(Class::Bit, &module, &folded, &[input]), None, "{circuit}");
        }
    }
}
