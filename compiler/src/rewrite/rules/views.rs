//! Views: composed, absorbed into what reads them, taken before what they are views of. Most of it is done by the constructor
//! of terms, wherever terms are built.

use crate::plan::trace::variable_positions;
use crate::rewrite::{
    egraph::{
        Read,
        build::{self, nameless},
        compose::{compose, through_view},
    },
    rule::{Class, Find, Match, Rule},
    search::cost::estimate,
};
use egg::Id;
use strang_ir::{IndexExpr, Node, Op, Size};

/// The number of positions of a node's output, with a size for every symbol.
pub fn positions_of(node: &Node) -> f64 {
    node.shape(0).iter().map(estimate).product()
}

/// A product with a view of an operand, as one that reads the operand itself.
fn padding(m: &mut Match) -> Option<Id> {
    let (d, v) = (m.node("d"), m.node("v"));
    // Other views are absorbed by the constructor.
    v.maps[0].fill?;
    let (own, other) = if m.pattern == 0 { (0, 1) } else { (1, 0) };
    let shape: Vec<Size> = m.facts("x").shape().to_vec();
    let map = through_view(&d.maps[own], &v, &shape, &|variable| d.size_of(variable))?;
    let x = Read { value: m.id("x"), map };
    let w = m.read("d", other, "w");
    Some(build::add(m.graph, &d, if own == 0 { vec![x, w] } else { vec![w, x] }))
}

/// A slice of values side by side that lies in one of them.
fn slice_of_joined(m: &mut Match) -> Option<Id> {
    let (s, c) = (m.node("s"), m.node("c"));
    let Op::Concat { along, offsets } = &c.op else { return None };
    let map = &s.maps[0];
    if map.fill.is_some() {
        return None;
    }
    let axis = c.outputs[0].variables.iter().position(|v| v == along)?;
    let (low, high) = map.exprs[axis].bounds(&|v| s.size_of(v))?;
    let part = (0..offsets.len() - 1)
        .find(|part| low.is_at_least(&offsets[*part], 1) && offsets[part + 1].is_at_least(&(&high + &Size::ONE), 1))?;
    let positions = variable_positions(&c, 0, &map.exprs);
    let map = compose(&c.maps[part], &positions, &|v| s.size_of(v));
    let name = ["x", "y", "z"][part];
    let read = Read { value: m.id(name), map };
    Some(m.view("s", read))
}

/// A view of a product's result, as a product of fewer positions.
fn slice_of_product(m: &mut Match) -> Option<Id> {
    let (s, d) = (m.node("s"), m.node("d"));
    if s.maps[0].fill.is_some() || positions_of(&s) >= positions_of(&d) {
        return None;
    }
    let mut positions = variable_positions(&d, 0, &s.maps[0].exprs);
    let mut variables = s.variables.clone();
    for variable in d.contracted() {
        positions[variable as usize] = IndexExpr::variable(variables.len() as u32);
        variables.push(d.variables[variable as usize].clone());
    }
    let sizes: Vec<Size> = variables.iter().map(|v| v.size().clone()).collect();
    let size = |v: u32| sizes[v as usize].clone();
    let maps = d.maps.iter().map(|map| compose(map, &positions, &size));
    let reads = maps.zip(["x", "w"]).map(|(map, name)| Read { value: m.id(name), map }).collect();
    let node = nameless(d.op.clone(), variables, s.outputs[0].element, s.outputs[0].variables.clone());
    Some(build::add(m.graph, &node, reads))
}

pub const RULES: &[Rule] = &[
    Rule {
        name: "view-of-view",
        class: Class::Bit,
        law: "view_s(view_r x) = view_{r.s} x, if both read one fill outside",
        source: "composition of index maps",
        find: Find::Built,
        guard: &[],
        examples: &[
            "fn @f(%x: f32[a, b]) -> f32[b] {
  %p = view %x[a, b] -> [b, a]
  %r = view %p[b, 0] -> [b]
  return %r
}",
            "fn @f(%x: f32[a]) -> f32[a] {
  %p = view %x[a - 1] else 0 -> [a]
  %r = view %p[a + 2] else 0 -> [a]
  return %r
}",
        ],
    },
    Rule {
        name: "absorb-view",
        class: Class::Bit,
        law: "f(view x) = f that reads x through the view",
        source: "operations read through index maps",
        find: Find::Built,
        guard: &[],
        examples: &[
            "fn @f(%x: f32[a, b], %y: f32[b]) -> f32[b, a] {
  %p = view %x[a, b] -> [b, a]
  %r = map add : %p[b, a], %y[b] -> [b, a]
  return %r
}",
            "fn @f(%x: f32[a, b], %y: f32[b, c]) -> f32[a, c] {
  %p = view %y[b, c] -> [c, b]
  %r = dot %x[a, {b}], %p[c, {b}] -> [a, c]
  return %r
}",
        ],
    },
    Rule {
        name: "view-of-whole",
        class: Class::Bit,
        law: "a view that reads everything in order is x; so is a merge after its split",
        source: "identity of index maps",
        find: Find::Built,
        guard: &[],
        examples: &["axis e = a * b
fn @f(%x: f32[e, c]) -> f32[e, c] {
  %p = view %x[|b|*a + b, c] -> [a, b, c]
  %r = view %p[e // |b|, e % |b|, c] -> [e, c]
  return %r
}"],
    },
    Rule {
        name: "product-in-any-order",
        class: Class::Bit,
        law: "x w = w x, the order of summation staying",
        source: "commutativity of a fused multiply-add's factors",
        find: Find::Built,
        guard: &[],
        examples: &["param @w: f32[b, c]
fn @f(%x: f32[a, b]) -> f32[a, c] {
  %r = dot @w[{b}, c], %x[a, {b}] -> [a, c]
  return %r
}"],
    },
    Rule {
        name: "absorb-padding",
        class: Class::Real,
        law: "(pad x) w = x w that skips what lies outside (an infinity in w times a zero of the padding goes away)",
        source: "operations read through index maps",
        find: Find::Patterns(&["(dot ?d (view ?v ?x) ?w)", "(dot ?d ?w (view ?v ?x))"], padding),
        guard: &[],
        examples: &["axis e = 3   axis g = a + 2   param @w: f32[e]
fn @f(%x: f32[a]) -> f32[a] {
  %p = view %x[g - 1] else 0 -> [g]
  %r = dot %p[a + {e}], @w[{e}] -> [a]
  return %r
}"],
    },
    Rule {
        name: "slice-of-joined",
        class: Class::Bit,
        law: "a slice of [x y] that lies in x is a slice of x",
        source: "definition of concatenation",
        find: Find::Patterns(&["(view ?s (concat ?c ?x ?y))", "(view ?s (concat ?c ?x ?y ?z))"], slice_of_joined),
        guard: &[],
        examples: &["axis e = a + b
fn @f(%x: f32[a], %y: f32[b]) -> f32[b] {
  %c = concat along e : %x[e], %y[e - |a|] -> [e]
  %r = view %c[b + |a|] -> [b]
  return %r
}"],
    },
    Rule {
        name: "slice-of-product",
        class: Class::Bit,
        law: "view(x w) = x' w', each read where the view is",
        source: "naturality of contraction; a 1x1 convolution commutes with a strided slice",
        find: Find::Patterns(&["(view ?s (dot ?d ?x ?w))"], slice_of_product),
        guard: &[],
        examples: &["axis e = a + 1
fn @f(%x: f32[e, b], %w: f32[b, c]) -> f32[c] {
  %d = dot %x[e, {b}], %w[{b}, c] -> [e, c]
  %r = view %d[0, c] -> [c]
  return %r
}"],
    },
    Rule {
        name: "product-over-one",
        class: Class::Bit,
        law: "a product sums over one position as over none",
        source: "definition of contraction; 1x1 convolutions are matrix products",
        find: Find::Built,
        guard: &[],
        examples: &["axis e = 1   param @w: f32[c, b, e]
fn @f(%x: f32[b, a]) -> f32[c, a] {
  %r = dot %x[{b}, a + {e}], @w[c, {b}, {e}] -> [c, a]
  return %r
}"],
    },
];
