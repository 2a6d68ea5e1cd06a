//! Convolutions: branches in parallel become one.

use super::parts::{combined, instead, whole_axes, with_operands};
use crate::rewrite::{
    egraph::{
        Read,
        build::{self, nameless},
        compose::compose,
    },
    rule::{Class, Conjunct, Find, Match, Rule},
};
use egg::Id;
use strang_ir::{Condition, IndexExpr, IndexMap, Literal, Node, Op, Size, scalar::Binary};

/// The most positions of a kernel among which the smaller convolution is looked for.
const MOST_TAPS: i64 = 64;

/// Where the smaller convolution stands in the larger: a position of every variable that only the larger sums over, and
/// for every variable of the smaller that of the larger.
struct Centre {
    /// Pairs of a variable of the larger and its position.
    taps: Vec<(u32, i64)>,
    /// By variable of the smaller.
    places: Vec<Option<u32>>,
}

/// Finds the smaller convolution `e` in the larger `d`: the position at which both read their input alike.
fn centre(d: &Node, e: &Node) -> Option<Centre> {
    let output = d.outputs[0].variables.len() as u32;
    let first = (0..output).eq(d.outputs[0].variables.iter().copied());
    if !first || d.outputs[0].variables != e.outputs[0].variables || d.outputs[0].element != e.outputs[0].element {
        return None;
    }
    if (0..output).any(|v| d.size_of(v) != e.size_of(v)) || d.op != e.op {
        return None;
    }
    // The summed variables of the smaller, but those of one position, are the last ones of the larger.
    let summed: Vec<u32> = e.contracted().into_iter().filter(|v| !e.size_of(*v).is(1)).collect();
    let larger = d.contracted();
    let taps = larger.len().checked_sub(summed.len())?;
    let mut places: Vec<Option<u32>> = (0..output).map(Some).collect();
    for variable in e.contracted() {
        let place = summed.iter().position(|v| *v == variable).map(|place| larger[taps + place]);
        if place.is_some_and(|place| d.size_of(place) != e.size_of(variable)) {
            return None;
        }
        places.push(place);
    }
    let taps = &larger[..taps];
    let sizes: Vec<i64> = taps.iter().map(|v| d.size_of(*v).as_constant()).collect::<Option<_>>()?;
    let count: i64 = sizes.iter().product();
    if taps.is_empty() || count > MOST_TAPS {
        return None;
    }
    let size = |v: u32| d.size_of(v);
    let position = |place: &Option<u32>| place.map_or_else(IndexExpr::default, IndexExpr::variable);
    let smaller: Vec<IndexExpr> = places.iter().map(position).collect();
    let wanted = compose(&e.maps[0], &smaller, &size).exprs;
    (0..count).find_map(|number| {
        let mut rest = number;
        let mut taken = Vec::new();
        for (tap, size) in taps.iter().zip(&sizes).rev() {
            taken.push((*tap, rest % size));
            rest /= size;
        }
        let at = |v: u32| match taken.iter().find(|(tap, _)| *tap == v) {
            Some((_, position)) => IndexExpr::constant(*position),
            None => IndexExpr::variable(v),
        };
        let positions: Vec<IndexExpr> = (0..d.variables.len() as u32).map(at).collect();
        let found = compose(&d.maps[0], &positions, &size).exprs == wanted;
        found.then(|| Centre { taps: taken, places: places.clone() })
    })
}

/// The convolutions of one input whose results are added, as one.
fn merged(m: &mut Match) -> Option<Id> {
    let (larger, smaller, v, w) = if m.pattern == 0 { ("d", "e", "v", "w") } else { ("e", "d", "w", "v") };
    let (d, e) = (m.node(larger), m.node(smaller));
    if !m.facts("v").constant || !m.facts("w").constant || m.node("s").maps[0] != m.node("s").maps[1] {
        return None;
    }
    let centre = centre(&d, &e)?;
    // The smaller's weight at the centre of the larger's, zeros around it.
    let axes = whole_axes(m.graph, &d, 1, m.id(v))?;
    let place = |variable: u32| axes.iter().position(|axis| *axis == variable).map(|axis| axis as u32);
    let mut conditions = Vec::new();
    for (tap, position) in &centre.taps {
        let expression = IndexExpr::variable(place(*tap)?);
        conditions.push(Condition::Range { expression, low: Size::from(*position), high: Size::from(position + 1) });
    }
    let positions = centre.places.iter().map(|variable| match variable {
        Some(variable) => place(*variable).map_or_else(IndexExpr::default, IndexExpr::variable),
        None => IndexExpr::default(),
    });
    let positions: Vec<IndexExpr> = positions.collect();
    let variables: Vec<_> = axes.iter().map(|axis| d.variables[*axis as usize].clone()).collect();
    let size = |v: u32| variables[v as usize].size().clone();
    let inner = compose(&e.maps[1], &positions, &size);
    let element = m.facts(w).element();
    let map = IndexMap { conditions, fill: Some(Literal::zero(element)), ..inner };
    let frame = nameless(Op::View, variables.clone(), element, (0..axes.len() as u32).collect());
    let padded = build::view(m.graph, &frame, Read { value: m.id(w), map });
    let padded = Read { value: padded, map: IndexMap::of_variables(axes.iter().copied()) };
    let weight = combined(m.graph, &d, (1, m.id(v)), Binary::Add, &padded)?;
    let value = with_operands(m.graph, &d, &[m.id("x"), weight]);
    let read = instead(m, "s", 0, value);
    Some(m.view("s", read))
}

pub const RULES: &[Rule] = &[Rule {
    name: "parallel-convolutions",
    class: Class::Real,
    law: "x * k + x * l = x * (k + pad l), for a kernel l that reads x where a tap of k does",
    source: "RepVGG: 3x3, 1x1 and identity branches become one (Ding et al., 2021)",
    find: Find::Patterns(&["(add ?s (dot ?d ?x ?v) (dot ?e ?x ?w))", "(add ?s (dot ?d ?x ?v) (dot ?e ?x ?w))"], merged),
    guard: &[Conjunct {
        text: "outside of x both read zeros, and the smaller reads nothing outside",
        holds: |m| ["d", "e"].iter().all(|name| m.node(name).maps[0].fill.is_none_or(|fill| fill.is(0.))),
        counterexample: "axis e = 3   param @k: f32[c, b, e] param @l: f32[c, b]
fn @f(%x: f32[b, a]) -> f32[c, a] {
  %p = dot order=(e, b) : %x[{b}, a + {e} - 1] else 1.0, @k[c, {b}, {e}] -> [c, a]
  %q = dot %x[{b}, a - 1] else 0.5, @l[c, {b}] -> [c, a]
  %r = map add : %p[c, a], %q[c, a] -> [c, a]
  return %r
}",
    }],
    examples: &[
        "axis e = 3   param @k: f32[c, b, e] param @l: f32[c, b]
fn @f(%x: f32[b, a]) -> f32[c, a] {
  %p = dot order=(e, b) : %x[{b}, a + {e} - 1] else 0, @k[c, {b}, {e}] -> [c, a]
  %q = dot %x[{b}, a], @l[c, {b}] -> [c, a]
  %r = map add : %p[c, a], %q[c, a] -> [c, a]
  return %r
}",
        "axis e = 3   param @k: f32[c, b, e] param @l: f32[c, b]
fn @f(%x: f32[b, a]) -> f32[c, a] {
  %p = dot %x[{b}, a], @l[c, {b}] -> [c, a]
  %q = dot order=(e, b) : %x[{b}, a + {e} - 1] else 0, @k[c, {b}, {e}] -> [c, a]
  %r = map add : %p[c, a], %q[c, a] -> [c, a]
  return %r
}",
    ],
}];
