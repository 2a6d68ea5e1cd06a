//! Normalisations and products over axes that were made one, as group normalisation and the layers after convolutions are written:
//! over the axes as they are, values are read where they lie.

use crate::rewrite::{
    egraph::{Graph, Read, Tag, Term, build, compose::compose},
    rule::{Class, Find, Match, Rule},
    search::cost::columns,
};
use egg::Id;
use rustc_hash::FxHashSet;
use strang_ir::{Atom, Axis, IndexExpr, IndexMap, Node, Op, Output, Size, Variable};

/// The one variable that a normalisation is over.
fn flattened(node: &Node) -> Option<u32> {
    match &node.op {
        Op::Norm { over, .. } => <[u32; 1]>::try_from(over.clone()).ok().map(|[variable]| variable),
        _ => None,
    }
}

/// How far apart positions of a variable are that quotients and remainders tell apart, the largest distance first, 1 the last.
fn strides(map: &IndexMap, variable: u32, total: i64) -> Option<Vec<i64>> {
    let constant = |size: &Size| size.as_constant().filter(|size| *size > 0);
    let is_variable = |expression: &IndexExpr| expression.as_variable() == Some(variable);
    let quotient = |expression: &IndexExpr| match expression.terms() {
        [(Atom::FloorDiv(inner, divisor), one)] if one.is(1) && expression.offset().is(0) && is_variable(inner) => {
            constant(divisor)
        }
        _ => is_variable(expression).then_some(1),
    };
    let mut strides = vec![1];
    for (atom, _) in map.exprs.iter().flat_map(|expression| expression.terms()) {
        match atom {
            Atom::FloorDiv(inner, divisor) if is_variable(inner) => strides.push(constant(divisor)?),
            Atom::Remainder(inner, size) if inner.mentions(variable) => {
                let stride = quotient(inner)?;
                strides.extend([stride, stride.checked_mul(constant(size)?)?]);
            }
            _ => {}
        }
    }
    strides.sort_unstable_by(|a, b| b.cmp(a));
    strides.dedup();
    strides.retain(|stride| *stride < total);
    let divides =
        strides.first().is_some_and(|first| total % first == 0) && strides.windows(2).all(|w| w[0] % w[1] == 0);
    (divides && strides.len() > 1).then_some(strides)
}

/// A variable of a node as several.
struct Apart<'a> {
    node: &'a Node,
    flat: u32,
    /// How far apart the positions of each are, the largest distance first.
    strides: &'a [i64],
    /// The places among them in which they come.
    order: &'a [usize],
}

impl Apart<'_> {
    /// The positions of each.
    fn sizes(&self) -> Option<Vec<i64>> {
        let mut above = self.node.size_of(self.flat).as_constant()?;
        Some(self.strides.iter().map(|stride| std::mem::replace(&mut above, *stride) / stride).collect())
    }

    /// Where another variable comes now.
    fn place(&self, variable: u32) -> u32 {
        if variable > self.flat { variable + self.strides.len() as u32 - 1 } else { variable }
    }

    /// All variables, and the maps in them.
    fn over_all(&self) -> Option<(Vec<Variable>, Vec<IndexMap>)> {
        let (node, sizes) = (self.node, self.sizes()?);
        let mut variables = Vec::new();
        for (v, variable) in node.variables.iter().enumerate() {
            if v as u32 != self.flat {
                variables.push(variable.clone());
                continue;
            }
            variables.extend(self.order.iter().map(|part| {
                let name = format!("{}_{part}", variable.name);
                Variable::named(name.clone(), &Axis::new(name, Size::from(sizes[*part])))
            }));
        }
        let position = |v: u32| {
            if v != self.flat {
                return IndexExpr::variable(self.place(v));
            }
            let terms = self.order.iter().enumerate();
            let terms =
                terms.map(|(place, part)| (Atom::Variable(self.flat + place as u32), Size::from(self.strides[*part])));
            IndexExpr::new(terms, Size::ZERO)
        };
        let positions: Vec<IndexExpr> = (0..node.variables.len() as u32).map(position).collect();
        let size_of = |v: u32| variables[v as usize].size().clone();
        let maps = node.maps.iter().map(|map| compose(map, &positions, &size_of)).collect();
        Some((variables, maps))
    }
}

/// With fewer rows a product is bound by reading its weights, which it reads best in one piece where there are many.
const FEWEST_ROWS: i64 = 4;
const MOST_WEIGHTS: i64 = 1 << 20;

/// The axis of a value that a product has as its columns, or maps and folds of one: those lie side by side.
fn channels(graph: &Graph, value: Id, seen: &mut FxHashSet<Id>) -> Option<usize> {
    /// More is not looked through.
    const MOST: usize = 64;
    if seen.len() >= MOST || !seen.insert(graph.find(value)) {
        return None;
    }
    graph[value].nodes.iter().find_map(|term| {
        let Term::Apply(tag, _, children) = term else { return None };
        let node = graph.analysis.signatures.node(graph[children[0]].data.signature?);
        let output = &node.outputs[0].variables;
        let place = |variable: u32| output.iter().position(|v| *v == variable);
        if *tag == Tag::Dot {
            // Channels by themselves are what both operands have.
            let shared = || output.iter().copied().find(|v| node.maps.iter().all(|map| map.mentions(*v)));
            return place(columns(node).map_or_else(shared, |columns| columns.last().copied())?);
        }
        if !tag.is_map() && !matches!(tag, Tag::Reduce(_) | Tag::Norm(_)) {
            return None;
        }
        children[1..].iter().zip(&node.maps).find_map(|(operand, map)| {
            let axis = channels(graph, *operand, seen)?;
            place(map.exprs[axis].as_variable()?)
        })
    })
}

/// The product over the axes apart.
fn product_over_axes(m: &mut Match) -> Option<Id> {
    let mut d = Node::clone(&m.node("d"));
    if m.has("v") {
        d.maps[0] = m.through(&[("d", 0), ("v", 0)], "x")?.map;
    }
    let output = &d.outputs[0].variables;
    let count = |v: &u32| d.size_of(*v).as_constant().unwrap_or(FEWEST_ROWS);
    let product = |map: &IndexMap| {
        let read = (0..d.variables.len() as u32).filter(|v| map.mentions(*v));
        read.map(|v| count(&v)).fold(1, i64::saturating_mul)
    };
    let rows: i64 = output.iter().filter(|v| d.maps[0].mentions(**v)).map(count).fold(1, i64::saturating_mul);
    if rows < FEWEST_ROWS && product(&d.maps[1]) > MOST_WEIGHTS {
        return None;
    }
    let (flat, strides) = d.contracted().into_iter().find_map(|variable| {
        let total = d.size_of(variable).as_constant()?;
        Some((variable, strides(&d.maps[0], variable, total)?))
    })?;
    let axis = channels(m.graph, m.id("x"), &mut FxHashSet::default())?;
    let part = |order: &[usize]| {
        let (_, maps) = Apart { node: &d, flat, strides: &strides, order }.over_all()?;
        usize::try_from(maps[0].exprs[axis].as_variable()?.checked_sub(flat)?).ok()
    };
    let natural: Vec<usize> = (0..strides.len()).collect();
    // Channels come last, where they lie side by side; as they do in one axis if they are the last of it.
    let innermost = part(&natural).filter(|part| *part + 1 < strides.len())?;
    let order: Vec<usize> = natural.into_iter().filter(|part| *part != innermost).chain([innermost]).collect();
    let apart = Apart { node: &d, flat, strides: &strides, order: &order };
    let (variables, maps) = apart.over_all()?;
    if !maps[0].exprs.iter().all(IndexExpr::is_affine) || !maps[0].conditions.is_empty() {
        return None;
    }
    let outputs = vec![Output { variables: output.iter().map(|v| apart.place(*v)).collect(), ..d.outputs[0].clone() }];
    let node = Node { maps: maps.clone().into(), outputs, variables: variables.into(), ..d.clone() };
    let reads = maps.into_iter().zip(["x", "w"]).map(|(map, name)| Read { value: m.id(name), map }).collect();
    Some(build::add(m.graph, &node, reads))
}

/// The normalisation over the axes apart, viewed as it was, or as a view of it is.
fn over_axes(m: &mut Match) -> Option<Id> {
    let n = m.node("n");
    let outer = m.has("v").then(|| m.node("v"));
    // Positions outside of the result would lie inside of some of its axes.
    if outer.as_ref().is_some_and(|view| view.maps[0].fill.is_some()) {
        return None;
    }
    let flat = flattened(&n)?;
    let total = n.size_of(flat).as_constant()?;
    let strides = strides(&n.maps[0], flat, total)?;
    let parts = strides.len() as u32;
    let order: Vec<usize> = (0..strides.len()).collect();
    let apart = Apart { node: &n, flat, strides: &strides, order: &order };
    let (sizes, (variables, maps)) = (apart.sizes()?, apart.over_all()?);
    if !maps[0].exprs.iter().all(IndexExpr::is_affine) {
        return None;
    }
    let output = &n.outputs[0];
    let apart = |v: &u32| if *v == flat { (flat..flat + parts).collect() } else { vec![apart.place(*v)] };
    let axes: Vec<u32> = output.variables.iter().flat_map(apart).collect();
    let Op::Norm { kind, epsilon, .. } = n.op else { return None };
    let node = Node {
        op: Op::Norm { kind, over: (flat..flat + parts).collect(), epsilon },
        maps: maps.clone().into(),
        outputs: vec![Output { variables: axes, ..output.clone() }],
        variables: variables.into(),
        ..Node::clone(&n)
    };
    let names = ["x", "g", "b"];
    let reads = maps.into_iter().zip(names).map(|(map, name)| Read { value: m.id(name), map }).collect();
    let value = build::add(m.graph, &node, reads);
    let (frame, name) = outer.as_ref().map_or((&n, "n"), |view| (view, "v"));
    let whole: Vec<IndexExpr> = match &outer {
        Some(view) => view.maps[0].exprs.clone(),
        None => output.variables.iter().map(|v| IndexExpr::variable(*v)).collect(),
    };
    let frame_size = |v: u32| frame.size_of(v);
    let exprs = output.variables.iter().zip(whole).flat_map(|(v, position)| {
        if *v != flat {
            return vec![position];
        }
        let part = |(stride, size): (&i64, &i64)| {
            let quotient = position.floor_div(&Size::from(*stride), &frame_size);
            quotient.remainder(&Size::from(*size), &frame_size)
        };
        strides.iter().zip(&sizes).map(part).collect()
    });
    let read = Read { value, map: IndexMap::new(exprs.collect()) };
    Some(m.view(name, read))
}

const NORM: Rule = Rule {
    name: "norm-over-flattened-axes",
    class: Class::Real,
    law: "norm over axes made one = norm over the axes",
    source: "statistics of a set do not depend on how it is numbered; group normalisation (Wu and He, 2018)",
    find: Find::Patterns(
        &[
            "(norm-layer ?n ?x ?g)",
            "(norm-layer ?n ?x ?g ?b)",
            "(norm-rms ?n ?x ?g)",
            "(view ?v (norm-layer ?n ?x ?g))",
            "(view ?v (norm-layer ?n ?x ?g ?b))",
            "(view ?v (norm-rms ?n ?x ?g))",
        ],
        over_axes,
    ),
    guard: &[],
    examples: &["axis e = b * c   param @g: f32[e] param @h: f32[a]
fn @f(%x: f32[a, b, c]) -> f32[a, b, c] {
  %n = norm layer(eps = 1e-5) : %x[a, {e} // |c|, {e} % |c|], @g[e], @h[a] -> [a, {e}]
  %v = view %n[a, |c|*b + c] -> [a, b, c]
  return %v
}"],
};

const PRODUCT: Rule = Rule {
    name: "product-over-flattened-axes",
    class: Class::Real,
    law: "a sum over axes made one = the sum over the axes",
    source: "a sum does not depend on how its terms are numbered",
    find: Find::Patterns(&["(dot ?d ?x ?w)", "(dot ?d (view ?v ?x) ?w)"], product_over_axes),
    guard: &[],
    examples: &[
        "axis e = 4   axis f = 2   axis h = 3   axis k = 24   param @u: f32[e, d] param @w: f32[b, k]
fn @f(%x: f32[a, d, f, h]) -> f32[a, b] {
  %c = dot %x[a, {d}, f, h], @u[e, {d}] -> [a, e, f, h]
  %t = map relu : %c[a, e, f, h] -> [a, e, f, h]
  %v = view %t[a, k // 6, (k // 3) % 2, k % 3] -> [a, k]
  %r = dot %v[a, {k}], @w[b, {k}] -> [a, b]
  return %r
}",
        "axis e = 3   axis f = 2   axis h = 4   axis m = 4   axis k = 24   param @u: f32[e, d] param @w: i8[k, b]
fn @f(%x: f32[d, h, m]) -> i32[f, b] {
  %c = dot %x[{d}, h, m], @u[e, {d}] -> [e, h, m]
  %t = map cast(u8, round($0)) : %c[e, h, m] -> [e, h, m]
  %v = view %t[k // 8, 2 * f + (k // 4) % 2, k % 4] -> [f, k]
  %r = dot %v[f, {k}], @w[{k}, b] -> [f, b]
  return %r
}",
    ],
};

pub const RULES: &[Rule] = &[NORM, PRODUCT];
