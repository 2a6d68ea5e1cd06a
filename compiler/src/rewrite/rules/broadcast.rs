//! Broadcast rules: a function commutes with reading, so what is repeated is computed once, and what is not read is not
//! computed.

use super::views::positions_of;
use crate::rewrite::{
    egraph::{
        Graph, Read,
        build::{self, nameless},
        compose::compose,
    },
    rule::{Class, Conjunct, Find, Match, Rule},
};
use egg::Id;
use strang_ir::{
    IndexExpr, IndexMap, Literal, Node, Op, ScalarExpr,
    scalar::{Binary, Unary},
};

/// A function of two reads over the variables that they mention alone, read in those of the frame.
pub fn over_own_variables(graph: &mut Graph, frame: &Node, function: Binary, a: Read, b: Read) -> Read {
    let (own, kept) = reduced(frame, &[&a, &b]);
    let place = |variable: u32| kept.iter().position(|v| *v == variable).unwrap_or_default() as u32;
    let [a, b] = [a, b].map(|read| Read { value: read.value, map: read.map.renumbered(&place) });
    let value = build::binary(graph, &own, function, a, b);
    Read { value, map: IndexMap::of_variables(kept) }
}

/// A frame of the variables that some reads mention, and those variables.
fn reduced(frame: &Node, reads: &[&Read]) -> (Node, Vec<u32>) {
    let output = &frame.outputs[0].variables;
    let mentioned = |variable: &u32| reads.iter().any(|read| read.map.mentions(*variable));
    let kept: Vec<u32> = output.iter().copied().filter(mentioned).collect();
    let variables = kept.iter().map(|v| frame.variables[*v as usize].clone()).collect();
    (nameless(Op::View, variables, frame.outputs[0].element, (0..kept.len() as u32).collect()), kept)
}

/// A function of things repeated alike. An argument may be known as something repeated only since a rule was applied to
/// it; then it is read through the repetition here.
fn hoist(m: &mut Match, names: &[&str]) -> Option<Id> {
    let s = m.node("s");
    let is_read = |variable: u32| s.maps.iter().any(|map| map.mentions(variable));
    if names.iter().all(|name| m.facts(name).view.is_none()) && (0..s.variables.len() as u32).all(is_read) {
        return None;
    }
    let mentioned = |read: &Read| (0..s.variables.len() as u32).filter(|v| read.map.mentions(*v)).count();
    let reads: Vec<Read> = (names.iter().enumerate())
        .map(|(slot, name)| {
            let read = m.read("s", slot, name);
            let inner = build::through(m.graph, &s, &read);
            inner.filter(|inner| mentioned(inner) < mentioned(&read)).unwrap_or(read)
        })
        .collect();
    let (own, kept) = reduced(&s, &reads.iter().collect::<Vec<_>>());
    if kept.len() == s.variables.len() {
        return None;
    }
    let place = |variable: u32| kept.iter().position(|v| *v == variable).unwrap_or_default() as u32;
    let node = Node { op: s.op.clone(), ..own };
    let reads = reads.into_iter().map(|read| Read { value: read.value, map: read.map.renumbered(&place) }).collect();
    let value = build::add(m.graph, &node, reads);
    Some(m.view("s", Read { value, map: IndexMap::of_variables(kept) }))
}

/// A view of a function of one value.
fn slide(m: &mut Match) -> Option<Id> {
    let (s, t) = (m.node("s"), m.node("t"));
    // Apart from profit: not where the view repeats.
    if positions_of(&s) > positions_of(&t) {
        return None;
    }
    let outer = m.read("s", 0, "x").map;
    let read = match outer.fill {
        None => m.through(&[("s", 0), ("t", 0)], "x")?,
        // What the function makes of a zero outside is a zero: the view may be taken first, with that fill.
        Some(fill) => {
            let positions = outer.clone();
            let inner = &t.maps[0];
            if inner.as_variables().is_none() || inner.fill.is_some() || inner.exprs.len() != t.variables.len() {
                return None;
            }
            let exprs = inner.exprs.iter().map(|expression| {
                let variable = expression.as_variable()?;
                let axis = t.outputs[0].variables.iter().position(|v| *v == variable)?;
                Some(positions.exprs[axis].clone())
            });
            let exprs = exprs.collect::<Option<Vec<_>>>()?;
            let element = m.facts("x").element();
            let fill = Literal::from_f64(element, fill.to_f64());
            Read { value: m.id("x"), map: IndexMap { exprs, conditions: positions.conditions, fill: Some(fill) } }
        }
    };
    let view = m.view("s", read);
    let frame = nameless(t.op.clone(), s.variables.clone(), s.outputs[0].element, s.outputs[0].variables.clone());
    let read = build::whole(&frame, view);
    Some(build::add(m.graph, &frame, vec![read]))
}

/// Whether a function makes +0 of +0.
fn keeps_zero(function: Unary) -> bool {
    use Unary::*;
    matches!(function, Relu | Gelu | GeluTanh | Silu | Tanh | Erf | HardSwish | Absolute | SquareRoot | Sin | Mish)
}

fn function_of(node: &Node) -> Option<Unary> {
    match &node.op {
        Op::Map(ScalarExpr::Unary(function, _)) => Some(*function),
        _ => None,
    }
}

pub const RULES: &[Rule] = &[
    Rule {
        name: "function-of-repeated",
        class: Class::Bit,
        law: "f(repeat x) = repeat (f x)",
        source: "naturality of broadcasting",
        find: Find::Patterns(
            &[
                "(exp ?s ?x)",
                "(sigmoid ?s ?x)",
                "(tanh ?s ?x)",
                "(gelu ?s ?x)",
                "(silu ?s ?x)",
                "(sqrt ?s ?x)",
                "(rsqrt ?s ?x)",
                "(reciprocal ?s ?x)",
                "(neg ?s ?x)",
                "(relu ?s ?x)",
                "(log ?s ?x)",
                "(cast ?s ?x)",
                "(not ?s ?x)",
            ],
            |m| hoist(m, &["x"]),
        ),
        guard: &[],
        examples: &["fn @f(%x: f32[a]) -> f32[a, b] {
  %r = map exp : %x[a] -> [a, b]
  return %r
}"],
    },
    Rule {
        name: "function-of-two-repeated",
        class: Class::Bit,
        law: "f(repeat x, repeat y) = repeat f(x, y)",
        source: "naturality of broadcasting",
        find: Find::Patterns(
            &[
                "(add ?s ?x ?y)",
                "(sub ?s ?x ?y)",
                "(mul ?s ?x ?y)",
                "(div ?s ?x ?y)",
                "(max ?s ?x ?y)",
                "(min ?s ?x ?y)",
                "(and ?s ?x ?y)",
                "(or ?s ?x ?y)",
                "(lt ?s ?x ?y)",
                "(le ?s ?x ?y)",
                "(eq ?s ?x ?y)",
            ],
            |m| hoist(m, &["x", "y"]),
        ),
        guard: &[],
        examples: &["fn @f(%x: f32[a], %y: f32[b]) -> f32[a, b, c] {
  %r = map add : %x[a], %y[b] -> [a, b, c]
  return %r
}"],
    },
    Rule {
        name: "choice-of-repeated",
        class: Class::Bit,
        law: "select(repeat p, repeat x, repeat y) = repeat select(p, x, y)",
        source: "naturality of broadcasting",
        find: Find::Patterns(&["(select ?s ?p ?x ?y)"], |m| hoist(m, &["p", "x", "y"])),
        guard: &[],
        examples: &["fn @f(%p: bool[a], %x: f32[a], %y: f32[b]) -> f32[a, b, c] {
  %r = map select($0, $1, $2) : %p[a], %x[a], %y[b] -> [a, b, c]
  return %r
}"],
    },
    Rule {
        name: "view-of-function",
        class: Class::Bit,
        law: "view(f x) = f(view x)",
        source: "naturality of views; with padding, if f keeps the fill",
        find: Find::Patterns(
            &[
                "(view ?s (exp ?t ?x))",
                "(view ?s (sigmoid ?t ?x))",
                "(view ?s (tanh ?t ?x))",
                "(view ?s (gelu ?t ?x))",
                "(view ?s (silu ?t ?x))",
                "(view ?s (relu ?t ?x))",
                "(view ?s (neg ?t ?x))",
                "(view ?s (cast ?t ?x))",
            ],
            slide,
        ),
        guard: &[Conjunct {
            text: "f of the fill is the fill, where there is one",
            holds: |m| {
                let (s, t) = (m.node("s"), m.node("t"));
                s.maps[0].fill.is_none_or(|fill| fill.bits == 0 && function_of(&t).is_some_and(keeps_zero))
            },
            counterexample: "fn @f(%x: f32[a]) -> f32[a] {
  %p = map exp : %x[a] -> [a]
  %r = view %p[a + 1] else 0 -> [a]
  return %r
}",
        }],
        examples: &[
            "fn @f(%x: f32[a, b]) -> f32[b] {
  %p = map exp : %x[a, b] -> [a, b]
  %r = view %p[0, b] -> [b]
  return %r
}",
            "fn @f(%x: f32[a]) -> f32[a] {
  %p = map relu : %x[a] -> [a]
  %r = view %p[a - 1] else 0 -> [a]
  return %r
}",
        ],
    },
    Rule {
        name: "sum-of-repeated",
        class: Class::Real,
        law: "the sum of n equal terms is n times the term",
        source: "definition of products",
        find: Find::Patterns(&["(reduce-sum ?s ?x)"], |m| {
            let (s, x) = (m.node("s"), m.read("s", 0, "x"));
            let repeated: Vec<u32> = s.contracted().into_iter().filter(|v| !x.map.mentions(*v)).collect();
            if repeated.is_empty() {
                return None;
            }
            let count: f64 = repeated
                .iter()
                .map(|v| s.size_of(*v).as_constant().map(|size| size as f64))
                .product::<Option<f64>>()?;
            let kept: Vec<u32> = (0..s.variables.len() as u32).filter(|v| !repeated.contains(v)).collect();
            let place = |variable: u32| kept.iter().position(|v| *v == variable).unwrap_or_default() as u32;
            let mut node = Node::clone(&s);
            node.variables = kept.iter().map(|v| s.variables[*v as usize].clone()).collect();
            node.outputs[0].variables = s.outputs[0].variables.iter().map(|v| place(*v)).collect();
            let x = Read { value: x.value, map: x.map.renumbered(&place) };
            if kept.len() == s.outputs[0].variables.len() {
                node.op = Op::View;
            }
            let sum = build::add(m.graph, &node, vec![x]);
            let output = node.outputs[0].variables.clone();
            let variables = output.iter().map(|v| node.variables[*v as usize].clone()).collect();
            let frame = nameless(Op::View, variables, node.outputs[0].element, (0..output.len() as u32).collect());
            let count = m.number("x", count);
            let sum = build::whole(&frame, sum);
            Some(build::binary(m.graph, &frame, Binary::Multiply, sum, count))
        }),
        guard: &[],
        examples: &["fn @f(%x: f32[a]) -> f32[a] {
  %p = view %x[a] -> [a, b]
  %r = reduce sum : %p[a, {b}] -> [a]
  return %r
}"],
    },
    Rule {
        name: "extremum-of-relu",
        class: Class::Bit,
        law: "max(relu x) = relu(max x): relu never falls",
        source: "monotone functions commute with maxima",
        find: Find::Patterns(
            &["(reduce-max ?s (relu ?t ?x))", "(reduce-max ?s (sigmoid ?t ?x))", "(reduce-max ?s (exp ?t ?x))"],
            |m| {
                let (s, t) = (m.node("s"), m.node("t"));
                let x = m.through(&[("s", 0), ("t", 0)], "x")?;
                let largest = build::add(m.graph, &s, vec![x]);
                let output = &s.outputs[0].variables;
                let variables = output.iter().map(|v| s.variables[*v as usize].clone()).collect();
                let frame = nameless(t.op.clone(), variables, s.outputs[0].element, (0..output.len() as u32).collect());
                let read = build::whole(&frame, largest);
                Some(build::add(m.graph, &frame, vec![read]))
            },
        ),
        guard: &[Conjunct {
            text: "there is something to take the maximum of, or f keeps -inf as relu does not",
            holds: |m| {
                let s = m.node("s");
                s.contracted().iter().all(|v| s.size_of(*v).lower_bound(1).is_some_and(|low| low >= 1))
            },
            counterexample: "axis e = 0
fn @f(%x: f32[a, e]) -> f32[a] {
  %p = map relu : %x[a, e] -> [a, e]
  %r = reduce max : %p[a, {e}] -> [a]
  return %r
}",
        }],
        examples: &["fn @f(%x: f32[a, b]) -> f32[a] {
  %p = map relu : %x[a, b] -> [a, b]
  %r = reduce max : %p[a, {b}] -> [a]
  return %r
}"],
    },
    Rule {
        name: "extremum-of-one",
        class: Class::Bit,
        law: "the maximum of one value is the value; so is the minimum",
        source: "definition of folds",
        find: Find::Patterns(&["(reduce-max ?s ?x)", "(reduce-min ?s ?x)"], single),
        guard: &[Conjunct {
            text: "every axis that is folded has one position",
            holds: |m| folds_nothing(m),
            counterexample: "axis e = 3
fn @f(%x: f32[a, e]) -> f32[a] {
  %r = reduce max : %x[a, {e}] -> [a]
  return %r
}",
        }],
        examples: &["axis e = 1
fn @f(%x: f32[a, e]) -> f32[a] {
  %r = reduce max : %x[a, {e}] -> [a]
  return %r
}"],
    },
    Rule {
        name: "sum-of-one",
        class: Class::Real,
        law: "the sum of one value is the value (a -0 becomes +0)",
        source: "definition of folds",
        find: Find::Patterns(&["(reduce-sum ?s ?x)"], single),
        guard: &[Conjunct {
            text: "every axis that is folded has one position",
            holds: |m| folds_nothing(m),
            counterexample: "axis e = 3
fn @f(%x: f32[a, e]) -> f32[a] {
  %r = reduce sum : %x[a, {e}] -> [a]
  return %r
}",
        }],
        examples: &["axis e = 1
fn @f(%x: f32[a, e]) -> f32[a] {
  %r = reduce sum : %x[a, {e}] -> [a]
  return %r
}"],
    },
];

fn folds_nothing(m: &Match) -> bool {
    let s = m.node("s");
    s.contracted().iter().all(|v| s.size_of(*v).is(1))
}

/// The only value that a reduction folds.
fn single(m: &mut Match) -> Option<Id> {
    let s = m.node("s");
    let kept = s.outputs[0].variables.clone();
    let first = |variable: u32| match kept.iter().position(|v| *v == variable) {
        Some(place) => IndexExpr::variable(place as u32),
        None => IndexExpr::default(),
    };
    let positions: Vec<_> = (0..s.variables.len() as u32).map(first).collect();
    let variables: Vec<_> = kept.iter().map(|v| s.variables[*v as usize].clone()).collect();
    let size = |v: u32| variables[v as usize].size().clone();
    let map = compose(&s.maps[0], &positions, &size);
    let frame = nameless(Op::View, variables.clone().into(), s.outputs[0].element, (0..kept.len() as u32).collect());
    Some(build::view(m.graph, &frame, Read { value: m.id("x"), map }))
}
