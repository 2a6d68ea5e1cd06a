//! Convolutions: branches in parallel become one, and so does a product with its own input added; taps that read nothing but
//! padding go away.

use super::parts::{combined, instead, is_float, moved, positions, whole_axes, with_operands};
use crate::rewrite::{
    egraph::{
        Read,
        build::{self, nameless},
        compose::compose,
    },
    rule::{Class, Conjunct, Find, Match, Rule},
};
use egg::Id;
use strang_ir::{Axis, Condition, IndexExpr, IndexMap, Literal, Node, Op, Size, scalar::Binary};

/// The most positions of a kernel among which the smaller convolution is looked for.
const MOST_TAPS: i64 = 64;

/// Where the smaller convolution stands in the larger: a position of every variable that only the larger sums over, and
/// for every variable of the smaller that of the larger.
struct Centre {
    /// Pairs of a variable of the larger and its position.
    taps: Vec<(u32, i64)>,
    /// By variable of the smaller.
    places: Vec<Option<u32>>,
}

/// The positions of taps at a place in their order, the last tap moving fastest.
fn tap(taps: &[u32], sizes: &[i64], number: i64) -> Vec<(u32, i64)> {
    let mut rest = number;
    let mut taken = Vec::new();
    for (tap, size) in taps.iter().zip(sizes).rev() {
        taken.push((*tap, rest % size));
        rest /= size;
    }
    taken
}

/// Finds the smaller convolution `e` in the larger `d`: the position at which both read their input alike.
fn centre(d: &Node, e: &Node) -> Option<Centre> {
    let output = d.outputs[0].variables.len() as u32;
    let first = (0..output).eq(d.outputs[0].variables.iter().copied());
    if !first || d.outputs[0].variables != e.outputs[0].variables || d.outputs[0].element != e.outputs[0].element {
        return None;
    }
    if (0..output).any(|v| d.size_of(v) != e.size_of(v)) || d.op != e.op {
        return None;
    }
    // The summed variables of the smaller, but those of one position, are the last ones of the larger.
    let summed: Vec<u32> = e.contracted().into_iter().filter(|v| !e.size_of(*v).is(1)).collect();
    let larger = d.contracted();
    let taps = larger.len().checked_sub(summed.len())?;
    let mut places: Vec<Option<u32>> = (0..output).map(Some).collect();
    for variable in e.contracted() {
        let place = summed.iter().position(|v| *v == variable).map(|place| larger[taps + place]);
        if place.is_some_and(|place| d.size_of(place) != e.size_of(variable)) {
            return None;
        }
        places.push(place);
    }
    let taps = &larger[..taps];
    let sizes: Vec<i64> = taps.iter().map(|v| d.size_of(*v).as_constant()).collect::<Option<_>>()?;
    let count: i64 = sizes.iter().product();
    if taps.is_empty() || count > MOST_TAPS {
        return None;
    }
    let size = |v: u32| d.size_of(v);
    let position = |place: &Option<u32>| place.map_or_else(IndexExpr::default, IndexExpr::variable);
    let smaller: Vec<IndexExpr> = places.iter().map(position).collect();
    let wanted = compose(&e.maps[0], &smaller, &size);
    (0..count).find_map(|number| {
        let taken = tap(taps, &sizes, number);
        let at = |v: u32| match taken.iter().find(|(tap, _)| *tap == v) {
            Some((_, position)) => IndexExpr::constant(*position),
            None => IndexExpr::variable(v),
        };
        let positions: Vec<IndexExpr> = (0..d.variables.len() as u32).map(at).collect();
        let found = compose(&d.maps[0], &positions, &size);
        (found.exprs == wanted.exprs && found.conditions == wanted.conditions)
            .then(|| Centre { taps: taken, places: places.clone() })
    })
}

/// The convolutions of one input whose results are added, as one.
fn merged(m: &mut Match) -> Option<Id> {
    let (larger, smaller, v, w) = if m.pattern == 0 { ("d", "e", "v", "w") } else { ("e", "d", "w", "v") };
    let (d, e) = (m.node(larger), m.node(smaller));
    if !m.facts("v").constant || !m.facts("w").constant || m.node("s").maps[0] != m.node("s").maps[1] {
        return None;
    }
    let centre = centre(&d, &e)?;
    // The smaller's weight at the centre of the larger's, zeros around it.
    let axes = whole_axes(m.graph, &d, 1, m.id(v))?;
    let place = |variable: u32| axes.iter().position(|axis| *axis == variable).map(|axis| axis as u32);
    let mut conditions = Vec::new();
    for (tap, position) in &centre.taps {
        let expression = IndexExpr::variable(place(*tap)?);
        conditions.push(Condition::Range { expression, low: Size::from(*position), high: Size::from(position + 1) });
    }
    let positions = centre.places.iter().map(|variable| match variable {
        Some(variable) => place(*variable).map_or_else(IndexExpr::default, IndexExpr::variable),
        None => IndexExpr::default(),
    });
    let positions: Vec<IndexExpr> = positions.collect();
    let variables: Vec<_> = axes.iter().map(|axis| d.variables[*axis as usize].clone()).collect();
    let size = |v: u32| variables[v as usize].size().clone();
    let inner = compose(&e.maps[1], &positions, &size);
    let element = m.facts(w).element();
    let map = IndexMap { conditions, fill: Some(Literal::zero(element)), ..inner };
    let frame = nameless(Op::View, variables.clone().into(), element, (0..axes.len() as u32).collect());
    let padded = build::view(m.graph, &frame, Read { value: m.id(w), map });
    let padded = Read { value: padded, map: IndexMap::of_variables(axes.iter().copied()) };
    let weight = combined(m.graph, &d, (1, m.id(v)), Binary::Add, &padded)?;
    let value = with_operands(m.graph, &d, &[m.id("x"), weight]);
    let read = instead(m, "s", 0, value);
    Some(m.view("s", read))
}

/// Where the identity stands in a product: the channel that is summed over and that of the result, and the positions of the
/// other summed variables.
struct Identity {
    channels: (u32, u32),
    taps: Vec<(u32, i64)>,
}

/// Finds the positions of what `d` sums over at which it reads its first operand as a map over its output variables does.
fn identity(d: &Node, wanted: &IndexMap) -> Option<Identity> {
    let contracted = d.contracted();
    let outputs = &d.outputs[0].variables;
    let size = |variable: u32| d.size_of(variable);
    for channel in &contracted {
        let taps: Vec<u32> = contracted.iter().copied().filter(|tap| tap != channel).collect();
        let sizes: Option<Vec<i64>> = taps.iter().map(|tap| d.size_of(*tap).as_constant()).collect();
        let Some(sizes) = sizes.filter(|sizes| sizes.iter().product::<i64>() <= MOST_TAPS) else { continue };
        let is_result = |variable: &u32| d.size_of(*variable) == d.size_of(*channel) && !d.maps[0].mentions(*variable);
        for result in outputs.iter().copied().filter(is_result) {
            for number in 0..sizes.iter().product() {
                let taken = tap(&taps, &sizes, number);
                let at = |variable: u32| match taken.iter().find(|(tap, _)| *tap == variable) {
                    Some((_, position)) => IndexExpr::constant(*position),
                    None if variable == *channel => IndexExpr::variable(result),
                    None => IndexExpr::variable(variable),
                };
                let at: Vec<IndexExpr> = (0..d.variables.len() as u32).map(at).collect();
                if compose(&d.maps[0], &at, &size).exprs == wanted.exprs {
                    return Some(Identity { channels: (*channel, result), taps: taken });
                }
            }
        }
    }
    None
}

/// The product `d` of `x` and `w` with `x` added, scaled by `c` in the second pattern, as one product.
fn with_input(m: &mut Match) -> Option<Id> {
    let (s, d) = (m.node("s"), m.node("d"));
    if !m.facts("w").constant || !d.maps[0].conditions.is_empty() {
        return None;
    }
    let places = positions(&s, 0, &d)?;
    let is_scaled = m.pattern == 1;
    let added = if is_scaled { m.through(&[("s", 1), ("t", 0)], "x")? } else { m.read("s", 1, "x") };
    let added = moved(&added, &places);
    if added.map.fill.is_some() {
        return None;
    }
    let scale = if is_scaled {
        let scale = moved(&m.through(&[("s", 1), ("t", 1)], "c")?, &places);
        if !m.facts("c").constant || scale.map.fill.is_some() {
            return None;
        }
        scale
    } else {
        Read::number(build::number(m.graph, Literal::from_f64(m.facts("w").element(), 1.)))
    };
    let Identity { channels: (channel, result), taps } = identity(&d, &added.map)?;
    let expression = IndexExpr::variable(channel).plus(&IndexExpr::variable(result).times(&Size::from(-1)));
    let mut conditions = vec![Condition::Range { expression, low: Size::from(0), high: Size::from(1) }];
    for (tap, position) in taps {
        let (low, high) = (Size::from(position), Size::from(position + 1));
        conditions.push(Condition::Range { expression: IndexExpr::variable(tap), low, high });
    }
    let fill = Some(Literal::zero(m.facts("w").element()));
    let identity = Read { value: scale.value, map: IndexMap { conditions, fill, ..scale.map } };
    let weight = combined(m.graph, &d, (1, m.id("w")), Binary::Add, &identity)?;
    let product = with_operands(m.graph, &d, &[m.id("x"), weight]);
    let read = instead(m, "s", 0, product);
    Some(m.view("s", read))
}

/// The positions of a tap of `d` at which its first operand is read inside for some result; `None` where they are all, or not known.
fn inside(d: &Node, shape: &[Size], tap: u32) -> Option<(i64, i64)> {
    d.maps[0].fill?;
    let count = d.size_of(tap).as_constant().filter(|count| (2..=MOST_TAPS).contains(count))?;
    let size = |variable: u32| d.size_of(variable);
    let is_inside = |number: i64| {
        let at = |variable: u32| match variable == tap {
            true => IndexExpr::constant(number),
            false => IndexExpr::variable(variable),
        };
        let positions: Vec<IndexExpr> = (0..d.variables.len() as u32).map(at).collect();
        let read = compose(&d.maps[0], &positions, &size);
        let may_be = |(expression, extent): (&IndexExpr, &Size)| {
            let reach = expression.bounds(&size).map(|(least, most)| (least.as_constant(), most.as_constant()));
            match (reach, extent.as_constant()) {
                (Some((Some(least), Some(most))), Some(extent)) => most >= 0 && least < extent,
                _ => true,
            }
        };
        read.exprs.iter().zip(shape).all(may_be)
    };
    let mut numbers = (0..count).filter(|number| is_inside(*number));
    let first = numbers.next()?;
    let end = numbers.next_back().unwrap_or(first) + 1;
    (end - first < count).then_some((first, end))
}

/// A product without the taps at its ends that read nothing but padding.
fn without_padding(m: &mut Match) -> Option<Id> {
    let d = m.node("d");
    let shape = m.facts("x").shape().to_vec();
    let (tap, (first, end)) = d.contracted().into_iter().find_map(|tap| Some((tap, inside(&d, &shape, tap)?)))?;
    let mut node = (*d).clone();
    node.variables[tap as usize].axis = Axis::new("tap", Size::from(end - first));
    let at = |variable: u32| match IndexExpr::variable(variable) {
        position if variable == tap => position.plus_size(&Size::from(first)),
        position => position,
    };
    let positions: Vec<IndexExpr> = (0..d.variables.len() as u32).map(at).collect();
    let size = |variable: u32| node.size_of(variable);
    let [x, w] = [("x", 0), ("w", 1)]
        .map(|(name, slot)| Read { value: m.id(name), map: compose(&d.maps[slot], &positions, &size) });
    Some(build::add(m.graph, &node, vec![x, w]))
}

const TAPS_OUTSIDE: Rule = Rule {
    name: "taps-outside",
    class: Class::Bit,
    law: "taps that read zeros of the padding alone add nothing",
    source: "convolutions whose dilation is larger than the image (atrous pyramids; Chen et al., 2017)",
    find: Find::Patterns(&["(dot ?d ?x ?w)"], without_padding),
    guard: &[Conjunct {
        text: "outside of x zeros are read",
        holds: |m| m.node("d").maps[0].fill.is_none_or(|fill| fill.is(0.)),
        counterexample: "axis h = 5   axis e = 3   param @k: f32[c, b, e]
fn @f(%x: f32[b, h]) -> f32[c, h] {
  %r = dot order=(e, b) : %x[{b}, h + 6*{e} - 6] else 1.0, @k[c, {b}, {e}] -> [c, h]
  return %r
}",
    }],
    examples: &[
        "axis h = 5   axis e = 3   param @k: f32[c, b, e]
fn @f(%x: f32[b, h]) -> f32[c, h] {
  %r = dot order=(e, b) : %x[{b}, h + 6*{e} - 6] else 0.0, @k[c, {b}, {e}] -> [c, h]
  return %r
}",
        "axis h = 5   axis e = 4   param @k: f32[c, b, e]
fn @f(%x: f32[b, h]) -> f32[c, h] {
  %r = dot order=(e, b) : %x[{b}, h + 4*{e} - 8] else 0.0, @k[c, {b}, {e}] -> [c, h]
  return %r
}",
    ],
};

const INPUT_ADDED: Rule = Rule {
    name: "product-with-input-added",
    class: Class::Real,
    law: "x w + x = x (w + 1), 1 being the identity, and x w + x c = x (w + diag c); for a kernel in the place of w, at the tap that reads x in place",
    source: "distributivity; the identity branch of RepVGG (Ding et al., 2021)",
    find: Find::Patterns(&["(add ?s (dot ?d ?x ?w) ?x)", "(add ?s (dot ?d ?x ?w) (mul ?t ?x ?c))"], with_input),
    guard: &[Conjunct {
        text: "the elements are floats: integers would wrap",
        holds: |m| is_float(m, "w"),
        counterexample: "param @w: i8[b, b]
fn @f(%x: i32[a, b]) -> i32[a, b] {
  %v = map $0 * 0 + 127 : @w[b, b'] -> [b, b']
  %p = dot %x[a, {b}], %v[{b}, b'] -> [a, b']
  %r = map add : %p[a, b], %x[a, b] -> [a, b]
  return %r
}",
    }],
    examples: &[
        "param @w: f32[b, b]
fn @f(%x: f32[a, b]) -> f32[a, b] {
  %p = dot %x[a, {b}], @w[{b}, b'] -> [a, b']
  %r = map add : %p[a, b], %x[a, b] -> [a, b]
  return %r
}",
        "axis e = 3   param @k: f32[b, b, e]
fn @f(%x: f32[b, a]) -> f32[b, a] {
  %p = dot %x[{b'}, a + {e} - 1] else 0.0, @k[b, {b'}, {e}] -> [b, a]
  %r = map add : %p[b, a], %x[b, a] -> [b, a]
  return %r
}",
        "axis e = 3   param @k: f32[b, b, e] param @c: f32[b]
fn @f(%x: f32[b, a]) -> f32[b, a] {
  %p = dot %x[{b'}, a + {e} - 1] else 0.0, @k[b, {b'}, {e}] -> [b, a]
  %q = map mul : %x[b, a], @c[b] -> [b, a]
  %r = map add : %p[b, a], %q[b, a] -> [b, a]
  return %r
}",
    ],
};

pub const RULES: &[Rule] = &[
    INPUT_ADDED,
    TAPS_OUTSIDE,
    Rule {
        name: "parallel-convolutions",
        class: Class::Real,
        law: "x * k + x * l = x * (k + pad l), for a kernel l that reads x where a tap of k does",
        source: "RepVGG: 3x3, 1x1 and identity branches become one (Ding et al., 2021)",
        find: Find::Patterns(
            &["(add ?s (dot ?d ?x ?v) (dot ?e ?x ?w))", "(add ?s (dot ?d ?x ?v) (dot ?e ?x ?w))"],
            merged,
        ),
        guard: &[Conjunct {
            text: "outside of x both read zeros, and the smaller reads nothing outside",
            holds: |m| ["d", "e"].iter().all(|name| m.node(name).maps[0].fill.is_none_or(|fill| fill.is(0.))),
            counterexample: "axis e = 3   param @k: f32[c, b, e] param @l: f32[c, b]
fn @f(%x: f32[b, a]) -> f32[c, a] {
  %p = dot order=(e, b) : %x[{b}, a + {e} - 1] else 1.0, @k[c, {b}, {e}] -> [c, a]
  %q = dot %x[{b}, a - 1] else 0.5, @l[c, {b}] -> [c, a]
  %r = map add : %p[c, a], %q[c, a] -> [c, a]
  return %r
}",
        }],
        examples: &[
            "axis e = 3   param @k: f32[c, b, e] param @l: f32[c, b]
fn @f(%x: f32[b, a]) -> f32[c, a] {
  %p = dot order=(e, b) : %x[{b}, a + {e} - 1] else 0, @k[c, {b}, {e}] -> [c, a]
  %q = dot %x[{b}, a], @l[c, {b}] -> [c, a]
  %r = map add : %p[c, a], %q[c, a] -> [c, a]
  return %r
}",
            "axis e = 3   param @k: f32[c, b, e] param @l: f32[c, b]
fn @f(%x: f32[b, a]) -> f32[c, a] {
  %p = dot %x[{b}, a], @l[c, {b}] -> [c, a]
  %q = dot order=(e, b) : %x[{b}, a + {e} - 1] else 0, @k[c, {b}, {e}] -> [c, a]
  %r = map add : %p[c, a], %q[c, a] -> [c, a]
  return %r
}",
        ],
    },
];
