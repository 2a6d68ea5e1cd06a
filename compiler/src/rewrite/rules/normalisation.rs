//! Normalisations: written in pieces, with scaled inputs, and batch normalisation as a scale and a shift.

use super::parts::{distinct, mentions_none, mentions_only, moved, positions};
use crate::rewrite::{
    egraph::{
        Read,
        build::{self, nameless},
    },
    rule::{Class, Conjunct, Find, Match, Rule},
};
use egg::Id;
use strang_ir::{
    ElementType, IndexMap, Literal, Node, Op, Size,
    op::Norm,
    scalar::{Binary, Unary},
};

/// The epsilon of a normalisation.
fn epsilon(node: &Node) -> f64 {
    match node.op {
        Op::Norm { epsilon, .. } => epsilon.to_f64(),
        _ => 0.,
    }
}

/// The number of positions that a reduction folds.
fn folded(node: &Node) -> Option<f64> {
    let count: Size = node.contracted().into_iter().map(|v| node.size_of(v)).product();
    count.as_constant().map(|count| count as f64)
}

/// The variables of a frame that a statistic, read through a map, was taken over, if the statistic folds the same value
/// at the positions of the frame: those of x that the fold contracted.
fn normalised(frame: &Node, x: &IndexMap, fold: &Node, statistic: &IndexMap) -> Option<Vec<u32>> {
    let (own, folded) = (distinct(x)?, distinct(&fold.maps[0])?);
    if own.len() != folded.len() {
        return None;
    }
    let output = &fold.outputs[0].variables;
    let mut over = Vec::new();
    for (here, there) in own.iter().zip(&folded) {
        if frame.size_of(*here) != fold.size_of(*there) {
            return None;
        }
        match output.iter().position(|v| v == there) {
            None => over.push(*here),
            Some(axis) if statistic.exprs.get(axis)?.as_variable() == Some(*here) => {}
            Some(_) => return None,
        }
    }
    over.sort_unstable();
    (!over.is_empty() && fold.contracted().len() == over.len()).then_some(over)
}

/// What `x / sqrt(mean(x^2) + eps)` normalises over.
fn pieces_over(m: &Match) -> Option<Vec<u32>> {
    let (s, squares) = (m.node("s"), m.node("v"));
    let x = m.read("s", 0, "x");
    // Where the sum of squares is read, and where both factors of a square are.
    let path = [("s", 1), ("r", 0), ("e", 0), ("m", 0)];
    let sum = m.position_of(&path)?;
    let factors = [0, 1].map(|slot| m.through(&[("v", 0), ("q", slot)], "x"));
    let [Some(first), Some(second)] = factors else { return None };
    if first != second {
        return None;
    }
    let squares = Node { maps: vec![first.map].into(), ..Node::clone(&squares) };
    normalised(&s, &x.map, &squares, &sum)
}

fn pieces(m: &mut Match) -> Option<Id> {
    // The statistic is the same along what is normalised over.
    let sum = m.position_of(&[("s", 1), ("r", 0), ("e", 0), ("m", 0)])?;
    let over: Vec<u32> = m.node("s").outputs[0].variables.iter().copied().filter(|v| !sum.mentions(*v)).collect();
    let s = m.node("s");
    let element = m.facts("x").element();
    let epsilon = Literal::from_f64(ElementType::F64, m.literal("eps")?.to_f64());
    let op = Op::Norm { kind: Norm::Rms, over, epsilon };
    let node = nameless(op, s.variables.clone(), element, s.outputs[0].variables.clone());
    let (x, gain) = (m.read("s", 0, "x"), m.number("x", 1.));
    Some(build::add(m.graph, &node, vec![x, gain]))
}

fn layer_over(m: &Match) -> Option<Vec<u32>> {
    let n = m.node("n");
    let x = m.through(&[("n", 0), ("c", 0)], "x")?;
    let sum = m.position_of(&[("n", 0), ("c", 1), ("k", 0)])?;
    normalised(&n, &x.map, &m.node("u"), &sum)
}

pub const RULES: &[Rule] = &[
    Rule {
        name: "rms-norm-in-pieces",
        class: Class::Real,
        law: "x / sqrt(mean(x^2) + eps) = rms(x)",
        source: "definition of RMS normalisation (Zhang and Sennrich, 2019)",
        find: Find::Patterns(
            &[
                "(mul ?s ?x (rsqrt ?r (add ?e (mul ?m (reduce-sum ?v (mul ?q ?x ?x)) ?n) ?eps)))",
                "(div ?s ?x (sqrt ?r (add ?e (mul ?m (reduce-sum ?v (mul ?q ?x ?x)) ?n) ?eps)))",
            ],
            pieces,
        ),
        guard: &[
            Conjunct {
                text: "n is one over the number of positions",
                holds: |m| folded(&m.node("v")).is_some_and(|count| m.is_about("n", 1. / count)),
                counterexample: "axis e = 4
fn @f(%x: f32[a, e]) -> f32[a, e] {
  %q = map $0 * $0 : %x[a, e] -> [a, e]
  %v = reduce sum : %q[a, {e}] -> [a]
  %r = map rsqrt($0 * 0.5 + 1e-5) : %v[a] -> [a]
  %s = map mul : %x[a, e], %r[a] -> [a, e]
  return %s
}",
            },
            Conjunct {
                text: "the mean is of the values that it scales",
                holds: |m| pieces_over(m).is_some(),
                counterexample: "axis e = 4
fn @f(%x: f32[e, e]) -> f32[e, e] {
  %q = map $0 * $0 : %x[e, e'] -> [e, e']
  %v = reduce sum : %q[{e}, e'] -> [e']
  %r = map rsqrt($0 * 0.25 + 1e-5) : %v[e] -> [e]
  %s = map mul : %x[e, e'], %r[e] -> [e, e']
  return %s
}",
            },
        ],
        examples: &[
            "axis e = 4
fn @f(%x: f32[a, e]) -> f32[a, e] {
  %q = map $0 * $0 : %x[a, e] -> [a, e]
  %v = reduce sum : %q[a, {e}] -> [a]
  %r = map rsqrt($0 * 0.25 + 1e-5) : %v[a] -> [a]
  %s = map mul : %x[a, e], %r[a] -> [a, e]
  return %s
}",
            "axis e = 4
fn @f(%x: f32[a, e]) -> f32[a, e] {
  %q = map $0 * $0 : %x[a, e] -> [a, e]
  %v = reduce sum : %q[a, {e}] -> [a]
  %r = map sqrt($0 * 0.25 + 1e-5) : %v[a] -> [a]
  %s = map div : %x[a, e], %r[a] -> [a, e]
  return %s
}",
        ],
    },
    Rule {
        name: "layer-norm-from-rms",
        class: Class::Real,
        law: "rms(x - mean x; g) = layer(x; g)",
        source: "layer normalisation is RMS normalisation of what is centred (Ba et al., 2016)",
        find: Find::Patterns(&["(norm-rms ?n (sub ?c ?x (mul ?k (reduce-sum ?u ?x) ?count)) ?g)"], |m| {
            let n = m.node("n");
            let Op::Norm { over, epsilon, .. } = &n.op else { return None };
            let mut node = Node::clone(&n);
            node.op = Op::Norm { kind: Norm::Layer, over: over.clone(), epsilon: *epsilon };
            let (x, g) = (m.through(&[("n", 0), ("c", 0)], "x")?, m.read("n", 1, "g"));
            Some(build::add(m.graph, &node, vec![x, g]))
        }),
        guard: &[
            Conjunct {
                text: "count is one over the number of positions",
                holds: |m| folded(&m.node("u")).is_some_and(|count| m.is_about("count", 1. / count)),
                counterexample: "axis e = 4   param @g: f32[e]
fn @f(%x: f32[a, e]) -> f32[a, e] {
  %u = reduce sum : %x[a, {e}] -> [a]
  %c = map $0 - $1 * 0.5 : %x[a, e], %u[a] -> [a, e]
  %n = norm rms(eps = 1e-5) : %c[a, {e}], @g[e] -> [a, {e}]
  return %n
}",
            },
            Conjunct {
                text: "the mean is of the values that are normalised",
                holds: |m| {
                    let n = m.node("n");
                    let Op::Norm { over, .. } = &n.op else { return false };
                    layer_over(m).as_ref() == Some(over)
                },
                counterexample: "axis e = 4   param @g: f32[e]
fn @f(%x: f32[e, e]) -> f32[e, e] {
  %u = reduce sum : %x[{e}, e'] -> [e']
  %c = map $0 - $1 * 0.25 : %x[e, e'], %u[e'] -> [e, e']
  %n = norm rms(eps = 1e-5) : %c[e, {e'}], @g[e'] -> [e, {e'}]
  return %n
}",
            },
        ],
        examples: &["axis e = 4   param @g: f32[e]
fn @f(%x: f32[a, e]) -> f32[a, e] {
  %u = reduce sum : %x[a, {e}] -> [a]
  %c = map $0 - $1 * 0.25 : %x[a, e], %u[a] -> [a, e]
  %n = norm rms(eps = 1e-5) : %c[a, {e}], @g[e] -> [a, {e}]
  return %n
}"],
    },
    Rule {
        name: "gain-into-norm",
        class: Class::Real,
        law: "norm(x; 1) * g = norm(x; g)",
        source: "definition of gains",
        find: Find::Patterns(&["(mul ?s (norm-rms ?n ?x ?one) ?g)", "(mul ?s (norm-layer ?n ?x ?one) ?g)"], |m| {
            with_weight(m, "g", 1)
        }),
        guard: &[Conjunct {
            text: "the gain that is there is 1",
            holds: |m| m.is("one", 1.),
            counterexample: "axis e = 4   param @g: f32[e] param @h: f32[e]
fn @f(%x: f32[a, e]) -> f32[a, e] {
  %n = norm rms(eps = 1e-5) : %x[a, {e}], @h[e] -> [a, {e}]
  %s = map mul : %n[a, e], @g[e] -> [a, e]
  return %s
}",
        }],
        examples: &["axis e = 4   param @g: f32[e]
fn @f(%x: f32[a, e]) -> f32[a, e] {
  %one = map 1.0f32 : @g[e] -> [e]
  %n = norm rms(eps = 1e-5) : %x[a, {e}], %one[e] -> [a, {e}]
  %s = map mul : %n[a, e], @g[e] -> [a, e]
  return %s
}"],
    },
    Rule {
        name: "bias-into-norm",
        class: Class::Real,
        law: "layer(x; g) + b = layer(x; g, b)",
        source: "definition of biases",
        find: Find::Patterns(&["(add ?s (norm-layer ?n ?x ?g) ?b)"], |m| with_weight(m, "b", 2)),
        guard: &[],
        examples: &["axis e = 4   param @g: f32[e] param @b: f32[e]
fn @f(%x: f32[a, e]) -> f32[a, e] {
  %n = norm layer(eps = 1e-5) : %x[a, {e}], @g[e] -> [a, {e}]
  %s = map add : %n[a, e], @b[e] -> [a, e]
  return %s
}"],
    },
    Rule {
        name: "norm-of-scaled",
        class: Class::Real,
        law: "norm_e(c x) = norm_{e/c^2}(x) for c > 0",
        source: "normalisations are homogeneous of degree 0 but for epsilon",
        find: Find::Patterns(
            &[
                "(norm-layer ?n (mul ?t ?x ?c) ?g)",
                "(norm-layer ?n (mul ?t ?x ?c) ?g ?b)",
                "(norm-rms ?n (mul ?t ?x ?c) ?g)",
            ],
            |m| {
                let n = m.node("n");
                let c = m.literal("c")?.to_f64();
                let x = m.through(&[("n", 0), ("t", 0)], "x")?;
                rescaled(m, &n, x, epsilon(&n) / (c * c))
            },
        ),
        guard: &[Conjunct {
            text: "c is a number above 0",
            holds: |m| m.literal("c").is_some_and(|c| c.to_f64() > 0. && c.to_f64().is_finite()),
            counterexample: "axis e = 4   param @g: f32[e]
fn @f(%x: f32[a, e]) -> f32[a, e] {
  %c = map $0 * -3.0 : %x[a, e] -> [a, e]
  %n = norm layer(eps = 1e-5) : %c[a, {e}], @g[e] -> [a, {e}]
  return %n
}",
        }],
        examples: &["axis e = 4   param @g: f32[e]
fn @f(%x: f32[a, e]) -> f32[a, e] {
  %c = map $0 * 3.0 : %x[a, e] -> [a, e]
  %n = norm layer(eps = 1e-5) : %c[a, {e}], @g[e] -> [a, {e}]
  return %n
}"],
    },
    Rule {
        name: "norm-of-half-step",
        class: Class::Real,
        law: "norm_e(x + c y) = norm_{e/c^2}(x/c + y) for c > 0",
        source: "Macaron, post-norm: LN_e(x + F/2) = LN_4e(2x + F)",
        find: Find::Patterns(
            &["(norm-layer ?n (add ?t ?x (mul ?u ?y ?c)) ?g ?b)", "(norm-layer ?n (add ?t (mul ?u ?y ?c) ?x) ?g ?b)"],
            |m| {
                let (x_slot, y_slot) = if m.pattern == 0 { (0, 1) } else { (1, 0) };
                let (n, t) = (m.node("n"), m.node("t"));
                let c = m.literal("c")?.to_f64();
                let (x, y) = (m.read("t", x_slot, "x"), m.through(&[("t", y_slot), ("u", 0)], "y")?);
                let inverse = m.number("x", 1. / c);
                let scaled = build::binary(m.graph, &t, Binary::Multiply, x, inverse);
                let scaled = build::whole(&t, scaled);
                let sum = build::binary(m.graph, &t, Binary::Add, scaled, y);
                let sum = Read { value: sum, map: n.maps[0].clone() };
                rescaled(m, &n, sum, epsilon(&n) / (c * c))
            },
        ),
        guard: &[Conjunct {
            text: "c is a number above 0",
            holds: |m| m.literal("c").is_some_and(|c| c.to_f64() > 0. && c.to_f64().is_finite()),
            counterexample: "axis e = 4   param @g: f32[e]   param @b: f32[e]
fn @f(%x: f32[a, e], %y: f32[a, e]) -> f32[a, e] {
  %c = map $0 + $1 * -0.5 : %x[a, e], %y[a, e] -> [a, e]
  %n = norm layer(eps = 1e-5) : %c[a, {e}], @g[e], @b[e] -> [a, {e}]
  return %n
}",
        }],
        examples: &["axis e = 4   param @g: f32[e]   param @b: f32[e]
fn @f(%x: f32[a, e], %y: f32[a, e]) -> f32[a, e] {
  %c = map $0 + $1 * 0.5 : %x[a, e], %y[a, e] -> [a, e]
  %n = norm layer(eps = 1e-5) : %c[a, {e}], @g[e], @b[e] -> [a, {e}]
  return %n
}"],
    },
    Rule {
        name: "batch-norm-as-scale",
        class: Class::Real,
        law: "(x - m) / sqrt(v + eps) * g + b = x s + (b - m s), s = g / sqrt(v + eps)",
        source: "batch normalisation at inference is affine (Ioffe and Szegedy, 2015)",
        find: Find::Patterns(&["(norm-batch ?n ?x ?g ?b ?mean ?variance)"], |m| {
            let n = m.node("n");
            if !["g", "b", "mean", "variance"].iter().all(|name| m.facts(name).constant) {
                return None;
            }
            let map = n.maps[1].clone();
            let axes = distinct(&map)?;
            if n.maps[2..].iter().any(|other| *other != map) || mentions_none(&map, &n.outputs[0].variables) {
                return None;
            }
            let variables = axes.iter().map(|axis| n.variables[*axis as usize].clone()).collect();
            let element = m.facts("g").element();
            let frame = nameless(Op::View, variables, element, (0..axes.len() as u32).collect());
            let [gain, bias, mean, variance] =
                ["g", "b", "mean", "variance"].map(|name| build::whole(&frame, m.id(name)));
            let epsilon = m.number("g", epsilon(&n));
            let sum = build::binary(m.graph, &frame, Binary::Add, variance, epsilon);
            let root = build::unary(m.graph, &frame, Unary::ReciprocalSquareRoot, build::whole(&frame, sum));
            let scale = build::binary(m.graph, &frame, Binary::Multiply, gain, build::whole(&frame, root));
            let moved = build::binary(m.graph, &frame, Binary::Multiply, mean, build::whole(&frame, scale));
            let shift = build::binary(m.graph, &frame, Binary::Subtract, bias, build::whole(&frame, moved));
            let x = m.read("n", 0, "x");
            let scale = Read { value: scale, map: map.clone() };
            let scaled = build::binary(m.graph, &n, Binary::Multiply, x, scale);
            let scaled = build::whole(&n, scaled);
            Some(build::binary(m.graph, &n, Binary::Add, scaled, Read { value: shift, map }))
        }),
        guard: &[],
        examples: &["param @g: f32[b] param @b: f32[b] param @m: f32[b] param @variance: f32[b]
fn @f(%x: f32[a, b]) -> f32[a, b] {
  %n = norm batch(eps = 1e-5) : %x[a, b], @g[b], @b[b], @m[b], @variance[b] -> [a, b]
  return %n
}"],
    },
];

/// A normalisation with another first operand and epsilon.
fn rescaled(m: &mut Match, n: &Node, x: Read, epsilon: f64) -> Option<Id> {
    let Op::Norm { kind, over, epsilon: old } = &n.op else { return None };
    let epsilon = Literal::from_f64(old.element, epsilon);
    let node = Node { op: Op::Norm { kind: *kind, over: over.clone(), epsilon }, ..n.clone() };
    let mut reads = vec![x, m.read("n", 1, "g")];
    if n.maps.len() > 2 {
        reads.push(m.read("n", 2, "b"));
    }
    Some(build::add(m.graph, &node, reads))
}

/// A normalisation that takes over the gain or bias that a map applies to its result.
fn with_weight(m: &mut Match, weight: &str, slot: usize) -> Option<Id> {
    let (s, n) = (m.node("s"), m.node("n"));
    let places = positions(&s, 0, &n)?;
    let read = moved(&m.read("s", 1, weight), &places);
    let Op::Norm { over, .. } = &n.op else { return None };
    // A weight is applied along the normalised axes; planning reads it there.
    if !mentions_only(&read.map, over) || !m.facts(weight).constant {
        return None;
    }
    let mut node = Node::clone(&n);
    let mut reads = vec![m.read("n", 0, "x")];
    if slot == 2 {
        reads.push(m.read("n", 1, "g"));
    }
    reads.push(read);
    node.maps = reads.iter().map(|read| read.map.clone()).collect();
    let value = build::add(m.graph, &node, reads);
    let result = Read { value, map: s.maps[0].clone() };
    Some(m.view("s", result))
}
