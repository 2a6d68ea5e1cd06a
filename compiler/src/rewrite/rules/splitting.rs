//! Splitting and joining: products along contracted and output axes, folds over parts, feed-forward layers along their
//! hidden axis.

use super::{
    broadcast::over_own_variables,
    parts::{
        combined, distinct, instead, is_float, is_product_of_integers, moved, output_frame, positions, whole_axes,
        with_operands,
    },
};
use crate::plan::trace::variable_positions;
use crate::rewrite::{
    egraph::{
        Graph, Read,
        build::{self, nameless},
        signature::same_shape,
    },
    rule::{Class, Conjunct, Find, Match, Rule},
};
use egg::Id;
use strang_ir::{Axis, IndexExpr, IndexMap, Node, Op, Size, Variable, scalar::Binary};

/// The axis of a concatenation's result that it is along, and where its parts start.
pub fn parts(node: &Node) -> Option<(usize, Vec<Size>)> {
    let Op::Concat { along, offsets } = &node.op else { return None };
    let axis = node.outputs[0].variables.iter().position(|v| v == along)?;
    Some((axis, offsets.clone()))
}

/// A part of a concatenation, where a reader reads the whole through a map: the reader's variable at the joined axis is
/// `variable` and now runs over the part alone.
pub fn part_read(concat: &Node, part: usize, reader: &IndexMap, value: Id) -> Option<Read> {
    let Op::Concat { along, offsets } = &concat.op else { return None };
    // Each part is read at `along - offset`; over the part alone, at the variable itself.
    let mut positions = variable_positions(concat, 0, &reader.exprs);
    positions[*along as usize] = positions[*along as usize].plus_size(&offsets[part]);
    let own = concat.maps[part].exprs.iter().map(|expression| replaced(expression, &|v| positions[v as usize].clone()));
    Some(Read { value, map: IndexMap::new(own.collect()) })
}

/// A node in which a variable has another size.
pub fn resized(node: &Node, variable: u32, size: &Size) -> Node {
    let mut node = node.clone();
    let place: &mut Variable = &mut node.variables[variable as usize];
    place.axis = Axis::new(place.axis.name.clone(), size.clone());
    node
}

/// The variable of a reader at the joined axis of a concatenation in a slot, where the reader reads it plainly.
pub fn joined_variable(reader: &Node, slot: usize, concat: &Node) -> Option<u32> {
    let (axis, _) = parts(concat)?;
    let variable = distinct(&reader.maps[slot])?.get(axis).copied()?;
    (reader.size_of(variable) == concat.shape(0)[axis]).then_some(variable)
}

/// The read of an operand whose variable is moved by an offset: the part of it beside a part of a concatenation.
pub fn beside(map: &IndexMap, variable: u32, offset: &Size) -> IndexMap {
    let position = |v: u32| {
        let position = IndexExpr::variable(v);
        if v == variable { position.plus_size(offset) } else { position }
    };
    IndexMap::new(map.exprs.iter().map(|expression| replaced(expression, &position)).collect())
}

/// An expression with an expression for each variable, inside quotients and tables too.
fn replaced(expression: &IndexExpr, position: &dyn Fn(u32) -> IndexExpr) -> IndexExpr {
    expression.substitute(position, &|slot| slot, &|_| Size::symbol("unknown"))
}

/// A product or fold over a joined axis, as the sum or fold of those over the parts.
fn over_parts(m: &mut Match, function: Binary) -> Option<Id> {
    let (d, c) = (m.node("d"), m.node("c"));
    let joined = joined_variable(&d, 0, &c)?;
    let (_, offsets) = parts(&c)?;
    let mut values = Vec::new();
    for (part, name) in ["x", "y"].into_iter().enumerate() {
        let size = &offsets[part + 1] - &offsets[part];
        let node = resized(&d, joined, &size);
        let mut reads = vec![part_read(&c, part, &d.maps[0], m.id(name))?];
        if m.has("w") {
            reads.push(Read { value: m.id("w"), map: beside(&d.maps[1], joined, &offsets[part]) });
        }
        values.push(build::add(m.graph, &node, reads));
    }
    let frame = output_frame(&d);
    let [first, second] = [values[0], values[1]].map(|value| build::whole(&frame, value));
    Some(build::binary(m.graph, &frame, function, first, second))
}

fn is_contracted(m: &Match) -> bool {
    let (d, c) = (m.node("d"), m.node("c"));
    joined_variable(&d, 0, &c).is_some_and(|variable| d.contracted().contains(&variable))
}

/// Two values side by side along a variable that both read at.
pub fn joined(
    graph: &mut Graph,
    node: &Node,
    slot: usize,
    variable: u32,
    values: [Id; 2],
    sizes: &[Size; 2],
) -> Option<Id> {
    let axes = distinct(&node.maps[slot])?;
    let along = axes.iter().position(|axis| *axis == variable)? as u32;
    let offsets = vec![Size::ZERO, sizes[0].clone(), &sizes[0] + &sizes[1]];
    let variables = axes.iter().map(|axis| node.variables[*axis as usize].clone()).collect();
    let element = graph[values[0]].data.element();
    let concat =
        nameless(Op::Concat { along, offsets: offsets.clone() }, variables, element, (0..axes.len() as u32).collect());
    let concat = resized(&concat, along, &offsets[2]);
    let reads = values.into_iter().zip(&offsets).map(|(value, offset)| {
        let exprs = (0..axes.len() as u32).map(|axis| {
            let position = IndexExpr::variable(axis);
            if axis == along { position.plus_size(&(&Size::ZERO - offset)) } else { position }
        });
        Read { value, map: IndexMap::new(exprs.collect()) }
    });
    let reads = reads.collect();
    Some(build::add(graph, &concat, reads))
}

pub const RULES: &[Rule] = &[
    Rule {
        name: "product-over-joined-axis",
        class: Class::Real,
        law: "[x y] w = x w_1 + y w_2",
        source: "block matrix products; splitting along a contracted axis",
        find: Find::Patterns(&["(dot ?d (concat ?c ?x ?y) ?w)"], |m| over_parts(m, Binary::Add)),
        guard: &[
            Conjunct {
                text: "the joined axis is summed over",
                holds: is_contracted,
                counterexample: "axis e = 2 * a   param @w: f32[c]
fn @f(%x: f32[a, c], %y: f32[a, c]) -> f32[e] {
  %c = concat along e : %x[e, c], %y[e - |a|, c] -> [e, c]
  %d = dot %c[e, {c}], @w[{c}] -> [e]
  return %d
}",
            },
            Conjunct {
                text: "w is read without fill",
                holds: |m| m.node("d").maps.iter().all(|map| map.fill.is_none()),
                counterexample: "axis e = 2 * a   param @w: f32[a]
fn @f(%x: f32[a], %y: f32[a]) -> f32[] {
  %c = concat along e : %x[e], %y[e - |a|] -> [e]
  %d = dot %c[{e}], @w[{e}] else 0 -> []
  return %d
}",
            },
        ],
        examples: &["axis e = a + b   param @w: f32[e, c]
fn @f(%x: f32[d, a], %y: f32[d, b]) -> f32[d, c] {
  %c = concat along e : %x[d, e], %y[d, e - |a|] -> [d, e]
  %d = dot %c[d, {e}], @w[{e}, c] -> [d, c]
  return %d
}"],
    },
    Rule {
        name: "sum-over-joined-axis",
        class: Class::Real,
        law: "sum [x y] = sum x + sum y",
        source: "associativity of folds",
        find: Find::Patterns(&["(reduce-sum ?d (concat ?c ?x ?y))"], |m| over_parts(m, Binary::Add)),
        guard: &[Conjunct {
            text: "the joined axis is summed over",
            holds: is_contracted,
            counterexample: "axis e = 2 * a
fn @f(%x: f32[a, c], %y: f32[a, c]) -> f32[e] {
  %c = concat along e : %x[e, c], %y[e - |a|, c] -> [e, c]
  %d = reduce sum : %c[e, {c}] -> [e]
  return %d
}",
        }],
        examples: &["axis e = a + b
fn @f(%x: f32[d, a], %y: f32[d, b]) -> f32[d] {
  %c = concat along e : %x[d, e], %y[d, e - |a|] -> [d, e]
  %d = reduce sum : %c[d, {e}] -> [d]
  return %d
}"],
    },
    Rule {
        name: "maximum-over-joined-axis",
        class: Class::Bit,
        law: "max [x y] = max(max x, max y)",
        source: "associativity of folds",
        find: Find::Patterns(&["(reduce-max ?d (concat ?c ?x ?y))"], |m| over_parts(m, Binary::Maximum)),
        guard: &[Conjunct {
            text: "the joined axis is folded",
            holds: is_contracted,
            counterexample: "axis e = 2 * a
fn @f(%x: f32[a, c], %y: f32[a, c]) -> f32[e] {
  %c = concat along e : %x[e, c], %y[e - |a|, c] -> [e, c]
  %d = reduce max : %c[e, {c}] -> [e]
  return %d
}",
        }],
        examples: &["axis e = a + b
fn @f(%x: f32[d, a], %y: f32[d, b]) -> f32[d] {
  %c = concat along e : %x[d, e], %y[d, e - |a|] -> [d, e]
  %d = reduce max : %c[d, {e}] -> [d]
  return %d
}"],
    },
    Rule {
        name: "product-with-joined-columns",
        class: Class::Bit,
        law: "x [v w] = [x v, x w]",
        source: "block matrix products; splitting along an output axis",
        find: Find::Patterns(&["(dot ?d ?x (concat ?c ?v ?w))"], |m| {
            let (d, c) = (m.node("d"), m.node("c"));
            let variable = joined_variable(&d, 1, &c)?;
            let (_, offsets) = parts(&c)?;
            if d.maps[0].mentions(variable) {
                return None;
            }
            let mut values = Vec::new();
            for (part, name) in ["v", "w"].into_iter().enumerate() {
                let node = resized(&d, variable, &(&offsets[part + 1] - &offsets[part]));
                let reads = vec![m.read("d", 0, "x"), part_read(&c, part, &d.maps[1], m.id(name))?];
                values.push(build::add(m.graph, &node, reads));
            }
            let frame = Node {
                maps: vec![IndexMap::of_variables(d.outputs[0].variables.iter().copied())].into(),
                ..Node::clone(&d)
            };
            let sizes = [&offsets[1] - &offsets[0], &offsets[2] - &offsets[1]];
            joined(m.graph, &frame, 0, variable, [values[0], values[1]], &sizes)
        }),
        guard: &[],
        examples: &["axis e = a + b
fn @f(%x: f32[c, d], %v: f32[a, d], %w: f32[b, d]) -> f32[c, e] {
  %c = concat along e : %v[e, d], %w[e - |a|, d] -> [e, d]
  %d = dot %x[c, {d}], %c[e, {d}] -> [c, e]
  return %d
}"],
    },
    Rule {
        name: "sum-of-two-products",
        class: Class::Real,
        law: "x v + y w = [x y] [v; w]",
        source: "block matrix products; two feed-forward layers, or parallel branches, with one output projection",
        find: Find::Patterns(&["(add ?s (dot ?d ?x ?v) (dot ?e ?y ?w))"], |m| {
            let (s, d, e) = (m.node("s"), m.node("d"), m.node("e"));
            if !m.facts("v").constant || !m.facts("w").constant || s.maps[0] != s.maps[1] {
                return None;
            }
            let last = *d.contracted().last()?;
            // Alike but for the size of the last contracted variable.
            let zero = |node: &Node| resized(node, last, &Size::ZERO);
            if e.variables.len() != d.variables.len() || !same_shape(&zero(&d), &zero(&e)) {
                return None;
            }
            whole_axes(m.graph, &d, 0, m.id("x"))?;
            whole_axes(m.graph, &e, 0, m.id("y"))?;
            let sizes = [d.size_of(last), e.size_of(last)];
            let left = joined(m.graph, &d, 0, last, [m.id("x"), m.id("y")], &sizes)?;
            let right = joined(m.graph, &d, 1, last, [m.id("v"), m.id("w")], &sizes)?;
            let node = resized(&d, last, &(&sizes[0] + &sizes[1]));
            let value = with_operands(m.graph, &node, &[left, right]);
            let read = instead(m, "s", 0, value);
            Some(m.view("s", read))
        }),
        guard: &[],
        examples: &["param @v: f32[b, c] param @w: f32[d, c]
fn @f(%x: f32[a, b], %y: f32[a, d]) -> f32[a, c] {
  %p = dot %x[a, {b}], @v[{b}, c] -> [a, c]
  %q = dot %y[a, {d}], @w[{d}, c] -> [a, c]
  %r = map add : %p[a, c], %q[a, c] -> [a, c]
  return %r
}"],
    },
    Rule {
        name: "functions-side-by-side",
        class: Class::Bit,
        law: "[f x, f y] = f [x y]",
        source: "naturality of concatenation",
        find: Find::Patterns(
            &[
                "(concat ?c (relu ?s ?x) (relu ?t ?y))",
                "(concat ?c (gelu ?s ?x) (gelu ?t ?y))",
                "(concat ?c (gelu_tanh ?s ?x) (gelu_tanh ?t ?y))",
                "(concat ?c (silu ?s ?x) (silu ?t ?y))",
                "(concat ?c (sigmoid ?s ?x) (sigmoid ?t ?y))",
                "(concat ?c (tanh ?s ?x) (tanh ?t ?y))",
            ],
            |m| {
                let c = m.node("c");
                let (x, y) = (m.through(&[("c", 0), ("s", 0)], "x")?, m.through(&[("c", 1), ("t", 0)], "y")?);
                if x.map.fill.is_some() || y.map.fill.is_some() {
                    return None;
                }
                let concat = build::add(m.graph, &c, vec![x, y]);
                let frame = Node { op: m.node("s").op.clone(), ..output_frame(&c) };
                let read = build::whole(&frame, concat);
                Some(build::add(m.graph, &frame, vec![read]))
            },
        ),
        guard: &[],
        examples: &["axis e = a + b
fn @f(%x: f32[a], %y: f32[b]) -> f32[e] {
  %p = map relu : %x[a] -> [a]
  %q = map relu : %y[b] -> [b]
  %c = concat along e : %p[e], %q[e - |a|] -> [e]
  return %c
}"],
    },
    Rule {
        name: "all-slices",
        class: Class::Bit,
        law: "the slices of x side by side are x",
        source: "definition of concatenation",
        find: Find::Patterns(&["(concat ?c ?x ?x)", "(concat ?c ?x ?x ?x)", "(concat ?c ?x ?x ?x ?x)"], |m| {
            let read = m.read("c", 0, "x");
            Some(m.view("c", read))
        }),
        guard: &[Conjunct {
            text: "every part reads x where the first would",
            holds: |m| {
                let c = m.node("c");
                c.maps.iter().all(|map| *map == c.maps[0])
            },
            counterexample: "axis e = 2 * a
fn @f(%x: f32[a]) -> f32[e] {
  %c = concat along e : %x[e], %x[e - |a|] -> [e]
  return %c
}",
        }],
        examples: &["axis e = a + b
fn @f(%x: f32[e]) -> f32[e] {
  %p = view %x[a] -> [a]
  %q = view %x[b + |a|] -> [b]
  %c = concat along e : %p[e], %q[e - |a|] -> [e]
  return %c
}"],
    },
    Rule {
        name: "scale-of-feed-forward",
        class: Class::Real,
        law: "(x w + b) c = x (w c) + b c, for a number c",
        source: "Macaron: the half of a half step goes into its last weights and bias",
        find: Find::Patterns(&["(mul ?s (add ?t (dot ?d ?x ?w) ?b) ?c)"], |m| {
            let (d, t) = (m.node("d"), m.node("t"));
            if !m.facts("w").constant || !m.facts("b").constant || is_product_of_integers(m, "x", "w") {
                return None;
            }
            m.literal("c")?;
            let (to_t, to_d) = (positions(&m.node("s"), 0, &t)?, positions(&t, 0, &d)?);
            let scale = moved(&m.read("s", 1, "c"), &to_t);
            let weight = combined(m.graph, &d, (1, m.id("w")), Binary::Multiply, &moved(&scale, &to_d))?;
            let bias = m.read("t", 1, "b");
            let bias = over_own_variables(m.graph, &t, Binary::Multiply, bias, scale);
            let product = with_operands(m.graph, &d, &[m.id("x"), weight]);
            let product = instead(m, "t", 0, product);
            let sum = build::binary(m.graph, &t, Binary::Add, product, bias);
            let read = instead(m, "s", 0, sum);
            Some(m.view("s", read))
        }),
        guard: &[Conjunct {
            text: "the elements are floats: integers would wrap",
            holds: |m| is_float(m, "w"),
            counterexample: "param @w: i8[b, c]
fn @f(%x: i8[a, b]) -> i32[a, c] {
  %p = dot %x[a, {b}], @w[{b}, c] -> [a, c]
  %r = map ($0 + 3) * 100 : %p[a, c] -> [a, c]
  return %r
}",
        }],
        examples: &["param @w: f32[b, c] param @b: f32[c]
fn @f(%x: f32[a, b]) -> f32[a, c] {
  %p = dot %x[a, {b}], @w[{b}, c] -> [a, c]
  %r = map ($0 + $1) * 0.5 : %p[a, c], @b[c] -> [a, c]
  return %r
}"],
    },
];
