//! Normalisations over axes that were made one, as group normalisation is written: over the axes as they are, values are read where
//! they lie.

use crate::rewrite::{
    egraph::{Read, build, compose::compose},
    rule::{Class, Find, Match, Rule},
};
use egg::Id;
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
    let mut above = total;
    let sizes: Vec<i64> = strides.iter().map(|stride| std::mem::replace(&mut above, *stride) / stride).collect();
    let place = |v: u32| if v > flat { v + parts - 1 } else { v };
    let mut variables = Vec::new();
    for (v, variable) in n.variables.iter().enumerate() {
        if v as u32 != flat {
            variables.push(variable.clone());
            continue;
        }
        variables.extend(sizes.iter().enumerate().map(|(part, size)| {
            let name = format!("{}_{part}", variable.name);
            Variable::named(name.clone(), &Axis::new(name, Size::from(*size)))
        }));
    }
    let position = |v: u32| {
        if v != flat {
            return IndexExpr::variable(place(v));
        }
        let terms = strides.iter().enumerate();
        let terms = terms.map(|(part, stride)| (Atom::Variable(flat + part as u32), Size::from(*stride)));
        IndexExpr::new(terms, Size::ZERO)
    };
    let size_of = |v: u32| variables[v as usize].size().clone();
    let positions: Vec<IndexExpr> = (0..n.variables.len() as u32).map(position).collect();
    let maps: Vec<IndexMap> = n.maps.iter().map(|map| compose(map, &positions, &size_of)).collect();
    if !maps[0].exprs.iter().all(IndexExpr::is_affine) {
        return None;
    }
    let output = &n.outputs[0];
    let apart = |v: &u32| if *v == flat { (flat..flat + parts).collect() } else { vec![place(*v)] };
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

pub const RULES: &[Rule] = &[Rule {
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
}];
