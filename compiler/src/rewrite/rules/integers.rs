//! Products of small integers, on the matrix kernels of floats: a float holds every integer of up to 24 bits, so sums that
//! stay below are exact.

use super::parts::{in_output_frame, output_frame};
use crate::rewrite::{
    egraph::{
        Read,
        build::{self, nameless},
        compose::compose,
    },
    rule::{Class, Conjunct, Find, Match, Rule},
};
use egg::Id;
use strang_ir::{Axis, ElementType, IndexExpr, IndexMap, Node, Op, ScalarExpr, Size, Variable, op::Monoid};

/// The largest integer up to which floats hold all.
const EXACT: f64 = 16_777_216.;
/// Terms of a part of a sum, at most; divisors of what is usual.
const TERMS: [i64; 6] = [512, 256, 64, 16, 4, 2];

/// The largest magnitude of a product of two elements.
fn largest(m: &Match) -> f64 {
    let magnitude = |name: &str| {
        let range = m.facts(name).range;
        range.low.abs().max(range.high.abs())
    };
    (magnitude("a") * magnitude("b")).max(1.)
}

/// How many terms a sum has.
fn terms(d: &Node) -> Option<i64> {
    let mut sizes = d.contracted().into_iter().map(|v| d.size_of(v).as_constant());
    sizes.try_fold(1i64, |product, size| product.checked_mul(size?))
}

/// How many terms are summed in floats: the largest proper divisor that is not too large. `None` where all of them may be,
/// or where what is summed is a part already.
fn part(m: &Match) -> Option<i64> {
    let d = m.node("d");
    let ([long], Some(count)) = (&d.contracted()[..], terms(&d)) else { return None };
    let is_alone = |map: &IndexMap| map.exprs.iter().all(|e| !e.mentions(*long) || e.as_variable() == Some(*long));
    if fits(m, Some(count)) || !d.maps.iter().all(is_alone) {
        return None;
    }
    let most = TERMS.into_iter().find(|terms| *terms as f64 * largest(m) <= EXACT).unwrap_or(TERMS[5]);
    (2..=most.min(count - 1)).rev().find(|terms| count % terms == 0)
}

/// Whether so many terms, if it is known how many, add up to what floats hold.
fn fits(m: &Match, terms: Option<i64>) -> bool {
    terms.is_some_and(|terms| terms as f64 * largest(m) <= EXACT)
}

/// A value as floats, over its own axes.
fn as_floats(m: &mut Match, name: &str) -> Id {
    let variable = |size: &Size| Variable::over(&Axis::new("", size.clone()));
    let variables: Vec<Variable> = m.facts(name).shape().iter().map(variable).collect();
    let output = (0..variables.len() as u32).collect();
    let frame = nameless(Op::View, variables.into(), ElementType::F32, output);
    let value = build::whole(&frame, m.id(name));
    let function = ScalarExpr::cast(ElementType::F32, ScalarExpr::Operand(0));
    build::map(m.graph, &frame, function, ElementType::F32, vec![value])
}

/// Whether a product is of integers in an i32, each read where it is.
fn is_integer_product(m: &Match) -> bool {
    let d = m.node("d");
    let is_product = matches!(d.op, Op::Dot { accumulator: ElementType::I32 });
    is_product
        && d.outputs[0].element == ElementType::I32
        && ["a", "b"].iter().all(|name| m.facts(name).element().is_integer())
        && d.maps.iter().all(|map| map.fill.is_none())
}

fn to_integers(m: &mut Match, frame: &Node, product: Id) -> Id {
    let function = ScalarExpr::cast(ElementType::I32, ScalarExpr::Operand(0));
    let read = build::whole(frame, product);
    build::map(m.graph, frame, function, ElementType::I32, vec![read])
}

fn in_floats(node: &Node) -> Node {
    let mut node = Node { op: Op::Dot { accumulator: ElementType::F32 }, ..node.clone() };
    node.outputs[0].element = ElementType::F32;
    node
}

pub const RULES: &[Rule] = &[
    Rule {
        name: "convert-once",
        class: Class::Bit,
        law: "x in one type, then in another = x in the other, where the first holds every x",
        source: "conversions of integers to wider types are exact",
        find: Find::Patterns(&["(cast ?s (cast ?t ?x))"], |m| {
            let element = m.node("s").outputs[0].element;
            let read = m.through(&[("s", 0), ("t", 0)], "x")?;
            let frame = output_frame(&m.node("s"));
            let read = Read { map: in_output_frame(&m.node("s"), &read)?.map, ..read };
            Some(build::map(m.graph, &frame, ScalarExpr::cast(element, ScalarExpr::Operand(0)), element, vec![read]))
        }),
        guard: &[Conjunct {
            text: "the first type is of integers and holds every integer of the type of x",
            holds: |m| {
                let of = |element: ElementType| element.integer_range();
                let first = m.node("t").outputs[0].element;
                let (from, through) = (of(m.facts("x").element()), of(first));
                first.is_integer() && from.zip(through).is_some_and(|(x, t)| x.0 >= t.0 && x.1 <= t.1)
            },
            counterexample: "fn @f(%x: f32[a, b]) -> f32[a, b] {
  %s = map cast(i32, $0) : %x[a, b] -> [a, b]
  %r = map cast(f32, $0) : %s[a, b] -> [a, b]
  return %r
}",
        }],
        examples: &["fn @f(%x: i8[a, b]) -> f32[b, a] {
  %s = map cast(i32, $0) : %x[a, b] -> [a, b]
  %r = map cast(f32, $0) : %s[a, b] -> [b, a]
  return %r
}"],
    },
    Rule {
        name: "integer-product-in-floats",
        class: Class::Bit,
        law: "a product of integers = that of floats, where no sum exceeds 2^24",
        source: "floats hold integers of 24 bits",
        find: Find::Patterns(&["(dot ?d ?a ?b)"], |m| {
            if !is_integer_product(m) {
                return None;
            }
            let d = m.node("d");
            let reads = ["a", "b"].map(|name| as_floats(m, name));
            let reads = d.maps.iter().zip(reads).map(|(map, value)| Read { value, map: map.clone() }).collect();
            let product = build::add(m.graph, &in_floats(&d), reads);
            Some(to_integers(m, &output_frame(&d), product))
        }),
        guard: &[Conjunct {
            text: "as many terms as there are, each of the largest elements, add up to 2^24 at most",
            holds: |m| !is_integer_product(m) || fits(m, terms(&m.node("d"))),
            counterexample: "axis k = 8
fn @f(%x: i32[a, k], %y: i32[k, c]) -> i32[a, c] {
  %s = map $0 * 4099 + 1 : %x[a, k] -> [a, k]
  %t = map $0 * 4099 + 3 : %y[k, c] -> [k, c]
  %r = dot %s[a, {k}], %t[{k}, c] -> [a, c]
  return %r
}",
        }],
        examples: &[
            "axis k = 8
fn @f(%x: i8[a, k], %y: i8[k, c]) -> i32[a, c] {
  %r = dot %x[a, {k}], %y[{k}, c] -> [a, c]
  return %r
}",
            "axis k = 8
fn @f(%x: u8[a, k], %z: u8[], %w: i8[k, c]) -> i32[a, c] {
  %s = map cast(i32, $0) - cast(i32, $1) : %x[a, k], %z[] -> [a, k]
  %v = map cast(i32) : %w[k, c] -> [k, c]
  %r = dot %s[a, {k}], %v[{k}, c] -> [a, c]
  return %r
}",
        ],
    },
    Rule {
        name: "integer-product-by-parts",
        class: Class::Bit,
        law: "a long product of integers = the sum of products of floats over parts, where none exceeds 2^24",
        source: "floats hold integers of 24 bits; splitting along a contracted axis",
        find: Find::Patterns(&["(dot ?d ?a ?b)"], |m| {
            let d = m.node("d");
            if !is_integer_product(m) {
                return None;
            }
            let (count, part) = (terms(&d)?, part(m)?);
            let (&[long], number) = (&d.contracted()[..], d.variables.len() as u32) else { return None };
            let mut node = in_floats(&d);
            let axis = |size: i64| Axis::new("", Size::from(size));
            node.variables[long as usize].axis = axis(part);
            node.variables.push(Variable::over(&axis(count / part)));
            node.outputs[0].variables.insert(0, number);
            let position = |v: u32| {
                let own = IndexExpr::variable(v);
                if v == long { IndexExpr::variable(number).times(&Size::from(part)).plus(&own) } else { own }
            };
            let positions: Vec<IndexExpr> = (0..number).map(position).collect();
            let values = ["a", "b"].map(|name| as_floats(m, name));
            let size = |v: u32| node.size_of(v);
            let maps: Vec<_> = d.maps.iter().map(|map| compose(map, &positions, &size)).collect();
            let reads = maps.into_iter().zip(values).map(|(map, value)| Read { value, map }).collect();
            let product = build::add(m.graph, &node, reads);
            let frame = output_frame(&node);
            let parts = to_integers(m, &frame, product);
            let kept = (1..frame.variables.len() as u32).collect();
            let sum = nameless(Op::Reduce(Monoid::Sum), frame.variables.clone(), ElementType::I32, kept);
            let parts = build::whole(&frame, parts);
            Some(build::add(m.graph, &sum, vec![parts]))
        }),
        guard: &[Conjunct {
            text: "as many terms as a part has, each of the largest elements, add up to 2^24 at most",
            holds: |m| !is_integer_product(m) || part(m).is_none_or(|part| fits(m, Some(part))),
            counterexample: "axis k = 16
fn @f(%x: i32[a, k], %y: i32[k, c]) -> i32[a, c] {
  %s = map $0 * 4099 + 1 : %x[a, k] -> [a, k]
  %t = map $0 * 4099 + 3 : %y[k, c] -> [k, c]
  %r = dot %s[a, {k}], %t[{k}, c] -> [a, c]
  return %r
}",
        }],
        examples: &["axis k = 12
fn @f(%x: i16[a, k], %y: u8[c, k]) -> i32[a, c] {
  %s = map cast(i32) : %x[a, k] -> [a, k]
  %t = map cast(i32) : %y[c, k] -> [c, k]
  %r = dot %s[a, {k}], %t[c, {k}] -> [a, c]
  return %r
}"],
    },
];
