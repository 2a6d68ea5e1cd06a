//! Softmax in pieces of its axis: the division put off to the end, partial results merged, keys that no row may see left out.

use super::{
    parts::{distinct, in_output_frame, output_frame},
    splitting::{beside, joined_variable, part_read, parts, resized},
};
use crate::plan::trace::variable_positions;
use crate::rewrite::{
    egraph::{
        Graph, Read, Tag, Term,
        build::{self, nameless},
        compose::compose,
    },
    rule::{Class, Conjunct, Find, Match, Rule},
};
use egg::Id;
use strang_ir::{
    ElementType, IndexExpr, IndexMap, Literal, Node, Op, Output, ScalarExpr, Size,
    op::Monoid,
    scalar::{Binary, Unary},
};

/// The most functions that a position in a mask is looked for under.
const DEEPEST: usize = 4;

/// The variables that a softmax normalises over, and the axes of its result that it does not.
fn over_and_kept(softmax: &Node) -> Option<(Vec<u32>, Vec<usize>)> {
    let Op::Softmax { over, .. } = &softmax.op else { return None };
    let axes = softmax.outputs[0].variables.iter().enumerate();
    let kept = axes.filter(|(_, variable)| !over.contains(variable)).map(|(axis, _)| axis).collect();
    Some((over.clone(), kept))
}

/// A fold over what a softmax normalises over, of a read in its variables.
fn folded(graph: &mut Graph, softmax: &Node, kept: &[usize], monoid: Monoid, read: Read) -> Id {
    let output = &softmax.outputs[0];
    let outputs = Output { variables: kept.iter().map(|axis| output.variables[*axis]).collect(), ..output.clone() };
    let node = Node { op: Op::Reduce(monoid), outputs: vec![outputs], ..softmax.clone() };
    build::add(graph, &node, vec![read])
}

/// A value over the axes that a softmax keeps, read in the variables of the softmax.
fn over_kept(softmax: &Node, kept: &[usize], value: Id) -> Read {
    Read { value, map: IndexMap::of_variables(kept.iter().map(|axis| softmax.outputs[0].variables[*axis])) }
}

/// A softmax without its division: the largest of its operand, the exponentials above that, and their sum.
struct Partial {
    largest: Id,
    exponentials: Id,
    sum: Id,
}

impl Partial {
    /// Of a read in the variables of the softmax.
    fn new(graph: &mut Graph, softmax: &Node, kept: &[usize], read: Read) -> Self {
        let frame = nameless(
            Op::View,
            softmax.variables.clone(),
            softmax.outputs[0].element,
            softmax.outputs[0].variables.clone(),
        );
        let largest = folded(graph, softmax, kept, Monoid::Maximum, read.clone());
        // Above the lowest number, so that a part where all is -inf weighs nothing.
        let own = kept_frame(softmax, kept);
        let lowest = lowest_number(frame.outputs[0].element);
        let lowest = Read::number(build::number(graph, lowest));
        let whole = build::whole(&own, largest);
        let largest = build::binary(graph, &own, Binary::Maximum, whole, lowest);
        let shift = over_kept(softmax, kept, largest);
        let above = build::binary(graph, &frame, Binary::Subtract, read, shift);
        let above = build::whole(&frame, above);
        let exponentials = build::unary(graph, &frame, Unary::Exp, above);
        let whole = build::whole(&frame, exponentials);
        let sum = folded(graph, softmax, kept, Monoid::Sum, whole);
        Partial { largest, exponentials, sum }
    }
}

/// The frame of the axes that a softmax keeps.
fn kept_frame(softmax: &Node, kept: &[usize]) -> Node {
    let output = &softmax.outputs[0];
    let variables = kept.iter().map(|axis| softmax.variables[output.variables[*axis] as usize].clone()).collect();
    nameless(Op::View, variables, output.element, (0..kept.len() as u32).collect())
}

/// The lowest finite number of a type of floats.
fn lowest_number(element: ElementType) -> Literal {
    Literal::from_f64(
        element,
        match element {
            ElementType::F16 => -65504.,
            ElementType::F64 => f64::MIN,
            ElementType::BF16 => -f64::from(f32::from_bits(0x7f7f_0000)),
            _ => f64::from(f32::MIN),
        },
    )
}

/// Which operand of the product is the softmax, and which the values: patterns stand in pairs.
fn slots(m: &Match) -> (usize, usize) {
    if m.pattern.is_multiple_of(2) { (0, 1) } else { (1, 0) }
}

/// The product `d` of two reads, of which the first stands where the softmax does.
fn product(graph: &mut Graph, d: &Node, softmax_slot: usize, weights: Read, values: Read) -> Id {
    build::add(graph, d, if softmax_slot == 0 { vec![weights, values] } else { vec![values, weights] })
}

/// A value over the axes that a softmax keeps, read where a product reads the softmax, in the frame of the product's output.
/// `None` where it varies along what is summed.
fn beside_product(d: &Node, slot: usize, kept: &[usize], value: Id) -> Option<Read> {
    let exprs = kept.iter().map(|axis| d.maps[slot].exprs[*axis].clone()).collect();
    in_output_frame(d, &Read { value, map: IndexMap::new(exprs) })
}

fn deferred_division(m: &mut Match) -> Option<Id> {
    let (p, v) = slots(m);
    let (d, s) = (m.node("d"), m.node("s"));
    if d.maps[p].fill.is_some() || s.maps[0].fill.is_some() {
        return None;
    }
    let (_, kept) = over_and_kept(&s)?;
    beside_product(&d, p, &kept, m.id("x"))?;
    let x = m.read("s", 0, "x");
    let partial = Partial::new(m.graph, &s, &kept, x);
    let weights = Read { value: partial.exponentials, map: d.maps[p].clone() };
    let values = m.read("d", v, "v");
    let sums = product(m.graph, &d, p, weights, values);
    let frame = output_frame(&d);
    let sums = build::whole(&frame, sums);
    let divisor = beside_product(&d, p, &kept, partial.sum)?;
    Some(build::binary(m.graph, &frame, Binary::Divide, sums, divisor))
}

/// A softmax over parts side by side, times values: the results of the parts, merged.
fn merged_parts(m: &mut Match) -> Option<Id> {
    let (p, v) = slots(m);
    let (d, s, c) = (m.node("d"), m.node("s"), m.node("c"));
    let joined = joined_variable(&s, 0, &c)?;
    let (over, kept) = over_and_kept(&s)?;
    let axis = s.outputs[0].variables.iter().position(|variable| *variable == joined)?;
    let read = d.maps[p].exprs[axis].as_variable()?;
    let elsewhere = d.maps[p].exprs.iter().filter(|expression| expression.mentions(read)).count();
    if !over.contains(&joined)
        || elsewhere != 1
        || d.maps.iter().any(|map| map.fill.is_some())
        || !d.contracted().contains(&read)
        || d.size_of(read) != s.size_of(joined)
    {
        return None;
    }
    beside_product(&d, p, &kept, m.id("x"))?;
    let (_, offsets) = parts(&c)?;
    let mut found = Vec::new();
    for (part, name) in ["x", "y"].into_iter().enumerate() {
        let size = &offsets[part + 1] - &offsets[part];
        let (softmax, node) = (resized(&s, joined, &size), resized(&d, read, &size));
        let x = part_read(&c, part, &s.maps[0], m.id(name))?;
        let partial = Partial::new(m.graph, &softmax, &kept, x);
        let weights = Read { value: partial.exponentials, map: d.maps[p].clone() };
        let values = Read { value: m.id("v"), map: beside(&d.maps[v], read, &offsets[part]) };
        found.push((product(m.graph, &node, p, weights, values), partial));
    }
    let (own, frame) = (kept_frame(&s, &kept), output_frame(&d));
    let [first, second] = [&found[0].1, &found[1].1].map(|partial| build::whole(&own, partial.largest));
    let largest = build::binary(m.graph, &own, Binary::Maximum, first, second);
    let largest = build::whole(&own, largest);
    let (mut sums, mut divisors) = (Vec::new(), Vec::new());
    for (value, partial) in found {
        let own_largest = build::whole(&own, partial.largest);
        let below = build::binary(m.graph, &own, Binary::Subtract, own_largest, largest.clone());
        let below = build::whole(&own, below);
        let weight = build::unary(m.graph, &own, Unary::Exp, below);
        let (sum, whole) = (build::whole(&own, partial.sum), build::whole(&own, weight));
        let divisor = build::binary(m.graph, &own, Binary::Multiply, sum, whole);
        divisors.push(build::whole(&own, divisor));
        let (value, weight) = (build::whole(&frame, value), beside_product(&d, p, &kept, weight)?);
        let weighted = build::binary(m.graph, &frame, Binary::Multiply, value, weight);
        sums.push(build::whole(&frame, weighted));
    }
    let [first, second] = divisors.try_into().ok()?;
    let divisor = build::binary(m.graph, &own, Binary::Add, first, second);
    let divisor = beside_product(&d, p, &kept, divisor)?;
    let [first, second] = sums.try_into().ok()?;
    let sum = build::binary(m.graph, &frame, Binary::Add, first, second);
    let sum = build::whole(&frame, sum);
    Some(build::binary(m.graph, &frame, Binary::Divide, sum, divisor))
}

/// An integer that is made of positions, sizes and numbers, as an expression of the variables of its reader.
fn position(graph: &Graph, value: Id, map: &IndexMap, size: &dyn Fn(u32) -> Size, depth: usize) -> Option<IndexExpr> {
    let class = &graph[value];
    if let Some(literal) = class.data.literal.filter(|literal| !literal.element.is_float()) {
        return i64::try_from(literal.to_f64() as i128).ok().map(IndexExpr::constant);
    }
    if depth == 0 || map.fill.is_some() || class.data.element() != ElementType::I64 {
        return None;
    }
    class.nodes.iter().find_map(|term| {
        let Term::Apply(_, _, children) = term else { return None };
        let node = graph.analysis.signatures.node(graph[children[0]].data.signature?);
        let positions = variable_positions(node, 0, &map.exprs);
        let operand = |slot: usize| {
            let inner = compose(&node.maps[slot], &positions, size);
            position(graph, children[slot + 1], &inner, size, depth - 1)
        };
        match &node.op {
            Op::View => operand(0),
            Op::Map(ScalarExpr::Index(variable)) => Some(positions[*variable as usize].clone()),
            Op::Map(ScalarExpr::Size(size)) => Some(IndexExpr::constant(size.clone())),
            Op::Map(ScalarExpr::Binary(Binary::Add, ..)) => Some(operand(0)?.plus(&operand(1)?)),
            Op::Map(ScalarExpr::Binary(Binary::Subtract, ..)) => {
                Some(operand(0)?.plus(&operand(1)?.times(&Size::from(-1))))
            }
            _ => None,
        }
    })
}

/// How many of the keys of a masked softmax there are that some row sees, if those are the first ones and not all: the
/// variable of the keys and that number.
fn prefix(m: &Match) -> Option<(u32, Size)> {
    let (s, l) = (m.node("s"), m.node("l"));
    let (over, _) = over_and_kept(&s)?;
    let [keys] = over[..] else { return None };
    let size = |variable: u32| s.size_of(variable);
    let side = |slot: usize, name: &str| {
        let map = m.position_of(&[("s", 0), ("t", 0), ("l", slot)])?;
        position(m.graph, m.id(name), &map, &size, DEEPEST)
    };
    let difference = side(1, "b")?.plus(&side(0, "a")?.times(&Size::from(-1)));
    let negated = |expression: &IndexExpr| expression.times(&Size::from(-1));
    let Op::Map(ScalarExpr::Binary(comparison, ..)) = l.op else { return None };
    // What is not negative where the comparison holds.
    let holds = match comparison {
        Binary::LessOrEqual => difference,
        Binary::Less => difference.plus_size(&Size::from(-1)),
        Binary::GreaterOrEqual => negated(&difference),
        Binary::Greater => negated(&difference).plus_size(&Size::from(-1)),
        _ => return None,
    };
    let visible = if masked_slot(m) == 2 { holds } else { negated(&holds).plus_size(&Size::from(-1)) };
    if !visible.is_affine() || !visible.coefficient(keys).is(-1) {
        return None;
    }
    let last = visible.plus(&IndexExpr::variable(keys));
    let (_, last) = last.bounds(&size)?;
    let seen = last + Size::ONE;
    let fewer = s.size_of(keys).is_at_least(&(seen.clone() + Size::ONE), 1);
    (fewer && seen.lower_bound(1).is_some_and(|seen| seen >= 1)).then_some((keys, seen))
}

/// The slot of the choice under a softmax that a masked score is read from: the one that is a number everywhere.
fn masked_slot(m: &Match) -> usize {
    if m.literal("y").is_some() { 2 } else { 1 }
}

/// Whether what stands for scores that a row does not see is -inf.
fn masks_with_infinity(m: &Match) -> bool {
    m.is(if masked_slot(m) == 2 { "y" } else { "x" }, f64::NEG_INFINITY)
}

fn is_no_logarithm(m: &Match) -> bool {
    !matches!(m.node("s").op, Op::Softmax { log: true, .. })
}

/// A read of a value in the variables of a frame, computed for the positions that the frame has alone: through functions down
/// to products, whose unread results are not computed either.
fn narrowed(graph: &mut Graph, frame: &Node, read: Read, depth: usize) -> Read {
    let read = build::absorbed(graph, frame, read);
    if graph[read.value].data.constant || depth == 0 || read.map.fill.is_some() {
        return read;
    }
    let found = graph[read.value].nodes.iter().find_map(|term| {
        let Term::Apply(tag, _, children) = term else { return None };
        let node = graph.analysis.signatures.node(graph[children[0]].data.signature?).clone();
        let is_function = tag.is_map() && children.len() > 1;
        (is_function || *tag == Tag::Dot).then(|| (node, children[1..].to_vec()))
    });
    let Some((node, operands)) = found else { return read };
    let mut variables = frame.variables.clone();
    let mut positions = variable_positions(&node, 0, &read.map.exprs);
    for variable in node.contracted() {
        positions[variable as usize] = IndexExpr::variable(variables.len() as u32);
        variables.push(node.variables[variable as usize].clone());
    }
    let size = |variable: u32| variables[variable as usize].size().clone();
    let maps: Vec<IndexMap> = node.maps.iter().map(|map| compose(map, &positions, &size)).collect();
    let is_read = |variable: &u32| maps.iter().any(|map| map.mentions(*variable));
    let first_summed = frame.variables.len() as u32;
    if !(first_summed..variables.len() as u32).all(|variable| is_read(&variable)) {
        return read;
    }
    // Over the variables that it depends on.
    let kept: Vec<u32> = (0..variables.len() as u32).filter(is_read).collect();
    let place = |variable: u32| kept.iter().position(|other| *other == variable).unwrap_or_default() as u32;
    let output: Vec<u32> = kept.iter().copied().filter(|variable| *variable < first_summed).collect();
    let inner = Node {
        variables: kept.iter().map(|variable| variables[*variable as usize].clone()).collect(),
        outputs: vec![Output { variables: output.iter().map(|v| place(*v)).collect(), ..node.outputs[0].clone() }],
        ..Node::clone(&node)
    };
    let reads = maps.iter().zip(operands).map(|(map, value)| Read { value, map: map.renumbered(&place) });
    let mut reads: Vec<Read> = reads.collect();
    if matches!(inner.op, Op::Map(_)) {
        reads = reads.into_iter().map(|read| narrowed(graph, &inner, read, depth - 1)).collect();
    }
    let value = build::add(graph, &inner, reads);
    Read { value, map: IndexMap::of_variables(output) }
}

fn causal_prefix(m: &mut Match) -> Option<Id> {
    let (p, v) = slots(m);
    let (d, s) = (m.node("d"), m.node("s"));
    let (keys, seen) = prefix(m)?;
    let axis = s.outputs[0].variables.iter().position(|variable| *variable == keys)?;
    let read = distinct(&d.maps[p])?[axis];
    if !d.contracted().contains(&read) || d.size_of(read) != s.size_of(keys) || d.maps[v].fill.is_some() {
        return None;
    }
    let (softmax, node) = (resized(&s, keys, &seen), resized(&d, read, &seen));
    let frame =
        nameless(Op::View, softmax.variables.clone(), s.outputs[0].element, softmax.outputs[0].variables.clone());
    // The class of the masked scores has no name in the pattern: building them again finds it.
    let (l, t) = (m.node("l"), m.node("t"));
    let (a, b) = (m.read("l", 0, "a"), m.read("l", 1, "b"));
    let mask = build::add(m.graph, &l, vec![a, b]);
    let (x, y) = (m.read("t", 1, "x"), m.read("t", 2, "y"));
    let value = build::add(m.graph, &t, vec![Read { value: mask, map: t.maps[0].clone() }, x, y]);
    let masked = Read { value, map: s.maps[0].clone() };
    let scores = narrowed(m.graph, &frame, masked, DEEPEST);
    let weights = build::add(m.graph, &softmax, vec![scores]);
    let weights = Read { value: weights, map: d.maps[p].clone() };
    let values = m.read("d", v, "v");
    Some(product(m.graph, &node, p, weights, values))
}

pub const RULES: &[Rule] = &[
    Rule {
        name: "deferred-division",
        class: Class::Real,
        law: "softmax(x) v = (e^(x - max x) v) / sum e^(x - max x)",
        source: "definition of softmax; Milakov and Gimelshein, 2018, Online normalizer calculation for softmax",
        find: Find::Patterns(&["(dot ?d (softmax ?s ?x) ?v)", "(dot ?d ?v (softmax ?s ?x))"], deferred_division),
        guard: &[Conjunct {
            text: "the softmax is not a logarithm",
            holds: is_no_logarithm,
            counterexample: "fn @f(%x: f32[a, b], %v: f32[b, c]) -> f32[a, c] {
  %s = softmax log : %x[a, {b}] -> [a, {b}]
  %d = dot %s[a, {b}], %v[{b}, c] -> [a, c]
  return %d
}",
        }],
        examples: &[
            "fn @f(%x: f32[a, b], %v: f32[b, c]) -> f32[a, c] {
  %s = softmax %x[a, {b}] -> [a, {b}]
  %d = dot %s[a, {b}], %v[{b}, c] -> [a, c]
  return %d
}",
            "fn @f(%x: f32[d, a, b], %v: f32[c, d, b]) -> f32[c, d, a] {
  %s = softmax %x[d, a, {b}] -> [d, a, {b}]
  %d = dot %v[c, d, {b}], %s[d, a, {b}] -> [c, d, a]
  return %d
}",
        ],
    },
    Rule {
        name: "softmax-over-joined-axis",
        class: Class::Real,
        law: "softmax[x y] [v; w] = (k e^(x-a) v + l e^(y-b) w) / (k sum e^(x-a) + l sum e^(y-b)), a = max x, b = max y, m = \
              max(a, b), k = e^(a-m), l = e^(b-m)",
        source: "online softmax; partial results of attention merged (Milakov and Gimelshein, 2018; Rabe and Staats, 2021)",
        find: Find::Patterns(
            &["(dot ?d (softmax ?s (concat ?c ?x ?y)) ?v)", "(dot ?d ?v (softmax ?s (concat ?c ?x ?y)))"],
            merged_parts,
        ),
        guard: &[Conjunct {
            text: "the softmax is not a logarithm",
            holds: is_no_logarithm,
            counterexample: "axis e = a + b
fn @f(%x: f32[d, a], %y: f32[d, b], %v: f32[e, c]) -> f32[d, c] {
  %j = concat along e : %x[d, e], %y[d, e - |a|] -> [d, e]
  %s = softmax log : %j[d, {e}] -> [d, {e}]
  %d = dot %s[d, {e}], %v[{e}, c] -> [d, c]
  return %d
}",
        }],
        examples: &[
            "axis e = a + b
fn @f(%x: f32[d, a], %y: f32[d, b], %v: f32[e, c]) -> f32[d, c] {
  %j = concat along e : %x[d, e], %y[d, e - |a|] -> [d, e]
  %s = softmax %j[d, {e}] -> [d, {e}]
  %d = dot %s[d, {e}], %v[{e}, c] -> [d, c]
  return %d
}",
            "axis e = a + b
fn @f(%x: f32[d, a], %y: f32[d, b], %v: f32[c, e]) -> f32[c, d] {
  %j = concat along e : %x[d, e], %y[d, e - |a|] -> [d, e]
  %s = softmax %j[d, {e}] -> [d, {e}]
  %d = dot %v[c, {e}], %s[d, {e}] -> [c, d]
  return %d
}",
        ],
    },
    Rule {
        name: "causal-prefix",
        class: Class::Real,
        law: "row i of softmax(select(j <= i + c, x, -inf)) v is a softmax over its first i + c + 1 keys: keys that no row sees go",
        source: "e^-inf = 0; causal attention",
        find: Find::Patterns(
            &[
                "(dot ?d (softmax ?s (select ?t (le ?l ?a ?b) ?x ?y)) ?v)",
                "(dot ?d ?v (softmax ?s (select ?t (le ?l ?a ?b) ?x ?y)))",
                "(dot ?d (softmax ?s (select ?t (lt ?l ?a ?b) ?x ?y)) ?v)",
                "(dot ?d ?v (softmax ?s (select ?t (lt ?l ?a ?b) ?x ?y)))",
                "(dot ?d (softmax ?s (select ?t (ge ?l ?a ?b) ?x ?y)) ?v)",
                "(dot ?d ?v (softmax ?s (select ?t (ge ?l ?a ?b) ?x ?y)))",
                "(dot ?d (softmax ?s (select ?t (gt ?l ?a ?b) ?x ?y)) ?v)",
                "(dot ?d ?v (softmax ?s (select ?t (gt ?l ?a ?b) ?x ?y)))",
            ],
            causal_prefix,
        ),
        guard: &[Conjunct {
            text: "the scores of keys that a row does not see are -inf",
            holds: masks_with_infinity,
            counterexample: "axis e = a + 2
fn @f(%q: f32[a, c], %k: f32[e, c], %v: f32[e, d]) -> f32[a, d] {
  %x = dot %q[a, {c}], %k[e, {c}] -> [a, e]
  %t = map select(index(e) <= index(a), $0, -1) : %x[a, e] -> [a, e]
  %s = softmax %t[a, {e}] -> [a, {e}]
  %r = dot %s[a, {e}], %v[{e}, d] -> [a, d]
  return %r
}",
        }],
        examples: &[
            "axis e = a + 2
fn @f(%q: f32[a, c], %k: f32[e, c], %v: f32[e, d]) -> f32[a, d] {
  %x = dot %q[a, {c}], %k[e, {c}] -> [a, e]
  %t = map select(index(e) <= index(a) + 1, $0 * 0.5, -inf) : %x[a, e] -> [a, e]
  %s = softmax %t[a, {e}] -> [a, {e}]
  %r = dot %s[a, {e}], %v[{e}, d] -> [a, d]
  return %r
}",
            "axis e = a + 2
fn @f(%x: f32[b, a, e], %v: f32[b, d, e]) -> f32[b, d, a] {
  %t = map select(index(e) > index(a), -inf, $0) : %x[b, a, e] -> [b, a, e]
  %s = softmax %t[b, a, {e}] -> [b, a, {e}]
  %r = dot %v[b, d, {e}], %s[b, a, {e}] -> [b, d, a]
  return %r
}",
        ],
    },
];
