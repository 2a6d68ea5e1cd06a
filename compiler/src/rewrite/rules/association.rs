//! Products of products in another order: weights put together or kept apart, as is cheaper, and computed arrays alike.

use super::parts::{inner_wraps_alike, joined, product_over};
use crate::rewrite::{
    egraph::Read,
    rule::{Class, Conjunct, Find, Match, Rule},
};
use egg::Id;
use strang_ir::IndexMap;

/// `d` is a product of `e`, itself a product of `x` and `v`, and of `w`. One of `x` and `v` goes together with `w` first.
fn associated(m: &mut Match) -> Option<Id> {
    let inner = usize::from(m.pattern >= 2);
    let (outside, inside) = if m.pattern.is_multiple_of(2) { ("x", "v") } else { ("v", "x") };
    // Apart from profit: a weight and a computed array together are neither known before a run nor small.
    let constant = |name: &str| m.facts(name).constant;
    let pays = match (constant(outside), constant(inside), constant("w")) {
        (computed, true, true) => !computed,
        (true, true, false) | (false, false, false) => true,
        _ => false,
    };
    let (d, e) = (m.node("d"), m.node("e"));
    // Products of narrow integers have a kernel; those of their sums have none.
    let element = e.outputs[0].element;
    if !pays || d.op != e.op || [outside, inside].iter().any(|name| m.facts(name).element() != element) {
        return None;
    }
    // The variables of the outer, then what the inner sums over.
    let (variables, places) = joined(&d, inner, &e)?;
    let place = |variable: u32| places[variable as usize];
    let slot = |name: &str| usize::from(name == "v");
    let read = |name: &str| Read { value: m.id(name), map: e.maps[slot(name)].renumbered(&place) };
    let (stays, goes) = (read(outside), read(inside));
    let with = Read { value: m.id("w"), map: d.maps[1 - inner].clone() };
    // What stays outside does not mention is summed first; the others must do so, or its positions would still count.
    let all = 0..variables.len() as u32;
    let first: Vec<u32> = all.clone().filter(|u| goes.map.mentions(*u) || with.map.mentions(*u)).collect();
    let summed: Vec<u32> = d.contracted().into_iter().filter(|u| !stays.map.mentions(*u)).collect();
    if summed.is_empty() || !summed.iter().all(|u| first.contains(u)) {
        return None;
    }
    let kept: Vec<u32> = first.iter().copied().filter(|u| !summed.contains(u)).collect();
    let left: Vec<u32> = all.filter(|u| !summed.contains(u)).collect();
    let reads = if inner == 0 { [goes, with] } else { [with, goes] };
    let together = product_over(m, (&variables, &first), &kept, reads);
    let together = Read { value: together, map: IndexMap::of_variables(kept) };
    let reads = if slot(outside) == 0 { [stays, together] } else { [together, stays] };
    Some(product_over(m, (&variables, &left), &d.outputs[0].variables, reads))
}

pub const RULES: &[Rule] = &[Rule {
    name: "product-of-products",
    class: Class::Real,
    law: "(x v) w = x (v w), either way",
    source: "associativity; low-rank layers (Hu et al., LoRA, 2021), linear attention (Katharopoulos et al., 2020)",
    find: Find::Patterns(
        &[
            "(dot ?d (dot ?e ?x ?v) ?w)",
            "(dot ?d (dot ?e ?x ?v) ?w)",
            "(dot ?d ?w (dot ?e ?x ?v))",
            "(dot ?d ?w (dot ?e ?x ?v))",
        ],
        associated,
    ),
    guard: &[Conjunct {
        text: "the inner product is of floats, or of the type in which the outer one is summed: a narrower one would wrap before",
        holds: inner_wraps_alike,
        counterexample: "param @v: i8[b, c] param @w: i8[c, d]
fn @f(%x: i8[a, b]) -> i32[a, d] {
  %q = map $0 * 25 : %x[a, b] -> [a, b]
  %p = dot %q[a, {b}], @v[{b}, c] -> i8[a, c]
  %r = dot %p[a, {c}], @w[{c}, d] -> [a, d]
  return %r
}",
    }],
    examples: &[
        "param @v: f32[b, c] param @w: f32[c, d]
fn @f(%x: f32[a, b]) -> f32[a, d] {
  %p = dot %x[a, {b}], @v[{b}, c] -> [a, c]
  %r = dot %p[a, {c}], @w[{c}, d] -> [a, d]
  return %r
}",
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
        "fn @f(%q: f32[d, a, c], %k: f32[d, b, c], %v: f32[d, b, c]) -> f32[d, a, c] {
  %p = dot %q[d, a, {c'}], %k[d, b, {c'}] -> [d, a, b]
  %r = dot %p[d, a, {b}], %v[d, {b}, c] -> [d, a, c]
  return %r
}",
        "fn @f(%q: f32[a, c], %k: f32[b, c], %v: f32[b, d]) -> f32[a, d] {
  %p = dot %k[{b}, c], %v[{b}, d] -> [c, d]
  %r = dot %q[a, {c}], %p[{c}, d] -> [a, d]
  return %r
}",
    ],
}];
