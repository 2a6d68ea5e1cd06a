//! Rotary position embedding, as exporters write it: halves of the features side by side, the first with its sign changed.

use super::splitting::{beside, joined, part_read, parts, resized};
use crate::plan::trace::variable_positions;
use crate::rewrite::{
    egraph::{
        Read,
        build::{self, nameless},
        compose::compose,
    },
    rule::{Class, Find, Match, Rule},
};
use egg::Id;
use strang_ir::{IndexMap, Node, Op, scalar::Binary};

/// `s` adds `x c`, position by position, and `r w`, with `r` two values side by side: both halves by themselves.
fn halves(m: &mut Match) -> Option<Id> {
    // The joined values stand first or second in their product, and the product in the sum.
    let slot = m.pattern % 2;
    let s = m.node("s");
    let k = m.node("k");
    let whole =
        |path: &[(&str, usize)]| m.position_of(path).filter(|map| map.fill.is_none() && map.conditions.is_empty());
    let (plain, turned) = if m.pattern < 2 { (0, 1) } else { (1, 0) };
    let x = Read { value: m.id("x"), map: whole(&[("s", plain), ("t", 0)])? };
    let c = Read { value: m.id("c"), map: whole(&[("s", plain), ("t", 1)])? };
    let w = Read { value: m.id("w"), map: whole(&[("s", turned), ("u", 1 - slot)])? };
    let read = whole(&[("s", turned), ("u", slot)])?;
    let (axis, offsets) = parts(&k)?;
    let along = read.exprs[axis].as_variable().filter(|along| s.size_of(*along) == k.shape(0)[axis])?;
    if read.exprs.iter().filter(|expression| expression.mentions(along)).count() != 1 {
        return None;
    }
    let frame = nameless(Op::View, s.variables.clone(), s.outputs[0].element, s.outputs[0].variables.clone());
    let n = m.node("n");
    let mut values = Vec::new();
    for (part, name) in ["y", "z"].into_iter().enumerate() {
        let own = resized(&frame, along, &(&offsets[part + 1] - &offsets[part]));
        let at_part = |read: &Read| Read { value: read.value, map: beside(&read.map, along, &offsets[part]) };
        let mut turned = part_read(&k, part, &read, m.id(name))?;
        if part == 0 {
            // Where the negation of `y` is read.
            let positions = variable_positions(&n, 0, &turned.map.exprs);
            turned.map = compose(&n.maps[0], &positions, &|variable| own.size_of(variable));
        }
        let plain = build::binary(m.graph, &own, Binary::Multiply, at_part(&x), at_part(&c));
        let turned = build::binary(m.graph, &own, Binary::Multiply, turned, at_part(&w));
        let (plain, turned) = (build::whole(&own, plain), build::whole(&own, turned));
        let function = if part == 0 { Binary::Subtract } else { Binary::Add };
        values.push(build::binary(m.graph, &own, function, plain, turned));
    }
    let reader = Node { maps: vec![IndexMap::of_variables(s.outputs[0].variables.iter().copied())], ..Node::clone(&s) };
    let sizes = [&offsets[1] - &offsets[0], &offsets[2] - &offsets[1]];
    joined(m.graph, &reader, 0, along, [values[0], values[1]], &sizes)
}

pub const RULES: &[Rule] = &[Rule {
    name: "rotary-in-pieces",
    class: Class::Bit,
    law: "x c + [-y, z] w = [x_1 c_1 - y w_1, x_2 c_2 + z w_2]",
    source: "rotary position embedding (Su et al., 2021), its halves turned without a turned copy",
    find: Find::Patterns(
        &[
            "(add ?s (mul ?t ?x ?c) (mul ?u (concat ?k (neg ?n ?y) ?z) ?w))",
            "(add ?s (mul ?t ?x ?c) (mul ?u ?w (concat ?k (neg ?n ?y) ?z)))",
            "(add ?s (mul ?u (concat ?k (neg ?n ?y) ?z) ?w) (mul ?t ?x ?c))",
            "(add ?s (mul ?u ?w (concat ?k (neg ?n ?y) ?z)) (mul ?t ?x ?c))",
        ],
        halves,
    ),
    guard: &[],
    examples: &[
        "axis h = 3   axis e = 6   param @c: f32[a, e] param @s: f32[a, e]
fn @f(%x: f32[b, a, e]) -> f32[b, a, e] {
  %y = map neg : %x[b, a, h + 3] -> [b, a, h]
  %z = view %x[b, a, h] -> [b, a, h]
  %r = concat along e : %y[b, a, e], %z[b, a, e - |h|] -> [b, a, e]
  %t = map mul : %x[b, a, e], @c[a, e] -> [b, a, e]
  %u = map mul : %r[b, a, e], @s[a, e] -> [b, a, e]
  %o = map add : %t[b, a, e], %u[b, a, e] -> [b, a, e]
  return %o
}",
        "axis e = a + b
fn @f(%x: f32[d, e], %y: f32[d, a], %z: f32[b, d], %c: f32[e], %w: f32[d, e]) -> f32[d, e] {
  %n = map neg : %y[d, a] -> [d, a]
  %r = concat along e : %n[d, e], %z[e - |a|, d] -> [d, e]
  %u = map mul : %w[d, e], %r[d, e] -> [d, e]
  %t = map mul : %x[d, e], %c[e] -> [d, e]
  %o = map add : %u[d, e], %t[d, e] -> [d, e]
  return %o
}",
    ],
}];
