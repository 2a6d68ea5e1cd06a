//! Normalisation beside products: gain and bias go forward into the product that reads it, and the centring of its input back into
//! the product before.

use super::parts::{
    combined, in_output_frame, instead, is_float, mentions_none, output_frame, product_over, whole_axes, with_operands,
};
use super::views::positions_of;
use crate::rewrite::{
    egraph::{
        Read,
        build::{self, nameless},
    },
    rule::{Class, Conjunct, Find, Match, Rule},
    search::cost::estimate,
};
use egg::Id;
use strang_ir::{
    IndexMap, Node, Op, Output,
    op::{Monoid, Norm},
    scalar::Binary,
};

/// `d` is the product of a normalisation `n` with gain `g`, and bias `b` where there is one, and of `w`.
fn gain_forward(m: &mut Match) -> Option<Id> {
    let constants = ["g", "b", "w"];
    if constants.iter().any(|name| m.has(name) && !m.facts(name).constant) || m.is("g", 1.) && !m.has("b") {
        return None;
    }
    let (d, n) = (m.node("d"), m.node("n"));
    // Apart from profit: weights stay as they lie in their file where there are more of them than of what a gain multiplies.
    let weights: f64 = m.facts("w").shape().iter().map(estimate).product();
    if weights > positions_of(&n) {
        return None;
    }
    let contracted = d.contracted();
    if d.maps.iter().any(|map| map.fill.is_some()) || !contracted.iter().all(|v| d.maps[1].mentions(*v)) {
        return None;
    }
    let gain = m.through(&[("d", 0), ("n", 1)], "g")?;
    let weight = combined(m.graph, &d, (1, m.id("w")), Binary::Multiply, &gain)?;
    // The normalisation by itself.
    let (x, one) = (m.read("n", 0, "x"), m.number("g", 1.));
    let maps = vec![x.map.clone(), one.map.clone()];
    let plain = build::add(m.graph, &Node { maps: maps.into(), ..Node::clone(&n) }, vec![x, one]);
    let value = with_operands(m.graph, &d, &[plain, weight]);
    if !m.has("b") {
        return Some(value);
    }
    let bias = m.through(&[("d", 0), ("n", 2)], "b")?;
    let w = m.read("d", 1, "w");
    let own: Vec<u32> = (0..d.variables.len() as u32).filter(|v| bias.map.mentions(*v) || w.map.mentions(*v)).collect();
    let kept: Vec<u32> = own.iter().copied().filter(|v| !contracted.contains(v)).collect();
    let bias = product_over(m, (&d.variables, &own), &kept, [bias, w]);
    let (frame, bias) =
        (output_frame(&d), in_output_frame(&d, &Read { value: bias, map: IndexMap::of_variables(kept) })?);
    let value = build::whole(&frame, value);
    Some(build::binary(m.graph, &frame, Binary::Add, value, bias))
}

/// `n` is the layer normalisation of the product `d` of `x` and `w`.
fn centring_back(m: &mut Match) -> Option<Id> {
    if !m.facts("w").constant || !is_float(m, "w") {
        return None;
    }
    let (d, n) = (m.node("d"), m.node("n"));
    let Op::Norm { over, epsilon, .. } = n.op.clone() else { return None };
    let [along] = over[..] else { return None };
    let axis = n.maps[0].exprs.iter().position(|expression| expression.as_variable() == Some(along))?;
    if n.maps[0].fill.is_some() || n.maps[0].exprs.iter().filter(|other| other.mentions(along)).count() != 1 {
        return None;
    }
    let column = d.outputs[0].variables[axis];
    let count = d.size_of(column).as_constant().filter(|_| d.size_of(column) == n.size_of(along))?;
    // The weights less their mean along what is normalised.
    let axes = whole_axes(m.graph, &d, 1, m.id("w")).filter(|axes| axes.contains(&column))?;
    let place = |variable: u32| axes.iter().position(|axis| *axis == variable).unwrap_or_default() as u32;
    let variables = axes.iter().map(|axis| d.variables[*axis as usize].clone()).collect();
    let element = m.facts("w").element();
    let frame = nameless(Op::View, variables, element, (0..axes.len() as u32).collect());
    let kept: Vec<u32> = (0..axes.len() as u32).filter(|variable| *variable != place(column)).collect();
    let outputs = vec![Output { variables: kept.clone(), ..frame.outputs[0].clone() }];
    let sum = Node { op: Op::Reduce(Monoid::Sum), outputs, ..frame.clone() };
    let (own, share) = (build::whole(&frame, m.id("w")), m.number("w", 1. / count as f64));
    let sum = build::add(m.graph, &sum, vec![own.clone()]);
    let sum = Read { value: sum, map: IndexMap::of_variables(kept) };
    let mean = build::binary(m.graph, &frame, Binary::Multiply, sum, share);
    let mean = build::whole(&frame, mean);
    let centred = build::binary(m.graph, &frame, Binary::Subtract, own, mean);
    let value = with_operands(m.graph, &d, &[m.id("x"), centred]);
    let (value, gain) = (instead(m, "n", 0, value), m.read("n", 1, "g"));
    let op = Op::Norm { kind: Norm::Rms, over, epsilon };
    let maps = vec![value.map.clone(), gain.map.clone()];
    let value = build::add(m.graph, &Node { op, maps: maps.into(), ..Node::clone(&n) }, vec![value, gain]);
    if !m.has("b") {
        return Some(value);
    }
    let bias = m.read("n", 2, "b");
    let value = m.whole("n", value);
    Some(m.binary("n", Binary::Add, value, bias))
}

/// Whether what the normalisation is over is an axis of the weights alone.
fn input_has_no_column(m: &Match) -> bool {
    let (d, n) = (m.node("d"), m.node("n"));
    let Op::Norm { over, .. } = &n.op else { return false };
    let axis = n.maps[0].exprs.iter().position(|expression| over.iter().any(|v| expression.mentions(*v)));
    axis.is_some_and(|axis| mentions_none(&d.maps[0], &[d.outputs[0].variables[axis]]))
}

/// The exact rules.
pub const RULES: &[Rule] = &[
    Rule {
        name: "gain-into-product",
        class: Class::Real,
        law: "norm(x; g, b) w = norm(x; 1) (g w) + b w",
        source: "linearity; gain and bias of a normalisation go into the layer that follows",
        find: Find::Patterns(
            &[
                "(dot ?d (norm-layer ?n ?x ?g) ?w)",
                "(dot ?d (norm-layer ?n ?x ?g ?b) ?w)",
                "(dot ?d (norm-rms ?n ?x ?g) ?w)",
            ],
            gain_forward,
        ),
        guard: &[],
        examples: &[
            "axis e = 4   param @g: f32[e] param @w: f32[e, c]
fn @f(%x: f32[a, b, d, e]) -> f32[a, b, d, c] {
  %n = norm rms(eps = 1e-5) : %x[a, b, d, {e}], @g[e] -> [a, b, d, {e}]
  %r = dot %n[a, b, d, {e}], @w[{e}, c] -> [a, b, d, c]
  return %r
}",
            "axis e = 4   param @g: f32[e] param @b: f32[e] param @w: f32[c, e]
fn @f(%x: f32[a, b, d, e]) -> f32[b, c, a, d] {
  %n = norm layer(eps = 1e-5) : %x[a, b, d, {e}], @g[e], @b[e] -> [a, b, d, {e}]
  %r = dot %n[a, b, d, {e}], @w[c, {e}] -> [b, c, a, d]
  return %r
}",
        ],
    },
    Rule {
        name: "centring-into-product",
        class: Class::Real,
        law: "layer(x w; g, b) = rms(x (w - mean w); g) + b",
        source: "the mean over a product's results is linear; Ashkboos et al., 2024, SliceGPT, section 3.2",
        find: Find::Patterns(
            &["(norm-layer ?n (dot ?d ?x ?w) ?g)", "(norm-layer ?n (dot ?d ?x ?w) ?g ?b)"],
            centring_back,
        ),
        guard: &[Conjunct {
            text: "what is normalised over is an axis of the weights alone",
            holds: input_has_no_column,
            counterexample: "axis e = 4   param @g: f32[e] param @w: f32[b, e]
fn @f(%x: f32[a, b, e]) -> f32[a, e] {
  %d = dot %x[a, {b}, e], @w[{b}, e] -> [a, e]
  %n = norm layer(eps = 1e-5) : %d[a, {e}], @g[e] -> [a, {e}]
  return %n
}",
        }],
        examples: &[
            "axis e = 4   param @g: f32[e] param @w: f32[b, e]
fn @f(%x: f32[a, b]) -> f32[a, e] {
  %d = dot %x[a, {b}], @w[{b}, e] -> [a, e]
  %n = norm layer(eps = 1e-5) : %d[a, {e}], @g[e] -> [a, {e}]
  return %n
}",
            "axis e = 4   param @g: f32[e] param @b: f32[e] param @w: f32[c, e, d]
fn @f(%x: f32[a, d]) -> f32[a, c, e] {
  %d = dot %x[a, {d}], @w[c, e, {d}] -> [a, c, e]
  %n = norm layer(eps = 1e-5) : %d[a, c, {e}], @g[e], @b[e] -> [a, c, {e}]
  return %n
}",
        ],
    },
];
