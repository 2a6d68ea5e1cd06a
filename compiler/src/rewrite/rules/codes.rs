//! Quantised numbers between products: what only compares or passes on is done on the bytes themselves.

use super::parts::{frame, in_output_frame, output_frame, whole_axes};
use crate::rewrite::{
    egraph::{Read, Tag, Term, build},
    rule::{Class, Conjunct, Find, Match, Rule},
};
use egg::Id;
use strang_ir::{
    Axis, ElementType, IndexExpr, IndexMap, Literal, Node, Op, ScalarExpr, Variable,
    scalar::{Binary, Unary},
};

/// Whether every window of a fold has a position inside of what it reads: some choice of the folded variables is inside
/// wherever the others are.
fn windows_are_inside(m: &Match) -> bool {
    /// Windows of more positions are not looked at.
    const WIDEST: i64 = 32;
    let (r, t) = (m.node("r"), m.node("t"));
    let map = &r.maps[0];
    let folded = r.contracted();
    let sizes = folded.iter().map(|v| r.size_of(*v).as_constant().filter(|size| (1..=WIDEST).contains(size)));
    let Some(sizes) = sizes.collect::<Option<Vec<i64>>>() else {
        return map.fill.is_none() && folded.iter().all(|v| r.size_of(*v).lower_bound(1).is_some_and(|low| low >= 1));
    };
    if map.fill.is_none() {
        return true;
    }
    if !map.conditions.is_empty() {
        return false;
    }
    // Where each folded variable moves one axis, axes can be looked at one by one.
    let axes = |v: &u32| map.exprs.iter().filter(|expression| expression.mentions(*v)).count();
    if folded.iter().any(|variable| axes(variable) > 1) {
        return false;
    }
    map.exprs.iter().zip(t.shape(0)).all(|(expression, extent)| {
        let moving: Vec<usize> = (0..folded.len()).filter(|place| expression.mentions(folded[*place])).collect();
        let is_inside = |position: Option<i64>| {
            let at = |v: u32| match position.filter(|_| moving.iter().any(|place| folded[*place] == v)) {
                Some(position) => IndexExpr::constant(position),
                None => IndexExpr::variable(v),
            };
            let at = expression.substitute(&at, &|slot| slot, &|v| r.size_of(v));
            crate::plan::trace::within(&at, &extent, &|v| r.size_of(v))
        };
        match moving[..] {
            [] => is_inside(None),
            [place] => (0..sizes[place]).any(|position| is_inside(Some(position))),
            _ => false,
        }
    })
}

/// `r` is the maximum of integers as floats.
fn maximum_of_converted(m: &mut Match) -> Option<Id> {
    let (r, t) = (m.node("r"), m.node("t"));
    let float = t.outputs[0].element;
    let element = m.facts("x").element();
    let (low, high) = element.integer_range()?;
    if !matches!(float, ElementType::F32 | ElementType::F64) || (low.abs().max(high)) as f64 > 16_777_216. {
        return None;
    }
    let axes = whole_axes(m.graph, &t, 0, m.id("x"))?;
    if axes != t.outputs[0].variables {
        return None;
    }
    let map = &r.maps[0];
    let fill = match map.fill {
        None => None,
        Some(fill) if fill.to_f64() == f64::NEG_INFINITY => Some(Literal::from_f64(element, low as f64)),
        Some(_) => return None,
    };
    let map = IndexMap { fill, ..map.clone() };
    let mut fold = Node::clone(&r);
    fold.outputs[0].element = element;
    let fold = build::add(m.graph, &fold, vec![Read { value: m.id("x"), map }]);
    let frame = output_frame(&r);
    let whole = build::whole(&frame, fold);
    Some(build::map(m.graph, &frame, ScalarExpr::cast(float, ScalarExpr::Operand(0)), float, vec![whole]))
}

/// `r` is the maximum of `x * c`.
fn maximum_of_scaled(m: &mut Match) -> Option<Id> {
    let (r, s) = (m.node("r"), m.node("s"));
    let axes = whole_axes(m.graph, &s, 0, m.id("x"))?;
    let is_number = m.facts("c").shape().is_empty() && m.literal("c").is_some();
    let fill_stays = r.maps[0].fill.is_none_or(|fill| fill.to_f64() == f64::NEG_INFINITY);
    if axes != s.outputs[0].variables || !is_number || !fill_stays {
        return None;
    }
    let read = Read { value: m.id("x"), map: r.maps[0].clone() };
    let fold = build::add(m.graph, &r, vec![read]);
    let frame = output_frame(&r);
    let whole = build::whole(&frame, fold);
    let number = Read::number(m.id("c"));
    Some(build::binary(m.graph, &frame, Binary::Multiply, whole, number))
}

/// The function `f` of what is looked up in `x`, which was looked up in the function of `x`.
fn function_of_gathered(m: &mut Match) -> Option<Id> {
    let (g, f) = (m.node("g"), m.node("f"));
    let axes = whole_axes(m.graph, &f, 0, m.id("x"))?;
    let is_number = !m.has("c") || m.facts("c").shape().is_empty();
    if axes != f.outputs[0].variables || g.maps[0].fill.is_some() || !is_number {
        return None;
    }
    let mut gather = Node::clone(&g);
    gather.outputs[0].element = m.facts("x").element();
    let reads = ["x", "i"].into_iter().zip(&g.maps).map(|(name, map)| Read { value: m.id(name), map: map.clone() });
    let reads = reads.collect();
    let gathered = build::add(m.graph, &gather, reads);
    let frame = output_frame(&g);
    let whole = build::whole(&frame, gathered);
    let numbers = m.has("c").then(|| Read::number(m.id("c")));
    let Op::Map(function) = &f.op else { return None };
    let element = f.outputs[0].element;
    Some(build::map(m.graph, &frame, function.clone(), element, [whole].into_iter().chain(numbers).collect()))
}

/// `q` makes an integer of everything in `x`, which is joined: each part as integers, joined.
fn quantised_parts(m: &mut Match) -> Option<Id> {
    let q = m.node("q");
    let path = ["q", "a", "r", "s"].into_iter().filter(|name| m.has(name)).map(|name| (name, 0));
    let read = m.through(&path.collect::<Vec<_>>(), "x")?;
    let read = in_output_frame(&q, &read)?;
    let is_number = |name: &&str| m.facts(name).shape().is_empty();
    let numbers = ["c", "y"].into_iter().filter(|name| m.has(name));
    let is_whole = read.map == IndexMap::of_variables(0..q.outputs[0].variables.len() as u32);
    if !is_whole || m.facts("x").shape() != &*q.shape(0) || !numbers.clone().all(|name| is_number(&name)) {
        return None;
    }
    let children = m.graph[read.value].nodes.iter().find_map(|term| match term {
        Term::Apply(Tag::Concat, _, children) => Some(children.clone()),
        _ => None,
    })?;
    let mut joined = Node::clone(m.graph.analysis.signatures.node(m.graph[children[0]].data.signature?));
    let element = q.outputs[0].element;
    let mut parts = Vec::new();
    for (value, map) in children[1..].iter().zip(&joined.maps) {
        let shape = m.graph[*value].data.shape().to_vec();
        let variable = |size| Variable::over(&Axis::new("part", size));
        let over = frame(shape.into_iter().map(variable).collect(), m.facts("x").element());
        let scaled =
            build::binary(m.graph, &over, Binary::Multiply, build::whole(&over, *value), Read::number(m.id("c")));
        let mut code = build::unary(m.graph, &over, Unary::Round, build::whole(&over, scaled));
        if m.has("y") {
            code = build::binary(m.graph, &over, Binary::Add, build::whole(&over, code), Read::number(m.id("y")));
        }
        let function = ScalarExpr::cast(element, ScalarExpr::Operand(0));
        let code = build::map(m.graph, &over, function, element, vec![build::whole(&over, code)]);
        parts.push(Read { value: code, map: map.clone() });
    }
    joined.outputs[0].element = element;
    Some(build::add(m.graph, &joined, parts))
}

/// `q` makes an integer of what was one.
fn quantised_again(m: &mut Match) -> Option<Id> {
    if m.node("q").outputs[0].element != m.facts("x").element() {
        return None;
    }
    let path = ["q", "a", "r", "s", "b", "t"].into_iter().filter(|name| m.has(name)).map(|name| (name, 0));
    let read = m.through(&path.collect::<Vec<_>>(), "x")?;
    Some(m.view("q", read))
}

/// Whether no integer of the type of `x`, scaled by `c`, is nearer to another.
fn factor_is_nearly_one(m: &Match) -> bool {
    // What rounding the product adds is far less than what is left of a half.
    const MARGIN: f64 = 0.49;
    let Some((low, high)) = m.facts("x").element().integer_range() else { return false };
    let largest = if m.has("z") { high - low } else { low.abs().max(high) } as f64;
    let factor = if m.has("c") { m.literal("c").map_or(f64::NAN, |c| c.to_f64()) } else { 1. };
    largest <= 65536. && largest * (factor - 1.).abs() <= MARGIN
}

/// Whether an integer of the type of `x` is taken away and the same is added.
fn zero_comes_back(m: &Match) -> bool {
    let Some((low, high)) = m.facts("x").element().integer_range() else { return false };
    let number = |name: &str| m.literal(name).map(|literal| literal.to_f64());
    let is_integer = |zero: f64| zero.fract() == 0. && zero >= low as f64 && zero <= high as f64;
    number("z").is_some_and(|zero| is_integer(zero) && number("y") == Some(zero))
}

pub const RULES: &[Rule] = &[
    Rule {
        name: "maximum-of-converted",
        class: Class::Bit,
        law: "max(float x) = float(max x) for integers x that floats hold",
        source: "conversion is monotone",
        find: Find::Patterns(&["(reduce-max ?r (cast ?t ?x))"], maximum_of_converted),
        guard: &[Conjunct {
            text: "every window has a position inside: the maximum of nothing is -infinity, which no integer is",
            holds: |m| !m.facts("x").element().is_integer() || windows_are_inside(m),
            counterexample: "axis k = 2
fn @f(%x: u8[a, b]) -> f32[a, b] {
  %t = map cast(f32) : %x[a, b] -> [a, b]
  %r = reduce max : %t[a, b + {k} - 5] else -inf -> [a, b]
  return %r
}",
        }],
        examples: &[
            "axis k = 3
axis m = 6
axis n = 3
fn @f(%x: u8[a, m]) -> f32[a, n] {
  %t = map cast(f32) : %x[a, m] -> [a, m]
  %r = reduce max : %t[a, 2*n + {k} - 1] else -inf -> [a, n]
  return %r
}",
            "axis k = 3
fn @f(%x: i8[a, k]) -> f32[a] {
  %t = map cast(f32) : %x[a, k] -> [a, k]
  %r = reduce max : %t[a, {k}] -> [a]
  return %r
}",
        ],
    },
    Rule {
        name: "maximum-of-scaled",
        class: Class::Bit,
        law: "max(x c) = (max x) c for a positive number c",
        source: "multiplication by a positive number is monotone, rounding too",
        find: Find::Patterns(&["(reduce-max ?r (mul ?s ?x ?c))"], maximum_of_scaled),
        guard: &[Conjunct {
            text: "the number is positive and finite",
            holds: |m| m.literal("c").is_none_or(|c| c.to_f64() > 0. && c.to_f64().is_finite()),
            counterexample: "axis k = 3
fn @f(%x: f32[a, k]) -> f32[a] {
  %t = map $0 * -0.5 : %x[a, k] -> [a, k]
  %r = reduce max : %t[a, {k}] -> [a]
  return %r
}",
        }],
        examples: &["axis k = 3
axis m = 6
axis n = 3
fn @f(%x: f32[a, m]) -> f32[a, n] {
  %t = map $0 * 0.375 : %x[a, m] -> [a, m]
  %r = reduce max : %t[a, 2*n + {k} - 1] else -inf -> [a, n]
  return %r
}"],
    },
    Rule {
        name: "gather-of-dequantised",
        class: Class::Bit,
        law: "(f x)[i] = f (x[i])",
        source: "naturality of reading; a table stays as narrow as it is stored",
        find: Find::Patterns(
            &["(gather ?g (cast ?f ?x) ?i)", "(gather ?g (sub ?f ?x ?c) ?i)", "(gather ?g (mul ?f ?x ?c) ?i)"],
            function_of_gathered,
        ),
        guard: &[],
        examples: &["param @w: u8[b, c]
fn @f(%i: i64[a]) -> f32[a, c] {
  %t = map (cast(f32, $0) - 7.0) * 0.5 : @w[b, c] -> [b, c]
  %r = gather %t[{b}, c], %i[a] -> [a, c]
  return %r
}"],
    },
    Rule {
        name: "quantise-of-joined",
        class: Class::Bit,
        law: "integers of [x y] = [integers of x, integers of y]",
        source: "naturality of concatenation",
        find: Find::Patterns(
            &["(cast ?q (round ?r (mul ?s ?x ?c)))", "(cast ?q (add ?a (round ?r (mul ?s ?x ?c)) ?y))"],
            quantised_parts,
        ),
        guard: &[],
        examples: &[
            "axis e = a + b
fn @f(%x: f32[a, c], %y: f32[b, c]) -> u8[e, c] {
  %j = concat along e : %x[e, c], %y[e - |a|, c] -> [e, c]
  %r = map cast(u8, round($0 * 12.5) + 7.0) : %j[e, c] -> [e, c]
  return %r
}",
            "axis e = a + b + d
fn @f(%x: f32[c, a], %y: f32[b, c], %z: f32[d, c]) -> i8[e, c] {
  %j = concat along e : %x[c, e], %y[e - |a|, c], %z[e - |a| - |b|, c] -> [e, c]
  %r = map cast(i8, round($0 * 12.5)) : %j[e, c] -> [e, c]
  return %r
}",
        ],
    },
    Rule {
        name: "quantise-of-dequantised",
        class: Class::Bit,
        law: "integer(round((float(x) - z) c) + z) = x for integers x and z, if there is one, and a c next to 1",
        source: "a rounding error of less than a half goes away when rounded to an integer",
        find: Find::Patterns(
            &[
                "(cast ?q (round ?r (mul ?s (cast ?t ?x) ?c)))",
                "(cast ?q (round ?r (cast ?t ?x)))",
                "(cast ?q (add ?a (round ?r (mul ?s (sub ?b (cast ?t ?x) ?z) ?c)) ?y))",
                "(cast ?q (add ?a (round ?r (sub ?b (cast ?t ?x) ?z)) ?y))",
            ],
            quantised_again,
        ),
        guard: &[
            Conjunct {
                text: "the number is so near to 1 that no integer of the type of x moves by a half",
                holds: |m| m.node("q").outputs[0].element != m.facts("x").element() || factor_is_nearly_one(m),
                counterexample: "fn @f(%x: i16[a]) -> i16[a] {
  %t = map cast(f32, $0) * 1.5 : %x[a] -> [a]
  %r = map cast(i16, round($0)) : %t[a] -> [a]
  return %r
}",
            },
            Conjunct {
                text: "what is added is what was taken away, an integer of the type of x",
                holds: |m| {
                    let is_of_other_type = m.node("q").outputs[0].element != m.facts("x").element();
                    !m.has("z") || is_of_other_type || zero_comes_back(m)
                },
                counterexample: "fn @f(%x: u8[a]) -> u8[a] {
  %t = map cast(f32, $0) - 3.0 : %x[a] -> [a]
  %r = map cast(u8, round($0) + 5.0) : %t[a] -> [a]
  return %r
}",
            },
        ],
        examples: &[
            "fn @f(%x: u8[a, b]) -> u8[b, a] {
  %t = map cast(f32, $0) * 0.9999999 : %x[a, b] -> [a, b]
  %r = map cast(u8, round($0)) : %t[a, b] -> [b, a]
  return %r
}",
            "fn @f(%x: u8[a, b]) -> u8[b, a] {
  %t = map (cast(f32, $0) - 12.0) * 0.9999999 : %x[a, b] -> [a, b]
  %r = map cast(u8, round($0) + 12.0) : %t[a, b] -> [b, a]
  return %r
}",
            "fn @f(%x: i8[a]) -> i8[a] {
  %t = map cast(f32, $0) - -7.0 : %x[a] -> [a]
  %r = map cast(i8, round($0) + -7.0) : %t[a] -> [a]
  return %r
}",
        ],
    },
];
