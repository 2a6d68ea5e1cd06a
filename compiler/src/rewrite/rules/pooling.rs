//! Products and pooling: what is linear on one axis goes through a sum over another.

use super::parts::is_float;
use crate::rewrite::{
    egraph::{
        Read,
        build::{self, nameless},
        compose::compose,
    },
    rule::{Class, Find, Match, Rule},
};
use egg::Id;
use strang_ir::{IndexExpr, IndexMap, Node, Output};

/// A fold of a product's results over positions of `x` alone, as the product of the fold.
fn product_of_pooled(m: &mut Match) -> Option<Id> {
    if !m.facts("w").constant || m.facts("x").constant || !is_float(m, "x") {
        return None;
    }
    let (s, d) = (m.node("s"), m.node("d"));
    if s.maps[0].fill.is_some() || d.maps.iter().any(|map| map.fill.is_some()) {
        return None;
    }
    let folded = s.contracted();
    // Where each variable of the product stands in the fold: an output where it is read, a contracted one after all others.
    let mut positions = vec![IndexExpr::default(); d.variables.len()];
    let mut variables = s.variables.clone();
    for (variable, expression) in d.outputs[0].variables.iter().zip(&s.maps[0].exprs) {
        let plain = expression.as_variable().filter(|v| !folded.contains(v) && s.size_of(*v) == d.size_of(*variable));
        if d.maps[1].mentions(*variable) && plain.is_none() {
            return None;
        }
        positions[*variable as usize] = expression.clone();
    }
    for variable in d.contracted() {
        positions[variable as usize] = IndexExpr::variable(variables.len() as u32);
        variables.push(d.variables[variable as usize].clone());
    }
    let size = |v: u32| variables[v as usize].size().clone();
    let [x, w] = [0, 1].map(|slot| compose(&d.maps[slot], &positions, &size));
    // The fold, over what x mentions and what is folded.
    let own: Vec<u32> = (0..variables.len() as u32).filter(|v| x.mentions(*v) || folded.contains(v)).collect();
    let kept: Vec<u32> = own.iter().copied().filter(|v| !folded.contains(v)).collect();
    let place = |list: &[u32], variable: u32| list.iter().position(|v| *v == variable).unwrap_or_default() as u32;
    let own_variables = own.iter().map(|v| variables[*v as usize].clone()).collect();
    let output = kept.iter().map(|v| place(&own, *v)).collect();
    let fold = nameless(s.op.clone(), own_variables, s.outputs[0].element, output);
    let read = Read { value: m.id("x"), map: x.renumbered(&|v| place(&own, v)) };
    let fold = build::add(m.graph, &fold, vec![read]);
    // The product, over the rest.
    let left: Vec<u32> = (0..variables.len() as u32).filter(|v| !folded.contains(v)).collect();
    let output = s.outputs[0].variables.iter().map(|v| place(&left, *v)).collect();
    let product = Node {
        variables: left.iter().map(|v| variables[*v as usize].clone()).collect(),
        outputs: vec![Output { variables: output, ..d.outputs[0].clone() }],
        ..Node::clone(&d)
    };
    let reads = vec![
        Read { value: fold, map: IndexMap::of_variables(kept.into_iter().map(|v| place(&left, v))) },
        Read { value: m.id("w"), map: w.renumbered(&|v| place(&left, v)) },
    ];
    Some(build::add(m.graph, &product, reads))
}

pub const RULES: &[Rule] = &[Rule {
    name: "product-of-pooled",
    class: Class::Real,
    law: "sum (x w) = (sum x) w, for a sum over positions of x alone",
    source: "linearity: a 1x1 convolution goes through average pooling",
    find: Find::Patterns(&["(reduce-sum ?s (dot ?d ?x ?w))"], product_of_pooled),
    guard: &[],
    examples: &[
        "param @w: f32[b, c]
fn @f(%x: f32[a, d, b]) -> f32[a, c] {
  %p = dot %x[a, d, {b}], @w[{b}, c] -> [a, d, c]
  %r = reduce sum : %p[a, {d}, c] -> [a, c]
  return %r
}",
        "axis e = 2 * d   axis t = 2   param @w: f32[b, c]
fn @f(%x: f32[a, e, b]) -> f32[a, c, d] {
  %p = dot %x[a, e, {b}], @w[{b}, c] -> [a, c, e]
  %r = reduce sum : %p[a, c, 2*d + {t}] -> [a, c, d]
  return %r
}",
    ],
}];
