//! Rotary position embedding, as exporters write it: halves of the features side by side, or pairs of them, the first with its
//! sign changed.

use super::splitting::{joined, parts, resized};
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
use std::sync::Arc;
use strang_ir::{Atom, Axis, IndexExpr, IndexMap, Node, Op, Size, Variable, scalar::Binary};

/// `x c + r w`, `r` being two values joined, the first with its sign changed: how each is read at the positions of the sum.
struct Pieces {
    /// The sum, the joined values and the change of sign.
    sum: Arc<Node>,
    joint: Arc<Node>,
    negation: Arc<Node>,
    x: Read,
    c: Read,
    w: Read,
    joined: IndexMap,
}

impl Pieces {
    fn new(m: &Match) -> Option<Pieces> {
        // The joined values stand first or second in their product, and the product in the sum.
        let slot = m.pattern % 2;
        let (plain, turned) = if m.pattern < 2 { (0, 1) } else { (1, 0) };
        let whole =
            |path: &[(&str, usize)]| m.position_of(path).filter(|map| map.fill.is_none() && map.conditions.is_empty());
        Some(Pieces {
            sum: m.node("s"),
            joint: m.node("k"),
            negation: m.node("n"),
            x: Read { value: m.id("x"), map: whole(&[("s", plain), ("t", 0)])? },
            c: Read { value: m.id("c"), map: whole(&[("s", plain), ("t", 1)])? },
            w: Read { value: m.id("w"), map: whole(&[("s", turned), ("u", 1 - slot)])? },
            joined: whole(&[("s", turned), ("u", slot)])?,
        })
    }

    /// A node over the variables of the sum, one of which has another size.
    fn resized(&self, variable: u32, size: &Size) -> Node {
        let sum = &self.sum.outputs[0];
        resized(&nameless(Op::View, self.sum.variables.clone(), sum.element, sum.variables.clone()), variable, size)
    }

    /// The sum where it reads the first or the second of the joined values: over the variables of `own`, of which `variable` stands
    /// at a position.
    fn part(&self, m: &mut Match, part: usize, own: &Node, (variable, position): (u32, IndexExpr)) -> Id {
        let place = |v: u32| if v == variable { position.clone() } else { IndexExpr::variable(v) };
        let positions: Vec<IndexExpr> = (0..own.variables.len() as u32).map(place).collect();
        let size = |v: u32| own.size_of(v);
        let at_part = |read: &Read| Read { value: read.value, map: compose(&read.map, &positions, &size) };
        let through = |node: &Node, slot: usize, map: &IndexMap| {
            compose(&node.maps[slot], &variable_positions(node, 0, &map.exprs), &size)
        };
        let mut map = through(&self.joint, part, &compose(&self.joined, &positions, &size));
        if part == 0 {
            // Where the negation of `y` is read.
            map = through(&self.negation, 0, &map);
        }
        let turned = Read { value: m.id(["y", "z"][part]), map };
        let plain = build::binary(m.graph, own, Binary::Multiply, at_part(&self.x), at_part(&self.c));
        let turned = build::binary(m.graph, own, Binary::Multiply, turned, at_part(&self.w));
        let (plain, turned) = (build::whole(own, plain), build::whole(own, turned));
        build::binary(m.graph, own, [Binary::Subtract, Binary::Add][part], plain, turned)
    }
}

/// Both halves by themselves, side by side.
fn halves(m: &mut Match) -> Option<Id> {
    let pieces = Pieces::new(m)?;
    let (axis, offsets) = parts(&pieces.joint)?;
    let read = &pieces.joined.exprs;
    let is_whole = |along: &u32| pieces.sum.size_of(*along) == pieces.joint.shape(0)[axis];
    let along = read[axis].as_variable().filter(is_whole)?;
    if read.iter().filter(|expression| expression.mentions(along)).count() != 1 {
        return None;
    }
    let sizes = [&offsets[1] - &offsets[0], &offsets[2] - &offsets[1]];
    let values = [0, 1].map(|part| {
        let position = IndexExpr::variable(along).plus_size(&offsets[part]);
        pieces.part(m, part, &pieces.resized(along, &sizes[part]), (along, position))
    });
    let outputs = pieces.sum.outputs[0].variables.iter().copied();
    let reader = Node { maps: vec![IndexMap::of_variables(outputs)].into(), ..Node::clone(&pieces.sum) };
    joined(m.graph, &reader, 0, along, values, &sizes)
}

/// The first and the second of all pairs by themselves, as pairs again.
fn pairs(m: &mut Match) -> Option<Id> {
    let pieces = Pieces::new(m)?;
    let (axis, offsets) = parts(&pieces.joint)?;
    let expression = &pieces.joined.exprs[axis];
    let ([(Atom::Remainder(inner, two), one)], true) = (expression.terms(), expression.offset().is(0)) else {
        return None;
    };
    let along = inner.as_variable().filter(|_| two.is(2) && one.is(1) && offsets[1].is(1) && offsets[2].is(2))?;
    let size = pieces.sum.size_of(along).as_constant().filter(|size| size % 2 == 0)?;
    let own = pieces.resized(along, &Size::from(size / 2));
    let values = [0, 1].map(|part| {
        let position = IndexExpr::variable(along).times(&Size::from(2)).plus_size(&Size::from(part as i64));
        pieces.part(m, part, &own, (along, position))
    });
    let outputs = &own.outputs[0].variables;
    let rank = outputs.len() as u32;
    let mut variables: Vec<Variable> = outputs.iter().map(|v| own.variables[*v as usize].clone()).collect();
    variables.push(Variable::named("pair", &Axis::new("pair", Size::from(2))));
    let stack = Op::Concat { along: rank, offsets: vec![Size::ZERO, Size::ONE, Size::from(2)] };
    let stack = nameless(stack, variables.into(), own.outputs[0].element, (0..=rank).collect());
    let reads = values.map(|value| Read { value, map: IndexMap::of_variables(0..rank) });
    let value = build::add(m.graph, &stack, reads.into());
    let (place, size_of) = (IndexExpr::variable(along), |v: u32| pieces.sum.size_of(v));
    let (pair, part) = (place.floor_div(&Size::from(2), &size_of), place.remainder(&Size::from(2), &size_of));
    let exprs = outputs.iter().map(|v| if *v == along { pair.clone() } else { IndexExpr::variable(*v) });
    let map = IndexMap::new(exprs.chain([part]).collect());
    Some(build::view(m.graph, &pieces.sum, Read { value, map }))
}

const PATTERNS: &[&str] = &[
    "(add ?s (mul ?t ?x ?c) (mul ?u (concat ?k (neg ?n ?y) ?z) ?w))",
    "(add ?s (mul ?t ?x ?c) (mul ?u ?w (concat ?k (neg ?n ?y) ?z)))",
    "(add ?s (mul ?u (concat ?k (neg ?n ?y) ?z) ?w) (mul ?t ?x ?c))",
    "(add ?s (mul ?u ?w (concat ?k (neg ?n ?y) ?z)) (mul ?t ?x ?c))",
];

pub const RULES: &[Rule] = &[
    Rule {
        name: "rotary-in-pieces",
        class: Class::Bit,
        law: "x c + [-y, z] w = [x_1 c_1 - y w_1, x_2 c_2 + z w_2]",
        source: "rotary position embedding (Su et al., 2021), its halves turned without a turned copy",
        find: Find::Patterns(PATTERNS, halves),
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
    },
    Rule {
        name: "interleaved-rotary-in-pieces",
        class: Class::Bit,
        law: "x c + [-y; z]^T w = [x_1 c_1 - y w_1; x_2 c_2 + z w_2]^T, of pairs",
        source: "rotary position embedding (Su et al., 2021), its pairs turned without a turned copy",
        find: Find::Patterns(PATTERNS, pairs),
        guard: &[],
        examples: &["axis p = 2   axis e = a * p   param @c: f32[a, e] param @s: f32[a, e]
fn @f(%x: f32[b, a, e]) -> f32[b, a, e] {
  %y = map neg : %x[b, a, 2*a' + 1] -> [b, a, a']
  %z = view %x[b, a, 2*a'] -> [b, a, a']
  %r = concat along p at (0, 1, 2) : %y[b, a, a'], %z[b, a, a'] -> [b, a, a', p]
  %t = map mul : %x[b, a, e], @c[a, e] -> [b, a, e]
  %u = map mul : %r[b, a, e // 2, e % 2], @s[a, e] -> [b, a, e]
  %o = map add : %t[b, a, e], %u[b, a, e] -> [b, a, e]
  return %o
}"],
    },
];
