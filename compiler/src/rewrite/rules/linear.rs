//! Linear rules: scales and sums through products into weights, products of products, sums of sums.

use super::broadcast::over_own_variables;
use super::parts::{
    combined, distinct, in_output_frame, instead, is_float, is_product_of_integers, moved, output_frame, positions,
    with_operands,
};
use crate::rewrite::{
    egraph::{Read, build, compose::compose},
    rule::{Class, Conjunct, Find, Match, Rule},
};
use egg::Id;
use strang_ir::{Axis, IndexExpr, IndexMap, Node, Op, scalar::Binary};

/// `s` multiplies the product `d` of `x` and `w` by `c`.
fn scale_into_weight(m: &mut Match) -> Option<Id> {
    if !m.facts("c").constant || !m.facts("w").constant || is_product_of_integers(m, "x", "w") {
        return None;
    }
    let (s, d) = (m.node("s"), m.node("d"));
    let places = positions(&s, 0, &d)?;
    let scale = moved(&m.read("s", 1, "c"), &places);
    let weight = combined(m.graph, &d, (1, m.id("w")), Binary::Multiply, &scale)?;
    let product = with_operands(m.graph, &d, &[m.id("x"), weight]);
    let read = instead(m, "s", 0, product);
    Some(m.view("s", read))
}

/// `d` is the product of `w` and `x * c`.
fn scale_before(m: &mut Match) -> Option<Id> {
    if !m.facts("c").constant || !m.facts("w").constant {
        return None;
    }
    let d = m.node("d");
    let (x, scale) = (m.through(&[("d", 0), ("t", 0)], "x")?, m.through(&[("d", 0), ("t", 1)], "c")?);
    let weight = combined(m.graph, &d, (1, m.id("w")), Binary::Multiply, &scale)?;
    let weight = instead(m, "d", 1, weight);
    Some(build::add(m.graph, &d, vec![x, weight]))
}

/// `d` is the product of `w` and `x + b`.
fn sum_before(m: &mut Match) -> Option<Id> {
    // Apart from profit: only a product of weights is free.
    if !m.facts("b").constant || !m.facts("w").constant {
        return None;
    }
    let d = m.node("d");
    let (x, b) = (m.through(&[("d", 0), ("t", 0)], "x")?, m.through(&[("d", 0), ("t", 1)], "b")?);
    let w = m.read("d", 1, "w");
    let product = build::add(m.graph, &d, vec![x, w.clone()]);
    let constant = smaller_product(m, &d, b, w)?;
    let (frame, constant) = (output_frame(&d), in_output_frame(&d, &constant)?);
    let product = build::whole(&frame, product);
    Some(build::binary(m.graph, &frame, Binary::Add, product, constant))
}

/// A product over those output variables alone that its operands mention, read in the variables of the node.
fn smaller_product(m: &mut Match, d: &Node, a: Read, b: Read) -> Option<Read> {
    let output = &d.outputs[0].variables;
    let kept: Vec<u32> = (0..d.variables.len() as u32)
        .filter(|v| !output.contains(v) || a.map.mentions(*v) || b.map.mentions(*v))
        .collect();
    // A contracted variable that neither mentions would still count its positions.
    let place = |variable: u32| kept.iter().position(|v| *v == variable).unwrap_or_default() as u32;
    let axes: Vec<u32> = output.iter().copied().filter(|v| kept.contains(v)).collect();
    let mut node = d.clone();
    node.variables = kept.iter().map(|v| d.variables[*v as usize].clone()).collect();
    node.outputs[0].variables = axes.iter().map(|v| place(*v)).collect();
    let reads = [a, b].map(|read| Read { value: read.value, map: read.map.renumbered(&place) });
    let value = build::add(m.graph, &node, reads.into());
    Some(Read { value, map: IndexMap::of_variables(axes) })
}

/// The two nodes are one product but for one operand, and are added position by position.
fn same_products(m: &Match, slot: usize) -> bool {
    let (s, d, e) = (m.node("s"), m.node("d"), m.node("e"));
    s.maps[0] == s.maps[1]
        && d.op == e.op
        && d.outputs[0].variables == e.outputs[0].variables
        && d.outputs[0].element == e.outputs[0].element
        && d.variables.len() == e.variables.len()
        && d.variables.iter().zip(&e.variables).all(|(a, b)| a.size() == b.size())
        && d.maps[1 - slot] == e.maps[1 - slot]
}

pub const RULES: &[Rule] = &[
    Rule {
        name: "scale-into-weight",
        class: Class::Real,
        law: "(x w) c = x (w c), for c that varies along axes of w alone",
        source: "linearity; batch normalisation after a convolution (Jacob et al., 2018)",
        find: Find::Patterns(&["(mul ?s (dot ?d ?x ?w) ?c)"], scale_into_weight),
        guard: &[Conjunct {
            text: "the elements are floats: integers would wrap",
            holds: |m| is_float(m, "w") && is_float(m, "x"),
            counterexample: "param @w: i8[b, c]
fn @f(%x: i8[a, b]) -> i32[a, c] {
  %p = dot %x[a, {b}], @w[{b}, c] -> [a, c]
  %r = map $0 * 100 : %p[a, c] -> [a, c]
  return %r
}",
        }],
        examples: &[
            "param @w: f32[b, c] param @c: f32[c]
fn @f(%x: f32[a, b]) -> f32[a, c] {
  %p = dot %x[a, {b}], @w[{b}, c] -> [a, c]
  %r = map mul : %p[a, c], @c[c] -> [a, c]
  return %r
}",
            "param @w: f32[b, c]
fn @f(%x: f32[a, b]) -> f32[c, a] {
  %p = dot %x[a, {b}], @w[{b}, c] -> [a, c]
  %r = map $0 * 0.5 : %p[a, c] -> [c, a]
  return %r
}",
        ],
    },
    Rule {
        name: "scale-before-product",
        class: Class::Real,
        law: "(x c) w = x (c w), for c that varies along axes of w alone",
        source: "linearity; the gain of a normalisation into the layer that follows",
        find: Find::Patterns(&["(dot ?d (mul ?t ?x ?c) ?w)"], scale_before),
        guard: &[Conjunct {
            text: "the elements are floats: integers would wrap",
            holds: |m| is_float(m, "x"),
            counterexample: "param @w: i8[b, c]
fn @f(%x: i8[a, b]) -> i32[a, c] {
  %g = map $0 * 100 : %x[a, b] -> [a, b]
  %r = dot %g[a, {b}], @w[{b}, c] -> [a, c]
  return %r
}",
        }],
        examples: &["param @w: f32[b, c] param @c: f32[b]
fn @f(%x: f32[a, b]) -> f32[a, c] {
  %g = map mul : %x[a, b], @c[b] -> [a, b]
  %r = dot %g[a, {b}], @w[{b}, c] -> [a, c]
  return %r
}"],
    },
    Rule {
        name: "sum-before-product",
        class: Class::Real,
        law: "(x + b) w = x w + b w",
        source: "linearity; the bias of a normalisation into the layer that follows",
        find: Find::Patterns(&["(dot ?d (add ?t ?x ?b) ?w)"], sum_before),
        guard: &[Conjunct {
            text: "the elements are floats: integers would wrap",
            holds: |m| is_float(m, "x"),
            counterexample: "param @w: i8[b, c]
fn @f(%x: i8[a, b]) -> i32[a, c] {
  %g = map $0 + 125 : %x[a, b] -> [a, b]
  %r = dot %g[a, {b}], @w[{b}, c] -> [a, c]
  return %r
}",
        }],
        examples: &["param @w: f32[b, c] param @b: f32[b]
fn @f(%x: f32[a, b]) -> f32[a, c] {
  %g = map add : %x[a, b], @b[b] -> [a, b]
  %r = dot %g[a, {b}], @w[{b}, c] -> [a, c]
  return %r
}"],
    },
    Rule {
        name: "sum-of-products-of-one-input",
        class: Class::Real,
        law: "x v + x w = x (v + w)",
        source: "distributivity",
        find: Find::Patterns(&["(add ?s (dot ?d ?x ?v) (dot ?e ?x ?w))"], |m| {
            if !m.facts("v").constant || !m.facts("w").constant {
                return None;
            }
            let d = m.node("d");
            let other = m.read("e", 1, "w");
            let sum = combined(m.graph, &d, (1, m.id("v")), Binary::Add, &other)?;
            let product = with_operands(m.graph, &d, &[m.id("x"), sum]);
            let read = instead(m, "s", 0, product);
            Some(m.view("s", read))
        }),
        guard: &[
            Conjunct {
                text: "both read x alike and sum alike",
                holds: |m| same_products(m, 1),
                counterexample: "param @v: f32[b, b] param @w: f32[b, b]
fn @f(%x: f32[b, b]) -> f32[b, b] {
  %p = dot %x[b, {b'}], @v[{b'}, b''] -> [b, b'']
  %q = dot %x[{b'}, b], @w[{b'}, b''] -> [b, b'']
  %r = map add : %p[b, b'], %q[b, b'] -> [b, b']
  return %r
}",
            },
            Conjunct {
                text: "the elements are floats: integers would wrap",
                holds: |m| is_float(m, "x"),
                counterexample: "param @v: i8[b, c] param @w: i8[b, c]
fn @f(%x: i8[a, b]) -> i32[a, c] {
  %v = map $0 * 20 : @v[b, c] -> [b, c]
  %w = map $0 * 20 : @w[b, c] -> [b, c]
  %p = dot %x[a, {b}], %v[{b}, c] -> [a, c]
  %q = dot %x[a, {b}], %w[{b}, c] -> [a, c]
  %r = map add : %p[a, c], %q[a, c] -> [a, c]
  return %r
}",
            },
        ],
        examples: &[
            "param @v: f32[b, c] param @w: f32[b, c]
fn @f(%x: f32[a, b]) -> f32[a, c] {
  %p = dot %x[a, {b}], @v[{b}, c] -> [a, c]
  %q = dot %x[a, {b}], @w[{b}, c] -> [a, c]
  %r = map add : %p[a, c], %q[a, c] -> [a, c]
  return %r
}",
            "axis k = 1   param @v: f32[c, b, k] param @w: f32[c, b, k]
fn @f(%x: f32[a, b]) -> f32[a, c] {
  %p = dot %x[a, {b}], @v[c, {b}, 0] -> [a, c]
  %q = dot %x[a, {b}], @w[c, {b}, 0] -> [a, c]
  %r = map add : %p[a, c], %q[a, c] -> [a, c]
  return %r
}",
        ],
    },
    Rule {
        name: "sum-of-products-with-one-weight",
        class: Class::Real,
        law: "x w + y w = (x + y) w",
        source: "distributivity",
        find: Find::Patterns(&["(add ?s (dot ?d ?x ?w) (dot ?e ?y ?w))"], |m| {
            let d = m.node("d");
            let other = m.read("e", 0, "y");
            let sum = combined(m.graph, &d, (0, m.id("x")), Binary::Add, &other)?;
            let product = with_operands(m.graph, &d, &[sum, m.id("w")]);
            let read = instead(m, "s", 0, product);
            Some(m.view("s", read))
        }),
        guard: &[
            Conjunct {
                text: "both read w alike and sum alike",
                holds: |m| same_products(m, 0),
                counterexample: "param @w: f32[b, b]
fn @f(%x: f32[b, b], %y: f32[b, b]) -> f32[b, b] {
  %p = dot %x[b, {b'}], @w[{b'}, b''] -> [b, b'']
  %q = dot %y[b, {b'}], @w[b'', {b'}] -> [b, b'']
  %r = map add : %p[b, b'], %q[b, b'] -> [b, b']
  return %r
}",
            },
            Conjunct {
                text: "the elements are floats: integers would wrap",
                holds: |m| is_float(m, "x"),
                counterexample: "param @w: i8[b, c]
fn @f(%x: i8[a, b], %y: i8[a, b]) -> i32[a, c] {
  %v = map $0 * 20 : %x[a, b] -> [a, b]
  %u = map $0 * 20 : %y[a, b] -> [a, b]
  %p = dot %v[a, {b}], @w[{b}, c] -> [a, c]
  %q = dot %u[a, {b}], @w[{b}, c] -> [a, c]
  %r = map add : %p[a, c], %q[a, c] -> [a, c]
  return %r
}",
            },
        ],
        examples: &["param @w: f32[b, c]
fn @f(%x: f32[a, b], %y: f32[a, b]) -> f32[a, c] {
  %p = dot %x[a, {b}], @w[{b}, c] -> [a, c]
  %q = dot %y[a, {b}], @w[{b}, c] -> [a, c]
  %r = map add : %p[a, c], %q[a, c] -> [a, c]
  return %r
}"],
    },
    Rule {
        name: "scale-of-sum",
        class: Class::Real,
        law: "(x + b) c = x c + b c",
        source: "distributivity",
        find: Find::Patterns(&["(mul ?s (add ?t ?x ?b) ?c)"], |m| {
            if !m.facts("b").constant || !m.facts("c").constant {
                return None;
            }
            let (x, b) = (m.through(&[("s", 0), ("t", 0)], "x")?, m.through(&[("s", 0), ("t", 1)], "b")?);
            let c = m.read("s", 1, "c");
            let s = m.node("s");
            let scaled = m.binary("s", Binary::Multiply, x, c.clone());
            let bias = over_own_variables(m.graph, &s, Binary::Multiply, b, c);
            let scaled = m.whole("s", scaled);
            Some(m.binary("s", Binary::Add, scaled, bias))
        }),
        guard: &[],
        examples: &["param @b: f32[b]
fn @f(%x: f32[a, b]) -> f32[a, b] {
  %p = map add : %x[a, b], @b[b] -> [a, b]
  %r = map $0 * 0.3 : %p[a, b] -> [a, b]
  return %r
}"],
    },
    Rule {
        name: "biases-of-sum",
        class: Class::Real,
        law: "(x + a) + (y + b) = (x + y) + (a + b), for constants a and b",
        source: "associativity; so that products of one input meet, each with a bias",
        find: Find::Patterns(&["(add ?s (add ?t ?x ?a) (add ?u ?y ?b))"], |m| {
            let constant = |name: &str| m.facts(name).constant;
            if !constant("a") || !constant("b") || constant("x") || constant("y") {
                return None;
            }
            let (x, a) = (m.through(&[("s", 0), ("t", 0)], "x")?, m.through(&[("s", 0), ("t", 1)], "a")?);
            let (y, b) = (m.through(&[("s", 1), ("u", 0)], "y")?, m.through(&[("s", 1), ("u", 1)], "b")?);
            let s = m.node("s");
            let both = over_own_variables(m.graph, &s, Binary::Add, a, b);
            let sum = m.binary("s", Binary::Add, x, y);
            let sum = m.whole("s", sum);
            Some(m.binary("s", Binary::Add, sum, both))
        }),
        guard: &[],
        examples: &["param @a: f32[b] param @b: f32[b]
fn @f(%x: f32[a, b], %y: f32[a, b]) -> f32[a, b] {
  %p = map add : %x[a, b], @a[b] -> [a, b]
  %q = map add : %y[a, b], @b[b] -> [a, b]
  %r = map add : %p[a, b], %q[a, b] -> [a, b]
  return %r
}"],
    },
    Rule {
        name: "scales-together",
        class: Class::Real,
        law: "(x a) b = x (a b), for constants a and b",
        source: "associativity",
        find: Find::Patterns(&["(mul ?s (mul ?t ?x ?a) ?b)"], |m| {
            let is_number = |name: &str| m.literal(name).is_some();
            if !m.facts("a").constant || !m.facts("b").constant || m.facts("x").constant {
                return None;
            }
            // Two numbers have a rule of their own; elements of integers wrap alike, but have no kernel to gain.
            if is_number("a") && is_number("b") || !is_float(m, "x") {
                return None;
            }
            let (x, a) = (m.through(&[("s", 0), ("t", 0)], "x")?, m.through(&[("s", 0), ("t", 1)], "a")?);
            let b = m.read("s", 1, "b");
            let s = m.node("s");
            let both = over_own_variables(m.graph, &s, Binary::Multiply, a, b);
            Some(m.binary("s", Binary::Multiply, x, both))
        }),
        guard: &[],
        examples: &["param @a: f32[b]
fn @f(%x: f32[a, b]) -> f32[a, b] {
  %p = map $0 * 0.3 : %x[a, b] -> [a, b]
  %r = map mul : %p[a, b], @a[b] -> [a, b]
  return %r
}"],
    },
    Rule {
        name: "sum-of-scaled",
        class: Class::Real,
        law: "sum(x c) = (sum x) c, for c that does not vary along the sum",
        source: "distributivity",
        find: Find::Patterns(&["(reduce-sum ?s (mul ?t ?x ?c))"], |m| {
            let (x, c) = (m.through(&[("s", 0), ("t", 0)], "x")?, m.through(&[("s", 0), ("t", 1)], "c")?);
            let s = m.node("s");
            let sum = build::add(m.graph, &s, vec![x]);
            // What does not vary along the sum is what the output's frame can read.
            let (kept, c) = (output_frame(&s), in_output_frame(&s, &c)?);
            let sum = build::whole(&kept, sum);
            Some(build::binary(m.graph, &kept, Binary::Multiply, sum, c))
        }),
        guard: &[],
        examples: &["fn @f(%x: f32[a, b]) -> f32[a] {
  %p = map $0 * 0.3 : %x[a, b] -> [a, b]
  %r = reduce sum : %p[a, {b}] -> [a]
  return %r
}"],
    },
    Rule {
        name: "sum-of-sums",
        class: Class::Real,
        law: "the sum of sums is the sum over both axes",
        source: "Fubini's theorem for finite sums",
        find: Find::Patterns(&["(reduce-sum ?s (reduce-sum ?t ?x))"], nested),
        guard: &[],
        examples: &["fn @f(%x: f32[a, b, c]) -> f32[a] {
  %p = reduce sum : %x[a, b, {c}] -> [a, b]
  %r = reduce sum : %p[a, {b}] -> [a]
  return %r
}"],
    },
    Rule {
        name: "extremum-of-extrema",
        class: Class::Bit,
        law: "the maximum of maxima is the maximum over both axes; so for minima",
        source: "associativity of folds",
        find: Find::Patterns(&["(reduce-max ?s (reduce-max ?t ?x))", "(reduce-min ?s (reduce-min ?t ?x))"], nested),
        guard: &[],
        examples: &["fn @f(%x: f32[a, b, c]) -> f32[a] {
  %p = reduce max : %x[a, b, {c}] -> [a, b]
  %r = reduce max : %p[a, {b}] -> [a]
  return %r
}"],
    },
    Rule {
        name: "sum-of-product",
        class: Class::Real,
        law: "the sum of a product's results is a product summed over more",
        source: "Fubini's theorem for finite sums",
        find: Find::Patterns(&["(reduce-sum ?s (dot ?t ?x ?w))"], nested),
        guard: &[],
        examples: &["fn @f(%x: f32[a, b], %y: f32[b, c]) -> f32[a] {
  %p = dot %x[a, {b}], %y[{b}, c] -> [a, c]
  %r = reduce sum : %p[a, {c}] -> [a]
  return %r
}"],
    },
    Rule {
        name: "scale-beside-sum",
        class: Class::Real,
        law: "x (y c) = (x y) c, for a number c",
        source: "associativity",
        find: Find::Patterns(&["(mul ?s ?x (mul ?t ?y ?c))", "(mul ?s (mul ?t ?y ?c) ?x)"], |m| {
            if m.literal("c").is_none() || m.facts("x").constant {
                return None;
            }
            let (own, other) = if m.pattern == 0 { (1, 0) } else { (0, 1) };
            let y = m.through(&[("s", own), ("t", 0)], "y")?;
            let x = m.read("s", other, "x");
            let c = Read::number(build::number(m.graph, m.literal("c")?));
            let product =
                if own == 1 { m.binary("s", Binary::Multiply, x, y) } else { m.binary("s", Binary::Multiply, y, x) };
            let product = m.whole("s", product);
            Some(m.binary("s", Binary::Multiply, product, c))
        }),
        guard: &[],
        examples: &["$0 * ($1 * 0.5)", "($0 * 0.3) * $1"],
    },
];

/// An outer reduction of an inner reduction or product, as one: the outer's contracted variables come first.
fn nested(m: &mut Match) -> Option<Id> {
    let (s, t) = (m.node("s"), m.node("t"));
    let read = distinct(&s.maps[0])?;
    let mut places = vec![0; t.variables.len()];
    for (variable, axis) in read.iter().zip(&t.outputs[0].variables) {
        if s.size_of(*variable) != t.size_of(*axis) {
            return None;
        }
        places[*axis as usize] = *variable;
    }
    let mut variables = s.variables.clone();
    for variable in t.contracted() {
        places[variable as usize] = variables.len() as u32;
        variables.push(t.variables[variable as usize].clone());
    }
    let node = Node { op: t.op.clone(), variables, ..Node::clone(&s) };
    let place = |variable: u32| places[variable as usize];
    let names: &[&str] = if matches!(t.op, Op::Dot { .. }) { &["x", "w"] } else { &["x"] };
    let maps: Vec<IndexMap> = t.maps.iter().map(|map| map.renumbered(&place)).collect();
    let inner = s.variables.len() as u32;
    let (node, maps) = match s.contracted().last() {
        Some(outer) => joined(&node, &maps, *outer, inner).unwrap_or((node, maps)),
        None => (node, maps),
    };
    let reads = names.iter().zip(maps).map(|(name, map)| Read { value: m.id(name), map }).collect();
    Some(build::add(m.graph, &node, reads))
}

/// A node summed over one variable in the place of two that follow each other in the order of summation, where its reads
/// tell them apart no more: parts of a sum put together are the sum that they were cut from.
fn joined(node: &Node, maps: &[IndexMap], outer: u32, inner: u32) -> Option<(Node, Vec<IndexMap>)> {
    if !node.contracted().contains(&inner) {
        return None;
    }
    let length = node.size_of(inner);
    let mut new = node.clone();
    new.variables[outer as usize].axis = Axis::new("", node.size_of(outer) * length.clone());
    new.variables.remove(inner as usize);
    let size = |variable: u32| new.size_of(variable);
    let position = |variable: u32| {
        let both = IndexExpr::variable(outer);
        match variable {
            v if v == outer => both.floor_div(&length, &size),
            v if v == inner => both.remainder(&length, &size),
            v => IndexExpr::variable(v - u32::from(v > inner)),
        }
    };
    let positions: Vec<IndexExpr> = (0..node.variables.len() as u32).map(position).collect();
    let maps: Vec<IndexMap> = maps.iter().map(|map| compose(map, &positions, &size)).collect();
    let is_simple = |map: &IndexMap| map.conditions.is_empty() && map.exprs.iter().all(IndexExpr::is_affine);
    maps.iter().all(is_simple).then_some((new, maps))
}
