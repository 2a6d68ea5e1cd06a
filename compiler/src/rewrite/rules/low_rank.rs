//! Products with products of weights, one after the other: fewer operations where the rank between them is low.

use super::parts::{inner_wraps_alike, joined, mentions_only, product_over};
use crate::rewrite::{
    egraph::Read,
    rule::{Class, Conjunct, Find, Match, Rule},
};
use egg::Id;
use strang_ir::IndexMap;

/// `d` is the product of `x` and `e`, a product of `v` and `w`.
fn apart(m: &mut Match) -> Option<Id> {
    if !m.facts("v").constant || !m.facts("w").constant || m.facts("x").constant {
        return None;
    }
    let (d, e) = (m.node("d"), m.node("e"));
    if d.op != e.op || e.outputs[0].element != m.facts("x").element() {
        return None;
    }
    // The variables of the outer, then what the inner sums over.
    let (variables, places) = joined(&d, 1, &e)?;
    let place = |variable: u32| places[variable as usize];
    let x = d.maps[0].clone();
    let (v, w) = (e.maps[0].renumbered(&place), e.maps[1].renumbered(&place));
    let all = 0..variables.len() as u32;
    let first: Vec<u32> = all.clone().filter(|u| x.mentions(*u) || v.mentions(*u)).collect();
    // What w does not mention is summed first; x and v must do so.
    let summed: Vec<u32> = d.contracted().into_iter().filter(|u| !w.mentions(*u)).collect();
    if summed.is_empty() || !summed.iter().all(|u| first.contains(u)) {
        return None;
    }
    let kept: Vec<u32> = first.iter().copied().filter(|u| !summed.contains(u)).collect();
    let left: Vec<u32> = all.filter(|u| !summed.contains(u)).collect();
    if !mentions_only(&w, &left) {
        return None;
    }
    let reads = [Read { value: m.id("x"), map: x }, Read { value: m.id("v"), map: v }];
    let inner = product_over(m, (&variables, &first), &kept, reads);
    let inner = Read { value: inner, map: IndexMap::of_variables(kept) };
    let w = Read { value: m.id("w"), map: w };
    Some(product_over(m, (&variables, &left), &d.outputs[0].variables, [inner, w]))
}

pub const RULES: &[Rule] = &[Rule {
    name: "product-with-product",
    class: Class::Real,
    law: "x (v w) = (x v) w, for constants v and w",
    source: "associativity; low-rank layers (Hu et al., LoRA, 2021)",
    find: Find::Patterns(&["(dot ?d ?x (dot ?e ?v ?w))"], apart),
    guard: &[Conjunct {
        text: "the inner product is of floats, or of the type in which the outer one is summed: a narrower one would wrap before",
        holds: inner_wraps_alike,
        counterexample: "param @v: i8[b, c] param @w: i8[c, d]
fn @f(%x: i8[a, b]) -> i32[a, d] {
  %q = map $0 * 25 : @v[b, c] -> [b, c]
  %p = dot %q[b, {c}], @w[{c}, d] -> i8[b, d]
  %r = dot %x[a, {b}], %p[{b}, d] -> [a, d]
  return %r
}",
    }],
    examples: &[
        "param @v: f32[b, c] param @w: f32[c, d]
fn @f(%x: f32[a, b]) -> f32[a, d] {
  %p = dot @v[b, {c}], @w[{c}, d] -> [b, d]
  %r = dot %x[a, {b}], %p[{b}, d] -> [a, d]
  return %r
}",
        "axis e = 3   param @v: f32[c, b, e] param @w: f32[d, c]
fn @f(%x: f32[b, a]) -> f32[d, a] {
  %p = dot @v[{c}, b, e], @w[d, {c}] -> [d, b, e]
  %r = dot %x[{b}, a + {e} - 1] else 0.0, %p[d, {b}, {e}] -> [d, a]
  return %r
}",
    ],
}];
