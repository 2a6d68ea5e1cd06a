//! Convolutions of convolutions: one with a larger kernel.

use super::parts::{inner_wraps_alike, mentions_only, product_over};
use crate::rewrite::{
    egraph::{Read, compose::compose},
    rule::{Class, Conjunct, Find, Match, Rule},
};
use egg::Id;
use strang_ir::{Condition, IndexExpr, IndexMap, Literal, Size, Variable};

/// Taps of two convolutions along one axis of their input: the input is read at `step i + j`, which is a tap `t` of the whole.
struct Taps {
    outer: u32,
    inner: u32,
    step: i64,
    /// How many positions the inner kernel has, and the whole.
    sizes: (i64, i64),
    /// The variable of the whole.
    whole: u32,
}

/// Pairs the taps of the outer convolution, which are contracted variables that the read of the input mentions, with those of
/// the inner. `None` where there are none, or where they meet otherwise than in a sum.
fn taps(variables: &[Variable], outer: &[u32], inner: &[u32], x: &IndexMap) -> Option<Vec<Taps>> {
    let mut found: Vec<Taps> = Vec::new();
    for tap in outer.iter().copied().filter(|tap| x.mentions(*tap)) {
        let mut axes = x.exprs.iter().filter(|expression| expression.mentions(tap));
        let (axis, None) = (axes.next()?, axes.next()) else { return None };
        let step = axis.coefficient(tap).as_constant().filter(|step| *step > 0 && axis.is_affine())?;
        let is_unit = |other: &u32| axis.coefficient(*other).is(1);
        let beside = inner.iter().copied().find(is_unit)?;
        let elsewhere = x.exprs.iter().filter(|expression| expression.mentions(beside)).count();
        if elsewhere != 1 || found.iter().any(|pair| pair.inner == beside) {
            return None;
        }
        let size = |variable: u32| variables[variable as usize].size().as_constant();
        let (first, second) = (size(tap)?, size(beside)?);
        let whole = (variables.len() + found.len()) as u32;
        found.push(Taps { outer: tap, inner: beside, step, sizes: (second, step * (first - 1) + second), whole });
    }
    (!found.is_empty()).then_some(found)
}

/// `d` is a convolution with `w` of `e`, a convolution of `x` with `v`.
fn chained(m: &mut Match) -> Option<Id> {
    if !m.facts("v").constant || !m.facts("w").constant {
        return None;
    }
    let (d, e) = (m.node("d"), m.node("e"));
    let plain = d.maps.iter().chain(&e.maps).all(|map| map.conditions.is_empty());
    if !plain || d.op != e.op || e.outputs[0].element != m.facts("x").element() || d.maps[1].fill.is_some() {
        return None;
    }
    // The variables of the outer, then what the inner sums over, then the taps of the whole.
    let mut variables = d.variables.clone();
    let summed = d.contracted();
    let mut inner = Vec::new();
    let mut at = vec![IndexExpr::default(); e.variables.len()];
    for (variable, place) in e.outputs[0].variables.iter().zip(&d.maps[0].exprs) {
        at[*variable as usize] = place.clone();
    }
    for variable in e.contracted() {
        at[variable as usize] = IndexExpr::variable(variables.len() as u32);
        inner.push(variables.len() as u32);
        variables.push(e.variables[variable as usize].clone());
    }
    let size = |variable: u32| variables[variable as usize].size().clone();
    let (x, v) = (compose(&e.maps[0], &at, &size), compose(&e.maps[1], &at, &size));
    let taps = taps(&variables, &summed, &inner, &x)?;
    // Outside of the inner kernel a sum is no position, but a table has no entries there.
    let at_sums = |expression: &&IndexExpr| taps.iter().any(|pair| expression.mentions(pair.inner));
    if v.fill.is_some()
        || taps.iter().any(|pair| v.mentions(pair.outer))
        || !v.exprs.iter().filter(at_sums).all(IndexExpr::is_affine)
    {
        return None;
    }
    for pair in &taps {
        let mut tap = variables[pair.inner as usize].clone();
        tap.axis.size = Size::from(pair.sizes.1);
        variables.push(tap);
    }
    let size = |variable: u32| variables[variable as usize].size().clone();
    let mut of_x: Vec<IndexExpr> = (0..variables.len() as u32).map(IndexExpr::variable).collect();
    let mut of_v = of_x.clone();
    let mut conditions = Vec::new();
    for pair in &taps {
        of_x[pair.outer as usize] = IndexExpr::constant(0);
        of_x[pair.inner as usize] = IndexExpr::variable(pair.whole);
        let before = IndexExpr::variable(pair.outer).times(&Size::from(-pair.step));
        let expression = IndexExpr::variable(pair.whole).plus(&before);
        of_v[pair.inner as usize] = expression.clone();
        conditions.push(Condition::Range { expression, low: Size::from(0), high: Size::from(pair.sizes.0) });
    }
    let x = compose(&x, &of_x, &size);
    let zero = Literal::zero(m.facts("v").element());
    let v = IndexMap { conditions, fill: Some(zero), ..compose(&v, &of_v, &size) };
    let w = d.maps[1].clone();
    // The kernel of the whole first, over what the two kernels mention; then the input with it.
    let all: Vec<u32> = (0..variables.len() as u32).filter(|u| taps.iter().all(|pair| pair.inner != *u)).collect();
    let own: Vec<u32> = all.iter().copied().filter(|u| v.mentions(*u) || w.mentions(*u)).collect();
    let kept: Vec<u32> = own.iter().copied().filter(|u| !summed.contains(u)).collect();
    let left: Vec<u32> = all.into_iter().filter(|u| !summed.contains(u)).collect();
    if !mentions_only(&x, &left) || !summed.iter().all(|u| own.contains(u)) {
        return None;
    }
    let v = Read { value: m.id("v"), map: v };
    let kernel = product_over(m, (&variables, &own), &kept, [v, Read { value: m.id("w"), map: w }]);
    let kernel = Read { value: kernel, map: IndexMap::of_variables(kept) };
    let x = Read { value: m.id("x"), map: x };
    Some(product_over(m, (&variables, &left), &d.outputs[0].variables, [x, kernel]))
}

pub const RULES: &[Rule] = &[Rule {
    name: "convolution-of-convolution",
    class: Class::Real,
    law: "(x * k) * l = x * (k * l), for l that reads nothing outside of x * k",
    source: "associativity of convolution; linear stacks of layers become one (Ding et al., 2021, ACNet and RepVGG)",
    find: Find::Patterns(&["(dot ?d (dot ?e ?x ?v) ?w)"], chained),
    guard: &[
        Conjunct {
            text: "the outer reads nothing outside of the inner's result, where that is not what the input continues as",
            holds: |m| m.node("d").maps[0].fill.is_none(),
            counterexample: "axis e = 3   param @k: f32[c, b, e] param @l: f32[d, c, e]
fn @f(%x: f32[b, a]) -> f32[d, a] {
  %p = dot %x[{b}, a + {e} - 1] else 0.0, @k[c, {b}, {e}] -> [c, a]
  %r = dot %p[{c}, a + {e} - 1] else 0.0, @l[d, {c}, {e}] -> [d, a]
  return %r
}",
        },
        Conjunct {
            text: "the inner product is of floats, or of the type in which the outer one is summed: a narrower one would wrap before",
            holds: inner_wraps_alike,
            counterexample:
                "axis e = 3   axis m = 7   axis n = 5   axis o = 3   param @k: i8[c, b, e] param @l: i8[d, c, e]
fn @f(%x: i8[b, m]) -> i32[d, o] {
  %q = map $0 * 25 : %x[b, m] -> [b, m]
  %p = dot %q[{b}, n + {e}], @k[c, {b}, {e}] -> i8[c, n]
  %r = dot %p[{c}, o + {e}], @l[d, {c}, {e}] -> [d, o]
  return %r
}",
        },
    ],
    examples: &[
        "axis e = 3   axis m = 7   axis n = 5   axis o = 3   param @k: f32[c, b, e] param @l: f32[d, c, e]
fn @f(%x: f32[b, m]) -> f32[d, o] {
  %p = dot %x[{b}, n + {e}], @k[c, {b}, {e}] -> [c, n]
  %r = dot %p[{c}, o + {e}], @l[d, {c}, {e}] -> [d, o]
  return %r
}",
        "axis e = 3   axis m = 9   axis n = 5   axis i = 2   axis o = 2   param @k: f32[c, b, e] param @l: f32[d, c, i]
fn @f(%x: f32[b, m]) -> f32[d, o] {
  %p = dot %x[{b}, 2 * n + {e} - 1] else 0.0, @k[c, {b}, {e}] -> [c, n]
  %r = dot %p[{c}, 2 * o + {i}], @l[d, {c}, {i}] -> [d, o]
  return %r
}",
    ],
}];
