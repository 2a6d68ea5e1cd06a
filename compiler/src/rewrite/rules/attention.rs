//! Attention: what softmax does not see, what passes through its weighted sums, and where the scale stands.

use super::parts::{
    combined, in_output_frame, instead, is_float, mentions_none, moved, output_frame, positions, with_operands,
};
use crate::plan::trace::variable_positions;
use crate::rewrite::{
    egraph::{Read, build, compose::compose},
    rule::{Class, Conjunct, Find, Match, Rule},
};
use egg::Id;
use strang_ir::{IndexExpr, IndexMap, Node, Op, Size, scalar::Binary};

/// The variables that a softmax normalises over.
fn over(node: &Node) -> Vec<u32> {
    match &node.op {
        Op::Softmax { over, .. } => over.clone(),
        _ => Vec::new(),
    }
}

/// Whether a sum under a softmax adds something that does not vary along it.
fn is_shift(m: &Match, slot: usize) -> bool {
    let over = over(&m.node("s"));
    m.position_of(&[("s", 0), ("t", slot)]).is_some_and(|map| map.fill.is_none() && mentions_none(&map, &over))
}

/// The scores of a query with keys that have a bias, under the nodes of a path.
fn key_bias(m: &mut Match) -> Option<Id> {
    let d = m.node("d");
    let q_slot = usize::from(m.pattern.is_multiple_of(2));
    let k_slot = 1 - q_slot;
    let (q, k) = (m.read("d", q_slot, "q"), m.through(&[("d", k_slot), ("a", 0)], "k")?);
    let reads = if q_slot == 0 { vec![q, k] } else { vec![k, q] };
    let mut value = build::add(m.graph, &d, reads);
    // The nodes between, with the new scores in their first operand.
    let between: &[&str] = match m.pattern {
        0 | 1 => &[],
        2 | 3 => &["t"],
        _ => &["t", "e"],
    };
    for name in between {
        let node = m.node(name);
        let other = if *name == "t" { m.read(name, 1, "c") } else { m.read(name, 1, "mask") };
        let scores = Read { value, map: node.maps[0].clone() };
        value = build::add(m.graph, &node, vec![scores, other]);
    }
    let s = m.node("s");
    let scores = Read { value, map: s.maps[0].clone() };
    Some(build::add(m.graph, &s, vec![scores]))
}

/// Whether the keys' bias is the same for all keys that a softmax weighs.
fn is_key_bias(m: &Match) -> bool {
    let over = over(&m.node("s"));
    let k_slot = usize::from(m.pattern % 2 == 1);
    let mut path = vec![("s", 0)];
    path.extend(match m.pattern {
        0 | 1 => vec![],
        2 | 3 => vec![("t", 0)],
        _ => vec![("e", 0), ("t", 0)],
    });
    path.push(("d", k_slot));
    let bias = [&path[..], &[("a", 1)]].concat();
    let query = [&path[..path.len() - 1], &[("d", 1 - k_slot)]].concat();
    let alike = |path: &[(&str, usize)]| {
        m.contracted_position_of(path).is_some_and(|map| map.fill.is_none() && mentions_none(&map, &over))
    };
    let scale = match m.pattern {
        0 | 1 => true,
        2 | 3 => m.position_of(&[("s", 0), ("t", 1)]).is_some_and(|map| mentions_none(&map, &over)),
        _ => m.position_of(&[("s", 0), ("e", 0), ("t", 1)]).is_some_and(|map| mentions_none(&map, &over)),
    };
    alike(&bias) && alike(&query) && scale
}

pub const RULES: &[Rule] = &[
    Rule {
        name: "softmax-shift",
        class: Class::Real,
        law: "softmax(x + c) = softmax x, for c that does not vary along the softmax",
        source: "softmax is invariant to shifts",
        find: Find::Patterns(&["(softmax ?s (add ?t ?x ?c))", "(softmax ?s (add ?t ?c ?x))"], |m| {
            let x = m.through(&[("s", 0), ("t", m.pattern)], "x")?;
            let s = m.node("s");
            Some(build::add(m.graph, &s, vec![x]))
        }),
        guard: &[Conjunct {
            text: "c does not vary along the softmax",
            holds: |m| is_shift(m, 1 - m.pattern),
            counterexample: "fn @f(%x: f32[a, b], %y: f32[b]) -> f32[a, b] {
  %t = map add : %x[a, b], %y[b] -> [a, b]
  %s = softmax %t[a, {b}] -> [a, {b}]
  return %s
}",
        }],
        examples: &["fn @f(%x: f32[a, b], %y: f32[a]) -> f32[a, b] {
  %t = map add : %x[a, b], %y[a] -> [a, b]
  %s = softmax %t[a, {b}] -> [a, {b}]
  return %s
}"],
    },
    Rule {
        name: "key-bias",
        class: Class::Real,
        law: "softmax(q (k + b)) = softmax(q k), for b the same for all keys; also under a scale and a mask",
        source: "softmax is invariant to shifts",
        find: Find::Patterns(
            &[
                "(softmax ?s (dot ?d (add ?a ?k ?b) ?q))",
                "(softmax ?s (dot ?d ?q (add ?a ?k ?b)))",
                "(softmax ?s (mul ?t (dot ?d (add ?a ?k ?b) ?q) ?c))",
                "(softmax ?s (mul ?t (dot ?d ?q (add ?a ?k ?b)) ?c))",
                "(softmax ?s (add ?e (mul ?t (dot ?d (add ?a ?k ?b) ?q) ?c) ?mask))",
                "(softmax ?s (add ?e (mul ?t (dot ?d ?q (add ?a ?k ?b)) ?c) ?mask))",
            ],
            key_bias,
        ),
        guard: &[Conjunct {
            text: "neither the bias, nor the query, nor the scale varies along the softmax",
            holds: is_key_bias,
            counterexample: "fn @f(%q: f32[a, c], %k: f32[b, c], %b: f32[b]) -> f32[a, b] {
  %a = map add : %k[b, c], %b[b] -> [b, c]
  %d = dot %q[a, {c}], %a[b, {c}] -> [a, b]
  %s = softmax %d[a, {b}] -> [a, {b}]
  return %s
}",
        }],
        examples: &[
            "param @b: f32[c]
fn @f(%q: f32[a, c], %k: f32[b, c]) -> f32[a, b] {
  %a = map add : %k[b, c], @b[c] -> [b, c]
  %d = dot %q[a, {c}], %a[b, {c}] -> [a, b]
  %s = softmax %d[a, {b}] -> [a, {b}]
  return %s
}",
            "param @b: f32[c]
fn @f(%q: f32[a, c], %k: f32[b, c], %mask: f32[a, b]) -> f32[a, b] {
  %a = map add : %k[b, c], @b[c] -> [b, c]
  %d = dot %q[a, {c}], %a[b, {c}] -> [a, b]
  %t = map $0 * 0.125 + $1 : %d[a, b], %mask[a, b] -> [a, b]
  %s = softmax %t[a, {b}] -> [a, {b}]
  return %s
}",
        ],
    },
    Rule {
        name: "value-bias",
        class: Class::Real,
        law: "softmax(x) (v + b) = softmax(x) v + b, for b the same for all values",
        source: "weights of a softmax sum to 1",
        find: Find::Patterns(&["(dot ?d (softmax ?s ?x) (add ?a ?v ?b))"], |m| {
            let d = m.node("d");
            let (s, x) = (m.node("s"), m.read("s", 0, "x"));
            let softmax = build::add(m.graph, &s, vec![x]);
            let p = instead(m, "d", 0, softmax);
            let (v, b) = (m.through(&[("d", 1), ("a", 0)], "v")?, m.through(&[("d", 1), ("a", 1)], "b")?);
            let product = build::add(m.graph, &d, vec![p, v]);
            let (frame, b) = (output_frame(&d), in_output_frame(&d, &b)?);
            let product = build::whole(&frame, product);
            Some(build::binary(m.graph, &frame, Binary::Add, product, b))
        }),
        guard: &[
            Conjunct {
                text: "the product sums over all that the softmax is over, and nothing else",
                holds: |m| m.sums_the_softmax(),
                counterexample: "fn @f(%x: f32[a, b], %v: f32[a, c], %b: f32[c]) -> f32[b, c] {
  %s = softmax %x[a, {b}] -> [a, {b}]
  %a = map add : %v[a, c], %b[c] -> [a, c]
  %d = dot %s[{a}, b], %a[{a}, c] -> [b, c]
  return %d
}",
            },
            Conjunct {
                text: "the softmax is not a logarithm",
                holds: |m| !matches!(m.node("s").op, Op::Softmax { log: true, .. }),
                counterexample: "fn @f(%x: f32[a, b], %v: f32[b, c], %b: f32[c]) -> f32[a, c] {
  %s = softmax log : %x[a, {b}] -> [a, {b}]
  %a = map add : %v[b, c], %b[c] -> [b, c]
  %d = dot %s[a, {b}], %a[{b}, c] -> [a, c]
  return %d
}",
            },
        ],
        examples: &["fn @f(%x: f32[a, b], %v: f32[b, c], %b: f32[c]) -> f32[a, c] {
  %s = softmax %x[a, {b}] -> [a, {b}]
  %a = map add : %v[b, c], %b[c] -> [b, c]
  %d = dot %s[a, {b}], %a[{b}, c] -> [a, c]
  return %d
}"],
    },
    Rule {
        name: "scale-of-scores",
        class: Class::Real,
        law: "(q k) c = (q c) k, for a number c",
        source: "linearity; the scale of attention into its query",
        find: Find::Patterns(&["(mul ?s (dot ?d ?q ?k) ?c)"], |m| {
            if m.facts("q").constant || m.facts("k").constant {
                return None;
            }
            m.literal("c")?;
            let d = m.node("d");
            let scale = moved(&m.read("s", 1, "c"), &positions(&m.node("s"), 0, &d)?);
            let scaled = combined(m.graph, &d, (0, m.id("q")), Binary::Multiply, &scale)?;
            let value = with_operands(m.graph, &d, &[scaled, m.id("k")]);
            let read = instead(m, "s", 0, value);
            Some(m.view("s", read))
        }),
        guard: &[Conjunct {
            text: "the elements are floats: integers would wrap",
            holds: |m| is_float(m, "q"),
            counterexample: "fn @f(%q: i8[a, c], %k: i8[b, c]) -> i32[a, b] {
  %d = dot %q[a, {c}], %k[b, {c}] -> [a, b]
  %s = map $0 * 100 : %d[a, b] -> [a, b]
  return %s
}",
        }],
        examples: &["fn @f(%q: f32[a, c], %k: f32[b, c]) -> f32[a, b] {
  %d = dot %q[a, {c}], %k[b, {c}] -> [a, b]
  %s = map $0 * 0.125 : %d[a, b] -> [a, b]
  return %s
}"],
    },
    Rule {
        name: "largest-of-softmax",
        class: Class::Real,
        law: "argmax(softmax x) = argmax x (values that softmax rounds to one are told apart)",
        source: "softmax is monotone",
        find: Find::Patterns(&["(argreduce ?r (softmax ?s ?x))"], |m| {
            let r = m.node("r");
            let x = m.through(&[("r", 0), ("s", 0)], "x")?;
            Some(build::add(m.graph, &r, vec![x]))
        }),
        guard: &[Conjunct {
            text: "the positions compared are in one softmax",
            holds: |m| {
                let (r, s) = (m.node("r"), m.node("s"));
                let over = over(&s);
                let contracted = r.contracted();
                r.maps[0].exprs.iter().zip(&s.outputs[0].variables).all(|(expression, axis)| {
                    over.contains(axis) || contracted.iter().all(|v| !expression.mentions(*v))
                })
            },
            counterexample: "fn @f(%x: f32[a, b]) -> i64[b] {
  %s = softmax %x[a, {b}] -> [a, {b}]
  %r = argreduce max : %s[{a}, b] -> [b]
  return %r
}",
        }],
        examples: &["fn @f(%x: f32[a, b]) -> i64[a] {
  %s = softmax %x[a, {b}] -> [a, {b}]
  %r = argreduce max : %s[a, {b}] -> [a]
  return %r
}"],
    },
];

impl Match<'_> {
    /// Whether the product sums over exactly what the softmax normalises.
    fn sums_the_softmax(&self) -> bool {
        let (d, s) = (self.node("d"), self.node("s"));
        let over = over(&s);
        let contracted = d.contracted();
        let mut summed = Vec::new();
        for (expression, axis) in d.maps[0].exprs.iter().zip(&s.outputs[0].variables) {
            if over.contains(axis) {
                let Some(variable) = expression.as_variable() else { return false };
                if d.size_of(variable) != s.size_of(*axis) || summed.contains(&variable) {
                    return false;
                }
                summed.push(variable);
            } else if contracted.iter().any(|v| expression.mentions(*v)) {
                return false;
            }
        }
        let bias = self.contracted_position_of(&[("d", 1), ("a", 1)]);
        d.maps[0].fill.is_none()
            && contracted.len() == summed.len()
            && contracted.iter().all(|v| summed.contains(v))
            && bias.is_some_and(|map| map.fill.is_none() && mentions_none(&map, &contracted))
    }

    /// As [`Match::position_of`], through products too: their contracted variables become variables after those of the
    /// first node.
    fn contracted_position_of(&self, path: &[(&str, usize)]) -> Option<IndexMap> {
        let (first, slot) = path[0];
        let outer = self.node(first);
        let mut sizes: Vec<Size> = outer.variables.iter().map(|v| v.size().clone()).collect();
        let mut map = outer.maps[slot].clone();
        for (name, slot) in &path[1..] {
            if map.fill.is_some() {
                return None;
            }
            let inner = self.node(name);
            let mut positions = variable_positions(&inner, 0, &map.exprs);
            for variable in inner.contracted() {
                positions[variable as usize] = IndexExpr::variable(sizes.len() as u32);
                sizes.push(inner.size_of(variable));
            }
            let size = |v: u32| sizes[v as usize].clone();
            map = compose(&inner.maps[*slot], &positions, &size);
        }
        Some(map)
    }
}
