//! Projections of attention put together: those of queries and keys, and those of values and results. Where the projected axis is longer than
//! what it is projected from, the product of the two weights is the smaller one; extraction decides.

use super::parts::{distinct, mentions_none};
use crate::rewrite::{
    egraph::{Graph, Read, build},
    rule::{Class, Find, Match, Rule},
};
use egg::Id;
use strang_ir::{IndexMap, Node, Output, Shared, Variable};

/// Where the variables of a product stand among those of a reader: its output where it is read, its own contracted ones after all that there
/// are. `None` for a product that is read in parts or with a fill.
fn places(reader: &[u32], inner: &Node, variables: &mut Vec<Variable>) -> Option<Vec<u32>> {
    if inner.maps.iter().any(|map| map.fill.is_some()) {
        return None;
    }
    let mut places = vec![0; inner.variables.len()];
    for (variable, axis) in reader.iter().zip(&inner.outputs[0].variables) {
        if variables.get(*variable as usize)?.size() != inner.variables[*axis as usize].size() {
            return None;
        }
        places[*axis as usize] = *variable;
    }
    for variable in inner.contracted() {
        places[variable as usize] = variables.len() as u32;
        variables.push(inner.variables[variable as usize].clone());
    }
    Some(places)
}

/// Products of two reads in given variables, summed over some of them.
struct Products<'a> {
    /// What it is a product like.
    like: &'a Node,
    variables: Shared<Vec<Variable>>,
}

impl Products<'_> {
    /// A product summed over some variables, also where none of its operands is read at them.
    fn of(&self, graph: &mut Graph, a: &Read, b: &Read, summed: &[u32]) -> Read {
        let is_own = |v: &u32| summed.contains(v) || a.map.mentions(*v) || b.map.mentions(*v);
        let own: Vec<u32> = (0..self.variables.len() as u32).filter(is_own).collect();
        let kept: Vec<u32> = own.iter().copied().filter(|v| !summed.contains(v)).collect();
        let value = self.node(graph, a, b, &own, &kept);
        Read { value, map: IndexMap::of_variables(kept) }
    }

    fn node(&self, graph: &mut Graph, a: &Read, b: &Read, own: &[u32], kept: &[u32]) -> Id {
        let place = |variable: u32| own.iter().position(|v| *v == variable).unwrap_or_default() as u32;
        let outputs = Output { variables: kept.iter().map(|v| place(*v)).collect(), ..self.like.outputs[0].clone() };
        let variables = own.iter().map(|v| self.variables[*v as usize].clone()).collect();
        let node = Node { variables, outputs: vec![outputs], ..self.like.clone() };
        let reads = [a, b].map(|read| Read { value: read.value, map: read.map.renumbered(&place) });
        build::add(graph, &node, reads.into())
    }

    /// The last of a chain, with the output of what it is a product like: over all variables but those summed over before.
    fn last(&self, graph: &mut Graph, a: &Read, b: &Read, before: [&[u32]; 2]) -> Id {
        let is_left = |v: &u32| before.iter().all(|summed| !summed.contains(v));
        let own: Vec<u32> = (0..self.variables.len() as u32).filter(is_left).collect();
        self.node(graph, a, b, &own, &self.like.outputs[0].variables)
    }
}

/// Whether products are of floats, of one type and in one accumulator.
fn are_alike(m: &Match, products: &[&str], arrays: &[&str]) -> bool {
    let first = m.node(products[0]);
    let element = first.outputs[0].element;
    element.is_float()
        && products.iter().all(|name| m.node(name).op == first.op && m.node(name).outputs[0].element == element)
        && arrays.iter().all(|name| m.facts(name).element() == element)
}

fn read(m: &Match, name: &str, node: &Node, slot: usize, places: &[u32]) -> Read {
    Read { value: m.id(name), map: node.maps[slot].renumbered(&|variable| places[variable as usize]) }
}

fn queries_and_keys(m: &mut Match) -> Option<Id> {
    if !m.facts("v").constant || !m.facts("w").constant || !are_alike(m, &["d", "e", "f"], &["x", "v", "y", "w"]) {
        return None;
    }
    let (d, e, f) = (m.node("d"), m.node("e"), m.node("f"));
    let mut variables = d.variables.clone();
    let own = variables.len() as u32;
    let left = places(&distinct(&d.maps[0])?, &e, &mut variables)?;
    let middle = variables.len() as u32;
    let right = places(&distinct(&d.maps[1])?, &f, &mut variables)?;
    let (x, v) = (read(m, "x", &e, 0, &left), read(m, "v", &e, 1, &left));
    let (y, w) = (read(m, "y", &f, 0, &right), read(m, "w", &f, 1, &right));
    let summed = d.contracted();
    if !mentions_none(&x.map, &summed) || !mentions_none(&y.map, &summed) {
        return None;
    }
    let products = Products { like: &d, variables };
    let weights = products.of(m.graph, &v, &w, &summed);
    let contracted: Vec<u32> = (own..middle).collect();
    let queries = products.of(m.graph, &x, &weights, &contracted);
    Some(products.last(m.graph, &queries, &y, [&summed, &contracted]))
}

fn values_and_results(m: &mut Match) -> Option<Id> {
    if !m.facts("w").constant || !m.facts("u").constant || !are_alike(m, &["d", "g", "f"], &["p", "y", "w", "u"]) {
        return None;
    }
    let (d, g, f) = (m.node("d"), m.node("g"), m.node("f"));
    // The weights of attention stand first or second.
    let (probability, value) = if m.pattern == 0 { (0, 1) } else { (1, 0) };
    if d.maps.iter().any(|map| map.fill.is_some()) {
        return None;
    }
    let mut variables = d.variables.clone();
    let outer = places(&distinct(&d.maps[0])?, &g, &mut variables)?;
    let middle = variables.len() as u32;
    let reader: Vec<u32> = distinct(&g.maps[value])?.into_iter().map(|variable| outer[variable as usize]).collect();
    let inner = places(&reader, &f, &mut variables)?;
    let p = read(m, "p", &g, probability, &outer);
    let (y, w) = (read(m, "y", &f, 0, &inner), read(m, "w", &f, 1, &inner));
    let u = Read { value: m.id("u"), map: d.maps[1].clone() };
    // What is summed over the two weights alone.
    let summed: Vec<u32> = d
        .contracted()
        .into_iter()
        .filter(|variable| !p.map.mentions(*variable) && !y.map.mentions(*variable))
        .collect();
    if summed.is_empty() {
        return None;
    }
    let contracted: Vec<u32> = (middle..variables.len() as u32).collect();
    let products = Products { like: &d, variables };
    let weights = products.of(m.graph, &w, &u, &summed);
    let values = products.of(m.graph, &y, &weights, &contracted);
    Some(products.last(m.graph, &p, &values, [&summed, &contracted]))
}

pub const RULES: &[Rule] = &[
    Rule {
        name: "queries-and-keys",
        class: Class::Real,
        law: "(x v) (y w)^T = (x (v w^T)) y^T",
        source: "associativity; the QK circuit of a head (Elhage et al. 2021)",
        find: Find::Patterns(&["(dot ?d (dot ?e ?x ?v) (dot ?f ?y ?w))"], queries_and_keys),
        guard: &[],
        examples: &["param @v: f32[b, c, d] param @w: f32[b, c, d]
fn @f(%x: f32[a, b], %y: f32[a, b]) -> f32[c, a, a] {
  %q = dot %x[a, {b}], @v[{b}, c, d] -> [a, c, d]
  %k = dot %y[a, {b}], @w[{b}, c, d] -> [a, c, d]
  %s = dot %q[a, c, {d}], %k[a', c, {d}] -> [c, a, a']
  return %s
}"],
    },
    Rule {
        name: "values-and-results",
        class: Class::Real,
        law: "(p (y w)) u = p (y (w u))",
        source: "associativity; the OV circuit of a head (Elhage et al. 2021)",
        find: Find::Patterns(
            &["(dot ?d (dot ?g ?p (dot ?f ?y ?w)) ?u)", "(dot ?d (dot ?g (dot ?f ?y ?w) ?p) ?u)"],
            values_and_results,
        ),
        guard: &[],
        examples: &[
            "param @w: f32[b, c, d] param @u: f32[c, d, b]
fn @f(%p: f32[c, a, a], %y: f32[a, b]) -> f32[a, b] {
  %v = dot %y[a, {b}], @w[{b}, c, d] -> [a, c, d]
  %o = dot %p[c, a, {a'}], %v[{a'}, c, d] -> [a, c, d]
  %r = dot %o[a, {c}, {d}], @u[{c}, {d}, b] -> [a, b]
  return %r
}",
            "param @w: f32[b, d] param @u: f32[d, b]
fn @f(%p: f32[a, a], %y: f32[a, b]) -> f32[a, b] {
  %v = dot %y[a, {b}], @w[{b}, d] -> [a, d]
  %o = dot %v[{a'}, d], %p[a, {a'}] -> [a, d]
  %r = dot %o[a, {d}], @u[{d}, b] -> [a, b]
  return %r
}",
        ],
    },
];
