//! Products of quantised numbers on the matrix kernel of bytes: scales and zero points out of the product, so that what is
//! left multiplies unsigned by signed bytes.

use super::parts::{distinct, in_output_frame, mentions_only, output_frame};
use crate::rewrite::{
    egraph::{
        Read,
        build::{self, nameless},
    },
    rule::{Class, Conjunct, Find, Match, Rule},
};
use egg::Id;
use strang_ir::{
    Axis, ElementType, IndexMap, Literal, Node, Op, ScalarExpr, Size, Variable, op::Monoid, scalar::Binary,
};

/// Integers up to which floats hold all.
const EXACT: f64 = 16_777_216.;
/// Integers up to which 32 bits hold all.
const WHOLE: f64 = 2_147_483_647.;

/// Whether a node is a product of integers.
fn is_of_integers(d: &Node) -> bool {
    matches!(d.op, Op::Dot { accumulator } if accumulator.is_integer() && d.outputs[0].element == accumulator)
}

/// The largest magnitude of a value.
fn magnitude(m: &Match, name: &str) -> f64 {
    let range = m.facts(name).range;
    range.low.abs().max(range.high.abs())
}

/// A read of the value at the end of a path of nodes and slots, as [`Match::through`]. Where the first reads beyond, `fill` says
/// what is read of the value instead; the others must then read whole arrays position by position.
fn past(m: &Match, path: &[(&str, usize)], value: &str, fill: &dyn Fn(Literal) -> Option<Literal>) -> Option<Read> {
    let (outer, slot) = path[0];
    let map = m.node(outer).maps[slot].clone();
    let Some(found) = map.fill else { return m.through(path, value) };
    let mut exprs = map.exprs;
    for (place, (name, slot)) in path.iter().enumerate().skip(1) {
        let node = m.node(name);
        let read = distinct(&node.maps[*slot]).filter(|read| read.len() == node.variables.len())?;
        let shape = match path.get(place + 1) {
            Some((next, _)) => m.node(next).shape(0),
            None => m.facts(value).shape().to_vec(),
        };
        let of_axis = |(variable, size): (&u32, &Size)| {
            let output = node.outputs[0].variables.iter().position(|v| v == variable)?;
            (node.size_of(*variable) == *size).then(|| exprs[output].clone())
        };
        exprs = read.iter().zip(&shape).map(of_axis).collect::<Option<_>>()?;
    }
    Some(Read { value: m.id(value), map: IndexMap { exprs, conditions: map.conditions, fill: Some(fill(found)?) } })
}

/// A fill in the type of another value, if that type holds it.
fn in_type_of(m: &Match, value: &str) -> impl Fn(Literal) -> Option<Literal> {
    let element = m.facts(value).element();
    move |fill: Literal| {
        let (low, high) = element.integer_range()?;
        let number = fill.to_f64();
        (number >= low as f64 && number <= high as f64).then(|| Literal::from_f64(element, number))
    }
}

/// A product of other operands.
fn product(m: &mut Match, accumulator: ElementType, reads: [Read; 2]) -> Id {
    let mut node = Node { op: Op::Dot { accumulator }, ..(*m.node("d")).clone() };
    node.outputs[0].element = accumulator;
    build::add(m.graph, &node, reads.into())
}

/// The sums of a weight over the contracted variables of a product that reads it in a slot, in the product's output frame.
/// `None` if the weight mentions not all of them, or is read beyond its end.
fn sums(m: &mut Match, slot: usize, weight: &str, accumulator: ElementType) -> Option<Read> {
    let d = m.node("d");
    let map = d.maps[slot].clone();
    let contracted = d.contracted();
    if map.fill.is_some() || !contracted.iter().all(|variable| map.mentions(*variable)) {
        return None;
    }
    let output = &d.outputs[0].variables;
    let axes: Vec<u32> = output.iter().copied().filter(|variable| map.mentions(*variable)).collect();
    let kept: Vec<u32> = axes.iter().copied().chain(contracted).collect();
    let place = |variable: u32| kept.iter().position(|v| *v == variable).unwrap_or_default() as u32;
    let variables: Vec<Variable> = kept.iter().map(|v| d.variables[*v as usize].clone()).collect();
    let all = (0..kept.len() as u32).collect();
    let frame = nameless(Op::View, variables.clone().into(), accumulator, all);
    let read = Read { value: m.id(weight), map: map.renumbered(&place) };
    let wide = build::map(m.graph, &frame, cast_to(accumulator), accumulator, vec![read]);
    let sum = nameless(Op::Reduce(Monoid::Sum), variables.into(), accumulator, (0..axes.len() as u32).collect());
    let wide = build::whole(&frame, wide);
    let sum = build::add(m.graph, &sum, vec![wide]);
    in_output_frame(&d, &Read { value: sum, map: IndexMap::of_variables(axes) })
}

/// The frame of what is computed over the axes of a value.
fn frame_of(m: &Match, value: Id, element: ElementType) -> Node {
    let variable = |size: &Size| Variable::over(&Axis::new("", size.clone()));
    let variables: Vec<Variable> = m.graph[value].data.shape().iter().map(variable).collect();
    let output = (0..variables.len() as u32).collect();
    nameless(Op::View, variables.into(), element, output)
}

/// A read of integers times a number, which are multiplied over the axes of the integers: what they are read along would make
/// an array of them.
fn times(m: &mut Match, read: Read, number: Id) -> Read {
    let frame = frame_of(m, read.value, m.graph[read.value].data.element());
    let whole = build::whole(&frame, read.value);
    let value = build::binary(m.graph, &frame, Binary::Multiply, whole, Read::number(number));
    Read { value, map: read.map }
}

fn cast_to(element: ElementType) -> ScalarExpr {
    ScalarExpr::cast(element, ScalarExpr::Operand(0))
}

/// A value in another type, over its own axes.
fn converted(m: &mut Match, name: &str, element: ElementType) -> Id {
    if let Some(number) = m.literal(name).filter(|_| m.facts(name).shape().is_empty()) {
        return build::number(m.graph, Literal::from_f64(element, number.to_f64()));
    }
    let frame = frame_of(m, m.id(name), element);
    let value = build::whole(&frame, m.id(name));
    build::map(m.graph, &frame, cast_to(element), element, vec![value])
}

/// `d` is a product that reads `x` in another type, in a slot.
fn convert_in_product(m: &mut Match) -> Option<Id> {
    let d = m.node("d");
    let Op::Dot { accumulator } = d.op else { return None };
    if !is_of_integers(&d) || accumulator.bits() < m.facts("x").element().bits() {
        return None;
    }
    let slot = m.pattern;
    let own = past(m, &[("d", slot), ("t", 0)], "x", &in_type_of(m, "x"))?;
    let other = m.read("d", 1 - slot, "y");
    let reads = if slot == 0 { [own, other] } else { [other, own] };
    Some(product(m, accumulator, reads))
}

/// `d` is a product of `x - z` and `w`.
fn zero_point_out(m: &mut Match) -> Option<Id> {
    let d = m.node("d");
    let Op::Dot { accumulator } = d.op else { return None };
    if !is_of_integers(&d) || !m.facts("w").constant || m.facts("x").constant {
        return None;
    }
    let zero = m.literal("z");
    let x = past(m, &[("d", 0), ("s", 0)], "x", &|fill| if fill.is(0.) { zero } else { None })?;
    // Only what is the same for all that is summed comes out of the sum.
    let beside = match d.maps[0].fill {
        None => m.through(&[("d", 0), ("s", 1)], "z")?,
        Some(_) => Read::number(m.id("z")),
    };
    if !mentions_only(&beside.map, &d.outputs[0].variables) {
        return None;
    }
    let sums = sums(m, 1, "w", accumulator)?;
    let zero = Read { value: converted(m, "z", accumulator), map: in_output_frame(&d, &beside)?.map };
    let w = m.read("d", 1, "w");
    let product = product(m, accumulator, [x, w]);
    let frame = output_frame(&d);
    let product = build::whole(&frame, product);
    let taken = if m.facts("z").shape().is_empty() {
        times(m, sums, zero.value)
    } else {
        let taken = build::binary(m.graph, &frame, Binary::Multiply, zero, sums);
        build::whole(&frame, taken)
    };
    Some(build::binary(m.graph, &frame, Binary::Subtract, product, taken))
}

/// `s` is the difference of two integers as floats; the second may be a number.
fn subtracted(m: &mut Match) -> Option<Id> {
    let s = m.node("s");
    if s.outputs[0].element != ElementType::F32 || !is_integer(m, "x") {
        return None;
    }
    let x = m.through(&[("s", 0), ("t", 0)], "x")?;
    let y = if m.has("y") {
        let map = m.through(&[("s", 1), ("u", 0)], "y").filter(|_| is_integer(m, "y"))?.map;
        Read { value: converted(m, "y", ElementType::I32), map }
    } else {
        let number = m.literal("c").filter(|number| number.to_f64().fract() == 0.)?;
        Read::number(build::number(m.graph, Literal::from_f64(ElementType::I32, number.to_f64())))
    };
    let x = Read { value: converted(m, "x", ElementType::I32), map: x.map };
    let difference = build::binary(m.graph, &s, Binary::Subtract, x, y);
    let difference = m.whole("s", difference);
    Some(build::map(m.graph, &s, cast_to(ElementType::F32), ElementType::F32, vec![difference]))
}

/// The largest magnitude of what is subtracted, for [`subtracted`].
fn subtrahend(m: &Match) -> f64 {
    if m.has("y") { magnitude(m, "y") } else { m.literal("c").map_or(0., |number| number.to_f64().abs()) }
}

fn is_integer(m: &Match, name: &str) -> bool {
    m.facts(name).element().is_integer()
}

/// `d` is the product of integers as floats, each perhaps scaled.
fn dequantised(m: &mut Match) -> Option<Id> {
    let d = m.node("d");
    let float = d.outputs[0].element;
    let is_of_floats = matches!(d.op, Op::Dot { accumulator } if accumulator == float && float.is_float());
    if !is_of_floats || !is_integer(m, "x") || !is_integer(m, "y") || !m.facts("y").constant {
        return None;
    }
    // A scale between the product and an integer is one more node on the way.
    let mut scales = Vec::new();
    let mut integers = Vec::new();
    for (slot, scale, factor, cast, value) in [(0, "m", "s", "t", "x"), (1, "n", "c", "u", "y")] {
        let scaled = m.has(scale);
        let path: &[(&str, usize)] =
            if scaled { &[("d", slot), (scale, 0), (cast, 0)] } else { &[("d", slot), (cast, 0)] };
        integers.push(past(m, path, value, &in_type_of(m, value))?);
        if scaled {
            scales.push(scale_of(m, slot, (scale, factor))?);
        }
    }
    let [x, y] = <[Read; 2]>::try_from(integers).ok()?;
    let sum = product(m, ElementType::I32, [x, y]);
    let frame = output_frame(&d);
    let whole = build::whole(&frame, sum);
    let mut result = build::map(m.graph, &frame, cast_to(float), float, vec![whole]);
    for scale in scales {
        let whole = build::whole(&frame, result);
        result = build::binary(m.graph, &frame, Binary::Multiply, whole, scale);
    }
    Some(result)
}

/// The factor of a node that scales an operand of a product, in the product's output frame. `None` if it varies along what
/// is summed.
fn scale_of(m: &Match, slot: usize, (scale, factor): (&str, &str)) -> Option<Read> {
    let d = m.node("d");
    if m.facts(factor).shape().is_empty() {
        return Some(Read::number(m.id(factor)));
    }
    let read = m.through(&[("d", slot), (scale, 1)], factor)?;
    in_output_frame(&d, &read)
}

/// `d` is a product of signed bytes `x` and weights `w`.
fn shifted(m: &mut Match) -> Option<Id> {
    const HALF: f64 = 128.;
    let d = m.node("d");
    let is_signed = |name: &str| m.facts(name).element() == ElementType::I8;
    let is_product = matches!(d.op, Op::Dot { accumulator: ElementType::I32 }) && is_of_integers(&d);
    if !is_product || !is_signed("x") || !is_signed("w") || m.facts("x").constant || !m.facts("w").constant {
        return None;
    }
    let sums = sums(m, 1, "w", ElementType::I32)?;
    let frame = frame_of(m, m.id("x"), ElementType::U8);
    let half = build::number(m.graph, Literal::from_f64(ElementType::I32, HALF));
    let wide = converted(m, "x", ElementType::I32);
    let wide = build::whole(&frame, wide);
    let moved = build::binary(m.graph, &frame, Binary::Add, wide, Read::number(half));
    let moved = build::whole(&frame, moved);
    let moved = build::map(m.graph, &frame, cast_to(ElementType::U8), ElementType::U8, vec![moved]);
    let mut map = d.maps[0].clone();
    map.fill = map.fill.map(|fill| Literal::from_f64(ElementType::U8, fill.to_f64() + HALF));
    let w = m.read("d", 1, "w");
    let product = product(m, ElementType::I32, [Read { value: moved, map }, w]);
    let frame = output_frame(&d);
    let taken = times(m, sums, half);
    let product = build::whole(&frame, product);
    Some(build::binary(m.graph, &frame, Binary::Subtract, product, taken))
}

/// How many terms a product sums.
fn terms(m: &Match) -> f64 {
    let d = m.node("d");
    let sizes = d.contracted().into_iter().map(|v| d.size_of(v).as_constant());
    sizes.map(|size| size.map_or(f64::INFINITY, |size| size as f64)).product()
}

pub const RULES: &[Rule] = &[
    Rule {
        name: "convert-in-product",
        class: Class::Bit,
        law: "a product of converted integers = that of the integers, where the conversion keeps every x",
        source: "a product converts its operands itself",
        find: Find::Patterns(&["(dot ?d (cast ?t ?x) ?y)", "(dot ?d ?y (cast ?t ?x))"], convert_in_product),
        guard: &[Conjunct {
            text: "the type of the conversion holds every integer of the type of x",
            holds: |m| {
                let of = |element: ElementType| element.integer_range();
                let (from, to) = (of(m.facts("x").element()), of(m.node("t").outputs[0].element));
                from.zip(to).is_some_and(|(x, t)| x.0 >= t.0 && x.1 <= t.1)
            },
            counterexample: "axis k = 4
fn @f(%x: i32[a, k], %y: i8[k, c]) -> i32[a, c] {
  %s = map $0 * 4099 + 1 : %x[a, k] -> [a, k]
  %t = map cast(i8, $0) : %s[a, k] -> [a, k]
  %r = dot %t[a, {k}], %y[{k}, c] -> [a, c]
  return %r
}",
        }],
        examples: &[
            "axis k = 4
fn @f(%x: u8[a, k], %y: i8[k, c]) -> i32[a, c] {
  %s = map cast(i32) : %x[a, k] -> [a, k]
  %t = map cast(i32) : %y[k, c] -> [k, c]
  %r = dot %s[a, {k}], %t[{k}, c] -> [a, c]
  return %r
}",
            "axis k = 3
axis m = 5
param @w: i32[c, k]
fn @f(%x: u8[m]) -> i32[c, m] {
  %s = map cast(i32) : %x[m] -> [m]
  %r = dot %s[m + {k} - 1] else 0, @w[c, {k}] -> [c, m]
  return %r
}",
        ],
    },
    Rule {
        name: "zero-point-out-of-product",
        class: Class::Bit,
        law: "(x - z) w = x w - z (the sums of w), for z that does not vary along what is summed",
        source: "linearity, modulo 2^32; Jacob et al., Quantization and Training of Neural Networks, 2018, section 2.3",
        find: Find::Patterns(&["(dot ?d (sub ?s ?x ?z) ?w)"], zero_point_out),
        guard: &[Conjunct {
            text: "the difference is in the type of the sum: another would wrap elsewhere",
            holds: |m| {
                let d = m.node("d");
                !is_of_integers(&d) || m.node("s").outputs[0].element == d.outputs[0].element
            },
            counterexample: "param @w: i8[b, c]
fn @f(%x: i8[a, b]) -> i32[a, c] {
  %g = map $0 - 125 : %x[a, b] -> [a, b]
  %r = dot %g[a, {b}], @w[{b}, c] -> [a, c]
  return %r
}",
        }],
        examples: &[
            "param @w: i8[b, c]
fn @f(%x: u8[a, b], %z: u8[]) -> i32[a, c] {
  %g = map cast(i32, $0) - cast(i32, $1) : %x[a, b], %z[] -> [a, b]
  %v = map cast(i32) : @w[b, c] -> [b, c]
  %r = dot %g[a, {b}], %v[{b}, c] -> [a, c]
  return %r
}",
            "axis k = 3
axis m = 5
param @w: i8[c, k]
fn @f(%x: i32[m]) -> i32[c, m] {
  %g = map $0 - 7 : %x[m] -> [m]
  %v = map cast(i32) : @w[c, k] -> [c, k]
  %r = dot %g[m + {k} - 1] else 0, %v[c, {k}] -> [c, m]
  return %r
}",
        ],
    },
    Rule {
        name: "integers-subtracted-as-floats",
        class: Class::Bit,
        law: "the difference of integers as floats = that of the integers, as a float",
        source: "floats hold integers of 24 bits",
        find: Find::Patterns(&["(sub ?s (cast ?t ?x) (cast ?u ?y))", "(sub ?s (cast ?t ?x) ?c)"], subtracted),
        guard: &[Conjunct {
            text: "floats hold every x and y and every difference: together they are at most 2^24",
            holds: |m| !is_integer(m, "x") || magnitude(m, "x") + subtrahend(m) <= EXACT,
            counterexample: "fn @f(%x: i32[a], %y: i32[a]) -> f32[a] {
  %u = map $0 * 40000009 + 1 : %x[a] -> [a]
  %v = map $0 * 40000009 + 3 : %y[a] -> [a]
  %s = map cast(f32, $0) - cast(f32, $1) : %u[a], %v[a] -> [a]
  return %s
}",
        }],
        examples: &[
            "fn @f(%x: u8[a, b], %z: u8[]) -> f32[b, a] {
  %s = map cast(f32, $0) - cast(f32, $1) : %x[a, b], %z[] -> [b, a]
  return %s
}",
            "fn @f(%x: i8[a]) -> f32[a] {
  %s = map cast(f32, $0) - 7.0 : %x[a] -> [a]
  return %s
}",
        ],
    },
    Rule {
        name: "scales-out-of-product",
        class: Class::Real,
        law: "(x s) (y c) = (x y) s c for integers x and y, summed as integers",
        source: "linearity; Jacob et al., Quantization and Training of Neural Networks, 2018, section 2.2",
        find: Find::Patterns(
            &[
                "(dot ?d (cast ?t ?x) (cast ?u ?y))",
                "(dot ?d (mul ?m (cast ?t ?x) ?s) (cast ?u ?y))",
                "(dot ?d (cast ?t ?x) (mul ?n (cast ?u ?y) ?c))",
                "(dot ?d (mul ?m (cast ?t ?x) ?s) (mul ?n (cast ?u ?y) ?c))",
            ],
            dequantised,
        ),
        guard: &[Conjunct {
            text: "as many terms as there are, each of the largest integers, add up to 2^31 at most",
            holds: |m| {
                !is_integer(m, "x")
                    || !is_integer(m, "y")
                    || terms(m) * (magnitude(m, "x") * magnitude(m, "y")).max(1.) <= WHOLE
            },
            counterexample: "axis k = 8
param @y: i32[k, c]
fn @f(%x: i32[a, k]) -> f32[a, c] {
  %u = map $0 * 400009 + 1 : %x[a, k] -> [a, k]
  %v = map $0 * 400009 + 3 : @y[k, c] -> [k, c]
  %s = map cast(f32) : %u[a, k] -> [a, k]
  %t = map cast(f32) : %v[k, c] -> [k, c]
  %r = dot %s[a, {k}], %t[{k}, c] -> [a, c]
  return %r
}",
        }],
        examples: &[
            "axis k = 8
param @w: i8[c, k] param @c: f32[c]
fn @f(%x: u8[a, k]) -> f32[a, c] {
  %s = map cast(f32, $0) * 0.25 : %x[a, k] -> [a, k]
  %t = map cast(f32, $0) * $1 : @w[c, k], @c[c] -> [c, k]
  %r = dot %s[a, {k}], %t[c, {k}] -> [a, c]
  return %r
}",
            "axis k = 3
axis m = 5
param @w: i8[c, k]
fn @f(%x: u8[m]) -> f32[c, m] {
  %s = map cast(f32, $0) * 0.25 : %x[m] -> [m]
  %t = map cast(f32) : @w[c, k] -> [c, k]
  %r = dot %s[m + {k} - 1] else 0.0, %t[c, {k}] -> [c, m]
  return %r
}",
        ],
    },
    Rule {
        name: "signed-to-unsigned-bytes",
        class: Class::Bit,
        law: "x w = (x + 128) w - 128 (the sums of w), x + 128 being an unsigned byte",
        source: "linearity, modulo 2^32; dot products of CPUs take an unsigned and a signed operand",
        find: Find::Patterns(&["(dot ?d ?x ?w)"], shifted),
        guard: &[],
        examples: &["param @w: i8[b, c]
fn @f(%x: i8[a, b]) -> i32[a, c] {
  %r = dot %x[a, {b}], @w[{b}, c] -> [a, c]
  return %r
}"],
    },
];
